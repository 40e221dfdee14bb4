"""ODIS: self-distillation of objects (arXiv:2506.05409), with iBOT (arXiv:2111.07832) and DINO (arXiv:2104.14294).

    view -> ViT -> [OBJ] and patches -> head -> logits of K prototypes

A student learns from a teacher, its moving average, which sees two global views of the image: its [OBJ] token must
name the prototypes that the teacher's [OBJ] names in *another* view (object loss), and its tokens of hidden patches
those of the teacher's patches in the *same* view (patch loss). [OBJ] attends, in every block, only to the patches of
one object. With [CLS] in its place, and full attention, the first loss is that of DINO, and both are those of iBOT.

No code of ODIS is public: what is not in its paper's abstract, its authors' blog or its reviews is taken from iBOT.

The training objective calls, in training mode, once per step:

    Odis.loss(views: Views, *, epoch: float, momentum: float, ranks: RankOps = RankOps()) -> dict[str, Tensor]

`layers.patches.patches_of_boxes` makes the object masks, `layers.normalisation.normalise` the pixels of the views;
`Odis.patch` is the side of a patch in pixels, `Odis.objects` is O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..core.errors import UsageError
from ..core.types import Batch, Prediction
from .checkpoints.vit import read_networks, translate
from .layers.projection import Kind, ProjectionHead
from .layers.vit import DINO_OFFSET, VisionTransformer
from .ranks import RankOps
from .reading import PatchEncoder, Reading, pool

Layout = Literal["obj", "cls_obj", "cls"]


@dataclass(frozen=True)
class Views:
    """What one step sees of B images: 2 global views of S x S pixels, L local ones of s x s.

    globals: (2, B, 3, S, S), from `normalise`. locals: (L, B, 3, s, s), L may be 0. objects: (2, B, O, P) bool, the
    patches of the global views in row-major order that [OBJ] may attend to; no patch leaves it alone with itself.
    present: (2 + L, B) bool, the views that show the object; others are left out of the object loss. hidden: (2, B, P)
    bool, patches of the global views that the student does not see.
    """

    globals: Tensor
    locals: Tensor
    objects: Tensor
    present: Tensor
    hidden: Tensor


def targets(logits: Tensor, centre: Tensor, temperature: Tensor | float) -> Tensor:
    """What the student is to say: the teacher's logits (..., K), centred and sharpened, as probabilities."""
    return ((logits - centre) / temperature).softmax(-1)


def cross_view_loss(student: Tensor, target: Tensor, present: Tensor, temperature: float) -> Tensor:
    """Cross entropy of each of the teacher's 2 views with all *other* views; a scalar.

    student: (V, B, O, K) logits. target: (2, B, O, K) probabilities, of the first two views. present: (V, B) bool; a
    pair counts where both views show the object. The mean is over all 2 (V - 1) pairs and all B images, absent ones
    included as 0, so an image without an object does not give the others more weight.
    """
    entropy = -torch.einsum("qbok,vbok->qvb", target, (student / temperature).log_softmax(-1)) / student.shape[2]
    views = len(student)
    other = ~torch.eye(views, dtype=torch.bool, device=student.device)[:2]
    counted = other[:, :, None] & present[:2, None] & present[None]
    return (entropy * counted).sum() / (2 * (views - 1) * student.shape[1])


def patch_loss(student: Tensor, target: Tensor, hidden: Tensor, temperature: float) -> Tensor:
    """Cross entropy at hidden patches: mean over those of a view, then over the N views; a scalar.

    student, target: (M, K) logits and probabilities of the M hidden patches, in order. hidden: (N, P) bool. A view
    where nothing is hidden counts as 0.
    """
    entropy = -(target * (student / temperature).log_softmax(-1)).sum(-1)
    share = 1 / hidden.sum(1, keepdim=True).clamp(min=1).to(entropy.dtype)
    return (entropy * share.expand(hidden.shape)[hidden]).sum() / len(hidden)


class Network(nn.Module):
    """What student and teacher have."""

    def __init__(self, backbone: VisionTransformer, head: ProjectionHead) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head


class Odis(nn.Module):
    """The model around a vision transformer.

    vit: options of `VisionTransformer`. layout: the special tokens: `obj` ([OBJ] in the place of [CLS], the same
    parameters), `cls_obj` ([CLS] and `objects` tokens [OBJ]), or `cls` (no objects: DINO, iBOT). object_weight,
    patch_weight, image_weight: of the three losses; 0 leaves one out. masked_attention: [OBJ] attends to the patches of
    the object in global views; otherwise, and in local views, to everything. object_from: the object is its token, or
    the mean of its patches (`pool`), an ablation of the paper.
    out_dim: K. shared_head, norm_last_layer, hidden, bottleneck: see `ProjectionHead`. teacher_temperature: from
    `warmup_temperature`, linear over `temperature_epochs`. freeze_last_layer: epochs in which the prototypes do not
    learn. drop_path: stochastic depth of the student. token, margin, use_boxes, attention: see `reading.Reading`.
    """

    def __init__(
        self,
        vit: Mapping[str, Any],
        *,
        layout: Layout = "obj",
        objects: int = 1,
        object_sees_class: bool = True,
        object_weight: float = 1.0,
        patch_weight: float = 1.0,
        image_weight: float = 0.0,
        masked_attention: bool = True,
        object_from: Literal["token", "pool"] = "token",
        out_dim: int = 8192,
        patch_out_dim: int | None = None,
        hidden: int = 2048,
        bottleneck: int = 256,
        shared_head: bool = True,
        norm_last_layer: bool = False,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.07,
        warmup_temperature: float = 0.04,
        temperature_epochs: float = 30,
        centre_momentum: float = 0.9,
        freeze_last_layer: float = 1.0,
        drop_path: float = 0.1,
        input_size: int = 224,
        token: str | None = None,
        margin: int = 0,
        use_boxes: bool = True,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.weights: dict[Kind, float] = {"image": image_weight, "object": object_weight, "patch": patch_weight}
        _check(layout, objects, self.weights, object_from)
        self.layout, self.object_from, self.masked_attention = layout, object_from, masked_attention
        self.student_temperature, self.centre_momentum = student_temperature, centre_momentum
        self.warmup_temperature, self.temperature_epochs = warmup_temperature, temperature_epochs
        self.last_temperature, self.freeze_last_layer = teacher_temperature, freeze_last_layer
        shape = {**vit, "grid": input_size // vit["patch"], "position_offset": DINO_OFFSET}
        shape |= {"objects": objects if layout == "cls_obj" else 0, "object_sees_class": object_sees_class}
        own_layers = {"objects": layout == "cls_obj", "patches": patch_weight > 0, "patch_out_dim": patch_out_dim}
        head: dict[str, Any] = {"hidden": hidden, "bottleneck": bottleneck, "shared": shared_head, **own_layers}

        def network(**student: Any) -> Network:
            backbone = VisionTransformer(**shape, **student)
            return Network(backbone, ProjectionHead(backbone.dim, out_dim, norm_last_layer=norm_last_layer, **head))

        self.student = network(mask_token=patch_weight > 0, drop_path=drop_path)
        self.teacher = network().requires_grad_(False)
        self.teacher.load_state_dict({name: self.student.state_dict()[name] for name in self.teacher.state_dict()})
        for kind, weight in self.weights.items():
            if weight:
                width = patch_out_dim or out_dim if kind == "patch" else out_dim
                self.register_buffer(f"centre_{kind}", torch.zeros(1, width))
        described = {"pool": "pool", "token": "cls" if layout == "cls" else "obj"}[object_from]
        self.input_size, self.patch, self.objects = input_size, self.student.backbone.patch, objects
        object_token = "cls" if layout == "cls" else "obj"
        self.reading = Reading(token or described, object_token, margin, use_boxes, attention)
        self.reading.check(self.teacher.backbone)
        self.reads_boxes = self.reading.reads_boxes

    def loss(self, views: Views, *, epoch: float, momentum: float, ranks: RankOps = RankOps()) -> dict[str, Tensor]:
        """One training step up to the loss; moves the teacher and the centres. Call it in training mode.

        The teacher first moves towards the student as the last step of the optimiser left it. momentum: of the teacher,
        such as `training.lars.teacher_momentum`, 0.996 at the first step and 1 at the last one. epoch: epochs that are
        done, may be fractional; it sets the teacher's temperature and the end of `freeze_last_layer`.
        Returns scalars: "total", with gradient; "object", "patch", "image", where they are used; "entropy" of the
        targets of objects or images, in nats (log K: the teacher says nothing, 0: it has collapsed or is sure);
        "coverage", the share of images whose object is in both global views. With equal shares of a batch the mean of
        the totals over the ranks is the total of the whole batch.
        """
        temperature, frozen = self._schedule(epoch)
        images, within = views.globals.flatten(0, 1), views.objects.flatten(0, 1)
        attended = within if self.masked_attention and self.layout != "cls" else None
        with torch.no_grad():
            self.update_teacher(momentum)
            teacher = self.teacher.backbone(images, attended)
        hidden = views.hidden.flatten(0, 1) if self.weights["patch"] else None
        student = self.student.backbone(images, attended, hidden)
        local = self.student.backbone(views.locals.flatten(0, 1)) if len(views.locals) else None
        terms: dict[str, Tensor] = {}
        total = torch.zeros((), dtype=temperature.dtype, device=temperature.device)
        for kind in ("image", "object"):
            if self.weights[kind]:
                present = views.present if kind == "object" else torch.ones_like(views.present)
                said = [self.student.head(self._describe(student, within, kind), kind, frozen=frozen)]
                if local is not None:
                    said.append(self.student.head(self._describe(local, None, kind), kind, frozen=frozen))
                known = self.teacher.head(self._describe(teacher, within, kind), kind).unflatten(0, (2, -1))
                target = targets(known, self._centre(kind), temperature)
                logits = torch.cat(said).unflatten(0, (len(views.present), -1))
                terms[kind] = cross_view_loss(logits, target, present, self.student_temperature)
                terms["entropy"] = torch.special.entr(target).sum(-1).mean()
                self._move_centre(kind, known.mean((0, 1, 2)), ranks)
                total = total + self.weights[kind] * terms[kind]
        if hidden is not None:
            terms["patch"] = self._patch_term(student, teacher, hidden, temperature, frozen, ranks)
            total = total + self.weights["patch"] * terms["patch"]
        terms["coverage"] = views.present[:2].all(0).to(total.dtype).mean()
        return {"total": total, **{name: value.detach() for name, value in terms.items()}}

    def _describe(self, tokens: Tensor, within: Tensor | None, kind: Kind) -> Tensor:
        """The tokens (n, O, D) that stand for image or objects, of all tokens (n, N, D). within: (n, O, P) bool."""
        backbone = self.student.backbone
        if kind == "image":
            return tokens[:, :1]
        if self.object_from == "token":
            return tokens[:, backbone.first_object : backbone.first_object + self.objects]
        patches = tokens[:, backbone.prefix :]
        return patches.mean(1, keepdim=True).expand(-1, self.objects, -1) if within is None else pool(patches, within)

    @torch.compiler.disable  # the number of hidden patches differs from step to step
    def _patch_term(
        self, student: Tensor, teacher: Tensor, hidden: Tensor, temperature: Tensor, frozen: bool, ranks: RankOps
    ) -> Tensor:
        """Patch loss from all tokens (N, 1 + .. + P, D) of both; logits are made of hidden patches only.

        The centre is that of all patches: the last layer is linear, so it takes the mean of what goes into it.
        """
        prefix = self.student.backbone.prefix
        with torch.no_grad():
            unit = self.teacher.head.project(teacher[:, prefix:])
            target = targets(self.teacher.head.logits(unit[hidden], "patch"), self._centre("patch"), temperature)
        logits = self.student.head(student[:, prefix:][hidden], "patch", frozen=frozen)
        loss = patch_loss(logits, target, hidden, self.student_temperature)
        self._move_centre("patch", self.teacher.head.logits(unit.mean((0, 1)), "patch"), ranks)
        return loss

    @torch.compiler.disable  # the momentum differs from step to step
    @torch.no_grad()
    def update_teacher(self, momentum: float) -> None:
        """Teacher's parameters <- momentum x teacher + (1 - momentum) x student, except for `masked_embed`."""
        ours = dict(self.student.named_parameters())
        names = [name for name, _ in self.teacher.named_parameters()]
        torch._foreach_lerp_(list(self.teacher.parameters()), [ours[name] for name in names], 1 - momentum)

    @torch.compiler.disable  # the epoch differs from step to step
    def _schedule(self, epoch: float) -> tuple[Tensor, bool]:
        """The teacher's temperature as a tensor, and whether the last layer is frozen.

        As in the official code the last temperature is reached in the last of the warm-up's epochs, not after it.
        """
        progress = min(1.0, epoch / (self.temperature_epochs - 1)) if self.temperature_epochs > 1 else 1.0
        temperature = self.warmup_temperature + progress * (self.last_temperature - self.warmup_temperature)
        weight = self.teacher.head.last_layer.weight_g
        wide = torch.promote_types(weight.dtype, torch.float32)
        return torch.tensor(temperature, dtype=wide, device=weight.device), epoch < self.freeze_last_layer

    def _centre(self, kind: Kind) -> Tensor:
        return self.get_buffer(f"centre_{kind}")

    @torch.no_grad()
    def _move_centre(self, kind: Kind, mean: Tensor, ranks: RankOps) -> None:
        """The centre follows the mean of the teacher's logits (K,) over all ranks, those of absent objects included."""
        centre = self._centre(kind)
        centre.lerp_(ranks.mean(mean).to(centre.dtype).unsqueeze(0), 1 - self.centre_momentum)

    def predict(self, batch: Batch) -> Prediction:
        """The teacher's view of whole images, see `reading.Reading`; the model must be in evaluation mode."""
        return self.reading.predict(self.teacher.backbone, batch)

    def as_encoder(self) -> PatchEncoder:
        """The teacher's backbone as the frozen encoder of a slot model."""
        return PatchEncoder(self.teacher.backbone)

    def read_checkpoint(self, path: Path) -> dict[str, Tensor]:
        """Tensors of a checkpoint file, official ones (with the training's arguments and optimiser) included."""
        return read_networks(path)

    def translate_checkpoint(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Names of official checkpoints -> ours; see `vit_checkpoints.translate`."""
        return translate(state, self.state_dict())


def _check(layout: str, objects: int, weights: Mapping[Kind, float], object_from: str) -> None:
    """Raises UsageError for options that contradict each other."""
    _check_choice("layout", layout, get_args(Layout))
    _check_choice("object_from", object_from, ("token", "pool"))
    if objects < 1 or (objects > 1 and layout != "cls_obj"):
        raise UsageError(f"option objects: {objects} with layout {layout}; 1, or more with layout cls_obj")
    if not any(weights.values()):
        raise UsageError("options object_weight, patch_weight, image_weight: one of them must not be 0")
    if layout == "cls" and (weights["object"] or object_from == "pool"):
        raise UsageError("option layout: cls has no objects; set object_weight to 0 and image_weight to 1, or use obj")
    if layout == "obj" and weights["image"]:
        raise UsageError("option layout: obj has no [CLS] token; set image_weight to 0, or use cls or cls_obj")


def _check_choice(option: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"option {option}: {value!r} is unknown; use {' or '.join(map(str, allowed))}")


ARCHITECTURES: dict[str, dict[str, int]] = {
    "vit_tiny": {"dim": 192, "depth": 12, "heads": 3},
    "vit_small": {"dim": 384, "depth": 12, "heads": 6},
    "vit_base": {"dim": 768, "depth": 12, "heads": 12},
    "vit_large": {"dim": 1024, "depth": 24, "heads": 16},
    "small": {"dim": 96, "depth": 4, "heads": 4},
}
"""Sizes of vision transformers; each of these numbers may be given as an option, too."""

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"arch": "vit_small", "patch": 16},
    "embedded": {
        "arch": "small",
        "patch": 8,
        "input_size": 128,
        "hidden": 256,
        "bottleneck": 64,
        "out_dim": 512,
        "drop_path": 0.0,
    },
}
"""Options of the two sizes; the others are those of `Odis`."""


def build(*, preset: Literal["paper", "embedded"] = "paper", **options: Any) -> Odis:
    """Factory of the cards `odis-paper`, `ibot-paper`, `dino-paper` and of the embedded ones.

    options: `arch`, `patch`, `stem`, `dim`, `depth`, `heads`, and the keywords of `Odis`. Raises UsageError.
    """
    _check_choice("preset", preset, tuple(PRESETS))
    options = {**PRESETS[preset], **options}
    arch = options.pop("arch")
    _check_choice("arch", arch, tuple(ARCHITECTURES))
    vit: dict[str, Any] = {name: options.pop(name, value) for name, value in ARCHITECTURES[arch].items()}
    vit |= {"patch": options.pop("patch"), "stem": options.pop("stem", "linear")}
    return Odis(vit, **options).eval()


def build_random(seed: int, **options: Any) -> Odis:
    """Factory of the card `odis-random`: weights are a pure function of the seed, options as in `build`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(**options)

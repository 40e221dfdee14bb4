"""ODIS: self-distillation of objects (arXiv:2506.05409), with iBOT (arXiv:2111.07832) and DINO (arXiv:2104.14294).

    view -> ViT -> [OBJ] and patches -> head -> logits of K prototypes

A student learns from a teacher, its moving average, which sees two global views of the image. The student's [OBJ]
token must predict the prototypes of the teacher's [OBJ] in *another* view (object loss). Its tokens of hidden patches
must predict those of the teacher's patches in the *same* view (patch loss). In every block, [OBJ] attends only to the
patches of one object. With [CLS] in its place and full attention, the first loss is DINO's, and both are iBOT's.

ODIS has no public code. The paper's abstract, its authors' blog and its reviews say what the method is; everything
else follows iBOT (bytedance/ibot, commit da316d8: `main_ibot.py`, `models/head.py`, `models/vision_transformer.py`).
Comments name the places where a public follow-up (KarahanS/Cross-Time-Self-Distillation) decided instead.

The training objective calls `Odis.loss(views, epoch=.., momentum=.., ranks=..)` in training mode, once per step.
`layers.patches.patches_of_boxes` makes the object masks, `layers.normalisation.normalise` the pixels of the views.
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
from .layers.projection import ProjectionHead, TokenKind
from .layers.vit import DINO_OFFSET, VisionTransformer
from .losses import cross_view_loss, distillation_monitors, patch_loss, sinkhorn_targets, targets, view_contrast
from .options import also_takes, check_choice
from .ranks import RankOps
from .reading import PatchEncoder, Reading, attention_keys, pool

Layout = Literal["obj", "cls_obj", "cls"]


@dataclass(frozen=True)
class Views:
    """Input of one training step: 2 global views (S x S pixels) and L local views (s x s) of B images.

    Attributes:
        globals: (2, B, 3, S, S), from `normalise`.
        locals: (L, B, 3, s, s), likewise; L may be 0.
        objects: (2, B, O, P) bool, the patches of the global views that [OBJ] may attend to, in row-major order.
            [OBJ] always attends to itself, so a row without patches is allowed.
        present: (2 + L, B) bool, the views that show the object; other views do not enter the object loss.
        hidden: (2, B, P) bool, patches of the global views that the student does not see.
    """

    globals: Tensor
    locals: Tensor
    objects: Tensor
    present: Tensor
    hidden: Tensor


class OdisNetwork(nn.Module):
    """Student or teacher: a backbone and a projection head, under the official names."""

    def __init__(self, backbone: VisionTransformer, head: ProjectionHead) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head


class Odis(nn.Module):
    """ODIS, iBOT or DINO around a vision transformer; the options say which.

    Args:
        vit: options of `VisionTransformer`.
        layout: the special tokens. `obj`: [OBJ] in the place of [CLS], with the same parameters (authors' blog);
            `cls_obj`: [CLS] and `objects` tokens [OBJ] (the follow-up's code); `cls`: no objects (DINO, iBOT).
        objects: O, the number of [OBJ] tokens; all reported results have 1.
        object_sees_class: whether [OBJ] attends to [CLS] in the layout `cls_obj`.
        object_weight, patch_weight, image_weight: weights of the three losses; 0 switches one off.
        masked_attention: whether [OBJ] attends to the object's patches only, in global views. In local views it
            attends to everything.
        object_from: what describes the object: its token, or the mean of its patches (`pool`), an ablation.
        out_dim, patch_out_dim: K of the prototypes, and that of the patches if it differs.
        hidden, bottleneck, shared_head, norm_last_layer, batch_norm: see `ProjectionHead`.
        assignment: how the teacher's logits become targets: `centre` (the papers') or `sinkhorn`, see
            `losses.sinkhorn_targets`.
        contrast_weight: weight of InfoNCE between the global views of an object, or of an image in the layout `cls`. It
            belongs to none of the papers. Alone it needs no teacher, which still follows the student.
        contrast_temperature: divides its cosines.
        student_temperature: divides the student's logits.
        teacher_temperature: divides the teacher's logits; reached from `warmup_temperature` linearly over
            `temperature_epochs`.
        centre_momentum: share of the old centre that each step keeps.
        freeze_last_layer: epochs in which the prototypes are not trained.
        drop_path: stochastic depth of the student's last block.
        input_size: side in pixels of the images that the model is evaluated on.
        token, margin, use_boxes, attention, token_blocks: see `reading.Reading`.

    Raises:
        UsageError: an option is unknown or contradicts another one.
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
        batch_norm: bool = False,
        assignment: Literal["centre", "sinkhorn"] = "centre",
        contrast_weight: float = 0.0,
        contrast_temperature: float = 0.1,
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
        token_blocks: int = 1,
    ) -> None:
        super().__init__()
        # Object 1 and patch 1 is ODIS, image 1 and patch 1 is iBOT, image 1 alone is DINO.
        self.weights: dict[TokenKind, float] = {"image": image_weight, "object": object_weight, "patch": patch_weight}
        _check(layout, objects, self.weights, object_from, contrast_weight)
        check_choice("assignment", assignment, ("centre", "sinkhorn"))
        self.assignment = assignment
        self.contrast_weight, self.contrast_temperature = contrast_weight, contrast_temperature
        self.contrasted: TokenKind = "image" if layout == "cls" else "object"
        self.layout, self.object_from, self.masked_attention = layout, object_from, masked_attention
        self.student_temperature, self.centre_momentum = student_temperature, centre_momentum
        self.warmup_temperature, self.temperature_epochs = warmup_temperature, temperature_epochs
        self.last_temperature, self.freeze_last_layer = teacher_temperature, freeze_last_layer
        shape = {**vit, "grid": input_size // vit["patch"], "position_offset": DINO_OFFSET}
        shape |= {"objects": objects if layout == "cls_obj" else 0, "object_sees_class": object_sees_class}
        last_layers = {"objects": layout == "cls_obj", "patches": patch_weight > 0, "patch_out_dim": patch_out_dim}
        head: dict[str, Any] = {"hidden": hidden, "bottleneck": bottleneck, "shared": shared_head, **last_layers}
        head["batch_norm"] = batch_norm

        def network(**student: Any) -> OdisNetwork:
            backbone = VisionTransformer(**shape, **student)
            return OdisNetwork(backbone, ProjectionHead(backbone.dim, out_dim, norm_last_layer=norm_last_layer, **head))

        self.student = network(mask_token=patch_weight > 0, drop_path=drop_path)
        # The teacher sees all patches and all blocks: it has neither a mask vector nor stochastic depth.
        self.teacher = network().requires_grad_(False)
        self.teacher.load_state_dict({name: self.student.state_dict()[name] for name in self.teacher.state_dict()})
        for kind, weight in self.weights.items():
            if weight and assignment == "centre":
                width = patch_out_dim or out_dim if kind == "patch" else out_dim
                self.register_buffer(f"centre_{kind}", torch.zeros(1, width))
        described = {"pool": "pool", "token": "cls" if layout == "cls" else "obj"}[object_from]
        self.input_size, self.patch, self.objects = input_size, self.student.backbone.patch, objects
        object_token = "cls" if layout == "cls" else "obj"
        self.reading = Reading(token or described, object_token, margin, use_boxes, attention, token_blocks)
        self.reading.check(self.teacher.backbone)
        self.reads_boxes = self.reading.reads_boxes

    def loss(self, views: Views, *, epoch: float, momentum: float, ranks: RankOps = RankOps()) -> dict[str, Tensor]:
        """Compute the training loss of one step; also moves the teacher and the centres. Needs training mode.

        Args:
            views: the step's input.
            epoch: epochs done so far, may be fractional. It sets the teacher's temperature and the end of
                `freeze_last_layer`.
            momentum: of the teacher, such as `training.lars.teacher_momentum`: 0.996 at the first step, 1 at the last.
            ranks: the other processes of the training.

        Returns:
            Scalars. "total" has a gradient. "object", "patch", "image" and "contrast" are present where they are used.
            "entropy" is that of the objects' or images' targets, in nats: log K means that the teacher is undecided, 0
            that it is certain or has collapsed; `losses.distillation_monitors` says what is beside it. "coverage" is
            the share of images whose object is in both global views. With equal shares of a batch, the mean of the
            totals over the ranks is the total of the whole batch.
        """
        temperature, frozen = self._schedule(epoch)
        images, within = views.globals.flatten(0, 1), views.objects.flatten(0, 1)
        attended = within if self.masked_attention and self.layout != "cls" else None
        teacher: Tensor | None = None
        with torch.no_grad():
            # Before the teacher's pass, with the student as the last optimiser step left it. iBOT moves the teacher
            # after the optimiser step, which is the same update.
            self.update_teacher(momentum)
            if any(self.weights.values()):
                teacher = self.teacher.backbone(images, attended)
        hidden = views.hidden.flatten(0, 1) if self.weights["patch"] else None
        student = self.student.backbone(images, attended, hidden)
        # Local views have no object mask (follow-up's code): [OBJ] attends to all of a small crop.
        local = self.student.backbone(views.locals.flatten(0, 1)) if len(views.locals) else None
        terms: dict[str, Tensor] = {}
        total = torch.zeros((), dtype=temperature.dtype, device=temperature.device)
        for kind in ("image", "object"):
            contrasted = self.contrast_weight > 0 and kind == self.contrasted
            if not self.weights[kind] and not contrasted:
                continue
            present = views.present if kind == "object" else torch.ones_like(views.present)
            unit = self.student.head.project(self._describe(student, within, kind))
            if contrasted:
                vectors = unit.flatten(1).unflatten(0, (2, -1))
                terms["contrast"] = view_contrast(vectors, present[:2], self.contrast_temperature, ranks)
                total = total + self.contrast_weight * terms["contrast"]
            if self.weights[kind] and teacher is not None:
                units = (
                    [unit] if local is None else [unit, self.student.head.project(self._describe(local, None, kind))]
                )
                outputs = torch.cat([self.student.head.logits(one, kind, frozen=frozen) for one in units])
                logits = outputs.unflatten(0, (len(views.present), -1))
                target, monitors = self._targets(self._describe(teacher, within, kind), kind, temperature, ranks)
                terms[kind] = cross_view_loss(logits, target, present, self.student_temperature)
                terms |= {"entropy": torch.special.entr(target).sum(-1).mean(), **monitors}
                total = total + self.weights[kind] * terms[kind]
        if hidden is not None and teacher is not None:
            terms["patch"] = self._patch_term(student, teacher, hidden, temperature, frozen, ranks)
            total = total + self.weights["patch"] * terms["patch"]
        terms["coverage"] = views.present[:2].all(0).to(total.dtype).mean()
        return {"total": total, **{name: value.detach() for name, value in terms.items()}}

    @torch.no_grad()
    def _targets(
        self, tokens: Tensor, kind: TokenKind, temperature: Tensor, ranks: RankOps
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Targets (2, B, O, K) from the teacher's tokens (2 B, O, D), and monitors; also moves the centre."""
        unit = self.teacher.head.project(tokens)
        logits = self.teacher.head.logits(unit, kind)
        if self.assignment == "sinkhorn":
            target = sinkhorn_targets(logits.flatten(0, 1), temperature, ranks=ranks).view_as(logits)
        else:
            target = targets(logits, self._centre(kind), temperature)
            # After the targets, which use the centre of the step before, as in DINO's `update_center`.
            self._move_centre(kind, logits.mean((0, 1)), ranks)
        return target.unflatten(0, (2, -1)), distillation_monitors(target.flatten(0, 1), unit.flatten(0, 1), ranks)

    def _describe(self, tokens: Tensor, within: Tensor | None, kind: TokenKind) -> Tensor:
        """Select or pool the tokens (n, O, D) of the image or its objects, from all tokens (n, N, D).

        within: (n, O, P) bool, the patches of each object; None = all of them.
        """
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
        """Compute the patch loss from all tokens (N, prefix + P, D) of student and teacher."""
        prefix = self.student.backbone.prefix
        # Only hidden patches get logits, which saves most of the memory: K is 8192.
        with torch.no_grad():
            unit = self.teacher.head.project(teacher[:, prefix:])
            hidden_logits = self.teacher.head.logits(unit[hidden], "patch")
            if self.assignment == "sinkhorn":
                target = sinkhorn_targets(hidden_logits, temperature, ranks=ranks)
            else:
                target = targets(hidden_logits, self._centre("patch"), temperature)
        logits = self.student.head(student[:, prefix:][hidden], "patch", frozen=frozen)
        loss = patch_loss(logits, target, hidden, self.student_temperature)
        if self.assignment == "sinkhorn":
            return loss
        # iBOT's centre is the mean of the logits of all patches. The last layer is linear, so that is the layer's
        # output for the mean of its inputs.
        self._move_centre("patch", self.teacher.head.logits(unit.mean((0, 1)), "patch"), ranks)
        return loss

    @torch.compiler.disable  # the momentum differs from step to step
    @torch.no_grad()
    def update_teacher(self, momentum: float) -> None:
        """Teacher's parameters <- momentum x teacher + (1 - momentum) x student, matched by name."""
        # By name, because the student alone has `masked_embed`.
        student = dict(self.student.named_parameters())
        names = [name for name, _ in self.teacher.named_parameters()]
        torch._foreach_lerp_(list(self.teacher.parameters()), [student[name] for name in names], 1 - momentum)

    @torch.compiler.disable  # the epoch differs from step to step
    def _schedule(self, epoch: float) -> tuple[Tensor, bool]:
        """Return the teacher's temperature as a tensor, and whether the last layer is frozen."""
        # As in DINO and iBOT, the final temperature is reached in the last epoch of the warm-up, not after it.
        progress = min(1.0, epoch / (self.temperature_epochs - 1)) if self.temperature_epochs > 1 else 1.0
        temperature = self.warmup_temperature + progress * (self.last_temperature - self.warmup_temperature)
        weight = self.teacher.head.last_layer.weight_g
        wide = torch.promote_types(weight.dtype, torch.float32)
        return torch.tensor(temperature, dtype=wide, device=weight.device), epoch < self.freeze_last_layer

    def _centre(self, kind: TokenKind) -> Tensor:
        return self.get_buffer(f"centre_{kind}")

    @torch.no_grad()
    def _move_centre(self, kind: TokenKind, mean: Tensor, ranks: RankOps) -> None:
        """Move a centre towards the mean of the teacher's logits (K,) over all ranks."""
        # Images without the object are included, as in the follow-up's code.
        centre = self._centre(kind)
        centre.lerp_(ranks.mean(mean).to(centre.dtype).unsqueeze(0), 1 - self.centre_momentum)

    def predict(self, batch: Batch) -> Prediction:
        """Predict with the teacher on whole images, see `reading.Reading`; the model must be in evaluation mode."""
        return self.reading.predict(self.teacher.backbone, batch)

    def encode_keys(self, batch: Batch) -> Tensor:
        """Keys (B, D, h, w) of the teacher's last attention."""
        return attention_keys(self.teacher.backbone, batch)

    def as_encoder(self) -> PatchEncoder:
        """Return the teacher's backbone as the frozen encoder of a slot model."""
        return PatchEncoder(self.teacher.backbone)

    def read_checkpoint(self, path: Path) -> dict[str, Tensor]:
        """Read the tensors of a checkpoint file; official files also hold arguments and optimiser state."""
        return read_networks(path)

    def translate_checkpoint(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the tensors of an official checkpoint, see `checkpoints.vit.translate`."""
        return translate(state, self.state_dict())


def _check(
    layout: str, objects: int, weights: Mapping[TokenKind, float], object_from: str, contrast_weight: float
) -> None:
    """Raise UsageError for options that contradict each other."""
    check_choice("layout", layout, get_args(Layout))
    check_choice("object_from", object_from, ("token", "pool"))
    if objects < 1 or (objects > 1 and layout != "cls_obj"):
        raise UsageError(f"option objects: {objects} with layout {layout}; 1, or more with layout cls_obj")
    if not any(weights.values()) and not contrast_weight:
        names = "object_weight, patch_weight, image_weight, contrast_weight"
        raise UsageError(f"options {names}: one of them must not be 0")
    if layout == "cls" and (weights["object"] or object_from == "pool"):
        raise UsageError("option layout: cls has no objects; set object_weight to 0 and image_weight to 1, or use obj")
    if layout == "obj" and weights["image"]:
        raise UsageError("option layout: obj has no [CLS] token; set image_weight to 0, or use cls or cls_obj")


ARCHITECTURES: dict[str, dict[str, int]] = {
    "vit_tiny": {"dim": 192, "depth": 12, "heads": 3},
    "vit_small": {"dim": 384, "depth": 12, "heads": 6},
    "vit_base": {"dim": 768, "depth": 12, "heads": 12},
    "vit_large": {"dim": 1024, "depth": 24, "heads": 16},
    "small": {"dim": 96, "depth": 4, "heads": 4},
}
"""Sizes of vision transformers; each of these numbers is also an option of `build`."""

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
"""Options of the two sizes; `Odis` has the defaults of the rest."""


@also_takes("arch", "patch", "stem", "dim", "depth", "heads")
def build(*, preset: Literal["paper", "embedded"] = "paper", **options: Any) -> Odis:
    """Build the model of the cards `odis-paper`, `ibot-paper`, `dino-paper` and of the embedded ones.

    Args:
        preset: the paper's size, or the embedded one.
        options: `arch`, `patch`, `stem`, `dim`, `depth`, `heads`, and the keywords of `Odis`.

    Raises:
        UsageError: an option is unknown or contradicts another one.
    """
    check_choice("preset", preset, tuple(PRESETS))
    options = {**PRESETS[preset], **options}
    arch = options.pop("arch")
    check_choice("arch", arch, tuple(ARCHITECTURES))
    vit: dict[str, Any] = {name: options.pop(name, value) for name, value in ARCHITECTURES[arch].items()}
    vit |= {"patch": options.pop("patch"), "stem": options.pop("stem", "linear")}
    return Odis(vit, **options).eval()


def build_random(seed: int, **options: Any) -> Odis:
    """Build the floor `odis-random`: the network of `build` with random weights, a pure function of the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(**options)

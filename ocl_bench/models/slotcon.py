"""SlotCon: semantic grouping by prototypes, learnt from two views (Wen et al., NeurIPS 2022, arXiv:2205.15288).

    view -> ResNet -> projector -> cosine to K prototypes -> maps (one per prototype) and slots (pooled projections)

A student learns two things from a teacher, its moving average, which sees the other view of the image: pixels of the
same place belong to the same prototypes (group loss), and slots of the same prototype and image resemble each other
more than all other slots (slot loss). Either term can be switched off, which gives the ablations of the paper.

As in the official code (CVMI-Lab/SlotCon, commit 30ff33d), and unlike what one may expect: views pass one by one, as
batch norm must not mix them; the teacher is in training mode and its batch norm statistics are its own, not averages
of the student's; slots pool projections that are not normalised; the maps are aligned before any temperature.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import UsageError
from ..core.types import Batch, Prediction
from .checkpoints.export import read_checkpoint
from .checkpoints.names import rename_keys
from .layers.alignment import align
from .layers.normalisation import normalise
from .layers.resnet import ARCHITECTURES, ResNet, resnet
from .ranks import RankOps

ATTENTION_FLOOR = 1e-6
"""Added to each pixel's weights: a prototype that wins no pixel pools (nearly) the mean of all."""

OFFICIAL_NAMES = (
    (r"center$", "centre"),
    (r"encoder_q\.", "student.encoder."),
    (r"encoder_k\.", "teacher.encoder."),
    (r"projector_q\.mlp\.", "student.projector."),
    (r"projector_k\.mlp\.", "teacher.projector."),
    (r"grouping_q\.slot_embed\.weight$", "student.prototypes"),
    (r"grouping_k\.slot_embed\.weight$", "teacher.prototypes"),
    (r"predictor_slot\.mlp\.", "predictor."),
)
"""Names of the official checkpoints, without the prefix `module.` -> names here; each pattern starts a key."""


def group(z: Tensor, prototypes: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Assign pixels to prototypes in one pass, and pool them.

    z: (B, D, h, w) projections. prototypes: (K, D). Computed in float32 or more, also under autocast.
    Returns slots (B, K, D), the means of z weighted by each pixel's softmax over the prototypes, and dots
    (B, K, h, w), the cosines in [-1, 1].
    """
    with torch.autocast(z.device.type, enabled=False):
        z = z.to(torch.promote_types(z.dtype, torch.float32))
        pixels = z.flatten(2)
        dots = F.normalize(prototypes, dim=1) @ F.normalize(pixels, dim=1)
        attention = (dots / temperature).softmax(1) + ATTENTION_FLOOR
        weights = attention / attention.sum(2, keepdim=True)
        return weights @ pixels.transpose(1, 2), dots.unflatten(2, z.shape[2:])


def presence(dots: Tensor) -> Tensor:
    """Which prototypes win at least one pixel: dots (B, K, h, w) -> (B, K) bool."""
    winners = dots.flatten(2).argmax(1)
    return torch.zeros(dots.shape[:2], dtype=torch.bool, device=dots.device).scatter_(1, winners, True)


def group_loss(
    student: Tensor, teacher: Tensor, centre: Tensor, student_temperature: float, teacher_temperature: float
) -> Tensor:
    """Cross entropy of the prototypes of each pixel, mean over pixels; a scalar.

    student, teacher: (B, K, h, w) cosines of two views on one grid. centre: (1, K), taken from the teacher's, so that
    no prototype wins everywhere.
    """
    target = ((teacher - centre[..., None, None]) / teacher_temperature).softmax(1)
    return F.cross_entropy(student / student_temperature, target)


@torch.compiler.disable  # the number of slots differs from step to step
def slot_loss(
    queries: Tensor,
    keys: Tensor,
    query_mask: Tensor,
    key_mask: Tensor,
    predictor: Callable[[Tensor], Tensor],
    temperature: float,
    ranks: RankOps,
) -> tuple[Tensor, Tensor]:
    """Contrast slots: a student's slot, predicted, must find the teacher's slot of the same image and prototype.

    queries, keys: (B, K, D) slots of student and teacher. query_mask, key_mask: (B, K) bool, slots that are present.
    Only slots that are present in both views ask; all slots of the teacher that are present, of all images of all
    ranks, may answer. As in MoCo v3 the cross entropy is scaled by 2 `temperature`.

    Returns the loss, whose mean over the ranks is the mean over all pairs (the official code lets each rank weigh
    equally), and the number of pairs on all ranks. With fewer than two pairs there are no statistics for the
    predictor's batch norm, and the loss is 0 with gradient 0.
    """
    shared = query_mask & key_mask
    pairs = (ranks.mean(shared.sum().to(keys.dtype)) * ranks.size).round()
    if pairs < 2:
        return queries.sum() * 0, pairs
    counts = ranks.gather(key_mask.sum().view(1))
    columns = counts[: ranks.rank].sum() + key_mask.flatten().cumsum(0).view_as(key_mask) - 1
    present = ranks.gather(keys[key_mask])
    predicted = predictor(queries[shared])
    with torch.autocast(keys.device.type, enabled=False):
        logits = F.normalize(predicted.to(keys.dtype), dim=1) @ F.normalize(present, dim=1).T / temperature
        entropy = F.cross_entropy(logits, columns[shared], reduction="sum")
    return 2 * temperature * entropy * ranks.size / pairs, pairs


class Network(nn.Module):
    """What student and teacher have: encoder, projector (a 3-layer perceptron of each pixel) and prototypes (K, D)."""

    def __init__(self, encoder: ResNet, prototypes: int, hidden: int, dim: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = perceptron(encoder.channels, hidden, dim, pixels=True)
        self.prototypes = nn.Parameter(torch.randn(prototypes, dim))

    def forward(self, image: Tensor) -> Tensor:
        """Normalised image (B, 3, H, W) -> projections z (B, D, h, w)."""
        return cast(Tensor, self.projector(self.encoder(image)))


class SlotCon(nn.Module):
    """The model around a ResNet.

    encoder: makes a ResNet; called twice. prototypes: K. hidden, dim: widths of projector and predictor, D is `dim`.
    group_weight: share of the group loss in the total, the slot loss has the rest. The teacher's temperature is also
    that of the grouping, in both networks.
    """

    def __init__(
        self,
        encoder: Callable[[], ResNet],
        *,
        prototypes: int = 256,
        hidden: int = 4096,
        dim: int = 256,
        input_size: int = 224,
        group_weight: float = 0.5,
        use_group_loss: bool = True,
        use_slot_loss: bool = True,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.07,
        slot_temperature: float = 0.2,
        centre_momentum: float = 0.9,
    ) -> None:
        super().__init__()
        if not (use_group_loss or use_slot_loss):
            raise UsageError("options use_group_loss and use_slot_loss: one of them must be true")
        for name, size in {"prototypes": prototypes, "hidden": hidden, "dim": dim, "input_size": input_size}.items():
            _check_range(name, size, isinstance(size, int) and size >= 1, "a whole number from 1")
        temperatures = {"student": student_temperature, "teacher": teacher_temperature, "slot": slot_temperature}
        for name, value in temperatures.items():
            _check_range(f"{name}_temperature", value, 0 < value < float("inf"), "a number above 0")
        for name, value in {"group_weight": group_weight, "centre_momentum": centre_momentum}.items():
            _check_range(name, value, 0 <= value <= 1, "a number from 0 to 1")
        self.input_size, self.group_weight = input_size, group_weight
        self.use_group_loss, self.use_slot_loss = use_group_loss, use_slot_loss
        self.student_temperature, self.teacher_temperature = student_temperature, teacher_temperature
        self.slot_temperature, self.centre_momentum = slot_temperature, centre_momentum
        self.student = Network(encoder(), prototypes, hidden, dim)
        self.teacher = Network(encoder(), prototypes, hidden, dim).requires_grad_(False)
        self.teacher.load_state_dict(self.student.state_dict())
        self.predictor = perceptron(dim, hidden, dim, pixels=False)
        self.centre: Tensor
        self.register_buffer("centre", torch.zeros(1, prototypes))

    def loss(
        self,
        views: tuple[Tensor, Tensor],
        boxes: tuple[Tensor, Tensor],
        flips: tuple[Tensor, Tensor],
        *,
        momentum: float,
        ranks: RankOps = RankOps(),
    ) -> dict[str, Tensor]:
        """One training step up to the loss; moves the teacher and the centre. The model must be in training mode.

        views: two (B, 3, H, W), from `normalise`. boxes: two (B, 4), x0 y0 x1 y1 of what both views show, as shares of
        the sides of each (flipped) view; no area where they share nothing. flips: two (B,) bool. momentum: of the
        teacher, from `training.lars.teacher_momentum`.
        Returns scalars: "total", with gradient; "group" and "slot", sums of both directions, where they are used;
        "without_slots", in how many of the two directions no slots are shared, so that the slot term is 0.
        """
        z = [self.student(view) for view in views]
        student = [group(one, self.student.prototypes, self.teacher_temperature) for one in z]
        with torch.no_grad():
            self.update_teacher(momentum)
            z = [self.teacher(view) for view in views]
            teacher = [group(one, self.teacher.prototypes, self.teacher_temperature) for one in z]
        slots, dots = zip(*student, strict=True)
        teacher_slots, teacher_dots = zip(*teacher, strict=True)
        terms, total = {}, torch.zeros((), dtype=dots[0].dtype, device=dots[0].device)
        if self.use_group_loss:
            terms["group"] = self._group_term(dots, teacher_dots, boxes, flips)
            self._update_centre(torch.cat(teacher_dots), ranks)
            total = total + self.group_weight * terms["group"]
        if self.use_slot_loss:
            terms["slot"], terms["without_slots"] = self._slot_term(slots, teacher_slots, dots, teacher_dots, ranks)
            total = total + (1 - self.group_weight) * terms["slot"]
        return {"total": total, **{name: value.detach() for name, value in terms.items()}}

    @torch.compiler.disable  # the momentum differs from step to step
    @torch.no_grad()
    def update_teacher(self, momentum: float) -> None:
        """Teacher's parameters <- momentum x teacher + (1 - momentum) x student; batch norm statistics stay."""
        torch._foreach_lerp_(list(self.teacher.parameters()), list(self.student.parameters()), 1 - momentum)

    @torch.no_grad()
    def _update_centre(self, dots: Tensor, ranks: RankOps) -> None:
        """The centre follows the mean of the teacher's cosines (B, K, h, w), which are those of both whole views."""
        mean = ranks.mean(dots.mean((0, 2, 3)))
        self.centre.lerp_(mean.unsqueeze(0).to(self.centre.dtype), 1 - self.centre_momentum)

    def _group_term(
        self,
        student: Sequence[Tensor],
        teacher: Sequence[Tensor],
        boxes: tuple[Tensor, Tensor],
        flips: tuple[Tensor, Tensor],
    ) -> Tensor:
        ours = [align(*inputs) for inputs in zip(student, boxes, flips, strict=True)]
        theirs = [align(*inputs) for inputs in zip(teacher, boxes, flips, strict=True)]
        constants = self.centre, self.student_temperature, self.teacher_temperature
        return group_loss(ours[0], theirs[1], *constants) + group_loss(ours[1], theirs[0], *constants)

    def _slot_term(
        self,
        slots: Sequence[Tensor],
        teacher_slots: Sequence[Tensor],
        dots: Sequence[Tensor],
        teacher_dots: Sequence[Tensor],
        ranks: RankOps,
    ) -> tuple[Tensor, Tensor]:
        """Loss of both directions, and the number of directions without shared slots."""
        queries, keys = [presence(one) for one in dots], [presence(one) for one in teacher_dots]
        constants = self.predictor, self.slot_temperature, ranks
        one, pairs = slot_loss(slots[0], teacher_slots[1], queries[0], keys[1], *constants)
        two, more_pairs = slot_loss(slots[1], teacher_slots[0], queries[1], keys[0], *constants)
        return one + two, (torch.stack([pairs, more_pairs]) < 2).sum()

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        """The teacher's view of whole images; the model must be in evaluation mode.

        masks: (B, K, h, w), (cosine + 1) / 2; slot k is prototype k in every image. slots: (B, K, D), zero where a
        prototype wins no pixel. tokens: (B, C, h, w), the encoder's. embedding: (B, C), their mean.
        """
        tokens = self.teacher.encoder(normalise(batch.image.to(self.centre)))
        embedding = tokens.mean((2, 3))
        prediction = Prediction(tokens=tokens, embedding=embedding, embedding_source="pool:mean")
        others = {"masks", "slots", "tokens", "embedding"}
        if any(batch.asks_only_for(name, tuple(others - {name})) for name in ("tokens", "embedding")):
            return prediction
        slots, dots = group(self.teacher.projector(tokens), self.teacher.prototypes, self.teacher_temperature)
        return replace(
            prediction,
            masks=(dots + 1) / 2,
            mask_source="prototypes",
            slots=slots * presence(dots).unsqueeze(-1),
        )

    def read_checkpoint(self, path: Path) -> dict[str, Tensor]:
        """Tensors of a checkpoint file, official ones (with the training's arguments and optimiser) included."""
        return read_checkpoint(path)

    def translate_checkpoint(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the tensors of an official checkpoint; those of our own are returned unchanged.

        Raises UsageError when the checkpoint has another number of prototypes than the model.
        """
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
        if not any(name.startswith(("centre", "student.", "teacher.", "predictor.")) for name in state):
            state = rename_keys(state, OFFICIAL_NAMES)
        theirs, ours = state.get("centre", self.centre).numel(), self.centre.numel()
        if theirs != ours:
            raise UsageError(
                f"K differs: the checkpoint has {theirs} prototypes, the model {ours}; use --option prototypes={theirs}"
            )
        return state


def perceptron(inputs: int, hidden: int, outputs: int, *, pixels: bool) -> nn.Sequential:
    """Three linear layers with batch norm and GELU between: of the pixels of (B, C, h, w), or of rows (N, C)."""

    def linear(before: int, after: int) -> nn.Module:
        layer = nn.Conv2d(before, after, 1) if pixels else nn.Linear(before, after)
        nn.init.trunc_normal_(layer.weight, std=0.02)
        nn.init.zeros_(cast(Tensor, layer.bias))
        return layer

    def norm() -> nn.Module:
        return nn.BatchNorm2d(hidden) if pixels else nn.BatchNorm1d(hidden)

    layers = [linear(inputs, hidden), norm(), nn.GELU(), linear(hidden, hidden), norm(), nn.GELU()]
    return nn.Sequential(*layers, linear(hidden, outputs))


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"arch": "resnet50"},
    "embedded": {"arch": "small", "prototypes": 27, "hidden": 512, "dim": 64, "input_size": 128},
}
"""Options of the two sizes; the others are those of `SlotCon`. The paper's K is 256 for COCO, 2048 for ImageNet."""

SMALL: dict[str, Any] = {
    "blocks": (1, 1, 1),
    "widths": (32, 64, 128),
    "strides": (2, 2, 2),
    "dilations": (1, 1, 1),
    "bottleneck": False,
    "stem": "small",
}
"""Options of the ResNet of the embedded size."""


def build(
    *, preset: Literal["paper", "embedded"] = "paper", output_stride: Literal[32, 16] = 32, **options: Any
) -> SlotCon:
    """Factory of the cards `slotcon` and `slotcon-paper`.

    output_stride: 16 dilates the last stage of an ImageNet-sized ResNet instead of striding: the same weights, maps of
    twice the side. options: `arch` ("resnet50", "resnet34", "resnet18", or "small", which takes the options of
    `layers.resnet.ResNet`, by default `SMALL`), and the keywords of `SlotCon`. Raises UsageError.
    """
    _check_choice("preset", preset, tuple(PRESETS))
    options = {**PRESETS[preset], **options}
    arch = options.pop("arch")
    _check_choice("arch", arch, (*ARCHITECTURES, "small"))
    _check_choice("output_stride", output_stride, (32, 16))
    if arch != "small":
        return SlotCon(partial(resnet, arch, output_stride), **options).eval()
    if output_stride != 32:
        raise UsageError("option output_stride: arch 'small' has none; use --option strides=[...] instead")
    shape = {name: options.pop(name, value) for name, value in SMALL.items()}
    return SlotCon(lambda: ResNet(**shape), **options).eval()


def build_random(*, seed: int = 0, **options: Any) -> SlotCon:
    """The floor `slotcon-random`: the network of `build` with random weights, always the same for one seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(**options)


def _check_choice(option: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"option {option}: {value!r} is unknown; use {' or '.join(map(str, allowed))}")


def _check_range(option: str, value: object, valid: bool, expected: str) -> None:
    if not valid:
        raise UsageError(f"option {option}: {value!r} is invalid; use {expected}")

"""SlotCon: semantic grouping by prototypes, learnt from two views (Wen et al., NeurIPS 2022, arXiv:2205.15288).

    view -> ResNet -> projector -> cosine to K prototypes -> maps (one per prototype) and slots (pooled projections)

A student learns two things from its teacher. The teacher is the student's moving average and sees the other view of
the image. Pixels of the same place must belong to the same prototypes (group loss, Sec. 3.1), and slots of the same
prototype and image must be more similar than all other slots (slot loss, Sec. 3.2). Either term can be switched off,
which gives the ablations of the paper.

Four details follow the official code (CVMI-Lab/SlotCon, commit 30ff33d, `models/slotcon.py`) and may surprise:

* The two views pass through the network one after the other, because batch norm must not mix them.
* The teacher runs in training mode. Its batch norm statistics are its own, not averages of the student's.
* Slots are means of projections that are not normalised.
* Cosine maps are aligned before any temperature is applied.
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
from .losses import distillation_monitors, group_loss, sinkhorn_targets, slot_loss
from .options import also_takes, check_choice, check_range
from .ranks import RankOps

ATTENTION_FLOOR = 1e-6
"""Added to each pixel's weights, as officially. A prototype that wins no pixel then pools nearly the mean of all
pixels instead of dividing 0 by 0."""

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
"""Names in official checkpoints, without `module.` -> names here; each pattern matches from a key's start."""


def group(z: Tensor, prototypes: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Assign pixels to prototypes in one pass and pool them into slots.

    Source: Sec. 3.1 and 3.2 of the paper; `SemanticGrouping` in the official code.

    Args:
        z: (B, D, h, w) projections.
        prototypes: (K, D), of any length.
        temperature: divides the cosines before the softmax over prototypes.

    Returns:
        Slots (B, K, D) and dots (B, K, h, w). The slots are means of z, weighted by each pixel's softmax over the
        prototypes; the dots are cosines in [-1, 1]. Both are in float32 or more, also under autocast.
    """
    with torch.autocast(z.device.type, enabled=False):
        z = z.to(torch.promote_types(z.dtype, torch.float32))
        pixels = z.flatten(2)
        dots = F.normalize(prototypes, dim=1) @ F.normalize(pixels, dim=1)
        attention = (dots / temperature).softmax(1) + ATTENTION_FLOOR
        weights = attention / attention.sum(2, keepdim=True)
        # Cosines need unit vectors, the slots do not: they average the projections as they are, as officially.
        return weights @ pixels.transpose(1, 2), dots.unflatten(2, z.shape[2:])


def presence(dots: Tensor) -> Tensor:
    """Whether each prototype wins at least one pixel: dots (B, K, h, w) -> (B, K) bool."""
    winners = dots.flatten(2).argmax(1)
    return torch.zeros(dots.shape[:2], dtype=torch.bool, device=dots.device).scatter_(1, winners, True)


class SlotConNetwork(nn.Module):
    """Student or teacher: an encoder, a projector (a 3-layer perceptron on each pixel) and prototypes (K, D)."""

    def __init__(self, encoder: ResNet, prototypes: int, hidden: int, dim: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = perceptron(encoder.channels, hidden, dim, pixels=True)
        self.prototypes = nn.Parameter(torch.randn(prototypes, dim))  # normalised at use, never in storage

    def forward(self, image: Tensor) -> Tensor:
        """Normalised image (B, 3, H, W) -> projections z (B, D, h, w)."""
        return cast(Tensor, self.projector(self.encoder(image)))


class SlotCon(nn.Module):
    """SlotCon around a ResNet.

    Args:
        encoder: builds a ResNet; it is called twice, for student and teacher.
        prototypes: K.
        hidden: width inside projector and predictor.
        dim: D, width of projections and slots.
        input_size: side in pixels of the images that the model is evaluated on.
        group_weight: weight of the group loss in the total; the slot loss has 1 - `group_weight`.
        use_group_loss, use_slot_loss: switch a term off, as the paper's ablations do.
        student_temperature: of the student in the group loss.
        teacher_temperature: of the teacher in the group loss, and of the grouping in both networks.
        slot_temperature: of the slot loss.
        centre_momentum: share of the old centre that each step keeps.
        assignment: how the teacher's cosines become targets of the group loss: `centre` (the paper's) or `sinkhorn`,
            see `losses.sinkhorn_targets`, which is not in the paper.

    Raises:
        UsageError: an option is out of range.
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
        assignment: Literal["centre", "sinkhorn"] = "centre",
    ) -> None:
        super().__init__()
        if not (use_group_loss or use_slot_loss):
            raise UsageError("options use_group_loss and use_slot_loss: one of them must be true")
        for name, size in {"prototypes": prototypes, "hidden": hidden, "dim": dim, "input_size": input_size}.items():
            check_range(name, size, isinstance(size, int) and size >= 1, "a whole number from 1")
        temperatures = {"student": student_temperature, "teacher": teacher_temperature, "slot": slot_temperature}
        for name, value in temperatures.items():
            check_range(f"{name}_temperature", value, 0 < value < float("inf"), "a number above 0")
        for name, value in {"group_weight": group_weight, "centre_momentum": centre_momentum}.items():
            check_range(name, value, 0 <= value <= 1, "a number from 0 to 1")
        check_choice("assignment", assignment, ("centre", "sinkhorn"))
        self.assignment = assignment
        self.input_size, self.group_weight = input_size, group_weight
        self.use_group_loss, self.use_slot_loss = use_group_loss, use_slot_loss
        self.student_temperature, self.teacher_temperature = student_temperature, teacher_temperature
        self.slot_temperature, self.centre_momentum = slot_temperature, centre_momentum
        self.student = SlotConNetwork(encoder(), prototypes, hidden, dim)
        self.teacher = SlotConNetwork(encoder(), prototypes, hidden, dim).requires_grad_(False)
        self.teacher.load_state_dict(self.student.state_dict())
        # Only the student predicts, as in BYOL; officially there is no teacher predictor either.
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
        """Compute the training loss of one step; also moves the teacher and the centre. Needs training mode.

        Args:
            views: two (B, 3, H, W), from `normalise`.
            boxes: two (B, 4), x0 y0 x1 y1 of the views' intersection, as shares of the sides of each (flipped) view;
                without area where the views do not overlap.
            flips: two (B,) bool, whether a view was flipped left to right.
            momentum: of the teacher, from `training.lars.teacher_momentum`.
            ranks: the other processes of the training.

        Returns:
            Scalars. "total" has a gradient. "group" and "slot" are sums over both directions, present where the term
            is used. "without_slots" is the number of directions (0 to 2) in which the slot term is 0, because the
            views share fewer than two slots.
        """
        # View by view, because batch norm must not mix them. The student groups with the teacher's temperature too:
        # officially its own temperature is used in the group loss alone.
        projections = [self.student(view) for view in views]
        student = [group(z, self.student.prototypes, self.teacher_temperature) for z in projections]
        with torch.no_grad():
            # Before the teacher's pass, with the student as the last optimiser step left it: the official order.
            self.update_teacher(momentum)
            projections = [self.teacher(view) for view in views]
            teacher = [group(z, self.teacher.prototypes, self.teacher_temperature) for z in projections]
        slots, dots = zip(*student, strict=True)
        teacher_slots, teacher_dots = zip(*teacher, strict=True)
        terms, total = {}, torch.zeros((), dtype=dots[0].dtype, device=dots[0].device)
        if self.use_group_loss:
            terms["group"] = self._group_term(dots, teacher_dots, boxes, flips, ranks)
            terms |= self._monitors(torch.cat(teacher_dots), torch.cat(projections), ranks)
            # The loss uses the centre of the step before.
            self._update_centre(torch.cat(teacher_dots), ranks)
            total = total + self.group_weight * terms["group"]
        if self.use_slot_loss:
            terms["slot"], terms["without_slots"] = self._slot_term(slots, teacher_slots, dots, teacher_dots, ranks)
            total = total + (1 - self.group_weight) * terms["slot"]
        return {"total": total, **{name: value.detach() for name, value in terms.items()}}

    @torch.compiler.disable  # the momentum differs from step to step
    @torch.no_grad()
    def update_teacher(self, momentum: float) -> None:
        """Teacher's parameters <- momentum x teacher + (1 - momentum) x student."""
        # Parameters only: the teacher collects its own batch norm statistics, because it runs in training mode.
        torch._foreach_lerp_(list(self.teacher.parameters()), list(self.student.parameters()), 1 - momentum)

    @torch.no_grad()
    def _update_centre(self, dots: Tensor, ranks: RankOps) -> None:
        """Move the centre towards the mean of the teacher's cosines (B, K, h, w)."""
        # Of both whole views, not of their aligned intersection (official `update_center`).
        mean = ranks.mean(dots.mean((0, 2, 3)))
        self.centre.lerp_(mean.unsqueeze(0).to(self.centre.dtype), 1 - self.centre_momentum)

    def _targets(self, dots: Tensor, ranks: RankOps) -> Tensor:
        """The teacher's probabilities of prototypes (B, K, h, w) from its cosines."""
        if self.assignment == "sinkhorn":
            rows = dots.movedim(1, -1)
            target = sinkhorn_targets(rows.flatten(0, -2), self.teacher_temperature, ranks=ranks)
            return target.view_as(rows).movedim(-1, 1)
        return ((dots - self.centre[..., None, None]) / self.teacher_temperature).softmax(1)

    def _monitors(self, dots: Tensor, vectors: Tensor, ranks: RankOps) -> dict[str, Tensor]:
        """What the teacher says of pixels, from its cosines (B, K, h, w) and projections (B, D, h, w)."""
        target = self._targets(dots, ranks)
        unit = F.normalize(vectors.float(), dim=1)
        target, unit = (x.movedim(1, -1).flatten(0, -2) for x in (target, unit))
        return distillation_monitors(target, unit, ranks)

    def _group_term(
        self,
        student: Sequence[Tensor],
        teacher: Sequence[Tensor],
        boxes: tuple[Tensor, Tensor],
        flips: tuple[Tensor, Tensor],
        ranks: RankOps,
    ) -> Tensor:
        """Group loss of both directions; officially it is their sum, not their mean."""
        first, second = (align(*inputs) for inputs in zip(student, boxes, flips, strict=True))
        teacher_first, teacher_second = (align(*inputs) for inputs in zip(teacher, boxes, flips, strict=True))
        return self._group_loss(first, teacher_second, ranks) + self._group_loss(second, teacher_first, ranks)

    def _group_loss(self, student: Tensor, teacher: Tensor, ranks: RankOps) -> Tensor:
        """Group loss of aligned cosines (B, K, h, w)."""
        if self.assignment == "centre":
            return group_loss(student, teacher, self.centre, self.student_temperature, self.teacher_temperature)
        return F.cross_entropy(student / self.student_temperature, self._targets(teacher, ranks))

    @torch.compiler.disable  # the number of slots differs from step to step
    def _slot_term(
        self,
        slots: Sequence[Tensor],
        teacher_slots: Sequence[Tensor],
        dots: Sequence[Tensor],
        teacher_dots: Sequence[Tensor],
        ranks: RankOps,
    ) -> tuple[Tensor, Tensor]:
        """Slot loss of both directions (their sum), and the number of directions with fewer than two shared slots."""
        # Presence is judged on each network's own, whole view: an unaligned map (official `ctr_loss_filtered`).
        queries, keys = [presence(view) for view in dots], [presence(view) for view in teacher_dots]
        constants = self.predictor, self.slot_temperature, ranks
        forth, forth_pairs = slot_loss(slots[0], teacher_slots[1], queries[0], keys[1], *constants)
        back, back_pairs = slot_loss(slots[1], teacher_slots[0], queries[1], keys[0], *constants)
        return forth + back, (torch.stack([forth_pairs, back_pairs]) < 2).sum()

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        """Predict with the teacher on whole images; the model must be in evaluation mode.

        Returns:
            masks (B, K, h, w), (cosine + 1) / 2, where slot k is prototype k in every image; slots (B, K, D), zero
            where a prototype wins no pixel; tokens (B, C, h, w) of the encoder; embedding (B, C), their mean.
        """
        # The teacher, because every official converter exports `encoder_k` (`transfer/detection/`, `viz_slots.py`).
        tokens = self.teacher.encoder(normalise(batch.image.to(self.centre)))
        embedding = tokens.mean((2, 3))
        prediction = Prediction(tokens=tokens, embedding=embedding, embedding_source="pool:mean")
        fields = {"masks", "slots", "tokens", "embedding"}
        if any(batch.asks_only_for(name, tuple(fields - {name})) for name in ("tokens", "embedding")):
            return prediction
        slots, dots = group(self.teacher.projector(tokens), self.teacher.prototypes, self.teacher_temperature)
        return replace(
            prediction,
            # Cosines rather than their sharp softmax: the official `viz_slots.py` also upsamples cosines.
            masks=(dots + 1) / 2,
            mask_source="prototypes",
            slots=slots * presence(dots).unsqueeze(-1),
        )

    def read_checkpoint(self, path: Path) -> dict[str, Tensor]:
        """Read the tensors of a checkpoint file; official files also hold arguments and optimiser state."""
        return read_checkpoint(path)

    def translate_checkpoint(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the tensors of an official checkpoint; a checkpoint with our names is returned unchanged.

        Raises:
            UsageError: the checkpoint and the model differ in the number of prototypes.
        """
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
        if not any(name.startswith(("centre", "student.", "teacher.", "predictor.")) for name in state):
            state = rename_keys(state, OFFICIAL_NAMES)
        file_count, count = state.get("centre", self.centre).numel(), self.centre.numel()
        if file_count != count:
            raise UsageError(
                f"K differs: the checkpoint has {file_count} prototypes, the model {count}; "
                f"use --option prototypes={file_count}"
            )
        return state


def perceptron(inputs: int, hidden: int, outputs: int, *, pixels: bool) -> nn.Sequential:
    """Three linear layers with batch norm and GELU between: on the pixels of (B, C, h, w), or on rows (N, C).

    Source: `DINOHead2d` (pixels) and `DINOHead` (rows) in the official `models/slotcon.py`, with their initialisation.
    """

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
"""Options of the two sizes; `SlotCon` has the other defaults. The paper's K is 256 for COCO and 2048 for ImageNet."""

SMALL: dict[str, Any] = {
    "blocks": (1, 1, 1),
    "widths": (32, 64, 128),
    "strides": (2, 2, 2),
    "dilations": (1, 1, 1),
    "bottleneck": False,
    "stem": "small",
}
"""Options of the ResNet of the embedded size."""


@also_takes("arch", *SMALL)
def build(
    *, preset: Literal["paper", "embedded"] = "paper", output_stride: Literal[32, 16] = 32, **options: Any
) -> SlotCon:
    """Build the model of the cards `slotcon` and `slotcon-paper`.

    Args:
        preset: the paper's size, or the embedded one.
        output_stride: 16 dilates the last stage of an ImageNet-sized ResNet instead of striding. The weights are the
            same and the maps have twice the side.
        options: `arch` ("resnet50", "resnet34", "resnet18", or "small", which takes the options of
            `layers.resnet.ResNet`, by default `SMALL`), and the keywords of `SlotCon`.

    Raises:
        UsageError: an option is unknown or out of range.
    """
    check_choice("preset", preset, tuple(PRESETS))
    options = {**PRESETS[preset], **options}
    arch = options.pop("arch")
    check_choice("arch", arch, (*ARCHITECTURES, "small"))
    check_choice("output_stride", output_stride, (32, 16))
    if arch != "small":
        return SlotCon(partial(resnet, arch, output_stride), **options).eval()
    if output_stride != 32:
        raise UsageError("option output_stride: arch 'small' has none; use --option strides=[...] instead")
    shape = {name: options.pop(name, value) for name, value in SMALL.items()}
    return SlotCon(lambda: ResNet(**shape), **options).eval()


@also_takes("preset", "output_stride", "arch", *SMALL)
def build_random(*, seed: int = 0, **options: Any) -> SlotCon:
    """Build the floor `slotcon-random`: the network of `build` with random weights, a pure function of the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(**options)

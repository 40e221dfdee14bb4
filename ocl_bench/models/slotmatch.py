"""SlotMatch: a small student learns the slots of a large SlotContrast (Grigore et al. 2025, arXiv:2508.03411).

    video -> teacher (frozen SlotContrast) -> slots -.
      '----> student (small SlotContrast)  -> slots -+-> 1 - cosine of slots with the same number
                     '-> its own reconstruction and contrast

    total = reconstruction + alpha contrast + beta distillation

Slots start from learnt vectors, and the student begins with the teacher's, so slot k is the same query in both. After
training the student is used alone, exactly as a SlotContrast.

*This is our reconstruction.* SlotMatch has no public code, and the paper's tables and appendix could not be read. Its
abstract and first pages say: the three terms, the cosine of corresponding slots, the frozen teacher, a student 3.6
times smaller. We chose the following, most of it as options: alpha, beta, the distilled slots (the corrected ones of
all frames), the mean over them, where the student's slots start, the projection for slots of another width. The paper
says that distilling features or masks as well brings nothing; `feature_weight` and `mask_weight` make that testable.

The training objective calls, in training mode, once per step:

    teacher_features, features = teacher.encode_frames(video), student.encode_frames(video)
    SlotMatch.loss(features, **teach(teacher, teacher_features, masks=student.mask_weight > 0), ranks=...)
        "total" (with gradient), "reconstruction", "contrast", and where they are used "distillation",
        "feature_distillation", "mask_distillation" (all unweighted, without gradient)

after `student.check_teacher(teacher)` and, for a new training, `student.begin_like(teacher)`. The teacher is not a
part of the student: it is neither in its state dict nor among its parameters.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import UsageError
from .losses import mask_distillation, slot_distillation
from .options import also_takes, check_choice, check_range
from .ranks import RankOps
from .slotcontrast import CNN, SlotContrast, assemble

InitialSlots = Literal["copy", "fresh", "frozen-copy"]


@torch.no_grad()
def teach(teacher: SlotContrast, features: Tensor, *, masks: bool = False) -> dict[str, Tensor]:
    """Run a teacher on clips and return its outputs as keywords of `SlotMatch.loss`.

    Args:
        teacher: the frozen model, in evaluation mode.
        features: (B, T, P, F) of the teacher's own encoder.
        masks: whether to decode masks as well, the costly part.
    """
    features = features.to(teacher.initial_slots.dtype)
    recurrence = teacher.recurrence(features)
    outputs = {"teacher_slots": recurrence.slots, "teacher_features": features}
    if masks:
        outputs["teacher_masks"] = teacher.decode(recurrence.slots, recurrence.attention)[1]
    return outputs


class SlotMatch(SlotContrast):
    """A SlotContrast that is trained by distillation.

    Args:
        encoder: see `SlotContrast`.
        distillation_weight: beta; 0 is the student without distillation, which needs no teacher.
        feature_weight: weight of the mean squared error between the reconstruction and the teacher's features.
        mask_weight: weight of `losses.mask_distillation`.
        initial_slots: the student begins with the teacher's (`copy`), keeps them (`frozen-copy`), or begins with
            its own (`fresh`).
        teacher_slot_dim, teacher_feature_dim: D and F of the teacher, where they differ from the student's. A linear
            map, learnt with the student, then leads from the student's slots or reconstruction to the teacher's.
        student: the keywords of `SlotContrast`; its `contrast_weight` is alpha.

    Raises:
        UsageError: an option is out of range or contradicts another one.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        distillation_weight: float = 1.0,
        feature_weight: float = 0.0,
        mask_weight: float = 0.0,
        initial_slots: InitialSlots = "copy",
        teacher_slot_dim: int | None = None,
        teacher_feature_dim: int | None = None,
        **student: Any,
    ) -> None:
        super().__init__(encoder, **student)
        weights = {"distillation_weight": distillation_weight, "feature_weight": feature_weight}
        for name, weight in {**weights, "mask_weight": mask_weight}.items():
            check_range(name, weight, 0 <= weight < float("inf"), "a number from 0")
        check_choice("initial_slots", initial_slots, ("copy", "fresh", "frozen-copy"))
        self.distillation_weight, self.feature_weight, self.mask_weight = (
            distillation_weight,
            feature_weight,
            mask_weight,
        )
        self.start = initial_slots
        self.teacher_slot_dim = teacher_slot_dim or self.slot_dim
        self.teacher_feature_dim = teacher_feature_dim or self.feature_dim
        self.slot_map = self.feature_map = None
        if distillation_weight and self.teacher_slot_dim != self.slot_dim:
            self.slot_map = nn.Linear(self.slot_dim, self.teacher_slot_dim)
        if feature_weight and self.teacher_feature_dim != self.feature_dim:
            self.feature_map = nn.Linear(self.feature_dim, self.teacher_feature_dim)
        if self.start != "fresh":
            same = self.teacher_slot_dim == self.slot_dim
            # Slots of another width cannot be copied.
            check_range("initial_slots", self.start, same, "fresh, as teacher_slot_dim is not slot_dim")
        self.initial_slots.requires_grad_(self.start != "frozen-copy")

    @property
    def needs_teacher(self) -> bool:
        """Whether the loss uses any output of a teacher."""
        return bool(self.distillation_weight or self.feature_weight or self.mask_weight)

    def check_teacher(self, teacher: SlotContrast) -> None:
        """Raise UsageError if K, D, F or the grid of a teacher does not fit this student's options."""
        # Slots are compared by their number, so K must agree even where only features or masks are distilled.
        sizes = {"slots": (teacher.slots, self.slots)}
        if self.distillation_weight or self.start != "fresh":
            sizes["teacher_slot_dim"] = teacher.slot_dim, self.teacher_slot_dim
        if self.feature_weight:
            sizes["teacher_feature_dim"] = teacher.feature_dim, self.teacher_feature_dim
        for option, (actual, expected) in sizes.items():
            if actual != expected:
                raise UsageError(
                    f"option {option}: the teacher has {actual}, the student expects {expected}; "
                    f"use --option {option}={actual}"
                )
        if (self.feature_weight or self.mask_weight) and teacher.grid != self.grid:
            raise UsageError(
                f"option input_size: the teacher has {teacher.grid} tokens, the student {self.grid}; use an "
                "input_size with the same grid, or set feature_weight and mask_weight to 0"
            )

    @torch.no_grad()
    def begin_like(self, teacher: SlotContrast) -> None:
        """Copy the teacher's initial slots, unless the option says `fresh`; UsageError if the teacher does not fit."""
        self.check_teacher(teacher)
        if self.start != "fresh":
            self.initial_slots.copy_(teacher.initial_slots)

    def loss(
        self,
        features: Tensor,
        teacher_slots: Tensor | None = None,
        *,
        teacher_features: Tensor | None = None,
        teacher_masks: Tensor | None = None,
        ranks: RankOps = RankOps(),
    ) -> dict[str, Tensor]:
        """Compute the training loss of B clips of T frames.

        Args:
            features: (B, T, P, F) of the student's encoder.
            teacher_slots: (B, T, K, D') from `teach`. This and the next two are needed if their weight is not 0.
            teacher_features: (B, T, P, F') from `teach`.
            teacher_masks: (B, T, K, P) from `teach`.
            ranks: as in `SlotContrast.loss`.

        Returns:
            Scalars: "total", with gradient, and the terms without weights; see the module.

        Raises:
            UsageError: an output of the teacher is missing or has another shape.
        """
        terms, recurrence, reconstruction, masks = self._terms(features, ranks)
        if self.distillation_weight:
            slots = recurrence.slots if self.slot_map is None else self.slot_map(recurrence.slots)
            distance = slot_distillation(slots, _given("teacher_slots", teacher_slots, slots))
            self._add(terms, "distillation", self.distillation_weight, distance)
        if self.feature_weight:
            # The student reconstructs its own encoder's features; the teacher's are a second target.
            mapped = reconstruction if self.feature_map is None else self.feature_map(reconstruction)
            target = _given("teacher_features", teacher_features, mapped)
            distance = F.mse_loss(mapped, target.detach().to(mapped.dtype))
            self._add(terms, "feature_distillation", self.feature_weight, distance)
        if self.mask_weight:
            distance = mask_distillation(masks, _given("teacher_masks", teacher_masks, masks))
            self._add(terms, "mask_distillation", self.mask_weight, distance)
        return terms

    @staticmethod
    def _add(terms: dict[str, Tensor], name: str, weight: float, value: Tensor) -> None:
        """Add a weighted term to the total, and store it under its name."""
        terms["total"] = terms["total"] + weight * value
        terms[name] = value.detach()


def _given(name: str, value: Tensor | None, like: Tensor) -> Tensor:
    """Return a teacher's output; UsageError if it is missing or not of the shape of the student's counterpart."""
    if value is None:
        raise UsageError(f"{name} is missing, and its weight is not 0; give what `teach` returns")
    if value.shape != like.shape:
        raise UsageError(
            f"{name} is {tuple(value.shape)}, the student's counterpart {tuple(like.shape)}; check slots, "
            "teacher_slot_dim and teacher_feature_dim of the student"
        )
    return value


@also_takes("variant", "encoder", "input_size", *CNN)
def build(*, preset: Literal["paper", "embedded"] = "paper", **options: Any) -> SlotMatch:
    """Build the model of the cards `slotmatch` and `slotmatch-paper`.

    Args:
        preset: "paper" (option `variant` names the teacher) or "embedded".
        options: as in `slotcontrast.assemble`, and the keywords of `SlotMatch`.

    Raises:
        UsageError: an option is unknown or out of range.
    """
    if preset == "paper":
        # Our inference: the teacher with ViT-S/14 in place of ViT-B/14 has 3.57 to 3.62 times fewer parameters, and
        # the paper says 3.6.
        options = {"variant": "movi_e", "encoder": "vit_small", **options}
    return assemble(SlotMatch, preset, options)

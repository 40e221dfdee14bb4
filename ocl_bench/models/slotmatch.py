"""SlotMatch: a small student learns the slots of a large SlotContrast (Grigore et al. 2025, arXiv:2508.03411).

    video -> teacher (frozen SlotContrast) -> slots -.
      '----> student (small SlotContrast)  -> slots -+-> 1 - cosine of slots with the same number
                     '-> its own reconstruction and contrast

    total = reconstruction + alpha contrast + beta distillation

Slots start from learnt vectors, so slot k of teacher and student can stand for the same query: the student begins with
the teacher's. After training the student is used alone, exactly as a SlotContrast.

*Our reconstruction*: no code of SlotMatch is public, and neither are the tables and the appendix that could be read
here. From the abstract and the first pages: the three terms, the cosine of corresponding slots, the frozen teacher, a
student 3.6 times smaller. Chosen by us, and options here: alpha, beta, which slots (the corrected ones of all frames),
the mean over them, where the student's slots start, the projection where the slots differ in width. The paper says that
distilling features or masks besides brings nothing; `feature_weight` and `mask_weight` make that testable.

The training objective calls, in training mode, once per step:

    teacher_features, features = teacher.encode_frames(video), student.encode_frames(video)
    SlotMatch.loss(features, **teach(teacher, teacher_features, masks=student.mask_weight > 0), ranks=...)
        "total" (with gradient), "reconstruction", "contrast", and where they are used "distillation",
        "feature_distillation", "mask_distillation" (all unweighted, without gradient)

after `student.check_teacher(teacher)` and, for a fresh training, `student.begin_like(teacher)`. The teacher is no part
of the student: it is in neither its state dict nor its parameters.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import UsageError
from .ranks import RankOps
from .slotcontrast import SlotContrast, assemble, check_choice, check_range

InitialSlots = Literal["copy", "fresh", "frozen-copy"]


def slot_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - cosine of slots with the same number, mean over all of them; a scalar in [0, 2].

    student, teacher: (B, T, K, D). The teacher gets no gradient. In float32 or more, also under autocast.
    """
    with torch.autocast(student.device.type, enabled=False):
        wide = torch.promote_types(student.dtype, torch.float32)
        return (1 - F.cosine_similarity(student.to(wide), teacher.detach().to(wide), dim=-1)).mean()


def mask_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the student's masks from the teacher's, mean over tokens, in nats; a scalar.

    student, teacher: (B, T, K, P), sums over the slots are 1. The teacher gets no gradient.
    """
    smallest = torch.finfo(student.dtype).tiny
    teacher = teacher.detach().to(student.dtype)
    divergence = teacher * (teacher.clamp_min(smallest).log() - student.clamp_min(smallest).log())
    return divergence.sum(2).mean()


@torch.no_grad()
def teach(teacher: SlotContrast, features: Tensor, *, masks: bool = False) -> dict[str, Tensor]:
    """What a teacher says of clips, as keywords of `SlotMatch.loss`. The teacher must be in evaluation mode.

    features: (B, T, P, F) of the teacher's own encoder. masks: decode them, too.
    """
    features = features.to(teacher.initial_slots.dtype)
    found = teacher.recurrence(features)
    said = {"teacher_slots": found.slots, "teacher_features": features}
    if masks:
        said["teacher_masks"] = teacher.decode(found.slots, found.attention)[1]
    return said


class SlotMatch(SlotContrast):
    """A student; the keywords that are not here are those of `SlotContrast`, whose `contrast_weight` is alpha.

    distillation_weight: beta; 0 is the undistilled student, which needs no teacher. feature_weight: of the mean squared
    error between reconstruction and the teacher's features. mask_weight: of `mask_distillation`.
    initial_slots: the student begins with the teacher's (`copy`), keeps them (`frozen-copy`), or begins with its own
    (`fresh`). teacher_slot_dim, teacher_feature_dim: D and F of the teacher where they differ; a linear map, learnt
    with the student, then leads from the student's slots or reconstruction to the teacher's.
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
            check_range("initial_slots", self.start, same, "fresh, as teacher_slot_dim is not slot_dim")
        self.initial_slots.requires_grad_(self.start != "frozen-copy")

    @property
    def needs_teacher(self) -> bool:
        """Whether anything of a teacher is used in the loss."""
        return bool(self.distillation_weight or self.feature_weight or self.mask_weight)

    def check_teacher(self, teacher: SlotContrast) -> None:
        """Raises UsageError when K, D, F or the grid of a teacher is not what this student was made for."""
        pairs = {"slots": (teacher.slots, self.slots)}
        if self.distillation_weight or self.start != "fresh":
            pairs["teacher_slot_dim"] = teacher.slot_dim, self.teacher_slot_dim
        if self.feature_weight:
            pairs["teacher_feature_dim"] = teacher.feature_dim, self.teacher_feature_dim
        for option, (theirs, ours) in pairs.items():
            if theirs != ours:
                raise UsageError(
                    f"option {option}: the teacher has {theirs}, the student expects {ours}; "
                    f"use --option {option}={theirs}"
                )
        if (self.feature_weight or self.mask_weight) and teacher.grid != self.grid:
            raise UsageError(
                f"option input_size: the teacher has {teacher.grid} tokens, the student {self.grid}; features and "
                "masks can be distilled on one grid only"
            )

    @torch.no_grad()
    def begin_like(self, teacher: SlotContrast) -> None:
        """Take the teacher's initial slots, as `initial_slots` says. Raises UsageError where it does not fit."""
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
        """The training loss of B clips of T frames.

        features: (B, T, P, F) of the student's encoder. teacher_slots: (B, T, K, D'), teacher_features: (B, T, P, F'),
        teacher_masks: (B, T, K, P), from `teach`; only those that have a weight are looked at. ranks: as in
        `SlotContrast.loss`. Returns scalars: "total", with gradient, and the terms; see the module. Raises UsageError
        for a missing or ill-shaped one.
        """
        terms, found, reconstruction, masks = self._terms(features, ranks)
        if self.distillation_weight:
            slots = found.slots if self.slot_map is None else self.slot_map(found.slots)
            distance = slot_distillation(slots, _given("teacher_slots", teacher_slots, slots))
            self._add(terms, "distillation", self.distillation_weight, distance)
        if self.feature_weight:
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
        """Add a weighted term to the total, and keep it by its name."""
        terms["total"] = terms["total"] + weight * value
        terms[name] = value.detach()


def _given(name: str, value: Tensor | None, like: Tensor) -> Tensor:
    """What the teacher said, of the shape that the student's counterpart has. Raises UsageError."""
    if value is None:
        raise UsageError(f"{name} is missing, and its weight is not 0; give what `teach` returns")
    if value.shape != like.shape:
        raise UsageError(
            f"{name} is {tuple(value.shape)}, the student's counterpart {tuple(like.shape)}; check slots, "
            "teacher_slot_dim and teacher_feature_dim of the student"
        )
    return value


def build(*, preset: Literal["paper", "embedded"] = "paper", **options: Any) -> SlotMatch:
    """Factory of the cards `slotmatch` and `slotmatch-paper`.

    With preset "paper", `variant` says whose student it is; all of it is the teacher's but the encoder, ViT-S/14.
    Other options as in `slotcontrast.assemble`, and the keywords of `SlotMatch`. Raises UsageError.
    """
    if preset == "paper":
        options = {"variant": "movi_e", "encoder": "vit_small", **options}
    return assemble(SlotMatch, preset, options)

"""SlotMatch: its losses from their definitions, what begins like the teacher, flags, teachers that do not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ocl_bench.core.errors import UsageError
from ocl_bench.core.types import Batch
from ocl_bench.evaluation.check_model import check_model
from ocl_bench.models import slotcontrast
from ocl_bench.models.loading import get_model
from ocl_bench.models.losses import mask_distillation, slot_distillation
from ocl_bench.models.ranks import RankOps
from ocl_bench.models.slotcontrast import SlotContrast
from ocl_bench.models.slotmatch import SlotMatch, build, teach

TINY: dict = {"width": 8, "dim": 12, "input_size": 32, "slots": 3, "slot_dim": 8, "hidden": 16, "decoder_layers": 2}


def teacher_of(**options: object) -> SlotContrast:
    torch.manual_seed(1)
    return slotcontrast.build(preset="embedded", **(TINY | {"dim": 20, "hidden": 24} | options))


def student_of(**options: object) -> SlotMatch:
    torch.manual_seed(0)
    return build(preset="embedded", **(TINY | options)).train()


def clips() -> Tensor:
    return torch.rand(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def said(teacher: SlotContrast, masks: bool = False) -> dict[str, Any]:
    return teach(teacher, teacher.encode_frames(clips()), masks=masks)


def test_slot_distillation_is_its_definition() -> None:
    torch.manual_seed(0)
    ours, theirs = (torch.randn(2, 3, 4, 5).double().requires_grad_() for _ in range(2))
    total = 0.0
    for a, b in zip(ours.detach().flatten(0, 2), theirs.detach().flatten(0, 2), strict=True):
        total += 1 - float(a @ b / (a.norm() * b.norm()))
    loss = slot_distillation(ours, theirs)
    assert float(loss.detach()) == pytest.approx(total / 24)
    loss.backward()
    assert theirs.grad is None and ours.grad is not None
    assert float(slot_distillation(ours.detach(), 3 * ours.detach())) == pytest.approx(0)
    assert float(slot_distillation(ours.detach(), -ours.detach())) == pytest.approx(2)
    assert slot_distillation(ours, theirs.flip(2)) != loss, "slots are compared by their number"


def test_mask_distillation_is_its_definition() -> None:
    torch.manual_seed(0)
    ours, theirs = (torch.randn(2, 3, 4, 6).double().softmax(2) for _ in range(2))
    expected = nn.functional.kl_div(ours.log(), theirs, reduction="none").sum(2).mean()
    torch.testing.assert_close(mask_distillation(ours, theirs), expected)
    assert mask_distillation(ours, ours) == 0
    hard = torch.eye(3).expand(2, 3, 3, 3)  # masks of exactly 0 and 1
    logits = torch.zeros(2, 3, 3, 3, requires_grad=True)
    loss = mask_distillation(logits.softmax(2), hard)
    loss.backward()
    assert loss.isfinite() and logits.grad is not None and logits.grad.isfinite().all()


def test_loss_is_the_sum_of_its_terms() -> None:
    teacher = teacher_of()
    student = student_of(
        contrast_weight=0.3, distillation_weight=0.7, feature_weight=0.2, mask_weight=0.4, teacher_feature_dim=20
    )
    features, signal = student.encode_frames(clips()), said(teacher, masks=True)
    terms = student.loss(features, **signal)
    outputs = student.recurrence(features)
    reconstruction, masks = student.decode(outputs.slots, outputs.attention)
    assert student.feature_map is not None and student.slot_map is None
    expected = {
        "distillation": slot_distillation(outputs.slots, signal["teacher_slots"]),
        "feature_distillation": nn.functional.mse_loss(
            student.feature_map(reconstruction), teacher.encode_frames(clips())
        ),
        "mask_distillation": mask_distillation(masks, signal["teacher_masks"]),
    }
    weights = {"reconstruction": 1, "contrast": 0.3, "distillation": 0.7}
    weights |= {"feature_distillation": 0.2, "mask_distillation": 0.4}
    assert set(terms) == {"total", *weights}
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value.detach())
    torch.testing.assert_close(terms["total"].detach(), sum(w * terms[name] for name, w in weights.items()))
    terms["total"].backward()
    assert all(p.grad is not None for p in student.parameters() if p.requires_grad)


def test_without_distillation_it_is_a_slotcontrast_and_needs_no_teacher() -> None:
    student = student_of(distillation_weight=0.0, initial_slots="fresh")
    torch.manual_seed(0)
    plain = slotcontrast.build(preset="embedded", **TINY).train()
    features = plain.encode_frames(clips())
    terms = student.loss(features)
    assert not student.needs_teacher and set(terms) == {"total", "reconstruction", "contrast"}
    assert torch.equal(terms["total"], plain.loss(features)["total"])
    assert list(student.state_dict()) == list(plain.state_dict())


def test_ranks_share_the_distillation_by_rows() -> None:
    """The mean of the ranks' distillations is that of the joint batch."""
    student, signal = student_of(contrast_weight=0.0), said(teacher_of())
    features = student.encode_frames(clips())
    joint = student.loss(features, **signal)
    parts = [
        student.loss(features[rows], **{name: value[rows] for name, value in signal.items()}, ranks=RankOps())
        for rows in (slice(0, 1), slice(1, 2))
    ]
    for name in ("total", "distillation", "reconstruction"):
        torch.testing.assert_close(torch.stack([part[name] for part in parts]).mean(), joint[name])


@pytest.mark.parametrize("start", ["copy", "frozen-copy", "fresh"])
def test_where_the_slots_begin(start: str) -> None:
    teacher, student = teacher_of(), student_of(initial_slots=start)
    own = student.initial_slots.clone()
    student.begin_like(teacher)
    assert torch.equal(student.initial_slots, own if start == "fresh" else teacher.initial_slots)
    assert student.initial_slots.requires_grad == (start != "frozen-copy")
    student.loss(student.encode_frames(clips()), **said(teacher))["total"].backward()
    assert (student.initial_slots.grad is None) == (start == "frozen-copy")
    assert teacher.initial_slots.grad is None
    assert not torch.equal(teacher.initial_slots, own)


def test_teacher_is_no_part_of_the_student() -> None:
    teacher, student = teacher_of(), student_of()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    student.begin_like(teacher)
    optimiser = torch.optim.Adam([p for p in student.parameters() if p.requires_grad], lr=1e-2)
    distances = []
    for _ in range(20):
        terms = student.loss(student.encode_frames(clips()), **said(teacher))
        optimiser.zero_grad()
        terms["total"].backward()
        optimiser.step()
        distances.append(float(terms["distillation"]))
    assert distances[-1] < 0.5 * distances[0], "it learns the teacher's slots"
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert not any("teacher" in name for name in student.state_dict())


def test_slots_of_another_width_are_projected() -> None:
    teacher = teacher_of(slot_dim=16)
    student = student_of(teacher_slot_dim=16, initial_slots="fresh")
    student.begin_like(teacher)
    signal = said(teacher)
    terms = student.loss(student.encode_frames(clips()), **signal)
    outputs = student.recurrence(student.encode_frames(clips()))
    assert isinstance(student.slot_map, nn.Linear)
    expected = slot_distillation(student.slot_map(outputs.slots), signal["teacher_slots"])
    torch.testing.assert_close(terms["distillation"], expected.detach())
    terms["total"].backward()
    assert student.slot_map.weight.grad is not None


@pytest.mark.parametrize(
    ("teacher", "student", "message"),
    [
        ({"slots": 5}, {}, "option slots: the teacher has 5, the student expects 3; use --option slots=5"),
        ({"slot_dim": 16}, {}, "option teacher_slot_dim: the teacher has 16, the student expects 8"),
        ({}, {"feature_weight": 1.0}, "option teacher_feature_dim: the teacher has 20, the student expects 12"),
        ({"input_size": 64}, {"mask_weight": 1.0}, r"the teacher has \(8, 8\) tokens, the student \(4, 4\)"),
    ],
)
def test_teachers_that_do_not_fit(teacher: dict, student: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        student_of(**student).begin_like(teacher_of(**teacher))


def test_a_finer_teacher_is_fine_where_only_slots_are_distilled() -> None:
    teacher, student = teacher_of(input_size=64), student_of()
    student.begin_like(teacher)
    video = torch.rand(2, 3, 3, 64, 64)
    signal: dict[str, Any] = teach(teacher, teacher.encode_frames(video))
    terms = student.loss(student.encode_frames(video[..., ::2, ::2]), **signal)
    assert terms["distillation"].isfinite()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distillation_weight": -1}, "option distillation_weight: -1 is invalid; use a number from 0"),
        ({"initial_slots": "shared"}, "option initial_slots: 'shared' is unknown; use copy or fresh or frozen-copy"),
        ({"teacher_slot_dim": 16}, "option initial_slots: 'copy' is invalid; use fresh, as teacher_slot_dim is not"),
        ({"slots": 0}, "option slots: 0 is invalid"),
    ],
)
def test_options_that_make_no_sense(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        student_of(**options)


def test_what_a_teacher_says_must_fit() -> None:
    student, signal = student_of(mask_weight=1.0), said(teacher_of())
    features = student.encode_frames(clips())
    with pytest.raises(UsageError, match="teacher_slots is missing, and its weight is not 0"):
        student.loss(features)
    with pytest.raises(UsageError, match="teacher_masks is missing"):
        student.loss(features, **signal)
    with pytest.raises(UsageError, match=r"teacher_slots is \(2, 2, 3, 8\), the student's counterpart \(2, 3, 3, 8\)"):
        student.loss(features, signal["teacher_slots"][:, 1:])


@pytest.mark.parametrize(
    ("variant", "total", "trained"), [("movi_e", 25_630_849, 3_575_425), ("ytvis", 25_170_241, 3_114_817)]
)
def test_paper_sizes(variant: str, total: int, trained: int) -> None:
    with torch.device("meta"):
        teacher, student = slotcontrast.build(variant=variant), build(variant=variant)
    counts = [sum(p.numel() for p in model.parameters()) for model in (teacher, student)]
    assert counts[1] == total and len(student.state_dict()) == 217
    assert sum(p.numel() for p in student.parameters() if p.requires_grad) == trained
    assert round(counts[0] / total, 2) == {"movi_e": 3.57, "ytvis": 3.62}[variant]
    student.check_teacher(teacher)
    with torch.device("meta"):
        extra = build(variant=variant, feature_weight=1.0, mask_weight=1.0, teacher_feature_dim=768)
    extra.check_teacher(teacher)
    assert extra.feature_map is not None and extra.feature_map.weight.shape == (768, 384)


def test_card_and_contract() -> None:
    options = {"encoder": "cnn", "attention_prior": True, "blocks": [1], **TINY}
    loaded = get_model("slotmatch-paper", options=options)
    assert isinstance(loaded.model, SlotMatch) and loaded.model.reads_video
    checks = check_model("slotmatch-paper", "movi-c", options=options)
    assert all(check.passed for check in checks), [check for check in checks if not check.passed]
    prediction = loaded.model.predict(Batch(("a",), torch.rand(1, 3, 32, 32)))
    assert prediction.masks is not None and prediction.masks.shape == (1, 3, 4, 4)

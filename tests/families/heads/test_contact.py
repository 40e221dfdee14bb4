"""The contact readout: what it learns, determinism, and what it cannot be fitted on."""

from __future__ import annotations

import pytest
import torch

from ocl_bench.core.errors import UsageError
from ocl_bench.families.heads.contact import ContactExample, contact_probability, fit_contact
from ocl_bench.models.contact import ContactReadout


def examples(count: int, slots: int = 3, seed: int = 0) -> list[ContactExample]:
    """Clips of 5 frames; where two touch, the first channel of two slots is high in one frame."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for number in range(count):
        clip = torch.randn(5, slots, 4, generator=generator) * 0.3
        if number % 2:
            clip[number % 5, :2, 0] += 3
        made.append(ContactExample(clip, bool(number % 2)))
    return made


def test_it_learns_what_the_slots_say() -> None:
    head = fit_contact(examples(40), seed=0)
    fresh = examples(40, seed=1)
    right = [(contact_probability(head, one.slots) > 0.5) == one.touch for one in fresh]
    assert sum(right) >= 36


def test_the_same_seed_gives_the_same_head_and_leaves_the_generator_alone() -> None:
    torch.manual_seed(5)
    first = fit_contact(examples(8), seed=0)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.rand(1) == drawn
    again, other = fit_contact(examples(8), seed=0), fit_contact(examples(8), seed=1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["readout.linear1.weight"], other["readout.linear1.weight"])


def test_clips_may_have_other_numbers_of_slots() -> None:
    head = fit_contact([*examples(6), *examples(6, slots=2)], seed=0)
    assert 0 < contact_probability(head, torch.zeros(5, 7, 4)) < 1


def test_a_single_slot_is_compared_with_an_empty_one() -> None:
    head = fit_contact([ContactExample(torch.ones(5, 1, 4), touch) for touch in (True, False)], seed=0)
    assert contact_probability(head, torch.ones(5, 1, 4)) == pytest.approx(0.5, abs=0.05)


def test_one_answer_alone_cannot_be_learnt() -> None:
    with pytest.raises(UsageError, match="has not both objects that touch"):
        fit_contact([one for one in examples(8) if one.touch], seed=0)


def test_the_official_size() -> None:
    assert sum(parameter.numel() for parameter in ContactReadout(192, 6, 192).parameters()) == 74_113

"""LARS and SlotCon's schedules against the vectors of the official code (specs/slotcon.md, section 9)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from ocl_bench.core.schedules import learning_rate
from ocl_bench.training.lars import LARS, teacher_momentum


def after_steps(start: Tensor, gradient: Tensor, steps: int) -> list[Tensor]:
    parameter = nn.Parameter(start)
    optimiser, values = LARS([parameter], lr=2.0, weight_decay=1e-5), []
    for _ in range(steps):
        parameter.grad = gradient.clone()
        optimiser.step()
        values.append(parameter.detach().clone())
    return values


def test_matrices_are_adapted() -> None:
    one, two = after_steps(torch.tensor([[1.0, 2], [3, 4]]), torch.tensor([[0.1, -0.2], [0.3, 0.4]]), 2)
    torch.testing.assert_close(one, torch.tensor([[0.998000, 2.003999], [2.994000, 3.992000]]), rtol=0, atol=1e-6)
    torch.testing.assert_close(two, torch.tensor([[0.994203, 2.011592], [2.982609, 3.976811]]), rtol=0, atol=1e-6)


def test_vectors_get_neither_decay_nor_adaptation() -> None:
    one, two = after_steps(torch.tensor([1.0, -1]), torch.tensor([0.01, 0.02]), 2)
    torch.testing.assert_close(one, torch.tensor([0.98, -1.04]), rtol=0, atol=1e-6)
    torch.testing.assert_close(two, torch.tensor([0.942, -1.116]), rtol=0, atol=1e-6)


def test_without_norm_there_is_no_adaptation() -> None:
    (zero,) = after_steps(torch.zeros(2, 2), torch.ones(2, 2), 1)
    assert torch.equal(zero, torch.full((2, 2), -2.0))
    (still,) = after_steps(torch.zeros(2, 2), torch.zeros(2, 2), 1)
    assert torch.equal(still, torch.zeros(2, 2))


def test_parameters_without_gradient_stay() -> None:
    used, unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3, 3))
    optimiser = LARS([used, unused], lr=0.5)
    used.grad = torch.ones(3)
    assert optimiser.step(lambda: 7.0) == 7.0
    assert torch.equal(unused, torch.ones(3, 3)) and torch.equal(used, torch.full((3,), 0.5))
    assert list(optimiser.state) == [used]


def test_goes_on_from_its_state() -> None:
    torch.manual_seed(0)
    gradients = [(torch.randn(4), torch.randn(3, 4)) for _ in range(4)]

    def run(split: int | None) -> list[Tensor]:
        parameters = [nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(3, 4))]
        optimiser = LARS(parameters, lr=0.1)
        for step, pair in enumerate(gradients):
            if step == split:
                state, optimiser = optimiser.state_dict(), LARS(parameters, lr=9.0)
                optimiser.load_state_dict(state)
            for parameter, gradient in zip(parameters, pair, strict=True):
                parameter.grad = gradient.clone()
            optimiser.step()
        return [parameter.detach() for parameter in parameters]

    for whole, resumed in zip(run(None), run(2), strict=True):
        assert torch.equal(whole, resumed)


@pytest.mark.parametrize(("step", "rate"), [(0, 0.02), (1, 0.0596), (50, 2.0), (51, 1.99978), (200, 1e-6)])
def test_learning_rate_is_the_official_one(step: int, rate: float) -> None:
    """Batch 512, 20 epochs of 10 steps, 5 epochs of warm-up: the values of the official scheduler."""
    ours = learning_rate(step, 200, 2.0, warmup=50, floor=1e-6 / 2.0, start=0.01)
    assert ours == pytest.approx(rate, rel=1e-5)


def test_teacher_momentum_runs_from_its_start_to_one() -> None:
    assert teacher_momentum(0, 625) == pytest.approx(0.99, abs=1e-15)
    assert teacher_momentum(7, 625) == 0.9900030947886302  # the official code's, parity case slotcon_full_model
    assert teacher_momentum(625, 625) == 1.0 == teacher_momentum(700, 625)
    assert teacher_momentum(0.5, 1, start=0.9) == pytest.approx(0.95)
    values = [teacher_momentum(step, 100) for step in range(101)]
    assert values == sorted(values) and math.isclose(values[50], 0.995)

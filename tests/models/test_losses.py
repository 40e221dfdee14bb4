"""Sinkhorn targets, monitors and InfoNCE by hand, and over ranks."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ocl_bench.models.losses import distillation_monitors, sinkhorn_targets, view_contrast
from ocl_bench.models.ranks import RankOps


def two_ranks(parts: tuple[Tensor, ...]) -> list[RankOps]:
    """Operations of two ranks, for a function that gathers or averages `parts` once."""
    gathered = torch.cat(parts)
    mean = torch.stack([part.double() for part in parts]).mean(0) if len(parts[0]) == len(parts[1]) else None
    return [RankOps(2, rank, lambda rows: gathered, lambda value: mean) for rank in range(2)]


def test_sinkhorn_by_hand() -> None:
    """exp(logits / 1) is [[2, 1], [4, 1]]: columns sum to 6 and 2, rows of the quotients to 5/6 and 7/6."""
    logits = torch.tensor([[2.0, 1.0], [4.0, 1.0]]).log().double()
    once = sinkhorn_targets(logits, 1.0, iterations=1)
    torch.testing.assert_close(once, torch.tensor([[2 / 5, 3 / 5], [4 / 7, 3 / 7]]).double())
    halves = sinkhorn_targets(logits, 0.5, iterations=1)  # squares: [[4, 1], [16, 1]], columns 20 and 2
    torch.testing.assert_close(halves, torch.tensor([[2 / 7, 5 / 7], [8 / 13, 5 / 13]]).double())


def test_sinkhorn_uses_all_prototypes_and_survives_sharp_logits() -> None:
    cosines = F.normalize(torch.randn(64, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    favoured = cosines + torch.tensor([0.5, *(7 * [0.0])])
    target = sinkhorn_targets(favoured, 0.02)
    torch.testing.assert_close(target.sum(1), torch.ones(64))
    uses = F.one_hot(favoured.argmax(1), 8).sum(0)  # without it, one prototype wins most
    assert target.isfinite().all() and uses.max() > 20 and target.sum(0).max() < 16 and target.sum(0).min() > 2
    exact = sinkhorn_targets(cosines, 0.1, iterations=200)
    torch.testing.assert_close(exact.sum(0), torch.full((8,), 8.0))
    assert sinkhorn_targets(torch.zeros(0, 8), 0.1).shape == (0, 8)


def test_sinkhorn_of_two_ranks_is_that_of_the_joint_batch() -> None:
    logits = torch.randn(10, 4, generator=torch.Generator().manual_seed(1)).double()
    joint, parts = sinkhorn_targets(logits, 0.3, iterations=1), (logits[:7], logits[7:])
    sums = tuple((part / 0.3).logsumexp(0, keepdim=True) for part in parts)
    for part, ranks, expected in zip(parts, two_ranks(sums), (joint[:7], joint[7:]), strict=True):
        torch.testing.assert_close(sinkhorn_targets(part, 0.3, iterations=1, ranks=ranks), expected)


def test_monitors_by_hand() -> None:
    target = torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0]])
    vectors = torch.tensor([[1.0, 0], [0, 1], [1, 0]])
    found = distillation_monitors(target, vectors)
    assert found["monitor_target_entropy"].item() == pytest.approx(0.5 * math.log(2) / math.log(4))
    mean = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(4)
    assert found["monitor_mean_target_entropy"].item() == pytest.approx(mean)
    assert found["monitor_head_cosine"].item() == pytest.approx(1 / 3)  # of three pairs, one is equal
    undecided = distillation_monitors(torch.full((5, 6), 1 / 6), torch.ones(5, 1))
    assert [round(float(value), 5) for value in undecided.values()] == [1, 1, 1]
    assert distillation_monitors(torch.eye(4), torch.ones(1, 1))["monitor_head_cosine"] == 0


def test_the_mean_target_is_that_of_all_ranks() -> None:
    """Each rank always says one prototype; together they say two."""
    first, second = torch.tensor([[1.0, 0], [1, 0]]), torch.tensor([[0.0, 1], [0, 1]])
    ranks = two_ranks((first.mean(0), second.mean(0)))
    for rank, target in zip(ranks, (first, second), strict=True):
        found = distillation_monitors(target, torch.eye(2), rank)
        assert found["monitor_mean_target_entropy"] == pytest.approx(1) and found["monitor_target_entropy"] == 0


def naive_contrast(vectors: Tensor, present: Tensor, temperature: float) -> Tensor:
    """NT-Xent, vector by vector."""
    total, count = torch.zeros((), dtype=vectors.dtype), vectors.shape[1]
    for view in range(2):
        for image in range(count):
            if not present[:, image].all():
                continue
            others = [(v, i) for v in range(2) for i in range(count) if (v, i) != (view, image) and present[v, i]]
            cosines = torch.stack([vectors[view, image] @ vectors[v, i] for v, i in others]) / temperature
            total = total - cosines.log_softmax(0)[others.index((1 - view, image))]
    return total / (2 * count)


def test_contrast_is_nt_xent() -> None:
    draw = torch.Generator().manual_seed(2)
    vectors = F.normalize(torch.randn(2, 6, 5, generator=draw, dtype=torch.float64), dim=2).requires_grad_()
    present = torch.ones(2, 6, dtype=torch.bool)
    present[0, 2] = present[1, 4] = False
    for shown in (torch.ones_like(present), present):
        ours, naive = view_contrast(vectors, shown, 0.2), naive_contrast(vectors, shown, 0.2)
        torch.testing.assert_close(ours, naive)
        gradients = [torch.autograd.grad(loss, vectors)[0] for loss in (ours, naive)]
        torch.testing.assert_close(*gradients)
        assert gradients[0].abs().sum() > 0
    nothing = view_contrast(vectors, torch.zeros_like(present), 0.2)
    nothing.backward()
    assert nothing == 0 and not vectors.grad.any()


def test_contrast_of_two_ranks_has_the_gradient_of_the_joint_batch() -> None:
    draw = torch.Generator().manual_seed(3)
    whole = F.normalize(torch.randn(2, 6, 5, generator=draw, dtype=torch.float64), dim=2).requires_grad_()
    present = torch.rand(2, 6, generator=draw) < 0.8
    joint = view_contrast(whole, present, 0.2)
    (expected,) = torch.autograd.grad(joint, whole)
    for rank, share in enumerate((slice(0, 4), slice(4, 6))):
        part = whole.detach()[:, share].clone().requires_grad_()
        gather = partial(gather_of_two, whole.detach(), present)
        loss = view_contrast(part, present[:, share], 0.2, RankOps(2, rank, gather))
        torch.testing.assert_close(loss, joint)
        (gradient,) = torch.autograd.grad(loss, part)
        torch.testing.assert_close(gradient, 2 * expected[:, share])


def gather_of_two(whole: Tensor, present: Tensor, rows: Tensor) -> Tensor:
    """What a rank gets: the counts of both ranks, all vectors, or which views are shown."""
    if rows.shape == (1,):
        return torch.tensor([4, 2])
    return whole.transpose(0, 1) if rows.ndim == 3 else present.T.to(whole.dtype)

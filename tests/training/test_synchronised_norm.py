"""Batch norm over ranks against torch's batch norm of the joint batch, and against numerical gradients."""

import pytest
import torch
from tiny_batch_norm import CASES, SPLITS, learn, main, network, rows_of
from torch import nn
from two_ranks import run_two_ranks

from ocl_bench.training.synchronised_norm import SynchronisedBatchNorm, synchronise

JOINT = [step for step, split in enumerate(SPLITS) if sum(split) > 1]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """The results of two ranks."""
    out = tmp_path_factory.mktemp("norm")
    run_two_ranks(main, out)
    return [torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_with_unequal_rows_are_one_joint_batch(ranks, case):
    """The running statistics are compared after each step, also after steps with a single row or none."""
    net = network(case)
    for step in range(len(SPLITS)):
        one, two = (rank[f"{case} {step}"] for rank in ranks)
        if step in JOINT or case == "maps":
            if sum(SPLITS[step]) == 0:
                continue
            joint = learn(net, *rows_of(case, step))
            for name in ("y", "x.grad"):
                torch.testing.assert_close(torch.cat([one[name], two[name]]), joint[name], atol=1e-12, rtol=1e-9)
            for name in ("0.weight", "0.bias"):
                torch.testing.assert_close(one[name] + two[name], joint[name], atol=1e-12, rtol=1e-9)
        else:
            net[0].load_state_dict({name.removeprefix("0."): one[name] for name in one if "running" in name}, False)


@pytest.mark.parametrize("case", CASES)
def test_ranks_keep_the_statistics_of_torch(ranks, case):
    net = network(case)
    learn(net, *rows_of(case, 0))
    for rank in ranks:
        for name, value in net.named_buffers():
            torch.testing.assert_close(rank[f"{case} 0"][name], value, atol=0, rtol=1e-9)


def test_a_single_row_gives_the_bias_and_no_row_changes_nothing(ranks):
    single, none = SPLITS.index((1, 0)), SPLITS.index((0, 0))
    bias = torch.tensor([[0.1, 0.2, -0.3, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(ranks[0][f"rows {single}"]["y"], bias, atol=1e-7, rtol=0)
    for rank in ranks:
        before, after = rank[f"rows {none - 1}"], rank[f"rows {none}"]
        assert after["y"].shape == (0, 4) and after["0.num_batches_tracked"] == none + 1
        assert all((before[name] == after[name]).all() for name in before if "running" in name)


def test_gradients_are_those_of_finite_differences():
    norm = SynchronisedBatchNorm(3).double()
    x = torch.randn(5, 3, 2, dtype=torch.float64, requires_grad=True)
    weight, bias = (torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def normalise(x, weight, bias):
        return torch.func.functional_call(norm, {"weight": weight, "bias": bias}, (x,)).sin()

    assert torch.autograd.gradcheck(normalise, (x, weight, bias))


@pytest.mark.parametrize("momentum", [0.1, None])
def test_one_process_equals_torch_in_training_and_evaluation(momentum):
    torch.manual_seed(0)
    ours, theirs = SynchronisedBatchNorm(6, momentum=momentum), nn.BatchNorm2d(6, momentum=momentum)
    for _ in range(3):
        x = torch.randn(4, 6, 5, 3) * 2 + 1
        torch.testing.assert_close(ours(x), theirs(x))
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(x), theirs(x))
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)


def test_large_means_do_not_cancel():
    x = torch.randn(64, 2) * 0.1 + 100  # a variance from sums of squares would be lost
    torch.testing.assert_close(SynchronisedBatchNorm(2)(x), nn.BatchNorm1d(2)(x), atol=1e-3, rtol=0)


def test_bfloat16_comes_back_as_bfloat16_from_float32_statistics():
    x = (torch.randn(4096, 2) * 0.1 + 30).bfloat16()
    y = SynchronisedBatchNorm(2)(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), nn.BatchNorm1d(2)(x.float()), atol=0.02, rtol=0.01)


def test_a_network_keeps_its_tensors_and_names():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Sequential(nn.BatchNorm2d(2))).eval()
    before = dict(net.state_dict(keep_vars=True))
    assert synchronise(net) == 2 and synchronise(net) == 0
    after = net.state_dict(keep_vars=True)
    assert list(after) == list(before) and all(after[name] is before[name] for name in before)
    assert not net[1].training and isinstance(net[2][0], SynchronisedBatchNorm)

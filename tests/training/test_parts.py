"""Schedules, recipes and checkpoint files."""

import math
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ocl_bench.core.errors import UsageError
from ocl_bench.core.schedules import generator, learning_rate, sample_indices
from ocl_bench.training.checkpoint import (
    Checkpoint,
    export_weights,
    file_sha256,
    load_checkpoint,
    save_checkpoint,
    state_sha256,
)
from ocl_bench.training.recipe import read_recipe


def test_learning_rate_is_that_of_the_official_dias_recipe():
    rates = [learning_rate(n, 1000, 2e-4, warmup=50) for n in range(1001)]
    assert rates[0] == 0
    assert rates[25] == pytest.approx(1e-4)
    assert rates[50] == pytest.approx(2e-4) == max(rates)
    assert rates[525] == pytest.approx((2e-4 + 2e-7) / 2)
    assert rates[1000] == pytest.approx(2e-7)
    assert learning_rate(900, 1000, 2e-4, warmup=50, schedule="constant") == 2e-4


@pytest.mark.parametrize(("count", "batch"), [(10, 4), (7, 7), (3, 8)])
def test_batches_go_through_every_scene_once_an_epoch(count, batch):
    sequence = np.concatenate([sample_indices(5, step, batch, count) for step in range(12)])
    for start in range(0, len(sequence) - count, count):
        assert sorted(sequence[start : start + count]) == list(range(count))
    assert (sample_indices(5, 7, batch, count) == sequence[7 * batch : 8 * batch]).all()


def test_seeds_steps_and_streams_draw_differently():
    draws = {
        float(torch.rand((), generator=generator(*key))) for key in ((0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1))
    }
    assert len(draws) == 4
    assert (sample_indices(0, 0, 64, 64) != sample_indices(1, 0, 64, 64)).any()


def test_recipe_reads_the_card_and_takes_overrides():
    card = {"steps": 100, "lr": 1e-3, "scenes": {"count": 50}, "objective": {"kind": "slots"}}
    recipe = read_recipe(card, "card", **{"steps": 40, "scenes.count": None, "objective.flip": False, "warmup": 0.1})
    assert (recipe.steps, recipe.warmup_steps, recipe.scenes.count) == (40, 4, 50)
    assert recipe.objective == {"kind": "slots", "flip": False}
    assert card["objective"] == {"kind": "slots"}  # the card itself stays as it is
    assert read_recipe(card, "card", warmup=30).warmup_steps == 30


@pytest.mark.parametrize(
    ("train", "overrides", "told"),
    [
        ({}, {}, "'train' is empty"),
        ({"steps": 10, "learning_rate": 1}, {}, "'train.learning_rate'"),
        ({"steps": 0}, {}, "'train.steps'"),
        ({"steps": 10**30}, {}, "'train.steps'"),
        ({"steps": 10, "warmup": 1e30}, {}, "'train.warmup'"),
        ({"steps": 10, "scenes": {"split": "test"}}, {}, "'train.scenes.split'"),
        ({"steps": 10}, {"steps.more": 1}, "--set steps.more: 'steps' is not a mapping"),
    ],
)
def test_wrong_recipes_name_the_field(train, overrides, told):
    with pytest.raises(UsageError, match=told):
        read_recipe(train, "card x", **overrides)


def test_checkpoint_round_trip(tmp_path):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    save_checkpoint(
        tmp_path / "a" / "last.pt", Checkpoint(7, model.state_dict(), optimizer.state_dict(), {"lr": 0.1}, 3.5)
    )
    read = load_checkpoint(tmp_path / "a" / "last.pt")
    assert (read.step, read.identity, read.seconds) == (7, {"lr": 0.1}, 3.5)
    assert torch.equal(read.model["weight"], model.weight)
    assert torch.equal(read.optimizer["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    save_checkpoint(path, Checkpoint(1, {}, {}, {}))

    def broken(content, target):
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(path, Checkpoint(2, {}, {}, {}))
    assert load_checkpoint(path).step == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_a_checkpoint_with_a_changed_byte_is_refused(tmp_path):
    """torch reads it without a word: a training would go on from other weights."""
    path, weights = tmp_path / "last.pt", torch.arange(400.0)
    save_checkpoint(path, Checkpoint(7, {"weight": weights}, {"state": {0: weights + 1}}, {"lr": 0.1}))
    content = path.read_bytes()
    refused = 0
    for position in range(0, len(content), 23):
        path.write_bytes(content[:position] + bytes([content[position] ^ 64]) + content[position + 1 :])
        try:
            read = load_checkpoint(path)
        except UsageError:
            refused += 1
        else:  # a byte that fills up, or a date
            assert (read.step, read.identity) == (7, {"lr": 0.1}) and torch.equal(read.model["weight"], weights)
            assert torch.equal(read.optimizer["state"][0], weights + 1)
    assert refused > 0.6 * len(content) / 23


class _Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code ran')",))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4:UserWarning")  # torch says so before it refuses
@pytest.mark.parametrize("content", [b"", b"no checkpoint", pickle.dumps(_Evil())])
def test_files_that_are_no_checkpoint_are_refused(tmp_path, content):
    path = tmp_path / "last.pt"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"last\.pt: not a training checkpoint"):
        load_checkpoint(path)


def test_a_pickle_with_code_in_torch_format_is_refused(tmp_path):
    torch.save({"step": 1, "model": _Evil()}, tmp_path / "last.pt")
    with pytest.raises(UsageError, match=r"last\.pt: not a training checkpoint"):
        load_checkpoint(tmp_path / "last.pt")


def test_export_is_float16_and_loads_as_a_model(tmp_path):
    model = torch.nn.Linear(3, 2)
    sha256 = export_weights(model, tmp_path / "m.safetensors")
    assert sha256 == file_sha256(tmp_path / "m.safetensors")
    tensors = load_file(tmp_path / "m.safetensors")
    assert tensors["weight"].dtype == torch.float16
    key = state_sha256(model)
    model.load_state_dict(tensors)
    assert state_sha256(model) == key
    with torch.no_grad():
        model.weight[0, 0] += 1
    assert state_sha256(model) != key
    model.weight.data[0, 0] = math.inf
    with pytest.raises(UsageError, match="'weight' is not finite"):
        export_weights(model, tmp_path / "m.safetensors")

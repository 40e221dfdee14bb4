"""Weights: strict, atomic, and no code from a file."""

from __future__ import annotations

import hashlib
import os
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from pickles_with_code import Touching
from safetensors.torch import load_file
from torch import nn

from ocl_bench.core.errors import UsageError
from ocl_bench.models.checkpoints.names import load_weights, read_content, read_tensors, save_weights, sha256


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def test_round_trip_in_half_precision(tmp_path: Path) -> None:
    first, second = model(), model()
    path = tmp_path / "new" / "weights.safetensors"
    save_weights(first, path)
    load_weights(second, path)
    torch.testing.assert_close(second[0].weight, first[0].weight.half().float(), rtol=0, atol=0)
    assert second[0].weight.dtype == torch.float32
    assert load_file(path)["0.weight"].dtype == torch.float16
    assert load_file(path)["1.num_batches_tracked"].dtype == torch.int64
    assert os.listdir(path.parent) == ["weights.safetensors"]
    assert sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    before = sha256(path)
    save_weights(first, path)
    assert sha256(path) == before


def test_torch_state_dict(tmp_path: Path) -> None:
    first, second = model(), model()
    torch.save(first.state_dict(), tmp_path / "weights.pth")
    load_weights(second, tmp_path / "weights.pth")
    assert torch.equal(first[0].weight, second[0].weight)


def test_failed_save_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(model(), path)
    before = path.read_bytes()

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ocl_bench.models.checkpoints.names.save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        save_weights(model(), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["weights.safetensors"]


def test_values_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    large = model()
    with torch.no_grad():
        large[0].weight[0, 0] = 1e6
    with pytest.raises(UsageError, match=r"0\.weight.*not finite"):
        save_weights(large, tmp_path / "weights.safetensors")
    assert os.listdir(tmp_path) == []
    save_weights(large, tmp_path / "weights.safetensors", dtype=torch.float32)


def test_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    path, marker = tmp_path / "evil.pth", tmp_path / "marker"
    torch.save({"0.weight": Touching(marker)}, path)
    with pytest.raises(UsageError, match=r"evil\.pth: refused") as error:
        load_weights(model(), path)
    assert not marker.exists()
    assert "\n" not in str(error.value)


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such checkpoint"):
        read_tensors(tmp_path / "absent.safetensors")
    for name, content in [
        ("a.safetensors", b"\xff" * 20),
        ("b.pth", b"\xff" * 20),
        ("c.pth", b""),
        ("d.pth", b"PK\x03"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match=name) as error:
            read_tensors(tmp_path / name)
        assert "\n" not in str(error.value)
    torch.save({"model": {"0.weight": torch.zeros(1)}}, tmp_path / "nested.pth")
    with pytest.raises(UsageError, match="not a plain state_dict"):
        read_tensors(tmp_path / "nested.pth")


def test_a_changed_byte_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """torch reads it without a word: the numbers would be those of other weights."""
    path = tmp_path / "weights.pt"
    torch.save({"weight": torch.full((64,), 2.0)}, path)
    assert read_tensors(path)["weight"].tolist() == [2.0] * 64 and not caplog.text
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\x00\x00\x00\x40" * 64, b"\x00\x00\x80\x40" * 64))
    assert read_tensors(path)["weight"].tolist() == [4.0] * 64
    assert "data/0 does not fit its checksum; is the file damaged?" in caplog.text


def test_other_shapes_and_names_are_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"

    def message(change: dict[str, torch.Tensor | None]) -> str:
        state = model().state_dict() | {key: value for key, value in change.items() if value is not None}
        torch.save({key: value for key, value in state.items() if change.get(key, value) is not None}, path)
        target = model()
        before = {key: value.clone() for key, value in target.state_dict().items()}
        with pytest.raises(UsageError) as error:
            load_weights(target, path)
        assert all(torch.equal(value, before[key]) for key, value in target.state_dict().items())
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
        return str(error.value)

    wrong_shape = message({"0.weight": torch.zeros(5, 3)})
    assert "'0.weight'" in wrong_shape
    assert "(5, 3)" in wrong_shape
    assert "(4, 3)" in wrong_shape
    missing = message({"0.bias": None, "1.bias": None})
    assert "misses tensor '0.bias' (4,) and 1 more" in missing
    assert "unexpected tensor 'extra' (7,)" in message({"extra": torch.zeros(7)})


@pytest.mark.parametrize("wrapper", ["", "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module.", "model.", "module._orig_mod."])
def test_what_other_tools_put_around_the_weights_is_taken_away(
    tmp_path: Path, prefix: str, wrapper: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="ocl_bench")
    first, second, path = model(), model(), tmp_path / "ck.pth"
    tensors = {prefix + name: value for name, value in first.state_dict().items()}
    torch.save({wrapper: tensors, "epoch": 3} if wrapper else tensors, path)
    load_weights(second, path)
    assert torch.equal(first[0].weight, second[0].weight)
    assert ("loaded without" in caplog.text) == bool(prefix or wrapper)
    assert not prefix or prefix.split(".")[0] in caplog.text


def test_a_prefix_of_the_model_itself_stays(tmp_path: Path) -> None:
    wrapped = nn.ModuleDict({"model": model()})
    torch.save(wrapped.state_dict(), tmp_path / "ck.pth")
    load_weights(nn.ModuleDict({"model": model()}), tmp_path / "ck.pth")


def test_a_prefix_of_some_names_only_is_an_error(tmp_path: Path) -> None:
    state = model().state_dict()
    state["module.0.weight"] = state.pop("0.weight")
    torch.save(state, tmp_path / "ck.pth")
    with pytest.raises(UsageError, match=r"misses tensor '0\.weight'"):
        load_weights(model(), tmp_path / "ck.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value.fill_(torch.inf), "infinity"),
        (lambda value: value.fill_(-torch.inf), "infinity"),
        (lambda value: value.fill_(torch.nan), "NaN"),
        (lambda value: value.long(), r"torch\.int64"),
        (lambda value: value.to(torch.complex64), r"torch\.complex64"),
        (lambda value: value.bool(), r"torch\.bool"),
        (lambda value: value.to("meta"), "expects"),
    ],
)
def test_values_that_are_no_weights_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    state = model().state_dict()
    state["0.weight"] = change(state["0.weight"].clone())
    torch.save(state, tmp_path / "ck.pth")
    with pytest.raises(UsageError, match=rf"ck\.pth: tensor '0\.weight'.*{message}|{message}.*'0\.weight'"):
        load_weights(model(), tmp_path / "ck.pth")


def test_a_buffer_may_hold_infinities(tmp_path: Path) -> None:
    """A mask of attention is a buffer with -inf."""
    masked = nn.Module()
    masked.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    torch.save(masked.state_dict(), tmp_path / "ck.pth")
    load_weights(masked, tmp_path / "ck.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"\x00" * 8, b"PK\x03\x04", b"\x80\x02}.", b"\xff" * 64])
def test_files_that_are_no_checkpoints_are_one_line(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"ck{suffix}"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=rf"ck\{suffix}") as error:
        load_weights(model(), path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["<!DOCTYPE html><html><title>Virus scan warning</title>", "\n <HTML>"])
def test_a_web_page_is_no_checkpoint(text: str, tmp_path: Path) -> None:
    for name in ("file.pth", "file.safetensors"):
        (tmp_path / name).write_text(text)
        with pytest.raises(UsageError, match=rf"{name}: a web page, .* download it again"):
            read_content(tmp_path / name)


@pytest.mark.parametrize("seed", range(6))
def test_arbitrary_bytes_are_called_damaged_and_not_dangerous(seed: int, tmp_path: Path) -> None:
    (tmp_path / "file.pth").write_bytes(random.Random(seed).randbytes(4000))
    with pytest.raises(UsageError, match=r"damaged, or no checkpoint at all|not a readable checkpoint"):
        read_content(tmp_path / "file.pth")


def test_another_protocol_of_pickles_is_refused_without_a_warning_of_torch(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    (tmp_path / "file.pth").write_bytes(pickle.dumps({"a": print}, protocol=4))
    with pytest.raises(UsageError, match="could run code"):
        read_content(tmp_path / "file.pth")
    assert not recwarn.list

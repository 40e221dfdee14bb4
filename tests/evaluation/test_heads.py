"""The cache of heads: a head is fitted once, again when asked or damaged, and never kept when it is not finite."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ocl_bench.core.errors import UsageError
from ocl_bench.evaluation.heads import cached, head_path


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "cache"))


def test_a_fitted_head_is_kept() -> None:
    calls = []

    def fit() -> dict[str, torch.Tensor]:
        calls.append(1)
        return {"weight": torch.arange(6.0).reshape(2, 3).T}

    for _ in range(2):
        assert torch.equal(cached("ab" * 32, fit)["weight"], torch.arange(6.0).reshape(2, 3).T)
    assert len(calls) == 1


def test_a_head_is_fitted_again_when_asked_and_when_its_file_is_damaged(tmp_path: Path) -> None:
    calls: list[int] = []

    def fit() -> dict[str, torch.Tensor]:
        calls.append(1)
        return {"weight": torch.full((2,), float(len(calls)))}

    cached("cd" * 32, fit)
    assert float(cached("cd" * 32, fit, again=True)["weight"][0]) == 2
    (path,) = (tmp_path / "cache" / "heads").glob("*/*.safetensors")
    path.write_bytes(b"junk")
    assert float(cached("cd" * 32, fit)["weight"][0]) == 3
    assert float(cached("cd" * 32, fit)["weight"][0]) == 3, "and kept again"
    path.unlink()
    (path / "sub").mkdir(parents=True)
    assert float(cached("cd" * 32, fit)["weight"][0]) == 4 and path.is_file(), "also a folder is replaced"


@pytest.mark.parametrize("change", ["of another key", "edited", "without a seal"])
def test_a_head_that_is_not_the_one_that_was_fitted_is_fitted_again(change: str, tmp_path: Path) -> None:
    def head(value: float) -> dict[str, torch.Tensor]:
        return {"weight": torch.full((2,), value), "bias": torch.zeros(1)}

    for name, value in (("ab", 1.0), ("cd", 2.0)):
        cached(name * 32, lambda value=value: head(value))
    path = head_path("ab" * 32)
    if change == "of another key":
        shutil.copyfile(head_path("cd" * 32), path)
    else:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        save_file(head(3.0), path, metadata if change == "edited" else None)
    assert float(cached("ab" * 32, lambda: head(1.0))["weight"][0]) == 1
    assert float(cached("cd" * 32, lambda: head(9.0))["weight"][0]) == 2, "the other is kept"


def test_a_head_that_is_not_finite_is_refused_and_not_kept(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not finite"):
        cached("ef" * 32, lambda: {"weight": torch.tensor([float("nan")])})
    assert not list((tmp_path / "cache").glob("heads/*/*"))

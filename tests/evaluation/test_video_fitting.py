"""Heads on videos: a killed fit goes on, a finished one is kept, and videos that fail are left out and counted."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from sliding_squares import Centres, Sliding, dynamics_task, sliding
from torch import Tensor

from ocl_bench.cards.names import get_task
from ocl_bench.core.errors import SampleError, UsageError
from ocl_bench.core.files import ids_hash
from ocl_bench.core.paths import PACKAGE, bundled
from ocl_bench.core.types import Video
from ocl_bench.data import OpenData
from ocl_bench.evaluation import heads
from ocl_bench.evaluation.plan import make_plan
from ocl_bench.evaluation.run import run
from ocl_bench.evaluation.sealed import read_sealed, write_sealed
from ocl_bench.results.record import FitSection, Result
from ocl_bench.results.store import read_result

TASK = dynamics_task(fit={"head": "rollouter", "steps": 3, "batch": 2})
DATA, TRAIN = sliding(2, first=100), sliding(5)

MODEL = '''
from pathlib import Path
from sliding_squares import Centres

HERE = Path(__file__).parent

class Counting(Centres):
    """Writes down each clip, and stops at the one whose number is in the file `stop`."""

    fingerprint = "counting"

    def predict(self, batch):
        with (HERE / "clips").open("a") as file:
            file.write(batch.ids[0] + "\\n")
        clips = (HERE / "clips").read_text().split()
        if (HERE / "stop").is_file() and len(clips) == int((HERE / "stop").read_text()):
            raise KeyboardInterrupt
        return super().predict(batch)

def build():
    return Counting()
'''


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "model.py").write_text(MODEL)
    return tmp_path / "model.py"


def evaluated(model: Path, **keywords: Any) -> Result:
    plan = make_plan(f"{model}:build", TASK, data=keywords.pop("data", DATA), train=keywords.pop("train", TRAIN))
    return run(plan, results=model.parent / "results", progress=False, **keywords)


def clips(model: Path) -> list[str]:
    """The videos of the clips since the last call."""
    path = model.parent / "clips"
    names = path.read_text().split()
    path.unlink()
    return names


def kept(model: Path) -> list[Path]:
    return sorted((model.parent / "cache" / "heads").glob("*/*.videos/*"))


def numbers(result: Result) -> dict[str, float | None]:
    return {name: one.value for name, one in result.metrics.items()}


def test_a_killed_fit_goes_on_where_it_stopped(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A video has two clips: that of the burn-in and the rest."""
    (tmp_path / "stop").write_text("7")
    with pytest.raises(KeyboardInterrupt):
        evaluated(model)
    assert [path.name for path in kept(model)] == [f"{k:05d}.safetensors" for k in range(3)]
    (tmp_path / "stop").unlink()
    clips(model)
    resumed = evaluated(model)
    assert [name for name in clips(model) if name in TRAIN.ids] == ["video3", "video3", "video4", "video4"]
    assert kept(model) == []
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "another"))
    assert numbers(evaluated(model, force=True)) == numbers(resumed)
    assert set(clips(model)) == {*TRAIN.ids, *DATA.ids}


def test_a_finished_fit_is_kept(model: Path) -> None:
    evaluated(model)
    clips(model)
    evaluated(model, data=sliding(3, first=200))
    assert not set(clips(model)) & set(TRAIN.ids)
    evaluated(model, force=True)
    assert set(TRAIN.ids) <= set(clips(model))


def test_a_bundled_head_is_read_instead_of_a_fit(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "PACKAGE", tmp_path / "package")
    fitted = evaluated(model)
    (known,) = (tmp_path / "cache" / "heads").glob("*/*.safetensors")
    shipped = heads.bundled_head(TASK.name, fitted.model.name)
    write_sealed(shipped, known.stem, cast(dict[str, Tensor], read_sealed(known, known.stem)))
    known.unlink()
    clips(model)
    evaluated(model, data=sliding(3, first=200))
    assert not set(clips(model)) & set(TRAIN.ids)
    assert numbers(evaluated(model, force=True)) == numbers(fitted)
    assert set(TRAIN.ids) <= set(clips(model)), "fitted again when asked"
    write_sealed(shipped, "ab" * 32, {"weight": torch.zeros(1)})
    known.unlink()
    evaluated(model, data=sliding(3, first=300))
    assert set(TRAIN.ids) <= set(clips(model)), "that of other weights is not read"


BUNDLED = sorted((PACKAGE / "models" / "heads").rglob("*.safetensors"))


@pytest.mark.parametrize("path", BUNDLED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_bundled_heads_belong_to_the_bundled_weights_and_cards(path: Path) -> None:
    """No video is rendered: the fit split is that of the committed result."""
    task, name = get_task(path.parent.name), path.stem
    result = read_result(bundled("leaderboards") / "results" / task.name / f"{name}.json")
    fit = cast(FitSection, result.fit)
    ids = tuple(f"video_{number:05d}" for number in range(fit.samples))
    assert ids_hash(ids) == fit.ids_sha256
    split = OpenData((), fit.kind, fit.revision, PACKAGE, ids, "")  # type: ignore[arg-type]
    plan = replace(make_plan(name, task, data=sliding(2), train=sliding(2)), train=split)
    assert plan.task.fit == task.fit
    head = read_sealed(path, plan.fit_key)
    assert head is not None, "of other weights or another recipe: run benchmarks/bundle_heads.py again"
    assert all(bool(torch.isfinite(tensor).all()) for tensor in head.values())


@pytest.mark.parametrize("content", [b"", b"nonsense", None], ids=["empty", "nonsense", "of another video"])
def test_a_damaged_part_is_predicted_again(model: Path, tmp_path: Path, content: bytes | None) -> None:
    (tmp_path / "stop").write_text("7")
    with pytest.raises(KeyboardInterrupt):
        evaluated(model)
    other, part = kept(model)[:2]
    part.write_bytes(other.read_bytes() if content is None else content)
    (tmp_path / "stop").unlink()
    clips(model)
    evaluated(model)
    assert [name for name in clips(model) if name in TRAIN.ids] == [f"video{k}" for k in (1, 1, 3, 3, 4, 4)]


class Damaged(Sliding):
    """Some videos cannot be read."""

    broken = (3,)

    def __getitem__(self, index: int) -> Video:
        if index in self.broken:
            raise SampleError(self.ids[index], "is damaged; download it again")
        return super().__getitem__(index)


class VeryDamaged(Damaged):
    broken = (3, 5)


def test_videos_that_fail_are_left_out_and_recorded(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    train = replace(TRAIN, reader=Damaged(12), ids=Damaged(12).ids)  # type: ignore[arg-type]
    with caplog.at_level(logging.INFO, "ocl_bench"):
        result = evaluated(model, train=train)
    assert result.fit is not None and result.fit.left_out == ("video3",) and result.fit.samples == 12
    assert "left out: 1 of 12 videos of the fit split, first: sample video3: is damaged" in caplog.text
    assert "12 videos of the fit split are predicted once, then probes are fitted" in caplog.text


def test_too_many_videos_that_fail_end_the_fit(model: Path) -> None:
    train = replace(TRAIN, reader=VeryDamaged(12), ids=VeryDamaged(12).ids)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="2 of 12 videos of the fit split fail, first: sample video3: is damaged"):
        evaluated(model, train=train)


def test_probes_of_a_live_object_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "cache"))
    run(make_plan(Centres(), TASK, data=DATA, train=TRAIN), results=tmp_path, progress=False)
    assert not (tmp_path / "cache" / "heads").exists()

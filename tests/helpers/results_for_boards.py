"""Results of made-up models on the card clevrtex, and the boards that they give."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from ocl_bench.cards.names import get_task, is_task
from ocl_bench.evaluation.examination.refusals import mark_of
from ocl_bench.metrics.statistics import bootstrap_mean
from ocl_bench.results.record import Result, write_result
from ocl_bench.tables.leaderboard.build import build_leaderboard

TASK = get_task("clevrtex")
N = 40


def image_values(mean: float, seed: int = 0, noise: float = 0.05) -> np.ndarray:
    """The same easy and hard images for every model, plus a little of its own."""
    shared = np.random.default_rng(99).normal(0, 0.1, N)
    return mean + shared + np.random.default_rng(seed).normal(0, noise, N)


def write(
    folder: Path,
    model: str,
    values: np.ndarray,
    *,
    stem: str | None = None,
    role: str = "model",
    seed: int | None = None,
    ids: str = "a",
    **changes: Any,
) -> Result:
    """Write one made-up result: every metric has the given per-image values."""
    rows = pandas.DataFrame({"id": [f"i{k:03d}" for k in range(len(values))], "noise_seed": 0, "n_objects": 3})
    for metric in TASK.metrics:
        rows[metric] = values
    interval = bootstrap_mean(values)
    number = {
        "value": float(np.nanmean(values)),
        "se": interval.se,
        "ci95": (interval.low, interval.high),
        "n_valid": int(np.isfinite(values).sum()),
        "direction": 1,
        "signature": "s",
    }
    content: dict[str, Any] = {
        "identity": {
            "key": hashlib.sha256(f"{model}{seed}{changes}{values}".encode()).hexdigest(),
            "created": "2026-01-01T00:00:00+00:00",
            "command": f"ocl-bench eval --model {model} --task clevrtex",
            "status": "complete",
            "suite_version": "0.1.0",
            "commit": "c" * 40,
            "dirty": False,
        },
        "task": {
            "name": TASK.name,
            "version": 1,
            "hash": TASK.hash,
            "signature": TASK.signature("decoder"),
            "main": TASK.main,
            "metrics": TASK.metrics,
        },
        "data": {
            "kind": "embedded",
            "revision": "1",
            "ids_sha256": ids,
            "limit": None,
            "split": "test",
            "stand_in_seed": None,
        },
        "model": {
            "name": model,
            "card": model,
            "options": {},
            "checkpoint_sha256": "" if seed is None else f"{seed}" * 64,
            "parameters": 0,
            "supervision": "none",
            "privilege": "none",
            "role": role,
            "mask_source": "decoder",
            "training_seed": seed,
        },
        "seeds": {"noise": (0,)},
        "setup": {"device": "cpu", "dtype": "float32", "threads": 1, "batch_size": 16, "versions": {}},
        "counts": {"attempted": len(values), "scored": len(values), "failed": [], "single_object_share": 0.0},
        "metrics": {name: dict(number) for name in TASK.metrics},
        "cost": {"seconds_total": 1, "seconds_model": 1, "images_per_second": 1, "peak_memory_mb": 1},
        "rows": {"file": "", "sha256": ""},
    }
    for place, value in changes.items():
        section, _, key = place.partition("__")
        content[section][key] = value
    result = write_result(Result.model_validate(content), rows, folder / TASK.name, stem or model.replace(":", "-"))
    return taken_for_valid(result)


def taken_for_valid(result: Result) -> Result:
    """Mark a result of a model and data that do not exist, which `validate` refuses, as one that has passed."""
    assert result.path is not None
    mark = mark_of(result.path, get_task(result.task.name) if is_task(result.task.name) else None)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    return result


def lines_of(out: Path) -> list[dict[str, str]]:
    with (out / "clevrtex.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def board_of(folder: Path, out: Path) -> tuple[list[dict[str, str]], str]:
    build_leaderboard([folder], out, "clevrtex")
    return lines_of(out), (out / "clevrtex.md").read_text(encoding="utf-8")

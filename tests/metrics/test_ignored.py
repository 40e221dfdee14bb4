"""What 255 means in a map of the truth is one rule, with one name and one default, wherever maps are compared."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ocl_bench.metrics
from ocl_bench.cards.task import TaskSpec
from ocl_bench.core.types import VOID
from ocl_bench.data import open_data
from ocl_bench.evaluation.supplied.score import score_masks
from ocl_bench.metrics import compute
from ocl_bench.metrics.contingency import contingency
from ocl_bench.metrics.davis import VideoObjects, frame_overlap
from ocl_bench.metrics.ignored import with_void
from ocl_bench.metrics.semantic import confusion
from ocl_bench.metrics.video import VideoTables

TRUTH = np.zeros((1, 8, 8), np.int64)
TRUTH[0, :3, :4], TRUTH[0, 3:6, 2:7], TRUTH[0, 6:] = 1, 2, 255
SLOTS = np.zeros((1, 8, 8), np.int64)
SLOTS[0, :4, :5], SLOTS[0, 4:, 2:] = 1, 2
EXPLICIT = np.where(TRUTH == 255, VOID, TRUTH)
LARGE = np.where(TRUTH == 2, 300, TRUTH)


@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("kind", ["uint8", "int16", "int64"])
def test_255_is_void_unless_the_map_counts_further(make: Any, kind: str) -> None:
    assert with_void(make(TRUTH.astype(kind)), "auto").tolist() == EXPLICIT.tolist()
    assert with_void(make(TRUTH.astype(kind)), None).tolist() == TRUTH.tolist()
    assert with_void(make(TRUTH.astype(kind)), 1).tolist() == np.where(TRUTH == 1, VOID, TRUTH).tolist()
    if kind != "uint8":
        large = make(LARGE.astype(kind))
        assert with_void(large, "auto").tolist() == LARGE.tolist()
        assert with_void(large, 255).tolist() == np.where(LARGE == 255, VOID, LARGE).tolist()


def test_a_map_does_not_depend_on_the_others_of_its_batch() -> None:
    both = with_void(np.concatenate([TRUTH, LARGE]), "auto")
    assert both.tolist() == np.concatenate([EXPLICIT, LARGE]).tolist()


def video(add: Any, truth: np.ndarray, **rule: Any) -> Any:
    add.add(truth, SLOTS, **rule)
    scores = add.scores()
    return scores.j_mean.tolist() if isinstance(add, VideoObjects) else [scores[name][0] for name in sorted(scores)]


COMPARISONS: dict[str, Callable[..., Any]] = {
    "compute": lambda truth, **rule: compute(["mbo_fg"], truth, SLOTS, **rule)["mbo_fg"][0].tolist(),
    "contingency": lambda truth, **rule: contingency(truth, SLOTS, **rule).predicted.tolist(),
    "confusion": lambda truth, **rule: confusion(truth, SLOTS, 301, 3, **rule).sum(0).tolist(),
    "frame": lambda truth, **rule: frame_overlap(truth[0], SLOTS[0], **rule).predicted_area.tolist(),
    "objects": lambda truth, **rule: video(VideoObjects(), truth, **rule),
    "tables": lambda truth, **rule: video(VideoTables(), truth, **rule),
}


@pytest.mark.parametrize("name", COMPARISONS)
def test_every_function_has_the_same_rule_and_default(name: str) -> None:
    compare = COMPARISONS[name]
    assert compare(TRUTH) == compare(TRUTH, ignore_index="auto") == compare(TRUTH, ignore_index=255)
    assert compare(TRUTH) == compare(EXPLICIT) != compare(TRUTH, ignore_index=None)
    assert compare(LARGE) == compare(LARGE, ignore_index=None) != compare(LARGE, ignore_index=255)


def folder(root: Path, truth: np.ndarray, **options: Any) -> TaskSpec:
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(root / "images/a.png")
    Image.fromarray(truth[0].astype(np.uint16)).save(root / "masks/a.png")
    return TaskSpec.model_validate(
        {
            "name": "mine",
            "version": 1,
            "family": "discovery",
            "data": {"reader": "folder", "options": options},
            "protocol": {"input": 8, "score_at": None, "crop": "none"},
            "metrics": ["mbo_fg"],
            "main": "mbo_fg",
        }
    )


@pytest.mark.parametrize("truth", [TRUTH, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("rule", [{}, {"ignore_index": 255}, {"ignore_index": None}], ids=["default", "255", "none"])
def test_cards_and_score_have_the_rule_of_the_functions(
    tmp_path: Path, truth: np.ndarray, rule: dict[str, Any]
) -> None:
    expected = compute(["mbo_fg"], truth, SLOTS, **rule)["mbo_fg"][0][0]
    spec = folder(tmp_path / "folder", truth, **rule)
    labels = open_data(spec, data_root=tmp_path / "folder", progress=False).reader[0].truth.labels
    assert compute(["mbo_fg"], labels[None], SLOTS, ignore_index=None)["mbo_fg"][0][0] == expected
    given = {} if "ignore_index" not in rule else {"ignore_index": -1 if rule["ignore_index"] is None else 255}
    np.savez(tmp_path / "m.npz", truth=truth, prediction=SLOTS, **given)
    result = score_masks(spec, tmp_path / "m.npz", results=tmp_path / "r", progress=False)
    assert result.metrics["mbo_fg"].value == expected


def public() -> Iterator[tuple[str, Any]]:
    for module in iter_modules(ocl_bench.metrics.__path__, "ocl_bench.metrics."):
        for name, value in vars(import_module(module.name)).items():
            if getattr(value, "__module__", "") != module.name or name.startswith("_"):
                continue
            functions = vars(value) if inspect.isclass(value) else {name: value}
            yield from ((f"{name}.{part}", one) for part, one in functions.items() if inspect.isfunction(one))


def test_the_truth_comes_first_everywhere() -> None:
    seen = 0
    for name, function in public():
        names = list(inspect.signature(function).parameters)
        if "truth" in names and {"prediction", "outputs", "ids"} & set(names):
            other = next(one for one in names if one in ("prediction", "outputs", "ids"))
            assert names.index("truth") < names.index(other), name
            seen += 1
    assert seen >= 8

"""Faults that a review found, each kept from coming back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from ocl_bench.cards.names import get_task
from ocl_bench.core.errors import UsageError
from ocl_bench.core.types import Instance, Prediction, Truth
from ocl_bench.evaluation.heads import cached
from ocl_bench.evaluation.matrix import evaluate_matrix
from ocl_bench.families.discovery import Discovery
from ocl_bench.families.heads.features import extracted
from ocl_bench.metrics.detection import Detections, match_images


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "cache"))


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


def test_a_head_that_is_not_finite_is_refused_and_not_kept(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not finite"):
        cached("ef" * 32, lambda: {"weight": torch.tensor([float("nan")])})
    assert not list((tmp_path / "cache").glob("heads/*/*"))


def test_tokens_too_large_for_float16_are_refused() -> None:
    truth = Truth(np.zeros((4, 4), np.int16), classes=np.zeros((4, 4), np.int16))
    tokens = Prediction(tokens=torch.full((1, 3, 2, 2), 1e6))
    with pytest.raises(UsageError, match="too large for float16"), extracted([([truth], tokens)], 1, 2):
        pass


def test_mbo_class_of_an_image_does_not_depend_on_its_neighbours() -> None:
    task = get_task("voc-discovery")
    labels = np.zeros((8, 8), np.int16)
    labels[:4, :4], labels[4:, 4:] = 1, 2
    classes = np.where(labels > 0, 7, 0).astype(np.int16)
    named = Truth(labels, (7, 7), classes)
    bare = Truth(labels, ())
    alone = Discovery().score([named], [labels], task)[0]["mbo_class"]
    both = Discovery().score([named, bare], [labels, labels], task)
    assert both[0]["mbo_class"] == alone == 0.5
    assert np.isnan(both[1]["mbo_class"]) and both[1]["mbo_fg"] == 1.0, "without categories it is not valid"


def test_an_object_without_a_mask_does_not_take_its_image_away() -> None:
    mask = np.zeros((8, 8), np.uint8, order="F")
    mask[:4, :4] = 1
    code = coco_mask.encode(mask)
    good, bare = Instance(1, (0, 0, 4, 4), code, 16.0), Instance(1, (4, 4, 8, 8), None, 16.0)
    found = Detections(np.array([[0.0, 0, 4, 4]]), np.array([0.9]), np.array([0]), (code,))
    labels = np.zeros((8, 8), np.int16)
    truth = Truth(labels, instances=(good, bare))
    (masks,), (boxes,) = (match_images([truth], [found], kind) for kind in ("mask", "box"))  # type: ignore[arg-type]
    assert masks is not None and masks.truth_counts.tolist() == [1]
    assert boxes is not None and boxes.truth_counts.tolist() == [2]
    only_boxes = replace(truth, instances=(bare,))
    assert match_images([only_boxes], [found], "mask") == [None]


def test_the_signature_of_boxes_claims_nothing_about_masks() -> None:
    task = get_task("coco-detection")
    assert task.signature("boxes") == "crop:none│from:boxes│at:native│max:100│annotations:instances│v1"
    assert "mask:decoder│up:bilinear-argmax" in task.signature("decoder") and "nms:0.95" in task.signature("decoder")


def test_a_misspelt_model_is_refused_before_anything_runs(tmp_path: Path) -> None:
    lines: list[Any] = []
    with pytest.raises(UsageError, match=r"unknown model 'gird'; did you mean .*grid"):
        evaluate_matrix(["grid", "gird"], ["clevrtex"], results=tmp_path, limit=2, say=lines.append, progress=False)
    assert not lines and not any(tmp_path.glob("clevrtex*"))

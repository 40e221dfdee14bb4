"""Numbers move only for a written reason: hashes, signatures, keys, rows, values and boards are those stored here.

`python tests/test_unchanged.py` writes `fixtures/unchanged.json` anew. Do that only where CHANGELOG.md says why a
number moved; moving, splitting or renaming code is no such reason.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from pycocotools import mask as coco_mask

from ocl_bench import ModelCard, TaskSpec, get_task, load_model_card, read_rows
from ocl_bench.core.paths import PACKAGE, bundled
from ocl_bench.core.types import Instance, Sample, Truth, Video
from ocl_bench.data import OpenData
from ocl_bench.evaluation.plan import make_plan
from ocl_bench.evaluation.run import run
from ocl_bench.results.record import Result

STORED = Path(__file__).parent / "fixtures" / "unchanged.json"

EVALUATIONS = {
    "discovery": ("dias", "clevrtex"),
    "detection": ("dias", "coco-detection"),
    "detection with a head": ("dias", "coco-detection-slot"),
    "segmentation": ("slotcon", "cocostuff-segmentation"),
    "recognition": ("dias", "coco-recognition"),
    "knn": ("pixels", "imagenet-knn"),
    "video, image model": ("dias", "davis-2017"),
    "video, video model": ("slotmatch", "movi-c"),
}
"""What is evaluated, by model and card, on the small data of `SmallImages` and `SmallVideos`."""


def sample(number: int, name: str, shift: int = 0) -> Sample:
    """Two or three rectangles with categories, classes, boxes and a label; `shift` moves them to the right."""
    random = np.random.default_rng(number)
    height, width = ((96, 128), (128, 96), (112, 112))[number % 3]
    image = np.full((height, width, 3), 80, np.uint8) + random.integers(0, 30, (height, width, 1), dtype=np.uint8)
    labels, classes = np.zeros((height, width), np.int16), np.zeros((height, width), np.int16)
    instances = []
    for label in range(1, 3 + number % 2):
        top, left = 6 + 30 * (label - 1), int(random.integers(4, 40)) + shift
        tall, wide, category = int(random.integers(16, 26)), int(random.integers(20, 34)), int(random.integers(1, 5))
        place = slice(top, top + tall), slice(left, left + wide)
        labels[place], classes[place], image[place] = label, category, random.integers(0, 255, 3)
        mask = np.zeros((height, width), np.uint8, order="F")
        mask[place] = 1
        box = (float(left), float(top), float(left + wide), float(top + tall))
        instances.append(Instance(category, box, coco_mask.encode(mask), float(tall * wide)))
    categories = tuple(instance.category for instance in instances)
    return Sample(name, image, Truth(labels, categories, classes, tuple(instances), label=1 + number % 3))


@dataclass(frozen=True)
class SmallImages:
    """Images first .. first + count - 1, made on demand."""

    first: int
    count: int

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(f"image{number:03d}" for number in range(self.first, self.first + self.count))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        return sample(self.first + index, self.ids[index])


@dataclass(frozen=True)
class SmallVideos:
    """Three videos of five frames, in which the rectangles move to the right."""

    ids: tuple[str, ...] = ("video0", "video1", "video2")

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Video:
        frames: Sequence[Sample] = [sample(index, self.ids[index], shift=4 * frame) for frame in range(5)]
        return Video(self.ids[index], frames, tuple(f"{frame:05d}" for frame in range(5)))


def small_data(task: TaskSpec) -> tuple[OpenData, OpenData | None]:
    """Data to score on and, for a task with a head, to fit on."""
    names = {category: f"category {category}" for category in range(1, 5)}

    def opened(reader: Any) -> OpenData:
        return OpenData(reader, "embedded", "small-r1", Path("."), reader.ids, "in memory", names)

    if task.family == "video":
        return opened(SmallVideos()), None
    return opened(SmallImages(0, 9)), opened(SmallImages(100, 24)) if task.fit is not None else None


def small_task(name: str) -> TaskSpec:
    """A bundled card with a head that is fitted in few steps."""
    task = get_task(name)
    if task.fit is None:
        return task
    return task.model_copy(update={"fit": task.fit.model_copy(update={"steps": 40, "learning_rates": (0.01,)})})


def evaluation(model: str, card: str, results: Path) -> dict[str, Any]:
    """Key, hash of the rows, sums of their columns, and values of one small evaluation, on one thread."""
    task = small_task(card)
    data, train = small_data(task)
    plan = make_plan(model, task, data=data, train=train, device="cpu", batch_size=4)
    result: Result = run(replace(plan, threads=1), results=results, progress=False)
    assert result.path is not None
    values = {name: metric.value for name, metric in result.metrics.items()}
    key, rows = result.identity.key, read_rows(result.path)
    return {"key": key, "rows": rows_hash(rows), "sums": column_sums(rows), "values": values}


def rows_hash(rows: pandas.DataFrame) -> str:
    """SHA-256 of names, types and values of all columns, to the last bit."""
    columns = {name: [str(rows[name].dtype), [_plain(value) for value in rows[name]]] for name in rows.columns}
    return hashlib.sha256(json.dumps(columns).encode()).hexdigest()


def _plain(value: Any) -> Any:
    return value if isinstance(value, str) or value is None else np.asarray(value).tolist()


def column_sums(rows: pandas.DataFrame) -> dict[str, list[float]]:
    """How many numbers each column holds, lists of numbers included, and their sum."""
    sums = {}
    for name in rows.columns.drop("id"):
        parts = [np.ravel(np.asarray(value, dtype=np.float64)) for value in rows[name] if value is not None]
        numbers = np.concatenate(parts) if parts else np.zeros(0)
        numbers = numbers[np.isfinite(numbers)]
        sums[name] = [float(numbers.size), float(numbers.sum())]
    return sums


def machine() -> str:
    """What two machines must share to compute the same bits."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.is_file() else []
    names = {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}
    return f"{' '.join(sorted(names)) or platform.processor()}, torch {torch.__version__}"


def cards() -> dict[str, Any]:
    """Hash and signatures of every task card, and a hash of every model card."""
    found: dict[str, Any] = {}
    for path in sorted(bundled("tasks").glob("*.yaml")):
        task = get_task(path.stem)
        signatures = [task.signature("decoder"), task.signature("boxes", task.main)]
        found[path.stem] = {"hash": task.hash, "signatures": signatures}
    for path in sorted((PACKAGE / "models" / "cards").glob("*.yaml")):
        card: ModelCard = load_model_card(path)
        content = card.model_dump(mode="json")
        if content["training"] is not None and content["training"]["seconds"] is None:
            del content["training"]["seconds"]  # cards whose models were trained before this field existed
        text = json.dumps(content, sort_keys=True)
        found[f"model {path.stem}"] = hashlib.sha256(text.encode()).hexdigest()
    return found


def boards() -> dict[str, str]:
    """SHA-256 of every committed board."""
    pages = sorted(path for path in bundled("leaderboards").glob("*") if path.suffix in (".csv", ".md"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in pages}


def stored() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(STORED.read_text())
    return content


def test_hashes_and_signatures_of_cards_are_those_stored() -> None:
    assert cards() == stored()["cards"]


def test_committed_boards_have_the_stored_bytes() -> None:
    assert boards() == stored()["boards"]


@pytest.mark.parametrize("name", EVALUATIONS)
def test_small_evaluations_give_the_stored_keys_rows_and_values(name: str, tmp_path: Path) -> None:
    found, expected = evaluation(*EVALUATIONS[name], tmp_path), stored()["evaluations"][name]
    assert found["key"] == expected["key"]
    assert found["values"] == pytest.approx(expected["values"], abs=1e-6, rel=0)
    assert set(found["sums"]) == set(expected["sums"])
    for column, sums in found["sums"].items():
        assert sums == pytest.approx(expected["sums"][column], rel=1e-3, abs=1e-3), column
    if machine() == stored()["machine"]:  # other processors add in another order
        assert found["rows"] == expected["rows"]


def test_the_hash_of_rows_sees_a_changed_value() -> None:
    rows = pandas.DataFrame({"id": ["a", "b"], "mbo_fg": [0.5, np.nan], "cells": [np.array([1, 2]), np.array([3])]})
    other = rows.assign(mbo_fg=[0.5001, np.nan])
    assert rows_hash(rows) == rows_hash(rows.copy())
    assert rows_hash(rows) != rows_hash(other)
    assert rows_hash(rows) != rows_hash(rows.rename(columns={"mbo_fg": "mbo_all"}))


if __name__ == "__main__":
    import os
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        os.environ["OCL_BENCH_CACHE"] = f"{folder}/cache"
        content = {
            "machine": machine(),
            "cards": cards(),
            "boards": boards(),
            "evaluations": {name: evaluation(*pair, Path(folder)) for name, pair in EVALUATIONS.items()},
        }
    STORED.write_text(json.dumps(content, indent=1) + "\n")

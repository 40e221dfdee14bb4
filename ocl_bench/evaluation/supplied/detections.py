"""Score detections that exist already: a COCO results file of any detector, or what a run kept.

They go through the same corridor as a model: here a "model" that says which image it is asked about, and an adapter
that looks the detections of that image up.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ...cards.model import ModelCard
from ...cards.task import TaskSpec
from ...core.errors import UsageError
from ...core.types import Batch, Prediction
from ...data import OpenData
from ...families import find_family
from ...families.coco_results import read_results
from ...families.detection import Detection
from ...families.files import prediction_path
from ...metrics.detection import Detections
from ...models.loading import LoadedModel
from ..plan import Plan, make_plan

Found = Mapping[int, Mapping[str, Detections]]
"""Noise seed -> sample id -> detections."""


def results_plan(
    task: TaskSpec, data: OpenData, path: Path, name: str, *, limit: int | None = None, split: str | None = None
) -> Plan:
    """The plan that scores one COCO results file. Raises UsageError for what is wrong in the file."""
    # Classes play no part in these metrics; 0 stands for none, as in the files that `--save-predictions` keeps.
    categories = {0, *data.categories} if data.categories else None
    found = {0: read_results(path, data.ids, categories=categories)}
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return _plan(task, data, found, name, sha256, "none", limit, split)


def kept_plan(
    task: TaskSpec,
    data: OpenData,
    folder: Path,
    name: str,
    source: str,
    noise_seeds: Sequence[int],
    limit: int | None,
    split: str | None,
) -> Plan:
    """The plan that scores the files `seed-<n>/<id>.json` of a run. Raises UsageError when one is missing."""
    content, found = hashlib.sha256(), {}
    for seed in noise_seeds:
        entries = []
        for sample_id in data.ids:
            path = prediction_path(folder, sample_id, seed, ".json")
            try:
                text = path.read_bytes()
            except OSError as error:
                raise UsageError(f"{path}: cannot be read ({error.strerror}); evaluate again") from error
            content.update(text)
            read_results(path, [sample_id])  # names the file that is damaged
            entries += json.loads(text)
        with tempfile.NamedTemporaryFile("w", suffix=".json") as merged:
            json.dump(entries, merged)
            merged.flush()
            found[seed] = read_results(Path(merged.name), data.ids)
    return _plan(task, data, found, name, content.hexdigest(), source, limit, split, noise_seeds)


def _plan(
    task: TaskSpec,
    data: OpenData,
    found: Found,
    name: str,
    sha256: str,
    source: str,
    limit: int | None,
    split: str | None,
    noise_seeds: Sequence[int] = (0,),
) -> Plan:
    if find_family(task.family).output != "detections" or task.fit is not None:
        raise UsageError(f"task {task.name}: COCO results files are scored on detection tasks without a head")
    card = ModelCard(name="supplied-detections", source="user:object", input=8, notes=("detections from files",))
    model = LoadedModel(_Asked(data.ids), card, name, sha256, 0, None, {}, bundled=False)
    seeds = tuple(noise_seeds)
    plan = make_plan(model, task, data=data, noise_seeds=seeds, limit=limit, split=split, device="cpu")
    return replace(plan, adapter=_LookedUp(task, data.ids, found, source))


class _Asked:
    """Says which images it was asked about, and with which noise seed."""

    def __init__(self, ids: Sequence[str]) -> None:
        self.position = {sample_id: position for position, sample_id in enumerate(ids)}

    def predict(self, batch: Batch) -> Prediction:
        """`extra["image"]` (B, 2): position of the image and noise seed."""
        rows = [[self.position[sample_id], batch.noise_seed] for sample_id in batch.ids]
        return Prediction(extra={"image": torch.tensor(rows)})


class _LookedUp(Detection):
    """The detection adapter with detections from files."""

    def __init__(self, task: TaskSpec, ids: Sequence[str], found: Found, source: str) -> None:
        super().__init__(task)
        self.ids, self.found, self.named = ids, found, source

    def check(self, prediction: object, size: int, name: str) -> Prediction:
        assert isinstance(prediction, Prediction)
        return prediction

    def finite(self, prediction: Prediction) -> np.ndarray:
        return np.ones(len(prediction.extra["image"]), dtype=bool)

    def source(self, prediction: Prediction) -> str:
        return self.named

    def outputs(
        self, prediction: Prediction, shapes: Sequence[tuple[int, int]], side: int | None = None
    ) -> list[Detections]:
        rows = prediction.extra["image"].tolist()[: len(shapes)]
        return [self.found[seed][self.ids[position]] for position, seed in rows]

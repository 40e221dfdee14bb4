"""Detections that exist already: a COCO results file of any detector, or the files that a run saved.

No `Prediction` holds run-length masks at the size of each image, so these are the outputs of the task's adapter.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...cards.model import ModelCard
from ...cards.task import TaskSpec
from ...core.errors import UsageError
from ...core.files import parse_json, read_bytes
from ...data import OpenData
from ...families import find_family
from ...families.coco_results import read_results
from ...families.files import prediction_path
from ...metrics.detection import Detections
from ...models.loading import LoadedModel
from ..loop import GivenOutputs
from ..plan import Plan, make_plan

BySeed = Mapping[int, Mapping[str, Detections]]
"""Noise seed -> sample id -> detections."""


def results_plan(
    task: TaskSpec, data: OpenData, path: Path, name: str, *, limit: int | None = None, split: str | None = None
) -> Plan:
    """The plan that scores one COCO results file. Raises UsageError for a file that cannot be used."""
    # 0 stands for no class, as in the files that `--save-predictions` writes; class-agnostic metrics need none.
    without = () if getattr(task.protocol, "classes", None) else (0,)
    categories = {*without, *data.categories} if data.categories else None
    detections = {0: read_results(path, data.ids, numbers=data.image_ids, categories=categories)}
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return _plan(task, data, detections, name, sha256, "none", limit, split)


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
    """The plan that scores the files `seed-<n>/<id>.json` of a run.

    Args:
        data: images of the run for which there are files.
        folder: the saved predictions of the run.
        name: of the model in the result.
        source: mask source of the run.
        noise_seeds, limit, split: of the run.

    Raises:
        UsageError: when a file is missing or damaged.
    """
    content, detections = hashlib.sha256(), {}
    for seed in noise_seeds:
        entries = []
        for sample_id in data.ids:
            path = prediction_path(folder, sample_id, seed, ".json")
            try:
                text = read_bytes(path)
            except OSError as error:
                raise UsageError(f"{path}: cannot be read ({error.strerror}); evaluate again") from error
            content.update(text)  # seed by seed, in the order of the data: the hash is part of the result's key
            read_results(path, [sample_id], numbers=data.image_ids)  # an error names this file, not the temporary one
            entries += parse_json(text)
        # One file for all images: where no image has masks, those without detections have none either.
        with tempfile.NamedTemporaryFile("w", suffix=".json") as merged:
            json.dump(entries, merged)
            merged.flush()
            detections[seed] = read_results(Path(merged.name), data.ids, numbers=data.image_ids)
    return _plan(task, data, detections, name, content.hexdigest(), source, limit, split, noise_seeds)


def _plan(
    task: TaskSpec,
    data: OpenData,
    detections: BySeed,
    name: str,
    sha256: str,
    source: str,
    limit: int | None,
    split: str | None,
    noise_seeds: Sequence[int] = (0,),
) -> Plan:
    """The plan that scores detections.

    sha256: of the files, in place of a checkpoint's. source: mask source, as the signature prints it.
    """
    if find_family(task.family).output != "detections" or task.fit is not None:
        raise UsageError(f"task {task.name}: COCO results files are scored on detection tasks without a head")
    about: dict[str, Any] = {"notes": ("detections from files",), "supervision": "undeclared"}
    card = ModelCard(name="supplied-detections", source="user:object", input=8, **about)
    model = LoadedModel(GivenOutputs(detections, source), card, name, sha256, 0, None, {}, bundled=False)
    return make_plan(model, task, data=data, noise_seeds=noise_seeds, limit=limit, split=split, device="cpu")

"""Score masks that exist already: a folder of id-map PNGs, an `.npz` with truth, or the saved predictions of a run.

They go through the same corridor as a model: here a "model" that looks its masks up.
"""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch

from ...cards.model import ModelCard
from ...cards.names import get_task
from ...cards.task import TaskSpec
from ...core.errors import UsageError
from ...core.log import logger
from ...core.types import VOID, Batch, MaskSource, Prediction, Sample, Truth
from ...data import OpenData, open_data, subset
from ...data.base import SampleSequence
from ...data.transforms import nearest
from ...families import find_family
from ...families.files import prediction_path
from ...models.loading import LoadedModel
from ...results.record import Result, read_result
from ..plan import Plan, make_plan
from ..run import run
from .detections import kept_plan, results_plan
from .label_maps import REMEDY, read_prediction

_VOID_CODE = 255


def score_masks(
    task: str | Path | TaskSpec,
    masks: str | Path,
    *,
    name: str = "supplied-masks",
    data_root: str | Path | None = None,
    limit: int | None = None,
    split: str | None = None,
    results: str | Path | None = None,
    progress: bool = True,
) -> Result:
    """Score masks on a task and write the result under `name`.

    masks: a COCO results file (`.json`) for a detection task; a folder with `<sample id>.png`, each of the image's own
    size (it is cropped as the protocol says) or of the size at which the task scores; or an `.npz` with `prediction`
    and `truth` (N, H, W), 0 background and 255 void in the truth, scored at its own resolution without a crop. Every
    predicted id is a slot, 0 too. For videos the folder has `<video>/<frame>.png`, where an id means the same in all
    frames and 0 is no proposal in J and F. The result is `data: supplied` in all cases: nobody can tell what made the
    masks.
    Raises UsageError and DataMissingError.
    """
    spec, masks = get_task(task), Path(masks)
    if masks.suffix == ".npz":
        if data_root is not None or split is not None:
            raise UsageError(f"{masks}: brings its own truth; leave out --data-root and --split")
        plan = _array_plan(spec, masks, name, limit)
        logger.info("%s", plan.data.note)
    elif masks.suffix == ".json":
        root = Path(data_root) if data_root is not None else None
        data = open_data(spec, data_root=root, limit=limit, split=split, progress=progress)
        logger.info("%s", data.note)
        plan = results_plan(spec, replace(data, kind="supplied"), masks, name, limit=limit, split=split)
    elif masks.is_dir() and find_family(spec.family).unit == "videos":
        from .videos import masks_of, video_plan

        root = Path(data_root) if data_root is not None else None
        data = open_data(spec, data_root=root, limit=limit, split=split, progress=progress)
        find = masks_of(masks, data)
        logger.info("%s", data.note)
        plan = video_plan(spec, replace(data, kind="supplied"), find, name, background=0, limit=limit, split=split)
    elif masks.is_dir():
        root = Path(data_root) if data_root is not None else None
        data = open_data(spec, data_root=root, limit=limit, split=split, progress=progress)
        files = {sample_id: _file(masks, sample_id) for sample_id in data.ids}
        _require(masks, list(files.values()))
        logger.info("%s", data.note)
        data = replace(data, kind="supplied")
        plan = _folder_plan(spec, data, lambda sample_id, seed: files[sample_id], name, limit=limit, split=split)
    else:
        raise UsageError(f"{masks}: neither a folder of id-map PNGs nor an .npz or COCO results .json file")
    return run(plan, results=results, progress=progress)


@dataclass(frozen=True)
class Replay:
    """A run and what its saved predictions score now. `differences`: value now minus value stored, by metric."""

    stored: Result
    now: Result
    differences: dict[str, float]

    @property
    def equal(self) -> bool:
        """Whether every metric is the same to 1e-12."""
        return all(abs(difference) <= 1e-12 for difference in self.differences.values())


def replay(
    path: str | Path,
    *,
    task: str | Path | TaskSpec | None = None,
    data_root: str | Path | None = None,
    progress: bool = True,
) -> Replay:
    """Score the saved predictions of a run again. path: its result JSON. Writes nothing.

    task: the card of the run, when it is not a bundled one.

    Raises UsageError when the run saved no predictions, or when task card or data are not what they were.
    """
    stored = read_result(path)
    folder = Path(path).with_suffix(".predictions")
    spec = get_task(task if task is not None else stored.task.name)
    if not find_family(spec.family).replayable(spec):
        raise UsageError(f"{path}: predictions of task {stored.task.name} cannot be scored again without its head")
    if not folder.is_dir():
        raise UsageError(f"{folder}: the run saved no predictions; evaluate again with --save-predictions")
    if spec.hash != stored.task.hash:
        raise UsageError(f"{path}: is not of this task card {spec.name} v{spec.version}; pass --task or evaluate again")
    section = stored.data
    root = Path(data_root) if data_root is not None else None
    data = open_data(
        spec,
        data_root=root,
        limit=section.limit,
        split=section.split,
        stand_in_seed=section.stand_in_seed,
        progress=progress,
    )
    failed = {failure.id for failure in stored.counts.failed}
    plan = saved_plan(stored, spec, _without(data, failed), folder)
    if data.kind != section.kind or (not failed and plan.ids_sha256 != section.ids_sha256):
        raise UsageError(f"{path}: was scored on other data ({section.kind} {section.revision}); pass its --data-root")
    with tempfile.TemporaryDirectory() as scratch:
        now = run(plan, results=scratch, progress=progress)
    differences = {
        name: (now.metrics[name].value or 0.0) - (metric.value or 0.0) for name, metric in stored.metrics.items()
    }
    return Replay(stored, now, differences)


def saved_plan(stored: Result, task: TaskSpec, data: OpenData, folder: Path) -> Plan:
    """The plan that scores what the run `stored` predicted for `data`. folder: its saved predictions.

    Raises UsageError for a detection that is missing or damaged; label maps are read, and fail, one by one.
    """
    name, source, seeds = stored.model.name, stored.model.mask_source, stored.seeds.noise
    limit, split = stored.data.limit, stored.data.split
    family = find_family(task.family)
    if family.output == "detections":
        return kept_plan(task, data, folder, name, source, seeds, limit, split)
    if family.unit == "videos":
        from .videos import video_plan

        return video_plan(
            task,
            data,
            lambda video_id, frame, seed: prediction_path(folder, f"{video_id}/{frame}", seed),
            name,
            background=None,
            mask_source=source,
            noise_seeds=seeds,
            limit=limit,
            split=split,
        )
    return _folder_plan(
        task,
        data,
        lambda sample_id, seed: prediction_path(folder, sample_id, seed),
        name,
        mask_source=source,
        noise_seeds=seeds,
        limit=limit,
        split=split,
    )


def _without(data: OpenData, failed: set[str]) -> OpenData:
    return subset(data, [position for position, sample_id in enumerate(data.ids) if sample_id not in failed])


class _Lookup:
    """A model that looks up the masks of a sample: `find(id, noise seed)` gives segment ids (H, W)."""

    def __init__(self, find: Callable[[str, int], np.ndarray], mask_source: str = "none") -> None:
        self.find = find
        self.mask_source = cast(MaskSource, mask_source)

    def predict(self, batch: Batch) -> Prediction:
        """Label maps (B, H, W); maps that differ in size are enlarged to the largest, which scoring undoes exactly."""
        maps = [self.find(sample_id, batch.noise_seed) for sample_id in batch.ids]
        shape = (max(m.shape[0] for m in maps), max(m.shape[1] for m in maps))
        masks = torch.from_numpy(np.stack([nearest(m, shape) for m in maps]))
        return Prediction(masks=masks, mask_source=self.mask_source)


def _folder_plan(
    task: TaskSpec,
    data: OpenData,
    file: Callable[[str, int], Path],
    name: str,
    *,
    mask_source: str = "none",
    noise_seeds: Sequence[int] = (0,),
    limit: int | None = None,
    split: str | None = None,
) -> Plan:
    position = {sample_id: index for index, sample_id in enumerate(data.ids)}

    def find(sample_id: str, seed: int) -> np.ndarray:
        codes = read_prediction(file(sample_id, seed), data.reader[position[sample_id]], task)
        return np.unique(codes, return_inverse=True)[1].reshape(codes.shape)

    files = [file(sample_id, seed) for seed in noise_seeds for sample_id in data.ids]
    content = hashlib.sha256()
    for path in files:
        content.update(path.read_bytes() if path.is_file() else b"")
    model = _lookup_model(_Lookup(find, mask_source), name, content.hexdigest())
    return make_plan(model, task, data=data, noise_seeds=noise_seeds, limit=limit, split=split, device="cpu")


def _lookup_model(model: _Lookup, name: str, sha256: str) -> LoadedModel:
    """The masks as a model; the hash of their content takes the place of a checkpoint's."""
    card = ModelCard(name="supplied-masks", source="user:object", input=8, notes=("masks from files",))
    return LoadedModel(model, card, name, sha256, 0, None, {}, bundled=False)


def _file(folder: Path, sample_id: str) -> Path:
    path = Path(f"{sample_id}.png")
    if path.is_absolute() or ".." in path.parts:
        raise UsageError(f"sample id '{sample_id}' is not usable as a file name below {folder}")
    return folder / path


def _require(folder: Path, files: list[Path]) -> None:
    missing = [path for path in files if not path.is_file()]
    if missing:
        names = f"{len(missing)} of {len(files)} masks are missing, first {missing[0].name}"
        raise UsageError(f"{folder}: {names}; {REMEDY}, or use --limit")


@dataclass(frozen=True)
class _Arrays(SampleSequence[Sample]):
    """Truth label maps as samples. There are no images: nothing looks at them."""

    ids: tuple[str, ...]
    truth: np.ndarray

    def __getitem__(self, index: int) -> Sample:
        labels = self.truth[index].astype(np.int16)
        labels[self.truth[index] == _VOID_CODE] = VOID
        return Sample(self.ids[index], np.zeros((*labels.shape, 3), np.uint8), Truth(labels))


def _array_plan(task: TaskSpec, path: Path, name: str, limit: int | None) -> Plan:
    """The task's metrics and mask rules at the arrays' own resolution: crop none, score_at native."""
    prediction, truth, ids = _read_arrays(path)
    prediction, truth, ids = prediction[:limit], truth[:limit], ids[:limit]
    native = task.protocol.model_copy(update={"crop": "none", "score_at": None})
    spec = task.model_copy(update={"protocol": native, "noise_seeds": (0,)})
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    position = {sample_id: index for index, sample_id in enumerate(ids)}
    model = _lookup_model(_Lookup(lambda i, _: prediction[position[i]].astype(np.int64)), name, sha256)
    note = f"data: supplied, {len(ids)} truth maps of {path}"
    data = OpenData(_Arrays(ids, truth), "supplied", f"sha256:{sha256[:16]}", path.parent, ids, note)
    return make_plan(model, spec, data=data, limit=limit, device="cpu")


def _read_arrays(path: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {key: content[key] for key in content.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path}: cannot be read as plain arrays ({error})") from error
    for field in ("prediction", "truth"):
        if field not in arrays:
            raise UsageError(f"{path}: field '{field}' is missing; it has {', '.join(arrays) or 'nothing'}")
        array = arrays[field]
        if array.ndim != 3 or not np.issubdtype(array.dtype, np.integer) or 0 in array.shape:
            raise UsageError(f"{path}: field '{field}' is {array.dtype} {array.shape}, expected integers (N, H, W)")
        if array.min() < 0 or array.max() > np.iinfo(np.int16).max:
            raise UsageError(f"{path}: field '{field}' has labels outside 0 .. 32767; number them anew")
    prediction, truth = arrays["prediction"], arrays["truth"]
    if prediction.shape != truth.shape:
        raise UsageError(f"{path}: field 'prediction' is {prediction.shape}, 'truth' is {truth.shape}; must be equal")
    ids = tuple(str(i) for i in arrays.get("ids", [f"{i:06d}" for i in range(len(truth))]))
    if len(ids) != len(truth) or len(set(ids)) != len(ids):
        raise UsageError(f"{path}: field 'ids' must hold {len(truth)} different names, got {len(set(ids))}")
    return prediction, truth, ids

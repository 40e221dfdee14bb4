"""Masks and truth that a user brings in one `.npz` file, scored at their own resolution."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...cards.task import TaskSpec
from ...core.errors import UsageError
from ...core.files import check_regular
from ...core.log import logger
from ...core.types import Sample, Truth
from ...data import OpenData
from ...data.base import SampleSequence
from ...data.rims import remark_rims
from ...metrics.ignored import IGNORED, IgnoreIndex, spread_to_255, with_void
from ..plan import Plan, make_plan
from .masks import MaskLookup, masks_model

LARGEST_ARRAYS = 1_500_000_000
"""Most bytes that a `.npz` file may unpack to."""


@dataclass(frozen=True)
class _Arrays(SampleSequence[Sample]):
    """Label maps of the truth as samples. Their images are black: the masks exist already, so nothing reads them.

    ignore_index: what counts as a pixel without annotation, see `ocl_bench.metrics.ignored`.
    """

    ids: tuple[str, ...]
    truth: np.ndarray
    ignore_index: IgnoreIndex

    def __getitem__(self, index: int) -> Sample:
        labels = with_void(self.truth[index][None], self.ignore_index)[0].astype(np.int16)
        return Sample(self.ids[index], np.zeros((*labels.shape, 3), np.uint8), Truth(labels))


def array_plan(task: TaskSpec, path: Path, name: str, limit: int | None) -> Plan:
    """The plan that scores `prediction` against `truth` of an `.npz` file.

    It has the task's metrics and mask rules, but crops nothing and scores at the resolution of the arrays. Its
    signature says so. Raises UsageError for arrays that cannot be used.
    """
    prediction, truth, ids, ignore_index = _read_arrays(path)
    if ignore_index == "auto" and (remark := _void_remark(truth)):
        logger.warning("%s: truth %s; store `ignore_index` (255, or -1 for no such label) to say it", path, remark)
    prediction, truth, ids = prediction[:limit], truth[:limit], ids[:limit]
    # There are no images to crop, and whoever made the arrays has chosen their resolution.
    native = task.protocol.model_copy(update={"crop": "none", "score_at": None})
    spec = task.model_copy(update={"protocol": native, "noise_seeds": (0,)})
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    note = f"data: supplied, {len(ids)} truth maps of {path}"
    data = OpenData(_Arrays(ids, truth, ignore_index), "supplied", f"sha256:{sha256[:16]}", path.parent, ids, note)
    position = {sample_id: index for index, sample_id in enumerate(ids)}
    for field, maps in (("truth", truth), ("prediction", prediction)):
        ignored = IGNORED if ignore_index == "auto" and field == "truth" else None
        for one in maps:
            remark_rims(one.astype(np.int64), False, ignored, path, f"{field} of {path}")
    lookup = MaskLookup(data, lambda sample_id, sample, seed: prediction[position[sample_id]].astype(np.int64))
    return make_plan(masks_model(lookup, name, sha256), spec, data=data, limit=limit, device="cpu")


_FIELDS = {"prediction", "truth", "ids", "ignore_index"}


def _check_size(path: Path) -> None:
    """Raise UsageError when the arrays would take too much memory; the sizes stand in the head of the archive."""
    check_regular(path)
    if not zipfile.is_zipfile(path):
        raise UsageError(f"{path}: is not a .npz archive; write it with numpy.savez")
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > LARGEST_ARRAYS:
        text = f"unpacks to {size / 1e9:.1f} GB, at most {LARGEST_ARRAYS / 1e9:g} are read"
        raise UsageError(f"{path}: {text}; store small integers, such as uint8, or score it in parts")


def _void_remark(truth: np.ndarray) -> str:
    """What is remarkable about 255 in maps (N, H, W): some count further, or it looks like an object; else empty."""
    largest, ignored = truth.max((1, 2)), (truth == IGNORED).any((1, 2))
    if spread := next(filter(None, map(spread_to_255, truth[ignored])), None):
        shown = ", ".join(map(str, spread))
        return f"has numbers that are spread evenly up to {IGNORED} ({shown}), and {IGNORED} is read as void"
    if not ((largest > IGNORED) & ignored).any():
        return ""
    return f"has numbers above {IGNORED}, so that {IGNORED} is an object and not void in the maps with such numbers"


def _read_arrays(path: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], IgnoreIndex]:
    """Prediction and truth (N, H, W), N different ids, and what is void. Raises UsageError naming file and field."""
    try:
        _check_size(path)
        with np.load(path, allow_pickle=False) as content:
            arrays = {key: content[key] for key in content.files}
    except UsageError:
        raise
    except Exception as error:  # a damaged head may claim any size, and a damaged archive raises much
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"{path}: cannot be read as plain arrays ({reason}); write it with numpy.savez") from error
    for field in ("prediction", "truth"):
        if field not in arrays:
            raise UsageError(f"{path}: field '{field}' is missing; it has {', '.join(arrays) or 'nothing'}")
        array = arrays[field]
        if array.ndim != 3 or not np.issubdtype(array.dtype, np.integer) or 0 in array.shape:
            raise UsageError(f"{path}: field '{field}' is {array.dtype} {array.shape}, expected integers (N, H, W)")
        if array.min() < 0 or array.max() > np.iinfo(np.int16).max:
            raise UsageError(f"{path}: field '{field}' has labels outside 0 .. 32767; number them anew")
    if unknown := sorted(set(arrays) - _FIELDS):
        raise UsageError(f"{path}: field '{unknown[0]}' is unknown; the fields are {', '.join(sorted(_FIELDS))}")
    prediction, truth = arrays["prediction"], arrays["truth"]
    if prediction.shape != truth.shape:
        raise UsageError(f"{path}: field 'prediction' is {prediction.shape}, 'truth' is {truth.shape}; must be equal")
    ids = tuple(str(i) for i in arrays.get("ids", [f"{i:06d}" for i in range(len(truth))]))
    if len(ids) != len(truth) or len(set(ids)) != len(ids):
        raise UsageError(f"{path}: field 'ids' must hold {len(truth)} different names, got {len(set(ids))}")
    return prediction, truth, ids, _ignore_index(path, arrays)


def _ignore_index(path: Path, arrays: dict[str, np.ndarray]) -> IgnoreIndex:
    """The field `ignore_index`: a label, or a negative number for none; "auto" without the field."""
    if "ignore_index" not in arrays:
        return "auto"
    value = arrays["ignore_index"]
    if value.size != 1 or value.dtype.kind not in "iu":
        raise UsageError(f"{path}: field 'ignore_index' is {value.dtype} {value.shape}, expected one integer")
    return int(value.item()) if value.item() >= 0 else None

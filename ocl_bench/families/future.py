"""The future of a clip: which objects come into view, masks of predicted slots, and values by horizon."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from torch import Tensor
from torch.nn.functional import interpolate

from ..cards.dynamics import DynamicsProtocol
from ..cards.task import TaskSpec
from ..core.types import VOID, Truth
from ..metrics import compute
from ..metrics.definitions.dynamics import HORIZONS, STEPS
from ..metrics.prediction import box_recall, with_background_slot
from .discovery import label_map

_OF_STEPS = {"fg_ari": "fg_ari_future", "mbo_fg": "mbo_future", "ari": "ari_future", "miou_fg": "miou_future"}
_OF_TUBES = {"fg_ari": "fg_ari_future_video", "mbo_fg": "mbo_future_video"}


def entries(truth: Sequence[Truth]) -> list[int]:
    """Frames in which an object is in view that was not in view in the frame before.

    In view is an object with a location, as CLEVRER's annotations say it; without locations one with a pixel.
    """
    views = [_in_view(frame) for frame in truth]
    return [number for number in range(1, len(views)) if views[number] - views[number - 1]]


def _in_view(frame: Truth) -> set[int]:
    if frame.locations is not None:
        return {int(number) + 1 for number in np.flatnonzero(np.isfinite(frame.locations).all(axis=1))}
    return {int(label) for label in np.unique(frame.labels) if label > 0}


def by_horizon(name: str, steps: np.ndarray, *, total: bool = False) -> dict[str, Any]:
    """Mean, or sum, of the values of all steps (steps,) that are not NaN, those of each horizon, and the list."""
    parts = {name: steps} | {f"{name}_{end}": steps[first - 1 : last] for end, (first, last) in HORIZONS.items()}
    known = {key: part[~np.isnan(part)] for key, part in parts.items()}
    numbers = {key: float(part.sum() if total else part.mean()) if len(part) else np.nan for key, part in known.items()}
    return {**numbers, f"{STEPS}{name}": steps.tolist()}


def segments_of(masks: Tensor, shape: tuple[int, int], undecided: str) -> np.ndarray:
    """Slot (steps, H, W) of each pixel, from masks (steps, K, h, w). undecided: see `DynamicsProtocol`."""
    if undecided == "argmax":
        return np.stack([label_map(mask, shape) for mask in masks])
    large = interpolate(masks, size=shape, mode="bilinear", align_corners=False)
    return with_background_slot(large.cpu().numpy())


def mask_values(task: TaskSpec, truth: Sequence[Truth], segments: np.ndarray, objects: np.ndarray) -> dict[str, Any]:
    """The metrics of the masks of predicted slots.

    Args:
        task: the task.
        truth: of the predicted frames.
        segments: (steps, H, W) slot of each pixel.
        objects: labels of the objects that the burn-in shows.
    """
    protocol = cast(DynamicsProtocol, task.protocol)
    labels = np.stack([frame.labels for frame in truth])
    if protocol.unseen == "drop":
        labels = np.where((labels > 0) & ~np.isin(labels, objects), VOID, labels)
    rules: dict[str, Any] = {"background": protocol.background, "empty": protocol.empty, "ignore_index": None}
    values: dict[str, Any] = {}
    for name, (value, valid) in compute(_OF_STEPS, labels, segments, **rules).items():
        values |= by_horizon(_OF_STEPS[name], np.where(valid, value, np.nan))
    rows = (1, -1, labels.shape[2])  # all frames as one image: a slot is the same in each
    for name, (value, valid) in compute(_OF_TUBES, labels.reshape(rows), segments.reshape(rows), **rules).items():
        values[_OF_TUBES[name]] = float(value[0]) if valid[0] else np.nan
    if "box_recall_future" in task.metrics:
        recalls = [box_recall(*frame) for frame in zip(labels, segments, strict=True)]
        values |= by_horizon("box_recall_future", np.array(recalls))
    return values

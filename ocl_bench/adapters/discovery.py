"""Object discovery: predicted masks against instance label maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..errors import UsageError
from ..spec import TaskSpec
from ..types import MaskSource, Prediction, Truth

if TYPE_CHECKING:
    import pandas

    from ..results import MetricValue


class Discovery:
    """Adapter of the `discovery` family."""

    needs: tuple[str, ...] = ("masks",)

    def check(self, prediction: object, size: int, name: str) -> Prediction:
        """Masks must be soft (B, K, h, w) or label maps (B, H, W). Raises UsageError naming model and field."""
        if not isinstance(prediction, Prediction):
            raise UsageError(f"model {name}: predict returned {type(prediction).__name__}, expected a Prediction")
        masks = prediction.masks
        if masks is None:
            present = [f for f in ("slots", "tokens", "embedding", "boxes") if getattr(prediction, f) is not None]
            raise UsageError(
                f"model {name}: Prediction.masks is missing (got {', '.join(present) or 'nothing'}); object discovery "
                "needs soft masks (B,K,h,w) or label maps (B,H,W)"
            )
        if not isinstance(masks, Tensor):
            raise UsageError(f"model {name}: Prediction.masks is {type(masks).__name__}, expected a torch.Tensor")
        soft = masks.ndim == 4 and masks.is_floating_point()
        hard = masks.ndim == 3 and not masks.is_floating_point() and not masks.is_complex()
        if not (soft or hard) or 0 in masks.shape:
            raise UsageError(
                f"model {name}: Prediction.masks has shape {tuple(masks.shape)} and dtype {masks.dtype}, expected "
                "floating (B,K,h,w) or integer (B,H,W)"
            )
        if masks.shape[0] != size:
            raise UsageError(f"model {name}: Prediction.masks has batch size {masks.shape[0]}, expected {size}")
        if hard and int(masks.min()) < 0:
            raise UsageError(f"model {name}: Prediction.masks has label {int(masks.min())}, expected labels >= 0")
        if prediction.mask_source not in get_args(MaskSource):
            raise UsageError(
                f"model {name}: Prediction.mask_source is {prediction.mask_source!r}, expected one of "
                f"{', '.join(get_args(MaskSource))}"
            )
        return prediction

    def finite(self, prediction: Prediction) -> np.ndarray:
        """(B,) bool: the images whose masks hold neither NaN nor infinity."""
        masks = cast(Tensor, prediction.masks)
        return torch.isfinite(masks).flatten(1).all(1).cpu().numpy()

    def label_maps(self, prediction: Prediction, shapes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """Segment ids (H, W) int64 at each image's size in `shapes`.

        Soft masks are upsampled bilinearly (align_corners False) and then the largest wins, label maps go by nearest
        pixel centre. One image at a time: the result does not depend on the batch, and memory stays small.
        """
        masks = cast(Tensor, prediction.masks).detach()
        return [_label_map(mask, shape) for mask, shape in zip(masks, shapes, strict=True)]

    def score(self, truth: Sequence[Truth], labels: Sequence[np.ndarray], task: TaskSpec) -> list[dict[str, float]]:
        """Values of the task's metrics for each image (NaN = not valid) and `n_objects`; a pure function."""
        rows: list[dict[str, float]] = [{} for _ in truth]
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for position, one in enumerate(truth):
            by_shape.setdefault(one.labels.shape, []).append(position)
        for positions in by_shape.values():
            for position, row in zip(positions, _score(positions, truth, labels, task), strict=True):
                rows[position] = row
        return rows

    def summarise(self, rows: pandas.DataFrame, task: TaskSpec, mask_source: str) -> dict[str, MetricValue]:
        """Mean over images of the mean over noise seeds: one image has one vote, also in the bootstrap."""
        from ..metrics import METRICS
        from ..results import MetricValue
        from ..statistics import bootstrap_mean

        images = rows.groupby("id", sort=False)[list(task.metrics)].mean()  # skips NaN: seeds that are not valid
        summary = {}
        for name in task.metrics:
            values = images[name].to_numpy(np.float64)
            values = values[~np.isnan(values)]
            interval = bootstrap_mean(values)
            several = values.size >= 2
            summary[name] = MetricValue(
                value=float(values.mean()) if values.size else None,
                se=interval.se if several else None,
                ci95=(interval.low, interval.high) if several else None,
                n_valid=int(values.size),
                direction=METRICS[name].direction,
                signature=task.signature(mask_source, name),
            )
        return summary


def _label_map(mask: Tensor, shape: tuple[int, int]) -> np.ndarray:
    if mask.ndim == 2:
        return nearest(mask.cpu().numpy().astype(np.int64), shape)
    mask = mask.float()
    if tuple(mask.shape[-2:]) != shape:
        mask = interpolate(mask[None], size=shape, mode="bilinear", align_corners=False)[0]
    return mask.argmax(0).cpu().numpy()


def nearest(labels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A label map (h, w) at another size by nearest pixel centre, in exact integer arithmetic."""
    rows, columns = (((2 * np.arange(n) + 1) * o) // (2 * n) for n, o in zip(shape, labels.shape, strict=True))
    return labels[np.ix_(rows, columns)]


def _score(
    positions: Sequence[int], truth: Sequence[Truth], labels: Sequence[np.ndarray], task: TaskSpec
) -> list[dict[str, float]]:
    """Rows of images that share one size."""
    from ..metrics import compute

    protocol = task.protocol
    truth_maps = np.stack([truth[position].labels for position in positions])
    categories = [truth[position].categories for position in positions]
    values = compute(
        task.metrics,
        truth_maps,
        np.stack([_compact(labels[position]) for position in positions]),
        background=protocol.background,
        void=protocol.void,
        overlap=protocol.overlap,
        empty=protocol.empty,
        truth_categories=categories if any(categories) else None,
    )
    rows = []
    for index, truth_map in enumerate(truth_maps):
        row = {"n_objects": float(count_objects(truth_map, protocol.background))}
        for name in task.metrics:
            value, valid = values[name]
            row[name] = float(value[index]) if valid[index] else float("nan")
        rows.append(row)
    return rows


def _compact(labels: np.ndarray) -> np.ndarray:
    """Number the segments that occur 0, 1, .. in order: sparse ids would only make the contingency table larger."""
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape)


def count_objects(truth: np.ndarray, background: int | None) -> int:
    """Number of annotated objects that are visible in a label map."""
    present = np.unique(truth)
    return int(((present >= 0) & (present != (-3 if background is None else background))).sum())

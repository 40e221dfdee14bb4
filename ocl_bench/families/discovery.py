"""Object discovery: compare predicted masks with instance label maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import Tensor
from torch.nn.functional import interpolate

from ..cards.protocols import Protocol
from ..cards.task import TaskSpec
from ..core.types import Prediction, Truth
from ..data.transforms import nearest
from .base import Family
from .checks import check_prediction, finite_rows, missing
from .files import prediction_path, write_label_map
from .image_properties import PROPERTIES, image_properties, object_shapes
from .masks import check_masks


class Discovery:
    """Adapter of the `discovery` family."""

    scored_at_once: int | None = None

    def check(self, prediction: object, size: int, name: str) -> Prediction:
        """Require soft masks (B, K, h, w) or label maps (B, H, W). Raises UsageError naming model and field."""
        checked = check_prediction(prediction, name)
        if checked.masks is None:
            raise missing(checked, name, "masks", "object discovery needs soft masks (B,K,h,w) or label maps (B,H,W)")
        return check_masks(checked, size, name)

    def finite(self, prediction: Prediction) -> np.ndarray:
        """(B,) bool: the images whose masks are finite."""
        return finite_rows(cast(Tensor, prediction.masks))

    def source(self, prediction: Prediction) -> str:
        """`mask_source` of the prediction, with `+softmax` for masks that were logits."""
        return prediction.masks_from

    def outputs(
        self, prediction: Prediction, shapes: Sequence[tuple[int, int]], side: int | None = None
    ) -> list[np.ndarray]:
        """Segment ids (H, W) int64 of each image at its size in `shapes` (see `label_map`)."""
        del side
        # One image at a time: memory stays small, and the result cannot depend on the rest of the batch.
        masks = cast(Tensor, prediction.masks).detach()
        return [label_map(mask, shape) for mask, shape in zip(masks, shapes, strict=True)]

    def columns(self, task: TaskSpec) -> dict[str, str]:
        """A column for each metric and for each of the image `PROPERTIES`."""
        return dict.fromkeys((*task.metrics, *PROPERTIES), "float64")

    def score(self, truth: Sequence[Truth], outputs: Sequence[np.ndarray], task: TaskSpec) -> list[dict[str, Any]]:
        """Metrics of each image (NaN = not valid), `n_objects` and `PROPERTIES`."""
        rows: list[dict[str, Any]] = [{} for _ in truth]
        # The metrics take stacked arrays, so images are grouped by size.
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for position, image in enumerate(truth):
            by_shape.setdefault(image.labels.shape, []).append(position)
        for positions in by_shape.values():
            for position, row in zip(positions, _score(positions, truth, outputs, task), strict=True):
                rows[position] = row
        return rows

    def picture(self, output: np.ndarray, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
        """Predicted segments and true objects."""
        return output, truth.labels

    def write(self, folder: Path, sample_id: str, seed: int, output: np.ndarray) -> None:
        """Write the segment ids to `<folder>/seed-<n>/<id>.png`."""
        write_label_map(prediction_path(folder, sample_id, seed), output)


def label_map(mask: Tensor, shape: tuple[int, int]) -> np.ndarray:
    """Segment ids (H, W) int64 of one image.

    Soft masks are upsampled bilinearly (align_corners=False), then each pixel goes to its largest mask. This order
    gives smooth borders; an argmax before upsampling would give blocky ones. Label maps are resized by nearest pixel
    centre.

    Args:
        mask: soft masks (K, h, w) or a label map (h, w).
        shape: size (H, W) of the result.
    """
    if mask.ndim == 2:
        return nearest(mask.cpu().numpy().astype(np.int64), shape)
    mask = mask.float()
    if tuple(mask.shape[-2:]) != shape:
        mask = interpolate(mask[None], size=shape, mode="bilinear", align_corners=False)[0]
    return (
        mask.max(0).indices.cpu().numpy()
    )  # ties go to the first mask, as with argmax, which is eight times slower here


def _score(
    positions: Sequence[int], truth: Sequence[Truth], labels: Sequence[np.ndarray], task: TaskSpec
) -> list[dict[str, float]]:
    """Rows of the images at `positions`, which have one size."""
    from ..metrics import compute, find_metric

    protocol = task.protocol
    truth_maps = np.stack([truth[position].labels for position in positions])
    predicted = np.stack([_compact(labels[position]) for position in positions])
    rules: Any = {
        "background": protocol.background,
        "void": protocol.void,
        "overlap": protocol.overlap,
        "empty": protocol.empty,
        "ignore_index": None,  # a reader has numbered the objects, and 255 is one
    }
    # Metrics by category have a different truth, hence a contingency table of their own.
    by_object = [name for name in task.metrics if not find_metric(name).by_category]
    values = compute(by_object, truth_maps, predicted, **rules)
    if len(by_object) < len(task.metrics):
        truth_maps_by_class, categories = _class_truth([truth[position] for position in positions])
        by_class = [name for name in task.metrics if find_metric(name).by_category]
        values |= compute(by_class, truth_maps_by_class, predicted, **rules, truth_categories=categories)
    rows = []
    for index, truth_map in enumerate(truth_maps):
        row = {"n_objects": float(count_objects(truth_map, protocol.background))}
        row |= image_properties([object_shapes(truth_map, protocol.background)])
        for name in task.metrics:
            value, valid = values[name]
            row[name] = float(value[index]) if valid[index] else float("nan")
        rows.append(row)
    return rows


def _class_truth(truth: Sequence[Truth]) -> tuple[np.ndarray, list[Sequence[int]]]:
    """Truth maps (B, H, W) and category ids of each image, for the metrics by category (see `_classes_of`)."""
    maps, categories = zip(*map(_classes_of, truth), strict=True)
    return np.stack(maps), list(categories)


def _classes_of(truth: Truth) -> tuple[np.ndarray, Sequence[int]]:
    """Truth map (H, W) of one image for metrics by category, and the category of each of its labels 1, 2, ...

    The semantic map is used where the data set has one, and each of its classes is then one object. It may differ from
    the instance map in its void pixels, as VOC's SegmentationClass does from SegmentationObject. Otherwise the
    instances are used with their categories.
    """
    if truth.classes is not None:
        return truth.classes, range(1, int(truth.classes.max(initial=0)) + 1)
    if int(truth.labels.max(initial=0)) > len(truth.categories):
        # Categories are unknown. Without objects, the metrics by category are not valid on this image.
        return np.minimum(truth.labels, 0), ()
    return truth.labels, truth.categories


def _compact(labels: np.ndarray) -> np.ndarray:
    """Renumber the segments that occur to 0, 1, ... in order: sparse ids would only enlarge the contingency table."""
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape)


def count_objects(truth: np.ndarray, background: int | None) -> int:
    """Number of objects in a label map: distinct labels >= 0 except for the background (None: there is none)."""
    present = np.unique(truth)
    # -3 is not a label, so nothing is excluded without a background.
    return int(((present >= 0) & (present != (-3 if background is None else background))).sum())


DISCOVERY = Family("discovery", Protocol, lambda task, model: Discovery(), output="label maps", view="masks")

"""Detection by a supervised head on a frozen model: on its slots (`fit.head: slot`) or on its tokens (`dense`).

The two heads read different features, so their results are not comparable. Each has its own task card.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from torch import Tensor

from ..cards.protocols import DetectionProtocol, Fit
from ..cards.task import TaskSpec
from ..core.types import Prediction, Truth
from ..metrics.definitions.detection import kind_of
from ..metrics.detection import Detections, match_images, to_columns
from .base import Adapter, Batches, Family, Head
from .checks import check_alike, check_field, check_prediction, finite_rows, missing
from .detection import Detection, empty_rows
from .discovery import label_map
from .recognition import check_slots, fitted_head

if TYPE_CHECKING:
    from ..data import OpenData
    from ..models.loading import LoadedModel

_NEED_SLOTS = "the slot head detects with slots and their masks"
_NEED_TOKENS = "the dense head detects with tokens (B,D,h,w)"


class ProbedDetection(Detection):
    """Adapter of the `detection` family with a head, whose detections are scored by category."""

    def __init__(self, task: TaskSpec, head: Head | None = None) -> None:
        self.recipe = cast(Fit, task.fit)
        self.threshold = cast(float, cast(DetectionProtocol, task.protocol).matching_iou)
        self.task = task
        self.head = head
        self.dense = self.recipe.head == "dense"

    def check(self, prediction: object, size: int, name: str) -> Prediction:
        """Require tokens, or masks with one slot for each mask. Raises UsageError naming model and field."""
        if not self.dense:
            return check_slots(prediction, size, name, _NEED_SLOTS)
        checked = check_prediction(prediction, name)
        if checked.tokens is None:
            raise missing(checked, name, "tokens", _NEED_TOKENS)
        check_field(checked, "tokens", (size, None, None, None), name)
        return checked

    def finite(self, prediction: Prediction) -> np.ndarray:
        """(B,) bool: the images whose tokens, or masks and slots, are finite."""
        return finite_rows(*((prediction.tokens,) if self.dense else (prediction.masks, prediction.slots)))

    def source(self, prediction: Prediction) -> str:
        """`tokens`, or `mask_source` of the prediction for the slot head."""
        return "tokens" if self.dense else prediction.masks_from

    def fit(self, batches: Batches, split: OpenData) -> Head:
        """Fit the head on tokens, or on slots: matched slots are examples of objects, the others of background."""
        from .heads.dense import fit_dense
        from .heads.matching import annotated_objects
        from .heads.slots import collect_slots, fit_slots

        if self.dense:
            return fit_dense(batches, len(split.ids), split.categories, self.recipe)
        slots = collect_slots(batches, annotated_objects, self.threshold, unmatched=True)
        return fit_slots(slots, split.categories, self.recipe, background=True)

    def with_head(self, head: Head) -> ProbedDetection:
        """A copy of this adapter that uses a head from `fit`."""
        adapter = copy(self)
        adapter.head = head
        return adapter

    def outputs(
        self, prediction: Prediction, shapes: Sequence[tuple[int, int]], side: int | None = None
    ) -> list[Detections]:
        """Detections of each image at its size in `shapes`."""
        del side
        from .heads.dense import dense_detections

        head = fitted_head(self.head, self.task)
        if self.dense:
            images = zip(cast(Tensor, prediction.tokens), shapes, strict=True)
            return [dense_detections(tokens.detach(), head, shape) for tokens, shape in images]
        rows = zip(cast(Tensor, prediction.masks), cast(Tensor, prediction.slots), shapes, strict=True)
        return [slot_detections(masks.detach(), slots.detach(), head, shape) for masks, slots, shape in rows]

    def score(self, truth: Sequence[Truth], outputs: Sequence[Detections], task: TaskSpec) -> list[dict[str, Any]]:
        """Number of objects without crowds, and the matches by category, of each image."""
        rows = empty_rows(truth, task)
        for name in task.metrics:
            kind = kind_of(name)
            by_image = match_images(truth, outputs, kind, class_agnostic=False)
            for row, matches in zip(rows, by_image, strict=True):
                row |= to_columns(matches, kind)
        return rows


def slot_detections(masks: Tensor, slots: Tensor, head: Head, shape: tuple[int, int]) -> Detections:
    """Make one detection of each slot that owns a pixel.

    Category, score and box come from the head, the mask from the slot. The score is the probability of the best
    category, where the softmax includes "no object".

    Args:
        masks: soft masks (K, h, w) or a label map (h, w).
        slots: (K, D); slot k belongs to mask k.
        head: a head from `fit`.
        shape: size (H, W) of the image.

    Raises:
        UsageError: another D than that of the head.
    """
    from pycocotools import mask as coco_mask

    from .heads.perceptron import apply

    check_alike("slots", slots.shape[1:], head["mean"].shape)
    segments = label_map(masks, shape)
    present = np.flatnonzero(np.bincount(segments.ravel()))  # a slot without pixels has no mask to detect
    logits, shares = apply(head, slots[present])
    scores, classes = (tensor.numpy() for tensor in logits.softmax(1)[:, :-1].max(1))
    height, width = shape
    boxes = shares.double().numpy().clip(0, 1) * (width, height, width, height)
    boxes[:, 2:] = np.maximum(boxes[:, :2], boxes[:, 2:])  # an inverted box becomes empty instead of negative
    # pycocotools wants (H, W, K) in Fortran order; the transpose of a C-ordered (K, W, H) array is exactly that.
    columns_first = (present[:, None, None] == segments.T).astype(np.uint8, order="C")
    encoded = coco_mask.encode(columns_first.T)
    return Detections(
        boxes, scores.astype(np.float64), head["categories"].numpy()[classes].astype(np.int64), tuple(encoded)
    )


def _adapter(task: TaskSpec, model: LoadedModel | None) -> Detection:
    del model
    return Detection(task) if task.fit is None else ProbedDetection(task)


def _for_data(adapter: Adapter, data: OpenData) -> Adapter:
    return cast(Detection, adapter).with_image_ids(data.image_ids)


def _sample_columns(adapter: Adapter, sample_id: str) -> dict[str, int | str]:
    return cast(Detection, adapter).sample_columns(sample_id)


def _remarks(
    adapter: Adapter, outputs: Sequence[Detections], shapes: Sequence[tuple[int, int]], side: int | None
) -> Mapping[str, int]:
    # Boxes and masks of a head are ours, and made apart: nobody can have mistaken their unit.
    return {} if isinstance(adapter, ProbedDetection) else cast(Detection, adapter).remarks(outputs, shapes, side)


DETECTION = Family(
    "detection",
    DetectionProtocol,
    _adapter,
    output="detections",
    view="detections",
    for_data=_for_data,
    sample_columns=_sample_columns,
    remarks=_remarks,
)

"""Object recognition: match slots to objects and predict the class and box of each matched slot with a probe.

This is the protocol of Zhao's SmoothSA and RandSF.Q code (`obj_discov_recogn.py`) with three differences. All matched
objects are kept (that code keeps at most two per image), the right and lower edges of a box are exclusive, and objects
without a matched slot count as wrong in the main metric.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from ..cards.protocols import Fit, RecognitionProtocol
from ..cards.task import TaskSpec
from ..core.errors import UsageError
from ..core.types import Prediction, Truth
from ..metrics.catalogue import find_metric
from ..metrics.of_set import SumRatio
from .base import Batches, Family, Head
from .checks import check_alike, check_field, check_prediction, finite_rows, missing
from .discovery import label_map
from .files import prediction_path, write_label_map
from .masks import check_masks

if TYPE_CHECKING:
    from ..data import OpenData

STATISTICS = ("n_matched", "n_correct1", "n_correct3", "sum_box_iou")
"""Columns of sums. The metrics of the whole set are ratios of their totals, not averages over images."""
_NEED = "the recognition probe reads the class and box of an object from the slot that its mask belongs to"


@dataclass(frozen=True)
class Recognised:
    """Prediction of the model and the probe for one image with K slots.

    Attributes:
        segments: (H, W) int64 slot of each pixel.
        categories: (K, C) int64 category ids of each slot, the most likely first.
        boxes: (K, 4) float32 left, top, right, bottom as shares of the image.
    """

    segments: np.ndarray
    categories: np.ndarray
    boxes: np.ndarray


class Recognition:
    """Adapter of the `recognition` family."""

    scored_at_once: int | None = None

    def __init__(self, task: TaskSpec, head: Head | None = None) -> None:
        self.recipe = cast(Fit, task.fit)
        self.threshold = cast(RecognitionProtocol, task.protocol).matching_iou
        self.task = task
        self.head = head

    def check(self, prediction: object, size: int, name: str) -> Prediction:
        """Require masks with one slot for each mask. Raises UsageError naming model and field."""
        return check_slots(prediction, size, name, _NEED)

    def finite(self, prediction: Prediction) -> np.ndarray:
        """(B,) bool: the images whose masks and slots are finite."""
        return finite_rows(prediction.masks, prediction.slots)

    def source(self, prediction: Prediction) -> str:
        """`mask_source` of the prediction, with `+softmax` for masks that were logits."""
        return prediction.masks_from

    def fit(self, batches: Batches, split: OpenData) -> Head:
        """Fit the probe on the slots that are matched to an object."""
        from .heads.matching import Objects, labelled_objects
        from .heads.slots import collect_slots, fit_slots

        def objects(truth: Truth, segments: np.ndarray, slots: int) -> Objects:
            return labelled_objects(truth, segments, slots, self.task.protocol)

        slots = collect_slots(batches, objects, self.threshold, unmatched=False)
        return fit_slots(slots, split.categories, self.recipe, background=False)

    def with_head(self, head: Head) -> Recognition:
        """A copy of this adapter that uses a head from `fit`."""
        return Recognition(self.task, head)

    def outputs(
        self, prediction: Prediction, shapes: Sequence[tuple[int, int]], side: int | None = None
    ) -> list[Recognised]:
        """Segments of each image at its size in `shapes`, with the probe's categories and boxes of its slots."""
        del side
        from .heads.perceptron import apply

        head = fitted_head(self.head, self.task)
        categories = head["categories"].numpy()
        masks, slots = cast(Tensor, prediction.masks), cast(Tensor, prediction.slots)
        check_alike("slots", slots.shape[2:], head["mean"].shape)
        outputs = []
        for mask, image_slots, shape in zip(masks, slots, shapes, strict=True):
            scores, boxes = apply(head, image_slots)
            # A stable sort makes ties deterministic: the first category wins on every machine.
            order = torch.sort(scores[:, : len(categories)], dim=1, descending=True, stable=True).indices.numpy()
            outputs.append(Recognised(label_map(mask.detach(), shape), categories[order], boxes.numpy()))
        return outputs

    def columns(self, task: TaskSpec) -> dict[str, str]:
        """A column for each metric and for each of the `STATISTICS`."""
        return dict.fromkeys((*task.metrics, *STATISTICS), "float64")

    def score(self, truth: Sequence[Truth], outputs: Sequence[Recognised], task: TaskSpec) -> list[dict[str, Any]]:
        """Numbers of objects, of matched and of correctly named ones, and their ratios in each image.

        A ratio is NaN where its denominator is 0. Raises UsageError when the data have no categories.
        """
        return [self._score(*pair, task) for pair in zip(truth, outputs, strict=True)]

    def _score(self, truth: Truth, output: Recognised, task: TaskSpec) -> dict[str, Any]:
        """The row of one image."""
        from .heads.matching import box_iou, labelled_objects

        objects = labelled_objects(truth, output.segments, len(output.boxes), task.protocol)
        if len(objects) and not truth.categories:
            raise UsageError(f"task {task.name}: Truth.categories is empty; recognition needs data with categories")
        matched, slots = objects.matched(self.threshold)
        correct = output.categories[slots] == objects.categories[matched][:, None]  # (M, C): at most one True in a row
        row: dict[str, Any] = {
            "n_objects": len(objects),
            "n_matched": float(len(matched)),
            "n_correct1": float(correct[:, :1].sum()),
            "n_correct3": float(correct[:, :3].sum()),
            "sum_box_iou": float(box_iou(output.boxes[slots], objects.boxes[matched]).sum()),
        }
        for name in task.metrics:
            of_set = find_metric(name).of_set
            if isinstance(of_set, SumRatio):
                above, below = row[of_set.above], row[of_set.below]
                row[name] = above / below if below else np.nan
        return row

    def picture(self, output: Recognised, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
        """Predicted segments and true objects."""
        return output.segments, truth.labels

    def write(self, folder: Path, sample_id: str, seed: int, output: Recognised) -> None:
        """Write the segments to `<id>.png`, and three categories and the box of each slot to `<id>.json`."""
        path = prediction_path(folder, sample_id, seed)
        write_label_map(path, output.segments)
        slots = [
            {"categories": categories, "box": box}
            for categories, box in zip(output.categories[:, :3].tolist(), output.boxes.tolist(), strict=True)
        ]
        prediction_path(folder, sample_id, seed, ".json").write_text(json.dumps(slots), encoding="utf-8")


def fitted_head(head: Head | None, task: TaskSpec) -> Head:
    """Return the head. Raises UsageError when it is not fitted yet."""
    if head is None:
        raise UsageError(f"task {task.name}: the head is not fitted; call with_head(plan) first")
    return head


def check_slots(prediction: object, size: int, name: str, need: str) -> Prediction:
    """Require masks and slots of `size` images, with one slot for each mask.

    Args:
        prediction: what the model returned.
        size: number of images.
        name: name of the model, for messages.
        need: why the task needs slots, as a clause that ends the message for a missing field.

    Raises:
        UsageError: masks or slots have a wrong type or shape, or their numbers differ.
        NotApplicableError: the model gives no masks or no slots.
    """
    checked = check_prediction(prediction, name)
    for field in ("masks", "slots"):
        if getattr(checked, field) is None:
            raise missing(checked, name, field, need)
    checked = check_masks(checked, size, name)
    masks = cast(Tensor, checked.masks)
    slots = check_field(checked, "slots", (size, None, None), name)
    if masks.ndim == 4 and masks.shape[1] != slots.shape[1]:
        raise UsageError(
            f"model {name}: Prediction.slots has {slots.shape[1]} slots for {masks.shape[1]} masks; slot k must be "
            "what mask k shows"
        )
    if masks.ndim == 3 and int(masks.max()) >= slots.shape[1]:
        raise UsageError(
            f"model {name}: Prediction.masks has label {int(masks.max())}, but Prediction.slots only {slots.shape[1]} "
            "slots; slot k must be what label k shows"
        )
    return checked


RECOGNITION = Family("recognition", RecognitionProtocol, lambda task, model: Recognition(task), view="slots")

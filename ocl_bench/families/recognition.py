"""Object recognition: slots matched to objects, and a probe that names the class and box of each matched slot.

The protocol of Zhao's SmoothSA and RandSF.Q code (`obj_discov_recogn.py`), except that all matched objects are kept
(theirs keeps two of an image), that the right and bottom of a box are exclusive, and that objects which no slot was
matched to count as wrong in the main metric.
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
from .checks import check_field, check_masks, check_prediction, finite_rows, missing
from .discovery import label_map
from .files import prediction_path, write_label_map

if TYPE_CHECKING:
    from ..data import OpenData

STATISTICS = ("n_matched", "n_correct1", "n_correct3", "sum_box_iou")
_NEED = "the recognition probe reads the class and box of an object from the slot that its mask belongs to"


@dataclass(frozen=True)
class Recognised:
    """What a model and the probe say of one image of K slots.

    segments: (H, W) int64 slot of each pixel. categories: (K, C) int64 ids, the most likely first. boxes: (K, 4)
    float32, left, top, right, bottom as shares of the image.
    """

    segments: np.ndarray
    categories: np.ndarray
    boxes: np.ndarray


class Recognition:
    """Adapter of the `recognition` family."""

    scored_at_once: int | None = None

    def __init__(self, task: TaskSpec, head: dict[str, Tensor] | None = None) -> None:
        self.recipe = cast(Fit, task.fit)
        self.threshold = cast(RecognitionProtocol, task.protocol).matching_iou
        self.task = task
        self.head = head

    def check(self, prediction: object, size: int, name: str) -> Prediction:
        """Masks, and one slot for each of them. Raises UsageError naming model and field."""
        return check_slots(prediction, size, name, _NEED)

    def finite(self, prediction: Prediction) -> np.ndarray:
        """(B,) bool: the images whose masks and slots are finite."""
        return finite_rows(prediction.masks, prediction.slots)

    def source(self, prediction: Prediction) -> str:
        """The mask source that the model names."""
        return prediction.mask_source

    def fit(self, batches: Batches, split: OpenData) -> Head:
        """The probe, on the slots that are matched to an object."""
        from .heads.matching import Objects, labelled_objects
        from .heads.slots import collect_slots, fit_slots

        def objects(truth: Truth, segments: np.ndarray, slots: int) -> Objects:
            return labelled_objects(truth, segments, slots, self.task.protocol)

        slots = collect_slots(batches, objects, self.threshold, unmatched=False)
        return fit_slots(slots, split.categories, self.recipe, background=False)

    def with_head(self, head: Head) -> Recognition:
        """This adapter with a head that `fit` made."""
        return Recognition(self.task, head)

    def outputs(
        self, prediction: Prediction, shapes: Sequence[tuple[int, int]], side: int | None = None
    ) -> list[Recognised]:
        """Segments at each image's size in `shapes`, with what the probe says of each slot; one image at a time."""
        del side
        from .heads.perceptron import apply

        head = fitted_head(self.head, self.task)
        categories = head["categories"].numpy()
        masks, slots = cast(Tensor, prediction.masks), cast(Tensor, prediction.slots)
        outputs = []
        for mask, own, shape in zip(masks, slots, shapes, strict=True):
            scores, boxes = apply(head, own)
            order = torch.sort(scores[:, : len(categories)], dim=1, descending=True, stable=True).indices.numpy()
            outputs.append(Recognised(label_map(mask.detach(), shape), categories[order], boxes.numpy()))
        return outputs

    def columns(self, task: TaskSpec) -> dict[str, str]:
        """A number for each metric, and the sums of which the metrics of the whole set are ratios."""
        return dict.fromkeys((*task.metrics, *STATISTICS), "float64")

    def score(self, truth: Sequence[Truth], outputs: Sequence[Recognised], task: TaskSpec) -> list[dict[str, Any]]:
        """Objects, matched and named objects, and their ratios in each image (NaN without any); a pure function."""
        return [self._score(*pair, task) for pair in zip(truth, outputs, strict=True)]

    def _score(self, truth: Truth, output: Recognised, task: TaskSpec) -> dict[str, Any]:
        from .heads.matching import box_iou, labelled_objects

        objects = labelled_objects(truth, output.segments, len(output.boxes), task.protocol)
        if len(objects) and not truth.categories:
            raise UsageError(f"task {task.name}: Truth.categories is empty; recognition needs data with categories")
        found, slots = objects.matched(self.threshold)
        right = output.categories[slots] == objects.categories[found][:, None]
        row: dict[str, Any] = {
            "n_objects": len(objects),
            "n_matched": float(len(found)),
            "n_correct1": float(right[:, :1].sum()),
            "n_correct3": float(right[:, :3].sum()),
            "sum_box_iou": float(box_iou(output.boxes[slots], objects.boxes[found]).sum()),
        }
        for name in task.metrics:
            of_set = find_metric(name).of_set
            if isinstance(of_set, SumRatio):
                above, below = row[of_set.above], row[of_set.below]
                row[name] = above / below if below else np.nan
        return row

    def picture(self, output: Recognised, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
        """Predicted segments and truth objects."""
        return output.segments, truth.labels

    def write(self, folder: Path, sample_id: str, seed: int, output: Recognised) -> None:
        """An id-map PNG, and beside it `<id>.json`: for each slot three categories and the box as shares."""
        path = prediction_path(folder, sample_id, seed)
        write_label_map(path, output.segments)
        slots = [
            {"categories": categories, "box": box}
            for categories, box in zip(output.categories[:, :3].tolist(), output.boxes.tolist(), strict=True)
        ]
        prediction_path(folder, sample_id, seed, ".json").write_text(json.dumps(slots), encoding="utf-8")


def fitted_head(head: dict[str, Tensor] | None, task: TaskSpec) -> dict[str, Tensor]:
    """The head. Raises UsageError before it is fitted."""
    if head is None:
        raise UsageError(f"task {task.name}: the head is not fitted; call with_head(plan) first")
    return head


def check_slots(prediction: object, size: int, name: str, need: str) -> Prediction:
    """Masks and slots of `size` images, as many masks as slots. Raises UsageError naming model and field."""
    checked = check_prediction(prediction, name)
    for field in ("masks", "slots"):
        if getattr(checked, field) is None:
            raise missing(checked, name, field, need)
    masks = check_masks(checked, size, name)
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


RECOGNITION = Family("recognition", RecognitionProtocol, lambda task, model: Recognition(task))

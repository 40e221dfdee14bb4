"""Detection without a head: compare a model's masks or boxes with annotated objects, class-agnostic or by category."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, cast

import numpy as np
import torch
from torch import Tensor

from ..cards.protocols import OF_CLASSES, DetectionProtocol, Proposals
from ..cards.task import TaskSpec
from ..core.boxes import odd_boxes
from ..core.errors import UsageError
from ..core.types import Prediction, Truth
from ..metrics.detection import (
    FIELDS,
    KINDS,
    Detections,
    Kind,
    image_recall,
    match_images,
    to_columns,
)
from .checks import check_field, check_prediction, finite_rows, missing
from .coco_results import coco_results
from .files import prediction_path
from .image_properties import PROPERTIES, image_properties, object_shapes
from .masks import check_masks
from .proposals import native_boxes, proposals

NOT_ITS_MASK = "boxes that hold less than half of their own mask"
_NEED = "detection needs soft masks (B,K,h,w), label maps (B,H,W), or boxes (B,N,4) with scores (B,N)"


class Detection:
    """Adapter of the `detection` family without a head.

    Masks are converted to detections by the rule `proposals` of the card. Boxes are used only for a model without
    masks, whose mask metrics are then null. A row holds the average recall of its image and the matches from which the
    metrics of the whole set are computed.

    Attributes:
        image_ids: sample id -> id in COCO results files, of data whose sample ids do not say it (see `OpenData`).
    """

    scored_at_once: int | None = None
    image_ids: Mapping[str, int | str] = MappingProxyType({})

    def __init__(self, task: TaskSpec) -> None:
        protocol = cast(DetectionProtocol, task.protocol)
        self.rule, self.by_class = protocol.proposals or Proposals(), protocol.classes is not None
        self.input = task.protocol.input

    def with_image_ids(self, image_ids: Mapping[str, int | str]) -> Self:
        """A copy of this adapter for data with these ids; rows then have them, as they decide between equal scores."""
        adapter = copy(self)
        adapter.image_ids = image_ids
        return adapter

    def sample_columns(self, sample_id: str) -> dict[str, int | str]:
        """The id of an image in COCO results files, where its sample id does not say it."""
        return {"image_id": self.image_ids[sample_id]} if self.image_ids else {}

    def check(self, prediction: object, size: int, name: str) -> Prediction:
        """Require masks, or boxes with scores, of `size` images. Raises UsageError naming model and field."""
        checked = check_prediction(prediction, name)
        if self.by_class and (checked.masks is not None or checked.labels is None):
            need = "a task with `classes: each` needs boxes (B,N,4), scores and labels (B,N), and no masks"
            raise missing(checked, name, "labels", need)
        if checked.masks is not None:
            return check_masks(checked, size, name)
        if checked.boxes is None:
            raise missing(checked, name, "masks", _NEED)
        if checked.scores is None:
            raise missing(checked, name, "scores", _NEED)
        boxes = check_field(checked, "boxes", (size, None, 4), name, least=0)
        check_field(checked, "scores", (size, boxes.shape[1]), name, least=0)
        labels = checked.labels
        if labels is not None and (labels.shape != boxes.shape[:2] or labels.is_floating_point()):
            raise UsageError(
                f"model {name}: Prediction.labels has shape {tuple(labels.shape)} and dtype {labels.dtype}, expected "
                f"integers {tuple(boxes.shape[:2])}"
            )
        return checked

    def finite(self, prediction: Prediction) -> np.ndarray:
        """(B,) bool: the images whose masks, or boxes and scores, are finite."""
        if prediction.masks is not None:
            return finite_rows(prediction.masks)
        boxes, scores = cast(Tensor, prediction.boxes), cast(Tensor, prediction.scores)
        # A box of NaN pads an image with fewer boxes than the others of its batch; it is not an error.
        absent = boxes.isnan().any(-1)
        return finite_rows(boxes.masked_fill(absent[..., None], 0), scores.masked_fill(absent, 0))

    def source(self, prediction: Prediction) -> str:
        """`mask_source` of the prediction, or `boxes` for a model without masks."""
        return prediction.masks_from if prediction.masks is not None else "boxes"

    def outputs(
        self, prediction: Prediction, shapes: Sequence[tuple[int, int]], side: int | None = None
    ) -> list[Detections]:
        """Detections of each image at its size in `shapes`.

        Boxes are in pixels of the square image that the model saw: its side is `side`, by default the card's `input`.
        """
        if prediction.masks is not None:
            return [proposals(mask, shape, self.rule) for mask, shape in zip(prediction.masks, shapes, strict=True)]
        boxes, scores = cast(Tensor, prediction.boxes), cast(Tensor, prediction.scores)
        labels = prediction.labels if prediction.labels is not None else torch.zeros_like(scores, dtype=torch.int64)
        return [
            native_boxes(*image, side or self.input, shape, self.rule.max_detections)
            for image, shape in zip(zip(boxes, scores, labels, strict=True), shapes, strict=True)
        ]

    def remarks(
        self, outputs: Sequence[Detections], shapes: Sequence[tuple[int, int]], side: int | None
    ) -> Counter[str]:
        """How many boxes are odd, by kind. side: of the square that the model saw, None for detections from files."""
        found = Counter[str]()
        for output, (height, width) in zip(outputs, shapes, strict=True):
            pixel = (height / side, width / side) if side and output.masks is None else (1.0, 1.0)
            found.update(odd_boxes(output.boxes, (height, width), pixel))
            if output.masks is not None and (contradicting := _boxes_without_mask(output)):
                found[NOT_ITS_MASK] += contradicting
        return found

    def columns(self, task: TaskSpec) -> dict[str, str]:
        """A column for each metric and image property, and columns of lists for the matches.

        Average precision has no value for a single image: its column is NaN and its value comes from the matches.
        """
        statistics = [f"{kind}_{field}" for kind in _kinds(task) for field in FIELDS]
        columns = dict.fromkeys((*task.metrics, *PROPERTIES), "float64") | dict.fromkeys(statistics, "object")
        if self.image_ids:
            columns["image_id"] = "object" if any(isinstance(one, str) for one in self.image_ids.values()) else "int64"
        return columns

    def score(self, truth: Sequence[Truth], outputs: Sequence[Detections], task: TaskSpec) -> list[dict[str, Any]]:
        """Number of objects without crowds, average recall, and matches of each image."""
        rows = empty_rows(truth, task)
        for kind in _kinds(task):
            by_image = match_images(truth, outputs, kind, class_agnostic=not self.by_class)
            recall = f"{OF_CLASSES if self.by_class else ''}ar100_{kind}"
            for row, matches in zip(rows, by_image, strict=True):
                row |= to_columns(matches, kind)
                if recall in row:
                    row[recall] = image_recall(matches)
        return rows

    def picture(self, output: Detections, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
        """A label map of the detections, numbered from 1 and the best on top, and the true objects."""
        from pycocotools import mask as coco_mask

        painted = np.zeros(truth.labels.shape, np.int64)
        for position in np.argsort(output.scores, kind="stable"):  # ascending: the best detection is painted last
            if output.masks is not None:
                painted[coco_mask.decode(output.masks[position]).astype(bool)] = position + 1
            else:
                x0, y0, x1, y1 = output.boxes[position].round().clip(0).astype(int)
                painted[y0:y1, x0:x1] = position + 1
        return painted, truth.labels

    def write(self, folder: Path, sample_id: str, seed: int, output: Detections) -> None:
        """Write the COCO results of one image to `<folder>/seed-<n>/<id>.json`."""
        path = prediction_path(folder, sample_id, seed, ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        # All digits are kept, so that scoring the files again gives the same numbers.
        entries = coco_results([output], [sample_id], numbers=self.image_ids, digits=None)
        path.write_text(json.dumps(entries), encoding="utf-8")


def _boxes_without_mask(output: Detections) -> int:
    """Number of detections whose box holds less than half of the box around their mask."""
    from pycocotools import mask as coco_mask

    tight = np.array(coco_mask.toBbox(list(output.masks or ()))).reshape(-1, 4)
    tight[:, 2:] += tight[:, :2]
    common = np.minimum(output.boxes, tight)[:, 2:] - np.maximum(output.boxes, tight)[:, :2]
    return int((common.clip(0).prod(1) < (tight[:, 2:] - tight[:, :2]).prod(1) / 2).sum())


def empty_rows(truth: Sequence[Truth], task: TaskSpec) -> list[dict[str, Any]]:
    """Rows with NaN for all metrics, the number of objects (without crowds) and the image properties."""
    rows = []
    for image in truth:
        counts = {"n_objects": sum(not instance.crowd for instance in image.instances)}
        rows.append(counts | image_properties([object_shapes(image.labels)]) | dict.fromkeys(task.metrics, np.nan))
    return rows


def _kinds(task: TaskSpec) -> list[Kind]:
    """The kinds of overlap (masks, boxes) that the task's metrics use."""
    return [kind for kind in KINDS if any(name.endswith(f"_{kind}") for name in task.metrics)]

"""Detections: boxes with scores, and which object each one meets."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....cards.protocols import DetectionProtocol
from ....core.types import Instance, Sample, Truth
from ....data.transforms import prepare
from ....families import get_adapter
from ....families.coco_results import read_results
from ....families.files import prediction_path
from ....metrics import contingency
from ....metrics.detection import Detections, Kind, match_images
from ....metrics.mistakes import mistakes
from ..encode import fitted, map_of, truth_map
from .base import Saved, Shown, compact, names_of, pixels_and_truth, segments_part

MOST = 100
"""Most detections of an image on the page, those with the highest scores."""


class Boxes(Shown):
    """Images with detections. Their masks, or boxes where there are none, are painted with the best on top."""

    def scene(self, sample: Sample) -> dict[str, Any]:
        """The image, its objects and their boxes in pixels of the picture."""
        image, shape, truth = pixels_and_truth(sample, self.task)
        scale = _scale(truth.labels.shape, shape)
        boxes = [
            [*_box(instance.box, scale), self._name(instance.category), int(instance.crowd)]
            for instance in truth.instances
        ]
        return {
            "size": shape,
            "image": image,
            "truth": truth_map(truth.labels, shape),
            "names": names_of(truth, self.data),
            "boxes": boxes,
        }

    def answer(self, sample: Sample, saved: Saved) -> dict[str, Any]:
        """The detections, best first, as a painted map and as a list."""
        path = prediction_path(saved.folder, sample.id, saved.seed, ".json")
        truth = prepare(sample, self.task.protocol, 8)[1]  # 8: side of the image, which is not used
        height, width = truth.labels.shape
        shapes = {sample.id: (height, width)}
        found = read_results(path, [sample.id], numbers=self.data.image_ids, shapes=shapes)[sample.id]
        painted = get_adapter(self.task).picture(found, truth)[0]
        ids, codes = compact(painted)
        table = contingency(truth.labels[None], codes[None], ignore_index=None).table[0]
        wrong = mistakes(table, self.task.protocol.background)
        saved.count(sample.id, wrong, ids[:0])  # detections are no slots: none of them is unused
        shape = fitted(truth.labels.shape)
        return {
            "map": map_of(codes, shape),
            **segments_part(wrong, ids, table),
            "detections": self._list(found, truth, _scale(truth.labels.shape, shape)),
        }

    def _list(self, found: Detections, truth: Truth, scale: np.ndarray) -> list[list[Any]]:
        """Of each detection: number in the painted map, box, score, category, best IoU, and hits.

        hits: number of the thresholds .50:.05:.95 at which it meets an object of its own; null without such a matching.
        """
        protocol, instances = self.task.protocol, list(truth.instances)
        by_class = self.task.fit is not None or (
            isinstance(protocol, DetectionProtocol) and protocol.classes is not None
        )
        labels = found.labels if by_class else np.zeros(len(found), np.int64)
        order = np.lexsort((-found.scores, labels))
        kind: Kind = "mask" if found.masks is not None and any(one.mask for one in instances) else "box"
        matches = match_images([truth], [found], kind, class_agnostic=not by_class, max_detections=max(1, len(found)))[
            0
        ]
        hits = dict(zip(order.tolist(), matches.matched.tolist(), strict=True)) if matches is not None else {}
        overlap = best_overlap(found, instances, kind)
        return [
            [
                place + 1,
                *_box(found.boxes[place], scale),
                round(float(found.scores[place]), 4),
                self._name(int(found.labels[place])),
                None if overlap is None else round(float(overlap[place]), 3),
                int(hits[place]).bit_count() if place in hits else None,
            ]
            for place in np.argsort(-found.scores, kind="stable")[:MOST].tolist()
        ]

    def _name(self, category: int) -> str:
        """Name of a category; empty for detections without one."""
        return self.data.categories.get(category, str(category) if category else "")


def best_overlap(found: Detections, instances: list[Instance], kind: Kind) -> np.ndarray | None:
    """(N,) largest IoU of each detection with an object that is no crowd; None without objects or detections."""
    from pycocotools import mask as coco_mask

    objects = [one for one in instances if not one.crowd and (kind == "box" or one.mask is not None)]
    if not objects or not len(found):
        return None
    if kind == "mask":
        assert found.masks is not None
        table = coco_mask.iou(list(found.masks), [one.mask for one in objects], [0] * len(objects))
    else:
        boxes = np.array([one.box for one in objects], np.float64)
        table = coco_mask.iou(_xywh(found.boxes), _xywh(boxes), [0] * len(objects))
    best: np.ndarray = np.asarray(table).max(1)
    return best


def _xywh(boxes: np.ndarray) -> np.ndarray:
    return np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]).astype(np.float64)


def _scale(labels: tuple[int, ...], shape: tuple[int, int]) -> np.ndarray:
    """Factors (4,) from pixels of the truth to pixels of the picture."""
    down, right = shape[0] / labels[0], shape[1] / labels[1]
    return np.array([right, down, right, down])


def _box(box: Any, scale: np.ndarray) -> list[float]:
    return [round(float(value), 1) for value in np.asarray(box, np.float64) * scale]

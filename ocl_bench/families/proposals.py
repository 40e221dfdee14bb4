"""Convert masks or boxes of a model to detections in the whole image, without training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from ..cards.protocols import Proposals
from ..core.boxes import survivors
from ..metrics.detection import Detections
from .discovery import label_map

_SLOTS_AT_ONCE = 16
"""Number of soft masks that are upsampled together: 256 masks of a whole photograph would take 300 MB."""


def proposals(masks: Tensor, shape: tuple[int, int], rule: Proposals) -> Detections:
    """Convert the masks of one image to detections.

    Every pixel is assigned to its largest slot, as in object discovery (`discovery.label_map`). The pixels of a slot
    are one detection. With `parts: whole+components`, each 8-connected component of a slot with several components is
    another one. The score is the mean of the slot's soft mask over the pixels of the detection, clipped to [0, 1]; a
    label map scores 1.

    Args:
        masks: soft masks (K, h, w) or a label map (h, w).
        shape: size (H, W) of the image.
        rule: the `proposals` of the task card.

    Returns:
        Detections in descending order of score. Ties are ordered by slot, a whole slot before its components, and
        components by their first pixel.
    """
    labels, heights = _segments(masks, shape)
    parts: list[_Part] = []
    for slot, window in enumerate(_windows(labels)):
        if window is not None:
            parts += _suppress(_parts(labels[window] == slot, heights[window], window, rule), rule.nms)
    parts.sort(key=lambda part: -part.score)  # stable: this defines the order of ties
    parts = parts[: rule.max_detections]
    return Detections(
        np.array([part.box for part in parts], np.float64).reshape(-1, 4),
        np.array([part.score for part in parts], np.float64),
        np.zeros(len(parts), np.int64),
        tuple(part.encoded(shape) for part in parts),
    )


def native_boxes(
    boxes: Tensor, scores: Tensor, labels: Tensor | None, side: int, shape: tuple[int, int], count: int = 100
) -> Detections:
    """Convert the boxes of a model to detections in pixels of the whole image.

    Args:
        boxes: (N, 4) xyxy in pixels of the square image that the model saw. Boxes with NaN are padding and are dropped.
        scores: (N,).
        labels: (N,) category ids, or None for 0.
        side: side in pixels of that square image.
        shape: size (H, W) of the whole image.
        count: largest number of detections.

    Returns:
        The `count` best detections in descending order of score; ties keep the order of the model.
    """
    labels = torch.zeros(len(scores), dtype=torch.int64) if labels is None else labels
    corners, confidences, categories = (tensor.detach().cpu().numpy() for tensor in (boxes, scores, labels))
    real = np.flatnonzero(~np.isnan(corners).any(1))
    best = real[np.argsort(-confidences[real], kind="stable")[:count]]
    height, width = shape
    scaled = corners[best].astype(np.float64) * (np.array([width, height, width, height]) / side)
    return Detections(scaled, confidences[best].astype(np.float64), categories[best].astype(np.int64), None)


@dataclass(frozen=True)
class _Part:
    """A slot or one of its components, stored as a crop.

    Attributes:
        score: confidence in [0, 1].
        area: number of pixels.
        top: first row of the crop in the image.
        left: first column of the crop in the image.
        inside: (h, w) bool, the mask in its tight bounding box.
    """

    score: float
    area: int
    top: int
    left: int
    inside: NDArray[np.bool_]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x0, y0, x1, y1 with exclusive right and lower edges."""
        height, width = self.inside.shape
        return self.left, self.top, self.left + width, self.top + height

    def encoded(self, shape: tuple[int, int]) -> dict[str, Any]:
        """COCO run-length code of the mask in an image of size (H, W) = shape."""
        from pycocotools import mask as coco_mask

        whole = np.zeros(shape, np.uint8, order="F")
        height, width = self.inside.shape
        whole[self.top : self.top + height, self.left : self.left + width] = self.inside
        encoded: dict[str, Any] = coco_mask.encode(whole)
        return encoded


def _segments(masks: Tensor, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Slot (H, W) of each pixel, and the value (H, W) float32 of that slot's soft mask there.

    The labels of a label map are renumbered to 0, 1, ...
    """
    if masks.ndim == 2:
        labels = np.unique(label_map(masks, shape), return_inverse=True)[1].reshape(shape)
        return labels, np.ones(shape, np.float32)
    best = torch.full(shape, -torch.inf)
    slots = torch.zeros(shape, dtype=torch.int64)
    for start in range(0, len(masks), _SLOTS_AT_ONCE):
        soft = masks[start : start + _SLOTS_AT_ONCE].detach().float().cpu()
        if tuple(soft.shape[-2:]) != shape:
            soft = interpolate(soft[None], size=shape, mode="bilinear", align_corners=False)[0]
        for slot, value in enumerate(soft, start=start):  # five times faster than argmax over the strided axis
            slots.masked_fill_(value > best, slot)
            torch.maximum(best, value, out=best)
    return slots.numpy(), best.numpy()


def _windows(labels: np.ndarray) -> list[tuple[slice, slice] | None]:
    """The tight window of each label 0, 1, ...; None for a label that does not occur."""
    from scipy.ndimage import find_objects  # it ignores label 0

    windows: Any = find_objects(labels + 1)
    return list(windows)


def _parts(inside: NDArray[np.bool_], heights: np.ndarray, window: tuple[slice, slice], rule: Proposals) -> list[_Part]:
    """The whole mask of a slot, then its components, except for those smaller than `rule.min_area`."""
    from scipy.ndimage import label

    top, left = window[0].start, window[1].start
    area = int(inside.sum())
    parts = []
    if area >= rule.min_area:
        parts.append(_Part(_mean(heights[inside]), area, top, left, inside))
    if rule.parts == "whole" or area < rule.min_area:
        return parts
    components, count = label(inside, np.ones((3, 3), int))
    if count < 2:
        return parts
    areas = np.bincount(components.ravel(), minlength=count + 1)
    for number, piece in enumerate(_windows(components - 1), start=1):  # component 0 is the background
        if piece is not None and areas[number] >= rule.min_area:
            component = components[piece] == number
            score = _mean(heights[piece][component])
            at = top + piece[0].start, left + piece[1].start
            parts.append(_Part(score, int(areas[number]), *at, component))
    return parts


def _mean(values: np.ndarray) -> float:
    """Mean in [0, 1]; a model's masks may leave this range."""
    return float(np.clip(values.mean(dtype=np.float64), 0, 1))


def _suppress(parts: list[_Part], limit: float) -> list[_Part]:
    """Non-maximum suppression among the whole mask of one slot (the first part) and its components.

    Two slots share no pixel, and neither do two components. The only overlap is that of a slot with its own components,
    whose IoU is the ratio of their areas. Of two masks with an IoU above `limit` the one with the lower score is
    dropped; a tie drops the component.
    """
    if len(parts) < 2:
        return parts
    shares, scores = np.array([(part.area / parts[0].area, part.score) for part in parts]).T
    involved = np.flatnonzero(shares > limit)  # the whole mask, and the components that nearly fill it
    is_whole = involved == 0
    kept = survivors(scores[involved], lambda number: is_whole != is_whole[number])
    dropped = np.setdiff1d(involved, involved[kept])
    return [part for number, part in enumerate(parts) if number not in dropped]

"""Masks or boxes of a model as detections of the whole image, with no training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from ..cards.protocols import Proposals
from ..metrics.detection import Detections
from .discovery import label_map

__all__ = ["Detections", "native_boxes", "proposals"]

_SLOTS_AT_ONCE = 16
"""So many soft masks are upsampled at once: 256 of a whole photograph would take 300 MB."""


def proposals(masks: Tensor, shape: tuple[int, int], rule: Proposals) -> Detections:
    """Detections of one image from soft masks (K, h, w) or a label map (h, w).

    shape: (H, W) of the image. Soft masks are upsampled bilinearly and every pixel goes to its largest slot, as in
    object discovery; a label map goes by nearest pixel centre and scores 1. The mask of a slot is a detection, and with
    `parts: whole+components` so is each of its 8-connected components when it has several. Its score is the mean of
    the slot's soft mask over it, cut to 0 .. 1. Detections come best first; of equal scores the lower slot first, the
    whole before its parts, the parts by their first pixel.
    """
    labels, heights = _segments(masks, shape)
    parts: list[_Part] = []
    for slot, window in enumerate(_windows(labels)):
        if window is not None:
            parts += _kept(_parts(labels[window] == slot, heights[window], window, rule), rule.nms)
    parts.sort(key=lambda part: -part.score)  # stable
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
    """A model's own boxes (N, 4) xyxy in pixels of the side x side image that it saw, in pixels of the whole image.

    scores: (N,). labels: (N,) category ids or None. shape: (H, W) of the image. NaN boxes are none. The best `count`
    stay, in the model's order among equal scores.
    """
    named = torch.zeros(len(scores), dtype=torch.int64) if labels is None else labels
    values, found, names = (tensor.detach().cpu().numpy() for tensor in (boxes, scores, named))
    there = np.flatnonzero(~np.isnan(values).any(1))
    chosen = there[np.argsort(-found[there], kind="stable")[:count]]
    height, width = shape
    scaled = values[chosen].astype(np.float64) * (np.array([width, height, width, height]) / side)
    return Detections(scaled, found[chosen].astype(np.float64), names[chosen].astype(np.int64), None)


@dataclass(frozen=True)
class _Part:
    """A mask in a window of the image: rows and columns from (top, left), `inside` (h, w) bool."""

    score: float
    area: int
    top: int
    left: int
    inside: NDArray[np.bool_]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x0, y0, x1, y1 with exclusive right and lower edge; the window is tight."""
        height, width = self.inside.shape
        return self.left, self.top, self.left + width, self.top + height

    def encoded(self, shape: tuple[int, int]) -> dict[str, Any]:
        """COCO run-length code of the whole image."""
        from pycocotools import mask as coco_mask

        whole = np.zeros(shape, np.uint8, order="F")
        height, width = self.inside.shape
        whole[self.top : self.top + height, self.left : self.left + width] = self.inside
        encoded: dict[str, Any] = coco_mask.encode(whole)
        return encoded


def _segments(masks: Tensor, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Slot (H, W) of each pixel, numbered 0 .., and the height (H, W) float32 of that slot's soft mask there."""
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
    """The tight window of label 0, 1, ..; None where a label is absent."""
    from scipy.ndimage import find_objects

    windows: Any = find_objects(labels + 1)
    return list(windows)


def _parts(inside: NDArray[np.bool_], heights: np.ndarray, window: tuple[slice, slice], rule: Proposals) -> list[_Part]:
    """The whole mask of a slot, then its components, without those that are too small."""
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
    for number, piece in enumerate(_windows(components - 1), start=1):
        if piece is not None and areas[number] >= rule.min_area:
            component = components[piece] == number
            score = _mean(heights[piece][component])
            at = top + piece[0].start, left + piece[1].start
            parts.append(_Part(score, int(areas[number]), *at, component))
    return parts


def _mean(values: np.ndarray) -> float:
    return float(np.clip(values.mean(dtype=np.float64), 0, 1))


def _kept(parts: list[_Part], limit: float) -> list[_Part]:
    """Suppress, of two masks with an IoU above `limit`, the one with the lower score, the best first.

    Masks of two slots share no pixel, nor do two components, so that the only overlap is that of a slot (the first
    part) with its components, and their IoU is the ratio of their areas.
    """
    if len(parts) < 2:
        return parts
    whole, *components = parts
    alike = [part.area / whole.area > limit for part in components]
    if any(part.score > whole.score for part, same in zip(components, alike, strict=True) if same):
        return components
    return [whole, *(part for part, same in zip(components, alike, strict=True) if not same)]

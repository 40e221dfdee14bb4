"""A detection head on frozen tokens, after FCOS (Tian et al., ICCV 2019, arXiv:1904.01355) and as cheap as can be.

A token whose centre lies in the mask of an object stands for the smallest such object: its class, and how far the four
sides of its box are away, as shares of the image. All others are background, and those in a crowd are left out. There
is one scale, no centreness, and the loss of the box is L1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...cards.protocols import Fit
from ...core.types import Prediction, Truth
from ...metrics.detection import Detections
from .features import FeatureSet, extracted
from .matching import instance_mask
from .perceptron import Examples, apply, fit_perceptron
from .slots import known_categories

TOKENS_PER_STEP = 16
"""Tokens that are drawn of each image of a batch."""
NMS = 0.5
MAX_DETECTIONS = 100
_BACKGROUND, _LEFT_OUT = -1, -2


@dataclass(frozen=True)
class _Tokens:
    """A `perceptron.Source` of tokens. targets: (I, P) int64 class, or `_LEFT_OUT`; sides: (I, P, 4), NaN without."""

    features: FeatureSet
    targets: np.ndarray
    sides: np.ndarray

    def __len__(self) -> int:
        return len(self.features)

    @property
    def width(self) -> int:
        return int(self.features.tokens.shape[1])

    def batch(self, images: np.ndarray, random: np.random.Generator | None) -> Examples:
        places = self.targets.shape[1]
        if random is None:
            chosen = np.arange(len(images) * places)
        else:
            drawn = random.integers(0, places, (len(images), TOKENS_PER_STEP))
            chosen = (np.arange(len(images))[:, None] * places + drawn).ravel()
        targets = self.targets[images].reshape(-1)[chosen]
        chosen, targets = chosen[targets != _LEFT_OUT], targets[targets != _LEFT_OUT]
        tokens = self.features.tokens[images].reshape(len(images), self.width, places).transpose(0, 2, 1)
        features = tokens[chosen // places, chosen % places].astype(np.float32)
        sides = self.sides[images].reshape(-1, 4)[chosen]
        return Examples(torch.from_numpy(features), torch.from_numpy(targets), torch.from_numpy(sides))


def fit_dense(
    batches: Iterable[tuple[Sequence[Truth], Prediction]], count: int, names: Mapping[int, str], fit: Fit
) -> dict[str, Tensor]:
    """Tensors of the head (see `perceptron`) and `categories` (C,) int64, the id of each class; class C is background.

    batches: truths of whole images and a prediction with tokens, whose first rows belong to them; count: of images.
    names: the categories that the data set declares.
    """
    named: list[np.ndarray] = []
    sides: list[np.ndarray] = []

    def with_targets() -> Iterator[tuple[Sequence[Truth], Prediction]]:
        for truths, prediction in batches:
            if prediction.tokens is not None:
                grid = (prediction.tokens.shape[2], prediction.tokens.shape[3])
                for truth in truths:
                    one = token_targets(truth, grid)
                    named.append(one[0])
                    sides.append(one[1])
            yield truths, prediction

    with extracted(with_targets(), count, 1) as features:
        assert features is not None  # the adapter has checked that there are tokens
        found = np.stack(named)
        categories = known_categories(names, found)
        targets = np.searchsorted(categories, found)
        targets[found == _BACKGROUND] = len(categories)
        targets[found == _LEFT_OUT] = _LEFT_OUT
        source = _Tokens(features, targets, np.stack(sides))
        head = fit_perceptron(source, len(categories) + 1, fit, normalise=True)
    return {**head, "categories": torch.from_numpy(categories)}


def token_targets(truth: Truth, grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Category (P,) int64 of each token, negative for background and crowds, and sides (P, 4) float32.

    Sides are the distances from the centre of the token to left, top, right and bottom as shares of the image, NaN
    where there is no object.
    """
    height, width = truth.labels.shape
    rows, columns = (((2 * np.arange(g) + 1) * n) // (2 * g) for g, n in zip(grid, (height, width), strict=True))
    centres = _centres(grid)
    category = np.full(grid, _BACKGROUND, np.int64)
    sides = np.full((*grid, 4), np.nan, np.float32)
    order = sorted(truth.instances, key=lambda instance: (not instance.crowd, -instance.area))
    for instance in order:  # crowds first, then the largest: the smallest object has the last word
        inside = instance_mask(instance, (height, width))[np.ix_(rows, columns)]
        category[inside] = _LEFT_OUT if instance.crowd else instance.category
        if not instance.crowd:
            box = np.array(instance.box) / (width, height, width, height)
            sides[inside] = ((box - centres[inside]) * (-1, -1, 1, 1)).astype(np.float32)
    return category.ravel(), sides.reshape(-1, 4)


def dense_detections(tokens: Tensor, head: dict[str, Tensor], shape: tuple[int, int]) -> Detections:
    """Detections of one image, at its size (H, W) = shape, from tokens (D, h, w).

    Every token gives a box of its best class, its score is the probability. Of two boxes of one class with an IoU above
    `NMS` the better one stays. A mask is where, in the box, the class is the best one (background included) after
    bilinear upsampling of the probabilities.
    """
    grid = (tokens.shape[1], tokens.shape[2])
    logits, sides = apply(head, tokens.flatten(1).T)
    probabilities = logits.softmax(1)
    scores, classes = (tensor.numpy() for tensor in probabilities[:, :-1].max(1))
    height, width = shape
    ltrb = _centres(grid).reshape(-1, 4) + sides.numpy().clip(0) * (-1, -1, 1, 1)
    boxes = ltrb.clip(0, 1) * (width, height, width, height)
    kept = _suppress(boxes, scores, classes)[:MAX_DETECTIONS]
    best = _best_class(probabilities.T.reshape(-1, *grid), shape)
    return Detections(
        boxes[kept],
        scores[kept].astype(np.float64),
        head["categories"].numpy()[classes[kept]],
        tuple(_mask(best == classes[k], boxes[k]) for k in kept),
    )


def _best_class(probabilities: Tensor, shape: tuple[int, int]) -> np.ndarray:
    """Class (H, W) from (C + 1, h, w): where it is the largest after bilinear upsampling.

    A pixel is a mean of four neighbouring tokens. A class that reaches nowhere, in its best of four, the worst of four
    of another class cannot win, and most of many classes are left out so.
    """
    padded = F.pad(probabilities[None], (1, 1, 1, 1), mode="replicate")[0]
    least, most = -F.max_pool2d(-padded, 2, 1), F.max_pool2d(padded, 2, 1)
    able = torch.nonzero((most >= least.amax(0)).flatten(1).any(1))[:, 0]
    upsampled = F.interpolate(probabilities[able][None], size=shape, mode="bilinear", align_corners=False)[0]
    return able[upsampled.argmax(0)].numpy()


def _mask(inside: np.ndarray, box: np.ndarray) -> dict[str, object]:
    """Run-length code of the part of a mask (H, W) whose pixels the box touches by half or more."""
    from pycocotools import mask as coco_mask

    left, top, right, bottom = box.round().astype(int)
    whole = np.zeros(inside.shape, np.uint8, order="F")
    whole[top:bottom, left:right] = inside[top:bottom, left:right]
    encoded: dict[str, object] = coco_mask.encode(whole)
    return encoded


def _centres(grid: tuple[int, int]) -> np.ndarray:
    """(h, w, 4) centre of each token as x, y, x, y in shares of the image."""
    y, x = np.meshgrid(*((np.arange(n) + 0.5) / n for n in grid), indexing="ij")
    return np.stack([x, y, x, y], axis=-1)


def _suppress(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Positions of the boxes that stay, the best first; of equal scores the first token's."""
    order = np.argsort(-scores, kind="stable")
    boxes, classes = boxes[order], classes[order]
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = (high - low).clip(0).prod(2)
    union = area[:, None] + area[None] - shared
    rival = (shared > NMS * union) & (classes[:, None] == classes[None])
    alive = np.ones(len(order), bool)
    for position in range(len(order)):
        if alive[position]:
            alive[position + 1 :] &= ~rival[position, position + 1 :]
    return order[alive]

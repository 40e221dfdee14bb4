"""A small detection head on frozen tokens, modelled on FCOS (Tian et al., ICCV 2019, arXiv:1904.01355).

A token whose centre lies in the masks of objects is an example of the smallest of them: its targets are the class and
the distances to the four sides of the box, as shares of the image. Tokens in a crowd are left out, and all other tokens
are background. Unlike FCOS, the head has one scale and no centreness, and its box loss is L1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...cards.protocols import Fit
from ...core.boxes import overlapping, survivors
from ...core.types import Prediction, Truth
from ...metrics.detection import Detections
from ..base import Batches, Head
from ..checks import check_alike
from .features import FeatureSet, extracted
from .matching import instance_mask
from .perceptron import Examples, apply, fit_perceptron
from .slots import known_categories

TOKENS_PER_STEP = 16
"""Number of tokens that are drawn from each image of a batch."""
NMS = 0.5
"""IoU above which the weaker of two boxes of one class is suppressed."""
MAX_DETECTIONS = 100
_BACKGROUND, _LEFT_OUT = -1, -2


@dataclass(frozen=True)
class _TokenSource:
    """An `ExampleSource` of tokens, for I images with P tokens each.

    Attributes:
        features: tokens of all images.
        targets: (I, P) int64 class of each token, or `_LEFT_OUT`.
        sides: (I, P, 4) float32 distances to the sides of the box, NaN without an object.
    """

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
            draws = random.integers(0, places, (len(images), TOKENS_PER_STEP))
            chosen = (np.arange(len(images))[:, None] * places + draws).ravel()
        targets = self.targets[images].reshape(-1)[chosen]
        # Left-out tokens are dropped after the draw, so the number of examples varies from step to step.
        chosen, targets = chosen[targets != _LEFT_OUT], targets[targets != _LEFT_OUT]
        tokens = self.features.tokens[images].reshape(len(images), self.width, places).transpose(0, 2, 1)
        features = tokens[chosen // places, chosen % places].astype(np.float32)
        sides = self.sides[images].reshape(-1, 4)[chosen]
        return Examples(torch.from_numpy(features), torch.from_numpy(targets), torch.from_numpy(sides))


def fit_dense(batches: Batches, count: int, names: Mapping[int, str], fit: Fit) -> Head:
    """Fit the head.

    Args:
        batches: truths and predictions, with tokens, of whole images.
        count: number of images.
        names: names of the categories that the data set declares, by id.
        fit: the recipe of the task card.

    Returns:
        Tensors of the head (see `fit_perceptron`) and `categories` (C,) int64, the category id of each class. Class C
        is background.
    """
    category_maps: list[np.ndarray] = []
    sides: list[np.ndarray] = []

    def with_targets() -> Iterator[tuple[Sequence[Truth], Prediction]]:
        """Pass the batches on and collect targets, so that the split is predicted only once."""
        for truths, prediction in batches:
            if prediction.tokens is not None:
                grid = (prediction.tokens.shape[2], prediction.tokens.shape[3])
                for truth in truths:
                    image_categories, image_sides = token_targets(truth, grid)
                    category_maps.append(image_categories)
                    sides.append(image_sides)
            yield truths, prediction

    with extracted(with_targets(), count, 1) as features:
        assert features is not None  # the adapter has checked that there are tokens
        token_categories = np.stack(category_maps)
        categories = known_categories(names, token_categories)
        targets = np.searchsorted(categories, token_categories)
        targets[token_categories == _BACKGROUND] = len(categories)
        targets[token_categories == _LEFT_OUT] = _LEFT_OUT
        source = _TokenSource(features, targets, np.stack(sides))
        head = fit_perceptron(source, len(categories) + 1, fit, normalise=True)
    return {**head, "categories": torch.from_numpy(categories)}


def token_targets(truth: Truth, grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Training targets of the tokens of one image.

    Args:
        truth: truth of the image.
        grid: numbers of rows and columns (h, w) of the tokens.

    Returns:
        Category (P,) int64 of each of the P = h w tokens, negative for background and crowds, and sides (P, 4)
        float32: the distances from the centre of the token to left, top, right and bottom of the box as shares of the
        image, NaN without an object.
    """
    height, width = truth.labels.shape
    # The pixel that contains the centre of token i of g is floor((i + 1/2) n / g), here in exact integers.
    rows, columns = (((2 * np.arange(g) + 1) * n) // (2 * g) for g, n in zip(grid, (height, width), strict=True))
    centres = _centres(grid)
    category = np.full(grid, _BACKGROUND, np.int64)
    sides = np.full((*grid, 4), np.nan, np.float32)
    order = sorted(truth.instances, key=lambda instance: (not instance.crowd, -instance.area))
    for instance in order:  # crowds first, then large to small: later instances overwrite earlier ones
        inside = instance_mask(instance, (height, width))[np.ix_(rows, columns)]
        category[inside] = _LEFT_OUT if instance.crowd else instance.category
        if not instance.crowd:
            box = np.array(instance.box) / (width, height, width, height)
            sides[inside] = ((box - centres[inside]) * (-1, -1, 1, 1)).astype(np.float32)
    return category.ravel(), sides.reshape(-1, 4)


def dense_detections(tokens: Tensor, head: Head, shape: tuple[int, int]) -> Detections:
    """Detections of one image.

    Every token gives one box of its best class, scored by the probability of that class. Then non-maximum suppression
    within each class keeps at most `MAX_DETECTIONS`. The mask of a detection is the part of its box where its class is
    the most likely one, background included, after bilinear upsampling of the probabilities.

    Args:
        tokens: (D, h, w).
        head: a head from `fit_dense`.
        shape: size (H, W) of the image.

    Raises:
        UsageError: another D than that of the head.
    """
    check_alike("tokens", tokens.shape[:1], head["mean"].shape)
    grid = (tokens.shape[1], tokens.shape[2])
    logits, sides = apply(head, tokens.flatten(1).T)
    probabilities = logits.softmax(1)
    scores, classes = (tensor.numpy() for tensor in probabilities[:, :-1].max(1))
    height, width = shape
    ltrb = _centres(grid).reshape(-1, 4) + sides.numpy().clip(0) * (-1, -1, 1, 1)
    boxes = ltrb.clip(0, 1) * (width, height, width, height)
    overlaps = overlapping(boxes, NMS)
    kept = survivors(scores, lambda token: overlaps(token) & (classes == classes[token]))[:MAX_DETECTIONS]
    class_map = _best_class(probabilities.T.reshape(-1, *grid), shape)
    return Detections(
        boxes[kept],
        scores[kept].astype(np.float64),
        head["categories"].numpy()[classes[kept]],
        tuple(_mask(class_map == classes[token], boxes[token]) for token in kept),
    )


def _best_class(probabilities: Tensor, shape: tuple[int, int]) -> np.ndarray:
    """Most likely class (H, W) after bilinear upsampling of probabilities (C + 1, h, w).

    Upsampling all classes would be slow, so classes that cannot win anywhere are left out first. A pixel is a weighted
    mean of four neighbouring tokens. In a group of four, a class whose largest value is below the smallest value of
    another class loses at all pixels of the group.
    """
    padded = F.pad(probabilities[None], (1, 1, 1, 1), mode="replicate")[0]
    least, most = -F.max_pool2d(-padded, 2, 1), F.max_pool2d(padded, 2, 1)
    candidates = torch.nonzero((most >= least.amax(0)).flatten(1).any(1))[:, 0]
    upsampled = F.interpolate(probabilities[candidates][None], size=shape, mode="bilinear", align_corners=False)[0]
    return candidates[upsampled.argmax(0)].numpy()


def _mask(inside: np.ndarray, box: np.ndarray) -> dict[str, object]:
    """COCO run-length code of a mask (H, W) inside a box, whose sides are rounded to whole pixels."""
    from pycocotools import mask as coco_mask

    left, top, right, bottom = box.round().astype(int)
    whole = np.zeros(inside.shape, np.uint8, order="F")
    whole[top:bottom, left:right] = inside[top:bottom, left:right]
    encoded: dict[str, object] = coco_mask.encode(whole)
    return encoded


def _centres(grid: tuple[int, int]) -> np.ndarray:
    """(h, w, 4): the centre of each token as x, y, x, y in shares of the image, to add distances to all four sides."""
    y, x = np.meshgrid(*((np.arange(n) + 0.5) / n for n in grid), indexing="ij")
    return np.stack([x, y, x, y], axis=-1)

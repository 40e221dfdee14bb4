"""Dense features of a whole split, extracted once into memory-mapped files: memory does not grow with the split."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...core.errors import UsageError
from ...core.paths import cache_root
from ...core.types import VOID
from ...data.transforms import nearest
from ..base import Batches
from ..checks import check_alike

_LARGEST = float(np.finfo(np.float16).max)
_EPSILON = 1e-5
"""Added to the variance, as in `torch.nn.BatchNorm2d`."""


@dataclass(frozen=True)
class FeatureSet:
    """Tokens and class maps of N images.

    Attributes:
        tokens: (N, D, h, w) float16.
        classes: (N, at, at) int16, `VOID` where nothing is annotated.
    """

    tokens: np.ndarray
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, chosen: np.ndarray) -> tuple[Tensor, np.ndarray]:
        """Tokens (B, D, h, w) float32 and class maps (B, at, at) of the images at the positions `chosen`."""
        return torch.from_numpy(self.tokens[chosen].astype(np.float32)), self.classes[chosen]


@contextmanager
def extracted(batches: Batches, count: int, at: int) -> Iterator[FeatureSet | None]:
    """Store features on disk while the `with` block runs.

    Args:
        batches: truths and predictions of the split.
        count: largest number of images.
        at: class maps are resized to `at` x `at` by nearest pixel centre.

    Yields:
        The features, or None when the model gives no tokens.

    Raises:
        UsageError: no image could be read, or tokens differ in shape, are not finite, or too large for float16.
    """
    place = cache_root() / "features"
    place.mkdir(parents=True, exist_ok=True)
    # In the cache rather than in /tmp, which is often small or held in memory: a split can take many gigabytes.
    folder = Path(tempfile.mkdtemp(dir=place))
    try:
        yield _collect(batches, folder, count, at)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _collect(batches: Batches, folder: Path, count: int, at: int) -> FeatureSet | None:
    """Write the features into `folder`. Fewer than `count` images remain when some could not be read."""
    tokens: np.ndarray | None = None
    classes = np.lib.format.open_memmap(folder / "classes.npy", mode="w+", dtype=np.int16, shape=(count, at, at))
    done = 0
    for truths, prediction in batches:
        if prediction.tokens is None:
            return None
        values = prediction.tokens[: len(truths)].detach().float().cpu().numpy()  # without the padding of the batch
        if not np.isfinite(values).all():
            raise UsageError("Prediction.tokens is not finite (NaN or infinity) on an image of the fit split")
        if np.abs(values).max() > _LARGEST:
            raise UsageError(f"Prediction.tokens has values above {_LARGEST:g}, too large for float16; scale them down")
        if tokens is None:  # the shape of the tokens is known only after the first batch
            shape = (count, *values.shape[1:])
            tokens = np.lib.format.open_memmap(folder / "tokens.npy", mode="w+", dtype=np.float16, shape=shape)
        check_alike("tokens", values.shape[1:], tokens.shape[1:])
        rows = slice(done, done + len(truths))
        tokens[rows] = values
        for row, truth in zip(classes[rows], truths, strict=True):
            row[:] = VOID if truth.classes is None else nearest(truth.classes, (at, at))
        done += len(truths)
    if tokens is None:
        raise UsageError("no image of the fit split could be read")
    return FeatureSet(tokens[:done], classes[:done])


def held_out(count: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split images at random into those to fit on and those to choose settings on.

    Args:
        count: number of images.
        share: share of the images to choose on; at least one image if it is above 0 and there are two or more.
        seed: seed of the split.

    Returns:
        Sorted positions to fit on, and sorted positions to choose on.
    """
    order = np.random.default_rng(seed).permutation(count)
    size = max(1, round(share * count)) if share > 0 and count > 1 else 0
    return np.sort(order[size:]), np.sort(order[:size])


def normalisation(total: Tensor, square: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean and inverse standard deviation (D,) float32 of `count` features, as in an affine-free batch norm.

    The variance is E[x^2] - E[x]^2. It needs sums in float64: in float32 features with a large mean would lose most of
    its digits.

    Args:
        total: (D,) float64 sum of the features.
        square: (D,) float64 sum of their squares.
        count: number of features.
    """
    mean = total / max(1, count)
    variance = (square / max(1, count) - mean * mean).clamp_min(0)
    return mean.float(), (variance + _EPSILON).rsqrt().float()

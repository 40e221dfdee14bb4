"""Dense features of a whole split, extracted once: memory-mapped files, so that memory stays flat."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...core.errors import UsageError
from ...core.paths import cache_root
from ...core.types import VOID, Prediction, Truth
from ...data.transforms import nearest

_LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class FeatureSet:
    """tokens: (N, D, h, w) float16. classes: (N, at, at) int16, `VOID` where nothing is annotated."""

    tokens: np.ndarray
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, chosen: np.ndarray) -> tuple[Tensor, np.ndarray]:
        """Tokens (B, D, h, w) float32 and class maps (B, at, at) of some images."""
        return torch.from_numpy(self.tokens[chosen].astype(np.float32)), self.classes[chosen]


@contextmanager
def extracted(
    batches: Iterable[tuple[Sequence[Truth], Prediction]], count: int, at: int
) -> Iterator[FeatureSet | None]:
    """Features of at most `count` images while the block runs, on disk; None when the model gives no tokens.

    batches: truths after the protocol and the prediction, whose first rows belong to them. Class maps go to at x at by
    nearest pixel centre. Raises UsageError when no image could be read or tokens are not finite.
    """
    place = cache_root() / "features"
    place.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=place))
    try:
        yield _collect(batches, folder, count, at)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _collect(
    batches: Iterable[tuple[Sequence[Truth], Prediction]], folder: Path, count: int, at: int
) -> FeatureSet | None:
    tokens: np.ndarray | None = None
    classes = np.lib.format.open_memmap(folder / "classes.npy", mode="w+", dtype=np.int16, shape=(count, at, at))
    done = 0
    for truths, prediction in batches:
        if prediction.tokens is None:
            return None
        found = prediction.tokens[: len(truths)].detach().float().cpu().numpy()
        if not np.isfinite(found).all():
            raise UsageError("Prediction.tokens is not finite (NaN or infinity) on an image of the fit split")
        if np.abs(found).max() > _LARGEST:
            raise UsageError(f"Prediction.tokens has values above {_LARGEST:g}, too large for float16; scale them down")
        if tokens is None:
            shape = (count, *found.shape[1:])
            tokens = np.lib.format.open_memmap(folder / "tokens.npy", mode="w+", dtype=np.float16, shape=shape)
        rows = slice(done, done + len(truths))
        tokens[rows] = found
        for row, truth in zip(classes[rows], truths, strict=True):
            row[:] = VOID if truth.classes is None else nearest(truth.classes, (at, at))
        done += len(truths)
    if tokens is None:
        raise UsageError("no image of the fit split could be read")
    return FeatureSet(tokens[:done], classes[:done])


def held_out(count: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions to fit on and positions to choose on: a seeded share of `count` images, at least one if share > 0."""
    order = np.random.default_rng(seed).permutation(count)
    kept = max(1, round(share * count)) if share > 0 and count > 1 else 0
    return np.sort(order[kept:]), np.sort(order[:kept])

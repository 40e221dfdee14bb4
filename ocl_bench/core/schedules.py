"""Learning rate, batches and random seeds as pure functions of the step. A training can resume at any of them."""

from __future__ import annotations

import hashlib
import math
from typing import Literal

import numpy as np
import torch

Schedule = Literal["cosine", "exponential", "constant"]


def learning_rate(
    step: int,
    steps: int,
    peak: float,
    *,
    warmup: int = 0,
    schedule: Schedule = "cosine",
    floor: float = 1e-3,
    start: float = 0.0,
) -> float:
    """Learning rate of step `step` of `steps`: a linear warm-up, then the schedule.

    Args:
        step: from 0.
        steps: length of the training; the last rate is reached there.
        peak: largest rate.
        warmup: steps in which the rate rises from `start * peak` to `peak`.
        schedule: `cosine` falls to `floor * peak` along half a cosine, `exponential` by a constant factor a step;
            `constant` stays.
        floor: share of the peak at the end.
        start: share of the peak at step 0.

    Step 0 has rate 0 when there is a warm-up, as in the official DIAS training (arXiv:2507.23755); SlotCon starts at
    a hundredth of the peak (arXiv:2205.15288); SlotContrast decays exponentially to one half (arXiv:2412.14295).
    """
    if step < warmup:
        return peak * (start + (1 - start) * step / warmup)
    if schedule == "constant":
        return peak
    progress = (step - warmup) / max(1, steps - warmup)
    if schedule == "exponential":
        return peak * floor**progress
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def cosine(first: float, last: float, fraction: float) -> float:
    """A value that goes from `first` at fraction 0 to `last` at fraction 1 of a training, along half a cosine."""
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * min(1.0, fraction)))


def stream_seed(seed: int, stream: str, step: int) -> int:
    """A 63-bit seed that depends only on (seed, name of the stream, step)."""
    digest = hashlib.blake2b(f"{seed}|{stream}|{step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % 2**63


def generator(seed: int, stream: str, step: int) -> torch.Generator:
    """A CPU generator for one stream of one step."""
    return torch.Generator("cpu").manual_seed(stream_seed(seed, stream, step))


def sample_indices(seed: int, step: int, batch: int, count: int) -> np.ndarray:
    """Indices (batch,) int64 below `count` of the scenes in batch `step`: shuffled epochs without replacement.

    Position n of the endless sequence of epochs is scene `permutation(seed, n // count)[n % count]`, so a batch that
    crosses the end of an epoch takes the rest from the next one.
    """
    # A batch may cross the end of an epoch, or hold several epochs of a small set.
    positions = np.arange(step * batch, (step + 1) * batch)
    out = np.empty(batch, dtype=np.int64)
    for epoch in np.unique(positions // count):
        order = np.random.default_rng(stream_seed(seed, "epoch", int(epoch))).permutation(count)
        chosen = positions // count == epoch
        out[chosen] = order[positions[chosen] % count]
    return out

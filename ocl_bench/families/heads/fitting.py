"""What the fits of networks on slots share: standardised slots, and the schedule of the learning rate."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_and_scale(slots: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and standard deviation (D,) of slots (N, D); the latter is 1 for a channel that never changes."""
    mean, scale = slots.mean(0), slots.std(0)
    return mean, torch.where(scale > 1e-6, scale, torch.ones_like(scale))


def used_slots(slots: Tensor) -> Tensor:
    """(N,) bool: the slots (N, ...) that are not zero everywhere."""
    return slots.flatten(1).abs().amax(1) > 0


def warmed_up(
    optimizer: torch.optim.Optimizer, rate: float, steps: int, warm_up: float, fall: float = 1e4
) -> torch.optim.lr_scheduler.OneCycleLR:
    """The schedule from rate / 25 up to the rate in a share of the steps, then down a cosine to rate / 25 / fall."""
    steps = max(steps, 2)
    share = max(warm_up, 1.5 / steps)  # OneCycleLR divides by 0 where the warm-up is one step
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps, pct_start=share, final_div_factor=fall
    )

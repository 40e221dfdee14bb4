"""The operations between the processes (ranks) of a distributed training that losses need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class RankOps:
    """Communication with the other ranks; the defaults are those of a training in one process.

    Attributes:
        size: number of ranks.
        rank: number of this rank.
        gather: concatenates rows (n, ...) of all ranks in rank order, without gradient; n may differ between ranks.
        mean: averages a tensor over the ranks, without gradient.
    """

    size: int = 1
    rank: int = 0
    gather: Callable[[Tensor], Tensor] = lambda rows: rows
    mean: Callable[[Tensor], Tensor] = lambda value: value

"""What a loss may ask of the other ranks of a training, without knowing how they talk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class RankOps:
    """What the losses need of the other ranks; by default there are none.

    size, rank: number of ranks and which one this is. gather: rows (n, ...) of all ranks in rank order, n may differ
    between them; no gradient is needed. mean: of a tensor over the ranks, without gradient.
    """

    size: int = 1
    rank: int = 0
    gather: Callable[[Tensor], Tensor] = lambda rows: rows
    mean: Callable[[Tensor], Tensor] = lambda value: value

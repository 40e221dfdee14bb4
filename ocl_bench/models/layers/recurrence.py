"""What a recurrent slot model found in the frames of a video."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Recurrence:
    """The slots of B videos through T frames, with K slots of D channels and P tokens in a frame.

    Attributes:
        slots: (B, T, K, D), corrected by what the frame shows.
        predicted: (B, T, K, D), predictions of the next frame's slots. The last one is the state with which the
            video can be continued.
        attention: (B, T, K, P), attention of the last iteration; sums to 1 over the slots.
    """

    slots: Tensor
    predicted: Tensor
    attention: Tensor

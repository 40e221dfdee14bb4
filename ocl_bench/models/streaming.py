"""What models of videos check of the frames and of the state that they are given."""

from __future__ import annotations

from torch import Tensor

from ..core.errors import SampleError, UsageError
from ..core.types import Batch


def check_finite(batch: Batch, video: Tensor) -> None:
    """Raise SampleError naming the first sample of a video (B, T, 3, H, W) with NaN or infinity, and its frame."""
    broken = ~video.isfinite().flatten(2).all(2)
    if broken.any():
        sample, frame = (int(number) for number in broken.nonzero()[0])
        what = "the image" if batch.video is None else f"frame {batch.start + frame}"
        raise SampleError(batch.ids[sample], f"{what} holds NaN or infinity; expected values in [0, 1]")


def check_whole(batch: Batch, why: str) -> None:
    """Raise UsageError for a part of a video; `why` says what needs all of it."""
    if batch.video is not None and (batch.start or batch.state is not None):
        raise UsageError(f"frames from {batch.start} on: {why} needs the whole video in one batch")


def checked_state(batch: Batch, slots: int, slot_dim: int, like: Tensor) -> Tensor | None:
    """The state (B, K, C) from which a batch continues, with device and type of `like`; None where a video begins.

    Raises:
        UsageError: the state is missing or has another shape.
    """
    if batch.video is None or (batch.state is None and batch.start == 0):
        return None
    expected = (len(batch.video), slots, slot_dim)
    if not isinstance(batch.state, Tensor) or tuple(batch.state.shape) != expected:
        what = tuple(batch.state.shape) if isinstance(batch.state, Tensor) else type(batch.state).__name__
        raise UsageError(
            f"frames from {batch.start} on: batch.state is {what}, expected {expected}; "
            "give Prediction.state of the frames before"
        )
    return batch.state.to(like)

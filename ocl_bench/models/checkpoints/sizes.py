"""Comparison of the sizes of a checkpoint with those of a model, so that the error names the option to give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ...core.errors import UsageError


@dataclass(frozen=True)
class Size:
    """A size that a tensor of a state dict shows.

    Attributes:
        tensor: its name here.
        axis: the axis of the tensor whose length is the size.
        meaning: what is counted, such as `tokens of an image`.
        option: from the size in the checkpoint to the option that makes the model fit, as NAME=VALUE.
    """

    tensor: str
    axis: int
    meaning: str
    option: Callable[[int], str]


def check_sizes(state: Mapping[str, Tensor], model: Mapping[str, Tensor], sizes: Sequence[Size]) -> None:
    """Compare a checkpoint, under our names, with the tensors of a model.

    Raises:
        UsageError: a size differs; the message says what, and which option makes the model fit. A tensor that is
            missing, or has another number of axes, is left to `names.load_weights`.
    """
    for size in sizes:
        found, expected = state.get(size.tensor), model.get(size.tensor)
        if found is None or expected is None or found.ndim != expected.ndim:
            continue
        theirs, ours = found.shape[size.axis], expected.shape[size.axis]
        if theirs != ours:
            raise UsageError(
                f"the checkpoint has {theirs} {size.meaning}, the model {ours}; use --option {size.option(theirs)}"
            )

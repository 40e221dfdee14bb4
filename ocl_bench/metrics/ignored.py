"""One rule for pixels without annotation in the label maps of the truth, for metrics, cards and `score` alike.

VOID (-1) is always void. Files and other libraries write 255 instead, which an integer map may also use for an object:

    ignore_index="auto"   the default: 255 is void, but in a map with larger labels it is an object
    ignore_index=N        label N is void in every map
    ignore_index=None     only negative labels are special
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np

from ..core.types import VOID

IgnoreIndex: TypeAlias = int | Literal["auto"] | None

IGNORED = 255
"""The label that 8-bit masks use for pixels without annotation, and the `ignore_index` of most losses and metrics."""


def with_void(truth: Any, ignore_index: IgnoreIndex) -> Any:
    """Label maps (B, ...) with VOID where a label is to be ignored; the same object where nothing changes.

    The rule looks at one map (or clip) at a time, so that a value cannot depend on the rest of a batch.

    Args:
        truth: NumPy array or torch tensor of integers.
        ignore_index: see the module.

    Example:
        >>> with_void(np.array([[1, 255], [256, 255]]), "auto").tolist()
        [[1, -1], [256, 255]]
    """
    if ignore_index is None or 0 in truth.shape:
        return truth
    void = truth == (IGNORED if ignore_index == "auto" else ignore_index)
    if not void.any():
        return truth
    is_array = isinstance(truth, np.ndarray)
    wide = truth.astype(np.int64) if is_array else truth.long()
    if ignore_index == "auto":
        flat = wide.reshape(len(wide), -1)
        largest = flat.max(1) if is_array else flat.max(1).values
        void &= (largest <= IGNORED).reshape(-1, *[1] * (truth.ndim - 1))
    return np.where(void, VOID, wide) if is_array else wide.masked_fill(void, VOID)


def spread_to_255(labels: np.ndarray) -> list[int]:
    """The numbers of a label map if they are spread evenly up to 255, such as 0, 85, 170, 255; else none.

    So are masks that were drawn to be looked at. Their 255 is an object, which the rule above takes for void.
    """
    numbers = np.unique(labels)
    known = numbers[numbers > 0]
    if not len(known) or known[-1] != IGNORED:
        return []
    steps = IGNORED * np.arange(1, len(known) + 1) / len(known)
    return numbers[numbers >= 0].tolist() if (np.abs(known - steps) < 1).all() else []

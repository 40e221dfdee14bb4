"""Numbers that other programs wrote into JSON, and numbers in messages and on axes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any


def finite_numbers(field: str, values: Iterable[Any]) -> list[float]:
    """The values as floats. Raises ValueError, naming the field, for what is no finite number, such as the text "1"."""
    numbers = []
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{field} has {value!r}, expected a finite number")
        try:
            number = float(value)
        except OverflowError as error:
            raise ValueError(f"{field}: {error}") from error
        if not math.isfinite(number):
            raise ValueError(f"{field} has {value!r}, expected a finite number")
        numbers.append(number)
    return numbers


def counted(number: int, noun: str) -> str:
    """A number and its noun, which takes an s in the plural: `1 image`, `2 images`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def axis_ends(numbers: Sequence[float], low: float, high: float) -> tuple[float, float]:
    """Ends of the axis: 0 to 1 where all numbers lie there, else what the numbers need."""
    if all(0 <= number <= 1 for number in numbers) and high >= 1:
        return 0.0, 1.0
    least, most = min(numbers, default=0.0), max(numbers, default=1.0)
    pad = 0.08 * (most - least or 1.0)
    return max(low, min(0.0, least - pad)), min(high, most + pad)

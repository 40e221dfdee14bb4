"""Checks of the options that cards and callers give to model factories."""

from __future__ import annotations

from ..core.errors import UsageError


def check_choice(option: str, value: object, allowed: tuple[object, ...]) -> None:
    """Raise UsageError naming the option if its value is not one of those allowed."""
    if value not in allowed:
        raise UsageError(f"option {option}: {value!r} is unknown; use {' or '.join(map(str, allowed))}")


def check_range(option: str, value: object, valid: bool, expected: str) -> None:
    """Raise UsageError naming the option if `valid` is false; `expected` says what would be valid."""
    if not valid:
        raise UsageError(f"option {option}: {value!r} is invalid; use {expected}")

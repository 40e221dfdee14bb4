"""Options of the command line: what was typed, where the model declares a text."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from ocl_bench.models.options import TypedOptions, as_declared, option_value


def plain(a: Any, b="x", c=3):  # type: ignore[no-untyped-def]
    """A factory with defaults and no annotations."""


def annotated(
    a: str, b: str | None = None, c: int | str = "auto", d: Literal["1", "2"] = "1", e: float = 1.0, **more: Any
) -> None:
    """A factory with postponed annotations."""


@pytest.mark.parametrize(
    ("text", "value"),
    [("000064", "000064"), ("-007", "-007"), ("0", 0), ("0.5", 0.5), ("64", 64), ("1e-3", "1e-3"), ("0x10", 16)],
)
def test_numbers_with_leading_zeros_are_texts(text: str, value: Any) -> None:
    assert option_value("", text) == value


def test_texts_stay_as_typed() -> None:
    typed = TypedOptions({"a": "64", "b": "1", "c": "7"})
    assert typed == {"a": 64, "b": 1, "c": 7}
    assert as_declared(plain, typed) == {"a": 64, "b": "1", "c": 7}
    typed = TypedOptions({"a": "no", "b": "null", "c": "7", "d": "2", "e": "3", "f": "5"})
    assert as_declared(annotated, typed) == {"a": "no", "b": None, "c": 7, "d": "2", "e": 3, "f": 5}
    assert as_declared(annotated, TypedOptions({"a": "'12'", "b": "12:30"})) == {"a": "12", "b": "12:30"}
    assert as_declared(annotated, {"a": 64}) == {"a": 64}  # from Python: what the caller gave

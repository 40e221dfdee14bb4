"""Options of the command line: what was typed, where the model declares a text."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Literal

import pytest

from ocl_bench.cards.names import get_card, model_names
from ocl_bench.core.errors import UsageError
from ocl_bench.models.loading import get_model
from ocl_bench.models.options import TypedOptions, as_declared, known_options, option_value


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


SOURCES = sorted({get_card(name).source for name in model_names()})


@pytest.mark.parametrize("source", SOURCES)
def test_known_options_are_those_that_cards_use(source: str) -> None:
    """What is listed for an unknown option must have all that the cards of this factory set, in training too."""
    factory, cards = _factory(source), [card for card in map(get_card, model_names()) if card.source == source]
    used = {name for card in cards for name in {**card.options, **card.train.get("options", {})}}
    assert used <= set(known_options(factory, cards[0].options))
    assert not {"self", "options", "args", "kwargs"} & set(known_options(factory, {}))


@pytest.mark.parametrize("name", ["grid", "encoder", "dias", "odis", "slotcon", "slotcontrast", "slotmatch"])
def test_an_unknown_option_lists_those_that_the_model_takes(name: str) -> None:
    card = get_card(name)
    known = known_options(_factory(card.source), card.options)
    with pytest.raises(
        UsageError,
        match=f"model {name}: option 'slotz' is unknown; options are: {', '.join(known)}(; did you mean .*)?$",
    ):
        get_model(name, options={"slotz": 3})


@pytest.mark.parametrize("name", ["encoder", "dias", "odis", "slotcon", "slotcontrast", "slotmatch"])
def test_every_listed_option_is_taken(name: str) -> None:
    """A required argument that the factory computes itself, such as the size of a grid, is no option."""
    card = get_card(name)
    factory = _factory(card.source)
    for option in set(known_options(factory, card.options)) - {"variant"}:  # that one is of the paper's size only
        try:
            factory(**{**card.options, option: "no such value"})
        except Exception as error:
            assert "unexpected keyword" not in str(error) and "multiple values" not in str(error), option


def test_a_type_error_within_a_users_factory_is_no_unknown_option(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def build(width=3, **options):\n    return dict.fromkeys(depth=width)\n")
    with pytest.raises(UsageError, match=r"building it failed \(TypeError"):
        get_model(f"{path}:build", options={"width": 4})


def _factory(source: str) -> Any:
    module, attribute = source.split(":")
    return getattr(importlib.import_module(module), attribute)

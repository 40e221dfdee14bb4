"""An interpreter of CLEVRER's programs, with the meaning that NS-DR's executor gives them (chuangg/CLEVRER, 98b8420).

A program is a list of words in postfix order. A word that is no module is a value, such as `red` or `first`; a module
takes the values before it. Multiple choice: the program of a choice, followed by that of its question.

    run(["objects", "red", "filter_color", "count"], facts)      # "2"

Equal to stored answers of the official executor (tests).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from .facts import Event, Facts

ERROR = "error"
"""The answer of a program that asks for what is not there, such as the only one of two objects."""

MOVING = 0.1
"""Speed in pixels per frame above which an object moves."""

_POSITIONS = {"first": 0, "second": 1, "last": -1}


class _NoAnswer(Exception):
    """Ends a program whose answer is `ERROR`."""


def run(program: Sequence[str], facts: Facts) -> Any:
    """The value of a program: a text, or a list of objects or events where it ends with one.

    Raises ValueError for a program that takes more values than there are, or leaves more than one.
    """
    values: list[Any] = []
    try:
        for word in program:
            if word not in _MODULES:
                values.append(word)
                continue
            count, function = _MODULES[word]
            if len(values) < count:
                raise ValueError(f"'{word}' takes {count} values, {len(values)} are before it: {' '.join(program)}")
            values[len(values) - count :] = [function(facts, *values[len(values) - count :])]
    except _NoAnswer:
        return ERROR
    if len(values) != 1:
        raise ValueError(f"leaves {len(values)} values instead of one: {' '.join(program)}")
    return values[0]


def _filter_attribute(name: str) -> Callable[..., list[int]]:
    def keep(facts: Facts, objects: list[int], value: str) -> list[int]:
        return [number for number in objects if getattr(facts.things[number], name) == value]

    return keep


def _query_attribute(name: str) -> Callable[..., str]:
    return lambda facts, number: getattr(facts.things[number], name)


def _filter_events(kind: str) -> Callable[..., list[Event]]:
    def keep(facts: Facts, events: list[Event], objects: list[int] | int) -> list[Event]:
        wanted = {objects} if isinstance(objects, int) else set(objects)
        return [event for event in events if event.kind == kind and wanted & set(event.objects)]

    return keep


def _single_event(kind: str) -> Callable[..., Event]:
    return lambda facts, events: next(event for event in events if event.kind == kind)


def _unique(facts: Facts, values: list[Any]) -> Any:
    if len(values) != 1:
        raise _NoAnswer
    return values[0]


def _order(facts: Facts, events: list[Event], position: str) -> Event:
    try:
        return events[_POSITIONS[position]]
    except IndexError as error:
        raise _NoAnswer from error


def _partner(facts: Facts, event: Event, number: int) -> int:
    first, second = event.objects
    return second if number == first else first


def _belongs(facts: Facts, one: Event | int, events: list[Event]) -> str:
    """`yes` for an event that is among the events, or an object to which one of them happens."""
    if isinstance(one, Event):
        return _yes(any(one.is_like(event) for event in events))
    return _yes(any(one in event.objects for event in events))


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _velocity(facts: Facts, number: int, frame: int) -> tuple[list[float], list[float]] | None:
    """Steps down and to the right, per frame, to and from a frame; None where the object is not in view."""
    at = [facts.positions.get(frame + step, {}).get(number) for step in (-facts.step, 0, facts.step)]
    if at[1] is None:
        return None
    steps = [(a, b) for a, b in pairwise(at) if a is not None and b is not None]
    return [(b[0] - a[0]) / facts.step for a, b in steps], [(b[1] - a[1]) / facts.step for a, b in steps]


def _moves(facts: Facts, number: int, frame: int) -> bool | None:
    """Whether an object moves in a frame; None where it is not in view."""
    velocity = _velocity(facts, number, frame)
    if velocity is None:
        return None
    speeds = [(x * x + y * y) ** 0.5 for x, y in zip(*velocity, strict=True)]
    return bool(speeds) and sum(speeds) / len(speeds) > MOVING


def _filter_motion(wanted: bool) -> Callable[..., list[int]]:
    def keep(facts: Facts, objects: list[int], frame: int | str) -> list[int]:
        if frame != "null":
            return [number for number in objects if _moves(facts, number, int(frame)) is wanted]
        ever = [number for number in objects if any(_moves(facts, number, f) for f in facts.positions)]
        return ever if wanted else [number for number in objects if number not in ever]

    return keep


def _direction(facts: Facts, number: int, frame: int) -> str:
    velocity = _velocity(facts, number, frame)
    if velocity is None or not velocity[0]:
        raise _NoAnswer
    down, right = (sum(part) / len(part) for part in velocity)
    if abs(down) > abs(right):
        return "down" if down > 0 else "up"
    return "right" if right > 0 else "left"


def _side(facts: Facts, events: list[Event], event: Event, before: bool) -> list[Event]:
    """The events before, or after, the frame of an event; those of the same frame are neither."""
    compare = operator.lt if before else operator.gt
    at = event.frame
    return [one for one in events if one.frame is not None and at is not None and compare(one.frame, at)]


def _without(facts: Facts, events: list[Event], number: int) -> list[Event]:
    return [one for one in events if any(one.is_like(event) for event in facts.without.get(number, ()))]


_MODULES: dict[str, tuple[int, Callable[..., Any]]] = {
    "objects": (0, lambda facts: list(range(len(facts.things)))),
    "events": (0, lambda facts: list(facts.visible)),
    "all_events": (0, lambda facts: list(facts.possible())),
    "unseen_events": (0, lambda facts: list(facts.unseen)),
    "filter_color": (2, _filter_attribute("color")),
    "filter_material": (2, _filter_attribute("material")),
    "filter_shape": (2, _filter_attribute("shape")),
    "filter_moving": (2, _filter_motion(True)),
    "filter_stationary": (2, _filter_motion(False)),
    "filter_resting": (2, _filter_motion(False)),
    "filter_in": (2, _filter_events("in")),
    "filter_out": (2, _filter_events("out")),
    "filter_collision": (2, _filter_events("collision")),
    "filter_start": (1, _single_event("start")),
    "filter_end": (1, _single_event("end")),
    "filter_order": (2, _order),
    "filter_before": (2, lambda facts, events, event: _side(facts, events, event, True)),
    "filter_after": (2, lambda facts, events, event: _side(facts, events, event, False)),
    "filter_ancestor": (2, lambda facts, events, event: [one for one in facts.ancestors(event) if one in events]),
    "filter_counterfact": (2, _without),
    "counterfact_events": (1, lambda facts, number: list(facts.without.get(number, ()))),
    "unique": (1, _unique),
    "count": (1, lambda facts, values: str(len(values))),
    "exist": (1, lambda facts, values: _yes(bool(values))),
    "negate": (1, lambda facts, answer: _yes(answer == "no")),
    "belong_to": (2, _belongs),
    "query_color": (1, _query_attribute("color")),
    "query_material": (1, _query_attribute("material")),
    "query_shape": (1, _query_attribute("shape")),
    "query_frame": (1, lambda facts, event: event.frame),
    "query_object": (1, lambda facts, event: event.objects[0]),
    "query_collision_partner": (2, _partner),
    "query_direction": (2, _direction),
}
"""Word -> number of values that it takes, and its meaning."""

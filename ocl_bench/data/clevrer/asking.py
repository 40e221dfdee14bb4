"""Ask questions about a video in CLEVRER's words, with programs; the answers are those of the interpreter.

Options are balanced: half of the options of a type are right in expectation, and how many are right is as random as
the video allows. Otherwise a model that never looks at the video would score well: three quarters of the options of
naive questions are wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .facts import COLOURS, MATERIALS, SHAPES, Event, Facts
from .programs import ERROR, run
from .vocabulary import ANSWERS

DESCRIPTIVE = {"count": 2, "exist": 2, "query_color": 1, "query_material": 1, "query_shape": 1}
"""Number of descriptive questions of each subtype that are asked about a video."""

EXPLANATORY, COUNTERFACTUAL = 2, 2
"""Most questions of these types about one video."""

MOST_CHOICES = 4
_WAYS = (("shape",), ("color", "shape"), ("material", "shape"), ("color", "material", "shape"))
"""Attributes by which an object is named; the first ones that name only this object are taken."""

Asked = tuple[str, list[str]]
"""A text and its program."""


def ask(facts: Facts, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Questions about a video as entries of CLEVRER's `questions`, numbered from 0, descriptive ones first."""
    asked = [*_descriptive(facts, rng), *_explanatory(facts, rng), *_predictive(facts, rng)]
    asked += _counterfactual(facts, rng)
    return [{"question_id": number, **question} for number, question in enumerate(asked)]


def refer(facts: Facts, number: int) -> Asked:
    """The shortest name of an object, such as `red cube`, and the program that finds it."""
    thing = facts.things[number]
    for names in _WAYS:
        if sum(all(getattr(t, n) == getattr(thing, n) for n in names) for t in facts.things) == 1:
            break
    program = [word for name in names for word in (getattr(thing, name), f"filter_{name}")]
    return " ".join(getattr(thing, name) for name in names), ["objects", *program, "unique"]


def collision(facts: Facts, source: str, event: Event) -> list[str]:
    """The program that finds the collision of two objects among `events` or `all_events`."""
    first, second = (refer(facts, number)[1] for number in event.objects)
    return [source, *first, "filter_collision", *second, "filter_collision", "unique"]


# --- descriptive ------------------------------------------------------------------------------------------------------


def _descriptive(facts: Facts, rng: np.random.Generator) -> list[dict[str, Any]]:
    chosen = []
    for subtype, count in DESCRIPTIVE.items():
        by_answer: dict[str, list[Asked]] = {}
        for text, program in _candidates(facts, subtype):
            answer = run(program, facts)
            if answer != ERROR and answer in ANSWERS:
                by_answer.setdefault(answer, []).append((text, program))
        for _ in range(min(count, sum(map(len, by_answer.values())))):
            answer = sorted(by_answer)[int(rng.integers(len(by_answer)))]  # first the answer, so that none is frequent
            text, program = by_answer[answer].pop(int(rng.integers(len(by_answer[answer]))))
            by_answer = {key: value for key, value in by_answer.items() if value}
            entry = {"question": text, "question_type": "descriptive", "question_subtype": subtype}
            chosen.append({**entry, "program": program, "answer": answer})
    return chosen


def _candidates(facts: Facts, subtype: str) -> Iterable[Asked]:
    if subtype == "count":
        yield from _counts(facts)
    elif subtype == "exist":
        for plural, group in _groups():
            for state, when, at in _states():
                yield f"Are there any {state} {plural} when the video {when}?", [*group, *at, "exist"]
    else:
        yield from _queries(facts, subtype.removeprefix("query_"), subtype)


def _groups() -> Iterable[Asked]:
    """Groups of objects by one attribute, or all objects, in the plural."""
    yield "objects", ["objects"]
    for name, values in (("color", COLOURS), ("material", MATERIALS), ("shape", SHAPES)):
        for value in values:
            plural = f"{value}s" if name == "shape" else f"{value} objects"
            yield plural, ["objects", value, f"filter_{name}"]


def _states() -> Iterable[tuple[str, str, list[str]]]:
    for state in ("moving", "stationary"):
        for when, event in (("begins", "filter_start"), ("ends", "filter_end")):
            yield state, when, ["events", event, "query_frame", f"filter_{state}"]


def _counts(facts: Facts) -> Iterable[Asked]:
    for plural, group in _groups():
        yield f"How many {plural} enter the scene?", ["events", *group, "filter_in", "count"]
        for state, when, at in _states():
            yield f"How many {plural} are {state} when the video {when}?", [*group, *at, "count"]
    happen = ["events", "objects", "filter_collision"]
    yield "How many collisions happen?", [*happen, "count"]
    for number in range(len(facts.things)):
        name, finds = refer(facts, number)
        for verb, module in (("enters", "filter_in"), ("exits", "filter_out")):
            for side in ("before", "after"):
                text = f"How many collisions happen {side} the {name} {verb} the scene?"
                yield text, [*happen, "events", *finds, module, "unique", f"filter_{side}", "count"]


def _queries(facts: Facts, attribute: str, module: str) -> Iterable[Asked]:
    for order in ("first", "second", "last"):
        for verb, kind in (("enter", "filter_in"), ("exit", "filter_out")):
            text = f"What is the {attribute} of the {order} object to {verb} the scene?"
            yield text, ["events", "objects", kind, order, "filter_order", "query_object", module]
        for number in range(len(facts.things)):
            name, finds = refer(facts, number)
            hits = ["events", *finds, "filter_collision", order, "filter_order"]
            text = f"What is the {attribute} of the {order} object to collide with the {name}?"
            yield text, [*hits, *finds, "query_collision_partner", module]


# --- multiple choice --------------------------------------------------------------------------------------------------


def _balanced(
    facts: Facts, rng: np.random.Generator, options: Sequence[Asked], program: list[str], most: int
) -> list[dict[str, Any]]:
    """At most `most` of the options, as entries of `choices`; none when all options are right or all are wrong.

    The number of right ones is drawn from a range that is symmetric about one half of the options.
    """
    sides: dict[str, list[Asked]] = {"yes": [], "no": []}
    for text, finds in options:
        answer = run([*finds, *program], facts)
        if answer in sides:
            sides[answer].append((text, finds))
    enough = min(map(len, sides.values()))
    count = min(most, 2 * enough)
    if count < 2:
        return []
    right = int(rng.integers(count - min(enough, count), min(enough, count) + 1))
    drawn = [
        (option, answer)
        for answer, number in (("yes", right), ("no", count - right))
        for option in _draw(rng, sides[answer], number)
    ]
    return [
        {"choice_id": k, "choice": text, "program": finds, "answer": "correct" if answer == "yes" else "wrong"}
        for k, ((text, finds), answer) in enumerate(_draw(rng, drawn, len(drawn)))
    ]


def _draw(rng: np.random.Generator, values: Sequence[Any], count: int) -> list[Any]:
    return [values[int(k)] for k in rng.permutation(len(values))[:count]]


def _multiple(kind: str, text: str, program: list[str], choices: list[dict[str, Any]]) -> dict[str, Any]:
    entry = {"question": text, "question_type": kind, "question_subtype": kind}
    return {**entry, "program": program, "choices": choices}


def _will_collide(facts: Facts, events: Iterable[Event]) -> list[Asked]:
    """Collisions as choices of questions about what will happen."""
    names = [tuple(refer(facts, number)[0] for number in event.objects) for event in events]
    finds = [collision(facts, "all_events", event) for event in events]
    return [(f"The {a} and the {b} collide", program) for (a, b), program in zip(names, finds, strict=True)]


def _explanatory(facts: Facts, rng: np.random.Generator) -> list[dict[str, Any]]:
    asked = []
    events = [event for event in facts.visible if event.kind in ("collision", "out")]
    for event in _draw(rng, events, len(events)):
        names = [refer(facts, number) for number in event.objects]
        if event.kind == "collision":
            effect = f"the collision between the {names[0][0]} and the {names[1][0]}"
            finds = collision(facts, "events", event)
        else:
            effect, finds = f"the {names[0][0]}'s exiting the scene", ["events", *names[0][1], "filter_out", "unique"]
        options: list[Asked] = []
        for number in range(len(facts.things)):
            if number not in event.objects:  # those of the event itself are responsible without a look
                name, found = refer(facts, number)
                options.append((f"The presence of the {name}", found))
        for other in facts.visible:
            if other.kind == "collision" and other != event:
                a, b = (refer(facts, number)[0] for number in other.objects)
                found = collision(facts, "events", other)
                options.append((f"The collision between the {a} and the {b}", found))
        program = ["events", *finds, "filter_ancestor", "belong_to"]
        choices = _balanced(facts, rng, options, program, MOST_CHOICES)
        if choices:
            text = f"Which of the following is responsible for {effect}?"
            asked.append(_multiple("explanatory", text, program, choices))
    return asked[:EXPLANATORY]


def _predictive(facts: Facts, rng: np.random.Generator) -> list[dict[str, Any]]:
    seen = [event for event in facts.visible if event.kind == "collision"]
    open_pairs = [event for event in facts.possible() if not any(event.is_like(other) for other in seen)]
    program = ["unseen_events", "belong_to"]
    choices = _balanced(facts, rng, _will_collide(facts, open_pairs), program, 2)
    return [_multiple("predictive", "What will happen next?", program, choices)] if choices else []


def _counterfactual(facts: Facts, rng: np.random.Generator) -> list[dict[str, Any]]:
    asked = []
    collided = sorted({number for event in facts.visible if event.kind == "collision" for number in event.objects})
    for number in _draw(rng, collided, len(collided)):
        name, finds = refer(facts, number)
        negated = bool(rng.integers(2))
        program = ["all_events", *finds, "filter_counterfact", "belong_to", *(["negate"] if negated else [])]
        others = [event for event in facts.possible() if number not in event.objects]
        choices = _balanced(facts, rng, _will_collide(facts, others), program, MOST_CHOICES)
        if choices:
            text = f"If the {name} is removed, which event will{' not' if negated else ''} happen?"
            asked.append(_multiple("counterfactual", text, program, choices))
    return asked[:COUNTERFACTUAL]

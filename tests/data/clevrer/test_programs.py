"""The interpreter of CLEVRER's programs: every stored answer of NS-DR's executor (chuangg/CLEVRER, 98b8420)."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from places import PARITY

from ocl_bench.data.clevrer.facts import Event, Facts, Thing, entries_and_exits, order_events
from ocl_bench.data.clevrer.programs import run

WORLDS = json.loads(gzip.decompress((PARITY / "nsdr_executor.json.gz").read_bytes()))["worlds"]
VISIBLE, END = 128, 125


def facts_of(world: dict[str, Any]) -> Facts:
    """The facts of a stored world: events in frames 0 to 127 are visible, and the video ends with frame 125."""
    by_case = {entry["what_if"]: entry for entry in world["predictions"]}

    def collisions(case: int) -> list[Event]:
        return [Event("collision", (a, b), frame) for a, b, frame in by_case[case]["collisions"]]

    track = {frame: {n: (x, y) for n, x, y in objects} for frame, objects in by_case[-1]["trajectory"]}
    happens = [*entries_and_exits(list(track.items())), *collisions(-1)]
    visible = [event for event in happens if event.frame is not None and event.frame < VISIBLE]
    numbers = range(len(world["objects"]))
    return Facts(
        things=tuple(Thing(one["color"], one["material"], one["shape"]) for one in world["objects"]),
        positions=track,
        visible=order_events([Event("start", (), 0), Event("end", (), END), *visible]),
        unseen=tuple(event for event in happens if event not in visible),
        without={number: tuple(collisions(number)) for number in numbers},
    )


def plain(event: Event) -> dict[str, Any]:
    return {"type": event.kind, "frame": event.frame, "object": list(event.objects) or None}


def unwrapped(value: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Stored events; the official code puts the objects of unseen entries and exits into a second list."""
    flat = [{**one, "object": one["object"][0]} if isinstance(one["object"][0], list) else one for one in value]
    return sorted(flat, key=lambda one: str(sorted(one.items())))


@pytest.mark.parametrize("index", range(len(WORLDS)))
def test_answers_of_the_official_executor(index: int) -> None:
    world = WORLDS[index]
    facts = facts_of(world["world"])
    assert [plain(event) for event in facts.visible] == world["visible_events"]
    wrong = []
    for question in world["questions"]:
        value = run(question["program"], facts)
        expected = question.get("answer", question.get("value"))
        if isinstance(value, list):
            value, expected = unwrapped([plain(event) for event in value]), unwrapped(question["value"])
        if value != expected:
            wrong.append((question["kind"], " ".join(question["program"]), value, expected))
    assert wrong == []


def test_a_collision_has_the_events_before_it_as_its_causes() -> None:
    """Object 2 enters and hits 1; 1 then hits 0. Neither the third object nor what comes later is a cause."""
    enters, first, other = Event("in", (2,), 5), Event("collision", (1, 2), 20), Event("in", (3,), 25)
    second, later = Event("collision", (0, 1), 40), Event("collision", (0, 2), 60)
    reds = [Thing("red", "metal", shape) for shape in ("cube", "sphere", "cylinder")]
    things = (*reds, Thing("blue", "metal", "cube"))
    facts = Facts(things, {}, (enters, first, other, second, later))
    assert facts.ancestors(second) == (enters, first)
    assert facts.ancestors(enters) == ()
    blue_cube = ["objects", "blue", "filter_color", "unique"]
    cause = ["events", "events", "objects", "red", "filter_color", "cube", "filter_shape", "unique", "filter_collision"]
    ancestors = [*cause, "first", "filter_order", "filter_ancestor"]
    assert run([*blue_cube, *ancestors, "belong_to"], facts) == "no"
    assert run(["objects", "cylinder", "filter_shape", "unique", *ancestors, "belong_to"], facts) == "yes"


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (["count"], "'count' takes 1 values, 0 are before it: count"),
        (["objects", "red"], "leaves 2 values instead of one: objects red"),
        ([], "leaves 0 values"),
    ],
)
def test_programs_that_cannot_run(program: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(program, Facts((), {}, ()))

"""NS-DR's files of what happens in a video, and of what would happen without an object (chuangg/CLEVRER, 98b8420).

    propnet_preds/sim_10000.json    {objects: [{id, color, material, shape}], predictions: [{what_if, ..}]}

Each of the predictions has `what_if`, which is -1 for the video itself, or the id of the object that is left out,
`trajectory`: [{frame_index, objects: [{color, material, shape, x, y}]}], and `collisions`: [{frame, objects: [first,
second]}]. Frames go on after the end of the video. Official files are the predictions of a network; those of the
stand-in are exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ...core.errors import SampleError
from ...core.files import parse_json, read_text
from .facts import FRAME_STEP, Event, Facts, Thing, entries_and_exits, order_events

FOLDER = "propnet_preds"
OFFICIAL_FRAMES = 128
"""Frames of an official video; all of them are seen."""

_REMEDY = "download NS-DR's files again, or delete the file"


def simulation_name(number: int) -> str:
    """Place of the file of a video below CLEVRER's folder."""
    return f"{FOLDER}/sim_{number:05d}.json"


def read_facts(path: Path, name: str, seen: int) -> Facts:
    """Read what is true of a video.

    Args:
        path: of the file.
        name: of the video, for messages.
        seen: frames of the video; what happens later is unseen.

    Raises:
        SampleError: the file cannot be read or is no such file.
    """
    try:
        content = parse_json(read_text(path))
        things = tuple(_thing(entry) for entry in sorted(content["objects"], key=lambda entry: entry["id"]))
        by_case = {entry["what_if"]: entry for entry in content["predictions"]}
        ids = sorted(entry["id"] for entry in content["objects"])
        without = {k: _collisions(by_case[number], things) for k, number in enumerate(ids) if number in by_case}
        return _facts(things, by_case[-1], without, seen)
    except OSError as error:
        raise SampleError(name, f"{path}: cannot be read ({error.strerror}); {_REMEDY}") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise SampleError(name, f"{path}: is no simulation ({type(error).__name__}: {error}); {_REMEDY}") from error


def _facts(
    things: tuple[Thing, ...], happens: Mapping[str, Any], without: Mapping[int, tuple[Event, ...]], seen: int
) -> Facts:
    positions = {
        int(moment["frame_index"]): {
            things.index(_thing(entry)): (float(entry["x"]), float(entry["y"])) for entry in moment["objects"]
        }
        for moment in happens["trajectory"]
    }
    frames = sorted(positions)
    events = [*entries_and_exits([(frame, positions[frame]) for frame in frames]), *_collisions(happens, things)]
    visible = [event for event in events if event.frame is not None and event.frame < seen]
    last = max(frame for frame in frames if frame < seen)
    return Facts(
        things=things,
        positions=positions,
        visible=order_events([Event("start", (), frames[0]), Event("end", (), last), *visible]),
        unseen=order_events(event for event in events if event not in visible),
        without=without,
        step=next((after - before for before, after in pairwise(frames)), FRAME_STEP),
    )


def _collisions(case: Mapping[str, Any], things: Sequence[Thing]) -> tuple[Event, ...]:
    return tuple(
        Event("collision", tuple(things.index(_thing(one)) for one in entry["objects"]), int(entry["frame"]))
        for entry in case["collisions"]
    )


def _thing(entry: Mapping[str, Any]) -> Thing:
    return Thing(str(entry["color"]), str(entry["material"]), str(entry["shape"]))

"""CLEVRER's annotations: where each object of a video lies, what touches, and the timing of a stand-in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import SampleError, UsageError
from ...core.files import parse_json, read_text
from .facts import KINDS, Thing

_REMEDY = "extract or download the annotations again"
_TIMING = "stand-in.json"


def annotation_of(root: Path, frames: Path) -> Path:
    """The annotation of a video. frames: `videos/<split>/video_10000-11000/video_10000`, or its film with `.mp4`."""
    _, split, part, name = frames.parts
    stems = [text.replace("video_", "annotation_") for text in (part, Path(name).stem)]
    return root / "annotations" / split / stems[0] / f"{stems[1]}.json"


@dataclass(frozen=True)
class Annotation:
    """The annotation of a video of T frames with G objects.

    Attributes:
        locations: (T, G, 2) float64 on the ground; NaN for an object out of view.
        collisions: frame, and the positions of the two objects, the smaller one first.
        things: the objects.
    """

    locations: np.ndarray
    collisions: tuple[tuple[int, int, int], ...]
    things: tuple[Thing, ...]

    def touched(self, frame: int) -> frozenset[tuple[int, int]]:
        """The labels of each pair that has collided up to this frame; object k has label k + 1."""
        return frozenset((a + 1, b + 1) for at, a, b in self.collisions if at <= frame)


def read_annotation(path: Path, name: str, things: Sequence[Thing] | None, frames: int) -> Annotation:
    """Read an annotation.

    Args:
        path: of the annotation.
        name: of the video, for messages.
        things: the objects; None takes those of the annotation. One that the annotation does not know, as proposals of
            a network may be wrong, has no location. Collisions of objects that are not among them are left out.
        frames: of the video.

    Raises:
        SampleError: the annotation is broken, or has another number of frames.
    """
    try:
        content = parse_json(read_text(path))
        numbers = {_thing(entry): entry["object_id"] for entry in content["object_property"]}
        if things is None:
            things = sorted(numbers, key=KINDS.index)  # raises for one that CLEVRER does not have
        columns = {numbers[thing]: column for column, thing in enumerate(things) if thing in numbers}
        trajectory = content["motion_trajectory"]
        if sorted(moment["frame_id"] for moment in trajectory) != list(range(frames)):
            raise SampleError(name, f"{path}: has {len(trajectory)} frames, the video has {frames}; {_REMEDY}")
        locations = _locations(trajectory, columns, len(things))
        return Annotation(locations, _collisions(content["collision"], columns), tuple(things))
    except OSError as error:
        raise SampleError(name, f"{path}: cannot be read ({error.strerror}); {_REMEDY}") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise SampleError(name, f"{path}: is no annotation ({type(error).__name__}: {error}); {_REMEDY}") from error


def _locations(trajectory: Sequence[Any], columns: Mapping[int, int], count: int) -> np.ndarray:
    locations = np.full((len(trajectory), count, 2), np.nan)
    for moment in trajectory:
        for entry in moment["objects"]:
            column = columns.get(entry["object_id"])
            if column is not None and entry["inside_camera_view"]:
                locations[moment["frame_id"], column] = [float(value) for value in entry["location"][:2]]
    return locations


def _collisions(entries: Sequence[Any], columns: Mapping[int, int]) -> tuple[tuple[int, int, int], ...]:
    found = []
    for entry in entries:
        first, second = entry["object_ids"]
        if first in columns and second in columns:
            a, b = sorted((columns[first], columns[second]))
            found.append((int(entry["frame_id"]), a, b))
    return tuple(found)


def _thing(entry: Mapping[str, Any]) -> Thing:
    return Thing(str(entry["color"]), str(entry["material"]), str(entry["shape"]))


def read_timing(root: Path) -> dict[str, int]:
    """`seen_frames` and `stride` of a stand-in; empty for official videos. Raises UsageError for a broken file."""
    path = root / _TIMING
    if not path.is_file():
        return {}
    try:
        timing: dict[str, int] = parse_json(read_text(path))
        if any(type(timing[key]) is not int or timing[key] < 1 for key in ("seen_frames", "stride")):
            raise ValueError("seen_frames and stride must be numbers of frames from 1")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: is no timing of a stand-in ({type(error).__name__}: {error}); delete it") from error
    return timing

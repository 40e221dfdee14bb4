"""CLEVRER's annotations: where each object of a video lies, and the timing of a stand-in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import SampleError, UsageError
from ...core.files import parse_json, read_text
from .facts import Thing

_REMEDY = "extract or download the annotations again"
_TIMING = "stand-in.json"


def annotation_of(root: Path, frames: Path) -> Path:
    """The annotation of the video whose frames are in `frames`, `videos/<split>/video_10000-11000/video_10000`."""
    _, split, part, name = frames.parts
    stems = [text.replace("video_", "annotation_") for text in (part, name)]
    return root / "annotations" / split / stems[0] / f"{stems[1]}.json"


def read_locations(path: Path, name: str, things: Sequence[Thing], frames: int) -> np.ndarray:
    """Where objects lie on the ground.

    Args:
        path: of the annotation.
        name: of the video, for messages.
        things: the objects. One that the annotation does not know, as proposals of a network may be wrong, has no
            location.
        frames: of the video.

    Returns:
        (frames, len(things), 2) float64; NaN for an object out of view.

    Raises:
        SampleError: the annotation is broken, or has another number of frames.
    """
    try:
        content = parse_json(read_text(path))
        numbers = {_thing(entry): entry["object_id"] for entry in content["object_property"]}
        columns = {numbers[thing]: column for column, thing in enumerate(things) if thing in numbers}
        trajectory = content["motion_trajectory"]
        if sorted(moment["frame_id"] for moment in trajectory) != list(range(frames)):
            raise SampleError(name, f"{path}: has {len(trajectory)} frames, the video has {frames}; {_REMEDY}")
        locations = np.full((frames, len(things), 2), np.nan)
        for moment in trajectory:
            for entry in moment["objects"]:
                column = columns.get(entry["object_id"])
                if column is not None and entry["inside_camera_view"]:
                    locations[moment["frame_id"], column] = [float(value) for value in entry["location"][:2]]
    except OSError as error:
        raise SampleError(name, f"{path}: cannot be read ({error.strerror}); {_REMEDY}") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise SampleError(name, f"{path}: is no annotation ({type(error).__name__}: {error}); {_REMEDY}") from error
    return locations


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

"""Write rendered collisions as a CLEVRER tree, with frames as pictures.

CLEVRER/videos/<split>/video_10000-11000/video_10000/000000.png
CLEVRER/annotations/<split>/annotation_10000-11000/annotation_10000.json
CLEVRER/derender_proposals/proposal_10000.json      exact masks in the form of NS-DR's proposals
CLEVRER/propnet_preds/sim_10000.json                what happens, and would happen without an object, in NS-DR's form
CLEVRER/questions/<split>.json
CLEVRER/stand-in.json                               what differs from the official videos of 128 frames
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from ..clevrer.asking import ask
from ..clevrer.facts import ROWS, Event, Facts, Thing, entries_and_exits, order_events
from ..clevrer.simulations import simulation_name
from ..scenes.collision_videos import RenderedCollisions
from ..scenes.collisions import SEEN, CollisionWorld, Run, in_picture, in_view, simulate, visible_contacts

FIRST = {"train": 0, "val": 10_000}
"""Number of the first video of each official split."""

_FOLDER = 1000
"""Videos in one folder."""


def write(folder: Path, split: str, videos: Iterable[RenderedCollisions], first: int) -> None:
    """Write the split `train` or `val`; video k has CLEVRER's number of the k-th video of the split."""
    del first  # official numbers begin at 0 and 10000
    root = folder / "CLEVRER"
    asked = []
    for place, video in enumerate(videos):
        number = FIRST[split] + place
        stem = f"{number:05d}"
        run = simulate(video.world)
        part = f"{number // _FOLDER * _FOLDER:05d}-{(number // _FOLDER + 1) * _FOLDER:05d}"
        frames = root / "videos" / split / f"video_{part}" / f"video_{stem}"
        frames.mkdir(parents=True)
        for position, frame in enumerate(video.frames):
            Image.fromarray(frame).save(frames / f"{position:06d}.png", compress_level=1)
        _dump(
            root / "annotations" / split / f"annotation_{part}" / f"annotation_{stem}.json",
            annotation(number, video, run),
        )
        _dump(root / "derender_proposals" / f"proposal_{stem}.json", proposals(number, video))
        _dump(root / simulation_name(number), simulations(video.world, run))
        questions = questions_about(video.world, run)
        asked.append({"scene_index": number, "video_filename": f"video_{stem}.mp4", "questions": questions})
    _dump(root / "questions" / f"{split}.json", asked)
    _dump(root / "stand-in.json", {"seen_frames": SEEN, "stride": 1})


def questions_about(world: CollisionWorld, run: Run) -> list[dict[str, Any]]:
    """The questions about a video, as entries of CLEVRER's `questions`: a pure function of how the world begins."""
    key = hashlib.blake2b(world.position.tobytes() + world.velocity.tobytes(), digest_size=16).digest()
    return ask(facts_of(world, run), np.random.Generator(np.random.PCG64(int.from_bytes(key, "little"))))


def facts_of(world: CollisionWorld, run: Run) -> Facts:
    """What is true of a video whose first `SEEN` frames are seen."""
    count = range(len(world.bodies))
    view = in_view(world, run.position)
    place = in_picture(world, run.position) * ROWS
    shown = [(frame, [k for k in count if view[frame, k]]) for frame in range(len(view))]

    def collisions(of: Run) -> list[Event]:
        return [Event("collision", (a, b), frame) for frame, a, b in visible_contacts(world, of)]

    happens = [*entries_and_exits(shown), *collisions(run)]
    seen = [event for event in happens if event.frame is not None and event.frame < SEEN]
    return Facts(
        things=tuple(body.thing for body in world.bodies),
        positions={
            frame: {k: (float(place[frame, k, 0]), float(place[frame, k, 1])) for k in objects}
            for frame, objects in shown[:SEEN]
        },
        visible=order_events([Event("start", (), 0), Event("end", (), SEEN - 1), *seen]),
        unseen=order_events(event for event in happens if event not in seen),
        without={k: tuple(collisions(simulate(world, without=k))) for k in count},
        step=1,
    )


def annotation(number: int, video: RenderedCollisions, run: Run) -> dict[str, Any]:
    """The annotation of a video in CLEVRER's fields. Bodies do not turn: their angular velocity is 0."""
    bodies, view = video.world.bodies, in_view(video.world, run.position)
    frames = [
        {
            "frame_id": frame,
            "objects": [
                {
                    "object_id": k,
                    "location": [*_rounded(run.position[frame, k]), 0.0],
                    "orientation": [0.0, 0.0, round(body.yaw, 5)],
                    "velocity": [*_rounded(run.velocity[frame, k]), 0.0],
                    "angular_velocity": [0.0, 0.0, 0.0],
                    "inside_camera_view": bool(view[frame, k]),
                }
                for k, body in enumerate(bodies)
            ],
        }
        for frame in range(len(view))
    ]
    hits = [
        {
            "object_ids": [a, b],
            "frame_id": frame,
            "location": [*_rounded(run.position[frame, [a, b]].mean(axis=0)), 0.0],
        }
        for frame, a, b in visible_contacts(video.world, run)
    ]
    return {
        "scene_index": number,
        "video_filename": f"video_{number:05d}.mp4",
        "object_property": [{"object_id": k, **_kind(body.thing)} for k, body in enumerate(bodies)],
        "motion_trajectory": frames,
        "collision": hits,
    }


def proposals(number: int, video: RenderedCollisions) -> dict[str, Any]:
    """The masks of all frames in the fields of NS-DR's proposals; an object without a pixel has none."""
    frames = []
    for position, objects in enumerate(video.objects):
        entries = []
        for k in range(len(video.world.bodies)):
            if (objects == k + 1).any():
                code = rle.encode(np.asfortranarray(objects == k + 1))
                mask = {"size": list(code["size"]), "counts": code["counts"].decode("ascii")}
                entries.append({**_kind(video.world.bodies[k].thing), "score": 1.0, "mask": mask})
        frames.append(
            {"frame_filename": f"video_{number:05d}_{position:06d}.png", "frame_index": position, "objects": entries}
        )
    return {"video_name": f"video_{number:05d}", "frames": frames}


def simulations(world: CollisionWorld, run: Run) -> dict[str, Any]:
    """What happens in a video, and the collisions of the video without each object, in NS-DR's fields."""
    kinds = [_kind(body.thing) for body in world.bodies]
    view, place = in_view(world, run.position), in_picture(world, run.position) * ROWS
    trajectory = [
        {
            "frame_index": frame,
            "objects": [
                {**kind, "x": float(place[frame, k, 0]), "y": float(place[frame, k, 1])}
                for k, kind in enumerate(kinds)
                if view[frame, k]
            ],
        }
        for frame in range(len(view))
    ]

    def case(what_if: int, of: Run, moments: list[dict[str, Any]]) -> dict[str, Any]:
        hits = [{"frame": frame, "objects": [kinds[a], kinds[b]]} for frame, a, b in visible_contacts(world, of)]
        return {"what_if": what_if, "trajectory": moments, "collisions": hits}

    others = [case(k, simulate(world, without=k), []) for k in range(len(kinds))]
    objects = [{"id": k, **kind} for k, kind in enumerate(kinds)]
    return {"objects": objects, "predictions": [case(-1, run, trajectory), *others]}


def _kind(thing: Thing) -> dict[str, str]:
    return {"color": thing.color, "material": thing.material, "shape": thing.shape}


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 5) for value in values]


def _dump(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")

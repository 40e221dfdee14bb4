"""Draw the content of a video: objects that stand, or move and turn, on the ground, seen by a moving camera.

    scenes = sample_video(revision=1, split="test", index=0)    # 24 scenes with the same objects in the same order

Video i is a pure function of (revision, split, seed, i). Shapes and materials are those of the variant `full`. Each
object plays a part: one leaves the picture and comes back, one passes in front of or behind another, one stands, the
others stand or move. Of many random paths one is taken on which no two footprints meet, in any frame or halfway between
two frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from .materials import N_FULL
from .sampler import (
    HALF_VIEW,
    REVISIONS,
    SIZES,
    SPLITS,
    Scene,
    SceneObject,
    draw_light,
    draw_pose,
    draw_surface,
    scene_rng,
)
from .shapes import FULL_SHAPES, SHAPE_NAMES

FRAMES = 24
MIN_OBJECTS, MAX_OBJECTS = 3, 8

Part = Literal["returning", "crossing", "moving", "standing"]

_TIMES = np.arange(2 * FRAMES - 1) / 2
"""Moments, in units of frames, at which footprints are compared: entries with even index are frames."""

_SHARES = {"returning": 0.9, "crossing": 0.95, "standing": 0.4}
"""Share of videos with an object that leaves and comes back, share of videos with one that passes in front of or behind
another, and share of the remaining objects that stand. The moving camera causes more of the first two."""

_TRIES = 400
"""Number of random paths for each object."""

_LEAST_SEEN = 8
"""Least number of frames in which the centre of an object must be in the picture."""


@dataclass(frozen=True)
class Camera:
    """A camera over M moments. position: (M, 3). axes: (M, 3, 3) right, up, forward."""

    position: np.ndarray
    axes: np.ndarray

    def look_at(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Project points (..., M, 3) into the picture: places (..., M, 2) from (-1, -1) to (1, 1), depth (..., M)."""
        seen = np.einsum("mij,...mj->...mi", self.axes, points - self.position)
        depth = seen[..., 2]
        return seen[..., :2] / (HALF_VIEW * depth[..., None]), depth


@dataclass(frozen=True)
class Mover:
    """An object and its path: centre (M, 3) and yaw (M,) at the moments of `_TIMES`."""

    thing: SceneObject
    centre: np.ndarray
    yaw: np.ndarray


def sample_video(revision: int, split: str, index: int, seed: int = 0) -> tuple[Scene, ...]:
    """Draw video `index`, one scene a frame. Raises ValueError for an unknown split or revision."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split}; there are {SPLITS}")
    if revision not in REVISIONS["motion"]:
        raise ValueError(
            f"variant motion is at revision {REVISIONS['motion'][-1]}, {revision} cannot be rendered any more"
        )
    rng = scene_rng("motion", revision, split, seed, index)
    camera = _move_camera(rng)
    light = draw_light(rng)
    ground = draw_surface(rng, int(rng.integers(N_FULL)), scale=0.6)
    movers: list[Mover] = []
    for part in _draw_parts(rng):
        placed = _place(rng, part, camera, movers)
        if placed is not None:
            movers.append(placed)
    # Shuffled: otherwise the number of an object would tell its part.
    order = rng.permutation(len(movers))
    return tuple(
        Scene(
            camera.position[moment],
            camera.axes[moment],
            light,
            [ground],
            [
                replace(movers[k].thing, centre=movers[k].centre[moment], yaw=float(movers[k].yaw[moment]))
                for k in order
            ],
        )
        for moment in range(0, len(_TIMES), 2)
    )


def _move_camera(rng: np.random.Generator) -> Camera:
    """A camera that swings around, up and down, to and fro, and whose aim wanders over the ground."""

    def swing(centre: float, least: float, most: float) -> np.ndarray:
        rate, phase = rng.uniform(2.0, 4.5), rng.uniform(0, 2 * math.pi)
        return centre + rng.uniform(least, most) * np.sin(rate * _TIMES / FRAMES + phase)

    distance = swing(rng.uniform(10.2, 11.5), 0.2, 0.8)
    elevation = swing(math.radians(rng.uniform(29, 38)), 0.01, 0.05)
    azimuth = swing(rng.uniform(-0.35, 0.35), 0.1, 0.3)
    target = np.stack([swing(0.0, 0.3, 1.1), swing(0.0, 0.2, 0.8), np.full(len(_TIMES), 0.35)], axis=1)
    flat = np.cos(elevation)
    outward = np.stack([flat * np.sin(azimuth), -flat * np.cos(azimuth), np.sin(elevation)], axis=1)
    right = np.cross(-outward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    axes = np.stack([right, np.cross(right, -outward), -outward], axis=1)
    return Camera(target + distance[:, None] * outward, axes)


def _draw_parts(rng: np.random.Generator) -> list[Part]:
    """The part of each object; a standing one comes first, so that there is one to pass by."""
    count = int(rng.integers(MIN_OBJECTS, MAX_OBJECTS + 1))
    parts: list[Part] = ["standing"]
    if rng.uniform() < _SHARES["returning"]:
        parts.append("returning")
    if rng.uniform() < _SHARES["crossing"]:
        parts.append("crossing")
    while len(parts) < count:
        parts.append("standing" if rng.uniform() < _SHARES["standing"] else "moving")
    return parts


def footprint(shape: int, half: np.ndarray) -> float:
    """Radius of a circle on the ground that contains an object of this shape at every yaw."""
    return float(math.hypot(half[0], half[1]) if SHAPE_NAMES[shape] == "cube" else max(half[0], half[1]))


def _place(rng: np.random.Generator, part: Part, camera: Camera, movers: list[Mover]) -> Mover | None:
    """An object on the first random path that suits its part, else on the first free path; None without a free path."""
    shape = SHAPE_NAMES.index(FULL_SHAPES[int(rng.integers(len(FULL_SHAPES)))])
    size, half, yaw = draw_pose(rng)
    surface = draw_surface(rng, int(rng.integers(N_FULL)), scale=1 / math.sqrt(SIZES[size]))
    radius = footprint(shape, half)
    paths = _draw_paths(rng, part, camera, movers, radius)
    centres = np.concatenate([paths, np.full((*paths.shape[:2], 1), half[2])], axis=2)
    spin = 0.0 if part == "standing" else rng.choice((-1, 1)) * rng.uniform(0.02, 0.12)
    free = np.ones(_TRIES, dtype=bool)
    for other in movers:
        apart = np.linalg.norm(paths - other.centre[:, :2], axis=2)
        free &= (apart > radius + footprint(other.thing.shape, other.thing.half) + 0.05).all(axis=1)
    picture, depth = camera.look_at(centres)
    inside = (np.abs(picture).max(axis=2) < 0.95)[:, ::2]  # frames only, without the moments between them
    free &= inside.sum(axis=1) >= _LEAST_SEEN
    wanted = free.copy()
    if part == "returning":
        # The whole object must be outside, not only its centre: its reach in the picture is added to the border.
        reach = np.linalg.norm(half) / (HALF_VIEW * depth)
        wanted &= _returns(inside, (np.abs(picture).max(axis=2) > 1 + reach)[:, ::2])
    elif part == "crossing":
        wanted &= _crosses(picture, depth, radius, camera, movers, inside)
    chosen = np.flatnonzero(wanted if wanted.any() else free)
    if not len(chosen):
        return None
    return Mover(SceneObject(shape, size, np.zeros(3), half, yaw, surface), centres[chosen[0]], yaw + spin * _TIMES)


def _draw_paths(rng: np.random.Generator, part: Part, camera: Camera, movers: list[Mover], radius: float) -> np.ndarray:
    """Random paths (N, M, 2) over the ground: pieces of ellipses, each of them in the picture at some moment."""
    moment = rng.integers(0, len(_TIMES), _TRIES)
    if part == "crossing":
        point = _beside(rng, camera, movers, moment, radius)
    else:
        aim = rng.uniform(-0.85, 0.85, (_TRIES, 2))
        if part == "returning":  # near the border of the picture, which it has to cross
            aim *= rng.uniform(0.6, 0.95, (_TRIES, 1)) / np.abs(aim).max(axis=1, keepdims=True)
        aim[:, 1] = aim[:, 1].clip(max=0.6)  # objects that are farther away are tiny
        axes, position = camera.axes[moment], camera.position[moment]
        direction = axes[:, 2] + HALF_VIEW * (aim[:, :1] * axes[:, 0] + aim[:, 1:] * axes[:, 1])
        point = (position - direction * (position[:, 2:] / direction[:, 2:]))[:, :2]
    if part == "standing":
        return np.repeat(point[:, None], len(_TIMES), axis=1)
    fast = part == "returning"
    rate = rng.uniform(*((0.2, 0.42) if fast else (0.1, 0.34)), _TRIES)
    speed = rng.uniform(*((0.25, 0.65) if fast else (0.15, 0.55)), _TRIES)
    turn, phase = rng.uniform(0, 2 * math.pi, (2, _TRIES))
    slim = rng.uniform(0.1, 1.0, _TRIES) * rng.choice((-1, 1), _TRIES)
    angle = rate[:, None] * _TIMES + phase[:, None]
    along = np.stack([np.cos(turn), np.sin(turn)], axis=1)[:, None]
    across = np.stack([-np.sin(turn), np.cos(turn)], axis=1)[:, None]
    ellipse = np.cos(angle)[..., None] * along + (slim[:, None] * np.sin(angle))[..., None] * across
    ellipse *= (speed / rate)[:, None, None]
    return point[:, None] + ellipse - ellipse[np.arange(_TRIES), moment][:, None]


def _beside(
    rng: np.random.Generator, camera: Camera, movers: list[Mover], moment: np.ndarray, radius: float
) -> np.ndarray:
    """Points (N, 2) just in front of or behind another object, as the camera sees it at a moment (N,)."""
    others = [movers[k] for k in rng.integers(0, len(movers), len(moment))]
    where = np.stack([other.centre[m, :2] for other, m in zip(others, moment, strict=True)])
    reach = np.array([footprint(other.thing.shape, other.thing.half) for other in others])
    away = where - camera.position[moment, :2]
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    side = rng.uniform(-0.3, 0.3, (len(moment), 1)) * np.stack([-away[:, 1], away[:, 0]], axis=1)
    gap = (reach + radius + rng.uniform(0.06, 0.5, len(moment))) * rng.choice((-1, 1), len(moment))
    return where + gap[:, None] * away + side


def _returns(inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """(N,) bool: whether an object is in the picture for two frames, later outside for two, and later inside for two.

    inside: (N, T) bool, its centre is in the picture. outside: (N, T) bool, all of it is outside.
    """
    pairs = [flags[:, 1:] & flags[:, :-1] for flags in (inside, outside)]
    before = np.logical_or.accumulate(pairs[0], axis=1)
    after = np.logical_or.accumulate(pairs[0][:, ::-1], axis=1)[:, ::-1]
    return (before & pairs[1] & after).any(axis=1)


def _crosses(
    picture: np.ndarray, depth: np.ndarray, radius: float, camera: Camera, movers: list[Mover], inside: np.ndarray
) -> np.ndarray:
    """(N,) bool: whether, for two frames, this object covers about two fifths of another one, or the other way round.

    Objects are taken as discs: two fifths are covered when the nearer disc reaches the centre of the farther one.
    """
    result = np.zeros(len(picture), dtype=bool)
    for other in movers:
        there, far = camera.look_at(other.centre)
        apart = np.linalg.norm(picture - there, axis=2)
        front = np.where(depth < far, radius / depth, footprint(other.thing.shape, other.thing.half) / far) / HALF_VIEW
        seen = inside & (np.abs(there).max(axis=1) < 0.95)[::2]
        result |= ((apart < front)[:, ::2] & seen).sum(axis=1) >= 2
    return result

"""Solids that slide on a plane and collide, as in CLEVRER (Yi et al., ICLR 2020, arXiv:1910.01442).

    world = sample_world(revision=1, split="test", index=0)
    run = simulate(world)                    # what happens
    other = simulate(world, without=2)       # what would happen without object 2

World i is a pure function of (revision, split, seed, i). Bodies are discs that do not turn: circles around the
footprints of the solids. A counterfactual is exact, because it is the same simulation without one body.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ..clevrer.facts import COLOURS, MATERIALS, SHAPES, Thing
from .sampler import HALF_VIEW, REVISIONS, SPLITS, scene_rng

FRAMES = 56
"""Length of a video."""
SEEN = 32
"""Frames before the cut; questions about the future ask what happens after them."""
RATE = 12.5
"""Frames per second: each is every second frame of CLEVRER's 25."""

RESTITUTION, FRICTION = 0.85, 0.25
"""Share of the speed that is left after a collision; loss of speed in units per second squared."""
MASSES = {"metal": 2.0, "rubber": 1.0}
HALF = {"cube": 0.54, "sphere": 0.66, "cylinder": 0.6}
"""Half of the side, or radius."""

MIN_OBJECTS, MAX_OBJECTS = 3, 6
_SUBSTEPS = 4
_LONG = 2 * FRAMES
"""Frames of a trial; a world is a part of it."""
_TRIALS = 400
_LEAST_SEEN = 4
"""Frames before the cut in which each object must be in the picture."""


@dataclass(frozen=True)
class Body:
    """A solid: what it is, and its yaw in radians, which never changes."""

    thing: Thing
    yaw: float

    @property
    def radius(self) -> float:
        """Radius of the disc."""
        half = HALF[self.thing.shape]
        return half * math.sqrt(2) if self.thing.shape == "cube" else half


@dataclass(frozen=True)
class CollisionWorld:
    """The first moment of a video. position: (N, 2) on the plane. velocity: (N, 2) in units per second."""

    bodies: tuple[Body, ...]
    position: np.ndarray
    velocity: np.ndarray


@dataclass(frozen=True)
class Run:
    """What happens in T frames.

    Attributes:
        position: (T, N, 2) on the plane; NaN for a body that was left out.
        velocity: (T, N, 2) in units per second.
        contacts: frame and the two bodies of each first contact of a pair, in order of time.
    """

    position: np.ndarray
    velocity: np.ndarray
    contacts: tuple[tuple[int, int, int], ...]


def simulate(world: CollisionWorld, frames: int = FRAMES, without: int | None = None) -> Run:
    """Simulate a world, with or without one of its bodies."""
    count = len(world.bodies)
    present = [k for k in range(count) if k != without]
    position, velocity = world.position[present].copy(), world.velocity[present].copy()
    radius = np.array([world.bodies[k].radius for k in present])
    mass = np.array([MASSES[world.bodies[k].thing.material] for k in present])
    pairs = list(combinations(range(len(present)), 2))
    first, second = (np.array([pair[side] for pair in pairs], dtype=int) for side in (0, 1))
    reach2 = (radius[first] + radius[second]) ** 2
    step = 1 / (RATE * _SUBSTEPS)
    places, speeds = np.full((2, frames, count, 2), np.nan)
    met: dict[tuple[int, int], int] = {}
    for frame in range(frames):
        places[frame, present], speeds[frame, present] = position, velocity
        for _ in range(_SUBSTEPS):
            position += velocity * step
            speed = np.sqrt((velocity * velocity).sum(axis=1))
            velocity *= (np.maximum(speed - FRICTION * step, 0) / np.maximum(speed, 1e-12))[:, None]
            apart = position[first] - position[second]
            for pair in np.flatnonzero((apart * apart).sum(axis=1) < reach2):
                a, b = pairs[pair]
                if _bounce(position, velocity, mass, a, b):
                    met.setdefault((present[a], present[b]), frame + 1)
    contacts = ((frame, a, b) for (a, b), frame in met.items() if frame < frames)
    return Run(places, speeds, tuple(sorted(contacts)))


def _bounce(position: np.ndarray, velocity: np.ndarray, mass: np.ndarray, a: int, b: int) -> bool:
    """Change the velocities of two bodies that touch, in place; False if they move apart already."""
    normal = position[a] - position[b]
    normal /= max(float(np.sqrt((normal * normal).sum())), 1e-12)
    closing = float(((velocity[a] - velocity[b]) * normal).sum())
    if closing >= 0:
        return False
    impulse = -(1 + RESTITUTION) * closing / (1 / mass[a] + 1 / mass[b])
    velocity[a] += impulse / mass[a] * normal
    velocity[b] -= impulse / mass[b] * normal
    return True


def fixed_camera() -> tuple[np.ndarray, np.ndarray]:
    """Position (3,) and axes (3, 3) right, up, forward of the camera of all videos."""
    distance, elevation = 11.0, math.radians(40)
    outward = np.array([0.0, -math.cos(elevation), math.sin(elevation)])
    right = np.array([1.0, 0.0, 0.0])
    target = np.array([0.0, 0.3, 0.3])
    return target + distance * outward, np.stack([right, np.cross(right, -outward), -outward])


def in_picture(world: CollisionWorld, position: np.ndarray) -> np.ndarray:
    """Row and column (..., N, 2), from 0 to 1 inside of the picture, of the centres of bodies at (..., N, 2)."""
    camera, axes = fixed_camera()
    height = np.array([HALF[body.thing.shape] for body in world.bodies])
    points = np.concatenate([position, np.broadcast_to(height, position.shape[:-1])[..., None]], axis=-1)
    seen = (points - camera) @ axes.T
    flat = seen[..., :2] / (HALF_VIEW * seen[..., 2:])
    return np.stack([(1 - flat[..., 1]) / 2, (1 + flat[..., 0]) / 2], axis=-1)


def in_view(world: CollisionWorld, position: np.ndarray) -> np.ndarray:
    """(..., N) bool: whether the centre of a body is in the picture."""
    place = in_picture(world, position)
    return np.asarray(((place > 0) & (place < 1)).all(axis=-1))  # NaN is not in view


def visible_contacts(world: CollisionWorld, run: Run) -> tuple[tuple[int, int, int], ...]:
    """The contacts of bodies that are both in view."""
    view = in_view(world, run.position)
    return tuple((frame, a, b) for frame, a, b in run.contacts if view[frame, a] and view[frame, b])


def sample_world(revision: int, split: str, index: int, seed: int = 0) -> CollisionWorld:
    """Draw world `index`; in worlds of odd index something collides after the cut, in all others nothing does.

    Raises ValueError for an unknown split or revision.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split}; there are {SPLITS}")
    if revision not in REVISIONS["collisions"]:
        raise ValueError(f"variant collisions is at revision {REVISIONS['collisions'][-1]}, not {revision}")
    rng = scene_rng("collisions", revision, split, seed, index)
    for _ in range(_TRIALS):
        world = _draw(rng)
        found = _window(rng, world, future=index % 2 == 1)
        if found is not None:
            return found
    raise ValueError(f"collisions {split} {index}, seed {seed}: no such world in {_TRIALS} trials")


def _draw(rng: np.random.Generator) -> CollisionWorld:
    """A random first moment of a trial: bodies in the picture that rest or move, and bodies that will enter it."""
    count = int(rng.integers(MIN_OBJECTS, MAX_OBJECTS + 1))
    kinds = [Thing(c, m, s) for c in COLOURS for m in MATERIALS for s in SHAPES]
    bodies = tuple(
        Body(kinds[int(k)], float(rng.uniform(0, 2 * math.pi))) for k in rng.choice(len(kinds), count, replace=False)
    )
    entering = int(rng.integers(1, count))
    position, velocity = np.zeros((2, count, 2))
    for k in range(count):
        if k < count - entering:
            position[k] = _free_place(rng, bodies, position, k)
            if rng.uniform() < 0.4:
                velocity[k] = _towards(rng, position[k], rng.uniform(-1.5, 1.5, 2), 0.6, 1.8)
            continue
        side, away = rng.uniform(0, 2 * math.pi), rng.uniform(6.5, 11.0)
        position[k] = away * np.array([math.cos(side), 0.8 * math.sin(side)])
        target = position[int(rng.integers(0, k))] if k else np.zeros(2)
        velocity[k] = _towards(rng, position[k], target + rng.uniform(-0.4, 0.4, 2), 2.0, 3.6)
    order = rng.permutation(count)  # otherwise the number of an object would tell its part
    return CollisionWorld(tuple(bodies[k] for k in order), position[order], velocity[order])


def _free_place(rng: np.random.Generator, bodies: tuple[Body, ...], position: np.ndarray, k: int) -> np.ndarray:
    """A place near the middle of the picture where body k touches none of the bodies before it."""
    while True:
        place = rng.uniform((-2.8, -2.4), (2.8, 3.0))
        apart = np.sqrt(((position[:k] - place) ** 2).sum(axis=1))
        if all(d > bodies[j].radius + bodies[k].radius + 0.1 for j, d in enumerate(apart)):
            return place


def _towards(rng: np.random.Generator, start: np.ndarray, aim: np.ndarray, least: float, most: float) -> np.ndarray:
    """A velocity (2,) from a place to another one with a random speed."""
    way = aim - start
    return way / max(float(np.sqrt((way * way).sum())), 1e-6) * rng.uniform(least, most)


def _window(rng: np.random.Generator, world: CollisionWorld, future: bool) -> CollisionWorld | None:
    """The moment of a trial with which a video shall begin; None when no part of it is as wanted."""
    run = simulate(world, _LONG)
    view = in_view(world, run.position)
    starts = []
    for start in range(0, _LONG - FRAMES + 1, 2):
        inside = view[start : start + SEEN]
        if (inside.sum(axis=0) < _LEAST_SEEN).any() or not _clear(world, run.position[start]):
            continue
        contacts = [f - start for f, a, b in run.contacts if view[f, a] and view[f, b] and start < f < start + FRAMES]
        before, after = (sum(f < SEEN for f in contacts), [f for f in contacts if f >= SEEN])
        again = any(f <= start for f, _, _ in run.contacts)  # a pair that met before would meet for the first time
        if before and not again and bool(after) == future and min(after, default=FRAMES) >= SEEN + 2:
            starts.append(start)
    if not starts:
        return None
    start = starts[int(rng.integers(len(starts)))]
    return CollisionWorld(world.bodies, run.position[start].copy(), run.velocity[start].copy())


def _clear(world: CollisionWorld, position: np.ndarray) -> bool:
    """Whether no two bodies overlap."""
    return all(
        float(np.sqrt(((position[a] - position[b]) ** 2).sum())) > world.bodies[a].radius + world.bodies[b].radius
        for a, b in combinations(range(len(position)), 2)
    )

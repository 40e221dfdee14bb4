"""Rendered collisions in which a red and a yellow body touch after the cut, or do not (the question of Physion).

<cache>/scenes/contacts-r1/<split>[-seed<N>]/00000.npz     one video each

Something collides after the cut in every video, and only whether it is these two bodies differs. Colours of the worlds
of `collisions` are changed for it; nothing else is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from .collision_videos import CollisionStore
from .collisions import SEEN, CollisionWorld, in_view, sample_world, simulate, visible_contacts
from .store import serve

AGENT, PATIENT = "red", "yellow"
_OTHERS = {AGENT: "blue", PATIENT: "green"}
"""What bodies that are neither get in place of the two colours."""

HORIZON = 20
"""Frames after the cut in which the two touch; a readout sees no more of the future."""


@dataclass(frozen=True)
class ContactStore(CollisionStore):
    """Videos with a red and a yellow body, each in a file of its own."""

    variant: str = "contacts"

    def world(self, index: int) -> CollisionWorld:
        """The world of a video."""
        return contact_world(self.revision, self.split, index, self.seed)


def contact_world(revision: int, split: str, index: int, seed: int = 0) -> CollisionWorld:
    """World `index`: the red and the yellow body touch if the index is odd.

    It is the first world of `collisions` from `2 index + 1` on, in steps of 2, that has such a pair of bodies; both are
    in view before the cut and have not touched yet.
    """
    for number in range(2 * index + 1, 2 * index + 1 + 2 * _TRIALS, 2):
        world = sample_world(revision, split, number, seed)
        pair = _pair(world, touching=index % 2 == 1)
        if pair is not None:
            return _coloured(world, *pair)
    raise ValueError(f"contacts {split} {index}, seed {seed}: no such world in {_TRIALS} trials")


_TRIALS = 50


def touch(world: CollisionWorld) -> bool:
    """Whether the red and the yellow body of a world touch in view."""
    colours = [body.thing.color for body in world.bodies]
    pair = sorted((colours.index(AGENT), colours.index(PATIENT)))
    return any([a, b] == pair for _, a, b in visible_contacts(world, simulate(world)))


def _pair(world: CollisionWorld, touching: bool) -> tuple[int, int] | None:
    """The faster and the slower one of two bodies that touch soon after the cut, or never; None without such bodies."""
    run = simulate(world)
    view, met = in_view(world, run.position[SEEN - 1]), {(a, b): frame for frame, a, b in run.contacts}
    soon = {(a, b) for frame, a, b in visible_contacts(world, run) if SEEN <= frame < SEEN + HORIZON}
    for a, b in combinations(np.flatnonzero(view).tolist(), 2):
        if (a, b) in soon if touching else (a, b) not in met:
            speed = np.linalg.norm(run.velocity[SEEN - 1], axis=1)
            return (a, b) if speed[a] >= speed[b] else (b, a)
    return None


def _coloured(world: CollisionWorld, agent: int, patient: int) -> CollisionWorld:
    names = {agent: AGENT, patient: PATIENT}
    things = [body.thing for body in world.bodies]
    colours = [names.get(k, _OTHERS.get(thing.color, thing.color)) for k, thing in enumerate(things)]
    bodies = (
        replace(body, thing=replace(body.thing, color=colour))
        for body, colour in zip(world.bodies, colours, strict=True)
    )
    return replace(world, bodies=tuple(bodies))


def main() -> None:
    """Run as a worker process, see `serve`."""
    serve(ContactStore)

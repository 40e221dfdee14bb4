"""Colliding solids: physics, exact counterfactuals, what the worlds are like, and stored values."""

from __future__ import annotations

import hashlib
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from ocl_bench.data.clevrer.facts import Thing
from ocl_bench.data.scenes.caster import build_world, cast
from ocl_bench.data.scenes.collision_videos import CollisionStore, render_collisions, scenes_of
from ocl_bench.data.scenes.collisions import (
    FRAMES,
    FRICTION,
    MASSES,
    RATE,
    RESTITUTION,
    SEEN,
    Body,
    CollisionWorld,
    in_view,
    sample_world,
    simulate,
    visible_contacts,
)

GOLDEN_THINGS = [
    "purple metal sphere",
    "yellow rubber sphere",
    "brown rubber cube",
    "yellow rubber cylinder",
    "cyan metal cube",
]
GOLDEN_CONTACTS = ((5, 1, 3), (11, 1, 2), (20, 0, 2), (55, 3, 4))
GOLDEN_MASKS = "13755dee37e127c0"
GOLDEN_COLOUR = [151.214, 148.52, 137.848]

WORLDS = [sample_world(1, "test", index) for index in range(16)]


def pair(position: list[list[float]], velocity: list[list[float]], materials: tuple[str, str]) -> CollisionWorld:
    bodies = tuple(Body(Thing("red", material, "sphere"), 0.0) for material in materials)
    return CollisionWorld(bodies, np.array(position), np.array(velocity))


@pytest.mark.parametrize("materials", [("metal", "rubber"), ("rubber", "rubber"), ("rubber", "metal")])
def test_a_head_on_collision_keeps_the_momentum(materials: tuple[str, str]) -> None:
    run = simulate(pair([[-1.5, 0.0], [0.6, 0.0]], [[3.0, 0.0], [0.0, 0.0]], materials))
    ((frame, a, b),) = run.contacts
    assert (a, b) == (0, 1)
    before, after = run.velocity[frame - 1], run.velocity[frame]
    mass = np.array([MASSES[material] for material in materials])
    lost = 2 * FRICTION / RATE * mass.sum()  # both may lose some to friction within a frame
    assert abs((mass * after[:, 0]).sum() - (mass * before[:, 0]).sum()) < lost
    closing, parting = before[0, 0] - before[1, 0], after[1, 0] - after[0, 0]
    assert parting == pytest.approx(RESTITUTION * closing, abs=2 * FRICTION / RATE)


def test_friction_stops_a_body_and_nothing_else_moves_it() -> None:
    run = simulate(pair([[0.0, 0.0], [5.0, 5.0]], [[0.4, 0.3], [0.0, 0.0]], ("metal", "metal")))
    speed = np.sqrt((run.velocity[:, 0] ** 2).sum(axis=1))
    assert run.contacts == () and (np.diff(speed) <= 0).all() and speed[-1] == 0
    # 0.5 units per second, 0.25 less each second: 0.5 units in two seconds.
    assert np.linalg.norm(run.position[-1, 0]) == pytest.approx(0.5, abs=0.01)
    assert (run.position[:, 1] == 5.0).all()


@pytest.mark.parametrize("index", range(6))
def test_counterfactuals_are_exact(index: int) -> None:
    """Before anything met the object that is left out, all others are where they are, to the last bit."""
    world = WORLDS[index]
    run = simulate(world)
    for k in range(len(world.bodies)):
        other = simulate(world, without=k)
        met = [frame for frame, a, b in run.contacts if k in (a, b)]
        until = min(met, default=FRAMES)
        rest = [j for j in range(len(world.bodies)) if j != k]
        assert np.array_equal(run.position[:until, rest], other.position[:until, rest])
        assert np.isnan(other.position[:, k]).all()
        if not met:
            assert other.contacts == run.contacts


def test_half_of_the_worlds_have_a_future() -> None:
    for index, world in enumerate(WORLDS):
        run = simulate(world)
        contacts = visible_contacts(world, run)
        assert any(frame < SEEN for frame, _, _ in contacts)
        assert any(frame >= SEEN for frame, _, _ in contacts) == (index % 2 == 1)
        assert (in_view(world, run.position)[:SEEN].sum(axis=0) >= 4).all()
        assert 3 <= len(world.bodies) <= 6
        assert len({body.thing for body in world.bodies}) == len(world.bodies)


def test_bodies_hardly_overlap() -> None:
    for world in WORLDS:
        run = simulate(world)
        for a, b in combinations(range(len(world.bodies)), 2):
            apart = np.sqrt(((run.position[:, a] - run.position[:, b]) ** 2).sum(axis=1))
            assert apart.min() > 0.85 * (world.bodies[a].radius + world.bodies[b].radius)


def test_removing_an_object_often_changes_what_happens() -> None:
    changed = total = 0
    for world in WORLDS:
        contacts = visible_contacts(world, simulate(world))
        for k in range(len(world.bodies)):
            left = {contact[1:] for contact in contacts if k not in contact[1:]}
            changed += {c[1:] for c in visible_contacts(world, simulate(world, without=k))} != left
            total += 1
    assert changed > 0.2 * total, (changed, total)


def test_worlds_are_pure_functions_and_differ_between_splits_and_seeds() -> None:
    again = sample_world(1, "test", 3)
    assert np.array_equal(again.position, WORLDS[3].position) and again.bodies == WORLDS[3].bodies
    others = [sample_world(1, "train", 3), sample_world(1, "test", 3, seed=1), sample_world(1, "test", 5)]
    assert all(not np.array_equal(other.position, again.position) for other in others)
    with pytest.raises(ValueError, match="variant collisions is at revision 1, not 2"):
        sample_world(2, "test", 0)
    with pytest.raises(ValueError, match="unknown split night"):
        sample_world(1, "night", 0)


def test_pictures_are_those_of_the_whole_caster() -> None:
    """Casting near objects and shadows only changes no pixel and no mask."""
    world = WORLDS[1]
    video = render_collisions(world, 48)
    scenes = list(scenes_of(world))
    for frame in (0, 20, 40):
        with torch.no_grad():
            image, hit, _, _ = cast(build_world([scenes[frame]]), 48, 0.0)
        assert np.array_equal(video.objects[frame], (hit[0] + 1).numpy())
        whole = (image[0] * 255 + 0.5).to(torch.uint8).numpy().astype(int)
        assert np.abs(whole - video.frames[frame]).max() <= 1


def test_stored_values() -> None:
    """Whatever changes these is another revision."""
    world = WORLDS[1]
    assert [str(body.thing) for body in world.bodies] == GOLDEN_THINGS
    assert visible_contacts(world, simulate(world)) == GOLDEN_CONTACTS
    video = render_collisions(world)
    assert video.frames.shape == (FRAMES, 64, 64, 3)
    assert hashlib.sha256(video.objects[::8].tobytes()).hexdigest()[:16] == GOLDEN_MASKS
    assert np.allclose(video.frames.mean(axis=(0, 1, 2)), GOLDEN_COLOUR, atol=0.02)


def test_the_store_keeps_video_and_world(tmp_path: Path) -> None:
    store = CollisionStore(split="test")
    store.write(tmp_path / "00001.npz", range(1, 2))
    (video,) = store.read(tmp_path / "00001.npz")
    assert video.world.bodies == WORLDS[1].bodies and np.array_equal(video.world.position, WORLDS[1].position)
    assert np.array_equal(video.objects, render_collisions(WORLDS[1]).objects)

"""The ray caster: boxes leave out no ray, and a part of a picture is that part of the whole."""

import pytest
import torch

from ocl_bench.data.scenes.caster import Window, build_world, cast
from ocl_bench.data.scenes.collision_videos import scenes_of
from ocl_bench.data.scenes.collisions import sample_world
from ocl_bench.data.scenes.motion import sample_video
from ocl_bench.data.scenes.pairs import Boxes, Pairs, pairs_in_picture, pairs_with_light
from ocl_bench.data.scenes.sampler import HALF_VIEW, Scene, sample_scene
from ocl_bench.data.scenes.tracing import first_hits, in_shadow
from ocl_bench.data.scenes.world import World

SIZE = 40
SCENES: dict[str, list[Scene]] = {
    "full": [sample_scene("full", 1, "val", index) for index in range(3)],
    "outd": [sample_scene("outd", 1, "val", index) for index in range(3)],
    "things": [sample_scene("things", 1, "val", index) for index in range(3)],
    "motion": list(sample_video(1, "val", 0)[::8]),
    # Some bodies are far outside the picture, or leave it.
    "collisions": list(scenes_of(sample_world(1, "val", 1))[::20]),
}


def _rays(world: World) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scene (R,) and direction (3, R) of the rays through all pixels, and distance (R,) of the ground."""
    place = ((torch.arange(SIZE) + 0.5) / SIZE * 2 - 1).double() * HALF_VIEW
    scene = torch.arange(len(world.camera)).repeat_interleave(SIZE * SIZE)
    row, column = torch.meshgrid(-place, place, indexing="ij")
    right, up, forward = world.axes[scene].unbind(1)
    flat = [part.flatten().repeat(len(world.camera))[:, None] for part in (column, row)]
    direction = (forward + flat[0] * right + flat[1] * up).T.contiguous()
    return scene, direction, -world.camera[scene, 2] / direction[2]


def _all_pairs(world: World, scene: torch.Tensor) -> Pairs:
    """Each ray with each object of its scene."""
    ray = torch.arange(len(scene)).repeat_interleave(world.width)
    solid = (scene[:, None] * world.width + torch.arange(world.width)).flatten()
    pairs = Pairs(ray, solid)
    return pairs.where(world.alive.flatten()[solid])


@pytest.mark.parametrize("kind", SCENES)
def test_boxes_hold_all_rays_that_meet_an_object(kind: str) -> None:
    """Oracle: each ray is tried with each object."""
    world = build_world(SCENES[kind])
    scene, direction, ground = _rays(world)
    expected = first_hits(world, direction, ground, _all_pairs(world, scene))
    pairs = pairs_in_picture(Boxes(world, SIZE).solids, SIZE)
    found = first_hits(world, direction, ground, pairs)
    order, expected_order = found.ray.argsort(), expected.ray.argsort()
    assert len(expected.ray) > 100
    assert torch.equal(found.ray[order], expected.ray[expected_order])
    assert torch.equal(found.solid[order], expected.solid[expected_order])
    assert torch.equal(found.distance[order], expected.distance[expected_order])
    assert len(pairs.ray) < 0.5 * len(_all_pairs(world, scene).ray), "boxes shall leave out most pairs"


@pytest.mark.parametrize("kind", SCENES)
def test_boxes_hold_all_points_in_a_shadow(kind: str) -> None:
    """Oracle: each point is tried with each object. Points are on the ground, in the picture and above it."""
    world = build_world(SCENES[kind])
    scene, direction, ground = _rays(world)
    boxes = Boxes(world, SIZE)
    for way in (1.0, 0.92):
        point = world.camera.T[:, scene] + way * ground * direction
        start = point + torch.tensor([[0.0], [0.0], [0.002]], dtype=torch.float64)
        expected = in_shadow(world, start, _all_pairs(world, scene))
        assert expected.sum() > 20
        assert torch.equal(in_shadow(world, start, pairs_with_light(boxes.dark, scene, start, world.light)), expected)
        if way == 1.0:
            assert torch.equal(in_shadow(world, start, pairs_in_picture(boxes.shadows, SIZE)), expected)


@pytest.mark.parametrize("kind", SCENES)
def test_a_window_shows_that_part_of_the_whole_picture(kind: str) -> None:
    windows: list[Window] = [(slice(4, 30), slice(0, 25)), (slice(11, 40), slice(9, 33)), (slice(20, 21), slice(5, 40))]
    whole, part = cast(build_world(SCENES[kind]), SIZE, 0.004), cast(build_world(SCENES[kind]), SIZE, 0.004, windows)
    assert torch.equal(whole[1], part[1]) and torch.equal(whole[2], part[2])
    for k, window in enumerate(windows):
        assert torch.equal(whole[0][k][window], part[0][k][window])
        assert torch.equal(whole[3][k][window], part[3][k][window])

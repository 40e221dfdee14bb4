"""The embedded scenes: pure functions of their index, exact masks, golden values, geometry against implicit shapes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ocl_bench.data.scenes import MIN_VISIBLE, REVISIONS, VARIANTS, render
from ocl_bench.data.scenes.materials import N_FULL, TEXTURES, material_table, paint
from ocl_bench.data.scenes.sampler import FULL_SHAPES, UNSEEN_SHAPES, sample_scene
from ocl_bench.data.scenes.shapes import SHAPES

GOLDEN_MASKS = {
    "full": "b98f2de7649a511c",
    "camo": "40ad1ccef9fecf89",
    "outd": "27432c1d1a2846d1",
    "things": "b279c1548076301f",
}
GOLDEN_GREY = {
    "full": [75.665, 80.524, 181.857, 110.471, 105.241, 106.211, 114.07, 83.235, 90.701],
    "camo": [152.374, 19.653, 50.553, 80.313, 164.048, 75.351, 29.066, 98.434, 32.22],
    "outd": [66.478, 101.024, 91.16, 107.383, 79.202, 33.373, 100.306, 133.44, 103.222],
    "things": [82.685, 111.629, 73.291, 72.678, 76.184, 67.899, 65.28, 87.152, 97.145],
}


def _mask_hash(labels: Tensor) -> str:
    return hashlib.sha256(labels.numpy().tobytes()).hexdigest()[:16]


@pytest.mark.parametrize("variant", VARIANTS)
def test_revision_is_frozen(variant: str) -> None:
    """A change of any scene is a new revision: masks are bit-equal, mean grey values move by less than 0.05."""
    scenes = render(variant, REVISIONS[variant][-1], "test", [0, 1, 511])
    assert _mask_hash(scenes.labels) == GOLDEN_MASKS[variant]
    grey = scenes.image.double().mean(dim=(2, 3)).flatten().tolist()
    assert grey == pytest.approx(GOLDEN_GREY[variant], abs=0.05)


def test_a_scene_does_not_depend_on_its_neighbours() -> None:
    together, alone = render("full", 1, "val", range(9)), render("full", 1, "val", [8])
    assert torch.equal(together.image[8], alone.image[0])
    assert torch.equal(together.labels[8], alone.labels[0])
    assert together.objects[8] == alone.objects[0]


def test_splits_seeds_and_indices_differ() -> None:
    images = [
        render("full", 1, split, [i], size=32, seed=s).image
        for split, i, s in [("test", 0, 0), ("val", 0, 0), ("train", 0, 0), ("test", 1, 0), ("test", 0, 1)]
    ]
    for a in range(len(images)):
        for b in range(a):
            assert not torch.equal(images[a], images[b])


def test_labels_are_compact_and_every_object_is_visible() -> None:
    scenes = render("full", 1, "val", range(12))
    for labels, objects in zip(scenes.labels, scenes.objects, strict=True):
        areas = torch.bincount(labels.flatten().long())
        assert len(areas) == len(objects) + 1
        assert (areas[1:] >= MIN_VISIBLE * labels.numel()).all()
    assert (scenes.depth > 0).all() and torch.isfinite(scenes.depth).all()


def test_objects_are_nearer_than_the_ground_behind_them() -> None:
    scenes = render("full", 1, "val", range(4))
    camera = torch.from_numpy(sample_scene("full", 1, "val", 0).camera)
    ground = scenes.depth[0][scenes.labels[0] == 0]
    assert ground.min() > camera[2]  # no ground point is nearer than the height of the camera
    assert scenes.depth[0][scenes.labels[0] > 0].min() < ground.max()


def test_outd_shares_no_shape_and_no_material_with_the_other_variants() -> None:
    for variant, shapes, unseen in [
        ("full", FULL_SHAPES, False),
        ("camo", FULL_SHAPES, False),
        ("outd", UNSEEN_SHAPES, True),
    ]:
        for index in range(30):
            scene = sample_scene(variant, 1, "train", index)
            surfaces = [o.surface for o in scene.objects] + scene.grounds
            assert all((s.material >= N_FULL) == unseen for s in surfaces)
            assert all(tuple(SHAPES)[o.shape] in shapes for o in scene.objects)


def test_camo_uses_one_material_a_scene() -> None:
    for index in range(20):
        scene = sample_scene("camo", 1, "test", index)
        assert {o.surface.material for o in scene.objects} <= {scene.grounds[0].material}


def test_unknown_revisions_are_refused() -> None:
    with pytest.raises(ValueError, match="revision 1"):
        sample_scene("full", 2, "test", 0)
    with pytest.raises(ValueError, match="unknown variant"):
        sample_scene("grass", 1, "test", 0)


def _inside_pyramid(p: Tensor) -> Tensor:
    return (p[:, 2] >= -1) & (torch.maximum(p[:, 0].abs(), p[:, 1].abs()) <= (1 - p[:, 2]) / 2)


def _inside_prism(p: Tensor) -> Tensor:
    corners = [(math.cos(2 * math.pi * k / 3), math.sin(2 * math.pi * k / 3)) for k in range(3)]
    inside = p[:, 2].abs() <= 1
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        inside &= (x1 - x0) * (p[:, 1] - y0) - (y1 - y0) * (p[:, 0] - x0) >= 0
    return inside


INSIDE: dict[str, Callable[[Tensor], Tensor]] = {
    "cube": lambda p: p.abs().amax(1) <= 1,
    "sphere": lambda p: p.norm(dim=1) <= 1,
    "cylinder": lambda p: (p[:, :2].norm(dim=1) <= 1) & (p[:, 2].abs() <= 1),
    "octahedron": lambda p: p.abs().sum(1) <= 1,
    "cone": lambda p: (p[:, 2] >= -1) & (p[:, 2] <= 1) & (p[:, :2].norm(dim=1) <= (1 - p[:, 2]) / 2),
    "pyramid": _inside_pyramid,
    "prism": _inside_prism,
    "dome": lambda p: (p[:, 2] >= -1) & (p[:, 0] ** 2 + p[:, 1] ** 2 + (p[:, 2] + 1) ** 2 / 4 <= 1),
}


@pytest.mark.parametrize("name", list(SHAPES))
def test_first_hit_agrees_with_marching_through_the_implicit_shape(name: str) -> None:
    """Oracle: walk along each ray in small steps and ask an independent inside test."""
    generator = torch.Generator().manual_seed(3)
    origin = torch.nn.functional.normalize(torch.randn(400, 3, generator=generator, dtype=torch.float64), dim=1) * 4
    direction = torch.rand(400, 3, generator=generator, dtype=torch.float64) * 2 - 1 - origin
    t, normals = SHAPES[name](origin.T, direction.T)
    normal = normals(torch.arange(400)).T
    steps = torch.linspace(0, 2, 4001, dtype=torch.float64)
    points = origin[:, None] + steps[None, :, None] * direction[:, None]
    inside = INSIDE[name](points.reshape(-1, 3)).view(400, -1)
    first = torch.where(inside.any(1), steps[inside.int().argmax(1)], torch.inf)
    clear = inside.sum(1) != 1  # a ray that only grazes an edge may be missed by the march
    hit = torch.isfinite(first) & clear
    assert hit.sum() > 100
    assert torch.isfinite(t[hit]).all()
    assert (t[hit] - first[hit]).abs().max() < 1.5e-3
    # a ray that the march does not see inside can only graze the shape between two steps
    missed = torch.isfinite(t) & ~torch.isfinite(first)
    assert missed.sum() <= 8
    assert ((normal * direction).sum(1)[hit] < 0).all(), "normals point outwards"


def test_textures_stay_in_range_and_use_both_colours() -> None:
    points = torch.rand(3, 4000, generator=torch.Generator().manual_seed(0)) * 20
    for name, texture in TEXTURES.items():
        blend = texture(points)
        assert blend.min() >= 0 and blend.max() <= 1.0001, name
        assert blend.std() > 0.02, name
    kind = torch.full((4000,), list(TEXTURES).index("checker"))
    colors = paint(points, kind, torch.zeros(3, 4000), torch.ones(3, 4000))
    assert 0.4 < colors.mean() < 0.6


def test_material_table_is_frozen() -> None:
    table = material_table()
    assert len(table) == 85 and len({m.name for m in table}) == 85
    assert table[0].name == "plain-00"
    assert table[0].first == pytest.approx((0.12115, 0.462939, 0.144479), abs=1e-5)

"""Revision 2 of the salient scenes: classes, textures, colours, sizes, grounds, golden values, and the tree."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ocl_bench.core.errors import UsageError
from ocl_bench.data.scenes.materials import TEXTURE_NAMES, contrasting_colours, lightness
from ocl_bench.data.scenes.salient import SalientStore, classes_of, render_salient, sample_salient
from ocl_bench.data.scenes.sampler import Scene
from ocl_bench.data.stand_ins.imagenet import WNIDS, wnids_of, write
from ocl_bench.data.stand_ins.layouts import ensure_scenes

GOLDEN_BOXES = [
    [(0, 41, 19, 116, 96), (4, 42, 17, 71, 38), (7, 27, 0, 44, 7)],
    [(1, 23, 28, 77, 86), (12, 0, 36, 25, 55), (5, 54, 78, 88, 110), (6, 57, 6, 82, 32)],
    [(2, 39, 27, 109, 95), (4, 79, 10, 104, 31), (6, 6, 36, 40, 69), (11, 7, 4, 31, 30)],
]
GOLDEN_GREY = [85.935, 66.681, 115.529, 82.471]


@pytest.fixture(scope="module")
def drawn() -> list[Scene]:
    return [sample_salient(2, "train", index) for index in range(160)]


def test_sixteen_classes_of_shape_and_texture() -> None:
    classes = classes_of(2)
    assert [one.index for one in classes] == list(range(16)) and {one.hue for one in classes} == {None}
    assert len({(one.shape, one.kind) for one in classes}) == 16
    assert {one.kind for one in classes} == {"plain", "checker", "stripes", "dots"}
    assert set(Counter(one.shape for one in classes).values()) == {4}


def test_revision_is_frozen() -> None:
    """A change of any scene is a new revision: boxes are equal, mean grey values move by less than 0.05."""
    scenes = render_salient(2, "val", range(4))
    assert [[(one, *map(int, box)) for one, box in scene.boxes] for scene in scenes[:3]] == GOLDEN_BOXES
    assert [scene.image.mean() for scene in scenes] == pytest.approx(GOLDEN_GREY, abs=0.05)


def test_two_colours_differ_in_lightness_and_have_any_hue() -> None:
    rng = np.random.default_rng(0)
    pairs = [contrasting_colours(rng) for _ in range(500)]
    values = np.array([[lightness(one), lightness(two)] for one, two in pairs])
    assert (values.max(1) / values.min(1) >= 2.2 - 1e-9).all() and (values.max(1) / values.min(1)).max() > 3.3
    assert 0.4 < (values[:, 0] > values[:, 1]).mean() < 0.6  # either one may be the lighter one
    colours = np.array(pairs).reshape(-1, 3)
    assert colours.min() >= 0 and colours.max() <= 1
    assert np.bincount(colours.argmax(1), minlength=3).min() > 200  # red, green and blue all lead


def test_textures_lie_along_the_axes_and_fit_the_object(drawn: list[Scene]) -> None:
    kinds: Counter[str] = Counter()
    for thing in (thing for scene in drawn for thing in scene.objects):
        surface, wanted = thing.surface, classes_of(2)[thing.category]
        kinds[wanted.kind] += 1
        assert TEXTURE_NAMES[surface.kind] == wanted.kind
        assert ((surface.turn != 0).sum(0) == 1).all() and ((surface.turn != 0).sum(1) == 1).all()
        # Texture space from one side of the object to the other, along each of its axes.
        periods = np.abs(surface.turn).sum(0) * 2 * thing.half * surface.frequency
        pointed = 5 / 3 if wanted.shape == "octahedron" else 1
        periods /= 2 if wanted.kind == "checker" else pointed
        assert np.allclose(periods, periods[0]) and 2.2 <= periods[0] <= 3.2
    assert set(kinds) == {"plain", "checker", "stripes", "dots"}


def test_the_main_object_is_larger_and_no_ground_looks_like_a_class(drawn: list[Scene]) -> None:
    textures = {TEXTURE_NAMES.index(one.kind) for one in classes_of(2)}
    counts = Counter(len(scene.objects) for scene in drawn)
    assert max(counts) <= 5 and counts[3] + counts[4] > len(drawn) / 2
    for number, scene in enumerate(drawn):
        main, *others = scene.objects
        assert main.category == number % 16 and main.category not in [thing.category for thing in others]
        pointed = 1.3 if classes_of(2)[main.category].shape == "octahedron" else 1.0
        assert (1.25 * 0.75 * pointed <= main.half).all() and (main.half <= 1.5 * 1.25 * pointed).all()
        assert all((thing.half >= 0.95 * 0.85).all() and (thing.half <= 1.2 * 1.15).all() for thing in others)
        assert not textures & {ground.kind for ground in scene.grounds} and len(scene.grounds) in (2, 3)


def test_the_colours_do_not_depend_on_the_class() -> None:
    """The mean colour of the surfaces of each class is that of all, up to the error of 200 draws."""
    colours: dict[int, list[np.ndarray]] = {}
    for index in range(16 * 60):
        surface = sample_salient(2, "val", index).objects[0].surface
        colours.setdefault(index % 16, []).append(surface.first)
    means = np.array([np.mean(colours[index], axis=0) for index in range(16)])
    assert np.abs(means - means.mean(0)).max() < 4 * 0.27 / 60**0.5


def test_the_tree_has_classes_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "cache"))
    store = ensure_scenes(SalientStore(revision=2, split="val"), 16, progress=False)
    write(tmp_path / "tree", "val", store, 500_000)
    names = (tmp_path / "tree" / "labels.txt").read_text().split()
    assert names == list(wnids_of(2)) and len(names) == 16 and not set(names) & set(WNIDS)
    assert len(list((tmp_path / "tree" / "val").rglob("*.JPEG"))) == 16
    assert store.folder == tmp_path / "cache/scenes/salient-r2/val" and json.loads(store.to_json())["revision"] == 2
    with pytest.raises(UsageError, match="revision 3 is not rendered"):
        ensure_scenes(SalientStore(revision=3, split="test"), 16, progress=False)

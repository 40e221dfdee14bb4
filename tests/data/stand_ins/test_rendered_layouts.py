"""From the renderer to the stand-in: the store renders, goes on after a kill, and only official splits are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from interruptions import interrupt_replacing
from layout_trees import card
from scenes_with_classes import fill_store

from ocl_bench.core.errors import UsageError
from ocl_bench.data import open_data
from ocl_bench.data.scenes import NO_STUFF, render, store
from ocl_bench.data.scenes.classes import CLASSES
from ocl_bench.data.scenes.store import CHUNK, ClassedScene, SceneStore, crop_scene
from ocl_bench.data.stand_ins import layouts
from ocl_bench.data.stand_ins.layouts import StoreJob, ensure_scenes
from ocl_bench.data.stand_ins.processes import share_out

STAND_IN = {"scenes": "things", "variant": "things", "revision": 1, "samples": 8, "fit_samples": 20}
CARDS: dict[str, dict[str, Any]] = {
    "coco": {"reader": "coco", "folder": "coco"},
    "voc2012": {"reader": "voc", "folder": "VOCdevkit"},
    "voc2007": {"reader": "voc", "folder": "VOCdevkit", "options": {"year": 2007}},
    "ade20k": {"reader": "ade20k", "folder": "ADEChallengeData2016"},
    "cityscapes": {"reader": "cityscapes", "folder": "cityscapes"},
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, private_places: Path) -> Path:
    """Small scenes, rendered in this process: workers would not know of the size. Returns the cache."""
    monkeypatch.setattr(store, "SIZE", 32)
    monkeypatch.setattr(store, "SHAPES", ((24, 32), (32, 24), (32, 32)))
    monkeypatch.setattr(layouts.stand_in, "processors", lambda: 1)
    return private_places


def same(one: ClassedScene, other: ClassedScene) -> bool:
    """Whether two scenes are equal in everything."""
    maps = ("image", "objects", "stuff")
    return one.classes == other.classes and all(np.array_equal(getattr(one, m), getattr(other, m)) for m in maps)


def content(folder: Path) -> dict[str, bytes]:
    """The bytes of each scene file."""
    return {path.name: path.read_bytes() for path in folder.glob("*.npz")}


@pytest.mark.parametrize("layout", CARDS)
@pytest.mark.parametrize("split", ["vall", "VAL", "val2017", "../x", "train/../../y"])
def test_a_split_that_a_layout_does_not_have_is_refused_and_nothing_is_written(
    layout: str, split: str, private_places: Path
) -> None:
    fill_store("test")
    fill_store("train", chunks=2)
    with pytest.raises(UsageError, match="has the splits train") as caught:
        open_data(card(**CARDS[layout], split="val", stand_in=STAND_IN), split=split, progress=False)
    assert repr(split) in str(caught.value) and "\n" not in str(caught.value)
    assert [path.name for path in private_places.iterdir()] == ["scenes"]


def test_splits_of_one_year_of_voc_are_not_those_of_the_other() -> None:
    for layout, split in (("voc2007", "trainaug"), ("voc2012", "test")):
        with pytest.raises(UsageError, match=f"{layout} has the splits train, val, .*, not '{split}'"):
            open_data(card(**CARDS[layout], split="val", stand_in=STAND_IN), split=split, progress=False)


def test_a_stored_scene_is_the_middle_of_the_rendered_one_and_does_not_depend_on_the_others(small: Path) -> None:
    scenes = ensure_scenes(SceneStore(split="val"), 20, progress=False)
    assert len(scenes) == 20 and [scene.image.shape[:2] for scene in scenes] == [
        ((24, 32), (32, 24), (32, 32))[index % 3] for index in range(20)
    ]
    for index, window in ((0, np.s_[4:28, :]), (19, np.s_[:, 4:28])):
        alone = render("things", 1, "val", [index], size=32)
        scene = scenes[index]
        assert np.array_equal(scene.image, alone.image[0].permute(1, 2, 0).numpy()[window])
        assert np.array_equal(scene.stuff, alone.stuff[0].numpy()[window])
        labels = alone.labels[0].numpy()[window]
        assert np.array_equal(scene.objects > 0, labels > 0)
        named = np.array([-1, *(entry["category"] for entry in alone.objects[0])])
        assert np.array_equal(np.array([-1, *scene.classes])[scene.objects], named[labels])
        assert np.array_equal(scene.stuff == NO_STUFF, scene.objects > 0)
        assert scene.semantic.max() < len(CLASSES)
    with pytest.raises(IndexError):
        scenes[20]


def test_splits_and_seeds_show_different_scenes(small: Path) -> None:
    stores = [
        ensure_scenes(SceneStore(split=split, seed=seed), 16, progress=False)
        for split, seed in (("train", 0), ("val", 0), ("test", 0), ("test", 1))
    ]
    images = {scene.image.tobytes() for one in stores for scene in one}
    assert len(images) == 64 and len({one.folder for one in stores}) == 4


def test_a_killed_run_goes_on_where_it_stopped(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = content(ensure_scenes(SceneStore(seed=5), 48, progress=False).folder)
    monkeypatch.setenv("OCL_BENCH_CACHE", str(small / "other"))
    interrupt_replacing(monkeypatch, at=2)
    with pytest.raises(KeyboardInterrupt):
        ensure_scenes(SceneStore(seed=5), 48, progress=False)
    assert [*content(SceneStore(seed=5).folder)] == ["00000.npz"], "a chunk that is being written is not seen"
    rendered = count_rendering(monkeypatch)
    resumed = ensure_scenes(SceneStore(seed=5), 48, progress=False)
    assert rendered == [*range(16, 48)]
    assert content(resumed.folder) == whole
    ensure_scenes(SceneStore(seed=5), 48, progress=False)
    assert len(rendered) == 32, "nothing is rendered twice"


def count_rendering(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the scenes that are rendered from now on."""
    from ocl_bench.data import scenes

    numbers: list[int] = []
    real: Callable[..., Any] = scenes.render

    def note(variant: str, revision: int, split: str, indices: Sequence[int], **how: Any) -> Any:
        numbers.extend(indices)
        return real(variant, revision, split, indices, **how)

    monkeypatch.setattr(scenes, "render", note)
    return numbers


def test_all_layouts_share_the_rendered_scenes(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered = count_rendering(monkeypatch)
    for layout in CARDS:
        data = open_data(card(**CARDS[layout], split="val", stand_in=STAND_IN), progress=False)
        assert len(data) == 8 and data.reader[1].image.shape == (32, 24, 3)
    assert rendered == [*range(CHUNK)]


def test_an_object_that_the_crop_removes_leaves_no_gap() -> None:
    labels = np.zeros((8, 8), np.uint8)
    labels[0, :], labels[3, 2:4], labels[6:, 5] = 1, 2, 3
    stuff = np.where(labels > 0, NO_STUFF, 20).astype(np.uint8)
    image = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    scene = crop_scene(image, labels, stuff, [4, 5, 6], (6, 8))
    expected = np.array([0, 0, 1, 2])[labels[1:7]]
    assert np.array_equal(scene.objects, expected) and scene.classes == (5, 6)
    assert np.array_equal(scene.image, image[1:7])
    assert np.array_equal(scene.semantic, np.array([20, 5, 6])[expected])
    nothing = crop_scene(image, np.zeros_like(labels), np.full_like(stuff, 20), [], (8, 6))
    assert nothing.classes == () and np.unique(nothing.semantic).tolist() == [20]


@pytest.mark.slow
def test_worker_processes_render_what_this_process_renders(
    private_places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_of_workers = SceneStore(split="train", count=32)
    share_out([StoreJob(store_of_workers, (chunk,)) for chunk in (0, 1)], lambda n: None, helpers=1, here=False)
    assert sorted(content(store_of_workers.folder)) == ["00000.npz", "00001.npz"]
    scenes = list(store_of_workers)
    monkeypatch.setenv("OCL_BENCH_CACHE", str(private_places / "here"))
    here = replace(SceneStore(split="train"), count=33)
    here.render([1], lambda n: None)
    assert all(same(scenes[index], here[index]) for index in range(16, 32))
    assert scenes[0].image.shape == (120, 160, 3)


def pictures(root: Path) -> dict[str, bytes]:
    """The bytes of each file of a tree."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("[!.]*") if path.is_file()}


@pytest.mark.parametrize("layout", CARDS)
def test_a_picture_that_was_replaced_by_another_valid_one_is_rendered_again(layout: str, small: Path) -> None:
    task = card(**CARDS[layout], split="val", stand_in=STAND_IN)
    root = open_data(task, progress=False).root
    before = pictures(root)
    one, other = [path for path in sorted(root.rglob("*.jpg")) or sorted(root.rglob("*_leftImg8bit.png"))][:2]
    one.write_bytes(other.read_bytes())
    assert open_data(task, progress=False).root == root and pictures(root) == before
    max(root.rglob("*.png")).unlink()
    open_data(task, progress=False)
    assert pictures(root) == before


def test_a_chunk_of_scenes_that_was_replaced_by_another_is_rendered_again(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ensure_scenes(SceneStore(split="val"), 32, progress=False)
    before = content(store.folder)
    (store.folder / "00000.npz").write_bytes(before["00001.npz"])
    rendered = count_rendering(monkeypatch)
    ensure_scenes(SceneStore(split="val"), 32, progress=False)
    assert content(store.folder) == before and rendered == [*range(16)]

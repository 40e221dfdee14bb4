"""Stand-ins in official layouts: written once, of disjoint scenes, and whole or not there. Nothing is rendered here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layout_trees import card
from scenes_with_classes import classed_scene, fill_store

from ocl_bench.core.errors import DataMissingError, UsageError
from ocl_bench.data import OpenData, open_data
from ocl_bench.data.scenes.store import SceneStore
from ocl_bench.data.stand_ins import layouts
from ocl_bench.data.stand_ins.coco import border
from ocl_bench.data.stand_ins.voc import void_border

LAYOUTS: dict[str, dict[str, Any]] = {
    "coco": {"reader": "coco", "folder": "coco"},
    "panoptic": {"reader": "coco", "folder": "coco", "options": {"annotations": "panoptic"}},
    "stuffthings": {"reader": "coco", "folder": "coco", "options": {"annotations": "stuffthings"}},
    "voc2012": {"reader": "voc", "folder": "VOCdevkit"},
    "voc2007": {"reader": "voc", "folder": "VOCdevkit", "options": {"year": 2007}},
    "ade20k": {"reader": "ade20k", "folder": "ADEChallengeData2016"},
    "cityscapes": {"reader": "cityscapes", "folder": "cityscapes"},
}
STAND_IN = {"scenes": "things", "variant": "things", "revision": 1, "samples": 8, "fit_samples": 20}


@pytest.fixture(autouse=True)
def never_renders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks that a test did not fill in would be rendered."""

    def render(store: SceneStore, chunks: Iterable[int], on_chunk: Any) -> None:
        raise AssertionError(f"{store} renders {chunks}")

    monkeypatch.setattr(SceneStore, "render", render)


def open_stand_in(layout: str, **how: Any) -> OpenData:
    task = card(**LAYOUTS[layout], split="val", stand_in=how.pop("stand_in", STAND_IN))
    return open_data(task, progress=False, **how)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_stand_in_is_read_by_the_reader_of_the_official_data(layout: str, private_places: Path) -> None:
    fill_store("test")
    fill_store("train", chunks=2)
    data = open_stand_in(layout)
    assert data.kind == "embedded" and data.revision.startswith("embedded-r1-") and len(data) == 8
    assert data.root.is_relative_to(private_places / "stand-ins")
    assert "8 rendered scenes (val)" in data.note and "--data-root" in data.note and "\n" not in data.note
    train = open_stand_in(layout, split="train")
    assert len(train) == 20 and not set(train.ids) & set(data.ids) and train.revision != data.revision
    for first, one in ((200, data), (100, train)):
        for number, sample in zip((first, first + 7), (one.reader[0], one.reader[7]), strict=True):
            scene = classed_scene(number)
            lossless = layout == "cityscapes"
            assert np.abs(sample.image.astype(int) - scene.image).mean() < (1e-9 if lossless else 4)
            void = border(scene.objects) if not layout.startswith("voc") else void_border(scene.objects)
            assert np.array_equal(sample.truth.labels == -1, np.zeros_like(void) if layout == "coco" else void)


@pytest.mark.parametrize("layout", ["coco", "voc2012", "ade20k", "cityscapes"])
def test_the_written_tree_is_official_data_for_who_gives_it_as_data_root(layout: str) -> None:
    fill_store("test")
    data = open_stand_in(layout)
    official = open_stand_in(layout, data_root=data.root)
    assert official.kind == "official" and official.ids == data.ids and official.revision != data.revision
    for one, other in zip(data.reader, official.reader, strict=True):
        assert np.array_equal(one.image, other.image) and np.array_equal(one.truth.labels, other.truth.labels)


def test_a_tree_is_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fill_store("test")
    first = open_stand_in("coco")
    for path in folder.iterdir():
        path.unlink()
    monkeypatch.setattr(layouts, "find_writer", lambda layout: pytest.fail("written twice"))
    again = open_stand_in("coco")
    assert (again.root, again.ids, again.revision) == (first.root, first.ids, first.revision)


def test_limit_cuts_what_is_written_and_the_samples_are_the_first_ones() -> None:
    fill_store("test")
    few, whole = open_stand_in("coco", limit=3), open_stand_in("coco")
    assert few.ids == whole.ids[:3] and len(whole) == 8 and few.root != whole.root
    assert few.revision == whole.revision, "an image is the same in both"
    assert np.array_equal(few.reader[2].image, whole.reader[2].image)
    assert len(open_stand_in("coco", limit=500)) == 8


def test_one_tree_serves_all_kinds_of_annotations_of_coco() -> None:
    fill_store("test")
    assert len({open_stand_in(kind).root for kind in ("coco", "panoptic", "stuffthings")}) == 1


def test_the_number_of_training_samples_is_that_of_the_card_for_another_split() -> None:
    fill_store("train")
    stand_in = {**STAND_IN, "fit_samples": None, "samples": 5}
    assert len(open_stand_in("ade20k", split="train", stand_in=stand_in)) == 5
    assert len(open_stand_in("ade20k", split="train", limit=2)) == 2


def test_a_fresh_seed_shows_other_scenes_and_is_said() -> None:
    fill_store("test")
    fill_store("test", seed=3)
    fresh, shipped = open_stand_in("voc2012", stand_in_seed=3), open_stand_in("voc2012")
    assert "fresh seed 3 (never ranked)" in fresh.note and fresh.revision != shipped.revision
    assert fresh.root != shipped.root and fresh.ids == shipped.ids
    assert not np.array_equal(fresh.reader[1].image, shipped.reader[1].image)


def test_a_card_without_stand_in_says_where_the_data_is() -> None:
    task = card(**LAYOUTS["coco"], split="val", get="cocodataset.org")
    with pytest.raises(DataMissingError, match=r"has no stand-in: give --data-root \(cocodataset\.org\)"):
        open_data(task)


def test_an_unknown_revision_is_refused() -> None:
    with pytest.raises(UsageError, match=r"data\.stand_in: variant 'things' revision 9 is not rendered by this"):
        open_stand_in("coco", stand_in={**STAND_IN, "revision": 9})


@pytest.mark.parametrize("scenes", ["salient", "nonsense", "../../x"])
def test_scenes_that_the_variant_does_not_belong_to_are_refused(scenes: str) -> None:
    """The name was only printed: a card could promise other scenes than those that were scored."""
    message = rf"data\.stand_in\.scenes: '{re.escape(scenes)}' has no variant '{{}}'; it belongs to '{{}}'"
    with pytest.raises(UsageError, match=message.format("things", "things")):
        open_stand_in("coco", stand_in={**STAND_IN, "scenes": scenes})
    task = card(reader="clevrtex", stand_in={"scenes": scenes, "variant": "full", "revision": 1, "samples": 2})
    with pytest.raises(UsageError, match=message.format("full", "clevrtex")):
        open_data(task)


def racing(root: Path, winner: Path) -> Any:
    """A writer during whose work another process finishes the same tree."""

    def write(folder: Path, split: str, scenes: Iterable[Any], first: int) -> None:
        (folder / "annotations").mkdir(parents=True)
        os.replace(winner, root)

    return lambda layout: write


def test_who_is_slower_takes_the_tree_of_the_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fill_store("test")
    whole = open_stand_in("coco")
    os.replace(whole.root, tmp_path / "winner")
    monkeypatch.setattr(layouts, "find_writer", racing(whole.root, tmp_path / "winner"))
    data = open_stand_in("coco")
    assert data.ids == whole.ids and data.reader[0].image.ndim == 3
    assert [path.name for path in whole.root.parent.iterdir()] == [whole.root.name], "no scratch folder stays"


def test_a_writer_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch, private_places: Path) -> None:
    fill_store("test")

    def write(folder: Path, split: str, scenes: Iterable[Any], first: int) -> None:
        (folder / "val2017").mkdir(parents=True)
        raise OSError(28, "No space left on device", str(folder / "val2017/1.jpg"))

    monkeypatch.setattr(layouts, "find_writer", lambda layout: write)
    with pytest.raises(UsageError, match=r"No space left on device\); is OCL_BENCH_CACHE writable") as caught:
        open_stand_in("coco")
    assert "\n" not in str(caught.value)
    assert list((private_places / "stand-ins/coco/things-r1-w1").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_one_line(private_places: Path) -> None:
    fill_store("test")
    (private_places / "stand-ins").write_text("a file where a folder should be")
    with pytest.raises(
        UsageError, match=r"the stand-in cannot be rendered \(.+\); is OCL_BENCH_CACHE writable"
    ) as caught:
        open_stand_in("coco")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", ["cut", "empty", "flipped"])
def test_a_damaged_file_of_scenes_is_named(fault: str) -> None:
    path = fill_store("test") / "00000.npz"
    content = bytearray(path.read_bytes())
    if fault == "flipped":
        content[400:420] = bytes(20)
    path.write_bytes(bytes(content[: {"cut": 3000, "empty": 0}.get(fault)]))
    with pytest.raises(UsageError, match=r"damaged \(.*\); delete it, it is rendered again") as caught:
        open_stand_in("coco")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)

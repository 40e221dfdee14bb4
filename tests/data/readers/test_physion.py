"""Physion's layout: labels by name, scenarios from folders, and files that are broken; contact worlds written in it."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ocl_bench.cards.task import TaskSpec
from ocl_bench.core.errors import DataMissingError, SampleError, UsageError
from ocl_bench.data import open_data
from ocl_bench.data.physion import read_labels
from ocl_bench.data.scenes.collision_videos import RenderedCollisions, render_collisions
from ocl_bench.data.scenes.collisions import SEEN, in_view, simulate, visible_contacts
from ocl_bench.data.scenes.contact_videos import HORIZON, contact_world, touch
from ocl_bench.data.stand_ins.physion import write

HEADER = ",ground truth outcome\n"


@cache
def videos() -> tuple[RenderedCollisions, ...]:
    return tuple(render_collisions(contact_world(1, "test", index), 16) for index in (0, 1))


def card(**changes: Any) -> TaskSpec:
    data = {"reader": "physion", "folder": "physion", "split": changes.pop("split", "test")}
    protocol = {"input": 8, "burn_in": 15, "rollout": 10, "clips": "last-seen", "seen": 45, "pairs": "all"}
    content = {"name": "tiny-physion", "version": 1, "family": "contact", "data": data, "protocol": protocol}
    content |= {"fit": {"head": "contact", "split": "readout"}, "metrics": ["contact_accuracy"]}
    return TaskSpec.model_validate({**content, "main": "contact_accuracy"})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split in ("test", "readout"):
        write(tmp_path / "data", split, videos(), 0)
    return tmp_path / "data"


@pytest.mark.parametrize("split", ["test", "readout"])
def test_frames_and_labels(root: Path, split: str) -> None:
    data = open_data(card(split=split), data_root=root)
    assert data.kind == "official" and data.timing == {"seen_frames": SEEN, "stride": 2}
    assert all(name.startswith("Collide/contact_000") for name in data.ids)
    for number, (video, rendered) in enumerate(zip(data.reader, videos(), strict=True)):
        frame = video.frames[7]
        assert len(video) == 56 and np.array_equal(frame.image, rendered.frames[7])
        assert bool(frame.truth.touched) == (number == 1) == touch(rendered.world)
    assert len(open_data(card(split=split), data_root=root, limit=1)) == 1


def test_false_is_not_true(tmp_path: Path) -> None:
    """bool("False") is True, which made every label of a loader in use True."""
    (tmp_path / "labels.csv").write_text(HEADER + "a_img,False\nb_img,True\n")
    assert read_labels(tmp_path / "labels.csv") == {"a_img": False, "b_img": True}


def test_scenarios_are_those_of_the_folders_whatever_is_left_out(root: Path) -> None:
    base = root / "Physion/PhysionTestMP4s"
    for scenario in ("Support", "Drop"):
        shutil.copytree(base / "Collide", base / scenario)
    shutil.rmtree(base / "Drop/mp4s-redyellow/contact_0000-redyellow_img")
    ids = open_data(card(), data_root=root).ids
    assert [name.split("/")[0] for name in ids] == ["Collide", "Collide", "Drop", "Support", "Support"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n", "has no columns '' and 'ground truth outcome'"),
        ("", "has no columns"),
        (HEADER + "a,true\n", "line 2: the outcome is neither True nor False"),
        (HEADER + "a\n", "line 2: the outcome is neither"),
        (HEADER + "a,True\na,False\n", "line 3: a occurs twice"),
    ],
)
def test_labels_that_are_broken(root: Path, text: str, message: str) -> None:
    (root / "Physion/PhysionTestMP4s/labels.csv").write_text(text)
    with pytest.raises(UsageError, match=message):
        open_data(card(), data_root=root)


def test_a_video_without_a_label_or_a_frame_fails_alone(root: Path) -> None:
    (root / "Physion/PhysionTestMP4s/labels.csv").write_text(HEADER + "contact_0001_img,True\n")
    reader = open_data(card(), data_root=root).reader
    with pytest.raises(SampleError, match=r"has no row of 'contact_0000_img'; download Physion again"):
        reader[0]
    assert reader[1].frames[0].truth.touched
    shutil.rmtree(root / "Physion/PhysionTestMP4s/Collide/mp4s-redyellow/contact_0001-redyellow_img")
    (root / "Physion/PhysionTestMP4s/Collide/mp4s-redyellow/contact_0001-redyellow_img").mkdir()
    with pytest.raises(SampleError, match="video without frames"):
        open_data(card(), data_root=root).reader[1]


def test_films_that_are_not_extracted_and_other_splits(root: Path) -> None:
    shutil.rmtree(root / "Physion/PhysionTestMP4s/Collide")
    with pytest.raises(DataMissingError, match=r"extract each film.mp4 to film/000000.jpg"):
        open_data(card(), data_root=root)
    with pytest.raises(UsageError, match="Physion has the splits test and readout, not 'training'"):
        open_data(card(), data_root=root, split="training")
    (root / "Physion/PhysionTestMP4s/labels.csv").unlink()
    with pytest.raises(DataMissingError, match=r"labels\.csv"):
        open_data(card(), data_root=root)


def test_contact_worlds_differ_only_in_who_touches() -> None:
    for index in range(6):
        world = contact_world(1, "test", index)
        colours, run = [body.thing.color for body in world.bodies], simulate(world)
        assert colours.count("red") == colours.count("yellow") == 1
        assert touch(world) == (index % 2 == 1)
        after = [frame for frame, _, _ in visible_contacts(world, run) if frame >= SEEN]
        assert after, "something collides after the cut in every world"
        pair = sorted((colours.index("red"), colours.index("yellow")))
        met = [frame for frame, a, b in run.contacts if [a, b] == pair]
        assert in_view(world, run.position[SEEN - 1])[pair].all()
        assert (SEEN <= met[0] < SEEN + HORIZON) if index % 2 else not met


def test_the_timing_is_written(root: Path) -> None:
    assert json.loads((root / "Physion/stand-in.json").read_text()) == {"seen_frames": 32, "stride": 2}

"""Rendered collisions as a CLEVRER tree: files, fields, exact masks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from ocl_bench.data.scenes.collision_videos import RenderedCollisions, render_collisions
from ocl_bench.data.scenes.collisions import SEEN, sample_world, simulate, visible_contacts
from ocl_bench.data.stand_ins.clevrer import write


@pytest.fixture(scope="module")
def videos() -> list[RenderedCollisions]:
    return [render_collisions(sample_world(1, "test", index), 32) for index in (0, 1)]


@pytest.fixture(scope="module")
def root(videos: list[RenderedCollisions], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    write(folder, "val", videos, 500_000)
    return folder / "CLEVRER"


def test_frames_and_masks_are_exact(root: Path, videos: list[RenderedCollisions]) -> None:
    for number, video in zip((10_000, 10_001), videos, strict=True):
        place = root / f"videos/val/video_10000-11000/video_{number}"
        assert sorted(path.name for path in place.iterdir()) == [f"{t:06d}.png" for t in range(56)]
        assert np.array_equal(np.array(Image.open(place / "000007.png")), video.frames[7])
        listed = json.loads((root / f"derender_proposals/proposal_{number}.json").read_text())
        things = [vars(body.thing) for body in video.world.bodies]
        for frame in listed["frames"][::9]:
            labels = np.zeros((32, 32), dtype=np.uint8)
            for entry in frame["objects"]:
                kind = {name: entry[name] for name in ("color", "material", "shape")}
                labels[rle.decode(entry["mask"]) > 0] = things.index(kind) + 1
            assert np.array_equal(labels, video.objects[frame["frame_index"]])


def test_annotations_say_what_was_simulated(root: Path, videos: list[RenderedCollisions]) -> None:
    path = root / "annotations/val/annotation_10000-11000/annotation_10001.json"
    content = json.loads(path.read_text())
    run = simulate(videos[1].world)
    assert content["scene_index"] == 10_001 and len(content["motion_trajectory"]) == 56
    hits = [(one["frame_id"], *one["object_ids"]) for one in content["collision"]]
    assert tuple(hits) == visible_contacts(videos[1].world, run)
    shown = content["motion_trajectory"][40]["objects"]
    assert np.allclose([one["location"][:2] for one in shown], run.position[40], atol=1e-5)


def test_questions_are_written_again_equally(root: Path, videos: list[RenderedCollisions], tmp_path: Path) -> None:
    write(tmp_path, "val", videos, 500_000)
    name = Path("questions/val.json")
    assert (root / name).read_bytes() == (tmp_path / "CLEVRER" / name).read_bytes()
    content = json.loads((root / name).read_text())
    assert [entry["video_filename"] for entry in content] == ["video_10000.mp4", "video_10001.mp4"]
    types = {question["question_type"] for question in content[1]["questions"]}
    assert types == {"descriptive", "explanatory", "predictive", "counterfactual"}
    assert json.loads((root / "stand-in.json").read_text())["seen_frames"] == SEEN

"""CLEVRER's layout: questions, frames with masks from proposals, other names of files, and files that contradict."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clevrer_tree import clevrer_card, clevrer_tree, small_videos
from PIL import Image

from ocl_bench.core.errors import DataMissingError, SampleError, UsageError
from ocl_bench.core.types import OVERLAP
from ocl_bench.data import open_data
from ocl_bench.data.clevrer.facts import KINDS
from ocl_bench.data.clevrer.questions import read_questions
from ocl_bench.data.scenes.collisions import in_view, simulate


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clevrer_tree(tmp_path_factory.mktemp("clevrer"))


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "data")
    return tmp_path / "data"


def test_questions_need_no_videos(root: Path) -> None:
    shutil.rmtree(root / "CLEVRER/videos")
    data = open_data(clevrer_card(), data_root=root)
    assert data.kind == "official" and data.ids == ("video_10000", "video_10001")
    questions = read_questions(root / "CLEVRER/questions/val.json")
    assert [sample.truth.questions for sample in data.reader] == list(questions.values())
    assert open_data(clevrer_card(), data_root=root, limit=1).ids == ("video_10000",)


@pytest.mark.parametrize("place", ["CLEVRER/questions", "CLEVRER", "clevrer/questions", "questions", "."])
def test_the_official_name_and_other_folders(root: Path, tmp_path: Path, place: str) -> None:
    target = tmp_path / "other" / place / "validation.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(root / "CLEVRER/questions/val.json", target)
    assert len(open_data(clevrer_card(), data_root=tmp_path / "other")) == 2


def test_masks_are_those_of_the_objects(root: Path) -> None:
    data = open_data(clevrer_card("frames"), data_root=root)
    for video, rendered in zip(data.reader, small_videos(), strict=True):
        assert len(video) == 56
        things = [str(body.thing) for body in rendered.world.bodies]
        shown = [k for k in range(len(things)) if (rendered.objects == k + 1).any()]
        table = np.zeros(len(things) + 1, np.int64)
        for number, k in enumerate(sorted(shown, key=lambda k: things[k]), start=1):
            table[k + 1] = number
        for position in (0, 31, 55):
            frame = video.frames[position]
            assert np.array_equal(frame.image, rendered.frames[position])
            assert np.array_equal(frame.truth.labels, table[rendered.objects[position]])


def test_files_of_nsdr_and_frames_as_jpeg(root: Path) -> None:
    base = root / "CLEVRER"
    (base / "derender_proposals/proposal_10000.json").rename(base / "derender_proposals/sim_10000.json")
    place = base / "videos/val/video_10000-11000/video_10000"
    for path in list(place.iterdir()):
        Image.open(path).resize((48, 64)).save(path.with_suffix(".jpg"))
        path.unlink()
    frame = open_data(clevrer_card("frames"), data_root=root).reader[0].frames[3]
    assert frame.image.shape == (64, 48, 3) and frame.truth.labels.shape == (64, 48)
    small = small_videos()[0].objects[3]
    assert np.array_equal(frame.truth.labels[::2, ::3] > 0, small[:, ::2] > 0)


def test_where_the_objects_are(root: Path) -> None:
    """In the units of the plane, in the order of the labels; NaN out of view."""
    data = open_data(clevrer_card("frames"), data_root=root)
    for video, rendered in zip(data.reader, small_videos(), strict=True):
        world = rendered.world
        run, view = simulate(world), in_view(world, simulate(world).position)
        shown = [k for k in range(len(world.bodies)) if (rendered.objects == k + 1).any()]
        order = sorted(shown, key=lambda k: str(world.bodies[k].thing))
        for position in (0, 20, 55):
            locations = video.frames[position].truth.locations
            expected = np.where(view[position, order, None], run.position[position, order], np.nan)
            np.testing.assert_allclose(locations, expected, atol=1e-5)
    assert data.timing == {"seen_frames": 32, "stride": 1}


def annotation(root: Path, edit: Callable[[Any], Any]) -> None:
    path = root / "CLEVRER/annotations/val/annotation_10000-11000/annotation_10000.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_an_object_that_the_annotation_does_not_know_has_no_location(root: Path) -> None:
    """Proposals of a network may name a wrong colour."""
    before = open_data(clevrer_card("frames"), data_root=root).reader[0].frames[3].truth
    annotation(root, lambda content: content["object_property"][0].update(shape="cone"))
    after = open_data(clevrer_card("frames"), data_root=root).reader[0].frames[3].truth
    assert np.array_equal(before.labels, after.labels)
    assert np.isnan(after.locations).sum() - np.isnan(before.locations).sum() in (0, 2)
    unknown = [open_data(clevrer_card("frames"), data_root=root).reader[0].frames[t].truth for t in range(56)]
    assert any(np.isnan(frame.locations).all(axis=1).any() for frame in unknown)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda content: content["motion_trajectory"].pop(), "has 55 frames, the video has 56"),
        (lambda content: content["motion_trajectory"][3].update(frame_id=4), "has 56 frames, the video has 56"),
        (lambda content: content.pop("object_property"), r"is no annotation \(KeyError: 'object_property'\)"),
        (lambda content: content.update(motion_trajectory=3), r"is no annotation \(TypeError"),
        (lambda content: [one.update(location=["a", 0]) for one in content["motion_trajectory"][0]["objects"]], "no"),
        (lambda content: content["object_property"][0].pop("color"), r"is no annotation \(KeyError: 'color'\)"),
    ],
)
def test_a_broken_annotation_fails_its_video(root: Path, edit: Callable[[Any], Any], message: str) -> None:
    annotation(root, edit)
    data = open_data(clevrer_card("frames"), data_root=root)
    with pytest.raises(SampleError, match=message) as error:
        data.reader[0]
    assert "\n" not in str(error.value) and "annotation_10000.json" in str(error.value)
    assert len(data.reader[1]) == 56


def test_videos_without_annotations_have_no_locations(root: Path) -> None:
    before = open_data(clevrer_card("frames"), data_root=root).revision
    shutil.rmtree(root / "CLEVRER/annotations")
    (root / "CLEVRER/stand-in.json").unlink()
    data = open_data(clevrer_card("frames"), data_root=root)
    assert data.reader[0].frames[0].truth.locations is None and data.timing == {} and data.revision != before


@pytest.mark.parametrize("content", ["3", "{}", "nonsense", '{"seen_frames": 0, "stride": 1}'])
def test_a_broken_timing_is_refused(root: Path, content: str) -> None:
    (root / "CLEVRER/stand-in.json").write_text(content)
    with pytest.raises(UsageError, match=r"stand-in.json: is no timing of a stand-in .*; delete it"):
        open_data(clevrer_card("frames"), data_root=root)


def proposals(root: Path, edit: Callable[[Any], None]) -> None:
    path = root / "CLEVRER/derender_proposals/proposal_10000.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def first_object(content: Any) -> dict[str, Any]:
    entry: dict[str, Any] = next(frame["objects"][0] for frame in content["frames"] if frame["objects"])
    return entry


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda content: content["frames"][-1].update(frame_index=127), "has frame 127, the video has 56 frames"),
        (lambda content: content.pop("frames"), r"is no file of proposals \(KeyError: 'frames'\)"),
        (lambda content: content["frames"][0].update(objects=3), "'objects' of a frame is not a list"),
        (lambda content: first_object(content).pop("color"), "a proposal has no color, material or shape"),
        (lambda content: first_object(content)["mask"].update(counts="\x01"), "has a mask that cannot be decoded"),
        (lambda content: first_object(content).pop("mask"), "has a mask that cannot be decoded"),
        (lambda content: content["frames"].pop(0), "has no proposals of frame 0"),
    ],
)
def test_proposals_that_do_not_match_fail_their_video(root: Path, edit: Callable[[Any], None], message: str) -> None:
    proposals(root, edit)
    data = open_data(clevrer_card("frames"), data_root=root)
    with pytest.raises(SampleError, match=message) as error:
        list(data.reader[0].frames)
    assert "\n" not in str(error.value)
    assert len(list(data.reader[1].frames)) == 56


def test_masks_that_overlap_are_marked(root: Path) -> None:
    def double(content: Any) -> None:
        objects = content["frames"][40]["objects"]
        objects[1]["mask"] = objects[0]["mask"]

    proposals(root, double)
    labels = open_data(clevrer_card("frames"), data_root=root).reader[0].frames[40].truth.labels
    assert (labels == OVERLAP).any()


def test_what_is_missing_is_said(root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        DataMissingError, match=r"no questions/val.json or questions/validation.json; looked in .*empty"
    ):
        open_data(clevrer_card(), data_root=tmp_path / "empty")
    with pytest.raises(DataMissingError, match="no videos/val"):
        open_data(clevrer_card("frames"), data_root=tmp_path / "empty")
    (tmp_path / "bare/CLEVRER/videos/val/video_10000-11000").mkdir(parents=True)
    with pytest.raises(
        DataMissingError, match=r"no folder video_\*/video_NNNNN with frames, and no film video_NNNNN.mp4"
    ):
        open_data(clevrer_card("frames"), data_root=tmp_path / "bare")
    (root / "CLEVRER/derender_proposals/proposal_10001.json").unlink()
    with pytest.raises(SampleError, match=r"proposal_10001\.json: cannot be read"):
        open_data(clevrer_card("frames"), data_root=root).reader[1]
    with pytest.raises(UsageError, match="CLEVRER has the splits train and val, not 'test'"):
        open_data(clevrer_card(), data_root=root, split="test")


def film(place: Path) -> None:
    """Put a film in the place of a folder of frames."""
    av = pytest.importorskip("av")
    with av.open(str(place.with_suffix(".mp4")), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv444p"
        for path in sorted(place.iterdir()):
            container.mux(stream.encode(av.VideoFrame.from_image(Image.open(path))))
        container.mux(stream.encode())
    shutil.rmtree(place)


@pytest.mark.parametrize("content", ["frames", "questions"])
def test_films_are_read_as_folders_of_frames(root: Path, content: str) -> None:
    before = open_data(clevrer_card("frames"), data_root=root)
    frames = [sample.image for sample in before.reader[0].frames]
    truth = before.reader[0].frames[31].truth
    film(root / "CLEVRER/videos/val/video_10000-11000/video_10000")
    data = open_data(clevrer_card(content), data_root=root)
    assert data.ids == ("video_10000", "video_10001")
    video = data.reader[0] if content == "frames" else data.reader[0].video()
    assert video.names == tuple(f"{number:06d}" for number in range(56))
    for position in (40, 3):  # an earlier frame after a later one
        assert np.abs(video.frames[position].image.astype(int) - frames[position]).mean() < 3
    if content == "frames":
        assert data.revision != before.revision and np.array_equal(video.frames[31].truth.labels, truth.labels)
    else:
        assert video.frames[31].truth.questions == data.reader[0].truth.questions
    assert np.nansum(video.frames[31].truth.locations) == pytest.approx(np.nansum(truth.locations))


@pytest.mark.parametrize("content", ["frames", "questions"])
def test_a_broken_film_fails_its_video(root: Path, content: str) -> None:
    pytest.importorskip("av")
    place = root / "CLEVRER/videos/val/video_10000-11000/video_10000"
    shutil.rmtree(place)
    place.with_suffix(".mp4").write_bytes(b"no film")
    data = open_data(clevrer_card(content), data_root=root)
    with pytest.raises(
        SampleError, match=r"video_10000.mp4: cannot be decoded .*; extract or download the video again"
    ):
        data.reader[0] if content == "frames" else data.reader[0].video()


def test_the_video_of_a_question_has_no_masks_and_what_the_annotation_says(root: Path) -> None:
    sample = open_data(clevrer_card(), data_root=root).reader[1]
    frame = sample.video().frames[40]
    world = small_videos()[1].world
    run, view = simulate(world), in_view(world, simulate(world).position)
    order = sorted(range(len(world.bodies)), key=lambda k: KINDS.index(world.bodies[k].thing))
    expected = np.where(view[40, order, None], run.position[40, order], np.nan)
    np.testing.assert_allclose(frame.truth.locations, expected, atol=1e-5)
    assert [KINDS[number] for number in frame.truth.categories] == [world.bodies[k].thing for k in order]
    assert not frame.truth.labels.any() and np.array_equal(frame.image, small_videos()[1].frames[40])
    assert frame.truth.questions == sample.truth.questions


def test_an_annotation_of_another_kind_of_object_is_broken(root: Path) -> None:
    annotation(root, lambda content: content["object_property"][0].update(shape="cone"))
    with pytest.raises(SampleError, match=r"annotation_10000.json: is no annotation \(ValueError"):
        open_data(clevrer_card(), data_root=root).reader[0].video()


def test_the_broken_video_is_left_out(root: Path) -> None:
    place = root / "CLEVRER/videos/val/video_10000-11000"
    shutil.copytree(place / "video_10000", place / "video_10800")
    assert open_data(clevrer_card("frames"), data_root=root).ids == ("video_10000", "video_10001")


def test_other_truth_is_another_revision(root: Path) -> None:
    before = {content: open_data(clevrer_card(content), data_root=root).revision for content in ("questions", "frames")}
    video = next((root / "CLEVRER/videos").glob("*/*/*"))
    (video / "Thumbs.db").touch()
    assert open_data(clevrer_card("frames"), data_root=root).revision == before["frames"], "it is not read"
    path = root / "CLEVRER/questions/val.json"
    path.write_text(path.read_text().replace('"answer":"correct"', '"answer":"wrong"', 1))
    proposals(root, lambda content: first_object(content).update(color="gray"))
    for content, revision in before.items():
        assert open_data(clevrer_card(content), data_root=root).revision != revision

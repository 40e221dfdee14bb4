"""Videos of anybody: labels that keep their meaning over time, order of frames, options, and what may be wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from layout_trees import fault, save_palette
from PIL import Image
from video_layout_trees import all_frames, frame, moving_labels, open_with, record_opens, save_jpeg

from ocl_bench.core.errors import DataMissingError, SampleError, UsageError
from ocl_bench.core.types import Video
from ocl_bench.data.readers.frames import in_time
from ocl_bench.data.readers.video_folder import open_video_folder

SHAPE = (12, 20)


def write_video(
    root: Path, name: str, masks: list[np.ndarray], stems: list[str] | None = None, suffix: str = "jpg"
) -> None:
    """Frames of grey values that tell their number, and these masks: (H, W) numbers or (H, W, 3) colours."""
    for t, mask in enumerate(masks):
        stem = (stems or [f"f{t}" for t in range(len(masks))])[t]
        path = save_jpeg(root / "frames" / name / f"{stem}.{suffix}", frame(t, SHAPE))
        assert path.is_file()
        target = root / "masks" / name / f"{stem}.png"
        if mask.ndim == 3:
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(target)
        else:
            save_palette(target, mask)


def labels(video: Video) -> list[np.ndarray]:
    return [sample.truth.labels for sample in all_frames(video)]


def test_labels_are_ranked_over_the_whole_video(tmp_path: Path) -> None:
    write_video(tmp_path, "a", [moving_labels(t, SHAPE, (9, 4)) for t in range(3)])
    write_video(tmp_path, "b", [moving_labels(1, SHAPE, (200, 7))])
    data = open_with(open_video_folder, tmp_path, "test")
    assert data.kind == "supplied" and data.ids == ("a", "b") and "2 videos" in data.note
    found = labels(data.reader[0])
    for t, one in enumerate(found):
        assert np.array_equal(one, moving_labels(t, SHAPE, (2, 1))), "4 and 9 are 1 and 2, also where 4 is not seen"
    assert np.array_equal(labels(data.reader[1])[0], moving_labels(1, SHAPE, (1, 9))), "another video has its own ranks"


def test_ranks_do_not_depend_on_the_frame_that_is_read_first(tmp_path: Path) -> None:
    write_video(tmp_path, "a", [moving_labels(t, SHAPE, (9, 4)) for t in range(3)])
    forwards, backwards = (open_with(open_video_folder, tmp_path, "test").reader[0] for _ in range(2))
    expected = [sample.truth.labels for sample in forwards.frames]
    assert all(np.array_equal(backwards.frames[t].truth.labels, expected[t]) for t in (1, 2, 0))


def test_a_mask_with_a_new_number_after_the_first_frame_fails_its_video(tmp_path: Path) -> None:
    write_video(tmp_path, "a", [moving_labels(t, SHAPE, (9, 4)) for t in range(3)])
    video = open_with(open_video_folder, tmp_path, "test").reader[0]
    assert video.frames[0].truth.labels.max() == 2
    write_video(tmp_path, "a", [moving_labels(t, SHAPE, (9, 7)) for t in range(3)])
    with pytest.raises(SampleError, match=r"f2\.png: was changed while its video was read; evaluate again"):
        _ = video.frames[2]


def test_frames_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    stems = ["f1", "f2", "f10", "f20", "f100"]
    write_video(tmp_path, "a", [moving_labels(t, SHAPE) for t in range(5)], stems)
    video = open_with(open_video_folder, tmp_path, "test").reader[0]
    assert video.names == tuple(stems)
    assert [round(sample.image.mean()) for sample in video.frames] == [37 * t + 20 for t in range(5)]


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "png", "JPG"])
def test_kinds_of_frames(tmp_path: Path, suffix: str) -> None:
    write_video(tmp_path, "a", [moving_labels(0, SHAPE)], suffix=suffix)
    (tmp_path / "frames/a/.hidden.png").write_text("")
    (tmp_path / "frames/a/notes.txt").write_text("")
    (tmp_path / "frames/.git").mkdir()
    (tmp_path / "frames/readme.md").write_text("")
    data = open_with(open_video_folder, tmp_path, "test")
    assert data.ids == ("a",) and len(all_frames(data.reader[0])) == 1


def test_void_and_background_are_options(tmp_path: Path) -> None:
    mask = moving_labels(0, SHAPE, (3, 255))
    write_video(tmp_path, "a", [mask])
    default = labels(open_with(open_video_folder, tmp_path, "test").reader[0])[0]
    assert np.array_equal(default, np.select([mask == 255, mask == 3], [-1, 1], 0))
    plain = labels(open_with(open_video_folder, tmp_path, "test", void=None, background=None).reader[0])[0]
    assert np.array_equal(plain, np.select([mask == 255, mask == 3], [3, 2], 1))
    other = labels(open_with(open_video_folder, tmp_path, "test", void=0, background=3).reader[0])[0]
    assert np.array_equal(other, np.select([mask == 255, mask == 3], [1, 0], -1))


def test_colours_are_objects(tmp_path: Path) -> None:
    colours = np.array([[0, 0, 0], [10, 0, 9], [200, 3, 0], [255, 255, 255]], np.uint8)
    masks = [moving_labels(t, SHAPE) for t in range(2)]
    masks[1][11] = 3
    write_video(tmp_path, "a", [colours[mask] for mask in masks])
    options = {"void": (255, 255, 255), "background": (0, 0, 0)}
    found = labels(open_with(open_video_folder, tmp_path, "test", **options).reader[0])
    assert np.array_equal(found[0], np.array([0, 2, 1])[masks[0]]), "200 + 256 * 3 is less than 10 + 65536 * 9"
    assert np.array_equal(found[1], np.array([0, 2, 1, -1])[masks[1]])


def test_names_of_the_folders_and_lists_of_ids(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_video(tmp_path / "mine", name, [moving_labels(0, SHAPE)])
    (tmp_path / "mine/frames").rename(tmp_path / "mine/clips")
    (tmp_path / "mine/val.txt").write_text("c\n\na\n")
    options = {"folder": "mine", "images": "clips"}
    data = open_with(open_video_folder, tmp_path, "val", ids="{split}.txt", **options)
    assert data.ids == ("c", "a") and [len(video) for video in data.reader] == [1, 1]
    assert open_with(open_video_folder, tmp_path, "val", limit=2, **options).ids == ("a", "b")
    with pytest.raises(DataMissingError, match="list of ids cannot be read"):
        open_with(open_video_folder, tmp_path, "test", ids="{split}.txt", **options)
    with pytest.raises(DataMissingError, match="no folder with 'frames' and 'masks'"):
        open_with(open_video_folder, tmp_path, "val", folder="mine")
    for wrong in ({"images": "../x"}, {"masks": "/masks"}, {"ids": "a/../../b.txt"}):
        with pytest.raises(UsageError, match=r"data\.options\.\w+ '.*' must lie below data\.folder"):
            open_with(open_video_folder, tmp_path, "val", folder="mine", **wrong)
    with pytest.raises(UsageError, match=r"data\.options\.colour"):
        open_with(open_video_folder, tmp_path, "val", folder="mine", colour=1)
    with pytest.raises(UsageError, match="has no stand-in"):
        open_with(open_video_folder, None, "val", stand_in_seed=1)


def test_one_image_is_read_at_a_time_and_masks_once_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path, "a", [moving_labels(t, SHAPE) for t in range(4)])
    opened = record_opens(monkeypatch)
    video = open_with(open_video_folder, tmp_path, "test").reader[0]
    assert opened == []
    images = [tmp_path / f"frames/a/f{t}.jpg" for t in range(4)]
    masks = [tmp_path / f"masks/a/f{t}.png" for t in range(4)]
    assert len(video.frames) == 4 and video.frames[2].id == "a"
    assert opened == [images[2], *masks, masks[2]]
    assert video.frames[3].id == "a" and opened[6:] == [images[3], masks[3]]


def test_a_missing_file_fails_its_video_only(tmp_path: Path) -> None:
    for name in ("image", "mask", "frames", "masks", "none", "good"):
        write_video(tmp_path, name, [moving_labels(t, SHAPE) for t in range(3)])
    for path in ("frames/image/f1.jpg", "masks/mask/f1.png"):
        (tmp_path / path).unlink()
    for folder in ("frames/frames", "masks/masks", "frames/none", "masks/none"):
        for path in (tmp_path / folder).iterdir():
            path.unlink()
    (tmp_path / "frames/frames").rmdir()
    reader = open_with(open_video_folder, tmp_path, "test").reader
    assert reader.ids == ("frames", "good", "image", "mask", "masks", "none")
    for index, expected in {
        0: "frames/frames/f0.jpg: image file is missing",
        2: "frames/image/f1.jpg: image file is missing",
        3: "masks/mask/f1.png: mask file is missing",
        4: "masks/masks/f0.png: mask file is missing",
        5: "video without frames",
    }.items():
        assert expected in fault(lambda index=index: list(reader[index].frames), reader.ids[index])
    assert len(all_frames(reader[1])) == 3


def test_contradictions_are_one_line(tmp_path: Path) -> None:
    masks = [moving_labels(t, SHAPE) for t in range(2)]
    for name in ("colour", "cut", "mask", "option", "size", "twice"):
        write_video(tmp_path, name, masks)
    Image.fromarray(frame(1, SHAPE)).save(tmp_path / "masks/colour/f1.png")
    (tmp_path / "frames/cut/f1.jpg").write_bytes((tmp_path / "frames/cut/f1.jpg").read_bytes()[:300])
    save_palette(tmp_path / "masks/mask/f1.png", moving_labels(1, (12, 22)))
    save_jpeg(tmp_path / "frames/size/f1.jpg", frame(1, (14, 20)))
    save_jpeg(tmp_path / "frames/twice/f1.png", frame(1, SHAPE))
    reader = open_with(open_video_folder, tmp_path, "test").reader
    expected = {
        "colour": "colours and numbers in the masks of one video",
        "cut": "image cannot be read",
        "mask": "mask size 22x12, its image 20x12",
        "size": "mask size 20x12, its image 20x14",
        "twice": "'f1.jpg' and 'f1.png' are one frame",
    }
    for name, text in expected.items():
        position = reader.ids.index(name)
        assert text in fault(lambda position=position: list(reader[position].frames), name)
    coloured = open_with(open_video_folder, tmp_path, "test", background=(0, 0, 0)).reader
    position = reader.ids.index("option")
    assert "is a colour, but the mask holds numbers" in fault(lambda: coloured[position].frames[0], "option")


def test_frames_of_another_size_with_masks_that_fit_them(tmp_path: Path) -> None:
    write_video(tmp_path, "a", [moving_labels(t, SHAPE) for t in range(2)])
    save_jpeg(tmp_path / "frames/a/f1.jpg", frame(1, (14, 22)))
    save_palette(tmp_path / "masks/a/f1.png", moving_labels(1, (14, 22)))
    video = open_with(open_video_folder, tmp_path, "test").reader[0]
    assert "size 22x14, its image 20x12; a video has one size" in fault(lambda: list(video.frames), "a")


def test_large_numbers_are_ranked(tmp_path: Path) -> None:
    write_video(tmp_path, "a", [moving_labels(t, SHAPE, (9, 4)) for t in range(2)])
    for t in range(2):
        Image.fromarray(moving_labels(t, SHAPE).astype(np.uint16) * 20_000).save(tmp_path / f"masks/a/f{t}.png")
    for t, one in enumerate(labels(open_with(open_video_folder, tmp_path, "test").reader[0])):
        assert one.dtype == np.int16 and np.array_equal(one, moving_labels(t, SHAPE)), "40000 is the second object"


def test_too_many_objects(tmp_path: Path) -> None:
    masks = [moving_labels(0, SHAPE), moving_labels(0, SHAPE, (3, 255))]
    write_video(tmp_path, "a", masks)
    assert len(all_frames(open_with(open_video_folder, tmp_path, "test", max_objects=3).reader[0])) == 2
    video = open_with(open_video_folder, tmp_path, "test", max_objects=2).reader[0]
    assert "more than 2 objects in the video" in fault(lambda: video.frames[0], "a")


def test_revision_follows_the_files(tmp_path: Path) -> None:
    write_video(tmp_path, "a", [moving_labels(t, SHAPE) for t in range(2)])
    first = open_with(open_video_folder, tmp_path, "test").revision
    assert first.startswith("supplied-") and first == open_with(open_video_folder, tmp_path, "test").revision
    for kind in ("frames", "masks"):
        (tmp_path / kind / "a/Thumbs.db").touch()
    assert open_with(open_video_folder, tmp_path, "test").revision == first, "it is not read"
    (tmp_path / "masks/a/f1.png").unlink()
    assert open_with(open_video_folder, tmp_path, "test").revision != first


def test_no_video(tmp_path: Path) -> None:
    for kind in ("frames", "masks"):
        (tmp_path / kind).mkdir()
    with pytest.raises(
        DataMissingError, match="no folder of frames in it; put the frames of each video into a folder of its own"
    ):
        open_with(open_video_folder, tmp_path, "test")


def test_formats_capitals_and_what_is_not_read(tmp_path: Path) -> None:
    write_video(tmp_path, "a", [moving_labels(t, SHAPE) for t in range(2)], suffix="JPG")
    write_video(tmp_path, "b", [moving_labels(t, SHAPE) for t in range(2)], suffix="bmp")
    (tmp_path / "masks/a/f1.png").rename(tmp_path / "masks/a/f1.PNG")
    (tmp_path / "frames/a/film.mp4").touch()
    (tmp_path / "frames/f0.jpg").touch()
    data = open_with(open_video_folder, tmp_path, "test")
    assert all(np.array_equal(one, moving_labels(t, SHAPE)) for v in data.reader for t, one in enumerate(labels(v)))
    assert "not read: 2 files or folders (frames/a/film.mp4, frames/f0.jpg)" in data.note


def test_number_255_is_an_object_where_a_mask_of_the_video_has_larger_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = np.full(SHAPE, 255, np.uint16), np.full(SHAPE, 300, np.uint16)
    write_video(tmp_path, "a", [np.zeros(SHAPE, np.uint8)] * 2)
    for name, mask in (("f0", first), ("f1", second)):
        Image.fromarray(mask).save(tmp_path / f"masks/a/{name}.png")
    found = labels(open_with(open_video_folder, tmp_path, "test").reader[0])
    assert (found[0] == 1).all() and (found[1] == 2).all()
    assert "255 is read as an object" in caplog.text


@pytest.mark.parametrize(
    "names",
    [
        ["-10", "-5", "-1", "0", "3", "12"],
        ["t_-2", "t_-1", "t_0", "t_10"],
        ["take-1", "take-2", "take-10"],
        ["2020-01-05", "2020-01-06", "2020-02-01"],
        ["08", "09", "0a", "0b", "0f", "10", "1a"],
        ["8", "9", "a", "b", "c", "d", "e", "f", "10"],
        ["00FE", "00FF", "0100"],
        ["a1", "a2", "a10", "b1"],
        ["1", "2", "10"],
    ],
)
def test_names_of_every_kind_of_number_are_in_order(names: list[str]) -> None:
    assert in_time(reversed(names)) == names

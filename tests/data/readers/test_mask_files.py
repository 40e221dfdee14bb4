"""Masks as arrays and run-length codes say the same as PNG; what cannot be a mask is refused with the reason."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layout_trees import card, compressed, save_image, save_picture, uncompressed
from modern_trees import video_card
from PIL import Image
from video_layout_trees import all_frames, frame, moving_labels, open_with, save_jpeg

from ocl_bench.core.errors import SampleError, UsageError
from ocl_bench.data import OpenData, open_data
from ocl_bench.data.readers.video_folder import open_video_folder

CODES = np.zeros((20, 30), np.uint8)
CODES[2:10, 2:10], CODES[12:18, 5:25] = 1, 2
LAYERS = np.stack([CODES == 1, CODES == 2])


def open_one(root: Path) -> OpenData:
    return open_data(card(reader="folder", folder=str(root)))


def write(root: Path, suffix: str, content: Any, **names: Any) -> OpenData:
    save_image(root / "images/a.png", CODES.shape)
    (root / "masks").mkdir(exist_ok=True)
    path = root / f"masks/a{suffix}"
    if suffix == ".npy":
        np.save(path, content, allow_pickle=True)
    elif suffix == ".npz":
        np.savez_compressed(path, **(names or {"mask": content}))
    else:
        path.write_text(json.dumps(content))
    return open_one(root)


KINDS: dict[str, tuple[str, Any]] = {
    "map": (".npy", CODES),
    "large numbers": (".npy", CODES.astype(np.int64) * 1000),
    "one channel": (".npy", CODES[..., None]),
    "layers": (".npy", LAYERS),
    "compressed": (".npz", CODES),
    "codes": (".json", [compressed((k == CODES).astype(np.uint8)) for k in (1, 2)]),
    "runs": (".json", [uncompressed((k == CODES).astype(np.uint8)) for k in (1, 2)]),
    "segment anything": (".json", [{"segmentation": compressed((k == CODES).astype(np.uint8))} for k in (1, 2)]),
    "SA-1B": (".json", {"annotations": [{"segmentation": compressed((k == CODES).astype(np.uint8))} for k in (1, 2)]}),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_that_of_the_png(tmp_path: Path, kind: str) -> None:
    save_image(tmp_path / "png/images/a.png", CODES.shape)
    save_picture(tmp_path / "png/masks/a.png", CODES)
    expected = open_one(tmp_path / "png").reader[0]
    data = write(tmp_path / "other", *KINDS[kind])
    assert data.ids == ("a",) and "not read" not in data.note
    assert np.array_equal(data.reader[0].truth.labels, expected.truth.labels)
    assert np.array_equal(data.reader[0].image, expected.image)


def test_an_empty_list_is_an_image_without_objects(tmp_path: Path) -> None:
    assert not write(tmp_path, ".json", []).reader[0].truth.labels.any()


@pytest.mark.parametrize(
    ("suffix", "content", "reason"),
    [
        (".npy", CODES / 2, "expected whole numbers"),
        (".npy", CODES[::2], r"its shape is \(10, 30\), its image has \(20, 30\)"),
        (".npy", np.stack([CODES, CODES]), "layers must be booleans"),
        (".npy", np.stack([CODES > 0, CODES > 1]), "108 pixels belong to several objects|120 pixels"),
        (".npy", np.array([{}]), "Object arrays cannot be loaded"),
        (".json", [compressed(CODES[::2] // 2)], "size"),
        (".json", [{"segmentation": None}], "no run-length code"),
        (".json", [[1, 2, 3]], "polygon"),
        (".json", "text", "segmentation is"),
    ],
)
def test_what_is_no_mask_fails_its_sample(tmp_path: Path, suffix: str, content: Any, reason: str) -> None:
    data = write(tmp_path, suffix, content)
    with pytest.raises(SampleError, match=reason) as caught:
        data.reader[0]
    assert "\n" not in str(caught.value)


def test_an_npz_of_several_arrays_needs_a_name(tmp_path: Path) -> None:
    data = write(tmp_path, ".npz", None, depth=CODES, labels=CODES)
    assert data.reader[0].truth.labels.max() == 2
    with pytest.raises(SampleError, match="it has the arrays depth, other; call one of them mask"):
        write(tmp_path, ".npz", None, depth=CODES, other=CODES).reader[0]


@pytest.mark.parametrize("damaged", [b"", b"no array", b"PK\x03\x04"])
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".json"])
def test_a_damaged_file_fails_its_sample(tmp_path: Path, suffix: str, damaged: bytes) -> None:
    data = write(tmp_path, suffix, [] if suffix == ".json" else CODES)
    (tmp_path / f"masks/a{suffix}").write_bytes(damaged)
    with pytest.raises(SampleError, match="mask cannot be read"):
        data.reader[0]


def test_jpeg_is_refused_with_the_reason(tmp_path: Path) -> None:
    save_image(tmp_path / "images/a.png", CODES.shape)
    save_picture(tmp_path / "masks/a.jpg", CODES)
    with pytest.raises(SampleError, match=r"masks/a\.jpg: is a JPEG, which blurs the numbers"):
        open_one(tmp_path).reader[0]


def test_an_edited_array_is_another_revision(tmp_path: Path) -> None:
    assert write(tmp_path, ".npy", CODES).revision != write(tmp_path, ".npy", np.roll(CODES, 1)).revision


def write_video_file(path: Path, frames: list[np.ndarray], codec: str = "ffv1", pixels: str = "bgr0") -> None:
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=12)
        stream.height, stream.width, stream.pix_fmt = frames[0].shape[0], frames[0].shape[1], pixels
        for one in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(one, format="rgb24")))
        container.mux(stream.encode())


SHAPE = (16, 32)


def write_masks(root: Path, count: int = 4) -> None:
    for t in range(count):
        save_picture(root / f"masks/a/{t:05d}.png", moving_labels(t, SHAPE))


@pytest.mark.parametrize("suffix", [".mkv", ".avi"])
def test_a_video_file_is_that_of_its_frames(tmp_path: Path, suffix: str) -> None:
    frames = [frame(t, SHAPE) for t in range(4)]
    write_video_file(tmp_path / f"file/frames/a{suffix}", frames)
    for root in (tmp_path / "file", tmp_path / "folder"):
        write_masks(root)
    for t, one in enumerate(frames):
        save_picture(tmp_path / f"folder/frames/a/{t:05d}.png", one)
    data, expected = (open_with(open_video_folder, tmp_path / name, "test") for name in ("file", "folder"))
    assert data.ids == expected.ids and "not read" not in data.note
    for first, second in zip(all_frames(data.reader[0]), all_frames(expected.reader[0]), strict=True):
        assert np.array_equal(first.image, second.image), "this codec loses nothing"
        assert np.array_equal(first.truth.labels, second.truth.labels)
    video = data.reader[0]
    for t in (3, 0, 2, 2):
        assert np.array_equal(video.frames[t].image, frames[t]), "in any order"


def write_gif(path: Path, frames: list[Image.Image], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    return path


@pytest.mark.parametrize("times", [{}, {"duration": 0}, {"duration": [100, 0, 40, 0, 20, 0]}])
def test_every_frame_of_a_gif_is_read(tmp_path: Path, times: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without times, and without the package `av`."""
    monkeypatch.setitem(sys.modules, "av", None)
    pictures = []
    for t in range(6):
        pixels = np.zeros((*SHAPE, 3), np.uint8)
        pixels[2:9, 1 + 2 * t : 6 + 2 * t] = (250, 10 * t, 30)
        pictures.append(Image.fromarray(pixels))
    path = write_gif(tmp_path / "frames/a.gif", pictures, **times)
    assert path.read_bytes()[:6] == (b"GIF89a" if times.get("duration") else b"GIF87a")
    write_masks(tmp_path, 6)
    video = open_with(open_video_folder, tmp_path, "test").reader[0]
    for t in (0, 1, 2, 3, 4, 5, 2, 0):
        assert np.array_equal(video.frames[t].image, np.asarray(pictures[t])), f"frame {t}"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(SampleError, match=r"a\.gif: (cannot be decoded|5 frames, 6 masks)"):
        open_with(open_video_folder, tmp_path, "test").reader[0]


@pytest.mark.parametrize("disposal", [0, 1, 2, 3])
def test_frames_of_a_gif_are_drawn_over_the_ones_before(tmp_path: Path, disposal: int) -> None:
    """Each frame is a small square that is else transparent; its disposal says what stays of it."""
    palette = [0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255]
    content = bytearray(b"GIF89a" + struct.pack("<HHBBB", SHAPE[1], SHAPE[0], 0xF1, 0, 0) + bytes(palette))
    expected = []
    canvas = np.zeros((*SHAPE, 3), np.uint8)
    for t in range(3):
        # A frame of 4x4 pixels, of which the left half is transparent; 0 is the transparent number after the first.
        pixels = np.full((4, 4), t + 1, np.uint8) if t == 0 else np.repeat([[0, 0, t + 1, t + 1]], 4, 0)
        left = 3 * t
        method = disposal if t else min(disposal, 1)  # programs differ on what was there before the first frame
        content += b"!\xf9\x04" + struct.pack("<BHBB", method << 2 | (t > 0), 10, 0, 0)
        content += b"," + struct.pack("<HHHHB", left, 2, 4, 4, 0) + b"\x02"
        # Without compression: a clear code (4) before each pair of pixels keeps all codes at 3 bits.
        codes = [code for row in pixels.reshape(-1, 2).tolist() for code in (4, *row)] + [5]
        bits = sum(code << 3 * k for k, code in enumerate(codes))
        packed = bits.to_bytes((3 * len(codes) + 7) // 8, "little")
        content += bytes([len(packed)]) + packed + b"\0"
        shown = canvas.copy()
        window = shown[2:6, left : left + 4]
        window[pixels > 0] = np.reshape(palette, (4, 3))[pixels[pixels > 0]]
        expected.append(shown)
        if method < 2:
            canvas = shown
        elif method == 2:
            canvas = shown.copy()
            canvas[2:6, left : left + 4] = 0
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames/a.gif").write_bytes(content + b";")
    write_masks(tmp_path, 3)
    video = open_with(open_video_folder, tmp_path, "test").reader[0]
    for t in (0, 1, 2, 1):
        assert np.array_equal(video.frames[t].image, expected[t]), f"frame {t}"


@pytest.mark.parametrize(("suffix", "codec", "pixels"), [(".mp4", "mpeg4", "yuv420p"), (".gif", "gif", "rgb8")])
def test_lossy_files_are_near(tmp_path: Path, suffix: str, codec: str, pixels: str) -> None:
    frames = [frame(t, SHAPE) for t in range(4)]
    write_video_file(tmp_path / f"frames/a{suffix}", frames, codec, pixels)
    write_masks(tmp_path)
    found = all_frames(open_with(open_video_folder, tmp_path, "test").reader[0])
    assert len(found) == 4
    assert all(np.abs(one.image.astype(int) - frames[t]).mean() < 40 for t, one in enumerate(found))


def test_what_is_wrong_with_a_video_file(tmp_path: Path) -> None:
    frames = [frame(t, SHAPE) for t in range(4)]
    write_video_file(tmp_path / "frames/a.mkv", frames)
    write_masks(tmp_path, 3)
    with pytest.raises(SampleError, match=r"a\.mkv: 4 frames, 3 masks; give one for each frame"):
        open_with(open_video_folder, tmp_path, "test").reader[0]
    first = open_with(open_video_folder, tmp_path, "test").revision
    write_masks(tmp_path, 4)
    assert open_with(open_video_folder, tmp_path, "test").revision != first
    save_jpeg(tmp_path / "frames/a/00000.jpg", frames[0])
    with pytest.raises(SampleError, match=r"'a\.mkv' and a folder of frames are one video"):
        open_with(open_video_folder, tmp_path, "test").reader[0]
    (tmp_path / "frames/a/00000.jpg").unlink()
    (tmp_path / "frames/a.mkv").write_bytes(b"no video" * 100)
    with pytest.raises(SampleError, match=r"a\.mkv: cannot be decoded"):
        open_with(open_video_folder, tmp_path, "test").reader[0]


def labelme(*shapes: dict[str, Any], height: int | None = 20, width: int | None = 30) -> dict[str, Any]:
    """The file that LabelMe saves for an image (its keys from memory)."""
    return {
        "version": "5.4.1", "flags": {}, "shapes": list(shapes), "imagePath": "a.png", "imageData": None,
        "imageHeight": height, "imageWidth": width,
    }  # fmt: skip


def shape(label: str, *points: tuple[float, float], kind: str = "polygon", group: int | None = None) -> dict[str, Any]:
    return {"label": label, "points": list(points), "group_id": group, "shape_type": kind, "flags": {}}


def box(left: int, top: int, right: int, bottom: int) -> tuple[tuple[int, int], ...]:
    """The corners of the pixels of a rectangle, whose last row and column belong to it."""
    return (left, top), (right - 1, top), (right - 1, bottom - 1), (left, bottom - 1)


def test_shapes_of_labelme_are_objects(tmp_path: Path) -> None:
    """In one folder with the images, as LabelMe saves them; later shapes over earlier ones, groups joined."""
    expected = np.zeros(CODES.shape, np.int16)
    expected[2:10, 2:10], expected[4:8, 4:6] = 1, 2
    expected[12:18, 5:15] = expected[12:18, 20:25] = 3
    expected[0:3, 27:30] = -1
    y, x = np.indices(CODES.shape)
    distance = np.hypot(y - 5, x - 20)
    expected[distance <= 3.5] = 4
    content = labelme(
        shape("cat", *box(2, 2, 10, 10)),
        shape("cat", (5, 7), (4, 4), kind="rectangle"),
        shape("dog", *box(5, 12, 15, 18), group=7),
        shape("ball", (20, 5), (23, 5), kind="circle"),
        shape("dog", *box(20, 12, 25, 18), group=7),
        shape("__ignore__", *box(27, 0, 30, 3)),
    )
    save_image(tmp_path / "photos/a.png", CODES.shape)
    (tmp_path / "photos/a.json").write_text(json.dumps(content))
    options = {"images": "photos", "masks": "photos"}
    data = open_data(card(reader="folder", folder=str(tmp_path), options=options))
    labels = data.reader[0].truth.labels
    assert data.ids == ("a",) and "not read" not in data.note
    sure = (distance <= 2.5) | (distance > 3.5)  # of the border of a circle, Pillow decides
    assert np.array_equal(labels[sure], expected[sure])


def test_groups_of_other_labels_and_shapes_without_group_are_apart(tmp_path: Path) -> None:
    corners = box(2, 2, 5, 5), box(6, 2, 9, 5), box(10, 2, 13, 5)
    shapes = [shape("a", *corners[0], group=1), shape("b", *corners[1], group=1), shape("a", *corners[2])]
    labels = write(tmp_path, ".json", labelme(*shapes, height=None, width=None)).reader[0].truth.labels
    assert [labels[3, column] for column in (3, 7, 11)] == [1, 2, 3]
    assert not write(tmp_path, ".json", labelme()).reader[0].truth.labels.any()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (labelme(shape("wire", (1, 1), (9, 9), kind="linestrip")), "'wire' is a linestrip of 2 points; only polygons"),
        (labelme(shape("cat", (1, 1), (9, 9))), "'cat' is a polygon of 2 points"),
        (labelme(shape("cat", *box(1, 1, 5, 5)), height=30), "of an image of 30x30, the image has 30x20"),
        (labelme(shape("cat", (1, 1), (9, 9), (1e9, 2))), "is not x, y of at most 1,000,000"),
        (labelme({"label": "cat"}), "'points'"),
        ({"shapes": 7}, "mask cannot be read"),
        (labelme(*[shape("cat", *box(1, 1, 5, 5))] * 255), "255 objects, at most 254"),
    ],
)
def test_what_labelme_cannot_mean_is_refused(tmp_path: Path, content: Any, said: str) -> None:
    data = write(tmp_path, ".json", content)
    with pytest.raises(SampleError) as caught:
        _ = data.reader[0]
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_photograph_is_never_its_own_mask(tmp_path: Path) -> None:
    """Images and masks in one folder: without a mask the sample fails."""
    save_image(tmp_path / "photos/a.png", CODES.shape)
    options = {"images": "photos", "masks": "./photos"}
    data = open_data(card(reader="folder", folder=str(tmp_path), options=options))
    with pytest.raises(SampleError, match="mask file is missing"):
        _ = data.reader[0]
    save_image(tmp_path / "videos/v/0.png", CODES.shape)
    options = {"images": "videos", "masks": "videos"}
    with pytest.raises(UsageError, match="a frame would be its own mask"):
        open_data(video_card(reader="video-folder", folder=str(tmp_path), split="val", options=options))

"""LMDB files of DIAS and its sisters, written as their converters do: equal to the official files."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layout_trees import card, save_image, save_picture, write_clevrtex, write_json
from modern_trees import arrays, image_file, opencv, same_sample, same_truth, same_video, video_card, write_lmdb
from pickles_with_code import Touching
from PIL import Image
from video_layout_trees import all_frames, write_movi

from ocl_bench.core.errors import DataMissingError, SampleError, UsageError
from ocl_bench.data import OpenData, open_data

pytest.importorskip("lmdb")

VOID_COLOUR = (224, 224, 192)


def put(path: Path, key: bytes, value: bytes) -> None:
    """Write one value into an LMDB file."""
    import lmdb

    with (
        lmdb.open(str(path), map_size=1 << 26, subdir=False, lock=False) as environment,
        environment.begin(write=True) as transaction,
    ):
        transaction.put(key, value)


def codes(rgb: np.ndarray) -> np.ndarray:
    """Codes of colours as the converters compute them."""
    return np.asarray((rgb.astype(np.int64) * [[[1, 256, 65536]]]).sum(2).astype("int32"))


def ranked(rgb: np.ndarray) -> np.ndarray:
    return np.unique(codes(rgb), return_inverse=True)[1].reshape(rgb.shape[:2]).astype(np.uint8)


def open_clevrtex(root: Path, variant: str = "full", split: str = "all", limit: int | None = None) -> OpenData:
    task = card(reader="clevrtex", folder=f"clevrtex_{variant}", variant=variant, split=split)
    return open_data(task, data_root=root, limit=limit)


def clevrtex_samples(root: Path, variant: str) -> list[dict[str, Any]]:
    """All scenes in the order of their sorted paths: image as it is, colours of the mask ranked."""
    samples = []
    for path in sorted((root / f"clevrtex_{variant}").glob("**/*_flat.png")):
        with Image.open(path) as picture:
            segment = ranked(np.asarray(picture.convert("RGB")))
        image = path.with_name(path.name.replace("_flat", "")).read_bytes()
        samples.append({"image": image, "segment": opencv(segment, "webp"), "depth": opencv(segment, "webp")})
    return samples


@pytest.mark.parametrize(("variant", "name"), [("full", "train"), ("outd", "val")])
def test_clevrtex(tmp_path: Path, variant: str, name: str) -> None:
    write_clevrtex(tmp_path / "official", [0, 1, 2], variant)
    write_lmdb(tmp_path / f"converted/clevrtex/{name}.lmdb", clevrtex_samples(tmp_path / "official", variant))
    official, data = open_clevrtex(tmp_path / "official", variant), open_clevrtex(tmp_path / "converted", variant)
    assert data.ids == official.ids and data.kind == "official" and "LMDB file" in data.note
    for first, second in zip(official.reader, data.reader, strict=True):
        assert first.id == second.id
        same_sample(first, second)
    assert open_clevrtex(tmp_path / "converted", variant, limit=2).ids == official.ids[:2]


def test_splits_of_clevrtex_follow_from_the_order(tmp_path: Path) -> None:
    """Shards are sorted as text: 0, 1, 10, 11, .., 2; the test split is the shards 0 to 4."""
    with_one = pickle.dumps({"image": b"", "segment": b"", "depth": b""})
    write_lmdb(tmp_path / "train.lmdb", [with_one] * 12_001)
    data = open_clevrtex(tmp_path, split="test")
    test = data.ids
    assert "PARTIAL download, 2999 of 5000 scenes are missing (shards 2, 3, 4)" in data.note
    assert len(test) == 2001 and test[0] == "CLEVRTEX_full_000000" and test[-1] == "CLEVRTEX_full_002000"
    train = open_clevrtex(tmp_path, split="train").ids
    assert train[0] == "CLEVRTEX_full_010000" and len(train) == 10_000


def colour_map() -> list[int]:
    """The palette of VOC: bits of the number spread over the colours; 255 is (224, 224, 192)."""
    palette = []
    for number in range(256):
        for channel in range(3):
            palette.append(sum(((number >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(8)))
    return palette


def write_voc_masks(root: Path, year: int, names: list[str]) -> None:
    palette = colour_map()
    assert tuple(palette[255 * 3 :]) == VOID_COLOUR
    folder = root / f"VOCdevkit/VOC{year}"
    for number, name in enumerate(names):
        labels = np.zeros((20, 30), np.uint8)
        labels[3:9, 2:12], labels[11:18, 15:28] = 1 + number, 9
        labels[9, 2:12] = labels[3:9, 12] = 255
        picture = Image.fromarray(labels)
        picture.putpalette(palette)
        (folder / "SegmentationObject").mkdir(parents=True, exist_ok=True)
        picture.save(folder / f"SegmentationObject/{name}.png")
        save_image(folder / f"JPEGImages/{name}.jpg", labels.shape, value=60 + number)


def voc_samples(root: Path, year: int, *, old: bool = False) -> list[dict[str, Any]]:
    """What the converter makes of a year; `old`: that of before v3, which made lines and background one number."""
    folder, samples = root / f"VOCdevkit/VOC{year}", []
    for path in sorted((folder / "SegmentationObject").iterdir()):
        with Image.open(path) as picture:
            rgb = np.array(picture.convert("RGB"))
        lines = (rgb == VOID_COLOUR).all(-1)
        if old:
            rgb[lines] = 0
            segment = ranked(rgb)
        else:
            segment = np.zeros(lines.shape, np.uint8)
            for number, code in enumerate(np.unique(codes(rgb)[~lines]), start=1):
                segment[codes(rgb) == code] = number
        image = (folder / f"JPEGImages/{path.stem}.jpg").read_bytes()
        samples.append({"image": image, "segment": opencv(segment, "webp")})
    return samples


def open_voc(root: Path, year: int = 2007, **options: Any) -> OpenData:
    more = {"year": year, "truth": "instances", **options}
    return open_data(card(reader="voc", folder="VOCdevkit", split="all-masks", options=more), data_root=root)


@pytest.mark.parametrize(("year", "name"), [(2007, "val"), (2012, "train")])
def test_voc(tmp_path: Path, year: int, name: str) -> None:
    write_voc_masks(tmp_path / "official", year, ["2007_000032", "2007_000033", "2011_3"])
    write_lmdb(tmp_path / f"converted/voc/{name}.lmdb", voc_samples(tmp_path / "official", year))
    official, data = open_voc(tmp_path / "official", year), open_voc(tmp_path / "converted", year)
    assert data.ids == ("000000", "000001", "000002"), "the file has no names"
    for first, second in zip(official.reader, data.reader, strict=True):
        same_sample(first, second, renumbered=True)
        assert (first.truth.labels == -1).any()


def test_voc_of_before_v3_is_refused(tmp_path: Path) -> None:
    write_voc_masks(tmp_path, 2007, ["2007_000032"])
    write_lmdb(tmp_path / "converted/voc/val.lmdb", voc_samples(tmp_path, 2007, old=True))
    with pytest.raises(UsageError, match=r"number 0: that is background in files of before v3"):
        open_voc(tmp_path / "converted")


SEGMENTS = {7: 1, 300: 92, 70_000: 3, 70_001: 93}
"""Id of each segment and its category, of which those above 91 are stuff."""


def panoptic_map(number: int) -> np.ndarray:
    found = np.zeros((20, 30), np.int64)
    for place, code in enumerate(SEGMENTS):
        found[2:18, 1 + 7 * place : 7 + 7 * place + number] = code
    return found


def write_panoptic(root: Path, images: int) -> None:
    categories = [{"id": k, "name": str(k), "isthing": int(k < 92)} for k in (1, 3, 92, 93)]
    listed, annotations = [], []
    for number in range(images):
        name, found = f"{139 + number:012d}", panoptic_map(number)
        save_image(root / f"coco/val2017/{name}.jpg", found.shape, value=70 + number)
        rgb = np.stack([found % 256, found // 256 % 256, found // 65536], -1).astype(np.uint8)
        save_picture(root / f"coco/annotations/panoptic_val2017/{name}.png", rgb)
        listed.append({"id": 139 + number, "file_name": f"{name}.jpg", "height": 20, "width": 30})
        entries = [{"id": code, "category_id": kind} for code, kind in SEGMENTS.items()]
        annotations.append({"image_id": 139 + number, "file_name": f"{name}.png", "segments_info": entries})
    content = {"images": listed, "annotations": annotations, "categories": categories}
    write_json(root / "coco/annotations/panoptic_val2017.json", content)


def coco_samples(root: Path, images: int) -> list[dict[str, Any]]:
    samples = []
    for number in range(images):
        found, segment = panoptic_map(number), np.zeros((20, 30), np.uint8)
        for rank, code in enumerate(sorted(SEGMENTS), start=1):
            segment[found == code] = rank
        kinds = np.array([SEGMENTS[code] for code in sorted(SEGMENTS)], "uint8")
        image = (root / f"coco/val2017/{139 + number:012d}.jpg").read_bytes()
        sample = {"image": image, "segment": opencv(segment, "webp"), "clazz": kinds, "isthing": kinds < 92}
        samples.append(sample)
    return samples


def open_coco(root: Path, **options: Any) -> OpenData:
    return open_data(card(reader="coco", folder="coco", split="val", options=options), data_root=root)


@pytest.mark.parametrize("stuff", ["merged", "segments"])
def test_coco(tmp_path: Path, stuff: str) -> None:
    write_panoptic(tmp_path / "official", 3)
    write_lmdb(tmp_path / "converted/coco/val.lmdb", coco_samples(tmp_path / "official", 3))
    official = open_coco(tmp_path / "official", annotations="panoptic", stuff=stuff)
    data = open_coco(tmp_path / "converted", annotations="panoptic", stuff=stuff)
    assert data.ids == ("000000", "000001", "000002")
    for first, second in zip(official.reader, data.reader, strict=True):
        same_sample(first, second)
        assert first.truth.categories == second.truth.categories and (first.truth.labels == -1).any()


def test_a_reader_can_be_sent_to_another_process(tmp_path: Path) -> None:
    write_panoptic(tmp_path, 1)
    write_lmdb(tmp_path / "converted/coco/val.lmdb", coco_samples(tmp_path, 1))
    reader = open_coco(tmp_path / "converted", annotations="panoptic").reader
    same_sample(pickle.loads(pickle.dumps(reader))[0], reader[0])


def test_other_annotations_of_coco_are_not_in_the_file(tmp_path: Path) -> None:
    write_panoptic(tmp_path, 1)
    write_lmdb(tmp_path / "converted/coco/val.lmdb", coco_samples(tmp_path, 1))
    with pytest.raises(DataMissingError, match="no folder 'annotations'"):
        open_coco(tmp_path / "converted", annotations="instances")
    with pytest.raises(UsageError, match="has no names of images"):
        open_coco(tmp_path / "converted", annotations="panoptic", ids="list.txt")


def test_coco_of_before_v3_is_refused(tmp_path: Path) -> None:
    write_panoptic(tmp_path, 1)
    samples = [{name: one[name] for name in ("image", "segment", "clazz")} for one in coco_samples(tmp_path, 1)]
    write_lmdb(tmp_path / "converted/coco/val.lmdb", samples)
    data = open_coco(tmp_path / "converted", annotations="panoptic")
    with pytest.raises(SampleError, match=r"'isthing' is missing.*before v3"):
        data.reader[0]


def open_movi(root: Path, size: int = 128) -> OpenData:
    options = {"dataset": "movi_c", "size": size}
    return open_data(video_card(reader="movi", folder="movi_c", split="validation", options=options), data_root=root)


@pytest.mark.parametrize("name", ["val", "validation"])
def test_movi(tmp_path: Path, name: str) -> None:
    write_movi(tmp_path / "official", (2,))
    official, samples = open_movi(tmp_path / "official"), []
    for video in official.reader:
        frames, labels = arrays(video)
        # cv2.imencode takes an array for BGR: red and blue of these RGB frames change places in the PNG file.
        encoded = [opencv(np.ascontiguousarray(one[..., ::-1])) for one in frames]
        masks = labels.astype(np.uint8)
        flow = {"data": [[opencv(masks[0].astype(np.uint16))]], "min": np.float32(-3), "max": np.float32(4)}
        samples.append({"video": encoded, "segment": [opencv(one) for one in masks], "s": masks.max(), "flow": flow})
    write_lmdb(tmp_path / f"converted/movi_c/{name}.lmdb", samples)
    data = open_movi(tmp_path / "converted")
    assert data.ids == ("000000", "000001")
    for first, second in zip(official.reader, data.reader, strict=True):
        same_video(first, second)
    assert (data.reader[0].frames[0].image[0, 0] == 20).all()
    with pytest.raises(SampleError, match=r"frames have 128x128 pixels, data.options.size says 256"):
        list(open_movi(tmp_path / "converted", 256).reader[0].frames)


def ytvis_sample(frames: int = 2) -> dict[str, Any]:
    random = np.random.default_rng(1)
    pictures = [image_file(random.integers(0, 256, (8, 10, 3), dtype=np.uint8), "jpeg") for _ in range(frames)]
    masks = np.zeros((frames, 8, 10), np.uint8)
    masks[:, 2:4, 2:6], masks[1:, 5:7, 4:9] = 1, 2
    kinds = np.array([[26, 4]] * frames, "uint8")
    return {"video": pictures, "segment": [opencv(one) for one in masks], "s": 2, "clazz": kinds}


def open_ytvis(root: Path, year: Any = 2022, split: str = "val") -> OpenData:
    return open_data(video_card(reader="ytvis", folder="ytvis", split=split, options={"year": year}), data_root=root)


@pytest.mark.parametrize(("year", "folder"), [(2022, "ytvis_2022"), ("hq", "ytvis_hq")])
def test_ytvis(tmp_path: Path, year: Any, folder: str) -> None:
    sample = ytvis_sample()
    write_lmdb(tmp_path / f"{folder}/val.lmdb", [sample, sample])
    data = open_ytvis(tmp_path, year)
    assert data.ids == ("000000", "000001")
    for position, one in enumerate(all_frames(data.reader[1])):
        with Image.open(io.BytesIO(sample["video"][position])) as picture:
            assert np.array_equal(one.image, np.asarray(picture)), "JPEG as it is, not swapped"
        assert set(np.unique(one.truth.labels)) == ({0, 1} if position == 0 else {0, 1, 2})
        assert one.truth.categories == (26, 4)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"segment": []}, "2 frames, 0 segmentations"),
        ({"s": 1, "clazz": np.zeros((2, 1), np.uint8)}, "segmentation 1 shows object 2 of 1"),
        ({"clazz": np.zeros((2, 3), np.uint8)}, "expected one class for each object"),
        ({"clazz": np.array([[1, 2], [1, 3]], np.uint8)}, "expected one class for each object"),
        ({"video": "text"}, "'video' is missing or of a wrong type"),
        ({"video": [b"none"] * 2}, "image cannot be read"),
        ({"video": [1, 2]}, "2 frames, 2 segmentations"),
    ],
)
def test_a_bad_video_fails_alone(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    write_lmdb(tmp_path / "ytvis_2022/val.lmdb", [{**ytvis_sample(), **change}, ytvis_sample()])
    data = open_ytvis(tmp_path)
    with pytest.raises(SampleError, match=reason) as caught:
        list(data.reader[0].frames)
    assert "\n" not in str(caught.value)
    assert len(all_frames(data.reader[1])) == 2


def test_a_hostile_sample_fails_and_a_hostile_list_of_keys_is_refused(tmp_path: Path) -> None:
    hostile = pickle.dumps({**ytvis_sample(), "more": Touching(tmp_path / "ran")})
    path = write_lmdb(tmp_path / "ytvis_2022/val.lmdb", [hostile, ytvis_sample()])
    with pytest.raises(SampleError, match=r"refused, its pickle cannot be read: it names pathlib\.\S*Path"):
        open_ytvis(tmp_path).reader[0]
    other = tmp_path / "other/ytvis_2022/val.lmdb"
    other.parent.mkdir(parents=True)
    other.write_bytes(path.read_bytes())
    put(other, b"__keys__", pickle.dumps(Touching(tmp_path / "ran")))
    with pytest.raises(UsageError, match=r"refused, its list of keys"):
        open_ytvis(tmp_path / "other")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("keys", [["000000"], [b"../x"], [], {"a": 1}, None, [b"000009"]])
def test_other_lists_of_keys(tmp_path: Path, keys: Any) -> None:
    path = tmp_path / "ytvis_2022/val.lmdb"
    path.parent.mkdir()
    put(path, b"__keys__", pickle.dumps(keys))
    if keys == [b"000009"]:
        with pytest.raises(SampleError, match="there is no key 000009"):
            open_ytvis(tmp_path).reader[0]
    else:
        with pytest.raises(UsageError, match="__keys__ is not a list of keys"):
            open_ytvis(tmp_path)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = write_lmdb(tmp_path / "one/ytvis_2022/val.lmdb", [ytvis_sample()] * 8)
    content = path.read_bytes()
    for number, damaged in enumerate((b"", b"no database" * 900, content[: len(content) // 3], content[:4096])):
        other = tmp_path / f"{number}/ytvis_2022/val.lmdb"
        other.parent.mkdir(parents=True)
        other.write_bytes(damaged)
        with pytest.raises(UsageError, match=r"refused.*(not an LMDB file|was cut|not a whole LMDB file)"):
            open_ytvis(tmp_path / str(number))


def test_an_edited_file_is_another_revision(tmp_path: Path) -> None:
    sample = ytvis_sample()
    write_lmdb(tmp_path / "a/ytvis_2022/val.lmdb", [sample])
    sample["segment"][0] = opencv(np.zeros((8, 10), np.uint8))
    write_lmdb(tmp_path / "b/ytvis_2022/val.lmdb", [sample])
    assert open_ytvis(tmp_path / "a").revision != open_ytvis(tmp_path / "b").revision
    assert open_ytvis(tmp_path / "a").revision == open_ytvis(tmp_path / "a").revision


def test_a_map_in_colour_is_refused(tmp_path: Path) -> None:
    write_clevrtex(tmp_path / "official", [0])
    sample = clevrtex_samples(tmp_path / "official", "full")[0]
    random = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    sample["segment"] = image_file(random, "png")
    write_lmdb(tmp_path / "clevrtex/train.lmdb", [sample])
    with pytest.raises(SampleError, match="mask is in colour"):
        open_clevrtex(tmp_path).reader[0]


def test_a_bad_first_image_of_voc_fails_alone(tmp_path: Path) -> None:
    """The first samples are looked at when the file is opened."""
    image = image_file(np.zeros((6, 8, 3), np.uint8), "png")
    good = {"image": image, "segment": opencv(np.ones((6, 8), np.uint8))}
    write_lmdb(tmp_path / "voc/val.lmdb", [{**good, "segment": good["segment"][:40]}, good])
    data = open_voc(tmp_path)
    with pytest.raises(SampleError, match="mask cannot be read"):
        data.reader[0]
    assert (data.reader[1].truth.labels == 0).all()


def wide(label: int, shape: tuple[int, int]) -> bytes:
    """A map of 16 bits with one object of this number."""
    numbers = np.ones(shape, np.uint16)
    numbers[0, 0] = label
    return image_file(numbers, "png")


@pytest.mark.parametrize("name", ["clevrtex", "voc"])
@pytest.mark.parametrize("label", [32767, 32768, 40000])
def test_labels_that_do_not_fit_fail_their_image(tmp_path: Path, name: str, label: int) -> None:
    """A label map has 16 bits with a sign: 40000 would become -25536."""
    image = image_file(np.zeros((6, 8, 3), np.uint8), "png")
    sample = {"image": image, "segment": wide(label, (6, 8)), "depth": image}
    write_lmdb(tmp_path / f"{name}/{'train' if name == 'clevrtex' else 'val'}.lmdb", [sample])

    def read() -> np.ndarray:
        data = open_clevrtex(tmp_path) if name == "clevrtex" else open_voc(tmp_path)
        return data.reader[0].truth.labels

    if label == 32767:
        assert read().max() == (32767 if name == "clevrtex" else 32766) and read().min() >= 0
    else:
        with pytest.raises(SampleError, match=rf"\.lmdb, key .*: label {label}, "):
            read()


@pytest.mark.parametrize("label", [32767, 32768, 40000])
def test_labels_that_do_not_fit_fail_their_video(tmp_path: Path, label: int) -> None:
    sample = {**ytvis_sample(1), "segment": [wide(label, (8, 10))], "s": 50000}
    sample["clazz"] = np.ones((1, 50000), np.uint8)
    write_lmdb(tmp_path / "ytvis_2022/val.lmdb", [sample])
    video = open_ytvis(tmp_path).reader[0]
    if label == 32767:
        assert set(np.unique(next(iter(video.frames)).truth.labels)) == {1, 32767}
    else:
        with pytest.raises(SampleError, match=rf"\.lmdb, key .*: segmentation 0: label {label}, "):
            list(video.frames)


def test_truth_that_differs_is_seen() -> None:
    from ocl_bench.core.types import Truth

    one = np.array([[0, 1, 2, 2]], np.int16)
    same_truth(Truth(one), Truth(np.array([[0, 2, 1, 1]], np.int16)), renumbered=True)
    for other in ([[0, 2, 2, 2]], [[1, 0, 2, 2]], [[0, -1, 2, 2]], [[0, 1, 2, 3]]):
        with pytest.raises(AssertionError):
            same_truth(Truth(one), Truth(np.array(other, np.int16)), renumbered=True)

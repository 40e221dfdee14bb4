"""COCO's panoptic PNGs and stuff-thing maps: small trees as the archives unpack, and bad files."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layout_trees import damage_mask, message, open_layout, save_image, save_picture, write_json
from PIL import Image

from ocl_bench.core.errors import DataMissingError, SampleError, UsageError
from ocl_bench.core.types import Truth

open_split = partial(open_layout, "coco")
SHAPE = (14, 26)
PICIE = {
    0: "71-76", 1: "77-82", 2: "51-60", 3: "61-70", 4: "83-90", 5: "43-50", 6: "25-32", 7: "15-24", 8: "9-14", 9: "0",
    10: "33-42", 11: "1-8", 12: "101,102", 13: "100,113-117", 14: "120,121,152,169",
    15: "97,106,107,109,111,122,129,132,155,160,164", 16: "99,131,138,142",
    17: "91,92,103,104,108,130,136,140,151,166,167", 18: "170-176", 19: "179,180", 20: "94,95,127,150,157,165",
    21: "110,124,125,135,139,143,144,146,148,153,158", 22: "93,96,118,123,128,133,141,162,168", 23: "105,156",
    24: "126,134,149,159,161,181", 25: "98,112,137,145,163", 26: "119,147,154,177,178",
}  # fmt: skip
"""The 27 coarse classes as PiCIE and STEGO list them."""


def fine_to_coarse() -> np.ndarray:
    table = np.full(256, -1)
    for index, text in PICIE.items():
        for part in text.split(","):
            first, _, last = part.partition("-")
            values = range(int(first), int(last or first) + 1)
            assert (table[values] == -1).all()
            table[values] = index
    return table


def write_map(root: Path, name: str, values: np.ndarray, place: str = "annotations/val2017") -> Path:
    """An image and its stuff-thing map, which is returned."""
    save_image(root / f"val2017/{name}.jpg", values.shape)
    return save_picture(root / place / f"{name}.png", values)


ALL_VALUES = np.append(np.arange(182), [255, 255]).reshape(8, 23).astype(np.uint8)


@pytest.mark.parametrize(
    "place", ["annotations/val2017", "annotations/stuffthingmaps/val2017", "stuffthingmaps/val2017", "val2017"]
)
def test_all_182_values_become_the_27_classes_of_picie(tmp_path: Path, place: str) -> None:
    table = fine_to_coarse()
    assert (table[:182] >= 0).all() and len(PICIE) == 27 and set(range(12)) == set(table[:91].tolist())
    write_map(tmp_path / "coco", "000000000007", ALL_VALUES, place)
    write_map(tmp_path / "coco", "000000000003", ALL_VALUES[:, ::-1], place)
    folder = tmp_path / "coco" / place
    Image.fromarray(ALL_VALUES).save(folder / "000000000007_labelTrainIds.png")
    (folder / "._000000000007.png").write_bytes(b"left by another system")
    for root in (tmp_path, tmp_path / "coco"):
        data = open_split(root, annotations="stuffthings")
        assert data.ids == ("000000000003", "000000000007") and data.root == tmp_path / "coco"
    truth = data.reader[1].truth
    assert truth.classes is not None and truth.classes.dtype == truth.labels.dtype == np.int16
    assert np.array_equal(truth.classes, table[ALL_VALUES])
    assert np.bincount(truth.classes[truth.classes >= 0]).tolist() == np.bincount(table[table >= 0]).tolist()
    assert truth.categories == tuple(range(27))
    assert np.array_equal(truth.labels, np.where(ALL_VALUES == 255, -1, table[ALL_VALUES] + 1))


def test_the_revision_follows_the_maps(tmp_path: Path) -> None:
    write_map(tmp_path, "a", np.zeros(SHAPE, np.uint8))
    before = open_split(tmp_path, annotations="stuffthings").revision
    write_map(tmp_path, "a", np.random.default_rng(0).integers(0, 182, SHAPE, dtype=np.uint8))
    assert open_split(tmp_path, annotations="stuffthings").revision != before


def test_a_curated_list_chooses_maps(tmp_path: Path) -> None:
    for name in ("000000000001", "000000000002", "000000000003"):
        write_map(tmp_path, name, ALL_VALUES)
    (tmp_path / "curated").mkdir()
    listed = tmp_path / "curated/val2017.txt"
    listed.write_text("000000000003\n000000000001\n")
    data = open_split(tmp_path, annotations="stuffthings", ids="curated/{split}2017.txt")
    assert data.ids == ("000000000003", "000000000001")
    listed.write_text("../../000000000009\n")
    with pytest.raises(
        DataMissingError, match=r"val2017\.txt: 1 listed maps are missing, first \.\./\.\./000000000009"
    ):
        open_split(tmp_path, annotations="stuffthings", ids="curated/{split}2017.txt")


BAD_MAPS = {
    "182": "value 182, expected 0..181 or 255",
    "16 bit": "value 40000, expected 0..181 or 255",
    "RGB": "is a colour image",
    "size": "mask size 13x7, its image 26x14",
    "cut": "mask cannot be read",
    "no image": "image file is missing",
}


@pytest.mark.parametrize("fault", BAD_MAPS)
def test_a_bad_map_is_one_line_and_leaves_the_others_alone(tmp_path: Path, fault: str) -> None:
    values = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.uint8) % 182
    path = write_map(tmp_path, "a", values)
    write_map(tmp_path, "b", values)
    if fault == "182":
        save_picture(path, values + 1)
    elif fault == "no image":
        (tmp_path / "val2017/a.jpg").unlink()
    else:
        damage_mask(path, fault, 5)
    data = open_split(tmp_path, annotations="stuffthings")
    text = message(data)
    assert BAD_MAPS[fault] in text and ("a.jpg" if fault == "no image" else "annotations/val2017/a.png") in text
    assert data.reader[1].truth.categories == tuple(range(27))


def test_a_folder_without_maps_is_said(tmp_path: Path) -> None:
    write_map(tmp_path, "a_labelTrainIds", ALL_VALUES)
    with pytest.raises(DataMissingError, match="no stuff-thing map in it"):
        open_split(tmp_path, annotations="stuffthings")
    with pytest.raises(DataMissingError, match="no images in train2017"):
        open_split(tmp_path, "train", annotations="stuffthings")


CATEGORIES = [
    {"id": 1, "name": "person", "isthing": 1},
    {"id": 18, "name": "dog", "isthing": 1},
    {"id": 184, "name": "tree-merged", "isthing": 0},
    {"id": 187, "name": "sky-other-merged", "isthing": 0},
]
CODES = np.zeros(SHAPE, np.int64)
CODES[:6], CODES[6:12], CODES[8:12, 2:8], CODES[7:11, 10:20], CODES[6, 25] = 7, 70_000, 300, 9_000_000, 16_777_215
SEGMENTS = {7: 187, 300: 18, 70_000: 184, 9_000_000: 1, 16_777_215: 18}


def write_panoptic(root: Path, numbers: tuple[int, ...] = (1,)) -> Path:
    """Images with the same segments and the JSON file, which is returned; one segment is a crowd."""
    images, entries = [], []
    for number in numbers:
        stem = f"{number:012d}"
        save_image(root / f"val2017/{stem}.jpg", SHAPE)
        images.append({"id": number, "file_name": f"{stem}.jpg", "height": SHAPE[0], "width": SHAPE[1]})
        save_codes(CODES, root / f"annotations/panoptic_val2017/{stem}.png")
        segments = [
            {"id": code, "category_id": category, "iscrowd": int(code == 300), "area": 5, "bbox": [0, 0, 1, 1]}
            for code, category in SEGMENTS.items()
        ]
        entries.append({"image_id": number, "file_name": f"{stem}.png", "segments_info": segments})
    content = {"images": images, "annotations": entries, "categories": CATEGORIES}
    return write_json(root / "annotations/panoptic_val2017.json", content)


def save_codes(codes: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.stack([codes % 256, codes // 256 % 256, codes // 65536], -1).astype(np.uint8)).save(path)


@pytest.mark.parametrize("stuff", ["merged", "segments"])
def test_panoptic_segments_become_objects_and_stuff_is_merged_or_kept(tmp_path: Path, stuff: str) -> None:
    write_panoptic(tmp_path)
    data = open_split(tmp_path, annotations="panoptic", stuff=stuff)
    truth: Truth = data.reader[0].truth
    order = [300, 9_000_000, 16_777_215] if stuff == "merged" else [7, 300, 70_000, 9_000_000, 16_777_215]
    assert truth.categories == tuple(SEGMENTS[code] for code in order)
    expected = np.where(CODES == 0, -1, 0)
    for label, code in enumerate(order, start=1):
        expected[np.equal(CODES, code)] = label
    assert np.array_equal(truth.labels, expected) and truth.labels.dtype == np.int16
    assert (truth.labels == -1).sum() == 2 * SHAPE[1]
    assert data.categories[187] == "sky-other-merged"


def test_the_revision_follows_the_panoptic_files(tmp_path: Path) -> None:
    write_panoptic(tmp_path)
    before = open_split(tmp_path, annotations="panoptic").revision
    path = tmp_path / "annotations/panoptic_val2017/000000000001.png"
    save_codes(np.where(np.arange(CODES.size).reshape(SHAPE) % 7, CODES, 0), path)
    assert open_split(tmp_path, annotations="panoptic").revision != before


def change_json(path: Path, fault: str) -> None:
    content: dict[str, Any] = json.loads(path.read_text())
    entry = content["annotations"][0]
    if fault == "no entry":
        content["annotations"] = content["annotations"][1:]
    elif fault == "two entries":
        content["annotations"].append(entry)
    elif fault == "unknown segment":
        entry["segments_info"] = [one for one in entry["segments_info"] if one["id"] != 300]
    elif fault == "unknown category":
        entry["segments_info"][0]["category_id"] = 4
    elif fault == "category list":
        entry["segments_info"][0]["category_id"] = [187]
    elif fault == "same segment":
        entry["segments_info"].append({"id": 300, "category_id": 187})
    elif fault == "half a segment":
        del entry["segments_info"][0]["category_id"]
    elif fault == "../":
        entry["file_name"] = "../000000000001.png"
    write_json(path, content)


BAD_PANOPTIC = {
    "no entry": "0 panoptic annotations, expected 1",
    "two entries": "2 panoptic annotations, expected 1",
    "unknown segment": "000000000001.png: segment 300 is not in the JSON file",
    "unknown category": "segment 7: unknown category 4",
    "category list": "segment 7: unknown category [187]",
    "same segment": "segment 300 is listed twice in the JSON file",
    "half a segment": "a segment without id or category_id",
    "../": "file name '../000000000001.png' leaves its folder",
    "grey": "000000000001.png: is not an RGB image",
    "size": "mask size 13x7, its image 26x14",
    "missing": "mask file is missing",
}


@pytest.mark.parametrize("fault", BAD_PANOPTIC)
def test_a_bad_panoptic_annotation_is_one_line_and_leaves_the_others_alone(tmp_path: Path, fault: str) -> None:
    path = write_panoptic(tmp_path, (1, 2))
    png = tmp_path / "annotations/panoptic_val2017/000000000001.png"
    if fault == "grey":
        Image.fromarray(CODES.astype(np.uint8)).save(png)
    elif fault == "size":
        save_codes(CODES[::2, ::2], png)
    elif fault == "missing":
        png.unlink()
    else:
        change_json(path, fault)
    data = open_split(tmp_path, annotations="panoptic")
    assert BAD_PANOPTIC[fault] in message(data)
    assert data.reader[1].truth.categories == (18, 1, 18)


def test_another_json_in_place_of_panoptic_is_refused(tmp_path: Path) -> None:
    path = write_panoptic(tmp_path)
    content = json.loads(path.read_text())
    content["annotations"] = [{"image_id": 1, "category_id": 1, "segmentation": []}]
    write_json(path, content)
    with pytest.raises(UsageError, match=r"annotations\[0\]\.file_name is missing or of a wrong type"):
        open_split(tmp_path, annotations="panoptic")


def test_categories_that_do_not_say_what_is_stuff_are_refused(tmp_path: Path) -> None:
    path = write_panoptic(tmp_path)
    content = json.loads(path.read_text())
    del content["categories"][2]["isthing"]
    write_json(path, content)
    with pytest.raises(UsageError, match=r"categories\[2\]\.isthing is missing or of a wrong type"):
        open_split(tmp_path, annotations="panoptic")


def test_no_sample_of_the_reader_is_lost_in_iteration(tmp_path: Path) -> None:
    write_panoptic(tmp_path, (1, 2, 3))
    data = open_split(tmp_path, annotations="panoptic", limit=2)
    assert [sample.id for sample in data.reader] == list(data.ids) and len(data) == 2
    with pytest.raises((IndexError, SampleError)):
        data.reader[2]

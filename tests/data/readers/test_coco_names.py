"""Images of a COCO file by any names: what samples are called, what a line of a list means, which ids are kept."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from layout_trees import COCO_CATEGORIES, annotation, open_layout, save_image, square, write_json

from ocl_bench.core.errors import DataMissingError, UsageError

SHAPE = (20, 30)
open_split = partial(open_layout, "coco")


def write_named(root: Path, files: dict[int | str, str]) -> None:
    """One image of each id and file name; the object of image k is k + 1 pixels wide."""
    images, annotations = [], []
    for position, (number, name) in enumerate(files.items()):
        save_image(root / "val2017" / name, SHAPE)
        images.append({"id": number, "file_name": name, "height": SHAPE[0], "width": SHAPE[1]})
        annotations.append(annotation(position, number, square(0, 0, position + 1, 1)))  # type: ignore[arg-type]
    content = {"images": images, "annotations": annotations, "categories": COCO_CATEGORIES}
    write_json(root / "annotations/instances_val2017.json", content)


@pytest.mark.parametrize(
    ("files", "ids", "known"),
    [
        ({5: "000005.jpg", 12: "000012.jpg"}, ("000005", "000012"), {}),
        ({9: "9.jpg", 10: "10.jpg"}, ("9", "10"), {"9": 9, "10": 10}),
        ({2: "1.jpg", 1: "2.jpg"}, ("1", "2"), {"1": 2, "2": 1}),
        ({7: "clip.001.jpg", 8: "clip.002.jpg"}, ("clip.001", "clip.002"), {"clip.001": 7, "clip.002": 8}),
        ({1: "day/1.jpg", 2: "night/1.jpg"}, ("day/1", "night/1"), {"day/1": 1, "night/1": 2}),
        ({1: "a.jpg", 2: "a.png"}, ("a.jpg", "a.png"), {"a.jpg": 1, "a.png": 2}),
        ({"x": "1.jpg", "y": "2.jpg"}, ("1", "2"), {"1": "x", "2": "y"}),
    ],
)
def test_names_of_samples(
    tmp_path: Path, files: dict[int | str, str], ids: tuple[str, ...], known: dict[str, int | str]
) -> None:
    write_named(tmp_path, files)
    data = open_split(tmp_path)
    assert data.ids == ids and data.image_ids == known and data.revision.endswith("-by-id") == bool(known)
    assert [int(sample.truth.labels.sum()) for sample in data.reader] == [1, 2]
    assert open_split(tmp_path, limit=1).ids == ids[:1], "a limit must not change what an image is called"


FILES: dict[int | str, str] = {4: "day/0001.jpg", 2: "night/0001.jpg", 3: "clip.001.png", 1: "0002.jpg"}


@pytest.mark.parametrize(
    ("line", "widths"),
    [
        ("night/0001.jpg", [2]),
        ("night/0001", [2]),
        ("day/0001.png", [1]),
        ("clip.001\nclip.001.png", "'clip.001' is listed twice"),
        ("clip.001\n0002", [3, 4]),
        ("val2017/0002.jpg\nval2017/day/0001", [4, 1]),
        ("0001", "'0001' is day/0001.jpg and night/0001.jpg; write folder and suffix"),
        ("dusk/0001.jpg", "1 listed images are not annotated, first dusk/0001.jpg"),
        ("0002.001", "1 listed images are not annotated, first 0002.001"),
    ],
)
def test_lines_of_a_list(tmp_path: Path, line: str, widths: list[int] | str) -> None:
    write_named(tmp_path, FILES)
    (tmp_path / "list.txt").write_text(line)
    if isinstance(widths, str):
        with pytest.raises((UsageError, DataMissingError), match=widths):
            open_split(tmp_path, ids="list.txt")
    else:
        found = [int(sample.truth.labels.sum()) for sample in open_split(tmp_path, ids="list.txt").reader]
        assert found == widths


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({1: "1.jpg", "2": "2.jpg"}, "is text in 1 of 2 images; make all of them numbers"),
        ({1: "1.jpg", 10**30: "2.jpg"}, "has 31 digits; write numbers of at most 64 bits"),
    ],
)
def test_ids_without_an_order_are_refused(tmp_path: Path, files: dict[int | str, str], text: str) -> None:
    write_named(tmp_path, files)
    with pytest.raises(UsageError, match=text) as caught:
        open_split(tmp_path)
    assert "instances_val2017.json" in str(caught.value) and "\n" not in str(caught.value)

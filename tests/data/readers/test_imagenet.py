"""ImageNet in every layout that people have, its boxes with their quirks, and all that may be wrong with them."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from layout_trees import card
from PIL import Image
from scipy.io import savemat

from ocl_bench.core.boxes import FIRST_PIXEL, OUTSIDE, SWAPPED
from ocl_bench.core.errors import DataMissingError, SampleError, UsageError
from ocl_bench.data import open_data
from ocl_bench.data.base import OpenData, Request
from ocl_bench.data.readers import imagenet
from ocl_bench.data.readers.imagenet import open_imagenet
from ocl_bench.data.readers.imagenet_boxes import fit_box
from ocl_bench.data.stand_ins.layouts import LayoutTree

FISH, BIRD, DOG = "n01440764", "n01530575", "n02105855"
CLASSES = (FISH, BIRD, DOG)
HEIGHT, WIDTH = 24, 32


def encoded(number: int = 0, kind: str = "JPEG", mode: str = "RGB") -> bytes:
    """An image of one colour that depends on the number."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), (40 + number, 90, 200 - number)).convert(mode)
    stream = io.BytesIO()
    picture.save(stream, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return stream.getvalue()


def put(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_folders(root: Path, train: Iterable[str] = CLASSES, val: Iterable[str] = CLASSES, each: int = 2) -> Path:
    """train/<wnid>/ and val/<wnid>/ with `each` images per class; those of val are numbered across the classes."""
    for place, wnid in enumerate(train):
        for number in range(each):
            put(root / f"train/{wnid}/{wnid}_{number}.JPEG", encoded(10 * place + number))
    for place, wnid in enumerate(val):
        for number in range(each):
            put(root / f"val/{wnid}/ILSVRC2012_val_{1 + number * 3 + place:08d}.JPEG", encoded(10 * place + number))
    return root


def flatten(root: Path) -> None:
    """val/<wnid>/* becomes val/*."""
    for path in list((root / "val").glob("*/*")):
        path.rename(root / "val" / path.name)
    for folder in list((root / "val").glob("n*")):
        folder.rmdir()


def open_split(root: Path, split: str = "val", limit: int | None = None, **options: Any) -> OpenData:
    task = card(reader="imagenet", split=split, options=options)
    return open_imagenet(Request(task, root, limit, split, None, False))


def refusal(root: Path, kind: type[Exception] = UsageError, split: str = "val", **options: Any) -> str:
    """The error of opening, which must be one line."""
    with pytest.raises(kind) as caught:
        open_split(root, split, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def failure(data: OpenData, index: int = 0) -> str:
    """The error of a sample, which must be one line."""
    with pytest.raises(SampleError) as caught:
        data.reader[index]
    assert "\n" not in str(caught.value) and caught.value.sample_id == data.ids[index]
    return str(caught.value)


VAL_IDS = (
    f"{FISH}/ILSVRC2012_val_00000001",
    f"{FISH}/ILSVRC2012_val_00000004",
    f"{BIRD}/ILSVRC2012_val_00000002",
    f"{BIRD}/ILSVRC2012_val_00000005",
    f"{DOG}/ILSVRC2012_val_00000003",
    f"{DOG}/ILSVRC2012_val_00000006",
)


def check_val(data: OpenData) -> None:
    """The val of `write_folders`, whatever the layout."""
    assert data.ids == VAL_IDS and dict(data.categories) == dict(enumerate(CLASSES)) and data.kind == "official"
    for sample, sample_id, label in zip(data.reader, VAL_IDS, (0, 0, 1, 1, 2, 2), strict=True):
        assert sample.id == sample_id and sample.truth.label == label
        assert sample.image.shape == (HEIGHT, WIDTH, 3) and abs(int(sample.image[0, 0, 0]) - 40 - 10 * label) <= 3
        assert sample.truth.labels.shape == (HEIGHT, WIDTH) and sample.truth.labels.dtype == np.int16
        assert not sample.truth.labels.any() and sample.truth.instances == () and sample.truth.classes is None


def test_image_folders_below_the_root_or_in_it(tmp_path: Path) -> None:
    folder = write_folders(tmp_path / "imagenet")
    for root in (tmp_path, folder):
        check_val(open_split(root))
    train = open_split(tmp_path, "train")
    assert train.ids[:3] == (f"{FISH}/{FISH}_0", f"{FISH}/{FISH}_1", f"{BIRD}/{BIRD}_0") and len(train) == 6
    assert [sample.truth.label for sample in train.reader] == [0, 0, 1, 1, 2, 2]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/imagenet").symlink_to(folder, target_is_directory=True)
    assert open_split(tmp_path / "elsewhere").revision == open_split(tmp_path).revision


def test_folders_of_links_as_subsets_have_them(tmp_path: Path) -> None:
    full = write_folders(tmp_path / "full")
    for split in ("train", "val"):
        (tmp_path / "imagenet" / split).mkdir(parents=True)
        for wnid in (FISH, DOG):
            (tmp_path / "imagenet" / split / wnid).symlink_to(full / split / wnid, target_is_directory=True)
    data = open_split(tmp_path)
    assert [sample.truth.label for sample in data.reader] == [0, 0, 1, 1]
    assert dict(data.categories) == {0: FISH, 1: DOG} and "4 images of 2 classes" in data.note


def with_devkit(root: Path, numbers: Iterable[int] = (11, 22, 33, 11, 22, 33)) -> Path:
    """Devkit whose ILSVRC ids are in another order than the wnids, and which has inner nodes, too."""
    data = root / "ILSVRC2012_devkit_t12/data"
    put(data / "ILSVRC2012_validation_ground_truth.txt", "".join(f"{number}\n" for number in numbers))
    rows = [(33, DOG, "dog", 0), (22, BIRD, "bird", 0), (11, FISH, "fish", 0), (1001, "n00001740", "entity", 3)]
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    savemat(data / "meta.mat", {"synsets": np.array(rows, dtype=kinds).reshape(-1, 1)})
    return data


def with_solution(path: Path, missing: int | None = None) -> Path:
    rows = [f"ILSVRC2012_val_{k:08d},{CLASSES[(k - 1) % 3]} 1 2 3 4 {DOG} 5 6 7 8 " for k in (6, 5, 4, 3, 2, 1)]
    return put(path, "ImageId,PredictionString\n" + "".join(f"{row}\n" for k, row in enumerate(rows) if k != missing))


def test_flat_val_with_the_devkit(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "imagenet")
    sorted_revision = open_split(tmp_path).revision
    flatten(root)
    with_devkit(root)
    check_val(open_split(tmp_path))
    assert open_split(tmp_path).revision == sorted_revision, "the same images are the same data"


def test_flat_val_with_the_table_of_kaggle(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "imagenet")
    flatten(root)
    with_solution(root / "LOC_val_solution.csv")
    check_val(open_split(tmp_path))


@pytest.mark.parametrize("inner", ["", "ILSVRC", "ILSVRC/Data/CLS-LOC"])
def test_kaggle(tmp_path: Path, inner: str) -> None:
    """The root may be that of the archive, or one of the folders in it."""
    root = write_folders(tmp_path / "imagenet/ILSVRC/Data/CLS-LOC")
    flatten(root)
    with_solution(tmp_path / "imagenet/LOC_val_solution.csv")
    boxes = tmp_path / "imagenet/ILSVRC/Annotations/CLS-LOC"
    put(boxes / "val/ILSVRC2012_val_00000002.xml", xml((BIRD, 2, 3, 10, 12)))
    put(boxes / f"train/{FISH}/{FISH}_1.xml", xml((FISH, 1, 1, 4, 4)))
    given = tmp_path / "imagenet" / inner
    check_val(open_split(given))
    assert boxes_of(open_split(given, boxes="labelled"), 2) == [(1, (2, 3, 10, 12))]
    assert boxes_of(open_split(given, "train", boxes="labelled"), 1) == [(0, (1, 1, 4, 4))]


def test_tables_of_another_system(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "imagenet")
    flatten(root)
    path = with_solution(root / "LOC_val_solution.csv")
    path.write_bytes(path.read_text().replace("\n", "\r\n").encode("utf-8-sig"))
    check_val(open_split(tmp_path))
    shutil.rmtree(root / "train")
    (root / "labels.txt").write_bytes("\r\n".join(CLASSES).encode("utf-8-sig"))
    check_val(open_split(tmp_path))
    content = "".join(f"{json.dumps(row(name, (1, 2, 3, 4)))}\r\n" for name in VAL_IDS)
    put(root / "boxes.jsonl", content.encode("utf-8-sig"))
    assert boxes_of(open_split(tmp_path, boxes="labelled", boxes_file="boxes.jsonl"), 0) == [(0, (1, 2, 3, 4))]


def test_folders_below_those_of_the_classes(tmp_path: Path) -> None:
    """As torchvision's ImageFolder reads them."""
    root = write_folders(tmp_path / "imagenet")
    plain = open_split(tmp_path, "train")
    for name in ("a", "b"):
        put(root / f"train/{BIRD}/{name}/{BIRD}_0.JPEG", encoded(50))
    (root / f"train/{BIRD}/a/back").symlink_to(root / f"train/{BIRD}")  # would never end
    put(root / f"train/{BIRD}/b/list.txt", "")
    data = open_split(tmp_path, "train")
    assert data.ids[2:6] == tuple(f"{BIRD}/{name}" for name in (f"a/{BIRD}_0", f"b/{BIRD}_0", f"{BIRD}_0", f"{BIRD}_1"))
    assert [sample.truth.label for sample in data.reader] == [0, 0, 1, 1, 1, 1, 2, 2]
    assert "1 files that are not images are left out (n01530575/b/list.txt)" in data.note
    put(root / f"Annotations/train/{BIRD}/{BIRD}_0.xml", xml((BIRD, 1, 1, 4, 4)))
    assert boxes_of(open_split(tmp_path, "train", boxes="labelled"), 2) == [(1, (1, 1, 4, 4))]
    for name in ("a", "b"):
        shutil.rmtree(root / f"train/{BIRD}/{name}")
    assert open_split(tmp_path, "train").revision == plain.revision


def test_tiny_imagenet_as_it_unpacks(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "imagenet")
    sorted_revision = open_split(tmp_path).revision
    flatten(root)
    (root / "val").rename(root / "images")
    (root / "val").mkdir()
    (root / "images").rename(root / "val/images")
    names = [sample_id.split("/") for sample_id in VAL_IDS]
    table = put(root / "val/val_annotations.txt", "".join(f"{name}.JPEG\t{wnid}\t0\t0\t9\t9\n" for wnid, name in names))
    check_val(open_split(tmp_path))
    assert open_split(tmp_path).revision == sorted_revision, "the same images are the same data"
    for wnid in CLASSES:
        (root / f"train/{wnid}").rename(root / "images")
        (root / f"train/{wnid}").mkdir()
        (root / "images").rename(root / f"train/{wnid}/images")
    train = open_split(tmp_path, "train")
    assert train.ids[0] == f"{FISH}/images/{FISH}_0" and [sample.truth.label for sample in train.reader] == [
        0,
        0,
        1,
        1,
        2,
        2,
    ]
    put(table, table.read_text().partition("\n")[2])
    assert "1 images of" in refusal(tmp_path) and "ILSVRC2012_val_00000001" in refusal(tmp_path)
    put(table, "a.JPEG\n")
    assert "is not the table of Tiny ImageNet" in refusal(tmp_path)


def test_flat_val_without_or_with_broken_tables(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "imagenet")
    flatten(root)
    assert "the classes of its images are not known" in refusal(tmp_path, DataMissingError)
    data = with_devkit(root, (11, 22, 33, 11))
    assert "2 images of" in refusal(tmp_path) and "first ILSVRC2012_val_00000005" in refusal(tmp_path)
    with_devkit(root, (11, 22, 33, 11, 22, 44))
    assert "id 44 is not in meta.mat" in refusal(tmp_path)
    put(data / "meta.mat", b"no matrix")
    assert "meta.mat: no table of synsets" in refusal(tmp_path, DataMissingError)
    with_solution(root / "LOC_val_solution.csv", missing=0)
    assert "1 images of" in refusal(tmp_path) and "ILSVRC2012_val_00000006" in refusal(tmp_path)
    put(root / "LOC_val_solution.csv", "a,b\n1,2\n")
    assert "is not the table ImageId,PredictionString" in refusal(tmp_path)


def test_hidden_things_do_not_shift_labels_and_others_are_counted(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "imagenet")
    put(root / "train/.ipynb_checkpoints/a.JPEG", encoded())
    put(root / f"train/{FISH}/._{FISH}_0.JPEG", b"resource fork")
    put(root / f"train/{FISH}/list.txt", "")
    put(root / f"train/{FISH}.tar", b"")
    data = open_split(tmp_path, "train")
    assert [sample.truth.label for sample in data.reader] == [0, 0, 1, 1, 2, 2]
    assert "2 files that are not images are left out" in data.note


def test_any_suffix_mode_and_format(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "imagenet", each=1)
    for name, content in (
        ("a.JPEG", encoded(0, "PNG")),
        ("a-.jpg", encoded()),
        ("b.jpg", encoded(0, "JPEG", "CMYK")),
        ("c.png", encoded(0, "PNG", "RGBA")),
        ("d.Jpg", encoded(0, "JPEG", "L")),
    ):
        put(root / "train" / DOG / name, content)
    data = open_split(tmp_path, "train")
    assert data.ids[2:] == tuple(f"{DOG}/{name}" for name in ("a", "a-", "b", "c", "d", f"{DOG}_0")), "by stem"
    images = [data.reader[k].image for k in range(2, 7)]
    assert all(image.shape == (HEIGHT, WIDTH, 3) for image in images)
    assert all(np.abs(image[0, 0].astype(int) - (40, 90, 200)).max() <= 4 for image in images[:4])
    assert len(set(images[4][0, 0].tolist())) == 1, "grey"


def test_the_orientation_of_a_camera_is_not_applied(tmp_path: Path) -> None:
    """torchvision, and with it DINO, reads pixels as stored; `datasets` alone would turn them."""
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT)).save(stream, "JPEG", exif=exif)
    root = write_folders(tmp_path / "imagenet")
    put(root / f"val/{FISH}/ILSVRC2012_val_00000001.JPEG", stream.getvalue())
    write_parquet(tmp_path / "hub/imagenet", "validation", [(stream.getvalue(), 0)])
    assert open_split(tmp_path).reader[0].image.shape == (HEIGHT, WIDTH, 3)
    assert open_split(tmp_path / "hub").reader[0].image.shape == (HEIGHT, WIDTH, 3)


def test_an_image_that_does_not_decode_fails_alone(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "imagenet")
    path = root / f"val/{FISH}/ILSVRC2012_val_00000001.JPEG"
    path.write_bytes(path.read_bytes()[:300])
    (root / f"val/{BIRD}/ILSVRC2012_val_00000005.JPEG").unlink()
    (root / f"val/{BIRD}/ILSVRC2012_val_00000005.JPEG").symlink_to(tmp_path / "nowhere")
    data = open_split(tmp_path)
    assert "ILSVRC2012_val_00000001.JPEG: image cannot be read" in failure(data)
    assert "image file is missing" in failure(data, 3)
    assert data.reader[1].truth.label == 0 and len(data) == 6


def test_classes_that_differ(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "imagenet", train=(FISH, DOG), val=CLASSES)
    text = refusal(tmp_path)
    assert f"class '{BIRD}' has images, but is not in train (1 such classes)" in text
    for path in (root / "val" / BIRD).iterdir():
        path.unlink()
    assert [sample.truth.label for sample in open_split(tmp_path).reader] == [0, 0, 1, 1]


def test_classes_without_images_are_counted(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "imagenet", val=(FISH, DOG))
    data = open_split(tmp_path)
    assert [sample.truth.label for sample in data.reader] == [0, 0, 2, 2], "train names the classes"
    assert f"1 of 3 classes have no image in val, first {BIRD}" in data.note
    (root / "train/n09999999").mkdir()
    assert "1 of 4 classes have no image in train, first n09999999" in open_split(tmp_path, "train").note


def test_val_alone_needs_a_list_of_classes(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "imagenet", train=(), val=(BIRD, DOG))
    assert "in the folder train or in labels.txt, but neither is there" in refusal(tmp_path, DataMissingError)
    put(root / "labels.txt", f"{DOG},dog\n{FISH},fish\n{BIRD},bird\n\n")
    data = open_split(tmp_path)
    assert [sample.truth.label for sample in data.reader] == [1, 1, 2, 2] and data.categories[0] == FISH
    put(root / "labels.txt", f"{DOG}\n{DOG}\n")
    assert "names a class twice" in refusal(tmp_path)
    put(root / "labels.txt", "\n")
    assert "is empty" in refusal(tmp_path)


def test_what_is_not_there(tmp_path: Path) -> None:
    assert "no folder 'val' of ImageNet" in refusal(tmp_path, DataMissingError)
    assert "ImageNet has the splits train and val, not 'test'" in refusal(tmp_path, split="test")
    put(tmp_path / "imagenet/train/n01440764.tar", b"")
    assert "unpack the archive of each class" in refusal(tmp_path, DataMissingError, "train")
    root = write_folders(tmp_path / "other", each=0)
    for wnid in CLASSES:
        (root / "train" / wnid).mkdir(parents=True)
    assert ": no image (.jpg, .jpeg, .png, .webp" in refusal(root, DataMissingError, "train")
    put(root / f"train/{FISH}/a.jpg", encoded())
    put(root / f"train/{FISH}/a.png", encoded())
    assert "'a.jpg' and 'a.png' have one id" in refusal(root, split="train")
    assert "known options: boxes, boxes_file" in refusal(root, bxes="labelled")


def test_a_limit_is_spread_over_the_classes(tmp_path: Path) -> None:
    write_folders(tmp_path / "imagenet", each=4)
    data = open_split(tmp_path, "train", limit=3)
    assert data.ids == data.reader.ids == (f"{FISH}/{FISH}_0", f"{BIRD}/{BIRD}_0", f"{DOG}/{DOG}_0")
    assert [data.reader[k].truth.label for k in range(3)] == [0, 1, 2]
    assert len(open_split(tmp_path, "train", limit=99)) == 12


def test_the_revision_follows_names_and_sizes(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "imagenet")
    first = open_split(tmp_path, "train").revision
    assert first.startswith("official-") and open_split(tmp_path, "train").revision == first
    os.utime(root / f"train/{FISH}/{FISH}_0.JPEG", (1, 1))
    assert open_split(tmp_path, "train").revision == first, "a copy is the same data"
    path = root / f"train/{DOG}/{DOG}_0.JPEG"
    path.write_bytes(path.read_bytes() + b"more")
    second = open_split(tmp_path, "train").revision
    path.rename(path.with_suffix(".jpg"))
    assert len({first, second, open_split(tmp_path, "train").revision}) == 3


def test_the_revision_follows_labels_and_classes(tmp_path: Path) -> None:
    """Files of equal names and sizes with other labels are other data."""
    revisions = set()
    for labels in ((0, 1), (1, 0), (1, 1)):
        write_parquet(tmp_path / "hub/imagenet", "validation", [(encoded(), label) for label in labels])
        revisions.add(open_split(tmp_path / "hub").revision)
    assert len(revisions) == 3
    root = write_folders(tmp_path / "flat/imagenet", train=())
    for classes in (CLASSES, (*CLASSES, "n99999999")):
        put(root / "labels.txt", "\n".join(classes))
        revisions.add(open_split(tmp_path / "flat").revision)
    assert len(revisions) == 5


def test_verify_reads_all_images_and_boxes(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "imagenet")
    path = put(root / "Annotations/CLS-LOC/val/ILSVRC2012_val_00000003.xml", xml((DOG, 1, 2, 10, 20)))
    task = card(reader="imagenet", split="val", options={"boxes": "labelled"})
    first = open_data(task, data_root=tmp_path, limit=2, verify=True).revision
    assert open_data(task, data_root=tmp_path, verify=True).revision == first
    for edited in (path, root / f"val/{DOG}/ILSVRC2012_val_00000003.JPEG"):
        content = edited.read_bytes()
        edited.write_bytes(content.replace(b"20", b"21") if edited == path else content[:-1] + b"x")
        with pytest.raises(UsageError, match=f"{edited.name}: not what an earlier --verify"):
            open_data(task, data_root=tmp_path, verify=True)
        edited.write_bytes(content)
    assert open_data(task, data_root=tmp_path, verify=True).revision == first


# Boxes


def xml(
    *objects: tuple[str, float, float, float, float], size: tuple[int, int] = (WIDTH, HEIGHT), name: str = "%s"
) -> str:
    entries = "".join(
        f"<object><name>{word}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox>"
        "</object>"
        for word, a, b, c, d in objects
    )
    inner = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return f"<annotation><folder>x</folder><filename>{name}</filename>{inner}{entries}</annotation>"


def boxes_of(data: OpenData, index: int) -> list[tuple[int, tuple[float, ...]]]:
    instances = data.reader[index].truth.instances
    assert all(one.mask is None and not one.crowd for one in instances)
    assert [one.area for one in instances] == [(b[2] - b[0]) * (b[3] - b[1]) for b in (one.box for one in instances)]
    return [(one.category, one.box) for one in instances]


def test_boxes_and_their_quirks(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "imagenet", each=3)
    place = root / "Annotations/CLS-LOC/train"
    put(place / f"{FISH}/{FISH}_0.xml", xml((FISH, 2, 3, 10, 12), (BIRD, 0, 0, 32, 24)))
    # Annotators saw a picture of another size; one that is twice as wide and four times as high.
    put(place / f"{FISH}/{FISH}_1.xml", xml((FISH, 4, 8, 20, 48), size=(2 * WIDTH, 4 * HEIGHT)))
    # Corners swapped, outside the image, of another class that this subset lacks, empty once clipped.
    put(
        place / f"{DOG}/{DOG}_0.xml",
        xml(
            (DOG, 10, 12, 2, 3),
            (DOG, -5, -5, 99, 99),
            ("n07777777", 1, 1, 5, 5),
            (DOG, 40, 2, 50, 9),
            (DOG, 4, 4, 4, 9),
        ),
    )
    # A word instead of a wnid is the image's own class.
    put(place / f"{DOG}/{DOG}_1.xml", xml(("otterhound", 1, 2, 3, 4)))
    put(place / f"{BIRD}/{BIRD}_1.xml", xml())
    data = open_split(tmp_path, "train", boxes="labelled")
    assert boxes_of(data, 0) == [(0, (2, 3, 10, 12)), (1, (0, 0, 32, 24))]
    assert boxes_of(data, 1) == [(0, (2, 2, 10, 12))]
    assert boxes_of(data, 2) == [], "not every image has boxes"
    assert boxes_of(data, 4) == []
    assert boxes_of(data, 6) == [(2, (2, 3, 10, 12)), (2, (0, 0, 32, 24)), (-1, (1, 1, 5, 5))]
    assert boxes_of(data, 7) == [(2, (1, 2, 3, 4))]
    assert "5 box files of" in data.note
    assert open_split(tmp_path, "train").reader[0].truth.instances == (), "only where the card asks for them"
    put(place / f"{DOG}/{DOG}_2.xml", xml())
    assert open_split(tmp_path, "train", boxes="labelled").revision != data.revision
    assert data.revision.startswith(open_split(tmp_path, "train").revision)


def test_other_coordinates_are_other_data(tmp_path: Path) -> None:
    """A result or a bank of older boxes must not be taken for one of newer boxes in files of the same names."""
    place = write_folders(tmp_path / "imagenet") / "Annotations/CLS-LOC/val"
    revisions = set()
    for right in (10, 11):
        put(place / "ILSVRC2012_val_00000003.xml", xml((DOG, 1, 2, right, 20)))
        revisions |= {open_split(tmp_path, boxes="labelled").revision for _ in range(2)}
    assert len(revisions) == 2
    assert len({revision.rpartition("-")[0] for revision in revisions}) == 1


@pytest.mark.parametrize("place", ["Annotations/CLS-LOC/val", "Annotations/val", "bbox/val", f"bbox/val/{DOG}"])
def test_places_of_the_boxes_of_val(tmp_path: Path, place: str) -> None:
    root = write_folders(tmp_path / "imagenet")
    put(root / place / "ILSVRC2012_val_00000003.xml", xml((DOG, 1, 2, 3, 4)))
    assert boxes_of(open_split(tmp_path, boxes="labelled"), 4) == [(2, (1, 2, 3, 4))]


def test_boxes_that_make_no_sense_fail_their_image(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "imagenet")
    assert "no such folder of boxes" in refusal(tmp_path, DataMissingError, boxes="labelled")
    place = root / "Annotations/CLS-LOC/val"
    put(place / "ILSVRC2012_val_00000001.xml", xml((FISH, 1, 2, 3, 4))[:-20])
    put(place / "ILSVRC2012_val_00000004.xml", xml((FISH, 1, 2, 3, 4), size=(0, 5)))
    put(place / "ILSVRC2012_val_00000002.xml", xml((BIRD, 1, 2, float("nan"), 4)))
    put(place / "ILSVRC2012_val_00000005.xml", xml((BIRD, 1, 2, 3, 4)).replace("<xmin>1", "<xmin>one"))
    data = open_split(tmp_path, boxes="labelled")
    assert "00000001.xml: boxes cannot be read" in failure(data)
    assert "size/width or size/height is not a number above 0" in failure(data, 1)
    assert "object 1: bndbox lacks a number" in failure(data, 2)
    assert "boxes cannot be read (could not convert" in failure(data, 3)
    assert boxes_of(data, 4) == []


def test_a_corner_too_far_away_is_no_edge_of_the_image(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "imagenet")
    put(root / "Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml", xml((FISH, 1, 2, 1e300, 4)))
    assert "object 1: bndbox lacks a number" in failure(open_split(tmp_path, boxes="labelled"))


def test_fitting_a_box() -> None:
    assert fit_box((1, 2, 3, 4), (2.0, 0.5), (10, 10)) == (2, 1, 6, 2)
    assert fit_box((9, -3, 4, 50), (1.0, 1.0), (10, 8)) == (4, 0, 8, 10)
    assert fit_box((8, 0, 9, 5), (1.0, 1.0), (10, 8)) is None


def row(image: str, *boxes: Iterable[float], **more: Any) -> dict[str, Any]:
    return {"image_id": image, "width": WIDTH, "height": HEIGHT, "boxes": [list(box) for box in boxes], **more}


def write_table(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
        return path
    return put(path, "".join(json.dumps(one) + "\n" for one in rows))


@pytest.mark.parametrize("name", ["boxes.jsonl", "boxes.parquet"])
def test_a_table_of_boxes(tmp_path: Path, name: str) -> None:
    write_folders(tmp_path / "imagenet")
    rows = [
        row(f"val/{VAL_IDS[4]}", (1, 2, 3, 4), (30, 20, 35, 26), score=[0.5, 0.25], label=None, source="x"),
        row(VAL_IDS[0], (5, 6, 7, 8), (1, 1, 2, 2), score=[1.0, 1.0], label=[BIRD, None], source="x"),
        row("ILSVRC2012_val_00000005", (1, 1, 9, 9), score=[1.0], label=["n07777777"], source="x"),
        row(f"train/{FISH}/{FISH}_0", (1, 1, 9, 9), score=[1.0], label=[FISH], source="x"),
        row(VAL_IDS[1], score=[], label=[], source="x"),
        row("n00000000/nowhere", score=[], label=[], source="x"),
    ]
    if name.endswith(".parquet"):
        rows[0]["label"] = [None, None]
    path = write_table(tmp_path / name, rows)
    data = open_split(tmp_path, boxes="labelled", boxes_file=str(path))
    assert boxes_of(data, 4) == [(2, (1, 2, 3, 4)), (2, (30, 20, 32, 24))]
    assert boxes_of(data, 0) == [(1, (5, 6, 7, 8)), (0, (1, 1, 2, 2))]
    assert boxes_of(data, 3) == [(-1, (1, 1, 9, 9))]
    assert boxes_of(data, 1) == boxes_of(data, 2) == []
    assert data.note.endswith(f"boxes of {name} for 3 images, 1 of its rows are of other images"), "not one of train"
    write_table(path, [row(VAL_IDS[0], (5, 6, 7, 9))])
    assert open_split(tmp_path, boxes="labelled", boxes_file=str(path)).revision != data.revision


def test_the_split_in_the_name_of_a_table_and_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_folders(tmp_path / "imagenet")
    write_table(root / "boxes/val.jsonl", [row(VAL_IDS[0], (1, 2, 3, 4), label=BIRD)])
    write_table(tmp_path / "here/boxes/train.jsonl", [row(f"{FISH}/{FISH}_1", (1, 2, 3, 5))])
    monkeypatch.chdir(tmp_path / "here")
    options = {"boxes": "labelled", "boxes_file": "boxes/{split}.jsonl"}
    assert boxes_of(open_split(tmp_path, **options), 0) == [(1, (1, 2, 3, 4))]
    assert boxes_of(open_split(tmp_path, "train", **options), 1) == [(0, (1, 2, 3, 5))]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": None, "box": []}, "expected image_id, width, height, boxes"),
        ({"lable": FISH}, "expected image_id, width, height, boxes and perhaps score, label, source"),
        ({"width": 0}, "width and height whole numbers of pixels above 0"),
        ({"height": "24"}, "width and height whole numbers"),
        ({"image_id": 7}, "image_id must be text"),
        ({"boxes": [[1, 2, 3]]}, "four numbers in pixels"),
        ({"boxes": [[1, 2, 3, float("inf")]]}, "four numbers in pixels"),
        ({"boxes": [5]}, "boxes must be a list of"),
        ({"boxes": [["1", 2, 3, 4]]}, "four numbers in pixels"),
        ({"boxes": [[True, 2, 3, 4]]}, "four numbers in pixels"),
        ({"label": [FISH, FISH]}, "a list of one wnid per box"),
        ({"label": 3}, "label must be a wnid"),
    ],
)
def test_a_table_with_other_columns_or_values_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write_folders(tmp_path / "imagenet")
    one = row(VAL_IDS[0], (1, 2, 3, 4)) | change
    if "box" in one:
        del one["boxes"]
    path = write_table(tmp_path / "boxes.jsonl", [row(VAL_IDS[1]), one])
    text = refusal(tmp_path, boxes="labelled", boxes_file=str(path))
    assert message in text and "boxes.jsonl, line 2" in text


def test_odd_boxes_of_a_table_are_counted_and_those_in_0_to_1_refused(tmp_path: Path) -> None:
    write_folders(tmp_path / "imagenet")
    path = tmp_path / "boxes.jsonl"
    odd = [row(VAL_IDS[0], (1, 2, 3, 4), (9, 9, 2, 12), (500, 1, 502, 2), (0.1, 0.1, 0.5, 0.5))]
    write_table(path, odd)
    note = open_split(tmp_path, boxes="labelled", boxes_file=str(path)).note
    assert f"1 {SWAPPED}" in note and f"1 {OUTSIDE}" in note and f"1 {FIRST_PIXEL}" in note
    write_table(path, [row(name, (0.1, 0.1, 0.5, 0.5), (0, 0, 1, 1)) for name in VAL_IDS[:2]])
    text = refusal(tmp_path, boxes="labelled", boxes_file=str(path))
    assert "boxes.jsonl: all 4 boxes lie within the first pixel of their image; write pixels" in text


def test_a_table_that_is_none_or_fits_nothing(tmp_path: Path) -> None:
    write_folders(tmp_path / "imagenet")
    path = tmp_path / "boxes.jsonl"
    options = {"boxes": "labelled", "boxes_file": str(path)}
    assert "boxes cannot be read" in refusal(tmp_path, DataMissingError, **options)
    write_table(path, [row("image_1", (1, 2, 3, 4))])
    assert f"(first row: 'image_1'); write image_id as in 'val/{VAL_IDS[0]}'" in refusal(tmp_path, **options)
    put(path, "\n")
    assert "(it is empty); write image_id as in" in refusal(tmp_path, **options)
    write_table(path, [row(VAL_IDS[0]), row(VAL_IDS[1], (99, 2, 100, 4), (-3, -3, -1, -1), (5, 5, 5, 9))])
    assert "its rows have no box inside of the images of val" in refusal(tmp_path, **options)
    put(path, "image_id,boxes\n")
    assert "is neither JSONL nor a .parquet file" in refusal(tmp_path, **options)
    write_table(path, [row(VAL_IDS[0], (1, 2, 3, 4)), row(f"val/{VAL_IDS[0]}")])
    assert "line 2: a second row for image" in refusal(tmp_path, **options)
    put(tmp_path / "boxes.parquet", b"PAR1")
    assert "is neither" in refusal(tmp_path, boxes="labelled", boxes_file=str(tmp_path / "boxes.parquet"))
    assert "this card grants no boxes" in refusal(tmp_path, boxes_file=str(path))
    write_table(path, [{**row(VAL_IDS[0], (1, 2, 3, 4)), "width": WIDTH + 1}])
    assert "boxes of an image of 33x24, the stored image 32x24" in failure(open_split(tmp_path, **options))


# Hugging Face columns


def features(names: Iterable[str] = ("fish", "bird", "dog")) -> datasets.Features:
    return datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(names))})


def table(rows: list[tuple[bytes, int]], names: Iterable[str] = ("fish", "bird", "dog")) -> datasets.Dataset:
    columns = {
        "image": [{"bytes": content, "path": None} for content, _ in rows],
        "label": [label for _, label in rows],
    }
    return datasets.Dataset.from_dict(columns, features(names))


def write_parquet(
    root: Path, part: str, rows: list[tuple[bytes, int]], names: Iterable[str] = ("fish", "bird", "dog"), files: int = 1
) -> None:
    """data/<part>-*.parquet with row groups of two rows, as the hub has them (there: of a hundred)."""
    (root / "data").mkdir(parents=True, exist_ok=True)
    for number in range(files):
        chosen = rows[number * len(rows) // files : (number + 1) * len(rows) // files]
        path = root / f"data/{part}-{number:05d}-of-{files:05d}.parquet"
        pyarrow.parquet.write_table(table(chosen, names).data.table, path, row_group_size=2)


ROWS = [(encoded(10 * label), label) for label in (2, 0, 1, 1, 0, 2, 2)]


def check_hub(data: OpenData, split: str, rows: list[tuple[bytes, int]] = ROWS) -> None:
    assert data.ids == tuple(f"{split}/{k:06d}" for k in range(len(rows)))
    assert dict(data.categories) == {0: "fish", 1: "bird", 2: "dog"} and data.kind == "official"
    for position in (*range(len(rows)), 3, 0, -1):
        sample, (content, label) = data.reader[position], rows[position]
        assert sample.truth.label == label and sample.id == data.ids[position]
        assert np.array_equal(sample.image, np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))
        assert sample.truth.labels.shape == (HEIGHT, WIDTH) and not sample.truth.labels.any()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes have names on Unix only")
def test_a_pipe_among_parquet_files_of_the_hub_is_not_waited_for(tmp_path: Path) -> None:
    root = tmp_path / "hub/imagenet"
    for part in ("train", "validation"):
        write_parquet(root, part, ROWS, files=1)
    path = next((root / "data").glob("validation-*.parquet"))
    path.unlink()
    os.mkfifo(path)
    text = refusal(tmp_path / "hub")
    assert path.name in text and "not a regular file" in text


def test_parquet_files_of_the_hub(tmp_path: Path) -> None:
    root = tmp_path / "imagenet"
    write_parquet(root, "train", ROWS, files=2)
    write_parquet(root, "validation", ROWS[2:], files=1)
    train = open_split(tmp_path, "train")
    check_hub(train, "train")
    assert len(train.reader.rows._held) == 1, "memory is flat: one row group is held"
    check_hub(open_split(root), "val", ROWS[2:])
    assert open_split(tmp_path, "train", limit=2).ids == ("train/000000", "train/000003")
    assert not list((tmp_path / "cache").glob("**/*.arrow")), "nothing is copied"
    path = write_table(tmp_path / "boxes.jsonl", [row("train/000002", (1, 2, 3, 4), label="dog")])
    boxed = open_split(tmp_path, "train", boxes="labelled", boxes_file=str(path))
    assert boxes_of(boxed, 2) == [(2, (1, 2, 3, 4))] and boxes_of(boxed, 1) == []
    assert "Hugging Face columns hold no boxes" in refusal(tmp_path, split="train", boxes="labelled")
    assert "image_id as in 'val/000000'" in refusal(tmp_path, boxes="labelled", boxes_file=str(path))


@pytest.mark.parametrize("part", ["validation", "val", "valid"])
def test_names_of_the_split_and_webp_in_parquet_files(tmp_path: Path, part: str) -> None:
    rows = [(encoded(10 * label, "WEBP"), label) for label in (0, 2, 1)]
    write_parquet(tmp_path, part, [*rows, (b"no picture", 0)])
    data = open_split(tmp_path)
    assert [data.reader[k].truth.label for k in range(3)] == [0, 2, 1]
    for k, (content, _) in enumerate(rows):
        assert np.array_equal(data.reader[k].image, np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))
    assert "not a PNG or JPEG or WEBP" in failure(data, 3)


def test_a_data_set_saved_by_datasets(tmp_path: Path) -> None:
    parts = {"train": table(ROWS), "validation": table(ROWS[1:])}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "imagenet"))
    check_hub(open_split(tmp_path, "train"), "train")
    check_hub(open_split(tmp_path), "val", ROWS[1:])
    revision = open_split(tmp_path).revision
    path = next((tmp_path / "imagenet/validation").glob("*.arrow"))
    path.write_bytes(path.read_bytes()[:100])
    assert "cannot be read" in refusal(tmp_path)
    assert revision.startswith("official-")


def test_hub_classes_that_differ_or_lack_images(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a", "train", ROWS, ("dog", "fish", "bird"))
    write_parquet(tmp_path / "a", "validation", ROWS)
    assert "name different classes" in refusal(tmp_path / "a")
    write_parquet(tmp_path / "b", "train", ROWS[1:5])
    write_parquet(tmp_path / "b", "validation", ROWS)
    assert "class 'dog' of validation has no image in train (1 such classes)" in refusal(tmp_path / "b")
    assert "1 of 3 classes have no image in train" in open_split(tmp_path / "b", "train").note


def test_hub_columns_that_are_no_images_and_labels(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a", "train", [*ROWS, (encoded(), -1)])
    assert "row 7 has the label -1, not a class" in refusal(tmp_path / "a", split="train")
    (tmp_path / "b/data").mkdir(parents=True)
    pyarrow.parquet.write_table(pa.table({"jpg": [b""], "label": [1]}), tmp_path / "b/data/train-0.parquet")
    assert "no column 'image' (there are jpg, label)" in refusal(tmp_path / "b", split="train")
    put(tmp_path / "c/data/train-0.parquet", b"PAR1 cut")
    assert "cannot be read" in refusal(tmp_path / "c", split="train")
    write_parquet(tmp_path / "d", "train", [(encoded(), 1), (encoded()[:200], 1), (b"", 0)])
    data = open_split(tmp_path / "d", "train")
    assert "row 1 of group 0: image cannot be decoded" in failure(data, 1)
    assert "row 0 of group 1: image cannot be decoded" in failure(data, 2)
    assert data.reader[0].truth.label == 1


def test_labels_without_names(tmp_path: Path) -> None:
    (tmp_path / "imagenet/data").mkdir(parents=True)
    images = pa.array([{"bytes": encoded(), "path": "a.jpg"}, {"bytes": None, "path": "/etc/passwd"}])
    pyarrow.parquet.write_table(
        pa.table({"image": images, "label": [2, 0]}), tmp_path / "imagenet/data/train-0.parquet"
    )
    data = open_split(tmp_path, "train")
    assert dict(data.categories) == {0: "0", 1: "1", 2: "2"} and data.reader[0].truth.label == 2
    assert "holds a path instead of an image" in failure(data, 1), "no path of a file is opened"


def test_the_stand_in_is_read_like_the_official_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_folders(tmp_path / "tree", train=())
    put(root / "labels.txt", "".join(f"{wnid}\n" for wnid in CLASSES))
    put(root / "Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml", xml((FISH, 1, 2, 3, 4)))
    tree = LayoutTree(root, "embedded-r1-0123", 6, "data: embedded stand-in")
    monkeypatch.setattr(imagenet, "ensure_layout", lambda request, layout: {"imagenet": tree}[layout])
    task = card(reader="imagenet", split="val", options={"boxes": "labelled"})
    data = open_imagenet(Request(task, None, None, "val", None, False))
    assert data.kind == "embedded" and data.ids == VAL_IDS and dict(data.categories) == dict(enumerate(CLASSES))
    assert data.revision.startswith("embedded-r1-0123-boxes-") and data.note.startswith("data: embedded stand-in")
    assert boxes_of(data, 0) == [(0, (1, 2, 3, 4))] and data.root == root

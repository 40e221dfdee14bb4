"""A revision is of what files hold: an edit of equal length is noticed, a touch or a copy changes nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layout_trees import (
    annotation,
    card,
    open_layout,
    save_image,
    square,
    write_ade20k,
    write_cityscapes,
    write_clevrtex,
    write_coco,
    write_json,
    write_sbd,
    write_voc,
)
from PIL import Image
from tiny_evaluation import HERE, SIZE, tiny_task
from video_layout_trees import track, write_davis, write_movi, write_ytvis

from ocl_bench.core.errors import UsageError
from ocl_bench.core.types import Batch, Prediction
from ocl_bench.data import OpenData, contents, open_data
from ocl_bench.evaluation.bank import bank_key
from ocl_bench.evaluation.evaluate import evaluate
from ocl_bench.evaluation.plan import make_plan

Open = Callable[[Path], OpenData]
LABELS = np.zeros((16, 32), np.uint8)
LABELS[2:8, 3:9], LABELS[9:14, 12:30] = 1, 2


def save_mask(path: Path, labels: np.ndarray) -> None:
    """Uncompressed, so that masks of one size are files of one length."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels.astype(np.uint8)).save(path, compress_level=0)


def write_folder(root: Path, count: int = 4) -> Path:
    for number in range(count):
        save_image(root / f"images/{number}.png", (SIZE, SIZE), 40 * number)
        labels = np.zeros((SIZE, SIZE), np.uint8)
        labels[2:9, 1 + number : 9] = 1
        save_mask(root / f"masks/{number}.png", labels)
    return root


def open_folder(root: Path, **keywords: Any) -> OpenData:
    return open_data(card(reader="folder", folder="photos", split="test"), data_root=root, **keywords)


def change_byte(path: Path) -> None:
    """Another file of equal length; its last byte differs."""
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def edit(path: Path, *, times: bool = False) -> None:
    """Another content of equal length. times: the modification time is set back, as some tools do."""
    before = path.stat()
    change_byte(path)
    if times:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


class Pixels:
    """The image itself as an embedding."""

    def predict(self, batch: Batch) -> Prediction:
        return Prediction(embedding=batch.image.flatten(1), embedding_source="pixels")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are hashed from now on; files count as settled at once."""
    names: list[str] = []
    original = contents._hash_file

    def spy(path: Path) -> str:
        names.append(path.name)
        return original(path)

    monkeypatch.setattr(contents, "_hash_file", spy)
    monkeypatch.setattr(contents, "SETTLED_NS", -10_000_000_000)
    return names


def coco(root: Path) -> Path:
    return write_coco(root, {1: (12, 20), 2: (12, 20)}, [annotation(1, 1, square(2, 2, 9, 9))])


def coco_panoptic(root: Path) -> Path:
    save_image(root / "val2017/000000000001.jpg", (12, 20))
    save_mask(root / "annotations/panoptic_val2017/000000000001.png", LABELS)
    image = {"id": 1, "file_name": "000000000001.jpg", "height": 12, "width": 20}
    entry = {"image_id": 1, "file_name": "000000000001.png", "segments_info": []}
    categories = [{"id": 1, "name": "person", "isthing": 1}]
    content = {"images": [image], "annotations": [entry], "categories": categories}
    write_json(root / "annotations/panoptic_val2017.json", content)
    return root / "annotations/panoptic_val2017/000000000001.png"


def coco_maps(root: Path) -> Path:
    save_image(root / "val2017/000000000001.jpg", (12, 20))
    save_mask(root / "stuffthingmaps/val2017/000000000001.png", LABELS)
    return root / "stuffthingmaps/val2017/000000000001.png"


def voc(root: Path, inner: str) -> Path:
    folder = write_voc(root, LABELS, LABELS, val=("a", "b"), train=("c",))
    (folder / "Annotations").mkdir()
    for name in "ab":
        (folder / f"Annotations/{name}.xml").write_text("<annotation/>\n")
    write_sbd(root, LABELS, LABELS, train=("d",), val=("e",))
    return (folder / inner).resolve()


def ade20k(root: Path, inner: str) -> Path:
    save_image(root / "images/validation/ADE_val_1.jpg", LABELS.shape)
    write_ade20k(root, "validation", "ADE_val_1", LABELS)
    (root / "objectInfo150.txt").write_text("Idx\tName\n1\twall\n2\tdoor\n")
    return root / inner


def cityscapes(root: Path, suffix: str) -> Path:
    write_cityscapes(root, LABELS, LABELS.astype(np.uint16), "aachen_000000_000001")
    return next((root / "gtFine").rglob(f"*{suffix}"))


def clevrtex(root: Path, name: str) -> Path:
    return write_clevrtex(root, (0, 1)) / "0" / name


def davis(root: Path) -> Path:
    return write_davis(root, {"bear": 2}) / "Annotations_unsupervised/480p/bear/00001.png"


def movi(root: Path) -> Path:
    return next(write_movi(root, (1,)).glob("*tfrecord*"))


def ytvis(root: Path) -> Path:
    write_ytvis(root, {"a": 2}, [track(1, 1, [square(1, 1, 5, 5)] * 2)])
    return root / "train/instances.json"


def video_folder(root: Path) -> Path:
    for number in range(2):
        save_image(root / f"clips/frames/a/{number}.png", (12, 20))
        save_mask(root / f"clips/masks/a/{number}.png", LABELS)
    return root / "clips/masks/a/1.png"


def layout(reader: str, split: str = "val", **options: Any) -> Open:
    return lambda root: open_layout(reader, root, split, **options)


def with_reader(reader: str, split: str, folder: str = "", **options: Any) -> Open:
    return lambda root: open_data(card(reader=reader, split=split, folder=folder, options=options), data_root=root)


CASES: dict[str, tuple[Callable[[Path], Path], Open]] = {
    "folder": (lambda root: write_folder(root / "photos") / "masks/1.png", open_folder),
    "video-folder": (video_folder, with_reader("video-folder", "test", "clips")),
    "clevrtex mask": (partial(clevrtex, name="CLEVRTEX_full_000001_flat.png"), with_reader("clevrtex", "test")),
    "clevrtex metadata": (partial(clevrtex, name="CLEVRTEX_full_000001.json"), with_reader("clevrtex", "test")),
    "coco": (coco, layout("coco")),
    "coco panoptic": (coco_panoptic, layout("coco", annotations="panoptic")),
    "coco maps": (coco_maps, layout("coco", annotations="stuffthings")),
    "voc classes": (partial(voc, inner="SegmentationClass/b.png"), layout("voc")),
    "voc objects": (partial(voc, inner="SegmentationObject/b.png"), layout("voc")),
    "voc boxes": (partial(voc, inner="Annotations/b.xml"), layout("voc", boxes="annotations")),
    "voc sbd": (
        partial(voc, inner="../../benchmark_RELEASE/dataset/cls/d.mat"),
        layout("voc", "trainaug", truth="classes"),
    ),
    "ade20k": (partial(ade20k, inner="annotations/validation/ADE_val_1.png"), layout("ade20k")),
    "ade20k names": (partial(ade20k, inner="objectInfo150.txt"), layout("ade20k")),
    "cityscapes": (partial(cityscapes, suffix="_labelIds.png"), layout("cityscapes")),
    "cityscapes instances": (
        partial(cityscapes, suffix="_instanceIds.png"),
        layout("cityscapes", truth="instances"),
    ),
    "davis": (davis, with_reader("davis", "val")),
    "movi": (movi, with_reader("movi", "validation")),
    "ytvis": (ytvis, with_reader("ytvis", "validation")),
}


@pytest.fixture(params=CASES)
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Path, Open]]:
    """Data root, one of its annotation files, and how it is opened."""
    write, opened = CASES[request.param]
    root = tmp_path / "data"
    root.mkdir()
    yield root, write(root), opened


def test_an_annotation_of_equal_length_makes_another_revision(tree: tuple[Path, Path, Open]) -> None:
    root, path, opened = tree
    before = opened(root).revision
    if path.suffix == ".json":  # it is parsed when the data are opened
        text = changed = path.read_text()
        for old, new in (("dog", "cat"), ("class 40", "class 41"), ('"num_objects": 2', '"num_objects": 3')):
            changed = changed.replace(old, new)
        assert changed != text and len(changed) == len(text)
        path.write_text(changed)
    else:
        edit(path)
    assert opened(root).revision != before


def test_a_touch_and_a_copy_change_nothing(tree: tuple[Path, Path, Open], tmp_path: Path) -> None:
    root, path, opened = tree
    before = opened(root).revision
    os.utime(path, (1, 1))
    assert opened(root).revision == before
    shutil.copytree(root, tmp_path / "elsewhere")
    assert opened(tmp_path / "elsewhere").revision == before


@pytest.mark.parametrize("times", [False, True])
def test_only_what_was_touched_is_read_again(tmp_path: Path, reads: list[str], times: bool) -> None:
    write_folder(tmp_path / "photos")
    first = open_folder(tmp_path).revision
    assert sorted(reads) == ["0.png", "1.png", "2.png", "3.png"], "masks, no images"
    reads.clear()
    assert open_folder(tmp_path).revision == first and not reads
    edit(tmp_path / "photos/masks/2.png", times=times)
    assert open_folder(tmp_path).revision != first and reads == ["2.png"]
    reads.clear()
    edit(tmp_path / "photos/masks/2.png")  # the same byte again: it is the first content
    assert open_folder(tmp_path).revision == first and reads == ["2.png"]


def test_a_file_that_may_change_within_one_tick_of_the_clock_is_read_again(tmp_path: Path, reads: list[str]) -> None:
    write_folder(tmp_path / "photos")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contents, "SETTLED_NS", 3600 * 10**9)
        open_folder(tmp_path)
    reads.clear()
    open_folder(tmp_path)
    assert len(reads) == 4
    reads.clear()
    open_folder(tmp_path)
    assert not reads


@pytest.mark.parametrize("damage", ["", "{", "[" * 100_000, "[]", "null", '{"checksum": 1, "files": {"a": 1}}', "flip"])
def test_a_damaged_memory_is_made_again(tmp_path: Path, reads: list[str], damage: str) -> None:
    write_folder(tmp_path / "photos")
    first = open_folder(tmp_path).revision
    (memory,) = (tmp_path / "cache/contents").iterdir()
    good = memory.read_text()
    value = next(iter(json.loads(good)["files"].values()))[3]
    memory.write_text(good.replace(value, "0" * 64) if damage == "flip" else damage)
    assert open_folder(tmp_path).revision == first
    assert memory.read_text() == good and not list(memory.parent.glob("*.tmp"))


def test_a_pipe_in_place_of_a_mask_is_not_waited_for(tmp_path: Path) -> None:
    write_folder(tmp_path / "photos")
    (tmp_path / "photos/masks/1.png").unlink()
    os.mkfifo(tmp_path / "photos/masks/1.png")
    assert len(open_folder(tmp_path)) == 4


def test_verify_reads_everything_and_notices_what_left_no_trace(tmp_path: Path, reads: list[str]) -> None:
    write_folder(tmp_path / "photos")
    before = open_folder(tmp_path).revision
    reads.clear()
    assert open_folder(tmp_path, verify=True).revision == before and len(reads) == 8
    # Bit rot: another content behind the same size and times. No tool can set the time of the change, so it is faked.
    mask = tmp_path / "photos/masks/2.png"
    old = contents.stamp(mask)
    edit(mask)
    real = contents.stamp
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contents, "stamp", lambda path: old if path == mask else real(path))
        assert open_folder(tmp_path).revision == before
        assert open_folder(tmp_path, verify=True).revision != before
        assert open_folder(tmp_path).revision != before


def test_an_image_that_was_recorded_is_refused_after_an_edit(tmp_path: Path, reads: list[str]) -> None:
    write_folder(tmp_path / "photos")
    image = tmp_path / "photos/images/2.png"
    before = open_folder(tmp_path, verify=True).revision
    os.utime(image, (1, 1))
    reads.clear()
    assert open_folder(tmp_path).revision == before and reads == ["2.png"], "touched, but the same"
    reads.clear()
    assert open_folder(tmp_path).revision == before and not reads
    edit(image)
    for verify in (False, True, False):
        with pytest.raises(UsageError, match=r"images/2\.png: not what an earlier --verify") as caught:
            open_folder(tmp_path, verify=verify)
        assert "\n" not in str(caught.value)
    edit(image)
    assert open_folder(tmp_path).revision == before, "restored"
    image.write_bytes(image.read_bytes() + b"more")
    assert open_folder(tmp_path, verify=True).revision != before, "the revision tells images of other sizes apart"


def test_the_keys_of_results_heads_and_banks_follow_an_edit(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "photos")
    (root / "test.txt").write_text("0\n1\n")
    (root / "train.txt").write_text("1\n2\n3\n")
    data = {"reader": "folder", "folder": "photos", "split": "test", "options": {"ids": "{split}.txt"}}
    fit = {"head": "linear", "split": "train", "samples": 4}
    probe = {"family": "segmentation", "protocol": {"crop": "none", "classes": 3}, "metrics": ["miou_sem"]}
    task = tiny_task(data=data, fit=fit, main="miou_sem", **probe)

    vote = {"input": SIZE, "score_at": SIZE, "temperature": 0.07}
    names = {"metrics": ["knn_top1"], "main": "knn_top1"}
    knn = tiny_task(family="knn", data=data, protocol=vote, fit={"head": "bank", "split": "train"}, **names)

    def keys() -> set[str]:
        plan = make_plan(HERE, task, data_root=tmp_path, device="cpu")
        assert plan.train is not None
        search = make_plan(Pixels(), knn, data=plan.data, train=plan.train, device="cpu")
        return {plan.key, plan.fit_key, bank_key(search, plan.train), plan.data.reader.manifest.key}

    first = keys()
    assert keys() == first
    edit(tmp_path / "photos/masks/1.png")
    assert not keys() & first


def test_the_result_of_an_edited_mask_is_computed_and_right(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "photos")
    task = tiny_task(data={"reader": "folder", "folder": "photos"})
    run = partial(evaluate, "oracle", task, data_root=tmp_path, results=tmp_path / "results", device="cpu")
    first = run()
    assert run().reused and run(verify=True).reused
    labels = np.zeros((SIZE, SIZE), np.uint8)
    labels[0:2, 0:2], labels[4:6] = 1, 2
    save_mask(root / "masks/0.png", labels)
    second = run()
    assert not second.reused and second.identity.key != first.identity.key
    fresh = run(results=tmp_path / "fresh")
    assert second.path is not None and fresh.path is not None
    assert second.rows.sha256 == fresh.rows.sha256 != first.rows.sha256

"""Parquet files and shards of the hub: equal to the official layout, found in the cache without any connection."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from layout_trees import card, save_image, write_ade20k
from modern_trees import image_file, write_shards
from PIL import Image
from typer.testing import CliRunner

from ocl_bench.cards.names import get_task
from ocl_bench.cards.task import TaskSpec
from ocl_bench.cli import app
from ocl_bench.core.errors import DataMissingError, SampleError, UsageError
from ocl_bench.data import OpenData, open_data
from ocl_bench.data.getting.work import look
from ocl_bench.data.hub import fetch, is_hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LABELS = np.zeros((20, 30), np.uint8)
LABELS[3:9, 2:12], LABELS[11:18, 15:28] = 1, 150


def ade20k_card() -> TaskSpec:
    return card(reader="ade20k", folder="ADEChallengeData2016", split="val", get="the archive")


def write_parquet(path: Path, rows: list[dict[str, Any]], group: int = 2) -> None:
    """Columns of encoded images as `datasets` writes them: structures of bytes and path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    columns = {name: pa.array([row[name] for row in rows], kind) for name in ("image", "annotation")}
    columns["scene_category"] = pa.array([0] * len(rows))
    pyarrow.parquet.write_table(pa.table(columns), path, row_group_size=group)


def rows_of(root: Path, named: bool = True) -> list[dict[str, Any]]:
    """The rows of an official tree, in the order of its names."""
    rows = []
    for path in sorted((root / "images/validation").iterdir()):
        mask = root / f"annotations/validation/{path.stem}.png"
        image = {"bytes": path.read_bytes(), "path": path.name if named else None}
        rows.append({"image": image, "annotation": {"bytes": mask.read_bytes(), "path": mask.name}})
    return rows


def write_official(root: Path, count: int = 3) -> None:
    for number in range(count):
        write_ade20k(root, "validation", f"ADE_val_{number + 1:08d}", np.roll(LABELS, number))


@pytest.mark.parametrize("place", ["data/validation-00000-of-00001.parquet", "scene_parsing/validation/0000.parquet"])
@pytest.mark.parametrize("named", [True, False])
def test_ade20k(tmp_path: Path, place: str, named: bool) -> None:
    write_official(tmp_path / "official")
    write_parquet(tmp_path / "hub" / place, rows_of(tmp_path / "official", named))
    official, data = (open_data(ade20k_card(), data_root=tmp_path / name) for name in ("official", "hub"))
    assert data.kind == "official" and "Parquet" in data.note
    assert data.ids == (official.ids if named else ("val/000000", "val/000001", "val/000002"))
    for first, second in zip(official.reader, data.reader, strict=True):
        assert np.array_equal(first.image, second.image)
        assert np.array_equal(first.truth.labels, second.truth.labels)
        assert first.truth.classes is not None and second.truth.classes is not None
        assert np.array_equal(first.truth.classes, second.truth.classes)


def test_what_is_wrong_with_parquet_files(tmp_path: Path) -> None:
    write_official(tmp_path / "official", 1)
    path = tmp_path / "hub/data/validation-00000-of-00001.parquet"
    row = rows_of(tmp_path / "official")[0]
    for change, reason in (
        ({"annotation": {"bytes": b"none", "path": None}}, "mask cannot be read"),
        ({"annotation": {"bytes": None, "path": "elsewhere.png"}}, "holds no image or no annotation"),
        ({"annotation": row["image"]}, "not a PNG"),
        ({"annotation": {"bytes": image_file(np.zeros((20, 30, 3), np.uint8), "png"), "path": None}}, "in colour"),
        ({"annotation": {"bytes": image_file(LABELS[::2], "png"), "path": None}}, "mask size"),
        ({"annotation": {"bytes": image_file(LABELS + 50, "png"), "path": None}}, "label 200"),
    ):
        write_parquet(path, [{**row, **change}])
        with pytest.raises(SampleError, match=reason) as caught:
            open_data(ade20k_card(), data_root=tmp_path / "hub").reader[0]
        assert "\n" not in str(caught.value)
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(UsageError, match="cannot be read"):
        open_data(ade20k_card(), data_root=tmp_path / "hub")
    pyarrow.parquet.write_table(pa.table({"image": pa.array([1])}), path)
    with pytest.raises(UsageError, match=r"no column 'annotation' \(there are image\)"):
        open_data(ade20k_card(), data_root=tmp_path / "hub")


def test_both_forms_of_ade20k_are_refused(tmp_path: Path) -> None:
    write_official(tmp_path)
    write_parquet(tmp_path / "data/validation-00000-of-00001.parquet", rows_of(tmp_path))
    with pytest.raises(UsageError, match=r"found official files in .* and Parquet files in"):
        open_data(ade20k_card(), data_root=tmp_path)


@pytest.mark.parametrize("place", ["data/validation-00000-of-00001.parquet", "data/train-00000-of-00001.parquet"])
def test_another_split_of_parquet_files(tmp_path: Path, place: str) -> None:
    """The message names the form that is there, and its splits, not the folders of the archive."""
    write_official(tmp_path / "official")
    write_parquet(tmp_path / "hub" / place, rows_of(tmp_path / "official"))
    there, asked = ("val", "train") if "validation" in place else ("train", "val")
    text = rf"found Parquet files of split '{there}' in .*hub, none of split '{asked}'"
    with pytest.raises(DataMissingError, match=text):
        open_data(ade20k_card(), data_root=tmp_path / "hub", split=asked)


def in_cache(cache: Path, name: str = "owner/name") -> Path:
    """The folder of a commit in the cache of huggingface_hub, to which the branch main points."""
    home = cache / f"datasets--{name.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs/main").write_text(COMMIT)
    (home / "snapshots" / COMMIT).mkdir(parents=True)
    return home / "snapshots" / COMMIT


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OCL_BENCH_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(
    "text", ["hf://datasets/owner/name", "hf:/datasets/owner/name", f"hf://datasets/owner/name@{COMMIT}"]
)
def test_a_data_set_of_the_hub(cache: Path, tmp_path: Path, text: str) -> None:
    write_official(tmp_path / "official")
    folder = in_cache(cache)
    write_parquet(folder / "data/validation-00000-of-00001.parquet", rows_of(tmp_path / "official"))
    data = open_data(ade20k_card(), data_root=Path(text), limit=2)
    plain = open_data(ade20k_card(), data_root=folder)
    assert data.ids == ("ADE_val_00000001", "ADE_val_00000002")
    assert data.revision.endswith(f"-owner--name@{COMMIT[:12]}") and "/" not in data.revision
    assert data.revision.startswith("official-") and len(plain) == 3
    assert COMMIT[:12] in data.note


def test_a_data_set_of_the_hub_in_the_environment(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_official(tmp_path / "official")
    folder = in_cache(cache)
    write_parquet(folder / "data/validation-00000-of-00001.parquet", rows_of(tmp_path / "official"))
    given = open_data(ade20k_card(), data_root=Path("hf://datasets/owner/name"))
    monkeypatch.setenv("OCL_BENCH_DATA", "hf://datasets/owner/name")
    data = open_data(ade20k_card())
    assert data.ids == given.ids and data.revision == given.revision and data.kind == "official"
    assert open_data(ade20k_card(), data_root=tmp_path / "official").kind == "official", "the option goes first"
    assert open_data(get_task("ade20k-segmentation"), embedded=True, limit=1).kind == "embedded"
    assert open_data(get_task("ade20k-segmentation"), stand_in_seed=1, limit=1).kind == "embedded"
    (place,) = look([ade20k_card()], Path("hf:/datasets/owner/name"))
    assert "Parquet" in place.found and place.problem == ""


@pytest.mark.parametrize("verb", [["get", "coco", "--yes"], ["link", "coco", "."]])
def test_nothing_is_written_to_the_hub(verb: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["data", *verb, "--data-root", "hf://datasets/owner/name"])
    assert result.exit_code == 2 and "is on the hub; give a folder" in result.output
    assert list(tmp_path.iterdir()) == []


def test_offline_says_so(cache: Path) -> None:
    message = r"^hf://datasets/no/such: offline, and it is not in the cache"
    with pytest.raises(DataMissingError, match=message) as caught:
        open_data(ade20k_card(), data_root=Path("hf://datasets/no/such"))
    assert "\n" not in str(caught.value) and caught.value.exit_code == 3


@pytest.mark.parametrize("text", ["hf://models/a/b", "hf://datasets/a", "hf://datasets/a/b/c"])
def test_other_places_of_the_hub(text: str) -> None:
    assert is_hub(Path(text)) and not is_hub(Path("/data/hf"))
    with pytest.raises(UsageError, match="write hf://datasets/OWNER/NAME"):
        fetch(Path(text))


def imagenet_card(**options: Any) -> TaskSpec:
    return TaskSpec.model_validate(
        {
            "name": "probe",
            "version": 1,
            "family": "knn",
            "data": {"reader": "imagenet", "split": "val", "options": options},
            "protocol": {"input": 32, "temperature": 0.07},
            "fit": {"head": "bank"},
            "metrics": ["knn_top1"],
            "main": "knn_top1",
        }
    )


def open_imagenet(root: Path, split: str = "val") -> OpenData:
    return open_data(imagenet_card(), data_root=root, split=split)


def test_imagenet_shards_are_that_of_class_folders(tmp_path: Path) -> None:
    """`imagenet1k-validation-00.tar`: parts jpg, cls and json of each sample; classes have no names there."""
    samples, classes = [], ("n01440764", "n01443537")
    for number in range(4):
        kind, name = number % 2, f"ILSVRC2012_val_{number:08d}"
        path = save_image(tmp_path / f"folders/val/{classes[kind]}/{name}.JPEG", (20, 30), value=50 + 30 * number)
        save_image(tmp_path / f"folders/train/{classes[kind]}/a.JPEG", (20, 30))
        samples.append((name, {"jpg": path.read_bytes(), "cls": str(kind).encode(), "json": b"{}"}))
    write_shards(tmp_path / "shards", "imagenet1k-validation", samples)
    data = open_imagenet(tmp_path / "shards")
    folders = {one.id.rpartition("/")[2]: one for one in open_imagenet(tmp_path / "folders").reader}
    assert data.ids == ("val/000000", "val/000001", "val/000002", "val/000003")
    for (name, _), sample in zip(samples, data.reader, strict=True):
        assert np.array_equal(sample.image, folders[name].image) and sample.truth.label == folders[name].truth.label


def test_a_bad_image_in_a_shard_fails_alone(tmp_path: Path) -> None:
    good = io.BytesIO()
    Image.new("RGB", (8, 8)).save(good, "jpeg")
    write_shards(
        tmp_path,
        "imagenet1k-validation",
        [("a", {"jpg": b"x", "cls": b"0"}), ("b", {"jpg": good.getvalue(), "cls": b"1"})],
    )
    data = open_imagenet(tmp_path)
    with pytest.raises(SampleError, match="image cannot be decoded"):
        data.reader[0]
    assert data.reader[1].truth.label == 1
    write_shards(tmp_path, "imagenet1k-validation", [("a", {"jpg": good.getvalue(), "cls": b"none"})])
    with pytest.raises(UsageError, match="cannot be read"):
        open_imagenet(tmp_path)
    write_shards(tmp_path, "imagenet1k-validation", [("a", {"jpg": good.getvalue()})])
    with pytest.raises(UsageError, match="sample 'a' has no part cls"):
        open_imagenet(tmp_path)

"""What a message says beside what is missing: archives that nobody unpacked, and a root that would fit."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from layout_trees import card, write_ade20k, write_cityscapes, write_clevrtex, write_voc
from modern_trees import video_card
from video_layout_trees import write_davis

from ocl_bench.cards.task import TaskSpec
from ocl_bench.core.errors import DataMissingError
from ocl_bench.data import open_data

LABELS = np.zeros((20, 30), np.uint8)
LABELS[3:9, 2:12] = 7
ADE = card(reader="ade20k", folder="ADEChallengeData2016", split="val")


def missing(task: TaskSpec, root: Path) -> str:
    with pytest.raises(DataMissingError) as caught:
        open_data(task, data_root=root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "name", ["ADEChallengeData2016.zip", "images.TAR.GZ", "a b.tgz", "VOCtrainval_11-May-2012.tar"]
)
def test_archives_that_are_not_unpacked_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "ADEChallengeData2016").mkdir()
    for place in (tmp_path, tmp_path / "ADEChallengeData2016"):
        (place / name).write_bytes(b"PK")
        assert missing(ADE, tmp_path).endswith(f"; archives are not read, unpack them first: {name}")
        (place / name).unlink()


def test_what_is_no_archive_is_not_named(tmp_path: Path) -> None:
    for name in ("._data.zip", "movi_c-train-000000.tar", "imagenet1k-validation-12.tar", "readme.txt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.zip").mkdir()
    assert "unpack" not in missing(ADE, tmp_path)


def test_a_root_that_would_fit_is_named(tmp_path: Path) -> None:
    """One level too high, by another name, or up to three too low, in every reader."""
    write_ade20k(tmp_path / "1/my data/ADEChallengeData2016", "validation", "ADE_val_00000001", LABELS)
    write_cityscapes(tmp_path / "2/Cityscapes", LABELS, LABELS, "ulm_000000_000000")
    write_voc(tmp_path / "3", LABELS, LABELS, val=("2007_000032",))
    write_davis(tmp_path / "4", {"bear": 2})
    write_clevrtex(tmp_path / "5/é", range(2), passes=False)
    davis = video_card(reader="davis", folder="DAVIS", split="val", options={})
    for task, asked, said in (
        (ADE, "1", "1/my data"),
        (ADE, "1/my data/ADEChallengeData2016/images", "1/my data/ADEChallengeData2016"),
        (card(reader="cityscapes", folder="cityscapes", split="val"), "2", "2/Cityscapes"),
        (card(reader="voc", folder="VOCdevkit", split="val"), "3/VOCdevkit/VOC2012/JPEGImages", "3/VOCdevkit/VOC2012"),
        (davis, "4/DAVIS/JPEGImages/480p", "4/DAVIS"),
        (card(reader="clevrtex", folder="clevrtex_full", split="test"), "5", "5/é"),
    ):
        assert missing(task, tmp_path / asked).endswith(f"; there are such data with --data-root {tmp_path / said}")
        assert len(open_data(task, data_root=tmp_path / said))


def test_nothing_is_said_where_nothing_is_found(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / ".hidden.zip", "w"), tarfile.open(tmp_path / "shard-val-000.tar", "w"):
        pass
    write_ade20k(tmp_path / "__MACOSX/ADEChallengeData2016", "validation", "ADE_val_00000001", LABELS)
    assert "unpack" not in missing(ADE, tmp_path) and "--data-root" not in missing(ADE, tmp_path)

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from layout_trees import PALETTE, card, scene_arrays, write_clevrtex
from PIL import Image

from ocl_bench.cards.names import get_task
from ocl_bench.core.errors import DataMissingError, SampleError, UsageError
from ocl_bench.core.types import Sample
from ocl_bench.data import open_data
from ocl_bench.data.readers.clevrtex import rank_colours, split_numbers

FULL = card(variant="full", split="test", folder="clevrtex_full")


def stem(folder: Path, number: int) -> Path:
    return folder / str(number // 1000) / f"CLEVRTEX_full_{number:06d}"


def failure(data, index: int) -> str:
    """The one-line message of the sample at `index`; every other sample must still be readable."""
    with pytest.raises(SampleError) as caught:
        data.reader[index]
    assert caught.value.sample_id == data.ids[index]
    assert "\n" not in str(caught.value)
    assert all(isinstance(data.reader[i], Sample) for i in range(len(data)) if i != index)
    return str(caught.value)


@pytest.mark.parametrize("size", [(320, 240), (160, 160), (33, 41)])
def test_official_layout_at_any_size(tmp_path, size):
    write_clevrtex(tmp_path, [0, 999, 1000], size=size)
    data = open_data(FULL, data_root=tmp_path)
    assert data.kind == "official" and data.revision.startswith("official-")
    assert data.ids == ("CLEVRTEX_full_000000", "CLEVRTEX_full_000999", "CLEVRTEX_full_001000")
    for sample, number in zip(data.reader, [0, 999, 1000], strict=True):
        image, labels = scene_arrays(number, size)
        assert np.array_equal(sample.image, image) and np.array_equal(sample.truth.labels, labels)
        assert sample.truth.labels.dtype == np.int16


def test_splits_follow_the_scene_number_not_what_is_present(tmp_path):
    write_clevrtex(tmp_path, [0, 4999, 5000, 9999, 10000, 49999])
    expected = {"test": ["000000", "004999"], "val": ["005000", "009999"], "train": ["010000", "049999"]}
    for split, numbers in expected.items():
        data = open_data(FULL, data_root=tmp_path, split=split)
        assert [i[-6:] for i in data.ids] == numbers
    assert len(open_data(FULL, data_root=tmp_path, split="all").ids) == 6
    assert len(split_numbers("full", "test")) == 5000 and len(split_numbers("full", "train")) == 40000


def test_every_variant_but_outd_is_split_by_tenths_as_the_official_loader_does(tmp_path):
    write_clevrtex(tmp_path, [1999, 2000, 3999, 4000, 19999], variant="camo")
    expected = {"test": ["001999"], "val": ["002000", "003999"], "train": ["004000", "019999"]}
    for split, numbers in expected.items():
        assert [i[-6:] for i in open_data(card(variant="camo", split=split), data_root=tmp_path).ids] == numbers
    assert get_task("clevrtex-camo").data.split == "test" and get_task("clevrtex-ood").data.split == "all"
    for split in ("test", "val", "train"):
        with pytest.raises(UsageError, match=r"'outd' is not split.*use 'all'"):
            split_numbers("outd", split)


def test_partial_download_is_said(tmp_path):
    write_clevrtex(tmp_path, [*range(3), 2005])
    note = open_data(FULL, data_root=tmp_path).note
    assert "PARTIAL" in note and "4996 of 5000" in note and "\n" not in note


def test_complete_unsplit_variant_is_not_called_partial(tmp_path):
    write_clevrtex(tmp_path, range(4), variant="outd")
    data = open_data(card(variant="outd", split="all"), data_root=tmp_path)
    assert len(data) == 4 and "PARTIAL" not in data.note
    with pytest.raises(UsageError, match="not split"):
        open_data(card(variant="outd", split="all"), data_root=tmp_path, split="val")


def test_root_may_be_the_parent_the_folder_or_a_renamed_folder(tmp_path):
    folder = write_clevrtex(tmp_path, [1, 2])
    parent, itself = open_data(FULL, data_root=tmp_path), open_data(FULL, data_root=folder)
    renamed = folder.rename(tmp_path / "renamed")
    assert parent.ids == itself.ids == open_data(FULL, data_root=renamed).ids


def test_root_from_the_environment_and_limit(tmp_path, monkeypatch):
    write_clevrtex(tmp_path, range(5))
    monkeypatch.setenv("OCL_BENCH_DATA", str(tmp_path))
    data = open_data(FULL, limit=2)
    assert data.kind == "official" and [i[-1] for i in data.ids] == ["0", "1"]


def test_missing_data_says_what_where_and_how(tmp_path):
    with pytest.raises(DataMissingError) as caught:
        open_data(FULL, data_root=tmp_path)
    message = str(caught.value)
    assert caught.value.exit_code == 3 and "\n" not in message
    assert str(tmp_path / "clevrtex_full") in message and "robots.ox.ac.uk" in message
    write_clevrtex(tmp_path, [20000])
    with pytest.raises(DataMissingError, match="no scene of the test split"):
        open_data(FULL, data_root=tmp_path)
    with pytest.raises(DataMissingError, match="no such folder"):
        open_data(FULL, data_root=tmp_path / "nowhere")
    with pytest.raises(DataMissingError, match="no stand-in"):
        open_data(FULL)


def test_folder_of_the_card_cannot_leave_the_root(tmp_path):
    write_clevrtex(tmp_path, [0])
    (tmp_path / "root").mkdir()
    with pytest.raises(UsageError, match="below the data root"):
        open_data(card(variant="full", folder="../clevrtex_full"), data_root=tmp_path / "root")


def test_changing_one_file_builds_a_new_index(tmp_path, private_places):
    folder = write_clevrtex(tmp_path, range(3))
    first = open_data(FULL, data_root=tmp_path)
    assert open_data(FULL, data_root=tmp_path).revision == first.revision
    assert len(list((private_places / "arrow").iterdir())) == 1
    os.utime(f"{stem(folder, 1)}_flat.png", ns=(1, 1))
    assert open_data(FULL, data_root=tmp_path).revision == first.revision
    assert len(list((private_places / "arrow").iterdir())) == 2
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(f"{stem(folder, 1)}.png")
    changed = open_data(FULL, data_root=tmp_path)
    assert changed.revision != first.revision and not changed.reader[1].image.any()


def test_colour_and_grey_masks_decode_like_palette_masks(tmp_path):
    folder = write_clevrtex(tmp_path, range(2))
    expected = [sample.truth.labels for sample in open_data(FULL, data_root=tmp_path).reader]
    path = Path(f"{stem(folder, 0)}_flat.png")
    Image.open(path).convert("RGB").save(path)
    Image.fromarray(expected[1].astype(np.uint8)).save(f"{stem(folder, 1)}_flat.png")
    decoded = [sample.truth.labels for sample in open_data(FULL, data_root=tmp_path).reader]
    colours = np.array(PALETTE).reshape(-1, 3) @ np.array([1, 256, 65536])
    order = np.argsort(np.argsort(colours[:3]))
    assert np.array_equal(decoded[0], order[expected[0]])
    assert np.array_equal(decoded[1], expected[1])


def test_black_is_background_even_where_an_image_has_none():
    assert rank_colours(np.array([[65536, 5], [5, 255]])).tolist() == [[3, 1], [1, 2]]
    assert rank_colours(np.array([[0, 5], [5, 255]])).tolist() == [[0, 1], [1, 2]]


def test_scene_without_its_mask(tmp_path):
    folder = write_clevrtex(tmp_path, range(3))
    Path(f"{stem(folder, 1)}_flat.png").unlink()
    message = failure(open_data(FULL, data_root=tmp_path), 1)
    assert "CLEVRTEX_full_000001_flat.png" in message and "mask file is missing" in message and "download" in message


@pytest.mark.parametrize("suffix", [".png", "_flat.png"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9])
def test_truncated_png(tmp_path, suffix, share):
    folder = write_clevrtex(tmp_path, range(3), size=(64, 48))
    path = Path(f"{stem(folder, 2)}{suffix}")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    message = failure(open_data(FULL, data_root=tmp_path), 2)
    assert str(path) in message and "cannot be read" in message


def test_flipped_bit_in_the_mask_is_noticed(tmp_path):
    folder = write_clevrtex(tmp_path, range(2), size=(320, 240))
    path = Path(f"{stem(folder, 1)}_flat.png")
    content = bytearray(path.read_bytes())
    start = content.index(b"IDAT") + 4
    content[start + 40] ^= 1
    path.write_bytes(content)
    assert "cannot be read" in failure(open_data(FULL, data_root=tmp_path), 1)


def test_mask_of_another_size(tmp_path):
    folder = write_clevrtex(tmp_path, range(3))
    Image.fromarray(np.zeros((32, 24), np.uint8)).save(f"{stem(folder, 0)}_flat.png")
    assert "mask size 24x32, its image 32x24" in failure(open_data(FULL, data_root=tmp_path), 0)


def test_more_labels_than_declared(tmp_path):
    folder = write_clevrtex(tmp_path, range(3))
    Path(f"{stem(folder, 1)}.json").write_text(json.dumps({"num_objects": 1, "objects": [{}]}))
    message = failure(open_data(FULL, data_root=tmp_path), 1)
    assert "mask label 2" in message and "num_objects" in message


@pytest.mark.parametrize("metadata", ["none", "50000 objects"])
@pytest.mark.parametrize("label", [32767, 32768, 40000])
def test_labels_that_do_not_fit_fail_their_scene(tmp_path, metadata, label):
    """A label map has 16 bits with a sign: 40000 would become -25536."""
    folder = write_clevrtex(tmp_path, range(2))
    path = Path(f"{stem(folder, 1)}_flat.png")
    mask = np.zeros((24, 32), np.uint16)
    mask[3, 4] = label
    Image.fromarray(mask).save(path)
    described = Path(f"{stem(folder, 1)}.json")
    described.unlink() if metadata == "none" else described.write_text(json.dumps({"num_objects": 50000}))
    data = open_data(FULL, data_root=tmp_path)
    if label == 32767:
        assert data.reader[1].truth.labels.max() == 32767 and data.reader[1].truth.labels.min() == 0
    else:
        assert f"{path}: label {label}, " in failure(data, 1)


@pytest.mark.parametrize("content", ["{", "[1]", "\xff\xfe", "[" * 100_000, '{"num_objects": "2"}', "{}"])
def test_unreadable_metadata(tmp_path, content):
    folder = write_clevrtex(tmp_path, range(2))
    path = Path(f"{stem(folder, 0)}.json")
    path.write_bytes(content.encode("latin-1"))
    assert str(path) in failure(open_data(FULL, data_root=tmp_path), 0)


def test_wrong_modes(tmp_path):
    folder = write_clevrtex(tmp_path, range(3))
    Image.fromarray(np.zeros((24, 32), np.uint8)).save(f"{stem(folder, 0)}.png")
    assert "image mode 'L'" in failure(open_data(FULL, data_root=tmp_path), 0)
    write_clevrtex(tmp_path, range(3))
    Image.new("LA", (32, 24)).save(f"{stem(folder, 1)}_flat.png")
    assert "mask mode 'LA'" in failure(open_data(FULL, data_root=tmp_path), 1)


def test_scene_found_twice_is_refused(tmp_path):
    folder = write_clevrtex(tmp_path, [0])
    (folder / "copy").mkdir()
    (folder / "copy/CLEVRTEX_full_000000.png").write_bytes(Path(f"{stem(folder, 0)}.png").read_bytes())
    with pytest.raises(UsageError, match="000000 is there twice"):
        open_data(FULL, data_root=tmp_path)


def test_unknown_names_get_a_suggestion(tmp_path):
    with pytest.raises(UsageError, match="did you mean 'clevrtex'"):
        open_data(
            card(variant="full").model_copy(update={"data": FULL.data.model_copy(update={"reader": "clevertex"})})
        )
    with pytest.raises(UsageError, match=r"data\.variant 'ful'"):
        open_data(card(variant="ful"))
    with pytest.raises(UsageError, match="--limit 0"):
        open_data(FULL, limit=0)
    with pytest.raises(UsageError, match=r"data\.options"):
        open_data(card(variant="full", options={"void": 3}), data_root=tmp_path)
    with pytest.raises(IndexError):
        write_clevrtex(tmp_path, [0])
        open_data(FULL, data_root=tmp_path).reader[1]

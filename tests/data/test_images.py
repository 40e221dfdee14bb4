"""Formats and modes of images: what is read is right, and what cannot be read right is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from layout_trees import fault
from PIL import Image

from ocl_bench.data.images import read_image, read_mask

GREY = np.random.default_rng(0).integers(0, 256, (12, 16), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (12, 16, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_of_16_bits_is_that_of_8_bits(tmp_path: Path, suffix: str) -> None:
    wide, narrow = tmp_path / f"wide.{suffix}", tmp_path / f"narrow.{suffix}"
    Image.fromarray(GREY.astype(np.uint16) * 257).save(wide)
    Image.fromarray(GREY).save(narrow)
    assert np.array_equal(read_image(wide, "a", remedy=""), read_image(narrow, "a", remedy=""))
    assert np.array_equal(read_image(wide, "a", remedy=""), np.repeat(GREY[..., None], 3, axis=2))


def test_grey_of_16_bits_is_rounded(tmp_path: Path) -> None:
    values = np.array([[0, 128, 129, 385, 386, 65406, 65407, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", "a", remedy="")[0, :, 0].tolist() == np.rint(values / 257)[0].tolist()


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_grey_without_a_known_range_is_refused(tmp_path: Path, kind: type) -> None:
    Image.fromarray(GREY.astype(kind)).save(tmp_path / "a.tif")
    text = fault(lambda: read_image(tmp_path / "a.tif", "a", remedy="repair it"), "a")
    assert "32 bits" in text and "a.tif" in text and "repair it" in text


@pytest.mark.parametrize("name", ["a.webp", "a.bmp", "a.tif", "a.tiff", "a.png"])
def test_lossless_formats_give_the_stored_pixels(tmp_path: Path, name: str) -> None:
    Image.fromarray(COLOUR).save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    assert np.array_equal(read_image(tmp_path / name, "a", remedy=""), COLOUR)


@pytest.mark.parametrize("suffix", ["tif", "webp", "png"])
def test_a_file_of_several_pictures_is_refused(tmp_path: Path, suffix: str) -> None:
    pages = [Image.fromarray(COLOUR), Image.fromarray(COLOUR[::-1])]
    pages[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=pages[1:])
    assert "holds 2 pictures" in fault(lambda: read_image(tmp_path / f"a.{suffix}", "a", remedy=""), "a")


def test_an_animated_mask_is_refused(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png", save_all=True, append_images=[Image.fromarray(GREY[::-1])])
    text = fault(lambda: read_mask(tmp_path / "a.png", "a", shape=GREY.shape, remedy=""), "a")
    assert "holds 2 pictures" in text


def test_a_mask_with_its_ids_in_alpha_is_refused(tmp_path: Path) -> None:
    path, alpha = tmp_path / "a.png", (GREY % 3)[..., None]
    Image.fromarray(np.concatenate([np.zeros_like(COLOUR), alpha], -1)).save(path)
    text = fault(lambda: read_mask(path, "a", shape=GREY.shape, remedy=""), "a")
    assert "pixels of one colour differ in alpha; store the ids in red, green and blue, or in one channel" in text
    Image.fromarray(np.concatenate([alpha, 0 * alpha, 0 * alpha, np.uint8(255) * (alpha > 0)], -1)).save(path)
    codes, coloured = read_mask(path, "a", shape=GREY.shape, remedy="")
    assert coloured and np.array_equal(codes, alpha[..., 0])


def test_suffixes_in_capitals_are_found(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "a.PNG")
    Image.fromarray(GREY).save(tmp_path / "m.PNG")
    assert np.array_equal(read_image(tmp_path / "a.png", "a", remedy=""), COLOUR)
    assert np.array_equal(read_mask(tmp_path / "m.png", "a", shape=GREY.shape, remedy="")[0], GREY)


def test_an_orientation_that_is_not_applied_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "images").mkdir()
    upright, *turned = (tmp_path / "images" / name for name in ("a.jpg", "b.jpg", "c.png", "d.webp"))
    Image.fromarray(COLOUR).save(upright)
    for path in turned:
        Image.fromarray(COLOUR).save(path, exif=exif)
    with caplog.at_level(logging.WARNING, "ocl_bench"):
        read_image(upright, "a", remedy="")
        assert not caplog.records
        assert read_image(turned[0], "turned", shape=(16, 12), remedy="").shape == (16, 12, 3)
        assert not caplog.records, "it was turned"
        for path in turned:
            assert read_image(path, "b", remedy="").shape == (12, 16, 3)
    assert len(caplog.records) == 1
    assert "b.jpg" in caplog.text and "EXIF orientation (6) is not applied" in caplog.text

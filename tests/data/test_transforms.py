from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ocl_bench.data.transforms import crop_box, prepare
from ocl_bench.spec import Protocol
from ocl_bench.types import VOID, Instance, Sample, Truth


def sample(height: int, width: int) -> Sample:
    generator = np.random.default_rng(height * 1000 + width)
    image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    labels = generator.integers(-1, 5, (height, width)).astype(np.int16)
    return Sample("s", image, Truth(labels))


@pytest.mark.parametrize(
    ("crop", "size", "box"),
    [
        ("center-0.8", (240, 320), (64, 24, 256, 216)),
        ("center-0.8", (160, 160), (16, 16, 144, 144)),
        ("center-1.0", (240, 320), (40, 0, 280, 240)),
        ("center-0.8", (33, 47), (10, 3, 36, 29)),
        ("none", (33, 47), (0, 0, 47, 33)),
    ],
)
def test_crop_box_by_hand(crop, size, box):
    assert crop_box(crop, *size) == box


@given(st.integers(2, 600), st.integers(2, 600), st.sampled_from(["0.8", "0.5", "0.875", "1.0", "1"]))
def test_crop_is_a_central_square_inside_the_image(height, width, share):
    left, top, right, bottom = crop_box(f"center-{share}", height, width)
    assert right - left == bottom - top == int(float(share) * min(height, width))
    assert left >= 0 and top >= 0 and right <= width and bottom <= height
    assert abs(left - (width - right)) <= 1 and abs(top - (height - bottom)) <= 1


def test_the_stand_in_is_not_resampled():
    given_sample = sample(160, 160)
    image, given_truth = prepare(given_sample, Protocol(crop="center-0.8", input=128, score_at=128), 128)
    truth = given_truth.labels
    assert image.shape == (3, 128, 128) and image.dtype == torch.float32
    assert np.array_equal((image * 255).round().byte().permute(1, 2, 0).numpy(), given_sample.image[16:144, 16:144])
    assert np.array_equal(truth, given_sample.truth.labels[16:144, 16:144]) and truth.dtype == np.int16


def test_official_size_equals_the_pillow_calls_of_the_official_loader():
    given_sample = sample(240, 320)
    image, given_truth = prepare(given_sample, Protocol(crop="center-0.8", score_at=128), 128)
    truth = given_truth.labels
    box = (64, 24, 256, 216)
    pixels = Image.fromarray(given_sample.image).crop(box).resize((128, 128), resample=Image.Resampling.BILINEAR)
    shifted = Image.fromarray((given_sample.truth.labels + 1).astype(np.uint8)).crop(box)
    labels = np.asarray(shifted.resize((128, 128), resample=Image.Resampling.NEAREST)).astype(int) - 1
    assert torch.equal(image, torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 255)
    assert np.array_equal(truth, labels) and VOID in truth


def test_shrinking_is_antialiased():
    board = np.indices((128, 128)).sum(0) % 2 * 255
    board_sample = Sample(
        "b", np.repeat(board[..., None], 3, 2).astype(np.uint8), Truth(np.zeros((128, 128), np.int16))
    )
    image, _ = prepare(board_sample, Protocol(crop="none", score_at=None), 32)
    assert (image - 0.5).abs().max() < 0.05


def test_native_scoring_keeps_the_shape_of_the_crop():
    image, given_truth = prepare(sample(40, 60), Protocol(crop="none", score_at=None), 32)
    truth = given_truth.labels
    assert image.shape == (3, 32, 32) and truth.shape == (40, 60)
    _, given_truth = prepare(sample(40, 60), Protocol(crop="none", score_at=16), 32)
    squeezed = given_truth.labels
    assert squeezed.shape == (16, 16)


def test_the_sample_is_not_changed_and_the_result_may_be():
    given_sample = sample(160, 160)
    copy = given_sample.image.copy(), given_sample.truth.labels.copy()
    image, given_truth = prepare(given_sample, Protocol(crop="none", score_at=160), 160)
    truth = given_truth.labels
    image.zero_()
    truth[:] = 9
    assert np.array_equal(given_sample.image, copy[0]) and np.array_equal(given_sample.truth.labels, copy[1])


def test_short_center_is_what_torchvision_does():
    """Resize the shorter side, then crop: numbers worked out by hand from torchvision's rules, half to even."""
    given_sample = sample(101, 151)
    protocol = Protocol(crop="short-center", score_at=64)
    image, truth = prepare(given_sample, protocol, 48)
    whole = Image.fromarray(given_sample.image).resize((48 * 151 // 101, 48), resample=Image.Resampling.BILINEAR)
    assert whole.width == 71  # (71 - 48) / 2 = 11.5 rounds to 12
    assert np.array_equal((image * 255).round().byte().permute(1, 2, 0).numpy(), np.asarray(whole)[:, 12:60])
    labels = Image.fromarray(given_sample.truth.labels.astype(np.int32))
    labels = np.asarray(labels.resize((95, 64), resample=Image.Resampling.NEAREST))
    assert np.array_equal(truth.labels, labels[:, 16:80])  # 15.5 rounds to 16


def test_class_maps_go_with_the_labels_and_instances_stay():
    given_sample = sample(40, 60)
    instance = Instance(3, (1.0, 2.0, 5.0, 9.0), None, 28.0)
    truth = replace(given_sample.truth, classes=given_sample.truth.labels.copy(), instances=(instance,))
    for protocol in (Protocol(crop="center-0.8", score_at=None), Protocol(crop="short-center", score_at=20)):
        _, prepared = prepare(replace(given_sample, truth=truth), protocol, 16)
        assert np.array_equal(prepared.labels, prepared.classes) and prepared.instances == (instance,)

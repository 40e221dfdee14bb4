"""Crops against a loop that follows the paper, Pillow, colorsys, scipy, and the aligned content of two views."""

import colorsys
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter

from ocl_bench.models.layers.alignment import align
from ocl_bench.training.crops import (
    COLUMNS,
    LEAST_OVERLAP,
    TRIES,
    Looks,
    apply_looks,
    draw_looks,
    draw_pairs,
    draw_uniform,
    overlap_boxes,
    pillow_crop,
    resized_crops,
)

COCO = np.array([[480, 640]])


def try_crop(u, height, width, min_scale):
    """One attempt of a random resized crop: crop or None, and its drawn area."""
    area = height * width * (min_scale + (1 - min_scale) * u[0])
    aspect = math.exp(math.log(3 / 4) + (math.log(4 / 3) - math.log(3 / 4)) * u[1])
    w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    if not (0 < w <= width and 0 < h <= height):
        return None, area
    return (int(u[2] * (height - h + 1)), int(u[3] * (width - w + 1)), h, w), area


def central(height, width):
    w = round(height * 4 / 3) if width > height * 4 / 3 else width
    h = round(width * 4 / 3) if width < height * 3 / 4 else height
    w, h = max(1, w), max(1, h)
    return (height - h) // 2, (width - w) // 2, h, w


def pair_by_loop(u, height, width, min_scale):
    attempts = u[: 3 * TRIES * 4].reshape(3, TRIES, 4)

    def unconditioned(series):
        for one in attempts[series]:
            crop, _ = try_crop(one, height, width, min_scale)
            if crop:
                return crop
        return central(height, width)

    first = unconditioned(0)
    for one in attempts[1]:
        crop, area = try_crop(one, height, width, min_scale)
        if crop is None:
            continue
        top, left = max(first[0], crop[0]), max(first[1], crop[1])
        bottom, right = min(first[0] + first[2], crop[0] + crop[2]), min(first[1] + first[3], crop[1] + crop[3])
        if max(0, bottom - top) * max(0, right - left) >= LEAST_OVERLAP * area:
            return first, crop
    return first, unconditioned(2)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from([0.02, 0.08, 0.5, 1.0]), st.integers(0, 10**6))
def test_crops_equal_the_loop_and_lie_in_the_image(height, width, min_scale, step):
    uniform = draw_uniform(0, step, np.arange(8))
    pairs = draw_pairs(uniform, np.tile([[height, width]], (8, 1)), min_scale)
    for row, crops in zip(uniform, pairs.crops.tolist(), strict=True):
        assert [tuple(crop) for crop in crops] == list(pair_by_loop(row, height, width, min_scale))
        for top, left, h, w in crops:
            assert h > 0 and w > 0 and 0 <= top <= height - h and 0 <= left <= width - w


def test_crops_are_a_function_of_seed_step_and_sample():
    samples = np.array([3, 17, 1000000, 4])
    whole = draw_uniform(1, 5, samples)
    assert whole.shape == (4, COLUMNS) and (whole >= 0).all() and (whole < 1).all()
    assert (draw_uniform(1, 5, samples[::-1])[::-1] == whole).all()
    for other in (draw_uniform(2, 5, samples), draw_uniform(1, 6, samples), draw_uniform(1, 5, samples + 1)):
        assert not (other == whole).any()


def test_crops_of_coco_have_the_statistics_of_the_official_code():
    uniform = draw_uniform(0, 0, np.arange(20000))
    pairs = draw_pairs(uniform, np.repeat(COCO, 20000, 0), 0.08)
    crops = pairs.crops[:, 0].double()
    share = crops[:, 2] * crops[:, 3] / (480 * 640)
    assert share.min() > 0.07 and share.max() <= 1
    assert pairs.flips.double().mean() == pytest.approx(0.5, abs=0.01)
    assert pairs.apart.double().mean() < 1e-3  # 5e-6 in the official code
    attempts = uniform[:, : 3 * TRIES * 4].reshape(-1, 3, TRIES, 4)
    first_tries = [try_crop(u, 480, 640, 0.08) for u in attempts[:, 1, 0]]
    kept = np.array([crop is not None for crop, _ in first_tries])
    moved = np.array(
        [crop != tuple(two) for (crop, _), two in zip(first_tries, pairs.crops[:, 1].tolist(), strict=True)]
    )
    rejected = moved[kept].mean() * kept.mean()  # of all first tries, 2.4 % lack overlap
    assert rejected == pytest.approx(0.024, abs=0.003)


def test_boxes_of_known_crops():
    crops = np.array([[[10, 20, 100, 200], [50, 120, 160, 120]]])
    boxes = overlap_boxes(crops, np.array([[False, False]]))
    np.testing.assert_allclose(boxes[0], [[0.5, 0.4, 1, 1], [0, 0, 5 / 6, 0.375]], atol=1e-6)
    flipped = overlap_boxes(crops, np.array([[True, True]]))
    np.testing.assert_allclose(flipped[0], [[0, 0.4, 0.5, 1], [1 / 6, 0, 1, 0.375]], atol=1e-6)


def test_crops_that_do_not_meet_have_boxes_without_area():
    boxes = overlap_boxes(np.array([[[0, 0, 10, 10], [20, 0, 10, 10]]]), np.array([[True, False]]))
    assert (boxes[..., 3] < boxes[..., 1]).all() and np.isfinite(boxes).all()


def test_aligned_views_show_the_same_place():
    """Each pixel of the picture holds its own coordinates: aligned views must have equal pixels, flips included."""
    rows, columns = np.mgrid[0:120, 0:160]
    picture = torch.from_numpy(np.stack([rows, columns, 0 * rows])).to(torch.uint8).expand(64, -1, -1, -1)
    pairs = draw_pairs(draw_uniform(0, 0, np.arange(64)), np.repeat([[120, 160]], 64, 0), 0.2)
    views = [resized_crops(picture, pairs.crops[:, v], pairs.flips[:, v], 64) for v in range(2)]
    first, second = (align(views[v], pairs.boxes[:, v], pairs.flips[:, v]) for v in range(2))
    inner = (slice(None), slice(0, 2), slice(4, -4), slice(4, -4))  # the resampling of a view's edge is one-sided
    assert (first - second)[inner].abs().max() < 2.5
    assert first[inner].std() > 10 and 0 < pairs.flips.double().mean() < 1


@pytest.mark.parametrize("size", [16, 64, 97])
def test_tensor_crops_are_those_of_pillow(size):
    draw = np.random.default_rng(0)
    sizes = np.array([(120, 160), (160, 128), (40, 160), (9, 7), (1, 1), (160, 160)])
    images = torch.zeros(len(sizes), 3, 160, 160, dtype=torch.uint8)
    plain = [draw.integers(0, 256, (*one, 3), dtype=np.uint8) for one in sizes]
    for place, image in zip(images, plain, strict=True):
        place[:, : image.shape[0], : image.shape[1]] = torch.from_numpy(image).permute(2, 0, 1)
    pairs = draw_pairs(draw_uniform(0, 1, np.arange(len(sizes))), sizes, 0.08)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # must not touch 8-bit values
        ours = resized_crops(images, pairs.crops[:, 0], pairs.flips[:, 0], size)
    for row, image in enumerate(plain):
        crop, flip = pairs.crops[row, 0], bool(pairs.flips[row, 0])
        top, left, height, width = crop.tolist()
        window = Image.fromarray(image).crop((left, top, left + width, top + height))
        wide = window.resize((size, height), Image.Resampling.BICUBIC)
        expected = np.asarray(wide.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32)
        expected = expected[:, ::-1] if flip else expected
        assert (pillow_crop(image, crop, flip, size).permute(1, 2, 0).numpy() == expected).all()
        difference = np.abs(ours[row].permute(1, 2, 0).numpy() - expected)
        assert difference.max() <= 1 and (difference > 0).mean() < 0.01  # ties of Pillow's fixed-point rounding


def looks_row(**changes):
    """A row of `draw_looks` that changes nothing, with some columns set."""
    row = dict(brightness=1, contrast=1, saturation=1, hue=0, grey=0, sigma=0, solarise=0) | changes
    first = [row[name] for name in ("brightness", "contrast", "saturation", "hue")]
    return torch.tensor([[*first, 0, 1, 2, 3, row["grey"], row["sigma"], row["solarise"]]], dtype=torch.float32)


PICTURE = torch.from_numpy(np.random.default_rng(0).random((1, 3, 24, 24), dtype=np.float32))


def test_the_row_that_changes_nothing():
    torch.testing.assert_close(apply_looks(PICTURE, looks_row()), PICTURE, atol=1e-5, rtol=0)


def test_hue_is_that_of_colorsys():
    turned = apply_looks(PICTURE, looks_row(hue=0.3))[0].flatten(1).T.numpy()
    for before, after in zip(PICTURE[0].flatten(1).T.numpy(), turned, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before)
        np.testing.assert_allclose(after, colorsys.hsv_to_rgb((hue + 0.3) % 1, saturation, value), atol=1e-5)


def test_brightness_contrast_saturation_and_grey():
    grey = (PICTURE * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    expected = {
        "brightness": PICTURE * 1.3,
        "contrast": grey.mean() + 1.3 * (PICTURE - grey.mean()),
        "saturation": grey + 1.3 * (PICTURE - grey),
    }
    for name, value in expected.items():
        changed = apply_looks(PICTURE, looks_row(**{name: 1.3}))
        torch.testing.assert_close(changed, value.clamp(0, 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(apply_looks(PICTURE, looks_row(grey=1)), grey.expand_as(PICTURE))


def test_solarise_inverts_from_128_on():
    levels = torch.arange(256).view(1, 1, 16, 16).expand(1, 3, -1, -1) / 255
    expected = torch.where(levels >= 128 / 255, 1 - levels, levels)
    torch.testing.assert_close(apply_looks(levels, looks_row(solarise=1)), expected, atol=1e-6, rtol=0)


def test_blur_is_gaussian_and_keeps_plain_pictures():
    blurred = apply_looks(PICTURE, looks_row(sigma=1.5))[0, 0].numpy()
    expected = gaussian_filter(PICTURE[0, 0].numpy(), 1.5, truncate=8)
    np.testing.assert_allclose(blurred[9:-9, 9:-9], expected[9:-9, 9:-9], atol=1e-4)
    plain = torch.full((1, 3, 24, 24), 0.37)
    torch.testing.assert_close(apply_looks(plain, looks_row(sigma=2.0)), plain)


def test_order_of_the_jitter_matters_and_is_per_image():
    rows = looks_row(brightness=1.4, contrast=0.6).repeat(2, 1)
    rows[1, 4:8] = torch.tensor([1.0, 0, 2, 3])
    one, two = apply_looks(PICTURE.repeat(2, 1, 1, 1), rows)
    assert (one - two).abs().max() > 0.01
    torch.testing.assert_close(apply_looks(PICTURE, rows[1:])[0], two)


def test_looks_are_drawn_as_often_as_asked():
    uniform = draw_uniform(0, 0, np.arange(4000))
    first, second = (draw_looks(uniform, view, Looks()) for view in range(2))
    assert (first[:, 9] > 0).all() and (second[:, 9] > 0).float().mean() == pytest.approx(0.1, abs=0.02)
    assert not first[:, 10].any() and second[:, 10].mean() == pytest.approx(0.2, abs=0.02)
    for rows in (first, second):
        jittered = (rows[:, :4] != torch.tensor([1.0, 1, 1, 0])).any(1)
        assert jittered.float().mean() == pytest.approx(0.8, abs=0.02)
        assert rows[:, 8].mean() == pytest.approx(0.2, abs=0.02)
        low, high = rows[:, :4].amin(0), rows[:, :4].amax(0)
        torch.testing.assert_close(low, torch.tensor([0.6, 0.6, 0.8, -0.1]), atol=0.005, rtol=0)
        torch.testing.assert_close(high, torch.tensor([1.4, 1.4, 1.2, 0.1]), atol=0.005, rtol=0)
        assert len(rows[:, 4:8].unique(dim=0)) == 24
        assert rows[rows[:, 9] > 0, 9].min() >= 0.1 and rows[:, 9].max() <= 2


def test_looks_do_not_depend_on_the_other_images():
    rows = draw_looks(draw_uniform(0, 0, np.arange(6)), 1, Looks(blur=(1.0, 1.0)))
    images = PICTURE.repeat(6, 1, 1, 1)
    together = apply_looks(images, rows)
    assert together.min() >= 0 and together.max() <= 1
    for k in range(6):
        torch.testing.assert_close(apply_looks(images[k : k + 1], rows[k : k + 1])[0], together[k])

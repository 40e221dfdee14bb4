from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ocl_bench.cards.protocols import KnnProtocol, Protocol, VideoProtocol
from ocl_bench.core.types import VOID, Instance, Sample, Truth
from ocl_bench.data.transforms import crop_box, granted_boxes, prepare, shrink


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


def _slotcontrast_input(clip: np.ndarray, side: int) -> np.ndarray:
    """Frames as SlotContrast's network gets them: square crop, bicubic, ImageNet mean and deviation."""
    protocol = VideoProtocol(crop="square", interpolation="bicubic-tensor")
    frames = [
        prepare(Sample("v", frame, Truth(np.zeros(frame.shape[:2], np.int16))), protocol, side)[0] for frame in clip
    ]
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return (torch.stack(frames).permute(0, 2, 3, 1).numpy() - mean) / deviation


@pytest.mark.parametrize(
    ("seed", "shape", "start", "total"),
    [
        (6, (2, 4, 4, 3), [-0.030608, 1.24377, 1.977566, 0.678364, 0.297679], 61.6176),
        (9, (2, 4, 7, 3), [-1.144641, 0.411569, 2.161841, 2.248908, 1.30306], 81.7966),
    ],
)
def test_video_frames_are_those_of_slotcontrast(
    seed: int, shape: tuple[int, ...], start: list[float], total: float
) -> None:
    """Numbers that the official transforms of MOVi and YTVIS gave (specs/slotmatch.md 3.4)."""
    clip = np.random.RandomState(seed).randint(0, 255, shape, dtype=np.uint8)
    values = _slotcontrast_input(clip, 6).transpose(0, 3, 1, 2)  # the official order is (T, 3, H, W)
    np.testing.assert_allclose(values.ravel()[:5], start, atol=2e-6)
    assert values.sum() == pytest.approx(total, abs=2e-3)


def test_a_square_is_cut_where_slotcontrast_cuts_it() -> None:
    assert crop_box("square", 320, 569) == (124, 0, 444, 320)
    assert crop_box("square", 4, 7) == (2, 0, 6, 4)  # rounded half to even; `center-1.0` takes the floor
    assert crop_box("center-1.0", 4, 7)[0] == 1


def test_dino_keeps_the_central_224_of_256() -> None:
    """Equal to resizing the shorter side to 256 (bicubic, Pillow) and cutting 224 from the middle."""
    image = np.random.default_rng(0).integers(0, 256, (300, 411, 3)).astype(np.uint8)
    protocol = KnnProtocol(crop="short-center-0.875", input=224, interpolation="bicubic", temperature=0.07)
    found, _ = prepare(Sample("a", image, Truth(np.zeros((300, 411), np.int16))), protocol, 224)
    resized = Image.fromarray(image).resize((int(256 * 411 / 300), 256), Image.Resampling.BICUBIC)
    left, top = round((resized.width - 224) / 2), 16
    expected = np.asarray(resized.crop((left, top, left + 224, top + 224)))
    np.testing.assert_array_equal((found.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8), expected)


def test_truth_goes_by_nearest_exact() -> None:
    labels = np.random.default_rng(1).integers(0, 9, (29, 29)).astype(np.int16)
    _, truth = prepare(
        Sample("a", np.zeros((29, 29, 3), np.uint8), Truth(labels)), Protocol(crop="square", score_at=77), 16
    )
    tensor = torch.from_numpy(labels.astype(np.float32))[None, None]
    expected = torch.nn.functional.interpolate(tensor, size=(77, 77), mode="nearest-exact")[0, 0].numpy()
    np.testing.assert_array_equal(truth.labels, expected)


@pytest.mark.parametrize(("stored", "scored"), [(128, 336), (256, 336), (320, 518), (240, 518), (64, 336)])
def test_truth_of_videos_goes_by_nearest_exact(stored: int, scored: int) -> None:
    """Also where centres lie on borders of pixels: of 128 pixels at 336, Pillow takes 15 rows from the wrong one."""
    numbers = np.tile(np.arange(stored, dtype=np.int16), (stored, 1))
    protocol = VideoProtocol(crop="square", score_at=scored, interpolation="bicubic-tensor")
    _, truth = prepare(Sample("a", np.zeros((stored, stored, 3), np.uint8), Truth(numbers.T)), protocol, 16)
    tensor = torch.from_numpy(numbers.T.astype(np.float32))[None, None]
    expected = torch.nn.functional.interpolate(tensor, size=(scored, scored), mode="nearest-exact")[0, 0].numpy()
    np.testing.assert_array_equal(truth.labels, expected)


def test_the_short_side_is_shrunk_but_never_enlarged() -> None:
    image = np.arange(40 * 60).reshape(40, 60)
    tensor = torch.from_numpy(image.astype(np.float32))[None, None]
    expected = torch.nn.functional.interpolate(tensor, size=(20, 30), mode="nearest-exact")[0, 0].numpy()
    np.testing.assert_array_equal(shrink(image, 20), expected)
    assert shrink(image, 50) is image


class TestBoxes:
    """Boxes at inference: 40 x 60 pixels, the label's box at columns 10..30 and rows 5..25, another object's beside."""

    def sample(self, *boxes: tuple[float, float, float, float]) -> Sample:
        image = np.random.default_rng(2).integers(1, 256, (40, 60, 3)).astype(np.uint8)
        own = [Instance(3, box, None, 1.0) for box in boxes]
        truth = Truth(np.zeros((40, 60), np.int16), instances=(*own, Instance(4, (0, 0, 60, 40), None, 1.0)), label=3)
        return Sample("a", image, truth)

    def test_the_model_gets_those_of_the_label_in_its_own_pixels(self) -> None:
        protocol = KnnProtocol(crop="center-1.0", boxes="attention", temperature=0.07)
        boxes = granted_boxes(self.sample((10, 5, 30, 25), (0, 0, 5, 5)), protocol, 80)
        np.testing.assert_allclose(boxes.numpy(), [[0, 10, 40, 50]])  # crop from column 10, 2 pixels for 1; second gone
        assert granted_boxes(self.sample(), protocol, 80).shape == (0, 4)
        assert granted_boxes(self.sample((10, 5, 30, 25)), Protocol(crop="center-1.0"), 80).shape == (0, 4)

    @pytest.mark.parametrize("crop", ["short-center-0.875", "short-center", "center-0.875", "square", "none"])
    @pytest.mark.parametrize(("height", "width"), [(82, 425), (257, 65), (90, 235), (500, 375), (60, 61)])
    def test_granted_boxes_lie_where_the_image_shows_them(self, crop: str, height: int, width: int) -> None:
        """A white box on black: its edges in the prepared image, and those that the model is given."""
        left, top, right, bottom = width // 2 - 17, height // 2 - 11, width // 2 + 9, height // 2 + 14
        image = np.zeros((height, width, 3), np.uint8)
        image[top:bottom, left:right] = 255
        shown = (Instance(1, (left, top, right, bottom), None, 1.0),)
        truth = Truth(np.zeros((height, width), np.int16), instances=shown, label=1)
        sample = Sample("s", image, truth)
        protocol = KnnProtocol(crop=crop, interpolation="bicubic", boxes="attention", temperature=0.07)
        rows, columns = np.nonzero(prepare(sample, protocol, 224)[0][0].numpy() > 0.5)
        seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(granted_boxes(sample, protocol, 224)[0].numpy(), seen, rtol=0, atol=0.6)

    def test_crop_cuts_to_the_union_of_the_boxes(self) -> None:
        sample = self.sample((10, 5, 20, 15), (12.5, 6, 29.2, 25))
        found, _ = prepare(sample, KnnProtocol(boxes="crop", temperature=0.07), 20)
        np.testing.assert_array_equal((found.permute(1, 2, 0) * 255).round().numpy(), sample.image[5:25, 10:30])

    def test_blackout_keeps_nothing_outside(self) -> None:
        sample = self.sample((10, 5, 30, 25))
        found = (
            prepare(sample, KnnProtocol(crop="center-1.0", boxes="blackout", temperature=0.07), 40)[0] * 255
        ).round()
        visible = (found > 0).all(0).numpy()
        assert visible[5:25, :20].all() and visible.sum() == 400

    @pytest.mark.parametrize("rule", ["crop", "blackout"])
    def test_without_a_box_inside_the_image_it_stays_whole(self, rule: str) -> None:
        whole, _ = prepare(self.sample(), Protocol(crop="center-1.0"), 40)
        for sample in (self.sample(), self.sample((70, 5, 90, 25))):
            protocol = KnnProtocol.model_validate({"crop": "center-1.0", "boxes": rule, "temperature": 0.07})
            assert torch.equal(prepare(sample, protocol, 40)[0], whole)

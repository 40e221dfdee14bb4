"""Image models frame by frame: slots are linked over time, by themselves or by their masks, in clips of any length."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_videos import ColourMaps, Colours, moving_squares

from ocl_bench.core.errors import SampleError, UsageError
from ocl_bench.core.types import Batch, Prediction
from ocl_bench.models.floors import build_grid, build_oracle, build_patch_oracle
from ocl_bench.models.frames import FrameByFrame, video_model
from ocl_bench.models.linking import MAX_SEGMENTS, Tracks, link_labels, link_masks, link_slots


def clip_of(number: int = 0, frames: int = 7) -> torch.Tensor:
    images = [sample.image for sample in moving_squares(number, frames).frames]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()[None] / 255


def in_clips(model: Any, video: torch.Tensor, length: int) -> list[Prediction]:
    outputs, state = [], None
    for start in range(0, video.shape[1], length):
        clip = video[:, start : start + length]
        outputs.append(model.predict(Batch(("v",), clip[:, 0], video=clip, start=start, state=state)))
        state = outputs[-1].state
    return outputs


def labels_of(predictions: list[Prediction]) -> torch.Tensor:
    masks = torch.cat([output.masks for output in predictions if output.masks is not None], 1)[0]
    return masks.argmax(1) if masks.is_floating_point() else masks


@pytest.mark.parametrize("model", [Colours(), ColourMaps()])
@pytest.mark.parametrize("length", [1, 2, 3, 7])
def test_a_segment_keeps_its_number_in_clips_of_any_length(model: Any, length: int) -> None:
    labels = labels_of(in_clips(FrameByFrame(model), clip_of(), length))
    truth = torch.from_numpy(np.stack([sample.truth.labels for sample in moving_squares(0, 7).frames]))
    for number in (0, 1, 2):
        assert len(labels[truth == number].unique()) == 1
    assert len(labels.unique()) == 3


def test_without_linking_the_numbers_change() -> None:
    """The model of these tests does shuffle its slots: else the test above could not fail."""
    clip = clip_of()[0]
    masks = Colours().predict(Batch(("v",) * len(clip), clip)).masks
    assert masks is not None
    assert len({int(frame[4, 4]) for frame in masks.argmax(1)}) > 1


def test_slots_follow_their_masks() -> None:
    actual = in_clips(FrameByFrame(Colours()), clip_of(), 7)[0]
    assert actual.link == "slots" and actual.slots is not None and actual.masks is not None
    assert torch.equal(actual.slots[0], actual.slots[0, :1].expand_as(actual.slots[0]))
    assert actual.masks.shape == (1, 7, 3, 24, 24)


def test_an_object_that_comes_back_finds_its_track() -> None:
    """Slot 1 is empty in frames 1 and 2, where an unlike one takes no part in its memory."""
    first = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
    gone = torch.tensor([[0, 0, 1.0], [0, 0, 0], [1.0, 0, 0]])
    back = torch.tensor([[0, 1.0, 0], [0, 0, 1.0], [1.0, 0, 0]])
    order, tracks = link_slots(torch.stack([first, gone, gone, back]), None)
    assert order.tolist() == [[0, 1, 2], [2, 1, 0], [2, 1, 0], [2, 0, 1]]
    assert tracks.slots is not None and torch.equal(tracks.slots, first)


def test_slots_are_matched_as_a_whole() -> None:
    """Two tracks like one slot best: the pairing with the largest sum wins, not the first that comes."""
    before = Tracks(slots=torch.tensor([[1.0, 0.0], [0.8, 0.6]]))
    now = torch.tensor([[[0.9, 0.1], [0.0, 1.0]]])
    assert link_slots(now, before)[0].tolist() == [[0, 1]]
    assert link_slots(now.flip(1), before)[0].tolist() == [[1, 0]]


def test_masks_are_matched_by_overlap() -> None:
    """Equal to trying all pairings on random maps."""
    from itertools import permutations

    generator = torch.Generator().manual_seed(0)
    before, now = (torch.randint(0, 4, (6, 6), generator=generator) for _ in range(2))

    def overlap(track: int, segment: int) -> float:
        both, either = (before == track) & (now == segment), (before == track) | (now == segment)
        return float(both.sum() / either.sum())

    best = max(permutations(range(4)), key=lambda order: sum(overlap(track, one) for track, one in enumerate(order)))
    order, tracks = link_masks(now[None], 4, Tracks(labels=before))
    assert tuple(order[0].tolist()) == best
    assert tracks.labels is not None and torch.equal(tracks.labels, torch.argsort(order[0])[now])


def test_new_labels_get_numbers_of_their_own() -> None:
    labels = torch.zeros(2, 4, 4, dtype=torch.int64)
    labels[1, :2] = 1  # a second segment appears
    model = FrameByFrame(_Fixed(labels))
    actual = labels_of(in_clips(model, torch.zeros(1, 2, 3, 4, 4), 2))
    assert sorted(actual[1].unique().tolist()) == [0, 1]
    assert torch.equal(actual[0], labels[0])


class AnyNumber(Colours):
    """Colours, with empty slots that depend on the length of the clip, and masks as logits."""

    def __init__(self, slots: bool) -> None:
        self.slots = slots

    def predict(self, batch: Batch) -> Prediction:
        prediction = super().predict(batch)
        assert prediction.masks is not None and prediction.slots is not None
        empty = 1 + len(batch) % 3
        masks = torch.nn.functional.pad(prediction.masks * 9 - 5, (0, 0, 0, 0, 0, empty), value=-20.0)
        slots = torch.nn.functional.pad(prediction.slots, (0, 0, 0, empty))
        return Prediction(masks=masks, mask_source="decoder", slots=slots if self.slots else None)


@pytest.mark.parametrize("slots", [True, False])
def test_clips_may_differ_in_their_number_of_slots(slots: bool) -> None:
    """7 frames in clips of 5 (3 + 3 slots) and 2 (3 + 3), or of 4 (3 + 2) and 3 (3 + 1): fewer slots than before."""
    expected = labels_of(in_clips(FrameByFrame(Colours()), clip_of(), 7))
    for length in (5, 4, 3, 2):
        outputs = in_clips(FrameByFrame(AnyNumber(slots)), clip_of(), length)
        labels = torch.cat([output.masks[0].argmax(1) for output in outputs if output.masks is not None])
        pairs = torch.stack([expected.flatten(), labels.flatten()]).unique(dim=1)
        assert pairs.shape[1] == 3, f"clips of {length}: a segment has several numbers"


def test_labels_may_be_sparse_and_large() -> None:
    """Numbers of 10^12 take no more memory than 0 and 1, and clips of any length give the same tracks."""
    labels = torch.from_numpy(np.stack([sample.truth.labels for sample in moving_squares(1, 7).frames])).long()
    shuffled = torch.stack([(frame + k) % 3 * 10**12 + k for k, frame in enumerate(labels)])
    whole, _ = link_labels(shuffled, None)
    first, tracks = link_labels(shuffled[:3], None)
    second, _ = link_labels(shuffled[3:], tracks)
    assert torch.equal(torch.cat([first, second]), whole) and int(whole.max()) == 2
    assert torch.stack([labels.flatten(), whole.flatten()]).unique(dim=1).shape[1] == 3


def test_too_many_segments_are_refused() -> None:
    labels = torch.arange(50 * 50).view(1, 50, 50)
    with pytest.raises(UsageError, match=f"2500 segments in a frame, at most {MAX_SEGMENTS}"):
        link_labels(labels, None)


def test_slots_that_are_not_finite_fail_their_video_only() -> None:
    class Broken(Colours):
        def predict(self, batch: Batch) -> Prediction:
            prediction = super().predict(batch)
            assert prediction.slots is not None
            prediction.slots[1] = float("nan")
            return prediction

    clip = clip_of()
    with pytest.raises(SampleError, match="slots are not finite") as caught:
        FrameByFrame(Broken()).predict(Batch(("v",), clip[:, 0], video=clip))
    assert caught.value.sample_id == "v"


@pytest.mark.parametrize(
    "masks",
    [torch.full((7, 4, 4), -1), torch.zeros(6, 3, 4, 4), torch.zeros(7, 4, 4), torch.zeros(7, 0, 4, 4)],
)
def test_what_is_no_mask_is_left_to_the_adapter(masks: torch.Tensor) -> None:
    """The task's family reports the mistake; linking would fail obscurely or hide a negative label."""
    actual = in_clips(FrameByFrame(_Fixed(masks)), clip_of(), 7)[0]
    assert actual.masks is not None and torch.equal(actual.masks[0], masks) and actual.link == ""


class _Fixed:
    def __init__(self, labels: torch.Tensor) -> None:
        self.labels = labels

    def predict(self, batch: Batch) -> Prediction:
        return Prediction(masks=self.labels[: len(batch)], mask_source="clusters")


def test_what_numbers_its_slots_itself_is_left_alone() -> None:
    truth = [sample.truth for sample in moving_squares(1, 4).frames]
    clip = clip_of(1, 4)
    batch = Batch(("v",), clip[:, 0], video=clip)
    for model in (FrameByFrame(build_oracle()), video_model(build_patch_oracle(12))):
        prediction = model.predict(batch, truth)
        assert prediction.link == "" and prediction.mask_source == "truth"
        labels = labels_of([prediction])
        small = torch.from_numpy(np.stack([one.labels for one in truth]))
        if labels.shape == small.shape:
            assert torch.equal(labels, small.long())
        else:  # object 2 is hidden in the first frame, and slot 2 waits for it
            assert 2 not in labels[0] and all(2 in frame for frame in labels[1:])


def test_blind_floors_keep_their_grid() -> None:
    actual = labels_of(in_clips(video_model(build_grid(2, 2)), clip_of(), 3))
    assert torch.equal(actual, actual[:1].expand_as(actual))


def test_only_one_video_at_a_time() -> None:
    images = torch.zeros(2, 3, 3, 8, 8)
    with pytest.raises(UsageError, match="one video at a time"):
        FrameByFrame(Colours()).predict(Batch(("a", "b"), images[:, 0], video=images))


def test_a_model_of_videos_is_not_wrapped() -> None:
    model = build_patch_oracle()
    assert video_model(model) is model and isinstance(video_model(Colours()), FrameByFrame)

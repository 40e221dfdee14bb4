"""Image models frame by frame: slots are linked over time, by themselves or by their masks, in clips of any length."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from video_corridor import ColourMaps, Colours, moving_squares

from ocl_bench.errors import UsageError
from ocl_bench.models.floors import build_grid, build_oracle, build_patch_oracle
from ocl_bench.models.frames import FrameByFrame, video_model
from ocl_bench.models.linking import Tracks, link_masks, link_slots
from ocl_bench.types import Batch, Prediction


def clip_of(number: int = 0, frames: int = 7) -> torch.Tensor:
    images = [sample.image for sample in moving_squares(number, frames).frames]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()[None] / 255


def in_clips(model: Any, video: torch.Tensor, length: int) -> list[Prediction]:
    found, state = [], None
    for start in range(0, video.shape[1], length):
        clip = video[:, start : start + length]
        found.append(model.predict(Batch(("v",), clip[:, 0], video=clip, start=start, state=state)))
        state = found[-1].state
    return found


def labels_of(predictions: list[Prediction]) -> torch.Tensor:
    masks = torch.cat([found.masks for found in predictions if found.masks is not None], 1)[0]
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
    found = in_clips(FrameByFrame(Colours()), clip_of(), 7)[0]
    assert found.link == "slots" and found.slots is not None and found.masks is not None
    assert torch.equal(found.slots[0], found.slots[0, :1].expand_as(found.slots[0]))
    assert found.masks.shape == (1, 7, 3, 24, 24)


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
    found = labels_of(in_clips(model, torch.zeros(1, 2, 3, 4, 4), 2))
    assert sorted(found[1].unique().tolist()) == [0, 1]
    assert torch.equal(found[0], labels[0])


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
        found = model.predict(batch, truth)
        assert found.link == "" and found.mask_source == "truth"
        labels = labels_of([found])
        small = torch.from_numpy(np.stack([one.labels for one in truth]))
        if labels.shape == small.shape:
            assert torch.equal(labels, small.long())
        else:  # object 2 is hidden in the first frame, and slot 2 waits for it
            assert 2 not in labels[0] and all(2 in frame for frame in labels[1:])


def test_blind_floors_keep_their_grid() -> None:
    found = labels_of(in_clips(video_model(build_grid(2, 2)), clip_of(), 3))
    assert torch.equal(found, found[:1].expand_as(found))


def test_only_one_video_at_a_time() -> None:
    images = torch.zeros(2, 3, 3, 8, 8)
    with pytest.raises(UsageError, match="one video at a time"):
        FrameByFrame(Colours()).predict(Batch(("a", "b"), images[:, 0], video=images))


def test_a_model_of_videos_is_not_wrapped() -> None:
    model = build_patch_oracle()
    assert video_model(model) is model and isinstance(video_model(Colours()), FrameByFrame)

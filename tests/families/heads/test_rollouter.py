"""The fitted rollouter and the position probe: windows, determinism, and what they learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ocl_bench.cards.protocols import Fit
from ocl_bench.core.errors import UsageError
from ocl_bench.core.types import Truth
from ocl_bench.families.heads.positions import fit_positions, located_slots, match_slots, places_of
from ocl_bench.families.heads.rollouter import FittedRollouter, SlotVideo, fit_rollouter

FIT = Fit(head="rollouter", steps=40, batch=8, learning_rates=(0.003,))


def drifting(count: int, slots: int = 3, frames: int = 16, seed: int = 0) -> list[SlotVideo]:
    """Slots whose first channel grows at a speed that the second one says; the third is noise of the slot."""
    generator = torch.Generator().manual_seed(seed)
    start, speed, noise = torch.rand(3, count, slots, generator=generator)
    times = torch.arange(frames)[:, None]
    videos = [torch.stack([s + 0.1 * v * times, v.expand(frames, -1), n.expand(frames, -1)], 2)
              for s, v, n in zip(start, speed, noise, strict=True)]  # fmt: skip
    return [SlotVideo(video, ()) for video in videos]


def error(videos: list[SlotVideo], head: dict[str, torch.Tensor], steps: int = 8) -> float:
    """Squared error relative to copying."""
    rollout = FittedRollouter(head, "embedded")
    ours, copied = 0.0, 0.0
    for video in videos:
        past, future = video.slots[:6], video.slots[6 : 6 + steps]
        ours += float((rollout(past, steps) - future).square().sum())
        copied += float((past[-1] - future).square().sum())
    return ours / copied


def test_it_learns_motion_beyond_the_steps_of_the_fit() -> None:
    head = fit_rollouter(drifting(24), "embedded", FIT)
    assert error(drifting(8, seed=1), head) < 0.5


def test_before_the_first_step_it_copies() -> None:
    videos = drifting(4)
    head = fit_rollouter(videos, "embedded", FIT.model_copy(update={"steps": 0, "batch": 1}))
    assert error(videos, head) == pytest.approx(1, abs=1e-5)


def test_the_fit_is_deterministic_and_leaves_the_global_generator_alone() -> None:
    videos, fit = drifting(4), FIT.model_copy(update={"steps": 3})
    torch.manual_seed(5)
    first = fit_rollouter(videos, "embedded", fit)
    drawn = torch.rand(1)
    torch.manual_seed(6)
    second = fit_rollouter(videos, "embedded", fit)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), drawn)
    assert set(first) == set(second) and all(torch.equal(first[name], second[name]) for name in first)
    other = fit_rollouter(videos, "embedded", fit.model_copy(update={"seed": 1}))
    assert not torch.equal(first["rollouter.project_in.weight"], other["rollouter.project_in.weight"])


def test_another_order_of_slots_is_predicted_in_that_order() -> None:
    rollout = FittedRollouter(fit_rollouter(drifting(6), "embedded", FIT), "embedded")
    slots, order = drifting(1, seed=3)[0].slots, torch.tensor([2, 0, 1])
    torch.testing.assert_close(rollout(slots[:6, order], 4), rollout(slots[:6], 4)[:, order], rtol=0, atol=1e-5)


def test_windows_leave_entries_out_after_the_third_frame() -> None:
    video = SlotVideo(torch.zeros(20, 2, 3), (9,))
    assert video.starts(11) == [6, 7, 8, 9]
    assert SlotVideo(torch.zeros(20, 2, 3), ()).starts(11) == list(range(10))
    with pytest.raises(UsageError, match="no 11 frames in a row in which no object comes into view"):
        fit_rollouter([SlotVideo(torch.zeros(14, 2, 3), (5, 10))], "embedded", FIT)


def test_empty_slots_stay_empty_and_do_not_matter() -> None:
    videos = drifting(6)
    padded = [SlotVideo(torch.cat([v.slots, torch.zeros(16, 4, 3)], 1), ()) for v in videos]
    first, second = (fit_rollouter(some, "embedded", FIT) for some in (videos, padded))
    assert all(torch.equal(first[name], second[name]) for name in first)
    rollout = FittedRollouter(first, "embedded")
    predicted = rollout(padded[0].slots[:6], 3)
    assert torch.equal(predicted[:, :3], rollout(videos[0].slots[:6], 3)) and not predicted[:, 3:].any()
    assert not rollout(torch.zeros(6, 2, 3), 3).any()


def test_videos_may_have_other_numbers_of_slots() -> None:
    videos = [*drifting(3, slots=2), *drifting(3, slots=4)]
    rollout = FittedRollouter(fit_rollouter(videos, "embedded", FIT.model_copy(update={"steps": 2})), "embedded")
    assert rollout(videos[0].slots[:6], 3).shape == (3, 2, 3) and rollout(videos[5].slots[:6], 3).shape == (3, 4, 3)


# --- positions --------------------------------------------------------------------------------------------------------


def test_places_that_are_linear_in_the_slots_are_read_exactly() -> None:
    random = np.random.default_rng(0)
    slots, weight = random.normal(3, 2, (200, 5)).astype(np.float32), random.normal(size=(5, 2))
    places = slots @ weight + (1, -2)
    head = fit_positions([(part, place) for part, place in zip(np.split(slots, 10), np.split(places, 10), strict=True)])
    new = random.normal(3, 2, (4, 3, 5)).astype(np.float32)
    np.testing.assert_allclose(places_of(head, torch.from_numpy(new)), new @ weight + (1, -2), atol=1e-3)
    np.testing.assert_allclose(head["place_bias"].numpy(), places.mean(0))


def test_a_channel_that_never_changes_does_no_harm() -> None:
    random = np.random.default_rng(0)
    slots = np.concatenate([random.normal(size=(50, 2)), np.full((50, 1), 7)], 1).astype(np.float32)
    head = fit_positions([(slots, slots[:, :2].astype(np.float64))])
    assert np.isfinite(places_of(head, torch.from_numpy(slots) + 1)).all()


def test_the_penalty_is_chosen_on_other_videos() -> None:
    """Within a video all frames are alike, and 40 channels of noise explain the places of 15 videos."""
    random = np.random.default_rng(0)
    videos = []
    for _ in range(20):
        place = random.normal(size=2)
        slot = np.concatenate([place + random.normal(size=2) * 0.5, random.normal(size=40)]).astype(np.float32)
        videos.append((np.tile(slot, (10, 1)), np.tile(place, (10, 1))))
    head = fit_positions(videos)
    assert float(head["ridge"][0]) >= 0.1
    exact = [(slots[:, :2], slots[:, :2].astype(np.float64)) for slots, _ in videos]
    assert float(fit_positions(exact)["ridge"][0]) == pytest.approx(1e-5)


def test_slots_are_matched_one_to_one_by_iou() -> None:
    labels = np.array([[1, 1, 1, 2, 2, 0], [0, 0, 3, 0, 0, 0]])
    segments = np.array([[4, 4, 4, 4, 4, 0], [0, 0, 4, 0, 0, 0]])
    objects, slots = match_slots(labels, segments)
    assert objects.tolist() == [1, 2, 3] and slots.tolist().count(4) == 1 and slots[0] == 4
    assert sorted(slots.tolist()) == [-1, -1, 4]  # slot 0 shares no pixel with the others
    both = match_slots(np.stack([labels, labels]), np.stack([segments, labels]))
    assert both[0].tolist() == [1, 2, 3] and both[1].tolist()[1:] == [2, 3]


def test_only_objects_with_a_place_are_used() -> None:
    labels = np.array([[1, 2, 3, 0]])
    truth = Truth(labels, locations=np.array([[1.0, 2.0], [np.nan, np.nan], [5.0, 6.0]]))
    slots, places = located_slots(torch.arange(8.0).view(4, 2), np.array([[3, 2, 1, 0]]), truth)
    assert slots.tolist() == [[6, 7], [2, 3]] and places.tolist() == [[1, 2], [5, 6]]
    assert len(located_slots(torch.zeros(4, 2), np.array([[3, 2, 1, 0]]), Truth(labels))[0]) == 0


@pytest.mark.parametrize("steps", [1, 2, 19, 20, 21])
def test_any_number_of_steps(steps: int) -> None:
    """A warm-up of one step, of 20, was a division by zero."""
    assert fit_rollouter(drifting(2), "embedded", FIT.model_copy(update={"steps": steps, "batch": 2}))

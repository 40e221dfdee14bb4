"""Visual prediction: slots that know the answer, controls, which frames count, and models that are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from sliding_squares import SIDE, Centres, Sliding, Straight, dynamics_task, sliding
from torch import Tensor

from ocl_bench.core.errors import NotApplicableError, UsageError
from ocl_bench.core.types import Batch, Prediction, Sample, Truth, Video
from ocl_bench.evaluation.plan import make_plan
from ocl_bench.evaluation.run import run
from ocl_bench.families import get_adapter
from ocl_bench.families.dynamics import DYNAMICS, Dynamics
from ocl_bench.families.future import by_horizon, entries
from ocl_bench.families.slot_methods import SlotMethods
from ocl_bench.models.loading import LoadedModel, get_model
from ocl_bench.models.slot_dynamics import CopyLast, Linear, Permuted, TrueSlots
from ocl_bench.results.record import Result
from ocl_bench.results.store import rows_of

TASK = dynamics_task()


def result(model: Any, folder: Path, **keywords: Any) -> Result:
    data, train = keywords.pop("data", sliding(6, first=100)), keywords.pop("train", sliding(12))
    plan = make_plan(model, keywords.pop("task", TASK), data=data, train=train, **keywords)
    return run(plan, results=folder, progress=False)


def values(model: Any, folder: Path, **keywords: Any) -> dict[str, float]:
    evaluation = result(model, folder, **keywords)
    return {name: float("nan") if one.value is None else one.value for name, one in evaluation.metrics.items()}


def as_ceiling(model: Any) -> LoadedModel:
    """The model in the role that only bundled ceilings have."""
    loaded = get_model(model)
    return replace(loaded, card=loaded.card.model_copy(update={"role": "ceiling"}))


def speeds(number: int) -> np.ndarray:
    return np.random.default_rng(number).uniform(0.3, 1.0, 2)


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_a_model_that_knows_the_motion_is_nearly_perfect(tmp_path: Path) -> None:
    """Positions are those of whole pixels, half a pixel is 0.05."""
    evaluation = result(Straight(), tmp_path)
    found = {name: one.value or 0 for name, one in evaluation.metrics.items()}
    assert found["position_error"] < 0.12 and found["slot_mse_rel"] < 0.1
    assert min(found["fg_ari_future"], found["fg_ari_future_video"], found["mbo_future"]) > 0.75
    signature = evaluation.metrics["mbo_future"].signature
    assert (
        "│mask:decoder+linked-slots│" in signature
        and "│dyn:own│decode:slots│burn-in:6│rollout:12│stride:1│" in signature
    )
    assert signature.endswith("│rollouter:embedded│head:rollouter│v1") and not evaluation.counts.failed
    assert evaluation.fit is not None and evaluation.fit.samples == 12 and evaluation.fit.left_out == ()


def test_copying_is_as_wrong_as_the_objects_move(tmp_path: Path) -> None:
    found = values(CopyLast(Centres()), tmp_path)
    moved = [np.mean(speeds(number)) / 10 * np.arange(1, 13) for number in range(100, 106)]
    assert found["slot_mse_rel"] == 1
    assert found["position_error"] == pytest.approx(np.mean(moved), abs=0.05)
    assert found["position_error_1_5"] == pytest.approx(np.mean([steps[:5] for steps in moved]), abs=0.05)
    assert found["position_error_11_on"] == pytest.approx(np.mean([steps[10:] for steps in moved]), abs=0.05)


def test_the_fitted_rollouter_beats_copying_and_its_shuffled_past_does_not(tmp_path: Path) -> None:
    evaluation = result(Centres(), tmp_path)
    fitted = {name: one.value or 0 for name, one in evaluation.metrics.items()}
    assert fitted["slot_mse_rel"] < 0.5 and "│dyn:probe│" in evaluation.metrics["slot_mse_rel"].signature
    shuffled = values(Permuted(Centres()), tmp_path)
    assert shuffled["slot_mse_rel"] > 2
    # The rollouter does not number the slots: the set of predicted slots is the same in another order.
    assert shuffled["mbo_future"] == pytest.approx(fitted["mbo_future"], abs=1e-3)


def test_a_line_beats_copying_and_true_slots_are_the_ceiling(tmp_path: Path) -> None:
    line = values(Linear(Centres()), tmp_path)
    ceiling = values(as_ceiling(TrueSlots(Centres())), tmp_path)
    assert ceiling["slot_mse_rel"] == 0 and ceiling["position_error"] < 0.06
    assert ceiling["position_error"] < line["position_error"] < values(CopyLast(Centres()), tmp_path)["position_error"]


def test_a_line_stays_in_the_range_of_the_burn_in() -> None:
    slots = torch.tensor([0.0, 1.0, 3.0])[None, :, None, None].expand(1, 3, 2, 1).clone()
    slots[:, :, 1] -= 1
    predicted = Linear(Centres()).predict_slots(slots, 3)
    assert predicted[0, :, 0, 0].tolist() == [3, 3, 3] and predicted[0, :, 1, 0].tolist() == [3, 3, 3]


def test_a_model_without_a_decoder_has_no_masks_of_the_future(tmp_path: Path) -> None:
    class Blind(Straight):
        decode_slots = None  # type: ignore[assignment]

    evaluation = result(Blind(), tmp_path)
    assert evaluation.metrics["mbo_future"].value is None and evaluation.metrics["mbo_future"].n_valid == 0
    assert (evaluation.metrics["position_error"].value or 9) < 0.12
    assert "│dyn:own│decode:none│" in evaluation.metrics["position_error"].signature


def test_data_without_locations_have_no_positions(tmp_path: Path) -> None:
    found = values(Straight(), tmp_path, data=sliding(3, 100, located=False), train=sliding(4, located=False))
    assert np.isnan(found["position_error"]) and found["mbo_future"] > 0.8


def test_slots_that_know_nothing_place_objects_in_the_mean(tmp_path: Path) -> None:
    class Constant(Centres):
        def predict(self, batch: Batch) -> Prediction:
            found = super().predict(batch)
            return replace(found, slots=torch.ones_like(found.slots))  # type: ignore[arg-type]

    reader = Sliding(12)
    places = np.concatenate([frame.truth.locations for video in map(reader.__getitem__, range(12))
                             for frame in video.frames])  # type: ignore[misc]  # fmt: skip
    future = [frame.truth.locations for k in range(6) for frame in Sliding(6, first=100)[k].frames[8:]]
    expected = np.linalg.norm(np.stack(future) - places.mean(axis=0), axis=2).mean()  # type: ignore[arg-type]
    found = values(Constant(), tmp_path)
    assert found["position_error"] == pytest.approx(expected, rel=1e-3) and np.isnan(found["slot_mse_rel"])


def test_values_by_horizon() -> None:
    steps = np.arange(1.0, 13.0)
    steps[1] = np.nan
    found = by_horizon("m", steps)
    np.testing.assert_array_equal(found.pop("steps_m"), steps)
    assert found == {"m": 76 / 11, "m_1_5": 13 / 4, "m_6_10": 8.0, "m_11_on": 11.5}
    assert by_horizon("m", steps, total=True)["m_1_5"] == 13
    assert np.isnan(by_horizon("m", steps[:3])["m_6_10"])


def test_the_number_of_a_set_is_a_ratio_of_sums(tmp_path: Path) -> None:
    evaluation = result(Centres(), tmp_path)
    rows = rows_of(evaluation)
    assert isinstance(rows, pandas.DataFrame) and len(rows) == 6
    expected = rows["slot_error"].sum() / rows["copy_error"].sum()
    assert evaluation.metrics["slot_mse_rel"].value == pytest.approx(expected)
    assert list(rows["n_frames"]) == [18.0] * 6 and list(rows["n_objects"]) == [2] * 6


# --- which frames count -----------------------------------------------------------------------------------------------


def test_objects_that_the_burn_in_does_not_show_are_dropped_or_counted(tmp_path: Path) -> None:
    late, train = sliding(3, 100, late=12), sliding(12)
    found = result(Straight(), tmp_path, data=late, train=train)
    assert (found.metrics["mbo_future"].value or 0) > 0.8 and set(rows_of(found)["n_objects"]) == {1}
    counted = dynamics_task(protocol={"unseen": "count"})
    assert values(Straight(), tmp_path, data=late, train=train, task=counted)["mbo_future"] < 0.7


def no_entry(**protocol: Any) -> Dynamics:
    task = dynamics_task(protocol={"clips": "no-entry", "seen": None, **protocol})
    adapter = get_adapter(task)
    assert isinstance(adapter, Dynamics)
    return adapter


def entering_video(frames: int, entry: int) -> Video:
    """An object comes into view in frame `entry`."""
    place = {True: np.zeros((1, 2)), False: np.full((1, 2), np.nan)}
    labels = np.zeros((SIDE, SIDE), np.int16)
    samples = [Sample("v", np.zeros((SIDE, SIDE, 3), np.uint8), Truth(labels, locations=place[t >= entry]))
               for t in range(frames)]  # fmt: skip
    return Video("v", samples, tuple(map(str, range(frames))))


@pytest.mark.parametrize("entry", [1, 5, 6, 7, 20, 38, 39, 40, 94, 95, 100, 127])
def test_the_clip_is_the_first_that_no_object_enters(entry: int) -> None:
    """SlotFormer: no object enters in frames start + 6 < t <= start + 94, with starts from 0 to 33."""
    adapter = no_entry(rollout=42, stride=2)
    video = entering_video(128, entry)
    free = [start for start in range(34) if not start + 6 < entry <= start + 94]
    clip = video.part(adapter.clip(video, False))
    expected = range(free[0], free[0] + 95, 2) if free else range(0)
    assert clip.names == tuple(str(number) for number in expected)
    assert len(clip.frames) == len(clip.names) and len(clip) in (0, 48)


def test_videos_without_such_a_clip_are_left_out_and_counted(tmp_path: Path) -> None:
    """The blue square enters in frame 12: no clip of 18 frames of 20 can begin so that it had settled."""
    task = dynamics_task(protocol={"clips": "no-entry", "seen": None})

    class Mixed(Sliding):
        def __getitem__(self, index: int) -> Video:
            return Sliding(1, first=self.first + index, late=12 if index % 3 == 0 else 0)[0]

    reader = Mixed(6, first=100)
    data = replace(sliding(6, 100), reader=reader)  # type: ignore[arg-type]
    evaluation = result(Straight(), tmp_path, task=task, data=data)
    assert evaluation.counts.scored == 6 and evaluation.metrics["position_error"].n_valid == 4
    assert sorted(rows_of(evaluation)["n_frames"]) == [0, 0, 18, 18, 18, 18]
    assert evaluation.metrics["slot_mse_rel"].n_valid == 4 and (evaluation.metrics["slot_mse_rel"].value or 1) < 0.1


def test_objects_enter_by_their_locations_and_else_by_their_pixels() -> None:
    assert entries([frame.truth for frame in entering_video(9, 4).frames]) == [4]
    frames = Sliding(1, late=5, located=False)[0].frames
    assert entries([frame.truth for frame in frames]) == [5]


def test_the_burn_in_ends_with_the_last_seen_frame() -> None:
    adapter = get_adapter(dynamics_task(protocol={"rollout": 24, "stride": 2, "seen": 80}))
    numbers = list(DYNAMICS.clip(adapter, entering_video(128, 0), False))
    assert numbers[:6] == [69, 71, 73, 75, 77, 79] and numbers[-1] == 127 and len(numbers) == 30


def test_a_stand_in_brings_its_own_timing() -> None:
    adapter = get_adapter(dynamics_task(protocol={"rollout": 24, "stride": 2, "seen": 80}))
    data = sliding(1, timing={"seen_frames": 32, "stride": 1})
    assert DYNAMICS.clip(DYNAMICS.for_data(adapter, data), entering_video(56, 0), False) == range(26, 56)
    assert len(DYNAMICS.clip(DYNAMICS.for_data(adapter, data), entering_video(56, 0), True)) == 56
    assert len(DYNAMICS.clip(adapter, entering_video(56, 0), True)) == 28


def test_a_video_that_is_too_short_fails_and_is_counted(tmp_path: Path) -> None:
    class Short(Sliding):
        def __getitem__(self, index: int) -> Video:
            return Sliding(1, first=self.first + index, frames=19 if index == 2 else 20)[0]

    data = replace(sliding(4, 100), reader=Short(4, first=100))  # type: ignore[arg-type]
    evaluation = result(Straight(), tmp_path, data=data)
    assert [one.id for one in evaluation.counts.failed] == ["video102"]
    message = "has 19 frames; a clip of 18 frames at a stride of 1, cut after 8 does not fit"
    assert message in evaluation.counts.failed[0].error


def test_the_burn_in_is_predicted_before_the_model_sees_the_future(tmp_path: Path) -> None:
    class Watching(Straight):
        reads_video = True

        def __init__(self) -> None:
            self.pieces: list[tuple[int, int]] = []

        def predict(self, batch: Batch) -> Prediction:
            assert batch.video is not None
            self.pieces.append((batch.start, batch.video.shape[1]))
            found = super().predict(replace(batch, image=batch.video[0]))
            return replace(found, masks=found.masks[None], slots=found.slots[None])  # type: ignore[index]

    model = Watching()
    plan = make_plan(model, TASK, data=sliding(1, 100), train=sliding(10), batch_size=16)
    run(replace(plan, model=replace(plan.model, bundled=True)), results=tmp_path, progress=False)
    assert model.pieces == [*[(0, 6), (6, 14)] * 10, (0, 6), (6, 12)]


# --- models that are refused ------------------------------------------------------------------------------------------


class Whole(Straight):
    reads_video = whole_video = True


class Peeking(Straight):
    needs_future = True


class WithoutSlots(Straight):
    def predict(self, batch: Batch) -> Prediction:
        return replace(super().predict(batch), slots=None)


class FewSlots(Straight):
    reads_video = True

    def predict(self, batch: Batch) -> Prediction:
        found = super().predict(replace(batch, image=batch.video[0]))  # type: ignore[index]
        return replace(found, masks=found.masks[None], slots=found.slots[None, :, :2])  # type: ignore[index]


class FlatSlots(FewSlots):
    def predict(self, batch: Batch) -> Prediction:
        return replace(super().predict(batch), slots=torch.zeros(len(batch.video[0]), 3, 5))  # type: ignore[index]


class AfterTheFact(FewSlots):
    def predict(self, batch: Batch) -> Prediction:
        found = Straight.predict(self, replace(batch, image=batch.video[0]))  # type: ignore[index]
        return replace(found, masks=found.masks[None], slots=found.slots[None], whole_clip=True)  # type: ignore[index]


def decoding(masks: Any) -> Any:
    class Decoding(Straight):
        def decode_slots(self, slots: Tensor) -> Tensor:
            return masks(slots) if callable(masks) else masks

    return Decoding


def predicting(slots: Any) -> Any:
    class Predicting(Straight):
        def predict_slots(self, slots_of_frames: Tensor, steps: int) -> Tensor:
            return slots(slots_of_frames)

    return Predicting


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (Whole, NotApplicableError, "its slots depend on later frames of the video"),
        (AfterTheFact, NotApplicableError, "its slots depend on later frames of the video"),
        (Peeking, UsageError, "needs_future is reserved for bundled ceilings"),
        (WithoutSlots, NotApplicableError, "Prediction.slots is missing"),
        (FewSlots, UsageError, "Prediction.slots has 2 slots for 3 masks; slot k must be what mask k shows"),
        (FlatSlots, UsageError, r"Prediction.slots is \(6, 3, 5\), expected for one video \(1,6,K,D\)"),
        (decoding(lambda s: torch.zeros(1, 2, 4, 4)), UsageError, r"decode_slots gave a tensor \(1, 2, 4, 4\)"),
        (decoding(None), UsageError, r"decode_slots gave NoneType for slots \(1, 3, 5\), expected masks \(1, 3, h, w"),
        (decoding(lambda s: torch.full((1, 3, 4, 4), 3.0)), UsageError, r"outside of \[0, 1\]; give weights, not log"),
        (decoding(lambda s: torch.full((1, 3, 4, 4), torch.nan)), UsageError, r"outside of \[0, 1\]"),
        (decoding(lambda s: 1 / 0), UsageError, "decode_slots failed .ZeroDivisionError"),
        (predicting(lambda s: s[0]), UsageError, r"predict_slots gave a tensor \(6, 3, 5\), expected slots \(1, 1, 3,"),
        (predicting(lambda s: s[:, :1] * torch.nan), UsageError, "the predicted slots are not finite"),
        (predicting(lambda s: s.oops), UsageError, "predict_slots failed .AttributeError"),
    ],
)  # fmt: skip
def test_models_that_cannot_be_used(model: Any, error: type[Exception], message: str, tmp_path: Path) -> None:
    """In one line, and before any probe is fitted."""
    with pytest.raises(error, match=message) as caught:
        result(model(), tmp_path)
    assert "\n" not in str(caught.value)


def test_slots_that_are_not_finite_fail_their_video(tmp_path: Path) -> None:
    class Broken(Straight):
        def predict(self, batch: Batch) -> Prediction:
            found = super().predict(batch)
            return replace(found, slots=found.slots * torch.nan) if "video102" in batch.ids else found  # type: ignore[operator]

    evaluation = result(Broken(), tmp_path)
    assert [one.id for one in evaluation.counts.failed] == ["video102"]
    assert "slots are not finite" in evaluation.counts.failed[0].error


class Changing(Straight):
    """A video model of label maps, whose slots are as long and as many as it is told for the video and the clip."""

    reads_video = True

    def __init__(self, first: tuple[int, int], later: tuple[int, int], train: tuple[int, int]) -> None:
        self.first, self.later, self.train = first, later, train

    def predict(self, batch: Batch) -> Prediction:
        found = super().predict(replace(batch, image=batch.video[0]))  # type: ignore[index]
        number, length = self.train if int(batch.ids[0][5:]) < 100 else self.later if batch.start else self.first
        assert found.masks is not None and found.slots is not None
        slots = torch.nn.functional.pad(found.slots, (0, length - 5, 0, number - 3))
        return replace(found, masks=found.masks.argmax(1)[None], slots=slots[None])

    decode_slots = None  # type: ignore[assignment]


def test_slots_are_as_many_and_as_long_in_every_clip_and_video(tmp_path: Path) -> None:
    """Also those of label maps: what slot 3 is worth before it appears, nobody can say."""
    same, more, longer = (3, 5), (4, 5), (3, 6)
    data: dict[str, Any] = {"data": sliding(2, 100), "train": sliding(2)}
    assert not result(Changing(same, same, same), tmp_path, **data).counts.failed
    assert not result(Changing(more, more, same), tmp_path, **data).counts.failed
    for later, message in ((more, "4 slots from frame 6 on, 3 before"), (longer, "6 numbers from frame 6 on, of 5 b")):
        with pytest.raises(UsageError, match=message):
            result(Changing(same, later, same), tmp_path, **data)
    with pytest.raises(UsageError, match=r"Prediction\.slots has 6 numbers for one image and 5 for another"):
        result(Changing(longer, longer, same), tmp_path, **data)


def test_slots_of_the_fit_split_have_one_length(tmp_path: Path) -> None:
    class Alternating(Changing):
        def predict(self, batch: Batch) -> Prediction:
            self.train = (3, 5 + int(batch.ids[0][5:]) % 2)
            return super().predict(batch)

    with pytest.raises(UsageError, match=r"Prediction\.slots has 6 numbers for one image and 5 for another"):
        result(Alternating((3, 5), (3, 5), (3, 5)), tmp_path, data=sliding(2, 100), train=sliding(2))


def test_a_method_that_fails_on_one_video_fails_this_one(tmp_path: Path) -> None:
    class Sometimes(Straight):
        calls = 0

        def predict_slots(self, slots: Tensor, steps: int) -> Tensor:
            self.calls += steps > 1
            return super().predict_slots(slots, steps) * (torch.nan if self.calls == 2 and steps > 1 else 1)

    evaluation = result(Sometimes(), tmp_path)
    assert [one.id for one in evaluation.counts.failed] == ["video101"]
    assert "the predicted slots are not finite" in evaluation.counts.failed[0].error


def test_a_floor_has_the_methods_of_the_other_model() -> None:
    class Masked(Centres):
        slots_decode = "masked"

    methods = SlotMethods(get_model(CopyLast(Masked())))
    assert methods.dynamics == "own" and methods.decode_source == "masked" and not methods.uses_probe
    assert SlotMethods(get_model(Permuted(Centres()))).dynamics == "probe"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": {"seen": None}}, "clips: last-seen needs it"),
        ({"protocol": {"clips": "no-entry"}}, "clips: no-entry has no cut"),
        ({"protocol": {"rollout": 10}}, "'position_error_11_on' is of step 11 and later, protocol.rollout 10"),
        ({"protocol": {"void": "count"}}, "videos know only 'drop'"),
        ({"fit": None}, "'left out' is not a head of dynamics, which knows: rollouter"),
        ({"fit": {"head": "linear"}}, "'linear' is not a head of dynamics"),
    ],
)
def test_cards_that_contradict_themselves(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dynamics_task(**changes)


def test_the_burn_in_must_be_as_long_as_what_the_rollouter_sees() -> None:
    task = dynamics_task(protocol={"rollouter": "physion"})
    with pytest.raises(UsageError, match=r"protocol\.burn_in: 6 frames; rollouter physion sees 15"):
        get_adapter(task)

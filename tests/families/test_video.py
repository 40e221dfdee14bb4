"""The video family: metrics of tubes and frames, J and F, failures, intervals over videos, and memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from tiny_videos import SIDE, ColourMaps, Colours, VideoMemory, memory_videos, moving_squares, video_task

from ocl_bench.core.errors import NotApplicableError, UsageError
from ocl_bench.core.types import VOID, Batch, Prediction, Truth
from ocl_bench.evaluation.plan import make_plan
from ocl_bench.evaluation.run import run
from ocl_bench.families import get_adapter
from ocl_bench.families.summary import set_statistic
from ocl_bench.metrics.davis import VideoObjects
from ocl_bench.metrics.video import VideoTables
from ocl_bench.results.record import Result, read_rows


def scored(model: Any, folder: Path, *, task: Any = None, data: Any = None, **keywords: Any) -> Result:
    plan = make_plan(model, task or video_task(), data=data or memory_videos(), device="cpu", **keywords)
    return run(plan, results=folder, progress=False)


@pytest.mark.parametrize("model", [Colours(), ColourMaps()])
def test_linked_segments_are_perfect(model: Any, tmp_path: Path) -> None:
    result = scored(model, tmp_path)
    assert {name: metric.value for name, metric in result.metrics.items()} == dict.fromkeys(result.task.metrics, 1.0)


def test_oracle_is_perfect_and_one_slot_knows_nothing(tmp_path: Path) -> None:
    oracle, single = scored("oracle", tmp_path), scored("single-slot", tmp_path)
    assert {metric.value for metric in oracle.metrics.values()} == {1.0}
    assert single.value("fg_ari_video") == 0.0
    assert single.value("mbo_video") < 0.2


class Shuffled:
    """A video model whose slots change their numbers at every frame."""

    reads_video = True

    def predict(self, batch: Batch) -> Prediction:
        assert batch.video is not None
        colours = Colours().predict(Batch(batch.ids * batch.video.shape[1], batch.video[0]))
        assert colours.masks is not None
        return Prediction(masks=colours.masks[None], mask_source="decoder")


def test_changing_numbers_ruin_tubes_but_not_frames(tmp_path: Path) -> None:
    """Metrics of single frames do not depend on the numbers of the slots, metrics of tubes do."""
    result = scored(Shuffled(), tmp_path)
    assert result.value("fg_ari_frame") == result.value("mbo_frame") == 1.0
    assert result.value("fg_ari_video") < 0.5 and result.value("mbo_video") < 0.8 and result.value("jf") < 0.9
    assert "linked" not in result.task.signature


def test_signature_says_what_linked_the_slots(tmp_path: Path) -> None:
    assert "mask:decoder+linked-slots" in scored(Colours(), tmp_path).task.signature
    assert "mask:clusters+linked-masks" in scored(ColourMaps(), tmp_path).task.signature


@pytest.mark.parametrize("model", ["grid", "kmeans", "patch-oracle"])
def test_clips_of_any_length_give_the_same_rows(model: str, tmp_path: Path) -> None:
    rows = []
    for size in (1, 4, 16):
        table = read_rows(scored(model, tmp_path / str(size), batch_size=size).path)
        rows.append(table.drop(columns=["id"]).to_numpy(np.float64))
    np.testing.assert_allclose(rows[1], rows[0], atol=5e-3)
    np.testing.assert_allclose(rows[2], rows[0], atol=5e-3)


def test_rows_hold_what_the_metrics_say(tmp_path: Path) -> None:
    """The adapter, frame by frame, agrees with the metrics called on whole videos."""
    result = scored("grid", tmp_path)
    rows = read_rows(result.path).set_index("id")
    labels = torch.arange(SIDE) * 3 // SIDE
    grid = (labels[:, None] * 3 + labels).numpy()
    for number in range(4):
        truth = np.stack([sample.truth.labels for sample in moving_squares(number).frames])
        tables, objects = VideoTables(), VideoObjects()
        tables.add(truth, np.broadcast_to(grid, truth.shape).copy())
        objects.add(truth, np.broadcast_to(grid, truth.shape).copy())
        row, scores = rows.loc[f"video{number}"], tables.scores()
        for name, (value, _) in scores.items():
            assert row[name] == pytest.approx(value, abs=1e-12)
        davis = objects.scores()
        assert row["j"] == pytest.approx(davis.j_mean.mean()) and row["f"] == pytest.approx(davis.f_mean.mean())
        assert row["n_objects"] == 2 and row["n_frames"] == 6


def test_frames_and_objects_are_pooled_over_videos() -> None:
    """Means over all frames of the set, as SlotContrast reports, not over videos; weights are numbers of frames."""
    import pandas

    rows = pandas.DataFrame(
        {
            "id": ["a", "b", "c"],
            "noise_seed": 0,
            "mbo_frame": [0.2, 0.8, np.nan],
            "n_frames_mbo": [30.0, 10.0, 0.0],
            "mbo_video": [0.1, 0.3, np.nan],
            "jf": [0.5, 0.9, np.nan],
            "n_objects_jf": [1.0, 3.0, 0.0],
        }
    )
    task, once = video_task(), np.ones((1, 3), dtype=np.int64)

    def value(name: str, weights: np.ndarray = once) -> float:
        return float(set_statistic(rows, task, name)(weights)[0])

    assert value("mbo_frame") == pytest.approx((30 * 0.2 + 10 * 0.8) / 40)
    assert value("jf") == pytest.approx((0.5 + 3 * 0.9) / 4)
    assert value("mbo_video") == pytest.approx(0.2)
    assert value("mbo_frame", np.array([[0, 2, 1]])) == pytest.approx(0.8)
    assert np.isnan(value("mbo_frame", np.array([[0, 0, 3]])))


def test_intervals_resample_videos(tmp_path: Path) -> None:
    """Equal to scipy's bootstrap of the mean over videos for a metric of tubes."""
    from ocl_bench.metrics.statistics import bootstrap_mean

    result = scored("grid", tmp_path, data=memory_videos(12))
    values = read_rows(result.path)["mbo_video"].to_numpy()
    metric, expected = result.metrics["mbo_video"], bootstrap_mean(values)
    assert metric.n_valid == 12 and metric.ci95 is not None
    assert metric.value == pytest.approx(values.mean())
    np.testing.assert_allclose(metric.ci95, (expected.low, expected.high), atol=0.1 * expected.se + 1e-3)


def test_a_video_with_a_missing_frame_fails_as_a_whole(tmp_path: Path) -> None:
    result = scored(Colours(), tmp_path, data=memory_videos(broken=(1,)))
    assert result.identity.status == "failed samples" and result.counts.scored == 3
    assert [failure.id for failure in result.counts.failed] == ["video1"]
    assert "frame 00005 is missing" in result.counts.failed[0].error


def test_no_more_than_one_clip_is_read_at_a_time(tmp_path: Path) -> None:
    """Frames are read in order, once each, between predictions: memory does not grow with the length of a video."""
    data = memory_videos(1, frames=10)
    seen: list[list[int]] = []

    class Watcher(Colours):
        def predict(self, batch: Batch) -> Prediction:
            seen.append(list(video.frames.read))  # type: ignore[attr-defined]
            assert len(batch) <= 4
            return super().predict(batch)

    video = moving_squares(0, 10)

    class Once(VideoMemory):
        def __getitem__(self, index: int) -> Any:
            return video

    object.__setattr__(data, "reader", Once(1, 10))
    scored(Watcher(), tmp_path, data=data, batch_size=4)
    *run, first, again, half, _ = seen  # the probe reads the first clip three times more, the last time in two halves
    assert run == [list(range(4)), list(range(8)), list(range(10))]
    assert first[10:] == list(range(4)) and again[14:] == list(range(4)) and half[18:] == [0, 1]


class Recurrent:
    """A video model that counts frames in its state and encodes the count in its masks."""

    reads_video = True

    def __init__(self) -> None:
        self.starts: list[tuple[int, int | None]] = []

    def predict(self, batch: Batch) -> Prediction:
        assert batch.video is not None
        self.starts.append((batch.start, batch.state))
        frames = batch.video.shape[1]
        return Prediction(
            masks=torch.ones(1, frames, 2, 4, 4), mask_source="decoder", state=(batch.state or 0) + frames
        )


class Whole(Recurrent):
    whole_video = True


def test_a_recurrent_model_gets_its_state_back(tmp_path: Path) -> None:
    model, whole = Recurrent(), Whole()
    scored(model, tmp_path, data=memory_videos(2), batch_size=4)
    twice, apart = [(0, None), (0, None)], [(0, None), (2, 2)]  # the first clip after the run, at last in halves
    assert model.starts == [(0, None), (4, 4), (0, None), (4, 4), *twice, *apart]
    scored(whole, tmp_path, data=memory_videos(2), batch_size=4)
    assert whole.starts == [(0, None), (0, None), *twice, (0, None)]


def test_predictions_are_kept_frame_by_frame(tmp_path: Path) -> None:
    plan = make_plan(Colours(), video_task(), data=memory_videos(1), device="cpu")
    result = run(plan, results=tmp_path, progress=False, save_predictions=True)
    assert result.path is not None
    folder = result.path.with_suffix(".predictions") / "seed-0" / "video0"
    assert sorted(path.name for path in folder.iterdir()) == [f"{k:05d}.png" for k in range(6)]
    assert np.asarray(Image.open(folder / "00003.png")).shape == (SIDE, SIDE)


def test_a_frame_that_is_not_finite_fails_the_video(tmp_path: Path) -> None:
    class Broken(Colours):
        def predict(self, batch: Batch) -> Prediction:
            prediction = super().predict(batch)
            assert prediction.masks is not None
            if batch.ids[0] == "video2":
                prediction.masks[3] = float("nan")
            return prediction

    result = scored(Broken(), tmp_path)
    assert [failure.id for failure in result.counts.failed] == ["video2"]
    assert "not finite" in result.counts.failed[0].error


class SlotsOfClip:
    """A video model with as many slots as `numbers` says for each clip of two frames."""

    reads_video = True

    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers

    def predict(self, batch: Batch) -> Prediction:
        assert batch.video is not None
        masks = torch.eye(self.numbers[batch.start // 2])[_colour_of(batch.video[0])].movedim(3, 1)[None]
        return Prediction(masks=masks, mask_source="decoder")


def test_as_many_slots_in_every_clip_of_a_video(tmp_path: Path) -> None:
    """What a slot shows is known by its number: another number of slots says that this is not kept."""
    assert scored(SlotsOfClip(3, 3, 3), tmp_path, batch_size=2).metrics["fg_ari_video"].value == 1
    for numbers, start in (((4, 3, 3), 2), ((3, 3, 5), 4)):
        before, after = numbers[0], numbers[start // 2]
        with pytest.raises(UsageError, match=f"has {after} slots from frame {start} on, {before} before") as said:
            scored(SlotsOfClip(*numbers), tmp_path, batch_size=2)
        assert "weight 0 for those that are not in use" in str(said.value)


class ImageSlots:
    """An image model with more slots for later frames, which the suite links."""

    def predict(self, batch: Batch) -> Prediction:
        self.slots = getattr(self, "slots", 2) + 1
        return Prediction(masks=torch.eye(self.slots)[_colour_of(batch.image)].movedim(3, 1), mask_source="decoder")


def _colour_of(image: torch.Tensor) -> torch.Tensor:
    """0 for grey, 1 for red, 2 for blue."""
    return torch.where(image[:, 0] > 0.5, 1, torch.where(image[:, 2] > 0.5, 2, 0))


def test_slots_that_the_suite_links_may_change_in_number(tmp_path: Path) -> None:
    found = scored(ImageSlots(), tmp_path, batch_size=2)
    assert found.model.mask_source == "decoder+linked-masks" and found.metrics["fg_ari_video"].value == 1


class TestWrongPredictions:
    def test_no_masks(self, tmp_path: Path) -> None:
        with pytest.raises(NotApplicableError, match="masks is missing"):
            scored("encoder", tmp_path)

    def test_masks_of_another_length(self, tmp_path: Path) -> None:
        class Short:
            reads_video = True

            def predict(self, batch: Batch) -> Prediction:
                return Prediction(masks=torch.ones(1, 2, 3, 4, 4), mask_source="decoder")

        with pytest.raises(UsageError, match=r"masks is \(1, 2, 3, 4, 4\), expected for one video"):
            scored(Short(), tmp_path)

    @pytest.mark.parametrize(
        ("change", "line"),
        [
            ({"metrics": ["ari"], "main": "ari"}, "'ari' is a metric of discovery, not of video; video has f, "),
            ({"protocol": {"void": "count"}}, "videos know only 'drop'"),
            ({"protocol": {"temperature": 0.1}}, "is not a field of video"),
        ],
    )
    def test_cards(self, change: dict[str, Any], line: str) -> None:
        with pytest.raises(ValidationError, match=line):
            video_task(**change)


def test_a_video_without_any_object_is_not_valid() -> None:
    task = video_task()
    truth = [Truth(np.zeros((8, 8), np.int16))] * 3
    row = get_adapter(task).score(truth, [np.zeros((8, 8), np.uint8)] * 3, task)[0]
    assert row["n_objects"] == 0 and np.isnan(row["fg_ari_video"]) and "jf" not in row
    ones = video_task(protocol={**task.protocol.model_dump(), "empty": "one"})
    assert get_adapter(ones).score(truth, [np.zeros((8, 8), np.uint8)] * 3, ones)[0]["fg_ari_video"] == 1.0


def test_numbers_without_an_object_take_no_part_in_j_and_f() -> None:
    """Objects are 1 and 3. An object 2 without pixels would match a segment that is mostly absent nearly perfectly."""
    task = video_task(metrics=["jf", "j", "f"], main="jf")
    maps = np.zeros((4, 16, 16), np.int16)
    maps[:, 2:6, 2:6], maps[:, 9:14, 9:14] = 1, 3
    predicted = np.where(maps == 1, 2, 0).astype(np.uint8)
    predicted[0][maps[0] == 3] = 1
    gap = get_adapter(task).score([Truth(m) for m in maps], list(predicted), task)[0]
    close = get_adapter(task).score([Truth(np.minimum(m, 2)) for m in maps], list(predicted), task)[0]
    assert gap["n_objects"] == 2 and gap["j"] == close["j"] == pytest.approx((1 + 0.25) / 2)


def test_void_is_left_out() -> None:
    task = video_task(metrics=["mbo_video", "j"], main="j")
    maps = np.zeros((2, 16, 16), np.int16)
    maps[:, 4:8, 4:8] = 1
    predicted = (maps == 1).astype(np.uint8)
    predicted[:, 8:12, 4:8] = 1
    void = maps.copy()
    void[:, 8:12, 4:8] = VOID
    without, with_void = (
        get_adapter(task).score([Truth(m) for m in each], list(predicted), task)[0] for each in (maps, void)
    )
    assert without["j"] == without["mbo_video"] == 0.5
    assert with_void["j"] == with_void["mbo_video"] == 1.0


def test_the_first_frame_can_be_left_out(tmp_path: Path) -> None:
    """As if the video began one frame later, for every metric; the model still sees the first frame."""
    task = video_task()
    skipping = video_task(protocol={**task.protocol.model_dump(), "skip_first": True})
    rows = {}
    for size in (1, 4, 16):
        result = scored("grid", tmp_path / str(size), task=skipping, batch_size=size)
        assert "│skip-first│" in result.task.signature
        rows[size] = read_rows(result.path).set_index("id")
    whole = read_rows(scored("grid", tmp_path / "whole").path).set_index("id")
    labels = torch.arange(SIDE) * 3 // SIDE
    grid = (labels[:, None] * 3 + labels).numpy()
    for number in range(4):
        name = f"video{number}"
        truth = [sample.truth for sample in moving_squares(number).frames][1:]
        expected = get_adapter(task).score(truth, [grid] * len(truth), task)[0]
        assert whole.loc[name, "n_frames"] == 6 and expected["n_frames"] == 5
        for row in (rows[size].loc[name] for size in rows):
            for column, value in ((key, expected[key]) for key in row.index if key in expected):
                assert row[column] == pytest.approx(value, abs=1e-12), column
    assert not np.allclose(whole["mbo_video"], rows[1]["mbo_video"])


def test_a_video_of_one_frame_has_nothing_to_score_without_it() -> None:
    task = video_task(protocol={**video_task().protocol.model_dump(), "skip_first": True})
    maps = np.ones((8, 8), np.int16)
    row = get_adapter(task).score([Truth(maps)], [maps.astype(np.uint8)], task)[0]
    assert row["n_frames"] == row["n_objects"] == 0 and np.isnan(row["mbo_video"]) and "jf" not in row


def test_scoring_all_frames_is_not_hashed() -> None:
    """Cards of before the field keep their hashes, and saying the default is the same protocol."""
    task = video_task()
    said = video_task(protocol={**task.protocol.model_dump(), "skip_first": False})
    other = video_task(protocol={**task.protocol.model_dump(), "skip_first": True})
    assert said.hash == task.hash and said == task
    assert other.hash != task.hash and other.signature("decoder") != task.signature("decoder")

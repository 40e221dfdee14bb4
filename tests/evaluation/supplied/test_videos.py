"""Masks of videos without a model: a folder with a PNG for each frame, and the saved predictions of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image
from tiny_videos import ColourMaps, Colours, VideoMemory, memory_videos, video_task

from ocl_bench.cards.task import TaskSpec
from ocl_bench.core.errors import SampleError, UsageError
from ocl_bench.core.types import Batch, Prediction, Video
from ocl_bench.data import OpenData
from ocl_bench.data.images import read_mask
from ocl_bench.evaluation.plan import make_plan
from ocl_bench.evaluation.run import run
from ocl_bench.evaluation.supplied import score
from ocl_bench.evaluation.supplied.label_maps import read_prediction
from ocl_bench.evaluation.supplied.score import replay, score_masks
from ocl_bench.families.files import write_label_map
from ocl_bench.results.record import Result

Change = Callable[[np.ndarray, int], np.ndarray]


class Opened(VideoMemory):
    """Counts how often each video is opened. closed: videos that cannot be."""

    def __init__(self, count: int, frames: int = 6, closed: tuple[int, ...] = ()) -> None:
        super().__init__(count, frames)
        self.closed, self.opened = closed, [0] * count

    def __getitem__(self, index: int) -> Video:
        self.opened[index] += 1
        if index in self.closed:
            raise SampleError(self.ids[index], "video without frames; unpack the archive again")
        return super().__getitem__(index)


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> OpenData:
    return use(memory_videos(3), monkeypatch)


def use(opened: OpenData, monkeypatch: pytest.MonkeyPatch) -> OpenData:
    monkeypatch.setattr(score, "open_data", lambda *arguments, **keywords: opened)
    return opened


def write_masks(folder: Path, data: OpenData, change: Change = lambda labels, frame: labels) -> Path:
    """The truth of all frames as masks, after a change of its numbers."""
    for index in range(len(data.ids)):
        video = VideoMemory(len(data.ids), cast(VideoMemory, data.reader).frames)[index]
        for number, (name, sample) in enumerate(zip(video.names, video.frames, strict=True)):
            labels = change(sample.truth.labels.astype(np.int64), number)
            write_label_map(folder / video.id / f"{name}.png", labels)
    return folder


def scored(task: TaskSpec, masks: Path, results: Path) -> Result:
    return score_masks(task, masks, results=results, progress=False)


LARGE: Change = lambda labels, frame: np.array([0, 40_000, 60_000])[labels]  # noqa: E731
COLOURS: Change = lambda labels, frame: np.array([0, 0x00FF00, 0x80FF00])[labels]  # noqa: E731


@pytest.mark.parametrize("change", [lambda labels, frame: labels, LARGE, COLOURS], ids=["small", "16 bit", "colours"])
@pytest.mark.parametrize("score_at", [12, 24, 40])
def test_the_truth_as_masks_is_perfect(tmp_path: Path, data: OpenData, change: Change, score_at: int) -> None:
    """Whatever its numbers, and whether the masks have the size that is scored or go the way of the truth."""
    task = video_task(protocol={**video_task().protocol.model_dump(), "score_at": score_at})
    result = scored(task, write_masks(tmp_path / "masks", data, change), tmp_path / "results")
    assert {name: metric.value for name, metric in result.metrics.items()} == dict.fromkeys(task.metrics, 1.0)
    assert (result.data.kind, result.model.name, result.counts.failed) == ("supplied", "supplied-masks", ())


def test_zero_is_no_proposal_but_a_segment(tmp_path: Path, data: OpenData) -> None:
    """Object 1 has id 0 and the background 3: DAVIS sees no proposal on it, mBO a perfect segment."""
    masks = write_masks(tmp_path / "masks", data, lambda labels, frame: np.array([3, 0, 2])[labels])
    result = scored(video_task(), masks, tmp_path / "results")
    assert result.value("mbo_video") == result.value("mbo_frame") == 1
    assert result.value("j") == pytest.approx(0.5, abs=0.05)


def test_an_id_that_changes_hands_costs_the_tubes_only(tmp_path: Path, data: OpenData) -> None:
    masks = write_masks(tmp_path / "masks", data, lambda labels, frame: np.roll([0, 1, 2], frame % 2)[labels])
    result = scored(video_task(), masks, tmp_path / "results")
    assert result.value("mbo_frame") == result.value("fg_ari_frame") == 1
    tubes = [result.value(name) for name in ("mbo_video", "fg_ari_video")]
    assert all(value is not None and value < 0.8 for value in tubes)


def test_missing_masks_are_counted_before_anything_is_scored(tmp_path: Path, data: OpenData) -> None:
    masks = write_masks(tmp_path / "masks", data)
    (masks / "video1" / "00002.png").unlink()
    (masks / "video2" / "00000.png").unlink()
    with pytest.raises(UsageError, match=r"2 of 18 masks are missing, first video1/00002.png; write one id-map PNG"):
        scored(video_task(), masks, tmp_path / "results")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("content", "line"),
    [(np.zeros((24, 25), np.uint8), "mask is 25x24, expected 24x24"), (None, "is not a readable PNG")],
)
def test_a_wrong_mask_fails_its_video(tmp_path: Path, data: OpenData, content: Any, line: str) -> None:
    masks = write_masks(tmp_path / "masks", data)
    path = masks / "video1" / "00004.png"
    path.write_bytes(b"nothing") if content is None else Image.fromarray(content).save(path)
    result = scored(video_task(), masks, tmp_path / "results")
    (failure,) = result.counts.failed
    assert failure.id == "video1" and line in failure.error and "\n" not in failure.error
    assert result.counts.scored == 2 and result.value("mbo_video") == 1


def test_a_video_that_cannot_be_opened_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = use(replace(memory_videos(3), reader=Opened(3, closed=(1,))), monkeypatch)  # type: ignore[arg-type]
    result = scored(video_task(), write_masks(tmp_path / "masks", data), tmp_path / "results")
    assert result.counts.attempted == 3 and [one.id for one in result.counts.failed] == ["video1"]
    assert result.value("mbo_video") == 1


def test_opening_does_not_grow_with_the_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To list names, to hash, to score and to look up; a reader of MOVi takes 5 MB each time."""
    reader = Opened(2, frames=40)  # three clips of up to 16 frames
    data = use(replace(memory_videos(2), reader=reader), monkeypatch)  # type: ignore[arg-type]
    scored(video_task(), write_masks(tmp_path / "masks", data), tmp_path / "results")
    assert reader.opened == [4, 4]


class SparseMaps(ColourMaps):
    """A model of videos with ids beyond 16 bits; the colours tell them apart, so that they last over time."""

    reads_video = True
    step = 70_000

    def predict(self, batch: Batch) -> Prediction:
        assert batch.video is not None
        red, blue = batch.video[:, :, 0] > 0.5, batch.video[:, :, 2] > 0.5
        return Prediction(masks=(red.long() + 2 * blue.long()) * self.step, mask_source="clusters")


class Noisy(Colours):
    """Another answer for each noise seed."""

    def predict(self, batch: Batch) -> Prediction:
        found = super().predict(batch)
        assert found.masks is not None
        noise = batch.noise(3, *found.masks.shape[-2:])
        return replace(found, masks=(found.masks + 0.4 * noise.to(found.masks)).clamp(0, 1))


class Unsteady(Colours):
    """Not finite in the last frames of one video: some of its frames are saved already."""

    def predict(self, batch: Batch) -> Prediction:
        found = super().predict(batch)
        assert found.masks is not None
        if batch.ids[0] == "video1" and len(batch) < 4:
            found.masks[0] = float("nan")
        return found


def kept_run(model: Any, data: OpenData, folder: Path, **keywords: Any) -> Path:
    plan = make_plan(model, video_task(), data=data, device="cpu", **keywords)
    result = run(plan, results=folder, progress=False, save_predictions=True)
    assert result.path is not None
    return result.path


@pytest.mark.parametrize("model", [Colours(), ColourMaps(), Noisy(), SparseMaps(), Unsteady()])
def test_saved_predictions_give_the_same_numbers(tmp_path: Path, data: OpenData, model: Any) -> None:
    path = kept_run(model, data, tmp_path, batch_size=4, noise_seeds=[0, 1])
    again = replay(path, task=video_task(), progress=False)
    assert again.equal and set(again.differences.values()) == {0.0}
    assert again.now.model.mask_source == again.stored.model.mask_source
    assert all(metric.value is not None for metric in again.now.metrics.values())


def test_a_changed_prediction_is_noticed(tmp_path: Path, data: OpenData) -> None:
    path = kept_run(Colours(), data, tmp_path)
    frame = path.with_suffix(".predictions") / "seed-0" / "video2" / "00003.png"
    write_label_map(frame, np.zeros((24, 24), np.int64))
    again = replay(path, task=video_task(), progress=False)
    assert not again.equal and again.differences["mbo_video"] < 0


def test_ids_of_any_size_come_back_from_png(tmp_path: Path) -> None:
    for largest in (255, 256, 2**16 - 1, 2**16, 2**24 - 1):
        labels = np.array([[0, 1, largest], [largest - 1, 2, 0]])
        write_label_map(tmp_path / "map.png", labels)
        assert np.array_equal(read_mask(tmp_path / "map.png", "map", shape=(2, 3), remedy="")[0], labels)
    with pytest.raises(UsageError, match="segment id 16777216 is above 16777215"):
        write_label_map(tmp_path / "map.png", np.array([[2**24]]))


def test_more_segments_than_labels_can_hold_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A photograph given as a mask has a colour for each pixel."""
    data = use(memory_videos(1, frames=1), monkeypatch)
    video = data.reader[0]
    large = replace(video.frames[0], image=np.zeros((200, 200, 3), np.uint8))
    large = replace(large, truth=replace(large.truth, labels=np.ones((200, 200), np.int16)))
    write_label_map(tmp_path / "mask.png", np.arange(40_000).reshape(200, 200))
    with pytest.raises(SampleError, match="40000 segments in one mask"):
        read_prediction(tmp_path / "mask.png", large, video_task())


def test_evaluate_says_which_predictions_it_cannot_save(tmp_path: Path, data: OpenData) -> None:
    class Huge(SparseMaps):
        step = 10**9

    plan = make_plan(Huge(), video_task(), data=data, device="cpu")
    assert run(plan, results=tmp_path, progress=False).value("mbo_video") == 1
    with pytest.raises(UsageError, match="above 16777215"):
        run(plan, results=tmp_path, progress=False, save_predictions=True)


def test_masks_of_frames_whose_size_fits_frame_and_crop_are_refused_or_declared(tmp_path: Path, data: OpenData) -> None:
    protocol = {**video_task().protocol.model_dump(), "crop": "center-0.5"}
    side = data.reader[0].frames[0].truth.labels.shape[0]
    task = video_task(protocol={**protocol, "score_at": side})
    write_masks(tmp_path / "whole", data)
    with pytest.raises(UsageError, match="is the size of the whole image and of the scored crop"):
        scored(task, tmp_path / "whole", tmp_path)
    result = score_masks(task, tmp_path / "whole", extent="whole", results=tmp_path, progress=False)
    assert {name: metric.value for name, metric in result.metrics.items()} == dict.fromkeys(task.metrics, 1.0)

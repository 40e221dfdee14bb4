"""The bundled cards of k-NN and of videos, from the stand-in on disk to the result, on a few samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
from typer.testing import CliRunner

from ocl_bench.cards.names import get_task
from ocl_bench.cards.task import TaskSpec
from ocl_bench.cli import app
from ocl_bench.core.errors import NotApplicableError, UsageError
from ocl_bench.core.types import Batch, Prediction
from ocl_bench.data import open_data
from ocl_bench.evaluation.plan import make_plan
from ocl_bench.evaluation.run import run
from ocl_bench.evaluation.shards import Shard, WorkFolder
from ocl_bench.evaluation.video_loop import VideoRunner
from ocl_bench.metrics.knn import Search
from ocl_bench.results.record import Result, read_rows
from ocl_bench.tables.leaderboard.build import build_leaderboard

KNN = ("imagenet-knn", "imagenet-knn-boxes", "imagenet-knn-crop", "imagenet-knn-blackout")
VIDEO = ("movi-c", "movi-e", "ytvis-2021", "ytvis-2021-all300", "davis-2017")
QUERIES, BANK = 24, 48


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """Rendering in this process is far slower with many threads on a shared machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small(name: str) -> TaskSpec:
    """A card with a smaller stand-in."""
    task = get_task(name)
    assert task.data.stand_in is not None
    sizes = {"samples": 2} if task.family == "video" else {"samples": QUERIES, "fit_samples": BANK}
    stand_in = task.data.stand_in.model_copy(update=sizes)
    return task.model_copy(update={"data": task.data.model_copy(update={"stand_in": stand_in})})


def scored(model: Any, task: TaskSpec, folder: Path, **keywords: Any) -> Result:
    return run(make_plan(model, task, device="cpu", progress=False, **keywords), results=folder, progress=False)


@pytest.mark.parametrize("name", KNN)
def test_the_label_names_every_image(name: str, tmp_path: Path) -> None:
    result = scored("oracle", small(name), tmp_path) if name != "imagenet-knn-boxes" else None
    if result is None:  # the oracle's vector looks at no box
        with pytest.raises(NotApplicableError, match="imagenet-knn-crop grants boxes to any model"):
            scored("oracle", small(name), tmp_path)
        return
    assert result.value("knn_top1_k10") == 1.0 and result.counts.scored == QUERIES
    assert result.data.kind == "embedded"


@pytest.mark.parametrize("name", KNN)
def test_boxes_are_a_privilege(name: str, tmp_path: Path) -> None:
    result = scored("pixels", small(name), tmp_path)
    assert result.model.privilege == ("none" if name == "imagenet-knn" else "boxes")
    rule = get_task(name).protocol.boxes or "none"
    assert f"boxes:{rule}│" in result.task.signature


def test_queries_are_searched_together_whatever_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bank is read once for a thousand queries, not once for each batch; the rows are the same."""
    searched = []
    nearest = Search.nearest
    monkeypatch.setattr(Search, "nearest", lambda self, q, k: searched.append(len(q)) or nearest(self, q, k))
    results = [scored("pixels", small("imagenet-knn"), tmp_path / str(n), batch_size=n) for n in (5, 24)]
    assert searched == [QUERIES, QUERIES]
    rows = [read_rows(result.rows_path) for result in results if result.rows_path]
    pandas.testing.assert_frame_equal(*rows)


class Spy:
    """Remembers which boxes it was given."""

    reads_boxes = True

    def __init__(self) -> None:
        self.boxes: list[Any] = []

    def predict(self, batch: Batch) -> Prediction:
        self.boxes.append(batch.boxes)
        return Prediction(embedding=batch.image.mean((2, 3)) + 0.1)


@pytest.mark.parametrize("name", KNN)
def test_only_attention_hands_boxes_to_the_model(name: str, tmp_path: Path) -> None:
    spy = Spy()
    scored(spy, small(name), tmp_path)
    if name == "imagenet-knn-boxes":
        sizes = {len(boxes) for boxes in spy.boxes}
        assert 16 in sizes <= {8, 16}  # 8 where the first batch is predicted apart
        assert all(one.shape[1] == 4 for boxes in spy.boxes for one in boxes)
        sides = torch.cat([one for boxes in spy.boxes for one in boxes])
        assert (sides >= 0).all() and (sides <= 224).all() and (sides[:, 2:] > sides[:, :2]).all()
    else:
        assert all(boxes is None for boxes in spy.boxes)


def test_pixels_within_the_box_tell_more(tmp_path: Path) -> None:
    """The whole image shows mostly ground and distractors; what is in the box is the object."""
    task, within = small("imagenet-knn"), small("imagenet-knn-boxes")
    assert scored("pixels", within, tmp_path).value("knn_top5") > scored("pixels", task, tmp_path).value("knn_top5")


def test_another_box_file(tmp_path: Path) -> None:
    """Boxes of the file take the place of the annotated ones: their content is part of the data, their path is not."""
    task = small("imagenet-knn-crop")
    entries = []
    for split in ("train", "val"):
        data = open_data(task, split=split, progress=False)
        for index, sample_id in enumerate(data.ids):
            height, width = data.reader[index].image.shape[:2]
            entries.append({"image_id": sample_id, "width": width, "height": height, "boxes": [[0, 0, width, height]]})
    path, copy = tmp_path / "boxes.jsonl", tmp_path / "copy.jsonl"
    for place in (path, copy):
        place.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    whole, other = (scored("pixels", task, tmp_path, boxes=place) for place in (path, copy))
    assert "boxes:crop-from-file" in whole.task.signature and whole.task.hash == task.hash
    assert whole.identity.key == other.identity.key
    plain, own = scored("pixels", small("imagenet-knn"), tmp_path), scored("pixels", task, tmp_path)
    assert whole.identity.key != own.identity.key
    assert whole.value("knn_top1") == plain.value("knn_top1")  # a box around everything is none


def test_boxes_where_none_are_granted() -> None:
    outcome = CliRunner().invoke(app, ["eval", "-m", "pixels", "-t", "imagenet-knn", "--boxes", "boxes.jsonl"])
    assert outcome.exit_code == 2
    assert "task imagenet-knn grants no boxes" in outcome.stderr
    with pytest.raises(UsageError, match="grants no boxes"):
        make_plan("dias", "clevrtex", boxes="boxes.jsonl")


@pytest.mark.parametrize("name", VIDEO)
def test_the_truth_is_perfect_on_every_video_card(name: str, tmp_path: Path) -> None:
    result = scored("oracle", small(name), tmp_path)
    better = [metric for metric in result.task.metrics if not metric.endswith("decay")]
    assert {result.value(metric) for metric in better} == {1.0}
    assert result.counts.scored == 2 and result.data.kind == "embedded"


@pytest.mark.parametrize("name", ["movi-c", "davis-2017"])
def test_bundled_models_do_videos(name: str, tmp_path: Path) -> None:
    task = small(name)
    values = {model: scored(model, task, tmp_path).value("mbo_video") for model in ("dias", "kmeans", "single-slot")}
    assert values["dias"] > values["single-slot"] and values["kmeans"] > values["single-slot"]
    board = next(path for path in build_leaderboard([tmp_path], tmp_path / "boards", task) if path.suffix == ".md")
    text = board.read_text(encoding="utf-8")
    assert "dias" in text and "attention+linked-slots" in text


def test_movi_counts_empty_frames_as_slotcontrast_does() -> None:
    for name in VIDEO:
        expected = ("one", 336) if name.startswith("movi") else ("skip", 518 if name.startswith("ytvis") else None)
        protocol = get_task(name).protocol
        assert (protocol.empty, protocol.score_at) == expected
    assert get_task("ytvis-2021").data.options["subset"] == "first210"


def test_commands_speak_of_videos(tmp_path: Path) -> None:
    outcome = CliRunner().invoke(app, ["show", "movi-c"])
    assert outcome.exit_code == 0 and "64 videos of motion" in outcome.stdout
    outcome = CliRunner().invoke(app, ["check-model", "-m", "dias", "-t", "movi-c"])
    assert outcome.exit_code == 0 and "independent of clips" in outcome.stdout


def test_a_killed_run_loses_no_finished_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = WorkFolder.write

    def interrupted(self: WorkFolder, index: int, shard: Shard) -> None:
        write(self, index, shard)
        raise KeyboardInterrupt

    monkeypatch.setattr(WorkFolder, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        scored("grid", small("davis-2017"), tmp_path)
    monkeypatch.setattr(WorkFolder, "write", write)
    asked = []
    video = VideoRunner._video
    monkeypatch.setattr(
        VideoRunner, "_video", lambda self, position, reads: asked.append(position) or video(self, position, reads)
    )
    result = scored("grid", small("davis-2017"), tmp_path)
    assert asked == [1] and result.counts.scored == 2

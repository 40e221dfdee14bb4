"""Scenes that are rendered while a training goes on."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ocl_bench.cards.names import get_card
from ocl_bench.core.errors import UsageError
from ocl_bench.models.encoder import Encoder
from ocl_bench.training import ahead, background, data, objectives, run
from ocl_bench.training.background import Background, Job, Stopped, in_processes
from ocl_bench.training.held_out import Later
from ocl_bench.training.recipe import SceneSelection

SCENES = SceneSelection(count=10)


@pytest.fixture(autouse=True)
def _small(tmp_path, monkeypatch):
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(data, "CHUNK", 4)
    monkeypatch.setattr(ahead, "GROUP", 1)
    monkeypatch.setattr(background, "processors", lambda: 1)


def files(folder: Path) -> dict[str, bytes]:
    """Content of the arrays below a folder, by path; nothing else may be there but the records."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != ".rendered.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def made_here(job, make, group, keep):
    """In place of `in_processes`: starting one takes seconds."""
    while units := job.take(group):
        keep(units, make(units))


def painted(variant, revision, split, rows):
    """Scenes that show their numbers."""
    images = torch.tensor(list(rows), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 128, 128)
    return images, images[:, 0] + 1


def end(units: list[int]) -> None:
    os._exit(9)


def slow(units: list[int]) -> None:
    time.sleep(600)


@pytest.fixture
def painter(monkeypatch):
    """Renders in the thread; `stop_at` ends it like a kill does, before it makes the scene of that number."""
    made, plan = [], SimpleNamespace(stop_at=None)

    def paint(variant, revision, split, rows):
        if plan.stop_at is not None and len(made) >= plan.stop_at:
            raise Stopped
        made.extend(rows)
        return painted(variant, revision, split, rows)

    monkeypatch.setattr(ahead, "in_processes", made_here)
    monkeypatch.setattr(data, "render_rows", paint)
    return SimpleNamespace(made=made, plan=plan)


def finish(scenes) -> None:
    """Wait for all rows, and for the files."""
    scenes.images.wait(range(len(scenes.images.chunks) * 4))


def test_files_are_those_of_data_prepared_before(tmp_path, monkeypatch):
    """One real process, real scenes, and features of a real encoder, in the order of the training."""
    encoder = Encoder(width=8, dim=8, blocks=(1,)).eval()
    with Background(seed=3) as jobs:
        scenes = ahead.training_scenes(jobs, SCENES)
        features = ahead.frozen_features(jobs, encoder, scenes, "key", device=torch.device("cpu"), flip=True)
        first = jobs.order(10)[:3]
        early = scenes.images[first], features[first]
        features[range(10)]
        finish(scenes)
        features.wait(range(12))
    found = files(tmp_path / "cache")
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "other"))
    plain = data.training_scenes(SCENES, workers=1, progress=False)
    cpu = torch.device("cpu")
    whole = data.frozen_features(encoder, plain, "key", device=cpu, flip=True, progress=False)
    assert torch.equal(early[0], plain.images[first]) and torch.equal(early[1], whole[first])
    assert found == files(tmp_path / "other") and len(found) == 9


def test_scenes_come_in_the_order_of_the_first_epoch(painter):
    with Background(seed=5) as jobs:
        ahead.training_scenes(jobs, SCENES)
        jobs._jobs[0]._thread.join()
    assert painter.made == [*jobs.order(10), 10, 11]  # whole chunks


def test_a_scene_that_somebody_waits_for_is_next():
    begun, go, made = threading.Event(), threading.Event(), []

    def work(job: Job) -> None:
        job.begin(np.array([True] * 6))
        while unit := job.take(1):
            begun.set()
            go.wait()
            made.extend(unit)
            job.done(unit)

    with Background(0) as jobs:
        job = jobs.start(work, 6, range(6))
        begun.wait()
        waiting = threading.Thread(target=job.wait, args=([4, 0],))
        waiting.start()
        while not job._asked:
            time.sleep(0.001)
        assert waiting.is_alive()
        go.set()
        waiting.join()
        job.wait(range(6))
    assert made == [0, 4, 1, 2, 3, 5]


def test_what_a_killed_training_rendered_is_kept(painter, tmp_path):
    painter.plan.stop_at = 7
    with Background(seed=5) as jobs, pytest.raises(Stopped):
        finish(ahead.training_scenes(jobs, SCENES))
    before, painter.plan.stop_at = list(painter.made), None
    assert any(".part" in name for name in files(tmp_path))
    with Background(seed=5) as jobs:
        scenes = ahead.training_scenes(jobs, SCENES)
        assert scenes.images[range(10)][:, 0, 0, 0].tolist() == list(range(10))
        assert scenes.labels[range(10)][:, 0, 0].tolist() == list(range(1, 11))
        finish(scenes)
    assert len(before) == 7 and sorted(painter.made) == list(range(12))  # none of them twice
    assert sorted(name[-17:] for name in files(tmp_path))[0] == "images-000000.npy"


def test_a_row_that_was_written_in_part_is_rendered_again(painter, tmp_path):
    painter.plan.stop_at = 7
    with Background(seed=5) as jobs, pytest.raises(Stopped):
        finish(ahead.training_scenes(jobs, SCENES))
    part = next(tmp_path.rglob(".images-*.npy.part"))
    row = next(row for row in painter.made if f"{row // 4:06d}" in part.name)
    with part.open("r+b") as file:
        file.seek(200 + row % 4 * 3 * 128 * 128)
        file.write(b"damaged")
    painter.plan.stop_at = None
    with Background(seed=5) as jobs:
        scenes = ahead.training_scenes(jobs, SCENES)
        assert (scenes.images[[row]] == row).all()
        finish(scenes)
    assert painter.made.count(row) == 2


def test_a_full_disk_is_one_line(painter, monkeypatch):
    real = ahead._Part.write

    def full(self, position, row):
        self.place = Path("/dev/full")
        real(self, position, row)

    monkeypatch.setattr(ahead._Part, "write", full)
    told = r"images-00000\d\.npy: cannot be written \(No space left on device\)"
    with Background(0) as jobs, pytest.raises(UsageError, match=told):
        ahead.training_scenes(jobs, SCENES).images[[0]]


def test_a_process_that_dies_ends_the_wait():
    def work(job: Job) -> None:
        job.begin(np.array([True] * 3))
        in_processes(job, end, 1, lambda units, made: job.done(units))

    with Background(0) as jobs:
        job = jobs.start(work, 3, range(3))
        with pytest.raises(UsageError, match="a process that renders scenes has died"):
            job.wait([2])


def test_no_process_is_left_when_the_training_ends():
    def work(job: Job) -> None:
        job.begin(np.array([True] * 3))
        in_processes(job, slow, 1, lambda units, made: job.done(units))

    with Background(0) as jobs:
        job = jobs.start(work, 3, range(3))
        while not (children := multiprocessing.active_children()):
            time.sleep(0.001)
    assert not job._thread.is_alive() and not any(child.is_alive() for child in children)


@pytest.mark.parametrize("variant", ["things", "salient"])
def test_scenes_with_classes_are_those_of_data_prepared_before(variant, tmp_path, monkeypatch):
    monkeypatch.setattr(ahead, "in_processes", made_here)
    chosen = SceneSelection(variant=variant, revision=1, count=18)
    with Background(seed=2) as jobs:
        images, boxes = ahead.padded_scenes(jobs, chosen), ahead.scene_boxes(jobs, chosen)
        assert images.images[[17, 3]].shape[0] == 2 and boxes[[5]].shape == (1, 16, 4)
        for array in (images.images, images.sizes, boxes):
            array.wait(range(20))
        ahead.finish_store(jobs, chosen)
    found = files(tmp_path / "cache")
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "other"))
    data.padded_scenes(chosen, progress=False)
    data.scene_boxes(chosen, progress=False)
    assert found == files(tmp_path / "other") and len(found) == 17  # 2 files of scenes, 3 arrays of 5 chunks


def test_a_training_is_the_same_whether_its_cache_is_empty_or_full(painter, tmp_path, monkeypatch):
    options = {"width": 8, "dim": 8, "blocks": [1]}
    dias = {"slots": 3, "slot_dim": 8, "decoder_layers": 1, "decoder_heads": 2}
    train = {"steps": 4, "batch": 3, "validate_limit": 2, "log_every": 1, "precision": "fp32"}
    train |= {"scenes": {"count": 10}, "objective": {"kind": "slots", "encoder": "encoder"}}
    card = get_card("dias")
    card = card.model_copy(update={"options": {**card.options, **options, **dias}, "train": train})
    torch.manual_seed(1)
    frozen = SimpleNamespace(model=Encoder(**options), card=get_card("encoder"))
    monkeypatch.setattr(ahead, "FEW", 0)
    monkeypatch.setattr(run, "get_card", lambda name: card)
    monkeypatch.setattr(run, "draw_curves", lambda *rest: None)
    monkeypatch.setattr(objectives, "get_model", lambda *rest, **others: frozen)
    monkeypatch.setattr(objectives, "validate_masks", lambda *rest, **others: {"mbo_fg": 0.0})
    records = [
        run.train("dias", device="cpu", seed=1, out=tmp_path / name, progress=False) for name in ("empty", "full")
    ]
    assert len(painter.made) == 12 and records[0]["sha256"] == records[1]["sha256"]
    logs = [(tmp_path / name / "log.jsonl").read_text() for name in ("empty", "full")]
    assert logs[0] == logs[1] and len(logs[0].splitlines()) == 5


def test_samples_of_a_validation_are_made_when_it_comes():
    made = []
    samples = Later(lambda: made.append("once") or ["a", "b"])
    assert made == []
    assert (len(samples), samples[1], list(samples), made) == (2, "b", ["a", "b"], ["once"])


def test_a_revision_that_is_gone_is_refused_before_the_first_step():
    with Background(0) as jobs, pytest.raises(UsageError, match=r"'train\.scenes'"):
        ahead.training_scenes(jobs, SceneSelection(count=10, revision=99))

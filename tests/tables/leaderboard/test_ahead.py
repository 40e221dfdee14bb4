"""Helpers that make boards ahead leave in the cache what the one who writes them needs, and change nothing else."""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path

import pytest
from results_for_boards import TASK, image_values, write

from ocl_bench.tables.leaderboard import ahead, build
from ocl_bench.tables.leaderboard.build import build_leaderboard, make_boards, work_ahead


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "cache"))
    for seed in range(3):
        write(tmp_path / "r", "method", image_values(0.60, seed), seed=seed, stem=f"method-{seed}")
    write(tmp_path / "r", "twin", image_values(0.60, 7))
    return tmp_path / "r"


def test_a_helper_leaves_ties_and_intervals_in_the_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = {"folders": [str(folder)], "published": None, "tasks": [TASK.name]}
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(job)))
    work_ahead()
    known = {kind: len(list((tmp_path / "cache" / kind).iterdir())) for kind in ("ties", "intervals")}
    assert known == {"ties": 2, "intervals": len(TASK.metrics)}
    build_leaderboard([folder], tmp_path / "out", TASK.name)
    assert {kind: len(list((tmp_path / "cache" / kind).iterdir())) for kind in known} == known


def test_a_slow_board_starts_helpers_on_the_last_tasks_and_ends_them(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "SLOW", 0.0)
    monkeypatch.setattr(ahead, "processors", lambda: 2)
    tasks = ["coco-discovery", "movi-c", TASK.name]
    boards = make_boards([folder], tasks)
    found = [next(boards)]
    (helper,) = boards.gi_frame.f_locals["helpers"]._running
    limit = time.monotonic() + 120
    while len(list((tmp_path / "cache").glob("intervals/*"))) < len(TASK.metrics) and time.monotonic() < limit:
        time.sleep(0.05)
    assert len(list((tmp_path / "cache").glob("intervals/*"))) == len(TASK.metrics)  # by the helper: no other had it
    found += list(boards)
    assert [board.task.name for board in found] == tasks and helper.poll() is not None
    assert found == [build.make_board([folder], task) for task in tasks]


def test_no_helper_starts_where_boards_are_made_quickly_or_nothing_is_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ahead.Helpers([folder], None) as helpers:
        helpers.start_if_slow([TASK.name, "movi-c"])
        monkeypatch.setattr(ahead, "SLOW", 0.0)
        helpers.start_if_slow([TASK.name])
        monkeypatch.setattr(ahead, "processors", lambda: 1)
        helpers.start_if_slow([TASK.name, "movi-c"])
        assert helpers._running == []

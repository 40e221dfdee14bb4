"""Columns of boards, groups by what a head was fitted on, who may rank, and a user's results beside the committed."""

from __future__ import annotations

import csv
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from results_for_boards import TASK, board_of, image_values, taken_for_valid, write
from typer.testing import CliRunner

from ocl_bench.cards.names import get_card
from ocl_bench.cli import app
from ocl_bench.results.record import Result
from ocl_bench.results.store import default_folders
from ocl_bench.tables.leaderboard.build import build_leaderboard, make_board
from ocl_bench.tables.leaderboard.facts import Facts

RECORDED = {
    "head": "linear",
    "kind": "embedded",
    "split": "train",
    "revision": "r1",
    "ids_sha256": "a" * 64,
    "samples": 9,
    "left_out": [],
    "chosen": {},
}
UNRECORDED = {**dict.fromkeys(RECORDED), "head": "linear", "kind": "embedded"}


def with_fit(result: Result, fit: dict[str, Any], **data: Any) -> None:
    """Put the section into a written file."""
    assert result.path is not None
    content = json.loads(result.path.read_text())
    content["fit"] = fit
    content["data"].update(data)
    result.path.write_text(json.dumps(content))
    taken_for_valid(result)


def ranks(folder: Path) -> dict[str, tuple[str, str]]:
    """Rank and fit of each model."""
    board = make_board([folder], "clevrtex")
    return {row.model: (row.rank, group.fit) for group, rows in board.groups for row in rows}


def test_a_line_says_what_was_measured_and_how(tmp_path: Path) -> None:
    card = get_card("dias")
    known = {"model__options": dict(card.options), "model__checkpoint_sha256": card.sha256, "model__parameters": 292736}
    write(tmp_path, "dias", image_values(0.5), seed=0, cost__images_per_second=12.345, **known)
    (line,), _ = board_of(tmp_path, tmp_path / "out")
    assert (line["backbone"], line["pretraining"]) == (card.backbone, card.pretraining)
    assert (line["k"], line["input_size"], line["parameters"]) == ("40", "128", "292736")
    assert (line["trained_on"], line["training_steps"]) == ("cpu", "1000")
    assert (line["images_per_second"], line["device"], line["checkpoint_sha256"]) == ("12.3", "cpu", card.sha256)
    assert line["suite"].startswith("0.1.0 ") and line["command"] and line["source"] and line["signature"]


def test_every_line_of_a_table_has_every_column(tmp_path: Path) -> None:
    """Published rows, too: a shifted cell would be read as another field."""
    for task in ("clevrtex-dias-v3", "imagenet-knn"):
        build_leaderboard(default_folders()[:1], tmp_path, task)
        with (tmp_path / f"{task}.csv").open(encoding="utf-8") as file:
            head, *lines = csv.reader(file)
        assert {len(line) for line in lines} == {len(head)} and len(set(head)) == len(head)
        place = head.index("backbone")
        assert len(head[place : head.index("options")]) == len(fields(Facts))
        assert {line[place] for line in lines if line[0] == "published"} == {""}


def test_the_mean_of_seeds_has_what_they_share_and_is_no_model_of_its_own(tmp_path: Path) -> None:
    for seed in range(3):
        write(tmp_path, f"m:{seed}", image_values(0.5, seed), seed=seed, model__options={"slots": 7})
    lines, _ = board_of(tmp_path, tmp_path / "out")
    mean = next(line for line in lines if "mean of 3" in line["model"])
    assert (mean["k"], mean["checkpoint_sha256"]) == ("7", "")


def test_heads_that_were_fitted_on_other_images_never_rank_against_each_other(tmp_path: Path) -> None:
    with_fit(write(tmp_path, "few", image_values(0.2)), RECORDED)
    with_fit(write(tmp_path, "many", image_values(0.9)), RECORDED | {"ids_sha256": "b" * 64, "samples": 99})
    with_fit(
        write(tmp_path, "less", image_values(0.1)), RECORDED | {"left_out": ["x"], "chosen": {"learning_rate": 0.1}}
    )
    found = ranks(tmp_path)
    assert {name: rank for name, (rank, _) in found.items()} == {"few": "1", "many": "1", "less": "2"}
    assert found["few"][1] == found["less"][1] != found["many"][1]
    lines, page = board_of(tmp_path, tmp_path / "out")
    assert {line["fit"] for line in lines} == {fit for _, fit in found.values()}
    assert page.count("Head: linear: embedded data, split train, revision r1, ") == 2


def test_an_older_result_on_embedded_data_stands_with_those_that_say_what_they_were_fitted_on(tmp_path: Path) -> None:
    with_fit(write(tmp_path, "old", image_values(0.9)), UNRECORDED)
    assert ranks(tmp_path)["old"][1] == "linear: embedded data, split not recorded"
    with_fit(write(tmp_path, "new", image_values(0.5)), RECORDED)
    assert {name: rank for name, (rank, _) in ranks(tmp_path).items()} == {"old": "1", "new": "2"}
    with_fit(write(tmp_path, "other", image_values(0.4)), RECORDED | {"ids_sha256": "b" * 64})
    assert {name: rank for name, (rank, _) in ranks(tmp_path).items()} == dict.fromkeys(("old", "new", "other"), "1")


def test_floors_and_ceilings_without_a_head_stand_beside_the_rows_that_they_bound(tmp_path: Path) -> None:
    with_fit(write(tmp_path, "model", image_values(0.5)), RECORDED)
    write(tmp_path, "majority", image_values(0.1), role="floor")
    write(tmp_path, "executor", image_values(0.9), role="ceiling", model__privilege="truth")
    write(tmp_path, "answers", image_values(0.7))
    found = ranks(tmp_path)
    assert {name: rank for name, (rank, _) in found.items()} == {
        "model": "1",
        "majority": "floor",
        "executor": "ceiling",
        "answers": "1",
    }
    assert found["model"][1] == found["majority"][1] == found["executor"][1] != found["answers"][1] == ""


def test_on_official_data_nobody_knows_what_an_older_result_was_fitted_on(tmp_path: Path) -> None:
    with_fit(write(tmp_path, "old", image_values(0.9)), UNRECORDED | {"kind": None}, kind="official")
    with_fit(write(tmp_path, "new", image_values(0.5)), RECORDED | {"kind": "official"}, kind="official")
    assert {name: rank for name, (rank, _) in ranks(tmp_path).items()} == {"old": "1", "new": "1"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data__limit": 39}, "limited to 39 samples"),
        ({"data__stand_in_seed": 1}, "fresh stand-in (seed 1)"),
        ({"counts__failed": [{"id": "i1", "error": "e"}]}, "partial: 1 of 40 samples failed"),
        ({"identity__status": "failed samples"}, "partial: failed samples"),
        ({"task__hash": "0" * 64}, "another protocol (task hash 00000000)"),
        ({"model__parameters": 9, "model__checkpoint_sha256": ""}, "untrained: no checkpoint was loaded"),
    ],
)
@pytest.mark.parametrize("level", [0.1, 0.9])
def test_who_may_not_rank_changes_no_rank_of_the_others(
    tmp_path: Path, changes: dict[str, Any], reason: str, level: float
) -> None:
    """Above or below all others: the reason and not the value keeps a result out."""
    for name, value in (("a", 0.6), ("b", 0.4)):
        write(tmp_path, name, image_values(value, noise=0))
    odd = write(tmp_path, "odd", image_values(level, noise=0))
    assert ranks(tmp_path)["odd"][0] == ("1" if level > 0.6 else "3")
    assert odd.path is not None
    odd.path.unlink()
    write(tmp_path, "odd", image_values(level, noise=0), **changes)
    board = make_board([tmp_path], "clevrtex")
    assert [(row.model, row.rank) for _, rows in board.groups for row in rows] == [("a", "1"), ("b", "2")]
    assert [(one.model, one.reason) for one in board.excluded] == [("odd", reason)]


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_the_mark_of_what_is_not_separable_follows_the_paired_interval(tmp_path: Path, order: tuple[str, str]) -> None:
    """Differences of images +-0.1 that cancel: not separable. The same with 0.05 added: separable."""
    signs = np.where(np.arange(40) % 2 == 0, 0.1, -0.1)
    shared = image_values(0.5, noise=0)
    for name in order:
        write(tmp_path / "near", name, shared + (signs + 1e-6 if name == "a" else 0))
        write(tmp_path / "far", name, shared + (signs + 0.05 if name == "a" else 0))
    for folder, tied in (("near", True), ("far", False)):
        board = make_board([tmp_path / folder], "clevrtex")
        marks = {row.model: row.tied_with_best for _, rows in board.groups for row in rows}
        assert marks == {"a": True, "b": tied}


def test_a_users_own_result_stands_beside_the_committed_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From an empty folder, with neither option nor variable: the results are in ./results, and so are the tables."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OCL_BENCH_RESULTS", raising=False)
    committed = make_board(default_folders()[:1], "clevrtex")
    group = next(group for group, _ in committed.groups if group.supervision == "none")
    values = np.full(512, 0.7)  # better than the best of this group
    mine = write(Path("results"), "mine", values, ids=group.ids_sha256, data__revision=group.revision)
    assert mine.path is not None and mine.path == Path("results/clevrtex/mine.json")
    outcome = CliRunner().invoke(app, ["leaderboard", "--task", "clevrtex"])
    assert outcome.exit_code == 0, outcome.output
    with Path("results/leaderboards/clevrtex.csv").open(encoding="utf-8") as file:
        lines = [line for line in csv.DictReader(file) if line["supervision"] == "none" and line["data"] == "embedded"]
    theirs = [row.model for own, rows in committed.groups if own == group for row in rows]
    assert sorted(line["model"] for line in lines) == sorted([*theirs, "mine"])
    best = next(line for line in lines if line["rank"] == "1")
    assert best["model"] == "mine" and best["source"] == "clevrtex/mine.json"
    assert next(line["rank"] for line in lines if line["model"].startswith("dias-label-free (mean")) == "2"
    assert TASK.name in {path.stem for path in Path("results/leaderboards").glob("*.md")}

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from results_for_boards import TASK, N, board_of, image_values, lines_of, taken_for_valid, write
from rich.console import Console
from typer.testing import CliRunner

from ocl_bench.cli import app
from ocl_bench.core.errors import UsageError
from ocl_bench.core.files import file_sha256
from ocl_bench.results.record import read_result
from ocl_bench.results.rows import read_rows, write_rows
from ocl_bench.tables.leaderboard import measured
from ocl_bench.tables.leaderboard.build import build_leaderboard, make_board, stale_files


def test_ranks_marks_and_floors(tmp_path: Path) -> None:
    write(tmp_path / "r", "good", image_values(0.60, 1))
    write(tmp_path / "r", "twin", image_values(0.60, 2))
    write(tmp_path / "r", "bad", image_values(0.30, 3))
    write(tmp_path / "r", "grid", image_values(0.20, 4), role="floor")
    write(tmp_path / "r", "oracle", np.ones(N), role="ceiling", model__privilege="truth")
    lines, page = board_of(tmp_path / "r", tmp_path / "out")
    by_model = {line["model"]: line for line in lines}
    assert lines[0]["model"] == "oracle"
    assert [line["rank"] for line in lines] == ["ceiling", "1", "2", "3", "floor"]
    assert by_model["good"]["not_separable_from_best"] == by_model["twin"]["not_separable_from_best"] == "yes"
    assert by_model["bad"]["not_separable_from_best"] == "no"
    assert by_model["grid"]["not_separable_from_best"] == ""
    assert (
        by_model["oracle"]["privilege"] == "truth" and page.count("privilege: none") == page.count("privilege: ") == 1
    )
    assert "| 1 ● |" in page and "| 3 | bad |" in page
    assert float(by_model["bad"]["mbo_fg"]) == pytest.approx(float(image_values(0.30, 3).mean()), abs=1e-6)
    assert (
        float(by_model["bad"]["mbo_fg_low"]) < float(by_model["bad"]["mbo_fg"]) < float(by_model["bad"]["mbo_fg_high"])
    )
    assert by_model["bad"]["mbo_fg_n_valid"] == str(N)
    assert by_model["bad"]["signature"] == TASK.signature("decoder")


def test_a_small_but_steady_gap_is_separable_only_because_the_test_is_paired(tmp_path: Path) -> None:
    write(tmp_path, "a", image_values(0.60, noise=0))
    write(tmp_path, "b", image_values(0.59, noise=0))
    lines, _ = board_of(tmp_path, tmp_path / "out")
    assert [line["not_separable_from_best"] for line in lines] == ["yes", "no"]
    assert float(lines[1]["mbo_fg_high"]) > float(lines[0]["mbo_fg_low"])


@pytest.mark.parametrize(
    "changes",
    [
        {"data__kind": "official"},
        {"data__revision": "2"},
        {"ids": "b"},
        {"model__supervision": "masks"},
        {"model__privilege": "boxes"},
    ],
)
def test_rows_of_two_groups_never_rank_against_each_other(tmp_path: Path, changes: dict[str, Any]) -> None:
    write(tmp_path, "strong", image_values(0.9), **changes)
    write(tmp_path, "weak", image_values(0.2))
    lines, page = board_of(tmp_path, tmp_path / "out")
    assert [line["rank"] for line in lines] == ["1", "1"]
    assert page.count("supervision: ") == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data__limit": 16}, "limited to 16 samples"),
        ({"data__stand_in_seed": 5}, "fresh stand-in (seed 5)"),
        ({"data__split": "val"}, "split val"),
        ({"counts__failed": [{"id": "i1", "error": "truncated"}]}, f"partial: 1 of {N} samples failed"),
        ({"identity__status": "failed samples"}, "partial: failed samples"),
        ({"task__hash": "f" * 64}, "another protocol (task hash ffffffff)"),
    ],
)
def test_limited_partial_and_foreign_results_are_listed_but_not_ranked(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    write(tmp_path, "whole", image_values(0.5))
    write(tmp_path, "odd", image_values(0.9), **changes)
    lines, page = board_of(tmp_path, tmp_path / "out")
    assert [line["model"] for line in lines] == ["whole"]
    assert f"- odd: {reason} (`clevrtex/odd.json`)" in page.split("---\n")[-1]


def test_missing_metric_and_changed_rows_are_not_ranked(tmp_path: Path) -> None:
    path = write(tmp_path, "cut", image_values(0.9)).path
    assert path is not None
    content = json.loads(path.read_text())
    del content["metrics"]["ari"]
    path.write_text(json.dumps(content))
    other = write(tmp_path, "swapped", image_values(0.9, 1)).rows_path
    good = write(tmp_path, "good", image_values(0.5)).rows_path
    assert other is not None and good is not None
    other.write_bytes(good.read_bytes())
    (tmp_path / TASK.name / "broken.json").write_text("{")
    board = make_board([tmp_path], "clevrtex")
    assert [row.model for _, rows in board.groups for row in rows] == ["good"]
    reasons = {excluded.source.split("/")[1]: excluded.reason for excluded in board.excluded}
    assert reasons["cut.json"] == "partial: no ari"
    assert "SHA-256 differs" in reasons["swapped.json"]
    assert reasons["broken.json"].startswith("unreadable: not a JSON file")


def test_training_seeds_become_one_ranked_mean(tmp_path: Path) -> None:
    means = []
    for seed, level in enumerate((0.50, 0.56, 0.53)):
        values = image_values(level, seed)
        means.append(values.mean())
        write(tmp_path, "m" if seed == 0 else f"m:{seed}", values, seed=seed)
    write(tmp_path, "other", image_values(0.55, 7))
    lines, page = board_of(tmp_path, tmp_path / "out")
    mean = next(line for line in lines if "mean of 3" in line["model"])
    assert float(mean["mbo_fg"]) == pytest.approx(np.mean(means), abs=1e-6)
    assert float(mean["mbo_fg_sd"]) == pytest.approx(np.std(means, ddof=1), abs=1e-6)
    assert mean["training_seeds"] == "0 1 2"
    assert [line["rank"] for line in lines if line["model"] in ("m", "m:1", "m:2")] == ["seed"] * 3
    assert sorted(line["rank"] for line in lines if line["rank"].isdigit()) == ["1", "2"]
    assert f"± {np.std(means, ddof=1):.3f}" in page


def test_a_missing_cell_stays_empty(tmp_path: Path) -> None:
    result = write(tmp_path, "m", image_values(0.5))
    assert result.path is not None
    content = json.loads(result.path.read_text())
    content["metrics"]["fg_ari_multi"].update(value=None, ci95=None, n_valid=0)
    content["metrics"]["ari"].update(value=-1e-9)
    parquet = result.path.with_suffix(".parquet")
    write_rows(read_rows(parquet).assign(ari=-1e-9), parquet)
    content["rows"]["sha256"] = file_sha256(parquet)
    result.path.write_text(json.dumps(content))
    taken_for_valid(result)
    lines, page = board_of(tmp_path, tmp_path / "out")
    assert lines[0]["ari"] == "0.000000" and "-0.000" not in page
    assert lines[0]["fg_ari_multi"] == lines[0]["fg_ari_multi_low"] == lines[0]["fg_ari_multi_n_valid"] == ""
    assert lines[0]["rank"] == "1"


def test_of_two_results_of_one_model_the_newest_is_shown_and_others_are_named(tmp_path: Path) -> None:
    write(tmp_path, "m", image_values(0.5), stem="old")
    write(tmp_path, "m", image_values(0.6), stem="new", identity__created="2026-02-01T00:00:00+00:00")
    lines, page = board_of(tmp_path, tmp_path / "out")
    assert [line["source"] for line in lines] == ["clevrtex/new.json"]
    assert "(`clevrtex/old.json`)" in page


def test_models_that_differ_in_an_option_are_told_apart(tmp_path: Path) -> None:
    for k in (7, 11):
        write(tmp_path, "m", image_values(k / 20), stem=f"m{k}", model__options={"slots": k, "depth": 2})
    lines, _ = board_of(tmp_path, tmp_path / "out")
    assert [line["model"] for line in lines] == ['m {"slots": 11}', 'm {"slots": 7}']


def test_both_layouts_and_two_folders_are_read_and_the_order_does_not_matter(tmp_path: Path) -> None:
    write(tmp_path / "a", "x", image_values(0.5, 1))
    result = write(tmp_path / "b", "y", image_values(0.4, 2))
    assert result.path is not None and result.rows_path is not None
    deep = result.path.parent / "y"
    deep.mkdir()
    for path in (result.path, result.rows_path):
        path.rename(deep / path.name)
    build_leaderboard([tmp_path / "a", tmp_path / "b"], tmp_path / "one", "clevrtex")
    build_leaderboard([tmp_path / "b", tmp_path / "a", tmp_path / "absent"], tmp_path / "two", "clevrtex")
    for name in ("clevrtex.csv", "clevrtex.md"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert [line["source"] for line in lines_of(tmp_path / "one")] == ["clevrtex/x.json", "clevrtex/y/y.json"]


def test_published_rows_are_shown_beside_but_never_ranked(tmp_path: Path) -> None:
    build_leaderboard([tmp_path], tmp_path / "out", "clevrtex-dias-v3")
    with (tmp_path / "out" / "clevrtex-dias-v3.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert {line["rank"] for line in lines} == {line["data"] for line in lines} == {"published"}
    best = next(line for line in lines if line["model"] == "DIAS")
    assert (best["ari_int64_legacy"], best["fg_ari"], best["ari"]) == ("0.809000", "0.791000", "")
    assert best["mbo_all_sd"] == "0.001000"
    page = (tmp_path / "out" / "clevrtex-dias-v3.md").read_text(encoding="utf-8")
    assert "SmoothSA" in page and "no: another protocol" in page


def test_all_tasks_are_built_and_a_task_without_published_rows_says_so(tmp_path: Path) -> None:
    names = {path.name for path in build_leaderboard([tmp_path], tmp_path / "out")}
    assert {"clevrtex.csv", "clevrtex-camo.md", "clevrtex-ood.md", "clevrtex-dias-v3.md", "README.md"} <= names
    for task in ("clevrtex", "clevrtex-camo", "clevrtex-ood"):
        page = (tmp_path / "out" / f"{task}.md").read_text(encoding="utf-8")
        assert "None: no paper's number has been sourced" in page and "No ranked results yet." in page


def test_a_users_own_task_takes_its_protocol_from_its_results(tmp_path: Path) -> None:
    result = write(tmp_path, "m", image_values(0.5))
    assert result.path is not None
    (tmp_path / TASK.name).rename(tmp_path / "mine")
    for path in (tmp_path / "mine").glob("*.json"):
        content = json.loads(path.read_text())
        content["task"]["name"] = "mine"
        path.write_text(json.dumps(content))
        taken_for_valid(read_result(path))
    board = make_board([tmp_path], "mine")
    assert board.task.name == "mine" and board.groups[0][1][0].rank == "1"
    with pytest.raises(UsageError, match="unknown task"):
        make_board([tmp_path], "nowhere")


def test_stale_files_names_what_differs(tmp_path: Path) -> None:
    write(tmp_path / "results", "m", image_values(0.5))
    (tmp_path / "published").mkdir()
    build_leaderboard([tmp_path / "results"], tmp_path, published=tmp_path / "published", committed=True)
    assert stale_files(tmp_path) == []
    (tmp_path / "clevrtex.csv").write_text("rank\n")
    (tmp_path / "clevrtex.md").unlink()
    assert stale_files(tmp_path) == ["clevrtex.csv", "clevrtex.md"]


def test_the_committed_tables_are_up_to_date() -> None:
    assert stale_files() == []


def test_the_verb_writes_where_it_is_told_and_refuses_an_unknown_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mine", "m", image_values(0.5))
    command = ["leaderboard", "--task", "clevrtex", "--results", "mine", "--out", "tables"]
    outcome = CliRunner().invoke(app, [*command, "--json"])
    assert outcome.exit_code == 0, outcome.output
    assert json.loads(outcome.stdout) == {"written": ["tables/clevrtex.csv", "tables/clevrtex.md"]}
    assert [line["model"] for line in lines_of(tmp_path / "tables")] == ["m"]
    outcome = CliRunner().invoke(app, ["leaderboard", "--task", "clevrtx"])
    assert outcome.exit_code == 2 and "did you mean clevrtex" in outcome.stderr
    assert not (tmp_path / "leaderboards").exists()


def test_the_verb_prints_the_board_of_one_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe gets columns between tabs, a terminal of 80 columns a table that fits."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mine", "better", image_values(0.5))
    write(tmp_path / "mine", "worse", image_values(0.25))
    command = ["leaderboard", "--task", "clevrtex", "--results", "mine", "--out", "tables"]
    lines = CliRunner().invoke(app, command).stdout.splitlines()
    assert lines[0] == "clevrtex v1, ranked by mbo_fg" and "rank\tmodel\tmbo_fg\tari" in lines
    rows = {cells[1]: cells for line in lines if len(cells := line.split("\t")) == 4}
    shown = {line["model"]: line for line in lines_of(tmp_path / "tables")}
    for name, rank in (("better", "1 ●"), ("worse", "2")):
        assert rows[name][0] == rank and rows[name][2].startswith(f"{float(shown[name]['mbo_fg']):.3f} [")
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    monkeypatch.setattr("ocl_bench.cli.console.make_console", lambda: console)
    assert CliRunner().invoke(app, command).exit_code == 0
    table = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, table)) <= 80 and any(line.startswith("1 ●   better  ") for line in table)
    assert "rank\t" not in CliRunner().invoke(app, [*command, "--json"]).stdout


def test_a_value_that_was_edited_by_hand_is_not_ranked(tmp_path: Path) -> None:
    write(tmp_path, "honest", image_values(0.5))
    edited = write(tmp_path, "edited", image_values(0.4))
    assert edited.path is not None
    content = json.loads(edited.path.read_text())
    stored = content["metrics"]["ari"]["value"]
    content["metrics"]["ari"]["value"] = 0.99
    edited.path.write_text(json.dumps(content))
    board = make_board([tmp_path], "clevrtex")
    assert [row.model for _, rows in board.groups for row in rows] == ["honest"]
    assert [entry.reason for entry in board.excluded] == [f"ari is 0.99 in the file, but its rows give {stored:.6g}"]


def test_an_edited_value_of_a_task_without_an_installed_card_is_not_ranked_either(tmp_path: Path) -> None:
    path = write(tmp_path, "edited", image_values(0.4)).path
    assert path is not None
    content = json.loads(path.read_text())
    content["task"] |= {"name": "of-somebody", "hash": "0" * 64}
    content["metrics"]["ari"]["value"] = 0.99
    (tmp_path / "of-somebody").mkdir()
    (tmp_path / "of-somebody" / path.name).write_text(json.dumps(content))
    path.with_suffix(".parquet").rename(tmp_path / "of-somebody" / path.with_suffix(".parquet").name)
    board = make_board([tmp_path], "of-somebody")
    assert not board.groups and board.excluded[0].reason.startswith("ari is 0.99 in the file, but its rows give")


def test_a_board_of_known_results_reads_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ties and intervals of seed means are remembered; the hash of the rows still has to be the recorded one."""
    for seed in range(3):
        write(tmp_path / "r", "method", image_values(0.60, seed), seed=seed, stem=f"method-{seed}")
    write(tmp_path / "r", "twin", image_values(0.60, 7))
    first = board_of(tmp_path / "r", tmp_path / "out")

    def refuse(path: Path) -> None:
        raise AssertionError(f"{path} was read")

    measured._rows.cache_clear()
    measured._values.cache_clear()
    monkeypatch.setattr(measured, "read_rows", refuse)
    assert board_of(tmp_path / "r", tmp_path / "again") == first
    changed = tmp_path / "r" / TASK.name / "twin.parquet"
    changed.write_bytes(changed.read_bytes() + b" ")
    lines, page = board_of(tmp_path / "r", tmp_path / "third")
    assert all(line["model"] != "twin" for line in lines) and "SHA-256 differs" in page


def test_other_numbers_are_not_taken_for_remembered_ones(tmp_path: Path) -> None:
    write(tmp_path / "r", "strong", image_values(0.60, noise=0))
    for value, tied in ((0.60, "yes"), (0.59, "no")):
        write(tmp_path / "r", "weak", image_values(value, noise=0))
        lines, _ = board_of(tmp_path / "r", tmp_path / "out")
        assert {line["not_separable_from_best"] for line in lines if line["model"] == "weak"} == {tied}

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from typer.testing import CliRunner

from ocl_bench.cards.names import get_task
from ocl_bench.cli import app
from ocl_bench.core.errors import UsageError
from ocl_bench.metrics.statistics import bootstrap_mean
from ocl_bench.results.record import Result, write_result
from ocl_bench.tables.leaderboard.build import build_leaderboard, make_board, stale_files

TASK = get_task("clevrtex")
N = 40


def _values(mean: float, seed: int = 0, noise: float = 0.05) -> np.ndarray:
    """The same easy and hard images for every model, plus a little of its own."""
    shared = np.random.default_rng(99).normal(0, 0.1, N)
    return mean + shared + np.random.default_rng(seed).normal(0, noise, N)


def write(
    folder: Path,
    model: str,
    values: np.ndarray,
    *,
    stem: str | None = None,
    role: str = "model",
    seed: int | None = None,
    ids: str = "a",
    **changes: Any,
) -> Result:
    """Write one made-up result: every metric has the given per-image values."""
    rows = pandas.DataFrame({"id": [f"i{k:03d}" for k in range(len(values))], "noise_seed": 0, "n_objects": 3})
    for metric in TASK.metrics:
        rows[metric] = values
    interval = bootstrap_mean(values)
    number = {
        "value": float(np.nanmean(values)),
        "se": interval.se,
        "ci95": (interval.low, interval.high),
        "n_valid": int(np.isfinite(values).sum()),
        "direction": 1,
        "signature": "s",
    }
    content: dict[str, Any] = {
        "identity": {
            "key": hashlib.sha256(f"{model}{seed}{changes}{values}".encode()).hexdigest(),
            "created": "2026-01-01T00:00:00+00:00",
            "command": f"ocl-bench eval --model {model} --task clevrtex",
            "status": "complete",
            "suite_version": "0.1.0",
            "commit": "c" * 40,
            "dirty": False,
        },
        "task": {
            "name": TASK.name,
            "version": 1,
            "hash": TASK.hash,
            "signature": TASK.signature("decoder"),
            "main": TASK.main,
            "metrics": TASK.metrics,
        },
        "data": {
            "kind": "embedded",
            "revision": "1",
            "ids_sha256": ids,
            "limit": None,
            "split": "test",
            "stand_in_seed": None,
        },
        "model": {
            "name": model,
            "card": model,
            "options": {},
            "checkpoint_sha256": "" if seed is None else f"{seed}" * 64,
            "parameters": 0,
            "supervision": "none",
            "privilege": "none",
            "role": role,
            "mask_source": "decoder",
            "training_seed": seed,
        },
        "seeds": {"noise": (0,)},
        "setup": {"device": "cpu", "dtype": "float32", "threads": 1, "batch_size": 16, "versions": {}},
        "counts": {"attempted": len(values), "scored": len(values), "failed": [], "single_object_share": 0.0},
        "metrics": {name: dict(number) for name in TASK.metrics},
        "cost": {"seconds_total": 1, "seconds_model": 1, "images_per_second": 1, "peak_memory_mb": 1},
        "rows": {"file": "", "sha256": ""},
    }
    for place, value in changes.items():
        section, _, key = place.partition("__")
        content[section][key] = value
    return write_result(Result.model_validate(content), rows, folder / TASK.name, stem or model.replace(":", "-"))


def _lines(out: Path) -> list[dict[str, str]]:
    with (out / "clevrtex.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _build(folder: Path, out: Path) -> tuple[list[dict[str, str]], str]:
    build_leaderboard([folder], out, "clevrtex")
    return _lines(out), (out / "clevrtex.md").read_text(encoding="utf-8")


def test_ranks_marks_and_floors(tmp_path: Path) -> None:
    write(tmp_path / "r", "good", _values(0.60, 1))
    write(tmp_path / "r", "twin", _values(0.60, 2))
    write(tmp_path / "r", "bad", _values(0.30, 3))
    write(tmp_path / "r", "grid", _values(0.20, 4), role="floor")
    write(tmp_path / "r", "oracle", np.ones(N), role="ceiling", model__privilege="truth")
    lines, page = _build(tmp_path / "r", tmp_path / "out")
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
    assert float(by_model["bad"]["mbo_fg"]) == pytest.approx(float(_values(0.30, 3).mean()), abs=1e-6)
    assert (
        float(by_model["bad"]["mbo_fg_low"]) < float(by_model["bad"]["mbo_fg"]) < float(by_model["bad"]["mbo_fg_high"])
    )
    assert by_model["bad"]["mbo_fg_n_valid"] == str(N)
    assert by_model["bad"]["signature"] == TASK.signature("decoder")


def test_a_small_but_steady_gap_is_separable_only_because_the_test_is_paired(tmp_path: Path) -> None:
    write(tmp_path, "a", _values(0.60, noise=0))
    write(tmp_path, "b", _values(0.59, noise=0))
    lines, _ = _build(tmp_path, tmp_path / "out")
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
    write(tmp_path, "strong", _values(0.9), **changes)
    write(tmp_path, "weak", _values(0.2))
    lines, page = _build(tmp_path, tmp_path / "out")
    assert [line["rank"] for line in lines] == ["1", "1"]
    assert page.count("supervision: ") == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data__limit": 16}, "limited to 16 images"),
        ({"data__stand_in_seed": 5}, "fresh stand-in (seed 5)"),
        ({"data__split": "val"}, "split val"),
        ({"counts__failed": [{"id": "i1", "error": "truncated"}]}, f"partial: 1 of {N} images failed"),
        ({"identity__status": "failed samples"}, "partial: failed samples"),
        ({"task__hash": "f" * 64}, "another protocol (task hash ffffffff)"),
    ],
)
def test_limited_partial_and_foreign_results_are_listed_but_not_ranked(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    write(tmp_path, "whole", _values(0.5))
    write(tmp_path, "odd", _values(0.9), **changes)
    lines, page = _build(tmp_path, tmp_path / "out")
    assert [line["model"] for line in lines] == ["whole"]
    assert f"- odd: {reason} (`clevrtex/odd.json`)" in page.split("---\n")[-1]


def test_missing_metric_and_changed_rows_are_not_ranked(tmp_path: Path) -> None:
    path = write(tmp_path, "cut", _values(0.9)).path
    assert path is not None
    content = json.loads(path.read_text())
    del content["metrics"]["ari"]
    path.write_text(json.dumps(content))
    other = write(tmp_path, "swapped", _values(0.9, 1)).rows_path
    good = write(tmp_path, "good", _values(0.5)).rows_path
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
        values = _values(level, seed)
        means.append(values.mean())
        write(tmp_path, "m" if seed == 0 else f"m:{seed}", values, seed=seed)
    write(tmp_path, "other", _values(0.55, 7))
    lines, page = _build(tmp_path, tmp_path / "out")
    mean = next(line for line in lines if "mean of 3" in line["model"])
    assert float(mean["mbo_fg"]) == pytest.approx(np.mean(means), abs=1e-6)
    assert float(mean["mbo_fg_sd"]) == pytest.approx(np.std(means, ddof=1), abs=1e-6)
    assert mean["training_seeds"] == "0 1 2"
    assert [line["rank"] for line in lines if line["model"] in ("m", "m:1", "m:2")] == ["seed"] * 3
    assert sorted(line["rank"] for line in lines if line["rank"].isdigit()) == ["1", "2"]
    assert f"± {np.std(means, ddof=1):.3f}" in page


def test_a_missing_cell_stays_empty(tmp_path: Path) -> None:
    result = write(tmp_path, "m", _values(0.5))
    assert result.path is not None
    content = json.loads(result.path.read_text())
    content["metrics"]["fg_ari_multi"].update(value=None, ci95=None, n_valid=0)
    result.path.write_text(json.dumps(content))
    content["metrics"]["ari"].update(value=-1e-9)
    result.path.write_text(json.dumps(content))
    lines, page = _build(tmp_path, tmp_path / "out")
    assert lines[0]["ari"] == "0.000000" and "-0.000" not in page
    assert lines[0]["fg_ari_multi"] == lines[0]["fg_ari_multi_low"] == lines[0]["fg_ari_multi_n_valid"] == ""
    assert lines[0]["rank"] == "1"


def test_of_two_results_of_one_model_the_newest_is_shown_and_others_are_named(tmp_path: Path) -> None:
    write(tmp_path, "m", _values(0.5), stem="old")
    write(tmp_path, "m", _values(0.6), stem="new", identity__created="2026-02-01T00:00:00+00:00")
    lines, page = _build(tmp_path, tmp_path / "out")
    assert [line["source"] for line in lines] == ["clevrtex/new.json"]
    assert "(`clevrtex/old.json`)" in page


def test_models_that_differ_in_an_option_are_told_apart(tmp_path: Path) -> None:
    for k in (7, 11):
        write(tmp_path, "m", _values(k / 20), stem=f"m{k}", model__options={"slots": k, "depth": 2})
    lines, _ = _build(tmp_path, tmp_path / "out")
    assert [line["model"] for line in lines] == ['m {"slots": 11}', 'm {"slots": 7}']


def test_both_layouts_and_two_folders_are_read_and_the_order_does_not_matter(tmp_path: Path) -> None:
    write(tmp_path / "a", "x", _values(0.5, 1))
    result = write(tmp_path / "b", "y", _values(0.4, 2))
    assert result.path is not None and result.rows_path is not None
    deep = result.path.parent / "y"
    deep.mkdir()
    for path in (result.path, result.rows_path):
        path.rename(deep / path.name)
    build_leaderboard([tmp_path / "a", tmp_path / "b"], tmp_path / "one", "clevrtex")
    build_leaderboard([tmp_path / "b", tmp_path / "a", tmp_path / "absent"], tmp_path / "two", "clevrtex")
    for name in ("clevrtex.csv", "clevrtex.md"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert [line["source"] for line in _lines(tmp_path / "one")] == ["clevrtex/x.json", "clevrtex/y/y.json"]


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
    assert {"clevrtex.csv", "clevrtex-camo.md", "clevrtex-ood.md", "clevrtex-dias-v3.md"} <= names
    for task in ("clevrtex", "clevrtex-camo", "clevrtex-ood"):
        page = (tmp_path / "out" / f"{task}.md").read_text(encoding="utf-8")
        assert "None: no paper's number has been sourced" in page and "No ranked results yet." in page


def test_a_users_own_task_takes_its_protocol_from_its_results(tmp_path: Path) -> None:
    result = write(tmp_path, "m", _values(0.5))
    assert result.path is not None
    (tmp_path / TASK.name).rename(tmp_path / "mine")
    for path in (tmp_path / "mine").glob("*.json"):
        content = json.loads(path.read_text())
        content["task"]["name"] = "mine"
        path.write_text(json.dumps(content))
    board = make_board([tmp_path], "mine")
    assert board.task.name == "mine" and board.groups[0][1][0].rank == "1"
    with pytest.raises(UsageError, match="unknown task"):
        make_board([tmp_path], "nowhere")


def test_stale_files_names_what_differs(tmp_path: Path) -> None:
    write(tmp_path / "results", "m", _values(0.5))
    (tmp_path / "published").mkdir()
    build_leaderboard([tmp_path / "results"], tmp_path, published=tmp_path / "published")
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
    write(tmp_path / "mine", "m", _values(0.5))
    command = ["leaderboard", "--task", "clevrtex", "--results", "mine", "--out", "tables"]
    outcome = CliRunner().invoke(app, [*command, "--json"])
    assert outcome.exit_code == 0, outcome.output
    assert json.loads(outcome.stdout) == {"written": ["tables/clevrtex.csv", "tables/clevrtex.md"]}
    assert [line["model"] for line in _lines(tmp_path / "tables")] == ["m"]
    outcome = CliRunner().invoke(app, ["leaderboard", "--task", "clevrtx"])
    assert outcome.exit_code == 2 and "did you mean clevrtex" in outcome.stderr
    assert not (tmp_path / "leaderboards").exists()

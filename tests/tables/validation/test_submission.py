"""What is written for a pull request: valid files under the committed name, or nothing and the field to look at."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from clevrtex_tree import write_scenes
from typer.testing import CliRunner

from ocl_bench import evaluate
from ocl_bench.cli import app
from ocl_bench.core.errors import UsageError
from ocl_bench.core.paths import bundled
from ocl_bench.results.record import read_result, read_rows
from ocl_bench.results.store import only_result
from ocl_bench.tables.leaderboard.build import make_board
from ocl_bench.tables.validation.examine import examine, validate
from ocl_bench.tables.validation.submission import stable_name, submit


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root)
    return root


@pytest.fixture
def run(scenes: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    result = evaluate("grid", "clevrtex", data_root=scenes, results=folder, save_predictions=True, progress=False)
    assert result.path is not None
    return result.path


def test_the_files_are_valid_ranked_and_say_the_same(run: Path, scenes: Path, tmp_path: Path) -> None:
    made = submit(run.parent, tmp_path / "out", predictions=True, data_root=scenes)
    path = tmp_path / "out" / "clevrtex" / "grid.json"
    assert made.files == (path, path.with_suffix(".parquet"), path.with_suffix(".predictions"))
    found = examine(path, data_root=scenes)
    assert found.valid and found.rescored == 6 == made.validation.rescored
    before, after = read_result(run), read_result(path)
    assert after.rows.file == "grid.parquet"
    assert after.model_copy(update={"rows": before.rows}).to_json() == before.to_json()
    assert read_rows(path).equals(read_rows(run))
    ranked = [row.model for _, rows in make_board([tmp_path / "out"], "clevrtex").groups for row in rows]
    assert ranked == ["grid"]


def test_predictions_are_left_out_unless_asked_for_and_must_be_there(run: Path, tmp_path: Path) -> None:
    assert len(submit(run, tmp_path / "out").files) == 2
    shutil.rmtree(run.with_suffix(".predictions"))
    with pytest.raises(UsageError, match="--save-predictions"):
        submit(run, tmp_path / "out", predictions=True)


def test_an_altered_value_is_refused_and_nothing_written(run: Path, tmp_path: Path) -> None:
    content = json.loads(run.read_text())
    content["metrics"]["ari"]["value"] = 0.9
    run.write_text(json.dumps(content))
    outcome = CliRunner().invoke(app, ["submit", str(run), "--out", str(tmp_path / "out")])
    assert outcome.exit_code == 1 and "metrics.ari.value: 0.9, but the rows give" in outcome.stdout
    assert "next:" not in outcome.stdout and not (tmp_path / "out").exists()


def test_a_limited_run_is_valid_and_yet_refused(scenes: Path, tmp_path: Path) -> None:
    result = evaluate("grid", "clevrtex", data_root=scenes, limit=3, results=tmp_path, progress=False)
    assert result.path is not None and validate(result.path) == []
    made = submit(result.path, tmp_path / "out")
    assert made.files == () and [problem.field for problem in made.validation.problems] == ["data.limit"]


def test_the_verb_says_what_to_do_next(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = CliRunner().invoke(app, ["submit", str(run), "--out", str(out)])
    assert outcome.exit_code == 0
    assert outcome.stdout.splitlines()[-1].startswith(f"next: copy {out / 'clevrtex'} into leaderboards/results")
    content = json.loads(CliRunner().invoke(app, ["submit", str(run), "--out", str(out), "--json"]).stdout)
    assert content["valid"] is True and [Path(file).name for file in content["files"]] == ["grid.json", "grid.parquet"]


def test_a_folder_must_hold_one_run(run: Path, tmp_path: Path) -> None:
    assert only_result(run.parent) == run
    shutil.copy(run, run.with_name("other.json"))
    with pytest.raises(UsageError, match=r"holds 2 result files .*other\.json"):
        only_result(run.parent)
    with pytest.raises(UsageError, match="holds 0 result files"):
        only_result(tmp_path)


def test_the_names_are_those_of_the_committed_results() -> None:
    for path in sorted((bundled("leaderboards") / "results" / "clevrtex").glob("*.json")):
        assert path.stem == stable_name(read_result(path).model.name)

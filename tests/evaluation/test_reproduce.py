"""A result is computed again from what it records, and every number is compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from tiny_evaluation import HERE
from typer.testing import CliRunner
from typer.testing import Result as Ended

from ocl_bench import evaluate
from ocl_bench.cli import app
from ocl_bench.core.errors import DataMissingError, UsageError
from ocl_bench.evaluation.reproduce import reproduce
from ocl_bench.results.record import Result, read_result


def call(*arguments: Any) -> Ended:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def path_of(result: Result) -> Path:
    assert result.path is not None
    return result.path


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """The file of a result with two noise seeds and an option that is not the card's."""
    keywords: dict[str, Any] = {"limit": 3, "noise_seeds": [1, 2], "options": {"slots": 5}, "batch_size": 2}
    return path_of(evaluate("slot-attention", "clevrtex", results=tmp_path, progress=False, **keywords))


def edit(path: Path, **metrics: float) -> None:
    content = json.loads(path.read_text())
    for name, value in metrics.items():
        content["metrics"][name]["value"] += value
    path.write_text(json.dumps(content))


def test_a_result_is_reproduced_bit_for_bit_and_nothing_is_written(stored: Path) -> None:
    before = {path: path.read_bytes() for path in stored.parent.iterdir()}
    done = call("reproduce", stored)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == "reproduced: every metric and every row is equal bit for bit"
    assert "ari            " in done.stdout and max(map(len, done.stdout.splitlines()[1:])) <= 80
    assert {path: path.read_bytes() for path in stored.parent.iterdir()} == before


@pytest.mark.parametrize(("change", "code", "verdict"), [(1e-9, 0, "rounding"), (1e-3, 1, "different")])
def test_a_number_that_differs_is_named_with_its_difference(
    stored: Path, change: float, code: int, verdict: str
) -> None:
    edit(stored, ari=change)
    outcome = reproduce(stored, progress=False)
    assert outcome.verdict == verdict and outcome.same_rows
    assert outcome.largest[0] == "ari" and outcome.largest[1] == pytest.approx(change, rel=1e-3)
    done = call("reproduce", stored, "--json")
    assert done.exit_code == code
    assert json.loads(done.stdout)["differences"]["ari"] == pytest.approx(-change, rel=1e-3)


def test_another_batch_size_is_said(stored: Path) -> None:
    done = call("reproduce", stored, "--batch-size", 3)
    assert "not as it was: batch_size 2 -> 3" in done.stdout and "reproduced:" in done.stdout


def test_a_result_of_a_bundled_model_needs_no_file_beside_it(stored: Path) -> None:
    stored.with_suffix(".yaml").unlink()
    assert reproduce(stored, progress=False).verdict == "equal"


def test_missing_rows_are_said(stored: Path) -> None:
    stored.with_suffix(".parquet").unlink()
    done = call("reproduce", stored)
    assert done.exit_code == 0 and "rows: not compared" in done.stdout


def test_own_model_and_data_are_found_by_the_file_beside_the_result(tmp_path: Path) -> None:
    keywords: dict[str, Any] = {"limit": 3, "results": tmp_path, "progress": False}
    path = path_of(evaluate(HERE, "clevrtex", **keywords))
    assert reproduce(path, progress=False).verdict == "equal"
    path.with_suffix(".yaml").unlink()
    with pytest.raises(UsageError, match=r"does not say where model .* give --model path.py:build"):
        reproduce(path, progress=False)
    assert reproduce(path, model=HERE, progress=False).verdict == "equal"


def test_what_is_not_what_was_evaluated_is_refused(stored: Path, tmp_path: Path) -> None:
    content = json.loads(stored.read_text())
    other = json.loads(stored.read_text())
    other["data"]["revision"] = "official-1"
    stored.write_text(json.dumps(other))
    with pytest.raises(DataMissingError, match=r"was scored on other data .* give --data-root"):
        reproduce(stored, progress=False)
    content["model"]["checkpoint_sha256"] = "0" * 64
    stored.write_text(json.dumps(content))
    assert call("reproduce", stored).exit_code == 2
    with pytest.raises(UsageError, match="the weights found now differ"):
        reproduce(stored, progress=False)
    stored.with_suffix(".yaml").write_text(f"model: {tmp_path}/gone.py:build\ntask: clevrtex\n")
    assert call("reproduce", stored).exit_code == 2


def test_a_run_of_listed_samples_of_an_own_card_is_of_these_again(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for name in ("a", "b", "c"):
            Image.fromarray(generator.integers(0, 4, (32, 32), dtype=np.uint8)).save(tmp_path / folder / f"{name}.png")
    card, listed = tmp_path / "mine.yaml", tmp_path / "ids.txt"
    card.write_text(
        "name: mine\nversion: 1\nfamily: discovery\ndata: {reader: folder}\n"
        "protocol: {input: 32, score_at: 32}\nmetrics: [ari]\nmain: ari\n"
    )
    listed.write_text("c\na\n")
    path = path_of(evaluate("grid", card, ids=listed, results=tmp_path / "results", progress=False))
    outcome = reproduce(path, progress=False)
    assert outcome.verdict == "equal" and outcome.now.counts.scored == 2
    path.with_suffix(".yaml").unlink()
    with pytest.raises(UsageError, match="2 listed samples; give --ids FILE"):
        reproduce(path, task=str(card), progress=False)


def test_the_file_beside_a_result_gives_the_same_result_to_eval(stored: Path, tmp_path: Path) -> None:
    config = yaml.safe_load(stored.with_suffix(".yaml").read_text())
    assert (config["model"], config["seeds"], config["option"]["slots"]) == ("slot-attention", [1, 2], 5)
    done = call("eval", "--config", stored.with_suffix(".yaml"), "--results", tmp_path / "again", "--no-pictures")
    assert done.exit_code == 0, done.output
    (again,) = (tmp_path / "again" / "clevrtex" / "slot-attention").glob("*.json")
    first, second = read_result(stored), read_result(again)
    assert (first.identity.key, first.metrics, first.rows) == (second.identity.key, second.metrics, second.rows)


def test_each_cell_of_a_matrix_has_its_own_file(tmp_path: Path) -> None:
    done = call("eval", "-m", "grid,single-slot", "-t", "clevrtex", "--limit", 2, "--results", tmp_path)
    assert done.exit_code == 0, done.output
    models = [yaml.safe_load(path.read_text())["model"] for path in sorted(tmp_path.rglob("*.yaml"))]
    assert models == ["grid", "single-slot"]

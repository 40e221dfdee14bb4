"""One rule about ranking, and everybody who uses it: boards, `compare`, `submit`, `validate` and what `eval` prints."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clevrtex_tree import write_scenes
from rich.console import Console

from ocl_bench import compare, evaluate
from ocl_bench.cli.console import print_result
from ocl_bench.core.errors import UsageError
from ocl_bench.core.files import ids_hash
from ocl_bench.results.ranks_with import reasons_against_ranking
from ocl_bench.results.record import Result, read_result, read_rows
from ocl_bench.results.store import key_of
from ocl_bench.tables.comparison.methods import find_method
from ocl_bench.tables.leaderboard.build import make_board
from ocl_bench.tables.validation.examine import examine
from ocl_bench.tables.validation.submission import submit

Change = Callable[[dict[str, Any]], None]


def limited(content: dict[str, Any]) -> None:
    content["data"]["limit"] = 6


def fresh(content: dict[str, Any]) -> None:
    content["data"]["stand_in_seed"] = 3


def of_another_split(content: dict[str, Any]) -> None:
    content["data"]["split"] = "val"


def untrained(content: dict[str, Any]) -> None:
    content["model"] |= {"name": "dias", "card": "dias", "role": "model", "parameters": 5, "supervision": "boxes"}


def partly_failed(content: dict[str, Any]) -> None:
    content["identity"]["status"] = "failed samples"
    content["counts"] |= {"attempted": 7, "failed": [{"id": "gone", "error": "sample gone: cannot be read"}]}


def without_a_metric(content: dict[str, Any]) -> None:
    del content["metrics"]["ari"]


def without_any_value(content: dict[str, Any]) -> None:
    for metric in content["metrics"].values():
        metric |= {"value": None, "se": None, "ci95": None, "n_valid": 0}


def of_another_protocol(content: dict[str, Any]) -> None:
    content["task"]["hash"] = "0" * 64


REASONS: list[tuple[Change, str, str]] = [
    (limited, "data.limit", "limited to 6 samples"),
    (fresh, "data.stand_in_seed", "fresh stand-in (seed 3)"),
    (of_another_split, "data.split", "split val"),
    (untrained, "model.checkpoint_sha256", "untrained: no checkpoint was loaded"),
    (partly_failed, "counts.failed", "partial: 1 of 7 samples failed"),
    (without_a_metric, "metrics", "partial: no ari"),
    (without_any_value, "metrics.mbo_fg", "no image with a valid mbo_fg"),
    (of_another_protocol, "task.hash", "another protocol (task hash 00000000)"),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Complete results of two floors on six small scenes."""
    root = tmp_path_factory.mktemp("runs")
    write_scenes(root / "scenes")
    paths = {}
    for model in ("grid", "single-slot"):
        result = evaluate(model, "clevrtex", data_root=root / "scenes", results=root / "results", progress=False)
        assert result.path is not None
        paths[model] = result.path
    return paths


def changed(path: Path, folder: Path, change: Change) -> Path:
    """A copy of a result with a change and the key that belongs to it."""
    content = json.loads(path.read_text())
    change(content)
    rows = path.with_suffix(".parquet")
    failed = [failure["id"] for failure in content["counts"]["failed"]]
    content["data"]["ids_sha256"] = ids_hash([*read_rows(rows)["id"].unique(), *failed])
    result = Result.model_validate(content)
    key = key_of(
        task_hash=result.task.hash,
        data=result.data,
        model=result.model.name,
        options=result.model.options,
        checkpoint_sha256=result.model.checkpoint_sha256,
        source_sha256="",
        noise_seeds=result.seeds.noise,
        dtype=result.setup.dtype,
    )
    content["identity"]["key"] = key
    place = folder / "clevrtex" / path.parent.name
    place.mkdir(parents=True)
    (place / path.name).write_text(json.dumps(content))
    (place / rows.name).write_bytes(rows.read_bytes())
    return place / path.name


def printed(result: Result) -> str:
    stream = io.StringIO()
    print_result(Console(file=stream, width=200), result)
    return stream.getvalue()


@pytest.mark.parametrize(("change", "field", "message"), REASONS, ids=[field for _, field, _ in REASONS])
def test_all_five_give_the_same_reason(
    runs: dict[str, Path], tmp_path: Path, change: Change, field: str, message: str
) -> None:
    paths = [changed(path, tmp_path / "results", change) for path in runs.values()]
    result = read_result(paths[0])
    assert [(reason.field, reason.message) for reason in reasons_against_ranking(result)] == [(field, message)]

    board = make_board([tmp_path / "results"], "clevrtex")
    assert not board.groups and {entry.reason for entry in board.excluded} == {message}

    assert f"not ranked: {message}" in printed(result)

    checked = examine(paths[0])
    assert [(reason.field, reason.message) for reason in checked.not_ranked] == [(field, message)]

    made = submit(paths[0], tmp_path / "out")
    assert made.files == () and not (tmp_path / "out").exists()
    if checked.valid:
        assert [(problem.field, problem.message) for problem in made.validation.problems] == [
            (field, f"not ranked: {message}")
        ]

    if field != "task.hash":  # named below by its files: results of an older card are compared with each other
        assert find_method([tmp_path / "results"], result.model.name, "clevrtex") == {}
        with pytest.raises(UsageError, match=r"no ranked result on task 'clevrtex'.*left out: .*json: "):
            compare(result.model.name, "single-slot", "clevrtex", results=[tmp_path / "results"])


@pytest.mark.parametrize("change", [limited, fresh, of_another_split, partly_failed, without_a_metric])
def test_named_by_their_files_they_are_compared_and_it_is_said(
    runs: dict[str, Path], tmp_path: Path, change: Change
) -> None:
    paths = [changed(path, tmp_path / "results", change) for path in runs.values()]
    message = next(text for one, _, text in REASONS if one is change)
    (comparison,) = compare(str(paths[0]), str(paths[1]), "clevrtex", "mbo_fg")
    assert comparison.n == 6 and comparison.remarks == (f"grid: {message}", f"single-slot: {message}")


def test_rows_that_are_not_those_of_the_result(runs: dict[str, Path], tmp_path: Path) -> None:
    path = changed(runs["grid"], tmp_path / "results", lambda content: None)
    assert reasons_against_ranking(read_result(path)) == []
    with path.with_suffix(".parquet").open("ab") as file:
        file.write(b"0")
    board = make_board([tmp_path / "results"], "clevrtex")
    assert [entry.reason for entry in board.excluded] == [
        "per-image rows are not those that the result recorded (SHA-256 differs)"
    ]
    path.with_suffix(".parquet").unlink()
    (reason,) = reasons_against_ranking(read_result(path))
    assert (reason.field, reason.message) == ("rows.file", "per-image rows are missing")

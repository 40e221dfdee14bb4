"""What `validate` refuses is not ranked: every field that somebody can edit by hand in the JSON file of a result."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ocl_bench import compare
from ocl_bench.core.errors import UsageError
from ocl_bench.core.paths import bundled
from ocl_bench.evaluation.examination.refusals import why_not_ranked
from ocl_bench.results.record import read_result
from ocl_bench.tables.comparison.methods import find_method
from ocl_bench.tables.leaderboard.build import make_board
from ocl_bench.tables.validation.examine import examine

RESULTS = bundled("leaderboards") / "results" / "clevrtex"

EDITS: list[tuple[str, Any]] = [
    ("metrics.mbo_fg.ci95", [0.1, 0.9]),
    ("metrics.ari.ci95", None),
    ("metrics.mbo_fg.se", 0.001),
    ("metrics.mbo_fg.n_valid", 7),
    ("metrics.mbo_fg.direction", -1),
    ("metrics.mbo_fg.signature", "mbo_fg│at:256"),
    ("metrics.mbo_fg.value", None),
    ("task.signature", "clevrtex│at:256"),
    ("task.version", 7),
    ("task.main", "ari"),
    ("data.kind", "official"),
    ("data.kind", "supplied"),
    ("data.revision", "embedded-r99-test"),
    ("data.ids_sha256", "0" * 64),
    ("model.supervision", "masks"),
    ("model.privilege", "boxes"),
    ("model.role", "floor"),
    ("model.name", "mine"),
    ("model.name", "dias:7"),
    ("model.card", ""),
    ("model.training_seed", 7),
    ("model.options", {"iterations": 9}),
    ("model.checkpoint_sha256", "0" * 64),
    ("seeds.noise", [0, 1]),
    ("counts.attempted", 9),
    ("counts.scored", 9),
    ("counts.single_object_share", 0.5),
    ("setup.dtype", "float64"),
    ("identity.created", "2999-01-01T00:00:00+00:00"),
    ("identity.created", "yesterday"),
    ("identity.key", "0" * 64),
]


def edited(folder: Path, field: str, value: Any, model: str = "dias") -> Path:
    """A copy of a committed result with another value of a field."""
    path = folder / "clevrtex" / f"{model}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = json.loads((RESULTS / path.name).read_text())
    *sections, last = field.split(".")
    section = content
    for name in sections:
        section = section[name]
    assert section[last] != value
    section[last] = value
    path.write_text(json.dumps(content))
    shutil.copy(RESULTS / f"{model}.parquet", path.parent)
    return path


def copied(folder: Path, *models: str) -> None:
    """Copies of committed results and their rows."""
    (folder / "clevrtex").mkdir(parents=True, exist_ok=True)
    for model in models:
        for suffix in ("json", "parquet"):
            shutil.copy(RESULTS / f"{model}.{suffix}", folder / "clevrtex")


@pytest.mark.parametrize(("field", "value"), EDITS, ids=[f"{field}={str(value)[:12]}" for field, value in EDITS])
def test_an_edited_result_is_refused_not_ranked_and_not_compared(tmp_path: Path, field: str, value: Any) -> None:
    copied(tmp_path, "grid")
    path = edited(tmp_path, field, value)
    refused = {problem.field for problem in examine(path).problems}
    assert refused

    board = make_board([tmp_path], "clevrtex")
    assert [row.model for _, rows in board.groups for row in rows] == ["grid"]
    (entry,) = board.excluded
    assert entry.source == "clevrtex/dias.json"
    (reason,) = why_not_ranked(read_result(path))
    assert reason.message == entry.reason and reason.field.removesuffix(".value") in {
        one.removesuffix(".value") for one in refused
    }

    assert find_method([tmp_path], read_result(path).model.name, "clevrtex") == {}
    with pytest.raises(UsageError, match="no ranked result on task 'clevrtex'"):
        compare("dias", "grid", "clevrtex", results=[tmp_path])


def test_results_as_they_were_written_stay_ranked_and_are_examined_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "cache"))
    copied(tmp_path / "results", "dias", "grid")
    first = make_board([tmp_path / "results"], "clevrtex")
    assert sorted(row.model for _, rows in first.groups for row in rows) == ["dias", "grid"]

    def fails(*given: Any) -> None:
        raise AssertionError("examined twice")

    monkeypatch.setattr("ocl_bench.evaluation.examination.examine_file.examine_file", fails)
    assert make_board([tmp_path / "results"], "clevrtex").excluded == ()
    edited(tmp_path / "results", "metrics.ari.se", 0.5)
    with pytest.raises(AssertionError, match="examined twice"):
        make_board([tmp_path / "results"], "clevrtex")


def test_a_cache_that_cannot_be_written_only_costs_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file, where the folder should be")
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "cache"))
    copied(tmp_path / "results", "grid")
    assert why_not_ranked(read_result(tmp_path / "results/clevrtex/grid.json")) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("metrics.mbo_fg.value", 0.99),
        ("data.ids_sha256", "0" * 64),
        ("model.role", "ceiling"),
        ("model.name", "grid"),
        ("seeds.noise", [4]),
        ("counts.scored", 9),
        ("identity.created", "2999-01-01T00:00:00+00:00"),
    ],
)
@pytest.mark.parametrize("task", ["clevrtex", "of-somebody"])
def test_without_the_card_of_a_result_the_rest_is_examined(tmp_path: Path, task: str, field: str, value: Any) -> None:
    """An older version of an installed card, and a card that is not installed."""
    path = edited(tmp_path, "task.name", task) if task != "clevrtex" else edited(tmp_path, "task.version", 7)
    content: dict[str, Any] = json.loads(path.read_text())
    content["task"]["hash"] = "0" * 64
    content["data"]["revision"] = "embedded-r99-test"
    content["model"] |= {"name": "mine", "card": "", "state": "1" * 64}  # a key without the source of the model
    path.write_text(json.dumps(content))

    def reasons() -> list[str]:
        found = why_not_ranked(read_result(path))
        return [reason.field for reason in found if reason.field != "task.hash"]

    assert reasons() == []
    section, _, rest = field.partition(".")
    *middle, last = rest.split(".")
    target = content[section]
    for name in middle:
        target = target[name]
    target[last] = value
    path.write_text(json.dumps(content))
    assert len(reasons()) == 1
    if task == "of-somebody":
        (tmp_path / task).mkdir()
        for file in (path, path.with_suffix(".parquet")):
            shutil.copy(file, tmp_path / task)
        assert not make_board([tmp_path], task).groups

"""Result files follow their schema and hold no NaN, and older formats stay readable."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import jsonschema
import pytest
from pydantic import ValidationError
from tiny_evaluation import memory_data, tiny_plan, tiny_task

from ocl_bench.core.errors import UsageError
from ocl_bench.core.files import write_atomically
from ocl_bench.evaluation.references import reference_results
from ocl_bench.evaluation.run import run
from ocl_bench.families.image_properties import PROPERTIES
from ocl_bench.results.migrations import SCHEMA, migrate
from ocl_bench.results.record import (
    SCHEMA_FILE,
    MetricValue,
    Result,
    json_schema,
    read_result,
    read_rows,
    write_result,
)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    plan = tiny_plan("random", data=memory_data(6, broken=(5,)))
    return run(plan, results=tmp_path_factory.mktemp("results"), progress=False)


def test_schema_file_is_that_of_the_class() -> None:
    assert json.loads(SCHEMA_FILE.read_text()) == json_schema()
    jsonschema.Draft202012Validator.check_schema(json_schema())


def test_a_result_follows_the_schema(result: Result) -> None:
    content = json.loads(result.to_json())
    jsonschema.validate(content, json_schema())
    assert "NaN" not in result.to_json() and content["schema"] == SCHEMA
    del content["data"]["kind"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, json_schema())


def test_a_metric_that_is_never_valid_is_null(tmp_path: Path) -> None:
    plan = tiny_plan("random", data=memory_data(1))
    metrics = run(plan, results=tmp_path, progress=False).metrics
    assert metrics["fg_ari_multi"].model_dump(exclude={"signature"}) == {
        "value": None,
        "se": None,
        "ci95": None,
        "n_valid": 0,
        "direction": 1,
    }
    assert metrics["ari"].value is not None and metrics["ari"].ci95 is None
    with pytest.raises(ValidationError):
        MetricValue(value=float("nan"), se=None, ci95=None, n_valid=0, direction=1, signature="")


def test_provenance_is_recorded(result: Result) -> None:
    assert result.identity.suite_version and result.identity.command
    assert set(result.setup.versions) >= {"python", "torch", "numpy", "scipy"}
    assert result.setup.threads >= 1 and result.setup.batch_size == 4
    assert result.cost.peak_memory_mb > 50 and result.cost.seconds_total >= result.cost.seconds_model > 0
    assert result.task.hash == tiny_task().hash
    assert result.model.role == "floor" and result.model.card == "random"


def test_rows_file_is_hashed_and_readable_from_either_name(result: Result) -> None:
    assert result.path is not None and result.rows_path is not None
    assert hashlib.sha256(result.rows_path.read_bytes()).hexdigest() == result.rows.sha256
    rows = read_rows(result.path)
    assert list(rows.columns) == ["id", "noise_seed", "n_objects", *result.task.metrics, *PROPERTIES]
    assert rows.equals(read_rows(result.rows_path))
    assert str(rows["ari"].dtype) == "float64" and rows["fg_ari_multi"].isna().sum() == 3


def test_stable_names(result: Result, tmp_path: Path) -> None:
    assert result.path is not None
    written = write_result(result, read_rows(result.path), tmp_path, stem="random")
    assert {path.name for path in tmp_path.iterdir()} == {"random.json", "random.parquet"}
    assert written.rows.file == "random.parquet" and read_result(tmp_path / "random.json") == written


def test_reading_names_file_and_field(result: Result, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    content = json.loads(result.to_json())
    for change, message in [
        ({"surprise": 1}, "field 'surprise'"),
        ({"counts": {**content["counts"], "scored": "many"}}, "field 'counts.scored'"),
        ({"schema": SCHEMA + 1}, "field 'schema'"),
        ({"schema": "one"}, "field 'schema'"),
    ]:
        path.write_text(json.dumps({**content, **change}))
        with pytest.raises(UsageError, match=message) as caught:
            read_result(path)
        assert str(path) in str(caught.value)
    path.write_text("{")
    with pytest.raises(UsageError, match="not a JSON file"):
        read_result(path)
    path.write_text("[]")
    with pytest.raises(UsageError):
        read_result(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_result(tmp_path / "none.json")
    with pytest.raises(UsageError, match="rows cannot be read"):
        read_rows(tmp_path / "none.json")


def test_a_file_name_that_is_not_utf8_is_escaped_where_it_is_named(result: Result, tmp_path: Path) -> None:
    """In the command or in the error of a sample; a result would otherwise be lost after the work is done."""
    text = os.fsdecode(b"eval --data-root /data/\xff")
    named = result.model_copy(update={"identity": result.identity.model_copy(update={"command": text})})
    written = write_result(named, read_rows(result.path), tmp_path)
    assert written.path is not None and read_result(written.path).identity.command == r"eval --data-root /data/\xff"


def test_old_formats_are_migrated_step_by_step() -> None:
    steps = {1: lambda old: {**old, "b": old["a"] + 1}, 2: lambda old: {**old, "c": old["b"] + 1}}
    assert migrate({"schema": 1, "a": 0}, steps, to=3) == {"schema": 3, "a": 0, "b": 1, "c": 2}
    assert migrate({"schema": 3}, steps, to=3) == {"schema": 3}
    with pytest.raises(UsageError, match="no migration from format 2"):
        migrate({"schema": 2}, {}, to=3)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail(target: Path) -> None:
        target.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_unknown_metric_is_named(result: Result) -> None:
    assert result.value("ari") == result.metrics["ari"].value
    with pytest.raises(UsageError, match="metric 'miou' is not in this result"):
        result.value("miou")


def test_references_are_floors_and_ceilings_of_the_same_images(tmp_path: Path) -> None:
    for name in ("single-slot", "oracle", "grid"):
        run(tiny_plan(name, count=6), results=tmp_path, progress=False)
    run(tiny_plan("random", count=7), results=tmp_path, progress=False)
    mine = run(tiny_plan(count=6), results=tmp_path, progress=False)
    names = [reference.model.name for reference in reference_results(mine, [tmp_path])]
    assert names[-1] == "oracle" and sorted(names) == ["grid", "oracle", "single-slot"]
    version_2 = run(tiny_plan(count=6, task=tiny_task(version=2)), results=tmp_path, progress=False)
    assert reference_results(version_2, [tmp_path]) == []


@pytest.mark.parametrize("field", ["value", "ci95", "se"])
def test_a_reference_that_was_edited_by_hand_is_left_out_with_one_line(
    field: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("single-slot", "grid"):
        edited = run(tiny_plan(name, count=6), results=tmp_path, progress=False)
    mine = run(tiny_plan(count=6), results=tmp_path, progress=False)
    assert edited.path is not None
    content = json.loads(edited.path.read_text())
    content["metrics"][edited.task.main][field] = [0.0, 1.0] if field == "ci95" else 0.5
    edited.path.write_text(json.dumps(content))
    assert [one.model.name for one in reference_results(mine, [tmp_path], tiny_task())] == ["single-slot"]
    (line,) = caplog.messages
    assert line.startswith(f"grid ({edited.path}) is left out: ") and "rows give" in line

"""A result says what its head or bank was made from; results of the first format say so far as they can."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import scenes_in_memory
from places import OLD_RESULTS
from scenes_in_memory import Knowing, SceneReader, scene_data, task
from tiny_evaluation import tiny_plan

from ocl_bench.cards.task import TaskSpec
from ocl_bench.core.errors import SampleError, UsageError
from ocl_bench.core.files import ids_hash
from ocl_bench.core.types import Sample
from ocl_bench.data import OpenData
from ocl_bench.evaluation.plan import make_plan
from ocl_bench.evaluation.run import run
from ocl_bench.results.migrations import MIGRATIONS, SCHEMA, add_fit, migrate
from ocl_bench.results.record import Result, json_schema, read_result

TASK = task("recognition")
BROKEN = ("000003", "000031")


class Damaged(SceneReader):
    def __getitem__(self, index: int) -> Sample:
        if self.ids[index] in BROKEN:
            raise SampleError(self.ids[index], "image cannot be read")
        return super().__getitem__(index)


def damaged(count: int = 40) -> OpenData:
    data = scene_data(count)
    return replace(data, reader=Damaged(count))


def result(folder: Path, model: Any = None, train: OpenData | None = None, card: TaskSpec = TASK) -> Result:
    plan = make_plan(model or Knowing(), card, data=scene_data(8, 1000), train=train or scene_data(40), device="cpu")
    return run(plan, results=folder, progress=False)


def test_a_task_that_fits_nothing_has_none(tmp_path: Path) -> None:
    assert run(tiny_plan("random"), results=tmp_path, progress=False).fit is None


def test_the_fit_split_is_recorded_with_the_images_that_failed_and_the_rate_that_was_chosen(tmp_path: Path) -> None:
    rates = TASK.fit.model_copy(update={"learning_rates": (1e-6, 0.03), "steps": 60}) if TASK.fit else None
    fit = result(tmp_path, train=damaged(), card=TASK.model_copy(update={"fit": rates})).fit
    assert fit is not None
    assert (fit.head, fit.kind, fit.split) == ("recognition", "supplied", "train")
    assert (fit.revision, fit.samples) == ("supplied-0", 40)
    assert fit.ids_sha256 == ids_hash(damaged().ids) and fit.left_out == BROKEN
    assert fit.chosen == {"learning_rate": 0.03}


def test_a_head_from_the_cache_still_knows_its_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "cache"))
    model = f"{scenes_in_memory.__file__}:Knowing"
    first = result(tmp_path / "a", model, damaged())
    monkeypatch.setattr(Damaged, "__getitem__", lambda reader, index: pytest.fail("the head was fitted again"))
    second = result(tmp_path / "b", model, damaged())
    assert first.fit == second.fit and second.fit is not None and second.fit.left_out == BROKEN


def test_a_head_of_an_early_version_which_does_not_say_what_failed_is_fitted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file, save_file

    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "cache"))
    model = f"{scenes_in_memory.__file__}:Knowing"
    result(tmp_path / "a", model, damaged())
    (path,) = (tmp_path / "cache/heads").rglob("*.safetensors")
    save_file({name: tensor for name, tensor in load_file(path).items() if name != "left_out"}, path)
    fit = result(tmp_path / "b", model, damaged()).fit
    assert fit is not None and fit.left_out == BROKEN and fit.samples == 40


def test_the_first_format_is_read_with_what_it_said() -> None:
    content = json.loads((OLD_RESULTS / "segmentation.json").read_text())
    assert content["schema"] == 1 and "fit" not in content
    read = read_result(OLD_RESULTS / "segmentation.json")
    assert read.schema_ == SCHEMA == 2 and read.fit is not None
    known = {name: value for name, value in read.fit.model_dump().items() if value is not None}
    assert known == {"head": "linear", "kind": "embedded"}
    assert read_result(OLD_RESULTS / "grid.json").fit is None  # nothing is fitted for class-agnostic detection
    everything_else = read.model_dump(mode="json", by_alias=True, exclude={"fit", "schema_"}, exclude_unset=True)
    assert everything_else == {name: value for name, value in content.items() if name != "schema"}


def test_migration_neither_changes_its_argument_nor_invents_a_kind() -> None:
    content = json.loads((OLD_RESULTS / "segmentation.json").read_text())
    content["data"]["kind"] = "official"
    before = json.dumps(content)
    migrated = migrate(content)
    assert json.dumps(content) == before and migrated["fit"]["kind"] is None and migrated["fit"]["head"] == "linear"
    assert list(migrated)[:5] == ["schema", "identity", "task", "data", "fit"]
    assert migrate(migrated) == migrated and {1: add_fit} == MIGRATIONS


@pytest.mark.parametrize("damage", [{"task": None}, {"data": 3}, {"task": {"signature": 1}}])
def test_a_damaged_file_of_the_first_format_is_refused_by_its_field(tmp_path: Path, damage: dict[str, Any]) -> None:
    content = json.loads((OLD_RESULTS / "grid.json").read_text()) | damage
    (tmp_path / "r.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=rf"r\.json: field '{next(iter(damage))}"):
        read_result(tmp_path / "r.json")


def test_a_newer_format_asks_for_a_newer_version(tmp_path: Path) -> None:
    content = json.loads((OLD_RESULTS / "grid.json").read_text()) | {"schema": SCHEMA + 1, "novelty": 1}
    (tmp_path / "r.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"r\.json: field 'schema': 3 is not a format .*up to 2.*update ocl-bench"):
        read_result(tmp_path / "r.json")


def test_the_printed_schema_is_that_of_today() -> None:
    assert json_schema()["properties"]["schema"]["const"] == SCHEMA

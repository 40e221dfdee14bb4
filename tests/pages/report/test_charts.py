"""Head, strata and chart of a report: the numbers of the rows, floors beside them, labels that can be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from results_for_boards import N, image_values, write

from ocl_bench.families import FAMILIES
from ocl_bench.pages.report import strata as of_strata
from ocl_bench.pages.report.chart import HEIGHT, line_chart
from ocl_bench.pages.report.diagnosis import Tally, diagnosis
from ocl_bench.pages.report.head import head
from ocl_bench.pages.report.run import Run, mean_over_seeds
from ocl_bench.pages.report.strata import strata
from ocl_bench.results.store import rows_of


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run with objects of several numbers and sizes; on the five images without objects no metric is valid."""
    values = image_values(0.6)
    values[:5] = np.nan
    result = write(tmp_path, "mine", values)
    rows = mean_over_seeds(rows_of(result)).assign(
        n_objects=[0] * 5 + [2] * 10 + [4] * (N - 15), object_size=[np.nan] * 5 + [0.02] * (N - 5)
    )
    return Run(result, rows, FAMILIES["discovery"])


def test_strata_are_means_of_the_rows_with_floors(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    floor = write(tmp_path, "grid", image_values(0.3, 1), role="floor")
    (objects,) = strata([run], [floor])  # all objects are of one size, which is no comparison
    assert (objects["labels"], objects["counts"], objects["metric"]) == (["1 to 2", "3 to 4"], [10, N - 15], "mbo_fg")
    mine, grid = objects["lines"]
    assert (mine["role"], grid["name"]) == ("run", "grid")
    values = run.rows["mbo_fg"]
    assert mine["values"] == pytest.approx([values[5:15].mean(), values[15:].mean()], abs=1e-4)
    monkeypatch.setattr(of_strata, "rows_of", lambda result: pandas.DataFrame({"id": [], "noise_seed": []}))
    assert [line["name"] for line in strata([run], [floor])[0]["lines"]] == ["mine"], "a floor without rows has no line"


def test_of_many_steps_only_some_are_written_on_the_axis() -> None:
    line = {"name": "mine", "role": "run", "values": [0.1] * 24}
    chart = line_chart({"labels": [str(n + 1) for n in range(24)], "counts": [], "lines": [line], "direction": -1})
    assert [(group["text"], group["count"]) for group in chart["groups"]] == [(str(n), None) for n in range(1, 25, 3)]
    assert len(chart["drawn"][0]["points"]) == 24


def test_the_chart_keeps_the_best_floors_and_its_labels_apart() -> None:
    lines = [{"name": "mine", "role": "run", "values": [0.5, 0.52]}]
    lines += [{"name": f"floor{n}", "role": "floor", "values": [0.1 * n, 0.5]} for n in range(4)]
    lines += [{"name": "oracle", "role": "ceiling", "values": [1.0, None]}]
    entry: dict[str, Any] = {"labels": ["few", "many"], "counts": [3, 4], "lines": lines, "direction": 1}
    chart = line_chart(entry)
    assert [line["name"] for line in chart["drawn"]] == ["mine", "floor3", "floor2", "oracle"]
    falling = line_chart({**entry, "direction": -1})
    assert [line["name"] for line in falling["drawn"]] == ["mine", "floor0", "floor1", "oracle"], "least is best"
    labels = sorted(line["label"] for line in chart["drawn"])
    assert min(np.diff(labels)) > 12.9 and max(labels) < HEIGHT
    assert chart["ticks"][0]["text"] == "0" and chart["ticks"][-1]["text"] == "1"
    heights = [y for line in chart["drawn"] for _, y in line["points"]]
    assert min(heights) >= chart["ticks"][-1]["y"] and max(heights) <= chart["ticks"][0]["y"]


def test_the_head(run: Run, tmp_path: Path) -> None:
    floor = write(tmp_path, "grid", image_values(0.3, 1), role="floor")
    content = head([run], [floor])
    tile = content["tiles"][0]
    assert tile["main"] and tile["name"] == run.result.task.main and (tile["low"], tile["high"]) == (0.0, 1.0)
    assert tile["references"] == [{"name": "grid", "role": "floor", "value": floor.value(tile["name"])}]
    value = tile["values"][0]
    assert value["low"] < value["value"] < value["high"] and value["interval"]
    facts = {fact["name"]: fact["value"] for fact in content["runs"][0]["facts"]}
    assert facts["Key"] == run.result.identity.key and facts["Supervision in training"]


def test_slots_that_no_image_uses() -> None:
    assert diagnosis(Tally(), 7) is None
    tally = Tally(samples=2, pixels=np.array([10, 8, 0, 0, 2, 0]), objects=2, alone=1, fragments=3, used=6, largest=4)
    known, guessed = (diagnosis(tally, slots) for slots in (10, None))
    assert known and guessed
    assert known["facts"][0]["value"] == "70 %" and guessed["facts"][0]["value"] == "40 %"
    assert "largest id" in guessed["facts"][0]["meaning"] and "largest id" not in known["facts"][0]["meaning"]
    assert known["sentence"].startswith("It loses objects in the background: 100 % of the wrong pixels")
    shares = {kind["name"]: kind["share"] for kind in known["kinds"]}
    assert shares == {"right": 0.8, "split": 0, "merged": 0, "missed": 0.2, "spilled": 0}

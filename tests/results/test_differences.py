"""Differences of two results of one evaluation."""

from __future__ import annotations

import json
import math
from pathlib import Path

from results_with_values import made

from ocl_bench.results.differences import differences
from ocl_bench.results.record import Result


def changed(result: Result, metric: str, value: float | None) -> Result:
    content = json.loads(result.to_json())
    content["metrics"][metric]["value"] = value
    return Result.model_validate(content)


def test_a_value_that_only_one_result_has_is_a_difference(tmp_path: Path) -> None:
    stored = made(tmp_path, "m", [0.25, 0.75])
    assert set(differences(stored, stored).values()) == {0.0}
    assert differences(stored, changed(stored, "mbo_fg", 0.75))["mbo_fg"] == 0.25
    assert differences(stored, changed(stored, "ari", 0.0))["ari"] == math.inf  # it was None
    assert differences(changed(stored, "mbo_fg", 0.0), changed(stored, "mbo_fg", None))["mbo_fg"] == math.inf

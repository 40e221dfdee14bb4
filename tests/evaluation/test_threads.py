"""The number of threads changes rounding and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from tiny_evaluation import tiny_plan

from ocl_bench.evaluation.run import run
from ocl_bench.results.record import read_rows


def test_the_number_of_threads_moves_no_metric(tmp_path: Path) -> None:
    rows = {}
    for threads in (1, 2):
        result = run(replace(tiny_plan(), threads=threads), results=tmp_path / str(threads), progress=False)
        assert result.setup.threads == threads
        rows[threads] = read_rows(result.path)
    assert list(rows[1]["id"]) == list(rows[2]["id"])
    for name in ("mbo_fg", "ari", "fg_ari"):
        assert np.allclose(rows[1][name], rows[2][name], atol=5e-3, equal_nan=True), name

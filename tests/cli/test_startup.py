"""`--help` and `list` stay light: nothing heavy is imported before there is something to compute.

The time itself is not asserted, it depends on the machine; what makes it long is.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from results_for_boards import TASK, image_values, write

HEAVY = {
    "accelerate",
    "datasets",
    "matplotlib",
    "numpy.linalg",
    "pandas",
    "pyarrow",
    "pycocotools",
    "scipy",
    "sklearn",
    "torch",
    "torchmetrics",
    "transformers",
}


def imported(code: str) -> set[str]:
    """Names of the modules that a fresh interpreter imports while it runs `code`, which must succeed."""
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    lines = [line for line in run.stderr.splitlines() if line.startswith("import time:")]
    other = "\n".join(line for line in run.stderr.splitlines() if not line.startswith("import time:"))
    assert run.returncode == 0, f"exit code {run.returncode}\n{run.stdout}\n{other}"
    return {line.rsplit("|", 1)[1].strip() for line in lines}


def command(*arguments: str) -> str:
    """The source of a program that does what the console script does."""
    return f"import sys; sys.argv = {['ocl-bench', *arguments]!r}; from ocl_bench.cli import main; main()"


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("list",), ("eval", "--help")])
def test_command_line_starts_without_heavy_imports(arguments: tuple[str, ...]) -> None:
    modules = imported(command(*arguments))
    assert "ocl_bench.cli" in modules
    assert not modules & HEAVY


def test_a_board_of_known_results_needs_no_torch(tmp_path: Path) -> None:
    """What two results decide together was computed before: the page, the CSV and what is printed come from JSON."""
    for name in ("one", "other"):
        write(tmp_path / "r", name, image_values(0.5))
    arguments = ("leaderboard", "--task", TASK.name, "--results", str(tmp_path / "r"), "--out", str(tmp_path / "out"))
    assert imported(command(*arguments)) >= {"pandas"}
    assert not imported(command(*arguments)) & {"torch", "scipy", "pandas", "pyarrow", "matplotlib"}


def test_an_evaluation_of_dias_imports_no_compiler_and_no_training() -> None:
    """They took more processor time than torch itself. `scipy.stats` is not needed for intervals."""
    code = (
        "import ocl_bench.cli.evaluation, ocl_bench.models.dias\n"
        "from ocl_bench.metrics.statistics import bootstrap_mean\n"
        "bootstrap_mean([0.1, 0.2])"
    )
    modules = imported(code)
    assert {"torch", "ocl_bench.models.losses", "ocl_bench.training.follow_up"} <= modules
    assert not modules & {"torch._dynamo", "ocl_bench.training.objectives", "scipy.stats"}


def test_package_import_is_light() -> None:
    assert not imported("import ocl_bench") & HEAVY


def test_the_check_sees_heavy_imports() -> None:
    assert "numpy.linalg" in imported("import numpy")

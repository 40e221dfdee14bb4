"""The built wheel is complete: installed elsewhere, with the checkout out of reach, it finds its cards and boards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.slow

REPORT = """
import json, ocl_bench
from ocl_bench.cards import names
from ocl_bench.core import paths
print(json.dumps({
    "package": ocl_bench.__file__,
    "tasks": str(paths.bundled("tasks")),
    "leaderboards": str(paths.bundled("leaderboards")),
    "task_names": sorted(names.task_names()),
    "model_names": sorted(names.model_names()),
}))
"""


def run(*command: str, **options: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{' '.join(command[:6])} ...\n{done.stdout}\n{done.stderr}"
    return str(done.stdout)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    run(*pip, "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder), str(ROOT))
    (built,) = folder.glob("ocl_bench-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel alone in a folder of its own; what it depends on comes from this environment."""
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    run(*pip, "--no-deps", "--no-index", "--target", str(target), str(wheel))
    return target


def outside(installed: Path, work: Path, *arguments: str) -> str:
    """Run Python in `work` with the installed wheel in front of everything and the checkout taken off the path."""
    # The editable installation puts the checkout on the path through a .pth file; this takes it off again.
    hide = f"import sys; sys.path[:] = [p for p in sys.path if p != {str(ROOT)!r}]; "
    environment = {**os.environ, "PYTHONPATH": str(installed), "OCL_BENCH_CACHE": str(work / "cache")}
    return run(sys.executable, "-c", hide + arguments[0], *arguments[1:], cwd=work, env=environment)


def committed(folder: str, pattern: str) -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob(pattern) if path.is_file()}


def test_wheel_holds_package_cards_weights_and_boards(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = committed("ocl_bench", "*.py") | committed("ocl_bench/models/cards", "*.yaml")
    expected |= committed("ocl_bench/models/weights", "*.safetensors") | {"ocl_bench/py.typed"}
    expected |= committed("ocl_bench/pages", "*.j2") | committed("ocl_bench/pages", "*.css")
    expected |= committed("ocl_bench/pages", "*.js")
    expected |= {f"ocl_bench/_bundled/docs/{name}.md" for name in ("why-numbers-differ", "submit")}
    for folder in ("tasks", "leaderboards"):
        expected |= {f"ocl_bench/_bundled/{name}" for name in committed(folder, "*")}
    assert expected - names == set()
    assert not {name for name in names if name.startswith(("tests/", "docs/", "benchmarks/"))}


def test_installed_wheel_finds_what_it_ships(installed: Path, tmp_path: Path) -> None:
    report = json.loads(outside(installed, tmp_path, REPORT))
    assert Path(report["package"]).is_relative_to(installed)
    for folder in ("tasks", "leaderboards"):
        assert Path(report[folder]) == installed / "ocl_bench" / "_bundled" / folder
    assert {"clevrtex", "clevrtex-camo", "clevrtex-ood", "clevrtex-dias-v3"} <= set(report["task_names"])
    assert (installed / "bin" / "ocl-bench").is_file()
    assert {"dias", "single-slot", "grid", "kmeans", "patch-oracle"} <= set(report["model_names"])


def test_installed_command_lists_tasks_and_models(installed: Path, tmp_path: Path) -> None:
    shown = outside(installed, tmp_path, "from ocl_bench.cli import main; main()", "list")
    assert "clevrtex-dias-v3" in shown and "dias" in shown
    assert list(tmp_path.iterdir()) == []

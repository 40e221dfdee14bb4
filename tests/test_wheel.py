"""What is published is complete: the wheel of the source archive, installed elsewhere, without the checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LARGEST = 32 * 10**6
"""Bytes of a wheel: weights, heads, and the results behind the boards."""
LARGEST_WEIGHTS = 25 * 10**6
"""Bytes of all weights and heads."""

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
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source archive."""
    folder = tmp_path_factory.mktemp("source")
    run(sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(folder), cwd=ROOT)
    (built,) = folder.glob("ocl_bench-*.tar.gz")
    return built


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, made of the source archive as `python -m build` does it."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    run(*pip, "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder), str(source))
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
    expected |= committed("ocl_bench/models", "*.safetensors") | {"ocl_bench/py.typed"}
    expected |= committed("ocl_bench/pages", "*.j2") | committed("ocl_bench/pages", "*.css")
    expected |= committed("ocl_bench/pages", "*.js")
    expected |= {f"ocl_bench/_bundled/docs/{name}.md" for name in ("why-numbers-differ", "submit")}
    for folder in ("tasks", "leaderboards"):
        expected |= {f"ocl_bench/_bundled/{name}" for name in committed(folder, "*")}
    assert expected - names == set()
    assert not {name for name in names if name.startswith(("tests/", "docs/", "benchmarks/"))}


def test_wheel_is_small_and_says_what_it_needs(wheel: Path) -> None:
    assert wheel.stat().st_size < LARGEST
    assert sum(path.stat().st_size for path in (ROOT / "ocl_bench").rglob("*.safetensors")) < LARGEST_WEIGHTS
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = message_from_bytes(archive.read(name))
    needed = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert not [line for line in needed if re.match("accelerate|datasets|faiss|matplotlib|torchmetrics|transf", line)]
    assert {"all", "hub", "knn", "plots", "train", "video"} <= set(metadata.get_all("Provides-Extra", []))
    versions = {f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13, 14)}
    assert versions <= set(metadata.get_all("Classifier", []))
    assert {"Documentation", "Changelog"} <= {line.split(",")[0] for line in metadata.get_all("Project-URL", [])}


def test_source_archive_holds_what_its_tests_read(source: Path) -> None:
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    expected = committed("ocl_bench", "*.py") | committed("tests", "*.py") | committed("docs", "*.md")
    expected |= {
        "action.yml",
        "constraints.txt",
        "docs/_toc.yml",
        "docs/conf.py",
        "pyproject.toml",
        ".ci/run",
        "Dockerfile",
    }
    assert expected - names == set()


def test_context_of_the_image_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    """`.dockerignore` lets through what the wheel is built of."""
    context = tmp_path / "context"
    context.mkdir()
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line.startswith("!"):
            source, place = ROOT / line[1:], context / line[1:]
            place.parent.mkdir(exist_ok=True)
            shutil.copytree(source, place) if source.is_dir() else shutil.copy(source, place)
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path), cwd=context)
    (built,) = tmp_path.glob("ocl_bench-*.whl")
    names = [{name for name in zipfile.ZipFile(one).namelist() if "__pycache__" not in name} for one in (wheel, built)]
    assert names[0] == names[1]


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


def test_installed_command_runs_the_main_job(installed: Path, tmp_path: Path) -> None:
    command = ("eval", "--model", "dias", "--task", "clevrtex", "--limit", "2")
    shown = outside(installed, tmp_path, "from ocl_bench.cli import main; main()", *command)
    assert "clevrtex v1, data: embedded" in shown and "metric=mbo_fg" in shown

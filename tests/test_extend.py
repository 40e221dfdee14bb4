"""`docs/extend.md` is a package that works: a metric, a reader, two tasks, a family and a model from outside.

The page is written to a folder that looks like an installed package, so that real entry points are read, in processes
of their own. Nothing in `ocl_bench` is patched.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path

import forked
import numpy as np
import pytest

PAGE = Path(__file__).parents[1] / "docs" / "extend.md"
FILE = re.compile(r"^```\w+\n# (\S+\.\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMANDS = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)


def install(folder: Path, version: str = "0.1") -> Path:
    """The files of the page, and the metadata that `pip install` would leave."""
    for name, content in FILE.findall(PAGE.read_text()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (folder / "ocl_toys" / "__init__.py").touch()
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = folder / f"ocl_toys-{version}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {version}\n")
    groups = [
        "\n".join([f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())])
        for group, entries in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n\n".join(groups) + "\n")
    return folder


def write_data(root: Path) -> None:
    """Six images of one or two bright rectangles."""
    images, labels = np.full((6, 32, 32, 3), 40, np.uint8), np.zeros((6, 32, 32), np.uint8)
    for index in range(6):
        for number in range(1, 2 + index % 2):
            place = slice(4 + 14 * (number - 1), 12 + 14 * (number - 1)), slice(5, 20 + index)
            labels[index][place], images[index][place] = number, 200
    (root / "toys").mkdir(parents=True)
    np.savez(root / "toys" / "test.npz", images=images, labels=labels)


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = install(tmp_path_factory.mktemp("toys"))
    write_data(folder / "data")
    return folder


def run(folder: Path, *arguments: str, code: int = 0) -> forked.Done:
    environment = {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}
    environment |= {"OCL_BENCH_RESULTS": str(folder / "results"), "OCL_BENCH_CACHE": str(folder / "cache")}
    done = forked.run(forked.command, *arguments, cwd=folder, environment=environment)
    assert done.returncode == code, done.stderr
    return done


def test_every_command_of_the_page_works(toys: Path) -> None:
    (commands,) = COMMANDS.findall(PAGE.read_text())
    for line in commands.splitlines():
        run(toys, *line.split()[1:])
    boards = {path.name for path in (toys / "results" / "leaderboards").iterdir()}
    assert {"toy-counting.csv", "toy-counting.md"} <= boards


def test_metric_and_reader_give_the_right_number(toys: Path) -> None:
    """A bright pixel is an object's: where there is one object it is found whole, where there are two neither is."""
    arguments = ["--task", "toy-discovery", "--data-root", "data", "--json"]
    result = json.loads(run(toys, "eval", "--model", "brightness", *arguments).stdout)
    assert result["metrics"]["found_half"]["value"] == pytest.approx(0.5)
    assert result["metrics"]["ari"]["value"] > 0.9
    assert (result["model"]["card"], result["data"]["kind"]) == ("", "supplied")


def test_the_family_counts(toys: Path) -> None:
    """The blind grid has nine segments, one of them background; every other image has one object, the others two."""
    arguments = ["--task", "toy-counting", "--data-root", "data", "--json"]
    result = json.loads(run(toys, "eval", "--model", "grid", *arguments).stdout)
    metric = result["metrics"]["count_error"]
    assert (metric["value"], metric["direction"]) == (pytest.approx(8 - 1.5), -1)
    assert "count_error" in metric["signature"]


def test_another_version_of_the_package_is_another_result(toys: Path, tmp_path: Path) -> None:
    newer = install(tmp_path, version="0.2")
    write_data(newer / "data")
    arguments = ["eval", "--model", "grid", "--task", "toy-discovery", "--data-root", "data", "--json"]
    keys = [json.loads(run(folder, *arguments).stdout)["identity"]["key"] for folder in (toys, newer)]
    assert keys[0] != keys[1]


def test_a_card_by_path_is_known_by_its_own_name(toys: Path) -> None:
    arguments = ["--model", "my-card.yaml", "--task", "toy-discovery", "--data-root", "data", "--json"]
    result = json.loads(run(toys, "eval", *arguments).stdout)
    assert (result["model"]["name"], result["model"]["options"]) == ("brightness-low", {"threshold": 0.3})
    assert "a low threshold" in run(toys, "show", "my-card.yaml").stdout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "dias"}, "field 'name': 'dias' is the name of a bundled model"),
        ({"role": "ceiling"}, "field 'role': 'ceiling' is reserved for bundled models"),
        ({"source": "ocl_toys.models:missing"}, "field 'source': ocl_toys.models:missing cannot be imported"),
        ({"families": ["counting", "painting"]}, "field 'families': 'painting' is not a family"),
        ({"weights": "gone.safetensors"}, "gone.safetensors does not exist"),
    ],
)
def test_a_wrong_card_is_one_line(toys: Path, change: dict[str, object], message: str) -> None:
    card = {"name": "mine", "source": "ocl_toys.models:build", **change}
    (toys / "wrong.yaml").write_text(json.dumps(card))
    arguments = ["--model", "wrong.yaml", "--task", "toy-discovery", "--data-root", "data"]
    done = run(toys, "eval", *arguments, code=2)
    assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_a_task_of_the_package_refuses_fields_of_other_families(toys: Path) -> None:
    text = (toys / "ocl_toys" / "toy-discovery.yaml").read_text()
    (toys / "wrong-task.yaml").write_text(text.replace("score_at: 32", "score_at: 32, min_pixels: 4"))
    done = run(toys, "eval", "--model", "grid", "--task", "wrong-task.yaml", code=2)
    assert "field 'protocol.min_pixels': is not a field of discovery" in done.stderr

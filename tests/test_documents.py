"""Every block of every document is run, or checked by what reads its like: a command by the command line's parser."""

from __future__ import annotations

import functools
import itertools
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import forked
import pytest
import torch
import yaml
from documents import DOCS, FENCE, PAGES, ROOT, blocks, commands, complaint
from report_runs import own_images
from torch import nn

import ocl_bench
from ocl_bench.cards.task import load_task
from ocl_bench.core import entry_points
from ocl_bench.core.paths import bundled
from ocl_bench.data.readers.folder import FolderOptions
from ocl_bench.evaluation.matrix import expand
from ocl_bench.metrics import find_metric
from ocl_bench.results.published import load_all
from ocl_bench.tables.comparison.claims import load_claims
from ocl_bench.training import read_recipe

WRITTEN_AS_A_PACKAGE = "extend.md"
"""Its blocks are the files of a package, which tests/test_extend.py installs and runs."""
RUNS_ITSELF = ("README.md", "why-numbers-differ.md", WRITTEN_AS_A_PACKAGE)
"""Pages whose Python is run by a test of their own, with what it prints."""
QUICK = ("list", "show", "compare dias slot-attention --task", "validate", "cite", "new")
"""Verbs that need neither data nor minutes: their lines are run, where the files and cards that they name are there."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_says_its_language(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    kinds = {kind for kind, _ in FENCE.findall(text)}
    assert kinds <= {"bash", "python", "yaml", "toml", "json", "text"}
    assert text.count("\n```") == 2 * len(FENCE.findall(text)), "a fence is not closed, or is indented"


# ------------------------------------------------------------------------------------------------------- commands


@pytest.mark.parametrize(("page", "line"), list(commands()))
def test_documented_command_is_understood(
    page: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(_run_yaml())
    assert complaint(line) is None, f"{page}: {line}"


@pytest.mark.parametrize(
    "line",
    [
        "ocl-bench evaluate",
        "ocl-bench eval --modell dias",
        "ocl-bench eval --model dias --task clevrtex --limit many",
        "ocl-bench export --checkpoint slotcon.pth --to nothing",
        "ocl-bench data fetch coco",
        "python benchmarks/nothing.py",
        "python benchmarks/worlds.py --nothing",
        "torchrun --nproc-per-node 2 -m ocl_bench.cli train --modell dias",
        "make nothing",
        "pip install 'ocl-bench[nothing]'",
        "ocl-bench-2 eval",
    ],
)
def test_the_check_of_commands_sees_mistakes(line: str) -> None:
    assert complaint(line) is not None


def quick_lines() -> list[str]:
    quick = tuple(f"ocl-bench {verb}" for verb in QUICK)
    lines = [line for page, line in commands() if line.startswith(quick) and page != WRITTEN_AS_A_PACKAGE]
    return [line for line in dict.fromkeys(lines) if "/data" not in line]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the lines name by a relative path."""
    folder = tmp_path_factory.mktemp("lines")
    (folder / "leaderboards").symlink_to(ROOT / "leaderboards")
    return folder


@pytest.mark.parametrize("line", quick_lines())
def test_quick_commands_run(line: str, place: Path) -> None:
    words = shlex.split(line)[1:]
    words = words[: words.index(">")] if ">" in words else words
    done = forked.run(forked.command, *words, cwd=place)
    assert done.returncode == 0, done.stderr


def test_documented_options_of_eval_exist() -> None:
    rows = re.findall(r"^\| `(--[\w-]+)([^`]*)`", (DOCS / "quickstart.md").read_text(), re.MULTILINE)
    assert len(rows) > 5
    help_text = forked.run(forked.command, "eval", "--help", environment={"COLUMNS": "200"}).stdout
    assert {name for name, _ in rows if name not in help_text} == set()


def test_documented_cards_exist() -> None:
    pairs = {pair for _, line in commands() for pair in itertools.pairwise(shlex.split(line))}
    several = [name for option, name in pairs if option == "--task" and not name.endswith(".yaml")]
    tasks = {name for names in several for name in expand(names, "task")}
    toys = {"toy-discovery", "toy-counting"}  # of the package that docs/extend.md writes, which has a test of its own
    assert tasks and {name for name in tasks - toys if not (bundled("tasks") / f"{name}.yaml").is_file()} == set()


# --------------------------------------------------------------------------------------------------------- Python


class Net(nn.Module):
    """A module of a user: masks by a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.layer(images)
        return {"masks": logits.softmax(1), "logits": logits}


class Halves:
    """A model of a user: the left and the right half."""

    def predict(self, batch: ocl_bench.Batch) -> ocl_bench.Prediction:
        masks = torch.zeros(len(batch), 2, 2, 2)
        masks[:, 0, :, 0] = masks[:, 1, :, 1] = 1
        return ocl_bench.Prediction(masks=masks, mask_source="clusters")


def add_a_model() -> dict[str, Any]:
    return {"net": Net(), "my_model": Halves()}


def training() -> dict[str, Any]:
    net = Net()
    batches = [torch.rand(2, 3, 16, 16)] * 100
    optimizer = torch.optim.Adam(net.parameters())
    return {"model": net, "optimizer": optimizer, "batches": batches, "Trainer": lambda callbacks: callbacks}


def slotcontrast() -> dict[str, Any]:
    frames = torch.rand(1, 4, 3, 128, 128)
    model = ocl_bench.get_model("slotcontrast").model
    return {"pieces": [(0, frames[:, :2]), (2, frames[:, 2:])], "model": model}


def report() -> dict[str, Any]:
    return {"other_result": None}


GIVEN: dict[str, Callable[[], dict[str, Any]]] = {
    "add-a-model.md": add_a_model,
    "training.md": training,
    "slotcontrast.md": slotcontrast,
    "report.md": report,
}
"""Names that the blocks of a page take as given, since they are the reader's own."""
WITH_PYTHON = [page for page in PAGES if blocks(page, "python") and page.name not in RUNS_ITSELF]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.name)
def test_python_of_a_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lightning: ModuleType
) -> None:
    """All blocks of a page, one after the other, on four images of each task; committed results are those of ours."""
    task = own_images(tmp_path / "my-images").model_dump(mode="json", exclude_unset=True)
    (tmp_path / "my-task.yaml").write_text(yaml.safe_dump(task))
    (tmp_path / "leaderboards").symlink_to(ROOT / "leaderboards")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OCL_BENCH_RESULTS", str(tmp_path / "results"))
    monkeypatch.setattr(ocl_bench, "evaluate", functools.partial(ocl_bench.evaluate, limit=4, progress=False))
    names: dict[str, Any] = {"__name__": page.stem, "ocl_bench": ocl_bench}
    names |= {name: getattr(ocl_bench, name) for name in ocl_bench.__all__}
    names |= GIVEN.get(page.name, dict)()
    for body in blocks(page, "python"):
        exec(compile("from __future__ import annotations\n" + body, page.name, "exec"), names)


@pytest.fixture
def lightning(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A stand-in of Lightning, whose `Callback` has nothing."""
    module = ModuleType("lightning.pytorch")
    module.Callback = type("Callback", (), {})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lightning", ModuleType("lightning"))
    monkeypatch.setitem(sys.modules, "lightning.pytorch", module)
    monkeypatch.delitem(sys.modules, "ocl_bench.training.lightning", raising=False)
    return module


# ----------------------------------------------------------------------------------------------- YAML, TOML, JSON


def check_task_card(body: str, folder: Path) -> None:
    card = folder / "card.yaml"
    card.write_text(body)
    for name in load_task(card).metrics:
        find_metric(name)  # raises for a name that no family knows


def check_recipe(body: str, folder: Path) -> None:
    read_recipe(yaml.safe_load(body)["train"], "page")


def check_model_card(body: str, folder: Path) -> None:
    (folder / "my_model.py").write_text("def build(slots):\n    raise NotImplementedError\n")
    (folder / "my-model.safetensors").touch()
    (folder / "my-card.yaml").write_text(body)
    ocl_bench.load_model_card(folder / "my-card.yaml")


def check_published(body: str, folder: Path) -> None:
    (folder / f"{yaml.safe_load(body)['task']}.yaml").write_text(body)
    assert load_all(folder)


def check_measures(body: str, folder: Path) -> None:
    (measure,) = yaml.safe_load(body)["measures"].values()
    assert set(measure) == {"describe", "low", "high"}


def check_claims(body: str, folder: Path) -> None:
    path = folder / f"{yaml.safe_load(body)['method']}.yaml"
    path.write_text(body)
    assert load_claims(path).claims


def check_folder_options(body: str, folder: Path) -> None:
    FolderOptions(**yaml.safe_load(body)["data"]["options"])


def check_settings(body: str, folder: Path) -> None:
    (folder / "run.yaml").write_text(body)
    assert complaint(f"ocl-bench eval --config {folder / 'run.yaml'}") is None


def check_workflow(body: str, folder: Path) -> None:
    assert yaml.safe_load(body)["jobs"]  # tests/tables/gate/test_action.py compares it with the action


YAML: dict[str, Callable[[str, Path], None]] = {
    "family": check_task_card,
    "train": check_recipe,
    "source": check_model_card,
    "rows": check_published,
    "measures": check_measures,
    "claims": check_claims,
    "jobs": check_workflow,
    "model": check_settings,
    "data": check_folder_options,
}
"""What checks a block, by the first of these keys that it has."""


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "yaml")], ids=lambda page: page.name)
def test_yaml_of_a_page_is_read_by_what_reads_it(page: Path, tmp_path: Path) -> None:
    if page.name == WRITTEN_AS_A_PACKAGE:
        pytest.skip("tests/test_extend.py runs the package")
    for number, body in enumerate(blocks(page, "yaml")):
        folder = tmp_path / str(number)
        folder.mkdir()
        content = yaml.safe_load(body)
        kind = next(key for key in YAML if key in content)
        YAML[kind](body, folder)


def _run_yaml() -> str:
    (body,) = [body for body in blocks(DOCS / "quickstart.md", "yaml") if body.startswith("model:")]
    return body


def test_toml_and_json_can_be_read() -> None:
    groups = {value for name, value in vars(entry_points).items() if name.isupper() and isinstance(value, str)}
    for page in PAGES:
        for body in blocks(page, "toml"):
            named = set(tomllib.loads(body)["project"]["entry-points"])
            assert named and named <= groups, page.name
        for body in blocks(page, "json"):
            json.loads(body)

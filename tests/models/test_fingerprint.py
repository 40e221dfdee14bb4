"""A result belongs to the weights and sources that made it: what `build` loads and imports is part of the key."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import forked
import numpy as np
import pytest
import torch
from clevrtex_tree import write_scenes
from torch import nn

from ocl_bench.core.errors import UsageError
from ocl_bench.models.fingerprint import state_fingerprint
from ocl_bench.models.loading import get_model
from ocl_bench.models.sources import source_files, sources_sha256

MODEL = """
import os, pathlib, torch
from net import SHIFT
from ocl_bench import Prediction

class Rows:
    def __init__(self, first): self.first = first
    def predict(self, batch):
        masks = torch.zeros(len(batch), 8, 8, dtype=torch.int64)
        masks[:, int(self.first) + SHIFT:] = 1
        return Prediction(masks=masks, mask_source="clusters")

def build():
    weights = torch.load(pathlib.Path(__file__).parent / "last.pt", weights_only=True)
    return Rows(weights["first"] + int(os.environ.get("ROWS_MORE", "0")))
"""


@pytest.fixture(autouse=True)
def own_imports() -> Iterator[None]:
    """Folders of users come first in `sys.path`; leave them to no other test."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in ("net", "plug", "side", "pack", "pack.inner", "pack.deep"):
        if name not in modules:
            sys.modules.pop(name, None)


class Holder:
    """An object that is not a module, with something in it."""

    def __init__(self, content: object) -> None:
        self.content = content


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_scenes(tmp_path / "data")
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "net.py").write_text("SHIFT = 0\n")
    torch.save({"first": torch.tensor(2)}, tmp_path / "last.pt")
    return tmp_path


def value(folder: Path, **environment: str) -> tuple[float, str]:
    """mbo_fg and key of an evaluation in a process of its own, whose results are kept."""
    arguments = ["--model", "model.py:build", "--task", "clevrtex", "--data-root", "data", "--no-pictures", "--json"]
    environment |= {"OCL_BENCH_RESULTS": str(folder / "results")}
    done = forked.run(forked.command, "eval", *arguments, cwd=folder, environment=environment)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    return result["metrics"]["mbo_fg"]["value"], result["identity"]["key"]


def test_new_weights_helpers_and_environment_are_another_model(folder: Path) -> None:
    first = value(folder)
    assert value(folder) == first, "the same model is reused"
    torch.save({"first": torch.tensor(4)}, folder / "last.pt")
    trained = value(folder)
    (folder / "net.py").write_text("SHIFT = 1\n")
    edited = value(folder)
    other = value(folder, ROWS_MORE="1")
    assert len({first[1], trained[1], edited[1], other[1]}) == 4
    assert len({first[0], trained[0], edited[0], other[0]}) == 4


def test_weights_helpers_and_options_change_the_identity_in_one_process_too(folder: Path) -> None:
    def identity() -> str:
        return get_model(f"{folder / 'model.py'}:build").source_sha256

    first = identity()
    assert identity() == first
    torch.save({"first": torch.tensor(4)}, folder / "last.pt")
    second = identity()
    (folder / "net.py").write_text("SHIFT = 1\n")
    third = identity()
    model = get_model(f"{folder / 'model.py'}:build").model
    assert len({first, second, third}) == 3
    assert model.predict.__globals__["SHIFT"] == 1, "the edited helper is what runs, not the one imported before"


def test_two_folders_with_helpers_of_one_name_do_not_mix(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    (other / "model.py").write_text(MODEL)
    (other / "net.py").write_text("SHIFT = 3\n")
    torch.save({"first": torch.tensor(2)}, other / "last.pt")
    shifts = [get_model(f"{place / 'model.py'}:build").model.predict.__globals__["SHIFT"] for place in (folder, other)]
    assert shifts == [0, 3]


def test_every_part_of_the_state_counts() -> None:
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Dropout(0.1)).eval()
    seen = {state_fingerprint(network)}
    network[0].weight.data[0, 0] += 1
    seen.add(state_fingerprint(network))
    network[1].running_mean[0] += 1
    seen.add(state_fingerprint(network))
    network[2].p = 0.2
    seen.add(state_fingerprint(network))
    assert len(seen) == 4 and None not in seen
    assert state_fingerprint(network) == state_fingerprint(network)


def test_types_and_shapes_count_and_exotic_ones_are_hashed() -> None:
    values = [
        torch.zeros(4),
        torch.zeros(2, 2),
        torch.zeros(4, dtype=torch.float64),
        torch.zeros(4, dtype=torch.bfloat16),
    ]
    values += [torch.zeros(0), torch.tensor(1), torch.zeros(4, dtype=torch.complex64)]
    found = [state_fingerprint(Holder(value)) for value in values]
    assert len(set(found)) == len(values) and None not in found


def test_objects_are_looked_into_and_what_has_no_array_has_no_fingerprint() -> None:
    assert state_fingerprint(Holder([{"a": np.ones(2)}])) != state_fingerprint(Holder([{"a": np.zeros(2)}]))
    assert state_fingerprint(Holder(nn.Linear(2, 2))) is not None
    assert state_fingerprint(Holder(7)) is None


class Slotted:
    __slots__ = ("content",)

    def __init__(self, content: object) -> None:
        self.content = content


class Called(Holder):
    def __call__(self) -> object:
        return self.content


class Attribute(nn.Linear):
    """A module that keeps a value under a private name."""

    def __init__(self, content: object) -> None:
        super().__init__(1, 1)
        self.weight.data.fill_(1)
        self.bias.data.fill_(0)
        self._content = content


def hooked(value: float) -> nn.Module:
    module = Attribute(0)
    module.register_forward_hook(lambda module, inputs, output: output * value)
    return module


@pytest.mark.parametrize(
    "make",
    [
        Attribute,
        hooked,
        lambda value: Attribute(np.float32(value)),
        lambda value: Attribute(complex(value)),
        lambda value: Attribute(str(value).encode()),
        lambda value: Attribute({value}),
        lambda value: Attribute(deque([value])),
        lambda value: Attribute(Path(str(value))),
        lambda value: Attribute(torch.tensor(value)),
        lambda value: Attribute(partial(max, value)),
        lambda value: Attribute(lambda: value),
        lambda value: Attribute(Called(value)),
        lambda value: Attribute(Slotted(value)),
        lambda value: Attribute([[[[[[[[value]]]]]]]]),
        lambda value: nn.Sequential(Attribute(value)),
    ],
)
def test_every_value_that_a_model_holds_counts(make: Callable[[float], nn.Module]) -> None:
    first, again, other = (state_fingerprint(make(value)) for value in (0.2, 0.2, 0.7))
    assert first == again != other


def test_objects_that_hold_each_other_are_looked_into_once() -> None:
    """Without this, forty objects that all hold the next two would be walked along 2 ** 40 paths."""
    chain: list[Holder] = [Holder(1.0)]
    for _ in range(40):
        chain.append(Holder([chain[-1], chain[-1]]))
    model = Attribute(chain[-1])
    chain[0].content = [model, 1.0]
    first = state_fingerprint(model)
    assert first is not None and first == state_fingerprint(model)
    chain[0].content = [model, 2.0]
    assert state_fingerprint(model) != first


def test_the_object_of_a_bound_method_counts() -> None:
    first, other = (state_fingerprint(Attribute(Called(value).__call__)) for value in (0.2, 0.7))
    assert first != other


def test_a_model_may_name_its_own() -> None:
    named = Holder(7)
    named.fingerprint = "v1"  # type: ignore[attr-defined]
    called = Holder(7)
    called.fingerprint = lambda: "v1"  # type: ignore[attr-defined]
    assert state_fingerprint(named) == state_fingerprint(called) != None  # noqa: E711
    named.fingerprint = 3  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="fingerprint is 3, expected a text"):
        state_fingerprint(named)


def test_a_model_that_nothing_identifies_is_not_reused(tmp_path: Path) -> None:
    text = "class M:\n    def predict(self, batch): ...\n\ndef build(): return M()\n"
    (tmp_path / "plain.py").write_text(text)
    assert not get_model(f"{tmp_path / 'plain.py'}:build").reusable
    (tmp_path / "named.py").write_text(text.replace("class M:", "class M:\n    fingerprint = 'v1'"))
    assert get_model(f"{tmp_path / 'named.py'}:build").reusable
    assert get_model("grid").reusable and get_model("grid").source_sha256 == "", "bundled models keep their keys"


def test_sources_are_followed_to_any_depth_and_no_further_than_the_users(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    for name, text in (
        ("model.py", "import torch, json\nimport pack.inner\n\ndef late():\n    from side import x\n"),
        ("pack/__init__.py", ""),
        ("pack/inner.py", "from . import deep\n"),
        ("pack/deep.py", "A = 1\n"),
        ("side.py", "x = 1\n"),
        ("unused.py", "x = 1\n"),
    ):
        (tmp_path / name).write_text(text)
    names = {file.relative_to(tmp_path.resolve()).as_posix() for file in source_files(tmp_path / "model.py")}
    assert names == {"model.py", "pack/__init__.py", "pack/inner.py", "pack/deep.py", "side.py"}
    before = sources_sha256(source_files(tmp_path / "model.py"), tmp_path.resolve())
    (tmp_path / "pack" / "deep.py").write_text("A = 2\n")
    assert sources_sha256(source_files(tmp_path / "model.py"), tmp_path.resolve()) != before


OUTSIDE = """
import importlib, logging, os, time
from pathlib import Path
import torch
import net
from net import helper
plug = importlib.import_module("pl" + "ug")
HERE = Path(__file__).parent
FILE = str(HERE / "x")
SCALE = float(os.environ.get("SCALE", "1"))
TABLE = torch.tensor([SCALE])
UNUSED = time.time()
log = logging.getLogger("mine")

def shifted(value): return value + TABLE

class Base:
    steps = int(os.environ.get("STEPS", "1"))

class Net(Base, torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    @property
    def more(self): return helper() + net.SHIFT + plug.MORE

    def predict(self, batch):
        log.info("%s %s", HERE, FILE)
        return [shifted(value) * SCALE for value in (self.steps, self.more)]

def build(): return Net()
"""


def outside(folder: Path, monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    """The identity of a model whose values lie in classes and modules."""
    for name in ("net", "plug"):
        sys.modules.pop(name, None)
    with monkeypatch.context() as patch:
        for name, setting in environment.items():
            patch.setenv(name, setting)
        return get_model(f"{folder / 'model.py'}:build").source_sha256


def test_attributes_of_classes_and_globals_that_the_code_names_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "model.py").write_text(OUTSIDE)
        text = "import os\nSHIFT = int(os.environ.get('SHIFT', '0'))\nINNER = int(os.environ.get('INNER', '0'))\n"
        (tmp_path / place / "net.py").write_text(f"{text}def helper(): return INNER\n")
        (tmp_path / place / "plug.py").write_text("MORE = 1\n")
    folder = tmp_path / "here"
    first = outside(folder, monkeypatch)
    assert first == outside(folder, monkeypatch), "what differs from run to run, and is not named, does not count"
    assert first == outside(tmp_path / "there", monkeypatch), "nor does the place of the folder"
    changed = [outside(folder, monkeypatch, **{name: "2"}) for name in ("SCALE", "STEPS", "SHIFT", "INNER")]
    (folder / "plug.py").write_text("MORE = 2\n")
    changed.append(outside(folder, monkeypatch))
    assert len({first, *changed}) == 6


def test_modules_that_importlib_names_are_sources(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("import importlib\ndef f(): return importlib.import_module('late').x\n")
    (tmp_path / "late.py").write_text("x = 1\n")
    assert [file.name for file in source_files(tmp_path / "model.py")] == ["model.py", "late.py"]

"""The core alone: every extra is hidden from one process, which runs the main job and then what needs an extra."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from ocl_bench.core.paths import PACKAGE

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
OPTIONAL = {
    "accelerate": "accelerate",
    "av": "av",
    "datasets": "datasets",
    "faiss-cpu": "faiss",
    "google-crc32c": "google_crc32c",
    "huggingface_hub": "huggingface_hub",
    "lmdb": "lmdb",
    "matplotlib": "matplotlib",
    "mlflow-skinny": "mlflow",
    "pooch": "pooch",
    "requests": "requests",
    "submitit": "submitit",
    "tensorboard": "tensorboard",
    "timm": "timm",
    "torchmetrics": "torchmetrics",
    "torchvision": "torchvision",
    "trackio": "trackio",
    "transformers": "transformers",
    "wandb": "wandb",
}
"""What an extra installs -> what it is imported as."""

DRIVER = """
import contextlib, io, json, sys, traceback
from pathlib import Path

class Hiding:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in hidden else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)

hidden, jobs = set(json.loads(sys.argv[1])), json.loads(sys.argv[2])
sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
assert not hidden & set(sys.modules)
import ocl_bench
from ocl_bench.cli import main
for name in ocl_bench.__all__:
    getattr(ocl_bench, name)

def run(job):
    if isinstance(job, str):
        return exec(job, {})
    words = []
    for word in job:
        words += [str(next(Path("results").glob("clevrtex/dias/*.json")))] if word == "RESULT" else [word]
    sys.argv = ["ocl-bench", *words]
    main()

done = []
for job in jobs:
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run(job)
        except SystemExit as end:
            code = end.code or 0
        except ocl_bench.core.errors.OclBenchError as error:
            code = error.exit_code
            print(error, file=err)
        except BaseException:
            code = -1
            traceback.print_exc()
    done.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(done))
"""

EVAL = ["eval", "--task", "clevrtex", "--limit", "2", "--model"]
WORKS: list[list[str]] = [
    ["list"],
    [*EVAL, "dias"],
    ["leaderboard", "--task", "clevrtex"],
    ["validate", "RESULT"],
    ["compare", "dias", "slot-attention", "--task", "clevrtex"],
    ["report", "RESULT"],
]
PLOTS = "drawing a picture needs matplotlib; pip install 'ocl-bench[plots]'"
PARQUET = """
import pyarrow, pyarrow.parquet
from pathlib import Path
from ocl_bench.data.readers.imagenet_hub import find_rows
Path("data").mkdir()
pyarrow.parquet.write_table(pyarrow.table({"image": ["a"], "label": [0]}), "data/train-0.parquet")
find_rows(Path("."), "train")
"""
REFUSED: list[tuple[list[str] | str, str]] = [
    (["figures", "--task", "clevrtex"], PLOTS),
    (["compare", "dias", "slot-attention", "--task", "clevrtex", "--out", "x.png"], PLOTS),
    ("import ocl_bench; from pathlib import Path\n"
     "ocl_bench.read_result(next(Path('results').glob('clevrtex/dias/*.json'))).plot()", PLOTS),
    (["train", "--model", "dias"], "training needs accelerate; pip install 'ocl-bench[train]'"),
    ([*EVAL, "dias", "--log", "wandb"], "--log wandb needs wandb; pip install 'ocl-bench[wandb]'"),
    ([*EVAL, "dias", "--log", "tensorboard"],
     "--log tensorboard needs tensorboard; pip install 'ocl-bench[tensorboard]'"),
    ([*EVAL, "grid", "--launcher", "local"], "--launcher needs submitit; pip install 'ocl-bench[cluster]'"),
    ([*EVAL, "dias", "--log", "trackio"], "--log trackio needs trackio; pip install 'ocl-bench[trackio]'"),
    ([*EVAL, "dias", "--log", "mlflow"], "--log mlflow needs mlflow; pip install 'ocl-bench[mlflow]'"),
    (["eval", "--task", "imagenet-knn", "--model", "hub:facebook/dino-vits16"],
     "model hub:facebook/dino-vits16 needs huggingface_hub; pip install 'ocl-bench[hub]'"),
    (["eval", "--task", "imagenet-knn", "--model", "timm:vit_tiny_patch16_224"],
     "model timm:vit_tiny_patch16_224 needs timm; pip install 'ocl-bench[timm]'"),
    ([*EVAL, "dias", "--data-root", "hf://datasets/a/b"],
     "hf://datasets/a/b needs huggingface_hub; pip install 'ocl-bench[hub]'"),
    (PARQUET, ".: reading its Parquet files needs datasets; pip install 'ocl-bench[hub]'"),
    ("from pathlib import Path; from ocl_bench.data.readers.video_files import VideoFile\n"
     "Path('a.mp4').touch(); VideoFile(Path('a.mp4'), 'a', '')",
     "a.mp4: reading it needs av; pip install 'ocl-bench[video]'"),
    ("from pathlib import Path; from ocl_bench.data.readers.lmdb_file import LmdbFile\n"
     "LmdbFile.open(Path('a.lmdb'))", "a.lmdb: reading it needs lmdb; pip install 'ocl-bench[lmdb]'"),
    ("from pathlib import Path; from ocl_bench.data.getting.download import download\n"
     "download('https://localhost/a', Path('a'))", "downloading needs pooch; pip install 'ocl-bench[download]'"),
    ("from ocl_bench.data.getting.catalogue import movi_files\n"
     "movi_files('movi_c')", "downloading needs requests; pip install 'ocl-bench[download]'"),
    ("import ocl_bench.metrics.torchmetrics",
     "ocl_bench.metrics.torchmetrics needs torchmetrics; pip install 'ocl-bench[torchmetrics]'"),
]  # fmt: skip


def names(extra: str) -> set[str]:
    """The packages of an extra, without their versions."""
    return {re.split(r"[<>=\[]", one)[0] for one in EXTRAS[extra]}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of each job, all of them in one process."""
    jobs = [*WORKS, *(job for job, _ in REFUSED)]
    command = [sys.executable, "-c", DRIVER, json.dumps(sorted(OPTIONAL.values())), json.dumps(jobs)]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OCL_BENCH_RESULTS": "results"}
    folder = tmp_path_factory.mktemp("core")
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment, timeout=300)
    assert run.returncode == 0, run.stderr
    return [tuple(one) for one in json.loads(run.stdout.splitlines()[-1])]


def test_every_optional_package_is_hidden() -> None:
    alone = {"requests"}  # comes with pooch
    extras = set(EXTRAS) - {"all", "docs", "test"}
    assert set.union(*map(names, extras)) | alone == set(OPTIONAL)


def test_every_import_is_declared() -> None:
    """A package that only came along with another one would be missing where that one is an extra."""
    nodes = [node for path in PACKAGE.rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    found |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    modules = {name.partition(".")[0] for name in found} - set(sys.stdlib_module_names) - set(OPTIONAL.values())
    declared = {canonicalize_name(re.split("[<>=]", line)[0]) for line in PROJECT["dependencies"]}
    parts = {"pydantic_core": "pydantic", "markupsafe": "jinja2"}  # each is required by the other
    owners = packages_distributions()
    unknown = {one for one in modules if not declared & {*map(canonicalize_name, owners.get(parts.get(one, one), []))}}
    assert unknown == set()


def test_all_installs_every_extra_but_trackers_and_timm() -> None:
    (whole,) = EXTRAS["all"]
    listed = set(re.fullmatch(r"ocl-bench\[(.+)\]", whole)[1].split(","))  # type: ignore[index]
    trackers = {"mlflow", "tensorboard", "trackio", "wandb"}
    assert listed == set(EXTRAS) - trackers - {"all", "docs", "test", "timm"}


@pytest.mark.parametrize("number", range(len(WORKS)), ids=[job[0] for job in WORKS])
def test_the_core_alone_does(done: list[tuple[int, str, str]], number: int) -> None:
    code, out, err = done[number]
    assert code == 0, f"{out}\n{err}"
    if WORKS[number][0] == "eval":
        assert "mbo_fg" in out and "picture:" not in out.replace("no picture:", "")
        assert " ".join(err.split()).count(f"no picture: {PLOTS}") == 1


@pytest.mark.parametrize("number", range(len(REFUSED)), ids=[line for _, line in REFUSED])
def test_what_needs_an_extra_says_so_in_one_line(done: list[tuple[int, str, str]], number: int) -> None:
    code, out, err = done[len(WORKS) + number]
    last = err.strip().splitlines()[-1] if err.strip() else ""
    assert code == 2 and last.removeprefix("error: ") == REFUSED[number][1], f"{code}\n{out}\n{err}"

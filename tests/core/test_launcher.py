"""Variables of launchers, whole, partial and left over: one line that names them, and no wait."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tiny_evaluation import tiny_plan

from ocl_bench.core import launcher
from ocl_bench.core.errors import UsageError
from ocl_bench.evaluation.run import run
from ocl_bench.training.ranks import start_ranks

OTHERS = [
    {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4"},
    {"OMPI_COMM_WORLD_SIZE": "4"},
    {"OMPI_COMM_WORLD_RANK": "1"},
    {"PMI_RANK": "0", "PMI_SIZE": "2"},
    {"PMI_RANK": "1"},
    {"MV2_COMM_WORLD_RANK": "1", "MV2_COMM_WORLD_SIZE": "2"},
    {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "4"},
    {"SLURM_PROCID": "1", "SLURM_NTASKS": "4"},
    {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4", "MASTER_ADDR": "node17", "MASTER_PORT": "29500"},
]
NOTHING = [
    {},
    {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"},
    {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"},  # the script of sbatch, which may start torchrun
    {"PMI_RANK": "a", "PMI_SIZE": ""},
    {"RANK": "0", "WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "4"},
    {"MASTER_ADDR": "node17"},
]


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    others = (name for variables in (*OTHERS, *NOTHING) for name in variables)
    for name in (*launcher.VARIABLES, *others):
        monkeypatch.delenv(name, raising=False)


def set_all(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("variables", OTHERS, ids=str)
def test_a_training_without_rank_and_world_size_is_refused_at_once(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_all(monkeypatch, variables)
    start = time.monotonic()
    with pytest.raises(UsageError) as caught:
        start_ranks("cpu", "fp32")
    text = str(caught.value)
    assert time.monotonic() - start < 5 and "\n" not in text
    own = [f"{name}={value}" for name, value in variables.items() if not name.startswith("MASTER")]
    assert all(one in text for one in own) and "unset" in text and "torchrun" in text


@pytest.mark.parametrize("variables", OTHERS[:1] + OTHERS[-2:], ids=str)
def test_an_evaluation_says_that_each_process_computes_everything(
    variables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is right all the same: equal evaluations wait for each other."""
    set_all(monkeypatch, variables)
    with caplog.at_level("INFO", "ocl_bench"):
        assert run(tiny_plan(), results=tmp_path, progress=False).counts.scored == 10
    said = [record.getMessage() for record in caplog.records if "torchrun" in record.getMessage()]
    assert len(said) == 1 and "process 1 of 4" in said[0] and "evaluates everything" in said[0]


@pytest.mark.parametrize("variables", NOTHING, ids=str)
def test_one_process_is_one_process(
    variables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    set_all(monkeypatch, variables)
    with caplog.at_level("INFO", "ocl_bench"):
        assert start_ranks("cpu", "fp32").size == 1
        run(tiny_plan(), results=tmp_path, progress=False)
    assert "torchrun" not in caplog.text


def test_a_rank_without_a_world_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {"RANK": "1"})
    with pytest.raises(UsageError, match=r"RANK=1 .*unset RANK"):
        start_ranks("cpu", "fp32")

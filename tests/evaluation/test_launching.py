"""Jobs of `--launcher`: on this machine for real, and on a Slurm whose programs are small scripts of this test."""

from __future__ import annotations

import operator
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ocl_bench.cli import app
from ocl_bench.core.errors import UsageError
from ocl_bench.core.paths import bundled
from ocl_bench.evaluation.launching import Launcher, Outcome, run_as_jobs
from ocl_bench.evaluation.matrix import evaluate_matrix

pytest.importorskip("submitit")

SLURM = {
    "sbatch": 'export SLURM_JOB_ID=$$\nsetsid bash "$1" >/dev/null 2>&1 &\necho "Submitted batch job $$"',
    "srun": """
        while [[ $1 == --* ]]; do
            [[ $1 == --output ]] && out=${2//%j/$SLURM_JOB_ID} && shift
            [[ $1 == --error ]] && err=${2//%j/$SLURM_JOB_ID} && shift
            shift
        done
        export SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_NODEID=0 SLURM_PROCID=0 SLURM_LOCALID=0
        exec "$@" >>"${out//%t/0}" 2>>"${err//%t/0}" """,
    "sacct": "echo 'JobID|State|NodeList'",
    "scancel": "",
}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in SLURM.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def all_of(launcher: Launcher, call: Any, arguments: list[tuple[Any, ...]], folder: Path) -> list[Outcome]:
    outcomes = dict(run_as_jobs(call, arguments, launcher, folder))
    return [outcomes[number] for number in range(len(arguments))]


def test_local_jobs_return_what_their_calls_return(tmp_path: Path) -> None:
    outcomes = all_of(Launcher("local", 2), operator.sub, [(5, 3), (9, 1), (4, 4)], tmp_path)
    assert outcomes == [Outcome(2), Outcome(8), Outcome(0)]


def test_slurm_jobs_return_what_their_calls_return(tmp_path: Path, slurm: None) -> None:
    launcher = Launcher("slurm", 2, {"partition": "gpu", "gpus_per_node": 1})
    assert all_of(launcher, operator.sub, [(5, 3), (9, 1)], tmp_path / "jobs") == [Outcome(2), Outcome(8)]
    script = next((tmp_path / "jobs").glob("*_submission.sh")).read_text()
    for line in ("partition=gpu", "gpus-per-node=1", "job-name=ocl-bench", "time=1440"):
        assert f"#SBATCH --{line}\n" in script


def test_a_job_that_dies_is_started_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mark = tmp_path / "mark"
    dies_once = (
        f"7 if __import__('os').path.exists({str(mark)!r}) else (open({str(mark)!r}, 'w'), __import__('os')._exit(9))"
    )
    assert all_of(Launcher("local", 1), eval, [(dies_once,)], tmp_path / "jobs") == [Outcome(7)]
    assert "ended without a result" in caplog.text and "attempt 2 of 3" in caplog.text


def test_a_job_that_always_dies_leaves_the_others_alone(tmp_path: Path) -> None:
    outcomes = all_of(Launcher("local", 2), eval, [("1 / 0",), ("8",)], tmp_path)
    assert outcomes[1] == Outcome(8) and outcomes[0].value is None
    assert "ZeroDivisionError: division by zero (log: " in outcomes[0].problem


def test_jobs_are_cancelled_when_nobody_waits_for_them(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    late = f"(__import__('time').sleep(30), open({str(mark)!r}, 'w'))"
    outcomes = run_as_jobs(eval, [("1",), (late,)], Launcher("local", 2), tmp_path / "jobs")
    assert next(outcomes) == (0, Outcome(1))
    outcomes.close()
    assert not mark.exists()


@pytest.mark.parametrize(
    ("launcher", "message"),
    [
        ({"kind": "pbs"}, "--launcher pbs: unknown launcher; use slurm or local"),
        ({"kind": "local", "jobs": 0}, "--jobs 0: at least one job must run"),
        ({"kind": "local", "options": {"partition": "gpu"}}, "--job-option partition: unknown; there are "),
        ({"kind": "slurm"}, "there is no `srun` here"),
    ],
)
def test_what_no_launcher_can_do(launcher: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        list(run_as_jobs(len, [("",)], Launcher(**launcher), tmp_path))


def test_cells_are_those_of_one_process(tmp_path: Path) -> None:
    """The same keys and numbers, in the same order; a model that does not fit is a cell as ever."""
    options: dict[str, Any] = {"limit": 2, "progress": False}
    alone = evaluate_matrix(["grid", "encoder"], ["clevrtex"], results=tmp_path / "alone", **options)
    jobs = evaluate_matrix(
        ["grid", "encoder"], ["clevrtex"], results=tmp_path / "jobs", launcher=Launcher("local", 2), **options
    )
    assert [(cell.model, cell.task, cell.status, cell.text) for cell in jobs] == [
        (cell.model, cell.task, cell.status, cell.text) for cell in alone
    ]
    assert jobs[0].result is not None and alone[0].result is not None
    assert jobs[0].result.identity.key == alone[0].result.identity.key
    assert jobs[0].result.metrics == alone[0].result.metrics and jobs[0].result.path is not None
    assert [path.name for path in (tmp_path / "jobs").iterdir()] == ["clevrtex"], "logs of jobs that worked are gone"


def test_a_card_of_your_own_is_a_task_of_jobs(tmp_path: Path) -> None:
    card = tmp_path / "my-card.yaml"
    card.write_text((bundled("tasks") / "clevrtex.yaml").read_text().replace("name: clevrtex\n", "name: my-own\n"))
    cells = evaluate_matrix(
        ["grid", "encoder"],
        [str(card)],
        results=tmp_path / "results",
        launcher=Launcher("local"),
        limit=2,
        progress=False,
    )
    assert [(cell.model, cell.task, cell.status) for cell in cells] == [
        ("grid", "my-own", "ok"),
        ("encoder", "my-own", "n/a"),
    ]


def test_command_line(tmp_path: Path) -> None:
    arguments = ["eval", "-m", "grid", "-t", "clevrtex", "--limit", "2", "--results", str(tmp_path)]
    shown = CliRunner().invoke(app, [*arguments, "--job-option", "partition=gpu"])
    assert shown.exit_code == 2 and "--job-option: is for --launcher slurm or local" in shown.output
    shown = CliRunner().invoke(app, [*arguments, "--launcher", "cloud"])
    assert shown.exit_code == 2 and "--launcher cloud: unknown launcher" in shown.output
    shown = CliRunner().invoke(app, [*arguments, "--launcher", "local", "--job-option", "partition=gpu"])
    assert shown.exit_code == 2 and "--job-option partition: unknown" in shown.output
    assert not any(tmp_path.iterdir())

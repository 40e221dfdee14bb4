"""Shared parts of the verbs: options and the parsing of their texts, errors in one line, JSON on stdout."""

from __future__ import annotations

import errno
import os
import shlex
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from enum import StrEnum
from importlib.metadata import version as package_version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from ..core.errors import DataMissingError, OclBenchError, UsageError
from ..core.files import check_out
from ..core.log import print_on_stderr
from ..core.terminal import fitted, fitted_command, json_for
from ..models.options import TypedOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..evaluation.matrix import MatrixCell
    from ..results.record import Failure, Result
    from ..tables.gate.report import GateReport
    from ..tables.validation.examine import Validation


DEBUG = "ocl_bench.debug"
"""Whether the traceback of an error is shown, too: a key of `Context.meta`, which all verbs share."""


class ErrorsInOneLine(TyperGroup):
    """Turns errors into one line on stderr and their exit code; `--debug` or OCL_BENCH_DEBUG=1 adds the traceback."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take `--debug` out of the arguments, wherever it stands: it belongs to the program, not to a verb."""
        ctx.meta[DEBUG] = "--debug" in args or os.environ.get("OCL_BENCH_DEBUG", "0") not in ("", "0")
        parsed: list[str] = super().parse_args(ctx, [argument for argument in args if argument != "--debug"])
        return parsed

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the verbs below their purposes, summaries whole; a group without purposes, as `data`, has one list."""
        panels: dict[str, list[tuple[str, str]]] = {}
        width = max(map(len, self.commands))
        for name, command in self.commands.items():
            text = command.get_short_help_str(limit=200)
            panels.setdefault(getattr(command, "rich_help_panel", None) or "Commands", []).append(
                (name.ljust(width), text)
            )
        for title, rows in panels.items():
            with formatter.section(title):
                formatter.write_dl(rows)

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        print_on_stderr()
        try:
            return super().invoke(ctx)
        except OclBenchError as error:
            _show_traceback(ctx)
            typer.echo(f"error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(error.exit_code) from error
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # a closed pipe is no error of a command such as `ocl-bench list | head -1`
            _show_traceback(ctx)
            place = f"{error.filename}: " if error.filename is not None else ""
            text = " ".join((error.strerror or str(error)).split())
            typer.echo(f"error: {place}{text}; is it there, writable, with space left?", err=True)
            raise typer.Exit(UsageError.exit_code) from error
        except KeyboardInterrupt as error:
            typer.echo("\ninterrupted; finished parts are kept, run the same command again to go on", err=True)
            raise typer.Exit(130) from error
        except Exception as error:
            if isinstance(error, typer.Abort) or hasattr(error, "exit_code"):
                raise  # the exits of typer carry their code
            _show_traceback(ctx)
            typer.echo(f"error: {_unexpected(error)}", err=True)
            raise typer.Exit(UsageError.exit_code) from error


def print_versions(wanted: bool) -> None:
    """Print the versions of suite (with the commit of a checkout), Python and torch, without importing torch."""
    if not wanted:
        return
    from ..results.provenance import git_state, package_versions

    versions = package_versions()
    commit, dirty = git_state()
    checkout = f" (commit {commit[:12]}{', edited' if dirty else ''})" if commit else ""
    typer.echo(f"ocl-bench {package_version('ocl-bench')}{checkout}")
    typer.echo(f"python {versions['python']}\ntorch {versions['torch']}")
    raise typer.Exit


def _show_traceback(ctx: Any) -> None:
    """Print the traceback of the error that is being handled, where `--debug` asks for it; the line follows it."""
    if ctx.meta.get(DEBUG):
        typer.echo(traceback.format_exc(), err=True, nl=False)


class SeveralValues(TyperCommand):
    """A verb whose option `--against` takes all values up to the next option, and `--config` options from a file."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Write `--against` before each of its values, as the parser expects them, and the options of the file."""
        if any(one.name == "config" for one in self.params) and any(one.startswith("--config") for one in args):
            from .config import with_config

            args = with_config(args, self.params)
        spelled: list[str] = []
        several = False
        for argument in args:
            if argument.startswith("-"):
                several = argument == "--against" and any(one.name == "against" and one.multiple for one in self.params)
                spelled += [] if several else [argument]
            else:
                spelled += ["--against", argument] if several else [argument]
        parsed: list[str] = super().parse_args(ctx, spelled)
        return parsed


def _unexpected(error: Exception) -> str:
    """One line about an error that nobody foresaw. Exit code 1 would say that samples failed or a number moved."""
    text = " ".join(str(error).split())[:300]
    # torch raises RuntimeError, or a subclass for a GPU.
    if isinstance(error, MemoryError) or "can't allocate memory" in text or "out of memory" in text:
        return "out of memory; try a smaller batch, a smaller image, a smaller model or a smaller card"
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(last.filename).name} line {last.lineno}"
    return f"{type(error).__name__}: {text} ({place}); --debug or OCL_BENCH_DEBUG=1 shows where it came from"


class What(StrEnum):
    """Kinds of names that `list` can list."""

    tasks = "tasks"
    models = "models"
    metrics = "metrics"


class ExportTarget(StrEnum):
    """Libraries whose tensor names `export` can write."""

    torchvision = "torchvision"
    detectron2 = "detectron2"


class Annotations(StrEnum):
    """Services for which `regress` marks its findings; `auto` looks at the environment."""

    auto = "auto"
    github = "github"
    none = "none"


ModelName = Annotated[str, typer.Option("--model", "-m", help="A card name, name:SEED or path.py:build.")]
TaskName = Annotated[str, typer.Option("--task", "-t", help="A card name or the path of a task card.")]
DataRoot = Annotated[Path | None, typer.Option(help="Folder with the data of all tasks; by default OCL_BENCH_DATA.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first N images.")]
Split = Annotated[str | None, typer.Option(help="Another split than the card's.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images in a batch.")]
Workers = Annotated[str, typer.Option(help="Processes that read ahead: a number, or auto for some in a long run.")]
Seeds = Annotated[str | None, typer.Option(help="Noise seeds, such as 0,1,2 or 0..2; by default the card's.")]
Options = Annotated[list[str] | None, typer.Option("--option", "-o", help="key=value for the model; repeatable.")]
Checkpoint = Annotated[Path | None, typer.Option(help="Weights (.safetensors) instead of the bundled ones.")]
TrainingSeed = Annotated[
    int | None, typer.Option(min=0, help="Number of the training: results of one name are seeds of one method.")
]
Supervision = Annotated[
    str | None, typer.Option(help="What the model saw in training, encoder included: none, boxes or masks.")
]
Results = Annotated[Path | None, typer.Option(help="Folder for results; by default OCL_BENCH_RESULTS or ./results.")]
Json = Annotated[bool, typer.Option("--json", help="Print exactly the result as JSON on stdout.")]
Log = Annotated[str | None, typer.Option(help="Also log to wandb, tensorboard, trackio or mlflow.")]
Offline = Annotated[bool, typer.Option(help="Open no network connection.")]


def print_result(
    result: Result,
    json: bool,
    references: Sequence[Result] = (),
    paths: dict[str, Path | None] | None = None,
    next_command: str = "",
) -> None:
    """Print a result as JSON or as a table, the first failed samples on stderr, and one line to search for."""
    if json:
        typer.echo(json_for(sys.stdout, result.to_json()), nl=False)
    else:
        from .console import make_console, print_paths, print_result

        console = make_console()
        print_result(console, result, references)
        print_paths(console, paths or {"result": result.path, "per image": result.rows_path})
        if next_command:
            print_next(next_command)
    print_failed(result.counts.failed, f"listed in {result.path}")
    _print_summaries([summary(result)], json)


def print_failed(failed: Sequence[Failure], where: str) -> None:
    """Print the first failed samples on stderr, and where the others are found."""
    for failure in failed[:5]:
        typer.echo(f"failed: {failure.error}", err=True)
    if len(failed) > 5:
        typer.echo(f"failed: {len(failed) - 5} more, {where}", err=True)


def _print_summaries(lines: Sequence[str], json: bool) -> None:
    """Print the last lines of a run; with --json they must not be on stdout."""
    for line in lines:
        typer.echo(line, err=json)


def summary(result: Result) -> str:
    """A result in one line, such as `result: model=dias task=clevrtex metric=mbo_fg value=0.61 ..`.

    Texts with spaces are quoted as a shell does it.
    """
    metric = result.metrics[result.task.main]
    fields = {
        "model": result.model.name,
        "task": result.task.name,
        "metric": result.task.main,
        "value": "none" if metric.value is None else f"{metric.value:.6g}",
        "interval": ",".join(f"{end:.6g}" for end in metric.ci95) if metric.ci95 else "none",
        "key": result.identity.key,
    }
    return f"result: {' '.join(f'{name}={shlex.quote(value)}' for name, value in fields.items())}"


def _summary_of(cell: MatrixCell) -> str:
    """A cell in one line; without a result its status stands in place of the metric."""
    if cell.result is not None:
        return summary(cell.result)
    return f"result: model={shlex.quote(cell.model)} task={cell.task} status={shlex.quote(cell.status)}"


def print_matrix(cells: Sequence[MatrixCell], json: bool) -> None:
    """Print the main metric of each model on each task, or one JSON object for each of them."""
    summaries = list(map(_summary_of, cells))
    if json:
        print_json(
            [
                {
                    "model": cell.model,
                    "task": cell.task,
                    "status": cell.status,
                    "text": cell.text,
                    "main": cell.result.task.main if cell.result else None,
                    "value": cell.result.value(cell.result.task.main) if cell.result else None,
                    "path": str(cell.result.path) if cell.result else None,
                }
                for cell in cells
            ]
        )
        _print_summaries(summaries, json)
        return
    from .console import make_console, print_cells

    print_cells(make_console(), cells)
    for cell in cells:
        if cell.failed:
            typer.echo(f"{cell.status}: {cell.model} on {cell.task}: {' '.join(cell.text.split())}", err=True)
    _print_summaries(summaries, json)


def print_gate(report: GateReport, json: bool, annotations: Annotations) -> None:
    """Print the report of the gate, and its findings as annotations on stderr, where they cannot spoil JSON."""
    from dataclasses import asdict

    if json:
        findings = [asdict(finding) | {"file": str(finding.file)} for finding in report.findings]
        print_json({"failed": report.failed, "findings": findings, "accepted": [str(path) for path in report.accepted]})
    else:
        for line in report.lines():
            typer.echo(line)
    on_github = os.environ.get("GITHUB_ACTIONS") == "true"
    if annotations is Annotations.github or (annotations is Annotations.auto and on_github):
        for line in report.annotations():
            typer.echo(line, err=True)  # as it is: GitHub reads it


def validation_content(validation: Validation) -> dict[str, Any]:
    """The fields of a validation, ready for JSON."""
    from dataclasses import asdict

    return {"valid": validation.valid, **asdict(validation)}


def print_validation(validation: Validation) -> None:
    """Print one line for the file, and one for each problem and for each part that was not checked."""
    again = f", {validation.rescored} samples scored again" if validation.rescored else ""
    done = f"{validation.metrics} metrics computed again from {validation.images} rows{again}"
    print_line(f"{'ok     ' if validation.valid else 'REFUSED'}  {validation.file}: {done}")
    for problem in validation.problems:
        print_line(f"    {problem.field}: {problem.message}")
    for text in validation.skipped:
        print_line(f"    not checked: {text}")
    for reason in validation.not_ranked if validation.valid else ():
        print_line(f"    not ranked: {reason.message} ({reason.field})")


def exit_code(result: Result) -> int:
    """1 when samples failed, else 0."""
    return 1 if result.counts.failed else 0


@contextmanager
def own_stdout(json: bool) -> Iterator[None]:
    """With --json, send to stderr whatever a model or a library prints; stdout holds the result and nothing else."""
    if not json:
        yield
        return
    with redirect_stdout(sys.stderr):
        yield


def print_line(text: str, err: bool = False) -> None:
    """Print a statement, on a terminal in lines that fit."""
    typer.echo(fitted(text, sys.stderr if err else sys.stdout), err=err)


def print_next(command: str, err: bool = False) -> None:
    """Print the command to try next."""
    typer.echo(fitted_command(command, sys.stderr if err else sys.stdout), err=err)


def print_json(content: Any) -> None:
    """Indented JSON on stdout."""
    import json

    typer.echo(json_for(sys.stdout, json.dumps(content, indent=2, ensure_ascii=False) + "\n"), nl=False)


def split_option(text: str) -> tuple[str, str]:
    """Split `key=value` into a pair. Raises UsageError for a text without `=` or without a key."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise UsageError(f"--option {text}: write key=value")
    return key, value


def parse_options(texts: list[str] | None) -> TypedOptions:
    """Read `key=value` texts into a mapping; values are YAML. Raises UsageError for a text that cannot be read."""
    return TypedOptions(dict(map(split_option, texts or [])))


def parse_seeds(text: str | None) -> list[int] | None:
    """Read noise seeds from `0,1,2` or `0..2`. Raises UsageError for anything but whole numbers from 0."""
    if text is None:
        return None
    from ..evaluation.tune import parse_values

    seeds = parse_values(text)
    if not all(isinstance(seed, int) and seed >= 0 for seed in seeds):
        raise UsageError(f"--seeds {text}: write numbers such as 0,1,2 or 0..2")
    return seeds


def go_offline(offline: bool) -> None:
    """Forbid downloads to the libraries that could start one. They read these variables when they are imported."""
    if offline:
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "OCL_BENCH_OFFLINE"):
            os.environ[name] = "1"


def out_file(path: Path | None) -> Path | None:
    """A file for `--out`. Raises UsageError for one that cannot be written, before any work is done."""
    if path is not None:
        check_out(path)
    return path


def out_folder(path: Path | None) -> Path | None:
    """A folder for `--out`. Raises UsageError for one that cannot be written, before any work is done."""
    if path is not None:
        check_out(path, folder=True)
    return path


def existing(folders: list[Path] | None) -> list[Path] | None:
    """The folders that `--results` named. Raises DataMissingError for a missing one, before anything is written."""
    for folder in folders or ():
        if not folder.is_dir():
            raise DataMissingError(f"--results {folder}: there is no such folder")
    return folders

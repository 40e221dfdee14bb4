"""The verbs `data where`, `data get`, `data verify` and `data link`. They import what they need when they run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..core import paths
from ..core.errors import DataMissingError, UsageError
from ..core.numbers import counted
from .options import DataRoot, Json, print_json, print_line, print_next

if TYPE_CHECKING:
    from ..cards.task import TaskSpec
    from ..data.getting.catalogue import DataSet

data = typer.Typer(no_args_is_help=True, help="Look for official data, get them, check them, link them.")

Name = Annotated[str, typer.Argument(help="A data set, such as coco or movi_c, or a task; by default all tasks.")]


@data.command()
def where(
    name: Annotated[str | None, typer.Argument(help="A data set or a task; by default all tasks.")] = None,
    data_root: DataRoot = None,
    json: Json = False,
) -> None:
    """Say for each task what would be read, or what is missing; exit code 3 when one is missing."""
    from dataclasses import asdict

    from ..data.getting.work import look

    places = look(_tasks(name), _root(data_root))
    if json:
        print_json([asdict(place) for place in places])
    else:
        for place in places:
            print_line(f"{'found  ' if place.found else 'missing'}  {place.task}: {place.found or place.problem}")
        text = "the first sample of each task was looked for; `ocl-bench data verify` counts them"
        print_line(text, err=True)
    raise typer.Exit(0 if all(place.found for place in places) else 3)


@data.command()
def get(
    name: Annotated[str, typer.Argument(help="A data set, such as coco or movi_c.")],
    data_root: DataRoot = None,
    yes: Annotated[bool, typer.Option("--yes", help="Accept size and terms without being asked.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the archives after unpacking.")] = False,
) -> None:
    """Download a data set in its official layout, after its size and terms were shown and accepted."""
    import sys

    from ..data.getting.catalogue import find_data_set
    from ..data.getting.work import announce
    from ..data.getting.work import get as get_archives

    data_set, root = find_data_set(name), _folder(data_root)
    archives = data_set.files()
    for line in announce(data_set, archives, root):
        print_line(line)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("nothing was downloaded: nobody can be asked here; add --yes to accept size and terms")
        typer.confirm("download?", abort=True)
    count = get_archives(archives, root, keep=keep)
    typer.echo(f"written: {count} files below {root}")
    print_next(f"ocl-bench data verify {name} --data-root {root}")


@data.command()
def verify(name: Name, data_root: DataRoot = None, json: Json = False) -> None:
    """Count the samples of the tasks of a data set, read all files, and decode 20 samples; exit code 1 for bad ones."""
    from dataclasses import asdict

    from ..data.getting.work import verify as verify_tasks

    checks = verify_tasks(_tasks(name), _root(data_root))
    if json:
        print_json([asdict(check) for check in checks])
    else:
        for check in checks:
            word = "ok    " if not check.failed else "FAILED"
            samples = f"{counted(check.samples, 'sample')}, {check.tried} read, revision {check.revision}"
            print_line(f"{word}  {check.task}: {samples}")
            for text in check.failed:
                print_line(f"    {text}")
    raise typer.Exit(1 if any(check.failed for check in checks) else 0)


@data.command()
def link(
    name: Annotated[str, typer.Argument(help="A data set, such as coco or movi_c.")],
    target: Annotated[Path, typer.Argument(help="The folder that holds it.")],
    data_root: DataRoot = None,
) -> None:
    """Let the data root show data that lie elsewhere, by a link with the name that readers look for."""
    from ..data.getting.catalogue import find_data_set
    from ..data.getting.work import link as link_folder
    from ..data.getting.work import look

    data_set, root = find_data_set(name), _folder(data_root)
    own = (root / data_set.folder).is_symlink()
    place = link_folder(data_set, target, root)
    places = look(_tasks_of(data_set), root)
    for found in places:
        print_line(f"{'found  ' if found.found else 'missing'}  {found.task}: {found.found or found.problem}")
    if not any(found.found for found in places):
        if not own:  # a new one would stand in the way of a link to the right folder
            place.unlink()
        raise DataMissingError(f"{target}: nothing was found there that a task of {name} reads; see docs/data.md")
    typer.echo(f"written: {place} -> {place.resolve()}")


def _root(data_root: Path | None) -> Path:
    """The data root. Raises UsageError when there is none."""
    root = data_root if data_root is not None else paths.data_root()
    if root is None:
        raise UsageError("which data root? give --data-root DIR or set OCL_BENCH_DATA")
    return root.expanduser()


def _folder(data_root: Path | None) -> Path:
    """The data root, in which something will be written. Raises UsageError for one on the hub."""
    from ..data.hub import is_hub

    root = _root(data_root)
    if is_hub(root):
        raise UsageError(f"{root}: is on the hub; give a folder")
    return root


def _tasks(name: str | None) -> list[TaskSpec]:
    """The tasks of a data set, or the task of a name, or all. Raises UsageError for an unknown name."""
    from ..cards.names import get_task, task_names
    from ..data.getting.catalogue import DATA_SETS

    if name in DATA_SETS:
        return _tasks_of(DATA_SETS[name])
    if name is not None:
        try:
            return [get_task(name)]
        except UsageError as error:
            raise UsageError(f"{error}; data sets are {', '.join(DATA_SETS)}") from error
    return [get_task(one) for one in task_names()]


def _tasks_of(data_set: DataSet) -> list[TaskSpec]:
    from ..cards.names import get_task, task_names

    return [task for task in map(get_task, task_names()) if data_set.serves(task)]

"""The verb `list`: tables for people at a terminal, bare names for scripts that read a pipe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..cards.names import matching, model_names, suggest, task_names
from ..core.errors import UsageError
from .options import Json, What, print_json, print_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_ROLES = {
    "model": "models",
    "control": "controls",
    "encoder": "encoders",
    "floor": "floors",
    "ceiling": "ceilings",
    "installed": "of installed packages",
}
"""Title of the models of each role, in the order of the list."""

_CLOSEST = 5
"""How many tasks `--like` shows."""


def list_names(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KIND|PATTERN",
            help="First tasks, models or metrics, by default tasks and models; then names, such as 'movi*'.",
        ),
    ] = None,
    family: Annotated[str | None, typer.Option(help="Only what belongs to a family, such as video.")] = None,
    like: Annotated[
        list[str] | None, typer.Option(help="The tasks closest to a card (.yaml), or to fields: input=224 void=drop.")
    ] = None,
    json: Json = False,
) -> None:
    """List tasks, models or metrics: tables on a terminal, bare names in a pipe."""
    patterns = names or []
    if like:
        fields = [text for text in patterns if "=" in text]  # all that follow the option but the first
        _print_closest([*like, *fields], [text for text in patterns if text not in fields], family, json)
        return
    what = What(patterns[0]) if patterns and patterns[0] in list(What) else None
    found = _find(what, patterns[1:] if what else patterns, family)
    if json:
        print_json(found[what.value] if what else found)
        return
    from .console import make_console, print_metrics

    console = make_console()
    if not console.is_terminal:
        _print_names(found, headed=what is None)
        return
    for kind, entries in found.items():
        if entries:
            {What.tasks: print_tasks, What.models: print_models, What.metrics: print_metrics}[What(kind)](
                console, entries
            )


def _find(what: What | None, patterns: Sequence[str], family: str | None) -> dict[str, list[str]]:
    """The names of each kind that fit. Raises UsageError when none does, or for an unknown family."""
    known: dict[str, list[str]] = {}
    if what in (None, What.tasks):
        known["tasks"] = task_names()
    if what in (None, What.models):
        known["models"] = model_names()
    if what is What.metrics:
        from ..metrics import metric_names

        known["metrics"] = metric_names()
    found = {kind: matching(patterns, names) if patterns else names for kind, names in known.items()}
    if family is not None:
        found = {kind: [name for name in names if family in _families(kind, name)] for kind, names in found.items()}
    if not any(found.values()):
        raise UsageError(_nothing(known, patterns, family))
    return found


def _print_closest(wanted: Sequence[str], patterns: Sequence[str], family: str | None, json: bool) -> None:
    """Print the closest tasks and the fields in which they differ from what is wanted."""
    from ..cards.likeness import closest

    patterns = patterns[1:] if patterns[:1] == [What.tasks.value] else patterns
    found = closest(wanted, _find(What.tasks, patterns, family)["tasks"])[:_CLOSEST]
    if json:
        print_json([{"task": one.task, "differing": one.differing} for one in found])
        return
    for one in found:
        count = len(one.differing)
        text = f"{count} fields differ" if count > 1 else "1 field differs" if count else "all fields agree"
        of = f" (another family, {one.other_family}: only what both have is compared)" if one.other_family else ""
        print_line(f"{one.task}: {text}{of}")
        for name, (own, asked) in one.differing.items():
            print_line(f"  {name}: {_value(own)}, wanted {_value(asked)}")


def _value(value: object) -> str:
    return "none" if value is None else str(value)


def _families(kind: str, name: str) -> Sequence[str]:
    """The families that a task or a metric belongs to, or whose tasks a model does."""
    if kind == "tasks":
        from ..cards.overview import task_line

        return (task_line(name).family,)
    if kind == "models":
        from ..cards.overview import families_of

        return families_of(name)
    from ..metrics import find_metric

    return find_metric(name).families


def _nothing(known: Mapping[str, Sequence[str]], patterns: Sequence[str], family: str | None) -> str:
    """The error when nothing fits."""
    from ..cards.families import family_names

    kinds = " or ".join(kind.removesuffix("s") for kind in known)
    if family is not None and family not in family_names():
        close = suggest(family, list(family_names()))
        return f"--family {family}: unknown{close or '; use ' + ', '.join(family_names())}"
    of_family = f" of family {family}" if family is not None else ""
    every = [name for names in known.values() for name in names]
    return f"no {kinds}{of_family} fits '{' '.join(patterns)}'{suggest(patterns[0], [*every, *What])}"


def _print_names(found: Mapping[str, Sequence[str]], headed: bool) -> None:
    """Print bare names, one a line. headed: below the kind of each, with two spaces before the names."""
    for kind, names in found.items():
        if headed and names:
            typer.echo(f"{kind}:")
        for name in names:
            typer.echo(f"  {name}" if headed else name)


def print_tasks(console: Console, names: Sequence[str]) -> None:
    """Print a table of the tasks of each family that has any of these."""
    from ..cards.overview import task_line

    lines = sorted(map(task_line, names), key=attrgetter("family"))
    for family, tasks in groupby(lines, key=attrgetter("family")):
        rows = [(one.name, one.title, one.data, str(one.input), str(one.published or "-")) for one in tasks]
        console.print(_table(family, ("task", "title", "data", "input", "rows"), rows))
    console.print(
        "data: embedded is rendered here, official lies below OCL_BENCH_DATA\n"
        "input: side in pixels; rows: numbers of papers. More: ocl-bench show TASK"
    )


def print_models(console: Console, names: Sequence[str]) -> None:
    """Print a table of the models of each role that has any of these."""
    from ..cards.overview import model_line

    lines = sorted(map(model_line, names), key=lambda line: list(_ROLES).index(line.role))
    for role, models in groupby(lines, key=attrgetter("role")):
        rows = [(one.name, one.paper, one.supervision, one.bundled, _millions(one.parameters)) for one in models]
        console.print(_table(_ROLES[role], ("model", "paper", "supervision", "bundled", "parameters"), rows))
    console.print(
        "paper: on arXiv or GitHub; supervision: what training saw\n"
        "no weights: needs --checkpoint, and `ocl-bench profile` counts its parameters\n"
        "More: ocl-bench show MODEL"
    )


def _millions(number: int | None) -> str:
    return "" if number is None else f"{number / 1e6:.2f} M"


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table as wide as the terminal: the second column gets what the others leave, and is cut there."""
    from rich.table import Table  # slow to import, and every verb imports this module
    from rich.text import Text

    style: dict[str, Any] = {"box": None, "pad_edge": False, "padding": (0, 2, 0, 0), "expand": True}
    table = Table(title=f"[bold]{title}[/]", title_justify="left", **style)
    first, second, *others = head
    table.add_column(first, no_wrap=True)
    table.add_column(second, no_wrap=True, overflow="ellipsis", ratio=1)
    for name in others:
        table.add_column(name, no_wrap=True, justify="right" if name in ("input", "rows", "parameters") else "left")
    for row in rows:
        table.add_row(*(Text(cell or "-") for cell in row))
    return table

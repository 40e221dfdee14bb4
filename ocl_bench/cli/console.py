"""Print tables of results, checks and cards for the command line."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ..core.terminal import is_plain, paragraphs
from ..core.text_tables import text_table
from .consoles import PIPE_WIDTH, PlainConsole, TabbedConsole

if TYPE_CHECKING:
    from ..cards.model import ModelCard
    from ..cards.task import TaskSpec
    from ..evaluation.check_model import Check
    from ..evaluation.matrix import MatrixCell
    from ..evaluation.reproduce import Reproduction
    from ..metrics import Metric
    from ..results.record import MetricValue, Result
    from ..tables.leaderboard.ranking import Board

MOST_COLUMNS = 12
"""Most metrics that stand beside each other in a table; more stand below each other."""
_ENDLESS = 100_000
"""Columns of a console into which every table fits."""


def make_console(*, stderr: bool = False) -> Console:
    """A console for people at a terminal, or one for a file or a pipe, where tables are columns between tabs."""
    kind = PlainConsole if is_plain(sys.stderr if stderr else sys.stdout) else Console
    console = kind(stderr=stderr, highlight=False)
    return console if console.is_terminal else TabbedConsole(stderr=stderr, highlight=False, width=PIPE_WIDTH)


def print_result(console: Console, result: Result, references: Sequence[Result] = ()) -> None:
    """Print the row of a result, the floors and ceilings below it, the signature and the speed."""
    from ..results.ranks_with import reasons_against_ranking

    task, counts, unit = result.task, result.counts, unit_of(result)
    console.print(_fitting_table(console, result, references))
    for reason in reasons_against_ranking(result):
        console.print(f"not ranked: {escape(reason.message)}")
    console.print(f"value ± half of the 95 % bootstrap interval over n {unit}; {_images(result)}")
    if counts.single_object_share and any(name.startswith("fg_ari") for name in result.metrics):
        single = round(counts.single_object_share * counts.scored)
        rule = "FG-ARI is 1 there if one segment covers the object, and 0 if it is split"
        console.print(f"{single} of {counts.scored} {unit} show a single object: {rule}")
    _print_signature(console, task.signature)
    model = result.model
    seen = f"; images of {model.input_size} x {model.input_size} pixels" if model.input_size else ""
    console.print(f"supervision in training: {model.supervision}; privilege at inference: {model.privilege}{seen}")
    if model.supervision == "undeclared":
        console.print("ranked apart until declared: --supervision none, boxes or masks (docs/add-a-model.md)")
    for remark in result.identity.remarks:
        console.print(remark)
    for kind, number in counts.remarks.items():
        console.print(f"remark: {number} {escape(kind)}")
    rate = result.cost.images_per_second
    speed = f"{rate:.1f} {'frames' if unit == 'videos' else 'images'}/s" if rate else "no speed measured"
    console.print(f"{speed} on {escape(result.setup.device)} with {result.setup.threads} threads")


def _fitting_table(console: Console, result: Result, references: Sequence[Result]) -> Table:
    """The widest layout that fits: a column for each metric, these in few signs, or else a row for each metric."""
    by_metric = _by_metric(result, references)
    if len(result.metrics) > MOST_COLUMNS:
        return by_metric
    by_model = [_by_model(result, references, folded) for folded in (False, True)]
    if not console.is_terminal:
        return by_model[0]
    wide = console.options.update(max_width=_ENDLESS)
    return next((one for one in by_model if console.measure(one, options=wide).maximum <= console.width), by_metric)


def _print_signature(console: Console, signature: str) -> None:
    """Print a signature, on a terminal in lines that end with one of its fields."""
    width = console.width if console.is_terminal else _ENDLESS
    console.print(escape(_fold(f"signature: {signature}", width, "│")), soft_wrap=True)


def _by_model(result: Result, references: Sequence[Result], folded: bool = False) -> Table:
    """A row for each model, a column for each metric. folded: in few columns, names and values cut into lines."""
    table = _titled(result, "model")
    fold = _fold if folded else lambda text, width: text
    if folded:
        table.box, table.pad_edge = SIMPLE_HEAD, False
    for name, metric in result.metrics.items():
        head = f"{fold(_metric_name(result, name), 8)}\nn = {metric.n_valid}"
        table.add_column(head, justify="right", overflow="fold")
    for one in (result, *references):
        name = fold(f"{escape(one.model.name)}{_remark(one)}", 14)
        table.add_row(
            f"[bold]{name}[/]" if one is result else name,
            *(fold(cell, 8) for cell in _cells(one, result)),
            end_section=one is result and bool(references),
        )
    return table


def _fold(text: str, width: int, behind: str = "_-") -> str:
    """A text in lines of up to `width` signs, cut at spaces and behind some signs; a longer word stays whole."""
    lines = [""]
    for part in re.findall(rf"[^\s{behind}]*[{behind}]?\s*", text):
        fits = len((lines[-1] + part).rstrip()) <= width
        lines = [*lines[:-1], lines[-1] + part] if fits else [*lines, part]
    return "\n".join(line.rstrip() for line in lines if line)


def _by_metric(result: Result, references: Sequence[Result]) -> Table:
    """A row for each metric, a column for each model."""
    table = _titled(result, "metric")
    table.add_column("n", justify="right")
    for one in (result, *references):
        table.add_column(f"{escape(one.model.name)}{_remark(one)}", justify="right", overflow="fold")
    columns = [_cells(one, result) for one in (result, *references)]
    for (name, metric), *cells in zip(result.metrics.items(), *columns, strict=True):
        table.add_row(_metric_name(result, name), str(metric.n_valid), *cells)
    return table


def _titled(result: Result, first: str) -> Table:
    """A table with the task and the data as its title. first: title of the first column."""
    task, data = result.task, result.data
    title = escape(f"{task.name} v{task.version}, data: {data.kind} ({data.revision})")
    table = Table(title=title, title_justify="left")
    table.add_column(first, overflow="fold")
    return table


def _metric_name(result: Result, name: str) -> str:
    arrow = "↑" if result.metrics[name].direction > 0 else "↓"
    return f"{escape(name)} {arrow}{' (main)' if name == result.task.main else ''}"


def print_cells(console: Console, cells: Sequence[MatrixCell]) -> None:
    """Print a line for each model and task. Tasks are not averaged: they measure different things."""
    table = Table("task", "model", "main metric", "value", "n", "status", title_justify="left")
    for cell in cells:
        if cell.result is None:
            table.add_row(escape(cell.task), escape(cell.model), "", "", "", escape(cell.status))
            continue
        metric = cell.result.metrics[cell.result.task.main]
        name = f"{escape(cell.model)}{_remark(cell.result)}"
        value = format_metric(metric, metric.n_valid)
        main = escape(cell.result.task.main)
        table.add_row(escape(cell.task), name, main, value, str(metric.n_valid), escape(cell.status))
    console.print(table)


def print_plan(console: Console, rows: Sequence[dict[str, Any]], cost: dict[str, Any]) -> None:
    """Print the trainings of a suite in order, then what those that are not finished cost."""
    table = Table("model", "seed", "steps", "images", "minutes", "needs", "state", title_justify="left")
    for row in rows:
        minutes = "not recorded" if row["minutes"] is None else f"{row['minutes']:.1f}"
        state = "finished" if row["finished"] else "waiting"
        cells = [row["model"], row["seed"], row["steps"], row["images"], minutes, ", ".join(row["needs"]), state]
        table.add_row(*(escape(str(cell)) for cell in cells))
    console.print(table)
    known = f"about {cost['minutes']:.0f} minutes on machines such as those that the cards name"
    unknown = f"; not recorded for {', '.join(cost['unknown'])}" if cost["unknown"] else ""
    waiting = cost["trainings"] - cost["finished"]
    console.print(f"{waiting} trainings, {cost['images']} images: {known}{unknown}")


def unit_of(result: Result) -> str:
    """What the bootstrap resamples: `images` or `videos`, by the family of the main metric."""
    from ..families import find_family
    from ..metrics import find_metric

    return find_family(find_metric(result.task.main).families[0]).unit


def _images(result: Result) -> str:
    counts = result.counts
    text = f"{counts.scored} of {counts.attempted} {unit_of(result)} scored"
    seeds = len(result.seeds.noise)
    return text + (f", mean over {seeds} noise seeds" if seeds > 1 else "")


def _remark(result: Result) -> str:
    """Role and supervision of a row, as in ` (floor, boxes)` for a floor on features that were trained with boxes."""
    model = result.model
    words = [model.role if model.role in ("floor", "ceiling") else "", model.supervision.replace("none", "")]
    remark = ", ".join(filter(None, words))
    return f" ({remark})" if remark else ""


def _cells(result: Result, header: Result) -> list[str]:
    """The values of a result in the columns of another one; `-` for a metric that it does not have."""
    return [
        format_metric(result.metrics[name], header.metrics[name].n_valid) if name in result.metrics else "-"
        for name in header.metrics
    ]


def format_metric(metric: MetricValue, n_header: int) -> str:
    """A value as `0.612 ±.013`, with the number of valid images when it differs from that of the column.

    Args:
        metric: the value.
        n_header: number of valid images in the head of the column.
    """
    if metric.value is None:
        return "not valid"
    text = f"{round(metric.value, 3) + 0.0:.3f}"  # + 0.0 turns -0.0 into 0.0
    if metric.ci95:
        half = (metric.ci95[1] - metric.ci95[0]) / 2
        text += f" ±{half:.3f}".replace("±0.", "±.")
    return text if metric.n_valid == n_header else f"{text} (n = {metric.n_valid})"


def print_checks(console: Console, name: str, checks: Sequence[Check]) -> None:
    """Print a row for each check that was run, with a remedy when it failed, and below them which were not."""
    words = {True: "[green]pass[/]", False: "[red]FAIL[/]"}
    table = Table(title=escape(f"check-model {name}"), title_justify="left")
    for column in ("check", "", "found", "remedy"):
        table.add_column(column, overflow="fold")
    for check in checks:
        if check.passed is not None:
            table.add_row(check.name, words[check.passed], escape(check.detail), escape(check.remedy))
    console.print(table)
    if skipped := [check.name for check in checks if check.passed is None]:
        console.print(f"not run, because they need a usable prediction: {', '.join(skipped)}")


def print_task(console: Console, task: TaskSpec) -> None:
    """Print a task card in words: protocol, metrics, data and what the data root must look like."""
    from ..data import READERS
    from ..data.layouts import LAYOUTS
    from ..families import find_family
    from ..metrics import find_metric

    console.print(f"[bold]{task.name}[/] v{task.version} ({task.family}): {escape(task.title)}")
    console.print(escape(task.reference))
    _print_signature(console, task.signature("<mask source>"))
    table = Table("field", "value", title="protocol", title_justify="left")
    for field, value in task.protocol.model_dump(exclude_none=True).items():
        for key, entry in _flat(field, value):
            table.add_row(escape(key), escape(entry))
    for field, value in (task.fit.model_dump(exclude_none=True) if task.fit else {}).items():
        for key, entry in _flat(f"fit.{field}", value):
            table.add_row(escape(key), escape(entry))
    table.add_row("noise seeds", ", ".join(map(str, task.noise_seeds)))
    console.print(table)
    table = Table("metric", "meaning", title="metrics", title_justify="left")
    for name in task.metrics:
        table.add_row(f"{name} (main)" if name == task.main else name, find_metric(name).meaning)
    console.print(table)
    data = task.data
    console.print(escape(f"data: reader {data.reader}, folder {data.folder or '-'}, split {data.split}"))
    for key, value in data.options.items():
        console.print(escape(f"  {key}: {value}"))
    for label, text in (("licence", data.licence), ("size on disk", data.size), ("get it", data.get)):
        if text:
            console.print(f"{label}: {escape(text)}")
    if data.stand_in:
        names = dict.fromkeys((data.stand_in.scenes, data.stand_in.variant))
        unit = "videos" if find_family(task.family).unit == "videos" else "scenes"
        made = f"{data.stand_in.samples} {unit} of {' '.join(names)}"
        if data.stand_in.fit_samples:
            made += f" and {data.stand_in.fit_samples} to fit on"
        console.print(f"without --data-root: {made}, revision {data.stand_in.revision}, rendered here in this layout")
    console.print("\nwhat the data root must look like:")
    # The docstring of a reader's module is the description of its layout, and is kept in no other place.
    reader = READERS.get(data.reader)
    layout = inspect.getdoc(inspect.getmodule(reader)) if reader else None
    console.print(escape("\n\n".join(paragraphs(layout or f"reader '{data.reader}' is unknown"))))
    if others := LAYOUTS.get(data.reader):
        console.print(f"\nalso read (docs/data.md): {', '.join(other.name for other in others)}")


def print_metrics(console: Console, names: Sequence[str]) -> None:
    """Print one line for each metric: name, direction, families and meaning."""
    from ..metrics import find_metric

    table = Table("metric", "", "of", "meaning", box=None, pad_edge=False)
    for name in names:
        metric = find_metric(name)
        table.add_row(name, _arrow(metric), ", ".join(metric.families), escape(metric.meaning))
    console.print(table)


def print_metric(console: Console, metric: Metric) -> None:
    """Print the definition of a metric: meaning, formula, range, edge cases, how a set's number is made, source."""
    console.print(f"[bold]{metric.name}[/] ({', '.join(metric.families)}): {escape(metric.meaning)}")
    direction = "higher" if metric.direction > 0 else "lower"
    head = {True: "only of tasks with a head (field fit)", False: "only of tasks without a head", None: ""}[metric.head]
    for label, text in (
        ("formula", metric.formula),
        ("range", f"{metric.range}; {direction} is better; a perfect prediction has {metric.best:g}"),
        ("edge cases", metric.edge_cases),
        ("of a set", metric.of_set.text),
        ("asked for by", head),
        ("source", metric.source),
        ("code", f"{metric.function.__module__}.{metric.function.__name__}" if metric.function else ""),
    ):
        if text:
            console.print(f"{label + ':':14} {escape(text)}")


def _arrow(metric: Metric) -> str:
    return "↑" if metric.direction > 0 else "↓"


def print_model(console: Console, card: ModelCard) -> None:
    """Print a model card, field by field."""
    table = Table("field", "value", title=escape(f"{card.name}: {card.title}"), title_justify="left")
    for field, value in card.model_dump(mode="json", exclude={"name", "title", "notes"}).items():
        for key, entry in _flat(field, value):
            table.add_row(escape(key), escape(entry))
    console.print(table)
    for note in card.notes:
        console.print(f"• {escape(note)}")


def _flat(key: str, value: Any) -> list[tuple[str, str]]:
    """Nested fields as rows with dotted keys; empty fields are left out."""
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, dict):
        return [row for name, entry in value.items() for row in _flat(f"{key}.{name}", entry)]
    if value in (None, "", [], ()):
        return []
    return [(key, ", ".join(map(str, value)) if isinstance(value, list) else str(value))]


def print_board(console: Console, board: Board) -> None:
    """Print a leaderboard: a table for each group on a terminal, columns between tabs in a pipe."""
    from ..tables.leaderboard.board_text import group_tables, notes

    console.print(Text(f"{board.task.name} v{board.task.version}, ranked by {board.task.main}"))
    for title, (head, *rows) in group_tables(board):
        table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for name in head:
            table.add_column(Text(name), no_wrap=name != "model", overflow="fold")
        for cells in rows:
            table.add_row(*map(Text, cells))
        console.print(table)
    for line in notes(board):
        console.print(Text(line))


def print_best(console: Console, boards: Sequence[Board]) -> None:
    """Print a line for each leaderboard: its best row."""
    from ..tables.leaderboard.board_text import best_rows

    head, *rows = best_rows(boards)
    table = Table(*head, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for cells in rows:
        table.add_row(*map(Text, cells))
    console.print(table)


def print_tuning(console: Console, option: str, main: str, rows: Sequence[dict[str, Any]], best: Any) -> None:
    """Print one row for each value that was tried, and mark the best."""
    table = Table(escape(option), main, title="on the validation split", title_justify="left")
    for row in rows:
        mark = " ← best" if row["value"] == best else ""
        table.add_row(escape(str(row["value"])), f"{row['metrics'][main]:.4f}{mark}")
    console.print(table)


def print_reproduction(console: Console, outcome: Reproduction) -> None:
    """Print each metric then and now, what is not as it was, and last whether they agree."""
    cells = [["metric", "stored", "now", "difference"]]
    for name, difference in outcome.differences.items():
        values = [one.value(name) for one in (outcome.stored, outcome.now)]
        shown = ["none" if value is None else f"{value:.9f}" for value in values]
        cells.append([name, *shown, f"{difference:+.3g}" if difference else "0"])
    console.print(escape(outcome.stored.title))
    console.print(escape(text_table(cells)))
    if outcome.changes:
        console.print(f"not as it was: {escape(', '.join(outcome.changes))}")
    if outcome.same_rows is None:
        console.print("rows: not compared, because those of the result are missing or edited")
    name, largest = outcome.largest
    rows = "" if outcome.same_rows is None else " and every row"
    said = {
        "equal": f"every metric{rows} is equal bit for bit",
        "rounding": f"equal up to rounding, the largest difference is {largest:.3g} ({name})",
        "different": f"no, {name} differs by {largest:.3g}",
    }
    console.print(f"reproduced: {escape(said[outcome.verdict])}")


def print_paths(console: Console, paths: dict[str, Path | None]) -> None:
    """Print where files were written; labels without a path are left out."""
    for label, path in paths.items():
        if path is not None:
            console.print(f"{label + ':':12} {escape(str(path))}", soft_wrap=True)

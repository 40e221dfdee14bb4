"""Results and published rows -> one table per task, as CSV and Markdown.

Only results are read; nothing is evaluated, filled in or averaged over unlike metrics. The same results give the same
bytes, so a board can be committed and checked.
"""

from __future__ import annotations

import filecmp
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ...cards.names import get_task, task_names
from ...cards.task import TaskSpec
from ...core.files import write_atomically
from ...core.paths import bundled
from ...families.summary import set_statistic
from ...metrics.statistics import Statistic
from ...results.published import load_all, load_published, published_folder
from ...results.ranks_with import Reference, reasons_against_ranking, reference_of_card
from ...results.record import Result
from ...results.store import default_folders, rows_of, search, task_names_in
from .facts import NOT_RECORDED, facts_of
from .ranking import Board, BoardCell, Excluded, Group, Row, rank
from .strata import COLUMNS, Property, find_property, stratify

if TYPE_CHECKING:
    import pandas


def build_leaderboard(
    results: Sequence[str | Path] | None,
    out: str | Path,
    task: str | Path | TaskSpec | None = None,
    *,
    published: Path | None = None,
    by: str | None = None,
) -> list[Path]:
    """Write `<out>/<task>.csv` and `<out>/<task>.md`, for all tasks also `<out>/published.md`, and return their paths.

    results: folders with results, by default the committed `leaderboards/results` and the user's results root.
    task: one task, else all bundled tasks and those that have results. by: split the images (`strata.PROPERTIES`) and
    write only `<out>/<task>-by-<by>.csv` and `.md`. Raises UsageError for an unknown task or split.
    """
    from .published_page import published_page

    split = find_property(by) if by is not None else None
    folders = default_folders() if results is None else [Path(folder) for folder in results]
    published = published or published_folder()
    written = []
    for spec in [task] if task is not None else _all_tasks(folders, published):
        board = make_board(folders, spec, published=published)
        written += [_write(Path(out) / name, text) for name, text in _pages(board, split)]
    if task is None and split is None:
        written.append(_write(Path(out) / "published.md", published_page(load_all(published))))
    return written


def _pages(board: Board, split: Property | None) -> list[tuple[str, str]]:
    """Name and content of the two files of a board, or of a board that is split."""
    from . import board_page as whole
    from . import strata_page as strata

    if split is None:
        return [(f"{board.task.name}.csv", whole.to_csv(board)), (f"{board.task.name}.md", whole.to_markdown(board))]
    stratified, stem = stratify(board, split), f"{board.task.name}-by-{split.name}"
    return [(f"{stem}.csv", strata.to_csv(stratified)), (f"{stem}.md", strata.to_markdown(stratified))]


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, partial(Path.write_text, data=text, encoding="utf-8"))
    return path


def stale_files(committed: Path | None = None) -> list[str]:
    """Names of committed boards that differ from what the committed results give; empty when all are up to date."""
    folder = committed or bundled("leaderboards")
    with tempfile.TemporaryDirectory() as temporary:
        fresh = build_leaderboard([folder / "results"], temporary, published=folder / "published")
        _, differing, missing = filecmp.cmpfiles(temporary, folder, [path.name for path in fresh], shallow=False)
        return sorted([*differing, *missing])


def _all_tasks(folders: Iterable[Path], published: Path) -> list[str]:
    return sorted(task_names_in(folders) | set(task_names()) | {path.stem for path in published.glob("*.yaml")})


def make_board(folders: Sequence[Path], task: str | Path | TaskSpec, *, published: Path | None = None) -> Board:
    """Read the results of one task and rank them. Raises UsageError when neither a card nor a result names the task."""
    name = task.name if isinstance(task, TaskSpec) else Path(task).stem if str(task).endswith(".yaml") else str(task)
    files = list(search(folders, name))
    found = [(one.result, one.source) for one in files if one.result is not None]
    excluded = [Excluded("?", one.source, f"unreadable: {one.problem}") for one in files if one.result is None]
    reference = _reference(task, name, [result for result, _ in found])
    rows: list[Row] = []
    for result, source in found:
        if reasons := reasons_against_ranking(result, reference):
            excluded.append(Excluded(result.model.name, source, reasons[0].message))
        else:
            rows.append(_row(result, source, reference))
    rows, superseded = _newest(_settled(rows))
    directions = [result.metrics[reference.main].direction for result, _ in found if reference.main in result.metrics]
    direction = Counter(directions).most_common(1)[0][0] if directions else 1
    groups = sorted({row.group for row in rows}, key=lambda group: group.place)
    ranked = tuple(
        (group, tuple(rank([row for row in rows if row.group == group], reference.main, direction))) for group in groups
    )
    unranked = tuple(sorted([*excluded, *superseded], key=lambda e: (e.model, e.reason, e.source)))
    return Board(reference, direction, ranked, unranked, load_published(reference.name, published))


def _reference(task: str | Path | TaskSpec, name: str, found: Sequence[Result]) -> Reference:
    if isinstance(task, TaskSpec) or str(task).endswith(".yaml") or name in task_names():
        return reference_of_card(get_task(task))
    if not found:
        get_task(name)  # raises the error with its suggestion
    hashes = Counter(result.task.hash for result in found)
    chosen = min(hashes, key=lambda value: (-hashes[value], value))
    section = next(result.task for result in found if result.task.hash == chosen)
    return Reference(section.name, section.version, section.hash, section.metrics, section.main)


def _row(result: Result, source: str, reference: Reference) -> Row:
    cells = {}
    for name in reference.metrics:
        metric = result.metrics[name]
        if metric.value is not None:
            low, high = metric.ci95 or (None, None)
            cells[name] = BoardCell(metric.value, low, high, None, metric.n_valid)
    model, data = result.model, result.data
    options = json.dumps(model.options, sort_keys=True) if model.options else ""
    base = model.name.partition(":")[0]
    rows, facts = rows_of(result), facts_of(result, reference.card)
    per_image = [name for name in reference.metrics if name in rows]
    values = rows.groupby("id", sort=True)[per_image].mean().reindex(columns=list(reference.metrics))
    return Row(
        model=model.name,
        base=base,
        role=model.role,
        privilege=model.privilege,
        # A ceiling sees the truth; it stands unranked beside the models that it bounds.
        group=Group(
            data.kind,
            data.revision,
            data.ids_sha256,
            model.supervision,
            "none" if model.role == "ceiling" else model.privilege,
            facts.fit,
        ),
        cells=cells,
        training_seeds=() if model.training_seed is None else (model.training_seed,),
        noise_seeds=result.seeds.noise,
        options=options,
        signature=result.task.signature,
        version=_version(result),
        command=_command(result, reference),
        source=source,
        created=result.identity.created,
        identity=(base, options, model.checkpoint_sha256, result.setup.dtype),
        values=values,
        statistics=_statistics(rows, reference, list(cells)),
        facts=facts,
        properties={name: rows.groupby("id", sort=True)[name].first() for name in COLUMNS if name in rows},
    )


def _settled(rows: Sequence[Row]) -> list[Row]:
    """Rows on embedded data whose result did not record what their head was fitted on, beside those that did.

    The fit split of a stand-in follows from the task card and the revision, which the rows of a group share.
    """
    known: dict[tuple[str, str, str], set[str]] = {}
    for row in rows:
        if row.group.fit and not _unrecorded(row):
            known.setdefault((row.group.kind, row.group.revision, row.group.ids_sha256), set()).add(row.group.fit)
    out = []
    for row in rows:
        fits = known.get((row.group.kind, row.group.revision, row.group.ids_sha256), set())
        same = row.group.kind == "embedded" and _unrecorded(row) and len(fits) == 1
        out.append(replace(row, group=replace(row.group, fit=next(iter(fits)))) if same else row)
    return out


def _unrecorded(row: Row) -> bool:
    return row.group.fit.endswith(NOT_RECORDED)


def _version(result: Result) -> str:
    commit = f" {result.identity.commit[:12]}" if result.identity.commit else ""
    return f"{result.identity.suite_version}{commit}{' + changes' if result.identity.dirty else ''}"


def _command(result: Result, reference: Reference) -> str:
    """The recorded command line, or the equal one when the result came from Python."""
    if result.identity.command.startswith("ocl-bench "):
        return result.identity.command
    seeds = "" if result.seeds.noise == reference.noise_seeds else f" --seeds {','.join(map(str, result.seeds.noise))}"
    return f"ocl-bench eval --model {result.model.name} --task {result.task.name}{seeds}"


def _statistics(rows: pandas.DataFrame, reference: Reference, metrics: Sequence[str]) -> dict[str, Statistic]:
    """The corpus metrics of a result as functions of image weights; empty where the card is not installed."""
    if reference.card is None:
        return {}
    found = {name: set_statistic(rows, reference.card, name) for name in metrics}
    return {name: of_set for name, of_set in found.items() if of_set is not None}


def _newest(rows: Sequence[Row]) -> tuple[list[Row], list[Excluded]]:
    """Of several results of one model on one group, the one with most noise seeds, then the newest."""
    kept: dict[tuple[object, ...], Row] = {}
    superseded = []
    for row in sorted(rows, key=lambda row: (-len(row.noise_seeds), _descending(row.created), row.source)):
        key = (row.group, row.identity, row.training_seeds)
        if key in kept:
            reason = f"a newer result or one with more noise seeds is shown ({kept[key].source})"
            superseded.append(Excluded(row.model, row.source, reason))
        else:
            kept[key] = row
    return list(kept.values()), superseded


def _descending(text: str) -> tuple[int, ...]:
    return tuple(-ord(character) for character in text)

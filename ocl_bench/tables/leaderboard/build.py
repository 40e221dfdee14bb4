"""Build one leaderboard per task from results and published rows, as CSV and Markdown.

Nothing is evaluated, filled in or averaged over different metrics. The same results give the same bytes; therefore a
board can be committed and checked.
"""

from __future__ import annotations

import filecmp
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from ...cards.names import get_task, is_task, task_names
from ...cards.task import TaskSpec
from ...core.files import write_atomically
from ...core.paths import bundled
from ...evaluation.examination.refusals import why_not_ranked
from ...results.published import load_all, load_published, published_folder
from ...results.ranks_with import Reference, reference_of_card
from ...results.record import Result
from ...results.seeds import base_name, method_of
from ...results.store import StoredResult, default_folders, search, task_names_in
from .ahead import Helpers
from .board_csv import to_csv
from .board_page import to_markdown
from .facts import NOT_RECORDED, facts_of
from .index_page import index_page
from .measured import Measured
from .published_page import published_page
from .ranking import Board, BoardCell, Excluded, Group, Row, rank
from .strata import Property, find_property, stratify


def build_leaderboard(
    results: Sequence[str | Path] | None,
    out: str | Path,
    task: str | Path | TaskSpec | None = None,
    *,
    published: Path | None = None,
    by: str | None = None,
    committed: bool = False,
    on_board: Callable[[Board], None] = lambda board: None,
) -> list[Path]:
    """Write `<out>/<task>.csv` and `<out>/<task>.md`, for all tasks also `<out>/published.md` and `<out>/README.md`.

    Args:
        results: folders with results; by default the committed `leaderboards/results` and the user's results root.
        out: folder that is written to.
        task: one task; by default all bundled tasks and those that have results or published rows.
        published: folder with published rows; by default the bundled one.
        committed: whether these become the committed boards, which link result files and documents.
        on_board: gets each board when its files are written.
        by: a key of `strata.PROPERTIES`. Only `<out>/<task>-by-<by>.csv` and `.md` are written then.

    Returns:
        Paths of the written files.

    Raises:
        UsageError: for an unknown task or split.
    """
    split = find_property(by) if by is not None else None
    folders = default_folders() if results is None else [Path(folder) for folder in results]
    published = published or published_folder()
    written = []
    boards = []
    for board in make_boards(folders, [task] if task is not None else all_tasks(folders, published), published):
        written += [_write(Path(out) / name, text) for name, text in _pages(board, split, committed)]
        boards.append(board)
        on_board(board)
    if task is None and split is None:
        written.append(_write(Path(out) / "published.md", published_page(load_all(published))))
        written.append(_write(Path(out) / "README.md", index_page(boards, committed=committed)))
    return written


def _pages(board: Board, split: Property | None, committed: bool) -> list[tuple[str, str]]:
    """Name and content of the CSV and the Markdown file of a board, or of the board split into strata."""
    from . import strata_page as strata

    if split is None:
        stem, page = board.task.name, to_markdown(board, committed=committed)
        return [(f"{stem}.csv", to_csv(board)), (f"{stem}.md", page)]
    stratified, stem = stratify(board, split), f"{board.task.name}-by-{split.name}"
    return [(f"{stem}.csv", strata.to_csv(stratified)), (f"{stem}.md", strata.to_markdown(stratified))]


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A result may lie in a file whose name is not UTF-8, which Python keeps with half characters.
    write_atomically(path, partial(Path.write_text, data=text, encoding="utf-8", errors="backslashreplace"))
    return path


def stale_files(committed: Path | None = None) -> list[str]:
    """Names of committed boards that differ from what the committed results give; empty when all are up to date."""
    folder = committed or bundled("leaderboards")
    with tempfile.TemporaryDirectory() as temporary:
        fresh = build_leaderboard([folder / "results"], temporary, published=folder / "published", committed=True)
        # shallow=False compares bytes: two files with equal size and time are not taken for equal.
        _, differing, missing = filecmp.cmpfiles(temporary, folder, [path.name for path in fresh], shallow=False)
        return sorted([*differing, *missing])


def all_tasks(folders: Iterable[Path], published: Path) -> list[str]:
    """Names of the bundled tasks, and of those that have results or published rows."""
    return sorted(task_names_in(folders) | set(task_names()) | {path.stem for path in published.glob("*.yaml")})


def make_boards(
    folders: Sequence[Path], tasks: Sequence[str | Path | TaskSpec], published: Path | None = None
) -> Iterator[Board]:
    """Yield the board of each task, in this order; where that takes long, other processes work ahead (`ahead`)."""
    with Helpers(folders, published) as helpers:
        for place, task in enumerate(tasks):
            board = make_board(folders, task, published=published)
            helpers.start_if_slow([str(later) for later in tasks[place + 1 :] if not isinstance(later, TaskSpec)])
            yield board


def work_ahead() -> None:
    """What a helper does: make the boards of a job, read from stdin, for what they leave in the cache."""
    job = json.load(sys.stdin)
    published = None if job["published"] is None else Path(job["published"])
    for task in job["tasks"]:
        make_board([Path(folder) for folder in job["folders"]], task, published=published)


def make_board(folders: Sequence[Path], task: str | Path | TaskSpec, *, published: Path | None = None) -> Board:
    """Read the results of one task and rank them.

    Args:
        folders: folders with results.
        task: a name, the path of a card, or a card.
        published: folder with published rows; by default the bundled one.

    Raises:
        UsageError: when neither a card nor a result names the task.
    """
    if str(task).endswith((".yaml", ".yml")):
        task = get_task(task)  # results lie under the name in the card, which need not be that of its file
    name = task.name if isinstance(task, TaskSpec) else str(task)
    files: Iterable[StoredResult] = search(folders, name)
    if not (isinstance(task, TaskSpec) or is_task(name)):
        files = list(files)  # the protocol is that of most results; else one result after the other is read and left
        reference = _reference_of_results(name, [file.result for file in files if file.result is not None])
    else:
        reference = reference_of_card(get_task(task))
    rows: list[Row] = []
    excluded: list[Excluded] = []
    directions: Counter[int] = Counter()
    for file in files:
        if file.result is None:
            excluded.append(Excluded("?", file.source, f"unreadable: {file.problem}"))
            continue
        if reference.main in file.result.metrics:
            directions[file.result.metrics[reference.main].direction] += 1
        row = _row_or_reason(file.result, file.source, reference)
        if isinstance(row, str):
            excluded.append(Excluded(file.result.model.name, file.source, row))
        else:
            rows.append(row)
    rows, superseded = _without_superseded(_with_known_fits(rows))
    # A task without an installed card has its direction from the results; a few stray ones must not turn the board.
    direction = directions.most_common(1)[0][0] if directions else 1
    groups = sorted({row.group for row in rows}, key=lambda group: group.place)
    ranked = tuple(
        (group, tuple(rank([row for row in rows if row.group == group], reference.main, direction))) for group in groups
    )
    # Sorted, because folders are read in any order and the page has to have the same bytes each time.
    unranked = tuple(sorted([*excluded, *superseded], key=lambda entry: (entry.model, entry.reason, entry.source)))
    return Board(reference, direction, ranked, unranked, load_published(reference.name, published))


def _row_or_reason(result: Result, source: str, reference: Reference) -> Row | str:
    """The row of a result, or why it is not ranked."""
    if reasons := why_not_ranked(result, reference):
        return reasons[0].message
    return _row(result, source, reference)


def _reference_of_results(name: str, results: Sequence[Result]) -> Reference:
    """The protocol of a board without an installed card: the most frequent one of the results."""
    if not results:
        get_task(name)  # raises the error with its suggestion
    hashes = Counter(result.task.hash for result in results)
    # Ties are broken by the hash itself, not by the order in which files were read.
    chosen = min(hashes, key=lambda value: (-hashes[value], value))
    section = next(result.task for result in results if result.task.hash == chosen)
    return Reference(section.name, section.version, section.hash, section.metrics, section.main)


def _row(result: Result, source: str, reference: Reference) -> Row:
    """The row of one result."""
    cells = {}
    for name in reference.metrics:
        metric = result.metrics[name]
        if metric.value is not None:
            low, high = metric.ci95 or (None, None)
            cells[name] = BoardCell(metric.value, low, high, None, metric.n_valid)
    model, data = result.model, result.data
    options = json.dumps(model.options, sort_keys=True) if model.options else ""
    base = base_name(result)
    facts = facts_of(result, reference.card)
    assert result.rows_path is not None
    return Row(
        model=model.name,
        base=base,
        card=model.card,
        role=model.role,
        privilege=model.privilege,
        # A ceiling sees the truth. It is shown without a rank in the group of the models that it bounds.
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
        identity=(base, options, model.weights, model.code_sha256, result.setup.dtype),
        method=json.dumps(method_of(result), sort_keys=True),
        arrays=model.arrays,
        remark="; ".join(result.identity.remarks),
        measured=Measured((result.rows.sha256,), (result.rows_path,), reference.card),
        facts=facts,
    )


def _with_known_fits(rows: Sequence[Row]) -> list[Row]:
    """Give rows without a recorded fit split that of the other rows on the same embedded data.

    The fit split of a stand-in follows from the task card and the revision, which these rows share. On official data
    nobody knows what an older head was fitted on, and such a row stays in a group of its own. A floor or ceiling that
    needs no head stands beside the rows that it bounds.
    """
    known: dict[tuple[str, str, str], set[str]] = {}
    for row in rows:
        if row.group.fit and not _unrecorded(row):
            known.setdefault((row.group.kind, row.group.revision, row.group.ids_sha256), set()).add(row.group.fit)
    out = []
    for row in rows:
        fits = known.get((row.group.kind, row.group.revision, row.group.ids_sha256), set())
        # With two different known fits there is no telling which of them the older head had.
        certain = row.group.kind == "embedded" and _unrecorded(row)
        bounds = not row.group.fit and row.role in ("floor", "ceiling")
        known_fit = (certain or bounds) and len(fits) == 1
        out.append(replace(row, group=replace(row.group, fit=next(iter(fits)))) if known_fit else row)
    return out


def _unrecorded(row: Row) -> bool:
    """Whether the result has a head but does not say what it was fitted on (format 1)."""
    return row.group.fit.endswith(NOT_RECORDED)


def _version(result: Result) -> str:
    """Suite version and commit, with a mark when the code had changes that were not committed."""
    commit = f" {result.identity.commit[:12]}" if result.identity.commit else ""
    return f"{result.identity.suite_version}{commit}{' + changes' if result.identity.dirty else ''}"


def _command(result: Result, reference: Reference) -> str:
    """The recorded command line, or the equivalent one when the result was made from Python."""
    if result.identity.command.startswith("ocl-bench "):
        return result.identity.command
    seeds = "" if result.seeds.noise == reference.noise_seeds else f" --seeds {','.join(map(str, result.seeds.noise))}"
    return f"ocl-bench eval --model {result.model.name} --task {result.task.name}{seeds}"


def _without_superseded(rows: Sequence[Row]) -> tuple[list[Row], list[Excluded]]:
    """Keep one result of each model in a group: that with most noise seeds, then the newest."""
    shown: dict[tuple[object, ...], Row] = {}
    superseded = []
    for row in sorted(rows, key=lambda row: (-len(row.noise_seeds), _descending(row.created), row.source)):
        key = (row.group, row.identity, row.training_seeds)
        if key in shown:
            reason = f"a newer result or one with more noise seeds is shown ({shown[key].source})"
            superseded.append(Excluded(row.model, row.source, reason))
        else:
            shown[key] = row
    return list(shown.values()), superseded


def _descending(text: str) -> tuple[int, ...]:
    """A sort key that reverses the order of texts, because one sort mixes rising and falling keys."""
    return tuple(-ord(character) for character in text)

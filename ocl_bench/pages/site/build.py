"""Build the site: boards, once read, become plain data, and each template draws its part of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from ...core.errors import DataMissingError
from ...core.files import write_atomically
from ...core.log import logger
from ...results.published import PublishedTable, load_all, published_folder
from ...results.store import default_folders
from ...tables.comparison.claims import judge_all
from ...tables.leaderboard.board_csv import to_csv
from ...tables.leaderboard.build import all_tasks, make_boards
from ...tables.leaderboard.ranking import Board
from ..render import render, write_page
from .entries import model_pages, paper_pages
from .overview import index_content, matrix_content
from .reports import copy_reports
from .task_page import task_address, task_content
from .texts import claims_content, text_pages

NAVIGATION = (
    ("index.html", "Tasks"),
    ("matrix.html", "Matrix"),
    ("models.html", "Models"),
    ("papers.html", "Papers"),
    ("claims.html", "Claims"),
    ("why-numbers-differ.html", "Why numbers differ"),
    ("submit.html", "Submit"),
)
"""Address and text of the links on top of each page."""


@dataclass(frozen=True)
class Page:
    """One page of the site: its address from the root, its template, and what both need."""

    address: str
    template: str
    content: dict[str, Any]
    scripts: tuple[str, ...] = ()
    data: Any = None


def build_site(
    out: str | Path,
    results: Sequence[str | Path] | None = None,
    *,
    published: Path | None = None,
    pictures: bool = True,
    reports: Path | None = None,
) -> list[Path]:
    """Write the board of the field as static pages that need neither a server nor a network.

    Args:
        out: folder that is written to; files of an earlier build are replaced, others stay.
        results: folders with results; by default the committed ones and the user's.
        published: folder with published rows; by default the bundled one.
        pictures: whether to render a scene of each task.
        reports: folder with pages that `report` wrote; each is copied and linked in the row of its result.

    Returns:
        Paths of the pages.

    Raises:
        UsageError: a published row, a card or a claim is not valid.
        DataMissingError: the folder `reports` does not exist.
    """
    if reports is not None and not reports.is_dir():
        raise DataMissingError(f"reports {reports}: there is no such folder; write pages with `ocl-bench report --out`")
    out, folders = Path(out), default_folders() if results is None else [Path(folder) for folder in results]
    rows = published or published_folder()
    boards = []
    for board in make_boards(folders, all_tasks(folders, rows), rows):
        logger.info("board of %s", board.task.name)
        boards.append(board)
    files = result_files(boards, folders)
    copy_sources(boards, files, out)
    linked = copy_reports(reports, files, out) if reports is not None else {}
    pages = pages_of(boards, load_all(rows), folders, pictures=pictures, reports=linked)
    return [write(page, out) for page in pages]


def pages_of(
    boards: Sequence[Board],
    tables: dict[str, PublishedTable],
    folders: Sequence[Path],
    *,
    pictures: bool = True,
    reports: Mapping[str, str] | None = None,
) -> Iterator[Page]:
    """Every page of the site.

    Args:
        boards: of all tasks.
        tables: published rows by file, those without a task included.
        folders: of results, on which the claims of the papers are judged.
        pictures: whether to render a scene of each task.
        reports: address of a report by the source of its row.
    """
    reports = reports or {}
    yield Page("index.html", "site_index.html.j2", index_content(boards, pictures=pictures))
    yield Page("matrix.html", "site_matrix.html.j2", matrix_content(boards))
    for board in boards:
        content, data = task_content(board, reports)
        yield Page(task_address(board.task), "site_task.html.j2", content, ("board.js",), data)
    papers = judge_all(folders)
    for address, template, content in [*model_pages(boards, papers, reports), *paper_pages(boards, tables, papers)]:
        yield Page(address, template, content)
    yield Page("claims.html", "site_text.html.j2", claims_content(papers))
    for address, content, scripts in text_pages():
        yield Page(address, "site_text.html.j2", content, scripts)


def write(page: Page, out: Path) -> Path:
    """Render a page and write it below `out`."""
    root = "../" * page.address.count("/")
    shared = {"root": root, "here": page.address, "navigation": NAVIGATION, "version": metadata.version("ocl-bench")}
    content = {**shared, **page.content}
    html = render(page.template, content, styles=("site.css",), scripts=page.scripts, data=page.data)
    return write_page(out / page.address, html)


def result_files(boards: Sequence[Board], folders: Sequence[Path]) -> dict[str, Path]:
    """The result file of each measured row, by the source of the row."""
    sources = {row.source for board in boards for _, rows in board.groups for row in rows if row.source}
    found = {source: [folder / source for folder in folders if (folder / source).is_file()] for source in sources}
    return {source: paths[0] for source, paths in sorted(found.items()) if paths}


def copy_sources(boards: Sequence[Board], files: Mapping[str, Path], out: Path) -> None:
    """Put beside the pages what they link: the CSV of each board, and the result file of each row.

    Args:
        boards: of all tasks.
        files: result files by the source of their row.
        out: root of the site.
    """
    (out / "tables").mkdir(parents=True, exist_ok=True)
    for board in boards:
        path = out / "tables" / f"{board.task.name}.csv"
        write_atomically(path, partial(Path.write_text, data=to_csv(board), encoding="utf-8"))
    for source, path in files.items():
        (out / "results" / source).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, out / "results" / source)

"""Verbs that draw finished results: the site of all boards, and figures for papers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..core.errors import UsageError
from .options import DataRoot, Json, existing, out_folder, print_json, print_next


def site(
    out: Annotated[Path, typer.Option(help="Folder for the pages.", callback=out_folder)] = Path("site"),
    results: Annotated[
        list[Path] | None,
        typer.Option(help="Folder with results; repeatable. By default the committed ones and yours."),
    ] = None,
    pictures: Annotated[bool, typer.Option(help="Render a scene of each task.")] = True,
    reports: Annotated[
        Path | None, typer.Option(help="Folder with pages of `report`; the row of each result links its own.")
    ] = None,
    json: Json = False,
) -> None:
    """Build the board of the field as static pages (docs/site.md)."""
    from ..pages.site.build import build_site

    written = build_site(out, existing(results), pictures=pictures, reports=reports)
    if json:
        print_json({"written": [str(path) for path in written]})
        return
    typer.echo(f"written: {len(written)} pages")
    print_next(f"open {out / 'index.html'}")


def figures(
    out: Annotated[Path, typer.Option(help="Folder for the figures.", callback=out_folder)] = Path("figures"),
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="Boards with commas; by default all, or none with --run.")
    ] = None,
    run: Annotated[
        list[Path] | None, typer.Option(help="A result with saved predictions, or its folder; repeatable.")
    ] = None,
    results: Annotated[
        list[Path] | None,
        typer.Option(help="Folder with results; repeatable. By default the committed ones and yours."),
    ] = None,
    card: Annotated[Path | None, typer.Option(help="Task card of the runs, when it is not a bundled one.")] = None,
    data_root: DataRoot = None,
    json: Json = False,
) -> None:
    """Draw boards and samples of runs for papers, as PDF, SVG and PNG (docs/site.md)."""
    from ..pages.figures.build import build_figures

    tasks = None if task is None else [name for name in map(str.strip, task.split(",")) if name]
    if tasks == []:
        raise UsageError("--task names no board; leave it out to draw all")
    runs, folders = run or (), existing(results)
    written = build_figures(out, tasks=tasks, runs=runs, results=folders, card=card, data_root=data_root)
    if json:
        print_json({"written": [str(path) for path in written]})
        return
    typer.echo(f"written: {len(written)} files in {out}")

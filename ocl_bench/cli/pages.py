"""Verbs that draw finished results: the site of all boards, and figures for papers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Json, existing, print_json


def site(
    out: Annotated[Path, typer.Option(help="Folder for the pages.")] = Path("site"),
    results: Annotated[
        list[Path] | None,
        typer.Option(help="Folder with results; repeatable. By default the committed ones and yours."),
    ] = None,
    pictures: Annotated[bool, typer.Option(help="Render a scene of each task.")] = True,
    json: Json = False,
) -> None:
    """Build the board of the field as static pages (docs/site.md)."""
    from ..pages.site.build import build_site

    written = build_site(out, existing(results), pictures=pictures)
    if json:
        print_json({"written": [str(path) for path in written]})
        return
    typer.echo(f"written: {len(written)} pages")
    typer.echo(f"next: open {out / 'index.html'}")

"""Reports of runs on the site: pages that `report` wrote, found by the key of a result that they state."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from ...core.log import logger
from ...results.record import read_result

_KEY = re.compile(r"<dt>Key</dt><dd>([0-9a-f]{64})</dd>")
"""A key as the template of a report writes it. Names and texts are escaped and cannot look like it."""


def copy_reports(folder: Path, files: Mapping[str, Path], out: Path) -> dict[str, str]:
    """Copy reports into the site.

    Args:
        folder: with the pages; a page may have its pictures in `<page without suffix>.files`.
        files: result files by the source of their row.
        out: root of the site.

    Returns:
        Addresses from the root of the site, by the source of the row. A report of one run goes before one of two.
    """
    by_key = _pages_by_key(folder)
    linked = {}
    for source, path in files.items():
        page = by_key.get(read_result(path).identity.key)
        if page is not None:
            linked[source] = page
    for page in sorted(set(by_key.values()) - set(linked.values())):
        logger.warning("%s: its result is on no board; the report is left out", page)
    for page in set(linked.values()):
        _copy(page, out / "reports")
    return {source: f"reports/{quote(page.name)}" for source, page in linked.items()}


def _pages_by_key(folder: Path) -> dict[str, Path]:
    """The page of each key."""
    found = []
    for page in sorted(folder.glob("*.html")):
        keys = _KEY.findall(page.read_text(encoding="utf-8", errors="replace"))
        if not keys:
            logger.warning("%s: states no key of a result; is it a page of `ocl-bench report`?", page)
        found.append((keys, page))
    # Pages of one run come last and replace those of two.
    return {key: page for keys, page in sorted(found, key=lambda one: -len(one[0])) for key in keys}


def _copy(page: Path, target: Path) -> None:
    """Copy a page and the folder with its pictures, if it has one."""
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(page, target / page.name)
    pictures = page.with_suffix(".files")
    if pictures.is_dir():
        shutil.copytree(pictures, target / pictures.name, dirs_exist_ok=True)

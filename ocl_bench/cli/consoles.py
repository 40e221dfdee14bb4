"""Consoles of rich for streams that are no terminal, or that have ASCII signs only."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..core.terminal import plain

PIPE_WIDTH = 120
"""Columns of a console that is not a terminal, and of the widest table on one."""


class TabbedConsole(Console):
    """For programs, files and pipes: a text is one line, a table has tabs between its columns and no padding."""

    def print(self, *objects: Any, **keywords: Any) -> None:
        """Print the objects, as `Console` does, but for tables."""
        if not any(isinstance(one, Table) for one in objects):
            super().print(*objects, **{"soft_wrap": True, **keywords})
            return
        for table in objects:
            title = [self._plain(table.title)] if table.title else []
            columns = [[column.header, *column.cells] for column in table.columns]
            head, *rows = ("\t".join(map(self._plain, cells)) for cells in zip(*columns, strict=True))
            self.file.write("\n".join([*title, *([head] if table.show_header else []), *rows]) + "\n")

    def _plain(self, cell: Any) -> str:
        """A cell in one line, without its markup."""
        text = cell if isinstance(cell, Text) else self.render_str(cell)
        return " ".join(text.plain.split())


class PlainConsole(Console):
    """Puts ASCII for signs before a table is laid out: the columns stay straight although `+-` is wider than `±`."""

    def render_str(self, text: str, **keywords: Any) -> Text:
        """The text with its markup, as `Console` makes it."""
        return super().render_str(plain(text), **keywords)

"""Small tables as text, HTML and LaTeX: what `print`, a notebook and a paper show of a result."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

Cells = Sequence[Sequence[str]]
"""Rows of texts, all of one length. The first row is the head; all columns but the first are numbers."""

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "●": r"$\bullet$",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def text_table(cells: Cells) -> str:
    """Columns that are two spaces apart, numbers to the right, without spaces at the end of a line.

    >>> print(text_table([["metric", "value"], ["ari", "0.5"]]))
    metric  value
    ari       0.5
    """
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for first, *others in cells:
        numbers = [text.rjust(width) for text, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *numbers]).rstrip())
    return "\n".join(lines)


def html_table(cells: Cells) -> str:
    """A `<table>` whose texts are escaped."""
    head, *body = [[escape(text) for text in row] for row in cells]
    heads = "".join(f"<th>{text}</th>" for text in head)
    lines = [f"<tr><th>{first}</th>{''.join(f'<td>{text}</td>' for text in others)}</tr>" for first, *others in body]
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def latex_table(cells: Cells) -> str:
    """A `tabular` with the rules of the package booktabs, which the paper has to load."""
    head, *body = [" & ".join(_latex(text) for text in row) + r" \\" for row in cells]
    columns = "l" + "r" * (len(cells[0]) - 1)
    return "\n".join(
        [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
    )


def _latex(text: str) -> str:
    """A text as LaTeX prints it: every sign that means something there is escaped."""
    return re.sub(r"[\\~^±●&%$#_{}]", lambda sign: _LATEX[sign[0]], text)

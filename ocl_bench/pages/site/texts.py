"""Pages of text: *Why numbers differ*, with its examples as pictures, how to submit, and the claims of papers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from ...core.paths import bundled
from ...tables.comparison.claims_page import Papers, to_markdown
from ..render import environment
from .examples import EXAMPLES, Example

DOCUMENTS = {"why-numbers-differ": "Why numbers differ", "submit": "How to submit a result"}
"""Files of `docs/` that become pages, with their titles."""


def claims_content(judged: Papers) -> dict[str, Any]:
    """The page of the claims of all papers: each test behind a verdict, and what was printed."""
    return {"title": "Claims", "wide": True, "body": to_html(to_markdown(judged), {})}


def text_pages() -> Iterator[tuple[str, dict[str, Any], tuple[str, ...]]]:
    """Address, content and scripts of each page of text."""
    for name, title in DOCUMENTS.items():
        text = (bundled("docs") / f"{name}.md").read_text(encoding="utf-8")
        examples = EXAMPLES if name == "why-numbers-differ" else {}
        body = to_html(text, examples)
        yield f"{name}.html", {"title": title, "wide": False, "body": body}, ("examples.js",) if examples else ()


def to_html(text: str, examples: dict[str, Example]) -> Markup:
    """Markdown as HTML: tags in the text are escaped, and links to pages that the site does not have are plain text.

    Args:
        text: Markdown.
        examples: pictures by the start of the heading that they follow.
    """
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = [token for token in markdown.parse(text)]
    parts: list[str] = []
    start = 0
    for place, token in enumerate(tokens):
        if token.type != "heading_open":
            _mend(token)
            continue
        title = tokens[place + 1].content
        token.attrSet("id", anchor(title))
        example = next((one for head, one in examples.items() if title.startswith(head)), None)
        if example is not None:
            # The picture stands below the heading: everything up to the end of the heading is drawn first.
            parts.append(markdown.renderer.render(tokens[start : place + 3], markdown.options, {}))
            parts.append(
                str(
                    environment()
                    .get_template("site_example.html.j2")
                    .render(example=example.content(f"example-{place}"))
                )
            )
            start = place + 3
    parts.append(markdown.renderer.render(tokens[start:], markdown.options, {}))
    # The renderer of Markdown escapes the text itself, and the template of an example does.
    return Markup("".join(parts))


def anchor(title: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")


def _mend(token: Token) -> None:
    """Let links lead to pages of the site, to other sites or to anchors; others lose their address."""
    if token.type == "fence" or token.type == "code_block":
        token.attrSet("tabindex", "0")
    for child in token.children or ():
        target = str(child.attrs.get("href", "")) if child.type == "link_open" else ""
        if not target or target.startswith(("https://", "#")):
            continue
        name, _, place = target.partition("#")
        stem = name.removesuffix(".md")
        if stem in DOCUMENTS:
            child.attrSet("href", f"{stem}.html{'#' + place if place else ''}")
        else:
            del child.attrs["href"]

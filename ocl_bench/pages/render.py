"""Render a page: a jinja2 template with styles, one script and data inside, under a strict content-security policy.

Pages load nothing. Their style and their script are inline, and the policy names the hash of each, so that nothing else
runs. Values reach a page in two ways only, both escaped: as text of a template, and as JSON of `data`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from ..core.files import write_atomically
from ..core.paths import PACKAGE

TEMPLATES = PACKAGE / "pages" / "templates"
STATIC = PACKAGE / "pages" / "static"
BASE_STYLE = "page.css"
BASE_SCRIPT = "theme.js"


@cache
def environment() -> Environment:
    """The templates. Every value is escaped, and a name that a template asks for and does not get is an error."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["number"] = number
    made.filters["code_marks"] = code_marks
    # `tojson` writes <, >, & and ' as \\uXXXX: a text `</script>` ends no script element.
    made.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":"), "ensure_ascii": False}
    return made


def number(value: float, whole: bool = False) -> str:
    """A value with three decimals; with none where it is a count, which `whole` says or a value from 100 on."""
    return f"{value:.0f}" if whole or abs(value) >= 100 else f"{value:.3f}"


def code_marks(text: str) -> Markup:
    """A text of a card or of published rows, escaped, with what stands between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def render(
    template: str,
    content: Mapping[str, Any],
    *,
    styles: Sequence[str] = (),
    scripts: Sequence[str] = (),
    data: Any = None,
    frames: bool = False,
    bare: bool = False,
) -> str:
    """The HTML of a page.

    Args:
        template: file in `templates/`, which extends `base.html.j2`.
        content: names of the template.
        styles: files in `static/` that follow `page.css`.
        scripts: files in `static/` that follow `theme.js`. All become one module, in this order, and share their names.
        data: what scripts read with `pageData()`: plain lists, dicts, texts and finite numbers. None for no data.
        frames: whether the page may load pages beside it in frames.
        bare: leave out `page.css` and `theme.js`, for a page that nobody sees.

    Raises:
        ValueError: a number in `data` is not finite.
    """
    style = static_text([*([] if bare else [BASE_STYLE]), *styles])
    script = static_text([*([] if bare else [BASE_SCRIPT]), *scripts])
    page = {
        "policy": policy(style, script, frames),
        "style": Markup(style),
        "script": Markup(script),
        "data": data,
    }
    return environment().get_template(template).render(**content, page=page)


def write_page(path: Path, html: str) -> Path:
    """Write a page as UTF-8, all or nothing, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Names of files may hold bytes that are no UTF-8, which Python keeps as half characters.
    write_atomically(path, lambda part: part.write_bytes(html.encode("utf-8", "replace")))
    return path


def static_text(names: Sequence[str]) -> str:
    """The texts of files in `static/`, one after the other."""
    return "\n".join((STATIC / name).read_text(encoding="utf-8") for name in names)


def policy(style: str, script: str, frames: bool = False) -> str:
    """The content-security policy of a page with this style and this script."""
    rules = {
        "default-src": "'none'",
        "script-src": _source(script),
        "style-src": _source(style),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    if frames:
        rules["frame-src"] = "'self' file:"
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _source(text: str) -> str:
    """The hash by which a policy allows an inline element."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

"""Settings of Sphinx: `make docs` builds these pages into build/docs."""

from __future__ import annotations

import re
from importlib.metadata import version as version_of
from typing import Any

import jupytext
from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

project = "ocl-bench"
author = copyright = "The ocl-bench developers"
release = version = version_of("ocl-bench")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_external_toc",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext", ".py": "markdown"}  # tutorials are scripts
exclude_patterns = ["conf.py"]
external_toc_path = "_toc.yml"

# Anchors are those of GitHub, where the same pages are read.
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4

# Pages of `ocl-bench site`, which is published one folder above these pages.
BOARDS = {"README.md": "index.html", "claims.md": "claims.html"}
myst_url_schemes = {"http": None, "https": None, "mailto": None, "site": {"url": "../{{path}}"}}

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_mock_imports = ["lightning"]  # the callback for Lightning is described without it
python_maximum_signature_line_length = 80
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
add_module_names = False
default_role = "code"  # docstrings are written with single backticks
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = f"ocl-bench {release}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_math_renderer = "mathml"
html_copy_source = False


def draw_formula(writer: Any, node: nodes.Element) -> None:
    """A formula as MathML, which browsers draw without a script from elsewhere."""
    block = isinstance(node, nodes.math_block)
    try:
        mathml = tex2mathml(node.astext(), as_block=block)
    except MathError as error:
        raise ExtensionError(f"{node.source or ''}:{node.line}: formula '{node.astext()}': {error}") from error
    writer.body.append(f'<div class="math">{mathml}</div>' if block else mathml)
    raise nodes.SkipNode


def name_defaults(
    app: Sphinx, kind: str, name: str, value: Any, options: Any, signature: str | None, returns: Any
) -> Any:
    """Write `...` for a default that only Python can name, such as `<factory>`, which no signature may hold."""
    return None if signature is None else (re.sub(r"<[^<>]*>", "...", signature), returns)


def script_as_page(app: Sphinx, name: str, source: list[str]) -> None:
    """Read the script of a tutorial as Markdown."""
    if name.startswith("tutorials/"):
        source[0] = jupytext.writes(jupytext.reads(source[0], "py:percent"), "md")


def link_boards(app: Sphinx, name: str, source: list[str]) -> None:
    """Lead links to committed boards to the site of boards, in whose folder `docs` these pages are published."""
    for page, address in BOARDS.items():
        source[0] = source[0].replace(f"](../leaderboards/{page})", f"](site:{address})")


def setup(app: Sphinx) -> None:
    """Register what is defined above."""
    app.connect("source-read", script_as_page)
    app.connect("source-read", link_boards)
    app.connect("autodoc-process-signature", name_defaults)
    app.add_html_math_renderer("mathml", (draw_formula, None), (draw_formula, None))

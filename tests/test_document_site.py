"""The site of the documents: built without a warning, fits its window. Tutorials run, notebooks are theirs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import forked
import jupytext
import pytest
from browsers import chromium, errors, scheme, screenshot, size, wait
from documents import DOCS
from places import ROOT

from ocl_bench import __all__ as PUBLIC
from ocl_bench.metrics import CATALOGUE

TUTORIALS = sorted((DOCS / "tutorials").glob("*.py"))
WIDER_THAN_ITS_PLACE = """
return [...document.querySelectorAll('pre, .table-wrapper, div.math')]
    .filter(one => one.scrollWidth > one.clientWidth + 1)
    .map(one => Array.from(one.innerText).slice(0, 80).join(''))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built pages. Warnings are errors: links, anchors, formulas, docstrings, pages outside of the contents."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", str(DOCS), str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as one:
        yield one


def pages(site: Path) -> list[Path]:
    tools = {"genindex.html", "search.html", "py-modindex.html"}
    return [page for page in sorted(site.rglob("*.html")) if page.name not in tools]


def test_every_page_is_linked_from_every_page(site: Path) -> None:
    links = set(re.findall(r'<a class="reference internal" href="([^"#]+)"', (site / "index.html").read_text()))
    assert {page.relative_to(site).as_posix() for page in pages(site)} - {"index.html"} <= links


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    reference = "".join(page.read_text() for page in (site / "api").glob("*.html"))
    named = set(re.findall(r'id="ocl_bench\.(?:[a-z_]+\.)*(\w+)"', reference))
    assert set(PUBLIC) - named == {"__version__"}


def test_every_metric_is_defined() -> None:
    page = (DOCS / "metrics.md").read_text()
    endings = ("_1_5", "_6_10", "_11_on")
    assert {name for name in CATALOGUE if f"`{name}`" not in page and not name.endswith(endings)} == set()


def test_formulas_are_typeset_and_nothing_comes_from_elsewhere(site: Path) -> None:
    html = (site / "metrics.html").read_text()
    assert html.count("<math") > 30 and "$" not in re.sub(r"<pre>.*?</pre>", "", html, flags=re.DOTALL)
    loaded = re.findall(r"<script[^>]* src=\"([^\"]+)|<link[^>]* rel=\"stylesheet\"[^>]* href=\"([^\"]+)", html)
    assert loaded and not [one for pair in loaded for one in pair if one.startswith(("http", "//"))]


def test_nothing_is_wider_than_its_place(site: Path, browser: Any) -> None:
    found: dict[str, list[str]] = {}
    for page in pages(site):
        browser.get(page.as_uri())
        for width in (1440, 390):
            size(browser, width)
            name = f"{page.relative_to(site).with_suffix('')} at {width}"
            if browser.execute_script("return document.documentElement.scrollWidth > innerWidth + 1"):
                found[name] = ["the page"]
            if width == 1440 and (wide := browser.execute_script(WIDER_THAN_ITS_PLACE)):
                found[name] = wide
            screenshot(browser, f"docs-{page.stem}-{width}")
        assert errors(browser) == [], page.name
    assert found == {}


def test_dark_mode_search_and_copy_buttons(site: Path, browser: Any) -> None:
    browser.get((site / "quickstart.html").as_uri())
    wait(browser, "document.querySelectorAll('button.copybtn').length >= 10")
    ground = "return getComputedStyle(document.body).backgroundColor"
    seen = []
    for value in ("light", "dark"):
        scheme(browser, value)
        seen.append(browser.execute_script(ground))
    scheme(browser, "light")
    assert seen[0] == "rgb(255, 255, 255)" and seen[1] != seen[0]
    browser.get((site / "search.html").as_uri() + "?q=bootstrap")
    wait(browser, "document.querySelectorAll('ul.search li').length > 2")


@pytest.mark.parametrize("script", TUTORIALS, ids=lambda script: script.stem)
def test_tutorial_runs(script: Path, tmp_path: Path) -> None:
    places = {"OCL_BENCH_RESULTS": str(tmp_path / "results")}
    done = forked.run(_as_script, str(script), cwd=tmp_path, environment=places, timeout=600.0)
    assert done.returncode == 0, done.stderr
    assert EXPECTED[script.stem] in done.stdout


EXPECTED = {
    "evaluate_your_model": "oracle       mbo_fg 1.000 [1.000, 1.000]",
    "your_own_data": "oracle: 1.000 [1.000, 1.000]  objects per image: 3 to 3",
    "read_a_leaderboard": "undecided",
}
"""Part of what each tutorial prints."""


def _as_script(path: str) -> None:
    import runpy

    runpy.run_path(path, run_name="__main__")


@pytest.mark.parametrize("script", TUTORIALS, ids=lambda script: script.stem)
def test_notebook_is_that_of_the_script(script: Path) -> None:
    """`make notebooks` writes them."""
    made, stored = (jupytext.read(path) for path in (script, script.with_suffix(".ipynb")))
    assert [(cell.cell_type, cell.source) for cell in stored.cells] == [
        (cell.cell_type, cell.source) for cell in made.cells
    ]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in stored.cells)


def test_pictures_are_small() -> None:
    assert sum(path.stat().st_size for path in (DOCS / "pictures").iterdir()) < 1_000_000


@pytest.mark.parametrize(
    "family", ["discovery", "detection", "segmentation", "recognition", "knn", "video", "prediction", "clevrer"]
)
def test_every_family_has_a_picture(family: str) -> None:
    assert f"](pictures/{family}.webp)" in (DOCS / f"{family}.md").read_text()

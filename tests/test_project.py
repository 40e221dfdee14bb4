"""What the project says about itself holds: versions agree, links lead somewhere, pages are in the contents."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from documents import DOCS, FENCE, PAGES, ROOT, blocks

import ocl_bench
from ocl_bench import cli
from ocl_bench.results.record import Result

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    text = FENCE.sub("", page.read_text())
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_versions_agree() -> None:
    version = PROJECT["project"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    changelog = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert ocl_bench.__version__ == version
    assert importlib.metadata.version("ocl-bench") == version
    assert citation["version"] == version
    assert changelog is not None and changelog[1] == version


def test_console_script_is_the_command_line() -> None:
    assert PROJECT["project"]["scripts"]["ocl-bench"] == "ocl_bench.cli:main"
    assert callable(cli.main)


def test_constraints_pin_every_direct_dependency() -> None:
    def normal(requirement: str) -> str:
        return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement)[0]).lower()

    lines = (ROOT / "constraints.txt").read_text().split()
    assert "torch==2.13.0" in lines
    assert all("==" in line for line in lines)
    pinned = {normal(line) for line in lines}
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [*PROJECT["project"]["dependencies"], *extras["test"], *extras["docs"]]
    assert {normal(requirement) for requirement in wanted} - pinned == set()


def test_citation_names_the_papers() -> None:
    references = yaml.safe_load((ROOT / "CITATION.cff").read_text())["references"]
    readme = (ROOT / "README.md").read_text()
    cited = {reference["url"].rsplit("/", 1)[1] for reference in references}
    assert {"2507.23755", "2506.05409", "2205.15288", "2508.03411", "2412.14295"} <= cited
    assert {number for number in cited if number not in readme} == set()
    assert all(author["family-names"] and author["given-names"] for r in references for author in r["authors"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def test_every_page_is_in_the_navigation() -> None:
    contents = yaml.safe_load((DOCS / "_toc.yml").read_text())
    listed = [entry["file"] for part in contents["subtrees"] for entry in part["entries"]]
    pages = [page for suffix in ("md", "rst") for page in DOCS.rglob(f"*.{suffix}")] + list(DOCS.glob("tutorials/*.py"))
    assert [part["caption"] for part in contents["subtrees"]] == ["Start", "Guides", "Reference", "Background"]
    assert sorted([contents["root"], *listed]) == sorted(
        page.relative_to(DOCS).with_suffix("").as_posix() for page in pages
    )


def test_pages_that_messages_name_exist() -> None:
    sources = [path.read_text() for path in (ROOT / "ocl_bench").rglob("*.py")]
    named = {name for source in sources for name in re.findall(r"docs/[\w-]+\.md", source)}
    assert named and {name for name in named if not (ROOT / name).is_file()} == set()


def test_result_page_names_every_field() -> None:
    page = (ROOT / "docs" / "result-schema.md").read_text()
    documented = {row[0]: set(row[1:]) for row in (re.findall(r"`(\w+)`", line) for line in page.splitlines()) if row}
    for name, field in Result.model_fields.items():
        section = field.alias or name
        fields: dict[str, Any] = getattr(field.annotation, "model_fields", {})
        assert section in documented and set(fields) - documented[section] == set(), section


def test_readme_model_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model of the README, as it stands there, goes through the corridor; its class is at most 8 lines."""
    (source,) = blocks(ROOT / "README.md", "python")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OCL_BENCH_DATA", raising=False)
    monkeypatch.delenv("OCL_BENCH_RESULTS", raising=False)
    names: dict[str, object] = {"__name__": "readme"}
    exec(compile(source, "README.md", "exec"), names)
    assert len([line for line in source.splitlines() if line.strip()]) <= 8
    assert names["result"].counts.scored == 16  # type: ignore[attr-defined]

"""What the project says about itself holds: versions agree, links lead somewhere, pages are in the contents."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
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
INSTALL = ROOT / "docs" / "install.md"


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
    (whole,) = extras["all"]
    named = re.findall(r"\w+", whole.partition("[")[2])
    of_extras = [one for name in ("test", "docs", *named) for one in extras[name]]
    wanted = [*PROJECT["project"]["dependencies"], *of_extras]
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


def test_conda_recipe_needs_what_the_core_needs() -> None:
    recipe = yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text())
    core = {line.replace("torch>", "pytorch>").replace(">=", " >=") for line in PROJECT["project"]["dependencies"]}
    assert set(recipe["requirements"]["run"]) == core | {f"python {PROJECT['project']['requires-python']}"}
    assert recipe["context"]["version"] == PROJECT["project"]["version"]


def test_documented_extras_exist() -> None:
    named = {name for page in PAGES for name in re.findall(r"ocl-bench\[([\w,]+)\]", page.read_text())}
    sources = [path.read_text() for path in (ROOT / "ocl_bench").rglob("*.py")]
    named |= {name for source in sources for name in re.findall(r'import_optional\("[\w.]+", "(\w+)"', source)}
    listed = set(re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| (`.+?) \|", INSTALL.read_text(), re.MULTILINE))))
    extras = set(PROJECT["project"]["optional-dependencies"])
    assert named and named - extras == set()
    assert extras - listed == {"docs", "test"}


def workflow(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text())
    return found


def test_every_python_that_is_promised_is_tested() -> None:
    prefix = "Programming Language :: Python :: 3."
    promised = {line.rpartition(" ")[2] for line in PROJECT["project"]["classifiers"] if line.startswith(prefix)}
    assert set(workflow("ci")["jobs"]["checks"]["strategy"]["matrix"]["python"]) == promised


def test_publishing_checks_first_and_holds_no_password() -> None:
    found = workflow("publish")
    assert found[True] == {"push": {"tags": ["v*"]}}  # YAML reads the key `on` as true
    build, publish = found["jobs"]["build"], found["jobs"]["publish"]
    assert publish["needs"] == "build" and publish["permissions"] == {"id-token": "write"}
    assert found["permissions"] == {"contents": "read"} and "permissions" not in build
    assert "secrets." not in (ROOT / ".github" / "workflows" / "publish.yml").read_text()
    for step in build["steps"]:
        if "run" in step:
            assert "${{" not in step["run"]  # the name of a tag would become code
            subprocess.run(["bash", "-n"], input=step["run"], text=True, check=True)


@pytest.mark.parametrize(("tag", "owner", "code"), [("v{}", "me", 0), ("v0.0.0", "me", 1), ("v{}", "OWNER", 1)])
def test_only_the_version_with_real_addresses_is_published(tmp_path: Path, tag: str, owner: str, code: int) -> None:
    (script,) = (step["run"] for step in workflow("publish")["jobs"]["build"]["steps"] if "TAG" in step.get("env", {}))
    text = (ROOT / "pyproject.toml").read_text().replace("github.com/OWNER", f"github.com/{owner}")
    (tmp_path / "pyproject.toml").write_text(text)
    shim = tmp_path / "bin" / "python"
    shim.parent.mkdir()
    shim.symlink_to(sys.executable)
    environment = {"PATH": f"{shim.parent}:{os.environ['PATH']}", "TAG": tag.format(PROJECT["project"]["version"])}
    done = subprocess.run(["bash", "-ec", script], cwd=tmp_path, env=environment, check=False, capture_output=True)
    assert done.returncode == code, done


def test_image_runs_as_a_user_with_its_cache_in_a_volume() -> None:
    text = (ROOT / "Dockerfile").read_text()
    words = [line.split() for line in text.splitlines() if line and not line.startswith(("#", " "))]
    assert [rest for word, *rest in words if word == "USER"] == [["bench"]]
    assert f"OCL_BENCH_CACHE={next(rest[0] for word, *rest in words if word == 'VOLUME')}" in text
    (extras,) = re.findall(r"^ARG EXTRAS=(\w+)$", text, re.MULTILINE)
    assert extras in PROJECT["project"]["optional-dependencies"]

"""What the project says about itself holds: versions agree, links lead somewhere, documented commands exist."""

from __future__ import annotations

import importlib.metadata
import itertools
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import ocl_bench
from ocl_bench import cli
from ocl_bench.cards.task import load_task
from ocl_bench.core.paths import bundled
from ocl_bench.evaluation.matrix import expand
from ocl_bench.metrics import find_metric
from ocl_bench.results.record import Result

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
INSTALL = ROOT / "docs" / "install.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [body for kind, body in FENCE.findall(page.read_text()) if kind == language]


def commands() -> Iterator[tuple[str, str]]:
    """(page, line) of every shell line in the documents that starts with `ocl-bench`."""
    for page in PAGES:
        for body in blocks(page, "bash"):
            for line in body.splitlines():
                if line.startswith("ocl-bench "):
                    yield page.name, line


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub and mkdocs make of a page's headings."""
    text = FENCE.sub("", page.read_text())
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def complaint(line: str) -> str | None:
    """What is wrong with a documented command line, or None."""
    words = shlex.split(line.split(">")[0], comments=True)[1:]
    command: Any = typer.main.get_command(cli.app)
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        if words[0] not in command.commands:
            return f"there is no command '{words[0]}'"
        command, words = command.commands[words[0]], words[1:]
    known = {"--help"} | {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    unknown = [word for word in words if word.startswith("-") and word.split("=")[0] not in known]
    return f"'{command.name}' has no option {unknown}" if unknown else None


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
    wanted = [*PROJECT["project"]["dependencies"], *extras["test"], *(one for name in named for one in extras[name])]
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
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    listed = {file for entry in navigation for file in entry.values()}
    assert listed == {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}


def test_pages_that_messages_name_exist() -> None:
    sources = [path.read_text() for path in (ROOT / "ocl_bench").rglob("*.py")]
    named = {name for source in sources for name in re.findall(r"docs/[\w-]+\.md", source)}
    assert named and {name for name in named if not (ROOT / name).is_file()} == set()


@pytest.mark.parametrize(("page", "line"), list(commands()))
def test_documented_command_exists(page: str, line: str) -> None:
    assert complaint(line) is None, f"{page}: {line}"


@pytest.mark.parametrize("line", ["ocl-bench evaluate", "ocl-bench eval --modell dias"])
def test_the_command_check_sees_mistakes(line: str) -> None:
    assert complaint(line) is not None


def test_documented_options_of_eval_exist() -> None:
    rows = re.findall(r"^\| `(--[\w-]+)", (ROOT / "docs" / "quickstart.md").read_text(), re.MULTILINE)
    assert len(rows) > 5
    assert {row for row in rows if complaint(f"ocl-bench eval {row}") is not None} == set()


def test_documented_cards_exist() -> None:
    lines = [shlex.split(line.split(">")[0], comments=True) for _, line in commands()]
    pairs = {(a, b) for words in lines for a, b in itertools.pairwise(words)}
    several = [name for option, name in pairs if option == "--task" and not name.endswith(".yaml")]
    tasks = {name for names in several for name in expand(names, "task")}
    toys = {"toy-discovery", "toy-counting"}  # of the package that docs/extend.md writes, which has a test of its own
    assert tasks and {name for name in tasks - toys if not (bundled("tasks") / f"{name}.yaml").is_file()} == set()


def test_documented_task_cards_are_valid(tmp_path: Path) -> None:
    pages = [page for page in PAGES if page.name != "extend.md"]  # its cards need the package that the page writes
    bodies = [body for page in pages for body in blocks(page, "yaml") if "\nfamily:" in body]
    assert bodies
    for number, body in enumerate(bodies):
        card = tmp_path / f"card{number}.yaml"
        card.write_text(body)
        for name in load_task(card).metrics:
            find_metric(name)  # raises for a name that no family knows


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

"""The shape of the package: twelve rooms, imports in one direction, no circles (docs/architecture.md)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ocl_bench.core.paths import PACKAGE

ROOMS = (
    "core",
    "metrics",
    "cards",
    "results",
    "data",
    "models",
    "families",
    "evaluation",
    "training",
    "tables",
    "pages",
    "cli",
)
"""Each imports only from itself and from rooms before it."""
LARGEST_FILE, LARGEST_FUNCTION = 400, 60

Graph = Mapping[str, set[str]]


def modules(package: Path = PACKAGE) -> dict[str, Path]:
    """Every module of the package by its name, packages by that of their folder."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    """What a module imports of the package, also for type checkers only and inside functions."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield from (one for one in (f"{base}.{alias.name}", base) if one in known)


def graph_of(package: Path = PACKAGE) -> dict[str, set[str]]:
    known = modules(package)
    graph = {name: {other for other in imports(name, path, known) if other != name} for name, path in known.items()}
    for name, others in graph.items():  # importing a module of a package is no import of the package's face
        graph[name] = {other for other in others if not any(one.startswith(f"{other}.") for one in others)}
    return graph


def circles(graph: Graph) -> list[list[str]]:
    """Sets of modules each of which reaches all others (Tarjan), apart from single ones."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for other in graph[name]:
            if other not in order:
                visit(other)
            if other in stack:
                low[name] = min(low[name], low[other])
        if low[name] == order[name]:
            members = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(members) > 1:
                found.append(sorted(members))

    for name in graph:
        if name not in order:
            visit(name)
    return found


def upward(graph: Graph) -> list[str]:
    """Imports from a room of one that stands after it."""

    def room(name: str) -> int:
        part = name.split(".")[1] if "." in name else ""
        return ROOMS.index(part) if part in ROOMS else -1

    return [
        f"{name} -> {other}"
        for name, others in sorted(graph.items())
        for other in sorted(others)
        if 0 <= room(name) < room(other)
    ]


def test_twelve_rooms_and_four_files() -> None:
    entries = {path.name for path in PACKAGE.iterdir() if not path.name.startswith("__py")}
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name in entries} == set(ROOMS)
    assert entries - set(ROOMS) <= {"__init__.py", "__main__.py", "py.typed", "types.py"}


def test_imports_run_in_one_direction() -> None:
    assert upward(graph_of()) == []


def test_there_is_no_circle() -> None:
    assert circles(graph_of()) == []


def test_a_circle_and_an_arrow_back_are_seen(tmp_path: Path) -> None:
    """Also where an import is for type checkers only, or inside a function."""
    package = tmp_path / "ocl_bench"
    for room, text in (
        ("core", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..cli.b import value\n"),
        ("cli", "def function():\n    from ..core import b\n"),
    ):
        (package / room).mkdir(parents=True)
        (package / room / "__init__.py").write_text("")
        (package / room / "b.py").write_text(text)
    (package / "__init__.py").write_text("")
    assert circles(graph_of(package)) == [["ocl_bench.cli.b", "ocl_bench.core.b"]]
    assert upward(graph_of(package)) == ["ocl_bench.core.b -> ocl_bench.cli.b"]


def test_only_families_know_families_by_name() -> None:
    """Elsewhere what differs between families is asked of `FAMILIES`, so that one from another package is served."""
    question = re.compile(r"family (==|!=)|(?<!for )family (not )?in \(")
    asking = [path for path in PACKAGE.rglob("*.py") if question.search(path.read_text())]
    assert [path for path in asking if path.relative_to(PACKAGE).parts[0] != "families"] == []


def adapters(package: Path = PACKAGE) -> set[str]:
    """Names of the classes of `families/` that turn predictions into outputs."""
    classes = (
        node
        for path in (package / "families").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        and "Protocol" not in {base.id for base in node.bases if isinstance(base, ast.Name)}
    )
    return {one.name for one in classes if any(getattr(part, "name", "") == "outputs" for part in one.body)}


def asked_for(names: set[str], text: str) -> set[str]:
    """Which of these classes the text asks for with isinstance, alone, in a tuple or in a union."""
    calls = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
    asked = (call.args[1] for call in calls if getattr(call.func, "id", "") == "isinstance" and len(call.args) == 2)
    found = {getattr(node, "id", getattr(node, "attr", "")) for one in asked for node in ast.walk(one)}
    return found & names


def test_only_families_ask_for_an_adapter_by_its_class() -> None:
    names = adapters()
    assert {
        "Discovery",
        "Detection",
        "ProbedDetection",
        "Segmentation",
        "Recognition",
        "Knn",
        "VideoAdapter",
        "Dynamics",
        "Reasoning",
        "SlotReasoning",
    } == names
    outside = [path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] != "families"]
    assert {str(path): found for path in outside if (found := asked_for(names, path.read_text()))} == {}
    assert asked_for(names, "isinstance(one, (int, base.Knn))\nisinstance(one, Detection | None)") == {
        "Knn",
        "Detection",
    }


def body_lines(function: ast.FunctionDef) -> int:
    """Lines of a function without its signature and its docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_files_and_functions_can_be_read_in_one_sitting() -> None:
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert len(text.splitlines()) <= LARGEST_FILE, path
        functions = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef))
        assert [node.name for node in functions if body_lines(node) > LARGEST_FUNCTION] == [], path

"""docs/reliability.md names a test for each promise about equal bits, and its command is the one that exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from places import ROOT

PAGE = ROOT / "docs/reliability.md"
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


def names_in(path: Path) -> set[str]:
    """Names of the tests of a file, also of those in classes."""
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def rows(heading: str) -> list[str]:
    """The lines of the table below a heading."""
    section = PAGE.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return lines[2:]


def test_each_line_about_equal_bits_names_a_test_that_exists() -> None:
    lines = rows("Equal bits and tolerances")
    assert len(lines) > 15
    for line in lines:
        found = NAMED.findall(line)
        assert found, line
        for file, name in found:
            path = ROOT / "tests" / file
            assert path.is_file() and name in names_in(path), (file, name)


def test_a_test_that_does_not_exist_is_seen() -> None:
    assert NAMED.findall("| a | `core/test_files.py::test_nothing` |") == [("core/test_files.py", "test_nothing")]
    assert "test_nothing" not in names_in(ROOT / "tests/core/test_files.py")


def test_the_commands_of_the_page_exist() -> None:
    parts = re.findall(r"python tests/faults/run\.py (\w+)", PAGE.read_text(encoding="utf-8"))
    source = (ROOT / "tests/faults/run.py").read_text()
    assert parts and all(f'"{part}"' in source for part in parts)

"""The Python files that a user's model comes from: its own, and those that it imports outside of installed packages."""

from __future__ import annotations

import ast
import hashlib
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from ..core.paths import PACKAGE


def source_files(path: Path) -> list[Path]:
    """A user's Python file and those that it imports from outside of installed packages, the file first.

    The imports are read from the sources, at any depth and wherever they stand in the file, so that those of a module
    that was imported before count, too. A name that was not imported when the model was built has no file yet.
    """
    found: dict[Path, None] = {}
    waiting = [path.resolve()]
    while waiting:
        file = waiting.pop(0)
        if file in found:
            continue
        found[file] = None
        waiting += [other for other in _imported(file) if other not in found]
    return list(found)


def files_of(factory: Any) -> list[Path]:
    """The user's files behind a function or class of an importable module; none where they cannot be found."""
    module = sys.modules.get(getattr(factory, "__module__", "") or "")
    file = _file(module) if module is not None else None
    return source_files(file) if file is not None else []


def _imported(file: Path) -> Iterator[Path]:
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return  # importing it has said so, or it is no source
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            names = [base, *(f"{base}.{alias.name}" if base else alias.name for alias in node.names)]
        elif isinstance(node, ast.Call) and (name := _imported_by_call(node)):
            names = [name]
        for name in names:
            yield from _files_of(name, file)


def _imported_by_call(call: ast.Call) -> str:
    """The module that `importlib.import_module("name")` or `__import__("name")` names; '' for any other call."""
    function = getattr(call.func, "attr", None) or getattr(call.func, "id", None)
    first = call.args[0] if call.args else None
    if function not in ("import_module", "__import__") or not isinstance(first, ast.Constant):
        return ""
    return first.value.lstrip(".") if isinstance(first.value, str) else ""


def _files_of(name: str, importer: Path) -> Iterator[Path]:
    """The files of a module and of the packages that it lies in, where they are the user's own."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        module = sys.modules.get(".".join(parts[:end]))
        file = _file(module) if module is not None else _beside(importer, parts[:end])
        if file is not None and not installed(file):
            yield file


def _file(module: ModuleType) -> Path | None:
    name = getattr(module, "__file__", None)
    return Path(name).resolve() if name and name.endswith(".py") else None


def _beside(importer: Path, parts: list[str]) -> Path | None:
    """A module beside the file that imports it: a relative import, or one under another name in `sys.modules`."""
    place = importer.parent.joinpath(*parts)
    for file in (place.with_suffix(".py"), place / "__init__.py"):
        if file.is_file():
            return file.resolve()
    return None


def installed(file: Path) -> bool:
    """Whether a file belongs to Python, to an installed package or to this suite: their versions are recorded."""
    places = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    roots = [Path(place).resolve() for place in places if place] + [PACKAGE]
    return any(file.is_relative_to(root) for root in roots)


@cache
def _is_own(file: Path) -> bool:
    return not installed(file)


def own_file(module: str | ModuleType | None) -> Path | None:
    """The file of a module, or of the module with this name, where it is a user's own; else None."""
    module = sys.modules.get(module) if isinstance(module, str) else module
    file = _file(module) if module is not None else None
    return file if file is not None and _is_own(file) else None


def sources_sha256(files: list[Path], root: Path) -> str:
    """SHA-256 of source files: their places relative to `root`, and their content."""
    digest = hashlib.sha256()
    for file in files:
        place = file.relative_to(root) if file.is_relative_to(root) else file.name
        digest.update(f"{place}|".encode("utf-8", "surrogateescape"))
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()

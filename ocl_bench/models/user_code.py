"""Python files of users: imported as `python model.py` would run them, with errors that point at their own lines."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..cards.names import suggest
from ..core.errors import OclBenchError, UsageError
from .sources import installed, source_files

_seen: dict[Path, str] = {}
"""SHA-256 of the user's files as they were imported in this process."""


def load_attribute(path: Path, attribute: str) -> tuple[Any, list[Path]]:
    """An attribute of a user's Python file, and the user's files that it came from, the file itself first.

    The folder of the file comes first in `sys.path`, so that modules beside it can be imported, as with
    `python model.py`. A module that was imported earlier in this process and edited since then is imported again.

    Raises:
        UsageError: there is no such file or attribute, or importing it failed.
    """
    if not path.is_file():
        raise UsageError(f"model {path}:{attribute}: {path} does not exist")
    path = path.resolve()
    _forget_edited_modules(path)
    folder = str(path.parent)
    if folder not in sys.path[:1]:
        sys.path.insert(0, folder)
    # Two files of one name in two folders are two modules.
    name = f"ocl_bench_user_{path.stem}_{hashlib.sha256(folder.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UsageError(f"model {path}: importing it failed ({described(error)})") from error
    if not hasattr(module, attribute):
        public = [key for key in vars(module) if not key.startswith("_")]
        raise UsageError(f"model {path}: has no '{attribute}'{suggest(attribute, public)}")
    files = source_files(path)
    _seen.update({file: hashlib.sha256(file.read_bytes()).hexdigest() for file in files})
    return getattr(module, attribute), files


def _forget_edited_modules(path: Path) -> None:
    """Drop imported modules of the user that are not what their files hold now, and those of another folder's names."""
    beside = {entry.stem for entry in path.parent.iterdir() if entry.suffix == ".py" or entry.is_dir()}
    for name, module in list(sys.modules.items()):
        place = getattr(module, "__file__", None)
        file = Path(place).resolve() if place else None
        if file is None or file not in _seen:
            continue
        edited = not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != _seen[file]
        elsewhere = name.partition(".")[0] in beside and not file.is_relative_to(path.parent)
        if edited or elsewhere:
            del sys.modules[name]


@contextmanager
def own_errors(text: str) -> Iterator[None]:
    """Turn whatever a user's code raises into a UsageError of one line, `<text> (<error>, in <file> line <number>)`."""
    try:
        yield
    except OclBenchError:
        raise
    except (Exception, SystemExit) as error:  # code that calls sys.exit must not end the run silently
        raise UsageError(f"{text} ({described(error)})") from error


def described(error: BaseException) -> str:
    """An error of a user's code in one line: its kind, its first line, and the last place in their own files."""
    reason = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {reason[0][:300]}" if reason else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith("<") and not installed(Path(frame.filename))]
    return f"{text}, in {own[-1].filename} line {own[-1].lineno}" if own else text

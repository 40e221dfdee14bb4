"""Blocks of the documents, and what is wrong with a command in them."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import typer
from places import ROOT

from ocl_bench import cli

DOCS = ROOT / "docs"
PAGES = sorted(
    [*(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")), *DOCS.rglob("*.md")]
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    """The bodies of the fenced blocks of one language."""
    return [body for kind, body in FENCE.findall(page.read_text(encoding="utf-8")) if kind == language]


def shell_lines(page: Path) -> Iterator[str]:
    """Commands of a page's shell blocks, each on one line and without its comment."""
    for body in blocks(page, "bash"):
        for line in body.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield shlex.join(words)


def commands() -> Iterator[tuple[str, str]]:
    """(page, line) of every command in the documents."""
    for page in PAGES:
        for line in shell_lines(page):
            yield page.name, line


def complaint(line: str) -> str | None:
    """What is wrong with a documented command line, or None. Nothing is run."""
    words = [word for word in shlex.split(line) if not re.match(r"[A-Z_]+=", word)]  # variables before a command
    program, arguments = words[0], words[1:]
    if program not in PROGRAMS:
        return f"no check knows the program '{program}'"
    return PROGRAMS[program](arguments)


def _suite(arguments: list[str]) -> str | None:
    """Parse the arguments as `ocl-bench` does, values too."""
    words = arguments[: arguments.index(">")] if ">" in arguments else arguments
    words = [word for word in words if not re.fullmatch(r"\[[A-Z]+\]", word)]  # `[NAME]` may be left out
    command: Any = _command()
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        if words[0] not in command.commands:
            return f"there is no command '{words[0]}'"
        command, words = command.commands[words[0]], words[1:]
    try:
        command.make_context(command.name, list(words))
    except typer.Exit:
        return None  # `--help` and `--version`
    except Exception as error:  # of click, whose classes typer carries under its own name
        return f"'{command.name}': {getattr(error, 'message', '') or error}"
    return None


@cache
def _command() -> Any:
    return typer.main.get_command(cli.app)


def _script(arguments: list[str]) -> str | None:
    """`python FILE --option`: the file is there and has these options; `python -m ocl_bench.cli` is the suite."""
    if arguments[:2] == ["-m", "ocl_bench.cli"]:
        return _suite(arguments[2:])
    if arguments[0].startswith("-m"):
        return None if arguments[1] in ("venv", "pip", "pytest") else f"no check knows the module '{arguments[1]}'"
    path = ROOT / arguments[0]
    if not path.is_file():
        return f"there is no file {arguments[0]}"
    missing = [word for word in arguments[1:] if word.startswith("--") and f'"{word}"' not in path.read_text()]
    return f"{arguments[0]} has no option {missing}" if missing else None


def _torchrun(arguments: list[str]) -> str | None:
    return _script(arguments[arguments.index("-m") :])


def _make(arguments: list[str]) -> str | None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    unknown = [word for word in arguments if "=" not in word and word not in targets]
    return f"the Makefile has no target {unknown}" if unknown else None


def _pip(arguments: list[str]) -> str | None:
    """Extras that are installed exist."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = [name for word in arguments for group in re.findall(r"\[([\w,]+)\]", word) for name in group.split(",")]
    unknown = [name for name in named if name not in extras]
    return f"there is no extra {unknown}" if unknown else None


def _anything(arguments: list[str]) -> str | None:
    return None


PROGRAMS: dict[str, Callable[[list[str]], str | None]] = {
    "ocl-bench": _suite,
    "python": _script,
    "torchrun": _torchrun,
    "make": _make,
    "pip": _pip,
    "pytest": _anything,
    "docker": _anything,
    "export": _anything,
    "git": _anything,
    ".ci/run": _anything,
    ".venv/bin/pre-commit": _anything,
}
"""What checks the arguments of each program that a page may name."""

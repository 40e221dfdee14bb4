"""Functions and commands in processes of their own, which are forks of a server that has imported everything.

Importing torch and the suite takes seconds of a processor, and many commands run in the tests. The server is the one
of `multiprocessing`: it starts with the first use, computes nothing and ends with this process.
"""

from __future__ import annotations

import multiprocessing
import os
import pkgutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import ocl_bench

Act = Callable[..., int | None]
"""A function of a module; what it returns is the exit code."""
_WARM = ("datasets", "matplotlib.pyplot", "pandas", "scipy.io", "torch", "torch._dynamo")
"""Of other packages; torch imports the last one with the first optimizer."""


@dataclass(frozen=True)
class Done:
    """How a process ended. returncode: negative for a signal. stdout, stderr: what it printed."""

    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Started:
    """A process that runs, and the folder that has what it prints."""

    process: BaseProcess
    printed: tempfile.TemporaryDirectory[str]

    def end(self, timeout: float = 120.0) -> Done:
        """Wait for the end. Raises TimeoutError after `timeout` seconds and ends the process."""
        self.process.join(timeout)
        code = self.process.exitcode
        if code is None:
            self.process.kill()
            self.process.join()
        out, err = ((Path(self.printed.name) / name).read_text() for name in ("out", "err"))
        self.printed.cleanup()
        if code is None:
            raise TimeoutError(f"no end after {timeout} s: {out}{err}")
        return Done(code, out, err)


def start(
    act: Act,
    *arguments: object,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Started:
    """Start a function of a module. environment: added to that of this process."""
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload(everything())
    printed = tempfile.TemporaryDirectory(prefix="printed-")
    whole = {**os.environ, **(environment or {})}
    process = context.Process(target=_run, args=(act, arguments, str(cwd or Path.cwd()), whole, printed.name))
    process.start()
    return Started(process, printed)


def run(act: Act, *arguments: object, timeout: float = 120.0, **places: object) -> Done:
    """Run a function of a module to its end. places: as for `start`."""
    return start(act, *arguments, **places).end(timeout)  # type: ignore[arg-type]


def command(*arguments: str) -> None:
    """What `ocl-bench` does with these arguments."""
    from ocl_bench.cli import main

    sys.argv = ["ocl-bench", *arguments]
    main()


def tests(*arguments: str) -> int:
    """What `pytest` does with these arguments, without the settings and the plugins of this project."""
    import pytest

    return int(pytest.main(["--rootdir=.", "--config-file=/dev/null", "-p", "no:cacheprovider", *arguments]))


def script(path: Path, *arguments: str) -> None:
    """A file in an interpreter of its own, which imports everything again."""
    os.execv(sys.executable, [sys.executable, str(path), *arguments])


def everything() -> list[str]:
    """Names of the modules that commands import, at the start or when they need them."""
    found = pkgutil.walk_packages(ocl_bench.__path__, "ocl_bench.")
    left_out = ("__main__", ".lightning")  # one runs the command, the other needs a package that is not installed
    return [*_WARM, "ocl_bench", *(module.name for module in found if not module.name.endswith(left_out))]


def _run(act: Act, arguments: tuple[object, ...], cwd: str, environment: dict[str, str], printed: str) -> None:
    encoding = environment.get("PYTHONIOENCODING", "utf-8")
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(Path(printed) / name, os.O_WRONLY | os.O_CREAT), number)
        # Not closed with its object: the harness puts other streams in their place.
        setattr(sys, f"std{name}", os.fdopen(number, "w", encoding=encoding, closefd=False))
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.path[:0] = [part for part in environment.get("PYTHONPATH", "").split(os.pathsep) if part]
    sys.exit(act(*arguments))

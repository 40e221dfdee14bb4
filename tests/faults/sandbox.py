"""Runs a command of `ocl-bench` in a process of its own, and tells how it ended and what it touched.

The process is a fork of this one, so nothing is imported again. It works in a folder `given` and may write to
`given/results`, `given/cache`, `given/out` and to temporary files, nowhere else.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import forked

WRITABLE = ("results", "cache", "out")
SECONDS, BYTES = 20.0, 2 * 2**30
"""What one malformed input may cost. Seconds are those of the processor: a test machine may be busy."""
_NEVER_ENDS = 90.0
_ADDRESS_SPACE = 12 * 2**30  # torch alone maps some GiB; what is used in fact is measured
_STARTS = ("git",)
"""Programs that may be started: the commit of the suite is recorded."""


@dataclass
class Ending:
    """How a command ended.

    Attributes:
        code: exit code; negative for a signal, None where it was stopped after `_NEVER_ENDS` seconds.
        out, err: what it printed.
        seconds: of the processor. waited: by the clock. peak: bytes of memory.
        acts: what it did beyond its folders, as seen by Python's audit hooks.
    """

    code: int | None
    out: str
    err: str
    seconds: float
    waited: float
    peak: int
    acts: list[str] = field(default_factory=list)

    @property
    def last(self) -> str:
        """The last line on standard error."""
        return self.err.strip().splitlines()[-1] if self.err.strip() else ""

    def check(self, message: str) -> None:
        """Raise AssertionError unless the command ended well."""
        if self.code != 0:
            raise AssertionError(f"{message}: exit code {self.code}\n{self.out}\n{self.err}")

    def faults(self) -> list[str]:
        """What is wrong with the ending, whatever the input was."""
        found = [*self.acts]
        if self.code is None:
            found.append("does not end")
        elif self.code not in (0, 1, 2, 3):
            found.append(f"exit code {self.code}")
        if "Traceback (most recent call last)" in self.err + self.out:
            found.append("traceback")
        elif self.code in (2, 3) and not re.match(r"[Ee]rror: |[^\n]+: error: ", self.last):
            found.append("no line that begins with error:")
        if "OCL_BENCH_DEBUG=1 shows" in self.err:
            found.append("an error that nobody foresaw")
        if "out of memory" in self.err:
            found.append("out of memory")
        if self.code == 1 and not re.search(r"failed|REFUSED|not ranked|FAIL|fell|not the stored", self.err + self.out):
            found.append("exit code 1 without a reason")
        if self.seconds > SECONDS:
            found.append(f"{self.seconds:.0f} s")
        if self.peak > BYTES:
            found.append(f"{self.peak / 2**30:.1f} GiB")
        return found


def run(act: Callable[[], None], given: Path, kill_after: float | None = None) -> Ending:
    """Do something in a fork of this process that works in `given`."""
    return start(act, given, kill_after).end()


@dataclass
class Running:
    """A process that was started, and where it writes what it prints."""

    pid: int
    place: Path
    started: float
    kill_after: float | None = None

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def end(self) -> Ending:
        """Wait for the end; kill it when its time has come."""
        limit = self.kill_after if self.kill_after is not None else _NEVER_ENDS
        stopped = False
        while True:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                break
            if not stopped and time.monotonic() - self.started > limit:
                self.kill()
                stopped = True
            time.sleep(0.002)
        code = os.waitstatus_to_exitcode(status)
        acts = self.place.with_suffix(".acts")
        return Ending(
            None if stopped and self.kill_after is None else code,
            self.place.with_suffix(".out").read_text(errors="replace"),
            self.place.with_suffix(".err").read_text(errors="replace"),
            usage.ru_utime + usage.ru_stime,
            time.monotonic() - self.started,
            usage.ru_maxrss * 1024,
            sorted(set(acts.read_text(errors="replace").splitlines())) if acts.exists() else [],
        )


def start(act: Callable[[], None], given: Path, kill_after: float | None = None, number: int = 0) -> Running:
    """Start a fork of this process that works in `given`. number: tells several of them apart."""
    place = given.parent / f"printed-{number}"
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return Running(pid, place, time.monotonic(), kill_after)
    code = 70
    try:
        os.setsid()  # what it starts is in its group
        code = _child(act, given, place)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _child(act: Callable[[], None], given: Path, place: Path) -> int:
    home, temporary = given.parent / "home", given.parent / "tmp"
    for folder in (home, temporary):
        folder.mkdir(exist_ok=True)
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.chdir(given)
    os.environ.update(
        OCL_BENCH_CACHE="cache", OCL_BENCH_RESULTS="results", HOME=str(home), TMPDIR=str(temporary), HF_HUB_OFFLINE="1"
    )
    import tempfile

    tempfile.tempdir = None
    for number, suffix in ((0, None), (1, ".out"), (2, ".err")):
        target = os.devnull if suffix is None else place.with_suffix(suffix)
        file = os.open(target, os.O_RDWR if suffix is None else os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, number)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
    _watch(place.with_suffix(".acts"), [given / name for name in WRITABLE] + [temporary])
    try:
        act()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _watch(report: Path, folders: Sequence[Path]) -> None:
    """Note what is written beyond these folders, which programs start, and which pickles are loaded."""
    roots = [os.path.realpath(folder) for folder in folders] + ["/dev/null", "/proc/self"]
    file = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC, 0o644)

    def note(text: str) -> None:
        os.write(file, text.replace("\n", " ")[:200].encode(errors="replace") + b"\n")

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes):
            path, mode, flags = arguments
            writes = bool(int(flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) or bool(
                isinstance(mode, str) and set(mode) & set("wax+")
            )
            place = os.path.realpath(os.fsdecode(path))
            if writes and not any(place == root or place.startswith(root + os.sep) for root in roots):
                note(f"writes {place}")
        elif event in ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.symlink", "os.link"):
            place, number = os.fsdecode(arguments[0]), arguments[-1]  # type: ignore[arg-type]
            base = f"/proc/self/fd/{number}" if isinstance(number, int) and number > 2 else "."
            # Moving or deleting a link touches the link, not its target: the parent says where that is.
            parent = os.path.realpath(os.path.join(base, os.path.dirname(place)))
            whole = os.path.join(parent, os.path.basename(place))
            if not any(whole == root or whole.startswith(root + os.sep) for root in roots):
                note(f"{event} {whole}")
        elif event in ("os.system", "os.exec", "os.posix_spawn"):
            note(f"{event} {arguments}")
        elif event == "subprocess.Popen" and os.path.basename(str(arguments[0])) not in _STARTS:
            note(f"starts {arguments[0]}")
        elif event == "pickle.find_class":
            note(f"loads a pickle with {arguments}")

    sys.addaudithook(hook)


def cli(*arguments: str) -> Callable[[], None]:
    """A command of `ocl-bench` as its entry point runs it."""

    def act() -> None:
        from ocl_bench.cli import main

        sys.argv = ["ocl-bench", *arguments]
        main()

    return act


def files_of(folder: Path, *, without: Sequence[str] = ()) -> dict[str, bytes]:
    """Content of all files below a folder by their names, links by where they lead. without: names at the top."""
    found = {}
    for path in _walk(folder):
        name = os.path.relpath(path, folder)
        if name.split(os.sep)[0] in without:
            continue
        if path.is_symlink():
            found[name] = os.fsencode(os.readlink(path))
        elif path.is_file():
            found[name] = path.read_bytes()
        else:
            found[name] = b"no regular file"
    return found


def _walk(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(place, name)
            if not path.is_dir() or path.is_symlink():
                yield path


def warm_up() -> None:
    """Import what commands import when they run; nothing is computed here, as threads do not survive a fork."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in forked.everything():
        importlib.import_module(name)
    import datasets
    import matplotlib

    matplotlib.use("Agg")
    datasets.disable_progress_bars()


def printed(ending: Ending) -> str:
    """One line about an ending, for tables."""
    return json.dumps({"code": ending.code, "last": ending.last[:200]})

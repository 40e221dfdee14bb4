"""Locks end with their process, and temporary files of two containers are two files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ocl_bench.core import files
from ocl_bench.core.errors import UsageError
from ocl_bench.core.locks import locked

HOLDER = """
import os, sys, time
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
time.sleep(60)
"""


def test_a_lock_is_refused_while_its_process_lives_and_free_when_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "out" / ".lock"
    path.parent.mkdir()
    with subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match="somebody is there"), locked(path, "somebody is there", wait=False):
            pass
        holder.send_signal(signal.SIGKILL)
    assert path.exists()  # what a dead process leaves is a file, no lock
    with locked(path, "", wait=False):
        pass
    assert not path.exists()


def test_a_lock_of_another_host_with_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held while its process lives and free afterwards, whatever the host and the number of the process."""
    path = tmp_path / ".lock"
    elsewhere = "import os, socket\nsocket.gethostname = lambda: 'node17'\nos.getpid = lambda: 7\n"
    monkeypatch.setattr("socket.gethostname", lambda: "node18")
    monkeypatch.setattr(os, "getpid", lambda: 7)
    with subprocess.Popen(
        [sys.executable, "-c", elsewhere + HOLDER, path], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match="node17 works"), locked(path, "node17 works", wait=False):
            pass
        holder.send_signal(signal.SIGKILL)
    path.write_text("node17 7")  # what other libraries write into such a file says nothing here
    with locked(path, "", wait=False):
        pass
    assert not path.exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"file/\.lock: cannot be locked"), locked(tmp_path / "file" / ".lock", ""):
        pass


def test_temporary_files_of_two_containers_with_one_process_number_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = []
    monkeypatch.setattr(os, "getpid", lambda: 7)
    for host in ("one", "one", "two/../" + "x" * 100):
        monkeypatch.setattr(files.socket, "gethostname", lambda host=host: host)
        files.write_atomically(tmp_path / ("n" * 200), lambda path: names.append(path.name) or path.write_text(""))
    assert len(set(names)) == 3 and all("-7-" in name for name in names)
    assert "one" in names[0] and "two" in names[2]

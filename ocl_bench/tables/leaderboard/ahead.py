"""Processes that make the last boards while the first ones are made: what they find is remembered in the cache.

With an empty cache nearly all time goes into examining results and into bootstraps. Both are remembered by their
content (`examination.refusals`, `core.remembered`). A helper computes them by making boards, from the last one on, and
throws these boards away; whoever writes the boards then comes to tasks of which everything is known. The boards are the
same without helpers, and where one of them fails.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from ...core.paths import PACKAGE, cache_root
from ...core.processors import processors

SLOW = 3.0
"""Seconds of boards after which helpers start: each of them takes about as long to begin."""


class Helpers:
    """Processes that work ahead, one less than there are processors; none while boards are made quickly.

    Args:
        folders: folders with results.
        published: folder with published rows; None for the bundled one.
    """

    def __init__(self, folders: Sequence[Path], published: Path | None) -> None:
        self._places = {
            "folders": [str(folder.absolute()) for folder in folders],
            "published": None if published is None else str(published.absolute()),
        }
        self._begin = time.monotonic()
        self._running: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the helpers: whatever they have not done is done or not needed."""
        for helper in self._running:
            helper.kill()
            helper.wait()

    def start_if_slow(self, tasks: Sequence[str]) -> None:
        """Start the helpers on the tasks that are left, once, if boards have taken long and there is a cache."""
        late = time.monotonic() - self._begin > SLOW
        if self._running or not late or len(tasks) < 2 or not os.access(cache_root(), os.W_OK):
            return
        count = min(processors() - 1, len(tasks) - 1)
        for number in range(count):
            self._running.append(_start({**self._places, "tasks": list(tasks[::-1][number::count])}))


def _start(job: dict[str, object]) -> subprocess.Popen[str]:
    """A fresh interpreter that runs `build.work_ahead` on a job. A fork of a process with threads of torch may hang."""
    search = [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
    environment = dict(os.environ, OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
    environment["PYTHONPATH"] = os.pathsep.join(part for part in search if part)
    command = [sys.executable, "-c", f"from {__package__}.build import work_ahead; work_ahead()"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    helper = subprocess.Popen(command, text=True, env=environment, **pipes)  # type: ignore[call-overload]
    assert helper.stdin is not None
    with helper.stdin:
        helper.stdin.write(json.dumps(job))
    return helper  # type: ignore[no-any-return]

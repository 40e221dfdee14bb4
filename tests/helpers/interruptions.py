"""Writing that is interrupted, as by Ctrl-C, when a file is about to be put in its place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def interrupt_replacing(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Call number `at` of os.replace is an interrupt; all others do what they always do."""
    replace, calls = os.replace, 0

    def stumble(source: Path, target: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == at:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", stumble)

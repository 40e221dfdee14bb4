"""Objects whose pickles run code where they are loaded without care."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Touching:
    """Loading it makes a file, so that a test can see whether code ran."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.file,))

"""Which model each result in a folder is of, remembered, so that those of one model are found without reading others.

The names lie in the cache, with size and times of the files. They only say which files need not be read: whatever is
used of a result is read from its file each time.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path

from ..core.files import write_atomically
from ..core.paths import cache_root
from ..core.stamps import SETTLED_NS, Stamp

_VERSION = 1


@dataclass
class ModelNames:
    """Names of models, without training seeds, of the result files in one folder.

    Attributes:
        place: file of the cache that keeps them.
        entries: source of a result -> size and two times of its file, and the name.
    """

    place: Path
    entries: dict[str, list[int | str]] = field(default_factory=dict)
    _is_new: bool = False

    @classmethod
    def load(cls, folder: Path) -> ModelNames:
        """What is remembered of a folder; nothing where nobody looked before, or the file is damaged."""
        name = sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:24]
        names = cls(cache_root() / "models-of-results" / f"{name}-{_VERSION}.json")
        with suppress(OSError, ValueError):
            content = json.loads(names.place.read_bytes())
            if isinstance(content, dict) and all(isinstance(one, list) and len(one) == 4 for one in content.values()):
                names.entries = content
        return names

    def of(self, source: str, mark: Stamp) -> str | None:
        """The name of the model of a result; None where the file is new or was touched."""
        entry = self.entries.get(source)
        return str(entry[3]) if entry is not None and entry[:3] == list(mark) else None

    def note(self, source: str, mark: Stamp, model: str) -> None:
        """Remember a name. mark: stamp from before the file was read; one that may change again is not trusted."""
        if mark.changed_ns < time.time_ns() - SETTLED_NS:
            self.entries[source] = [*mark, model]
            self._is_new = True

    def keep(self) -> None:
        """Write what is new; without a cache the files are read again next time."""
        if not self._is_new:
            return
        with suppress(OSError):
            self.place.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(self.entries, separators=(",", ":"))
            write_atomically(self.place, partial(Path.write_text, data=text, encoding="utf-8"))

"""Tell which parts of a task come from other packages: another version of such a part may give other numbers."""

from __future__ import annotations

from ..cards.families import PROTOCOLS
from ..cards.task import TaskSpec
from ..core import entry_points
from ..metrics.catalogue import CATALOGUE
from ..metrics.definitions.knn import knn_metric


def extensions_of(task: TaskSpec) -> dict[str, str]:
    """Reader, family and metrics that are not bundled, each with the hash of its source; empty for a bundled task."""
    parts = [("reader", entry_points.READERS, task.data.reader), ("family", entry_points.FAMILIES, task.family)]
    parts += [(f"metric {name}", entry_points.METRICS, name) for name in task.metrics]
    return {
        part: entry_points.source_sha256(entry)
        for part, group, name in parts
        if (entry := entry_points.offered(group).get(name)) is not None and not _is_bundled(group, name)
    }


def _is_bundled(group: str, name: str) -> bool:
    """Whether the suite itself has a reader, a family or a metric of this name, which is then the one that counts."""
    if group == entry_points.READERS:
        from ..data import READERS  # slow, and boards of bundled tasks need no reader

        return name in READERS
    if group == entry_points.FAMILIES:
        return name in PROTOCOLS
    return name in CATALOGUE or knn_metric(name) is not None

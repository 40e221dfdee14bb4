"""Tell which parts of a task come from other packages: another version of such a part may give other numbers."""

from __future__ import annotations

from ..cards.families import PROTOCOLS
from ..cards.task import TaskSpec
from ..core import entry_points
from ..metrics.catalogue import CATALOGUE
from ..metrics.definitions.knn import knn_metric
from . import READERS


def extensions_of(task: TaskSpec) -> dict[str, str]:
    """Reader, family and metrics that are not bundled, each with the hash of its source; empty for a bundled task."""
    parts = [("reader", entry_points.READERS, task.data.reader, task.data.reader in READERS)]
    parts.append(("family", entry_points.FAMILIES, task.family, task.family in PROTOCOLS))
    for name in task.metrics:
        parts.append((f"metric {name}", entry_points.METRICS, name, name in CATALOGUE or knn_metric(name) is not None))
    return {
        part: entry_points.source_sha256(entry)
        for part, group, name, bundled in parts
        if not bundled and (entry := entry_points.offered(group).get(name)) is not None
    }

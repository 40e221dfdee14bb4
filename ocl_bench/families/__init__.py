"""The families of tasks: the only place that lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..cards.task import TaskSpec
from ..core import entry_points
from ..core.errors import UsageError
from .base import Adapter, Family
from .discovery import DISCOVERY
from .knn import KNN
from .probed_detection import DETECTION
from .recognition import RECOGNITION
from .segmentation import SEGMENTATION
from .video import VIDEO

if TYPE_CHECKING:
    from ..models.loading import LoadedModel

FAMILIES: dict[str, Family] = {
    family.name: family for family in (DISCOVERY, DETECTION, SEGMENTATION, RECOGNITION, KNN, VIDEO)
}
"""The bundled families by name; installed packages may add others (entry points `ocl_bench.families`)."""


def find_family(name: str) -> Family:
    """The family of that name. Raises UsageError for an unknown one."""
    if name in FAMILIES:
        return FAMILIES[name]
    added = entry_points.offered(entry_points.FAMILIES)
    if name not in added:
        raise UsageError(f"'{name}' is not a family; known are {', '.join([*FAMILIES, *sorted(added)])}")
    family = added[name].load()
    if not isinstance(family, Family) or family.name != name:
        raise UsageError(f"family '{name}': {added[name].value} is no ocl_bench.families.base.Family of that name")
    return family


def get_adapter(task: TaskSpec, model: LoadedModel | None = None) -> Adapter:
    """The adapter of a task. model: whose predictions it will read. Raises UsageError for a card that does not fit."""
    try:
        task.check()
    except UsageError as error:
        raise UsageError(f"task {task.name}: {error}") from error
    return find_family(task.family).adapter(task, model)

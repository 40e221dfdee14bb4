"""The table of task families, and how the family and the adapter of a task are found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..cards.task import TaskSpec
from ..core import entry_points
from ..core.errors import UsageError

if TYPE_CHECKING:
    from ..models.loading import LoadedModel
    from .base import Adapter, Family

    FAMILIES: dict[str, Family]


def __getattr__(name: str) -> dict[str, Family]:
    """`FAMILIES`, whose adapters need torch, when it is asked for: boards need only what sums up rows."""
    if name != "FAMILIES":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .table import FAMILIES

    return FAMILIES


def find_family(name: str) -> Family:
    """The family called `name`, bundled or from an installed package. Raises UsageError for an unknown name."""
    from .base import Family
    from .table import FAMILIES

    if name in FAMILIES:  # first, so that a package cannot replace a bundled family
        return FAMILIES[name]
    added = entry_points.offered(entry_points.FAMILIES)
    if name not in added:
        raise UsageError(f"'{name}' is not a family; known are {', '.join([*FAMILIES, *sorted(added)])}")
    family = added[name].load()
    if not isinstance(family, Family) or family.name != name:
        raise UsageError(
            f"family '{name}': {added[name].value} is not an ocl_bench.families.base.Family named '{name}'"
        )
    return family


def get_adapter(task: TaskSpec, model: LoadedModel | None = None) -> Adapter:
    """Make the adapter of a task.

    Args:
        task: the task.
        model: the model whose predictions will be scored; None when there is no model, as for saved results.

    Raises:
        UsageError: a field of the card does not fit the family.
    """
    try:
        task.check()
    except UsageError as error:
        raise UsageError(f"task {task.name}: {error}") from error
    return find_family(task.family).adapter(task, model)

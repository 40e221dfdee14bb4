"""Trains models: one loop for all objectives. The recipe of a training is the `train:` mapping of its model card."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .loop import Objective, TrainingOutcome, fit
    from .recipe import Recipe, SceneSelection, read_recipe
    from .run import train

__all__ = ["Objective", "Recipe", "SceneSelection", "TrainingOutcome", "fit", "read_recipe", "train"]

_MODULES = {
    "Objective": "loop",
    "TrainingOutcome": "loop",
    "fit": "loop",
    "Recipe": "recipe",
    "SceneSelection": "recipe",
    "read_recipe": "recipe",
    "train": "run",
}


def __getattr__(name: str) -> Any:
    """A public name, imported when it is asked for: `eval` needs only the texts of `follow_up`, not all objectives."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)

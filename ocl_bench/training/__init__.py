"""Training: one loop, schedules, views, objectives; recipes are part of the model cards."""

from .loop import Objective, Trained, fit
from .recipe import Recipe, Scenes, read_recipe
from .run import train

__all__ = ["Objective", "Recipe", "Scenes", "Trained", "fit", "read_recipe", "train"]

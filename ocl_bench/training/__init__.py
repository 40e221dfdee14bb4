"""Trains models: one loop for all objectives. The recipe of a training is the `train:` mapping of its model card."""

from .loop import Objective, TrainingOutcome, fit
from .recipe import Recipe, SceneSelection, read_recipe
from .run import train

__all__ = ["Objective", "Recipe", "SceneSelection", "TrainingOutcome", "fit", "read_recipe", "train"]

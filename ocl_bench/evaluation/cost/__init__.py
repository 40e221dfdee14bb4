"""The cost of a model: parameters, operations, time and memory, alone or against another one (docs/profile.md)."""

from .measure import Profile, profile_models, write_figure
from .subject import ModelChoice, ProfileSetup, Subject

__all__ = ["ModelChoice", "Profile", "ProfileSetup", "Subject", "profile_models", "write_figure"]

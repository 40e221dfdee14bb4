"""What a model costs: parameters, operations, time and memory, alone or against another one (docs/profile.md)."""

from .measure import Profile, profile_models, write_figure
from .subject import Setup, Side, Subject

__all__ = ["Profile", "Setup", "Side", "Subject", "profile_models", "write_figure"]

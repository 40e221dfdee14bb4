"""What the caller of an evaluation says about a model: its name, its training seed, and what it saw in training."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

from ..cards.model import NAME, Supervision
from ..cards.names import CARDS
from ..cards.protocols import LARGEST_SEED
from ..core.errors import UsageError

if TYPE_CHECKING:
    from ..cards.model import ModelCard
    from .loaded import LoadedModel


def check_training_seed(seed: int) -> None:
    """Raise UsageError for a training seed that no result may have."""
    if not 0 <= seed <= LARGEST_SEED:
        raise UsageError(f"training seed {str(seed)[:40]}: use a number from 0 to {LARGEST_SEED}")


@dataclass(frozen=True)
class Declared:
    """What is said about a model beside the model itself; None leaves it as the model or its card says.

    Attributes:
        name: of the method, in results and boards.
        training_seed: number of the training. Results of one name with different numbers are seeds of one method.
        supervision: what the model saw in training, encoder included.
    """

    name: str | None = None
    training_seed: int | None = None
    supervision: str | None = None

    def __post_init__(self) -> None:
        """Check the values. Raises UsageError naming the option."""
        if self.name is not None and not re.fullmatch(NAME, self.name):
            raise UsageError(f"name '{self.name}': use small letters, digits, '.', '_' and '-', such as my-model")
        if self.name is not None and is_bundled(self.name):
            raise UsageError(f"name '{self.name}': is that of a bundled model; choose another one")
        if self.training_seed is not None:
            check_training_seed(self.training_seed)
        if self.supervision is not None and self.supervision not in get_args(Supervision):
            raise UsageError(f"supervision '{self.supervision}': use {', '.join(get_args(Supervision))}")

    def seed_of(self, named: int | None, model: str) -> int | None:
        """The training seed of a bundled model: the declared one or the one in its name, `dias:1`."""
        if None not in (named, self.training_seed) and named != self.training_seed:
            raise UsageError(f"model {model}: its name says training seed {named}, not {self.training_seed}")
        return named if self.training_seed is None else self.training_seed

    def applied(self, model: LoadedModel) -> LoadedModel:
        """The model with what is declared.

        Raises:
            UsageError: a user's model has the name of a bundled one, a bundled one would get another name or
                supervision although it is the bundled one, or the model itself says something else.
        """
        if model.bundled:
            return self._bundled(model)
        base, _, named = model.name.partition(":")
        base = self.name or base
        if is_bundled(base):
            raise UsageError(f"model {base}: is the name of a bundled model; give it another one (--name, name=)")
        if None not in (self.training_seed, model.training_seed) and self.training_seed != model.training_seed:
            raise UsageError(f"model {base}: its card says training seed {model.training_seed}; pass its --checkpoint")
        seed = named if self.training_seed is None else str(self.training_seed)
        return replace(
            model,
            name=f"{base}:{seed}" if seed else base,
            training_seed=model.training_seed if self.training_seed is None else self.training_seed,
            card=model.card.model_copy(update={"supervision": self._supervision(model)}),
        )

    def _bundled(self, model: LoadedModel) -> LoadedModel:
        """A bundled model, under another name only where weights or options are not the bundled ones."""
        card = model.card
        if self.supervision is not None and card.supervision == "undeclared":  # of a backbone from elsewhere
            card = card.model_copy(update={"supervision": self.supervision})
            model = replace(model, card=card)
        if self.supervision not in (None, card.supervision):
            raise UsageError(f"model {model.name}: its card says supervision {card.supervision}; leave the option out")
        if self.name is None:
            return model
        if card.role in ("floor", "ceiling"):
            raise UsageError(f"model {model.name}: a {card.role} keeps its name; leave --name out")
        if is_as_bundled(card, model.checkpoint_sha256, model.options):
            raise UsageError(f"model {model.name}: these are the bundled weights, which keep their name")
        _, colon, seed = model.name.partition(":")
        if self.training_seed is not None:
            colon, seed = ":", str(self.training_seed)
        return replace(model, name=f"{self.name}{colon}{seed}")

    def _supervision(self, model: LoadedModel) -> str:
        own = model.card.supervision
        if self.supervision is None or own in ("undeclared", self.supervision):
            return self.supervision or own
        raise UsageError(f"model {model.name}: declares supervision {own} itself, not {self.supervision}; change one")


def is_bundled(name: str) -> bool:
    """Whether a bundled card has this name."""
    return (CARDS / f"{name}.yaml").is_file()


def is_as_bundled(card: ModelCard, checkpoint_sha256: str, options: Mapping[str, Any]) -> bool:
    """Whether a model has the weights and the options of its card, or no weights as its card has none."""
    return checkpoint_sha256 == card.sha256 and dict(options) == card.options

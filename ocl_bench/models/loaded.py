"""What is known about a model that is ready to predict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.errors import UsageError

if TYPE_CHECKING:
    from ..cards.model import ModelCard


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to predict, with the facts about it that results record.

    Attributes:
        model: the object with `predict`.
        card: its card; a model without one gets a minimal card.
        name: card name, with `:SEED` for a training seed other than the bundled one.
        checkpoint_sha256: hash of the loaded weights; empty without any.
        parameters: number of parameters.
        training_seed: seed of the loaded weights, if known.
        options: options it was built with (card and caller merged).
        source_sha256: hash of the sources and of the state of a user's own model, so editing the file or changing
            the weights makes it a different model; empty for bundled models.
        reusable: False if nothing identifies the model (a live object, or one without arrays and without an attribute
            `fingerprint`); its results are never reused or resumed.
        bundled: whether the card is bundled; only bundled cards are named in results.
        code_sha256: hash of the sources alone of a user's own model: those of training seeds of one method are equal.
        state: fingerprint of a user's own model as it was built; that of another training is another one.
        arrays: fingerprint of its parameters and buffers alone; that of another training is another one, too, whatever
            else the model holds.
    """

    model: Any
    card: ModelCard
    name: str
    checkpoint_sha256: str
    parameters: int
    training_seed: int | None
    options: Mapping[str, Any]
    source_sha256: str = ""
    reusable: bool = True
    bundled: bool = True
    code_sha256: str = ""
    state: str = ""
    arrays: str = ""

    @property
    def untrained(self) -> bool:
        """Whether the model has parameters but no checkpoint was loaded, so its weights are random."""
        # A floor may be random on purpose, and a live object may have loaded its weights itself.
        needs_weights = self.card.role != "floor" and self.card.source != "user:object"
        return needs_weights and self.parameters > 0 and not self.checkpoint_sha256

    @property
    def needs_truth(self) -> bool:
        """Whether the model gets the truth; UsageError if it asks for it and is not a ceiling."""
        asks = bool(getattr(self.model, "needs_truth", False))
        if asks and self.card.role != "ceiling":
            raise UsageError(
                f"model {self.name}: needs_truth is reserved for bundled ceilings (its role is '{self.card.role}')"
            )
        return asks

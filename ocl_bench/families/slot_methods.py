"""What a model does with slots alone: its optional methods `decode_slots` and `predict_slots`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..core.errors import NotApplicableError, UsageError
from ..models.user_code import own_errors
from .masks import ROUNDING

if TYPE_CHECKING:
    from ..models.loading import LoadedModel

Rollout = Callable[[Tensor, int], Tensor]
"""Slots (T, K, D) of seen frames and a number of steps -> the next slots (steps, K, D)."""


class SlotMethods:
    """The optional methods of a model, called and checked.

    A model may have `decode_slots(slots) -> masks`, from (B, K, D) to weights (B, K, h, w), with an attribute
    `slots_decode` that says how, and `predict_slots(slots, steps)`, from (B, T, K, D) to (B, steps, K, D). A model
    with `needs_rollouter` is also given the fitted rollouter, as `rollout=`. A ceiling with `needs_future` is given the
    slots of the future frames, as `future=`.

    Args:
        loaded: the model; None when there is none, as for saved results.

    Raises:
        UsageError: the model asks for the future and is no ceiling.
        NotApplicableError: the model needs all frames of a video at once.
    """

    def __init__(self, loaded: LoadedModel | None) -> None:
        model: Any = loaded.model if loaded is not None else None
        self.name = loaded.name if loaded is not None else ""
        self._predict = getattr(model, "predict_slots", None)
        self._decode = getattr(model, "decode_slots", None)
        self.needs_future = bool(getattr(model, "needs_future", False))
        self.needs_rollouter = bool(getattr(model, "needs_rollouter", False))
        self.decode_source = str(getattr(model, "slots_decode", "slots")) if self._decode is not None else "none"
        if self.needs_future and loaded is not None and loaded.card.role != "ceiling":
            raise UsageError(f"model {self.name}: needs_future is reserved for bundled ceilings")
        if getattr(model, "reads_video", False) and getattr(model, "whole_video", False):
            raise self.sees_future()

    def sees_future(self) -> NotApplicableError:
        """The error for a model whose slots of a frame depend on later frames."""
        return NotApplicableError(
            f"model {self.name}: its slots depend on later frames of the video, which visual prediction must not see"
        )

    @property
    def uses_probe(self) -> bool:
        """Whether the fitted rollouter predicts the slots."""
        return self._predict is None or self.needs_rollouter

    @property
    def dynamics(self) -> str:
        """`probe` or `own`, as the signature says it."""
        return "probe" if self.uses_probe else "own"

    @property
    def decodes(self) -> bool:
        """Whether predicted slots have masks."""
        return self._decode is not None

    def decode(self, slots: Tensor) -> Tensor:
        """Masks (B, K, h, w) of slots (B, K, D). Raises UsageError for masks that cannot be used."""
        assert self._decode is not None
        with own_errors(f"model {self.name}: decode_slots failed"), torch.inference_mode():
            masks = self._decode(slots)
        if not isinstance(masks, Tensor) or masks.ndim != 4 or masks.shape[:2] != slots.shape[:2]:
            raise UsageError(
                f"model {self.name}: decode_slots gave {_described(masks)} for slots {tuple(slots.shape)}, expected "
                f"masks ({slots.shape[0]}, {slots.shape[1]}, h, w)"
            )
        masks = masks.float()
        if not bool(((masks >= -ROUNDING) & (masks <= 1 + ROUNDING)).all()):  # NaN fails as well
            raise UsageError(f"model {self.name}: decode_slots gave masks outside of [0, 1]; give weights, not logits")
        return masks

    def predict(self, past: Tensor, steps: int, rollout: Rollout | None, future: Tensor | None) -> Tensor:
        """The next slots (steps, K, D).

        Args:
            past: (T, K, D), slots of the frames that are seen.
            steps: number of frames to predict.
            rollout: the fitted rollouter, for a model that uses it.
            future: (steps, K, D), slots of the real future frames; only ceilings see them.

        Raises:
            UsageError: predict_slots fails, or gives slots of another shape or slots that are not finite.
        """
        if self._predict is None:
            assert rollout is not None
            predicted = rollout(past, steps)
        else:
            given: dict[str, Any] = {}
            if self.needs_rollouter:
                given["rollout"] = rollout
            if self.needs_future:
                given["future"] = None if future is None else future[None]
            with own_errors(f"model {self.name}: predict_slots failed"), torch.inference_mode():
                predicted = self._predict(past[None], steps, **given)
            expected = (1, steps, *past.shape[1:])
            if not isinstance(predicted, Tensor) or tuple(predicted.shape) != expected:
                raise UsageError(
                    f"model {self.name}: predict_slots gave {_described(predicted)}, expected slots {expected}"
                )
            predicted = predicted[0].float()
        if not bool(torch.isfinite(predicted).all()):
            raise UsageError(f"model {self.name}: the predicted slots are not finite (NaN or infinity)")
        return predicted


def _described(value: object) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__

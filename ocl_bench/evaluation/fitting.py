"""The origin of a task's head or bank, as a result records it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..cards.protocols import Fit
from ..results.record import FitSection

if TYPE_CHECKING:
    from torch import Tensor

    from .bank import Bank
    from .plan import Plan


_CHOICES = ("learning_rate", "ridge")
"""Tensors (1,) of heads that say what was chosen on a held-out part of the fit split."""


def fit_section(plan: Plan) -> FitSection | None:
    """The fit split, the images left out and the choices made on it; None for a task that fits nothing.

    plan: with its head or bank (`heads.with_head`).
    """
    fit, train = plan.task.fit, plan.train
    if fit is None or train is None:
        return None
    from ..core.files import ids_hash

    bank: Bank | None = getattr(plan.adapter, "bank", None)
    head: dict[str, Tensor] = getattr(plan.adapter, "head", None) or {}
    left_out: list[int] | None = head["left_out"].tolist() if "left_out" in head else None
    if bank is not None:
        left_out = sorted(set(range(len(train.ids))) - set(bank.positions.tolist()))
    return FitSection(
        head=fit.head,
        kind=train.kind,
        split=fit.split,
        revision=train.revision,
        ids_sha256=ids_hash(train.ids),
        samples=len(train.ids),
        left_out=None if left_out is None else tuple(train.ids[position] for position in left_out),
        chosen=_chosen(head, fit),
    )


def _chosen(head: dict[str, Tensor], fit: Fit) -> dict[str, float]:
    """What was chosen on the held-out part of the fit split, by name."""
    # The head holds float32. The record has the number itself: 0.1, and not 0.10000000149011612.
    chosen = {name: float(f"{float(head[name][0]):.6g}") for name in _CHOICES if name in head}
    if "learning_rate" in chosen:
        stored = chosen["learning_rate"]
        chosen["learning_rate"] = min(fit.learning_rates or (stored,), key=lambda rate: abs(rate - stored))
    return chosen

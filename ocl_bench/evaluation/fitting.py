"""The origin of a task's head or bank, as a result records it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..cards.protocols import Fit
from ..results.record import FitSection

if TYPE_CHECKING:
    from torch import Tensor

    from .bank import Bank
    from .plan import Plan


def fit_section(plan: Plan) -> FitSection | None:
    """The fit split, the images left out and the choices made on it; None for a task that fits nothing.

    plan: with its head or bank (`heads.with_head`). `left_out` is None for a head that an early version cached: it does
    not say which images failed.
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
    """What was chosen on the held-out part of the fit split, by name: the learning rate, if any."""
    if "learning_rate" not in head:
        return {}
    stored = float(head["learning_rate"][0])
    # The head holds float32. The record has the card's own number: 0.1, and not 0.10000000149011612.
    return {"learning_rate": min(fit.learning_rates or (stored,), key=lambda rate: abs(rate - stored))}

"""Decide which results may be ranked together.

Boards, `compare`, `submit`, `validate` and the console all apply the rule of this file.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..cards.names import get_task, is_task
from ..cards.task import TaskSpec
from .record import Result
from .store import rows_problem


@dataclass(frozen=True)
class Reference:
    """The protocol that results must have to be ranked.

    It is that of the task's card, otherwise that of the results at hand.

    Attributes:
        name: name of the task.
        version: version of its card.
        hash: hash of its card.
        metrics: metrics that a result must have.
        main: metric by which results are ranked.
        split: split of the data; None when the card is not installed.
        title: title of the board.
        noise_seeds: noise seeds of the card.
        card: the card itself, when it is installed.
    """

    name: str
    version: int
    hash: str
    metrics: tuple[str, ...]
    main: str
    split: str | None = None
    title: str = ""
    noise_seeds: tuple[int, ...] = ()
    card: TaskSpec | None = None


@dataclass(frozen=True)
class Reason:
    """A reason why a valid result is not ranked. field: the place in the JSON file that causes it."""

    field: str
    message: str


def reference_of_card(card: TaskSpec) -> Reference:
    """The protocol of a task card."""
    head = (card.name, card.version, card.hash, card.metrics, card.main)
    return Reference(*head, card.data.split, card.title, card.noise_seeds, card)


def reference_of_result(result: Result) -> Reference:
    """The protocol of the installed card of the result's task, or the result's own when no such card is installed."""
    if is_task(result.task.name):
        return reference_of_card(get_task(result.task.name))
    section = result.task
    return Reference(section.name, section.version, section.hash, section.metrics, section.main)


def reasons_against_ranking(result: Result, reference: Reference | None = None) -> list[Reason]:
    """Reasons why a valid result is not ranked, the most important first; empty for a ranked result.

    Args:
        result: a result that was read or computed.
        reference: the protocol that is ranked, by default `reference_of_result(result)`.
    """
    reference = reference or reference_of_result(result)
    model, data, failed = result.model, result.data, len(result.counts.failed)
    missing = [name for name in reference.metrics if name not in result.metrics]
    known = [metric for metric in result.metrics.values() if metric.value is not None]
    # A floor such as `random` has parameters and no checkpoint on purpose.
    untrained = model.card and model.parameters and not model.checkpoint_sha256 and model.role != "floor"
    partial = f"{failed} of {result.counts.attempted} samples failed" if failed else result.identity.status
    rows = rows_problem(result)
    # Boards print these messages, and committed boards are compared byte for byte.
    checks = (
        ("task.hash", result.task.hash != reference.hash, f"another protocol (task hash {result.task.hash[:8]})"),
        ("data.limit", data.limit is not None, f"limited to {data.limit} samples"),
        ("data.listed", data.listed is not None, f"a list of {data.listed} samples (--ids)"),
        ("data.stand_in_seed", data.stand_in_seed is not None, f"fresh stand-in (seed {data.stand_in_seed})"),
        ("data.split", _other_split(data.split, reference.split), f"split {data.split}"),
        ("model.checkpoint_sha256", bool(untrained), "untrained: no checkpoint was loaded"),
        ("counts.failed", bool(failed) or result.identity.status != "complete", f"partial: {partial}"),
        ("metrics", bool(missing), f"partial: no {', '.join(missing)}"),
        (f"metrics.{reference.main}", not known, f"no image with a valid {reference.main}"),
        ("rows.file", bool(rows), rows),
    )
    return [Reason(field, message) for field, applies, message in checks if applies]


def _other_split(split: str | None, card_split: str | None) -> bool:
    """Whether a run used a different split from the card's; False when one of the two is unknown."""
    return None not in (split, card_split) and split != card_split


def same_images(first: Result, second: Result) -> bool:
    """Whether `second` may stand in a table beside `first`.

    Both need the same task hash, data kind, data revision and sample ids; all samples of `second` must be scored.
    """
    return (
        first.task.hash == second.task.hash
        and first.data.kind == second.data.kind
        and first.data.revision == second.data.revision
        and first.data.ids_sha256 == second.data.ids_sha256
        and second.identity.status == "complete"
    )

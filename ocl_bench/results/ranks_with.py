"""What a result may be ranked with: the one rule for boards, `compare`, `submit`, `validate` and the console."""

from __future__ import annotations

from dataclasses import dataclass

from ..cards.names import get_task, task_names
from ..cards.task import TaskSpec
from .record import Result
from .store import rows_problem


@dataclass(frozen=True)
class Reference:
    """The protocol that is ranked: that of the task's card, or of most results when the card is not installed."""

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
    """Why a valid result is not ranked. field: its place in the JSON file."""

    field: str
    message: str


def reference_of_card(card: TaskSpec) -> Reference:
    """What a task card says."""
    head = (card.name, card.version, card.hash, card.metrics, card.main)
    return Reference(*head, card.data.split, card.title, card.noise_seeds, card)


def reference_of_result(result: Result) -> Reference:
    """The protocol of the installed card of the result's task; the result's own where there is no such card."""
    if result.task.name in task_names():
        return reference_of_card(get_task(result.task.name))
    section = result.task
    return Reference(section.name, section.version, section.hash, section.metrics, section.main)


def reasons_against_ranking(result: Result, reference: Reference | None = None) -> list[Reason]:
    """Why a result is not ranked, in the order in which a reader wants to know; empty for one that is.

    reference: the protocol that is ranked, by default `reference_of_result`.
    """
    reference = reference or reference_of_result(result)
    model, data, failed = result.model, result.data, len(result.counts.failed)
    missing = [name for name in reference.metrics if name not in result.metrics]
    known = [metric for metric in result.metrics.values() if metric.value is not None]
    untrained = model.card and model.parameters and not model.checkpoint_sha256 and model.role != "floor"
    partial = f"{failed} of {result.counts.attempted} images failed" if failed else result.identity.status
    rows = rows_problem(result)
    checks = (
        ("task.hash", result.task.hash != reference.hash, f"another protocol (task hash {result.task.hash[:8]})"),
        ("data.limit", data.limit is not None, f"limited to {data.limit} images"),
        ("data.stand_in_seed", data.stand_in_seed is not None, f"fresh stand-in (seed {data.stand_in_seed})"),
        ("data.split", _other_split(data.split, reference.split), f"split {data.split}"),
        ("model.checkpoint_sha256", bool(untrained), "untrained: no checkpoint was loaded"),
        ("counts.failed", bool(failed) or result.identity.status != "complete", f"partial: {partial}"),
        ("metrics", bool(missing), f"partial: no {', '.join(missing)}"),
        (f"metrics.{reference.main}", not known, f"no image with a valid {reference.main}"),
        ("rows.file", bool(rows), rows),
    )
    return [Reason(field, message) for field, applies, message in checks if applies]


def _other_split(split: str | None, of_card: str | None) -> bool:
    """Whether a run named another split than the card's; without a card there is none to differ from."""
    return None not in (split, of_card) and split != of_card


def same_images(first: Result, second: Result) -> bool:
    """Whether two results may stand in one table: same task hash, data kind, revision and sample ids, all scored."""
    return (
        first.task.hash == second.task.hash
        and first.data.kind == second.data.kind
        and first.data.revision == second.data.revision
        and first.data.ids_sha256 == second.data.ids_sha256
        and second.identity.status == "complete"
    )

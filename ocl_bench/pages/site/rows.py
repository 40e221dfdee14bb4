"""Rows of a board as plain data, whatever page or figure shows them: measured and published rows look alike."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ...core.errors import UsageError
from ...metrics import find_metric
from ...results.papers import Paper, find_paper
from ...results.published import PublishedRow, PublishedTable
from ...tables.leaderboard.board_csv import fixed
from ...tables.leaderboard.facts import find_card
from ...tables.leaderboard.ranking import Board, Group, Row
from ...tables.leaderboard.shown import (
    KIND_TEXTS,
    Link,
    folded,
    folded_published,
    groups_by_place,
    links_of_paper,
    metrics_first,
    paper_of_row,
    short_name,
    source_link,
)

FACTS = {
    "backbone": "backbone",
    "pretraining": "pretraining",
    "slots": "K",
    "input_size": "input",
    "parameters": "parameters",
    "images_per_second": "images/s",
    "trained_on": "trained on",
    "training_data": "training data",
}
"""Facts of a model that a table can show, by the field of `leaderboard.facts.Facts`, with their heads."""


@dataclass(frozen=True)
class Meaning:
    """What a metric means, and whether larger is better (1) or smaller (-1)."""

    meaning: str
    direction: int


def meaning_of(metric: str) -> Meaning:
    """The meaning of a metric; a metric of nobody's catalogue has no words."""
    try:
        found = find_metric(metric)
    except UsageError:
        return Meaning(metric, 1)
    return Meaning(found.meaning, found.direction)


@dataclass(frozen=True)
class Value:
    """One number. low, high: its 95 % interval over images; spread: deviation over training seeds, or as printed."""

    value: float
    low: float | None = None
    high: float | None = None
    spread: float | None = None
    count: int | None = None

    @property
    def text(self) -> str:
        """The value with three decimals; counts as they are."""
        return fixed(self.value, 3) if abs(self.value) < 100 else f"{self.value:,.0f}"

    @property
    def digits(self) -> str:
        """Everything that is known about the number, in one line."""
        parts = [self.text]
        if self.spread is not None:
            parts.append(f"± {fixed(self.spread, 3)}")
        if self.low is not None and self.high is not None:
            parts.append(f"95 % interval {fixed(self.low, 3)} to {fixed(self.high, 3)}")
        if self.count is not None:
            parts.append(f"n = {self.count}")
        return ", ".join(parts)

    @property
    def ends(self) -> tuple[float, float]:
        """The ends of the whisker: the interval, else value ± spread, else the value twice."""
        if self.low is not None and self.high is not None:
            return self.low, self.high
        spread = self.spread or 0.0
        return self.value - spread, self.value + spread


@dataclass(frozen=True)
class Line:
    """One row of a table.

    Attributes:
        name: printed name.
        card: name of the bundled model card, '' for a published row or a model of a user.
        kind: official, embedded, supplied, or published.
        rank: place in the group, `floor`, `ceiling`, `seed`, `-`; '' for a published row.
        tied: whether the row is the best of its group or cannot be separated from it; None if not tested.
        role: model, control, encoder, floor or ceiling.
        values: numbers by metric.
        facts: what is known about the model, by the fields of `FACTS`.
        protocol: signature of a measured row, description of the protocol of a published one.
        comparable: yes or no for a published row with the reason in `why`; '' for a measured row.
        source: where the number comes from.
        seeds: rows of the single training seeds.
    """

    name: str
    card: str
    kind: str
    rank: str
    tied: bool | None
    role: str
    supervision: str
    privilege: str
    values: dict[str, Value]
    paper: Paper | None
    source: Link
    protocol: str
    comparable: str = ""
    why: str = ""
    command: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    training_seeds: str = ""
    remark: str = ""
    seeds: tuple[Line, ...] = ()

    @property
    def year(self) -> str:
        """Year of the paper, '' where it is not known."""
        return str(self.paper.year) if self.paper is not None and self.paper.year else ""

    @property
    def links(self) -> list[Link]:
        """Paper, code and source of the number, those with an address first."""
        return [*links_of_paper(self.paper), self.source]


@dataclass(frozen=True)
class Section:
    """Rows that stand in one block of a table, because they share data, supervision and privilege, or a protocol."""

    title: str
    note: str
    lines: tuple[Line, ...]

    def bound(self, metric: str, role: str, direction: int) -> float | None:
        """The best floor or the worst ceiling in a metric; None when the section has none."""
        values = [line.values[metric].value for line in self.lines if line.role == role and metric in line.values]
        if not values:
            return None
        return max(values) if (role == "floor") == (direction > 0) else min(values)


@dataclass(frozen=True)
class Tab:
    """One table of a board: results on official data with published rows, or results on other data."""

    key: str
    title: str
    metrics: tuple[str, ...]
    sections: tuple[Section, ...]

    @property
    def lines(self) -> Iterator[Line]:
        """All rows, without the single training seeds."""
        return (line for section in self.sections for line in section.lines)


def tabs_of(board: Board) -> tuple[Tab, Tab]:
    """Official and published rows, and all others; either may have no section."""
    official, others = groups_by_place(board)
    published = list(_published_sections(board))
    first = [*(_section(group, rows) for group, rows in official), *published]
    present = {metric for section in first for line in section.lines for metric in line.values}
    metrics = metrics_first(board, present) if first else metrics_first(board)
    second = [_section(group, rows) for group, rows in others]
    return (
        Tab("official", "Official and published", tuple(metrics), tuple(first)),
        Tab("embedded", "Embedded", tuple(metrics_first(board)), tuple(second)),
    )


def _section(group: Group, rows: Sequence[Row]) -> Section:
    title = f"{KIND_TEXTS[group.kind]}, supervision: {group.supervision}, privilege: {group.privilege}"
    note = f"revision {group.revision}" + (f"; head: {group.fit}" if group.fit else "")
    return Section(title, note, tuple(_measured(group, row) for row in folded(rows)))


def _measured(group: Group, row: Row) -> Line:
    values = {name: Value(c.value, c.low, c.high, c.sd, c.n_valid) for name, c in row.cells.items()}
    facts = {name: text for name in FACTS if (text := getattr(row.facts, name))}
    return Line(
        name=short_name(row),
        card=card.name if (card := find_card(row.card)) is not None else "",
        kind=group.kind,
        rank=row.rank,
        tied=row.tied_with_best,
        role=row.role,
        supervision=group.supervision,
        privilege=row.privilege,
        values=values,
        paper=paper_of_row(row),
        source=Link("result", row.source),
        protocol=row.signature,
        command=row.command,
        facts=facts,
        training_seeds=" ".join(map(str, row.training_seeds)),
        remark=row.remark,
        seeds=tuple(_measured(group, seed) for seed in sorted(row.seeds, key=lambda seed: seed.training_seeds)),
    )


def _published_sections(board: Board) -> Iterator[Section]:
    """Comparable rows, then the rows of each other protocol."""
    table = board.published
    if table is None:
        return
    entries = folded_published(board)
    comparable = [entry for entry in entries if entry[0].comparable == "yes"]
    if comparable:
        title = "Published, comparable with results on official data"
        yield Section(title, "", _best_first(board, [published_line(table, row, seeds) for row, seeds in comparable]))
    for protocol, text in table.protocols.items():
        own = [entry for entry in entries if entry[0].comparable == "no" and entry[0].protocol == protocol]
        if own:
            lines = _best_first(board, [published_line(table, row, seeds) for row, seeds in own])
            yield Section(f"Published, protocol {protocol}, not comparable", text, lines)


def _best_first(board: Board, lines: Sequence[Line]) -> tuple[Line, ...]:
    """Rows, best first in the main metric, or in the first one that they have where nobody printed the main one."""
    first = next(iter(metrics_first(board, {metric for line in lines for metric in line.values})), None)
    if first is None:
        return tuple(lines)
    direction = meaning_of(first).direction

    def place(line: Line) -> float:
        return -direction * line.values[first].value if first in line.values else math.inf

    return tuple(sorted(lines, key=place))


def published_line(table: PublishedTable, row: PublishedRow, seeds: Iterable[PublishedRow] = ()) -> Line:
    """A published row as plain data, its numbers times their scale."""
    values = {}
    for name, printed in row.metrics.items():
        value, spread = table.shown(printed)
        values[name] = Value(value, spread=spread)
    return Line(
        name=row.model,
        card="",
        kind="published",
        rank="",
        tied=None,
        role="model",
        supervision=row.supervision,
        privilege=row.privilege,
        values=values,
        paper=find_paper(row.paper),
        source=source_link(row),
        protocol=row.protocol,
        comparable=row.comparable,
        why=row.why,
        training_seeds=" ".join(map(str, row.seeds)),
        remark=row.source,
        seeds=tuple(published_line(table, seed) for seed in seeds),
    )

"""Pages of single models and single papers, and the lists that lead to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...cards.model import ModelCard
from ...cards.names import get_card, model_names
from ...results.papers import Paper, find_paper, load_papers
from ...results.published import PublishedTable
from ...tables.comparison.claims import Claims, Judged
from ...tables.leaderboard.ranking import Board
from ...tables.leaderboard.shown import fold_seeds, metrics_first
from .model_pictures import pictures_of
from .overview import by_family, family_of
from .rows import Line, published_line, tabs_of
from .task_page import entry_links, task_address
from .texts import anchor

Judgements = Sequence[tuple[Claims, list[Judged], str]]
"""What `judge_all` returns."""


@dataclass(frozen=True)
class Part:
    """Published rows that share a protocol. verdict: as for `Numbers`, '' where that of `Numbers` says it."""

    protocol: str
    entries: list[dict[str, Any]]
    verdict: str


@dataclass(frozen=True)
class Numbers:
    """Published rows of one task, or of one file, on the page of a paper.

    Attributes:
        title: name of the task, or title of the file.
        address: of the board, '' for none.
        metrics: columns of the table.
        parts: rows that share a protocol.
        verdict: whether all rows are comparable, and why, where that is the same for all of them; '' otherwise.
    """

    title: str
    address: str
    metrics: list[str]
    parts: list[Part]
    verdict: str

    @property
    def count(self) -> int:
        """Number of rows."""
        return sum(len(part.entries) for part in self.parts)


@dataclass(frozen=True)
class Placed:
    """A measured row, and how many rows of its block have a rank."""

    line: Line
    ranked: int


def model_pages(
    boards: Sequence[Board], judged: Judgements, reports: Mapping[str, str]
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Address, template and content of the list of models, and of the page of each bundled model.

    Args:
        boards: of all tasks.
        judged: claims of the papers with their verdicts.
        reports: as for `entry_links`.
    """
    boards = by_family(boards)
    measured = _measured_by_card(boards)
    cards = [get_card(name) for name in model_names()]
    listed = []
    for card in cards:
        lines = measured.get(card.name, {})
        content = _model_content(card, boards, lines, judged, reports)
        count = len(lines)
        cells = [card.role, _supervision(card, lines), str(count or "–")]
        listed.append({"name": card.name, "about": card.title, "address": f"models/{card.name}.html", "cells": cells})
        yield f"models/{card.name}.html", "site_entry.html.j2", content
    heads = ["model", "role", "supervision", "tasks"]
    lead = (
        "Models, controls, floors and ceilings that come with the suite, and on how many tasks each has a number. "
        "Those of embedded size were trained here; those of paper size load the checkpoints of their authors, which "
        "do not come along."
    )
    yield "models.html", "site_list.html.j2", {"title": "Models", "lead": lead, "heads": heads, "entries": listed}


def _measured_by_card(boards: Sequence[Board]) -> dict[str, dict[str, list[Placed]]]:
    """Measured rows by card and task."""
    found: dict[str, dict[str, list[Placed]]] = {}
    for board in boards:
        for section in (section for tab in tabs_of(board) for section in tab.sections):
            ranked = sum(line.rank.isdigit() for line in section.lines)
            for line in section.lines:
                if line.card:
                    found.setdefault(line.card, {}).setdefault(board.task.name, []).append(Placed(line, ranked))
    return found


def _supervision(card: ModelCard, lines: Mapping[str, Sequence[Placed]]) -> str:
    """What a model saw in training. Some have it from the encoder that they run on: results know it, their card not."""
    measured = {placed.line.supervision for own in lines.values() for placed in own}
    return ", ".join(sorted(measured)) or card.supervision


def _model_content(
    card: ModelCard,
    boards: Sequence[Board],
    lines: Mapping[str, Sequence[Placed]],
    judged: Judgements,
    reports: Mapping[str, str],
) -> dict[str, Any]:
    paper = find_paper(card.paper)
    facts = [("paper", paper.name if paper else card.paper, f"../papers/{paper.key}.html" if paper else "")]
    facts += [("code of the authors", paper.code, paper.code)] if paper and paper.code else []
    facts += [("licence of that code", paper.licence, "")] if paper and paper.licence else []
    texts = {
        "role": card.role,
        "supervision": _supervision(card, lines),
        "privilege": card.privilege,
        "backbone": card.backbone,
        "pretraining": card.pretraining,
        "families": ", ".join(card.families),
        "trained on": card.training.data if card.training else "",
        "training steps": str(card.training.steps or "") if card.training else "",
        "checkpoint": f"{card.weights} (SHA-256 {card.sha256[:12]})" if card.weights else "",
        "run": f"ocl-bench eval --model {card.name} --task {_first_task(card, boards, lines)}",
    }
    facts += [(term, text, "") for term, text in texts.items() if text]
    own = next((one for one in judged if one[0].method == card.name), None)
    return {
        "title": card.name,
        "name": card.name,
        "kind": "Model",
        "about": card.title,
        "facts": [fact for fact in facts if fact[1]],
        "notes": card.notes,
        "pictures": pictures_of(card.name),
        **_verdicts(own),
        "numbers_title": "Numbers",
        "measured": [entry for board in boards for entry in _measured(board, lines.get(board.task.name, ()), reports)],
        "blocks": [],
        "bibtex": "",
    }


def _first_task(card: ModelCard, boards: Sequence[Board], lines: Mapping[str, Sequence[Placed]]) -> str:
    """A task on which the model has a number, else the first one of its family."""
    of_family = [board.task.name for board in boards if family_of(board) in card.families]
    return next(iter(lines), None) or next(iter(of_family), "TASK")


def _verdicts(paper: tuple[Claims, list[Judged], str] | None) -> dict[str, Any]:
    """The claims of a paper with their verdicts, and where the page of all claims tells more about them."""
    if paper is None:
        return {"verdicts": [], "claims_anchor": ""}
    claims, judged, _ = paper
    verdicts = [
        {"statement": one.claim.statement, "verdict": one.verdict + (f" ({one.data} data)" if one.data else "")}
        for one in judged
    ]
    return {"verdicts": verdicts, "claims_anchor": anchor(claims.title)}


def _measured(board: Board, lines: Sequence[Placed], reports: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Rows of a model on a board, with its first two metrics."""
    for placed in lines:
        line = placed.line
        rank = f"{line.rank} of {placed.ranked}" if line.rank.isdigit() else line.rank
        metrics = metrics_first(board, line.values)[:2]
        task = f"{board.task.name} v{board.task.version}"
        numbers = [(metric, line.values[metric]) for metric in metrics]
        address, links = task_address(board.task), entry_links(line, reports)
        yield {"line": line, "task": task, "address": address, "numbers": numbers, "rank": rank, "links": links}


def paper_pages(
    boards: Sequence[Board], tables: Mapping[str, PublishedTable], judged: Judgements
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Address, template and content of the list of papers, and of the page of each."""
    by_task = {board.task.name: board for board in boards}
    found: dict[str, list[Numbers]] = {}
    for name, table in tables.items():
        for key, block in _published(name, table, by_task):
            found.setdefault(key, []).append(block)
    models: dict[str, list[str]] = {}
    for name in model_names():
        if (of_card := find_paper(get_card(name).paper)) is not None:
            models.setdefault(of_card.key, []).append(name)
    listed = []
    for paper in (one for one in load_papers() if not one.data):
        blocks = found.get(paper.key, [])
        count = sum(block.count for block in blocks)
        cells = [f"{paper.venue} {paper.year or ''}".strip() or "–", str(count or "–")]
        address = f"papers/{paper.key}.html"
        listed.append({"name": paper.name, "about": paper.title, "address": address, "cells": cells})
        yield (
            f"papers/{paper.key}.html",
            "site_entry.html.j2",
            _paper_content(paper, blocks, models.get(paper.key, []), judged),
        )
    lead = "Papers whose numbers are known here, or whose method comes with the suite."
    heads = ["paper", "venue", "numbers"]
    yield "papers.html", "site_list.html.j2", {"title": "Papers", "lead": lead, "heads": heads, "entries": listed}


def _published(name: str, table: PublishedTable, boards: Mapping[str, Board]) -> Iterator[tuple[str, Numbers]]:
    """The rows of a file by the key of their paper."""
    lines: dict[str, list[Line]] = {}
    for row, seeds in fold_seeds(table.rows):
        line = published_line(table, row, seeds)
        if line.paper is not None:
            lines.setdefault(line.paper.key, []).append(line)
    board = boards.get(table.task or "")
    title = f"{table.task} v{table.version}" if table.task else table.title or name
    address = task_address(board.task) if board is not None else ""
    for key, own in lines.items():
        metrics = list(dict.fromkeys(metric for line in own for metric in line.values))
        verdict = _shared(own)
        protocols = dict.fromkeys(line.protocol for line in own)
        parts = [
            Part(
                table.protocols[protocol],
                [_published_entry(line, metrics[:4]) for line in own if line.protocol == protocol],
                "" if verdict else _shared([line for line in own if line.protocol == protocol]),
            )
            for protocol in protocols
        ]
        yield key, Numbers(title, address, metrics[:4], parts, verdict)


def _published_entry(line: Line, metrics: Sequence[str]) -> dict[str, Any]:
    seeds = [_seed(seed, metrics) for seed in line.seeds]
    return {"line": line, "links": [line.source], "seeds": seeds, "verdict": _verdict(line)}


def _verdict(line: Line) -> str:
    """Whether a published number may stand beside results here, and why, as a sentence."""
    return f"{'Comparable' if line.comparable == 'yes' else 'Not comparable'}: {line.why}."


def _shared(lines: Sequence[Line]) -> str:
    """The verdict of all rows; '' where they differ."""
    verdicts = {_verdict(line) for line in lines}
    return verdicts.pop() if len(verdicts) == 1 else ""


def _seed(line: Line, metrics: Sequence[str]) -> str:
    """The numbers of one training seed in one line."""
    numbers = [f"{metric} {line.values[metric].text}" for metric in metrics if metric in line.values]
    return f"seed {line.training_seeds}: {', '.join(numbers)}"


def _paper_content(
    paper: Paper, blocks: Sequence[Numbers], models: Sequence[str], judged: Judgements
) -> dict[str, Any]:
    facts = [
        ("title", paper.title, ""),
        ("authors", paper.authors.replace(" and ", "; "), ""),
        ("venue", f"{paper.venue} {paper.year or ''}".strip(), ""),
        ("paper", f"arXiv:{paper.arxiv}" if paper.arxiv else "", paper.url),
        ("code", paper.code, paper.code),
        ("licence of the code", paper.licence, ""),
    ]
    facts += [("model here", name, f"../models/{name}.html") for name in models]
    own = next((one for one in judged if find_paper(one[0].paper) == paper), None)
    return {
        "title": paper.name,
        "name": paper.name,
        "kind": "Paper",
        "about": "",
        "facts": [fact for fact in facts if fact[1]],
        "notes": (),
        "pictures": None,
        **_verdicts(own),
        "numbers_title": "Numbers that it prints, or that others print of it",
        "measured": [],
        "blocks": blocks,
        "bibtex": paper.bibtex,
    }

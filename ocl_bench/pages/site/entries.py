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
from .rows import Line, published_line, tabs_of
from .task_page import entry_links, task_address

Judgements = Sequence[tuple[Claims, list[Judged], str]]
"""What `judge_all` returns."""


@dataclass(frozen=True)
class Numbers:
    """Rows of one task, or of one file of published rows, on the page of a model or a paper."""

    title: str
    address: str
    metrics: list[str]
    entries: list[dict[str, Any]]


def model_pages(
    boards: Sequence[Board], judged: Judgements, reports: Mapping[str, str]
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Address, template and content of the list of models, and of the page of each bundled model.

    Args:
        boards: of all tasks.
        judged: claims of the papers with their verdicts.
        reports: as for `entry_links`.
    """
    measured = _measured_by_card(boards)
    cards = [get_card(name) for name in model_names()]
    listed = []
    for card in cards:
        lines = measured.get(card.name, {})
        content = _model_content(card, boards, lines, judged, reports)
        count = len(lines)
        cells = [card.title, card.role, card.supervision, str(count or "–")]
        listed.append({"name": card.name, "address": f"models/{card.name}.html", "cells": cells})
        yield f"models/{card.name}.html", "site_entry.html.j2", content
    heads = ["model", "what it is", "role", "supervision", "tasks"]
    lead = "Models, controls, floors and ceilings that come with the suite, and on how many tasks each has a number."
    yield "models.html", "site_list.html.j2", {"title": "Models", "lead": lead, "heads": heads, "entries": listed}


def _measured_by_card(boards: Sequence[Board]) -> dict[str, dict[str, list[Line]]]:
    """Measured rows by card and task."""
    found: dict[str, dict[str, list[Line]]] = {}
    for board in boards:
        for tab in tabs_of(board):
            for line in tab.lines:
                if line.card:
                    found.setdefault(line.card, {}).setdefault(board.task.name, []).append(line)
    return found


def _model_content(
    card: ModelCard,
    boards: Sequence[Board],
    lines: Mapping[str, Sequence[Line]],
    judged: Judgements,
    reports: Mapping[str, str],
) -> dict[str, Any]:
    paper = find_paper(card.paper)
    facts = [("paper", paper.name if paper else card.paper, f"../papers/{paper.key}.html" if paper else "")]
    facts += [("code of the authors", paper.code, paper.code)] if paper and paper.code else []
    facts += [("licence of that code", paper.licence, "")] if paper and paper.licence else []
    texts = {
        "role": card.role,
        "supervision": card.supervision,
        "privilege": card.privilege,
        "backbone": card.backbone,
        "pretraining": card.pretraining,
        "families": ", ".join(card.families),
        "trained on": card.training.data if card.training else "",
        "training steps": str(card.training.steps or "") if card.training else "",
        "checkpoint": f"{card.weights} (SHA-256 {card.sha256[:12]})" if card.weights else "",
        "run": f"ocl-bench eval --model {card.name} --task {next(iter(lines), 'clevrtex')}",
    }
    facts += [(term, text, "") for term, text in texts.items() if text]
    own = next(((claims, verdicts) for claims, verdicts, _ in judged if claims.method == card.name), None)
    return {
        "title": card.name,
        "name": card.name,
        "kind": "Model",
        "about": card.title,
        "facts": [fact for fact in facts if fact[1]],
        "notes": card.notes,
        "pictures": pictures_of(card.name),
        "verdicts": _verdicts(own[1]) if own else [],
        "numbers_title": "Numbers",
        "measured": [entry for board in boards for entry in _measured(board, lines.get(board.task.name, ()), reports)],
        "blocks": [],
        "bibtex": "",
    }


def _verdicts(judged: Sequence[Judged]) -> list[dict[str, str]]:
    return [
        {"statement": one.claim.statement, "verdict": one.verdict + (f" ({one.data} data)" if one.data else "")}
        for one in judged
    ]


def _measured(board: Board, lines: Sequence[Line], reports: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Rows of a model on a board, with its first two metrics."""
    for line in lines:
        metrics = metrics_first(board, line.values)[:2]
        task = f"{board.task.name} v{board.task.version}"
        numbers = [(metric, line.values[metric]) for metric in metrics]
        address, links = task_address(board.task), entry_links(line, reports)
        yield {"line": line, "task": task, "address": address, "numbers": numbers, "links": links}


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
    for paper in load_papers():
        blocks = found.get(paper.key, [])
        count = sum(len(block.entries) for block in blocks)
        cells = [paper.title or "–", f"{paper.venue} {paper.year or ''}".strip() or "–", str(count or "–")]
        listed.append({"name": paper.name, "address": f"papers/{paper.key}.html", "cells": cells})
        yield (
            f"papers/{paper.key}.html",
            "site_entry.html.j2",
            _paper_content(paper, blocks, models.get(paper.key, []), judged),
        )
    lead = "Papers whose numbers are known here, or whose method comes with the suite."
    heads = ["paper", "title", "venue", "rows"]
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
        entries = [
            {"line": line, "links": [line.source], "seeds": [_seed(seed, metrics[:4]) for seed in line.seeds]}
            for line in own
        ]
        yield key, Numbers(title, address, metrics[:4], entries)


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
    own = next((verdicts for claims, verdicts, _ in judged if find_paper(claims.paper) == paper), None)
    return {
        "title": paper.name,
        "name": paper.name,
        "kind": "Paper",
        "about": "",
        "facts": [fact for fact in facts if fact[1]],
        "notes": (),
        "pictures": None,
        "verdicts": _verdicts(own) if own else [],
        "numbers_title": "Numbers that it prints, or that others print of it",
        "measured": [],
        "blocks": blocks,
        "bibtex": paper.bibtex,
    }

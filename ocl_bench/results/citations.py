"""What to cite for a number: the suite, the papers of its models, and those of its tasks and data sets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

from ..cards.names import find_card, model_names, task_names
from ..cards.task import TaskSpec
from ..core.errors import UsageError
from .papers import Paper, find_paper, load_papers
from .seeds import base_name
from .store import default_folders, find

_PAPER = re.compile(r"arXiv:|arxiv\.org|github\.com| et al\.")


@dataclass(frozen=True)
class Citations:
    """What to cite.

    Attributes:
        entries: BibTeX.
        unknown: references for which there is no BibTeX, because not enough is known of them.
        own: names for which there is nothing to cite but the suite: cards without a paper, your own tasks and models.
    """

    entries: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    own: tuple[str, ...] = ()


def citations(names: Sequence[str]) -> Citations:
    """What to cite for these models and tasks.

    Args:
        names: of models and tasks, or paths of cards; `all` stands for every bundled one.

    Returns:
        The entry of the suite, then that of each paper once.

    Raises:
        UsageError: neither a card nor a result has the name.
    """
    by_name = {name: _references(name) for name in names}
    texts = list(dict.fromkeys(text for references in by_name.values() for text in references))
    found = {text: find_paper(text) for text in texts}
    entries = dict.fromkeys(paper.bibtex for paper in found.values() if paper is not None and paper.bibtex)
    unknown = (text for text, paper in found.items() if paper is None or not paper.bibtex)
    # A reference also says what a protocol follows, which nobody cites.
    to_look_up = tuple(text for text in unknown if _PAPER.search(text))
    own = (
        name
        for name, references in by_name.items()
        if not any(found[text] or text in to_look_up for text in references)
    )
    return Citations((suite_entry(), *entries), to_look_up, tuple(own))


def suite_entry() -> str:
    """The BibTeX entry of this version of the suite."""
    return "\n".join(
        [
            "@software{ocl-bench,",
            "  title         = {{ocl-bench: the evaluation and benchmarking suite for object-centric learning}},",
            "  author        = {{The ocl-bench developers}},",
            f"  version       = {{{version('ocl-bench')}}},",
            "}",
        ]
    )


def _references(name: str) -> list[str]:
    """What the card of a model or task refers to, and the paper of its data set, as texts for `find_paper`."""
    if name == "all":
        return [text for one in (*model_names(), *task_names()) for text in _references(one)]
    try:
        card = find_card(name)
    except UsageError:
        if not any(name in (one.task.name, base_name(one)) for one in find(default_folders())):
            raise
        return []  # a name of your own, which results have
    if not isinstance(card, TaskSpec):
        return _parts(card.paper)
    of_data = (paper for paper in load_papers() if card.data.reader in paper.readers)
    return [*_parts(card.reference), *map(_address, of_data)]


def _address(paper: Paper) -> str:
    """A text by which `find_paper` finds the paper."""
    return paper.url or paper.named[0]


def _parts(reference: str) -> list[str]:
    """The papers of a reference, which has semicolons between them."""
    return [part.strip() for part in reference.split(";") if part.strip()]

"""Papers that published rows, model cards and task cards name: title, year, code, and the links of a row.

They are stored in `leaderboards/papers.yaml`, which describes the fields.
"""

from __future__ import annotations

import re
from functools import cache

from pydantic import Field

from ..cards.base import Card, load_card
from ..core.paths import bundled
from .published import PublishedRow

_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})(v\d+)?|arxiv\.org/abs/(\d{4}\.\d{4,5})")
_JOURNALS = ("TMLR", "IJCV")
_ADDRESS = re.compile(r"https://[^\s,;)]+")
_GITHUB = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+$")
_COMMIT, _ISSUE = re.compile(r"\bcommit ([0-9a-f]{7,40})\b"), re.compile(r"\bissue (\d+)\b")
_REPOSITORY = re.compile(r"^(?:README of |log files of )?([\w.-]+/[\w.-]+)$")
_README_OF = re.compile(r"^README of (?:the repository of |the )?(\w+)")


class Paper(Card):
    """One paper; a text that is not known is empty."""

    key: str = Field(pattern=r"^[a-z0-9-]+$")
    name: str = Field(min_length=1)
    title: str = ""
    authors: str = ""
    venue: str = ""
    year: int | None = None
    arxiv: str = Field(default="", pattern=r"^(\d{4}\.\d{4,5})?$")
    code: str = Field(default="", pattern=r"^(https://\S+)?$")
    licence: str = ""
    named: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()
    data: bool = False

    @property
    def url(self) -> str:
        """Where the paper is read: its page on arXiv, '' when it has none."""
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else ""

    @property
    def bibtex(self) -> str:
        """An entry for a bibliography with what is known; '' without title, authors or year."""
        if not (self.title and self.authors and self.year):
            return ""
        fields = {"title": f"{{{self.title}}}", "author": self.authors, "year": str(self.year)}
        fields |= {"journal" if self.venue in _JOURNALS else "booktitle": self.venue} if self._printed else {}
        fields |= {"eprint": self.arxiv, "archivePrefix": "arXiv"} if self.arxiv else {}
        kind = ("article" if self.venue in _JOURNALS else "inproceedings") if self._printed else "misc"
        lines = [f"  {name:13} = {{{text}}}," for name, text in fields.items()]
        return "\n".join([f"@{kind}{{{self.key}{self.year},", *lines, "}"])

    @property
    def _printed(self) -> bool:
        return self.venue not in ("", "arXiv")


class _Papers(Card):
    papers: tuple[Paper, ...]


@cache
def load_papers() -> tuple[Paper, ...]:
    """All papers, by key. Raises UsageError naming the file and the field when the file is not valid."""
    return load_card(bundled("leaderboards") / "papers.yaml", _Papers).papers


def find_paper(text: str) -> Paper | None:
    """The paper that a field `paper` names: by arXiv number, by the address of its code, or by how it is `named`.

    What follows a semicolon names another paper, which printed or scored the row.
    """
    text = text.split(";")[0].strip()
    if not text:
        return None
    found = _ARXIV.search(text)
    number = (found[1] or found[3]) if found else ""
    for paper in load_papers():
        if number and paper.arxiv == number:
            return paper
    for paper in load_papers():
        if text == paper.code or (not number and text.startswith(paper.named)):
            return paper
    return None


def source_address(row: PublishedRow) -> str:
    """Where the number of a row was read, as far as its field `source` leads to an address; '' otherwise."""
    if found := _ADDRESS.search(row.source):
        return _within(found[0], row.source[found.end() :].split("https://")[0])
    if found := _ARXIV.search(row.source):
        return f"https://arxiv.org/abs/{found[1]}{found[2] or ''}"
    place = row.source.split(",")[0]
    if found := _REPOSITORY.match(place):
        return f"https://github.com/{found[1]}"
    if found := _README_OF.match(place):
        return next((paper.code for paper in load_papers() if paper.name == found[1]), "")
    return ""


def _within(address: str, source: str) -> str:
    """The commit or the issue of a repository that a source names, else the address itself."""
    if _GITHUB.match(address) and (commit := _COMMIT.search(source)):
        return f"{address}/tree/{commit[1]}"
    if _GITHUB.match(address) and (issue := _ISSUE.search(source)):
        return f"{address}/issues/{issue[1]}"
    return address

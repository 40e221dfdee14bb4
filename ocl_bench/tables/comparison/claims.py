"""What papers claim, the experiment here that tests each claim, and a verdict that is computed and never typed.

Data in `leaderboards/claims/<method>.yaml`. The verdict follows the rule of `comparison` (docs/compare.md), with Holm
over all comparisons of a file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ...cards.names import get_card, get_task
from ...core.errors import UsageError, first_problem
from ...core.paths import bundled
from ...results.measured import Figure
from ...results.methods import DataKey, find_method
from ...results.record import Result
from .compare import Comparison, corrected, measure
from .pairing import pair

Verdict = Literal["holds", "contradicted", "undecided", "by construction", "needs official data", "not tested here"]
Evidence = Literal["paper", "abstract", "readme", "code", "secondary"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Printed(_Strict):
    """What a source says, in its words or numbers, and where that was read."""

    says: str = Field(min_length=1)
    source: str = Field(min_length=1)
    evidence: Evidence


class Better(_Strict):
    """`ours` against `against` in a metric of a task: better, or not below (by more than 0.02).

    their_task: another protocol on the same images for `against`; protocols_differ then says in which way.
    their_tasks: several of them, each with a validation number of `against`'s card; `settled` takes the highest.
    """

    kind: Literal["better", "not_below"]
    task: str
    metric: str
    ours: str
    against: str
    their_task: str | None = None
    their_tasks: dict[str, str] = {}
    their_metric: str | None = None
    protocols_differ: str = ""

    @model_validator(mode="after")
    def _other_protocols_are_said(self) -> Better:
        if (self.their_task is None and not self.their_tasks) != (not self.protocols_differ):
            raise ValueError("their_task or their_tasks, and protocols_differ come together")
        if self.their_task is not None and self.their_tasks:
            raise ValueError("their_task and their_tasks exclude each other")
        return self

    def settled(self) -> Better:
        """The same test with one `their_task`, by validation. Raises UsageError when the card lacks a number."""
        if not self.their_tasks:
            return self
        training = get_card(self.against).training
        numbers = training.numbers if training else {}
        if missing := sorted(set(self.their_tasks.values()) - set(numbers)):
            raise UsageError(f"card {self.against} has no number '{missing[0]}' to choose a task by")
        best = max(self.their_tasks, key=lambda task: numbers[self.their_tasks[task]])
        seen = ", ".join(f"{name} {numbers[name]:.3f}" for name in self.their_tasks.values())
        said = f"{self.protocols_differ}; {best} was chosen in validation ({seen})"
        return self.model_copy(update={"their_task": best, "their_tasks": {}, "protocols_differ": said})


class ClaimRatio(_Strict):
    """A measured ratio of `against` to `ours` (2 is half the time), from a committed figure of `quantity`."""

    kind: Literal["ratio"]
    quantity: str = Field(min_length=1)
    ours: str
    against: str
    at_least: float = Field(gt=0)
    figure: str = Field(pattern=r"^[\w.-]+\.json$")


class Untested(_Strict):
    """No comparison of results: true by construction, a number on official data, or nothing here; and why."""

    kind: Literal["construction", "official", "none"]
    why: str = Field(min_length=1)


Test = Annotated[Better | ClaimRatio | Untested, Field(discriminator="kind")]


class Claim(_Strict):
    """One claim of a paper and the tests of it."""

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    statement: str = Field(min_length=1)
    printed: tuple[Printed, ...] = Field(min_length=1)
    tests: tuple[Test, ...] = Field(min_length=1)
    remark: str = ""


class Claims(_Strict):
    """The headline claims of one paper."""

    method: str
    title: str
    paper: str
    claims: tuple[Claim, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_are_unique(self) -> Claims:
        names = [claim.name for claim in self.claims]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"claim '{repeated[0]}' is there twice")
        return self


@dataclass(frozen=True)
class Outcome:
    """What came of one test. data: what it was decided on, empty where nothing was; found: the numbers behind it."""

    test: Better | ClaimRatio | Untested
    verdict: Verdict
    why: str = ""
    data: str = ""
    found: Comparison | None = None
    figure: Figure | None = None


@dataclass(frozen=True)
class Judged:
    """A claim with the outcome of each test. The claim holds if all hold and is contradicted if one is."""

    claim: Claim
    outcomes: tuple[Outcome, ...]

    @property
    def verdict(self) -> Verdict:
        """One word for all tests."""
        verdicts = {outcome.verdict for outcome in self.outcomes}
        if "contradicted" in verdicts:
            return "contradicted"
        if len(verdicts) == 1:
            return verdicts.pop()
        return "undecided" if verdicts & {"holds", "undecided"} else "not tested here"

    @property
    def data(self) -> str:
        """Kinds of data that took part."""
        return ", ".join(sorted({outcome.data for outcome in self.outcomes if outcome.data}))

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        outcomes = [
            {
                **outcome.test.model_dump(mode="json"),
                "verdict": outcome.verdict,
                "data": outcome.data,
                "missing": outcome.why,
                "comparison": outcome.found.to_dict() if outcome.found else None,
                "figure": outcome.figure.model_dump() if outcome.figure else None,
            }
            for outcome in self.outcomes
        ]
        head = self.claim.model_dump(mode="json", exclude={"tests": True})
        return {**head, "verdict": self.verdict, "data": self.data, "tests": outcomes}


def load_claims(path: Path) -> Claims:
    """Claims of one paper. Raises UsageError naming the file and the field."""
    try:
        claims = Claims.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a YAML file ({str(error).splitlines()[0]})") from error
    except ValidationError as error:
        field, problem = first_problem(error, "file")
        raise UsageError(f"{path}: field '{field}': {problem}; see docs/compare.md") from error
    if claims.method != path.stem:
        raise UsageError(
            f"{path}: field 'method': '{claims.method}' is not '{path.stem}'; rename the file or the field"
        )
    return claims


def claim_files(folder: Path | None = None) -> list[Path]:
    """The files with claims, by default the bundled ones. Raises UsageError where there is none."""
    folder = folder or bundled("leaderboards") / "claims"
    found = sorted(folder.glob("*.yaml"))
    if not found:
        raise UsageError(f"{folder}: no file with claims (*.yaml)")
    return found


def judge(claims: Claims, folders: Sequence[Path], figures: Path | None = None) -> list[Judged]:
    """Test every claim on the results below `folders`; figures: by default `leaderboards/claims/figures`."""
    figures = figures or bundled("leaderboards") / "claims" / "figures"
    tests = [test for claim in claims.claims for test in claim.tests]
    first = [_try(test, folders, figures) for test in tests]
    measured = corrected([outcome.found for outcome in first if outcome.found is not None])
    rest, outcomes = iter(measured), []
    for outcome in first:
        outcomes.append(_decided(outcome.test, next(rest)) if outcome.found is not None else outcome)
    remaining = iter(outcomes)
    return [Judged(claim, tuple(next(remaining) for _ in claim.tests)) for claim in claims.claims]


def inputs(claims: Claims, folders: Sequence[Path], path: Path) -> str:
    """SHA-256 of what the verdicts of a file come from: the file itself and the keys and rows of every result."""
    parts: list[Any] = [hashlib.sha256(path.read_bytes()).hexdigest()]
    for given in (test for claim in claims.claims for test in claim.tests if isinstance(test, Better)):
        try:
            test = given.settled()
        except UsageError as error:
            parts.append([given.task, str(error)])
            continue
        if given.their_tasks:
            parts.append(test.protocols_differ)
        for name, task in ((test.ours, test.task), (test.against, test.their_task or test.task)):
            try:
                methods = _methods(name, task, folders)
            except UsageError as error:
                parts.append([task, str(error)])
                continue
            parts += [[task, *((one.identity.key, one.rows.sha256) for one in found)] for found in methods.values()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _try(test: Better | ClaimRatio | Untested, folders: Sequence[Path], figures: Path) -> Outcome:
    """The outcome of a test that needs no correction, or the measured difference of one that does."""
    if isinstance(test, Better):
        return _measured(test, folders)
    if isinstance(test, ClaimRatio):
        return _ratio(test, figures / test.figure)
    verdicts: Mapping[str, Verdict] = {
        "construction": "by construction",
        "official": "needs official data",
        "none": "not tested here",
    }
    return Outcome(test, verdicts[test.kind], test.why)


def _measured(test: Better, folders: Sequence[Path]) -> Outcome:
    try:
        test = test.settled()
        card = get_task(test.task)
        their_card = get_task(test.their_task) if test.their_task else None
        sides = [(test.ours, test.task), (test.against, test.their_task or test.task)]
        found = [_methods(name, task, folders) for name, task in sides]
        missing = [f"{name} on {task}" for (name, task), methods in zip(sides, found, strict=True) if not methods]
        if missing:
            return Outcome(test, "not tested here", f"no result of {' and of '.join(missing)}")
        ours, theirs = _same_data(*found, other_revision=their_card is not None)
        pairs = pair(ours, theirs, test.metric, test.their_metric, card=card, their_card=their_card)
    except UsageError as error:
        return Outcome(test, "not tested here", str(error))
    measured = measure(pairs, permute=False)
    return Outcome(test, "undecided", data=measured.data, found=measured)


def _methods(name: str, task: str, folders: Sequence[Path]) -> dict[DataKey, list[Result]]:
    return find_method(folders, name, task, get_task(task).hash)


def _same_data(
    ours: Mapping[DataKey, list[Result]], theirs: Mapping[DataKey, list[Result]], *, other_revision: bool
) -> tuple[list[Result], list[Result]]:
    """Results of both on the best data that they share. Where they share none, joining them says what differs."""
    for kind, revision, ids in ours:
        for key in theirs:
            if (kind, ids) == (key[0], key[2]) and (other_revision or revision == key[1]):
                return ours[kind, revision, ids], theirs[key]
    return next(iter(ours.values())), next(iter(theirs.values()))


def _decided(test: Better | ClaimRatio | Untested, found: Comparison) -> Outcome:
    """The verdict by the rule, after the correction for all claims of the file."""
    holds = found.verdict == "better"
    if test.kind == "not_below":
        holds = found.enough_seeds and found.tested.not_below
    verdict: Verdict = "holds" if holds else "contradicted" if found.verdict == "worse" else "undecided"
    why = "" if found.enough_seeds else "fewer than 3 training seeds in common"
    return Outcome(test, verdict, why, found.data, found)


def _ratio(test: ClaimRatio, path: Path) -> Outcome:
    if not path.is_file():
        return Outcome(test, "not tested here", f"no committed figure of {test.quantity} ({path.name})")
    try:
        figure = Figure.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        field, problem = first_problem(error, "file")
        raise UsageError(f"{path}: field '{field}': {problem}") from error
    verdict: Verdict = "undecided"
    if figure.low >= test.at_least:
        verdict = "holds"
    elif figure.high < test.at_least:
        verdict = "contradicted"
    return Outcome(test, verdict, data="measured", figure=figure)


def judge_all(
    folders: Sequence[Path] | None = None, files: Sequence[Path] | None = None
) -> list[tuple[Claims, list[Judged], str]]:
    """All papers with their judged claims and the SHA-256 of the inputs; by default on the committed results."""
    folders = [bundled("leaderboards") / "results"] if folders is None else folders
    papers = []
    for path in files or claim_files():
        claims = load_claims(path)
        papers.append((claims, judge(claims, folders), inputs(claims, folders, path)))
    return papers

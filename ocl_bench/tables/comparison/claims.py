"""Claims of papers, the experiments here that test them, and verdicts that are computed and never typed.

The claims are data in `leaderboards/claims/<method>.yaml`. The verdict follows the rule of `compare` (docs/compare.md),
with Holm over all comparisons of a file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ...cards.names import get_card, get_task
from ...core.errors import UsageError, first_problem
from ...core.files import parse_json, parse_yaml, read_text
from ...core.paths import bundled
from ...results.measured import Figure
from ...results.published import Evidence
from ...results.record import Result
from .compare import Comparison, corrected, measure
from .methods import DataKey, find_method
from .pairing import pair

ClaimVerdict = Literal[
    "holds", "contradicted", "undecided", "by construction", "needs official data", "not tested here"
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Printed(_Strict):
    """A statement of a source in its own words or numbers, and where it was read."""

    says: str = Field(min_length=1)
    source: str = Field(min_length=1)
    evidence: Evidence


class Better(_Strict):
    """A test that `ours` is better than `against` in a metric of a task, or not below it by more than 0.02.

    Attributes:
        their_task: another protocol on the same images for `against`.
        their_tasks: several such protocols, each with the name of a validation number on the card of `against`;
            `settled` takes the protocol with the highest number.
        their_metric: another metric for `against`.
        protocols_differ: how the protocols differ; needed with `their_task` and `their_tasks`.
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
    def _other_protocols_are_explained(self) -> Better:
        if (self.their_task is None and not self.their_tasks) != (not self.protocols_differ):
            raise ValueError("protocols_differ is needed with their_task or their_tasks, and only then")
        if self.their_task is not None and self.their_tasks:
            raise ValueError("their_task and their_tasks exclude each other; keep one of them")
        return self

    def settled(self) -> Better:
        """The same test with a single `their_task`, chosen by validation. Raises UsageError if the card lacks a number.

        The choice is made on validation images and not on the tested ones: the best of several test results would
        favour `against`.
        """
        if not self.their_tasks:
            return self
        training = get_card(self.against).training
        numbers = training.numbers if training else {}
        if missing := sorted(set(self.their_tasks.values()) - set(numbers)):
            raise UsageError(f"card {self.against} has no number '{missing[0]}' to choose a task by")
        best = max(self.their_tasks, key=lambda task: numbers[self.their_tasks[task]])
        validation = ", ".join(f"{name} {numbers[name]:.3f}" for name in self.their_tasks.values())
        text = f"{self.protocols_differ}; {best} was chosen in validation ({validation})"
        return self.model_copy(update={"their_task": best, "their_tasks": {}, "protocols_differ": text})


class ClaimRatio(_Strict):
    """A test of a measured ratio of `against` to `ours` (2: ours takes half the time), read from a committed figure.

    Attributes:
        quantity: what was measured, as the page prints it.
        at_least: the claimed ratio.
        figure: file name in `claims/figures`.
    """

    kind: Literal["ratio"]
    quantity: str = Field(min_length=1)
    ours: str
    against: str
    at_least: float = Field(gt=0)
    figure: str = Field(pattern=r"^[\w.-]+\.json$")


class Untested(_Strict):
    """A claim without a test here: true by construction, a number on official data, or no experiment; with the why."""

    kind: Literal["construction", "official", "none"]
    why: str = Field(min_length=1)


Test = Annotated[Better | ClaimRatio | Untested, Field(discriminator="kind")]


class Claim(_Strict):
    """One claim of a paper, what the sources say, and its tests."""

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
            raise ValueError(f"two claims are named '{repeated[0]}'")
        return self


@dataclass(frozen=True)
class Outcome:
    """The verdict of one test.

    Attributes:
        why: why nothing could be decided, '' otherwise.
        data: kind of data that decided, '' when nothing was measured.
        comparison: the numbers behind the verdict of a `Better`.
        figure: the numbers behind the verdict of a `ClaimRatio`.
    """

    test: Better | ClaimRatio | Untested
    verdict: ClaimVerdict
    why: str = ""
    data: str = ""
    comparison: Comparison | None = None
    figure: Figure | None = None


@dataclass(frozen=True)
class Judged:
    """A claim with the outcome of each of its tests."""

    claim: Claim
    outcomes: tuple[Outcome, ...]

    @property
    def verdict(self) -> ClaimVerdict:
        """The verdict of the claim: it holds if all tests hold, and is contradicted if one test is."""
        verdicts = {outcome.verdict for outcome in self.outcomes}
        if "contradicted" in verdicts:
            return "contradicted"
        if len(verdicts) == 1:
            return verdicts.pop()
        # The tests differ: a claim that holds only in part is undecided.
        return "undecided" if verdicts & {"holds", "undecided"} else "not tested here"

    @property
    def data(self) -> str:
        """Kinds of data that the verdict was decided on."""
        return ", ".join(sorted({outcome.data for outcome in self.outcomes if outcome.data}))

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        outcomes = [
            {
                **outcome.test.model_dump(mode="json"),
                "verdict": outcome.verdict,
                "data": outcome.data,
                "missing": outcome.why,
                "comparison": outcome.comparison.to_dict() if outcome.comparison else None,
                "figure": outcome.figure.model_dump() if outcome.figure else None,
            }
            for outcome in self.outcomes
        ]
        head = self.claim.model_dump(mode="json", exclude={"tests": True})
        return {**head, "verdict": self.verdict, "data": self.data, "tests": outcomes}


def load_claims(path: Path) -> Claims:
    """Read the claims of one paper. Raises UsageError that names the file and the field."""
    try:
        claims = Claims.model_validate(parse_yaml(read_text(path)))
    except ValidationError as error:
        field, problem = first_problem(error, "file")
        raise UsageError(f"{path}: field '{field}': {problem}; see docs/compare.md") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UsageError(f"{path}: not a YAML file ({str(error).splitlines()[0]})") from error
    if claims.method != path.stem:
        raise UsageError(
            f"{path}: field 'method': '{claims.method}' is not '{path.stem}'; rename the file or the field"
        )
    return claims


def claim_files(folder: Path | None = None) -> list[Path]:
    """The files with claims, sorted; by default the bundled ones. Raises UsageError when there is none."""
    folder = folder or bundled("leaderboards") / "claims"
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise UsageError(f"{folder}: no file with claims (*.yaml)")
    return files


def judge(claims: Claims, folders: Sequence[Path], figures: Path | None = None) -> list[Judged]:
    """Test every claim of a paper.

    Args:
        claims: the claims.
        folders: folders with results.
        figures: folder with measured ratios; by default `leaderboards/claims/figures`.
    """
    figures = figures or bundled("leaderboards") / "claims" / "figures"
    tests = [test for claim in claims.claims for test in claim.tests]
    first = [_try(test, folders, figures) for test in tests]
    # Two passes: Holm needs the p-values of all comparisons of the paper before any of them can be judged.
    measured = corrected([outcome.comparison for outcome in first if outcome.comparison is not None])
    rest, outcomes = iter(measured), []
    for outcome in first:
        outcomes.append(_decided(outcome.test, next(rest)) if outcome.comparison is not None else outcome)
    remaining = iter(outcomes)
    return [Judged(claim, tuple(next(remaining) for _ in claim.tests)) for claim in claims.claims]


def inputs(claims: Claims, folders: Sequence[Path], path: Path) -> str:
    """SHA-256 of everything that the verdicts of a file depend on: the file itself, and keys and rows of all results.

    The page prints it. An error is hashed as text, because a result that cannot be used also decides a verdict.
    """
    parts: list[Any] = [hashlib.sha256(path.read_bytes()).hexdigest()]
    for written in (test for claim in claims.claims for test in claim.tests if isinstance(test, Better)):
        try:
            test = written.settled()
        except UsageError as error:
            parts.append([written.task, str(error)])
            continue
        if written.their_tasks:
            parts.append(test.protocols_differ)
        for name, task in ((test.ours, test.task), (test.against, test.their_task or test.task)):
            try:
                methods = _methods(name, task, folders)
            except UsageError as error:
                parts.append([task, str(error)])
                continue
            for results in methods.values():
                parts.append([task, *((result.identity.key, result.rows.sha256) for result in results)])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _try(test: Better | ClaimRatio | Untested, folders: Sequence[Path], figures: Path) -> Outcome:
    """The outcome of a test; a comparison stays undecided until `corrected` has seen all of them."""
    if isinstance(test, Better):
        return _measured(test, folders)
    if isinstance(test, ClaimRatio):
        return _ratio(test, figures / test.figure)
    verdicts: Mapping[str, ClaimVerdict] = {
        "construction": "by construction",
        "official": "needs official data",
        "none": "not tested here",
    }
    return Outcome(test, verdicts[test.kind], test.why)


def _measured(test: Better, folders: Sequence[Path]) -> Outcome:
    """The measured difference of a `Better`, or the reason why there is none."""
    try:
        test = test.settled()
        card = get_task(test.task)
        their_card = get_task(test.their_task) if test.their_task else None
        sides = [(test.ours, test.task), (test.against, test.their_task or test.task)]
        methods = [_methods(name, task, folders) for name, task in sides]
        missing = [f"{name} on {task}" for (name, task), by_data in zip(sides, methods, strict=True) if not by_data]
        if missing:
            return Outcome(test, "not tested here", f"no result of {' and of '.join(missing)}")
        ours, theirs = _same_data(*methods, other_revision=their_card is not None)
        pairs = pair(ours, theirs, test.metric, test.their_metric, card=card, their_card=their_card)
    except UsageError as error:
        return Outcome(test, "not tested here", str(error))
    measured = measure(pairs, permute=False)  # the rule uses the bootstrap only
    return Outcome(test, "undecided", data=measured.data, comparison=measured)


def _methods(name: str, task: str, folders: Sequence[Path]) -> dict[DataKey, list[Result]]:
    """Results of a method by data, the best data first; only of the installed version of the card."""
    return find_method(folders, name, task, get_task(task).hash)


def _same_data(
    ours: Mapping[DataKey, list[Result]], theirs: Mapping[DataKey, list[Result]], *, other_revision: bool
) -> tuple[list[Result], list[Result]]:
    """Results of both methods on the best data that they share; if they share none, `pair` reports what differs.

    other_revision: the revision may differ, because another protocol renders the same images at another revision.
    """
    for kind, revision, ids in ours:
        for key in theirs:
            if (kind, ids) == (key[0], key[2]) and (other_revision or revision == key[1]):
                return ours[kind, revision, ids], theirs[key]
    return next(iter(ours.values())), next(iter(theirs.values()))


def _decided(test: Better | ClaimRatio | Untested, comparison: Comparison) -> Outcome:
    """The verdict by the rule, after the correction for all comparisons of the file."""
    holds = comparison.verdict == "better"
    if test.kind == "not_below":
        holds = comparison.enough_seeds and comparison.tested.not_below
    verdict: ClaimVerdict = "holds" if holds else "contradicted" if comparison.verdict == "worse" else "undecided"
    why = "" if comparison.enough_seeds else "fewer than 3 training seeds in common"
    return Outcome(test, verdict, why, comparison.data, comparison)


def _ratio(test: ClaimRatio, path: Path) -> Outcome:
    """The verdict about a measured ratio: decided only when its 95 % interval lies on one side of the claim."""
    if not path.is_file():
        return Outcome(test, "not tested here", f"no committed figure of {test.quantity} ({path.name})")
    try:
        figure = Figure.model_validate(parse_json(read_text(path)))
    except ValidationError as error:
        field, problem = first_problem(error, "file")
        raise UsageError(f"{path}: field '{field}': {problem}") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as JSON ({error}); measure the figure again") from error
    verdict: ClaimVerdict = "undecided"
    if figure.low >= test.at_least:
        verdict = "holds"
    elif figure.high < test.at_least:
        verdict = "contradicted"
    return Outcome(test, verdict, data="measured", figure=figure)


def judge_all(
    folders: Sequence[Path] | None = None, files: Sequence[Path] | None = None
) -> list[tuple[Claims, list[Judged], str]]:
    """Judge the claims of all papers; by default the bundled ones on the committed results.

    Returns:
        Of each paper its claims, what came of them, and the SHA-256 of the inputs.
    """
    folders = [bundled("leaderboards") / "results"] if folders is None else folders
    papers = []
    for path in files or claim_files():
        claims = load_claims(path)
        papers.append((claims, judge(claims, folders), inputs(claims, folders, path)))
    return papers

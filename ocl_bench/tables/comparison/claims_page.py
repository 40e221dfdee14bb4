"""The page `leaderboards/claims.md`: claims of papers, what was measured here, and the verdict of the rule."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.files import write_atomically
from ...core.paths import bundled
from .claims import Better, ClaimRatio, Claims, Judged, Outcome
from .comparison_page import interval_text, p_text, signs_text

if TYPE_CHECKING:
    from rich.console import Console

    from .compare import Comparison

_HEAD = """# Claims

Made by `ocl-bench claims` from `claims/*.yaml` and the committed results; not typed. How to read it: docs/compare.md.

A verdict here is about *this code, trained and scored here*; on `embedded` data that is small models on rendered
scenes. It says whether the claim shows up under these conditions, not whether the paper's table is right.

- **holds**: every test of the claim comes out as claimed. *Better*: training seeds paired, two-level bootstrap (seed,
  then image or video), the 95 % interval of the difference excludes 0, the same sign in every pair of seeds,
  Holm-adjusted p below 0.05 over all comparisons of the paper. *Not below*: the interval lies above -0.02.
- **contradicted**: in one test at least, the other side is better by the same rule.
- **undecided**: neither, or fewer than 3 training seeds of a trained side.
- **by construction**: true of the definition; nothing was measured.
- **needs official data**: an absolute number, which embedded scenes never decide.
- **not tested here**: no experiment, or its results are not there; the reason is given.
"""


Papers = Sequence[tuple[Claims, Sequence[Judged], str]]
"""Of each paper its claims, their verdicts, and the SHA-256 of the inputs (`claims.judge_all`)."""


def write_claims(papers: Papers, out: Path) -> Path:
    """Write `<out>/claims.md` and return its path."""
    path = Path(out) / "claims.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, partial(Path.write_text, data=to_markdown(papers), encoding="utf-8"))
    return path


def is_current(papers: Papers) -> bool:
    """Whether the committed `claims.md` equals the page of these papers."""
    path = bundled("leaderboards") / "claims.md"
    return path.is_file() and path.read_text(encoding="utf-8") == to_markdown(papers)


def to_markdown(papers: Papers) -> str:
    """The whole page."""
    return "\n".join([_HEAD, *(section(*paper) for paper in papers)])


def section(claims: Claims, judged: Sequence[Judged], digest: str) -> str:
    """The section of one paper: verdicts, the numbers behind them, and what the sources say."""
    lines = [f"## {claims.title}", "", claims.paper, "", "| claim | | verdict |", "|---|---|---|"]
    for entry in judged:
        lines.append(f"| `{entry.claim.name}` | {entry.claim.statement} | {verdict_text(entry.verdict, entry.data)} |")
    measured = [
        (entry, outcome) for entry in judged for outcome in entry.outcomes if outcome.comparison or outcome.figure
    ]
    if measured:
        lines += ["", "| claim | test | ours | against | difference [95 %] | p (Holm) | n | seed pairs | |"]
        lines.append("|---|---|---|---|---|---|---|---|---|")
        lines += [_measured(entry, outcome) for entry, outcome in measured]
    lines.append("")
    for entry in judged:
        lines += [f"- `{entry.claim.name}`", *(f"  - {text}" for text in _notes(entry))]
    return "\n".join([*lines, "", f"Inputs: sha256 {digest}", ""])


def verdict_text(verdict: str, data: str) -> str:
    """A verdict with its data, as in `**holds** (embedded)`."""
    return f"**{verdict}**" + (f" ({data})" if data else "")


def _measured(judged: Judged, outcome: Outcome) -> str:
    """The table row of one measured test."""
    test, comparison = outcome.test, outcome.comparison
    if isinstance(test, ClaimRatio) and outcome.figure:
        figure = outcome.figure
        ratio = f"{figure.ratio:.2f} times [{figure.low:.2f}, {figure.high:.2f}], claimed {test.at_least:g}"
        cells = [test.quantity, f"`{test.ours}`", f"`{test.against}`", ratio, "-", "-", "-", outcome.verdict]
    elif isinstance(test, Better) and comparison:
        where = f"`{test.metric}`, `{test.task}`" + (" (not below)" if test.kind == "not_below" else "")
        differing = [f"`{name}`" for name in (test.their_metric, test.their_task) if name]
        against = f"`{test.against}` {comparison.value_b:.3f}" + (f" ({', '.join(differing)})" if differing else "")
        count = f"{comparison.n} {comparison.unit}"
        numbers = [interval_text(comparison), p_text(comparison.p_holm), count, signs_text(comparison)]
        cells = [where, f"`{test.ours}` {comparison.value_a:.3f}", against, *numbers, outcome.verdict]
    return "| " + " | ".join([f"`{judged.claim.name}`", *cells]) + " |"


def _notes(judged: Judged) -> list[str]:
    """Sources, the remark, why something is undecided, and in what the two methods differ; no line twice."""
    notes = [f"{printed.says} ({printed.evidence}: {printed.source})" for printed in judged.claim.printed]
    notes += [f"here: {judged.claim.remark}"] if judged.claim.remark else []
    for outcome in judged.outcomes:
        name = _name(outcome)
        if outcome.why:
            notes.append(f"{name}{outcome.verdict}: {outcome.why}")
        if isinstance(outcome.test, Better) and outcome.test.protocols_differ:
            notes.append(f"{name}{outcome.test.protocols_differ}")
        if outcome.comparison:
            notes += [f"{name}{text}" for text in _unequal(outcome.comparison)]
        if outcome.figure:
            notes.append(f"{name}{outcome.figure.setup}; `{outcome.figure.command}`")
    return list(dict.fromkeys(notes))


def _name(outcome: Outcome) -> str:
    """What a note is about, as the beginning of its line."""
    test = outcome.test
    if isinstance(test, Better):
        return f"`{test.ours}` and `{test.against}`, `{test.task}`: "
    return f"{test.quantity}: " if isinstance(test, ClaimRatio) else ""


def _unequal(comparison: Comparison) -> list[str]:
    """Differences in supervision and privilege, which a reader has to know beside the verdict."""
    sides = [
        (comparison.supervision_a, comparison.supervision_b, "supervision in training"),
        (comparison.privilege_a, comparison.privilege_b, "privilege at inference"),
    ]
    return [f"{what} is {a} of ours, {b} of the other" for a, b, what in sides if a != b]


def print_claims(console: Console, papers: Papers) -> None:
    """Print the verdicts of all papers, one line for each claim."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("paper", "claim", "says", "verdict")
    for claims, judged, _ in papers:
        for entry in judged:
            verdict = verdict_text(entry.verdict, entry.data).replace("**", "")
            table.add_row(claims.title, entry.claim.name, escape(entry.claim.statement), verdict)
    console.print(table)

"""`leaderboards/claims.md`: what papers claim, what was measured here, and what the rule makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.files import write_atomically
from ...core.paths import bundled
from .claims import Better, ClaimRatio, Claims, Judged, Outcome
from .comparison_page import interval_text, p_text

if TYPE_CHECKING:
    from rich.console import Console

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
"""Of each paper its claims, what came of them, and the SHA-256 of what they were computed from."""


def write_claims(papers: Papers, out: Path) -> Path:
    """Write `<out>/claims.md` and return its path."""
    path = Path(out) / "claims.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, partial(Path.write_text, data=to_markdown(papers), encoding="utf-8"))
    return path


def is_current(papers: Papers) -> bool:
    """Whether the committed `claims.md` is this page."""
    path = bundled("leaderboards") / "claims.md"
    return path.is_file() and path.read_text(encoding="utf-8") == to_markdown(papers)


def to_markdown(papers: Papers) -> str:
    """The whole page."""
    return "\n".join([_HEAD, *(section(*paper) for paper in papers)])


def section(claims: Claims, judged: Sequence[Judged], digest: str) -> str:
    """The claims of one paper: verdicts, the numbers behind them, and what the sources say."""
    lines = [f"## {claims.title}", "", claims.paper, "", "| claim | | verdict |", "|---|---|---|"]
    for one in judged:
        lines.append(f"| `{one.claim.name}` | {one.claim.statement} | {verdict_text(one.verdict, one.data)} |")
    measured = [(one, outcome) for one in judged for outcome in one.outcomes if outcome.found or outcome.figure]
    if measured:
        lines += ["", "| claim | test | ours | against | difference [95 %] | p (Holm) | n | seed pairs | |"]
        lines.append("|---|---|---|---|---|---|---|---|---|")
        lines += [_measured(one, outcome) for one, outcome in measured]
    lines.append("")
    for one in judged:
        lines += [f"- `{one.claim.name}`", *(f"  - {text}" for text in _notes(one))]
    return "\n".join([*lines, "", f"Inputs: sha256 {digest}", ""])


def verdict_text(verdict: str, data: str) -> str:
    """`**holds** (embedded)`."""
    return f"**{verdict}**" + (f" ({data})" if data else "")


def _measured(one: Judged, outcome: Outcome) -> str:
    test, found = outcome.test, outcome.found
    if isinstance(test, ClaimRatio) and outcome.figure:
        figure = outcome.figure
        ratio = f"{figure.ratio:.2f} times [{figure.low:.2f}, {figure.high:.2f}], claimed {test.at_least:g}"
        cells = [test.quantity, f"`{test.ours}`", f"`{test.against}`", ratio, "-", "-", "-", outcome.verdict]
    elif isinstance(test, Better) and found:
        where = f"`{test.metric}`, `{test.task}`" + (" (not below)" if test.kind == "not_below" else "")
        other = [f"`{name}`" for name in (test.their_metric, test.their_task) if name]
        against = f"`{test.against}` {found.value_b:.3f}" + (f" ({', '.join(other)})" if other else "")
        signs = "".join({1: "+", 0: "0", -1: "-"}[sign] for sign in found.seed_signs)
        numbers = [interval_text(found), p_text(found.p_holm), f"{found.n} {found.unit}", signs]
        cells = [where, f"`{test.ours}` {found.value_a:.3f}", against, *numbers, outcome.verdict]
    return "| " + " | ".join([f"`{one.claim.name}`", *cells]) + " |"


def _notes(one: Judged) -> list[str]:
    """Sources, the remark, why something is not decided, and what the two sides did not share."""
    notes = [f"{printed.says} ({printed.evidence}: {printed.source})" for printed in one.claim.printed]
    notes += [f"here: {one.claim.remark}"] if one.claim.remark else []
    for outcome in one.outcomes:
        name = _name(outcome)
        if outcome.why:
            notes.append(f"{name}{outcome.verdict}: {outcome.why}")
        if isinstance(outcome.test, Better) and outcome.test.protocols_differ:
            notes.append(f"{name}{outcome.test.protocols_differ}")
        if outcome.found:
            notes += [f"{name}{text}" for text in _unequal(outcome)]
        if outcome.figure:
            notes.append(f"{name}{outcome.figure.setup}; `{outcome.figure.command}`")
    return list(dict.fromkeys(notes))


def _name(outcome: Outcome) -> str:
    test = outcome.test
    if isinstance(test, Better):
        return f"`{test.ours}` and `{test.against}`, `{test.task}`: "
    return f"{test.quantity}: " if isinstance(test, ClaimRatio) else ""


def _unequal(outcome: Outcome) -> list[str]:
    found = outcome.found
    if found is None:
        return []
    sides = [
        (found.supervision_a, found.supervision_b, "supervision in training"),
        (found.privilege_a, found.privilege_b, "privilege at inference"),
    ]
    return [f"{what} is {a} of ours, {b} of the other" for a, b, what in sides if a != b]


def print_claims(console: Console, papers: Papers) -> None:
    """Verdicts of all papers, one line for each claim."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("paper", "claim", "says", "verdict")
    for claims, judged, _ in papers:
        for one in judged:
            verdict = verdict_text(one.verdict, one.data).replace("**", "")
            table.add_row(claims.title, one.claim.name, escape(one.claim.statement), verdict)
    console.print(table)

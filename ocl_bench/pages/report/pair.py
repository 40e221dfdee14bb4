"""Two runs on the same samples: the verdict of `compare`, as plain data. Differences are the first minus the second."""

from __future__ import annotations

from typing import Any

from ...core.errors import UsageError
from ...tables.comparison.compare import Comparison, compare
from ...tables.comparison.comparison_page import conclusion, interval_text, p_text
from .run import Run


def _check_pair(first: Run, second: Run) -> None:
    """Raise UsageError unless both runs are of one task on the same samples."""
    if first.result.task.hash != second.result.task.hash:
        names = f"{first.result.task.name} and {second.result.task.name}"
        raise UsageError(f"report: the runs are of two protocols ({names}); give two runs of one task")
    if first.result.data.ids_sha256 != second.result.data.ids_sha256:
        raise UsageError("report: the runs are of different samples; evaluate both with the same --limit and data")


def comparison(first: Run, second: Run) -> dict[str, Any]:
    """The verdict in one sentence, and one row for each metric that both have.

    Raises UsageError for runs of two tasks or of different samples.
    """
    _check_pair(first, second)
    found = compare([first.result], [second.result], first.task, "all")
    main = next(one for one in found if one.metric == first.result.task.main)
    return {
        "verdict": _sentence(main),
        "rows": [
            {
                "metric": one.metric,
                "direction": one.direction,
                "a": f"{one.value_a:.3f}",
                "b": f"{one.value_b:.3f}",
                "difference": interval_text(one),
                "p": p_text(one.p_holm),
                "n": one.n,
                "conclusion": conclusion(one),
            }
            for one in found
        ],
        "remarks": list(dict.fromkeys(remark for one in found for remark in one.remarks)),
        "checkpoints_only": any(conclusion(one).endswith("*") for one in found),
    }


def _sentence(one: Comparison) -> str:
    """What the rule says about the main metric, in one sentence."""
    numbers = f"{one.metric} differs by {interval_text(one)} on {one.n} {one.unit} (p {_p(one)} after Holm)"
    if one.verdict != "undecided":
        return f"{one.a} is {one.verdict} than {one.b}: {numbers}."
    if one.separable:
        ahead, behind = (one.a, one.b) if one.difference > 0 else (one.b, one.a)
        return (
            f"This checkpoint of {ahead} is ahead of this one of {behind}: {numbers}. A claim about the methods "
            "needs 3 training seeds of both."
        )
    return f"Undecided: {numbers}."


def _p(one: Comparison) -> str:
    text = p_text(one.p_holm)
    return text if text.startswith("<") else f"= {text}"

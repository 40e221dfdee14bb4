"""Metrics of reasoning: shares of right answers over all questions of a kind; never averaged over kinds."""

from __future__ import annotations

from ..metric import Metric
from ..of_set import SumRatio, Total

_FAMILY = ("reasoning",)
_SOURCE = "Yi et al., CLEVRER, ICLR 2020, arXiv:1910.01442"
_MISSING = "not defined without such a question; a question that was not answered counts as wrong"


def _share(name: str, meaning: str, column: str, formula: str, edge_cases: str = _MISSING) -> Metric:
    ratio = SumRatio(f"{column}_right", column)
    return Metric(name, _FAMILY, meaning, formula=formula, edge_cases=edge_cases, source=_SOURCE, of_set=ratio)


DEFINITIONS = (
    _share(
        "descriptive",
        "share of descriptive questions with the right word",
        "n_descriptive",
        "questions with the right word / descriptive questions",
    ),
    *(
        _share(
            f"{kind}_{per}",
            f"share of {per}s of {kind} questions that are {what}",
            f"n_{kind}_{per}s",
            f"{formula} {kind} questions",
        )
        for kind in ("explanatory", "predictive", "counterfactual")
        for per, what, formula in (
            ("option", "judged right", "choices that are judged right / choices of"),
            ("question", "judged right in all their choices", "questions whose choices are all judged right /"),
        )
    ),
    Metric(
        "n_unanswered",
        _FAMILY,
        "number of questions and choices without an answer",
        -1,
        high=float("inf"),
        best=0,
        formula="descriptive questions without a word + choices that were not judged",
        edge_cases="always valid",
        source=_SOURCE,
        of_set=Total(),
    ),
)

"""Metrics of nearest neighbours. Their names follow a pattern with any k."""

from __future__ import annotations

import re
from typing import Literal

from ...core.errors import UsageError
from ..metric import Metric

Mode = Literal["strict", "dino", "ibot"]
"""Rule of top-5 for queries whose neighbours vote for fewer than five classes.

`strict`: a class without votes never hits. `dino`: the first min(5, k) classes in the order of their votes count; those
without votes are last, in class order. `ibot`: the first 5 of that order count.
"""

MAIN_K = 20
"""The k of `knn_top1` and `knn_top5`."""

_NAME = re.compile(r"knn_top(1|5)(?:_k([1-9]\d*))?(?:_(dino|ibot))?")
_TIES: dict[Mode, str] = {
    "strict": "a class without a vote never hits",
    "dino": "the first min(5, k) classes count, voted for or not, as DINO's code does",
    "ibot": "the first 5 classes count, voted for or not, as iBOT's code does",
}

LISTED = (
    *(f"knn_top{top}{k}" for top in (1, 5) for k in ("", "_k10", "_k100", "_k200")),
    "knn_top5_dino",
    "knn_top5_ibot",
)
"""Names that the bundled cards use, as examples of the pattern."""


def parse_metric(name: str) -> tuple[int, int, Mode]:
    """(1 or 5, k, mode) of a metric name; k is 20 when the name has none.

    Raises:
        UsageError: for names that do not follow the pattern, and for top-1 with a mode: its first class always has
            votes.

    Example:
        >>> parse_metric("knn_top1"), parse_metric("knn_top5_k200_dino")
        ((1, 20, 'strict'), (5, 200, 'dino'))
    """
    match = _NAME.fullmatch(name)
    if match is None or (match[1] == "1" and match[3]):
        raise UsageError(f"metric '{name}' is unknown; k-NN has knn_top1, knn_top5, .._k10, and knn_top5.._dino, _ibot")
    modes: dict[str | None, Mode] = {None: "strict", "dino": "dino", "ibot": "ibot"}
    return int(match[1]), int(match[2] or MAIN_K), modes[match[3]]


def knn_metric(name: str) -> Metric | None:
    """The metric of nearest neighbours of that name; None for a name that does not follow the pattern."""
    try:
        top, k, mode = parse_metric(name)
    except UsageError:
        return None
    ties = f"; {_TIES[mode]}" if top == 5 else ""
    return Metric(
        name,
        ("knn",),
        f"top-{top} of weighted {k}-NN{ties}",
        formula=f"share of queries whose class is among the {top} with most votes; each of the {k} nearest neighbours "
        "votes with exp(cosine / protocol.temperature)",
        edge_cases=f"a bank with fewer than {k} images votes with all of them; equal votes go by the order of classes",
        source="Caron et al., DINO, ICCV 2021, arXiv:2104.14294 (eval_knn.py); Wu et al., CVPR 2018, arXiv:1805.01978",
        head=True,
    )

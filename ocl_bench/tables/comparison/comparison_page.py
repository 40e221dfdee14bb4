"""What `compare` shows: a table, what the rule says of it, and a picture of the paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.plot_style import PALETTE, new_figure, save_png, style

if TYPE_CHECKING:
    from rich.console import Console

    from .compare import Comparison

_COLOURS = {"better": PALETTE[2] / 255, "worse": PALETTE[5] / 255, "undecided": "#777777"}


def print_comparisons(console: Console, found: Sequence[Comparison]) -> None:
    """A table of all comparisons of two methods, one of how each was tested, and what the columns say."""
    from rich.markup import escape
    from rich.table import Table

    a, b = escape(found[0].a), escape(found[0].b)
    table = Table(title=f"{a} minus {b}", title_justify="left")
    for column in ("task", "metric", a, b, "difference [95 %]", "p (Holm)", "n", "rule"):
        table.add_column(column, overflow="fold", no_wrap=column.startswith("difference"))
    tests = Table("task", "metric", "p bootstrap", "p swap", "d_z", f"{a} wins", "finds", "seed pairs")
    for one in found:
        name = [one.task, f"{one.metric} {'↑' if one.direction > 0 else '↓'}"]
        table.add_row(*name, *_values(one))
        tests.add_row(*name, *_tests(one))
    console.print(table, tests)
    for line in _legend(found):
        console.print(escape(line), soft_wrap=True)


def conclusion(one: Comparison) -> str:
    """What the rule says, of the methods or, with too few training seeds, of these checkpoints."""
    if one.verdict != "undecided":
        return f"{one.a} {one.verdict}"
    if one.separable and not one.enough_seeds:
        return f"{one.a if one.difference > 0 else one.b} ahead *"
    return "undecided"


def _values(one: Comparison) -> list[str]:
    left_out = one.n_failed + one.n_without_value
    return [
        f"{one.value_a:.3f}",
        f"{one.value_b:.3f}",
        interval_text(one),
        p_text(one.p_holm),
        f"{one.n} (-{left_out})" if left_out else str(one.n),
        conclusion(one),
    ]


def _tests(one: Comparison) -> list[str]:
    signs = "".join({1: "+", 0: "0", -1: "-"}[sign] for sign in one.seed_signs)
    return [
        p_text(one.p_bootstrap),
        p_text(one.p_permutation),
        "-" if one.effect_size is None else f"{one.effect_size:+.2f}",
        _wins(one),
        "-" if one.smallest_detectable is None else f"{one.smallest_detectable:.3f}",
        signs,
    ]


def interval_text(one: Comparison) -> str:
    """`+0.352 [+0.328, +0.377]`, without brackets where there is no interval."""
    if one.low is None or one.high is None:
        return f"{one.difference:+.3f}"
    return f"{one.difference:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"


def p_text(value: float | None) -> str:
    """A p-value with three decimals; `-` where there is none."""
    return "-" if value is None else f"{value:.3f}" if value >= 0.001 else "<.001"


def _wins(one: Comparison) -> str:
    if one.wins is None or one.ties is None:
        return "-"
    ties = f" ({100 * one.ties / one.n:.0f} % ties)" if one.ties else ""
    return f"{100 * one.wins / one.n:.0f} %{ties}"


def _legend(found: Sequence[Comparison]) -> list[str]:
    first = found[0]
    lines = [
        f"difference: positive is better for {first.a}; paired bootstrap of training seeds and {first.unit}",
        f"p swap: the two change places on random {first.unit} (- where that means nothing); "
        f"p (Holm): p bootstrap, adjusted for {len(found)} test{'s' if len(found) > 1 else ''}",
        f"d_z: mean difference in units of its deviation over {first.unit}; "
        "finds: the smallest true difference found with 80 % power",
    ]
    if any(conclusion(one).endswith("*") for one in found):
        lines.append("* of these checkpoints: a claim about a method needs 3 training seeds that both sides have")
    for one in found:
        if one.n_failed or one.n_without_value:
            lines.append(
                f"{one.task}, {one.metric}: left out in pairs, {one.n_failed} failed and "
                f"{one.n_without_value} without a value of {one.n + one.n_failed + one.n_without_value} {one.unit}"
            )
    remarks = dict.fromkeys(remark for one in found for remark in one.remarks)
    lines += [f"not ranked, named by its file: {remark}" for remark in remarks]
    return lines + _unequal(found)


def _unequal(found: Sequence[Comparison]) -> list[str]:
    """What a reader has to know of two sides that did not have the same."""
    lines = []
    for one in found:
        sides = [
            (one.supervision_a, one.supervision_b, "supervision in training"),
            (one.privilege_a, one.privilege_b, "privilege at inference"),
            (one.signature_a.removeprefix(one.metric), one.signature_b.removeprefix(one.metric), "signature"),
        ]
        for first, second, what in sides:
            if first != second:
                lines.append(f"{one.task}: {what} of {one.a} {first.strip('│')}, of {one.b} {second.strip('│')}")
    return list(dict.fromkeys(lines))


def write_comparison(path: Path, found: Sequence[Comparison]) -> Path:
    """Draw the paired differences with their 95 % intervals, and beside them who wins on how many images."""
    a, b = found[0].a, found[0].b
    with style():
        figure = new_figure(6.4, 0.9 + 0.3 * len(found))
        left, right = figure.subplots(1, 2, sharey=True, gridspec_kw={"width_ratios": [2.2, 1]})
        for row, one in enumerate(found):
            _draw_interval(left, row, one)
            _draw_wins(right, row, one)
        left.axvline(0, color="#333333", linewidth=0.8, zorder=0)
        left.set_yticks(range(len(found)), [f"{one.task}  {one.metric}" for one in found])
        left.set_ylim(len(found) - 0.5, -0.5)
        left.set_title(f"{a} minus {b}", loc="left", fontsize=8)
        left.set_xlabel("difference, 95 % interval (right of 0: better)")
        left.grid(axis="x", linewidth=0.4, color="#dddddd")
        left.set_axisbelow(True)
        right.set_xlim(0, 100)
        right.set_title(f"{a} wins, ties, loses", loc="left", fontsize=8)
        right.set_xlabel(f"% of {found[0].unit}")
        right.tick_params(axis="y", length=0)
        figure.tight_layout()
        return save_png(figure, path)


def _draw_interval(axes: Any, row: int, one: Comparison) -> None:
    """A dot with its interval: filled where the methods are told apart, hollow where only these checkpoints are."""
    sign = "better" if one.difference > 0 else "worse"
    colour = _COLOURS[sign if one.separable else "undecided"]
    if one.low is not None and one.high is not None:
        axes.plot([one.low, one.high], [row, row], color=colour, linewidth=1.6, solid_capstyle="butt")
    face = colour if one.verdict != "undecided" else "white"
    axes.plot([one.difference], [row], "o", markersize=5, color=colour, markerfacecolor=face)


def _draw_wins(axes: Any, row: int, one: Comparison) -> None:
    if one.wins is None or one.ties is None or one.losses is None:
        axes.text(50, row, "no value per image", ha="center", va="center", color="#777777", size=7)
        return
    start = 0.0
    parts = ((one.wins, _COLOURS["better"]), (one.ties, "#dddddd"), (one.losses, _COLOURS["worse"]))
    for count, colour in parts:
        share = 100 * count / one.n
        axes.barh(row, share, left=start, height=0.55, color=colour)
        start += share

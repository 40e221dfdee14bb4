"""Show the outcome of `compare`: tables, the conclusion of the rule, and a picture of the paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape as escape_html
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.plot_style import PALETTE, new_figure, save_figure, style
from ...core.text_tables import html_table, text_table

if TYPE_CHECKING:
    from rich.console import Console

    from .compare import Comparison

_COLOURS = {"better": PALETTE[2] / 255, "worse": PALETTE[5] / 255, "undecided": "#777777"}


def print_comparisons(console: Console, comparisons: Sequence[Comparison]) -> None:
    """Print a table of all comparisons of two methods, a table of the tests, and a legend of the columns."""
    from rich.markup import escape
    from rich.table import Table

    a, b = escape(comparisons[0].a), escape(comparisons[0].b)
    narrow: dict[str, Any] = {"box": None, "pad_edge": False, "padding": (0, 1, 0, 0)}
    table = Table(title=f"{a} minus {b}", title_justify="left", **narrow)
    first, second = ("a", "b") if console.is_terminal else (a, b)  # names are long, and the title has them
    for column in ("task", "metric", first, second, "difference [95 %]", "p (Holm)", "n", "rule"):
        width = len("undecided") if column == "rule" else None
        table.add_column(column, overflow="fold", no_wrap=column.startswith(("metric", "difference")), min_width=width)
    tests = Table("task", "metric", "p bootstrap", "p swap", "d_z", f"{first} wins", "finds", "seed pairs", **narrow)
    for comparison in comparisons:
        name = [escape(comparison.task), f"{escape(comparison.metric)} {'↑' if comparison.direction > 0 else '↓'}"]
        table.add_row(*name, *map(escape, _values(comparison)))
        tests.add_row(*name, *map(escape, _tests(comparison)))
    console.print(table, tests)
    for line in _legend(comparisons):
        console.print(escape(line))


def comparisons_text(comparisons: Sequence[Comparison]) -> str:
    """What `print` shows: a table of all comparisons of two methods, and the remarks on them."""
    if not comparisons:
        return "no comparisons"
    return "\n".join([_title(comparisons), text_table(_cells(comparisons)), *_remarks(comparisons)])


def comparisons_html(comparisons: Sequence[Comparison]) -> str:
    """The same for a notebook."""
    if not comparisons:
        return "<p>no comparisons</p>"
    remarks = "<br>".join(map(escape_html, _remarks(comparisons)))
    return f"<p>{escape_html(_title(comparisons))}</p>{html_table(_cells(comparisons))}<p>{remarks}</p>"


def _title(comparisons: Sequence[Comparison]) -> str:
    a, b = comparisons[0].a, comparisons[0].b
    return f"{a} minus {b}, positive is better for {a}"


def _cells(comparisons: Sequence[Comparison]) -> list[list[str]]:
    """The table as texts, head first; it has the methods in its title, as their names are long."""
    rows = []
    for comparison in comparisons:
        *numbers, _ = _values(comparison)
        verdict: str = comparison.verdict
        if _of_checkpoints_alone(comparison):
            verdict = "ahead *" if comparison.difference > 0 else "behind *"
        rows.append([comparison.task, comparison.metric, *numbers, verdict])
    return [["task", "metric", "a", "b", "a - b [95 %]", "p", "n", "verdict"], *rows]


def _of_checkpoints_alone(comparison: Comparison) -> bool:
    """Whether the checkpoints differ, and too few training seeds say so of the methods."""
    return comparison.verdict == "undecided" and comparison.separable and not comparison.enough_seeds


def conclusion(comparison: Comparison) -> str:
    """The conclusion about the methods or, marked with *, about these checkpoints when there are too few seeds."""
    if comparison.verdict != "undecided":
        return f"{comparison.a} {comparison.verdict}"
    if _of_checkpoints_alone(comparison):
        return f"{comparison.a if comparison.difference > 0 else comparison.b} ahead *"
    return "undecided"


def _values(comparison: Comparison) -> list[str]:
    left_out = comparison.n_failed + comparison.n_without_value
    return [
        f"{comparison.value_a:.3f}",
        f"{comparison.value_b:.3f}",
        interval_text(comparison),
        p_text(comparison.p_holm),
        f"{comparison.n} (-{left_out})" if left_out else str(comparison.n),
        conclusion(comparison),
    ]


def _tests(comparison: Comparison) -> list[str]:
    return [
        p_text(comparison.p_bootstrap),
        p_text(comparison.p_permutation),
        "-" if comparison.effect_size is None else f"{comparison.effect_size:+.2f}",
        _wins(comparison),
        "-" if comparison.smallest_detectable is None else f"{comparison.smallest_detectable:.3f}",
        signs_text(comparison),
    ]


def signs_text(comparison: Comparison) -> str:
    """One of `+`, `0` and `-` for each pair of training seeds."""
    return "".join({1: "+", 0: "0", -1: "-"}[sign] for sign in comparison.seed_signs)


def interval_text(comparison: Comparison) -> str:
    """The difference as `+0.352 [+0.328, +0.377]`, without brackets when there is no interval."""
    if comparison.low is None or comparison.high is None:
        return f"{comparison.difference:+.3f}"
    return f"{comparison.difference:+.3f} [{comparison.low:+.3f}, {comparison.high:+.3f}]"


def p_text(value: float | None) -> str:
    """A p-value with three decimals; `-` where there is none."""
    return "-" if value is None else f"{value:.3f}" if value >= 0.001 else "<.001"


def _wins(comparison: Comparison) -> str:
    """Shares of images that are won and tied; `-` for a metric that is not an average over images."""
    if comparison.wins is None or comparison.ties is None:
        return "-"
    ties = f" ({100 * comparison.ties / comparison.n:.0f} % ties)" if comparison.ties else ""
    return f"{100 * comparison.wins / comparison.n:.0f} %{ties}"


def _legend(comparisons: Sequence[Comparison]) -> list[str]:
    first = comparisons[0]
    return [
        f"difference: positive is better for {first.a}; paired bootstrap of training seeds and {first.unit}",
        f"p swap: the two change places on random {first.unit} (- where that means nothing); "
        f"p (Holm): p bootstrap, adjusted for {len(comparisons)} test{'s' if len(comparisons) > 1 else ''}",
        f"d_z: mean difference in units of its deviation over {first.unit}; "
        "finds: the smallest true difference found with 80 % power",
        *_remarks(comparisons),
    ]


def _remarks(comparisons: Sequence[Comparison]) -> list[str]:
    """What limits the comparisons: too few seeds, samples left out, results that are not ranked, unequal methods."""
    lines = []
    if any(conclusion(comparison).endswith("*") for comparison in comparisons):
        lines.append("* of these checkpoints: a claim about a method needs 3 training seeds that both sides have")
    for comparison in comparisons:
        failed, without_value = comparison.n_failed, comparison.n_without_value
        if failed or without_value:
            lines.append(
                f"{comparison.task}, {comparison.metric}: left out in pairs, {failed} failed and "
                f"{without_value} without a value of {comparison.n + failed + without_value} {comparison.unit}"
            )
    remarks = dict.fromkeys(remark for comparison in comparisons for remark in comparison.remarks)
    lines += [f"not ranked, named by its file: {remark}" for remark in remarks]
    return lines + _unequal(comparisons)


def _unequal(comparisons: Sequence[Comparison]) -> list[str]:
    """Lines about differences in supervision, privilege and protocol between the two methods."""
    lines = []
    for comparison in comparisons:
        sides = [
            (comparison.supervision_a, comparison.supervision_b, "supervision in training"),
            (comparison.privilege_a, comparison.privilege_b, "privilege at inference"),
            # Without the name of the metric: two metrics of one protocol are no difference of signature.
            (
                comparison.signature_a.removeprefix(comparison.metric),
                comparison.signature_b.removeprefix(comparison.metric),
                "signature",
            ),
        ]
        for first, second, what in sides:
            if first != second:
                ours, theirs = f"{comparison.a} {first.strip('│')}", f"{comparison.b} {second.strip('│')}"
                lines.append(f"{comparison.task}: {what} of {ours}, of {theirs}")
    return list(dict.fromkeys(lines))


def write_comparison(path: Path, comparisons: Sequence[Comparison]) -> Path:
    """Draw the paired differences with their 95 % intervals, and beside them the shares of won, tied and lost images.

    Args:
        path: PNG file.
        comparisons: all of the same two methods, one row each.

    Returns:
        The path.
    """
    a, b = comparisons[0].a, comparisons[0].b
    with style():
        figure = new_figure(6.4, 0.9 + 0.3 * len(comparisons))
        left, right = figure.subplots(1, 2, sharey=True, gridspec_kw={"width_ratios": [2.2, 1]})
        for row, comparison in enumerate(comparisons):
            _draw_interval(left, row, comparison)
            _draw_wins(right, row, comparison)
        left.axvline(0, color="#333333", linewidth=0.8, zorder=0)
        left.set_yticks(
            range(len(comparisons)), [f"{comparison.task}  {comparison.metric}" for comparison in comparisons]
        )
        left.set_ylim(len(comparisons) - 0.5, -0.5)
        left.set_title(f"{a} minus {b}", loc="left", fontsize=8)
        left.set_xlabel("difference, 95 % interval (right of 0: better)")
        left.grid(axis="x", linewidth=0.4, color="#dddddd")
        left.set_axisbelow(True)
        right.set_xlim(0, 100)
        right.set_title(f"{a} wins, ties, loses", loc="left", fontsize=8)
        right.set_xlabel(f"% of {comparisons[0].unit}")
        right.tick_params(axis="y", length=0)
        figure.tight_layout()
        return save_figure(figure, path)


def _draw_interval(axes: Any, row: int, comparison: Comparison) -> None:
    """Draw a dot with its interval: filled when the rule separates the methods, hollow when only checkpoints differ."""
    sign = "better" if comparison.difference > 0 else "worse"
    colour = _COLOURS[sign if comparison.separable else "undecided"]
    if comparison.low is not None and comparison.high is not None:
        axes.plot([comparison.low, comparison.high], [row, row], color=colour, linewidth=1.6, solid_capstyle="butt")
    face = colour if comparison.verdict != "undecided" else "white"
    axes.plot([comparison.difference], [row], "o", markersize=5, color=colour, markerfacecolor=face)


def _draw_wins(axes: Any, row: int, comparison: Comparison) -> None:
    """Draw a bar of 100 % from the shares of images that are won, tied and lost."""
    if comparison.wins is None or comparison.ties is None or comparison.losses is None:
        axes.text(50, row, "no value per image", ha="center", va="center", color="#777777", size=7)
        return
    start = 0.0
    parts = (
        (comparison.wins, _COLOURS["better"]),
        (comparison.ties, "#dddddd"),
        (comparison.losses, _COLOURS["worse"]),
    )
    for count, colour in parts:
        share = 100 * count / comparison.n
        axes.barh(row, share, left=start, height=0.55, color=colour)
        start += share

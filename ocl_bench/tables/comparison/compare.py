"""Compare two methods with paired tests on the images of both, corrected for the number of tests.

The rule (docs/compare.md): training seeds paired, two-level bootstrap over (seed, image), the 95 % interval of the
difference excludes 0, the same sign in every pair of seeds, Holm over all tests. Fewer than 3 training seeds of a
trained method say something about these checkpoints only.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, SupportsIndex, overload

import numpy as np
from numpy.typing import NDArray

from ...cards.families import unit_of
from ...cards.task import TaskSpec
from ...core.errors import UsageError
from ...core.log import logger
from ...evaluation.examination.model_section import check_model
from ...evaluation.examination.refusals import why_not_ranked
from ...metrics.statistics import (
    PERMUTATIONS,
    RESAMPLES,
    Difference,
    effect_size,
    holm,
    sign_flip_p_value,
    smallest_detectable,
)
from ...metrics.statistics_of_set import swap_p_value
from ...models.declared import is_bundled
from ...results.ranks_with import Reason
from ...results.record import Result
from ...results.store import default_folders, where
from .pairing import ComparedMethod, PairedResults, pair
from .sides import Method, Tasks, cards_of, check_names, on_shared_data, side_of

ALPHA = 0.05
ROUNDING = 1e-12
"""Largest difference at which the two values of an image are a tie."""
Verdict = Literal["better", "worse", "undecided"]


@dataclass(frozen=True, repr=False)
class Comparison:
    """Method a minus method b in one metric of one task, on the images of both; a positive difference is better for a.

    Attributes:
        direction: 1 when a larger value is better, -1 when a smaller one is.
        n: number of images (or videos) that count.
        n_failed: images that failed in a result.
        n_without_value: images on which the metric is not valid in some result.
        value_a, value_b: the metric on the n images, averaged over training seeds.
        low, high, se, p_bootstrap: 95 % interval, standard error and p-value of the bootstrap.
        p_permutation: p-value of swapped images; None, with `permutations` 0, when a swap means nothing.
        p_holm: p_bootstrap adjusted for all metrics and tasks of the call.
        effect_size: d_z, the mean difference in units of its deviation over images.
        wins, ties, losses: numbers of images. None, as effect_size, if the metric is not an average over images.
        smallest_detectable: the true difference that would be found with 80 % power.
        seed_signs: sign of the difference of each pair of training seeds.
        separable: whether these checkpoints differ on these images beyond chance.
        verdict: what that says about the methods; `undecided` with fewer than 3 training seeds of a trained method.
        remarks: why results that take part are not ranked; only results that were named by their files have any.
    """

    a: str
    b: str
    task: str
    metric: str
    direction: int
    data: str
    revision: str
    task_hash: str
    unit: Literal["images", "videos"]
    signature_a: str
    signature_b: str
    supervision_a: str
    supervision_b: str
    privilege_a: str
    privilege_b: str
    training_seeds_a: tuple[int, ...]
    training_seeds_b: tuple[int, ...]
    n: int
    n_failed: int
    n_without_value: int
    value_a: float
    value_b: float
    difference: float
    low: float | None
    high: float | None
    se: float | None
    p_bootstrap: float | None
    p_permutation: float | None
    permutations: int
    p_holm: float | None
    effect_size: float | None
    wins: int | None
    ties: int | None
    losses: int | None
    smallest_detectable: float | None
    seed_signs: tuple[int, ...]
    enough_seeds: bool
    separable: bool
    verdict: Verdict
    remarks: tuple[str, ...] = ()

    @property
    def tested(self) -> Difference:
        """The difference as the bootstrap gave it; NaN where a number is None."""
        low, high, se, p_value = (
            np.nan if value is None else value for value in (self.low, self.high, self.se, self.p_bootstrap)
        )
        return Difference(self.difference, low, high, se, p_value, self.n, self.seed_signs)

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return asdict(self)

    def __repr__(self) -> str:
        return repr(Comparisons([self]))

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return Comparisons([self])._repr_html_()


class Comparisons(list[Comparison]):
    """Comparisons of the same two methods, which print as a table."""

    @overload
    def __getitem__(self, index: SupportsIndex) -> Comparison: ...

    @overload
    def __getitem__(self, index: slice) -> Comparisons: ...

    def __getitem__(self, index: SupportsIndex | slice) -> Comparison | Comparisons:
        chosen = super().__getitem__(index)
        return Comparisons(chosen) if isinstance(chosen, list) else chosen

    def __repr__(self) -> str:
        text: str = _page().comparisons_text(self)
        return text

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        html: str = _page().comparisons_html(self)
        return html


def _page() -> ModuleType:
    # By its name: the page knows comparisons, and comparisons know no page.
    return importlib.import_module(".comparison_page", __package__)


def compare(
    a: Method,
    b: Method,
    task: Tasks = None,
    metrics: str | Sequence[str] | None = None,
    *,
    results: Sequence[str | Path] | None = None,
) -> Comparisons:
    """Compare two methods in one or more metrics of one or more tasks.

    Args:
        a: `name` (all training seeds), `name:seed`, paths of result files, or results. Several names or files, in one
            text with commas or in a list, are the training seeds of one method.
        b: the other method; differences are a minus b.
        task: names with commas between them, or cards; by default all tasks on which both have results.
        metrics: by default the main metric of each task; `all` for every metric that both have.
        results: folders with results; by default the committed ones and the user's own.

    Returns:
        One comparison for each task and metric, with Holm-adjusted p-values over all of them; a list that prints as a
        table.

    Raises:
        UsageError: when results cannot be joined; it names the field.
    """
    folders = default_folders() if results is None else [Path(folder) for folder in results]
    comparisons = []
    first, second = side_of(a), side_of(b)
    check_names([first, second], folders)
    cards = cards_of(first, second, task, folders)
    if task is None and len(cards) > 1:
        names = ", ".join(card.name for card in cards)
        logger.info(
            "comparing %s and %s on %d tasks (--task takes fewer): %s", first.method, second.method, len(cards), names
        )
    for card in cards:
        ours, theirs = on_shared_data(first, second, card, folders)
        for result in [*ours, *theirs]:
            _check_unedited(result, card)
        for metric in _metrics(metrics, card, [*ours, *theirs]):
            comparisons.append(measure(pair(ours, theirs, metric, card=card)))
    return Comparisons(corrected(comparisons))


def _check_unedited(result: Result, card: TaskSpec) -> None:
    """Raise UsageError when name or supervision of a bundled model are not those of its card."""
    for field, message in check_model(result, card) if is_bundled(result.model.card) else ():
        if field in ("model.name", "model.supervision"):
            raise UsageError(f"{where(result)}: {field} {message}; was the file edited? evaluate again")


def difference(
    ours: Sequence[Result], theirs: Sequence[Result], metric: str, other_metric: str | None = None
) -> Difference:
    """Test a metric of our method minus that of another; a positive difference is always better for ours.

    Seeds that only one method has are left out, and a method that is not trained meets each seed of the other. Only
    images on which every result has a value count.

    Args:
        ours: results of our method, one for each training seed.
        theirs: results of the other method.
        metric: name of the metric.
        other_metric: another metric for `theirs`.

    Raises:
        UsageError: when tasks or images differ, or the methods have no training seed in common.
    """
    return pair(ours, theirs, metric, other_metric).difference()


def measure(pairs: PairedResults, *, permute: bool = True) -> Comparison:
    """Compute a comparison without p_holm and verdict, which `corrected` adds: they depend on all comparisons.

    Args:
        pairs: the joined results.
        permute: whether to run the permutation test, which takes most of the time.
    """
    tested = pairs.difference()
    images = pairs.image_differences()
    p_value, draws = _permutation(pairs, images) if permute else (np.nan, 0)
    first = pairs.ours.results[0]
    return Comparison(
        **_side("a", pairs.ours, pairs.value(0)),
        **_side("b", pairs.theirs, pairs.value(1)),
        **_per_image(images),
        task=pairs.ours.card.name,
        metric=pairs.ours.metric,
        direction=pairs.direction,
        data=first.data.kind,
        revision=first.data.revision,
        task_hash=first.task.hash,
        unit=unit_of(pairs.ours.card.family),
        n=pairs.n,
        n_failed=pairs.failed,
        n_without_value=pairs.without_value,
        difference=tested.mean,
        low=_number(tested.low),
        high=_number(tested.high),
        se=_number(tested.se),
        p_bootstrap=_number(tested.p_value),
        p_permutation=_number(p_value),
        permutations=draws,
        p_holm=None,
        smallest_detectable=_number(smallest_detectable(_standard_error(pairs, tested, images), pairs.n)),
        seed_signs=tested.seed_signs,
        enough_seeds=pairs.enough_seeds,
        separable=False,
        verdict="undecided",
        remarks=_remarks(pairs),
    )


def _remarks(pairs: PairedResults) -> tuple[str, ...]:
    """Why results are not ranked, each reason of a result once."""
    # A floor stands in the list once for each training seed of the other method.
    results = {id(result): result for side in (pairs.ours, pairs.theirs) for result in side.results}
    remarks = [f"{result.model.name}: {reason.message}" for result in results.values() for reason in _against(result)]
    noise = {tuple(sorted(result.seeds.noise)) for result in results.values()}
    if len(noise) > 1:
        shown = " and ".join(", ".join(map(str, seeds)) for seeds in sorted(noise))
        remarks.append(f"noise seeds differ: {shown}; a value over other seeds has another error")
    remarks += [f"{result.model.name}: {text}" for result in results.values() for text in result.identity.remarks]
    return tuple(dict.fromkeys(remarks))


def _against(result: Result) -> list[Reason]:
    """Reasons against ranking a result, except another version of the card, which `pair` has refused already."""
    return [reason for reason in why_not_ranked(result) if reason.field != "task.hash"]


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Add Holm-adjusted p-values over all comparisons, and the verdict of the rule for each.

    Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    p_values = {
        str(index): comparison.p_bootstrap
        for index, comparison in enumerate(comparisons)
        if comparison.p_bootstrap is not None
    }
    adjusted = holm(p_values)
    return [_with_verdict(comparison, adjusted.get(str(index))) for index, comparison in enumerate(comparisons)]


def _with_verdict(comparison: Comparison, p_holm: float | None) -> Comparison:
    """Apply the rule to one comparison."""
    tested = comparison.tested
    significant = p_holm is not None and p_holm < ALPHA
    # An interval and a p-value of one bootstrap can disagree at the border: both have to say so.
    separable = significant and (tested.low > 0 or tested.high < 0)
    # `sign` is 0 unless the interval excludes 0 and every pair of seeds has the same sign.
    decided = significant and comparison.enough_seeds and tested.sign
    verdict: Verdict = "undecided" if not decided else "better" if tested.sign > 0 else "worse"
    return replace(comparison, p_holm=p_holm, separable=separable, verdict=verdict)


def _side(key: str, side: ComparedMethod, value: float) -> dict[str, Any]:
    """The fields of a comparison about method `a` or `b`."""
    first = side.results[0]
    return {
        key: side.name,
        f"signature_{key}": first.metrics[side.metric].signature,
        f"supervision_{key}": first.model.supervision,
        f"privilege_{key}": first.model.privilege,
        f"training_seeds_{key}": tuple(dict.fromkeys(side.seeds)),
        f"value_{key}": value,
    }


def _per_image(images: NDArray[np.float64] | None) -> dict[str, Any]:
    """The fields of a comparison about single images; None without differences (n,) of images."""
    if images is None:
        return dict.fromkeys(("effect_size", "wins", "ties", "losses"))
    ties = np.abs(images) <= ROUNDING
    return {
        "effect_size": _number(effect_size(images)),
        "wins": int(((images > 0) & ~ties).sum()),
        "ties": int(ties.sum()),
        "losses": int(((images < 0) & ~ties).sum()),
    }


def _permutation(pairs: PairedResults, images: NDArray[np.float64] | None) -> tuple[float, int]:
    """p-value and number of draws; NaN and 0 when swapped images mean nothing."""
    if images is not None:
        return sign_flip_p_value(images), PERMUTATIONS
    both = pairs.swappable()
    return (np.nan, 0) if both is None else (swap_p_value(both, pairs.n), RESAMPLES)


def _standard_error(pairs: PairedResults, tested: Difference, images: NDArray[np.float64] | None) -> float:
    """The standard error of the difference: s / sqrt(n) of two checkpoints, else that of the bootstrap."""
    if images is None or len(pairs.ours.results) > 1 or pairs.n < 2:
        return tested.se
    return float(images.std(ddof=1) / np.sqrt(pairs.n))


def _number(value: float) -> float | None:
    """None for NaN, which JSON does not know."""
    return None if np.isnan(value) else float(value)


def _metrics(metrics: str | Sequence[str] | None, card: TaskSpec, results: Sequence[Result]) -> list[str]:
    """Names of the metrics to compare. `all`: those of the card with a value in every result."""
    if metrics is None:
        return [card.main]
    if metrics == "all":
        return [name for name in card.metrics if all(_has(result, name) for result in results)]
    return [name.strip() for name in metrics.split(",")] if isinstance(metrics, str) else list(metrics)


def _has(result: Result, metric: str) -> bool:
    return metric in result.metrics and result.metrics[metric].value is not None

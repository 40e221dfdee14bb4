"""Is one method better than another? Paired tests on the images of both, corrected for how many were made.

The rule (docs/compare.md): training seeds paired, two-level bootstrap over (seed, image), the 95 % interval of the
difference excludes 0, the same sign in every pair of seeds, Holm over all tests; fewer than 3 training seeds of a
trained method say something about these checkpoints only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...cards.names import get_task, model_names, suggest, task_names
from ...cards.task import TaskSpec
from ...core.errors import UsageError
from ...families import find_family
from ...metrics.statistics import (
    PERMUTATIONS,
    RESAMPLES,
    Difference,
    effect_size,
    holm,
    sign_flip_p_value,
    smallest_detectable,
    swap_p_value,
)
from ...results.methods import DataKey, data_key, find_method, is_file, read_files, reasons_against, tasks_of
from ...results.ranks_with import Reason, reasons_against_ranking
from ...results.record import Result
from ...results.store import default_folders
from .pairing import ComparedMethod, PairedResults, pair

ALPHA = 0.05
ROUNDING = 1e-12
"""Difference of two images' values below which they tie."""
Method = str | Sequence[Result]
Tasks = str | Path | TaskSpec | Sequence[str | Path | TaskSpec] | None
Verdict = Literal["better", "worse", "undecided"]


@dataclass(frozen=True)
class Comparison:
    """Method a minus method b in one metric of one task, on the images of both; a positive difference is better for a.

    value_a, value_b: on the n images (or videos) that count. low, high, se, p_bootstrap: 95 % interval, standard error
    and p-value of the bootstrap. p_permutation: None where swapping images means nothing (`permutations` is then 0).
    p_holm: p_bootstrap, adjusted for all metrics and tasks of the call. effect_size (d_z), wins, ties, losses: of
    images; None for a metric that is no mean over images. smallest_detectable: true difference found with 80 % power.
    seed_signs: of the difference of each pair of training seeds. separable: these checkpoints differ on these images
    beyond chance. verdict: what that says about the methods, `undecided` with fewer than 3 seeds of a trained one.
    remarks: why results that take part are not ranked; only results that were named by their files can have any.
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
        """The difference alone, as it was tested; NaN where a number is None."""
        low, high, se, p_value = (
            np.nan if value is None else value for value in (self.low, self.high, self.se, self.p_bootstrap)
        )
        return Difference(self.difference, low, high, se, p_value, self.n, self.seed_signs)

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return asdict(self)


def compare(
    a: Method,
    b: Method,
    task: Tasks = None,
    metrics: str | Sequence[str] | None = None,
    *,
    results: Sequence[str | Path] | None = None,
) -> list[Comparison]:
    """Compare two methods: `name` (all training seeds), `name:seed`, result files (commas between) or results.

    task: names or cards, with commas between names; by default all tasks on which both have results. metrics: by
    default the main metric of each task, `all` takes every metric that both have. results: folders, by default the
    committed results and the user's own. Raises UsageError where results cannot be joined, naming the field.
    """
    folders = default_folders() if results is None else [Path(folder) for folder in results]
    found = []
    for card in _cards(a, b, task, folders):
        ours, theirs = _both(a, b, card, folders)
        for metric in _metrics(metrics, card, [*ours, *theirs]):
            found.append(measure(pair(ours, theirs, metric, card=card)))
    return corrected(found)


def difference(
    ours: Sequence[Result], theirs: Sequence[Result], metric: str, other_metric: str | None = None
) -> Difference:
    """`metric` of our method minus `other_metric` (by default the same) of theirs; positive is always better for ours.

    ours, theirs: one result for each training seed; seeds that only one of them has are left out. A method that is not
    trained meets each seed of the other. Only images on which every result has a value count. Raises UsageError for
    other tasks or images and for methods without a seed in common.
    """
    return pair(ours, theirs, metric, other_metric).difference()


def measure(pairs: PairedResults, *, permute: bool = True) -> Comparison:
    """Every number of one comparison; `corrected` adds what depends on how many there are: p_holm and the verdict."""
    found = pairs.difference()
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
        unit=find_family(pairs.ours.card.family).unit,
        n=pairs.n,
        n_failed=pairs.failed,
        n_without_value=pairs.without_value,
        difference=found.mean,
        low=_number(found.low),
        high=_number(found.high),
        se=_number(found.se),
        p_bootstrap=_number(found.p_value),
        p_permutation=_number(p_value),
        permutations=draws,
        p_holm=None,
        smallest_detectable=_number(smallest_detectable(_standard_error(pairs, found, images), pairs.n)),
        seed_signs=found.seed_signs,
        enough_seeds=pairs.enough_seeds,
        separable=False,
        verdict="undecided",
        remarks=_remarks(pairs),
    )


def _remarks(pairs: PairedResults) -> tuple[str, ...]:
    """Why results are not ranked, each reason of a result once."""
    results = {id(result): result for side in (pairs.ours, pairs.theirs) for result in side.results}
    found = (f"{one.model.name}: {reason.message}" for one in results.values() for reason in _against(one))
    return tuple(dict.fromkeys(found))


def _against(result: Result) -> list[Reason]:
    """Another version of the card is no reason here: both are held against one card before."""
    return [reason for reason in reasons_against_ranking(result) if reason.field != "task.hash"]


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons with Holm-adjusted p-values over all of them, and with what the rule says of each."""
    known = {str(index): one.p_bootstrap for index, one in enumerate(comparisons) if one.p_bootstrap is not None}
    adjusted = holm(known)
    return [_judged(one, adjusted.get(str(index))) for index, one in enumerate(comparisons)]


def _judged(one: Comparison, p_holm: float | None) -> Comparison:
    found = one.tested
    significant = p_holm is not None and p_holm < ALPHA
    separable = significant and (found.low > 0 or found.high < 0)
    decided = significant and one.enough_seeds and found.sign
    verdict: Verdict = "undecided" if not decided else "better" if found.sign > 0 else "worse"
    return replace(one, p_holm=p_holm, separable=separable, verdict=verdict)


def _side(key: str, side: ComparedMethod, value: float) -> dict[str, Any]:
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
    """p-value and number of draws; NaN and 0 where swapping images means nothing."""
    if images is not None:
        return sign_flip_p_value(images), PERMUTATIONS
    both = pairs.swappable()
    return (np.nan, 0) if both is None else (swap_p_value(both, pairs.n), RESAMPLES)


def _standard_error(pairs: PairedResults, found: Difference, images: NDArray[np.float64] | None) -> float:
    """Of two checkpoints and a mean it is known exactly; else it is that of the bootstrap."""
    if images is None or len(pairs.ours.results) > 1 or pairs.n < 2:
        return found.se
    return float(images.std(ddof=1) / np.sqrt(pairs.n))


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _cards(a: Method, b: Method, task: Tasks, folders: Sequence[Path]) -> list[TaskSpec]:
    """The cards to compare on, once each. Raises UsageError when the two share no task."""
    if task is not None:
        several = task.split(",") if isinstance(task, str) else [task] if isinstance(task, Path | TaskSpec) else task
        return [get_task(one.strip() if isinstance(one, str) else one) for one in several]
    of_a, of_b = (_tasks(method, folders) for method in (a, b))
    common = [name for name in of_a if name in of_b]
    for method, tasks in ((a, of_a), (b, of_b)):
        if isinstance(method, str) and not tasks:
            close = suggest(method.partition(":")[0], model_names())
            raise UsageError(f"{method}: no result of it that is ranked in {', '.join(map(str, folders))}{close}")
    if not common:
        raise UsageError(
            f"{_name(a)} and {_name(b)} have no task in common: {', '.join(of_a) or 'none'} against "
            f"{', '.join(of_b) or 'none'} in {', '.join(map(str, folders))}; evaluate both on one task"
        )
    known = [name for name in common if name in task_names()]
    return [get_task(name) for name in known or common[:1]]  # else the error about a card that is not installed


def _tasks(method: Method, folders: Sequence[Path]) -> list[str]:
    if isinstance(method, str) and not is_file(method):
        return tasks_of(folders, method)
    return list(dict.fromkeys(one.task.name for one in _given(method)))


def _both(a: Method, b: Method, card: TaskSpec, folders: Sequence[Path]) -> tuple[list[Result], list[Result]]:
    """Results of both on the best data that they share. Where they share none, joining them says what differs."""
    of_a, of_b = (_by_data(method, card, folders) for method in (a, b))
    common = [key for key in of_a if key in of_b]
    key_a, key_b = (common[0], common[0]) if common else (next(iter(of_a)), next(iter(of_b)))
    return of_a[key_a], of_b[key_b]


def _by_data(method: Method, card: TaskSpec, folders: Sequence[Path]) -> dict[DataKey, list[Result]]:
    if isinstance(method, str) and not is_file(method):
        if not (methods := find_method(folders, method, card.name, card.hash)):
            left_out = reasons_against(folders, method, card.name)
            why = f" (left out: {'; '.join(left_out[:3])})" if left_out else ""
            raise UsageError(
                f"{method}: no result that is ranked on task '{card.name}' in {', '.join(map(str, folders))}{why}; "
                f"run: ocl-bench eval --model {method} --task {card.name}, or name its result files"
            )
        return methods
    found = _given(method)
    wanted = [one for one in found if one.task.name == card.name] or found
    return {data_key(wanted[0]): wanted}


def _given(method: Method) -> list[Result]:
    found = read_files(method) if isinstance(method, str) else list(method)
    if not found:
        raise UsageError("no result to compare; give a method's name or result files")
    return found


def _name(method: Method) -> str:
    return method if isinstance(method, str) else _given(method)[0].model.name


def _metrics(metrics: str | Sequence[str] | None, card: TaskSpec, found: Sequence[Result]) -> list[str]:
    """Metrics to compare. `all`: those of the card in which every result has a value."""
    if metrics is None:
        return [card.main]
    if metrics == "all":
        return [name for name in card.metrics if all(_has(one, name) for one in found)]
    return [name.strip() for name in metrics.split(",")] if isinstance(metrics, str) else list(metrics)


def _has(result: Result, metric: str) -> bool:
    return metric in result.metrics and result.metrics[metric].value is not None

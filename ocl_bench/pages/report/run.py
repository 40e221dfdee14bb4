"""A run as its report needs it: the result, its rows, and, where they are there, its images and saved predictions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...cards.names import get_task, is_task
from ...cards.task import TaskSpec
from ...core.errors import DataMissingError, UsageError
from ...core.files import ids_hash
from ...core.paths import data_root as root_of_environment
from ...core.paths import results_root
from ...data import OpenData, open_data
from ...evaluation.examination.rows import check_values
from ...evaluation.supplied.arrays import array_plan
from ...families import find_family
from ...families.base import Family
from ...metrics import find_metric
from ...metrics.of_set import SumRatio
from ...results.record import Result, read_result
from ...results.store import only_result, rows_of

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False)
class Run:
    """One evaluated model.

    Attributes:
        result: what `evaluate` wrote.
        rows: one row for each sample, with `id` as index: means over the noise seeds.
        family: of the task.
        task: the card of the run; None when it is not at hand.
        data: its samples; None when they are not at hand.
        predictions: folder of the saved predictions; None without them.
        root: folder of the data set, as it was given.
        notes: what is missing, why, and what to do, one sentence each.
    """

    result: Result
    rows: pandas.DataFrame
    family: Family
    task: TaskSpec | None = None
    data: OpenData | None = None
    predictions: Path | None = None
    root: Path | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.result.model.name

    def has_numbers(self, column: str) -> bool:
        """Whether the rows have a column of numbers with any value."""
        from pandas.api.types import is_numeric_dtype

        return column in self.rows and is_numeric_dtype(self.rows[column]) and bool(self.rows[column].notna().any())

    @property
    def folders(self) -> list[Path]:
        """Folders of results in which floors may lie: that of this run, which has a folder for each task, and yours."""
        parents = self.result.path.absolute().parents if self.result.path else ()
        own = [folder.parent for folder in parents if folder.name == self.result.task.name][:1]
        return [*own, results_root()]

    @property
    def metrics(self) -> list[str]:
        """Metrics of the result, the main one first."""
        main = self.result.task.main
        return [main, *(name for name in self.result.metrics if name != main)]

    @property
    def per_sample(self) -> list[str]:
        """Metrics whose rows have values of single samples, the main one first."""
        return [name for name in self.metrics if self.has_numbers(name)]

    @property
    def sample_values(self) -> dict[str, pandas.Series]:
        """Values of single samples by metric, the main one first. A ratio of sums is that of a sample's own counts."""
        values = {}
        for name in self.metrics:
            ratio = find_metric(name).of_set
            if self.has_numbers(name):
                values[name] = self.rows[name]
            elif isinstance(ratio, SumRatio) and {ratio.above, ratio.below} <= set(self.rows):
                below = self.rows[ratio.below]
                values[name] = self.rows[ratio.above] / below.where(below > 0)
        return values


def open_run(
    place: str | Path | Result,
    *,
    task: str | Path | TaskSpec | None = None,
    data_root: str | Path | None = None,
    progress: bool = True,
) -> Run:
    """Read a run and what belongs to it.

    Args:
        place: a result, its JSON file, or the folder with it.
        task: card of the run, when it is not a bundled one.
        data_root: folder of the data set, as in `evaluate`, or the `.npz` file that `score` read.
        progress: whether to show a progress bar while a stand-in is rendered.

    Raises:
        UsageError: the result or its rows cannot be read, or the card is another one.
        DataMissingError: a `data_root` was given, but the data are not there.
    """
    result = place if isinstance(place, Result) else read_result(only_result(Path(place)))
    family = find_family(find_metric(result.task.main).families[0])
    run = Run(result, mean_over_seeds(rows_of(result)), family)
    root = Path(data_root) if data_root is not None else None
    if root is not None and root.suffix == ".npz":
        run = _with_arrays(run, get_task(task if task is not None else result.task.name), root)
    elif (card := _card(result, task)) is not None:
        run = _with_data(_checked(replace(run, task=card, family=find_family(card.family)), card), card, root, progress)
    else:
        return _with_note(run, f"The card of task {result.task.name} is not at hand: pass --task to see the samples.")
    if not run.family.view:
        return _with_note(run, f"Samples of {run.family.name} tasks cannot be shown: this page has their numbers only.")
    if (folder := predictions_of(result)) is not None:
        return replace(run, predictions=folder)
    return _with_note(
        run, f"Predictions of {run.name} were not saved: evaluate again with --save-predictions to see them."
    )


def predictions_of(result: Result) -> Path | None:
    """The folder of the saved predictions of a result; None without them."""
    folder = result.path.with_suffix(".predictions") if result.path else None
    return folder if folder is not None and folder.is_dir() else None


def mean_over_seeds(rows: pandas.DataFrame) -> pandas.DataFrame:
    """One row for each sample: means of numbers, and the first of what cannot be averaged."""
    from pandas.api.types import is_numeric_dtype

    how = {name: "mean" if is_numeric_dtype(rows[name]) else "first" for name in rows if name != "id"}
    return rows.groupby("id", sort=False).agg(how)


def _card(result: Result, task: str | Path | TaskSpec | None) -> TaskSpec | None:
    """The card of a result: the given one, or the bundled one if it has the recorded hash.

    Raises UsageError when the given card is another one.
    """
    if task is None:
        card = get_task(result.task.name) if is_task(result.task.name) else None
        return card if card is not None and card.hash == result.task.hash else None
    card = get_task(task)
    if card.hash != result.task.hash:
        raise UsageError(f"--task {task}: the result was made with another card ({result.task.hash[:8]})")
    return card


def _checked(run: Run, card: TaskSpec) -> Run:
    """The run with a note where its metrics are not those of its rows: one of the two files was edited."""
    problems: list[tuple[str, str]] = []
    check_values(run.result, rows_of(run.result), card, problems, [])
    if not problems:
        return run
    field, text = problems[0]
    return _with_note(run, f"The numbers of {run.name} are not those of its rows: {field}: {text}. Do not trust them.")


def _with_data(run: Run, card: TaskSpec, root: Path | None, progress: bool) -> Run:
    """The run with its samples, or with a note that says why they are not there."""
    section = run.result.data
    embedded = section.kind == "embedded"
    if embedded and root is not None:
        raise UsageError(
            f"{run.name} was evaluated on the embedded data, which are rendered here; leave --data-root out"
        )
    if section.kind == "official" and root is None and root_of_environment() is None:
        return _with_note(run, f"Images are missing: pass --data-root with the folder of {card.name}.")
    try:
        data = open_data(
            card,
            data_root=root,
            limit=section.limit,
            split=section.split,
            stand_in_seed=section.stand_in_seed,
            embedded=embedded,
            progress=progress,
        )
    except DataMissingError as error:
        if root is not None:
            raise
        return _with_note(run, f"Images are missing: {error}.")
    if ids_hash(data.ids) != section.ids_sha256:
        return _with_note(
            run,
            f"Images are missing: {data.root} holds other samples than the {section.kind} data that were scored; "
            "pass their --data-root.",
        )
    return replace(run, data=data, root=root)


def _with_arrays(run: Run, card: TaskSpec, path: Path) -> Run:
    """The run with the truth of an `.npz` file. Raises UsageError when it is not the file that was scored."""
    plan = array_plan(card, path, run.name, run.result.data.limit)
    if plan.task.hash != run.result.task.hash or plan.data.revision != run.result.data.revision:
        raise UsageError(f"{path}: is not the file that this result was made from")
    run = replace(run, task=plan.task, data=plan.data, root=path)
    return _with_note(run, f"Images are black: {path.name} holds label maps only.")


def _with_note(run: Run, note: str) -> Run:
    return replace(run, notes=(*run.notes, note))

"""Many results at once: choose some, put them into a table, compare them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from ..core.errors import UsageError
from ..core.text_tables import html_table, latex_table, text_table
from . import store
from .record import Result
from .seeds import base_name

if TYPE_CHECKING:
    import pandas


class Results(Sequence[Result]):
    """Results in a fixed order. `load_results` makes them; slices and `filter` give results again."""

    def __init__(self, results: Sequence[Result]) -> None:
        self._results = tuple(results)

    def __len__(self) -> int:
        return len(self._results)

    def __iter__(self) -> Iterator[Result]:
        return iter(self._results)

    @overload
    def __getitem__(self, index: int) -> Result: ...

    @overload
    def __getitem__(self, index: slice) -> Results: ...

    def __getitem__(self, index: int | slice) -> Result | Results:
        return Results(self._results[index]) if isinstance(index, slice) else self._results[index]

    def filter(
        self,
        keep: Callable[[Result], bool] | None = None,
        *,
        task: str = "*",
        model: str = "*",
        data: str = "*",
        supervision: str = "*",
        role: str = "*",
    ) -> Results:
        """The results that fit all conditions.

        Args:
            keep: called with each result.
            task: name of the task; this and all following may hold `*`, `?` and `[..]`.
            model: name of the model, without its training seed.
            data: `embedded`, `official` or `supplied`.
            supervision: what the model saw in training.
            role: such as `floor`, `ceiling` or `control`.
        """
        patterns = (task, model, data, supervision, role)
        return Results(
            [
                result
                for result in self
                if all(map(fnmatchcase, _named(result), patterns)) and (keep is None or keep(result))
            ]
        )

    def to_frame(self) -> pandas.DataFrame:
        """One row for each result and metric.

        Columns: task, model, training_seed, data, supervision, privilege, role, metric, main (whether the task is
        ranked by it), value, low and high (95 % interval), n (valid samples), signature, key.
        """
        import pandas

        return pandas.DataFrame([row for result in self for row in _rows(result)])

    def compare(self, a: str, b: str, **keywords: Any) -> Any:
        """Compare two models of these results. The training seeds of a model, `name:1` and so on, belong to `name`.

        Keywords and return value are those of `ocl_bench.compare`. Raises UsageError when a name is not here.
        """
        # By its public name: comparisons know results, and results know no comparisons.
        return importlib.import_module("ocl_bench").compare(self._of(a), self._of(b), **keywords)

    def _of(self, model: str) -> list[Result]:
        found = [result for result in self if model in (base_name(result), result.model.name)]
        if not found:
            known = ", ".join(sorted({base_name(result) for result in self})) or "none"
            raise UsageError(f"model '{model}' is not among these results; they have {known}")
        # The draws of a bootstrap over training seeds follow their order, which must not be that of a folder.
        return sorted(found, key=lambda result: -1 if (seed := result.model.training_seed) is None else seed)

    def _cells(self) -> list[list[str]]:
        rows = []
        for result in self:
            main = result.metrics.get(result.task.main)
            seed = "" if result.model.training_seed is None else str(result.model.training_seed)
            value = "" if main is None else str(main)
            rows.append([result.task.name, base_name(result), seed, result.data.kind, result.task.main, value])
        return [["task", "model", "seed", "data", "main metric", "value [95 % interval]"], *rows]

    def __repr__(self) -> str:
        return f"{len(self)} results\n{text_table(self._cells())}"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return html_table(self._cells())

    def to_latex(self) -> str:
        """Task, model, seed, data and main metric of each result as a LaTeX table, for the package booktabs."""
        return latex_table(self._cells())


def load_results(*folders: str | Path, task: str | None = None) -> Results:
    """Read all results below some folders.

    Args:
        folders: each has one folder for each task; by default the committed results and the user's own.
        task: name of the only task to read.

    Raises:
        UsageError: a folder does not exist, or a file in it cannot be read.
    """
    places = [Path(folder) for folder in folders] or store.default_folders()
    for place in places if folders else ():
        if not place.is_dir():
            raise UsageError(f"{place}: not a folder of results")
    found = list(store.search(places, task))
    for stored in found:
        if stored.result is None:
            raise UsageError(f"{stored.path}: {stored.problem}")
    return Results([stored.result for stored in found if stored.result is not None])


def _named(result: Result) -> tuple[str, str, str, str, str]:
    """What `filter` looks at, in the order of its arguments."""
    model = result.model
    return result.task.name, base_name(result), result.data.kind, model.supervision, model.role


def _rows(result: Result) -> Iterator[dict[str, Any]]:
    """The rows of one result in `to_frame`."""
    task, data, model = result.task, result.data, result.model
    for name, metric in result.metrics.items():
        low, high = metric.ci95 or (None, None)
        yield {
            "task": task.name,
            "model": base_name(result),
            "training_seed": model.training_seed,
            "data": data.kind,
            "supervision": model.supervision,
            "privilege": model.privilege,
            "role": model.role,
            "metric": name,
            "main": name == task.main,
            "value": metric.value,
            "low": low,
            "high": high,
            "n": metric.n_valid,
            "signature": metric.signature,
            "key": result.identity.key,
        }

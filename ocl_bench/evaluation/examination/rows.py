"""Check the rows of a result: columns, counts and ranges, and every value computed from them again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...cards.task import TaskSpec
from ...core.errors import UsageError
from ...core.files import file_sha256
from ...families.image_properties import PROPERTIES
from ...families.summary import summarise
from ...metrics import find_metric, is_metric
from ...results.record import Result, read_rows

if TYPE_CHECKING:
    import pandas

    from ...results.record import MetricValue

ROUNDING = 1e-9
"""Largest difference of values and intervals, relative above 1: other processors add in another order."""

LARGEST_ROWS = 200_000_000
"""Most bytes of a Parquet file; the largest of this repository, 384 images with boxes and scores, has 0.13 MB."""

FieldProblems = Iterator[tuple[str, str]]
"""Pairs of a field and what is wrong with it."""


def find_rows(path: Path, result: Result, problems: list[tuple[str, str]]) -> pandas.DataFrame | None:
    """The rows beside a result file, or None after a problem has been added to `problems`.

    The rows have the name of the result with `.parquet`. Any other name in the file is refused: it comes from a
    stranger and must not open a path.
    """
    name, rows = result.rows.file, path.with_suffix(".parquet")
    if name != rows.name or not rows.is_file():
        problems.append(("rows.file", f"{name!r} has to be {rows.name}, a file beside {path.name}"))
        return None
    if rows.is_symlink():
        problems.append(("rows.file", f"{name} is a symbolic link; put the file itself there"))
        return None
    if (size := rows.stat().st_size) > LARGEST_ROWS:
        problems.append(("rows.file", f"{name} has {size / 1e6:.0f} MB, rows at most {LARGEST_ROWS / 1e6:g}"))
        return None
    sha256 = file_sha256(rows)
    if sha256 != result.rows.sha256:
        problems.append(("rows.sha256", f"{name} has {sha256}, the result says {result.rows.sha256}"))
    try:
        table = read_rows(rows)
    except UsageError as error:
        problems.append(("rows.file", str(error)))
        return None
    wrong = list(_wrong_columns(table, name))
    problems += wrong
    return None if wrong else table


def _wrong_columns(rows: pandas.DataFrame, name: str) -> FieldProblems:
    """Columns that are missing or have the wrong type."""
    from pandas.api.types import is_bool_dtype, is_integer_dtype, is_numeric_dtype

    for column in ("id", "noise_seed", "n_objects"):
        if column not in rows:
            yield f"rows.{column}", f"{name} has no such column"
        elif column == "id":
            if not all(isinstance(value, str) and value for value in rows[column]):
                yield "rows.id", "holds an id that is empty or not text"
        elif not is_integer_dtype(rows[column]):
            yield f"rows.{column}", f"holds {rows[column].dtype}, not whole numbers"
    if "n_objects" in rows and is_integer_dtype(rows["n_objects"]) and (rows["n_objects"] < 0).any():
        yield "rows.n_objects", "an image has a negative number of objects"
    for column in ("n_frames", *PROPERTIES):
        if column in rows and (is_bool_dtype(rows[column]) or not is_numeric_dtype(rows[column])):
            yield f"rows.{column}", f"holds {rows[column].dtype}, not numbers"
        elif column in PROPERTIES and column in rows and not rows[column].dropna().between(0, 1).all():
            yield f"rows.{column}", "a share lies outside [0, 1]"


def check_counts(result: Result, rows: pandas.DataFrame) -> FieldProblems:
    """Problems of completeness: every image has one row for each noise seed, and the counts are those of the rows."""
    from ...core.files import ids_hash

    counts, seeds = result.counts, result.seeds.noise
    ids, failed = set(rows["id"].astype(str)), [failure.id for failure in counts.failed]
    repeated = rows.duplicated(["id", "noise_seed"])
    if repeated.any():
        yield "rows.id", f"{int(repeated.sum())} rows are repeated, first {rows.loc[repeated, 'id'].iloc[0]}"
    if set(rows["noise_seed"].tolist()) != set(seeds) or len(set(seeds)) != len(seeds):
        yield "seeds.noise", f"{list(seeds)}, but the rows have {sorted(set(rows['noise_seed'].tolist()))}"
    rows_per_image = rows.loc[~repeated].groupby("id").size()
    if (incomplete := rows_per_image != len(seeds)).any():
        text = f"{int(incomplete.sum())} images do not have a row for each noise seed"
        yield "rows.noise_seed", f"{text}, first {rows_per_image.idxmin()}"
    if len(set(failed)) != len(failed) or ids & set(failed):
        yield "counts.failed", "names a sample twice, or a sample that has a row"
    # The hash stands for the image set: without it, hard images could be left out and nobody would notice.
    if ids_hash([*ids, *failed]) != result.data.ids_sha256:
        yield "data.ids_sha256", f"is not the hash of the {len(ids)} ids of the rows and {len(failed)} failed ones"
    if counts.scored != len(ids):
        yield "counts.scored", f"{counts.scored}, but the rows are of {len(ids)} images"
    if counts.attempted != len(ids) + len(failed):
        yield "counts.attempted", f"{counts.attempted}, but {len(ids)} have rows and {len(failed)} failed"
    if result.data.listed is not None and counts.attempted != result.data.listed:
        yield "data.listed", f"{result.data.listed} is not {counts.attempted}, the samples that were attempted"
    if result.data.limit is not None and counts.attempted > result.data.limit:
        yield "data.limit", f"{result.data.limit} is below the {counts.attempted} images that were attempted"
    if result.identity.status != (status := "failed samples" if failed else "complete"):
        yield "identity.status", f"'{result.identity.status}', but counts.failed says '{status}'"
    share = float((rows.drop_duplicates("id")["n_objects"] == 1).mean())
    if not _same(counts.single_object_share, share):
        yield "counts.single_object_share", f"{counts.single_object_share!r}, but the rows give {share!r}"
    images = float(rows["n_frames"].sum()) if "n_frames" in rows else float(len(rows))
    speed = images / result.cost.seconds_total if result.cost.seconds_total > 0 else None
    if not _same(result.cost.images_per_second, speed):
        yield "cost.images_per_second", f"{result.cost.images_per_second!r}, but rows and seconds give {speed!r}"


def check_row_values(rows: pandas.DataFrame) -> FieldProblems:
    """Columns with infinities or with values outside the range of their metric; NaN means not valid there."""
    for column in rows.select_dtypes("number").columns:
        values = rows[column].to_numpy(np.float64)
        low, high = -math.inf, math.inf
        # Any other column is a sum or a count from which a metric of the whole set is computed: any finite number.
        if column not in ("noise_seed", "n_objects") and is_metric(column):
            known = find_metric(column)
            low, high = known.low - ROUNDING, known.high + ROUNDING
        # Comparisons with NaN are false, therefore NaN is never wrong.
        wrong = np.isinf(values) | (values < low) | (values > high)
        if wrong.any():
            first = int(np.argmax(wrong))
            text = f"{values[first]} of {rows['id'].iloc[first]} is infinite or outside [{low:.6g}, {high:.6g}]"
            yield f"rows.{column}", f"{text} ({int(wrong.sum())} such values)"


def check_values(
    result: Result,
    rows: pandas.DataFrame,
    task: TaskSpec | None,
    problems: list[tuple[str, str]],
    skipped: list[str],
) -> int:
    """Compute every metric from the rows again, compare, and return the number of metrics."""
    if task is None or task.hash != result.task.hash:
        skipped.append("metrics: computing them from the rows needs the card of the task")
        return 0
    try:
        with np.errstate(invalid="ignore"):  # infinities among the rows are named elsewhere
            computed = summarise(rows, task, result.model.mask_source)
    # Rows from a stranger can break the arithmetic in any way: that is a problem of the file, not a crash.
    except (UsageError, KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        problems.append(("rows", f"the metrics cannot be computed from them ({type(error).__name__}: {error})"))
        return 0
    for name in sorted({*computed, *result.metrics}):
        if name not in computed or name not in result.metrics:
            text = "is missing" if name in computed else "is not a metric of the task"
            problems.append((f"metrics.{name}", text))
            continue
        problems += _compare(f"metrics.{name}", result.metrics[name], computed[name])
    return len(computed)


def _compare(field: str, stored: MetricValue, computed: MetricValue) -> FieldProblems:
    """Differences of one metric. The interval is drawn with a fixed seed: it has to come out the same."""
    for part in ("value", "se", "n_valid", "signature"):
        before, now = getattr(stored, part), getattr(computed, part)
        if not _same(before, now):
            yield f"{field}.{part}", f"{before!r}, but the rows give {now!r}"
    low, high = stored.ci95 or (None, None)
    if not all(map(_same, (low, high), computed.ci95 or (None, None))):
        yield f"{field}.ci95", f"{stored.ci95}, but the rows give {computed.ci95}"


def _same(a: Any, b: Any) -> bool:
    """Whether two values are equal, numbers up to rounding."""
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) <= ROUNDING * max(1.0, abs(b))
    return bool(a == b)

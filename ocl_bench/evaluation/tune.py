"""Chooses an option of a model on the validation split, never on the split that is reported."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..cards.names import get_task
from ..cards.protocols import MOST_SEEDS
from ..core.errors import UsageError
from ..core.files import path_name, write_atomically
from ..core.paths import results_root
from ..models.options import option_value
from .evaluate import evaluate


def parse_values(text: str) -> list[Any]:
    """The values of a range or a list: `3..15` is 3, 4, ..., 15, and `0.1,0.2` is 0.1 and 0.2, each read as YAML.

    Raises UsageError for a range that goes down.
    """
    if match := re.fullmatch(r"(-?\d+)\.\.(-?\d+)", text):
        first, last = int(match[1]), int(match[2])
        if first > last:
            raise UsageError(f"range {text}: the first value is above the last")
        if last - first >= MOST_SEEDS:
            raise UsageError(f"range {text}: has more than {MOST_SEEDS} values; give fewer")
        return list(range(first, last + 1))
    return [option_value("", part) for part in text.split(",")]


def tune(
    model: str,
    task: str,
    option: str,
    values: list[Any],
    *,
    split: str = "val",
    results: Path | None = None,
    options: Mapping[str, Any] | None = None,
    **keywords: Any,
) -> dict[str, Any]:
    """Evaluate each value of one option on the validation split; the value with the best main metric wins.

    Of equal values the first one wins.

    Args:
        model, task: as in `evaluate`.
        option: name of the model's option.
        values: at least two.
        split: must not be the split on which the task is scored.
        results: folder; the results go to `<results>/tuning`.
        options: other options of the model, fixed.
        keywords: other arguments of `evaluate`.

    Returns:
        The content of `<results>/tuning/<task>/<model>/<option>.json`, and its `path`.

    Raises:
        UsageError: for fewer than two values, the reported split, or a main metric that is valid for no value.
    """
    spec = get_task(task)
    if len(values) < 2:
        raise UsageError(f"--option {option}: give several values to choose from, such as {option}=3..15")
    if split == spec.data.split:
        raise UsageError(
            f"split '{split}': task {spec.name} is scored on it; tune on another split, such as val or train"
        )
    root = (results or results_root()) / "tuning"  # apart from results of the reported split
    rows = []
    for value in values:
        chosen = {**(options or {}), option: value}
        result = evaluate(model, spec, split=split, results=root, options=chosen, **keywords)
        numbers = {name: metric.value for name, metric in result.metrics.items()}
        rows.append({"value": value, "metrics": numbers, "key": result.identity.key})
    direction = result.metrics[spec.main].direction
    scored = [row for row in rows if row["metrics"][spec.main] is not None]
    if not scored:
        raise UsageError(f"task {spec.name}: {spec.main} is not valid on any image of split '{split}'")
    # direction: 1 where higher is better, -1 where lower is; max takes the first of equal ones.
    best = max(scored, key=lambda row: direction * row["metrics"][spec.main])
    content = {
        "model": model,
        "task": spec.name,
        "task_hash": spec.hash,
        "split": split,
        "data_revision": result.data.revision,
        "images": result.counts.scored,
        "option": option,
        "main": spec.main,
        "best": best["value"],
        "tried": rows,
    }
    path = root / spec.name / path_name(model) / f"{path_name(option)}.json"
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda target: target.write_text(text, encoding="utf-8"))
    return {**content, "path": str(path)}

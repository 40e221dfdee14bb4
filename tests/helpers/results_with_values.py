"""Results with chosen values, for tests of what reads results."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas
from results_for_boards import taken_for_valid

from ocl_bench.core.paths import bundled
from ocl_bench.results.record import Result, read_result, write_result

RESULTS = bundled("leaderboards") / "results"


def made(folder: Path, name: str, values: list[float], seed: int | None = 0, **changes: Any) -> Result:
    """A result with these values of mbo_fg on images `i00`, `i01`, ... of the card clevrtex."""
    template = read_result(RESULTS / "clevrtex" / "dias.json")
    content = json.loads(template.to_json())
    content["model"] |= {"name": name if not seed else f"{name}:{seed}", "training_seed": seed, "role": "model"}
    content["model"]["checkpoint_sha256"] = hashlib.sha256(f"{name} {seed}".encode()).hexdigest()
    content["model"]["arrays"] = ""  # those of the template are of one training
    content["model"] |= changes.pop("model", {})
    nothing = {"value": None, "se": None, "ci95": None, "n_valid": 0}  # metrics that are valid on no image
    metrics = {metric: section | nothing for metric, section in content["metrics"].items()}
    content["metrics"] = metrics | {"mbo_fg": content["metrics"]["mbo_fg"] | {"value": float(np.nanmean(values))}}
    content["counts"] |= {"attempted": len(values), "scored": len(values)}
    for section, fields in changes.items():
        content[section] = (content[section] or {}) | fields
    ids = [f"i{index:02d}" for index in range(len(values))]
    rows = pandas.DataFrame({"id": ids, "noise_seed": 0, "n_objects": 2, "mbo_fg": np.array(values, dtype=float)})
    return taken_for_valid(
        write_result(Result.model_validate(content), rows, folder / "clevrtex", stem=f"{name}-{seed}")
    )

"""Study what the training of DIAS needs: weight and target of the self-distillation, merging in training, steps.

    python benchmarks/dias_training.py --out runs/dias-study

Each setting is trained once (training seed 0) and scored on the validation scenes of `clevrtex` with the options of the
card; the test scenes are never read. Settings that are finished are not run again, so the command can be stopped and
repeated. It prints one line for each setting, the ablation over iterations at evaluation included.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ocl_bench.evaluation.run import evaluate
from ocl_bench.training.run import train

MODELS: dict[str, str] = {"boxes": "dias", "label-free": "dias-label-free"}
METRICS = ("mbo_fg", "ari", "fg_ari")
ITERATIONS = (1, 2, 3, 5)


def setting(peak: float, target: str = "first", merging: float = 1.0, steps: int = 1000) -> dict[str, Any]:
    """Options and recipe fields of one training. `peak` is the final weight of the distillation, 0 switches it off."""
    options = {"distill": peak > 0, "distill_target": target, "merge_probability": merging}
    return {"options": options, "overrides": {"objective.distill_peak": peak}, "steps": steps}


SETTINGS = {
    "none": setting(0),
    "first-0.02": setting(0.02),
    "first-0.1": setting(0.1),
    "first-1": setting(1.0),
    "merged-0.02": setting(0.02, "merged"),
    "merged-0.1": setting(0.1, "merged"),
    "merged-1": setting(1.0, "merged"),
    "no-merging": setting(0, merging=0.0),
    "half-merging": setting(0, merging=0.5),
    "no-merging-3000": setting(0, merging=0.0, steps=3000),
    "none-3000": setting(0, steps=3000),
    "first-0.1-3000": setting(0.1, steps=3000),
    "merged-0.1-3000": setting(0.1, "merged", steps=3000),
}
"""The tried settings. All of them are listed, also those that did not help."""


def study(model: str, name: str, out: Path) -> dict[str, dict[str, float]]:
    """Train one setting unless its record exists, and score it at each number of iterations."""
    folder = out / model / name
    record = folder / "validation.json"
    if record.exists():
        return json.loads(record.read_text())  # type: ignore[no-any-return]
    chosen = SETTINGS[name]
    train(
        model,
        out=folder,
        steps=chosen["steps"],
        options=chosen["options"],
        overrides=chosen["overrides"] | {"validate_every": chosen["steps"]},
        progress=False,
    )
    scores = {}
    for iterations in ITERATIONS:
        result = evaluate(
            model,
            "clevrtex",
            split="val",
            limit=512,
            checkpoint=folder / f"{model}.safetensors",
            options=chosen["options"] | {"iterations": iterations},
            results=folder / "results",
            progress=False,
        )
        scores[str(iterations)] = {metric: float(result.metrics[metric].value or 0.0) for metric in METRICS}
    record.write_text(json.dumps(scores, indent=1))
    return scores


def main() -> None:
    """Run the settings in order and print their validation numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/dias-study"))
    parser.add_argument("--encoder", choices=list(MODELS), default="boxes")
    parser.add_argument("--settings", nargs="*", choices=list(SETTINGS), default=list(SETTINGS))
    arguments = parser.parse_args()
    print("setting | iterations: " + " / ".join(METRICS))
    for name in arguments.settings:
        scores = study(MODELS[arguments.encoder], name, arguments.out)
        cells = [f"{count}: " + " / ".join(f"{row[metric]:.3f}" for metric in METRICS) for count, row in scores.items()]
        print(f"{name} | " + " | ".join(cells), flush=True)


if __name__ == "__main__":
    main()

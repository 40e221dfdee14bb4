"""Study what the training of DIAS needs: weight and target of the self-distillation, merging in training, steps.

    python benchmarks/dias_training.py --out runs/dias-study

Each setting is trained once (training seed 0) and scored on the validation scenes of `clevrtex` with the options of the
card, at several numbers of iterations; see training_study.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from training_study import Setting, Study

MODELS: dict[str, str] = {"boxes": "dias", "label-free": "dias-label-free"}
STUDY = Study(
    task="clevrtex",
    limit=512,
    metrics=("mbo_fg", "ari", "fg_ari"),
    uses={str(number): {"iterations": number} for number in (1, 2, 3, 5)},
)


def setting(peak: float, target: str = "first", merging: float = 1.0, steps: int = 1000) -> Setting:
    """One training. `peak` is the final weight of the distillation, 0 switches it off."""
    options = {"distill": peak > 0, "distill_target": target, "merge_probability": merging}
    return Setting(steps, options, {"objective.distill_peak": peak})


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


def main() -> None:
    """Run the settings in order and print their validation numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/dias-study"))
    parser.add_argument("--encoder", choices=list(MODELS), default="boxes")
    parser.add_argument("--settings", nargs="*", choices=list(SETTINGS), default=list(SETTINGS))
    arguments = parser.parse_args()
    STUDY.run(MODELS[arguments.encoder], {name: SETTINGS[name] for name in arguments.settings}, arguments.out)


if __name__ == "__main__":
    main()

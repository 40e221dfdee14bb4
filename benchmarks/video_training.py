"""Study what the training of the video models needs: number of slots, length of the clips, steps.

    python benchmarks/video_training.py slotmatch-without-distillation --out runs/video-study

Each setting is trained once (training seed 0) and scored on 16 validation videos of `movi-c`, without merging and with
slots merged over the clip at several thresholds; see training_study.py. Teacher, student and controls choose from the
same settings.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from training_study import Setting, Study

from ocl_bench.cards.names import get_task
from ocl_bench.data.base import OpenData
from ocl_bench.data.scenes.store import open_store
from ocl_bench.data.stand_ins.layouts import ensure_scenes
from ocl_bench.training.clips import rendered_data

MODELS = ("slotmatch-without-distillation", "slotcontrast", "slotcontrast-without-contrast")
LIMIT = 16
"""Number of validation videos."""

THRESHOLDS = (0.1, 0.2, 0.3, 0.5)


def held_out() -> OpenData:
    """Rendered videos of split `val`, which no evaluation reads."""
    return rendered_data(ensure_scenes(open_store("motion", 1, "val", 0), LIMIT), get_task("movi-c"))


STUDY = Study(
    task="movi-c",
    limit=LIMIT,
    held_out=held_out,
    metrics=("mbo_video", "fg_ari_video", "mbo_frame", "fg_ari_frame"),
    uses={"unmerged": {}} | {f"merged-{threshold}": {"merge_threshold": threshold} for threshold in THRESHOLDS},
)


def setting(slots: int, clip: int = 4, batch: int = 4, steps: int = 2000) -> Setting:
    """One training; clips of `clip` frames, `batch` of them in a step."""
    return Setting(steps, {"slots": slots}, {"objective.clip": clip, "batch": batch})


SETTINGS = {
    "slots-7": setting(7),
    "slots-12": setting(12),
    "slots-16": setting(16),
    "slots-12-clip-8": setting(12, clip=8, batch=2),
    "slots-12-4000": setting(12, steps=4000),
    "slots-12-clip-8-4000": setting(12, clip=8, batch=2, steps=4000),
}
"""The tried settings. All of them are listed, also those that did not help."""


def main() -> None:
    """Run the settings in order and print their validation numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--out", type=Path, default=Path("runs/video-study"))
    parser.add_argument("--settings", nargs="*", choices=list(SETTINGS), default=list(SETTINGS))
    arguments = parser.parse_args()
    STUDY.run(arguments.model, {name: SETTINGS[name] for name in arguments.settings}, arguments.out)


if __name__ == "__main__":
    main()

"""What a report shows of one sample: its image and truth, and what each run predicted, as plain data.

Each kind of saved prediction has a view, by the name that a `Family` gives in `view`. A view makes the `scene` of a
sample once, and an `answer` for each run. Numbers are computed at the size at which the task scores; only pictures are
smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ....cards.task import TaskSpec
from ....data import OpenData
from .base import View
from .classes import Classes
from .detections import Boxes
from .neighbours import Neighbours
from .segments import SHOWN_FRAMES, Frames, Masks
from .slots import Slots

VIEWS: Mapping[str, Callable[[TaskSpec, OpenData, Path | None], View]] = {
    "masks": Masks,
    "frames": Frames,
    "detections": Boxes,
    "classes": Classes,
    "slots": Slots,
    "neighbours": Neighbours,
}
"""Views by the name that families use."""
COUNTED = ("masks", "frames", "slots", "detections")
"""Views that count mistakes in segments."""
PICTURES = {"frames": SHOWN_FRAMES}
"""Pictures of one sample, where a view has more than one."""

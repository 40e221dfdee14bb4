"""What all views share: the saved predictions of a run, the picture of a sample, and the mistakes in its segments."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import numpy as np
from pydantic import TypeAdapter

from ....cards.task import TaskSpec
from ....core.errors import SampleError
from ....core.files import read_bytes
from ....core.types import Sample, Truth, Video
from ....data import OpenData
from ....data.transforms import prepare
from ....evaluation.supplied.label_maps import read_prediction
from ....families import find_family, get_adapter
from ....families.base import ClipAdapter
from ....metrics.mistakes import KINDS, WRONG, Mistakes
from ..diagnosis import Tally
from ..encode import SIDE, fitted, image_text
from ..run import Run

if TYPE_CHECKING:
    import torch


@dataclass
class Saved:
    """The saved predictions of one run, and what was counted in them.

    Attributes:
        run: the run.
        folder: of the predictions.
        seed: noise seed whose predictions are shown.
        tally: sums over the samples that were looked at.
        shares: sample id -> kind of mistake -> share of the annotated pixels.
    """

    run: Run
    folder: Path
    seed: int
    tally: Tally = field(default_factory=Tally)
    shares: dict[str, dict[str, float]] = field(default_factory=dict)

    def count(self, sample_id: str, found: Mistakes, ids: np.ndarray) -> None:
        """Add the mistakes of a sample. ids: the segments that occur in it."""
        self.tally.add(found, ids)
        total = max(1, sum(found.pixels))
        counts = dict(zip(KINDS, found.pixels, strict=True))
        self.shares[sample_id] = {kind: round(counts[kind] / total, 4) for kind in WRONG}


class View(Protocol):
    """Shows samples of one kind of task."""

    def scene(self, sample: Any) -> dict[str, Any]:
        """What does not depend on a run. Raises SampleError for a sample that cannot be read."""
        ...

    def answer(self, sample: Any, saved: Saved) -> dict[str, Any]:
        """What a run predicted. Raises OclBenchError when it is not there or damaged."""
        ...


@dataclass(frozen=True)
class Shown:
    """Base of the views. task, data: of the run; root: folder of the data set, as it was given."""

    task: TaskSpec
    data: OpenData
    root: Path | None = None


def scored_clip(task: TaskSpec, data: OpenData, video: Video) -> tuple[Video, int]:
    """The frames that a task scores, and how many of them a model saw: all, or those before it predicts.

    Raises SampleError for a video without a frame that is scored.
    """
    family = find_family(task.family)
    adapter = cast(ClipAdapter, family.for_data(get_adapter(task), data))
    numbers = family.clip(adapter, video, False)
    if not len(numbers):
        raise SampleError(video.id, "has no clip that is scored")
    return video.part(numbers), adapter.alone or len(numbers)


def pixels_and_truth(sample: Sample, task: TaskSpec, side: int = SIDE) -> tuple[str, tuple[int, int], Truth]:
    """The picture of a sample as the protocol crops it, its height and width, and the truth as it is scored."""
    image, truth = prepare(sample, task.protocol, side)
    # Models see squares. The picture gets the shape of the truth back, which keeps that of the image.
    shape = fitted(truth.labels.shape, side)
    return image_text(pixels_of(image), shape), shape, truth


def pixels_of(image: torch.Tensor) -> np.ndarray:
    """An image (3, H, W) in [0, 1] as uint8 (H, W, 3)."""
    pixels: np.ndarray = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    return pixels


def names_of(truth: Truth, data: OpenData) -> list[str]:
    """Names of the categories of objects 1, 2, ...; empty where the data have none."""
    return [data.categories.get(category, str(category)) for category in truth.categories] if data.categories else []


def compact(segments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ids that occur, sorted, and the map of their positions."""
    ids, codes = np.unique(segments, return_inverse=True)
    return ids, codes.reshape(segments.shape)


def segments_part(found: Mistakes, ids: np.ndarray, table: np.ndarray) -> dict[str, Any]:
    """The mistakes of one sample as plain data.

    Returns:
        ids: of the segments. colours: number of each segment's colour, -1 for segments of the background; the main
        segment of an object has the object's. kinds: one text for each truth label, with one digit for each segment,
        its position in `KINDS`. pixels: number of each kind. objects: label, best IoU, fragments and share of the
        annotated pixels of each object.
    """
    area = table.sum(1)
    labels = [int(label) for label in np.flatnonzero(~np.isnan(found.best_iou))]
    return {
        "ids": [int(one) for one in ids],
        "owners": found.owners.tolist(),
        "colours": _colours(found, labels),
        "kinds": ["".join("." if kind < 0 else str(kind) for kind in row) for row in found.kinds.tolist()],
        "pixels": dict(zip(KINDS, found.pixels, strict=True)),
        "objects": [
            [
                label,
                round(float(found.best_iou[label]), 3),
                int(found.fragments[label]),
                round(area[label] / area.sum(), 4),
            ]
            for label in labels
        ],
    }


def _colours(found: Mistakes, labels: list[int]) -> list[int]:
    """Number of the colour of each segment; further segments of an object get colours that no object has."""
    main = {int(found.main[label]): label - 1 for label in labels}
    spare = max(labels, default=0)
    colours = []
    for segment, owner in enumerate(found.owners.tolist()):
        if segment in main:
            colours.append(main[segment])
        elif owner in labels:
            colours.append(spare)
            spare += 1
        else:
            colours.append(-1)
    return colours


def saved_map(path: Path, sample: Sample, task: TaskSpec) -> np.ndarray:
    """The ids (H, W) of a saved prediction, which a run keeps as they were scored. Raises SampleError."""
    return read_prediction(path, sample, task, extent="crop")


Content = TypeVar("Content")


def saved_json(path: Path, sample_id: str, kind: type[Content]) -> Content:
    """The content of a saved prediction, checked. Raises SampleError for a file that is missing or damaged."""
    try:
        return TypeAdapter(kind).validate_json(read_bytes(path))
    except (OSError, ValueError) as error:  # a ValidationError is a ValueError
        raise SampleError(sample_id, f"{path}: cannot be read; evaluate again with --save-predictions") from error

"""Video segmentation: predicted segments whose ids are shared over time, against instance maps of every frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from torch import Tensor

from ..cards.protocols import VideoProtocol
from ..cards.task import TaskSpec
from ..core.errors import UsageError
from ..core.types import Prediction, Truth
from ..metrics.davis import BOUND_TH, MAX_PROPOSALS, VideoObjects
from ..metrics.video import VideoTables
from .base import Family
from .checks import check_masks, check_prediction, finite_rows, missing
from .discovery import label_map
from .files import prediction_path, write_label_map
from .image_properties import PROPERTIES, ObjectShapes, image_properties, object_shapes

if TYPE_CHECKING:
    pass


class VideoTally:
    """The counts of one video; frames are added clip by clip, and only small tables are kept."""

    def __init__(self, task: TaskSpec, no_segment: int | None = None) -> None:
        self.task, self.no_segment = task, no_segment
        self.tables = VideoTables()
        self.protocol = protocol = cast(VideoProtocol, task.protocol)
        wanted = any(name in ("jf", "j", "f") or name[:2] in ("j_", "f_") for name in task.metrics)
        self.objects = VideoObjects(protocol.boundary or BOUND_TH) if wanted else None
        self.present: set[int] = set()
        self.shapes: list[ObjectShapes] = []

    def add(self, truth: Sequence[Truth], outputs: Sequence[np.ndarray]) -> None:
        """The next frames: truth and segment ids (H, W) at one size."""
        maps = np.stack([one.labels for one in truth])
        segments = np.stack(list(outputs))
        self.tables.add(maps, segments)
        self.shapes += [object_shapes(one, self.task.protocol.background) for one in maps]
        self.present |= {int(label) for label in np.unique(maps) if label > 0}
        if self.objects is not None:
            proposals = segments.astype(np.int64)
            if self.no_segment is not None:
                proposals[proposals == self.no_segment] = -1
            self.objects.add(maps, proposals)

    def row(self) -> dict[str, Any]:
        """Every metric of the video (NaN = not valid), and of how many frames and objects they are means."""
        protocol = self.task.protocol
        scores = self.tables.scores(protocol.background, protocol.empty)
        row: dict[str, Any] = {
            "n_objects": len(self.present),
            "n_frames": float(len(self.tables)),
            "n_frames_fg_ari": float(scores["fg_ari_frame"][1]),
            "n_frames_mbo": float(scores["mbo_frame"][1]),
            "n_objects_jf": float(len(self.present)) if self.objects is not None else 0.0,
            **image_properties(self.shapes),
            **{name: value for name, (value, _) in scores.items()},
        }
        return row | self._davis()

    def _davis(self) -> dict[str, float]:
        """Means over the objects of the video."""
        if self.objects is None or not self.present:
            return {}
        found = self.objects.scores(max_proposals=self.protocol.max_proposals or MAX_PROPOSALS)
        names = ("j_mean", "f_mean", "j_recall", "j_decay", "f_recall", "f_decay")
        means = {name.removesuffix("_mean"): float(getattr(found, name).mean()) for name in names}
        return {**means, "jf": (means["j"] + means["f"]) / 2}


class VideoAdapter:
    """Adapter of the `video` family.

    no_segment: id of pixels that belong to no proposal in J and F; None makes every id a proposal.
    """

    scored_at_once: int | None = 1  # a killed run loses no more than one video

    def __init__(self, task: TaskSpec, no_segment: int | None = None) -> None:
        self.task, self.no_segment = task, no_segment

    def check(self, prediction: object, size: int, name: str) -> Prediction:
        """Masks of one video with `size` frames, (1, T, K, h, w) or (1, T, H, W); returned as those of T images."""
        checked = check_prediction(prediction, name)
        masks = checked.masks
        if masks is None:
            raise missing(checked, name, "masks", "video segmentation needs masks (B,T,K,h,w) or label maps (B,T,H,W)")
        if not isinstance(masks, Tensor) or tuple(masks.shape[:2]) != (1, size) or masks.ndim not in (4, 5):
            found = tuple(masks.shape) if isinstance(masks, Tensor) else type(masks).__name__
            raise UsageError(
                f"model {name}: Prediction.masks is {found}, expected for one video floating (1,{size},K,h,w) or "
                f"integer (1,{size},H,W)"
            )
        flat = replace(checked, masks=masks[0])
        check_masks(flat, size, name)
        return flat

    def finite(self, prediction: Prediction) -> np.ndarray:
        """(T,) bool: the frames whose masks hold neither NaN nor infinity."""
        return finite_rows(cast(Tensor, prediction.masks))

    def source(self, prediction: Prediction) -> str:
        """The mask source that the model names, and what its slots were linked by over time."""
        return f"{prediction.mask_source}+linked-{prediction.link}" if prediction.link else prediction.mask_source

    def outputs(
        self, prediction: Prediction, shapes: Sequence[tuple[int, int]], side: int | None = None
    ) -> list[np.ndarray]:
        """Segment ids (H, W) of each frame at its size in `shapes`, as in object discovery."""
        del side
        masks = cast(Tensor, prediction.masks).detach()
        return [_segments(mask, shape) for mask, shape in zip(masks, shapes, strict=True)]

    def columns(self, task: TaskSpec) -> dict[str, str]:
        """One number for each metric, the numbers of frames and objects, and what the frames are like."""
        counts = ("n_frames", "n_frames_fg_ari", "n_frames_mbo", "n_objects_jf")
        return dict.fromkeys((*task.metrics, *counts, *PROPERTIES), "float64")

    def tally(self, task: TaskSpec) -> VideoTally:
        """A counter for one video."""
        return VideoTally(task, self.no_segment)

    def score(self, truth: Sequence[Truth], outputs: Sequence[np.ndarray], task: TaskSpec) -> list[dict[str, Any]]:
        """The row of one video from all its frames; a pure function."""
        tally = self.tally(task)
        tally.add(truth, outputs)
        return [tally.row()]

    def picture(self, output: np.ndarray, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
        """Predicted segments and truth objects of a frame."""
        return output, truth.labels

    def write(self, folder: Path, sample_id: str, seed: int, output: np.ndarray) -> None:
        """An id-map PNG, `<folder>/seed-<n>/<video>/<frame>.png`."""
        write_label_map(prediction_path(folder, sample_id, seed), output)


def _segments(mask: Tensor, shape: tuple[int, int]) -> np.ndarray:
    """`label_map`, without the slots whose mask is zero everywhere: they win nowhere, but cost as much as others."""
    if mask.ndim == 2:
        return label_map(mask, shape)
    used = mask.flatten(1).any(1)
    used[0] = True  # it wins where no slot has anything
    ids = used.nonzero()[:, 0].cpu().numpy()
    smallest = np.min_scalar_type(len(mask))
    return ids[label_map(mask[used], shape)].astype(smallest)


VIDEO = Family("video", VideoProtocol, lambda task, model: VideoAdapter(task), "videos", "label maps", "storyboard")

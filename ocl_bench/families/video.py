"""Video segmentation: compare predicted segments, whose ids are shared over time, with instance maps of all frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
from torch import Tensor

from ..cards.protocols import VideoProtocol
from ..cards.task import TaskSpec
from ..core.errors import UsageError
from ..core.types import Prediction, Truth
from ..metrics.davis import BOUND_TH, MAX_PROPOSALS, VideoObjects
from ..metrics.video import VideoTables
from .base import Family
from .checks import check_prediction, missing
from .discovery import Discovery, label_map
from .image_properties import PROPERTIES, ObjectShapes, image_properties, object_shapes
from .masks import check_masks


class VideoTally:
    """Accumulates the statistics of one video.

    Frames are added clip by clip and only small tables are kept, so memory does not grow with the length of the video.
    """

    def __init__(self, task: TaskSpec, no_segment: int | None = None) -> None:
        self.task, self.no_segment = task, no_segment
        self.tables = VideoTables()
        self.protocol = protocol = cast(VideoProtocol, task.protocol)
        # J and F need the boundaries of every frame, which is slow: compute them only if the task has such a metric.
        needs_davis = any(name in ("jf", "j", "f") or name[:2] in ("j_", "f_") for name in task.metrics)
        self.objects = VideoObjects(protocol.boundary or BOUND_TH) if needs_davis else None
        self.present: set[int] = set()
        self.shapes: list[ObjectShapes] = []
        self.to_skip = 1 if protocol.skip_first else 0

    def add(self, truth: Sequence[Truth], outputs: Sequence[np.ndarray]) -> None:
        """Add the next frames: their truth and their segment ids (H, W), all of one size."""
        truth, outputs, self.to_skip = truth[self.to_skip :], outputs[self.to_skip :], 0
        if not truth:
            return
        maps = np.stack([frame.labels for frame in truth])
        segments = np.stack(list(outputs))
        self.tables.add(maps, segments, ignore_index=None)  # a reader has numbered the objects, and 255 is one
        self.shapes += [object_shapes(labels, self.task.protocol.background) for labels in maps]
        self.present |= {int(label) for label in np.unique(maps) if label > 0}
        if self.objects is not None:
            proposals = segments.astype(np.int64)  # ids may be stored in an unsigned type, which cannot hold -1
            if self.no_segment is not None:
                proposals[proposals == self.no_segment] = -1
            self.objects.add(maps, proposals, ignore_index=None)

    def row(self) -> dict[str, Any]:
        """The row of the video: all metrics (NaN = not valid) and the numbers of frames and objects they average."""
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
        """J, F and their variants as means over the objects of the video; empty when they are not needed or valid."""
        if self.objects is None or not self.present:
            return {}
        scores = self.objects.scores(max_proposals=self.protocol.max_proposals or MAX_PROPOSALS)
        names = ("j_mean", "f_mean", "j_recall", "j_decay", "f_recall", "f_decay")
        means = {name.removesuffix("_mean"): float(getattr(scores, name).mean()) for name in names}
        return {**means, "jf": (means["j"] + means["f"]) / 2}


class VideoAdapter(Discovery):
    """Adapter of the `video` family. Frames are checked for NaN, drawn and saved like the images of object discovery.

    Args:
        task: the task.
        no_segment: id of the pixels that belong to no proposal in J and F; None makes every id a proposal.
    """

    scored_at_once: int | None = 1  # a killed run loses no more than one video
    alone = 0

    def __init__(self, task: TaskSpec, no_segment: int | None = None) -> None:
        self.task, self.no_segment = task, no_segment

    def check(self, prediction: object, size: int, name: str) -> Prediction:
        """Require masks of one video with `size` frames, (1, T, K, h, w) or (1, T, H, W).

        The returned prediction has the masks of T images instead, (T, K, h, w) or (T, H, W), so that all later steps
        are those of images. Raises UsageError naming model and field.
        """
        checked = check_prediction(prediction, name)
        masks = checked.masks
        if masks is None:
            raise missing(checked, name, "masks", "video segmentation needs masks (B,T,K,h,w) or label maps (B,T,H,W)")
        if not isinstance(masks, Tensor) or tuple(masks.shape[:2]) != (1, size) or masks.ndim not in (4, 5):
            got = tuple(masks.shape) if isinstance(masks, Tensor) else type(masks).__name__
            raise UsageError(
                f"model {name}: Prediction.masks is {got}, expected for one video floating (1,{size},K,h,w) or "
                f"integer (1,{size},H,W)"
            )
        return check_masks(replace(checked, masks=masks[0]), size, name)

    def slot_shape(self, prediction: Prediction) -> tuple[int, ...]:
        """(K,), the number of slots of soft masks; empty for label maps."""
        masks = cast(Tensor, prediction.masks)
        return tuple(masks.shape[1:2]) if masks.is_floating_point() else ()

    def source(self, prediction: Prediction) -> str:
        """Origin of the masks; by what slots were linked, how often a video was gone through, if later frames count."""
        link = f"+linked-{prediction.link}" if prediction.link else ""
        passes = f"+passes-{prediction.passes}" if prediction.passes > 1 else ""
        whole_clip = "+whole-clip" if prediction.whole_clip else ""
        return f"{prediction.masks_from}{link}{passes}{whole_clip}"

    def outputs(
        self, prediction: Prediction, shapes: Sequence[tuple[int, int]], side: int | None = None
    ) -> list[np.ndarray]:
        """Segment ids (H, W) of each frame at its size in `shapes`, computed as in object discovery."""
        del side
        masks = cast(Tensor, prediction.masks).detach()
        return [_segments(mask, shape) for mask, shape in zip(masks, shapes, strict=True)]

    def columns(self, task: TaskSpec) -> dict[str, str]:
        """A column for each metric, the numbers of frames and objects, and the image `PROPERTIES`."""
        counts = ("n_frames", "n_frames_fg_ari", "n_frames_mbo", "n_objects_jf")
        return dict.fromkeys((*task.metrics, *counts, *PROPERTIES), "float64")

    def tally(self, task: TaskSpec) -> VideoTally:
        """A new `VideoTally` for one video."""
        return VideoTally(task, self.no_segment)

    def score(self, truth: Sequence[Truth], outputs: Sequence[np.ndarray], task: TaskSpec) -> list[dict[str, Any]]:
        """The row of one video from all its frames."""
        tally = self.tally(task)
        tally.add(truth, outputs)
        return [tally.row()]


def _segments(mask: Tensor, shape: tuple[int, int]) -> np.ndarray:
    """The same ids as `label_map`, but faster when many slots are empty, in the smallest sufficient integer type."""
    if mask.ndim == 2:
        return label_map(mask, shape)
    # A mask of zeros never wins, but is as expensive to upsample as any other.
    used = mask.flatten(1).any(1)
    used[0] = True  # slot 0 wins the ties at 0, where all masks are zero
    ids = used.nonzero()[:, 0].cpu().numpy()
    smallest = np.min_scalar_type(len(mask))
    return ids[label_map(mask[used], shape)].astype(smallest)


VIDEO = Family(
    "video",
    VideoProtocol,
    lambda task, model: VideoAdapter(task),
    VideoProtocol.unit,
    "label maps",
    "storyboard",
    "frames",
)

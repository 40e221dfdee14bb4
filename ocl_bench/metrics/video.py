"""FG-ARI and mean best overlap of videos: of tubes (ids shared over time) and of single frames.

Both come from one contingency table per frame. A video is added chunk by chunk and only its tables are kept (a few kB
per frame): memory does not grow with the pixels of a video.

The rules are those of SlotContrast (arXiv:2412.14295; `VideoARI`, `ImageARI`, `VideoIoU`, `ImageIoU` with matching
"overlap"). FG-ARI looks at the pixels of truth objects only. IoU looks at all annotated pixels: a slot that leaks into
the background or into unlabelled area loses overlap. Pixels that are void, or that several objects claim, are dropped
on both sides.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .clustering import fg_ari
from .contingency import (
    MAX_PREDICTED_COLUMNS,
    Contingency,
    LabelMaps,
    as_array,
    check_frames,
    check_rule,
    contingency,
)
from .ignored import IgnoreIndex, with_void
from .metric import Scores
from .overlap import mbo_fg

VIDEO_METRICS = ("fg_ari_video", "mbo_video", "fg_ari_frame", "mbo_frame")


@dataclass(frozen=True)
class _Block:
    """Tables of some frames.

    Attributes:
        tables: (T, G, P) uint32, half the memory of int64.
        ids: (P,) predicted id of each column, ascending.
    """

    tables: np.ndarray
    ids: np.ndarray

    def counts(self) -> Contingency:
        """The tables as a batch of T images."""
        table = self.tables.astype(np.int64)
        return Contingency(table, table.sum(1), np.zeros(len(table), np.int64))


class VideoTables:
    """The contingency tables of one video, added chunk by chunk. The size of a chunk does not change the result.

    An id means the same segment in all frames, for the truth and for the prediction. Predicted ids may be sparse and as
    large as the integer type allows.

    Example:
        >>> tables, truth = VideoTables(), np.array([[[0, 1, 1], [0, 2, 2]], [[0, 1, 1], [0, 2, 2]]])
        >>> tables.add(truth, np.array([[[0, 1, 1], [0, 2, 2]], [[0, 2, 2], [0, 1, 1]]]))  # ids swap in frame 1
        >>> {name: round(value, 3) for name, (value, _) in tables.scores().items()}
        {'fg_ari_video': -0.167, 'mbo_video': 0.333, 'fg_ari_frame': 1.0, 'mbo_frame': 1.0}
    """

    def __init__(self) -> None:
        self._blocks: list[_Block] = []

    def __len__(self) -> int:
        """Number of frames that were added."""
        return sum(len(block.tables) for block in self._blocks)

    def add(self, truth: LabelMaps, prediction: LabelMaps, *, ignore_index: IgnoreIndex = "auto") -> None:
        """Count the next frames.

        Args:
            truth: (T, H, W) integers: 0 background, 1, 2, ... objects, and VOID (-1) and OVERLAP (-2) of
                `ocl_bench.core.types`.
            prediction: (T, H, W) integers >= 0; each id is one segment. NumPy or torch; CUDA tensors are counted on
                their device.
            ignore_index: truth label that also means VOID, see `ocl_bench.metrics.ignored`; "auto" looks at each frame.

        Raises:
            UsageError: for soft masks, other shapes and labels out of range.
        """
        check_frames(truth, prediction)
        truth = with_void(truth, ignore_index)
        sparse = math.prod(prediction.shape) > 0 and bool(prediction.max() >= MAX_PREDICTED_COLUMNS)
        if not sparse:
            self._blocks.append(_block(contingency(truth, prediction, ignore_index=None)))
        else:
            self._blocks.extend([_sparse_block(*frame) for frame in zip(truth, prediction, strict=True)])

    def frames(self) -> Iterator[Contingency]:
        """The tables of the frames in order, some frames at a time. Columns of two blocks need not correspond."""
        return (block.counts() for block in self._blocks)

    def tube(self) -> Contingency:
        """The table of the whole video as one image: all pixels of all frames, ids shared over time."""
        # The zero keeps one column for a video without frames; an id 0 that does not occur has an empty column.
        ids = np.unique(np.concatenate([np.zeros(1, np.int64), *(block.ids for block in self._blocks)]))
        rows = max([1, *(block.tables.shape[1] for block in self._blocks)])
        table = np.zeros((1, rows, len(ids)), np.int64)
        for block in self._blocks:
            total = block.tables.sum(0, dtype=np.int64)
            table[0, : len(total), np.searchsorted(ids, block.ids)] += total.T
        return Contingency(table, table.sum(1), np.zeros(1, np.int64))

    def frame_values(self, background: int | None = 0, empty: Literal["skip", "one"] = "skip") -> dict[str, Scores]:
        """`fg_ari_frame` and `mbo_frame` of every frame: name -> (value (T,) float64, valid (T,) bool).

        The arguments are those of `scores`. A value counts only where valid.
        """
        parts = [_values(counts, background, empty) for counts in self.frames()]
        nothing: Scores = (np.zeros(0), np.zeros(0, bool))
        names = ("fg_ari_frame", "mbo_frame")
        stacked = (zip(nothing, *(part[number] for part in parts), strict=True) for number in range(2))
        return {
            name: (np.concatenate(value), np.concatenate(valid))
            for name, (value, valid) in zip(names, stacked, strict=True)
        }

    def scores(
        self, background: int | None = 0, empty: Literal["skip", "one"] = "skip"
    ) -> dict[str, tuple[float, int]]:
        """The four numbers of a video.

        Args:
            background: truth label that is not an object; None when every label is an object.
            empty: "skip" leaves out frames and videos without an object (SlotContrast on data without a background
                mask: YTVIS, DAVIS); "one" counts them as FG-ARI 1 if they have an annotated pixel (SlotContrast on
                MOVi). mBO never counts them.

        Returns:
            name -> (value, number of valid terms); the value is NaN when that number is 0. `fg_ari_video` and
            `mbo_video` are of tubes and have 0 or 1 valid term. `fg_ari_frame` and `mbo_frame` are means over the valid
            frames of the video. SlotContrast pools frames: weight a mean over videos with their number.
        """
        tube = _values(self.tube(), background, empty)
        frames = self.frame_values(background, empty)
        parts = (*tube, frames["fg_ari_frame"], frames["mbo_frame"])
        return {name: _mean(*part) for name, part in zip(VIDEO_METRICS, parts, strict=True)}


def _block(counts: Contingency, ids: np.ndarray | None = None) -> _Block:
    """The tables of some frames. ids: predicted id of each column; None means column p is id p."""
    columns = np.arange(counts.table.shape[2]) if ids is None else ids.astype(np.int64)
    return _Block(counts.table.astype(np.uint32), columns)


def _sparse_block(truth: LabelMaps, prediction: LabelMaps) -> _Block:
    """One frame (H, W) whose ids `contingency` would renumber image by image: a tube needs them beside the table."""
    labels = as_array(prediction)
    if labels.dtype.kind not in "iu" or labels.min() < 0:
        contingency(as_array(truth)[None], labels[None])  # raises the error that names the wrong value
    ids, columns = np.unique(labels, return_inverse=True)
    return _block(contingency(as_array(truth)[None], columns.reshape(1, *labels.shape), ignore_index=None), ids)


def _values(counts: Contingency, background: int | None, empty: str) -> tuple[Scores, Scores]:
    """FG-ARI and mBO of each table."""
    check_rule("empty", empty, ("skip", "one"))
    value, valid = fg_ari(counts, background)
    if empty == "one":
        annotated = counts.table.sum((1, 2)) > 0
        value, valid = np.where(valid, value, 1.0), valid | annotated
    return (value, valid), mbo_fg(counts, background)


def _mean(value: np.ndarray, valid: np.ndarray) -> tuple[float, int]:
    """Correctly rounded mean of the valid values, and their number."""
    number = int(valid.sum())
    return (math.fsum(value[valid].tolist()) / number if number else math.nan), number

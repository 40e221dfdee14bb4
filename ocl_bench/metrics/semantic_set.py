"""Semantic metrics of a whole set from stored cells: clusters are matched anew for each resample of images.

The rows of a set have a column `cells` with the codes of the cells of each image's confusion matrix that are not empty
(class * 65536 + id), `counts` with their pixels, `clusters` with how many ids there are, and the same for clusters of
k-means of the tokens (`cells_kmeans`, `counts_kmeans`).
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ..core.errors import UsageError
from . import semantic

if TYPE_CHECKING:
    import pandas

NAMED, UNNUMBERED = -1.0, 0.0
"""In the column `clusters`: the ids are classes; the ids are clusters, and nobody said how many there are."""

STRIDE = 65536
"""Cells are stored as class * STRIDE + id."""


def cell_codes(truth: np.ndarray, ids: np.ndarray | None, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes and pixels (int32 each) of the cells of one image that are not empty; none without ids.

    truth: (H, W) class of each pixel, negative for none. ids: (H, W) predicted class or cluster of each pixel.
    """
    if ids is None:
        return np.zeros(0, np.int32), np.zeros(0, np.int32)
    clusters = int(ids.max(initial=0)) + 1
    codes, counts = semantic.cells(semantic.confusion(truth, ids, classes, clusters))
    return (codes // clusters * STRIDE + codes % clusters).astype(np.int32), counts


class SemanticSet:
    """One metric of the rows of one noise seed: a call gives its value for image weights (R, n), NaN where undefined.

    rows: sorted by id. metric: `miou_sem`, `pixel_acc`, with `_kmeans` or `_majority`. classes: of the task.
    """

    def __init__(self, rows: pandas.DataFrame, metric: str, classes: int) -> None:
        self.metric, self.classes = metric, classes
        suffix = "_kmeans" if metric.endswith("_kmeans") else ""
        codes = [np.asarray(row, dtype=np.int64) for row in rows[f"cells{suffix}"]]
        flat = np.concatenate([*codes, np.zeros(0, np.int64)])
        self.declared = float(rows["clusters"].iloc[0]) if not suffix else float(classes)
        named = self.declared == NAMED
        ids, position = np.unique(flat % STRIDE, return_inverse=True)
        width = classes if named else max(1, len(ids))
        if named and len(ids) and ids.max() >= classes:
            raise UsageError(f"prediction: class {ids.max()} of {classes} classes")
        packed = flat // STRIDE * width + (flat % STRIDE if named else position)
        parts = np.split(packed, np.cumsum([len(code) for code in codes])[:-1]) if codes else []
        counts = list(rows[f"counts{suffix}"])
        shape = (classes, width)
        self.cells = semantic.ConfusionCells.of(parts, counts, list(range(len(rows))), len(rows), shape)
        self.applies = len(flat) > 0 and self._applies(width)

    def _applies(self, width: int) -> bool:
        """Whether the metric means anything for what the model gives."""
        clusters = width if self.declared == UNNUMBERED else self.declared
        if self.metric.endswith("_majority"):
            return self.declared != NAMED
        return self.declared == NAMED or clusters <= self.classes

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """Values (R,) of the metric when image i counts `weights[:, i]` times."""
        if not self.applies:
            return np.full(len(weights), np.nan)
        return np.concatenate([self._values(weights[rows]) for rows in self.cells.batches(weights)])

    def _values(self, weights: np.ndarray) -> np.ndarray:
        square = self._named(self.cells.matrices(weights))
        if self.metric.startswith("miou_sem"):
            return semantic.miou_sem(square, self._counted)
        return semantic.pixel_acc(square)

    def _named(self, matrices: np.ndarray) -> np.ndarray:
        if self.declared == NAMED:
            return matrices
        rename = semantic.majority if self.metric.endswith("_majority") else semantic.match_clusters
        return np.stack([rename(matrix) for matrix in matrices])

    @cached_property
    def _counted(self) -> np.ndarray:
        """The classes of the full set: they stay the same in every resample."""
        everything = np.ones((1, self.cells.counts.shape[0]), dtype=np.int64)
        return semantic.occurring(self._named(self.cells.matrices(everything))[0])

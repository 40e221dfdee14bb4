"""Semantic metrics of a whole set from stored cells: clusters are matched anew for each resample of images.

The rows of a set have these columns: `cells`, the codes (class * 65536 + id) of the cells of the image's confusion
matrix that are not empty; `counts`, their pixels; `clusters`, the number of ids; and `cells_kmeans`, `counts_kmeans`,
the same for clusters by k-means of the tokens.
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
"""Values of the column `clusters`: ids are classes; ids are clusters whose number is unknown.

A positive value is the number of clusters.
"""

STRIDE = 65536
"""Cells are stored as class * STRIDE + id: unlike class * clusters + id, it is the same for all images of a set."""


def cell_codes(truth: np.ndarray, ids: np.ndarray | None, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes and pixels (int32 each) of the cells of one image that are not empty.

    Args:
        truth: (H, W) class of each pixel, negative for none.
        ids: (H, W) predicted class or cluster of each pixel; None gives empty arrays.
        classes: number of classes.
    """
    if ids is None:
        return np.zeros(0, np.int32), np.zeros(0, np.int32)
    clusters = int(ids.max(initial=0)) + 1
    codes, counts = semantic.cells(semantic.confusion(truth, ids, classes, clusters, ignore_index=None))
    return (codes // clusters * STRIDE + codes % clusters).astype(np.int32), counts


class SemanticSet:
    """One metric of the rows of one noise seed. A call returns its values for image weights (R, n); NaN if undefined.

    Args:
        rows: rows of the images, sorted by id.
        metric: `miou_sem` or `pixel_acc`, or one of them with `_kmeans` or `_majority`.
        classes: number of classes of the task.

    Raises:
        UsageError: for a predicted class out of range.
    """

    def __init__(self, rows: pandas.DataFrame, metric: str, classes: int) -> None:
        self.metric, self.classes = metric, classes
        suffix = "_kmeans" if metric.endswith("_kmeans") else ""
        codes = [np.asarray(row, dtype=np.int64) for row in rows[f"cells{suffix}"]]
        flat = np.concatenate([*codes, np.zeros(0, np.int64)])
        self.declared = float(rows["clusters"].iloc[0]) if not suffix else float(classes)
        named = self.declared == NAMED
        # Cluster ids may be sparse: they are renumbered to keep the matrices narrow. Classes keep theirs.
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
        """Whether the metric is defined for the model's maps: majority needs clusters, the others one per class."""
        clusters = width if self.declared == UNNUMBERED else self.declared
        if self.metric.endswith("_majority"):
            return self.declared != NAMED
        return self.declared == NAMED or clusters <= self.classes

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """Values (R,) of the metric when image i counts `weights[:, i]` times."""
        if not self.applies:
            return np.full(len(weights), np.nan)
        blocks = [weights] if self.declared == NAMED else [weights[rows] for rows in self.cells.batches(weights)]
        areas = [self._areas(block) for block in blocks]
        if self.metric.startswith("miou_sem"):
            return np.concatenate([part.miou_sem(self._counted) for part in areas])
        return np.concatenate([part.pixel_acc() for part in areas])

    def _areas(self, weights: np.ndarray) -> semantic.Areas:
        """Areas (R, C) of some resamples."""
        if self.declared == NAMED:  # the matrices themselves, of 150 x 150 classes, would take most of the time
            weights = weights.astype(np.float64)  # sums of whole numbers are exact
            return semantic.Areas(*(weights @ part for part in self._areas_of_images))
        rename = semantic.majority if self.metric.endswith("_majority") else semantic.match_clusters
        return semantic.Areas.of(np.stack([rename(matrix) for matrix in self.cells.matrices(weights)]))

    @cached_property
    def _areas_of_images(self) -> semantic.Areas:
        return self.cells.areas()

    @cached_property
    def _counted(self) -> np.ndarray:
        """The classes of the full set: they stay the same in every resample."""
        everything = np.ones((1, self.cells.counts.shape[0]), dtype=np.int64)
        return self._areas(everything).union[0] > 0

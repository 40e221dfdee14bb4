"""Semantic segmentation: what a frozen model's pixels are called, over a whole set.

With a `linear` head the model gives tokens. With a `kmeans` head nothing is trained on labels: a model that has a
vocabulary (masks whose slot k means the same everywhere) is matched to the classes by one Hungarian matching for the
whole set, tokens are clustered first. A model that names classes itself is scored as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from ..cards.task import TaskSpec
from ..core.errors import UsageError
from ..core.types import Prediction, Truth
from ..metrics import semantic
from ..metrics.catalogue import CORPUS_METRICS
from . import Batches, Head
from .checks import check_field, check_masks, check_prediction, finite_rows, missing
from .discovery import label_map
from .files import prediction_path, write_label_map
from .heads.features import extracted
from .heads.kmeans import cluster_scores, fit_kmeans
from .heads.linear import class_scores, fit_linear

if TYPE_CHECKING:
    import pandas

    from ..data import OpenData
    from ..metrics.statistics import Statistic
    from ..results.record import MetricValue

NAMED, UNNUMBERED = -1.0, 0.0
"""In the column `clusters`: the map holds classes; it holds cluster ids of which nobody said how many there are."""

_STRIDE = 65536  # cells are stored as class * 65536 + id


@dataclass(frozen=True)
class SemanticOutput:
    """Maps (H, W) of one image: `own` from the model's classes, vocabulary or linear head, `kmeans` of its tokens.

    clusters: how many ids `own` may have, or NAMED, or UNNUMBERED.
    """

    own: np.ndarray | None
    clusters: float
    kmeans: np.ndarray | None


class Segmentation:
    """Adapter of the `segmentation` family. Raises UsageError for a card without `classes` or `fit`."""

    scored_at_once: int | None = None

    def __init__(self, task: TaskSpec, *, blind: bool = False, head: Head | None = None) -> None:
        """blind: a floor that sees no image numbers its segments alike in all of them, so that ids are a vocabulary."""
        if task.protocol.classes is None or task.fit is None or task.fit.head not in ("linear", "kmeans"):
            raise UsageError(f"task {task.name}: segmentation needs protocol.classes and fit.head linear or kmeans")
        self.task, self.classes, self.recipe = task, task.protocol.classes, task.fit
        self.blind, self.head = blind, head or {}

    def check(self, prediction: object, size: int, name: str) -> Prediction:
        """Tokens (B, D, h, w), class scores or maps, or (unsupervised) masks with a vocabulary."""
        checked = check_prediction(prediction, name)
        if checked.tokens is not None:
            check_field(checked, "tokens", (size, None, None, None), name)
        if checked.classes is not None:
            self._check_classes(checked.classes, size, name)
        if self._has_vocabulary(checked):
            masks = check_masks(checked, size, name)
            if masks.ndim == 3 and int(masks.max()) >= _STRIDE:
                raise UsageError(
                    f"model {name}: Prediction.masks has label {int(masks.max())}; renumber below {_STRIDE}"
                )
        elif checked.tokens is None and checked.classes is None:
            need = "semantic segmentation needs tokens (B,D,h,w), or classes (B,C,h,w)"
            if self.recipe.head == "kmeans":
                need += ", or masks with mask_source 'prototypes'"
            raise missing(checked, name, "tokens", need)
        return checked

    def _check_classes(self, classes: Tensor, size: int, name: str) -> None:
        soft = classes.ndim == 4 and classes.is_floating_point() and classes.shape[1] <= self.classes
        hard = classes.ndim == 3 and not classes.is_floating_point() and not classes.is_complex()
        if not (soft or hard) or classes.shape[0] != size:
            raise UsageError(
                f"model {name}: Prediction.classes has shape {tuple(classes.shape)} and dtype {classes.dtype}, "
                f"expected floating ({size}, at most {self.classes}, h, w) or integer ({size}, H, W)"
            )
        if hard and not 0 <= int(classes.min()) <= int(classes.max()) < self.classes:
            found = f"{int(classes.min())} to {int(classes.max())}"
            raise UsageError(f"model {name}: Prediction.classes has {found}, expected 0 to {self.classes - 1}")

    def _has_vocabulary(self, prediction: Prediction) -> bool:
        known = prediction.mask_source in (("prototypes", "none") if self.blind else ("prototypes",))
        return self.recipe.head == "kmeans" and prediction.masks is not None and known

    def finite(self, prediction: Prediction) -> np.ndarray:
        """(B,) bool: no NaN and no infinity in what is used."""
        masks = prediction.masks if self._has_vocabulary(prediction) else None
        return finite_rows(prediction.tokens, prediction.classes, masks)

    def source(self, prediction: Prediction) -> str:
        """`classes`, or `tokens`, `prototypes`, or both."""
        if prediction.classes is not None:
            return "classes"
        parts = ["prototypes"] if self._has_vocabulary(prediction) else []
        return "+".join([*parts, *(["tokens"] if prediction.tokens is not None else [])])

    def outputs(
        self, prediction: Prediction, shapes: Sequence[tuple[int, int]], side: int | None = None
    ) -> list[SemanticOutput]:
        """Class or cluster maps at each image's size: scores are upsampled bilinearly, then the largest wins."""
        del side
        own, clusters = self._own(prediction)
        kmeans = None
        if self.recipe.head == "kmeans" and prediction.tokens is not None and prediction.classes is None:
            kmeans = cluster_scores(prediction.tokens, self.head)
        return [
            SemanticOutput(
                None if own is None else label_map(own[index], shape),
                clusters,
                None if kmeans is None else label_map(kmeans[index], shape),
            )
            for index, shape in enumerate(shapes)
        ]

    def _own(self, prediction: Prediction) -> tuple[Tensor | None, float]:
        if prediction.classes is not None:
            return prediction.classes, NAMED
        if self._has_vocabulary(prediction):
            masks = cast(Tensor, prediction.masks)
            return masks, float(masks.shape[1]) if masks.ndim == 4 else UNNUMBERED
        if self.recipe.head == "linear":
            return class_scores(cast(Tensor, prediction.tokens), self.head), NAMED
        return None, NAMED

    def columns(self, task: TaskSpec) -> dict[str, str]:
        """Metrics of single images where they exist, and the cells of the confusion matrices."""
        del task
        lists = dict.fromkeys(("cells", "counts", "cells_kmeans", "counts_kmeans"), "object")
        return {"pixel_acc": "float64", "clusters": "float64", **lists}

    def score(self, truth: Sequence[Truth], outputs: Sequence[SemanticOutput], task: TaskSpec) -> list[dict[str, Any]]:
        """Confusion cells of each image; its own pixel accuracy where ids are classes."""
        return [self._row(one, output, task.name) for one, output in zip(truth, outputs, strict=True)]

    def _row(self, truth: Truth, output: SemanticOutput, task: str) -> dict[str, Any]:
        if truth.classes is None:
            raise UsageError(f"task {task}: its data has no semantic truth; see data.options of the card")
        codes, counts = _cells(truth.classes, output.own, self.classes)
        kmeans = _cells(truth.classes, output.kmeans, self.classes)
        correct = counts[codes // _STRIDE == codes % _STRIDE].sum()
        named = output.own is not None and output.clusters == NAMED and counts.sum() > 0
        return {
            "n_objects": int((np.unique(truth.classes) >= 0).sum()),
            "pixel_acc": float(correct / counts.sum()) if named else float("nan"),
            "clusters": output.clusters,
            "cells": codes,
            "counts": counts,
            "cells_kmeans": kmeans[0],
            "counts_kmeans": kmeans[1],
        }

    def summarise(self, rows: pandas.DataFrame, task: TaskSpec, source: str) -> dict[str, MetricValue]:
        """Values of the whole set; each resample of images adds up its own matrix and matches it anew."""
        from ..metrics.statistics import bootstrap_statistic
        from ..results.record import MetricValue

        n = int(rows["id"].nunique())
        filled = int(sum(len(cells) > 0 for cells in rows.drop_duplicates("id")["counts"]))
        summary = {}
        for name in task.metrics:
            value, interval = bootstrap_statistic(self.statistic(rows, task, name), n)
            known = not np.isnan(value)
            several = known and not np.isnan(interval.low)
            summary[name] = MetricValue(
                value=value if known else None,
                se=interval.se if several else None,
                ci95=(interval.low, interval.high) if several else None,
                n_valid=(n if name.endswith("_kmeans") else filled) if known else 0,
                direction=CORPUS_METRICS[name].direction,
                signature=task.signature(source, name),
            )
        return summary

    def statistic(self, rows: pandas.DataFrame, task: TaskSpec, metric: str) -> Statistic:
        """The metric as a function of image weights; the mean over noise seeds where there are several."""
        from ..metrics.statistics import mean_statistic

        del task
        order = {sample_id: position for position, sample_id in enumerate(sorted(rows["id"].unique()))}
        per_seed = [_Corpus(part, metric, order, self.classes) for _, part in rows.groupby("noise_seed", sort=True)]
        return mean_statistic(per_seed)

    def image_values(self, rows: pandas.DataFrame) -> pandas.Series:
        """Values by which pictures of clusters without names are chosen: the share of right pixels of each image.

        Each cluster is named after the class of which it holds most pixels of the whole set. Empty without clusters.
        """
        import pandas

        suffix = "" if any(len(cells) for cells in rows["cells"]) else "_kmeans"
        columns = {"cells": f"cells{suffix}", "counts": f"counts{suffix}"}
        long = pandas.DataFrame({"id": rows["id"], **{name: rows[column] for name, column in columns.items()}})
        long = long.explode(["cells", "counts"]).dropna().astype({"cells": "int64", "counts": "int64"})
        truth, cluster = long["cells"] // _STRIDE, long["cells"] % _STRIDE
        pixels = long["counts"].groupby([cluster.rename("cluster"), truth.rename("truth")]).sum()
        names = pixels.unstack(fill_value=0).idxmax(axis=1) if len(pixels) else pixels
        right = long["counts"].where(truth == cluster.map(names), 0)
        return right.groupby(long["id"], sort=False).sum() / long["counts"].groupby(long["id"], sort=False).sum()

    def fit(self, batches: Batches, split: OpenData) -> Head:
        """The head on tokens, or a tensor `none` of one zero where the model gives no tokens."""
        with extracted(batches, len(split.ids), self.recipe.at) as features:
            if features is None:
                return {"none": torch.zeros(1)}
            method = fit_linear if self.recipe.head == "linear" else fit_kmeans
            return method(features, self.classes, self.recipe)

    def with_head(self, head: Head) -> Segmentation:
        """This adapter with a head that `fit` made."""
        return Segmentation(self.task, blind=self.blind, head=head)

    def picture(self, output: SemanticOutput, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
        """Predicted and true class maps."""
        shown = output.own if output.own is not None else output.kmeans
        return cast(np.ndarray, shown), cast(np.ndarray, truth.classes)

    def write(self, folder: Path, sample_id: str, seed: int, output: SemanticOutput) -> None:
        """A PNG of class or cluster ids."""
        shown = output.own if output.own is not None else output.kmeans
        write_label_map(prediction_path(folder, sample_id, seed), cast(np.ndarray, shown))


def _cells(truth: np.ndarray, ids: np.ndarray | None, classes: int) -> tuple[np.ndarray, np.ndarray]:
    if ids is None:
        return np.zeros(0, np.int32), np.zeros(0, np.int32)
    clusters = int(ids.max(initial=0)) + 1
    codes, counts = semantic.cells(semantic.confusion(truth, ids, classes, clusters))
    return (codes // clusters * _STRIDE + codes % clusters).astype(np.int32), counts


class _Corpus:
    """One metric of one noise seed: calls give its value for image weights (R, n)."""

    def __init__(self, rows: pandas.DataFrame, metric: str, order: Mapping[str, int], classes: int) -> None:
        self.metric, self.classes = metric, classes
        suffix = "_kmeans" if metric.endswith("_kmeans") else ""
        codes = [np.asarray(row, dtype=np.int64) for row in rows[f"cells{suffix}"]]
        flat = np.concatenate([*codes, np.zeros(0, np.int64)])
        self.declared = float(rows["clusters"].iloc[0]) if not suffix else float(classes)
        named = self.declared == NAMED
        ids, position = np.unique(flat % _STRIDE, return_inverse=True)
        width = classes if named else max(1, len(ids))
        if named and len(ids) and ids.max() >= classes:
            raise UsageError(f"prediction: class {ids.max()} of {classes} classes")
        packed = flat // _STRIDE * width + (flat % _STRIDE if named else position)
        images = [order[sample_id] for sample_id in rows["id"]]
        parts = np.split(packed, np.cumsum([len(code) for code in codes])[:-1]) if codes else []
        counts = list(rows[f"counts{suffix}"])
        shape = (classes, width)
        self.cells = semantic.ConfusionCells.of(parts, counts, images, len(order), shape)
        self.applies = len(flat) > 0 and self._applies(width)

    def _applies(self, width: int) -> bool:
        """Whether the metric means anything for what the model gives."""
        clusters = width if self.declared == UNNUMBERED else self.declared
        if self.metric.endswith("_majority"):
            return self.declared != NAMED
        return self.declared == NAMED or clusters <= self.classes

    def __call__(self, weights: np.ndarray) -> np.ndarray:
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

"""Semantic segmentation: what a frozen model's pixels are called, over a whole set.

With a `linear` head the model gives tokens. With a `kmeans` head nothing is trained on labels: a model that has a
vocabulary (masks whose slot k means the same everywhere) is matched to the classes by one Hungarian matching for the
whole set, tokens are clustered first. A model that names classes itself is scored as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from ..cards.protocols import Fit, SegmentationProtocol
from ..cards.task import TaskSpec
from ..core.errors import UsageError
from ..core.types import Prediction, Truth
from ..metrics.semantic_set import NAMED, STRIDE, UNNUMBERED, cell_codes
from .base import Batches, Family, Head
from .checks import check_field, check_masks, check_prediction, finite_rows, missing
from .discovery import label_map
from .files import prediction_path, write_label_map
from .heads.features import extracted
from .heads.kmeans import cluster_scores, fit_kmeans
from .heads.linear import class_scores, fit_linear

if TYPE_CHECKING:
    import pandas

    from ..data import OpenData
    from ..models.loading import LoadedModel


@dataclass(frozen=True)
class SemanticOutput:
    """Maps (H, W) of one image: `own` from the model's classes, vocabulary or linear head, `kmeans` of its tokens.

    clusters: how many ids `own` may have, or NAMED, or UNNUMBERED.
    """

    own: np.ndarray | None
    clusters: float
    kmeans: np.ndarray | None


class Segmentation:
    """Adapter of the `segmentation` family."""

    scored_at_once: int | None = None

    def __init__(self, task: TaskSpec, *, blind: bool = False, head: Head | None = None) -> None:
        """blind: a floor that sees no image numbers its segments alike in all of them, so that ids are a vocabulary."""
        self.task, self.recipe = task, cast(Fit, task.fit)
        self.classes = cast(SegmentationProtocol, task.protocol).classes
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
            if masks.ndim == 3 and int(masks.max()) >= STRIDE:
                raise UsageError(
                    f"model {name}: Prediction.masks has label {int(masks.max())}; renumber below {STRIDE}"
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
        codes, counts = cell_codes(truth.classes, output.own, self.classes)
        kmeans = cell_codes(truth.classes, output.kmeans, self.classes)
        correct = counts[codes // STRIDE == codes % STRIDE].sum()
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


def majority_accuracy(rows: pandas.DataFrame) -> pandas.Series:
    """The share of right pixels of each image, by which pictures of clusters without names are chosen.

    Each cluster is named after the class of which it holds most pixels of the whole set. Empty without clusters.
    """
    import pandas

    suffix = "" if any(len(cells) for cells in rows["cells"]) else "_kmeans"
    columns = {"cells": f"cells{suffix}", "counts": f"counts{suffix}"}
    long = pandas.DataFrame({"id": rows["id"], **{name: rows[column] for name, column in columns.items()}})
    long = long.explode(["cells", "counts"]).dropna().astype({"cells": "int64", "counts": "int64"})
    truth, cluster = long["cells"] // STRIDE, long["cells"] % STRIDE
    pixels = long["counts"].groupby([cluster.rename("cluster"), truth.rename("truth")]).sum()
    names = pixels.unstack(fill_value=0).idxmax(axis=1) if len(pixels) else pixels
    right = long["counts"].where(truth == cluster.map(names), 0)
    values = right.groupby(long["id"], sort=False).sum() / long["counts"].groupby(long["id"], sort=False).sum()
    return values.rename("pixel_acc_majority")


def _adapter(task: TaskSpec, model: LoadedModel | None) -> Segmentation:
    return Segmentation(task, blind=model is not None and model.card.role == "floor")


SEGMENTATION = Family("segmentation", SegmentationProtocol, _adapter, image_values=majority_accuracy)

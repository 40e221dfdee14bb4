"""Semantic segmentation: classify the pixels of a whole data set with a frozen model.

A `linear` head predicts classes from the model's tokens. A `kmeans` head uses no labels: it clusters the tokens of the
fit split, and one Hungarian matching for the whole scored set assigns clusters to classes. A model with a vocabulary,
whose slot k has the same meaning in all images, is matched without clustering. A model that predicts classes itself is
scored directly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from ..cards.protocols import MOST_CLASSES, Fit, SegmentationProtocol
from ..cards.task import TaskSpec
from ..core.errors import UsageError
from ..core.types import Prediction, Truth
from ..metrics.semantic_set import NAMED, STRIDE, UNNUMBERED, cell_codes
from .base import Batches, Family, Head
from .checks import check_field, check_prediction, finite_rows, flattened, misplaced, missing
from .discovery import label_map
from .files import prediction_path, write_label_map
from .heads.features import extracted
from .heads.kmeans import cluster_scores, fit_kmeans
from .heads.linear import class_scores, fit_linear
from .masks import check_masks

if TYPE_CHECKING:
    import pandas

    from ..data import OpenData
    from ..models.loading import LoadedModel


@dataclass(frozen=True)
class SemanticOutput:
    """Class or cluster maps of one image.

    Attributes:
        own: (H, W) ids from the model's classes, its vocabulary or the linear head; None without any of these.
        clusters: number of ids that `own` may have; NAMED when its ids are classes, UNNUMBERED when the number of
            clusters is unknown.
        kmeans: (H, W) ids of the token clusters; None without a k-means head or without tokens.
    """

    own: np.ndarray | None
    clusters: float
    kmeans: np.ndarray | None

    @property
    def shown(self) -> np.ndarray:
        """The map to draw and to save: the model's own if there is one, else that of the token clusters."""
        return cast(np.ndarray, self.own if self.own is not None else self.kmeans)


class Segmentation:
    """Adapter of the `segmentation` family."""

    scored_at_once: int | None = None

    def __init__(self, task: TaskSpec, *, blind: bool = False, head: Head | None = None) -> None:
        """Make the adapter.

        Args:
            task: the task.
            blind: the model is a floor. Floors do not look at the image and number their segments the same way in all
                images, so their ids count as a vocabulary.
            head: a head from `fit`.
        """
        self.task, self.recipe = task, cast(Fit, task.fit)
        self.classes = cast(SegmentationProtocol, task.protocol).classes
        self.blind, self.head = blind, head or {}

    def check(self, prediction: object, size: int, name: str) -> Prediction:
        """Require tokens, class scores or class maps, or, with a k-means head, masks with a vocabulary.

        Raises UsageError naming model and field.
        """
        checked = check_prediction(prediction, name)
        if checked.tokens is not None:
            check_field(checked, "tokens", (size, None, None, None), name)
        if checked.classes is not None:
            self._check_classes(checked.classes, size, name)
        if self._has_vocabulary(checked):
            checked = check_masks(checked, size, name)
            masks = cast(Tensor, checked.masks)
            # Cells of the confusion matrix are stored as class * STRIDE + cluster.
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
        """Require class scores (B, C, h, w) or class maps (B, H, W) of the task's classes."""
        soft = classes.ndim == 4 and classes.is_floating_point() and classes.shape[1] <= self.classes
        hard = classes.ndim == 3 and not classes.is_floating_point() and not classes.is_complex()
        if not (soft or hard) or classes.shape[0] != size:
            raise UsageError(
                f"model {name}: Prediction.classes has shape {tuple(classes.shape)} and dtype {classes.dtype}, "
                f"expected floating ({size}, at most {self.classes}, h, w) or integer ({size}, H, W)"
            )
        shape = classes.shape
        if remedy := misplaced("classes", "the classes", shape) if soft else flattened(shape[1], shape[2]):
            raise UsageError(f"model {name}: Prediction.classes has shape {tuple(shape)}; {remedy}")
        if hard and not 0 <= int(classes.min()) <= int(classes.max()) < self.classes:
            got = f"{int(classes.min())} to {int(classes.max())}"
            raise UsageError(f"model {name}: Prediction.classes has {got}, expected 0 to {self.classes - 1}")

    def _has_vocabulary(self, prediction: Prediction) -> bool:
        """Whether mask k means the same in all images, so that masks can be matched to classes over the whole set."""
        same_meaning = prediction.mask_source in (("prototypes", "none") if self.blind else ("prototypes",))
        return self.recipe.head == "kmeans" and prediction.masks is not None and same_meaning

    def finite(self, prediction: Prediction) -> np.ndarray:
        """(B,) bool: the images whose used fields are finite."""
        masks = prediction.masks if self._has_vocabulary(prediction) else None
        return finite_rows(prediction.tokens, prediction.classes, masks)

    def source(self, prediction: Prediction) -> str:
        """The fields that are scored: `classes`, `prototypes`, `tokens` or `prototypes+tokens`."""
        if prediction.classes is not None:
            return "classes"
        parts = [f"prototypes{'+softmax' if prediction.softmax else ''}"] if self._has_vocabulary(prediction) else []
        return "+".join([*parts, *(["tokens"] if prediction.tokens is not None else [])])

    def outputs(
        self, prediction: Prediction, shapes: Sequence[tuple[int, int]], side: int | None = None
    ) -> list[SemanticOutput]:
        """Class or cluster maps of each image at its size in `shapes`, from upsampled scores (`label_map`)."""
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
        """Scores or maps for `SemanticOutput.own`, and its `clusters`."""
        if prediction.classes is not None:
            return prediction.classes, NAMED
        if self._has_vocabulary(prediction):
            masks = cast(Tensor, prediction.masks)
            return masks, float(masks.shape[1]) if masks.ndim == 4 else UNNUMBERED
        if self.recipe.head == "linear":
            return class_scores(cast(Tensor, prediction.tokens), self.head), NAMED
        return None, NAMED

    def columns(self, task: TaskSpec) -> dict[str, str]:
        """Pixel accuracy, and the confusion matrices of each image as lists of non-empty cells and their counts.

        The metrics of the whole set are computed from the summed matrices, not from the column `pixel_acc`.
        """
        del task
        lists = dict.fromkeys(("cells", "counts", "cells_kmeans", "counts_kmeans"), "object")
        return {"pixel_acc": "float64", "clusters": "float64", **lists}

    def score(self, truth: Sequence[Truth], outputs: Sequence[SemanticOutput], task: TaskSpec) -> list[dict[str, Any]]:
        """Confusion cells of each image, and its pixel accuracy if the predicted ids are classes (else NaN).

        Raises UsageError when the data have no semantic truth.
        """
        return [self._row(image, output, task.name) for image, output in zip(truth, outputs, strict=True)]

    def _row(self, truth: Truth, output: SemanticOutput, task: str) -> dict[str, Any]:
        """The row of one image."""
        if truth.classes is None:
            raise UsageError(f"task {task}: its data has no semantic truth; see data.options of the card")
        codes, counts = cell_codes(truth.classes, output.own, self.classes)
        kmeans = cell_codes(truth.classes, output.kmeans, self.classes)
        correct = counts[codes // STRIDE == codes % STRIDE].sum()  # a code is class * STRIDE + predicted id
        named = output.own is not None and output.clusters == NAMED and counts.sum() > 0
        return {
            "n_objects": int((np.unique(truth.classes) >= 0).sum()),  # here: classes that occur in the image
            "pixel_acc": float(correct / counts.sum()) if named else float("nan"),
            "clusters": output.clusters,
            "cells": codes,
            "counts": counts,
            "cells_kmeans": kmeans[0],
            "counts_kmeans": kmeans[1],
        }

    def fit(self, batches: Batches, split: OpenData) -> Head:
        """Fit the head on tokens.

        Returns:
            Tensors of the head, or only `none`, one zero, for a model that gives no tokens.
        """
        with extracted(batches, len(split.ids), self.recipe.at) as features:
            if features is None:
                return {"none": torch.zeros(1)}  # a placeholder, so that the cached head is not empty
            method = fit_linear if self.recipe.head == "linear" else fit_kmeans
            return method(features, self.classes, self.recipe)

    def with_head(self, head: Head) -> Segmentation:
        """A copy of this adapter that uses a head from `fit`."""
        return Segmentation(self.task, blind=self.blind, head=head)

    def picture(self, output: SemanticOutput, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
        """Predicted and true class maps."""
        return output.shown, cast(np.ndarray, truth.classes)

    def write(self, folder: Path, sample_id: str, seed: int, output: SemanticOutput) -> None:
        """Write the class or cluster ids to `<folder>/seed-<n>/<id>.png`."""
        write_label_map(prediction_path(folder, sample_id, seed), output.shown)


def majority_accuracy(rows: pandas.DataFrame) -> pandas.Series:
    """Pixel accuracy of each image after each cluster is given the class that most of its pixels in the set have.

    Images to draw are chosen by this value when the predicted ids are clusters and not classes.

    Args:
        rows: the rows of a result, with the columns `cells` and `counts` or their `_kmeans` versions.

    Returns:
        Accuracy by image id, named `pixel_acc_majority`; empty when there are no clusters.
    """
    long = _cells(rows)
    truth, cluster = long["cells"] // STRIDE, long["cells"] % STRIDE
    correct = long["counts"].where(truth == cluster.map(_majority(long)), 0)
    values = correct.groupby(long["id"], sort=False).sum() / long["counts"].groupby(long["id"], sort=False).sum()
    return values.rename("pixel_acc_majority")


def confusion_of(rows: pandas.DataFrame) -> tuple[np.ndarray, dict[int, int]]:
    """The confusion matrix (C, C) of the whole set, true class by predicted class, in pixels.

    Args:
        rows: as in `majority_accuracy`.

    Returns:
        The matrix, and cluster -> class by majority; the latter is empty when the predicted ids are classes.

    Raises:
        UsageError: a class is not below `MOST_CLASSES`, as only damaged rows have it.
    """
    long = _cells(rows)
    own = bool((rows["clusters"] == NAMED).all()) and any(len(cells) for cells in rows["cells"])
    renamed = {} if own else {int(key): int(value) for key, value in _majority(long).items()}
    truth, found = (long["cells"] // STRIDE).to_numpy(), (long["cells"] % STRIDE).to_numpy()
    classes = np.array([renamed.get(int(one), int(one)) for one in found], dtype=np.int64)
    size = int(max(truth.max(initial=-1), classes.max(initial=-1))) + 1
    if size > MOST_CLASSES or min(truth.min(initial=0), classes.min(initial=0)) < 0:
        raise UsageError(
            f"per-image rows: their confusion cells name class {size - 1}; classes are 0 to {MOST_CLASSES - 1}"
        )
    matrix = np.zeros((size, size), np.int64)
    np.add.at(matrix, (truth, classes), long["counts"].to_numpy())
    return matrix, renamed


def _cells(rows: pandas.DataFrame) -> pandas.DataFrame:
    """The confusion cells of all images, one a row. Token clusters are taken only of a model without own segments."""
    import pandas

    suffix = "" if any(len(cells) for cells in rows["cells"]) else "_kmeans"
    columns = {"cells": f"cells{suffix}", "counts": f"counts{suffix}"}
    long = pandas.DataFrame({"id": rows["id"], **{name: rows[column] for name, column in columns.items()}})
    return long.explode(["cells", "counts"]).dropna().astype({"cells": "int64", "counts": "int64"})


def _majority(long: pandas.DataFrame) -> pandas.Series:
    """The class that most pixels of each cluster have, by cluster."""
    truth, cluster = long["cells"] // STRIDE, long["cells"] % STRIDE
    pixels = long["counts"].groupby([cluster.rename("cluster"), truth.rename("truth")]).sum()
    return pixels.unstack(fill_value=0).idxmax(axis=1) if len(pixels) else pixels


def _adapter(task: TaskSpec, model: LoadedModel | None) -> Segmentation:
    return Segmentation(task, blind=model is not None and model.card.role == "floor")


SEGMENTATION = Family("segmentation", SegmentationProtocol, _adapter, image_values=majority_accuracy, view="classes")

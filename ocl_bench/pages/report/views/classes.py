"""Classes: the true and the predicted one of each pixel, and their confusion over the set, also of whole images."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ....cards.protocols import MOST_CLASSES
from ....core.errors import SampleError, UsageError
from ....core.types import Sample
from ....data.transforms import prepare
from ....families.files import prediction_path
from ....families.segmentation import confusion_of
from ....metrics import contingency
from ..encode import fitted, map_of, truth_map
from ..run import Run
from .base import Saved, Shown, compact, pixels_and_truth, saved_map

if TYPE_CHECKING:
    import pandas

LISTED = 12
"""Most classes of the table of confusions, those with the most pixels."""
RIGHT, WRONG = "right", "wrong"


class Classes(Shown):
    """Images with classes. Clusters get the class that most of their pixels in the set have, as the page says."""

    def scene(self, sample: Sample) -> dict[str, Any]:
        """The image and its classes. Raises SampleError for a sample without them."""
        image, shape, truth = pixels_and_truth(sample, self.task)
        if truth.classes is None:
            raise SampleError(sample.id, "has no semantic truth")
        present = [int(one) for one in np.unique(truth.classes) if one >= 0]
        return {
            "size": shape,
            "image": image,
            "truth": truth_map(truth.classes, shape),
            "classes": {str(one): class_name(self.data.categories, one) for one in present},
            "background": has_background(self.data.categories),
            "names": [],
        }

    def answer(self, sample: Sample, saved: Saved) -> dict[str, Any]:
        """The predicted classes, and the pixels that have the right one."""
        raw = saved_map(prediction_path(saved.folder, sample.id, saved.seed), sample, self.task)
        renamed = _confusion_of(saved.run)[1]
        classes = np.vectorize(lambda one: renamed.get(one, one), otypes=[np.int64])(raw) if renamed else raw
        truth = prepare(sample, self.task.protocol, 8)[1].classes  # 8: side of the image, which is not used
        assert truth is not None  # `scene` has refused such a sample
        ids, codes = compact(classes)
        table = contingency(truth[None], codes[None], ignore_index=None).table[0]
        same = ids[None] == np.arange(len(table))[:, None]
        kinds = np.where(table > 0, np.where(same, 0, 1), -1)
        right = int(table[same].sum())
        area, predicted = table.sum(1), table.sum(0)
        objects = []
        for label in np.flatnonzero(area):
            hit = table[label][ids == label].sum()
            union = area[label] + predicted[ids == label].sum() - hit
            objects.append(
                [
                    int(label),
                    round(float(hit / union), 3),
                    int((table[label] > 0).sum()),
                    round(area[label] / area.sum(), 4),
                ]
            )
        shape = fitted(truth.shape)
        return {
            "map": map_of(codes, shape),
            "ids": [int(one) for one in ids],
            "colours": [int(one) - has_background(self.data.categories) for one in ids],
            "classes": [class_name(self.data.categories, int(one)) for one in ids],
            "kinds": ["".join("." if kind < 0 else str(kind) for kind in row) for row in kinds.tolist()],
            "pixels": {RIGHT: right, WRONG: int(table.sum()) - right},
            "objects": objects,
        }


def class_name(categories: Mapping[int, str], number: int) -> str:
    """Name of a class, or its number."""
    if number == 0 and has_background(categories):
        return "background"
    return categories.get(number, f"class {number}")


def has_background(categories: Mapping[int, str]) -> bool:
    """Whether class 0 is background: a data set that names its classes from 1 on, as PASCAL VOC does."""
    return bool(categories) and 0 not in categories


@lru_cache(maxsize=2)  # two runs
def _confusion_of(run: Run) -> tuple[np.ndarray, dict[int, int]]:
    """The confusion matrix of a run, and its clusters by class."""
    return confusion_of(run.rows.reset_index())


def confusion(run: Run) -> dict[str, Any] | None:
    """The confusion of the most frequent classes over all samples; None for rows without classes.

    Returns:
        names, and shares: of each true class (row), the share of its `what` (pixels, or images) that were called each
        class (column), the last column for all other classes; `sentence` about the most frequent confusion; `renamed`
        for clusters.
    """
    categories = run.data.categories if run.data is not None else {}
    if "cells" in run.rows:
        what, (table, renamed) = "pixels", _confusion_of(run)
    elif {"label", "predicted"} <= set(run.rows):
        what, table, renamed = "images", _labels(run.rows), {}
    else:
        return None
    if not table.size or not table.sum():
        return None
    chosen = np.sort(np.argsort(-table.sum(1), kind="stable")[:LISTED])
    chosen = chosen[table[chosen].sum(1) > 0]
    names = [class_name(categories, int(one)) for one in chosen]
    total = table[chosen].sum(1, keepdims=True)
    shares = table[np.ix_(chosen, chosen)] / total
    others = 1 - shares.sum(1, keepdims=True)
    off = table.copy()
    np.fill_diagonal(off, 0)
    wrong = int(off.sum())
    sentence = f"All {what} have the right class."
    if wrong and off.max() == 1 < wrong:
        sentence = f"No two classes are confused twice: each of the {wrong} wrong {what} is another confusion."
    elif wrong:
        true, called = np.unravel_index(int(off.argmax()), off.shape)
        share = 100 * off[true, called] / wrong
        sentence = (
            f"It most often takes {class_name(categories, int(true))} for {class_name(categories, int(called))}: "
            f"{share:.0f} % of the wrong {what}."
        )
    return {
        "names": names,
        "shares": np.hstack([shares, others.clip(0)]).round(4).tolist(),
        "sentence": sentence,
        "what": what,
        "renamed": bool(renamed),
    }


def _labels(rows: pandas.DataFrame) -> np.ndarray:
    """The confusion matrix (C, C) of whole images; of several noise seeds, only images with one prediction count."""
    pairs = rows[["label", "predicted"]].dropna()
    pairs = pairs[pairs["predicted"] % 1 == 0].astype(int)
    size = int(pairs.max().max()) + 1 if len(pairs) else 0
    if size > MOST_CLASSES or (len(pairs) and int(pairs.min().min()) < 0):
        raise UsageError(f"per-image rows: name class {size - 1}; classes are 0 to {MOST_CLASSES - 1}")
    table = np.zeros((size, size), np.int64)
    np.add.at(table, (pairs["label"].to_numpy(), pairs["predicted"].to_numpy()), 1)
    return table

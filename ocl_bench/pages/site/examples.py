"""Examples of *Why numbers differ* as small pictures: label maps, and the metrics under each rule, computed here."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from ...core.types import VOID
from ...data.transforms import nearest
from ...metrics import compute
from ...tables.pictures.overlays import solid, truth_colours

HEIGHT = 128
"""Height of a picture on the page in pixels."""


@dataclass(frozen=True)
class Choice:
    """One state of an example.

    Attributes:
        label: what the reader chooses.
        truth: (H, W), the picture.
        prediction: (H, W).
        rules: under which they are scored.
        images: images that stand side by side in the picture. Each is scored by itself, and the mean is shown.
    """

    label: str
    truth: np.ndarray
    prediction: np.ndarray
    rules: Mapping[str, Any] = field(default_factory=dict)
    images: int = 1


@dataclass(frozen=True)
class Example:
    """A picture with choices. question: what the reader chooses; metrics: what is shown for each choice."""

    question: str
    metrics: Sequence[str]
    choices: Callable[[], Sequence[Choice]]

    def content(self, key: str) -> dict[str, Any]:
        """What the template needs: pictures and numbers of every choice. key: unique on the page."""
        shown = []
        for choice in self.choices():
            truth, prediction = (np.stack(np.split(x, choice.images, 1)) for x in (choice.truth, choice.prediction))
            scores = compute(list(self.metrics), truth, prediction, **choice.rules)
            # An image on which a metric is not valid is nan, and so is a mean with such an image.
            numbers = {name: _text(float(value.mean())) for name, (value, _) in scores.items()}
            height, width = choice.truth.shape
            shown.append(
                {
                    "label": choice.label,
                    "truth": _picture(choice.truth),
                    "prediction": _picture(choice.prediction),
                    "numbers": numbers,
                    "width": HEIGHT * width // height,
                }
            )
        return {"question": self.question, "metrics": list(self.metrics), "choices": shown, "key": key}


def _text(value: float) -> str:
    return "not defined" if np.isnan(value) else f"{value:.3f}"


def _picture(labels: np.ndarray) -> str:
    """A label map as a `data:` address of a PNG, one pixel for each label."""
    file = io.BytesIO()
    Image.fromarray(solid(labels, truth_colours(labels))).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _overflow() -> list[Choice]:
    """Everything in one slot, at two sizes of the same image."""
    truth = np.zeros((256, 256), np.int16)
    truth[100:150, 60:130] = 1
    truth[30:80, 150:210] = 2
    sizes = {"128 x 128 pixels": truth[::2, ::2], "256 x 256 pixels": truth}
    return [Choice(label, labels, np.zeros_like(labels)) for label, labels in sizes.items()]


def _empty() -> list[Choice]:
    truth = np.zeros((8, 8), np.int16)
    prediction = np.zeros_like(truth)
    prediction[:, :4] = 1
    return [
        Choice("left out (empty: skip)", truth, prediction),
        Choice("counted as 1 (empty: one)", truth, prediction, {"empty": "one"}),
    ]


def _background() -> list[Choice]:
    truth = np.zeros((64, 64), np.int16)
    truth[5:20, 5:20], truth[40:56, 30:50], truth[30:40, 5:12] = 1, 2, 3
    found = truth.copy()
    found[found == 3] = 0
    return [
        Choice("one slot for everything", truth, np.zeros_like(truth)),
        Choice("two of three objects found", truth, found),
        Choice("perfect", truth, truth),
    ]


def _one_object() -> list[Choice]:
    truth = np.zeros((16, 16), np.int16)
    truth[4:12, 4:12] = 1
    moved = truth.copy()
    moved[4, 4] = 2
    return [Choice("the object in one slot", truth, truth), Choice("one pixel in another slot", truth, moved)]


def _void() -> list[Choice]:
    truth = np.zeros((10, 10), np.int16)
    truth[2:8, 2:8] = 1
    truth[2:8, 8:], truth[0:2, 2:8] = VOID, VOID
    prediction = np.zeros_like(truth)
    prediction[2:8, 2:], prediction[0:2, 2:8] = 1, 1
    return [
        Choice("void dropped", truth, prediction, {"void": "drop"}),
        Choice("void counted in the prediction", truth, prediction, {"void": "count"}),
    ]


def _divisors() -> list[Choice]:
    truth = np.zeros((32, 32), np.int16)
    truth[4:14, 4:14], truth[18:28, 18:28] = 1, 2
    split = truth.copy()
    split[:, 28:], split[:2, :] = 3, 4
    return [
        Choice("background in one slot", truth, truth),
        Choice("background in three slots", truth, split),
    ]


def _categories() -> list[Choice]:
    """Three objects of two categories, by a model whose slots follow categories, and by one that finds objects."""
    truth = np.zeros((24, 24), np.int16)
    truth[2:10, 2:10], truth[2:10, 14:22], truth[14:22, 2:10] = 1, 2, 3
    united = np.where(truth == 2, 1, truth)
    split = truth.copy()
    split[2:6, 2:10] = 4
    categories = {"truth_categories": [(17, 17, 3)]}
    return [
        Choice("one slot for each category", truth, united, categories),
        Choice("one slot for each object", truth, truth, categories),
        Choice("an object in two slots", truth, split, categories),
    ]


def _resolution() -> list[Choice]:
    """A perfect segmentation on 16 x 16 patches of the first scene of the document, under four protocols."""
    import torch
    import torch.nn.functional as functional

    random = np.random.default_rng(0)
    y, x = np.mgrid[:256, :256]
    truth = np.zeros((256, 256), np.int64)
    for label in range(1, 6):
        cy, cx, radius = random.uniform(30, 226), random.uniform(30, 226), random.uniform(14, 34)
        truth[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = label
    one_hot = functional.one_hot(torch.from_numpy(truth), 6).permute(2, 0, 1)[None].float()
    patches = functional.avg_pool2d(one_hot, 16)
    coarse = patches[0].argmax(0).numpy()
    soft = functional.interpolate(patches, size=256, mode="bilinear")[0].argmax(0).numpy()
    return [
        Choice("upsampled softly, then argmax", truth, soft),
        Choice("argmax, then enlarged", truth, nearest(coarse, (256, 256))),
        Choice("scored on 16 x 16, truth at the centre of a patch", nearest(truth, (16, 16)), coarse),
        Choice("scored on 16 x 16, truth at the corner of a patch", truth[::16, ::16], coarse),
    ]


def _pooling() -> list[Choice]:
    """Two perfect images, whose slots are numbered differently."""
    one = np.zeros((8, 8), np.int16)
    one[4:] = 1
    truth, prediction = np.hstack([one, one]), np.hstack([one, 1 - one])
    return [
        Choice("mean of the two images", truth, prediction, images=2),
        Choice("all pixels pooled", truth, prediction),
    ]


def _video() -> list[Choice]:
    """Four frames, side by side, in which two slots change places half-way."""
    frame = np.zeros((16, 16), np.int16)
    frame[2:8, 2:8], frame[9:15, 8:15] = 1, 2
    swapped = np.array([0, 2, 1])[frame]
    truth, prediction = np.hstack([frame] * 4), np.hstack([frame, frame, swapped, swapped])
    return [
        Choice("each frame by itself", truth, prediction, images=4),
        Choice("the video as one, ids shared over time", truth, prediction),
    ]


EXAMPLES = {
    "1.": Example("Everything in one slot. How large is the image?", ("ari", "ari_int64_legacy"), _overflow),
    "2.": Example("An image without objects. What does it count?", ("fg_ari", "mbo_fg"), _empty),
    "3.": Example("What did the model find?", ("mbo_all", "mbo_fg", "miou_all", "miou_fg"), _background),
    "4.": Example("One object. Which prediction?", ("fg_ari", "mbo_fg"), _one_object),
    "5.": Example("The slot spreads into void (white). Which rule?", ("mbo_fg", "mbo_all", "ari"), _void),
    "6.": Example(
        "Both objects are perfect. What of the background?", ("miou_fg", "miou_all", "miou_clevrtex"), _divisors
    ),
    "7.": Example("Two cars and an animal. What does a slot stand for?", ("mbo_fg", "mbo_class"), _categories),
    "8.": Example("The same perfect masks of patches. Which protocol?", ("mbo_fg", "mbo_all", "fg_ari"), _resolution),
    "9.": Example(
        "Two perfect images, with their slots numbered differently. How are they joined?", ("ari",), _pooling
    ),
    "10.": Example("Two slots change places half-way. What is compared?", ("fg_ari", "mbo_fg"), _video),
}
"""Examples by the number of their section. Neighbours (11) and questions (12) are no matter of pixels."""

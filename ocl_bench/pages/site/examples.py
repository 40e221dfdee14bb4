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
from ...metrics import compute
from ...tables.pictures.overlays import solid, truth_colours


@dataclass(frozen=True)
class Choice:
    """One state of an example: a truth and a prediction (H, W), and the rules under which they are scored."""

    label: str
    truth: np.ndarray
    prediction: np.ndarray
    rules: Mapping[str, Any] = field(default_factory=dict)


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
            truth, prediction = choice.truth[None], choice.prediction[None]
            scores = compute(list(self.metrics), truth, prediction, **choice.rules)
            numbers = {name: _text(float(value[0])) for name, (value, _) in scores.items()}
            shown.append(
                {
                    "label": choice.label,
                    "truth": _picture(choice.truth),
                    "prediction": _picture(choice.prediction),
                    "numbers": numbers,
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


EXAMPLES = {
    "1.": Example("Everything in one slot. How large is the image?", ("ari", "ari_int64_legacy"), _overflow),
    "2.": Example("An image without objects. What does it count?", ("fg_ari", "mbo_fg"), _empty),
    "3.": Example("What did the model find?", ("mbo_all", "mbo_fg", "miou_all", "miou_fg"), _background),
    "4.": Example("One object. Which prediction?", ("fg_ari", "mbo_fg"), _one_object),
    "5.": Example("The slot spreads into void (white). Which rule?", ("mbo_fg", "mbo_all", "ari"), _void),
    "6.": Example(
        "Both objects are perfect. What of the background?", ("miou_fg", "miou_all", "miou_clevrtex"), _divisors
    ),
}
"""Examples by the number of their section."""

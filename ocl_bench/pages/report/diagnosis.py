"""What a model does wrong most, over all samples: kinds of pixels, fragments, unused slots."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...metrics.mistakes import FRAGMENT_IOU, KINDS, WRONG, Mistakes

_SENTENCES = {
    "split": "It cuts objects apart",
    "merged": "It merges objects",
    "missed": "It loses objects in the background",
    "spilled": "Its segments spill over into the background",
}
_MEANINGS = {
    "right": "pixels of objects in the main segment of their object",
    "split": "pixels of objects in a further segment of the same object",
    "merged": "pixels of objects in a segment that belongs to another object",
    "missed": "pixels of objects in a segment that belongs to the background",
    "spilled": "pixels of the background in a segment that belongs to an object",
}


@dataclass
class Tally:
    """Sums over samples.

    Attributes:
        samples: number of samples.
        pixels: number of pixels of each kind.
        objects: number of objects; `alone` of them own a segment, and `fragments` counts their fragments.
        used: segments of each sample that own a pixel, and `largest` the largest segment id.
    """

    samples: int = 0
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(len(KINDS), np.int64))
    objects: int = 0
    alone: int = 0
    fragments: int = 0
    used: int = 0
    largest: int = -1

    def add(self, found: Mistakes, ids: np.ndarray) -> None:
        """Add a sample. ids: the segments that occur in it."""
        is_object = ~np.isnan(found.best_iou)
        self.samples += 1
        self.pixels += np.array(found.pixels)
        self.objects += int(is_object.sum())
        self.alone += int((found.main[is_object] >= 0).sum())
        self.fragments += int(found.fragments[is_object].sum())
        self.used += len(ids)
        self.largest = max(self.largest, int(ids.max(initial=-1)))


def diagnosis(tally: Tally, slots: int | None, floor: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """The diagnosis of a run; None when nothing was counted.

    Args:
        tally: sums over the samples whose predictions were read.
        slots: slots of the model, where its options say it; otherwise the largest id that occurs is taken.
        floor: diagnosis of a floor on the same samples.

    Returns:
        `sentence`, `kinds` (name, share, meaning) and `facts` (label, value, meaning), both with the value of the
        floor as `floor`, None without one.
    """
    if not tally.samples or not tally.pixels.sum():
        return None
    count: dict[str, int] = dict(zip(KINDS, tally.pixels.tolist(), strict=True))
    of_objects = sum(count[kind] for kind in ("right", "split", "merged", "missed"))
    of_background = count["background"] + count["spilled"]
    below = {kind: of_background if kind == "spilled" else of_objects for kind in _MEANINGS}
    kinds = [
        {"name": kind, "share": count[kind] / below[kind] if below[kind] else None, "meaning": _MEANINGS[kind]}
        for kind in _MEANINGS
    ]
    facts = _facts(tally, slots)
    shares = {one["name"]: one["share"] for one in floor["kinds"]} if floor else {}
    values = {one["name"]: one["value"] for one in floor["facts"]} if floor else {}
    return {
        "sentence": _sentence(count, tally),
        "kinds": [{**one, "floor": shares.get(one["name"])} for one in kinds],
        "facts": [{**one, "floor": values.get(one["name"])} for one in facts],
        "count": tally.samples,
    }


def _sentence(count: dict[str, int], tally: Tally) -> str:
    """One sentence about the most frequent kind of wrong pixels."""
    wrong = sum(count[kind] for kind in WRONG)
    if not wrong:
        return "Every annotated pixel is right."
    most = max(WRONG, key=lambda kind: count[kind])
    share = f"{100 * count[most] / wrong:.0f} % of the wrong pixels"
    ends = {
        "split": f"with {tally.fragments / max(1, tally.objects):.1f} segments on each object",
        "merged": f"{_percent(1 - tally.alone / max(1, tally.objects))} of the objects have no segment of their own",
        "missed": f"{_percent(1 - tally.alone / max(1, tally.objects))} of the objects have no segment of their own",
        "spilled": f"{_percent(count['spilled'] / max(1, count['spilled'] + count['background']))} of the background",
    }
    return f"{_SENTENCES[most]}: {share} are of this kind, {ends[most]}."


def _facts(tally: Tally, slots: int | None) -> list[dict[str, str]]:
    """Figures beside the kinds of pixels."""
    number = slots if slots is not None and slots > tally.largest else tally.largest + 1
    known = slots is not None and slots > tally.largest
    objects = max(1, tally.objects)
    unused = {
        "name": "Unused slots",
        "value": _percent(1 - tally.used / (tally.samples * max(1, number))),
        "meaning": f"share of the {number} slots without a pixel, mean over samples"
        + ("" if known else "; the number of slots is the largest id that occurs in any sample"),
    }
    return [
        *([unused] if tally.used else []),  # detections are no slots
        {
            "name": "Fragmentation",
            "value": f"{tally.fragments / objects:.2f}",
            "meaning": f"segments with an IoU of {FRAGMENT_IOU:g} or more with an object, mean over objects; best is 1",
        },
        {
            "name": "Objects with no segment of their own",
            "value": _percent(1 - tally.alone / objects),
            "meaning": "no segment holds more pixels of them than of anything else: merged or missed as a whole",
        },
    ]


def _percent(share: float) -> str:
    return f"{100 * max(0.0, share):.0f} %"

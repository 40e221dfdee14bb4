"""Metrics of visual prediction: of all predicted steps, and of the steps of each horizon."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..metric import LOWER, Metric
from ..of_set import SumRatio

_FAMILY = ("dynamics",)
_SLOTFORMER = "Wu et al., SlotFormer, ICLR 2023, arXiv:2210.05861"
_MASKS = "not valid for models without decode_slots, and in steps without an object that counts"
_STEPS = "mean over the predicted steps of a clip, then over clips"

HORIZONS: dict[str, tuple[int, int | None]] = {"1_5": (1, 5), "6_10": (6, 10), "11_on": (11, None)}
"""End of a metric's name -> its first and last predicted step; None is the last one of the clip."""

STEPS = "steps_"
"""Begin of the columns of rows that hold a list: the value at each predicted step."""


def _of_masks(name: str, meaning: str, formula: str, steps: str, low: float = 0.0) -> Metric:
    return Metric(
        name,
        _FAMILY,
        f"{meaning}{steps}",
        low=low,
        formula=f"{formula}; {_STEPS}",
        edge_cases=_MASKS,
        source=_SLOTFORMER,
        head=True,
    )


def _fg_ari(name: str, steps: str) -> Metric:
    return _of_masks(name, "FG-ARI of masks decoded from predicted slots", "fg_ari of each step", steps, -1)


def _mbo(name: str, steps: str) -> Metric:
    return _of_masks(name, "mean best IoU of masks decoded from predicted slots", "mbo_fg of each step", steps)


def _position(name: str, steps: str) -> Metric:
    return Metric(
        name,
        _FAMILY,
        f"distance of objects from where the probe of their predicted slot says, in units of the data{steps}",
        LOWER,
        high=math.inf,
        best=0,
        formula="Euclidean distance on the ground; an object has the slot that is matched to it by the IoU of their "
        f"tubes in the burn-in; mean over the objects in view, {_STEPS}",
        edge_cases="objects that the burn-in does not show are left out; one without a slot is placed in the mean "
        "location of the fit split; not valid without locations",
        source="ours; the probe is linear",
        head=True,
    )


def _slot_error(name: str, steps: str) -> Metric:
    end = name.removeprefix("slot_mse_rel")
    return Metric(
        name,
        _FAMILY,
        f"squared error of predicted slots / that of repeating the last seen ones{steps}",
        LOWER,
        high=math.inf,
        best=0,
        formula="sum of (predicted - true slots)^2 / sum of (last seen - true slots)^2, over all clips; true slots are "
        "what the model gets from the real future frames",
        edge_cases="not defined where the slots of no clip change",
        source="ours",
        of_set=SumRatio(f"slot_error{end}", f"copy_error{end}"),
        head=True,
    )


def _with_horizons(name: str, make: Callable[[str, str], Metric]) -> tuple[Metric, ...]:
    """A metric of all steps, and that of each horizon."""
    ends = {end: f", steps {first} to {last or 'the last'}" for end, (first, last) in HORIZONS.items()}
    return (make(name, ""), *(make(f"{name}_{end}", steps) for end, steps in ends.items()))


DEFINITIONS = (
    *_with_horizons("position_error", _position),
    *_with_horizons("slot_mse_rel", _slot_error),
    *_with_horizons("fg_ari_future", _fg_ari),
    *_with_horizons("mbo_future", _mbo),
    _of_masks("ari_future", "ARI of masks decoded from predicted slots", "ari of each step", "", -1),
    _of_masks("miou_future", "Hungarian IoU of masks decoded from predicted slots", "miou_fg of each step", ""),
    _of_masks(
        "box_recall_future",
        "objects whose box the box of a decoded mask covers",
        "share of objects with a box of IoU 0.5 or more, chosen in the order of their labels",
        "",
    ),
    _of_masks(
        "fg_ari_future_video",
        "FG-ARI of tubes of decoded masks",
        "fg_ari of all predicted steps together, where a slot is the same in every step; mean over clips",
        "",
        -1,
    ),
    _of_masks(
        "mbo_future_video",
        "mean best IoU of tubes of decoded masks",
        "best IoU of the tube of each object with that of any slot, in all predicted steps together; mean over clips",
        "",
    ),
)

"""One rule for the masks of a prediction in every family: weights in [0, 1], declared logits, or integer label maps.

Each error is one line that names model and field, the shape that came, the shape that is wanted, and the remedy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from ..core.errors import UsageError
from ..core.types import MaskSource, Prediction
from .checks import as_tensor, flattened

_SLOTS_FIRST = "give masks.permute(0, 3, 1, 2)"
ROUNDING = 1e-3
"""How far weights may leave [0, 1]: sums and quotients in half precision round by as much."""


def check_masks(prediction: Prediction, size: int, name: str) -> Prediction:
    """The prediction with usable masks: logits have become weights (see `Prediction.with_weights`).

    Logits that are not declared are recognised by a value outside [0, 1], and only by that: logits that happen to lie
    in [0, 1] are taken as weights. Values of NaN pass; `Adapter.finite` finds them image by image.

    Args:
        prediction: what the model returned, with masks.
        size: number of images; masks are (size, K, h, w) floating or (size, H, W) integer.
        name: name of the model, for messages.

    Raises:
        UsageError: masks have a wrong type, layout, size or range, or an unknown source.
    """
    masks = prediction.masks
    if not isinstance(masks, Tensor):
        shape = f" of shape {masks.shape}" if isinstance(masks, np.ndarray) else ""
        raise UsageError(
            f"model {name}: Prediction.masks is {type(masks).__name__}{shape}, expected a torch.Tensor (B,K,h,w) or "
            "(B,H,W)",
            as_tensor("masks", masks),
        )
    got = f"model {name}: Prediction.masks has shape {tuple(masks.shape)} and dtype {masks.dtype}"
    if remedy := _layout_remedy(masks, size):
        raise UsageError(f"{got}, expected floating (B,K,h,w) or integer (B,H,W) with B = {size}", remedy)
    if masks.shape[0] != size:
        raise UsageError(
            f"model {name}: Prediction.masks has batch size {masks.shape[0]}, expected {size}",
            "give masks for each image of the batch, in its order",
        )
    if prediction.mask_source not in get_args(MaskSource):
        raise UsageError(
            f"model {name}: Prediction.mask_source is {prediction.mask_source!r}, expected one of "
            f"{', '.join(get_args(MaskSource))}",
            "choose the one that says where the masks come from",
        )
    if not masks.is_floating_point():
        return _labels(prediction, masks, name)
    if not prediction.mask_logits and (outside := _outside(masks)):
        raise UsageError(
            f"model {name}: Prediction.masks has {outside}, expected weights in [0, 1] for each slot",
            "for logits give their softmax over the slots, or say Prediction(.., mask_logits=True) and the suite takes "
            "it (with the finite weight 0 for a slot at -inf)",
        )
    prediction = prediction.with_weights()
    if prediction.masks is not None and _slots_last(prediction.masks):
        raise UsageError(f"{got}, expected (B,K,h,w), and its last axis looks like the slots", _SLOTS_FIRST)
    return prediction


def _layout_remedy(masks: Tensor, size: int) -> str:
    """What to change in masks of a wrong type or number of axes; empty for usable ones."""
    floating, axes, shape = masks.is_floating_point(), masks.ndim, masks.shape
    if 0 in shape:
        return "no axis may be empty; give one slot of ones where nothing is found"
    if masks.is_complex():
        return "give real numbers"
    if floating and axes == 4 and _in_no_grid(shape):
        return _SLOTS_FIRST
    if (floating and axes == 4) or (not floating and axes == 3 and masks.dtype != torch.bool):
        return flattened(shape[-2], shape[-1])
    if not floating and axes == 4:
        if masks.dtype != torch.bool and (shape[1] == 1 or shape[3] == 1):
            return f"drop the axis of length 1, masks{'[:, 0]' if shape[1] == 1 else '[..., 0]'}"
        return "give weights, masks.float()" + (" / 255" if masks.dtype == torch.uint8 and masks.max() > 1 else "")
    if floating and axes == 3 and shape[1] != shape[2] and (side := math.isqrt(shape[2])) ** 2 == shape[2] > 1:
        return f"its last axis is a flattened grid, masks.unflatten(-1, ({side}, {side}))"
    if floating and axes == 3 and shape[0] == size != 1:
        return "label maps are integers, masks.long(); for one slot in each image give masks[:, None]"
    if masks.dtype == torch.bool and axes == 3:
        return "for label maps 0 and 1 give masks.long(); for (K,h,w) of one image give masks.float()[None]"
    if axes < (4 if floating else 3):
        return "is the axis of the batch missing? For one image give masks[None]"
    if axes == 5 and 1 in shape[1:3]:
        return f"drop the axis of length 1, masks.squeeze({list(shape).index(1, 1)})"
    return "clips (B,T,..) are for tasks on videos"


def _labels(prediction: Prediction, masks: Tensor, name: str) -> Prediction:
    """The prediction, whose masks are label maps. Raises UsageError for negative labels or declared logits."""
    if prediction.mask_logits:
        raise UsageError(f"model {name}: Prediction.mask_logits is set, but masks are label maps", "leave it out")
    if int(masks.min()) < 0:
        raise UsageError(
            f"model {name}: Prediction.masks has label {int(masks.min())}, expected labels >= 0",
            "give pixels without a slot a label of their own",
        )
    return prediction


def _outside(masks: Tensor) -> str:
    """`values from a to b` when one is outside [0, 1] by more than rounding, else empty. NaN is not counted."""
    known = masks.detach()
    if bool(known.isnan().any()):
        known = known.nan_to_num(nan=0.5, posinf=torch.inf, neginf=-torch.inf)
    low, high = float(known.min()), float(known.max())
    return "" if low >= -ROUNDING and high <= 1 + ROUNDING else f"values from {low:.4g} to {high:.4g}"


def _in_no_grid(shape: Sequence[int]) -> bool:
    """Whether axes (B, K, h, w) have as many slots as rows and a quarter as many columns, in no grid of an image."""
    _, slots, height, width = shape
    return slots == height >= 4 * width


def _slots_last(masks: Tensor) -> bool:
    """Whether weights (B, K, h, w) look like (B, H, W, K).

    Either there are as many slots as rows, and a quarter as many columns, as in no grid; or the last axis is the
    shortest, or another one behind two equal ones, and the weights sum to 1 over it but not over the slots.
    """
    _, slots, height, width = masks.shape
    if _in_no_grid(masks.shape):
        return True
    if width == 1 or not (width < min(slots, height) or slots == height != width):
        return False

    def sums_to_one(axis: int) -> bool:
        return bool(((masks.float().sum(axis) - 1).abs() < 10 * ROUNDING).all())

    return sums_to_one(-1) and not sums_to_one(1)

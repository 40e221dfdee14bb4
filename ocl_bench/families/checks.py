"""Checks of predictions that several adapters share. Each error is one line that names model, field and remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..core.errors import NotApplicableError, UsageError
from ..core.types import Prediction

_FIELDS = ("masks", "slots", "tokens", "embedding", "classes", "boxes")


def check_prediction(prediction: object, name: str) -> Prediction:
    """Return `prediction` if it is a `Prediction` of dense tensors. Raises UsageError otherwise."""
    if not isinstance(prediction, Prediction):
        raise UsageError(
            f"model {name}: predict returned {type(prediction).__name__}, expected a Prediction", _wrapped(prediction)
        )
    for field in (*_FIELDS, "scores", "labels"):
        value = getattr(prediction, field)
        if isinstance(value, Tensor) and value.layout != torch.strided:
            raise UsageError(f"model {name}: Prediction.{field} is a sparse tensor", f"give {field}.to_dense()")
    return prediction


def _wrapped(answer: object) -> str:
    """How to make a `Prediction` of something else."""
    if answer is None:
        return "does predict end without a return?"
    if isinstance(answer, Mapping):
        return "give Prediction(**answer), with the names of its fields"
    if isinstance(answer, Tensor | np.ndarray):
        return "give Prediction(masks=answer, mask_source=...)"
    return "name its parts, Prediction(masks=..., slots=...)"


def flattened(height: int, width: int) -> str:
    """What to say about maps that are one row, one column or a strip; empty for others.

    Models see square images, and maps are stretched to the image: a strip would be, too.
    """
    short, long = sorted((height, width))
    if long <= 16 * short and not short == 1 < long:
        return ""
    return f"maps of {height} x {width} are flattened, or a strip, though images are square; reshape them to (h, w)"


def misplaced(field: str, what: str, shape: Sequence[int]) -> str:
    """What to say about maps (B, C, h, w) that look like (B, h, w, C), or flattened; empty for others.

    Two equal axes before another one are the grid: models see square images, on which a grid is square.

    Args:
        field: name of the field.
        what: what its channels are, for the message.
        shape: (B, C, h, w).
    """
    _, first, second, third = shape
    if first == second != third > 1:
        return f"it looks like {what} last; give {field}.permute(0, 3, 1, 2)"
    return flattened(second, third)


def missing(prediction: Prediction, name: str, field: str, need: str) -> NotApplicableError:
    """The error for a missing field.

    Args:
        prediction: the prediction; the message lists the fields that it has.
        name: name of the model.
        field: the missing field.
        need: what the task needs, as a clause that ends the message.
    """
    present = [known for known in _FIELDS if getattr(prediction, known) is not None]
    got = ", ".join(present) or "nothing"
    return NotApplicableError(f"model {name}: Prediction.{field} is missing (got {got})", need)


def check_field(
    prediction: Prediction, field: str, shape: tuple[int | None, ...], name: str, *, least: int = 1
) -> Tensor:
    """Return a field if it is a floating tensor of the given shape.

    Args:
        prediction: the prediction.
        field: name of the field.
        shape: required shape; None stands for any length.
        name: name of the model, for messages.
        least: smallest allowed length of every dimension.

    Raises:
        UsageError: the field is not a floating tensor of this shape.
    """
    value = getattr(prediction, field)
    if not isinstance(value, Tensor):
        raise UsageError(
            f"model {name}: Prediction.{field} is {type(value).__name__}, expected a torch.Tensor",
            as_tensor(field, value),
        )
    fits = value.ndim == len(shape) and all(
        length >= least and wanted in (None, length) for length, wanted in zip(value.shape, shape, strict=True)
    )
    if not fits or not value.is_floating_point():
        wanted_text = ", ".join("*" if length is None else str(length) for length in shape)
        raise UsageError(
            f"model {name}: Prediction.{field} has shape {tuple(value.shape)} and dtype {value.dtype}, expected "
            f"floating ({wanted_text})",
            "" if value.is_floating_point() else f"give {field}.float()",
        )
    if value.ndim == 4 and (remedy := misplaced(field, "the features", value.shape)):
        raise UsageError(f"model {name}: Prediction.{field} has shape {tuple(value.shape)}", remedy)
    return value


def check_video_slots(prediction: Prediction, size: int, name: str) -> Tensor:
    """Return the slots (T, K, D) float32 of one video.

    Args:
        prediction: its `slots` are (1, T, K, D).
        size: T.
        name: name of the model, for messages.

    Raises:
        UsageError: the slots are not of this shape.
    """
    slots = prediction.slots
    if not isinstance(slots, Tensor) or slots.ndim != 4 or len(slots) != 1:
        got = tuple(slots.shape) if isinstance(slots, Tensor) else type(slots).__name__
        raise UsageError(f"model {name}: Prediction.slots is {got}, expected for one video (1,{size},K,D)")
    of_frames = replace(prediction, slots=slots[0])
    return check_field(of_frames, "slots", (size, None, None), name).detach().float()


def check_alike(field: str, found: Sequence[int], other: Sequence[int]) -> None:
    """Require features of one image to be as long as those of the others, on which a head is or was fitted.

    NumPy and torch would repeat an axis of length 1 and say nothing.

    Args:
        field: name of the field.
        found: its shape for one image, or the part of it that must be equal.
        other: the same of another image.

    Raises:
        UsageError: the two differ.
    """
    if tuple(found) != tuple(other):
        one, another = (" x ".join(map(str, shape)) for shape in (found, other))
        raise UsageError(
            f"Prediction.{field} has {one} numbers for one image and {another} for another; a head needs as many for "
            "every image"
        )


def as_tensor(field: str, value: object) -> str:
    """How to make one tensor of a field that is something else."""
    if isinstance(value, np.ndarray):
        return f"give torch.from_numpy({field})"
    if not isinstance(value, list | tuple):
        return "give one tensor for the batch"
    if len({getattr(one, "shape", None) for one in value}) > 1:
        return "its entries have several shapes: pad or resize them to one, then stack them"
    arrays = bool(value) and isinstance(value[0], np.ndarray)
    return f"give torch.from_numpy(np.stack({field}))" if arrays else f"give torch.stack({field})"


def finite_rows(*fields: Tensor | None) -> np.ndarray:
    """(B,) bool: the images for which all given fields are finite. Fields that are None are ignored."""
    rows = [torch.isfinite(field.detach()).flatten(1).all(1).cpu().numpy() for field in fields if field is not None]
    return np.logical_and.reduce(rows)

"""A plain `nn.Module` as a model: it is called with the images, and its masks are found in what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from torch import nn

from ..core.errors import UsageError
from ..core.types import Batch, Prediction

MasksFrom: TypeAlias = str | int | Callable[[Any], Any]
"""Where masks are in an output: a key, an attribute or an index, several of them with dots between, or a function."""


class WithMasks(nn.Module):
    """Calls a module with images (B, 3, H, W), float32 in [0, 1], and takes the masks from its output.

    The masks are those of `Prediction.masks`: weights (B, K, h, w) in [0, 1], or label maps. A function can bring
    others into this form, such as `lambda output: output["logits"].softmax(1)`. The attributes `input_size`,
    `supervision`, `privilege` and `mask_source` are those of the module, where it has them.

    Args:
        module: the module; normalising the images is its business.
        masks_from: where the masks are.

    Raises:
        UsageError: what is given is no live module.
    """

    def __init__(self, module: nn.Module, masks_from: MasksFrom) -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            raise UsageError(f"masks_from is for a live nn.Module, not for {module!r}", "leave it out")
        self.module, self.masks_from = module, masks_from
        self.name = getattr(module, "name", None) or type(module).__name__
        for attribute in ("input_size", "supervision", "privilege"):
            if hasattr(module, attribute):
                setattr(self, attribute, getattr(module, attribute))

    def predict(self, batch: Batch) -> Prediction:
        """The masks that the module gives for a batch. Raises UsageError where there are none."""
        output = self.module(batch.image)
        if callable(self.masks_from):
            masks = self.masks_from(output)
        else:
            masks = output
            for part in str(self.masks_from).split("."):
                masks = _part(masks, part, f"model {self.name}: masks_from={self.masks_from!r}")
        return Prediction(masks=masks, mask_source=getattr(self.module, "mask_source", "none"))


def _part(value: Any, part: str, subject: str) -> Any:
    """A value of a mapping or a sequence, or an attribute. Raises UsageError that says what there is."""
    if isinstance(value, Mapping):
        keys: Mapping[Any, Any] = {str(key): key for key in value}
        if part in keys:
            return value[keys[part]]
        raise UsageError(f"{subject}: there is no '{part}' in the output; its keys are {', '.join(keys) or 'none'}")
    if isinstance(value, tuple | list) and part.removeprefix("-").isdigit():
        if -len(value) <= int(part) < len(value):
            return value[int(part)]
        raise UsageError(f"{subject}: the output has {len(value)} entries, counted from 0")
    if not hasattr(value, part):
        raise UsageError(f"{subject}: the output, {type(value).__name__}, has no '{part}'")
    return getattr(value, part)

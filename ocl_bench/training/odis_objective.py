"""The objective of ODIS (arXiv:2506.05409): views of one object get the same [OBJ] token, which attends to its box.

The training uses boxes but no classes. Without boxes the same objective trains iBOT (arXiv:2111.07832) and DINO. Images
are rendered scenes, which are cropped on the model's device, or images of any reader, which Pillow crops. In both cases
views, looks and hidden patches are pure functions of (seed, step, sample).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from ..core.errors import UsageError
from ..core.schedules import sample_indices, stream_seed
from ..models.layers.normalisation import normalise
from ..models.layers.patches import patches_of_boxes
from ..models.odis import Views
from ..models.ranks import RankOps
from .batched_views import recoloured, sampled_crops
from .crops import Looks, apply_looks, draw_uniform, resized_crops
from .lars import teacher_momentum
from .object_crops import CropOptions, ObjectCrops, draw_object_looks
from .parts import part
from .patch_masks import PatchMaskOptions, draw_patch_masks
from .ranks import Ranks
from .validation import ValidatedObjective

_COUNTS = ("images", "without_box", "missed", "redraws", "boxes_left_out", "boxes_inverted", "boxes_thin")
"""Counts in the log: images, images without a usable box, images whose object is missing in a global view, redraws of
global crops, boxes that were left out, boxes whose corners were swapped, images with a box thinner than a patch."""


class OdisOptions(BaseModel):
    """Options of `train.objective` for the kind `odis`.

    Attributes:
        boxes: Use the boxes of the training images; False for iBOT and DINO.
        images: `scenes` trains on the rendered scenes of the recipe, `reader` on the images of the task.
        split: Split of the reader.
        boxes_file: Table of boxes, instead of those of the reader.
        crops: How views are cropped.
        looks: How strongly the colours of views change.
        views: `exact` cuts and colours views as Pillow and torchvision do; `batched` is several times faster on a CPU,
            without blur and solarisation (`batched_views`). Images of a reader are cut exactly in both.
        hidden: How many patches are hidden from the student.
        margin: Number of patches around the box that still belong to the object.
        local_present: Which local views take part in the object loss: those that show a pixel of the object's box
            (`seen`), or all (`always`).
        momentum: Momentum of the teacher at the first step; it grows to 1 at the last one.
        repeat: How often each image is in a batch. Each copy has its own object and views.
        bank: Number of training images that vote in the k-NN validation.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["odis"]
    boxes: bool = True
    images: Literal["scenes", "reader"] = "scenes"
    split: str = "train"
    boxes_file: str | None = None
    crops: CropOptions = CropOptions()
    looks: Looks = Looks()
    views: Literal["exact", "batched"] = "exact"
    hidden: PatchMaskOptions = PatchMaskOptions()
    margin: int = Field(default=0, ge=0)
    local_present: Literal["seen", "always"] = "always"
    momentum: float = Field(default=0.996, ge=0, le=1)
    repeat: int = Field(default=1, ge=1)
    bank: int = Field(default=1008, gt=0)

    @model_validator(mode="after")
    def _batched_views_are_plain(self) -> Self:
        blurred = (*self.looks.blur, *self.looks.solarise, self.crops.local_blur if self.crops.locals else 0.0)
        if self.views == "batched" and any(blurred):
            raise ValueError("views: batched has no blur and no solarisation; set looks.blur, looks.solarise to [0, 0]")
        return self

    def images_of(self, batch: int) -> int:
        """Number of different images in a batch. Raises UsageError unless `repeat` divides the batch."""
        if batch % self.repeat:
            raise UsageError(f"field 'train.objective.repeat': {self.repeat} does not divide batch {batch}; change one")
        return batch // self.repeat


class OdisSource(Protocol):
    """Images to train on."""

    def __len__(self) -> int: ...

    def crops(
        self, indices: np.ndarray, uniform: np.ndarray, options: CropOptions, patch: int
    ) -> tuple[dict[str, Tensor], ObjectCrops]:
        """Crop the chosen images.

        Args:
            indices: (B,) numbers of the images.
            uniform: (B, options.columns) rows of `draw_uniform`.
            options: How to crop.
            patch: Side of a patch in pixels of the view.

        Returns:
            The tensors from which `OdisObjective.views` makes views, one row per image, and the drawn crops.
        """
        ...


@dataclass
class OdisObjective(ValidatedObjective):
    """Trains an `Odis` model.

    Attributes:
        source: Images to train on.
        options: Options of the recipe.
        seed: Seed of the training.
        batch_size: Images per step, all ranks and repetitions together.
        patch: Side of the model's patches in pixels.
        objects: Number of [OBJ] tokens.
        steps: Steps of the whole training.
        validator: Returns the validation numbers of a model.
        ranks: Device and processes.
        note: One line that describes the images.
    """

    source: OdisSource
    options: OdisOptions
    seed: int
    batch_size: int
    patch: int
    objects: int
    steps: int
    validator: Callable[[nn.Module], dict[str, float]]
    ranks: Ranks
    note: str = ""

    def __post_init__(self) -> None:
        self.options.images_of(self.batch_size)

    def batch(self, step: int) -> dict[str, Any]:
        """Images with geometry and looks of all views, object masks and hidden patches, one row per image."""
        crops = self.options.crops
        indices, draws = self._drawn(step)
        uniform = draw_uniform(self.seed, step, draws, crops.columns, "object-crops")
        pixels, drawn = self.source.crops(indices, uniform, crops, self.patch)
        covered = patches_of_boxes(drawn.boxes, (crops.size, crops.size), self.patch, self.options.margin)
        present = drawn.present
        if self.options.local_present == "always":
            present = torch.cat([present[:, :2], (drawn.target >= 0)[:, None].expand(-1, crops.locals)], dim=1)
        # One column for each name in `_COUNTS`, in that order.
        counts = [
            torch.ones_like(drawn.target),
            drawn.target < 0,
            (drawn.target >= 0) & ~drawn.present[:, :2].all(1),
            drawn.tries.sum(1) - 2,
            drawn.unusable,
            drawn.inverted,
            covered.thin.any(1),
        ]
        return {
            **pixels,
            "looks": draw_object_looks(uniform, crops, self.options.looks),
            "objects": covered.patches[:, :, None].expand(-1, -1, self.objects, -1),
            "present": present,
            "hidden": draw_patch_masks(self.seed, step, draws, 2, crops.size // self.patch, self.options.hidden),
            "counts": torch.stack([count.long() for count in counts], dim=1),
        }

    def _drawn(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the images of a batch, and numbers for their random streams.

        Each copy of a repeated image has its own stream; the first copy has that of the image itself.
        """
        repeat, count = self.options.repeat, len(self.source)
        images = sample_indices(self.seed, step, self.options.images_of(self.batch_size), count)
        return np.tile(images, repeat), np.concatenate([images + count * number for number in range(repeat)])

    @torch.no_grad()
    def views(self, inputs: dict[str, Any]) -> Views:
        """Views of a batch, on its device, in the form that the model's loss expects."""
        crops = self.options.crops
        sides = [crops.size] * 2 + [crops.local_size] * crops.locals
        pixels = [normalise(self._view(inputs, number, side)) for number, side in enumerate(sides)]
        none = pixels[0].new_zeros(0, *pixels[0].shape[:2], crops.local_size, crops.local_size)
        return Views(
            torch.stack(pixels[:2]),
            torch.stack(pixels[2:]) if crops.locals else none,
            inputs["objects"].transpose(0, 1),
            inputs["present"].transpose(0, 1),
            inputs["hidden"].transpose(0, 1),
        )

    def _view(self, inputs: dict[str, Any], number: int, side: int) -> Tensor:
        """One view (B, 3, side, side) in [0, 1]: cropped here from whole images, or already cropped by Pillow."""
        if self.options.views == "batched" and self.options.images == "scenes":
            place = inputs["crops"][:, number], inputs["flips"][:, number]
            return recoloured(sampled_crops(inputs["image"], *place, side), inputs["looks"][:, number])
        if "image" in inputs:
            pixels = resized_crops(inputs["image"], inputs["crops"][:, number], inputs["flips"][:, number], side)
        elif number < 2:
            pixels = inputs["globals"][:, number].float()
        else:
            pixels = inputs["locals"][:, number - 2].float()
        return apply_looks(pixels / 255, inputs["looks"][:, number])

    def loss(self, model: nn.Module, inputs: dict[str, Any], step_fraction: float) -> dict[str, Tensor]:
        """Loss terms of the model, and the counts of `_COUNTS`."""
        step = round(step_fraction * self.steps)
        torch.manual_seed(stream_seed(self.seed, f"drop-path-{self.ranks.rank}", step))  # no checkpoint stores it
        with part("augmentation"):
            views = self.views(inputs)
        terms: dict[str, Tensor] = model.loss(  # type: ignore[operator]
            views,
            epoch=step * self.batch_size / len(self.source),
            momentum=teacher_momentum(step_fraction, 1, self.options.momentum),
            ranks=RankOps(self.ranks.size, self.ranks.rank, self.ranks.gather_all, self.ranks.mean),
        )
        totals = inputs["counts"].sum(0)
        names = _COUNTS if self.options.boxes else _COUNTS[:1]
        return {**terms, **{f"count_{name}": total for name, total in zip(names, totals, strict=False)}}

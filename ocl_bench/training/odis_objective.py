"""What ODIS learns (arXiv:2506.05409): views of one object agree, told by an [OBJ] token that attends within its box.

Boxes are seen, classes are not. The same objective without boxes trains iBOT (arXiv:2111.07832) and DINO. Images are
rendered scenes, which are cropped on the model's device, or those of any reader, which Pillow crops. Either way views,
looks and hidden patches are pure functions of (seed, step, sample).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from ..core.errors import UsageError
from ..core.schedules import sample_indices, stream_seed
from ..models.layers.normalisation import normalise
from ..models.layers.patches import patches_of_boxes
from ..models.odis import Views
from ..models.ranks import RankOps
from .crops import Looks, apply_looks, draw_uniform, resized_crops
from .lars import teacher_momentum
from .object_crops import CropOptions, ObjectCrops, draw_object_looks
from .patch_masks import PatchMaskOptions, draw_patch_masks
from .ranks import Ranks


class OdisOptions(BaseModel):
    """Options of `train.objective` for the kind `odis`.

    boxes: whether the boxes of the training images are seen; False for iBOT and DINO. images: `scenes` (those of the
    recipe) or `reader` (those of the task). split: of the reader. boxes_file: table of boxes in place of the reader's
    own. margin: patches around the box that still belong to the object. local_present: a local view takes part in the
    object loss where it shows a pixel of the object's box (`seen`), or always (`always`). momentum: of the teacher at
    the first step, 1 at the last one. repeat: how often each image is in a batch, every time with an object and views
    of its own. bank: images of the training that k-NN votes with in validation.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["odis"]
    boxes: bool = True
    images: Literal["scenes", "reader"] = "scenes"
    split: str = "train"
    boxes_file: str | None = None
    crops: CropOptions = CropOptions()
    looks: Looks = Looks()
    hidden: PatchMaskOptions = PatchMaskOptions()
    margin: int = Field(default=0, ge=0)
    local_present: Literal["seen", "always"] = "always"
    momentum: float = Field(default=0.996, ge=0, le=1)
    repeat: int = Field(default=1, ge=1)
    bank: int = Field(default=1008, gt=0)

    def images_of(self, batch: int) -> int:
        """How many images are in a batch. Raises UsageError for one that is not made of whole repetitions."""
        if batch % self.repeat:
            raise UsageError(f"field 'train.objective.repeat': {self.repeat} does not divide batch {batch}")
        return batch // self.repeat


class OdisSource(Protocol):
    """Images to train on."""

    def __len__(self) -> int: ...

    def crops(
        self, indices: np.ndarray, uniform: np.ndarray, options: CropOptions, patch: int
    ) -> tuple[dict[str, Tensor], ObjectCrops]:
        """What `OdisObjective.views` needs of these images, one row each, and their crops."""
        ...


@dataclass
class OdisObjective:
    """Trains an `Odis`. patch: side of its patches. objects: number of [OBJ] tokens. steps: of the whole training.

    validator(model) returns the validation numbers. note: one line about the images.
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

    @property
    def identity(self) -> dict[str, Any]:
        """What makes it another training, besides the recipe: the images."""
        return {"data": self.note}

    def batch(self, step: int) -> dict[str, Any]:
        """Images with geometry and looks of all views, object masks, hidden patches; one row per image."""
        crops = self.options.crops
        indices, draws = self._drawn(step)
        uniform = draw_uniform(self.seed, step, draws, crops.columns, "object-crops")
        pixels, drawn = self.source.crops(indices, uniform, crops, self.patch)
        covered = patches_of_boxes(drawn.boxes, (crops.size, crops.size), self.patch, self.options.margin)
        present = drawn.present
        if self.options.local_present == "always":
            present = torch.cat([present[:, :2], (drawn.target >= 0)[:, None].expand(-1, crops.locals)], dim=1)
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
            "counts": torch.stack([one.long() for one in counts], dim=1),
        }

    def _drawn(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Images of a batch, and numbers for their random draws: a repeated image has another one each time."""
        repeat, count = self.options.repeat, len(self.source)
        images = sample_indices(self.seed, step, self.options.images_of(self.batch_size), count)
        return np.tile(images, repeat), np.concatenate([images + count * number for number in range(repeat)])

    @torch.no_grad()
    def views(self, inputs: dict[str, Any]) -> Views:
        """The views of a batch on its device, as the model's loss takes them."""
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
        if "image" in inputs:
            pixels = resized_crops(inputs["image"], inputs["crops"][:, number], inputs["flips"][:, number], side)
        elif number < 2:
            pixels = inputs["globals"][:, number].float()
        else:
            pixels = inputs["locals"][:, number - 2].float()
        return apply_looks(pixels / 255, inputs["looks"][:, number])

    def loss(self, model: nn.Module, inputs: dict[str, Any], step_fraction: float) -> dict[str, Tensor]:
        """The model's own terms and counts.

        Counted are images, images without a usable box, images whose object is missing in a global view, redraws of
        global crops, boxes left out, boxes with swapped corners, and images with a box thinner than a patch.
        """
        step = round(step_fraction * self.steps)
        torch.manual_seed(stream_seed(self.seed, f"drop-path-{self.ranks.rank}", step))  # not kept in checkpoints
        terms: dict[str, Tensor] = model.loss(  # type: ignore[operator]
            self.views(inputs),
            epoch=step * self.batch_size / len(self.source),
            momentum=teacher_momentum(step_fraction, 1, self.options.momentum),
            ranks=RankOps(self.ranks.size, self.ranks.rank, self.ranks.gather_all, self.ranks.mean),
        )
        names = ("images", "without_box", "missed", "redraws", "boxes_left_out", "boxes_inverted", "boxes_thin")
        totals = inputs["counts"].sum(0)
        chosen = names if self.options.boxes else names[:1]
        return {**terms, **{f"count_{name}": total for name, total in zip(chosen, totals, strict=False)}}

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Numbers on images that are not trained on."""
        return self.validator(model)

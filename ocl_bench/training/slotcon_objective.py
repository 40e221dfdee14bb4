"""The objective of SlotCon (arXiv:2205.15288): two crops of an image agree on the part that both show, without labels.

Images are rendered scenes, which are cropped on the model's device, or images of any reader, which Pillow crops as in
the official code. In both cases the crops and their looks are pure functions of (seed, step, sample).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from ..cards.protocols import Protocol as Rules
from ..cards.protocols import SegmentationProtocol
from ..core.schedules import sample_indices
from ..core.types import Batch, Sample
from ..data.base import OpenData
from ..data.transforms import prepare
from ..families.discovery import label_map
from ..metrics import semantic
from ..models.layers.normalisation import normalise
from ..models.ranks import RankOps
from .crops import CropPairs, Looks, apply_looks, draw_looks, draw_pairs, draw_uniform, pillow_crop, resized_crops
from .data import PaddedImages, reader_pool
from .lars import teacher_momentum
from .parts import part
from .ranks import Ranks
from .validation import ValidatedObjective

STAND_IN_CLASSES = 27
"""Number of classes of the rendered scenes, for tasks that do not define classes."""

WINNER = 1e-3
"""A prototype counts as used if it wins more than this share of the validation pixels."""


class SlotConOptions(BaseModel):
    """Options of `train.objective` for the kind `slotcon`.

    Attributes:
        images: `scenes` trains on the rendered scenes of the recipe, `reader` on the images of the task.
        split: Split of the reader.
        crop: Side of the views in pixels.
        min_scale: Smallest share of an image's area in a view.
        momentum: Momentum of the teacher at the first step; it grows to 1 at the last one.
        looks: How strongly the colours of views change.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["slotcon"]
    images: Literal["scenes", "reader"] = "scenes"
    split: str = "train"
    crop: int = Field(default=224, ge=16)
    min_scale: float = Field(default=0.08, gt=0, le=1)
    momentum: float = Field(default=0.99, ge=0, le=1)
    looks: Looks = Looks()


Crops = tuple[dict[str, Tensor], CropPairs]
"""Tensors from which `SlotConObjective.views` makes views, one row per image, and the geometry of the crops."""


class SlotConSource(Protocol):
    """Images to train on."""

    def __len__(self) -> int: ...

    def crops(self, indices: np.ndarray, uniform: np.ndarray, options: SlotConOptions) -> Crops:
        """Two crops of each chosen image.

        Args:
            indices: (B,) numbers of the images.
            uniform: (B, COLUMNS) rows of `draw_uniform`.
            options: How to crop.
        """
        ...


@dataclass(frozen=True)
class SceneSource:
    """Scenes in one padded array: whole images go to the device and are cropped there."""

    images: PaddedImages

    def __len__(self) -> int:
        return len(self.images)

    def crops(self, indices: np.ndarray, uniform: np.ndarray, options: SlotConOptions) -> Crops:
        """Return `image` (B, 3, S, S) uint8 and `crops` (B, 2, 4), and the geometry."""
        pairs = draw_pairs(uniform, self.images.sizes[indices].numpy(), options.min_scale)
        return {"image": self.images.images[indices], "crops": pairs.crops}, pairs


@dataclass(frozen=True)
class ReaderSource:
    """Images of any size from a reader, decoded and cropped by Pillow in threads. A broken file raises SampleError."""

    data: OpenData
    pool: ThreadPoolExecutor = field(default_factory=reader_pool)

    def __len__(self) -> int:
        return len(self.data)

    def crops(self, indices: np.ndarray, uniform: np.ndarray, options: SlotConOptions) -> Crops:
        """Return `views` (B, 2, 3, crop, crop) uint8, and the geometry."""
        images = list(self.pool.map(lambda index: self.data.reader[int(index)].image, indices))
        pairs = draw_pairs(uniform, np.array([image.shape[:2] for image in images]), options.min_scale)

        def cut_views(row: int) -> Tensor:
            """The two views of one image."""
            geometry = zip(pairs.crops[row], pairs.flips[row].tolist(), strict=True)
            return torch.stack([pillow_crop(images[row], crop, flip, options.crop) for crop, flip in geometry])

        return {"views": torch.stack(list(self.pool.map(cut_views, range(len(images)))))}, pairs


@dataclass
class SlotConObjective(ValidatedObjective):
    """Trains a `SlotCon` model.

    Attributes:
        source: Images to train on.
        options: Options of the recipe.
        seed: Seed of the training.
        batch_size: Images per step, all ranks together.
        validator: Returns the validation numbers of a model.
        ranks: Device and processes.
        note: One line that describes the images.
    """

    source: SlotConSource
    options: SlotConOptions
    seed: int
    batch_size: int
    validator: Callable[[nn.Module], dict[str, float]]
    ranks: Ranks
    note: str = ""

    def batch(self, step: int) -> dict[str, Any]:
        """Images with the geometry and the looks of two views each. Every tensor has one row per image."""
        indices = sample_indices(self.seed, step, self.batch_size, len(self.source))
        uniform = draw_uniform(self.seed, step, indices)
        pixels, pairs = self.source.crops(indices, uniform, self.options)
        looks = [draw_looks(uniform, view, self.options.looks) for view in range(2)]
        geometry = {"flips": pairs.flips, "boxes": pairs.boxes, "apart": pairs.apart}
        return {**pixels, **geometry, "looks": torch.stack(looks, dim=1)}

    def views(self, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Two normalised views (B, 3, crop, crop) of each image of a batch, on the device of the batch."""
        first, second = (self._view(inputs, number) for number in range(2))
        return first, second

    @torch.no_grad()
    def _view(self, inputs: dict[str, Any], number: int) -> Tensor:
        """One view of each image: cropped here from whole images, or already cropped by Pillow."""
        if "views" in inputs:
            pixels = inputs["views"][:, number].float()
        else:
            crops, flips = inputs["crops"][:, number], inputs["flips"][:, number]
            pixels = resized_crops(inputs["image"], crops, flips, self.options.crop)
        return normalise(apply_looks(pixels / 255, inputs["looks"][:, number]))

    def loss(self, model: nn.Module, inputs: dict[str, Any], step_fraction: float) -> dict[str, Tensor]:
        """Loss terms of the model. Counts are pairs of crops without overlap, and directions without shared slots."""
        ranks = self.ranks
        with part("augmentation"):
            views = self.views(inputs)
        terms: dict[str, Tensor] = model.loss(  # type: ignore[operator]
            views,
            inputs["boxes"].unbind(1),
            inputs["flips"].unbind(1),
            momentum=teacher_momentum(step_fraction, 1, self.options.momentum),
            ranks=RankOps(ranks.size, ranks.rank, ranks.gather_all, ranks.mean),
        )
        terms["count_apart"] = inputs["apart"].sum()
        if "without_slots" in terms:  # every rank has the count of all ranks, and the log sums over ranks
            terms["count_without_slots"] = terms.pop("without_slots") / ranks.size
        return terms


def validate_vocabulary(
    model: Any, *, samples: Sequence[Sample], rules: Rules, device: str, batch: int = 16
) -> dict[str, float]:
    """Scores how well prototypes correspond to classes under a task's protocol, as the segmentation tasks do.

    Args:
        model: A model with `predict` and `input_size`.
        samples: Validation images, with or without class maps.
        rules: Protocol of the task.
        device: Device of the model.
        batch: Images per forward pass.

    Returns:
        `miou_sem` and `pixel_acc` after one matching of prototypes to classes over all images, if there are class maps;
        with the suffix `_majority`, and each prototype named by majority, if there are more prototypes than classes.
        `prototypes` is the number of prototypes that are used.
    """
    size, matrix, pixels_won = model.input_size, None, None
    classes = rules.classes if isinstance(rules, SegmentationProtocol) else STAND_IN_CLASSES
    for first in range(0, len(samples), batch):
        chosen = [samples[position] for position in range(first, min(first + batch, len(samples)))]
        items = [prepare(sample, rules, size) for sample in chosen]
        images = torch.stack([image for image, _ in items]).to(device)
        masks = model.predict(Batch(tuple(sample.id for sample in chosen), images)).masks
        for mask, (_, truth) in zip(masks, items, strict=True):
            ids = label_map(mask, truth.labels.shape)
            count = np.bincount(ids.ravel(), minlength=len(mask))
            pixels_won = count if pixels_won is None else pixels_won + count
            if truth.classes is not None:
                table = semantic.confusion(truth.classes, ids, classes, len(mask), ignore_index=None)
                matrix = table if matrix is None else matrix + table
    numbers = {} if matrix is None else _segmentation_scores(matrix)
    if pixels_won is None:
        return numbers
    return {**numbers, "prototypes": float((pixels_won > WINNER * pixels_won.sum()).sum())}


def _segmentation_scores(matrix: np.ndarray) -> dict[str, float]:
    """Scores of a confusion matrix (classes, prototypes) after prototypes are assigned to classes."""
    classes, clusters = matrix.shape
    suffix = "" if clusters <= classes else "_majority"
    named = semantic.match_clusters(matrix) if clusters <= classes else semantic.majority(matrix)
    scores = {"miou_sem": semantic.miou_sem(named), "pixel_acc": semantic.pixel_acc(named)}
    return {f"{name}{suffix}": float(value) for name, value in scores.items()}

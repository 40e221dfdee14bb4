"""The containers that travel along the corridor: Sample, Truth, Batch, Prediction.

All are frozen dataclasses. Shapes use B images, K slots, D channels, T frames, and H x W pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

VOID = -1
"""Label of a pixel without annotation."""
OVERLAP = -2
"""Label of a pixel that two or more objects claim."""

MaskSource = Literal["decoder", "attention", "clusters", "prototypes", "truth", "none"]
"""Where masks come from. Slot k of `prototypes` means the same in every image (SlotCon); others are unordered."""


@dataclass(frozen=True)
class Instance:
    """One annotated object in pixels of the whole image; objects may overlap.

    category: the data set's own id. box: x0, y0, x1, y1. mask: COCO run-length code
    `{"size": [H, W], "counts": bytes}`, or None for a box without a mask. area: in pixels, as annotated (COCO's size
    classes use it). crowd: a region of many objects, which detection neither asks for nor punishes.
    """

    category: int
    box: tuple[float, float, float, float]
    mask: dict[str, Any] | None
    area: float
    crowd: bool = False


@dataclass(frozen=True)
class Truth:
    """What an image really shows. It stays with the adapter and never enters a `Batch`.

    labels: (H, W) int16. 0 is background, 1.. are objects, `VOID` (-1) and `OVERLAP` (-2) are special.
    categories: category id of object i at index i - 1, or empty when the data set has none.
    classes: (H, W) int16 class index 0.. of each pixel, `VOID` where none is annotated; None without semantic truth.
    instances: annotated objects of the whole, uncropped image, for detection. Those whose category is `label` are the
        boxes that a task card may grant to models.
    label: class index of the whole image, None where it has none.
    """

    labels: np.ndarray
    categories: tuple[int, ...] = ()
    classes: np.ndarray | None = None
    instances: tuple[Instance, ...] = ()
    label: int | None = None


@dataclass(frozen=True)
class Sample:
    """One image as its reader returns it, before the protocol touches it.

    image: (H, W, 3) uint8 RGB. truth: label map of the same size.
    """

    id: str
    image: np.ndarray
    truth: Truth


@dataclass(frozen=True)
class Video:
    """One video as its reader returns it. Nothing is read before `frames[t]` is, so a long video costs no memory.

    frames: sample t has the id of the video; a label of its truth means the same object in all frames.
    Reading a frame raises SampleError with the id of the video when it is missing, broken or of another size.
    names: of the frames, without suffix; predictions are kept under them.
    """

    id: str
    frames: Sequence[Sample]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Batch:
    """What a model sees.

    image: (B, 3, H, W) float32 in [0, 1], un-normalised, cropped and resized by the protocol; the first frames of
        `video` where there is one.
    video: (B, T, 3, H, W), only for models with `reads_video`; other models get frames as images.
    start: number of the first frame of `video` in its video: a long video comes in several batches.
    state: what the model returned as `Prediction.state` for the preceding frames, None for the first ones.
    boxes: one (N, 4) float32 tensor per image, xyxy pixels of `image`, only where the task card grants them; (0, 4)
        where an image has none, which is to be read as the whole image.
    noise_seed: seed of the slot noise; use `noise()` rather than the global generator.
    any_of: fields of `Prediction` of which only the first that the model has will be read; a model may leave the others
        out. Empty: all may be.
    """

    ids: tuple[str, ...]
    image: Tensor
    video: Tensor | None = None
    boxes: tuple[Tensor, ...] | None = None
    noise_seed: int = 0
    start: int = 0
    state: Any = None
    any_of: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def asks_only_for(self, field: str, others: Sequence[str]) -> bool:
        """Whether `field` is all that will be read of a model that has it and `others`."""
        return next((name for name in self.any_of if name in (field, *others)), None) == field

    def noise(self, *shape: int, stream: str = "slots") -> Tensor:
        """Standard normal noise (B, *shape) float32 on the CPU.

        Row b depends only on (noise_seed, stream, ids[b]), so a prediction does not change with the order of the
        samples, the batch, the worker or the rank.
        """
        return torch.stack([_sample_noise(self.noise_seed, stream, i, shape) for i in self.ids])


def _sample_noise(seed: int, stream: str, sample_id: str, shape: Sequence[int]) -> Tensor:
    digest = hashlib.blake2b(f"{seed}|{stream}|{sample_id}".encode(), digest_size=8).digest()
    generator = torch.Generator("cpu").manual_seed(int.from_bytes(digest, "little") % (2**63))
    return torch.randn(tuple(shape), generator=generator)


@dataclass(frozen=True)
class Prediction:
    """What a model returns. Every field is optional; an adapter names the fields that it needs.

    masks: (B, K, h, w) soft masks (any grid, upsampled bilinearly, then argmax) or (B, H, W) integer label maps.
        For a batch with `video`: (B, T, K, h, w) or (B, T, H, W), where a slot means the same object in all frames.
    mask_source: where the masks come from; it is printed in the signature.
    slots: (B, K, D). tokens: (B, D, h, w) dense features. embedding: (B, D), one vector per image.
    embedding_source: how the embedding was pooled (`cls`, `slots:max`, ...); it is printed in the signature.
    state: anything that the model wants back as `Batch.state` with the next frames of the same video.
    link: what slots were linked over time by, `slots` or `masks`, where the model looked at each frame alone.
    granted: the batch's boxes, put here by the runner for the adapter.
    classes: (B, C, h, w) class scores or (B, H, W) integer class maps of a model that names classes itself.
    boxes: (B, N, 4) xyxy pixels of the batch's images, scores: (B, N), labels: (B, N) category ids; NaN boxes are none.
    """

    masks: Tensor | None = None
    mask_source: MaskSource = "none"
    slots: Tensor | None = None
    tokens: Tensor | None = None
    embedding: Tensor | None = None
    boxes: Tensor | None = None
    scores: Tensor | None = None
    labels: Tensor | None = None
    classes: Tensor | None = None
    extra: dict[str, Tensor] = field(default_factory=dict)
    embedding_source: str = "embedding"
    state: Any = None
    link: str = ""
    granted: tuple[Tensor, ...] | None = None


@runtime_checkable
class Model(Protocol):
    """Anything with this method is a model. There is no base class.

    Optional attributes: `input_size` (int, else the card's `input` is used), `supervision`, `privilege`,
    `needs_truth` (oracles only: `predict(batch, truth)` with one `Truth` per image), `reads_video` (it wants
    `batch.video`; else frames are given as images and its slots are linked), `whole_video` (it wants all frames of a
    video in one batch), `reads_boxes` (its embedding attends within `batch.boxes`).
    """

    def predict(self, batch: Batch) -> Prediction:
        """Predict for a batch; must not depend on the other samples of the batch."""
        ...

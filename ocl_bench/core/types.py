"""The containers that readers, models and families exchange: Sample, Truth, Batch, Prediction.

All are frozen dataclasses. Shapes use B images, K slots, D channels, T frames, and H x W pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np

from .questions import Answers, Question

if TYPE_CHECKING:  # torch takes more than a second, and boards need none of it
    from torch import Tensor

VOID = -1
"""Label of a pixel without annotation."""
OVERLAP = -2
"""Label of a pixel that two or more objects claim."""

MaskSource = Literal["decoder", "attention", "clusters", "prototypes", "truth", "none"]
"""Origin of masks. Slot k of `prototypes` means the same in every image (SlotCon); other slots are unordered."""


@dataclass(frozen=True)
class Instance:
    """One annotated object in pixels of the whole image; objects may overlap.

    Attributes:
        category: id of the data set.
        box: x0, y0, x1, y1.
        mask: COCO run-length code `{"size": [H, W], "counts": bytes}`, or None for a box without a mask.
        area: in pixels, as annotated; COCO's size classes use it.
        crowd: whether it is a region of many objects. Detection neither requires nor punishes its detections.
    """

    category: int
    box: tuple[float, float, float, float]
    mask: dict[str, Any] | None
    area: float
    crowd: bool = False


@dataclass(frozen=True)
class Truth:
    """The annotation of an image. It stays with the adapter and never enters a `Batch`.

    Attributes:
        labels: (H, W) int16: 0 is background, 1, 2, ... are objects; `VOID` (-1) and `OVERLAP` (-2) are special.
        categories: category id of object i at index i - 1; empty when the data set has none.
        classes: (H, W) int16 class index 0, 1, ... of each pixel, `VOID` for pixels without a class; None without
            semantic annotation.
        instances: annotated objects of the whole, uncropped image, for detection. A task card may grant models the
            boxes of those whose category is `label`.
        label: class index of the whole image; None when it has none.
        questions: about the video that the frame is of, with their answers.
        facts: reads what is true of this video (`data.clevrer.facts.Facts`); None where the data do not say it.
        locations: (G, 2) float64, where object i lies on the ground, at index i - 1, in units of the data set; NaN for
            one out of view. None where the data set does not say it.
        touched: the pairs of objects, the smaller label first, that have touched up to this frame of the video. None
            where the data set does not say it.
    """

    labels: np.ndarray
    categories: tuple[int, ...] = ()
    classes: np.ndarray | None = None
    instances: Sequence[Instance] = ()
    label: int | None = None
    questions: tuple[Question, ...] = ()
    facts: Callable[[], object] | None = None
    locations: np.ndarray | None = None
    touched: frozenset[tuple[int, int]] | None = None


@dataclass(frozen=True)
class Sample:
    """One image as its reader returns it, before the protocol crops or resizes it.

    Attributes:
        id: name of the image, unique in its split.
        image: (H, W, 3) uint8 RGB.
        truth: annotation of the same size.
        video: reads the video that the questions of the truth are about; None for a sample that has none.
    """

    id: str
    image: np.ndarray
    truth: Truth
    video: Callable[[], Video] | None = None


@dataclass(frozen=True)
class Video:
    """One video as its reader returns it. A frame is read when `frames[t]` is accessed: long videos take no memory.

    Attributes:
        id: name of the video, unique in its split.
        frames: sample t has the id of the video. A label of its truth means the same object in all frames. Accessing a
            frame that is missing, broken or of another size raises SampleError with the id of the video.
        names: names of the frames, without suffix; predictions are stored under them.
    """

    id: str
    frames: Sequence[Sample]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def part(self, numbers: Sequence[int]) -> Video:
        """The frames with these numbers as a video, read when asked for."""
        return Video(self.id, _SomeFrames(self.frames, numbers), tuple(self.names[number] for number in numbers))


@dataclass(frozen=True)
class _SomeFrames(Sequence[Sample]):
    frames: Sequence[Sample]
    numbers: Sequence[int]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: Any) -> Any:
        chosen = self.numbers[index]
        return self.frames[chosen] if isinstance(chosen, int) else [self.frames[one] for one in chosen]


@dataclass(frozen=True)
class Batch:
    """The input of a model.

    Attributes:
        ids: (B,) ids of the samples.
        image: (B, 3, H, W) float32 in [0, 1], not normalised, cropped and resized by the protocol. With `video` these
            are its first frames.
        video: (B, T, 3, H, W), only for models with `reads_video`; other models get frames as images.
        boxes: one (N, 4) float32 tensor for each image, xyxy pixels of `image`, only when the task card grants boxes.
            (0, 4) for an image without boxes: read it as the whole image.
        noise_seed: seed of the slot noise; use `noise()` and not the global generator.
        start: number of the first frame of `video` in its video: a long video comes in several batches.
        state: `Prediction.state` of the preceding frames of the same video; None for the first ones.
        any_of: fields of `Prediction`. Only the first of them that the model fills in is read; a model may leave out
            the others. When it is empty, every field may be read.
        questions: (B,) questions about each video, without answers, for tasks that ask some.
    """

    ids: tuple[str, ...]
    image: Tensor
    video: Tensor | None = None
    boxes: tuple[Tensor, ...] | None = None
    noise_seed: int = 0
    start: int = 0
    state: Any = None
    any_of: tuple[str, ...] = ()
    questions: tuple[tuple[Question, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def asks_only_for(self, field: str, others: Sequence[str]) -> bool:
        """Whether `field` is the only one that will be read from a model that fills in `field` and `others`."""
        return next((name for name in self.any_of if name in (field, *others)), None) == field

    def noise(self, *shape: int, stream: str = "slots") -> Tensor:
        """Standard normal noise `(B, *shape)`, float32 on the CPU.

        Row b depends only on (noise_seed, stream, ids[b]), so a prediction does not change with the order of the
        samples, the batch, the worker or the rank.
        """
        import torch

        return torch.stack([_sample_noise(self.noise_seed, stream, i, shape) for i in self.ids])


def _sample_noise(seed: int, stream: str, sample_id: str, shape: Sequence[int]) -> Tensor:
    """Noise of one sample, from a generator of its own. It is on the CPU: GPU generators give other numbers."""
    import torch

    digest = hashlib.blake2b(f"{seed}|{stream}|{sample_id}".encode(), digest_size=8).digest()
    generator = torch.Generator("cpu").manual_seed(int.from_bytes(digest, "little") % (2**63))
    return torch.randn(tuple(shape), generator=generator)


@dataclass(frozen=True)
class Prediction:
    """The output of a model. Every field is optional; a family requires the fields that it scores.

    Attributes:
        masks: (B, K, h, w) soft masks (any grid, upsampled bilinearly, then argmax) or (B, H, W) integer label maps.
            For a batch with `video`: (B, T, K, h, w) or (B, T, H, W); a slot means the same object in all frames, so
            that K is the same for all clips of a video. Soft masks are floating weights in [0, 1], the share of slot k
            in a pixel. They need not sum to 1 over the slots.
        mask_source: origin of the masks; it is printed in the signature.
        slots: (B, K, D) slot vectors.
        tokens: (B, D, h, w) dense features.
        embedding: (B, D), one vector for each image.
        boxes: (B, N, 4) xyxy pixels of the images of the batch. A box of NaN is padding.
        scores: (B, N) scores of the boxes.
        labels: (B, N) category ids of the boxes.
        classes: (B, C, h, w) class scores or (B, H, W) integer class maps of a model that names classes itself.
        extra: further tensors, beyond these fields.
        embedding_source: how the embedding was pooled (`cls`, `slots:max`, ...); it is printed in the signature.
        state: anything that the model needs back as `Batch.state` with the next frames of the same video.
        link: how slots were linked over time, by `slots` or `masks`, if the model predicts each frame on its own.
        passes: how often the model went through the video before it predicted; above 1 it is printed in the signature.
        whole_clip: whether the masks of a frame depend on later frames of the video; it is printed in the signature.
        mask_logits: whether `masks` are logits instead, any numbers below infinity; -inf switches a slot off. The suite
            then takes their softmax over the slots before anything else, and the signature says `+softmax`.
        softmax: whether `masks` were logits and are weights now; `with_weights` sets it.
        granted: the boxes of the batch; the runner copies them here for the family.
        answers: (B,) answers to `Batch.questions`.
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
    passes: int = 1
    whole_clip: bool = False
    mask_logits: bool = False
    softmax: bool = False
    granted: tuple[Tensor, ...] | None = None
    answers: tuple[Answers, ...] | None = None

    def with_weights(self) -> Prediction:
        """The same prediction with weights as `masks`: logits (..., K, h, w) go through a softmax over the slots."""
        if not self.mask_logits:
            return self
        import torch

        masks = self.masks
        if not isinstance(masks, torch.Tensor) or not masks.is_floating_point() or masks.ndim < 4:
            return self  # nothing to convert, or a mistake, which the check of the task's family reports
        precise = masks if masks.dtype == torch.float64 else masks.float()
        return replace(self, masks=precise.softmax(-3), mask_logits=False, softmax=True)

    @property
    def masks_from(self) -> str:
        """The origin of the masks as the signature prints it: `mask_source`, and `+softmax` for logits."""
        return f"{self.mask_source}+softmax" if self.softmax else self.mask_source


@runtime_checkable
class Model(Protocol):
    """Anything with this method is a model. There is no base class.

    A model may have these attributes:
        input_size: int, side of its square input in pixels; otherwise the card's `input` is used.
        supervision, privilege: what it saw in training and what it gets at inference, see `ModelCard`.
        needs_truth: whether it is called as `predict(batch, truth)` with one `Truth` per image (oracles only).
        reads_video: whether it reads `batch.video`; otherwise frames are given as images and its slots are linked.
        whole_video: whether it needs all frames of a video in one batch.
        reads_boxes: whether its embedding attends within `batch.boxes`.
        answers_questions: whether it answers `batch.questions` by itself; otherwise a head is fitted on its slots.
    """

    def predict(self, batch: Batch) -> Prediction:
        """Predict for a batch. The prediction for a sample must not depend on the other samples of the batch."""
        ...

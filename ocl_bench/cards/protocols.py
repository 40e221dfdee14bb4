"""Protocols: how images, truth and predictions are prepared and compared. These fields of a task card change numbers.

All families share the fields of `Protocol`. Each family adds its fields in a class of its own: a field of another
family is an error when the card is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from ..core.errors import UsageError
from .base import Card

LARGEST_SIDE = 2048
"""Largest side in pixels of the squares that models see and masks are compared on (docs/reliability.md)."""

LARGEST_RESIZED = 4096
"""Largest shorter side to which an image may be resized before it is cropped."""

SMALLEST_SHARE = 0.25
"""Smallest share of a side that a crop keeps: a crop after resizing needs an image that much larger."""

LARGEST_SEED = 2**32 - 1
MOST_SEEDS = 1000
MOST_LEARNING_RATES = 64
"""Most learning rates between which a fit may choose: each is a fit of its own."""
MOST_SAMPLES = 10_000_000
MOST_SCENES = 100_000
"""Most samples of a stand-in, which are rendered here."""

MOST_CLASSES = 10_000
"""Most classes of a task: heads and tables of pairs of classes grow with their number."""

HEAD_VERSION = 1
"""Raised when the fitting of any head changes; it is part of the key under which a head is cached."""

BOXES_FILE = "boxes_file"
"""Option of readers that grant boxes: a file whose boxes replace those of the data set."""

OF_CLASSES = "class_"
"""Begin of the names of detection's metrics that score each category by itself."""

Grant = Literal["attention", "crop", "blackout"]
"""How boxes are granted: given to the model, the image cropped to them, or everything else made black."""

_TRUTH_RULES = ("annotations", "crowd", "stuff")
"""Options of readers that decide what counts as an object; they are part of the signature."""


class Proposals(Card):
    """Rules that turn masks into detections.

    The score of a detection is the mean of the soft mask over its area; masks of a label map have scores of 1.

    Attributes:
        parts: `whole` takes the mask of a slot; `whole+components` also takes its connected components (8 neighbours)
            when there are several.
        min_area: smallest area in pixels of the scored image; smaller masks are left out.
        nms: of two masks whose IoU exceeds this value, the one with the lower score is removed; 1 removes none.
        max_detections: number of best detections of an image that are scored.
    """

    parts: Literal["whole", "whole+components"] = "whole+components"
    min_area: int = Field(default=1, ge=1)
    nms: float = Field(default=0.95, gt=0, le=1)
    max_detections: int = Field(default=100, ge=1)


class Fit(Card):
    """A head that is fitted on top of a frozen model before scoring, on a split of its own.

    Attributes:
        head: `linear` (affine-free batch norm and a 1x1 convolution on tokens), `kmeans` (spherical k-means of tokens),
            `slot` and `dense` (detection from slots or tokens), `recognition` (class and box of a matched slot),
            `rollouter` (the next slots, and where a slot's object lies), `contact` (the next slots, and whether two
            slots touch), or `bank` (the unit feature and label of each
            image, for nearest neighbours; nothing is trained). Each family supports some of them.
        split: split on which the head is fitted.
        samples: number of samples of that split that are used, spread evenly; None uses all.
        held_out: share of the fit split on which the learning rate is chosen. The head is then fitted again on all.
        learning_rates: candidates.
        steps: steps of each fit.
        batch: images of a step.
        hidden: width of hidden layers.
        at: side of the square on which classes are compared while fitting.
    """

    head: str
    split: str = "train"
    samples: int | None = Field(default=None, gt=0, le=MOST_SAMPLES)
    held_out: float = Field(default=0.1, ge=0, lt=1)
    learning_rates: tuple[float, ...] = Field(default=(), max_length=MOST_LEARNING_RATES)
    steps: int = Field(default=1000, ge=1, le=MOST_SAMPLES)
    batch: int = Field(default=32, ge=1, le=LARGEST_RESIZED)
    weight_decay: float = Field(default=0.0, ge=0)
    hidden: int = Field(default=512, ge=1, le=65_536)
    at: int = Field(default=64, ge=1, le=LARGEST_SIDE)
    seed: int = 0


class Protocol(Card):
    """How images and truth are cropped, resized and compared: the fields of all families.

    Object discovery has no others.

    Attributes:
        crop: `none`; `center-F`, the central square whose side is F times the shorter image side (floor);
            `short-center`, which resizes the shorter side to the requested size and then takes the central square
            (SPOT, PiCIE); `short-center-F`, which resizes it to the size / F and keeps the central F of it (DINO:
            0.875, 256 -> 224); or `square`, the largest central square, its corner rounded half to even (SlotContrast).
        input: side in pixels of the square images for models that declare no size of their own.
        score_at: side of the square on which masks are compared; None scores at the size of the truth after the crop.
        resize: `bilinear-argmax` upsamples soft masks bilinearly before the argmax; label maps are resized by nearest.
        background: truth label that is background; None when every label is an object.
        void: see `ocl_bench.metrics.contingency`; `overlap` likewise.
        empty: see `ocl_bench.metrics.compute`.
    """

    heads: ClassVar[tuple[str | None, ...]] = (None,)
    """Values of `fit.head` that this family supports; None stands for a card without `fit`."""

    asks: ClassVar[bool] = False
    """Whether models are asked questions. Floors, ceilings and encoders do such a family only if their card names it:
    most of them have neither answers nor slots."""

    unit: ClassVar[Literal["images", "videos"]] = "images"
    """What one row of a result of a bundled family describes (`Family.unit`)."""

    crop: str = Field(default="none", pattern=r"^(none|square|((short-)?center-(0\.\d+|1(\.0+)?))|short-center)$")
    input: int = Field(default=128, ge=8, le=LARGEST_SIDE)
    score_at: int | None = Field(default=None, ge=8, le=LARGEST_SIDE)
    resize: Literal["bilinear-argmax"] = "bilinear-argmax"
    background: int | None = 0
    void: Literal["drop", "count"] = "drop"
    overlap: Literal["drop", "error"] = "drop"
    empty: Literal["skip", "one"] = "skip"

    @field_validator("crop")
    @classmethod
    def _crop_leaves_pixels(cls, value: str) -> str:
        share = value.rpartition("-")[2]
        if share[0].isdigit() and float(share) < SMALLEST_SHARE:
            raise ValueError(f"keeps {share} of a side, at least {SMALLEST_SHARE} is needed")
        return value

    @property
    def kernel(self) -> str:
        """Kernel that resizes images: `bilinear` or `bicubic` as in Pillow, or `bicubic-tensor`, see `_Resizing`."""
        return "bilinear"

    @property
    def shorter_side(self) -> int | None:
        """Shorter side to which frames and truth are first resized; None leaves their size."""
        return None

    @property
    def grants(self) -> Grant | None:
        """How boxes of the image's class are granted at inference; None grants no boxes."""
        return None

    def check(self, family: str, fit: Fit | None) -> None:
        """Raise UsageError, whose message begins with the field, if the family does not support the card's head."""
        head = fit.head if fit is not None else None
        if head not in self.heads:
            known = " or ".join(name or "left out" for name in self.heads)
            raise UsageError(f"fit.head: '{head or 'left out'}' is not a head of {family}, which knows: {known}")

    def check_metrics(self, metrics: Sequence[str]) -> None:
        """Raise UsageError, whose message begins with the field, for metrics that the protocol does not compute."""

    def scores_head(self, source: str) -> bool:
        """Whether a head is scored, on a card that has one. source: as in `signature`."""
        del source
        return True

    def with_classes(self) -> Protocol:
        """The same protocol with each category scored by itself. Raises UsageError for families that know no such."""
        raise UsageError("only detection can be scored within each category")

    @property
    def own_fields(self) -> dict[str, Any]:
        """Name -> value of the fields that the class adds to `Protocol`, without those that are None."""
        names = [name for name in type(self).model_fields if name not in Protocol.model_fields]
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def signature(self, source: str, options: Mapping[str, Any]) -> list[str]:
        """The fields of the protocol that are printed beside a number.

        Args:
            source: origin of the model's output, named by the family.
            options: options of the reader.
        """
        resizing = [f"{name}:{value}" for name, value in self.own_fields.items() if name in _Resizing.model_fields]
        truth = [f"{key}:{value}" for key, value in options.items() if key in _TRUTH_RULES]
        return [*self._seen(source, options), *resizing, *self._rules(source), *truth, *self._matching()]

    @property
    def _at(self) -> str:
        return f"at:{self.score_at or 'native'}"

    def _seen(self, source: str, options: Mapping[str, Any]) -> list[str]:
        """What is compared, and at which size."""
        del options
        if source == "boxes":  # native boxes: no mask is upsampled, cut or scored
            return [f"crop:{self.crop}", "from:boxes", self._at]
        return [f"crop:{self.crop}", f"mask:{source}", f"up:{self.resize}", self._at]

    def _rules(self, source: str) -> list[str]:
        """How it is compared."""
        del source
        background = "none" if self.background is None else self.background
        return [f"bg:{background}", f"void:{self.void}", f"overlap:{self.overlap}", f"empty:{self.empty}"]

    def _matching(self) -> list[str]:
        iou = getattr(self, "matching_iou", None)
        return [] if iou is None else [f"match:iou>{iou}"]


class _Resizing(Protocol):
    """Families whose official codes resize images in several ways.

    Attributes:
        short_side: shorter side to which frames and truth are first resized, by nearest pixel centre.
        interpolation: kernel for images: `bilinear` or `bicubic` as in Pillow, or `bicubic-tensor`, the cubic kernel of
            torch on [0, 1] without antialias, clamped. None is `bilinear`.
    """

    short_side: int | None = Field(default=None, ge=8, le=LARGEST_RESIZED)
    interpolation: Literal["bilinear", "bicubic", "bicubic-tensor"] | None = None

    @property
    def kernel(self) -> str:
        """The card's `interpolation`."""
        return self.interpolation or "bilinear"

    @property
    def shorter_side(self) -> int | None:
        """The card's `short_side`."""
        return self.short_side


class DetectionProtocol(Protocol):
    """The protocol of detection.

    Attributes:
        proposals: rules that turn masks into detections.
        matching_iou: a slot stands for an object only above this IoU.
        classes: `each` compares detections only with objects of their category and averages over categories, as
            `pycocotools` does (`useCats`); None is class-agnostic, also where detections have categories.
    """

    heads: ClassVar[tuple[str | None, ...]] = (None, "slot", "dense")

    proposals: Proposals | None = None
    matching_iou: float | None = Field(default=None, ge=0, lt=1)
    classes: Literal["each"] | None = None

    @model_validator(mode="after")
    def _whole_images(self) -> DetectionProtocol:
        if self.crop != "none" or self.score_at is not None:
            raise ValueError("detection scores whole images at their own size; set crop: none and leave score_at out")
        return self

    def check(self, family: str, fit: Fit | None) -> None:
        """Check the head as all families do, and that a head comes with `matching_iou`."""
        super().check(family, fit)
        if fit is not None and self.matching_iou is None:
            raise UsageError("protocol.matching_iou: is missing; 0.1 is usual")
        if fit is not None and self.classes is not None:
            raise UsageError("protocol.classes: a head names categories anyway; leave it out")

    def check_metrics(self, metrics: Sequence[str]) -> None:
        """Class-agnostic metrics and those of each category are of two protocols."""
        for name in metrics:
            if name.startswith(OF_CLASSES) != (self.classes is not None) and not name.startswith("probe_"):
                needed = "needs protocol.classes: each" if self.classes is None else "is class-agnostic"
                raise UsageError(f"metrics: '{name}' {needed}; metrics of each category begin with {OF_CLASSES}")

    def with_classes(self) -> DetectionProtocol:
        """The same protocol with `classes: each`."""
        return self.model_copy(update={"classes": "each"})

    def _rules(self, source: str) -> list[str]:
        classes = [f"classes:{self.classes}"] if self.classes is not None else []
        if self.proposals is None:
            return classes
        rule = self.proposals
        cut = [f"parts:{rule.parts}", "score:mean-mask", f"nms:{rule.nms}"] if source != "boxes" else []
        return [*cut, f"max:{rule.max_detections}", *classes]


class SegmentationProtocol(Protocol):
    """The protocol of semantic segmentation. classes: number of classes of the truth."""

    heads: ClassVar[tuple[str | None, ...]] = ("linear", "kmeans")

    classes: int = Field(ge=2, le=MOST_CLASSES)

    def _seen(self, source: str, options: Mapping[str, Any]) -> list[str]:
        return [f"crop:{self.crop}", f"from:{source}", self._at, f"classes:{self.classes}", f"void:{self.void}"]

    def _rules(self, source: str) -> list[str]:
        return []


class RecognitionProtocol(Protocol):
    """The protocol of recognition. matching_iou: a slot is matched to an object only above this IoU; 0.1 is usual."""

    heads: ClassVar[tuple[str | None, ...]] = ("recognition",)

    matching_iou: float = Field(ge=0, lt=1)


class KnnProtocol(_Resizing):
    """The protocol of nearest neighbours.

    Attributes:
        boxes: how the boxes of the image's class are granted at inference, for bank and queries alike: `attention`
            gives them to the model, `crop` crops the image to them, `blackout` makes everything else black.
        temperature: of the votes of neighbours, exp(cosine / temperature); 0.07 is usual.
    """

    heads: ClassVar[tuple[str | None, ...]] = ("bank",)

    boxes: Grant | None = None
    temperature: float = Field(gt=0)

    @property
    def grants(self) -> Grant | None:
        """The card's `boxes`."""
        return self.boxes

    def _seen(self, source: str, options: Mapping[str, Any]) -> list[str]:
        boxes = f"{self.boxes}-from-file" if BOXES_FILE in options else self.boxes or "none"
        return [f"crop:{self.crop}", f"from:{source}", f"boxes:{boxes}", f"T:{self.temperature}"]

    def _rules(self, source: str) -> list[str]:
        return []


def only_drop(value: str) -> str:
    """The rule for void pixels of videos, whose tubes have no other."""
    if value != "drop":
        raise ValueError("videos know only 'drop'")
    return value


class VideoProtocol(_Resizing):
    """The protocol of videos; void pixels can only be dropped.

    Attributes:
        max_proposals: number of largest segments of a video that are compared in J and F.
        boundary: tolerance of F: below 1 a share of the image diagonal, from 1 on a number of pixels.
        skip_first: True leaves the first frame of each video out of all metrics. The model still sees it: models whose
            slots start from it are scored on what follows. None scores all frames, as False does.
    """

    unit: ClassVar[Literal["images", "videos"]] = "videos"

    max_proposals: int | None = Field(default=None, ge=1)
    boundary: float | None = Field(default=None, gt=0)
    skip_first: bool | None = None

    _void_is_dropped = field_validator("void")(only_drop)

    @field_validator("skip_first")
    @classmethod
    def _default_is_not_hashed(cls, value: bool | None) -> bool | None:
        return value or None

    def _rules(self, source: str) -> list[str]:
        davis = {"max_proposals": self.max_proposals, "boundary": self.boundary}
        skipped = ["skip-first"] if self.skip_first else []
        rules = (f"{name}:{value}" for name, value in davis.items() if value is not None)
        return [*super()._rules(source), *skipped, *rules]

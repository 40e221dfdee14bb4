"""Task cards and model cards: load, validate, hash, signature.

A task card is a protocol. Every field that can change a number is in it, and the hash of those fields is part of the
key of each result. A model card says what a model is, what it saw in training and how its weights were made.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator

from .errors import UsageError, first_problem

Family = Literal["discovery", "detection", "segmentation", "knn", "video", "recognition"]
Supervision = Literal["none", "boxes", "masks"]
Privilege = Literal["none", "boxes", "truth"]

HEAD_VERSION = 1
"""Raised when the fitting of any head changes; it is part of the key under which a head is cached."""

METRIC_VERSION = 1
"""Raised when the arithmetic of any metric changes; it is part of every result's key."""


class _Card(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StandIn(_Card):
    """The embedded data of a task: scenes rendered here and written in the official layout.

    samples: of the split on which the task scores. fit_samples: of the split on which heads are fitted.
    """

    scenes: str
    variant: str = "full"
    revision: int = 1
    samples: int = Field(gt=0)
    fit_samples: int | None = Field(default=None, gt=0)


class DataSpec(_Card):
    """Which reader opens which split of which folder below the data root."""

    reader: str
    folder: str = ""
    variant: str = ""
    split: str = "test"
    options: dict[str, Any] = {}
    stand_in: StandIn | None = None
    licence: str = ""
    size: str = ""
    get: str = ""


class Proposals(_Card):
    """How masks become detections.

    parts: `whole` takes the mask of a slot, `whole+components` also its connected components (8 neighbours) when there
    are several. min_area: smaller ones are left out, in pixels of the scored image. nms: of two masks with a larger IoU
    the one with the lower score goes; 1 keeps all. max_detections: the best of an image.
    The score is the mean of the soft mask over its area; a label map has scores of 1.
    """

    parts: Literal["whole", "whole+components"] = "whole+components"
    min_area: int = Field(default=1, ge=1)
    nms: float = Field(default=0.95, gt=0, le=1)
    max_detections: int = Field(default=100, ge=1)


class Fit(_Card):
    """What is fitted on top of a frozen model before it is scored, on another split than the one that is scored.

    head: `linear` (affine-free batch norm and a 1x1 convolution on tokens), `kmeans` (spherical k-means of tokens),
    `slot` and `dense` (detection from slots or tokens), `recognition` (class and box of a matched slot), `bank` (the
    unit feature and label of each image, for nearest neighbours; nothing is trained).
    held_out: share of the fit split on which the learning rate is chosen; the head is then fitted again on all of it.
    at: side of the square on which classes are compared while fitting.
    samples: only so many of the fit split, spread evenly; None takes all.
    """

    head: Literal["linear", "kmeans", "slot", "dense", "recognition", "bank"]
    split: str = "train"
    samples: int | None = Field(default=None, gt=0)
    held_out: float = Field(default=0.1, ge=0, lt=1)
    learning_rates: tuple[float, ...] = ()
    steps: int = Field(default=1000, ge=1)
    batch: int = Field(default=32, ge=1)
    weight_decay: float = Field(default=0.0, ge=0)
    hidden: int = Field(default=512, ge=1)
    at: int = Field(default=64, ge=1)
    seed: int = 0


class Protocol(_Card):
    """How images and truth are cropped, resized and compared.

    crop: `none`; `center-F`, the central square whose side is F times the shorter image side (floor); or
        `short-center`, which first resizes the shorter side to the size asked for and then takes the central square
        (SPOT, PiCIE); `short-center-F` resizes it to the size / F, so that the central F of it is kept (DINO: 0.875,
        256 -> 224). `square` is the largest central square, its corner rounded half to even (SlotContrast).
    short_side: frames and truth are first resized to this shorter side by nearest pixel centre.
    interpolation: of images: `bilinear` or `bicubic` as Pillow does them, or `bicubic-tensor`, torch's cubic kernel on
        [0, 1] without antialias, clamped. None is `bilinear`.
    input: side in pixels of the square given to models that declare no size of their own.
    score_at: side of the square on which masks are compared; None scores at the truth's own size after the crop.
    resize: `bilinear-argmax` upsamples soft masks bilinearly before the argmax; label maps go by nearest.
    background: truth label that is background, or None when every label is an object.
    void / overlap / empty: see `ocl_bench.metrics.contingency`.
    classes: number of classes of the semantic truth (segmentation).
    proposals: how masks become detections (detection).
    matching_iou: a slot is matched to an object only above this IoU (recognition and the slot head).
    boxes: how the boxes of the image's own class are granted at inference (knn), for bank and queries alike:
        `attention` hands them to the model, `crop` cuts the image to them, `blackout` makes the rest black.
    temperature: of the votes of neighbours, exp(cosine / temperature) (knn).
    max_proposals: only so many segments of a video, the largest ones, are compared in J and F (video).
    boundary: tolerance of F as a share of the image diagonal, or in pixels from 1 on (video).
    """

    crop: str = Field(default="none", pattern=r"^(none|square|((short-)?center-(0\.\d+|1(\.0+)?))|short-center)$")
    input: int = Field(default=128, ge=8)
    score_at: int | None = Field(default=None, ge=8)
    resize: Literal["bilinear-argmax"] = "bilinear-argmax"
    background: int | None = 0
    void: Literal["drop", "count"] = "drop"
    overlap: Literal["drop", "error"] = "drop"
    empty: Literal["skip", "one"] = "skip"
    classes: int | None = Field(default=None, ge=2)
    proposals: Proposals | None = None
    matching_iou: float | None = Field(default=None, ge=0, lt=1)
    short_side: int | None = Field(default=None, ge=8)
    interpolation: Literal["bilinear", "bicubic", "bicubic-tensor"] | None = None
    boxes: Literal["attention", "crop", "blackout"] | None = None
    temperature: float | None = Field(default=None, gt=0)
    max_proposals: int | None = Field(default=None, ge=1)
    boundary: float | None = Field(default=None, gt=0)


BOXES_FILE = "boxes_file"
"""Option of readers that grant boxes: a file with other ones than the data set's own."""

_TRUTH_RULES = ("annotations", "crowd", "stuff")
"""Options of readers that say what counts as an object: part of the signature."""

_RESIZING = ("short_side", "interpolation")
_DAVIS = ("max_proposals", "boundary")

_ABOUT_DATA = {"licence", "size", "get"}
_ADDED_LATER = {
    "": ("fit",),
    "protocol": (
        "classes",
        "proposals",
        "matching_iou",
        "short_side",
        "interpolation",
        "boxes",
        "temperature",
        "max_proposals",
        "boundary",
    ),
    "data.stand_in": ("fit_samples",),
}


class TaskSpec(_Card):
    """One task card. `load_task` reads it from YAML."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    version: int = Field(ge=1)
    family: Family
    title: str = ""
    reference: str = ""
    data: DataSpec
    protocol: Protocol
    fit: Fit | None = None
    noise_seeds: tuple[int, ...] = (0,)
    metrics: tuple[str, ...] = Field(min_length=1)
    main: str
    _home: Path | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _main_is_a_metric(self) -> TaskSpec:
        if self.main not in self.metrics:
            raise ValueError(f"main: '{self.main}' is not in metrics {list(self.metrics)}")
        return self

    @property
    def home(self) -> Path | None:
        """Folder of the file that the card was read from; a relative `data.folder` may lie beside it. Not hashed."""
        return self._home

    def with_boxes(self, path: Path) -> TaskSpec:
        """The same task with boxes from a file. Raises UsageError for a card that grants none."""
        if self.protocol.boxes is None:
            raise UsageError(f"task {self.name} grants no boxes (protocol.boxes); --boxes is for imagenet-knn-boxes")
        options = {**self.data.options, BOXES_FILE: str(path)}
        changed = self.model_copy(update={"data": self.data.model_copy(update={"options": options})})
        changed._home = self._home
        return changed

    @property
    def hash(self) -> str:
        """SHA-256 of every field that can change a number (not the title, nor how to get the data).

        A field that was added later counts only where it is used, so that the hash of an older card stays. The content
        of a box file is part of the revision of the data.
        """
        content = self.model_dump(mode="json", exclude={"title": True, "reference": True, "data": _ABOUT_DATA})
        content["data"]["options"].pop(BOXES_FILE, None)
        for section, names in _ADDED_LATER.items():
            inner: Any = content
            for part in section.split(".") if section else ():
                inner = (inner or {}).get(part)
            for name in names:
                if inner and inner.get(name, 0) is None:
                    del inner[name]
        return _hash(content)

    def signature(self, source: str, metric: str | None = None) -> str:
        """The protocol in one line, to be printed beside a number (the idea of sacrebleu, Post 2018).

        source: where the model's part comes from, `decoder` or `tokens:mean`, as its adapter says.
        """
        p = self.protocol
        at = f"at:{p.score_at or 'native'}"
        if self.family == "segmentation":
            fields = [f"crop:{p.crop}", f"from:{source}", at, f"classes:{p.classes}", f"void:{p.void}"]
        elif self.family == "knn":
            boxes = f"{p.boxes}-from-file" if BOXES_FILE in self.data.options else p.boxes or "none"
            fields = [f"crop:{p.crop}", f"from:{source}", f"boxes:{boxes}", f"T:{p.temperature}"]
        elif source == "boxes":  # native boxes: no mask is upsampled, cut or scored
            fields = [f"crop:{p.crop}", "from:boxes", at]
        else:
            fields = [f"crop:{p.crop}", f"mask:{source}", f"up:{p.resize}", at]
        fields += [f"{name}:{value}" for name in _RESIZING if (value := getattr(p, name)) is not None]
        if self.family not in ("segmentation", "knn", "detection"):
            background = "none" if p.background is None else p.background
            fields += [f"bg:{background}", f"void:{p.void}", f"overlap:{p.overlap}", f"empty:{p.empty}"]
        fields += [f"{name}:{value}" for name in _DAVIS if (value := getattr(p, name)) is not None]
        if p.proposals is not None:
            rule = p.proposals
            cut = [f"parts:{rule.parts}", "score:mean-mask", f"nms:{rule.nms}"] if source != "boxes" else []
            fields += [*cut, f"max:{rule.max_detections}"]
        fields += [f"{key}:{value}" for key, value in self.data.options.items() if key in _TRUTH_RULES]
        if p.matching_iou is not None:
            fields.append(f"match:iou>{p.matching_iou}")
        if self.fit is not None:
            fields.append(f"head:{self.fit.head}")
        return "│".join([*([metric] if metric else []), *fields, f"v{self.version}"])


class Training(_Card):
    """How a checkpoint was made, and the numbers it had when it was made."""

    trained_on: str = ""
    machine: str = ""
    recipe: dict[str, Any] = {}
    seed: int | None = None
    steps: int | None = None
    commit: str = ""
    data: str = ""
    numbers: dict[str, float] = {}


class ModelCard(_Card):
    """One model card. `load_model_card` reads it from YAML.

    source: `module:callable`; the callable gets `options` as keyword arguments and returns a model.
    weights: file name in `ocl_bench/weights/` (float16 safetensors), or empty when the model has none.
    backbone: the network that sees the pixels, and whether it is frozen. pretraining: what the weights that training
    starts from, or keeps frozen, had learnt from; `none` from scratch. Both are printed in leaderboards.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    title: str = ""
    paper: str = ""
    source: str = Field(pattern=r"^[\w.]+:\w+$")
    options: dict[str, Any] = {}
    backbone: str = ""
    pretraining: str = ""
    input: int | None = Field(default=None, ge=8)
    weights: str = Field(default="", pattern=r"^([\w.-]+\.safetensors)?$")
    sha256: str = ""
    supervision: Supervision = "none"
    privilege: Privilege = "none"
    role: Literal["model", "floor", "ceiling", "control", "encoder"] = "model"
    families: tuple[Family, ...] = ("discovery", "detection", "segmentation", "recognition", "knn", "video")
    training: Training | None = None
    train: dict[str, Any] = {}
    notes: tuple[str, ...] = ()

    @field_validator("options")
    @classmethod
    def _plain_options(cls, value: dict[str, Any]) -> dict[str, Any]:
        json.dumps(value)
        return value


def load_task(path: Path) -> TaskSpec:
    """Read a task card. Raises UsageError naming the file and the field."""
    task = _load(path, TaskSpec)
    task._home = Path(path).resolve().parent
    return task


def load_model_card(path: Path) -> ModelCard:
    """Read a model card. Raises UsageError naming the file and the field."""
    return _load(path, ModelCard)


CardType = TypeVar("CardType", bound=BaseModel)


def _load(path: Path, kind: type[CardType]) -> CardType:
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a YAML file ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: a card is a YAML mapping; see `ocl-bench show clevrtex`")
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        field, message = first_problem(error, "card")
        unknown = error.errors()[0]["type"] == "extra_forbidden"
        remedy = "remove it" if unknown else "see `ocl-bench show clevrtex` for an example"
        raise UsageError(f"{path}: field '{field}': {message}; {remedy}") from error


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

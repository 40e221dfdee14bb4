"""Task cards and model cards: load, validate, hash, signature.

A task card is a protocol. Every field that can change a number is in it, and the hash of those fields is part of the
key of each result. A model card says what a model is, what it saw in training and how its weights were made.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr, model_validator

from ..core.errors import UsageError
from ..core.files import digest
from .base import Card, load_card
from .model import Family
from .protocols import Fit, Protocol

METRIC_VERSION = 1
"""Raised when the arithmetic of any metric changes; it is part of every result's key."""


class StandIn(Card):
    """The embedded data of a task: scenes rendered here and written in the official layout.

    samples: of the split on which the task scores. fit_samples: of the split on which heads are fitted.
    """

    scenes: str
    variant: str = "full"
    revision: int = 1
    samples: int = Field(gt=0)
    fit_samples: int | None = Field(default=None, gt=0)


class DataSpec(Card):
    """Which reader opens which split of which folder below the data root."""

    reader: str
    folder: str = ""
    variant: str = ""
    split: str = "test"
    options: dict[str, Any] = Field(default_factory=dict)
    stand_in: StandIn | None = None
    licence: str = ""
    size: str = ""
    get: str = ""


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


class TaskSpec(Card):
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
        return digest(content)

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


def load_task(path: Path) -> TaskSpec:
    """Read a task card. Raises UsageError naming the file and the field."""
    task = load_card(path, TaskSpec)
    task._home = Path(path).resolve().parent
    return task

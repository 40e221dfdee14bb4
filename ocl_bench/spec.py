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

from .errors import UsageError

Family = Literal["discovery", "detection", "segmentation", "knn", "video", "recognition"]
Supervision = Literal["none", "boxes", "masks"]
Privilege = Literal["none", "boxes", "truth"]

METRIC_VERSION = 1
"""Raised when the arithmetic of any metric changes; it is part of every result's key."""


class _Card(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StandIn(_Card):
    """The embedded data of a task: scenes rendered here and written in the official layout."""

    scenes: str
    variant: str = "full"
    revision: int = 1
    samples: int = Field(gt=0)


class DataSpec(_Card):
    """Which reader opens which split of which folder below the data root."""

    reader: str
    folder: str = ""
    variant: str = ""
    split: str = "test"
    options: dict[str, Any] = {}
    stand_in: StandIn | None = None


class Protocol(_Card):
    """How images and truth are cropped, resized and compared.

    crop: `none` or `center-F`, the central square whose side is F times the shorter image side (floor).
    input: side in pixels of the square given to models that declare no size of their own.
    score_at: side of the square on which masks are compared; None scores at the truth's own size after the crop.
    resize: `bilinear-argmax` upsamples soft masks bilinearly before the argmax; label maps go by nearest.
    background: truth label that is background, or None when every label is an object.
    void / overlap / empty: see `ocl_bench.metrics.contingency`.
    """

    crop: str = Field(default="none", pattern=r"^(none|center-(0\.\d+|1(\.0+)?))$")
    input: int = Field(default=128, ge=8)
    score_at: int | None = Field(default=None, ge=8)
    resize: Literal["bilinear-argmax"] = "bilinear-argmax"
    background: int | None = 0
    void: Literal["drop", "count"] = "drop"
    overlap: Literal["drop", "error"] = "drop"
    empty: Literal["skip", "one"] = "skip"


class TaskSpec(_Card):
    """One task card. `load_task` reads it from YAML."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    version: int = Field(ge=1)
    family: Family
    title: str = ""
    reference: str = ""
    data: DataSpec
    protocol: Protocol
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

    @property
    def hash(self) -> str:
        """SHA-256 of every field that can change a number (all but title and reference)."""
        return _hash(self.model_dump(mode="json", exclude={"title", "reference"}))

    def signature(self, mask_source: str, metric: str | None = None) -> str:
        """The protocol in one line, to be printed beside a number (the idea of sacrebleu, Post 2018)."""
        p = self.protocol
        fields = [
            f"crop:{p.crop}",
            f"mask:{mask_source}",
            f"up:{p.resize}",
            f"at:{p.score_at or 'native'}",
            f"bg:{'none' if p.background is None else p.background}",
            f"void:{p.void}",
            f"overlap:{p.overlap}",
            f"empty:{p.empty}",
            f"v{self.version}",
        ]
        return "│".join(([metric] if metric else []) + fields)


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
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    title: str = ""
    paper: str = ""
    source: str = Field(pattern=r"^[\w.]+:\w+$")
    options: dict[str, Any] = {}
    input: int | None = Field(default=None, ge=8)
    weights: str = Field(default="", pattern=r"^([\w.-]+\.safetensors)?$")
    sha256: str = ""
    supervision: Supervision = "none"
    privilege: Privilege = "none"
    role: Literal["model", "floor", "ceiling", "control", "encoder"] = "model"
    families: tuple[Family, ...] = ("discovery",)
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
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "card"
        remedy = "remove it" if first["type"] == "extra_forbidden" else "see `ocl-bench show clevrtex` for an example"
        message = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"{path}: field '{field}': {message}; {remedy}") from error


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

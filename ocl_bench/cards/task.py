"""Task cards: load, validate, hash, signature.

A task card is a versioned protocol. It contains every field that can change a number, and the hash of these fields is
part of the key of each result.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    Field,
    PrivateAttr,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ..core.errors import UsageError
from ..core.files import digest
from ..metrics.catalogue import check_metric
from .base import Card, load_card
from .families import protocol_of
from .protocols import BOXES_FILE, LARGEST_SEED, MOST_SCENES, MOST_SEEDS, OF_CLASSES, Fit, Protocol

Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]


WITH_CLASSES = "-classes"
"""End of the name of a detection task that scores each category by itself (`TaskSpec.with_classes`)."""


class StandIn(Card):
    """The embedded data of a task: scenes rendered here and written in the official layout.

    Attributes:
        samples: number of samples of the split on which the task scores.
        fit_samples: number of samples of the split on which heads are fitted.
    """

    scenes: str
    variant: str = "full"
    revision: int = 1
    samples: int = Field(gt=0, le=MOST_SCENES)
    fit_samples: int | None = Field(default=None, gt=0, le=MOST_SCENES)


class DataSpec(Card):
    """The reader, and the split and folder below the data root that it opens."""

    reader: str
    folder: str = ""
    variant: str = ""
    split: str = "test"
    options: dict[str, Any] = Field(default_factory=dict)
    stand_in: StandIn | None = None
    licence: str = ""
    size: str = ""
    get: str = ""


_ABOUT_DATA = {"licence", "size", "get"}
"""Fields of `DataSpec` that inform people and cannot change a number: they are not hashed."""


class TaskSpec(Card):
    """One task card. `load_task` reads it from YAML; docs/architecture.md explains the words."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    version: int = Field(ge=1)
    family: str
    title: str = ""
    reference: str = ""
    data: DataSpec
    protocol: SerializeAsAny[Protocol]
    fit: Fit | None = None
    noise_seeds: tuple[Seed, ...] = Field(default=(0,), max_length=MOST_SEEDS)
    metrics: tuple[str, ...] = Field(min_length=1)
    main: str
    _home: Path | None = PrivateAttr(default=None)

    @field_validator("family")
    @classmethod
    def _known_family(cls, value: str) -> str:
        try:
            protocol_of(value)
        except UsageError as error:
            raise ValueError(str(error)) from error
        return value

    @field_validator("protocol", mode="plain")
    @classmethod
    def _protocol_of_the_family(cls, value: Any, info: ValidationInfo) -> Protocol:
        """The protocol as the class of the card's family; fields of other families are errors."""
        family = info.data.get("family")
        if family is None:  # the field `family` is already an error of its own
            return Protocol()
        kind = protocol_of(family)
        if isinstance(value, kind):
            return value
        content = value.model_dump() if isinstance(value, Protocol) else value
        try:
            return kind.model_validate(content)
        except ValidationError as error:
            raise _of_field(error, kind, family) from error

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> TaskSpec:
        try:
            self.check()
        except UsageError as error:
            field, _, message = str(error).partition(": ")
            raise PydanticCustomError("card", "{message}", {"message": message, "field": field}) from error
        return self

    def check(self) -> None:
        """Check that metrics, head and protocol fit the family. Every card is checked when it is loaded.

        Raises:
            UsageError: with a message that begins with the field.
        """
        if self.main not in self.metrics:
            raise UsageError(f"main: '{self.main}' is not in metrics {list(self.metrics)}")
        self.protocol.check(self.family, self.fit)
        for name in self.metrics:
            try:
                check_metric(name, self.family, self.fit is not None)
            except UsageError as error:
                raise UsageError(f"metrics: {error}") from error
        self.protocol.check_metrics(self.metrics)

    @property
    def home(self) -> Path | None:
        """Folder of the file that the card was read from; a relative `data.folder` may lie in it. It is not hashed."""
        return self._home

    def with_boxes(self, path: Path) -> TaskSpec:
        """The same task with boxes from a file. Raises UsageError for a card that does not grant boxes."""
        if self.protocol.grants is None:
            needed = "--boxes needs a card with protocol.boxes, such as imagenet-knn-boxes"
            raise UsageError(f"task {self.name} grants no boxes; {needed}")
        options = {**self.data.options, BOXES_FILE: str(path)}
        changed = self.model_copy(update={"data": self.data.model_copy(update={"options": options})})
        changed._home = self._home
        return changed

    def with_classes(self) -> TaskSpec:
        """The same detection task with each category scored by itself: another protocol, under another name.

        Raises UsageError for a task of another family or with a head.
        """
        if self.fit is not None:
            raise UsageError(f"task {self.name}: is scored within each category already, by the classes of its head")
        try:
            protocol = self.protocol.with_classes()
        except UsageError as error:
            raise UsageError(f"task {self.name}: {error}") from error
        metrics = tuple(name if name.startswith(OF_CLASSES) else f"{OF_CLASSES}{name}" for name in self.metrics)
        main = metrics[self.metrics.index(self.main)]
        name = self.name if protocol == self.protocol else f"{self.name}{WITH_CLASSES}"
        title = f"{self.title}; each category by itself"
        changed = {"name": name, "title": title, "protocol": protocol, "metrics": metrics, "main": main}
        task = self.model_copy(update=changed)
        task.check()
        task._home = self._home
        return task

    @property
    def hash(self) -> str:
        """SHA-256 of every field that can change a number (not the title, nor how to get the data).

        Fields that only some families have, and `fit`, count only where they are used: adding a field does not change
        the hashes of older cards. The content of a box file is part of the revision of the data, not of this hash.
        """
        return _hash_of(_ThisCard(self))

    def _computed_hash(self) -> str:
        content = self.model_dump(mode="json", exclude={"title": True, "reference": True, "data": _ABOUT_DATA})
        content["data"]["options"].pop(BOXES_FILE, None)
        shared = {name: content["protocol"][name] for name in Protocol.model_fields}
        of_family = {name: content["protocol"][name] for name in self.protocol.own_fields}
        content["protocol"] = {**shared, **of_family}
        if self.fit is None:
            del content["fit"]
        if self.data.stand_in is not None and self.data.stand_in.fit_samples is None:
            del content["data"]["stand_in"]["fit_samples"]
        return digest(content)

    def fitted(self, source: str) -> Fit | None:
        """What is fitted for a model: `fit`, or nothing where no head is scored. source: as in `signature`."""
        return self.fit if self.protocol.scores_head(source) else None

    def signature(self, source: str, metric: str | None = None) -> str:
        """The protocol in one line, to be printed beside a number (the idea of sacrebleu, Post 2018).

        Args:
            source: origin of the model's output, such as `decoder` or `tokens:mean`, named by its family.
            metric: name to put in front; None leaves it out.
        """
        fit = self.fitted(source)
        head = [f"head:{fit.head}"] if fit is not None else []
        fields = [*self.protocol.signature(source, self.data.options), *head]
        return "│".join([*([metric] if metric else []), *fields, f"v{self.version}"])


class _ThisCard:
    """A card by its identity: cards are frozen, and a board of thousands of results asks for one hash again and again.

    Nothing is kept in the card itself, since a copy of it with other fields would bring the old hash along.
    """

    def __init__(self, card: TaskSpec) -> None:
        self.card = card

    def __hash__(self) -> int:
        return id(self.card)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ThisCard) and self.card is other.card


@lru_cache(maxsize=64)  # it keeps the cards, too, so that no other one gets the same identity
def _hash_of(one: _ThisCard) -> str:
    return one.card._computed_hash()


def _of_field(error: ValidationError, kind: type[Protocol], family: str) -> PydanticCustomError:
    """The first problem of a protocol, as an error that names the field in it."""
    first = error.errors()[0]
    field, message = ".".join(str(part) for part in first["loc"]), first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        fields = ", ".join(name for name in kind.model_fields if name not in Protocol.model_fields) or "none"
        message = f"is not a field of {family} (its own fields: {fields}); remove it"
    return PydanticCustomError("protocol", "{message}", {"message": message, "field": field})


def load_task(path: Path) -> TaskSpec:
    """Read a task card. Raises UsageError naming the file and the field."""
    task = load_card(path, TaskSpec)
    task._home = Path(path).resolve().parent
    return task

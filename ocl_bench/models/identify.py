"""Which bundled model fits a checkpoint file: every card is tried, with the options of its released sizes.

Models are built without memory (torch's device `meta`), and the file is read once: what is tried is an outline of it,
with the names and shapes of all tensors and the values of the small ones.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..cards.model import ModelCard
from ..cards.names import CARDS, get_card
from ..core.errors import UsageError
from .checkpoints.names import matched_tensors, read_content
from .checkpoints.slotcontrast import LIGHTNING_CLASSES, VARIANTS
from .checkpoints.videosaur import VARIANTS as VIDEOSAUR_VARIANTS

_SLOTCONTRAST = [{"variant": name} for name in VARIANTS]
_ARCHITECTURES = [{"arch": name} for name in ("vit_small", "vit_base", "vit_large")]
RELEASED: dict[str, list[dict[str, Any]]] = {
    "slotcontrast-paper": _SLOTCONTRAST,
    "slotcurri-paper": _SLOTCONTRAST,
    "srl-paper": _SLOTCONTRAST,
    "slotmatch-paper": _SLOTCONTRAST,
    "videosaur-paper": [{"variant": name} for name in VIDEOSAUR_VARIANTS],
    "ftdinosaur-paper": [
        {"encoder": encoder, "input_size": size}
        for encoder, size in itertools.product(("vit_small", "vit_base"), (224, 518))
    ],
    "randsfq-paper": [{"initialisation": "shared"}, {"initialisation": "smooth"}],
    "spot-paper": [{}, {"slots": 6}, {"second_encoder": False, "initialisation": "gaussian"}],
    "slotcon-paper": [{}, {"prototypes": 2048}],
    "odis-paper": _ARCHITECTURES,
    "ibot-paper": _ARCHITECTURES,
    "dino-paper": _ARCHITECTURES,
}
"""Options of the released models, by card; other cards are tried with their own options alone."""

UNKNOWN_TASK = "TASK"
"""Stands for the task in a command when neither card nor options say on which data the file was trained."""

_OF_VARIANT = {"movi_c": "movi-c", "movi_e": "movi-e", "ytvis": "ytvis-2021", "ytvis_dinov2": "ytvis-2021"}
"""Variant, which is named after the data of its training -> task on these data."""

_OF_RECIPES = "clevrtex"
"""Task of recipes that name none, as in `training.recipe.Recipe`."""

_OF_SPOT = {7: "coco-discovery-spot", 6: "voc-discovery-spot"}
"""Slots of SPOT's released models -> task on the data of their training."""

_SMALL = 2**16
"""Numbers of a tensor up to which its values are kept in the outline; some are checked when a file is translated."""


_DOWNLOADING = ("hugging_face", "backbones", "segment_anything")
"""Modules whose models bring their weights with them."""

_UNLIKE = 0.25
"""Share of equal shapes below which a file is not tried; even a bare backbone shares more with its training's model."""


@dataclass(frozen=True)
class Fit:
    """How a card fits a file.

    Attributes:
        model: name of the card.
        title, paper: of the card.
        options: over those of the card.
        error: what does not fit, in one line; empty where the file loads.
        likeness: share of the tensors of file and model that have an equal shape in the other one.
        task: to evaluate it on, see `suggested_task`.
    """

    model: str
    title: str
    paper: str
    options: dict[str, Any]
    error: str
    likeness: float
    task: str

    @property
    def command(self) -> str:
        """How to evaluate the file with this card."""
        options = "".join(f" --option {name}={str(value).lower() if value is True or value is False else value}"
                          for name, value in self.options.items())  # fmt: skip
        return f"ocl-bench eval --model {self.model}{options} --checkpoint FILE --task {self.task}"


def suggested_task(card: ModelCard, options: Mapping[str, Any]) -> str:
    """The task on the data of a model's training, by the options of its released size or its recipe.

    Returns:
        The name of a task, or `UNKNOWN_TASK`.
    """
    values = {**card.options, **options}
    if "variant" in values:
        return _OF_VARIANT.get(values["variant"], UNKNOWN_TASK)
    if card.name == "spot-paper":
        return _OF_SPOT.get(values["slots"], UNKNOWN_TASK)
    return str(card.train.get("task", _OF_RECIPES)) if card.train else UNKNOWN_TASK


def identify(path: str | Path, only: str | None = None) -> list[Fit]:
    """Try a checkpoint file on all bundled cards.

    Args:
        path: the file; no code in it is run.
        only: name of the one card to try.

    Returns:
        What fits, in the order of the cards' names; if nothing does, all that was tried, the most alike first.

    Raises:
        UsageError: the file is missing or damaged, or holds no tensor, or the card has no weights.
    """
    content = _outline(_read(Path(path)))
    shapes = Counter(tuple(value.shape) for value in _tensors(content))
    if not shapes:
        raise UsageError(f"{path}: holds no tensors; is it a checkpoint?")
    candidates = (
        [get_card(only)] if only is not None else [get_card(file.stem) for file in sorted(CARDS.glob("*.yaml"))]
    )
    candidates = [card for card in candidates if _fillable(card)]
    if not candidates:
        raise UsageError(f"model {only}: has no weights that a checkpoint could fill")
    with tempfile.TemporaryDirectory() as folder:
        outline = Path(folder) / Path(path).with_suffix(".pt").name
        torch.save(content, outline)
        tried = [fit for card in candidates for fit in _try(card, outline, shapes)]
    fitting = [fit for fit in tried if not fit.error]
    return fitting or sorted(tried, key=lambda fit: -fit.likeness)


def _fillable(card: ModelCard) -> bool:
    """Whether a file could hold the weights of a card: not those of floors, nor of what is downloaded."""
    downloaded = any(f".{module}:" in card.source for module in _DOWNLOADING)
    return card.role in ("model", "control", "encoder") and not downloaded


def _try(card: ModelCard, outline: Path, shapes: Counter[tuple[int, ...]]) -> Iterator[Fit]:
    """Yield how a card fits, with each of its options."""
    for options in RELEASED.get(card.name, [{}]):
        model, error = _without_memory(card.name, tuple(options.items())), ""
        if not isinstance(model, nn.Module):
            return
        own = Counter(tuple(value.shape) for value in model.state_dict().values())
        alike = sum((own & shapes).values()) / max(1, sum((own | shapes).values()))
        if alike < _UNLIKE:
            error = "is of another network"
        else:
            try:
                matched_tensors(model, outline)
            except UsageError as problem:
                error = str(problem).removeprefix(f"{outline}: ")
        task = suggested_task(card, options)
        yield Fit(card.name, card.title, card.paper, options, error, alike, task)


@functools.cache
def _without_memory(card: str, options: tuple[tuple[str, Any], ...]) -> Any:
    """The model of a card with these options, on the device `meta`."""
    described = get_card(card)
    module, attribute = described.source.split(":")
    factory = getattr(importlib.import_module(module), attribute)
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about initial values, of which there are none
        return factory(**{**described.options, **dict(options)})


def _read(path: Path) -> Mapping[Any, Any]:
    """Read a file of any of the official codes, without running code in it."""
    with torch.serialization.safe_globals(list(LIGHTNING_CLASSES)):
        return read_content(path)


def _outline(content: Mapping[Any, Any]) -> dict[str, Any]:
    """The tensors of a file, also within mappings; large ones become one number that is seen in the tensor's shape."""
    found: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, Tensor):
            small = value.numel() <= _SMALL
            found[str(name)] = value.clone() if small else value.new_zeros(()).expand(value.shape)
        elif isinstance(value, Mapping):
            inner = _outline(value)
            if inner:
                found[str(name)] = inner
    return found


def _tensors(content: Mapping[str, Any]) -> Iterator[Tensor]:
    """All tensors of the weights: of `model`, `state_dict` or a network where there is one, else of everything."""
    for part in ("model", "state_dict", "teacher", "student"):
        if isinstance(content.get(part), Mapping):
            content = content[part]
            break
    for value in content.values():
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Mapping):
            yield from _tensors(value)

"""What `list` shows of each card, read from its YAML as it is: checking a card imports torch, and a list must not."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from ..core import entry_points
from ..core.files import parse_yaml, read_text
from ..core.paths import bundled, data_root
from .names import CARDS, WEIGHTS, get_task


@dataclass(frozen=True)
class TaskLine:
    """One task.

    Attributes:
        data: `embedded` for rendered scenes, `official` where the folder of the card is below `OCL_BENCH_DATA`, `both`,
            or `-` for neither.
        input: side in pixels of the images that a model without a size of its own gets.
        published: number of rows of papers that stand beside its results.
    """

    name: str
    family: str
    title: str
    data: str
    input: int
    published: int


@dataclass(frozen=True)
class ModelLine:
    """One model.

    Attributes:
        supervision: what training saw, the encoder of a floor included.
        role: as on its card; `installed` for a model of an installed package, which has no card here.
        paper: number on arXiv, or the address without its scheme and without `github.com`.
        families: whose tasks it does; None for what the defaults of a card say.
        bundled: `weights`; `no weights` for a model that needs a checkpoint; `none needed` for floors and ceilings.
        parameters: numbers in the bundled weights, None without any.
    """

    name: str
    role: str
    title: str
    paper: str
    supervision: str
    families: tuple[str, ...] | None
    bundled: str
    parameters: int | None


def task_line(name: str) -> TaskLine:
    """What to show of the task of this name."""
    path = bundled("tasks") / f"{name}.yaml"
    card = _content(path) if path.is_file() else get_task(name).model_dump()
    rows = bundled("leaderboards") / "published" / f"{name}.yaml"
    return TaskLine(
        name=name,
        family=card["family"],
        title=card.get("title", ""),
        data=_data(card["data"]),
        input=card["protocol"].get("input", 128),
        published=len(_content(rows)["rows"]) if rows.is_file() else 0,
    )


def families_of(model: str) -> tuple[str, ...]:
    """Names of the families whose tasks a model does."""
    from .families import default_families  # checks of cards, and so slow to import

    line = model_line(model)
    return line.families or default_families(line.role)


def _data(data: dict[str, Any]) -> str:
    """Which kinds of data are there; that a folder holds what its reader needs is told by `data where`."""
    root, folder = data_root(), data.get("folder", "")
    official = root is not None and bool(folder) and ((root / folder).is_dir() or root.name == folder)
    if official and data.get("stand_in"):
        return "both"
    return "official" if official else "embedded" if data.get("stand_in") else "-"


def model_line(name: str) -> ModelLine:
    """What to show of the model of this name."""
    path = CARDS / f"{name}.yaml"
    if not path.is_file():
        value = entry_points.offered(entry_points.MODELS)[name].value
        return ModelLine(name, "installed", value, "", "", None, "", None)
    card = _content(path)
    role = card.get("role", "model")
    weights = card.get("weights", "")
    without = "none needed" if role in ("floor", "ceiling") else "no weights"
    return ModelLine(
        name=name,
        role=role,
        title=card.get("title", ""),
        paper=_short(card.get("paper", "")),
        supervision=_supervision(card),
        families=tuple(card["families"]) if "families" in card else None,
        bundled="weights" if weights else without,
        parameters=_numbers_in(WEIGHTS / weights) if weights else None,
    )


def _supervision(card: dict[str, Any]) -> str:
    """What training saw; a floor on the features of another bundled model has seen what that one saw."""
    encoder = CARDS / f"{card.get('options', {}).get('encoder', '')}.yaml"
    if card.get("role") == "floor" and encoder.is_file():
        card = _content(encoder)
    return str(card.get("supervision", "none"))


def _short(address: str) -> str:
    for start in ("https://arxiv.org/abs/", "https://github.com/", "https://"):
        address = address.removeprefix(start)
    return address


def _numbers_in(path: Path) -> int:
    """How many numbers a file of weights has; only its head is read."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        return sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 (not a dict)


def _content(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = parse_yaml(read_text(path))
    return content

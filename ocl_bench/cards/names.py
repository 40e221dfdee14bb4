"""From a name to a card: bundled cards, cards by path, and those that installed packages offer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..core import entry_points
from ..core.errors import UsageError
from ..core.paths import PACKAGE, bundled

if TYPE_CHECKING:
    from .model import ModelCard
    from .task import TaskSpec


CARDS = PACKAGE / "models" / "cards"


def task_names() -> list[str]:
    """Names of the bundled task cards and of tasks offered by installed packages."""
    return sorted({p.stem for p in bundled("tasks").glob("*.yaml")} | set(entry_points.offered(entry_points.TASKS)))


def model_names() -> list[str]:
    """Names of the bundled model cards and of models offered by installed packages."""
    return sorted({p.stem for p in CARDS.glob("*.yaml")} | set(entry_points.offered(entry_points.MODELS)))


def ready_names() -> list[str]:
    """Models that need no checkpoint of the user's: bundled weights, floors and ceilings, offers of other packages."""
    cards = {name: get_card(name) for name in model_names() if (CARDS / f"{name}.yaml").is_file()}
    waiting = {name for name, card in cards.items() if not card.weights and card.role not in ("floor", "ceiling")}
    return [name for name in model_names() if name not in waiting]


def get_task(task: str | Path | TaskSpec) -> TaskSpec:
    """A task card by name, by path of a YAML file, or as it is. Raises UsageError with a suggestion."""
    from .task import TaskSpec, load_task  # pydantic and yaml are slow to import, and names do not need them

    if isinstance(task, TaskSpec):
        return task
    text = str(task)
    if text.endswith((".yaml", ".yml")):
        return load_task(Path(text))
    card = bundled("tasks") / f"{text}.yaml"
    if re.fullmatch(r"[\w.-]+", text) and card.is_file():
        return load_task(card)
    if text in (tasks := entry_points.offered(entry_points.TASKS)):
        value = tasks[text].load()
        value = value() if callable(value) and not isinstance(value, TaskSpec) else value
        return value if isinstance(value, TaskSpec) else load_task(Path(value))
    raise UsageError(unknown("task", text, task_names()))


def get_card(name: str) -> ModelCard:
    """The card of a bundled model. Raises UsageError with a suggestion."""
    from .model import load_model_card

    path = CARDS / f"{name}.yaml"
    if not re.fullmatch(r"[\w.-]+", name) or not path.is_file():
        raise UsageError(unknown("model", name, model_names()))
    return load_model_card(path)


def unknown(kind: str, name: str, known: list[str]) -> str:
    """The message about a name that is no card, with a suggestion."""
    return f"unknown {kind} '{name}'{suggest(name, known)}; see `ocl-bench list {kind}s`"


def suggest(name: str, known: list[str]) -> str:
    """`; did you mean dias?`, or nothing where no known name is close."""
    import difflib

    close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def find_card(name: str, others: Sequence[str] = ()) -> TaskSpec | ModelCard:
    """The task or model card of that name or at that path. Raises UsageError with a suggestion.

    others: names that are no cards and may be suggested, too.
    """
    if name in task_names():
        return get_task(name)
    if name.endswith((".yaml", ".yml")):
        from .model import load_model_card

        return load_model_card(Path(name)) if is_model_card(Path(name)) else get_task(name)
    if (CARDS / f"{name}.yaml").is_file():
        return get_card(name)
    raise UsageError(f"no card '{name}'{suggest(name, [*task_names(), *model_names(), *others])}; see `ocl-bench list`")


def is_model_card(path: Path) -> bool:
    """Whether a YAML file is a model card, which has a `source`, rather than a task card."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return False  # reading it as a task card names what is wrong
    return isinstance(content, dict) and "source" in content

"""Cards by name or path: bundled cards, YAML files, and cards that installed packages offer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from ..core import entry_points
from ..core.errors import UsageError
from ..core.files import parse_yaml, read_text
from ..core.paths import PACKAGE, bundled

if TYPE_CHECKING:
    from .model import ModelCard
    from .task import TaskSpec


CARDS = PACKAGE / "models" / "cards"
WEIGHTS = PACKAGE / "models" / "weights"


def task_names() -> list[str]:
    """Names of the bundled task cards and of the tasks that installed packages offer, sorted."""
    return sorted(
        {path.stem for path in bundled("tasks").glob("*.yaml")} | set(entry_points.offered(entry_points.TASKS))
    )


def model_names() -> list[str]:
    """Names of the bundled model cards and of the models that installed packages offer, sorted."""
    return sorted({path.stem for path in CARDS.glob("*.yaml")} | set(entry_points.offered(entry_points.MODELS)))


def ready_names() -> list[str]:
    """Names of models that run without a checkpoint from the user.

    These are models with bundled weights, floors and ceilings, and the models of installed packages.
    """
    cards = {name: get_card(name) for name in model_names() if (CARDS / f"{name}.yaml").is_file()}
    waiting = {name for name, card in cards.items() if not card.weights and card.role not in ("floor", "ceiling")}
    return [name for name in model_names() if name not in waiting]


def is_pattern(text: str) -> bool:
    """Whether a text stands for all names that fit it, as `movi*` does."""
    return any(sign in text for sign in "*?[")


def matching(patterns: Sequence[str], known: Sequence[str]) -> list[str]:
    """Those of the known names that fit one of the patterns; a name fits itself."""
    return [name for name in known if any(fnmatchcase(name, pattern) for pattern in patterns)]


def get_task(task: str | Path | TaskSpec) -> TaskSpec:
    """The task card of a name or of a YAML file; a card is returned as it is. Raises UsageError with a suggestion."""
    from .task import (  # pydantic and yaml are slow to import, and names do not need them
        WITH_CLASSES,
        TaskSpec,
        load_task,
    )

    if isinstance(task, TaskSpec):
        return task
    text = str(task)
    if text.endswith((".yaml", ".yml")):
        return load_task(Path(text))
    card = bundled("tasks") / f"{text}.yaml"
    if re.fullmatch(r"[\w.-]+", text) and card.is_file():  # a name with a slash must not leave the folder
        return load_task(card)
    if text in (tasks := entry_points.offered(entry_points.TASKS)):
        value = tasks[text].load()  # a card, a path, or a function that returns one of them
        value = value() if callable(value) and not isinstance(value, TaskSpec) else value
        return value if isinstance(value, TaskSpec) else load_task(Path(value))
    if text != (base := text.removesuffix(WITH_CLASSES)) and base in task_names():
        return get_task(base).with_classes()
    raise UsageError(unknown("task", text, task_names()))


def is_task(name: str) -> bool:
    """Whether `get_task` finds a card by this name, without opening a file that a stranger named."""
    from .task import WITH_CLASSES

    if name in task_names():
        return True
    if not name.endswith(WITH_CLASSES) or name.removesuffix(WITH_CLASSES) not in task_names():
        return False
    try:
        get_task(name)
    except UsageError:  # a task without classes
        return False
    return True


def get_card(name: str) -> ModelCard:
    """The card of a bundled model. Raises UsageError with a suggestion."""
    from .model import load_model_card

    path = CARDS / f"{name}.yaml"
    if not re.fullmatch(r"[\w.-]+", name) or not path.is_file():
        raise UsageError(unknown("model", name, model_names()))
    return load_model_card(path)


def name_of_file(path: Path, attribute: str) -> str:
    """The name that `path.py:attribute` has in results, unless its author gives it another one."""
    return f"{path.stem}-{attribute}"


def unknown(kind: str, name: str, known: list[str]) -> str:
    """The error message for an unknown name, with a suggestion."""
    yours = {"task": "the path of a card (.yaml)", "model": "path.py:build"}[kind]
    return f"unknown {kind} '{name}'{suggest(name, known) or f'; see `ocl-bench list {kind}s`, or give {yours}'}"


def suggest(name: str, known: list[str]) -> str:
    """`; did you mean dias?`, or an empty string when no known name is close."""
    import difflib

    close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def find_card(name: str, others: Sequence[str] = ()) -> TaskSpec | ModelCard:
    """The task or model card of that name or at that path.

    Args:
        name: of a card, or the path of a YAML file.
        others: names of other things that may also be suggested.

    Raises:
        UsageError: for an unknown name, with a suggestion.
    """
    if is_task(name):
        return get_task(name)
    if name.endswith((".yaml", ".yml")):
        from .model import load_model_card

        return load_model_card(Path(name)) if is_model_card(Path(name)) else get_task(name)
    if (CARDS / f"{name}.yaml").is_file():
        return get_card(name)
    close = suggest(name, [*task_names(), *model_names(), *others])
    raise UsageError(f"no card '{name}'{close or '; see `ocl-bench list`'}")


def is_model_card(path: Path) -> bool:
    """Whether a YAML file is a model card and not a task card: only model cards have a `source`."""
    try:
        content = parse_yaml(read_text(path))
    except (OSError, ValueError):
        return False  # then it is read as a task card, and that error names the problem
    return isinstance(content, dict) and "source" in content

"""The verb `new`: a small working example of a model, a task or a metric, with its test."""

from __future__ import annotations

import importlib.util
import keyword
import re
from enum import StrEnum
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from ..core.errors import UsageError
from ..core.files import check_out
from .options import print_next

TEMPLATES = Path(__file__).parent / "templates"
EXAMPLES = 16
"""Images that a new task has to begin with."""


class Kind(StrEnum):
    """What `new` can write."""

    model = "model"
    task = "task"
    metric = "metric"


_FILES = {
    Kind.model: {"$name.py": "model.py", "test_$name.py": "test_model.py"},
    Kind.task: {"$name.yaml": "task.yaml", "test_$name.py": "test_task.py"},
    Kind.metric: {"$name.py": "metric.py", "test_$name.py": "test_metric.py", "pyproject.toml": "pyproject.toml"},
}
"""The files of an example and their templates, `templates/<template>.txt`."""

_NEXT = {
    Kind.model: (
        "ocl-bench check-model --model $out/$name.py:build",
        "ocl-bench eval --model $out/$name.py:build --task clevrtex --limit 16",
    ),
    Kind.task: ("ocl-bench eval --model dias --task $out/$name.yaml --data-root $out",),
    Kind.metric: (
        "pip install -e $out",
        "ocl-bench show $name",
        "ocl-bench new task my_task  # and name it in metrics",
    ),
}
"""What to run after the test."""


def new(
    kind: Annotated[Kind, typer.Argument(help="What to write.")],
    name: Annotated[str, typer.Argument(help="Its name, as one writes names in Python: my_model.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the files; by default one of that name here.")] = None,
) -> None:
    """Write a small working example to start from, with its test. No file is ever overwritten."""
    folder = out or Path(name)
    _check_name(kind, name)
    words = {"name": name, "class_name": "".join(part[:1].upper() + part[1:] for part in name.split("_"))}
    words |= {"card_name": name.lower(), "distribution": name.lower().replace("_", "-"), "out": str(folder)}
    files = {folder / _filled(path, words): TEMPLATES / f"{source}.txt" for path, source in _FILES[kind].items()}
    data = folder / f"images_of_{name}"
    for path in (*files, *([data] if kind is Kind.task else [])):
        if path.exists():
            raise UsageError(f"{path} is there already and is not overwritten; choose another name or --out FOLDER")
    check_out(folder, folder=True)
    folder.mkdir(parents=True, exist_ok=True)
    for path, source in files.items():
        path.write_text(_filled(source.read_text(encoding="utf-8"), words), encoding="utf-8")
        typer.echo(f"written: {path}")
    if kind is Kind.task:
        _write_images(data)
        typer.echo(f"written: {data} ({EXAMPLES} images and masks; put your own in their place)")
    for command in (f"pytest {folder}", *_NEXT[kind]):
        print_next(_filled(command, words))


def _is_usable(name: str) -> bool:
    """Whether a Python file may have this name."""
    return re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) is not None and not keyword.iskeyword(name)


def _check_name(kind: Kind, name: str) -> None:
    """Raise UsageError for a name that cannot be that of a Python file, or that would hide something known."""
    if not _is_usable(name):
        close = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")
        proposed = close if _is_usable(close) else f"my_{close or kind}"
        raise UsageError(f"name '{name}': use a letter, then letters, digits and _, such as {proposed}")
    if kind is not Kind.task and (known := importlib.util.find_spec(name)) is not None and known.origin:
        raise UsageError(f"name '{name}': is that of an installed module, which {name}.py would hide; use my_{name}")
    if kind is Kind.metric:
        from ..metrics import is_metric

        if is_metric(name):
            raise UsageError(f"name '{name}': is that of a metric of the suite; use my_{name}")


def _filled(text: str, words: dict[str, str]) -> str:
    return Template(text).substitute(words)


def _write_images(folder: Path) -> None:
    """Noisy images of coloured discs and their masks, in the layout of the reader `folder`."""
    import numpy as np
    from PIL import Image

    from ..evaluation.check_model import synthetic_images

    images, masks = synthetic_images(EXAMPLES, 64)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
        pixels = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number:03d}.png")
        Image.fromarray(mask.astype(np.uint8)).save(folder / "masks" / f"{number:03d}.png")

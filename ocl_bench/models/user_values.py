"""What the code of a user's model names outside of the model: attributes of classes, and globals of modules.

`class Net: steps = int(os.environ["STEPS"])` and `TABLE = torch.load("table.pt")` are in no instance, and predictions
depend on them all the same. Only what lies in modules outside of installed packages is looked at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import partial
from pathlib import Path, PurePath
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from .sources import own_file

_VALUES = bool | int | float | complex | str | bytes | None | np.generic | np.ndarray | torch.Tensor
_HOLDERS = Mapping | list | tuple | set | frozenset | partial | nn.Module | torch.dtype | torch.device | Enum | range


def class_values(kind: type) -> Iterator[tuple[str, Any]]:
    """The attributes of a user's classes behind an object, with their names; methods as functions.

    kind: class of the object. Those of its bases that are not the user's own are left out.
    """
    for one in kind.__mro__:
        if own_file(one.__module__) is None:
            continue
        for name, value in vars(one).items():
            value = getattr(value, "__func__", getattr(value, "fget", value))  # of static and class methods, properties
            if isinstance(value, FunctionType) or (not name.startswith("__") and _counts(value, one.__module__)):
                yield f"{one.__qualname__}.{name}", value


def named_values(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """The source of a user's function, and the globals that it names; nothing for any other function."""
    file = own_file(function.__module__)
    if file is None:
        return
    yield ".source", hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
    names = list(_names(function.__code__))
    for name in names:
        value = function.__globals__.get(name)
        if isinstance(value, ModuleType) and own_file(value):
            yield from _of_module(name, value, names)
        elif _counts(value, function.__module__):
            yield f".{name}", value


def _of_module(prefix: str, module: ModuleType, names: list[str]) -> Iterator[tuple[str, Any]]:
    """What a function names of a user's module: for `net.SHIFT`, its code names both `net` and `SHIFT`."""
    held = ((name, vars(module)[name]) for name in names if name in vars(module))
    yield from ((f".{prefix}.{name}", value) for name, value in held if _counts(value, module.__name__))


def _names(code: CodeType) -> Iterator[str]:
    """Names that code uses, that of functions within it too; without those with two underscores."""
    yield from (name for name in code.co_names if not name.startswith("__"))
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from _names(part)


def _counts(value: Any, module: str) -> bool:
    """Whether a value is looked at: numbers, texts, arrays, what holds them, and what a user's own code made.

    A logger or a file would differ from run to run. A place in the folder of the code is no part of what it does.
    """
    if isinstance(value, str | PurePath):
        home = own_file(module) or Path()
        return isinstance(value, str) and not value.startswith(str(home.parent))
    if isinstance(value, type | FunctionType):
        return own_file(value.__module__) is not None
    return isinstance(value, _VALUES | _HOLDERS) or own_file(type(value).__module__) is not None

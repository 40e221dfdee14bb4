"""What a user's model is: its state after building, and the sources that it was built from.

A result, a head and a bank belong to the model that made them. The path of a file does not say which model that was:
`build()` may load weights that were trained anew, read an environment variable, or import a module that was edited.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import partial
from pathlib import PurePath
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor, nn

from ..core.errors import UsageError
from .sources import own_file
from .user_values import class_values, named_values

_PLAIN = bool | int | float | complex | str | bytes | None
_NAMED = np.generic | PurePath | torch.dtype | torch.device | range | Enum  # their `repr` is their whole content
_OF_TORCH = frozenset(vars(nn.Module()))  # what torch itself keeps in each module
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


def state_fingerprint(model: Any) -> str | None:
    """A hash of everything that can change what a model predicts, or None for a model that nothing identifies.

    Args:
        model: its attribute `fingerprint` (a text, or a function without arguments that returns one) counts alone if it
            has one. Otherwise parameters, buffers and other arrays do, with the numbers and texts beside them.

    Returns:
        32 hexadecimal digits. None for a model without any array: what makes it predict as it does cannot be seen.

    Raises:
        UsageError: `fingerprint` is neither a text nor a function that returns one.

    The hash is XXH3 with 128 bits: several GB/s on one core, and nobody attacks their own cache.
    """
    named = getattr(model, "fingerprint", None)
    if named is not None:
        text = named() if callable(named) else named
        if not isinstance(text, str) or not text:
            raise UsageError(f"model {type(model).__name__}: fingerprint is {text!r}, expected a text, not empty")
        return xxhash.xxh3_128_hexdigest(text.encode())
    state, arrays = xxhash.xxh3_128(), 0
    for name, value in _state(model, "", {}):
        if isinstance(value, Tensor | np.ndarray):
            arrays += 1
            _add(state, name, value)
        else:
            state.update(f"{name}={value!r}|".encode())
    return state.hexdigest() if arrays else None


def arrays_fingerprint(model: Any) -> str:
    """A hash of what a model learnt: of its parameters and buffers alone, or of all its arrays if it is no module.

    It tells one training from another even if the model keeps its seed or the name of its file. Empty without arrays.
    """
    module = isinstance(model, nn.Module)
    named = [*model.named_parameters(), *model.named_buffers()] if module else _state(model, "", {})
    arrays = [(name, value) for name, value in named if isinstance(value, Tensor | np.ndarray)]
    state = xxhash.xxh3_128()
    for name, value in arrays:
        _add(state, name, value)
    return state.hexdigest() if arrays else ""


def _add(state: Any, name: str, value: Tensor | np.ndarray) -> None:
    """Add an array with its name to a hash."""
    state.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
    state.update(_bytes(value))


def _state(value: Any, name: str, seen: dict[int, tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Arrays, numbers and texts of a model with their names: of its modules, and of objects that it holds.

    A threshold or a number of iterations is not a parameter, and changes predictions all the same.

    Args:
        value: the model, or a part of it.
        name: of the part.
        seen: parts by `id`, with the name under which they were met first. Each is looked into once, however often it
            is held; holding the parts here keeps their ids from being given to others.
    """
    if isinstance(value, Tensor | np.ndarray | _PLAIN):
        yield name, value
    elif isinstance(value, _NAMED):
        yield name, f"{type(value).__name__} {value!r}"
    elif id(value) in seen:
        yield name, f"is {seen[id(value)][0]}"
    else:
        seen[id(value)] = (name, value)
        if isinstance(value, nn.Module):
            yield from value.named_parameters(prefix=name)
            yield from value.named_buffers(prefix=name)
            modules = list(value.named_modules(prefix=name))
            seen.update({id(module): (place, module) for place, module in modules})
            parts = [(f"{place}.{key}", entry) for place, module in modules for key, entry in _attributes(module)]
            parts += [
                entry for kind in dict.fromkeys(type(module) for _, module in modules) for entry in class_values(kind)
            ]
        else:
            parts = [(f"{name}{key}", entry) for key, entry in _parts(value)]
        for place, entry in parts:
            yield from _state(entry, place, seen)


def _attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """What a module holds beside parameters, buffers and modules; its hooks without the numbers that torch gives."""
    for key, entry in sorted(vars(module).items()):
        if key in _HOOKS:
            yield key, list(entry.values())
        elif key not in _OF_TORCH:
            yield key, entry


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What a container, a function or an object is made of, with the names of the parts."""
    if isinstance(value, Mapping):
        yield from ((f"[{key!r}]", entry) for key, entry in value.items())
    elif isinstance(value, list | tuple | deque):
        yield from ((f"[{index}]", entry) for index, entry in enumerate(value))
    elif isinstance(value, set | frozenset):
        yield "", sorted(map(repr, value))
    elif isinstance(value, partial):
        yield from ((".func", value.func), (".args", value.args), (".keywords", value.keywords))
    elif isinstance(value, FunctionType):
        yield "", value.__qualname__ if own_file(value.__module__) else f"{value.__module__}.{value.__qualname__}"
        yield ".defaults", [value.__defaults__, value.__kwdefaults__]
        yield ".closure", [cell.cell_contents for cell in value.__closure__ or () if not _is_empty(cell)]
        yield from named_values(value)
    elif isinstance(value, MethodType):
        yield "", value.__func__.__qualname__
        yield ".__self__", value.__self__
    elif isinstance(value, type):
        yield from class_values(value)
    elif not isinstance(value, ModuleType):
        yield from class_values(type(value))
        slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
        held = {name: getattr(value, name) for name in slots if isinstance(name, str) and hasattr(value, name)}
        yield from ((f".{key}", entry) for key, entry in sorted((held | getattr(value, "__dict__", {})).items()))


def _is_empty(cell: CellType) -> bool:
    """Whether a variable of a closure has no value yet."""
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return True
    return False


def _bytes(value: Tensor | np.ndarray) -> bytes | memoryview:
    """The memory of an array. bfloat16 and the like have no NumPy type, hence the view of a tensor as bytes."""
    if isinstance(value, np.ndarray):
        return np.ascontiguousarray(value).tobytes()
    flat = value.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy()) if flat.numel() else b""  # type: ignore[arg-type]

"""What a model does that its predictions alone do not show: its modes, its random numbers, where its tensors lie."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Parts = Mapping[str, nn.Module]
"""Modules of a model by the name of the attribute that holds them."""


def torch_parts(model: Any) -> dict[str, nn.Module]:
    """The model itself as `self` when it is a module, else those of its attributes that are modules."""
    if isinstance(model, nn.Module):
        return {"self": model}
    return {f"self.{name}": part for name, part in _attributes(model).items() if isinstance(part, nn.Module)}


def in_training_mode(parts: Parts) -> list[str]:
    """Names of the parts that have a module in training mode."""
    return [name for name, part in parts.items() if any(module.training for module in part.modules())]


@contextmanager
def in_mode(parts: Parts, training: bool) -> Iterator[None]:
    """The parts in training or in evaluation mode; modes, buffers and random numbers are as before at the end."""
    modules = [module for part in parts.values() for module in part.modules()]
    modes = [module.training for module in modules]
    # In training mode batch norm writes its running statistics.
    buffers = [(buffer, buffer.clone()) for part in parts.values() for buffer in part.buffers()]
    with torch.random.fork_rng():
        try:
            for part in parts.values():
                part.train(training)
            yield
        finally:
            for module, mode in zip(modules, modes, strict=True):
                module.training = mode
            for buffer, before in buffers:
                buffer.data.copy_(before)


@contextmanager
def left_as_found(model: Any) -> Iterator[None]:
    """A live model is in the modes and on the devices in which it was, at the end; a name is no live model."""
    parts = torch_parts(model)
    modes = [(module, module.training) for part in parts.values() for module in part.modules()]
    devices = {name: tensor.device for name, tensor in _tensors(parts)}
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for name, tensor in _tensors(parts):
            if tensor.device != (before := devices.get(name, tensor.device)):
                tensor.data = tensor.data.to(before)


def _tensors(parts: Parts) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers. `to` puts new buffers in the place of the old ones, and their names stay."""
    for name, part in parts.items():
        yield from part.named_parameters(prefix=name)
        yield from part.named_buffers(prefix=name)


def plain_tensors(parts: Parts) -> list[str]:
    """Names of tensors that no `.to(device)` moves: attributes of modules that are neither parameters nor buffers."""
    return [
        ".".join(filter(None, (name, inner, attribute)))
        for name, part in parts.items()
        for inner, module in part.named_modules()
        for attribute, value in vars(module).items()
        if isinstance(value, Tensor)
    ]


def generators_used(act: Callable[[], object]) -> list[str]:
    """Names of the global random generators from which a call draws."""
    states: dict[str, Callable[[], Any]] = {
        "torch": lambda: torch.get_rng_state().tolist(),
        "numpy": lambda: [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()],
        "random": random.getstate,
    }
    before = {name: state() for name, state in states.items()}
    act()
    return [name for name, state in states.items() if state() != before[name]]


def _attributes(model: Any) -> dict[str, Any]:
    return vars(model) if hasattr(model, "__dict__") else {}

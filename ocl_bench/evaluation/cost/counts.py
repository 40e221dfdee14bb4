"""What can be counted: parameters and operations of one pass. These numbers do not depend on the machine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from .subject import Subject

_ATTENTION = torch.ops.aten.scaled_dot_product_attention


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters.

    inference: of all tensors that a prediction reads, the frozen encoder included. A teacher, a head that only the loss
    needs or a final norm that is never applied is not in it. whole: of the model. trainable: that training changes.
    """

    inference: int
    whole: int
    trainable: int


@dataclass(frozen=True)
class Operations:
    """Floating-point operations per frame by torch's counter, 2 per multiply-add: matrix products and convolutions.

    total: all of them. without_attention: without those of `scaled_dot_product_attention`, which the counter does not
    see on a CPU, where it is one fused kernel. Attention that a model writes out as products is in both.
    """

    total: float
    without_attention: float


class _ReadTensors(TorchDispatchMode):
    """Collects the storages of all tensors that enter an operation."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, Tensor):
                self.storages.add(_storage(value))
        return func(*args, **(kwargs or {}))


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def count_parameters(subject: Subject) -> Parameters:
    """Parameters of a model, and those that one pass reads. A model that is no torch module has none."""
    model = subject.loaded.model
    listed = list(model.parameters()) if callable(getattr(model, "parameters", None)) else []
    with _ReadTensors() as seen:
        subject.run()
    return Parameters(
        inference=_number(one for one in listed if _storage(one) in seen.storages),
        whole=_number(listed),
        trainable=_number(one for one in listed if one.requires_grad),
    )


def _number(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


def count_operations(subject: Subject) -> Operations:
    """Operations of one pass, per frame.

    In inference mode the counter gets attention as one operation on every device, so that it can be told apart.
    """
    mapping = {_ATTENTION: _attention_flops, _ATTENTION.default: _attention_flops}  # the latter keeps it in one piece
    counter = FlopCounterMode(display=False, custom_mapping=mapping)
    with counter:
        subject.run()
    whole = counter.get_total_flops()
    attention = counter.get_flop_counts()["Global"].get(_ATTENTION, 0)
    return Operations(whole / subject.frames, (whole - attention) / subject.frames)


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Operations of attention from the shapes of its inputs: two products."""
    return int(sdpa_flop_count(query, key, value))

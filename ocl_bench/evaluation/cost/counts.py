"""Parameters and operations of one pass. These counts do not depend on the machine."""

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

    Attributes:
        inference: of all tensors that a prediction reads, the frozen encoder included. A teacher, a head that only the
            loss needs, or a final norm that is never applied does not count.
        whole: of the model.
        trainable: of the tensors that training changes.
    """

    inference: int
    whole: int
    trainable: int


@dataclass(frozen=True)
class Operations:
    """Floating-point operations per frame, as torch counts them: matrix products and convolutions, 2 a multiply-add.

    Attributes:
        total: all of them.
        without_attention: without those of `scaled_dot_product_attention`. On a CPU this is one fused kernel, which
            torch's own counter does not see. Attention that a model writes out as matrix products is in both numbers.
    """

    total: float
    without_attention: float


class _ReadTensors(TorchDispatchMode):
    """Collects the storages of all tensors that enter an operation.

    Storages, not tensors: a model often reads its weights through views, such as a transposed or expanded one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.storages: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, Tensor):
                self.storages.add(_storage(value))
        return func(*args, **(kwargs or {}))


def _storage(tensor: Tensor) -> int:
    """The address of the storage behind a tensor, which all views of it share."""
    return tensor.untyped_storage()._cdata


def count_parameters(subject: Subject) -> Parameters:
    """The parameters of a model, and those that one pass reads. A model that is not a torch module has none."""
    model = subject.loaded.model
    parameters = list(model.parameters()) if callable(getattr(model, "parameters", None)) else []
    with _ReadTensors() as seen:
        subject.run()
    return Parameters(
        inference=_number(tensor for tensor in parameters if _storage(tensor) in seen.storages),
        whole=_number(parameters),
        trainable=_number(tensor for tensor in parameters if tensor.requires_grad),
    )


def _number(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


def count_operations(subject: Subject) -> Operations:
    """The operations of one pass, per frame."""
    # In inference mode attention reaches the counter as one operation on every device, and can be told apart. The
    # second entry keeps torch from breaking it up into the matrix products that it stands for.
    mapping = {_ATTENTION: _attention_flops, _ATTENTION.default: _attention_flops}
    counter = FlopCounterMode(display=False, custom_mapping=mapping)
    with counter:
        subject.run()
    whole = counter.get_total_flops()
    attention = counter.get_flop_counts()["Global"].get(_ATTENTION, 0)
    return Operations(whole / subject.frames, (whole - attention) / subject.frames)


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Operations of attention, from the shapes of its inputs: those of two matrix products."""
    return int(sdpa_flop_count(query, key, value))

"""Fitted heads in the cache, so that the same head is fitted once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from ..errors import UsageError
from ..files import write_atomically
from ..paths import cache_root
from ..types import Prediction, Truth

if TYPE_CHECKING:
    from ..data import OpenData
    from ..plan import Plan


Batches: TypeAlias = Iterator[tuple[list[Truth], Prediction]]


def head_for(plan: Plan, train: OpenData, fit: Callable[[Batches], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The head of a plan, kept in the cache unless the model is an object whose state no key can name.

    fit: makes the head from batches of `train`, truth and prediction. The head gets a tensor `left_out`, positions in
    `train.ids` of the images that could not be read or predicted. A plan that computes everything again (`force`) fits
    again, too.
    """
    from ..runner import predictions

    def fitted() -> dict[str, Tensor]:
        left_out: list[int] = []
        head = fit(([item.truth for item in items], found) for items, found in predictions(plan, train, left_out))
        return {**head, "left_out": torch.tensor(left_out, dtype=torch.int64)}

    return cached(plan.fit_key, fitted, again=plan.refit) if plan.model.reusable else _finite(fitted())


def cached(key: str, fit: Callable[[], dict[str, Tensor]], *, again: bool = False) -> dict[str, Tensor]:
    """The tensors of a head: from `<cache>/heads/<key>.safetensors`, else fitted now and kept there.

    again: fit even if it is there; a damaged file is always replaced. With several ranks (torchrun), rank 0 fits and
    the others wait. Raises UsageError when the cache cannot be written or the head is not finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    path = cache_root() / "heads" / key[:2] / f"{key}.safetensors"
    if int(os.environ.get("RANK", "0")) > 0:
        while not path.is_file():
            time.sleep(0.2)
    if path.is_file() and not again:
        try:
            tensors: dict[str, Tensor] = load_file(path)
            return tensors
        except SafetensorError:
            pass  # a damaged file is fitted again and overwritten
    head = {name: tensor.contiguous() for name, tensor in _finite(fit()).items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda target: save_file(head, target))
    except OSError as error:
        raise _unwritable(path, error) from error
    return head


def _finite(head: dict[str, Tensor]) -> dict[str, Tensor]:
    for name, tensor in head.items():
        if not bool(torch.isfinite(tensor).all()):
            raise UsageError(f"the fitted head is not finite ({name}); are the model's features of a usable size?")
    return head


def _unwritable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"{path}: cannot be written ({error.strerror or error}); set OCL_BENCH_CACHE elsewhere")

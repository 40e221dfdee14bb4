"""Fits the head of a task, or reads it from the package or the cache."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from ..core.errors import UsageError
from ..core.files import path_name
from ..core.log import logger
from ..core.machine import fixed_arithmetic
from ..core.paths import PACKAGE, cache_root
from ..families.base import Batches, Head, HeadAdapter
from .bank import with_bank
from .loop import predictions
from .sealed import read_sealed, write_sealed
from .video_fitting import video_predictions

if TYPE_CHECKING:
    from ..data import OpenData
    from .plan import Plan


def with_head(plan: Plan, check: Callable[[], None] = lambda: None) -> Plan:
    """The plan with its head or bank, fitted or read from the cache; the same plan when the task fits nothing.

    check: called while another rank fits; raises when there is nobody to wait for.
    """
    if plan.train is None or plan.task.fit is None:
        return plan
    with fixed_arithmetic(plan.threads):
        if plan.task.fit.head == "bank":
            return replace(plan, adapter=with_bank(plan, plan.train))
        adapter = cast(HeadAdapter, plan.adapter)
        return replace(plan, adapter=adapter.with_head(head_for(plan, plan.train, check)))


def head_for(plan: Plan, train: OpenData, check: Callable[[], None] = lambda: None) -> Head:
    """The head of a plan, fitted on `train`, or read from the package or the cache.

    It is not cached when the model is a live object, whose state no key can name. With `plan.refit` it is fitted again.
    A bundled head of another key (other weights, recipe or fit split) is not read.
    `check` is that of `cached`.

    Returns:
        The adapter's tensors, and `left_out`: int64 positions in `train.ids` of the images that failed.

    Raises:
        UsageError: when more than a tenth of the images fail, or the head is not finite.
    """
    adapter = cast(HeadAdapter, plan.adapter)

    def fitted(kept: Path | None = None) -> Head:
        left_out: list[int] = []
        # `fit` uses up the generator; `left_out` is complete only after it.
        head = adapter.fit(_batches(plan, train, left_out, kept), train)
        return {**head, "left_out": torch.tensor(left_out, dtype=torch.int64)}

    if not plan.model.reusable:
        return _finite(fitted())
    kept = head_path(plan.fit_key).with_suffix(".videos")
    if plan.refit:
        shutil.rmtree(kept, ignore_errors=True)
    bundled = None if plan.refit else read_sealed(bundled_head(plan.task.name, plan.model.name), plan.fit_key)
    if bundled is not None:
        return bundled
    head = cached(plan.fit_key, lambda: fitted(kept), again=plan.refit, check=check)
    shutil.rmtree(kept, ignore_errors=True)
    return head


def _batches(plan: Plan, train: OpenData, left_out: list[int], kept: Path | None) -> Batches:
    """Truths and predictions of the fit split: of batches of images, or of videos, whose predictions are kept."""
    if plan.by_clips:
        adapter = plan.family.for_data(plan.adapter, train)
        yield from video_predictions(replace(plan, data=train, adapter=adapter), left_out, kept)
        return
    for items, prediction in predictions(plan, train, left_out):
        yield [item.truth for item in items], prediction


def bundled_head(task: str, model: str) -> Path:
    """Where the package has the head of a model on a task, if it has one (`benchmarks/bundle_heads.py`)."""
    return PACKAGE / "models" / "heads" / task / f"{path_name(model)}.safetensors"


def head_path(key: str) -> Path:
    """The file of a head in the cache."""
    return cache_root() / "heads" / key[:2] / f"{key}.safetensors"


def cached(key: str, fit: Callable[[], Head], *, again: bool = False, check: Callable[[], None] = lambda: None) -> Head:
    """The tensors of a head, read from the cache or fitted now.

    With several ranks (torchrun), rank 0 fits and the others wait.

    Args:
        key: names the file, `<cache>/heads/<first two>/<key>.safetensors`.
        fit: computes the head.
        again: fit even if the file is there. One that is damaged, edited or of another key is always replaced.
        check: called while waiting; raises when there is nobody to wait for.

    Raises:
        UsageError: when the cache cannot be written, or the head is not finite.
    """
    path = head_path(key)
    if int(os.environ.get("RANK", "0")) > 0:
        if not path.is_file():
            logger.info("waiting for rank 0, which fits the head (%s)", path)
        while not path.is_file():  # it is written atomically: once there, it is complete
            check()
            time.sleep(0.2)
    if not again and (known := read_sealed(path, key)) is not None:
        return known
    # safetensors refuses views that are not contiguous
    head = {name: tensor.contiguous() for name, tensor in _finite(fit()).items()}
    write_sealed(path, key, head)
    return head


def _finite(head: Head) -> Head:
    """The same head. Raises UsageError when one of its tensors holds NaN or infinity."""
    for name, tensor in head.items():
        if not bool(torch.isfinite(tensor).all()):
            raise UsageError(f"the fitted head is not finite ({name}); are the model's features of a usable size?")
    return head

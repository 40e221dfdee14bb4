"""Weights on disk: strict, atomic, and never a pickle with code in it."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ...core.errors import UsageError


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, or of a torch file that holds nothing but tensors, on the CPU.

    Raises UsageError for a missing or damaged file and for a pickle that would run code.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"{path}: no such checkpoint file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"{path}: refused, it holds more than tensors and loading it could run code; save its state_dict instead"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(
            f"{path}: not a readable checkpoint ({reason}); use safetensors or a torch state_dict"
        ) from error
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UsageError(f"{path}: not a plain state_dict (name -> tensor); save model.state_dict() alone")
    return {str(key): value for key, value in content.items()}


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a checkpoint into a model, strictly: every tensor of both sides must find its partner of the same shape.

    A model with a method `read_checkpoint(path) -> state` reads its official files, which may hold more than tensors;
    one with `translate_checkpoint(state) -> state` may rename the tensors of official checkpoints first.
    Values are converted to the dtype of the model. Raises UsageError naming the file and the first tensor at fault.
    """
    state = getattr(model, "read_checkpoint", read_tensors)(Path(path))
    translate = getattr(model, "translate_checkpoint", None)
    if translate is not None:
        try:
            state = translate(state)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from error
    expected = model.state_dict()
    for key, value in state.items():
        if key in expected and value.shape != expected[key].shape:
            raise UsageError(
                f"{path}: tensor '{key}' has shape {tuple(value.shape)}, the model expects "
                f"{tuple(expected[key].shape)}; check the model's options"
            )
    _refuse(path, "misses tensor", [key for key in expected if key not in state], expected)
    _refuse(path, "has unexpected tensor", [key for key in state if key not in expected], state)
    broken = [key for key, value in state.items() if value.isnan().any()]  # infinities may be a mask's
    _refuse(path, "has NaN in tensor", broken, state)
    model.load_state_dict(state, strict=True)


def _refuse(path: str | Path, what: str, keys: Sequence[str], tensors: Mapping[str, Tensor]) -> None:
    if keys:
        others = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        raise UsageError(
            f"{path}: {what} '{keys[0]}' {tuple(tensors[keys[0]].shape)}{others}; is it a checkpoint of this model?"
        )


def save_weights(model: nn.Module, path: str | Path, dtype: torch.dtype = torch.float16) -> None:
    """Write all parameters and buffers as safetensors, floating ones as `dtype`, atomically.

    Raises UsageError when a value does not fit into `dtype`: a checkpoint with infinities would load without a word.
    """
    path = Path(path)
    state = {}
    for key, value in model.state_dict().items():
        stored = value.detach().cpu().to(dtype) if value.is_floating_point() else value.detach().cpu()
        if stored.is_floating_point() and not stored.isfinite().all():
            raise UsageError(f"{path}: tensor '{key}' is not finite as {dtype}; the training diverged or use float32")
        state[key] = stored.contiguous().clone()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    try:
        save_file(state, temporary, metadata={"format": "pt"})
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def sha256(path: str | Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def rename_keys(state: Mapping[str, Tensor], names: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    """Rename every key by the first (pattern, replacement) whose pattern matches its start.

    Raises UsageError for a key without a rule and for two keys that would get the same name.
    """
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        rule = next(((pattern, new) for pattern, new in names if re.match(pattern, key)), None)
        if rule is None:
            raise UsageError(f"tensor '{key}' {tuple(value.shape)} has no counterpart in this model")
        new_key = re.sub("^" + rule[0], rule[1], key)
        if new_key in renamed:
            raise UsageError(f"tensor '{key}' would overwrite '{new_key}'")
        renamed[new_key] = value
    return renamed

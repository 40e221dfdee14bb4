"""Checkpoints: `last.pt` to resume a training from, and a float16 safetensors file to ship."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..core.errors import UsageError
from ..core.files import check_regular, damaged_part, write_atomically


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a resume needs. Batches are pure functions of (seed, step), so no generator state is stored.

    Attributes:
        step: Number of finished steps.
        model: State dict of the model, frozen tensors included.
        optimizer: State dict of the optimiser.
        identity: Recipe, seed and data; a resume is refused unless they are equal.
        seconds: Training time over all visits so far.
    """

    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    identity: dict[str, Any]
    seconds: float = 0.0


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write `last.pt` atomically. It holds tensors, numbers and strings only, so `weights_only=True` can read it.

    Raises UsageError when it cannot be written; the file that was there before stays.
    """
    content = {
        "step": checkpoint.step,
        "model": {name: tensor.detach().cpu() for name, tensor in checkpoint.model.items()},
        "optimizer": checkpoint.optimizer,
        "identity": json.dumps(checkpoint.identity, sort_keys=True),
        "seconds": checkpoint.seconds,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_atomically(path, lambda temporary: torch.save(content, temporary))
    except RuntimeError as error:  # torch does not say what the operating system said
        raise UsageError(
            f"{path}: cannot be written; is there space left on the disk? The same command goes on from the checkpoint "
            "before"
        ) from error


def load_checkpoint(path: Path) -> Checkpoint:
    """Read `last.pt`.

    Raises:
        UsageError: The file is damaged, or is not such a checkpoint. This includes pickles that contain code, which is
            not run.
    """
    try:
        check_regular(path)
        if part := damaged_part(path):
            raise ValueError(f"damaged in {part}")
        content = torch.load(path, map_location="cpu", weights_only=True)
        return Checkpoint(
            step=int(content["step"]),
            model=content["model"],
            optimizer=content["optimizer"],
            identity=json.loads(content["identity"]),
            seconds=float(content["seconds"]),
        )
    except Exception as error:  # torch, pickle and zipfile raise many unrelated types for a damaged file
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise UsageError(f"{path}: not a training checkpoint ({reason}); remove it or choose another --out") from error


def export_weights(model: nn.Module, path: Path) -> str:
    """Write the whole state dict as safetensors, floating-point tensors as float16, and return the file's SHA-256.

    A frozen encoder is included: one file is one complete model.

    Raises:
        UsageError: A tensor is not finite in float16.
    """
    tensors = {
        name: (tensor.detach().half() if tensor.is_floating_point() else tensor.detach()).cpu().contiguous().clone()
        for name, tensor in model.state_dict().items()
    }  # clone: safetensors refuses tensors that share memory
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise UsageError(f"{path}: tensor '{name}' is not finite in float16; the training diverged, lower `lr`")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda temporary: _save_tensors(tensors, temporary))
    return file_sha256(path)


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    save_file(tensors, path)
    path.chmod(0o644)  # safetensors creates files that only their owner can read


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def state_sha256(model: nn.Module) -> str:
    """SHA-256 of a model's tensors (names, shapes, float16 values). Cached features are stored under this key.

    The rounding makes the hash the same before a model is exported in float16 and after it is loaded again.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        plain = tensor.detach().cpu()
        plain = plain.half() if plain.is_floating_point() else plain
        digest.update(f"{name}|{tuple(plain.shape)}|{plain.dtype}".encode())
        digest.update(plain.contiguous().numpy().tobytes())
    return digest.hexdigest()

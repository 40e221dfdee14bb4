"""Checkpoints: one atomic file to resume from, one float16 file to ship."""

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
from ..core.files import write_atomically


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a resume needs: batches are pure functions of (seed, step), so no generator state is kept.

    step: number of finished steps. model: trainable and frozen tensors by name. optimizer: its state dict.
    identity: what must be equal for a resume to be the same training (recipe and seed). seconds: spent so far.
    """

    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    identity: dict[str, Any]
    seconds: float = 0.0


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write `last.pt` atomically: plain tensors, numbers and strings, readable with `weights_only=True`."""
    content = {
        "step": checkpoint.step,
        "model": {name: tensor.detach().cpu() for name, tensor in checkpoint.model.items()},
        "optimizer": checkpoint.optimizer,
        "identity": json.dumps(checkpoint.identity, sort_keys=True),
        "seconds": checkpoint.seconds,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda temporary: torch.save(content, temporary))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read `last.pt`. Raises UsageError for anything that is not such a file, a pickle with code in it included."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        return Checkpoint(
            step=int(content["step"]),
            model=content["model"],
            optimizer=content["optimizer"],
            identity=json.loads(content["identity"]),
            seconds=float(content["seconds"]),
        )
    except Exception as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise UsageError(f"{path}: not a training checkpoint ({reason}); remove it or choose another --out") from error


def export_weights(model: nn.Module, path: Path) -> str:
    """Write the model's tensors (floating ones as float16) as safetensors, atomically; returns the file's SHA-256.

    The whole state dict is written, a frozen encoder included, so that one file is one model.
    """
    tensors = {
        name: (tensor.detach().half() if tensor.is_floating_point() else tensor.detach()).cpu().contiguous().clone()
        for name, tensor in model.state_dict().items()
    }
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise UsageError(f"{path}: tensor '{name}' is not finite in float16; the training diverged, lower `lr`")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda temporary: _save_tensors(tensors, temporary))
    return file_sha256(path)


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    save_file(tensors, path)
    path.chmod(0o644)  # safetensors makes files that only their owner may read


def file_sha256(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def state_sha256(model: nn.Module) -> str:
    """SHA-256 of a model's tensors in float16 (names, shapes, values): the key of features that it computed.

    Weights that went through the shipped float16 file hash like the weights before, and so do their float32 copies.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        plain = tensor.detach().cpu()
        plain = plain.half() if plain.is_floating_point() else plain
        digest.update(f"{name}|{tuple(plain.shape)}|{plain.dtype}".encode())
        digest.update(plain.contiguous().numpy().tobytes())
    return digest.hexdigest()

"""Tensors in the cache, in files that name the key that they were written for and the hash of their content.

A file that is damaged, edited, or copied from another key is not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ..core.errors import UsageError
from ..core.files import write_atomically
from ..data.folders import remove
from ..models.fingerprint import arrays_fingerprint


def read_sealed(path: Path, key: str) -> dict[str, Tensor] | None:
    """The tensors of a file; None when it is missing, damaged, or not the one that was written for the key."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            return tensors if file.metadata() == _seal(key, tensors) else None
    except SafetensorError:
        return None


def write_sealed(path: Path, key: str, tensors: Mapping[str, Tensor]) -> None:
    """Write contiguous tensors for a key, atomically. Raises UsageError when the cache cannot be written."""
    from safetensors.torch import save_file

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            remove(path)  # this place in the cache is ours, and a file cannot replace a folder
        write_atomically(path, lambda target: save_file(dict(tensors), target, _seal(key, tensors)))
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"{path}: cannot be written ({reason}); set OCL_BENCH_CACHE elsewhere") from error


def _seal(key: str, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """What a file says about its tensors."""
    return {"key": key, "content": arrays_fingerprint(dict(sorted(tensors.items())))}

"""Reading and writing of weights: strictly, atomically, and without running code in a file."""

from __future__ import annotations

import argparse
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ...core.errors import UsageError
from ...core.files import damaged_part, file_sha256, write_atomically
from ...core.log import logger

_WRAPPERS = ("state_dict", "model")
_PREFIXES = ("_orig_mod.", "module.", "model.")
"""What torch.compile, DistributedDataParallel and Lightning put before every name."""


def read_content(path: str | Path) -> Mapping[Any, Any]:
    """Read a checkpoint file, tensors on the CPU, without running any code in it.

    Raises:
        UsageError: the file is missing or damaged, holds no mapping, is a pickle that could run code, or a web page.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"{path}: no such checkpoint file")
    if _is_web_page(path):
        raise UsageError(f"{path}: a web page, which a download gave in place of the file; download it again")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if part := damaged_part(path):
            # Only a warning: torch can be told to write no checksums.
            logger.warning("%s: %s does not fit its checksum; is the file damaged? Get it again", path, part)
        # Official files of SlotCon, DINO and iBOT hold their training arguments as a Namespace, a class without code.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about pickles of another protocol than torch's
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not _is_pickle(path):
            text = "damaged, or no checkpoint at all; download it again, or use safetensors or a torch state_dict"
            raise UsageError(f"{path}: {text}") from error
        raise UsageError(f"{path}: refused, loading it could run code; save its state_dict instead") from error
    except Exception as error:  # a damaged file raises whatever its bytes happen to mean
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(
            f"{path}: not a readable checkpoint ({reason}); use safetensors or a torch state_dict"
        ) from error
    if not isinstance(content, Mapping):
        raise UsageError(f"{path}: holds a {type(content).__name__}, expected named tensors")
    return content


def _is_web_page(path: Path) -> bool:
    """Whether a file begins like HTML, as the warnings and login pages of file hosts do."""
    with path.open("rb") as file:
        return file.read(64).lstrip().lower().startswith((b"<!doctype html", b"<html"))


def _is_pickle(path: Path) -> bool:
    """Whether a file is a whole pickle, alone or in a zip archive as torch writes it. Its commands are not run."""
    if zipfile.is_zipfile(path):
        return True
    try:
        with path.open("rb") as file:
            return sum(1 for _ in pickletools.genops(file)) > 0
    except Exception:  # arbitrary bytes raise whatever they happen to mean
        return False


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read a file that holds nothing but named tensors; UsageError for any other file, see `read_content`."""
    content = read_content(path)
    if not all(isinstance(value, Tensor) for value in content.values()):
        raise UsageError(f"{path}: not a plain state_dict (name -> tensor); save model.state_dict() alone")
    return {str(key): value for key, value in content.items()}


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a checkpoint strictly: model and file must have the same names and shapes.

    Args:
        model: may have `read_checkpoint(path) -> state`, for official files that hold more than tensors, and
            `translate_checkpoint(state) -> state`, which renames the tensors of official checkpoints.
        path: the file. Its values are converted to the dtype of the model. Prefixes of torch.compile, DDP and
            Lightning, and a mapping around the tensors, are taken away where exactly the model's names remain.

    Raises:
        UsageError: the file does not fit; the message names the file and the first wrong tensor.
    """
    path, expected = Path(path), model.state_dict()
    state = matched_tensors(model, path)
    _check_values(path, state, expected, {name for name, _ in model.named_parameters()})
    model.load_state_dict(state, strict=True)


def matched_tensors(model: nn.Module, path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint under the names of a model, with exactly its names and shapes.

    Arguments and errors as in `load_weights`, which also checks their values.
    """
    expected = model.state_dict()
    state = _without_wrapper(path, expected)
    if state is None:
        state = getattr(model, "read_checkpoint", read_tensors)(path)
        translate = getattr(model, "translate_checkpoint", None)
        if translate is not None:
            try:
                state = translate(state)
            except UsageError as error:
                raise UsageError(f"{path}: {error}") from error
    for key, value in state.items():
        if key in expected and value.shape != expected[key].shape:
            raise UsageError(
                f"{path}: tensor '{key}' has shape {tuple(value.shape)}, the model expects "
                f"{tuple(expected[key].shape)}; check the model's options"
            )
    _refuse(path, "misses tensor", [key for key in expected if key not in state], expected)
    _refuse(path, "has unexpected tensor", [key for key in state if key not in expected], state)
    return state


def _without_wrapper(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The tensors of a file under the model's names, when what other tools put around these is taken away.

    That is a mapping in `state_dict` (Lightning) or `model`, and prefixes of all names. None when nothing is around
    them, or when the names without it are not exactly those of the model.
    """
    try:
        content = read_content(path)
    except UsageError:
        return None  # the model may read its own official files; otherwise reading it again raises this error
    for wrapper in ("", *_WRAPPERS):
        tensors = content.get(wrapper) if wrapper else content
        if not isinstance(tensors, Mapping) or not all(isinstance(value, Tensor) for value in tensors.values()):
            continue
        names, removed = {str(key): str(key) for key in tensors}, list[str]()
        while names and set(names.values()) != set(expected):
            prefix = next((known for known in _PREFIXES if all(new.startswith(known) for new in names.values())), None)
            if prefix is None:
                break
            names = {key: new.removeprefix(prefix) for key, new in names.items()}
            removed.append(prefix)
        if set(names.values()) == set(expected) and (wrapper or removed):
            taken = [*([f"the field '{wrapper}'"] if wrapper else []), *(f"the prefix '{part}'" for part in removed)]
            logger.info("%s: loaded without %s", path, " and ".join(taken))
            return {names[str(key)]: value for key, value in tensors.items()}
    return None


def _check_values(
    path: Path, state: Mapping[str, Tensor], expected: Mapping[str, Tensor], parameters: Collection[str]
) -> None:
    """Raise UsageError for tensors that are no numbers of the model's kind: they would be converted without a word."""
    for key, value in state.items():
        fits = value.is_floating_point() == expected[key].is_floating_point() and not value.is_complex()
        if not fits or value.is_quantized or value.is_meta:
            raise UsageError(
                f"{path}: tensor '{key}' holds {value.dtype}, the model expects {expected[key].dtype}; "
                "save the weights as floating-point numbers, such as float32"
            )
    numbers = {key: value.float() if value.element_size() == 1 else value for key, value in state.items()}
    _refuse(path, "has NaN in tensor", [key for key, value in numbers.items() if value.isnan().any()], state)
    # A buffer may hold infinities on purpose, as a mask of attention does; a parameter that does has diverged.
    infinite = [key for key, value in numbers.items() if key in parameters and value.isinf().any()]
    _refuse(path, "has infinity in tensor", infinite, state)


def _refuse(path: str | Path, what: str, keys: Sequence[str], tensors: Mapping[str, Tensor]) -> None:
    """Raise UsageError naming the first of these tensors, if there is any."""
    if keys:
        others = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        raise UsageError(
            f"{path}: {what} '{keys[0]}' {tuple(tensors[keys[0]].shape)}{others}; is it a checkpoint of this model?"
        )


def save_weights(model: nn.Module, path: str | Path, dtype: torch.dtype = torch.float16) -> None:
    """Write all parameters and buffers as safetensors, atomically, with floating-point values as `dtype`.

    Raises:
        UsageError: a value is not finite or too large for `dtype`.
    """
    path = Path(path)
    state = {}
    for key, value in model.state_dict().items():
        stored = value.detach().cpu().to(dtype) if value.is_floating_point() else value.detach().cpu()
        # A checkpoint with infinities would load silently.
        if stored.is_floating_point() and not stored.isfinite().all():
            raise UsageError(f"{path}: tensor '{key}' is not finite as {dtype}; the training diverged or use float32")
        state[key] = stored.contiguous().clone()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda place: save_file(state, place, metadata={"format": "pt"}))


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a regular file in hexadecimal. Raises OSError for anything else."""
    return file_sha256(Path(path))


def rename_keys(state: Mapping[str, Tensor], names: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    """Rename every key by the first of the rules (pattern, replacement) whose pattern matches its start.

    Raises:
        UsageError: a key has no rule, or two keys would get the same name.
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

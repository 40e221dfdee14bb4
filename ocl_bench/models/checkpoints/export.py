"""SlotCon's encoder for the codes in which its transfer numbers were made: torchvision's and detectron2's names.

The numbers of the paper on detection and segmentation come from fine-tuning a ResNet-50 in detectron2 and
mmsegmentation (docs/transfer.md). This takes the teacher's encoder out of an official checkpoint, as SlotCon's own
converters do, checks that it is whole, and renames it.
"""

from __future__ import annotations

import argparse
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...core.errors import UsageError

Target = Literal["torchvision", "detectron2"]

_PREFIXES = ("module.encoder_k.", "encoder_k.", "teacher.encoder.", "backbone.", "")
_BLOCKS = (3, 4, 6, 3)
_COUNTER = "num_batches_tracked"


def resnet50_names() -> dict[str, tuple[int, ...]]:
    """Names and shapes of torchvision's ResNet-50 without its classifier: 318 tensors, 53 of them counters."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7), **_norm("bn1", 64)}
    inputs = 64
    for stage, blocks in enumerate(_BLOCKS, start=1):
        width = 32 * 2**stage
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            kernels = ((1, inputs, width), (3, width, width), (1, width, 4 * width))
            for number, (side, before, after) in enumerate(kernels, start=1):
                shapes[f"{name}.conv{number}.weight"] = (after, before, side, side)
                shapes |= _norm(f"{name}.bn{number}", after)
            if block == 0:
                shapes[f"{name}.downsample.0.weight"] = (4 * width, inputs, 1, 1)
                shapes |= _norm(f"{name}.downsample.1", 4 * width)
            inputs = 4 * width
    return shapes


def export_encoder(state: Mapping[str, Tensor], to: Target) -> dict[str, Tensor]:
    """The teacher's encoder of a SlotCon state dict under other names.

    state: names as in the official checkpoint (`module.encoder_k.`, `encoder_k.`), as in ours (`teacher.encoder.`), or
    those of a bare ResNet-50. Batch norm counters may be missing; detectron2 gets none. Raises UsageError naming the
    first tensor that is missing, left over or of another shape.
    """
    encoder = _teacher(state)
    expected = resnet50_names()
    for name, shape in expected.items():
        if name not in encoder and not name.endswith(_COUNTER):
            raise UsageError(f"tensor '{name}' of the ResNet-50 is missing; is it a SlotCon checkpoint?")
        if name in encoder and tuple(encoder[name].shape) != shape:
            raise UsageError(f"tensor '{name}' has shape {tuple(encoder[name].shape)}, expected {shape}")
    extra = sorted(set(encoder) - set(expected) - {"fc.weight", "fc.bias"})
    if extra:
        raise UsageError(f"tensor '{extra[0]}' is none of a ResNet-50's; {len(extra)} tensors are left over")
    kept = {name: encoder[name] for name in expected if name in encoder}
    if to == "torchvision":
        return kept
    return {detectron2_name(name): tensor for name, tensor in kept.items() if not name.endswith(_COUNTER)}


def detectron2_name(name: str) -> str:
    """The name of a tensor of torchvision's ResNet in detectron2: `layer1.0.bn2.bias` is `res2.0.conv2.norm.bias`."""
    if not name.startswith("layer"):
        name = f"stem.{name}"
    name = re.sub(r"layer(\d)", lambda match: f"res{int(match[1]) + 1}", name)
    name = re.sub(r"bn(\d)", r"conv\1.norm", name)
    return name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")


def export_file(checkpoint: Path, out: Path, to: Target) -> Path:
    """Read a checkpoint, write the renamed encoder.

    For torchvision, safetensors (`.safetensors`) or a torch file of plain tensors. For detectron2, a pickle (`.pkl`) of
    NumPy arrays with `matching_heuristics`, which is what its checkpointer reads. Raises UsageError.
    """
    encoder = export_encoder(read_checkpoint(checkpoint), to)
    suffixes = {"torchvision": (".safetensors", ".pth", ".pt"), "detectron2": (".pkl",)}[to]
    if out.suffix not in suffixes:
        raise UsageError(f"--out {out}: for {to} the file name ends in {' or '.join(suffixes)}")
    out.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in encoder.items()}
    if out.suffix == ".safetensors":
        save_file(tensors, out)
    elif out.suffix == ".pkl":
        arrays = {name: tensor.float().numpy() for name, tensor in tensors.items()}
        content = {"model": arrays, "__author__": "SlotCon", "matching_heuristics": True}
        out.write_bytes(pickle.dumps(content))
    else:
        torch.save(tensors, out)
    return out


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Tensors of a SlotCon checkpoint: its `model`, a `state_dict`, or a bare one. Nothing in the file is run."""
    content = read_content(path)
    for key in ("model", "state_dict"):
        if isinstance(content.get(key), Mapping):
            content = content[key]
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def read_content(path: Path) -> Mapping[Any, Any]:
    """What a checkpoint file holds, tensors on the CPU. Nothing in the file is run. Raises UsageError.

    Official files hold the training arguments as an `argparse.Namespace`, the one class that is let through.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such checkpoint file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]):
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UsageError(f"{path}: refused, loading it could run code; save its state_dict instead") from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UsageError(f"{path}: is no readable checkpoint ({str(error).splitlines()[0]})") from error
    if not isinstance(content, Mapping):
        raise UsageError(f"{path}: holds a {type(content).__name__}, expected named tensors")
    return content


def _teacher(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors behind the first prefix that is there; in a whole SlotCon model that is the teacher's encoder."""
    for prefix in _PREFIXES:
        if f"{prefix}conv1.weight" in state:
            return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    raise UsageError(f"no '{_PREFIXES[0]}conv1.weight', nor under {' or '.join(map(repr, _PREFIXES[1:]))}")


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    fields = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (width,))
    return {f"{name}.{field}": shape for field, shape in fields.items()} | {f"{name}.{_COUNTER}": ()}

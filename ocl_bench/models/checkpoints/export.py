"""Export of SlotCon's encoder under torchvision's or detectron2's names, for fine-tuning in other code.

The paper's numbers on detection and segmentation come from fine-tuning a ResNet-50 in detectron2 and mmsegmentation
(docs/transfer.md). Like the official `transfer/detection/convert_pretrain_to_d2.py` and
`transfer/segmentation/convert_pretrain_to_mm.py`, this module takes the *teacher's* encoder out of a checkpoint. It
also checks that the encoder is complete.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from ...core.errors import UsageError
from ...core.files import write_atomically
from .names import read_content

Target = Literal["torchvision", "detectron2"]

_PREFIXES = ("module.encoder_k.", "encoder_k.", "teacher.encoder.", "backbone.", "")
"""What may stand before the encoder's names: official (twice), ours, mmsegmentation, a bare ResNet-50."""

_BLOCKS = (3, 4, 6, 3)
_COUNTER = "num_batches_tracked"
"""Batch norm's step counter, which no inference reads and detectron2 does not have."""


def resnet50_names() -> dict[str, tuple[int, ...]]:
    """Return names and shapes of torchvision's ResNet-50 without its classifier: 318 tensors, 53 of them counters."""
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
    """Extract the teacher's encoder from a SlotCon state dict and rename its tensors.

    Args:
        state: names as in the official checkpoint (`module.encoder_k.`, `encoder_k.`), as in ours
            (`teacher.encoder.`), or those of a bare ResNet-50. Batch norm counters may be missing.
        to: whose names the result has; detectron2's has no counters.

    Raises:
        UsageError: a tensor is missing, superfluous or of another shape; the message names it.
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
        raise UsageError(f"tensor '{extra[0]}' is not part of a ResNet-50 ({len(extra)} such tensors)")
    tensors = {name: encoder[name] for name in expected if name in encoder}
    if to == "torchvision":
        return tensors
    return {detectron2_name(name): tensor for name, tensor in tensors.items() if not name.endswith(_COUNTER)}


def detectron2_name(name: str) -> str:
    """Translate a name of torchvision's ResNet to detectron2: `layer1.0.bn2.bias` is `res2.0.conv2.norm.bias`."""
    if not name.startswith("layer"):
        name = f"stem.{name}"
    name = re.sub(r"layer(\d)", lambda match: f"res{int(match[1]) + 1}", name)
    name = re.sub(r"bn(\d)", r"conv\1.norm", name)
    return name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")


def export_file(checkpoint: Path, out: Path, to: Target) -> Path:
    """Read a checkpoint and write the renamed encoder.

    Args:
        checkpoint: a SlotCon checkpoint, see `export_encoder`.
        out: for torchvision, `.safetensors` or a torch file of plain tensors (`.pth`, `.pt`); for detectron2, a pickle
            (`.pkl`).
        to: whose names the file has.

    Raises:
        UsageError: the checkpoint does not fit, or the file name has another suffix.
    """
    encoder = export_encoder(read_checkpoint(checkpoint), to)
    suffixes = {"torchvision": (".safetensors", ".pth", ".pt"), "detectron2": (".pkl",)}[to]
    if out.suffix not in suffixes:
        raise UsageError(f"--out {out}: for {to} the file name ends in {' or '.join(suffixes)}")
    out.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in encoder.items()}
    if out.suffix == ".safetensors":
        write_atomically(out, partial(save_file, tensors))
    elif out.suffix == ".pkl":
        arrays = {name: tensor.float().numpy() for name, tensor in tensors.items()}
        # detectron2's checkpointer reads NumPy arrays from a pickle; `matching_heuristics` lets it add its own prefix.
        content = {"model": arrays, "__author__": "SlotCon", "matching_heuristics": True}
        write_atomically(out, partial(Path.write_bytes, data=pickle.dumps(content)))
    else:
        write_atomically(out, partial(torch.save, tensors))
    return out


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a SlotCon checkpoint: its `model`, its `state_dict`, or the tensors of a plain file."""
    content = read_content(path)
    for key in ("model", "state_dict"):
        if isinstance(content.get(key), Mapping):
            content = content[key]
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _teacher(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Select the tensors with the first known prefix; in a whole SlotCon model they are the teacher's encoder."""
    for prefix in _PREFIXES:
        if f"{prefix}conv1.weight" in state:
            return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    raise UsageError(f"no '{_PREFIXES[0]}conv1.weight', nor under {' or '.join(map(repr, _PREFIXES[1:]))}")


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of one batch norm's tensors."""
    fields = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (width,))
    return {f"{name}.{field}": shape for field, shape in fields.items()} | {f"{name}.{_COUNTER}": ()}

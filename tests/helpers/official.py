"""Names and shapes of official checkpoints, put together from the tables of their specifications."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

Shapes = dict[str, tuple[int, ...]]


def linear(name: str, outputs: int, inputs: int, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (outputs, inputs)} | ({f"{name}.bias": (outputs,)} if bias else {})


def norm(name: str, width: int, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (width,)} | ({f"{name}.bias": (width,)} if bias else {})


def gru(name: str, width: int) -> Shapes:
    shapes: Shapes = {}
    for part in ("ih", "hh"):
        shapes |= {f"{name}.weight_{part}": (3 * width, width), f"{name}.bias_{part}": (3 * width,)}
    return shapes


def vit(
    name: str, width: int, *, blocks: int = 12, patch: int = 14, positions: int = 1370, scale: bool = True
) -> Shapes:
    """A vision transformer in timm's names, without registers and without its final norm."""
    shapes: Shapes = {f"{name}cls_token": (1, 1, width), f"{name}pos_embed": (1, positions, width)}
    shapes |= {f"{name}patch_embed.proj.weight": (width, 3, patch, patch), f"{name}patch_embed.proj.bias": (width,)}
    for number in range(blocks):
        block = f"{name}blocks.{number}"
        shapes |= norm(f"{block}.norm1", width) | norm(f"{block}.norm2", width)
        shapes |= linear(f"{block}.attn.qkv", 3 * width, width) | linear(f"{block}.attn.proj", width, width)
        shapes |= linear(f"{block}.mlp.fc1", 4 * width, width) | linear(f"{block}.mlp.fc2", width, 4 * width)
        if scale:
            shapes |= {f"{block}.ls{part}.gamma": (width,) for part in (1, 2)}
    return shapes


def on_meta(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Tensors of these shapes that hold no numbers."""
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def drawn(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Random tensors of these shapes, small enough that no softmax saturates."""
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.2 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def numbers(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """How many numbers a checkpoint of these shapes holds."""
    return sum(torch.Size(shape).numel() for shape in shapes.values())


def shapes_of(model: nn.Module) -> Shapes:
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def fits(model: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether every tensor of a checkpoint has its place in the model, and every place its tensor."""
    translated = model.translate_checkpoint(on_meta(shapes))  # type: ignore[operator]
    return {name: tuple(value.shape) for name, value in translated.items()} == shapes_of(model)

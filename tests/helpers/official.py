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


def dias_shapes() -> Shapes:
    """Every tensor of an official checkpoint of DIAS (specs of Genera1Z/DIAS at cc1d545): 242 names."""
    shapes: Shapes = {}

    def add(prefix: str, **names: tuple[int, ...]) -> None:
        shapes.update({f"m.{prefix}{name.replace('__', '.')}": shape for name, shape in names.items()})

    vit = "encode_backbone.1."
    add(vit, cls_token=(1, 1, 384), reg_token=(1, 4, 384), pos_embed=(1, 256, 384))
    add(vit, patch_embed__proj__weight=(384, 3, 14, 14), patch_embed__proj__bias=(384,))
    for block in range(12):
        at = f"{vit}blocks.{block}."
        add(at, norm1__weight=(384,), norm1__bias=(384,), norm2__weight=(384,), norm2__bias=(384,))
        add(at, attn__qkv__weight=(1152, 384), attn__qkv__bias=(1152,))
        add(at, attn__proj__weight=(384, 384), attn__proj__bias=(384,), ls1__gamma=(384,), ls2__gamma=(384,))
        add(at, mlp__fc1__weight=(1536, 384), mlp__fc1__bias=(1536,))
        add(at, mlp__fc2__weight=(384, 1536), mlp__fc2__bias=(384,))
    for index, shape in {0: (384,), 1: (384, 384), 3: (384, 384)}.items():
        add(f"encode_project.{index}.", weight=shape, bias=(384,))
    add("initializ.", mean=(1, 1, 256), logstd=(1, 1, 256))
    for norm, width in {"norm1q": 256, "norm1kv": 384, "norm2": 256}.items():
        add(f"aggregat.{norm}.", weight=(width,), bias=(width,))
    add("aggregat.", proj_q__weight=(256, 256), proj_k__weight=(256, 384), proj_v__weight=(256, 384))
    add("aggregat.rnn.", weight_ih=(768, 256), weight_hh=(768, 256), bias_ih=(768,), bias_hh=(768,))
    add("aggregat.ffn.0.", weight=(1024, 256), bias=(1024,))
    add("aggregat.ffn.2.", weight=(256, 1024), bias=(256,))
    add("decode.", mask_token=(1, 1, 384), posit_embed___pe=(1, 256, 384), norm0__weight=(384,))
    for index, width in {1: 384, 2: 256}.items():
        add(f"decode.project{index}.0.", weight=(384, width))
        add(f"decode.project{index}.1.", weight=(384,), bias=(384,))
    for layer in range(4):
        at = f"decode.backbone.layers.{layer}."
        for attention in ("self_attn", "multihead_attn"):
            add(f"{at}{attention}.", in_proj_weight=(1152, 384), out_proj__weight=(384, 384))
        add(at, linear1__weight=(1536, 384), linear2__weight=(384, 1536), norm2__weight=(384,), norm3__weight=(384,))
        if layer:
            add(at, norm1__weight=(384,))
    return shapes


def slotcontrast_shapes(slots: int, slot: int, tokens: int, width: int, **backbone: int) -> Shapes:
    """Every tensor of an official checkpoint of SlotContrast, hence of SlotCurri."""
    corrector, predictor = "processor.module.corrector", "processor.module.predictor.blocks.0"
    hidden = backbone.pop("hidden", 1024)
    shapes = vit("encoder.module.backbone.model.", width, **backbone) | {"initializer.slots": (1, slots, slot)}
    shapes |= norm("encoder.module.output_transform.layers.0", width)
    shapes |= linear("encoder.module.output_transform.layers.1", 2 * width, width)
    shapes |= linear("encoder.module.output_transform.layers.3", slot, 2 * width)
    for name in ("to_q", "to_k", "to_v"):
        shapes |= linear(f"{corrector}.{name}", slot, slot, bias=False)
    shapes |= gru(f"{corrector}.gru", slot) | norm(f"{corrector}.mlp.layers.0", slot)
    shapes |= linear(f"{corrector}.mlp.layers.1", 4 * slot, slot) | linear(f"{corrector}.mlp.layers.3", slot, 4 * slot)
    shapes |= norm(f"{corrector}.norm_features", slot) | norm(f"{corrector}.norm_slots", slot)
    shapes |= linear(f"{predictor}.self_attn.qkv", 3 * slot, slot) | linear(
        f"{predictor}.self_attn.out_proj", slot, slot
    )
    shapes |= linear(f"{predictor}.linear1", 4 * slot, slot) | linear(f"{predictor}.linear2", slot, 4 * slot)
    shapes |= norm(f"{predictor}.norm1", slot) | norm(f"{predictor}.norm2", slot)
    shapes["decoder.module.pos_emb"] = (1, 1, tokens, slot)
    widths = (slot, hidden, hidden, hidden, width + 1)
    for number in range(4):
        shapes |= linear(f"decoder.module.mlp.layers.{2 * number}", widths[number + 1], widths[number])
    return shapes

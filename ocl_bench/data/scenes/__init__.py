"""Rendered scenes that mirror CLEVRTEX (arXiv:2111.10265): textured solids on textured ground.

    scenes = render("full", revision=1, split="test", indices=range(8))
    scenes.image     # (8, 3, 160, 160) uint8
    scenes.labels    # (8, 160, 160) uint8, 0 = ground, 1.. = objects in the order of scenes.objects[i]

Scene i is a pure function of (variant, revision, split, seed, i). Variants: `full`; `camo`, where objects and ground
share one material; `outd`, with shapes and materials that no training split contains; `things`, where objects and
ground have classes (`classes.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .caster import GROUND, build_world, cast
from .sampler import REVISIONS, SPLITS, VARIANTS, Scene, describe, sample_scene

__all__ = ["REVISIONS", "SPLITS", "VARIANTS", "Scenes", "render"]

MIN_VISIBLE = 0.004
"""Objects that show less than this share of the picture are left out."""

NO_STUFF = 255
_CHUNK = 8


@dataclass(frozen=True)
class Scenes:
    """image (N, 3, S, S) uint8, labels (N, S, S) uint8, depth (N, S, S) float32, objects: metadata in label order.

    stuff: (N, S, S) uint8 class index of the ground, `NO_STUFF` (255) on objects and in variants without classes.
    """

    image: Tensor
    labels: Tensor
    depth: Tensor
    objects: list[list[dict[str, Any]]]
    stuff: Tensor


def render(
    variant: str, revision: int, split: str, indices: Sequence[int], *, size: int = 160, seed: int = 0
) -> Scenes:
    """Render scenes `indices` of a split at size x size pixels. `seed` other than 0 gives a fresh split."""
    chunks = [
        _render_chunk(variant, revision, split, list(indices[start : start + _CHUNK]), size, seed)
        for start in range(0, len(indices), _CHUNK)
    ]
    if not chunks:
        raise ValueError("no scene was asked for: indices is empty")
    return Scenes(
        torch.cat([c.image for c in chunks]),
        torch.cat([c.labels for c in chunks]),
        torch.cat([c.depth for c in chunks]),
        [one for c in chunks for one in c.objects],
        torch.cat([c.stuff for c in chunks]),
    )


@torch.no_grad()
def _render_chunk(variant: str, revision: int, split: str, indices: list[int], size: int, seed: int) -> Scenes:
    scenes = [sample_scene(variant, revision, split, i, seed) for i in indices]
    world = build_world(scenes)
    image, hit, depth, region = cast(world, size, MIN_VISIBLE)
    kept = [alive.nonzero()[:, 0].tolist() for alive in world.alive]
    number = torch.cumsum(world.alive, dim=1) * world.alive  # labels 1.. without gaps
    flat = number[torch.arange(len(scenes))[:, None, None], hit.clamp_min(0)]
    labels = torch.where(hit == GROUND, 0, flat).to(torch.uint8)
    objects = [describe(scene, k) for scene, k in zip(scenes, kept, strict=True)]
    pixels = (image * 255 + 0.5).to(torch.uint8).permute(0, 3, 1, 2).contiguous()
    return Scenes(pixels, labels, depth, objects, _stuff(scenes, hit, region))


def _stuff(scenes: list[Scene], hit: Tensor, region: Tensor) -> Tensor:
    """Class index of the ground (N, S, S) uint8, 255 on objects and in variants without classes."""
    width = max(len(scene.stuff) for scene in scenes)
    if width == 0:
        return torch.full_like(hit, NO_STUFF, dtype=torch.uint8)
    table = torch.tensor([[*scene.stuff, *[NO_STUFF] * (width - len(scene.stuff))] for scene in scenes])
    named = table[torch.arange(len(scenes))[:, None, None], region]
    return torch.where(hit == GROUND, named, NO_STUFF).to(torch.uint8)

"""Rendered scenes that mirror CLEVRTEX (arXiv:2111.10265): textured solids on textured ground.

    scenes = render("full", revision=1, split="test", indices=range(8))
    scenes.image     # (8, 3, 160, 160) uint8
    scenes.labels    # (8, 160, 160) uint8, 0 = ground, 1.. = objects in the order of scenes.objects[i]

Scene i is a pure function of (variant, revision, split, seed, i). Variants: `full`; `camo`, with one material for
objects and ground; `outd`, with shapes and materials that no training split contains; `things`, with classes of objects
and ground (`classes.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .caster import GROUND, Window, build_world, cast
from .sampler import REVISIONS, SPLITS, VARIANTS, Scene, describe, sample_scene

__all__ = ["REVISIONS", "SPLITS", "VARIANTS", "RenderedScenes", "render"]

MIN_VISIBLE = 0.004
"""Objects that show less than this share of the picture are left out."""

NO_STUFF = 255
"""Where `stuff` has no class: on objects, and in variants without classes."""

_CHUNK = 16
"""Scenes that are cast together; the memory of the rays grows with it."""


@dataclass(frozen=True)
class RenderedScenes:
    """N scenes of S x S pixels.

    Attributes:
        image: (N, 3, S, S) uint8.
        labels: (N, S, S) uint8, 0 for the ground, else the number of the object.
        depth: (N, S, S) float32 distance from the camera.
        objects: metadata of the objects of each scene, that of label 1 first.
        stuff: (N, S, S) uint8 class index of the ground, or `NO_STUFF`.
    """

    image: Tensor
    labels: Tensor
    depth: Tensor
    objects: list[list[dict[str, Any]]]
    stuff: Tensor


def render(
    variant: str,
    revision: int,
    split: str,
    indices: Sequence[int],
    *,
    size: int = 160,
    seed: int = 0,
    windows: Sequence[Window] | None = None,
) -> RenderedScenes:
    """Render the scenes `indices` of a split at size x size pixels; a `seed` other than 0 gives a fresh split.

    Args:
        variant: one of `VARIANTS`.
        revision: of the variant.
        split: one of `SPLITS`.
        indices: numbers of the scenes.
        size: side of the pictures.
        seed: of the split.
        windows: rows and columns of the part of each picture that is wanted; image and stuff are valid only there.

    Raises:
        ValueError: there are no indices, or the variant, split or revision is unknown.
    """
    parts = [slice(start, start + _CHUNK) for start in range(0, len(indices), _CHUNK)]
    chunks = [
        _render_chunk(
            [sample_scene(variant, revision, split, i, seed) for i in indices[part]], size, windows and windows[part]
        )
        for part in parts
    ]
    if not chunks:
        raise ValueError("indices is empty: give the number of a scene")
    return RenderedScenes(
        torch.cat([chunk.image for chunk in chunks]),
        torch.cat([chunk.labels for chunk in chunks]),
        torch.cat([chunk.depth for chunk in chunks]),
        [objects for chunk in chunks for objects in chunk.objects],
        torch.cat([chunk.stuff for chunk in chunks]),
    )


@torch.no_grad()
def _render_chunk(scenes: list[Scene], size: int, windows: Sequence[Window] | None) -> RenderedScenes:
    world = build_world(scenes)
    image, hit, depth, region = cast(world, size, MIN_VISIBLE, windows)
    # `cast` removes objects that are hardly visible, so the labels of the others are numbered without gaps.
    visible = [alive.nonzero()[:, 0].tolist() for alive in world.alive]
    number = torch.cumsum(world.alive, dim=1) * world.alive
    flat = number[torch.arange(len(scenes))[:, None, None], hit.clamp_min(0)]
    labels = torch.where(hit == GROUND, 0, flat).to(torch.uint8)
    objects = [describe(scene, numbers) for scene, numbers in zip(scenes, visible, strict=True)]
    pixels = (image * 255 + 0.5).to(torch.uint8).permute(0, 3, 1, 2).contiguous()
    return RenderedScenes(pixels, labels, depth, objects, _stuff(scenes, hit, region))


def _stuff(scenes: list[Scene], hit: Tensor, region: Tensor) -> Tensor:
    """Class index of the ground (N, S, S) uint8, `NO_STUFF` on objects and in variants without classes."""
    width = max(len(scene.stuff) for scene in scenes)
    if width == 0:
        return torch.full_like(hit, NO_STUFF, dtype=torch.uint8)
    # Scenes have one to three regions; the padding is never looked up.
    table = torch.tensor([[*scene.stuff, *[NO_STUFF] * (width - len(scene.stuff))] for scene in scenes])
    named = table[torch.arange(len(scenes))[:, None, None], region]
    return torch.where(hit == GROUND, named, NO_STUFF).to(torch.uint8)

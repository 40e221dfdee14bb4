"""What the small encoder learns: two photometric views of a scene, and which tokens belong together.

Two variants, both an InfoNCE loss over L2-normalised tokens (van den Oord et al., arXiv:1807.03748):

* `neighbour`, label-free: a token's positive is a token of the other view a few positions away; its negatives are
  tokens of *other* images. The critic then estimates the pointwise mutual information of local appearances, which is
  high inside an object and low across its border (Isola et al., arXiv:1511.06811).
* `boxes`, weakly supervised: the positive is a token inside the same single box (or outside all boxes); the negatives
  are all tokens but those of the same image with the same box. Its card says `supervision: boxes`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from ..core.schedules import generator, sample_indices
from .data import CROPPED, MOST_OBJECTS, TrainingScenes, object_boxes
from .views import Geometry, Photometry, draw_geometry, draw_photometry, photometric_view, shared_geometry

Gather = Callable[[Tensor], Tensor]


class EncoderOptions(BaseModel):
    """Options of `train.objective` for the kinds `neighbour` and `boxes`.

    anchors: sampled tokens per image. temperature: tau. radius: largest distance of a positive in tokens (`neighbour`).
    balance: 0 draws anchors uniformly over tokens, 1 uniformly over boxes (`boxes`). zoom: smallest side of the crop
    that both views share, as a share of the image. jitter, noise: strengths of the photometric views.
    stride: pixels per token side. views: 2 compares two photometric views, 1 compares a view with itself at half the
    cost (light and shadow inside a scene already vary the looks of one surface).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["neighbour", "boxes"]
    anchors: int = Field(default=48, gt=0)
    temperature: float = Field(default=0.1, gt=0)
    radius: int = Field(default=2, ge=1)
    balance: float = Field(default=0.0, ge=0, le=1)
    zoom: float = Field(default=0.75, gt=0, le=1)
    flip: bool = True
    jitter: float = Field(default=0.3, ge=0, lt=1)
    noise: float = Field(default=0.03, ge=0)
    stride: int = Field(default=8, gt=0)
    views: Literal[1, 2] = 2


def info_nce(anchors: Tensor, candidates: Tensor, positive: Tensor, excluded: Tensor, temperature: float) -> Tensor:
    """Mean over anchors of -log softmax of the positive's similarity; a scalar.

    anchors: (N, D) and candidates: (M, D), L2-normalised. positive: (N,) index of each anchor's positive.
    excluded: (N, M) bool, candidates that are not negatives; the positive always takes part.
    """
    logits = anchors.float() @ candidates.float().T / temperature
    excluded = excluded.scatter(1, positive.unsqueeze(1), False)
    return F.cross_entropy(logits.masked_fill(excluded, float("-inf")), positive)


def neighbour_loss(
    anchors: Tensor, candidates: Tensor, positive: Tensor, image: Tensor, candidate_image: Tensor, temperature: float
) -> Tensor:
    """InfoNCE whose negatives come from other images only. image: (N,), candidate_image: (M,) image numbers."""
    excluded = image.unsqueeze(1) == candidate_image.unsqueeze(0)
    return info_nce(anchors, candidates, positive, excluded, temperature)


def boxes_loss(
    anchors: Tensor, candidates: Tensor, positive: Tensor, group: Tensor, candidate_group: Tensor, temperature: float
) -> Tensor:
    """InfoNCE against all tokens but those of the anchor's own group. group: (N,), candidate_group: (M,).

    A group is one image and one label, numbered so that no two images share one.
    """
    excluded = group.unsqueeze(1) == candidate_group.unsqueeze(0)
    return info_nce(anchors, candidates, positive, excluded, temperature)


def draw_neighbours(
    images: int, grid: int, anchors: int, radius: int, source: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Anchor tokens and their positives: two (B, A) int64, positives 1..radius tokens away (the larger of dy, dx).

    Positives that would fall off the grid are mirrored to the other side of the anchor. Needs grid > radius.
    """
    row, column = (torch.randint(0, grid, (images, anchors), generator=source) for _ in range(2))
    window = torch.tensor([(y, x) for y in range(-radius, radius + 1) for x in range(-radius, radius + 1) if y or x])
    chosen = window[torch.randint(0, len(window), (images, anchors), generator=source)]
    other_row, other_column = (_mirror(a, d, grid) for a, d in ((row, chosen[..., 0]), (column, chosen[..., 1])))
    return row * grid + column, other_row * grid + other_column


def _mirror(at: Tensor, distance: Tensor, grid: int) -> Tensor:
    there = at + distance
    return torch.where((there < 0) | (there >= grid), at - distance, there).clamp(0, grid - 1)


def token_labels(boxes: Tensor, geometry: Geometry, grid: int) -> Tensor:
    """Which single box holds the centre of each token: (B, grid * grid) int64; 0 none, k box k - 1, -1 several.

    boxes: (B, K, 4) xyxy as shares of the image side, NaN where absent. geometry: the crop and flip of the views.
    """
    centre = (torch.arange(grid) + 0.5) / grid
    x = geometry.left.unsqueeze(1) + geometry.side.unsqueeze(1) * torch.where(
        geometry.flip.unsqueeze(1), 1 - centre, centre
    )
    y = geometry.top.unsqueeze(1) + geometry.side.unsqueeze(1) * centre
    x1, y1, x2, y2 = boxes.unsqueeze(-1).unbind(2)
    in_columns = (x.unsqueeze(1) >= x1) & (x.unsqueeze(1) < x2)
    in_rows = (y.unsqueeze(1) >= y1) & (y.unsqueeze(1) < y2)
    inside = (in_rows.unsqueeze(3) & in_columns.unsqueeze(2)).flatten(2)
    single = inside.long().argmax(1) + 1
    count = inside.sum(1)
    return torch.where(count == 0, 0, torch.where(count == 1, single, -1))


def draw_box_pairs(labels: Tensor, anchors: int, balance: float, source: torch.Generator) -> tuple[Tensor, Tensor]:
    """Anchor tokens and positives with the same label: two (B, A) int64. labels: (B, P), -1 is never drawn.

    A token is its own positive only where it is the only one of its label: with one view it would teach nothing.
    An image without any usable token (all in several boxes) raises ValueError.
    """
    usable = labels >= 0
    if not bool(usable.any(1).all()):
        raise ValueError("a training scene has all its tokens in several boxes")
    same = (labels.unsqueeze(1) == labels.unsqueeze(2)) & usable.unsqueeze(1)
    size = same.sum(2).clamp(min=1).float()
    anchor = torch.multinomial(usable / size**balance, anchors, replacement=True, generator=source)
    rows = torch.gather(same, 1, anchor.unsqueeze(2).expand(-1, -1, labels.shape[1]))
    others = rows.scatter(2, anchor.unsqueeze(2), False)
    rows = torch.where(others.any(2, keepdim=True), others, rows)
    positive = torch.multinomial(rows.flatten(0, 1).float(), 1, generator=source).view_as(anchor)
    return anchor, positive


@dataclass
class EncoderObjective:
    """Trains an `Encoder` on rendered scenes. `validator(model)` returns the validation numbers."""

    scenes: TrainingScenes
    options: EncoderOptions
    seed: int
    batch_size: int
    validator: Callable[[nn.Module], dict[str, float]]
    gather: Gather = lambda rows: rows

    def batch(self, step: int) -> dict[str, Any]:
        """Scenes, views and token pairs of a step; every tensor has one row per image."""
        options, source = self.options, generator(self.seed, "encoder", step)
        indices = sample_indices(self.seed, step, self.batch_size, len(self.scenes))
        geometry = draw_geometry(self.batch_size, options.zoom, options.flip, source)
        views = [draw_photometry(self.batch_size, options.jitter, options.noise, source) for _ in range(2)]
        grid = CROPPED // options.stride
        labels = torch.zeros(self.batch_size, grid * grid, dtype=torch.int64)
        if options.kind == "boxes":
            boxes = object_boxes(self.scenes.labels[indices], MOST_OBJECTS) / CROPPED
            labels = token_labels(boxes, geometry, grid)
            anchor, positive = draw_box_pairs(labels, options.anchors, options.balance, source)
        else:
            anchor, positive = draw_neighbours(self.batch_size, grid, options.anchors, options.radius, source)
        return {
            "image": self.scenes.images[indices],
            "geometry": geometry.stack(),
            "view_a": views[0].stack(),
            "view_b": views[1].stack(),
            "anchor": anchor,
            "positive": positive,
            "group": torch.gather(labels, 1, anchor),
            "number": torch.arange(self.batch_size),
        }

    def loss(self, model: nn.Module, inputs: dict[str, Any], step_fraction: float) -> dict[str, Tensor]:
        """InfoNCE of this rank's anchors against the candidates of all ranks."""
        image = shared_geometry(inputs["image"].float() / 255, Geometry.unstack(inputs["geometry"]))
        names = ("view_a", "view_b")[: self.options.views]
        views = [photometric_view(image, Photometry.unstack(inputs[name])) for name in names]
        tokens = F.normalize(model(torch.cat(views)).float().flatten(2).transpose(1, 2), dim=-1)
        first, second = tokens.chunk(2) if len(views) == 2 else (tokens, tokens)
        anchors = _rows(first, inputs["anchor"])
        number = inputs["number"].repeat_interleave(self.options.anchors)
        own = inputs["group"].flatten() + (MOST_OBJECTS + 1) * number
        positive = inputs["number"][0] * self.options.anchors + torch.arange(len(anchors), device=anchors.device)
        candidates = self.gather(_rows(second, inputs["positive"]))
        compare = boxes_loss if self.options.kind == "boxes" else neighbour_loss
        key = own if self.options.kind == "boxes" else number
        total = compare(anchors, candidates, positive, key, self.gather(key), self.options.temperature)
        return {"total": total}

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Numbers on the validation split."""
        return self.validator(model)


def _rows(tokens: Tensor, indices: Tensor) -> Tensor:
    """Tokens (B, P, D) at (B, A) positions -> (B * A, D)."""
    return torch.gather(tokens, 1, indices.unsqueeze(-1).expand(-1, -1, tokens.shape[-1])).flatten(0, 1)

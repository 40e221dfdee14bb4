"""The objectives of the small encoder: tokens that belong together get similar features in two views of a scene.

All are InfoNCE losses over L2-normalised tokens (van den Oord et al., arXiv:1807.03748):

* `neighbour` needs no labels. The positive of a token is a token of the other view a few positions away; the negatives
  are tokens of *other* images. The critic then estimates the pointwise mutual information of local appearances, which
  is high inside an object and low across its border (Isola et al., arXiv:1511.06811).
* `boxes` is weakly supervised. The positive is a token inside the same single box, or one outside all boxes; the
  negatives are all tokens except those of the same image and box. Its card declares `supervision: boxes`.
* `segments` is self-training and needs no labels: `boxes` with the clusters of another encoder's tokens in place of
  boxes. A token far inside an object and one at its rim become alike, and unlike the neighbour beyond the rim.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from ..core.schedules import generator, sample_indices
from ..models.clustering import token_segments
from ..models.encoder import STRIDE
from .data import CROPPED, MOST_OBJECTS, ChunkedArray, TrainingScenes, object_boxes
from .parts import part
from .validation import ValidatedObjective
from .views import Geometry, Photometry, draw_geometry, draw_photometry, mirrored, photometric_view, shared_geometry

Gather = Callable[[Tensor], Tensor]
"""Concatenates the rows of all ranks, with gradients, see `Ranks.gather`."""


class EncoderOptions(BaseModel):
    """Options of `train.objective` for the kinds `neighbour`, `boxes` and `segments`.

    Attributes:
        kind: Which of the objectives.
        encoder: Card of the encoder whose tokens are clustered (`segments`).
        encoder_checkpoint: File with its weights, instead of the bundled ones (`segments`).
        clusters: Number of its clusters in an image (`segments`).
        anchors: Number of sampled tokens per image.
        temperature: Temperature of the softmax.
        radius: Largest distance of a positive in tokens (`neighbour`).
        balance: 0 draws anchors uniformly over tokens, 1 uniformly over boxes or segments.
        zoom: Smallest side of the crop that both views share, as a share of the image side; 1 for `segments`.
        flip: Mirror half of the images.
        jitter: Strength of the colour changes.
        noise: Largest standard deviation of the noise.
        stride: Side of a token in pixels.
        views: 2 compares two photometric views. 1 compares a view with itself at half the cost; light and shadow inside
            a scene already vary the appearance of one surface.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["neighbour", "boxes", "segments"]
    encoder: str = ""
    encoder_checkpoint: str = ""
    clusters: int = Field(default=9, gt=1)
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

    @model_validator(mode="after")
    def _whole_images_for_segments(self) -> Self:
        if self.kind == "segments" and (self.zoom != 1 or not self.encoder):
            raise ValueError("kind 'segments' needs 'encoder', the card of a trained encoder, and 'zoom: 1'")
        if self.kind != "segments" and self.encoder:
            raise ValueError("only kind 'segments' has an 'encoder'")
        return self


def info_nce(anchors: Tensor, candidates: Tensor, positive: Tensor, excluded: Tensor, temperature: float) -> Tensor:
    """InfoNCE loss (arXiv:1807.03748), averaged over anchors: -log softmax of the similarity to the positive.

    Args:
        anchors: (N, D), L2-normalised.
        candidates: (M, D), L2-normalised.
        positive: (N,) index of each anchor's positive among the candidates.
        excluded: (N, M) bool, candidates that are not negatives. The positive always takes part.
        temperature: Divides the cosine similarities.
    """
    # float32 also under autocast's bfloat16 tokens. Anchors are divided, because the product is much larger.
    logits = (anchors.float() / temperature) @ candidates.float().T
    with torch.no_grad():  # in place and unrecorded: the softmax gives these places the gradient 0 anyway
        logits.masked_fill_(excluded.scatter(1, positive.unsqueeze(1), False), float("-inf"))
    return F.cross_entropy(logits, positive)


def neighbour_loss(
    anchors: Tensor, candidates: Tensor, positive: Tensor, image: Tensor, candidate_image: Tensor, temperature: float
) -> Tensor:
    """InfoNCE with negatives from other images only.

    Args:
        anchors, candidates, positive, temperature: See `info_nce`.
        image: (N,) number of each anchor's image.
        candidate_image: (M,) number of each candidate's image.
    """
    excluded = image.unsqueeze(1) == candidate_image.unsqueeze(0)
    return info_nce(anchors, candidates, positive, excluded, temperature)


def boxes_loss(
    anchors: Tensor, candidates: Tensor, positive: Tensor, group: Tensor, candidate_group: Tensor, temperature: float
) -> Tensor:
    """InfoNCE with negatives from all groups except the anchor's own. A group is one label of one image.

    Args:
        anchors, candidates, positive, temperature: See `info_nce`.
        group: (N,) number of each anchor's group; different images have different numbers.
        candidate_group: (M,) number of each candidate's group.
    """
    excluded = group.unsqueeze(1) == candidate_group.unsqueeze(0)
    return info_nce(anchors, candidates, positive, excluded, temperature)


def draw_neighbours(
    images: int, grid: int, anchors: int, radius: int, source: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw anchor tokens and their positives: two (B, A) int64 tensors of token numbers.

    A positive is 1 to `radius` tokens away, measured by the larger of |dy| and |dx|. A positive outside the grid is
    mirrored to the other side of the anchor; this needs grid > radius.

    Args:
        images: Number of images B.
        grid: Tokens along one side.
        anchors: Number of anchors A per image.
        radius: Largest distance.
        source: Random generator.
    """
    row, column = (torch.randint(0, grid, (images, anchors), generator=source) for _ in range(2))
    window = torch.tensor([(y, x) for y in range(-radius, radius + 1) for x in range(-radius, radius + 1) if y or x])
    chosen = window[torch.randint(0, len(window), (images, anchors), generator=source)]
    positive_row, positive_column = _move(row, chosen[..., 0], grid), _move(column, chosen[..., 1], grid)
    return row * grid + column, positive_row * grid + positive_column


def _move(start: Tensor, distance: Tensor, grid: int) -> Tensor:
    """`start + distance`, or `start - distance` where that would leave the grid."""
    end = start + distance
    return torch.where((end < 0) | (end >= grid), start - distance, end).clamp(0, grid - 1)


def token_labels(boxes: Tensor, geometry: Geometry, grid: int) -> Tensor:
    """Box that holds the centre of each token: (B, grid * grid) int64. 0 means none, k means box k - 1, -1 several.

    Args:
        boxes: (B, K, 4) xyxy as shares of the image side, NaN where absent.
        geometry: Crop and flip of the views.
        grid: Tokens along one side.
    """
    # Token centres are moved into the uncropped image, where the boxes are.
    centre = (torch.arange(grid) + 0.5) / grid
    x = geometry.left.unsqueeze(1) + geometry.side.unsqueeze(1) * torch.where(
        geometry.flip.unsqueeze(1), 1 - centre, centre
    )
    y = geometry.top.unsqueeze(1) + geometry.side.unsqueeze(1) * centre
    x1, y1, x2, y2 = boxes.unsqueeze(-1).unbind(2)
    # Comparisons with NaN are False: an absent box holds no token.
    in_columns = (x.unsqueeze(1) >= x1) & (x.unsqueeze(1) < x2)
    in_rows = (y.unsqueeze(1) >= y1) & (y.unsqueeze(1) < y2)
    inside = (in_rows.unsqueeze(3) & in_columns.unsqueeze(2)).flatten(2)
    single = inside.long().argmax(1) + 1
    count = inside.sum(1)
    return torch.where(count == 0, 0, torch.where(count == 1, single, -1))


def draw_box_pairs(labels: Tensor, anchors: int, balance: float, source: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw anchor tokens and positives with the same label: two (B, A) int64 tensors of token numbers.

    A token is its own positive only if no other token has its label. With one view such a pair teaches nothing.

    Args:
        labels: (B, P) labels of `token_labels`; tokens with -1 are never drawn.
        anchors: Number of anchors A per image.
        balance: 0 draws anchors uniformly over tokens, 1 uniformly over labels.
        source: Random generator.

    Raises:
        ValueError: All tokens of an image lie in several boxes.
    """
    usable = labels >= 0
    if not bool(usable.any(1).all()):
        raise ValueError("all tokens of a training scene lie in several boxes")
    known = labels.clamp(min=0)
    counts = torch.zeros(len(labels), int(known.max()) + 1).scatter_add_(1, known, usable.float())
    size = torch.gather(counts, 1, known).clamp(min=1)
    anchor = torch.multinomial(usable / size**balance, anchors, replacement=True, generator=source)
    rows = torch.gather(labels, 1, anchor).unsqueeze(2) == labels.unsqueeze(1)
    others = rows.scatter(2, anchor.unsqueeze(2), False)
    rows = torch.where(others.any(2, keepdim=True), others, rows)
    positive = torch.multinomial(rows.flatten(0, 1).float(), 1, generator=source).view_as(anchor)
    return anchor, positive


@dataclass
class EncoderObjective(ValidatedObjective):
    """Trains an `Encoder` on rendered scenes.

    Attributes:
        scenes: The rendered scenes.
        options: Options of the recipe.
        seed: Seed of the training.
        batch_size: Images per step, all ranks together.
        validator: Returns the validation numbers of a model.
        gather: Concatenates the candidates of all ranks.
        clustered: Tokens of the scenes by the encoder of `segments`, rows (P, D); None for other kinds.
        segments: Segments (P,) int16 of the scenes that have been seen, by their number: the encoder is frozen.
    """

    scenes: TrainingScenes
    options: EncoderOptions
    seed: int
    batch_size: int
    validator: Callable[[nn.Module], dict[str, float]]
    gather: Gather = lambda rows: rows
    clustered: ChunkedArray | None = None
    segments: dict[int, Tensor] = field(default_factory=dict, repr=False)

    def batch(self, step: int) -> dict[str, Any]:
        """Scenes, view parameters and token pairs of a step. Every tensor has one row per image."""
        options, source = self.options, generator(self.seed, "encoder", step)
        indices = sample_indices(self.seed, step, self.batch_size, len(self.scenes))
        geometry = draw_geometry(self.batch_size, options.zoom, options.flip, source)
        views = [draw_photometry(self.batch_size, options.jitter, options.noise, source) for _ in range(2)]
        grid = CROPPED // options.stride
        labels = torch.zeros(self.batch_size, grid * grid, dtype=torch.int64)
        if options.kind == "neighbour":
            anchor, positive = draw_neighbours(self.batch_size, grid, options.anchors, options.radius, source)
        else:
            labels = self._groups(indices, geometry, grid)
            anchor, positive = draw_box_pairs(labels, options.anchors, options.balance, source)
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

    def _groups(self, indices: np.ndarray, geometry: Geometry, grid: int) -> Tensor:
        """Numbers of the tokens' boxes or segments, (B, grid * grid) int64, as the views show them."""
        if self.clustered is None:
            boxes = object_boxes(self.scenes.labels[indices], MOST_OBJECTS) / CROPPED
            return token_labels(boxes, geometry, grid)
        missing = [index for index in dict.fromkeys(indices.tolist()) if index not in self.segments]
        for index, tokens in zip(missing, self.clustered[missing] if missing else (), strict=True):
            self.segments[index] = token_segments(tokens, self.options.clusters).short()
        segments = torch.stack([self.segments[index] for index in indices.tolist()]).long().view(-1, grid, grid)
        return torch.where(geometry.flip.view(-1, 1, 1), segments.flip(2), segments).flatten(1)

    def loss(self, model: nn.Module, inputs: dict[str, Any], step_fraction: float) -> dict[str, Tensor]:
        """InfoNCE loss of this rank's anchors against the candidates of all ranks."""
        with part("augmentation"):
            views = self._views(inputs)
        first, second = self._drawn_tokens(model, views, inputs["anchor"], inputs["positive"])
        anchors = F.normalize(first.float(), dim=-1)
        number = inputs["number"].repeat_interleave(self.options.anchors)
        # Labels of an image are 0..MOST_OBJECTS, or 0..clusters - 1.
        group = inputs["group"].flatten() + max(MOST_OBJECTS + 1, self.options.clusters) * number
        # Candidates of all ranks are concatenated in rank order, so the global number of this rank's first image says
        # where its own positives begin.
        positive = inputs["number"][0] * self.options.anchors + torch.arange(len(anchors), device=anchors.device)
        candidates = self.gather(F.normalize(second.float(), dim=-1))
        compare, key = (neighbour_loss, number) if self.options.kind == "neighbour" else (boxes_loss, group)
        total = compare(anchors, candidates, positive, key, self.gather(key), self.options.temperature)
        return {"total": total}

    def _views(self, inputs: dict[str, Any]) -> list[Tensor]:
        """One or two views (B, 3, S, S) in [0, 1] of each image."""
        geometry = Geometry.unstack(inputs["geometry"])
        if self.options.zoom == 1:  # whole images need no resampling
            image = mirrored(inputs["image"], geometry.flip).float().div_(255)
        else:
            image = shared_geometry(inputs["image"].float().div_(255), geometry)
        names = ("view_a", "view_b")[: self.options.views]
        return [photometric_view(image, Photometry.unstack(inputs[name])) for name in names]

    @staticmethod
    def _drawn_tokens(model: Any, views: list[Tensor], anchor: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens of anchors and positives, each (B * A, D); only tokens that were drawn are computed."""
        images, tokens = len(anchor), (views[0].shape[-2] // STRIDE) * (views[0].shape[-1] // STRIDE)
        first = tokens * torch.arange(images, device=anchor.device).unsqueeze(1)
        second = first + (images * tokens if len(views) == 2 else 0)  # positives are tokens of the last view
        drawn = torch.cat([(first + anchor).flatten(), (second + positive).flatten()])
        if hasattr(model, "tokens_at"):
            places, rows = drawn.unique(return_inverse=True)
            chosen = model.tokens_at(torch.cat(views), places).index_select(0, rows)
        else:  # an encoder of other code
            chosen = model(torch.cat(views)).flatten(2).transpose(1, 2).flatten(0, 1)[drawn]
        anchors, positives = chosen.chunk(2)
        return anchors, positives

"""Outputs of a vision transformer at inference: one vector per image, dense features, and optionally attention maps.

With boxes, the token that describes the image attends only within them, in every block (ODIS, arXiv:2506.05409).
Several boxes of an image are united. An image without a box, or with all boxes outside, is described as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import UsageError
from ..core.types import Batch, Prediction
from .layers.normalisation import normalise
from .layers.patches import patches_of_boxes
from .layers.vit import VisionTransformer, dinov2_small_registers
from .options import check_range

PARTS = ("obj", "cls", "mean", "pool")


class PatchEncoder(nn.Module):
    """A vision transformer as the frozen encoder of a slot model: image in [0, 1] -> map of patch tokens."""

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self.vit = vit

    def forward(self, image: Tensor) -> Tensor:
        """Image (B, 3, H, W) in [0, 1] -> patches (B, D, h, w), with full attention, without boxes."""
        return self.vit.patch_grid(normalise(image))


class DinoEncoder(nn.Module):
    """The frozen encoder of DIAS and its kin: DINOv2 ViT-S/14 with registers, at 224 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.vit = dinov2_small_registers(grid=16)
        # The official constants are on the scale 0 to 255. Divided in float32 they differ from `normalise`'s 0.485 and
        # so on in the last bit, so the two are kept apart.
        mean, std = torch.tensor((123.675, 116.28, 103.53)), torch.tensor((58.395, 57.12, 57.375))
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", (mean / 255).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", (std / 255).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Image (B, 3, 256, 256) in [0, 1] -> raw output of block 12, no final norm, (B, 384, 16, 16)."""
        # First normalise, then shrink 256 to 224 pixels without antialias: the official order, inside the model.
        image = (image - self.mean) / self.std
        return self.vit.patch_grid(F.interpolate(image, scale_factor=0.875, mode="bicubic"))


@dataclass(frozen=True)
class Reading:
    """How a vision transformer describes images.

    Attributes:
        token: the parts of the embedding, joined by +, such as `obj+mean`. `obj` is the object token (the mean of
            several), `cls` the class token, `mean` the mean of all patches, `pool` that of the patches within boxes.
        object_token: the token that boxes restrict: `obj`, or `cls` in models that were trained without objects.
        margin: patches that are added to each side of a box.
        use_boxes: whether to use `Batch.boxes`.
        attention: whether to return as `masks` the attention of `object_token` in the last block, one for each head.
        token_blocks: dense features are the patches after each of so many last blocks, joined along the channels from
            the earliest block to the last one. The embedding is always that of the last block.
    """

    token: str
    object_token: str = "obj"
    margin: int = 0
    use_boxes: bool = True
    attention: bool = False
    token_blocks: int = 1

    def check(self, backbone: VisionTransformer) -> None:
        """Raise UsageError for a token or a number of blocks that the model does not have."""
        depth, blocks = len(backbone.blocks), self.token_blocks
        whole = isinstance(blocks, int) and not isinstance(blocks, bool)
        check_range("token_blocks", blocks, whole and 1 <= blocks <= depth, f"1 to {depth}, the blocks of the model")
        for part in self.parts:
            if part not in PARTS:
                raise UsageError(f"option token: {part!r} is unknown; use {', '.join(PARTS)}, or several joined by +")
            if part in ("obj", "cls") and not backbone.objects and part != self.object_token:
                raise UsageError(f"option token: the model has no {part!r} token; use {self.object_token}")

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the embedding, in order."""
        return tuple(self.token.split("+"))

    @property
    def reads_boxes(self) -> bool:
        """Whether boxes change the embedding."""
        return self.use_boxes and any(part in ("pool", self.object_token) for part in self.parts)

    @torch.no_grad()
    def predict(self, backbone: VisionTransformer, batch: Batch) -> Prediction:
        """Predict tokens (B, token_blocks x D, h, w) and an embedding (B, parts x D), all after the final norm.

        `extra` counts unusual boxes. Raises UsageError for images with sides that are not multiples of the patch.
        """
        parameter = backbone.cls_token
        image = normalise(batch.image.to(parameter))
        if image.shape[-1] % backbone.patch or image.shape[-2] % backbone.patch:
            sides = "x".join(map(str, image.shape[-2:]))
            raise UsageError(f"images of {sides} pixels: the sides must be multiples of the patch, {backbone.patch}")
        within: Tensor | None = None
        counts: dict[str, Tensor] = {}
        if batch.boxes is not None and self.use_boxes:
            within, counts = self._within(batch.boxes, image, backbone.patch)
        # Several object tokens all get the same patches: a box has no token of its own at inference.
        mask = None if within is None else within.unsqueeze(1).expand(-1, max(1, backbone.objects), -1)
        blocks = backbone.last_blocks(image, mask, self.token_blocks)
        tokens = blocks[-1]
        prediction = Prediction(
            tokens=torch.cat([backbone.to_grid(block, image) for block in blocks], dim=1),
            embedding=torch.cat([self._part(part, tokens, backbone, within) for part in self.parts], dim=1),
            embedding_source=f"token:{self.token}",
            extra=counts,
        )
        return self._with_attention(prediction, backbone, image, mask) if self.attention else prediction

    def _within(self, boxes: tuple[Tensor, ...], image: Tensor, patch: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Find the patches within any of an image's boxes, (B, P) bool, and count unusual boxes, (B,) each."""
        # NaN marks padding: `patches_of_boxes` takes such a box for absent.
        padded = torch.nn.utils.rnn.pad_sequence(list(boxes), batch_first=True, padding_value=torch.nan)
        covered = patches_of_boxes(padded.to(image.device), (image.shape[-2], image.shape[-1]), patch, self.margin)
        patches = covered.patches.any(1)
        empty = ~patches.any(1, keepdim=True)
        counts = {f"boxes_{name}": getattr(covered, name).sum(1) for name in ("inverted", "thin", "outside")}
        # Our choice: without a box the token sees all patches. The paper's code for this case is not public.
        return patches | empty, {**counts, "without_box": empty.squeeze(1)}

    def _part(self, part: str, tokens: Tensor, backbone: VisionTransformer, within: Tensor | None) -> Tensor:
        """Return one part of the embedding, (B, D)."""
        patches = tokens[:, backbone.prefix :]
        if part == "mean" or (part == "pool" and within is None):
            return patches.mean(1)
        if part == "pool" and within is not None:
            return pool(patches, within.unsqueeze(1)).squeeze(1)
        if part == self.object_token:
            first = backbone.first_object
            return tokens[:, first : first + max(1, backbone.objects)].mean(1)
        return tokens[:, 0]

    def _with_attention(
        self, prediction: Prediction, backbone: VisionTransformer, image: Tensor, mask: Tensor | None
    ) -> Prediction:
        """Add masks (B, heads, h, w): the attention of the first object token in the last block."""
        weights = backbone.last_attention(image, mask)[:, :, backbone.first_object, backbone.prefix :]
        assert prediction.tokens is not None
        masks = weights.unflatten(2, prediction.tokens.shape[2:])
        return Prediction(**{**vars(prediction), "masks": masks, "mask_source": "attention"})


@torch.no_grad()
def attention_keys(backbone: VisionTransformer, batch: Batch) -> Tensor:
    """Keys (B, D, h, w) of the last block's attention for whole images, without boxes."""
    return backbone.last_keys(normalise(batch.image.to(backbone.cls_token)))


def pool(patches: Tensor, within: Tensor) -> Tensor:
    """Average patch tokens (B, P, D) over the patches of each of O objects, (B, O, P) bool, into (B, O, D).

    An object without patches gets the mean of all patches.
    """
    weights = (within | ~within.any(2, keepdim=True)).to(patches.dtype)
    return (weights / weights.sum(2, keepdim=True)) @ patches

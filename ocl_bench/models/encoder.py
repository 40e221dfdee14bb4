"""The small convolutional encoder of the embedded models: an image becomes a 16x16 grid of local tokens.

It is trained on rendered scenes before any slot model and then frozen (`ocl_bench/models/cards/encoder.yaml` lists its
training data). Its receptive field is small and it normalises each position by itself, so a token depends on its
neighbourhood only and nothing leaks from the rest of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import UsageError
from ..core.types import Batch, Prediction

STRIDE = 8
"""Image pixels per token side."""


class _ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each position of (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    # Zero padding would mark the image's border, and a slot model could spend a slot on the mark.
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, padding_mode="reflect")


class _Residual(nn.Module):
    """Norm, convolution of side `kernel`, GELU and 1x1, added to the input; 1x1 kernels double the inner width."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        inner = width if kernel == 3 else 2 * width
        first = _conv(width, inner) if kernel == 3 else nn.Conv2d(width, inner, 1)
        self.body = nn.Sequential(_ChannelNorm(width), first, nn.GELU(), nn.Conv2d(inner, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Encoder(nn.Module):
    """Image (B, 3, H, W) in [0, 1] -> tokens (B, dim, H / 8, W / 8), each with a root mean square of 1.

    H and W must be multiples of 8 and at least 16. A token depends on 11 x 11 pixels, plus 8 on each axis for every 3
    in `blocks`.

    Args:
        width: channels of the trunk.
        dim: D of the tokens.
        blocks: kernel sides (1 or 3) of the residual blocks.
    """

    input_size = 128

    def __init__(self, width: int = 64, dim: int = 64, blocks: Sequence[int] = (1, 1)) -> None:
        super().__init__()
        self.dim = dim
        self.receptive_field = 11 + 8 * sum(kernel == 3 for kernel in blocks)
        self.stem = nn.Sequential(_conv(3, width // 2, stride=2), nn.GELU(), _conv(width // 2, width, stride=2))
        self.blocks = nn.Sequential(*(_Residual(width, kernel) for kernel in blocks))
        self.head = nn.Sequential(_ChannelNorm(width), nn.Conv2d(width, dim, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Image (B, 3, H, W) in [0, 1] -> tokens (B, dim, H / 8, W / 8)."""
        if image.shape[-1] % STRIDE or image.shape[-2] % STRIDE:
            raise UsageError(f"encoder: image sides {tuple(image.shape[-2:])} must be multiples of {STRIDE}")
        x = ((image - 0.5) / 0.25).contiguous(memory_format=torch.channels_last)
        # Fine features of unit length at stride 4 are averaged over 2x2, so a token on a border is a mixture of its
        # two sides. A network that sees both sides at once gives borders features of their own, and slot models then
        # spend slots on borders.
        fine = F.normalize(self.head(self.blocks(self.stem(x))), dim=1)
        return F.normalize(F.avg_pool2d(fine, 2), dim=1) * self.dim**0.5

    @torch.no_grad()
    def encode(self, batch: Batch) -> Tensor:
        """Encode a batch into tokens (B, D, h, w)."""
        parameter = next(self.parameters())
        return self(batch.image.to(parameter))

    def predict(self, batch: Batch) -> Prediction:
        """Predict tokens only; a clustering floor such as `kmeans-features` turns them into masks."""
        return Prediction(tokens=self.encode(batch))


def build(**options: Any) -> Encoder:
    """Build the model of the card `encoder`; options as in `Encoder`."""
    return Encoder(**options).eval()

"""The small convolutional encoder of the embedded models: an image becomes a 16x16 grid of local tokens.

It is trained on rendered scenes before any slot model and then frozen (`ocl_bench/models/cards/encoder.yaml` lists its
training data). Its receptive field is small and it normalises each position by itself, so a token depends on its
neighbourhood only and nothing leaks from the rest of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

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
        self.kernel = kernel
        inner = width if kernel == 3 else 2 * width
        first = _conv(width, inner) if kernel == 3 else nn.Conv2d(width, inner, 1)
        self.body = nn.Sequential(_ChannelNorm(width), first, nn.GELU(), nn.Conv2d(inner, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)

    def of_rows(self, rows: Tensor) -> Tensor:
        """What is added to the features (n, C) of n positions; only for a kernel of 1."""
        norm, first, gelu, second = cast("tuple[nn.Module, nn.Conv2d, nn.Module, nn.Conv2d]", tuple(self.body))
        inner = gelu(F.linear(_norm_rows(norm, rows), first.weight.flatten(1), first.bias))
        return F.linear(inner, second.weight.flatten(1), second.bias)


def _norm_rows(norm: nn.Module, rows: Tensor) -> Tensor:
    """Apply a `_ChannelNorm` to features (n, C)."""
    return nn.LayerNorm.forward(cast(nn.LayerNorm, norm), rows)


def _normalised(image: Tensor) -> Tensor:
    return ((image - 0.5) / 0.25).contiguous(memory_format=torch.channels_last)


def _read_by(places: Tensor, side: Sequence[int]) -> Tensor:
    """Positions that the second convolution of the stem reads for tokens: (n * 4 * 9,) int64.

    Args:
        places: (n,), see `Encoder.tokens_at`.
        side: height and width of its input, 4 positions a token.

    Returns:
        Numbers of positions among those of all images; for each token 2 x 2 applications of the kernel, row-major.
    """
    height, width = side
    across = width // 4
    image, token = places // (height // 4 * across), places % (height // 4 * across)
    # The kernel has stride 2 and starts a position before: 2 (2 T + fine) + offset - 1. The border is reflected.
    fine, offset = torch.arange(2, device=places.device), torch.arange(3, device=places.device)
    reach = 2 * fine.view(2, 1) + offset - 1
    rows = (4 * (token // across).view(-1, 1, 1) + reach).abs()
    columns = (4 * (token % across).view(-1, 1, 1) + reach).abs()
    rows = (image.view(-1, 1, 1) * height + rows).view(-1, 2, 1, 3, 1)
    return (rows * width + columns.view(-1, 1, 2, 1, 3)).flatten()


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
        x = _normalised(image)
        # Fine features of unit length at stride 4 are averaged over 2x2, so a token on a border is a mixture of its
        # two sides. A network that sees both sides at once gives borders features of their own, and slot models then
        # spend slots on borders.
        fine = F.normalize(self.head(self.blocks(self.stem(x))), dim=1)
        return F.normalize(F.avg_pool2d(fine, 2), dim=1) * self.dim**0.5

    def tokens_at(self, image: Tensor, places: Tensor) -> Tensor:
        """Some of the tokens of `forward`, for a loss that reads no others: equal up to rounding, at less cost.

        Only the first convolution sees whole images. Blocks with kernels of 3 would mix tokens with those around them;
        with such blocks all tokens are computed.

        Args:
            image: (B, 3, H, W) in [0, 1].
            places: (n,) int64, b * P + p for token p of the P tokens of image b.

        Returns:
            (n, dim).
        """
        if any(block.kernel != 1 for block in self._residuals()):
            return self(image).flatten(2).transpose(1, 2).flatten(0, 1)[places]
        first, gelu, second = cast("tuple[nn.Module, nn.Module, nn.Conv2d]", tuple(self.stem))
        early = gelu(first(_normalised(image))).permute(0, 2, 3, 1)
        rows = early.flatten(0, 2).index_select(0, _read_by(places, early.shape[1:3]))
        # Each row of `windows` has what one application of the second convolution reads; 1 x 1 kernels are matrices.
        windows = rows.view(4 * len(places), -1)
        x = F.linear(windows, second.weight.permute(0, 2, 3, 1).flatten(1), second.bias)
        for block in self._residuals():
            x = x + block.of_rows(x)
        norm, head = cast("tuple[_ChannelNorm, nn.Conv2d]", tuple(self.head))
        fine = F.normalize(F.linear(_norm_rows(norm, x), head.weight.flatten(1), head.bias), dim=1)
        return F.normalize(fine.view(len(places), 4, -1).mean(1), dim=1) * self.dim**0.5

    def _residuals(self) -> list[_Residual]:
        return [cast(_Residual, block) for block in self.blocks]

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

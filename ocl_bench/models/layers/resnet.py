"""The residual network (He et al., arXiv:1512.03385) in the variant "v1.5": bottlenecks stride in the 3x3 convolution.

There is no pooling and no classifier; the output is the map of the last stage (`early_return` in SlotCon's official
`models/resnet.py`). Tensors have torchvision's names (`layer1.0.bn2.weight`), so weights of a torchvision ResNet
without `fc` load as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...core.errors import UsageError


class _Block(nn.Module):
    """Convolutions with batch norm, added to a shortcut, which is a strided 1x1 convolution where shapes differ.

    A bottleneck has 1x1 to `width`, 3x3, and 1x1 to 4 `width`; a basic block has two 3x3 of `width`.
    """

    def __init__(self, inputs: int, width: int, bottleneck: bool, stride: int, dilation: int) -> None:
        super().__init__()
        outputs = 4 * width if bottleneck else width
        self.bottleneck = bottleneck
        self.relu = nn.ReLU(inplace=True)
        if bottleneck:
            self.conv1 = _conv(inputs, width, 1)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = _conv(width, width, 3, stride, dilation)
            self.bn2 = nn.BatchNorm2d(width)
            self.conv3 = _conv(width, outputs, 1)
            self.bn3 = nn.BatchNorm2d(outputs)
        else:
            self.conv1 = _conv(inputs, width, 3, stride, dilation)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = _conv(width, width, 3, 1, dilation)
            self.bn2 = nn.BatchNorm2d(width)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.bottleneck:
            x = self.bn3(self.conv3(self.relu(x)))
        return self.relu(x + shortcut)


class ResNet(nn.Module):
    """Normalised image (B, 3, H, W) -> features (B, channels, H / stride, W / stride), sides rounded up.

    Args:
        blocks, widths, strides, dilations: of the stages, any number of them.
        bottleneck: whether blocks are bottlenecks; a stage then ends with four times its width.
        stem: "imagenet" is a 7x7 convolution of stride 2 and a 3x3 max-pool of stride 2; "small" is a 3x3 convolution
            of stride 1, for small images.

    Attributes:
        channels: channels of the output.
        stride: image pixels per output pixel.

    Raises:
        UsageError: the lists differ in length.
    """

    def __init__(
        self,
        blocks: Sequence[int] = (3, 4, 6, 3),
        widths: Sequence[int] = (64, 128, 256, 512),
        bottleneck: bool = True,
        stem: Literal["imagenet", "small"] = "imagenet",
        strides: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1),
    ) -> None:
        super().__init__()
        if not len(blocks) == len(widths) == len(strides) == len(dilations) > 0:
            raise UsageError(
                f"ResNet: blocks, widths, strides and dilations must be lists of one length, the number of stages; "
                f"got {len(blocks)}, {len(widths)}, {len(strides)} and {len(dilations)}"
            )
        small = stem == "small"
        channels = widths[0]
        self.conv1 = _conv(3, channels, 3) if small else _conv(3, channels, 7, stride=2)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = len(blocks)
        stages = zip(blocks, widths, strides, dilations, strict=True)
        for stage, (count, width, stride, dilation) in enumerate(stages, start=1):
            layers = []
            for block in range(count):
                # The first block of a dilated stage takes half the dilation: mmsegmentation's "contracted" dilation.
                step, spread = (stride, max(1, dilation // 2)) if block == 0 else (1, dilation)
                layers.append(_Block(channels, width, bottleneck, step, spread))
                channels = 4 * width if bottleneck else width
            self.add_module(f"layer{stage}", nn.Sequential(*layers))
        self.channels = channels
        self.stride = (1 if small else 4) * math.prod(strides)
        # Channels last is faster. With fewer than 16 channels, however, torch 2.13 crashes on the CPU in the backward
        # pass of a strided 1x1 convolution.
        self.layout = torch.channels_last if min(widths) >= 16 else torch.contiguous_format
        _initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        """Image (B, 3, H, W), normalised by the caller -> (B, channels, ceil(H / stride), ceil(W / stride))."""
        x = image.contiguous(memory_format=self.layout)
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in range(1, self.stages + 1):
            x = self.get_submodule(f"layer{stage}")(x)
        return x


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "resnet18": {"blocks": (2, 2, 2, 2), "bottleneck": False},
    "resnet34": {"blocks": (3, 4, 6, 3), "bottleneck": False},
    "resnet50": {"blocks": (3, 4, 6, 3), "bottleneck": True},
}
"""Options of `ResNet` by the usual names."""


def resnet(arch: str = "resnet50", output_stride: Literal[32, 16] = 32) -> ResNet:
    """Build one of `ARCHITECTURES` without its classifier; ResNet-50 has 23,508,032 parameters and 2048 channels.

    With the output stride 16 the last stage is dilated instead of strided, and the same weights give a map of twice
    the side.
    """
    if output_stride == 16:
        return ResNet(**ARCHITECTURES[arch], strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))
    return ResNet(**ARCHITECTURES[arch])


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    padding = dilation * (kernel // 2)
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False)


def _initialise(network: nn.Module) -> None:
    """Initialise convolutions normally with variance 2 / (k k outputs), and each block's last batch norm with 0."""
    # A block whose last norm is 0 starts as its shortcut. Officially likewise, and as `zero_init_residual` of
    # torchvision, where it is off by default.
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, _Block):
            nn.init.zeros_((module.bn3 if module.bottleneck else module.bn2).weight)

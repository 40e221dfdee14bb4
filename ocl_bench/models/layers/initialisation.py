"""Initial slots, from a Gaussian that all slots share (arXiv:2006.15055) or learnt, and the initial biases of DIAS."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SharedGaussian(nn.Module):
    """A learnt mean and log standard deviation for all slots, so no slot has a place or role of its own.

    Source: `NormalShared` in the official code of DIAS. The noise is an argument here, so a prediction is a pure
    function of weights, image and noise.
    """

    def __init__(self, slot_dim: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.empty(1, 1, slot_dim))
        self.log_std = nn.Parameter(torch.empty(1, 1, slot_dim))
        nn.init.xavier_uniform_(self.mean)
        nn.init.xavier_uniform_(self.log_std)

    def forward(self, noise: Tensor) -> Tensor:
        """Standard normal noise (B, K, C) -> initial slots (B, K, C), in training and in evaluation alike."""
        return self.mean + noise * self.log_std.exp()


class LearntSlots(nn.Module):
    """A learnt vector for each slot, without noise (SPOT, arXiv:2312.00648, after BO-QSA, arXiv:2210.08990)."""

    def __init__(self, slots: int, slot_dim: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.empty(1, slots, slot_dim))
        nn.init.xavier_uniform_(self.mean)

    def forward(self, noise: Tensor) -> Tensor:
        """Noise (B, K, C), which is not used -> initial slots (B, K, C)."""
        return self.mean.expand(len(noise), -1, -1)


@torch.no_grad()
def zero_biases(module: nn.Module) -> None:
    """Set the biases of all linear, convolution and GRU layers to 0, as `reset_parameters` of DIAS does."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.GRUCell):
            for name, parameter in layer.named_parameters(recurse=False):
                if name.startswith("bias"):
                    parameter.zero_()

"""Where slots start, a Gaussian shared by all slots (arXiv:2006.15055), and where the weights of DIAS start."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SharedGaussian(nn.Module):
    """Learnt mean and log standard deviation, one for all slots: no slot has a place or role of its own.

    The noise comes from outside, so that a prediction is a pure function of (weights, image, noise).
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


@torch.no_grad()
def zero_biases(module: nn.Module) -> None:
    """Set the biases of all linear, convolution and GRU layers to 0 (the initialisation of DIAS)."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.GRUCell):
            for name, parameter in layer.named_parameters(recurse=False):
                if name.startswith("bias"):
                    parameter.zero_()

"""LARS (You et al., arXiv:1708.03888) and the teacher's momentum, as in SlotCon's code (arXiv:2205.15288, 30ff33d).

The official learning rate is `schedules.learning_rate` with `start` 0.01, a peak of batch / 256 and a floor of 1e-6.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class LARS(torch.optim.Optimizer):
    """SGD with momentum whose gradients are first scaled to the norm of their parameter.

    For a parameter p with gradient g: g <- g + weight_decay p, then g <- trust |p| / |g| g unless either norm is 0.
    Both are skipped for parameters with one axis (biases, batch norms). Then m <- momentum m + g and p <- p - lr m.
    The momentum buffer is not scaled by the learning rate. Parameters without a gradient are not changed.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate.
        weight_decay: Weight decay.
        momentum: Momentum.
        trust: Trust coefficient eta of the paper.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        weight_decay: float = 1e-5,
        momentum: float = 0.9,
        trust: float = 0.001,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "trust": trust})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Update all parameters once. Returns the loss of `closure`, which evaluates the model again."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            pairs = [(p, p.grad) for p in group["params"] if p.grad is not None]
            vectors = [(p, gradient) for p, gradient in pairs if p.ndim == 1]
            matrices = [(p, gradient) for p, gradient in pairs if p.ndim != 1]
            self._update(vectors, group)
            self._update(adapt_gradients(matrices, group["weight_decay"], group["trust"]), group)
        return loss

    def _update(self, pairs: list[tuple[Tensor, Tensor]], group: dict[str, Any]) -> None:
        """Apply momentum and learning rate to (parameter, gradient) pairs.

        `torch._foreach_*` handles all parameters in few kernels; in a loop, a GPU would wait for hundreds of launches.
        """
        if not pairs:
            return
        parameters, gradients = map(list, zip(*pairs, strict=True))
        for parameter in parameters:
            if "mu" not in self.state[parameter]:  # the key is stored in `last.pt`
                self.state[parameter]["mu"] = torch.zeros_like(parameter)
        moments = [self.state[parameter]["mu"] for parameter in parameters]
        torch._foreach_mul_(moments, group["momentum"])
        torch._foreach_add_(moments, gradients)
        torch._foreach_add_(parameters, moments, alpha=-group["lr"])


def adapt_gradients(
    pairs: list[tuple[Tensor, Tensor]], weight_decay: float, trust: float
) -> list[tuple[Tensor, Tensor]]:
    """Apply weight decay and scale each gradient to `trust` times the norm of its parameter.

    A gradient is not scaled if either norm is 0.

    Returns:
        (Parameter, new gradient) pairs. The gradients of the parameters themselves are not changed.
    """
    if not pairs:
        return []
    parameters, gradients = map(list, zip(*pairs, strict=True))
    gradients = list(torch._foreach_add(gradients, parameters, alpha=weight_decay))
    norms, gradient_norms = torch._foreach_norm(parameters), torch._foreach_norm(gradients)
    ratios = [
        torch.where((norm > 0) & (gradient_norm > 0), trust * norm / gradient_norm, torch.ones_like(norm))
        for norm, gradient_norm in zip(norms, gradient_norms, strict=True)
    ]
    return list(zip(parameters, torch._foreach_mul(gradients, ratios), strict=True))


def teacher_momentum(step: float, steps: float, start: float = 0.99) -> float:
    """Momentum of the teacher at a step (counted from 0): it grows from `start` to 1 at `steps`, along a cosine."""
    return 1 - (1 - start) * (1 + math.cos(math.pi * min(1.0, step / steps))) / 2

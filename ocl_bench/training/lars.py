"""LARS (You et al., arXiv:1708.03888) and the teacher's momentum, as in SlotCon's code (arXiv:2205.15288, 30ff33d).

Its learning rate is `schedules.learning_rate` with `start` 0.01, a peak of batch / 256 and a floor of 1e-6.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class LARS(torch.optim.Optimizer):
    """Momentum whose gradient is first scaled to the norm of its parameter.

    For a parameter p with gradient g: g <- g + weight_decay p, then g <- trust |p| / |g| g, unless either norm is 0.
    Parameters with one axis (biases, batch norms) get neither. Then m <- momentum m + g and p <- p - lr m: the momentum
    is not scaled by the rate. Parameters without a gradient stay as they are.
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
        """One update. closure: evaluates the model again and returns its loss, which is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            pairs = [(p, p.grad) for p in group["params"] if p.grad is not None]
            vectors = [(p, gradient) for p, gradient in pairs if p.ndim == 1]
            others = [(p, gradient) for p, gradient in pairs if p.ndim != 1]
            self._update(vectors, group)
            self._update(adapted(others, group["weight_decay"], group["trust"]), group)
        return loss

    def _update(self, pairs: list[tuple[Tensor, Tensor]], group: dict[str, Any]) -> None:
        """All parameters at once: a network has hundreds, and a GPU would wait for the launches of a loop."""
        if not pairs:
            return
        parameters, gradients = map(list, zip(*pairs, strict=True))
        for parameter in parameters:
            if "mu" not in self.state[parameter]:
                self.state[parameter]["mu"] = torch.zeros_like(parameter)
        moments = [self.state[parameter]["mu"] for parameter in parameters]
        torch._foreach_mul_(moments, group["momentum"])
        torch._foreach_add_(moments, gradients)
        torch._foreach_add_(parameters, moments, alpha=-group["lr"])


def adapted(pairs: list[tuple[Tensor, Tensor]], weight_decay: float, trust: float) -> list[tuple[Tensor, Tensor]]:
    """(Parameter, gradient) pairs after weight decay, gradients scaled to `trust` times the norms of their parameters.

    Where either norm is 0 the gradient is not scaled.
    """
    if not pairs:
        return []
    parameters, gradients = map(list, zip(*pairs, strict=True))
    gradients = list(torch._foreach_add(gradients, parameters, alpha=weight_decay))
    sizes, slopes = torch._foreach_norm(parameters), torch._foreach_norm(gradients)
    ratios = [
        torch.where((size > 0) & (slope > 0), trust * size / slope, torch.ones_like(size))
        for size, slope in zip(sizes, slopes, strict=True)
    ]
    return list(zip(parameters, torch._foreach_mul(gradients, ratios), strict=True))


def teacher_momentum(step: float, steps: float, start: float = 0.99) -> float:
    """Momentum of the teacher at step `step`, the first is 0: from `start` to 1 at `steps`, along a cosine."""
    return 1 - (1 - start) * (1 + math.cos(math.pi * min(1.0, step / steps))) / 2

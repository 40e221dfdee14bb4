"""Batch normalisation over the rows of all ranks, on the CPU (gloo) and on GPUs; torch's own refuses the CPU.

Mean and variance are those of the joint batch, computed in two passes like those of one process; ranks may hold
different numbers of rows, none included. The backward pass adds up the two sums of the joint batch over the ranks, so
each rank gets the gradient of the *sum* of all ranks' losses with respect to its own rows, as an all-gather gives it;
`Ranks.average_gradients` then makes it that of their mean.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import batch_norm


class SynchronisedBatchNorm(nn.BatchNorm1d):
    """Batch normalisation of (N, C) or (N, C, ...), with the parameters, buffers and names of `nn.BatchNorm1d`.

    In training mode every rank must call it equally often, each with as many rows as it has. One joint value per
    channel is normalised to 0 where torch's raises; no value at all on any rank changes nothing.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Same shape and dtype as the input; updates the running statistics in training mode."""
        if not self.training:
            return batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        output, mean, variance, count = _Normalise.apply(input, self.weight, self.bias, self.eps)
        self._track(mean, variance, count)
        return output  # type: ignore[no-any-return]

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Running statistics with the unbiased variance of the joint batch; kept where there are no rows at all."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        weight = torch.where(count > 0, self.running_mean.new_tensor(share), 0)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), weight)
        unbiased = variance * count / (count - 1).clamp(min=1)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), weight)


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias over all ranks; also returns the joint statistics."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, ...]:
        values = x.double() if x.dtype == torch.float64 else x.float()
        axes = [axis for axis in range(x.ndim) if axis != 1]
        rows = values.new_tensor([x.numel() // x.shape[1]])
        total = _over_ranks(torch.cat([values.sum(axes), rows]))
        count = total[-1]
        mean = total[:-1] / count.clamp(min=1)
        centred = values - _along(mean, x)
        variance = _over_ranks((centred * centred).sum(axes)) / count.clamp(min=1)
        scale = (variance + eps).rsqrt()
        normal = centred * _along(scale, x)
        ctx.save_for_backward(normal, weight, scale, count)
        ctx.axes = axes
        ctx.mark_non_differentiable(mean, variance, count)
        return (normal * _along(weight, x) + _along(bias, x)).to(x.dtype), mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # type: ignore[override]
        normal, weight, scale, count = ctx.saved_tensors
        given = gradient.to(normal.dtype)
        of_bias, of_weight = given.sum(ctx.axes), (given * normal).sum(ctx.axes)
        joint = _over_ranks(torch.stack([of_bias, of_weight])) / count.clamp(min=1)
        inner = given - _along(joint[0], given) - normal * _along(joint[1], given)
        of_input = inner * _along(weight * scale, given)
        return of_input.to(gradient.dtype), of_weight.to(weight.dtype), of_bias.to(weight.dtype), None


def _along(values: Tensor, like: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (like.ndim - 2))


def _over_ranks(values: Tensor) -> Tensor:
    """Sum over the ranks; the values themselves in one process."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(values)
    return values


def synchronise(model: nn.Module) -> int:
    """Replace each BatchNorm1d and BatchNorm2d inside a model by a synchronised one; returns how many.

    Parameters and buffers are shared with the old modules, so names, values and the optimiser's list stay.
    """
    replaced = 0
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if not isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d) or isinstance(child, SynchronisedBatchNorm):
                continue
            joint = SynchronisedBatchNorm(child.num_features, child.eps, child.momentum)
            joint.weight, joint.bias = child.weight, child.bias
            joint.running_mean, joint.running_var = child.running_mean, child.running_var
            joint.num_batches_tracked = child.num_batches_tracked
            joint.training = child.training
            setattr(parent, name, joint)
            replaced += 1
    return replaced

"""Batch normalisation over the rows of all ranks, on CPUs (gloo) and GPUs. `torch.nn.SyncBatchNorm` needs GPUs.

Mean and variance are those of the joint batch. They are computed in two passes, as in one process. Ranks may have
different numbers of rows, also none. The backward pass sums its two statistics over the ranks. Each rank therefore gets
the gradient of the *sum* of all ranks' losses with respect to its own rows, as with an all-gather;
`Ranks.average_gradients` turns it into the gradient of their mean.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import batch_norm


class SynchronisedBatchNorm(nn.BatchNorm1d):
    """Batch normalisation of (N, C) or (N, C, ...), with the parameters, buffers and names of `nn.BatchNorm1d`.

    In training mode, all ranks must call it equally often, each with its own number of rows. Differences from torch:
    a single joint value per channel is normalised to 0 instead of raising ValueError, and a call without any value on
    any rank changes no statistics.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalised input, same shape and dtype. Updates the running statistics in training mode."""
        if not self.training:
            return batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        output, mean, variance, count = _Normalise.apply(input, self.weight, self.bias, self.eps)
        self._track(mean, variance, count)
        return output  # type: ignore[no-any-return]

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Update the running statistics with the mean and the unbiased variance of the joint batch, if it has rows."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        # `count` stays a tensor: reading it would make the CPU wait for the GPU at every layer.
        weight = torch.where(count > 0, self.running_mean.new_tensor(share), 0)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), weight)
        unbiased = variance * count / (count - 1).clamp(min=1)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), weight)


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias over all ranks. Also returns mean, variance and row count."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, ...]:
        # Statistics need float32 also under autocast; float64 stays for tests of gradients.
        values = x.double() if x.dtype == torch.float64 else x.float()
        axes = [axis for axis in range(x.ndim) if axis != 1]
        rows = values.new_tensor([x.numel() // x.shape[1]])
        total = _over_ranks(torch.cat([values.sum(axes), rows]))  # one message for the sums and the count
        count = total[-1]
        mean = total[:-1] / count.clamp(min=1)
        centred = values - _along(mean, x)
        # The second pass sums centred squares: E[x^2] - mean^2 would cancel for a large mean.
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
        upstream = gradient.to(normal.dtype)
        of_bias, of_weight = upstream.sum(ctx.axes), (upstream * normal).sum(ctx.axes)
        # Gradients of weight and bias stay those of this rank; `Ranks.average_gradients` combines them later.
        joint = _over_ranks(torch.stack([of_bias, of_weight])) / count.clamp(min=1)
        inner = upstream - _along(joint[0], upstream) - normal * _along(joint[1], upstream)
        of_input = inner * _along(weight * scale, upstream)
        return of_input.to(gradient.dtype), of_weight.to(weight.dtype), of_bias.to(weight.dtype), None


def _along(values: Tensor, like: Tensor) -> Tensor:
    """Values (C,) in a shape that broadcasts along axis 1 of `like`."""
    return values.view(1, -1, *[1] * (like.ndim - 2))


def _over_ranks(values: Tensor) -> Tensor:
    """Sum over the ranks, in place. In a single process the values are returned unchanged."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(values)
    return values


def synchronise(model: nn.Module) -> int:
    """Replace each BatchNorm1d and BatchNorm2d of a model by a synchronised one. Returns the number of replacements.

    The new modules share the parameters and buffers of the old ones. Names and values do not change, and an optimiser
    that already has the parameters stays valid.
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

"""The linear probe: affine-free batch norm and a 1x1 convolution on frozen tokens (as in DINOv2, arXiv:2304.07193).

The norm uses the statistics of the whole fit split. The loss is the cross entropy of every pixel of the class map under
the prediction of its token, so the target of a token is the share of each class in its cell. Logits are upsampled only
for scoring. The learning rate is chosen by mIoU on images held out of the fit split; then the head is fitted again on
all images.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...cards.protocols import Fit
from ...metrics.semantic import confusion, miou_sem
from ..base import Head
from ..checks import check_alike
from .features import FeatureSet, held_out, normalisation


def fit_linear(features: FeatureSet, classes: int, fit: Fit) -> Head:
    """Fit the probe. The result is deterministic for one number of threads.

    Args:
        features: tokens and class maps of the fit split.
        classes: number C of classes.
        fit: the recipe of the task card; `fit.seed` seeds the draws of images.

    Returns:
        Tensors of the head: `mean` and `scale` (D,), `weight` (C, D), `bias` (C,) and `learning_rate` (1,).
    """
    mean, scale = _statistics(features)
    rates = fit.learning_rates or (1e-3,)
    chosen = rates[0]
    everything = np.arange(len(features))
    if len(rates) > 1:
        use, choose = held_out(len(features), fit.held_out, fit.seed)
        scores = []
        for rate in rates:
            head = {"mean": mean, "scale": scale, **_descend(features, use, classes, fit, rate, mean, scale)}
            scores.append(_held_out_miou(features, choose, classes, head))
        chosen = rates[int(np.argmax(scores))]
    head = _descend(features, everything, classes, fit, chosen, mean, scale)
    return {"mean": mean, "scale": scale, **head, "learning_rate": torch.tensor([chosen])}


def class_scores(tokens: Tensor, head: Head) -> Tensor:
    """Class scores (B, C, h, w) of tokens (B, D, h, w). Raises UsageError for another D than that of the head."""
    check_alike("tokens", tokens.shape[1:2], head["mean"].shape)
    # The norm is folded into the convolution: w ((x - mean) scale) + b = (w scale) x + (b - (w scale) mean).
    weight = head["weight"] * head["scale"]
    bias = head["bias"] - weight @ head["mean"]
    return F.conv2d(tokens.float(), weight[:, :, None, None].to(tokens.device), bias.to(tokens.device))


def _statistics(features: FeatureSet) -> tuple[Tensor, Tensor]:
    """Mean and inverse standard deviation (D,) over all tokens."""
    total = square = torch.zeros(features.tokens.shape[1], dtype=torch.float64)
    count = 0
    for start in range(0, len(features), 64):
        tokens = torch.from_numpy(features.tokens[start : start + 64].astype(np.float64))
        total = total + tokens.sum((0, 2, 3))
        square = square + (tokens * tokens).sum((0, 2, 3))
        count += tokens.shape[0] * tokens.shape[2] * tokens.shape[3]
    return normalisation(total, square, count)


def _descend(
    features: FeatureSet, use: np.ndarray, classes: int, fit: Fit, rate: float, mean: Tensor, scale: Tensor
) -> Head:
    """Weight and bias after `fit.steps` steps of AdamW with a cosine schedule, on minibatches of the images `use`."""
    generator = np.random.default_rng(fit.seed)
    weight = torch.zeros(classes, len(mean), requires_grad=True)  # the loss is convex: no random start is needed
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.AdamW([weight, bias], lr=rate, weight_decay=fit.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, fit.steps)
    with torch.enable_grad(), torch.inference_mode(False):  # `evaluate` runs in inference mode
        for _ in range(fit.steps):
            # Sorted positions read the memory-mapped tokens from front to back.
            chosen = np.sort(generator.choice(use, min(fit.batch, len(use)), replace=False))
            tokens, maps = features.batch(chosen)
            flat = ((tokens - mean[:, None, None]) * scale[:, None, None]).flatten(2).transpose(1, 2).flatten(0, 1)
            targets = cell_counts(maps, (tokens.shape[2], tokens.shape[3]), classes)
            # Cross entropy per pixel: a cell with more annotated pixels weighs more.
            loss = -(targets * F.log_softmax(flat @ weight.T + bias, dim=1)).sum() / targets.sum().clamp_min(1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return {"weight": weight.detach(), "bias": bias.detach()}


def cell_counts(maps: np.ndarray, grid: tuple[int, int], classes: int) -> Tensor:
    """Number of pixels of each class in the cell of each token.

    Args:
        maps: (B, at, at) class maps; void pixels (negative) are not counted.
        grid: numbers of rows and columns (h, w) of the tokens.
        classes: number C of classes.

    Returns:
        (B h w, C) float32.
    """
    batch, height, width = maps.shape
    rows, columns = (np.arange(n) * g // n for n, g in zip((height, width), grid, strict=True))
    token = rows[:, None] * grid[1] + columns
    cell = np.arange(batch)[:, None, None] * (grid[0] * grid[1]) + token
    known = maps >= 0
    codes = cell[known] * classes + maps[known]
    counts = np.bincount(codes, minlength=batch * grid[0] * grid[1] * classes)
    return torch.from_numpy(counts.reshape(-1, classes).astype(np.float32))


def _held_out_miou(features: FeatureSet, choose: np.ndarray, classes: int, head: Head) -> float:
    """mIoU of a head on the images `choose`, at the size of the class maps; 0 where it is undefined."""
    total = np.zeros((classes, classes), dtype=np.int64)
    with torch.inference_mode():
        for position in choose:
            tokens, maps = features.batch(np.array([position]))
            scores = F.interpolate(class_scores(tokens, head), size=maps.shape[1:], mode="bilinear")
            total += confusion(maps, scores.argmax(1).numpy(), classes, ignore_index=None)
    return float(np.nan_to_num(miou_sem(total)))

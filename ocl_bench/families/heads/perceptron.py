"""A two-layer perceptron that predicts class and box, fitted on features that were extracted once.

The layers are linear D -> hidden, GELU, dropout 0.1 and linear hidden -> classes + 4. The loss is cross entropy plus L1
of the box, and the optimiser is Adam with 5 % warm-up and a cosine schedule, as in the recognition probe of Zhao's
SmoothSA code. All random numbers come from `fit.seed`. The head is always fitted and applied on the CPU, wherever the
model runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...cards.protocols import Fit
from ...core.errors import UsageError
from ...core.schedules import generator, learning_rate, sample_indices
from ..base import Head
from .features import held_out, normalisation

DROPOUT = 0.1
WARMUP = 0.05
_DEFAULT_RATE = 1e-3


@dataclass(frozen=True)
class Examples:
    """N training examples.

    Attributes:
        features: (N, D) float32.
        targets: (N,) int64 classes.
        boxes: (N, 4) float32, NaN without an object.
    """

    features: Tensor
    targets: Tensor
    boxes: Tensor


class ExampleSource(Protocol):
    """Examples by image. Batches and the held-out share consist of whole images: examples of one image are alike."""

    def __len__(self) -> int:
        """Number of images."""
        ...

    @property
    def width(self) -> int:
        """D of the features."""
        ...

    def batch(self, images: np.ndarray, random: np.random.Generator | None) -> Examples:
        """Examples of the images at the positions `images`.

        A source may draw a part of them with `random`; for None it must return all of them.
        """
        ...


def fit_perceptron(source: ExampleSource, classes: int, fit: Fit, *, normalise: bool) -> Head:
    """Fit the perceptron.

    The learning rate with the lowest loss on held-out images is chosen; then the head is fitted again on all images.

    Args:
        source: examples of the fit split.
        classes: number of classes, background included.
        fit: the recipe of the task card.
        normalise: subtract the mean of the features and divide by their standard deviation (an affine-free norm).

    Returns:
        `mean` and `scale` (D,), `weight1` (hidden, D), `bias1` (hidden,), `weight2` (classes + 4, hidden), `bias2`
        (classes + 4,) and `learning_rate` (1,).

    Raises:
        UsageError: no image has an example with an object.
    """
    if not any(bool((~examples.boxes[:, 0].isnan()).any()) for examples in _all(source, np.arange(len(source)), 64)):
        raise UsageError("the fit split has no object to learn from: none is annotated, or no slot matches one")
    norm = _statistics(source, fit.batch) if normalise else (torch.zeros(source.width), torch.ones(source.width))
    rates = fit.learning_rates or (_DEFAULT_RATE,)
    best = rates[0]
    if len(rates) > 1:
        use, choose = held_out(len(source), fit.held_out, fit.seed)
        losses = [_mean_loss(source, choose, _descend(source, use, classes, fit, rate, norm), fit) for rate in rates]
        best = rates[int(np.argmin(losses))]
    head = _descend(source, np.arange(len(source)), classes, fit, best, norm)
    # float64 keeps the rate exactly as the card has it; results record it in `fit.chosen`.
    return {**head, "learning_rate": torch.tensor([best], dtype=torch.float64)}


def apply(head: Head, features: Tensor) -> tuple[Tensor, Tensor]:
    """Class logits (N, C) and boxes (N, 4), both on the CPU, from features (N, D) on any device."""
    with torch.no_grad():
        output = _forward(head, features.detach().float().cpu(), None)
    return output[:, :-4], output[:, -4:]


def _forward(head: Head, features: Tensor, dropout: Tensor | None) -> Tensor:
    """Outputs (N, C + 4) of features (N, D). dropout: factors (N, hidden) of the hidden units; None in evaluation."""
    hidden = F.gelu(F.linear((features - head["mean"]) * head["scale"], head["weight1"], head["bias1"]))
    if dropout is not None:
        hidden = hidden * dropout
    return F.linear(hidden, head["weight2"], head["bias2"])


def _losses(output: Tensor, examples: Examples) -> tuple[Tensor, Tensor]:
    """The summed cross entropy, and the sum over boxes of the mean L1 loss of their four sides."""
    boxed = ~examples.boxes[:, 0].isnan()
    box = F.l1_loss(output[boxed, -4:], examples.boxes[boxed], reduction="sum") / 4
    return F.cross_entropy(output[:, :-4], examples.targets, reduction="sum"), box


def _mean_loss(source: ExampleSource, images: np.ndarray, head: Head, fit: Fit) -> float:
    """Mean loss on all examples of some images, without dropout."""
    # Class and box losses are averaged over different numbers of examples: background has no box.
    total, counts = np.zeros(2), np.zeros(2)
    with torch.no_grad():
        for examples in _all(source, images, fit.batch):
            total += [float(loss) for loss in _losses(_forward(head, examples.features, None), examples)]
            counts += [len(examples.targets), int((~examples.boxes[:, 0].isnan()).sum())]
    return float((total / counts.clip(1)).sum())


def _descend(
    source: ExampleSource, images: np.ndarray, classes: int, fit: Fit, rate: float, norm: tuple[Tensor, Tensor]
) -> Head:
    """Head after `fit.steps` optimiser steps on some images, with one learning rate."""
    head = _initial_weights(source.width, fit.hidden, classes + 4, fit.seed)
    # AdamW is Adam when weight_decay is 0, the default of the cards.
    optimizer = torch.optim.AdamW(list(head.values()), lr=rate, weight_decay=fit.weight_decay, fused=True)
    head |= {"mean": norm[0], "scale": norm[1]}  # after the optimiser: the norm is not trained
    random = np.random.default_rng(fit.seed)
    for step in range(fit.steps if len(images) else 0):
        chosen = images[sample_indices(fit.seed, step, fit.batch, len(images))]
        examples = source.batch(chosen, random)
        if not len(examples.targets):  # no image of the batch has an example
            continue
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step + 1, fit.steps, rate, warmup=round(WARMUP * fit.steps))
        dropout = _dropout(random, len(examples.targets), fit)
        entropy, box = _losses(_forward(head, examples.features, dropout), examples)
        boxed = int((~examples.boxes[:, 0].isnan()).sum())
        optimizer.zero_grad()
        # As in `_mean_loss`: each loss is averaged over its own examples.
        (entropy / len(examples.targets) + box / max(1, boxed)).backward()
        optimizer.step()
    return {name: tensor.detach() for name, tensor in head.items()}


def _dropout(random: np.random.Generator, count: int, fit: Fit) -> Tensor:
    """Factors (count, hidden) of the hidden units: 0 for a dropped unit, 1 / (1 - DROPOUT) for the others."""
    active = random.random((count, fit.hidden), np.float32) >= DROPOUT  # NumPy takes a third of the time of torch
    return torch.from_numpy(active * np.float32(1 / (1 - DROPOUT)))


def _initial_weights(width: int, hidden: int, outputs: int, seed: int) -> Head:
    """Weights and biases, uniform in +- 1 / sqrt(inputs) as in `torch.nn.Linear`, from a generator of their own."""
    draw = generator(seed, "head", 0)

    def uniform(inputs: int, *shape: int) -> Tensor:
        return ((2 * torch.rand(*shape, generator=draw) - 1) * inputs**-0.5).requires_grad_()

    return {
        "weight1": uniform(width, hidden, width),
        "bias1": uniform(width, hidden),
        "weight2": uniform(hidden, outputs, hidden),
        "bias2": uniform(hidden, outputs),
    }


def _all(source: ExampleSource, images: np.ndarray, step: int) -> Iterator[Examples]:
    """All examples of some images, `step` images at a time."""
    for start in range(0, len(images), step):
        yield source.batch(images[start : start + step], None)


def _statistics(source: ExampleSource, step: int) -> tuple[Tensor, Tensor]:
    """Mean and inverse standard deviation (D,) over all features."""
    total = square = torch.zeros(source.width, dtype=torch.float64)
    count = 0
    for examples in _all(source, np.arange(len(source)), step):
        features = examples.features.double()
        total, square, count = total + features.sum(0), square + (features * features).sum(0), count + len(features)
    return normalisation(total, square, count)

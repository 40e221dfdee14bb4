"""Spherical k-means of tokens over a whole split: a vocabulary of clusters for a model that has none of its own."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...cards.protocols import Fit
from ...core.errors import UsageError
from .features import FeatureSet

MAX_TOKENS = 100_000
_RESTARTS = 5
_ITERATIONS = 50


def fit_kmeans(features: FeatureSet, clusters: int, fit: Fit) -> dict[str, Tensor]:
    """Centres (K, D) of unit length: the best of several seeded runs by the sum of cosines.

    At most `MAX_TOKENS` tokens take part, drawn without replacement. Raises UsageError with fewer tokens than clusters.
    """
    generator = np.random.default_rng(fit.seed)
    points = _sample(features, generator)
    if len(points) < clusters:
        raise UsageError(f"k-means: {len(points)} tokens on the fit split are too few for {clusters} clusters")
    runs = [_lloyd(points, _spread(points, clusters, generator)) for _ in range(_RESTARTS)]
    return {"centres": max(runs, key=lambda run: run[1])[0]}


def cluster_scores(tokens: Tensor, head: dict[str, Tensor]) -> Tensor:
    """Cosines (B, K, h, w) of tokens (B, D, h, w) with the centres."""
    return torch.einsum("bdhw,kd->bkhw", F.normalize(tokens.float(), dim=1), head["centres"].to(tokens.device))


def _sample(features: FeatureSet, generator: np.random.Generator) -> Tensor:
    """Unit tokens (N, D) float32, the same number of positions of each image."""
    count, _, height, width = features.tokens.shape
    each = max(1, min(height * width, MAX_TOKENS // count))
    rows = []
    for position in range(count):
        flat = features.tokens[position].reshape(features.tokens.shape[1], -1)
        rows.append(flat[:, generator.permutation(height * width)[:each]].T.astype(np.float32))
    return F.normalize(torch.from_numpy(np.concatenate(rows)), dim=1)


def _spread(points: Tensor, clusters: int, generator: np.random.Generator) -> Tensor:
    """k-means++: each centre is drawn with probability proportional to the squared distance from those before it."""
    centres = [points[int(generator.integers(len(points)))]]
    distance = torch.full((len(points),), torch.inf)
    while len(centres) < clusters:
        distance = torch.minimum(distance, 2 - 2 * points @ centres[-1]).clamp_min(0)
        share = distance.double().numpy()
        total = share.sum()
        chosen = generator.choice(len(points), p=share / total) if total > 0 else generator.integers(len(points))
        centres.append(points[int(chosen)])
    return torch.stack(centres)


def _lloyd(points: Tensor, centres: Tensor) -> tuple[Tensor, float]:
    """Centres after convergence and the sum of cosines; a cluster that loses all points keeps its centre."""
    names = torch.full((len(points),), -1)
    for _ in range(_ITERATIONS):
        cosine, nearest = (points @ centres.T).max(1)
        if torch.equal(nearest, names):
            break
        names = nearest
        sums = torch.zeros_like(centres).index_add_(0, names, points)
        norm = sums.norm(dim=1, keepdim=True)
        centres = torch.where(norm > 0, sums / norm.clamp_min(1e-12), centres)
    return centres, float(cosine.double().sum())

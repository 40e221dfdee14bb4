"""Spherical k-means of tokens over a whole split: a vocabulary of clusters for a model without its own vocabulary."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...cards.protocols import Fit
from ...core.errors import UsageError
from ..base import Head
from ..checks import check_alike
from .features import FeatureSet

MAX_TOKENS = 100_000
"""Largest number of tokens that are clustered."""
_RESTARTS = 5  # k-means only finds local optima
_ITERATIONS = 50


def fit_kmeans(features: FeatureSet, clusters: int, fit: Fit) -> Head:
    """Cluster the tokens and return the best of several seeded runs, by the sum of cosines.

    Args:
        features: tokens of the fit split; about `MAX_TOKENS` of them are drawn without replacement.
        clusters: number K of clusters.
        fit: the recipe of the task card, for its seed.

    Returns:
        `centres` (K, D) float32 of unit length.

    Raises:
        UsageError: there are fewer tokens than clusters.
    """
    generator = np.random.default_rng(fit.seed)
    points = _sample(features, generator)
    if len(points) < clusters:
        raise UsageError(f"k-means: {len(points)} tokens on the fit split are too few for {clusters} clusters")
    runs = [_lloyd(points, _spread(points, clusters, generator)) for _ in range(_RESTARTS)]
    return {"centres": max(runs, key=lambda run: run[1])[0]}


def cluster_scores(tokens: Tensor, head: Head) -> Tensor:
    """Cosines (B, K, h, w) between tokens (B, D, h, w) and the centres of the clusters.

    Raises UsageError for another D than that of the head.
    """
    check_alike("tokens", tokens.shape[1:2], head["centres"].shape[1:])
    return torch.einsum("bdhw,kd->bkhw", F.normalize(tokens.float(), dim=1), head["centres"].to(tokens.device))


def _sample(features: FeatureSet, generator: np.random.Generator) -> Tensor:
    """Unit tokens (N, D) float32, the same number from each image."""
    count, _, height, width = features.tokens.shape
    per_image = max(1, min(height * width, MAX_TOKENS // count))
    rows = []
    for image in range(count):
        flat = features.tokens[image].reshape(features.tokens.shape[1], -1)
        rows.append(flat[:, generator.permutation(height * width)[:per_image]].T.astype(np.float32))
    return F.normalize(torch.from_numpy(np.concatenate(rows)), dim=1)


def _spread(points: Tensor, clusters: int, generator: np.random.Generator) -> Tensor:
    """k-means++ initialisation (Arthur and Vassilvitskii, 2007) with squared distances between unit vectors.

    Each centre is drawn with probability proportional to the squared distance to the nearest centre before it.
    """
    centres = [points[int(generator.integers(len(points)))]]
    distance = torch.full((len(points),), torch.inf)
    while len(centres) < clusters:
        # |a - b|^2 = 2 - 2 a.b for unit vectors; rounding can make it slightly negative.
        distance = torch.minimum(distance, 2 - 2 * points @ centres[-1]).clamp_min(0)
        share = distance.double().numpy()  # NumPy rejects probabilities whose sum is off by a float32 rounding
        total = share.sum()
        # All points coincide with a centre when the total is 0; then any point will do.
        chosen = generator.choice(len(points), p=share / total) if total > 0 else generator.integers(len(points))
        centres.append(points[int(chosen)])
    return torch.stack(centres)


def _lloyd(points: Tensor, centres: Tensor) -> tuple[Tensor, float]:
    """Lloyd's iterations. Returns the centres and the sum of the cosines between points and their centres."""
    assignment = torch.full((len(points),), -1)
    for _ in range(_ITERATIONS):
        cosine, nearest = (points @ centres.T).max(1)
        if torch.equal(nearest, assignment):
            break
        assignment = nearest
        sums = torch.zeros_like(centres).index_add_(0, assignment, points)
        norm = sums.norm(dim=1, keepdim=True)
        # An empty cluster has a sum of 0 and keeps its centre.
        centres = torch.where(norm > 0, sums / norm.clamp_min(1e-12), centres)
    return centres, float(cosine.double().sum())

"""Redundancy reduction: slots that are similar are merged. *This is our reconstruction.*

The abstract of DIAS (arXiv:2507.23755) describes a reduction of redundant slots, followed by a re-initialised extra
aggregation. The official release contains neither. This module follows the closest public ancestor of that code
(`object_centric_bench/model/initq.py` in lhj-lhj/MetaSlot, commit 38bfcd7): complete-linkage clustering of the slots
on cosine distance. No configuration with its threshold is public, so ours are chosen by us.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from torch import Tensor


@dataclass(frozen=True)
class MergedSlots:
    """Slots of which similar ones have been replaced by their mean.

    Attributes:
        slots: (B, K, C), with the mean of a cluster at the place of its first member and zeros at the other places.
        mask: (B, K) bool, True = valid.
        members: (B, K, K), 1 at [b, k, j] where slot j belongs to the cluster at place k, else 0.
    """

    slots: Tensor
    mask: Tensor
    members: Tensor


def merge_slots(slots: Tensor, threshold: float) -> MergedSlots:
    """Replace every cluster of similar slots by its mean.

    Args:
        slots: (B, K, C).
        threshold: cosine distance in [0, 2]; any two members of a cluster are closer than this.

    Returns:
        The merged slots. They are differentiable in the slots, but not in the choice of clusters.
    """
    # In float64, so rounding hardly ever moves a distance across the threshold.
    directions = torch.nn.functional.normalize(slots.detach().double(), dim=-1)
    distances = (1 - directions @ directions.transpose(1, 2)).clamp_min(0).cpu().numpy()
    averages = np.stack([_averaging(sample, threshold) for sample in distances])
    weights = torch.from_numpy(averages).to(slots)
    return MergedSlots(weights @ slots, weights.any(dim=2), (weights > 0).to(slots))


def _averaging(distances: np.ndarray, threshold: float) -> np.ndarray:
    """Distances (K, K) -> averaging matrix (K, K): row k averages the cluster whose first member is k, or is 0."""
    identity = np.eye(len(distances))
    if len(distances) < 2:
        return identity
    tree = linkage(squareform(distances, checks=False), method="complete")
    # `fcluster` joins at distances <= t; "closer than the threshold" needs the next smaller number.
    clusters = fcluster(tree, t=np.nextafter(threshold, -np.inf), criterion="distance")
    if len(np.unique(clusters)) <= 2:
        return identity  # the ancestor's guard against collapse: such a sample is left as it is
    same = clusters[:, None] == clusters[None, :]
    is_first = same.argmax(axis=1) == np.arange(len(clusters))
    return is_first[:, None] * same / same.sum(axis=1, keepdims=True)

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
    weights = _weights(_distances(slots), threshold).to(slots)
    return MergedSlots(weights @ slots, weights.any(dim=2), (weights > 0).to(slots))


def merge_clip(slots: Tensor, masks: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Merge the slots of a whole clip: two slots are one object in all of its frames or in none.

    The distance of two slots is one minus their cosine, averaged over the frames. *This is not in the papers of the
    video models*, which choose the number of slots to fit the objects of their data.

    Args:
        slots: (B, T, K, D).
        masks: (B, T, K, h, w), soft.
        threshold: as in `merge_slots`, for the averaged distance.

    Returns:
        The slots, with the mean of a cluster at the place of its first member and zeros at the other places, and
        the masks, with the sum of a cluster there; shapes as given.
    """
    weights = _weights(_distances(slots).mean(1), threshold)[:, None].to(slots)
    members = (weights > 0).to(masks)
    return weights @ slots, (members @ masks.flatten(3)).unflatten(3, masks.shape[3:])


def _distances(slots: Tensor) -> Tensor:
    """Cosine distances (..., K, K) of slots (..., K, C), in float64: rounding hardly moves one across a threshold."""
    directions = torch.nn.functional.normalize(slots.detach().double(), dim=-1)
    return (1 - directions @ directions.transpose(-1, -2)).clamp_min(0)


def _weights(distances: Tensor, threshold: float) -> Tensor:
    """Averaging matrices (B, K, K) from distances (B, K, K), see `_averaging`."""
    return torch.from_numpy(np.stack([_averaging(sample, threshold) for sample in distances.cpu().numpy()]))


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

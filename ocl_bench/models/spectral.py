"""Training-free references: objects as normalised cuts of an encoder's tokens (`tokencut`, `maskcut`).

    A[i, j] = 1 where cos(f_i, f_j) > tau, else 1e-5         tokens of one image, f the keys of the last attention
    (D - A) v = l D v                                        v of the second smallest l, D the row sums of A
    foreground = v > mean(v)                                 turned round by the rules below
    object = the part of the foreground that holds the seed, the token with the largest |v|

TokenCut (Wang et al., CVPR 2022, arXiv:2202.11539) makes one such cut, and turns it round if the seed is not in the
foreground. MaskCut (Wang et al., CutLER, CVPR 2023, arXiv:2301.11320) repeats it N times, each time without the tokens
of the objects so far, and also turns round a foreground that holds three or four corners.

Written from the papers; verified by stored inputs and outputs of both official codes (YangtaoWANG95/TokenCut, commit
fed52cd; facebookresearch/CutLER, commit cca0a27, outputs only). Not here: the refinement of masks by a conditional
random field. One thing is ours: the sign of an eigenvector is arbitrary, and MaskCut's corner rule can make its masks
depend on it. Here the largest entry by absolute value is positive.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from scipy.linalg import eigh
from scipy.ndimage import label
from scipy.sparse.linalg import eigsh

from ..core.errors import UsageError
from ..core.types import Batch, Prediction
from .clustering import OtherTokens, weighted_means
from .floors import positive
from .options import check_choice, check_range

WEAK = 1e-5
"""Affinity of tokens that are not alike; it keeps the graph connected."""

DENSE = 1024
"""Tokens up to which the matrix is brought to a tridiagonal form; above, Lanczos' iterations are faster."""

SMALLEST, OVERLAP = 0.01, 0.5
"""MaskCut: share of the tokens that a later object must exceed, and its largest IoU with the object before."""

Eigenvector = Callable[[np.ndarray], np.ndarray]
"""Maps an affinity (P, P) to the vector (P,) by which it is cut."""


def affinity(unit: np.ndarray, tau: float) -> np.ndarray:
    """Affinity (P, P) float64 of tokens (P, D) of length 1, or 0 for a token that is left out."""
    return np.where(unit @ unit.T > tau, 1.0, WEAK)


def second_eigenvector(weights: np.ndarray) -> np.ndarray:
    """The v of the second smallest l of (D - A) v = l D v, with v D v = 1 and its largest |entry| positive.

    Args:
        weights: A (P, P), symmetric and positive, P >= 2.
    """
    # l and v are 1 - m and D^-1/2 u of the second *largest* m of D^-1/2 A D^-1/2 u = m u, a problem without D.
    root = np.sqrt(weights.sum(axis=1))
    scaled = weights / root[:, None] / root[None, :]
    size = len(scaled)
    if size <= DENSE:
        vector = eigh(scaled, subset_by_index=[size - 2, size - 2])[1][:, 0]
    else:
        values, vectors = eigsh(scaled, k=2, which="LA", v0=root + np.arange(size) / size)
        vector = vectors[:, values.argmin()]
    vector = vector / root
    return vector if vector[np.abs(vector).argmax()] > 0 else -vector


def find_object(vector: np.ndarray, size: tuple[int, int], *, corners: bool) -> tuple[np.ndarray, int]:
    """The object that an eigenvector shows.

    Args:
        vector: (P,), with any sign.
        size: (h, w), P = h w.
        corners: whether a foreground with three or four corners is turned round (MaskCut).

    Returns:
        The object (h, w) bool, and the number of its seed.
    """
    foreground, seed = (vector > vector.mean()).reshape(size), int(np.abs(vector).argmax())
    at_corners = int(foreground[[0, 0, -1, -1], [0, -1, 0, -1]].sum())
    if (corners and at_corners >= 3) or not foreground.flat[seed]:
        foreground, vector = ~foreground, -vector
        seed = int(vector.argmax()) if corners else seed
    parts, _ = label(foreground)  # neighbours above, below, left and right
    return parts == parts.flat[seed], seed


def token_cut(tokens: np.ndarray, size: tuple[int, int], tau: float) -> np.ndarray:
    """The one object (h, w) bool of tokens (P, D) float64."""
    return find_object(second_eigenvector(affinity(_unit(tokens), tau)), size, corners=False)[0]


def mask_cut(
    tokens: np.ndarray,
    size: tuple[int, int],
    tau: float,
    objects: int,
    eigenvector: Eigenvector = second_eigenvector,
) -> list[np.ndarray]:
    """The objects of an image, one for each round.

    Args:
        tokens: (P, D) float64.
        size: (h, w), P = h w.
        tau: cosine above which tokens are alike.
        objects: number of rounds.
        eigenvector: of an affinity.

    Returns:
        `objects` masks (h, w) bool, without the tokens of earlier ones. A rejected one is empty.
    """
    unit, taken = _unit(tokens), np.zeros(size, bool)
    before, found = np.zeros(size, bool), list[np.ndarray]()
    for number in range(objects):
        mask, _ = find_object(eigenvector(affinity(unit, tau)), size, corners=True)
        if number and (_iou(mask, before) > OVERLAP or mask.mean() <= SMALLEST):
            # It masks nothing, so the next round repeats this cut. Being compared with the empty map of this round,
            # that is accepted if it is large enough, as officially.
            mask = np.zeros(size, bool)
        before = mask
        found.append(mask & ~taken)
        taken = taken | mask
        unit = np.where(taken.reshape(-1, 1), 0.0, unit)
    return found


def _unit(tokens: np.ndarray) -> np.ndarray:
    return F.normalize(torch.from_numpy(tokens), dim=1).numpy()


def _iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / max(1, (first | second).sum()))


class SpectralCut(OtherTokens):
    """Label maps from cuts of another model's tokens: 0 where no object was found, then 1, 2, .. in their order.

    Args:
        encoder: name of a model, or an object with `encode_keys(batch)`, with `encode(batch)`, or with tokens in its
            Prediction.
        cut: maps tokens (P, D) and (h, w) to masks (h, w).
        features: "keys" of the last attention, "tokens", or "auto": keys where the encoder has them.
        options: of the encoder.
    """

    def __init__(
        self,
        encoder: str | Any,
        cut: Callable[[np.ndarray, tuple[int, int]], list[np.ndarray]],
        features: str,
        options: dict[str, Any] | None,
    ) -> None:
        super().__init__(encoder, options)
        has_keys = hasattr(self.encoder, "encode_keys")
        if features == "keys" and not has_keys:
            raise UsageError(
                f"option features: encoder '{self.encoder_name}' has no keys (encode_keys); use features=tokens"
            )
        self.cut, self.keys = cut, has_keys and features != "tokens"

    def predict(self, batch: Batch) -> Prediction:
        """Predict label maps (B, h, w) int64 on the token grid, slots (B, K, D), and tokens (B, D, h, w).

        A slot is the mean of the tokens under a label; slot k is that of label k, and 0 for a label without tokens.

        Raises:
            UsageError: the encoder returns no tokens, or fewer than two.
            SampleError: the tokens of an image are not finite.
        """
        tokens = self._tokens(batch)
        if batch.asks_only_for("tokens", ("slots", "masks")):
            return Prediction(tokens=tokens)
        with torch.no_grad():
            features = self.encoder.encode_keys(batch) if self.keys else tokens
        size = (int(features.shape[-2]), int(features.shape[-1]))
        if size[0] * size[1] < 2:
            raise UsageError(f"encoder '{self.encoder_name}': one token for an image cannot be cut; use larger images")
        maps, slots = [], []
        for (_, row), own in zip(self._finite_rows(batch, features), tokens.detach().float().cpu(), strict=True):
            masks = self.cut(row.double().flatten(1).T.contiguous().numpy(), size)
            labels = np.zeros(size, np.int64)
            for number, mask in enumerate(masks, start=1):
                labels[mask] = number
            maps.append(torch.from_numpy(labels))
            slots.append(weighted_means(own, F.one_hot(maps[-1], len(masks) + 1).permute(2, 0, 1)))
        device = tokens.device
        return Prediction(
            masks=torch.stack(maps).to(device),
            mask_source="clusters",
            slots=torch.stack(slots).to(device),
            tokens=tokens,
        )


Features = Literal["auto", "keys", "tokens"]


def build_tokencut(
    encoder: str | Any = "encoder",
    tau: float = 0.2,
    features: Features = "auto",
    encoder_options: dict[str, Any] | None = None,
) -> SpectralCut:
    """Build `tokencut`: one object against the rest.

    Args:
        encoder, features: see `SpectralCut`.
        tau: cosine above which tokens are alike; 0.2 in the paper, for keys of DINO ViT-S/16.
        encoder_options: options of the encoder, where it is given by name.

    Raises:
        UsageError: an option is out of range, or the encoder has no such features.
    """
    _check(tau, features)
    return SpectralCut(encoder, lambda tokens, size: [token_cut(tokens, size, tau)], features, encoder_options)


def build_maskcut(
    encoder: str | Any = "encoder",
    tau: float = 0.2,
    objects: int = 3,
    features: Features = "auto",
    encoder_options: dict[str, Any] | None = None,
) -> SpectralCut:
    """Build `maskcut`: up to `objects` objects, one after the other; the rest as in `build_tokencut`.

    The paper takes 3 objects, keys of DINO ViT-B/8 at 480 pixels and tau 0.15; its script has 0.2 by default.
    """
    _check(tau, features)
    rounds = positive("objects", objects)
    return SpectralCut(encoder, lambda tokens, size: mask_cut(tokens, size, tau, rounds), features, encoder_options)


def _check(tau: float, features: str) -> None:
    check_range("tau", tau, -1 <= tau < 1, "a cosine from -1, below 1")
    check_choice("features", features, ("auto", "keys", "tokens"))

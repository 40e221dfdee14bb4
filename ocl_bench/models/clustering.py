"""Floors that cluster: pixels (`kmeans`) or the tokens of another model's encoder (`kmeans-features`, `fps-features`).

Clustering a model's own tokens is the control that every slot model has to beat; on rendered scenes slot attention did
not always beat it. Each image is clustered alone, in float64, with random numbers from its own id, so a mask does not
depend on the batch. Masks are soft, because at 16 x 16 tokens soft masks upsample far better than labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from ..core.errors import SampleError, UsageError
from ..core.types import Batch, Prediction
from .floors import positive
from .loading import get_model

Cluster = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""Maps points (N, D) float64 and a random generator to centres (K, D)."""


class PixelKMeans:
    """K-means on blurred colour and position (see `build_kmeans`)."""

    def __init__(self, cluster: Cluster, *, grid: int, blur: float, position: float, temperature: float) -> None:
        self.cluster = cluster
        self.grid = grid
        self.blur = blur
        self.position = position
        self.temperature = temperature

    def predict(self, batch: Batch) -> Prediction:
        """Predict soft masks (B, K, h, w) float32 that sum to 1; the longer side is at most `grid`."""
        generators = _generators(batch, "kmeans")
        images = batch.image.detach().cpu()
        masks = [self._masks(image, generator) for image, generator in zip(images, generators, strict=True)]
        return Prediction(masks=torch.stack(masks).to(batch.image.device), mask_source="clusters")

    def _masks(self, image: Tensor, generator: np.random.Generator) -> Tensor:
        """Cluster the pixels of one image (3, H, W) into masks (K, h, w)."""
        scale = min(1.0, self.grid / max(image.shape[-2:]))
        height, width = (max(1, round(side * scale)) for side in image.shape[-2:])
        small = F.adaptive_avg_pool2d(image, (height, width)).permute(1, 2, 0).double().numpy()
        colour = gaussian_filter(small, (self.blur, self.blur, 0), mode="nearest")
        points = np.concatenate([colour, self.position * _positions(height, width)], axis=-1).reshape(
            height * width, -1
        )
        return _soft_masks(points, self.cluster(points, generator), self.temperature, (height, width))


class OtherTokens:
    """A model on the tokens of another model's encoder, without weights of its own.

    `supervision`, `input_size`, `checkpoint_sha256` and `parameters()` are those of the encoder, because a floor that
    uses trained tokens is ranked and counted as their model is.
    """

    def __init__(self, encoder: str | Any, options: Mapping[str, Any] | None = None) -> None:
        self.encoder, card, loaded = _resolve(encoder, options)
        self.encoder_name = card.name if card else type(self.encoder).__name__
        described = card or self.encoder
        self.supervision: str = getattr(described, "supervision", "undeclared")
        self.input_size: int | None = getattr(self.encoder, "input_size", None) or getattr(card, "input", None)
        self.checkpoint_sha256: str = getattr(loaded, "checkpoint_sha256", None) or ""
        # Of a user's own encoder: its name in the options does not say which weights it had.
        self.source_sha256: str = getattr(loaded, "source_sha256", "")
        self.state: str = getattr(loaded, "state", "")
        self.reusable: bool = getattr(loaded, "reusable", True)

    def to(self, device: torch.device | str) -> Self:
        """Move the encoder; everything else always runs on the CPU."""
        if hasattr(self.encoder, "to"):
            self.encoder = self.encoder.to(device)
        return self

    def parameters(self) -> Iterator[Tensor]:
        """Iterate over all weights of the model that gives the tokens, so that they are counted."""
        return iter(self.encoder.parameters() if hasattr(self.encoder, "parameters") else ())

    def _tokens(self, batch: Batch) -> Tensor:
        """Return the encoder's tokens (B, D, h, w); UsageError if there are none."""
        with torch.no_grad():
            if hasattr(self.encoder, "encode"):
                tokens = self.encoder.encode(batch)
            else:
                tokens = self.encoder.predict(batch).tokens
        if not isinstance(tokens, Tensor) or tokens.ndim != 4 or len(tokens) != len(batch):
            actual = f"a tensor {tuple(tokens.shape)}" if isinstance(tokens, Tensor) else type(tokens).__name__
            raise UsageError(
                f"encoder '{self.encoder_name}': tokens are {actual}, not (B, D, h, w); "
                "choose a model with encode(batch) or with tokens in its Prediction"
            )
        return tokens

    def _finite_rows(self, batch: Batch, tokens: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield id and tokens (D, h, w) float32 of each image, on the CPU; SampleError if they are not finite."""
        for sample_id, row in zip(batch.ids, tokens.detach().float().cpu(), strict=True):
            if not torch.isfinite(row).all():
                raise SampleError(
                    sample_id, f"tokens of encoder '{self.encoder_name}' are not finite; check its weights"
                )
            yield sample_id, row


class TokenClusters(OtherTokens):
    """Clusters of the tokens of another model (see `build_kmeans_features` and `build_fps_features`)."""

    def __init__(self, encoder: str | Any, cluster: Cluster, *, position: float, temperature: float) -> None:
        super().__init__(encoder)
        self.cluster = cluster
        self.position = position
        self.temperature = temperature

    def predict(self, batch: Batch) -> Prediction:
        """Predict soft masks, slots and tokens.

        Returns:
            Masks (B, K, h, w) float32 on the token grid, which sum to 1 over the slots; slots (B, K, D), the means of
            the tokens weighted by the masks; tokens (B, D, h, w).

        Raises:
            UsageError: the encoder returns no tokens.
            SampleError: the tokens of an image are not finite.
        """
        tokens = self._tokens(batch)
        if batch.asks_only_for("tokens", ("slots", "masks")):
            return Prediction(tokens=tokens)
        masks, slots = [], []
        rows = zip(self._finite_rows(batch, tokens), _generators(batch, "clusters"), strict=True)
        for (_, row), generator in rows:
            points = _token_points(row, self.position)
            masks.append(
                _soft_masks(points, self.cluster(points, generator), self.temperature, (row.shape[-2], row.shape[-1]))
            )
            slots.append(weighted_means(row, masks[-1]))
        return Prediction(
            masks=torch.stack(masks).to(tokens.device),
            mask_source="clusters",
            slots=torch.stack(slots).to(tokens.device),
            tokens=tokens,
        )


def build_kmeans(
    clusters: int = 11,
    grid: int = 64,
    blur: float = 1.0,
    position: float = 2.0,
    temperature: float = 0.01,
    restarts: int = 1,
    iterations: int = 20,
) -> PixelKMeans:
    """Build the floor `kmeans`: k-means++ on blurred RGB and xy.

    Args:
        clusters: K.
        grid: pixels on the longer side, to which images are averaged.
        blur: standard deviation of the blur, in these pixels.
        position: weight of xy, whose longer side spans [0, 1], beside RGB in [0, 1].
        temperature: see `_soft_masks`.
        restarts: runs with other seeds, of which the best one counts.
        iterations: largest number of iterations.

    Raises:
        UsageError: an option is out of range.
    """
    cluster = _kmeans(
        positive("clusters", clusters), positive("restarts", restarts), positive("iterations", iterations)
    )
    return PixelKMeans(
        cluster,
        grid=positive("grid", grid),
        blur=_not_negative("blur", blur),
        position=_not_negative("position", position),
        temperature=_above_zero("temperature", temperature),
    )


def build_kmeans_features(
    encoder: str | Any = "dias",
    clusters: int = 7,
    position: float = 0.0,
    temperature: float = 0.3,
    restarts: int = 3,
    iterations: int = 50,
) -> TokenClusters:
    """Build the floor `kmeans-features`: k-means++ on the L2-normalised tokens of `encoder`, best of `restarts`.

    Args:
        encoder: name of a model, or an object with `encode(batch) -> (B, D, h, w)` or with tokens in its Prediction.
        clusters: K; choose it on validation data.
        position: weight of xy, whose longer side spans [0, 1], appended to the unit tokens.
        temperature: see `_soft_masks`.
        restarts: runs with other seeds, of which the best one counts.
        iterations: largest number of iterations.

    Raises:
        UsageError: the model cannot give tokens, or an option is out of range.
    """
    # The temperature 0.3 was the best of 3, 1, 0.3, 0.1 and 0.02 in mBO plus FG-ARI for both feature floors, on 96
    # validation scenes with noisy tokens (16 x 16) made from the truth; sharper masks lose up to 5 points.
    cluster = _kmeans(
        positive("clusters", clusters), positive("restarts", restarts), positive("iterations", iterations)
    )
    return TokenClusters(
        encoder,
        cluster,
        position=_not_negative("position", position),
        temperature=_above_zero("temperature", temperature),
    )


def build_fps_features(
    encoder: str | Any = "dias", clusters: int = 7, position: float = 0.0, temperature: float = 0.3
) -> TokenClusters:
    """Build the floor `fps-features`: farthest-point seeds among the L2-normalised tokens, tokens to the nearest seed.

    The first seed is the token nearest to the mean; each next one is the token farthest from all seeds so far
    (Gonzalez 1985, doi:10.1016/0304-3975(85)90224-5). Without `position`, distances are those of cosine similarity.
    Options as in `build_kmeans_features`; nothing is random.
    """
    return TokenClusters(
        encoder,
        _farthest_points(positive("clusters", clusters)),
        position=_not_negative("position", position),
        temperature=_above_zero("temperature", temperature),
    )


def token_segments(tokens: Tensor, clusters: int) -> Tensor:
    """Number of the cluster of each token of one image: (P, D) -> (P,) int64. Clusters are those of `fps-features`."""
    points = _token_points(tokens.T.unsqueeze(2), position=0.0)
    seeds = _farthest_points(clusters)(points, np.random.default_rng())  # nothing is drawn
    return torch.from_numpy(_squared_distances(points, seeds).argmin(axis=1))


def _kmeans(clusters: int, restarts: int, iterations: int) -> Cluster:
    """K-means++ (Arthur and Vassilvitskii 2007) and Lloyd's iterations; keeps the run of the least inertia."""

    def cluster(points: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        runs = [_lloyd(points, _random_seeds(points, clusters, generator), iterations) for _ in range(restarts)]
        if restarts == 1:
            return runs[0]
        inertia = [float(_squared_distances(points, centres).min(axis=1).sum()) for centres in runs]
        return runs[int(np.argmin(inertia))]

    return cluster


def _lloyd(points: np.ndarray, centres: np.ndarray, iterations: int) -> np.ndarray:
    """Run Lloyd's algorithm from centres (K, D) until they no longer move, or for `iterations`.

    The result equals scipy's `kmeans2(minit="matrix")` (tested), which never stops early and takes about twice as long.
    """
    channels = np.ascontiguousarray(points.T)
    for _ in range(iterations):
        distances = np.square(centres).sum(axis=1, keepdims=True) - 2.0 * centres @ channels
        members = _members(distances).astype(points.dtype)
        counts = members.sum(axis=1, keepdims=True)
        # A centre without members stays where it is.
        moved = np.where(counts > 0, members @ points / np.maximum(counts, 1), centres)
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres


def _members(distances: np.ndarray) -> np.ndarray:
    """Assign each point to its nearest centre, the first one in a tie: distances (K, N) -> members (K, N) bool."""
    members = distances == distances.min(axis=0)  # five times faster than argmin, but ties count twice
    if np.count_nonzero(members) == distances.shape[1]:
        return members
    return distances.argmin(axis=0) == np.arange(len(distances))[:, None]


def _random_seeds(points: np.ndarray, clusters: int, generator: np.random.Generator) -> np.ndarray:
    """Draw the seeds of k-means++ (Arthur and Vassilvitskii 2007): the next one in proportion to squared distance."""

    def pick(nearest: np.ndarray) -> int:
        cumulative = nearest.cumsum()
        drawn = np.searchsorted(cumulative, generator.random() * cumulative[-1], side="right")
        return min(int(drawn), len(nearest) - 1)  # all points may lie on seeds: then every distance is 0

    return _seeds(points, clusters, int(generator.integers(len(points))), pick)


def _farthest_points(clusters: int) -> Cluster:
    """Return a clustering whose centres are farthest-point seeds."""

    def cluster(points: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        first = int(np.square(points - points.mean(axis=0)).sum(axis=1).argmin())
        return _seeds(points, clusters, first, lambda nearest: int(nearest.argmax()))

    return cluster


def _seeds(points: np.ndarray, clusters: int, first: int, pick: Callable[[np.ndarray], int]) -> np.ndarray:
    """Choose seeds (clusters, D) among the points.

    `pick` maps each point's squared distance (N,) to its nearest seed to the number of the next seed.
    """
    chosen = [first]
    nearest = np.full(len(points), np.inf)
    while len(chosen) < clusters:
        nearest = np.minimum(nearest, np.square(points - points[chosen[-1]]).sum(axis=1))
        chosen.append(pick(nearest))
    return points[chosen]


def _soft_masks(points: np.ndarray, centres: np.ndarray, temperature: float, size: tuple[int, int]) -> Tensor:
    """Return the softmax over the centres of -squared distance / (2 temperature), as (K, h, w) float32.

    For unit tokens and unit centres this is the softmax of cosine similarity / temperature.
    """
    # In NumPy and float64, as the clustering: the masks are the same on every device.
    logits = _squared_distances(points, centres).T / (-2.0 * temperature)
    weights = np.exp(logits - logits.max(axis=0))
    weights /= weights.sum(axis=0)
    return torch.from_numpy(weights.astype(np.float32).reshape(-1, *size))


def weighted_means(tokens: Tensor, masks: Tensor) -> Tensor:
    """Average the tokens (D, h, w) under each soft mask (K, h, w) into (K, D) float32; 0 for a mask of zeros."""
    weights = masks.double().flatten(1)
    shares = weights / weights.sum(1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    return (shares @ tokens.double().flatten(1).T).float()


def _squared_distances(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return the squared distances (N, K); rounding may make them slightly negative."""
    return np.square(points).sum(axis=1)[:, None] - 2.0 * points @ centres.T + np.square(centres).sum(axis=1)


def _token_points(tokens: Tensor, position: float) -> np.ndarray:
    """Turn tokens (D, h, w) into unit points (h * w, D); a weight other than 0 appends weighted positions."""
    height, width = tokens.shape[-2:]
    points = F.normalize(tokens.double().flatten(1).T, dim=1).numpy()
    if position == 0.0:
        return np.ascontiguousarray(points)
    return np.concatenate([points, position * _positions(height, width).reshape(height * width, 2)], axis=1)


def _positions(height: int, width: int) -> np.ndarray:
    """Return the cell centres (h, w, 2) in xy; the longer side spans [0, 1]."""
    longer = max(height, width)
    y, x = np.meshgrid((np.arange(height) + 0.5) / longer, (np.arange(width) + 0.5) / longer, indexing="ij")
    return np.stack([x, y], axis=-1)


def _generators(batch: Batch, stream: str) -> list[np.random.Generator]:
    """Make one generator per image, seeded by the bits of the image's own noise (from noise seed and sample id)."""
    return [np.random.default_rng(bits) for bits in batch.noise(4, stream=stream).numpy().view(np.uint32)]


def _resolve(encoder: str | Any, options: Mapping[str, Any] | None) -> tuple[Any, Any, Any]:
    """Return the model that gives tokens and, if it came by name, its card and the `LoadedModel`."""
    loaded = None
    if isinstance(encoder, str):
        loaded = get_model(encoder, options=options)
    model = loaded.model if loaded else encoder
    if not hasattr(model, "encode") and not hasattr(model, "predict"):
        raise UsageError(
            f"option 'encoder': {encoder!r} has neither encode(batch) nor predict(batch); "
            "choose a model from `ocl-bench list`"
        )
    return model, getattr(loaded, "card", None), loaded


def _not_negative(name: str, value: float) -> float:
    if not 0.0 <= value < float("inf"):
        raise UsageError(f"option '{name}': {value!r} is not a number >= 0")
    return float(value)


def _above_zero(name: str, value: float) -> float:
    if not 0.0 < value < float("inf"):
        raise UsageError(f"option '{name}': {value!r} is not a number > 0")
    return float(value)

"""Heads on tokens: what they can and cannot learn, and that fitting is deterministic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ocl_bench.cards.protocols import Fit
from ocl_bench.core.errors import UsageError
from ocl_bench.core.types import Prediction, Truth
from ocl_bench.families.heads.features import FeatureSet, extracted, held_out
from ocl_bench.families.heads.kmeans import cluster_scores, fit_kmeans
from ocl_bench.families.heads.linear import cell_counts, class_scores, fit_linear

LINEAR = Fit(head="linear", learning_rates=(0.1, 0.01, 1e-4), steps=60, batch=4, at=8)


def blobs(images: int = 12, classes: int = 3, seed: int = 0, noise: float = 0.3) -> FeatureSet:
    """Tokens made of one direction per class plus noise, scaled and shifted by channel; every pixel is annotated."""
    generator = np.random.default_rng(seed)
    directions = np.eye(classes, 5)
    maps = generator.integers(0, classes, (images, 4, 4))
    tokens = directions[maps] + noise * generator.normal(size=(images, 4, 4, 5))
    tokens = tokens * np.array([1, 100, 0.01, 5, 1]) + np.array([0, 30, 0, -7, 2])
    classes_at = maps.repeat(2, 1).repeat(2, 2).astype(np.int16)
    return FeatureSet(tokens.transpose(0, 3, 1, 2).astype(np.float16), classes_at)


def accuracy(features: FeatureSet, head: dict[str, torch.Tensor]) -> float:
    scores = class_scores(torch.from_numpy(features.tokens.astype(np.float32)), head)
    return float((scores.argmax(1).numpy() == features.classes[:, ::2, ::2]).mean())


def test_a_linear_head_learns_what_is_linear_whatever_the_scale() -> None:
    head = fit_linear(blobs(), 3, LINEAR)
    assert accuracy(blobs(seed=1), head) > 0.9
    assert head["weight"].shape == (3, 5) and head["mean"].shape == (5,)
    assert float(head["learning_rate"]) in [pytest.approx(rate) for rate in LINEAR.learning_rates]


def test_a_head_is_the_same_each_time_and_depends_on_its_seed() -> None:
    first, again = fit_linear(blobs(), 3, LINEAR), fit_linear(blobs(), 3, LINEAR)
    assert all(torch.equal(first[name], again[name]) for name in first)
    reseeded = fit_linear(blobs(), 3, LINEAR.model_copy(update={"seed": 1}))
    assert not torch.equal(first["weight"], reseeded["weight"])


def test_the_held_out_images_decide_the_rate() -> None:
    use, choose = held_out(20, 0.1, seed=0)
    assert len(choose) == 2 and sorted([*use, *choose]) == list(range(20))
    assert len(held_out(1, 0.1, 0)[0]) == 1 and len(held_out(5, 0.1, 0)[1]) == 1
    slow = Fit(head="linear", learning_rates=(1e-9, 0.1), steps=60, batch=4, at=8)
    assert float(fit_linear(blobs(), 3, slow)["learning_rate"]) == pytest.approx(0.1)


def test_cells_count_annotated_pixels_only() -> None:
    maps = np.array([[[0, 1, 2, 2], [0, -1, 2, -1], [-1, -1, 1, 1], [-1, -1, 1, 0]]])
    counts = cell_counts(maps, (2, 2), 3)
    assert counts.tolist() == [[2, 1, 0], [0, 0, 3], [0, 0, 0], [1, 3, 0]]


def test_kmeans_finds_directions() -> None:
    generator = np.random.default_rng(0)
    directions = np.eye(4, 6)
    names = generator.integers(0, 4, (10, 4, 4))
    lengths = generator.uniform(0.5, 9, (10, 4, 4, 1))
    tokens = lengths * (directions[names] + 0.02 * generator.normal(size=(10, 4, 4, 6)))
    features = FeatureSet(tokens.transpose(0, 3, 1, 2).astype(np.float16), names.astype(np.int16))
    fit = Fit(head="kmeans")
    head = fit_kmeans(features, 4, fit)
    assert torch.equal(head["centres"], fit_kmeans(features, 4, fit)["centres"])
    assert torch.allclose(head["centres"].norm(dim=1), torch.ones(4), atol=1e-5)
    clusters = cluster_scores(torch.from_numpy(features.tokens.astype(np.float32)), head).argmax(1).numpy()
    assert len({(int(a), int(b)) for a, b in zip(names.ravel(), clusters.ravel(), strict=True)}) == 4
    with pytest.raises(UsageError, match="too few for 500 clusters"):
        fit_kmeans(features, 500, fit)


def test_features_are_extracted_once_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path))
    truth = Truth(np.zeros((4, 6), np.int16), classes=np.arange(24).reshape(4, 6).astype(np.int16))
    padded = Prediction(tokens=torch.randn(3, 5, 2, 2))  # the last row is padding
    with extracted([([truth, truth], padded)], 9, 2) as features:
        assert features is not None and len(features) == 2
        assert features.classes[0].tolist() == [[7, 10], [19, 22]]
        np.testing.assert_allclose(features.tokens[1], padded.tokens[1].numpy(), atol=1e-2)
        assert any((tmp_path / "features").iterdir())
    assert not any((tmp_path / "features").iterdir())
    with extracted([([truth], Prediction())], 9, 2) as nothing:
        assert nothing is None
    with (
        pytest.raises(UsageError, match="not finite"),
        extracted([([truth], Prediction(tokens=torch.full((1, 5, 2, 2), float("nan"))))], 1, 2),
    ):
        pass


def test_tokens_too_large_for_float16_are_refused() -> None:
    truth = Truth(np.zeros((4, 4), np.int16), classes=np.zeros((4, 4), np.int16))
    tokens = Prediction(tokens=torch.full((1, 3, 2, 2), 1e6))
    with pytest.raises(UsageError, match="too large for float16"), extracted([([truth], tokens)], 1, 2):
        pass

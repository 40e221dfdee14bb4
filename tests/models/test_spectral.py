"""`maskcut` and `tokencut`: parity with both official codes, eigenvectors, encoders with and without keys."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from places import PARITY
from safetensors.numpy import load_file
from scipy.linalg import eigh
from torch import nn

from ocl_bench.core.errors import SampleError, UsageError
from ocl_bench.core.types import Batch
from ocl_bench.evaluation.check_model import check_model
from ocl_bench.models import spectral
from ocl_bench.models.hugging_face import HuggingFaceViT
from ocl_bench.models.layers.vit import VisionTransformer
from ocl_bench.models.loading import get_model
from ocl_bench.models.reading import Reading
from ocl_bench.models.spectral import (
    affinity,
    build_maskcut,
    build_tokencut,
    find_object,
    mask_cut,
    second_eigenvector,
    token_cut,
)

SIZE = (12, 12)


def enlarged(mask: np.ndarray, patch: int) -> np.ndarray:
    return mask.repeat(patch, 0).repeat(patch, 1)


# --- parity -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("sample", range(4))
def test_parity_of_maskcut(sample: int, sign: int) -> None:
    """Degrees, eigenvectors (up to sign) and eigenvalues of each round, masks; whatever the sign of the vectors."""
    case = load_file(PARITY / "maskcut.safetensors")
    degrees, vectors, values = (case[f"out.{name}"][sample] for name in ("degrees", "eigenvectors", "eigenvalues"))
    rounds = 0

    def stored(weights: np.ndarray) -> np.ndarray:
        nonlocal rounds
        np.testing.assert_allclose(weights.sum(1), degrees[rounds], rtol=1e-9)
        own, official = second_eigenvector(weights), vectors[rounds].reshape(-1)
        np.testing.assert_allclose(own * np.sign(own @ official), official, atol=1e-6)
        spread = own @ (np.diag(degrees[rounds]) - weights) @ own
        np.testing.assert_allclose(spread, values[rounds][1], rtol=1e-6, atol=1e-8)
        rounds += 1
        return sign * own

    tokens = case["in.features"][sample].T.astype(np.float64)
    masks = mask_cut(tokens, SIZE, 0.2, 3, stored)
    assert rounds == 3
    for mask, official in zip(masks, case["out.masks"][sample], strict=True):
        np.testing.assert_array_equal(enlarged(mask, 2), official.astype(bool))
    again = mask_cut(tokens, SIZE, 0.2, 3)
    assert all(np.array_equal(a, b) for a, b in zip(masks, again, strict=True))


def test_seeds_of_maskcut() -> None:
    case = load_file(PARITY / "maskcut.safetensors")
    for sample, seed in enumerate(case["out.seed_last"]):
        vector = case["out.eigenvectors"][sample][-1].reshape(-1)
        assert find_object(vector, SIZE, corners=True)[1] == seed


def test_masks_that_depend_on_the_sign_are_one_of_the_official_ones() -> None:
    """With the stored signs exactly the official masks; with ours one of the results over all signs."""
    case = load_file(PARITY / "maskcut.safetensors")
    tokens = case["in.sign_sensitive.features"].T.astype(np.float64)
    vectors = iter(case["out.sign_sensitive.eigenvectors"])
    masks = mask_cut(tokens, SIZE, 0.2, 3, lambda weights: next(vectors).reshape(-1))
    official = case["out.sign_sensitive.masks"].astype(bool)
    assert np.array_equal([enlarged(mask, 2) for mask in masks], official)
    ours = np.array([enlarged(mask, 2) for mask in mask_cut(tokens, SIZE, 0.2, 3)])
    results = case["out.sign_sensitive.all_results"].astype(bool)
    assert len(results) == 4 and any(np.array_equal(ours, result) for result in results)
    repeated = np.array([enlarged(mask, 2) for mask in mask_cut(tokens, SIZE, 0.2, 3)])
    assert np.array_equal(ours, repeated)


def test_a_rejected_round_returns_in_the_next_one() -> None:
    """Among the stored samples one has the areas > 0, 0, > 0."""
    masks = load_file(PARITY / "maskcut.safetensors")["out.masks"]
    areas = masks.any((2, 3))
    assert any(row.tolist() == [True, False, True] for row in areas)


@pytest.mark.parametrize("sample", range(4))
def test_parity_of_tokencut(sample: int) -> None:
    case = load_file(PARITY / "tokencut.safetensors")
    tokens = case["in.features"][sample, 1:].astype(np.float64)  # without the class token
    vector = second_eigenvector(affinity(spectral._unit(tokens), 0.2))
    mask, seed = find_object(vector, SIZE, corners=False)
    assert seed == case["out.seed"][sample]
    official = case["out.eigenvectors"][sample].reshape(-1)  # after the flip: the seed is in the foreground
    turned = vector if mask.flat[seed] and vector[seed] > vector.mean() else -vector
    np.testing.assert_allclose(turned * np.sign(turned @ official), official, atol=1e-6)
    np.testing.assert_array_equal(mask, case["out.masks"][sample].astype(bool))
    assert np.array_equal(token_cut(tokens, SIZE, 0.2), mask)
    rows, columns = np.nonzero(mask)
    box = [columns.min() * 16, rows.min() * 16, (columns.max() + 1) * 16, (rows.max() + 1) * 16]
    np.testing.assert_array_equal(box, case["out.boxes"][sample])


# --- eigenvectors -----------------------------------------------------------------------------------------------------


def two_groups(count: int = 60, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((2, 8)) * 3
    return centres[(np.arange(count) > count // 3).astype(int)] + generator.standard_normal((count, 8))


def test_the_second_eigenvector_is_that_of_the_generalised_problem() -> None:
    weights = affinity(spectral._unit(two_groups()), 0.3)
    degrees = np.diag(weights.sum(1))
    expected = eigh(degrees - weights, degrees, subset_by_index=[1, 1])[1][:, 0]
    found = second_eigenvector(weights)
    np.testing.assert_allclose(found * np.sign(found @ expected), expected, atol=1e-9)
    assert found[np.abs(found).argmax()] > 0 and found @ degrees @ found == pytest.approx(1)


def test_large_images_give_the_same_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = affinity(spectral._unit(two_groups(300)), 0.3)
    dense = second_eigenvector(weights)
    monkeypatch.setattr(spectral, "DENSE", 100)
    np.testing.assert_allclose(second_eigenvector(weights), dense, atol=1e-7)


def test_two_groups_are_told_apart() -> None:
    groups = np.arange(60) > 20
    mask = token_cut(two_groups(), (6, 10), 0.3).reshape(-1)
    assert (mask == groups).mean() > 0.95 or (mask == ~groups).mean() > 0.95


# --- models -----------------------------------------------------------------------------------------------------------


def hub_model() -> HuggingFaceViT:
    torch.manual_seed(0)
    vit = VisionTransformer(dim=16, heads=2, depth=2, grid=6, patch=8)
    return HuggingFaceViT(vit, Reading("cls", "cls"), 48).eval()


def batch(side: int = 48) -> Batch:
    return Batch(("a", "b"), torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1)))


def test_keys_are_those_of_the_last_block() -> None:
    model, images = hub_model(), batch()
    seen: list[torch.Tensor] = []
    model.backbone.blocks[-1].attn.qkv.register_forward_hook(lambda _, __, output: seen.append(output))
    model.predict(images)
    keys = model.encode_keys(images)
    assert keys.shape == (2, 16, 6, 6)
    expected = seen[0][:, 1:, 16:32].transpose(1, 2).unflatten(2, (6, 6))
    torch.testing.assert_close(keys, expected)


@pytest.mark.parametrize("build", [build_maskcut, build_tokencut])
def test_any_encoder_can_be_cut(build: Any) -> None:
    """A hub backbone by its keys or its tokens, and an encoder without attention by its tokens."""
    cuts = {name: build(hub_model(), features=name).predict(batch()) for name in ("auto", "keys", "tokens")}
    assert torch.equal(cuts["auto"].masks, cuts["keys"].masks)
    objects = 3 if build is build_maskcut else 1
    for prediction in [*cuts.values(), build("encoder").predict(batch(128))]:
        assert prediction.masks.dtype == torch.int64 and prediction.masks.max() <= objects
        assert prediction.slots.shape[:2] == (2, objects + 1) and prediction.mask_source == "clusters"
    labels, tokens = cuts["keys"].masks[0], cuts["keys"].tokens[0]
    for number in labels.unique():
        mean = tokens[:, labels == number].mean(1)
        torch.testing.assert_close(cuts["keys"].slots[0, number], mean, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["maskcut", "tokencut"])
def test_cards_and_contract(name: str) -> None:
    loaded = get_model(name)
    assert loaded.card.role == "floor" and loaded.card.supervision == "none" and loaded.parameters > 0
    assert loaded.checkpoint_sha256 == get_model("encoder").checkpoint_sha256
    assert get_model(name, options={"encoder": "encoder-boxes"}).card.supervision == "boxes"
    checks = check_model(name, "clevrtex")
    assert all(check.passed for check in checks), [check for check in checks if not check.passed]


def test_options_of_the_encoder_are_passed_on() -> None:
    with pytest.raises(UsageError, match="option repo: elsewhere/vit is neither"):
        build_maskcut("dino-hub", encoder_options={"repo": "elsewhere/vit"})


class Constant(nn.Module):
    def __init__(self, tokens: torch.Tensor) -> None:
        super().__init__()
        self.tokens = tokens

    def encode(self, batch: Batch) -> torch.Tensor:
        return self.tokens.expand(len(batch), -1, -1, -1)


def test_equal_tokens_are_no_reason_to_fail() -> None:
    prediction = build_maskcut(Constant(torch.ones(1, 4, 3, 3))).predict(batch())
    assert prediction.masks is not None and prediction.masks.shape == (2, 3, 3)


def test_bad_input_is_named() -> None:
    broken = torch.ones(1, 4, 3, 3)
    broken[0, 1, 1, 1] = torch.nan
    with pytest.raises(SampleError, match="sample a: tokens of encoder 'Constant' are not finite"):
        build_tokencut(Constant(broken)).predict(batch())
    with pytest.raises(UsageError, match="one token for an image cannot be cut"):
        build_tokencut(Constant(torch.ones(1, 4, 1, 1))).predict(batch())
    with pytest.raises(UsageError, match=r"encoder 'Constant' has no keys \(encode_keys\); use features=tokens"):
        build_maskcut(Constant(torch.ones(1, 4, 3, 3)), features="keys")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau": 1.0}, "option tau: 1.0 is invalid; use a cosine from -1, below 1"),
        ({"features": "values"}, "option features: 'values' is unknown; use auto or keys or tokens"),
        ({"objects": 0}, "option 'objects': 0"),
        ({"encoder": "no-such-model"}, "no-such-model"),
    ],
)
def test_options_that_make_no_sense(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_maskcut(**options)

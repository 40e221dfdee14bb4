"""Floors and ceilings: what they must score, and that a prediction depends on its own image alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.cluster.vq import kmeans2

from ocl_bench.cards.model import load_model_card
from ocl_bench.cards.names import CARDS
from ocl_bench.core.errors import SampleError, UsageError
from ocl_bench.core.types import Batch, Prediction, Truth
from ocl_bench.families.discovery import Discovery
from ocl_bench.metrics import METRICS, compute
from ocl_bench.models import clustering, floors
from ocl_bench.models.loading import get_model
from ocl_bench.models.pixels import build_shrunk_image

SIZE = 48
FLOOR_CARDS = ("single-slot", "grid", "random", "kmeans", "kmeans-features", "fps-features", "oracle", "patch-oracle")
NO_CATEGORIES = [name for name, metric in METRICS.items() if not metric.by_category]


class ConstantEncoder:
    """Tokens looked up by sample id, as an encoder that does not depend on the batch."""

    supervision = "boxes"
    input_size = 96

    def __init__(self, tokens: dict[str, torch.Tensor]) -> None:
        self.tokens = tokens

    def encode(self, batch: Batch) -> torch.Tensor:
        return torch.stack([self.tokens[i] for i in batch.ids])


def make_batch(count: int = 5, size: int = SIZE, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 6, 6, generator=generator)
    image = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return Batch(ids=tuple(f"scene-{i}" for i in range(count)), image=image)


def pick(batch: Batch, order: list[int]) -> Batch:
    return Batch(ids=tuple(batch.ids[i] for i in order), image=batch.image[order], noise_seed=batch.noise_seed)


def discs(count: int = 5, size: int = 96) -> list[np.ndarray]:
    """Background with 2 .. 5 discs of radius size / 8, never touching each other."""
    y, x = np.mgrid[:size, :size] / size
    centres = [(0.2, 0.2), (0.2, 0.7), (0.55, 0.45), (0.8, 0.15), (0.8, 0.75)]
    maps = []
    for i in range(count):
        labels = np.zeros((size, size), np.int16)
        for number, (cy, cx) in enumerate(centres[: 2 + i % 4], start=1):
            labels[(y - cy - 0.01 * i) ** 2 + (x - cx) ** 2 < 0.125**2] = number
        maps.append(labels)
    return maps


def wrapped(maps: Iterable[np.ndarray]) -> list[Truth]:
    return [Truth(labels) for labels in maps]


def label_maps(prediction: Prediction, size: int) -> np.ndarray:
    assert prediction.masks is not None
    adapter = Discovery()
    adapter.check(prediction, len(prediction.masks), "floor")
    return np.stack(adapter.outputs(prediction, [(size, size)] * len(prediction.masks)))


def clear_tokens(seed: int = 0, height: int = 8, width: int = 6) -> tuple[torch.Tensor, np.ndarray]:
    """Tokens (16, h, w) of three orthogonal directions, scaled and slightly disturbed, and their true labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.zeros(height, width, dtype=torch.int64)
    labels[2:5, 1:3] = 1
    labels[5:, 3:] = 2
    directions = torch.eye(16)[[seed % 16, (seed + 3) % 16, (seed + 7) % 16]]
    lengths = 1 + 9 * torch.rand(height, width, 1, generator=generator)
    tokens = lengths * (directions[labels] + 0.03 * torch.randn(height, width, 16, generator=generator))
    return tokens.permute(2, 0, 1).contiguous(), labels.numpy()


def encoder_for(batch: Batch) -> ConstantEncoder:
    return ConstantEncoder({name: clear_tokens(i)[0] for i, name in enumerate(batch.ids)})


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    pairs = set(zip(a.ravel().tolist(), b.ravel().tolist(), strict=True))
    return len(pairs) == len({p for p, _ in pairs}) == len({q for _, q in pairs})


def random_tokens(batch: Batch) -> ConstantEncoder:
    generator = torch.Generator().manual_seed(3)
    return ConstantEncoder({name: torch.randn(33, 7, 5, generator=generator) for name in batch.ids})


def blind_and_clustering(batch: Batch) -> dict[str, Any]:
    encoder = random_tokens(batch)
    return {
        "single-slot": floors.build_single_slot(),
        "grid": floors.build_grid(),
        "random": floors.build_random(),
        "kmeans": clustering.build_kmeans(),
        "kmeans-features": clustering.build_kmeans_features(encoder),
        "fps-features": clustering.build_fps_features(encoder),
    }


# ---- ceilings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("background", [0, None])
def test_the_oracle_is_best_on_every_metric(background: int | None) -> None:
    truth = discs()
    labels = label_maps(floors.build_oracle().predict(make_batch(), wrapped(truth)), 96)
    scores = compute(NO_CATEGORIES, np.stack(truth), labels, background=background)
    for name in set(NO_CATEGORIES) - {"ari_int64_legacy"}:
        value, valid = scores[name]
        assert valid.any(), name
        np.testing.assert_allclose(value[valid], METRICS[name].best, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("void", ["drop", "count"])
def test_void_and_overlap_pixels_do_not_spoil_the_oracle(void: Any) -> None:
    truth = discs()
    for labels in truth:
        labels[30:40, 20:60] = -1
        labels[10:14] = -2
    predicted = label_maps(floors.build_oracle().predict(make_batch(), wrapped(truth)), 96)
    scores = compute(["mbo_fg", "miou_fg", "ari"], np.stack(truth), predicted, void=void)
    for value, valid in scores.values():
        assert valid.all()
        np.testing.assert_allclose(value, 1.0, atol=1e-12)


def test_the_oracle_survives_images_of_different_sizes() -> None:
    generator = np.random.default_rng(0)
    shapes = [(31, 47), (53, 20), (40, 40), (7, 53)]
    truth = [generator.integers(0, 6, shape).astype(np.int16) for shape in shapes]
    prediction = floors.build_oracle().predict(make_batch(4), wrapped(truth))
    for labels, back in zip(truth, Discovery().outputs(prediction, shapes), strict=True):
        np.testing.assert_array_equal(labels, back)


def test_the_patch_oracle_is_high_but_below_the_oracle() -> None:
    truth = discs()
    prediction = floors.build_patch_oracle().predict(make_batch(), wrapped(truth))
    assert prediction.masks is not None and prediction.masks.shape == (5, 6, 16, 16)
    scores = compute(["mbo_fg", "ari", "miou_fg"], np.stack(truth), label_maps(prediction, 96))
    for name, (value, _) in scores.items():
        assert 0.8 <= value.mean() < 1.0, name


def test_the_patch_oracle_is_exact_when_a_cell_is_a_pixel() -> None:
    truth = discs(size=24)
    prediction = floors.build_patch_oracle(grid=24).predict(make_batch(), wrapped(truth))
    np.testing.assert_array_equal(label_maps(prediction, 24), np.stack(truth))


def test_patch_oracle_masks_are_shares_of_cells() -> None:
    labels = np.full((4, 4), -1, np.int16)
    labels[:2, :2] = [[0, 0], [7, 0]]
    masks = floors.build_patch_oracle(grid=2).predict(make_batch(1), wrapped([labels])).masks
    assert masks is not None
    np.testing.assert_allclose(masks[0].numpy(), [[[0.75, 0], [0, 0]], [[0.25, 0], [0, 0]]])


def test_ceilings_name_a_wrong_truth() -> None:
    with pytest.raises(UsageError, match="1 label maps for a batch of 5"):
        floors.build_oracle().predict(make_batch(), wrapped(discs(1)))
    with pytest.raises(UsageError, match=r"scene-0.*float"):
        floors.build_patch_oracle().predict(make_batch(1), wrapped([np.zeros((4, 4))]))


# ---- floors that look at nothing ---------------------------------------------------------------------------------


def test_single_slot_has_no_agreement_beyond_chance() -> None:
    labels = label_maps(floors.build_single_slot().predict(make_batch()), 96)
    scores = compute(["ari", "fg_ari"], np.stack(discs()), labels)
    for value, valid in scores.values():
        assert valid.all() and (value == 0).all()


def test_grid_labels() -> None:
    masks = floors.build_grid(rows=2, columns=3).predict(make_batch(2, size=7)).masks
    assert masks is not None
    expected = [[0, 0, 0, 1, 1, 2, 2]] * 4 + [[3, 3, 3, 4, 4, 5, 5]] * 3
    np.testing.assert_array_equal(masks.numpy(), [expected, expected])


def test_random_labels_are_uniform_and_follow_the_noise_seed() -> None:
    batch = make_batch(8, size=64)
    model = floors.build_random(slots=11)
    first = model.predict(batch).masks
    assert first is not None
    shares = np.bincount(first.flatten().numpy(), minlength=11) / first.numel()
    assert len(shares) == 11 and np.abs(shares - 1 / 11).max() < 0.006
    other = model.predict(Batch(ids=batch.ids, image=batch.image, noise_seed=1)).masks
    assert other is not None and (first != other).float().mean() > 0.8
    scores = compute(["ari"], np.stack(discs(8, size=64)), first.numpy())
    assert np.abs(scores["ari"][0]).max() < 0.02


# ---- floors that cluster -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [32, 64])
def test_kmeans_separates_two_flat_colours_exactly(size: int) -> None:
    truth = np.zeros((size, size), np.int16)
    truth[size // 4 : size // 2, size // 8 : size // 2] = 1
    image = torch.tensor([[0.2, 0.3, 0.9], [0.8, 0.3, 0.1]])[torch.from_numpy(truth).long()].permute(2, 0, 1)
    batch = Batch(ids=("a", "b"), image=image.expand(2, 3, size, size))
    model = clustering.build_kmeans(clusters=2, blur=0, position=0)
    for labels in label_maps(model.predict(batch), size):
        assert same_partition(truth, labels)


def test_kmeans_follows_colour_and_position() -> None:
    flat = Batch(ids=("flat",), image=torch.full((1, 3, 64, 64), 0.5))
    labels = label_maps(clustering.build_kmeans(clusters=4, restarts=5).predict(flat), 64)[0]
    areas = np.bincount(labels.ravel(), minlength=4)
    assert areas.min() > 0.15 * 64 * 64, "without colour the clusters are compact regions of similar size"


def test_kmeans_is_the_kmeans_of_scipy() -> None:
    generator = np.random.default_rng(0)
    points = generator.normal(size=(300, 5)) + 3 * generator.integers(0, 3, (300, 1))
    seeds = points[:6].copy()
    expected, _ = kmeans2(points, seeds, iter=100, minit="matrix")
    np.testing.assert_allclose(clustering._lloyd(points, seeds, 100), expected, atol=1e-9)


def test_more_restarts_never_raise_the_inertia() -> None:
    points = np.random.default_rng(1).normal(size=(200, 3))

    def inertia(restarts: int) -> float:
        centres = clustering._kmeans(9, restarts, 30)(points, np.random.default_rng(5))
        return float(((points[:, None] - centres) ** 2).sum(-1).min(1).sum())

    assert inertia(10) <= inertia(3) <= inertia(1)
    assert inertia(10) < inertia(1)


@pytest.mark.parametrize("build", [clustering.build_kmeans_features, clustering.build_fps_features])
def test_clear_tokens_are_separated_exactly(build: Any) -> None:
    batch = make_batch(12)
    model = build(encoder_for(batch), clusters=3)
    prediction = model.predict(batch)
    assert prediction.masks is not None and prediction.masks.shape == (12, 3, 8, 6)
    assert prediction.mask_source == "clusters" and prediction.tokens is not None
    torch.testing.assert_close(prediction.masks.sum(1), torch.ones(12, 8, 6))
    for i, masks in enumerate(prediction.masks):
        assert same_partition(clear_tokens(i)[1], masks.argmax(0).numpy())


def test_farthest_points_start_at_the_mean_and_take_the_outlier_next() -> None:
    points = np.array([[0.0, 0], [1, 0], [2, 0], [3, 0], [12, 0], [0, 9]])
    centres = clustering._farthest_points(3)(points, np.random.default_rng(0))
    np.testing.assert_array_equal(centres, [[3, 0], [0, 9], [12, 0]])


def test_positions_split_equal_tokens() -> None:
    encoder = ConstantEncoder({"a": torch.ones(4, 6, 6)})
    batch = make_batch(1)
    batch = Batch(ids=("a",), image=batch.image)
    without = clustering.build_kmeans_features(encoder, clusters=2).predict(batch).masks
    with_xy = clustering.build_kmeans_features(encoder, clusters=2, position=1.0).predict(batch).masks
    assert without is not None and with_xy is not None
    assert without.argmax(1).unique().tolist() == [0], "nothing distinguishes equal tokens"
    assert with_xy.argmax(1).flatten().bincount().min() >= 9


@pytest.mark.parametrize("clusters", [1, 40])
@pytest.mark.parametrize("build", [clustering.build_kmeans_features, clustering.build_fps_features])
def test_any_number_of_clusters_gives_that_many_finite_masks(build: Any, clusters: int) -> None:
    batch = make_batch(3)
    masks = build(encoder_for(batch), clusters=clusters).predict(batch).masks
    assert masks is not None and masks.shape == (3, clusters, 8, 6) and torch.isfinite(masks).all()


def test_a_flat_image_is_no_error() -> None:
    flat = Batch(ids=("black",), image=torch.zeros(1, 3, 32, 32))
    masks = clustering.build_kmeans(position=0).predict(flat).masks
    assert masks is not None and masks.shape == (1, 11, 32, 32) and torch.isfinite(masks).all()


# ---- where the tokens come from ----------------------------------------------------------------------------------


def test_tokens_of_a_prediction_serve_where_encode_is_missing() -> None:
    batch = make_batch(2)
    encoder = encoder_for(batch)
    other = SimpleNamespace(predict=lambda b: Prediction(tokens=encoder.encode(b)))
    first = clustering.build_kmeans_features(encoder, clusters=3).predict(batch).masks
    second = clustering.build_kmeans_features(other, clusters=3).predict(batch).masks
    assert first is not None and second is not None and torch.equal(first, second)


def test_the_floor_inherits_what_its_encoder_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    floor = clustering.build_fps_features(encoder_for(make_batch()))
    assert (floor.supervision, floor.input_size, list(floor.parameters())) == ("boxes", 96, [])
    layer = torch.nn.Linear(3, 4)
    layer.encode = lambda batch: torch.zeros(len(batch), 4, 2, 2)  # type: ignore[assignment]
    card = load_model_card(CARDS / "kmeans.yaml").model_copy(update={"supervision": "masks", "input": 112})
    loaded = SimpleNamespace(model=layer, card=card, checkpoint_sha256="ab" * 32)
    asked: list[str] = []
    monkeypatch.setattr(clustering, "get_model", lambda name, options: asked.append(name) or loaded)
    floor = clustering.build_fps_features("somebody")
    assert asked == ["somebody"]
    assert (floor.supervision, floor.input_size, floor.checkpoint_sha256) == ("masks", 112, "ab" * 32)
    assert sum(p.numel() for p in floor.parameters()) == 16
    assert floor.to("cpu") is floor


def test_encoders_without_tokens_are_named() -> None:
    with pytest.raises(UsageError, match="neither encode"):
        clustering.build_kmeans_features(object())
    with pytest.raises(UsageError, match=r"Grid.*NoneType.*encode\(batch\)"):
        clustering.build_kmeans_features(floors.build_grid()).predict(make_batch(1))
    flat = SimpleNamespace(encode=lambda batch: torch.zeros(len(batch), 9))
    with pytest.raises(UsageError, match=r"\(1, 9\)"):
        clustering.build_fps_features(flat).predict(make_batch(1))


def test_tokens_that_are_not_finite_name_their_sample() -> None:
    batch = make_batch(3)
    encoder = encoder_for(batch)
    encoder.tokens["scene-1"][0, 0, 0] = float("nan")
    with pytest.raises(SampleError, match=r"scene-1.*not finite"):
        clustering.build_kmeans_features(encoder).predict(batch)


# ---- every one of them -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["single-slot", "grid", "random", "kmeans", "kmeans-features", "fps-features"])
def test_a_mask_depends_on_its_own_image_only(name: str) -> None:
    batch = make_batch(7)
    model = blind_and_clustering(batch)[name]
    whole = model.predict(batch).masks
    for order in ([6, 2, 0, 5, 1, 4, 3], [3], [5, 2], [4, 4, 1]):
        part = model.predict(pick(batch, order)).masks
        assert part.dtype == whole.dtype and torch.equal(part, whole[order]), f"{name} in order {order}"


def test_a_ceiling_mask_depends_on_its_own_truth_only() -> None:
    batch, truth = make_batch(), discs()
    for model in (floors.build_oracle(), floors.build_patch_oracle()):
        whole = label_maps(model.predict(batch, wrapped(truth)), 96)
        for order in ([4, 2, 0, 1, 3], [1], [2, 0]):
            part = label_maps(model.predict(pick(batch, order), wrapped(truth[i] for i in order)), 96)
            np.testing.assert_array_equal(part, whole[order])


def test_the_noise_seed_changes_only_what_is_random() -> None:
    batch = make_batch(4)
    other = Batch(ids=batch.ids, image=batch.image, noise_seed=1)
    for name, model in blind_and_clustering(batch).items():
        changed = not torch.equal(model.predict(batch).masks, model.predict(other).masks)
        assert changed == (name in {"random", "kmeans", "kmeans-features"}), name


@pytest.mark.parametrize(
    ("build", "option"),
    [
        (floors.build_grid, {"rows": 0}),
        (floors.build_random, {"slots": 2.5}),
        (floors.build_patch_oracle, {"grid": True}),
        (clustering.build_kmeans, {"clusters": -1}),
        (clustering.build_kmeans, {"blur": -0.5}),
        (clustering.build_kmeans, {"temperature": 0}),
        (clustering.build_kmeans, {"position": float("nan")}),
    ],
)
def test_an_option_out_of_range_is_named(build: Any, option: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"option '{next(iter(option))}'"):
        build(**option)


@pytest.mark.parametrize("name", FLOOR_CARDS)
def test_cards(name: str) -> None:
    card = load_model_card(Path(CARDS / f"{name}.yaml"))
    ceiling = name.endswith("oracle")
    assert (card.name, card.role) == (name, "ceiling" if ceiling else "floor")
    assert card.privilege == ("truth" if ceiling else "none")
    if not name.endswith("features"):
        loaded = get_model(name)
        assert loaded.needs_truth == ceiling and loaded.parameters == 0


# ---- slots -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [clustering.build_kmeans_features, clustering.build_fps_features])
def test_slots_are_the_mean_tokens_of_their_masks(build: Any) -> None:
    batch = make_batch()
    prediction = build(encoder_for(batch), clusters=3, temperature=0.001).predict(batch)
    assert prediction.slots is not None and prediction.masks is not None
    assert prediction.slots.shape == (5, 3, 16) and prediction.slots.dtype == torch.float32
    for image in range(5):
        tokens, masks = clear_tokens(image)[0].double(), prediction.masks[image].double()
        for k in range(3):
            mean = (tokens * masks[k]).sum((1, 2)) / masks[k].sum()
            assert torch.allclose(prediction.slots[image, k].double(), mean, atol=1e-5)
        labels = masks.argmax(0)
        hard = torch.stack([tokens[:, labels == k].mean(1) for k in range(3)])
        assert torch.allclose(prediction.slots[image].double(), hard, atol=0.1)  # masks this sharp are nearly labels


def test_a_mask_that_is_zero_everywhere_has_a_zero_slot() -> None:
    masks = torch.stack([torch.ones(2, 3), torch.zeros(2, 3)])
    slots = clustering.weighted_means(torch.arange(24.0).reshape(4, 2, 3), masks)
    assert slots.tolist() == [[2.5, 8.5, 14.5, 20.5], [0, 0, 0, 0]]


def test_a_shrunk_image_is_compared_by_the_distance_of_its_pixels() -> None:
    images = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    embedding = build_shrunk_image().predict(Batch(tuple("abcdef"), images)).embedding
    assert embedding is not None and embedding.shape == (6, 49)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(6))
    pixels = images.unflatten(3, (4, 8)).unflatten(2, (4, 8)).mean((3, 5)).flatten(1)
    distances = torch.cdist(pixels, pixels) / (0.5 * 48**0.5)
    torch.testing.assert_close(embedding @ embedding.T, 1 - distances.square() / 2, atol=1e-3, rtol=0)
    flat = torch.tensor([1, 0.5]).view(2, 1, 1, 1).expand(2, 3, 8, 8)
    colours = build_shrunk_image(side=1).predict(Batch(("white", "grey"), flat))
    expected = torch.tensor([[3**-0.5] * 3 + [0], [0, 0, 0, 1]])
    torch.testing.assert_close(colours.embedding, expected, atol=1e-3, rtol=0)
    with pytest.raises(UsageError, match="option 'side': 0 is not an integer"):
        build_shrunk_image(side=0)

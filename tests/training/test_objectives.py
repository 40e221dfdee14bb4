"""Views, token pairs and losses of the encoder; batches of the slot models."""

import math

import pytest
import torch
import torch.nn.functional as F
from tiny_training import tiny_colours, tiny_model, tiny_objective, tiny_scenes

from ocl_bench.core.types import Batch
from ocl_bench.models.clustering import build_fps_features, token_segments
from ocl_bench.models.dias import build as build_dias
from ocl_bench.training.data import ChunkedArray, object_boxes
from ocl_bench.training.dias_objective import SlotObjective, SlotOptions
from ocl_bench.training.encoder_objectives import (
    EncoderOptions,
    boxes_loss,
    draw_box_pairs,
    draw_neighbours,
    info_nce,
    neighbour_loss,
    token_labels,
)
from ocl_bench.training.views import Geometry, draw_geometry, draw_photometry, photometric_view, shared_geometry


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=source(seed)), dim=-1)


def test_info_nce_against_its_definition():
    anchors, candidates = unit(3, 4, seed=1), unit(5, 4, seed=2)
    positive = torch.tensor([0, 4, 2])
    excluded = torch.rand(3, 5, generator=source()) < 0.4
    terms = []
    for i in range(3):
        similarity = [math.exp(float(anchors[i] @ candidates[j]) / 0.2) for j in range(5)]
        kept = sum(s for j, s in enumerate(similarity) if j == positive[i] or not excluded[i, j])
        terms.append(-math.log(similarity[positive[i]] / kept))
    loss = info_nce(anchors, candidates, positive, excluded, 0.2)
    assert float(loss) == pytest.approx(sum(terms) / 3, rel=1e-5)


@pytest.mark.parametrize("compare", [neighbour_loss, boxes_loss])
def test_tokens_of_the_own_image_or_box_are_no_negatives(compare):
    anchors, candidates, key = unit(4, 8), unit(4, 8, seed=1), torch.tensor([0, 0, 1, 1])
    positive = torch.arange(4)

    def first_loss(changed):
        other = candidates.clone()
        other[changed] = unit(8, seed=9)
        return float(compare(anchors[:1], other, positive[:1], key[:1], key, 0.1))

    unchanged = float(compare(anchors[:1], candidates, positive[:1], key[:1], key, 0.1))
    assert first_loss(1) == unchanged  # of the same image or box
    assert first_loss(0) != unchanged  # the positive
    assert first_loss(2) != unchanged  # a negative


def test_neighbours_are_near_and_cover_the_window():
    anchor, positive = draw_neighbours(64, 8, 40, 2, source())
    rows, columns = (anchor // 8 - positive // 8).abs(), (anchor % 8 - positive % 8).abs()
    distance = torch.maximum(rows, columns)
    assert distance.min() == 1 and distance.max() == 2
    assert anchor.unique().numel() == positive.unique().numel() == 64


def test_box_pairs_share_a_label_and_balance_evens_out_boxes():
    labels = torch.zeros(1, 100, dtype=torch.int64)
    labels[0, :5], labels[0, 5:10], labels[0, 10:20] = 1, 2, -1
    for balance, share in ((0.0, 80 / 90), (1.0, 1 / 3)):
        anchor, positive = draw_box_pairs(labels, 3000, balance, source())
        picked = labels[0][anchor[0]]
        assert (picked == labels[0][positive[0]]).all() and (picked >= 0).all()
        assert float((picked == 0).float().mean()) == pytest.approx(share, abs=0.03)
        assert (anchor != positive).all()
    alone = torch.tensor([[0, 0, 1, -1]])
    anchor, positive = draw_box_pairs(alone, 50, 0.0, source())
    assert ((anchor == positive) == (anchor == 2)).all() and (anchor == 2).any()


def test_token_labels_follow_the_crop_and_flip_of_the_views():
    scenes = tiny_scenes()
    geometry = draw_geometry(6, 0.6, True, source(3))
    assert geometry.flip.any() and not geometry.flip.all()
    labels = scenes.labels[range(6)]
    found = token_labels(object_boxes(labels, 16) / 128, geometry, 16).view(6, 16, 16)
    # the rectangles of these scenes fill their boxes, so the transformed label map is the oracle
    moved = shared_geometry(labels.unsqueeze(1).float().expand(-1, 3, -1, -1), geometry)[:, 0, 4::8, 4::8]
    clear = (moved - moved.round()).abs() < 1e-3
    assert clear.float().mean() > 0.8
    assert (found == moved.round().long())[clear].float().mean() > 0.99


def test_tokens_in_two_boxes_are_marked():
    boxes = torch.full((1, 3, 4), float("nan"))
    boxes[0, 0], boxes[0, 2] = torch.tensor([0.0, 0.0, 0.5, 1.0]), torch.tensor([0.25, 0.0, 1.0, 0.5])
    whole = Geometry(torch.zeros(1), torch.zeros(1), torch.ones(1), torch.zeros(1, dtype=torch.bool))
    assert token_labels(boxes, whole, 4).view(4, 4).tolist() == [[1, -1, 3, 3]] * 2 + [[1, 1, 0, 0]] * 2


def test_views_without_strength_change_nothing():
    image = torch.rand(2, 3, 32, 32, generator=source())
    torch.testing.assert_close(shared_geometry(image, draw_geometry(2, 1.0, False, source())), image)
    torch.testing.assert_close(photometric_view(image, draw_photometry(2, 0.0, 0.0, source())), image)


def test_views_differ_stay_in_range_and_a_flip_is_a_mirror():
    image = torch.rand(3, 3, 32, 32, generator=source())
    views = [photometric_view(image, draw_photometry(3, 0.4, 0.1, source(seed))) for seed in (0, 1)]
    assert (views[0] - views[1]).abs().mean() > 0.01
    assert all(view.min() >= 0 and view.max() <= 1 for view in views)
    geometry = Geometry(torch.zeros(3), torch.zeros(3), torch.ones(3), torch.tensor([True, False, True]))
    mirrored = torch.where(geometry.flip.view(3, 1, 1, 1), image.flip(-1), image)
    torch.testing.assert_close(shared_geometry(image, geometry), mirrored, atol=1e-5, rtol=0)


@pytest.mark.parametrize("views", [1, 2])
def test_one_view_is_compared_with_itself(views):
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, image):
            seen.append(image)
            return image[:, :, ::8, ::8]

    objective = tiny_objective(views=views)
    objective.loss(Spy(), objective.batch(0), 0.0)
    (image,) = seen
    assert len(image) == 4 * views
    if views == 2:
        assert (image[:4] - image[4:]).abs().mean() > 0.01


@pytest.mark.parametrize("kind", ["neighbour", "boxes", "segments"])
def test_encoder_batches_are_pure_functions_of_seed_and_step(kind):
    first, again = tiny_objective(kind), tiny_objective(kind)
    first.batch(2)
    for name, value in first.batch(3).items():
        assert torch.equal(value, again.batch(3)[name])
    assert not torch.equal(first.batch(3)["anchor"], first.batch(4)["anchor"])
    again.seed = 1
    assert not torch.equal(first.batch(3)["image"], again.batch(3)["image"])


@pytest.mark.parametrize("kind", ["neighbour", "segments"])
def test_only_the_boxes_objective_reads_labels(kind):
    class Forbidden:
        def __getitem__(self, indices):
            raise AssertionError("labels were read")

    objective = tiny_objective(kind)
    object.__setattr__(objective.scenes, "labels", Forbidden())
    objective.loss(tiny_model(), objective.batch(0), 0.0)["total"].backward()


def test_token_segments_are_the_clusters_of_the_floor():
    encoder, image = tiny_model(), torch.rand(1, 3, 32, 48, generator=source())
    masks = build_fps_features(encoder, clusters=4).predict(Batch(("a",), image)).masks
    segments = token_segments(encoder(image).detach()[0].flatten(1).T, 4)
    assert torch.equal(segments, masks[0].flatten(1).argmax(0)) and segments.unique().numel() == 4


def test_pairs_of_a_segment_come_from_one_cluster_also_in_mirrored_images():
    objective = tiny_objective("segments", batch=8)
    batch = objective.batch(0)
    flipped = Geometry.unstack(batch["geometry"]).flip.bool()
    assert 0 < flipped.sum() < 8
    views = batch["image"].float() / 255
    views = torch.where(flipped.view(-1, 1, 1, 1), views.flip(3), views)
    for row, anchor, positive, group in zip(views, batch["anchor"], batch["positive"], batch["group"], strict=True):
        segments = token_segments(tiny_colours(row[None])[0].flatten(1).T, objective.options.clusters)
        assert torch.equal(segments[anchor], segments[positive])
        # A mirrored image has the same clusters under other numbers.
        assert len(set(zip(segments[anchor].tolist(), group.tolist(), strict=True))) == group.unique().numel()


def test_segments_need_an_encoder_and_whole_images():
    for wrong in ({"encoder": ""}, {"zoom": 0.5}, {"kind": "boxes"}):
        with pytest.raises(ValueError, match=r"segments.*encoder"):
            EncoderOptions(**{"kind": "segments", "encoder": "encoder", "zoom": 1.0, **wrong})


def slot_objective(distill_peak=1.0, merge_probability=0.5, seed=0):
    features = torch.randn(10, 16, 8, generator=source()).half().numpy()
    options = SlotOptions(kind="slots", distill_peak=distill_peak)
    arrays = ChunkedArray((features,), 10), ChunkedArray((-features,), 10)
    return SlotObjective(*arrays, options, seed, 6, 3, 8, merge_probability, lambda model: {})


def small_dias():
    torch.manual_seed(0)
    options = {"dim": 8, "width": 8, "blocks": [1], "input_size": 32, "slots": 3, "slot_dim": 8, "decoder_heads": 2}
    return build_dias(**options, decoder_layers=1, merge_threshold=0.1)


def test_slot_batches_are_pure_mirrored_half_the_time_and_merge_by_their_coin():
    objective = slot_objective()
    batches = [objective.batch(step) for step in range(40)]
    for name, value in objective.batch(7).items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(batches[7][name]))
    plain = torch.from_numpy(objective.features.chunks[0])
    signs = [bool((plain == row).all((1, 2)).any()) for batch in batches for row in batch["features"]]
    assert 0.35 < sum(signs) / len(signs) < 0.65
    assert 8 < sum(batch["merge"] for batch in batches) < 32
    assert batches[0]["noise"].shape == (6, 3, 8) and batches[0]["visible"].shape == (6, 16)


def test_distillation_weight_rises_from_zero_to_its_peak():
    objective, model = slot_objective(distill_peak=0.5), small_dias()
    inputs = objective.batch(0)
    for fraction, weight in ((0.0, 0.0), (0.5, 0.25), (1.0, 0.5)):
        terms = objective.loss(model, inputs, fraction)
        assert float(terms["total"].detach()) == pytest.approx(
            float(terms["reconstruction"] + weight * terms["distillation"]), rel=1e-5
        )


def test_merging_in_training_follows_the_batch():
    objective, model = slot_objective(), small_dias()
    coins = []
    model.loss = lambda features, *, merge_coin, **rest: coins.append(merge_coin < model.merge_probability)
    batch = objective.batch(0)
    for merge in (True, False):
        objective.loss(model, {**batch, "merge": merge}, 0.0)
    assert coins[0] and (not coins[1])


def test_slot_training_leaves_the_encoder_without_gradient():
    objective, model = slot_objective(), small_dias()
    objective.loss(model, objective.batch(0), 0.5)["total"].backward()
    assert all(parameter.grad is None for parameter in model.encoder.parameters())
    assert any(parameter.grad is not None for parameter in model.aggregation.parameters())

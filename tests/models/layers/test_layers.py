"""The building blocks against official code (parity files), transformers and timm, and against their own promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ocl_bench.core.errors import UsageError
from ocl_bench.core.types import Batch
from ocl_bench.models.encoder import Encoder
from ocl_bench.models.layers.decoders import BroadcastDecoder, RandomMaskDecoder, random_visible
from ocl_bench.models.layers.initialisation import SharedGaussian, zero_biases
from ocl_bench.models.layers.merging import merge_clip, merge_slots
from ocl_bench.models.layers.places import PLACE, places
from ocl_bench.models.layers.slot_attention import SlotAttention
from ocl_bench.models.layers.vit import VisionTransformer

# --- vision transformer ---------------------------------------------------------------------------------------------


def tiny_vit(**changes: object) -> VisionTransformer:
    options: dict = dict(grid=4, patch=7, dim=24, depth=3, heads=4, registers=2, layer_scale=1.0)
    return VisionTransformer(**(options | changes))


def dinov2_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names of transformers' Dinov2WithRegisters -> ours; query, key and value become one matrix."""
    names = {
        "embeddings.cls_token": "cls_token",
        "embeddings.register_tokens": "reg_token",
        "embeddings.position_embeddings": "pos_embed",
        "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
        "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
        "layernorm.weight": "norm.weight",
        "layernorm.bias": "norm.bias",
    }
    ours = {new: state[old] for old, new in names.items()}
    # transformers 5 names first, then those of 4.45
    parts = {
        "norm1": ("norm1",),
        "norm2": ("norm2",),
        "attn.proj": ("attention.o_proj", "attention.output.dense"),
        "mlp.fc1": ("mlp.fc1",),
        "mlp.fc2": ("mlp.fc2",),
    }
    qkv = [(f"attention.{name[0]}_proj", f"attention.attention.{name}") for name in ("query", "key", "value")]
    for block in range(3):
        prefix = f"encoder.layer.{block}."
        for kind in ("weight", "bias"):

            def find(*names: str, prefix: str = prefix, kind: str = kind) -> torch.Tensor:
                return next(state[key] for name in names if (key := f"{prefix}{name}.{kind}") in state)

            for new, old in parts.items():
                ours[f"blocks.{block}.{new}.{kind}"] = find(*old)
            ours[f"blocks.{block}.attn.qkv.{kind}"] = torch.cat([find(*names_of_one) for names_of_one in qkv])
        for index in (1, 2):
            ours[f"blocks.{block}.ls{index}.gamma"] = state[f"{prefix}layer_scale{index}.lambda1"]
    return ours


def test_vit_equals_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2WithRegistersConfig(
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=28,
        patch_size=7,
        num_register_tokens=2,
        layerscale_value=1.0,
    )
    torch.manual_seed(0)
    theirs = transformers.Dinov2WithRegistersModel(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    ours = tiny_vit()
    ours.load_state_dict(dinov2_names(theirs.state_dict()), strict=True)
    image = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image).last_hidden_state, rtol=1e-5, atol=1e-5)
        ours.norm = torch.nn.Identity()
        raw = theirs(image, output_hidden_states=True).hidden_states[-1]
        torch.testing.assert_close(ours(image), raw, rtol=1e-5, atol=1e-5)


def test_vit_takes_other_grids_and_keeps_row_major_order() -> None:
    vit = tiny_vit(class_position=False, final_norm=False, layer_scale=None, depth=1)
    image = torch.randn(1, 3, 35, 14)
    tokens = vit(image)
    assert tokens.shape == (1, 3 + 10, 24)
    torch.testing.assert_close(vit.patch_grid(image)[0, :, 3, 1], tokens[0, 3 + 3 * 2 + 1])


# --- slot attention and initialisation: properties (parity with the official code is in test_dias) ------------------


def test_slot_attention_is_equivariant_to_the_order_of_slots_and_blind_to_that_of_tokens() -> None:
    torch.manual_seed(0)
    layer = SlotAttention(12, 8).double()
    inputs, slots = torch.randn(2, 20, 12).double(), torch.randn(2, 5, 8).double()
    result, maps = layer(inputs, slots)
    order, shuffle = torch.randperm(5), torch.randperm(20)
    permuted, permuted_maps = layer(inputs[:, shuffle], slots[:, order])
    torch.testing.assert_close(permuted, result[:, order])
    torch.testing.assert_close(permuted_maps[2], maps[2][:, order][:, :, shuffle])
    assert len(maps) == 3
    torch.testing.assert_close(maps[0].sum(1), torch.ones(2, 20).double())


def test_masked_slot_is_as_good_as_absent() -> None:
    torch.manual_seed(0)
    layer = SlotAttention(12, 8).double()
    inputs, slots = torch.randn(2, 20, 12).double(), torch.randn(2, 5, 8).double()
    mask = torch.tensor([True, True, False, True, True]).expand(2, 5)
    result, maps = layer(inputs, slots, mask)
    without, _ = layer(inputs, slots[:, mask[0]])
    torch.testing.assert_close(result[:, mask[0]], without)
    assert all((m[:, 2] == 0).all() for m in maps)


def test_initialisation_is_the_official_one() -> None:
    torch.manual_seed(0)
    gaussian, layer = SharedGaussian(256), SlotAttention(12, 8)
    limit = (6 / 512) ** 0.5
    for parameter in (gaussian.mean, gaussian.log_std):
        assert parameter.abs().max() <= limit
        assert parameter.abs().max() > 0.95 * limit
    zero_biases(layer)
    assert layer.gru.bias_hh.abs().max() == layer.gru.bias_ih.abs().max() == layer.mlp[0].bias.abs().max() == 0
    assert layer.mlp[0].weight.abs().max() > 0


# --- merging --------------------------------------------------------------------------------------------------------


def directions(*degrees: float) -> torch.Tensor:
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([angle.cos(), angle.sin()], dim=1).unsqueeze(0)


def test_merging_averages_clusters_at_their_first_member() -> None:
    slots = directions(0, 90, 4, 180) * torch.tensor([1.0, 1.0, 3.0, 1.0]).view(1, 4, 1)
    merged = merge_slots(slots, threshold=0.01)
    assert merged.mask.tolist() == [[True, True, False, True]]
    torch.testing.assert_close(merged.slots[0, 0], (slots[0, 0] + slots[0, 2]) / 2)
    torch.testing.assert_close(merged.slots[0, [1, 3]], slots[0, [1, 3]])
    assert (merged.slots[0, 2] == 0).all()
    assert merged.members.tolist() == [[[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]]


def test_merging_is_complete_linkage() -> None:
    # A chain: neighbours are close, its ends are not. Single linkage would make one cluster of it.
    slots = directions(0, 20, 40, 150, 250)
    threshold = 1 - np.cos(np.deg2rad(30))
    assert merge_slots(slots, threshold).mask.sum() == 4
    # A cluster exactly at the threshold is not merged.
    near = 1 - float((directions(0)[0, 0] * directions(60)[0, 0]).sum())
    assert merge_slots(directions(0, 60, 150, 250), near).mask.all()
    assert merge_slots(directions(0, 60, 150, 250), near + 1e-9).mask.sum() == 3


@pytest.mark.parametrize("angles", [(0, 1, 90, 91), (0, 1, 2, 3), (5,), (0, 1)])
def test_merging_never_leaves_two_or_fewer(angles: tuple[float, ...]) -> None:
    slots = directions(*angles)
    merged = merge_slots(slots, threshold=0.1)
    assert merged.mask.all()
    assert torch.equal(merged.slots, slots)


def test_merging_agrees_with_scikit_learn() -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    slots = torch.from_numpy(np.random.default_rng(0).normal(size=(20, 9, 3)))
    mask = merge_slots(slots, threshold=0.4).mask
    unit = torch.nn.functional.normalize(slots, dim=-1)
    for sample, kept in zip(unit, mask, strict=True):
        oracle = cluster.AgglomerativeClustering(
            n_clusters=None, metric="precomputed", linkage="complete", distance_threshold=0.4
        )
        labels = oracle.fit((1 - sample @ sample.T).numpy()).labels_
        first = [k == list(labels).index(labels[k]) for k in range(9)]
        assert kept.tolist() == (first if max(labels) >= 2 else [True] * 9)
    assert (~mask).any()


def test_merging_passes_gradients_to_all_members() -> None:
    slots = directions(0, 90, 4, 180).requires_grad_()
    merge_slots(slots, 0.01).slots[0, 0].sum().backward()
    assert slots.grad is not None
    assert slots.grad[0, [0, 2]].tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert (slots.grad[0, [1, 3]] == 0).all()


def test_slots_of_a_clip_merge_by_their_cosine_averaged_over_the_frames() -> None:
    """Slots 0 and 2 are apart in one frame of two, but near on average; slot 1 comes near them in one frame only."""
    near, far = directions(0, 90, 10, 180, 270), directions(0, 50, 40, 180, 270)
    slots = torch.stack([near, far], dim=1)  # (1, 2, 5, 2)
    masks = torch.rand(1, 2, 5, 3, 4, generator=torch.Generator().manual_seed(0))
    cosine = (np.cos(np.deg2rad(10)) + np.cos(np.deg2rad(40))) / 2
    for threshold, together in ((1 - cosine + 1e-6, True), (1 - cosine - 1e-6, False)):
        merged, regions = merge_clip(slots, masks, threshold)
        if together:
            torch.testing.assert_close(merged[:, :, 0], (slots[:, :, 0] + slots[:, :, 2]) / 2)
            torch.testing.assert_close(regions[:, :, 0], masks[:, :, 0] + masks[:, :, 2])
            assert not merged[:, :, 2].any() and not regions[:, :, 2].any()
            torch.testing.assert_close(regions[:, :, [1, 3, 4]], masks[:, :, [1, 3, 4]])
        else:
            torch.testing.assert_close(merged, slots)
            torch.testing.assert_close(regions, masks)


# --- decoders -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [RandomMaskDecoder, BroadcastDecoder])
def test_decoders_ignore_masked_slots(kind: type) -> None:
    torch.manual_seed(0)
    decoder = kind(dim=8, slot_dim=6, tokens=9, layers=2).double()
    slots, target = torch.randn(2, 4, 6).double(), torch.randn(2, 9, 8).double()
    mask = torch.tensor([True, False, True, True]).expand(2, 4)
    reconstruction, masks = decoder(slots, target, slot_mask=mask)
    assert reconstruction.shape == (2, 9, 8)
    assert masks.shape == (2, 4, 9)
    assert (masks[:, 1] == 0).all()
    torch.testing.assert_close(masks.sum(1), torch.ones(2, 9).double())
    torch.testing.assert_close(reconstruction, decoder(slots[:, mask[0]], target)[0])


def test_transformer_decoder_cannot_see_hidden_tokens() -> None:
    torch.manual_seed(0)
    decoder = RandomMaskDecoder(dim=8, slot_dim=6, tokens=9, layers=2)
    slots, target = torch.randn(1, 4, 6), torch.randn(1, 9, 8)
    visible = torch.zeros(1, 9, dtype=torch.bool)
    visible[0, :3] = True
    changed = target.clone()
    changed[0, 3:] += 1
    torch.testing.assert_close(decoder(slots, target, visible)[0], decoder(slots, changed, visible)[0])
    assert not torch.allclose(decoder(slots, target)[0], decoder(slots, changed)[0])


def test_transformer_decoder_layers_start_equal() -> None:
    decoder = RandomMaskDecoder(dim=8, slot_dim=6, tokens=9, layers=3)
    last = dict(decoder.layers[2].named_parameters())
    for name, parameter in decoder.layers[1].named_parameters():
        assert torch.equal(parameter, last[name])
    assert not any("bias" in name for name in last)


def test_broadcast_decoder_prior_moves_the_masks() -> None:
    torch.manual_seed(0)
    decoder = BroadcastDecoder(dim=8, slot_dim=6, tokens=9).double()
    slots, prior = torch.randn(1, 4, 6).double(), torch.rand(1, 4, 9).double() + 0.1
    plain, moved = decoder(slots)[1], decoder(slots, prior=prior)[1]
    expected = plain * prior / (plain * prior).sum(1, keepdim=True)
    torch.testing.assert_close(moved, expected)


def test_places_say_where_a_token_is() -> None:
    found = places((2, 4))
    assert found.shape == (8, PLACE) and found.abs().max() <= 1
    assert found[:, :2].tolist() == [[y, x] for y in (-0.5, 0.5) for x in (-0.75, -0.25, 0.25, 0.75)]
    assert len({tuple(row) for row in found.tolist()}) == 8
    torch.testing.assert_close(found[:, 2:4], torch.sin(found[:, :2] * torch.pi / 2))


@pytest.mark.parametrize("layers", [1, 3])
def test_broadcast_decoder_gives_the_same_values_and_gradients_in_training_as_in_evaluation(layers: int) -> None:
    torch.manual_seed(0)
    decoder = BroadcastDecoder(dim=8, slot_dim=6, tokens=9, layers=layers, hidden=16).double()
    slots, target, weight = torch.randn(2, 4, 6), torch.randn(2, 9, 8), torch.randn(2, 4, 9)
    mask, prior = torch.tensor([True, True, False, True]).expand(2, 4), torch.rand(2, 4, 9)

    def results(training: bool) -> list[torch.Tensor]:
        given = slots.double().requires_grad_()
        tokens, masks = decoder.train(training)(given, slot_mask=mask, prior=prior.double())
        loss = (tokens - target).square().mean() + (masks * weight).sum()
        return [tokens, masks, *torch.autograd.grad(loss, [given, *decoder.parameters()])]

    for trained, evaluated in zip(results(True), results(False), strict=True):
        torch.testing.assert_close(trained, evaluated, rtol=1e-10, atol=1e-12)


def test_random_visible_has_the_distribution_of_the_paper() -> None:
    visible = random_visible(20_000, 256, torch.Generator().manual_seed(0))
    count = visible.sum(1)
    constant = (count == 24).float().mean().item()
    assert abs(constant - (0.5 + 0.5 / 255)) < 0.02
    assert count.max() <= 254
    assert count.max() >= 250
    assert count.min() == 0
    assert abs(count.float().mean().item() - 75.5) < 2
    per_token = visible.float().mean(0)
    assert (per_token - per_token.mean()).abs().max() < 0.02
    assert torch.equal(visible[:8], random_visible(20_000, 256, torch.Generator().manual_seed(0))[:8])


# --- the small encoder ----------------------------------------------------------------------------------------------


def test_encoder_sees_only_its_receptive_field() -> None:
    torch.manual_seed(0)
    encoder = Encoder(width=16, dim=12, blocks=(1, 3)).double()
    image = torch.rand(1, 3, 128, 128).double()
    image.requires_grad_()
    encoder(image)[0, 3, 8, 8].backward()
    assert image.grad is not None
    rows = image.grad[0].abs().sum(dim=(0, 2)).nonzero().flatten()
    assert rows.max() - rows.min() + 1 == encoder.receptive_field == 19
    assert abs((rows.max() + rows.min()) / 2 - (8 * 8 + 3.5)) <= 4


def test_encoder_tokens_have_unit_root_mean_square_for_any_size() -> None:
    encoder = Encoder(width=16, dim=12, blocks=(3,))
    tokens = encoder.encode(Batch(ids=("a", "b"), image=torch.rand(2, 3, 48, 64)))
    assert tokens.shape == (2, 12, 6, 8)
    torch.testing.assert_close(tokens.square().mean(1), torch.ones(2, 6, 8), rtol=1e-4, atol=1e-4)
    assert torch.isfinite(encoder(torch.zeros(1, 3, 16, 16))).all()
    with pytest.raises(UsageError, match="multiples of 8"):
        encoder(torch.zeros(1, 3, 20, 16))

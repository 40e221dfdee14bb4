"""DIAS: official checkpoints at full size, its flags, its contract (parity is in `test_dias_parity.py`)."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from official import dias_shapes as official_shapes
from torch import Tensor

from ocl_bench.cards.model import load_model_card
from ocl_bench.core.errors import UsageError
from ocl_bench.core.paths import PACKAGE
from ocl_bench.core.types import Batch
from ocl_bench.models.checkpoints.dias import OFFICIAL_NAMES
from ocl_bench.models.checkpoints.names import load_weights, save_weights
from ocl_bench.models.dias import DIAS, build, distillation_weight, soften
from ocl_bench.models.losses import distillation_loss, distillation_to_merged_loss
from ocl_bench.models.odis import build as build_odis

# --- official checkpoints at full size ------------------------------------------------------------------------------


def official_state() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in official_shapes().items()}


def paper_model() -> DIAS:
    model = build(**load_model_card(PACKAGE / "models" / "cards" / "dias-paper.yaml").options)
    assert isinstance(model, DIAS)
    return model


def test_paper_model_has_the_size_of_the_official_one() -> None:
    model = paper_model()
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert count == {
        "encoder": 21_629_184,
        "project": 296_448,
        "initialisation": 512,
        "aggregation": 1_184_256,
        "decoder": 9_787_776,
    }
    assert sum(count.values()) == 32_898_176
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 11_268_992


def test_official_checkpoint_loads_strictly_and_round_trips(tmp_path: Path) -> None:
    state = official_state()
    assert len(state) == 242
    torch.save(state, tmp_path / "42-0029.pth")
    model = paper_model()
    load_weights(model, tmp_path / "42-0029.pth")
    loaded = model.state_dict()
    ours = model.translate_checkpoint(state)
    assert set(ours) == set(loaded)
    assert all(torch.equal(loaded[name], value) for name, value in ours.items())
    assert torch.equal(loaded["decoder.layers.3.mlp.2.weight"], state["m.decode.backbone.layers.3.linear2.weight"])
    save_weights(model, tmp_path / "own.safetensors", dtype=torch.float32)
    again = paper_model()
    load_weights(again, tmp_path / "own.safetensors")
    assert all(torch.equal(value, loaded[name]) for name, value in again.state_dict().items())


def test_every_renaming_rule_is_used() -> None:
    for pattern, _ in OFFICIAL_NAMES:
        assert any(re.match(pattern, name) for name in official_shapes()), pattern


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"m.decode.norm0.weight": None}, ["misses tensor 'decoder.norm_in.weight'", "(384,)"]),
        ({"m.decode.norm0.weight": (383,)}, ["decoder.norm_in.weight", "(383,)", "(384,)"]),
        ({"m.transit.weight": (2, 3)}, ["m.transit.weight", "(2, 3)", "no counterpart"]),
        ({"m.decode.backbone.layers.0.norm1.weight": (384,)}, ["unexpected", "decoder.layers.0.norm_self.weight"]),
    ],
)
def test_wrong_official_checkpoints_are_refused(
    tmp_path: Path, change: dict[str, tuple[int, ...] | None], words: list[str]
) -> None:
    state = {name: torch.zeros(shape) for name, shape in (official_shapes() | change).items() if shape is not None}
    torch.save(state, tmp_path / "bad.pth")
    with pytest.raises(UsageError, match=r"bad\.pth") as error:
        load_weights(paper_model(), tmp_path / "bad.pth")
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_paper_encoder_normalises_then_resizes() -> None:
    model = paper_model()
    seen = []
    model.encoder.vit.patch_embed.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    image = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    features = model.encode(Batch(ids=("a",), image=image))
    assert features.shape == (1, 384, 16, 16)
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    scaled = (image * 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    expected = F.interpolate(scaled, size=(224, 224), mode="bicubic")
    torch.testing.assert_close(seen[0], expected, rtol=1e-4, atol=1e-4)


# --- flags, losses, contract ----------------------------------------------------------------------------------------


def batch(count: int = 3, seed: int = 0, ids: str = "abcdefgh") -> Batch:
    images = torch.stack([torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(ord(i))) for i in ids[:count]])
    return Batch(ids=tuple(ids[:count]), image=images, noise_seed=seed)


def small(**options: object) -> DIAS:
    torch.manual_seed(0)
    settings: dict = dict(dim=16, width=16, blocks=(1,), input_size=32, slots=6, slot_dim=12, decoder_layers=2)
    return build(**(settings | options))


@pytest.mark.parametrize("name", ["dias", "slot-attention", "dinosaur"])
@pytest.mark.parametrize("mask_source", ["decoder", "attention"])
def test_predictions_keep_the_contract(name: str, mask_source: str) -> None:
    card = load_model_card(PACKAGE / "models" / "cards" / f"{name}.yaml")
    model = build(**(card.options | {"mask_source": mask_source}))
    assert model.input_size == card.input == 128
    images = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    prediction = model.predict(Batch(ids=("a", "b"), image=images))
    assert prediction.mask_source == mask_source
    assert prediction.masks is not None
    assert prediction.masks.shape == (2, model.slots, 16, 16)
    torch.testing.assert_close(prediction.masks.sum(1), torch.ones(2, 16, 16))
    assert prediction.slots is not None
    assert prediction.slots.shape == (2, model.slots, model.slot_dim)
    assert prediction.tokens is not None
    assert prediction.tokens.shape == (2, 64, 16, 16)
    assert not prediction.masks.requires_grad


def test_control_cards_differ_from_dias_only_by_their_flags() -> None:
    def options(name: str) -> dict:
        return load_model_card(PACKAGE / "models" / "cards" / f"{name}.yaml").options

    def difference(name: str) -> set[str]:
        dias, other = options("dias"), options(name)
        return {key for key in dias.keys() | other.keys() if dias.get(key) != other.get(key)}

    flags = {"distill", "merge_threshold", "merge_probability", "merge_iterations"}
    assert {"distill", "merge_threshold"} <= difference("slot-attention") <= flags | {"slots"}
    decoder = {"decoder", "decoder_layers", "decoder_heads", "decoder_hidden", "attention_prior"}
    assert difference("dinosaur") <= flags | decoder | {"slots"}
    assert json.dumps(options("dias"))


def test_prediction_depends_on_the_sample_not_on_the_batch() -> None:
    model = small(merge_threshold=0.2)
    together = model.predict(batch(3))
    reverse = model.predict(batch(3, ids="cba"))
    alone = model.predict(batch(1))
    assert together.masks is not None
    assert reverse.masks is not None
    assert alone.masks is not None
    torch.testing.assert_close(together.masks, reverse.masks.flip(0), rtol=0, atol=1e-5)
    torch.testing.assert_close(together.masks[:1], alone.masks, rtol=0, atol=1e-5)
    other_noise = model.predict(batch(3, seed=1)).masks
    assert other_noise is not None
    assert not torch.allclose(together.masks, other_noise, atol=1e-4)


def test_merging_blanks_masks_and_slots_and_needs_no_weights() -> None:
    plain, merging = small(), small(merge_threshold=1.99, merge_probability=0.0)
    merging.load_state_dict(plain.state_dict(), strict=True)
    # A high threshold leaves two clusters or fewer, so the guard keeps all slots: only one more iteration happens.
    guarded = merging.predict(batch())
    longer = small(iterations=4)
    assert guarded.masks is not None
    torch.testing.assert_close(guarded.masks, longer.predict(batch()).masks)
    for threshold in torch.linspace(0.05, 1.5, 30).tolist():
        merging.merge_threshold = threshold
        result = merging.predict(batch())
        assert result.slots is not None
        assert result.masks is not None
        gone = (result.slots == 0).all(-1)
        if gone.any():
            break
    assert gone.any()
    assert (result.masks[gone] == 0).all()
    assert (result.masks[~gone].flatten(1).sum(1) > 0).all()
    assert ((~gone).sum(1) > 2).all()


def test_flags_change_the_loss_and_only_as_promised() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 16, 16, generator=generator)
    noise = torch.randn(2, 6, 12, generator=generator)
    visible = torch.rand(2, 16, generator=generator) < 0.3
    inputs = {"noise": noise, "visible": visible}
    dias, plain = small(), small(distill=False)
    with_distillation = dias.loss(features, distill_weight=0.5, **inputs)
    without = plain.loss(features, distill_weight=0.5, **inputs)
    assert set(without) == {"total", "reconstruction"}
    expected = without["total"] + 0.5 * with_distillation["distillation"]
    torch.testing.assert_close(with_distillation["total"], expected)
    assert torch.equal(with_distillation["total"], dias.loss(features, distill_weight=0.5, **inputs)["total"])
    merging = small(merge_threshold=0.3, merge_probability=0.25)
    merged, passed = (merging.loss(features, merge_coin=coin, **inputs)["total"] for coin in (0.24, 0.25))
    assert not torch.equal(merged, passed)
    with_distillation["total"].backward()
    trainable = [name for name, p in dias.named_parameters() if p.requires_grad]
    assert all(p.grad is None for p in dias.encoder.parameters())
    assert not any(name.startswith("encoder.") for name in trainable)
    assert all(dict(dias.named_parameters())[name].grad is not None for name in trainable)


@pytest.mark.parametrize("positions", [False, True])
def test_only_with_positions_do_slots_say_where_a_token_is(positions: bool) -> None:
    torch.manual_seed(0)
    model = small(positions=positions)
    tokens = torch.randn(1, model.tokens, model.feature_dim)
    noise = torch.randn(1, model.slots, model.slot_dim)
    with torch.no_grad():
        here, there = (model.decompose(one, noise).slots for one in (tokens, tokens.roll(1, dims=1)))
    assert torch.allclose(here, there, atol=1e-4) is not positions


def test_loss_falls_on_a_toy_problem() -> None:
    """Two kinds of tokens, half an image each: a few steps must explain more than the mean does."""
    torch.manual_seed(0)
    model = small(distill=False, decoder="mlp", slots=3)
    features = torch.randn(2, 16)[(torch.arange(16) // 8)].expand(8, 16, 16)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(60):
        loss = model.loss(features, noise=torch.randn(8, 3, 12), visible=None)["total"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 * features.var().item()


def test_distillation_has_the_documented_range_and_weight() -> None:
    uniform = torch.full((1, 7, 4), 1 / 7)
    one_hot = F.one_hot(torch.tensor([[0, 1, 2, 3]]), 7).float().transpose(1, 2)
    assert distillation_loss(uniform, uniform).item() == pytest.approx(math.log(7))
    assert distillation_loss(one_hot, one_hot).item() == pytest.approx(math.log(math.e + 6) - 1)
    weights = [distillation_weight(step, 100) for step in (0, 25, 50, 100)]
    assert weights == pytest.approx([0, 0.1464466, 0.5, 1])


def test_distillation_to_merged_slots_pools_the_first_map_by_cluster() -> None:
    first = torch.tensor([[[0.5, 0.1], [0.2, 0.7], [0.3, 0.2]]], requires_grad=True)  # slots 0 and 2 are merged
    members = torch.tensor([[[1.0, 0, 1], [0, 1, 0], [0, 0, 0]]])
    final = torch.tensor([[[0.9, 0.0], [0.1, 1.0], [0.0, 0.0]]])
    loss = distillation_to_merged_loss(first, final, members)
    by_hand = -(0.9 * math.log(0.8) + 0.1 * math.log(0.2) + math.log(0.7)) / 2
    assert loss.item() == pytest.approx(by_hand, rel=1e-6)
    loss.backward()
    assert first.grad is not None and torch.equal(first.grad[0, 0], first.grad[0, 2])


def test_the_target_of_the_distillation_changes_only_that_term() -> None:
    torch.manual_seed(0)
    features, noise = torch.randn(2, 16, 16), torch.randn(2, 6, 12)
    losses = {}
    for target in ("first", "merged"):
        torch.manual_seed(1)
        model = small(slots=6, distill_target=target, merge_threshold=0.9)
        losses[target] = model.loss(features, noise=noise, visible=None)
    torch.testing.assert_close(losses["first"]["reconstruction"], losses["merged"]["reconstruction"])
    assert losses["first"]["distillation"] != losses["merged"]["distillation"]


def test_softer_masks_keep_argmax_sum_and_absent_slots() -> None:
    masks = torch.tensor([[[0.81, 0.04], [0.16, 0.96], [0.03, 0.0]]])
    soft = soften(masks, 2.0)
    torch.testing.assert_close(soft.sum(1), torch.ones(1, 2))
    assert torch.equal(soft.argmax(1), masks.argmax(1)) and soft[0, 2, 1] == 0
    assert (soft[0, 0, 0] / soft[0, 1, 0]).item() == pytest.approx((0.81 / 0.16) ** 0.5)
    assert soften(masks, 1.0) is masks


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"encoder": "resnet"}, "encoder"),
        ({"decoder": "cnn"}, "decoder"),
        ({"mask_source": "slots"}, "mask_source"),
        ({"merge_threshold": 3.0}, "merge_threshold"),
        ({"distill_target": "last"}, "distill_target"),
        ({"mask_temperature": 0.0}, "mask_temperature"),
        ({"decoder_heads": 5}, "decoder_heads"),
        ({"input_size": 100}, "input_size"),
    ],
)
def test_wrong_options_name_the_option(options: dict, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        build(**options)


def test_a_new_model_starts_with_zero_biases() -> None:
    for decoder in ("transformer", "mlp"):
        model = small(decoder=decoder)
        trunk = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        norms = {name for name, module in model.named_modules() if isinstance(module, torch.nn.LayerNorm)}
        biases = [p for name, p in trunk if "bias" in name and name.rpartition(".")[0] not in norms]
        assert len(biases) >= 6
        assert all((p == 0).all() for p in biases)


def test_the_encoder_may_be_the_vit_of_odis() -> None:
    odis = build_odis(preset="embedded", patch=8, stem="convolutional", dim=16, depth=2, heads=2, input_size=32)
    vit = {"grid": 4, "patch": 8, "depth": 2, "heads": 2, "stem": "convolutional"}
    model = build(encoder="vit", vit=vit, dim=16, input_size=64, slots=3, slot_dim=8, decoder_layers=1)
    model.encoder.load_state_dict(odis.as_encoder().state_dict())
    image = torch.rand(2, 3, 64, 64)
    prediction = model.predict(Batch(("a", "b"), image))
    tokens = odis.predict(Batch(("a", "b"), image)).tokens
    assert tokens is not None and prediction.tokens is not None and prediction.masks is not None
    assert torch.equal(prediction.tokens, tokens)
    assert prediction.masks.shape == (2, 3, 8, 8)
    assert not any(parameter.requires_grad for parameter in model.encoder.parameters())


@pytest.mark.parametrize("vit", [None, {"grid": 4, "patch": 8, "depth": 2, "heads": 2, "colour": 1}])
def test_a_vit_without_its_shape_is_refused_in_one_line(vit: dict[str, object] | None) -> None:
    with pytest.raises(UsageError, match=r"^option vit: .*(missing|colour)[^\n]*$"):
        build(encoder="vit", vit=vit)

"""SPOT: parity with the official code, orders of the decoder, official files, preprocessing, bad input."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from official import Shapes, drawn, gru, linear, norm, numbers, on_meta, shapes_of, vit
from parity_case import DTYPES, Case
from torch import Tensor, nn

from ocl_bench.cards.names import get_card
from ocl_bench.core.errors import UsageError
from ocl_bench.core.types import Batch
from ocl_bench.evaluation.check_model import check_model
from ocl_bench.models.checkpoints.names import load_weights, save_weights
from ocl_bench.models.checkpoints.spot import OFFICIAL_NAMES
from ocl_bench.models.layers.permuted_decoder import orders
from ocl_bench.models.layers.vit import VisionTransformer
from ocl_bench.models.spot import SPOT, UnnormedEncoder, build

# --- parity -----------------------------------------------------------------------------------------------------------


def tiny(dtype: torch.dtype, **options: Any) -> SPOT:
    """The model of the parity files: 5 x 5 tokens of 24 channels, 5 slots of 16, 2 layers of 4 heads."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {"feature_dim": 24, "side": 5, "input_size": 5, "slots": 5, "slot_dim": 16}
    shape |= {"decoder_layers": 2, "decoder_heads": 4}
    return SPOT(nn.Identity(), **(shape | options)).to(dtype)


def gradient_of(model: SPOT, official: str) -> Tensor:
    """The gradient of an official parameter; queries, keys and values are parts of one matrix here."""
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    match = re.match(r"(dec\.blocks\.\d+\.\w+)\.proj_([qkv])\.weight", official)
    if match is None:
        (ours,) = model.translate_checkpoint({official: torch.zeros(())})
        gradient = gradients[ours]
        assert gradient is not None
        return gradient
    parts = {f"{match[1]}.proj_{part}.weight": torch.zeros(1, 1) for part in "qkv"}
    (ours,) = model.translate_checkpoint(parts)
    gradient = gradients[ours]
    assert gradient is not None
    return gradient.chunk(3)["qkv".index(match[2])]


@DTYPES
def test_parity_of_the_full_model(dtype: torch.dtype) -> None:
    """Slots, attention, every order alone, all orders together; loss and gradients of all orders."""
    case = Case("spot_model", dtype)
    model = tiny(dtype)
    model.load_state_dict(model.translate_checkpoint(case.weights), strict=True)
    case.check("out.permutations", model.decoder.orders.int())
    features = case["in.feature"].flatten(2).transpose(1, 2)
    for name in ("standard", "all"):
        model.permutations = name  # type: ignore[assignment]
        result = model.decompose(features, torch.zeros(3, 5, 16, dtype=dtype))
        case.check(f"out.{name}.reconstruction", result.reconstruction)
        case.check(f"out.{name}.decoder_masks", result.masks.unflatten(2, (5, 5)))
        case.check(f"out.{name}.decoder_labels", result.masks.argmax(1).unflatten(1, (5, 5)).to(torch.uint8))
        loss = (result.reconstruction - features).square().mean()
        case.check(f"out.{name}.loss_mse", loss)
    case.check("out.train_all.loss_mse", loss)
    case.check("out.slots", result.slots)
    case.check("out.slot_masks", result.final_attention.unflatten(2, (5, 5)))
    # The logits are known up to a constant for each token, which the softmax over the slots does not see.
    logits = case["out.attention_logits"].transpose(1, 2).softmax(1)
    torch.testing.assert_close(logits, result.final_attention, rtol=1e-4, atol=1e-5)
    case.unchecked.discard("out.attention_logits")
    memory = model.decoder.embed_slots(result.slots)
    each = [model.decoder._in_order(number, memory, features)[1][0] for number in range(9)]
    case.check("out.each_permutation.decoder_masks", torch.stack(each))
    loss.backward()
    for key in [key for key in sorted(case.unchecked) if key.startswith("grad.")]:
        case.check(key, gradient_of(model, key.removeprefix("grad.")))
    case.all_checked()


@DTYPES
@pytest.mark.parametrize(("prefix", "bilevel"), [("grad.", False), ("out.grad_bi_level.", True)])
def test_parity_of_slot_attention_with_gaussian_slots(dtype: torch.dtype, prefix: str, bilevel: bool) -> None:
    """That of SPOT's teacher. The third kind of gradient, `fixed-point`, is in no released model and not here."""
    case, model = Case("spot_slot_attention_gaussian", dtype), tiny(dtype, initialisation="gaussian")
    unexpected = model.load_state_dict(model.translate_checkpoint(case.weights), strict=False).unexpected_keys
    assert not unexpected
    model.aggregation.bilevel = bilevel
    initial = model.initialisation(case["in.noise"])
    case.check("out.initial", initial)
    slots, maps = model.aggregation(model.project(case["in.features"]), initial)
    case.check("out.slots", slots)
    case.check("out.slot_masks", maps[-1])
    slots.square().mean().backward()
    keys = [key for key in case.tensors if key.startswith(prefix)]
    assert len(keys) == 3
    for key in keys:
        case.check(key, gradient_of(model, key.removeprefix(prefix)))


# --- orders -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [1, 2, 3, 14])
def test_every_order_holds_each_token_once(side: int) -> None:
    found = orders(side)
    assert found.shape == (9, side * side)
    assert all(np.array_equal(np.sort(order), np.arange(side * side)) for order in found)
    steps = np.abs(np.diff(np.stack(np.divmod(found[8], side), 1), axis=0)).sum(1)
    assert (steps == 1).all(), "a spiral goes from neighbour to neighbour"
    assert (found[8][-side:] % side == side - 1).all() and found[8, -1] == side - 1


def test_a_token_is_predicted_from_those_before_it() -> None:
    model, features = tiny(torch.float64, permutations="standard"), torch.randn(1, 25, 24).double()
    slots = torch.randn(1, 5, 16).double()
    expected, _ = model.decoder(slots, features, "standard")
    changed = features.clone()
    changed[:, 12] += 1
    actual, _ = model.decoder(slots, changed, "standard")
    same = (actual == expected).all(2)[0]
    assert same[:13].all() and not same[13:].any()


# --- names, shapes, sizes ---------------------------------------------------------------------------------------------


def official(
    width: int = 768, slot: int = 256, slots: int = 7, tokens: int = 196, *, second: bool = True, layers: int = 4,
    blocks: int = 12, patch: int = 16,
) -> Shapes:  # fmt: skip
    """Names and shapes of an official file, by its code."""
    attention, shapes = "slot_attn.slot_attention", Shapes()
    for encoder in ("encoder", "second_encoder")[: 1 + second]:
        shapes |= vit(f"{encoder}.", width, blocks=blocks, patch=patch, positions=tokens + 1, scale=False)
        shapes |= norm(f"{encoder}.norm", width)
    shapes |= {"bos_tokens": (9, 1, 1, width), "slot_attn.slots_init.weight": (slots, slot)}
    shapes |= norm("slot_attn.layer_norm", width) | linear("slot_attn.mlp.0", width, width)
    shapes |= linear("slot_attn.mlp.2", width, width)
    shapes |= norm(f"{attention}.norm_inputs", width) | norm(f"{attention}.norm_slots", slot)
    shapes |= norm(f"{attention}.norm_mlp", slot) | linear(f"{attention}.project_q", slot, slot, bias=False)
    for name in ("project_k", "project_v"):
        shapes |= linear(f"{attention}.{name}", slot, width, bias=False)
    shapes |= gru(f"{attention}.gru", slot) | linear(f"{attention}.mlp.0", 4 * slot, slot)
    shapes |= linear(f"{attention}.mlp.2", slot, 4 * slot)
    shapes |= linear("input_proj.0", width, width, bias=False) | norm("input_proj.1", width)
    shapes |= linear("slot_proj.0", width, slot, bias=False) | norm("slot_proj.1", width)
    for number in range(layers):
        block = f"dec.blocks.{number}"
        shapes[f"{block}.self_attn_mask"] = (tokens, tokens)
        for name in ("self_attn", "encoder_decoder_attn"):
            shapes |= norm(f"{block}.{name}_layer_norm", width)
            for part in "qkvo":
                shapes |= linear(f"{block}.{name}.proj_{part}", width, width, bias=False)
        shapes |= norm(f"{block}.ffn_layer_norm", width) | linear(f"{block}.ffn.0", 4 * width, width)
        shapes |= linear(f"{block}.ffn.2", width, 4 * width)
    return shapes | norm("dec.layer_norm", width)


def masked(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """With the causal masks that the blocks of the decoder store."""
    for name, value in tensors.items():
        if name.endswith("self_attn_mask"):
            tensors[name] = torch.ones(value.shape, dtype=torch.bool, device=value.device).triu(1)
    return tensors


@pytest.mark.parametrize(("slots", "second"), [(7, True), (6, True), (7, False)])
def test_all_tensors_have_their_place(slots: int, second: bool) -> None:
    shapes = official(slots=slots, second=second)
    with torch.device("meta"):
        model = build(slots=slots, second_encoder=second)
    translated = model.translate_checkpoint(masked(on_meta(shapes)))
    assert {name: tuple(value.shape) for name, value in translated.items()} == shapes_of(model)
    stored = {name: shape for name, shape in shapes.items() if not name.endswith("self_attn_mask")}
    assert sum(p.numel() for p in model.parameters()) == numbers(stored)
    assert len(shapes) - len(stored) == 4


def test_every_renaming_rule_is_used() -> None:
    shapes = official() | {"slot_attn.slot_mu": (1,), "slot_attn.slot_log_sigma": (1,)}
    for pattern, _ in OFFICIAL_NAMES:
        assert any(re.match(pattern, name) for name in shapes), pattern


def small(**changes: Any) -> SPOT:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"feature_dim": 24, "side": 3, "input_size": 24, "slots": 4, "slot_dim": 16}
    shape |= {"decoder_layers": 2, "decoder_heads": 4}
    encoders = (
        UnnormedEncoder(VisionTransformer(dim=24, heads=2, depth=2, grid=3, patch=8, position_offset=0.1))
        for _ in range(2)
    )
    return SPOT(next(encoders), next(encoders), **(shape | changes)).eval()


SMALL = official(24, 16, 4, 9, layers=2, blocks=2, patch=8)


def test_an_official_file_loads_and_comes_back(tmp_path: Path) -> None:
    """Under `model`, beside other things, and under the decoder's older name."""
    state = masked(drawn(SMALL))
    old = {
        name.replace("dec.", "tf_dec.", 1) if name.startswith("dec.") else name: value for name, value in state.items()
    }
    torch.save({"model": state, "epoch": 3, "best_mbo_i": 0.3}, tmp_path / "checkpoint.pt.tar")
    torch.save({"model": old}, tmp_path / "old.pt.tar")
    model, older, again = small(), small(), small()
    load_weights(model, tmp_path / "checkpoint.pt.tar")
    load_weights(older, tmp_path / "old.pt.tar")
    first = model.decoder.layers[0].self_attention.in_proj_weight
    assert torch.equal(first[24:48], state["dec.blocks.0.self_attn.proj_k.weight"])
    assert torch.equal(model.initialisation.mean[0], state["slot_attn.slots_init.weight"])
    save_weights(model, tmp_path / "own.safetensors", torch.float32)
    load_weights(again, tmp_path / "own.safetensors")
    batch = Batch(("a", "b"), torch.rand(2, 3, 24, 24))
    prediction = model.predict(batch)
    for other in (older, again):
        assert torch.equal(prediction.masks, other.predict(batch).masks)  # type: ignore[arg-type]
    assert torch.equal(prediction.masks, model.predict(Batch(("c", "d"), batch.image)).masks)  # type: ignore[arg-type]


def test_the_decoder_reads_the_second_encoder() -> None:
    model, batch = small(), Batch(("a",), torch.rand(1, 3, 24, 24))
    before = model.predict(batch)
    assert model.second_encoder is not None
    with torch.no_grad():
        for parameter in model.second_encoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    after = model.predict(batch)
    assert torch.equal(before.slots, after.slots)  # type: ignore[arg-type]
    assert not torch.equal(before.masks, after.masks)  # type: ignore[arg-type]
    attention = small(mask_source="attention").predict(batch)
    assert attention.mask_source == "attention" and attention.masks.shape == (1, 4, 3, 3)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dec.layer_norm.bias": None}, r"misses tensor 'decoder.norm_out.bias' \(24,\)"),
        ({"dec.blocks.1.self_attn.proj_v.weight": None}, "misses tensor 'decoder.layers.1.self_attention.v.weight'"),
        ({"second_encoder.cls_token": None}, "misses tensor 'second_encoder.vit.cls_token'"),
        ({"pos_embed": (1, 9, 24)}, r"tensor 'pos_embed' \(1, 9, 24\) has no counterpart"),
        ({"slot_attn.slots_init.weight": (7, 16)}, "the checkpoint has 7 slots, the model 4; use --option slots=7"),
        ({"slot_attn.slots_init.weight": (4, 8)}, "8 channels of a slot, the model 16; use --option slot_dim=8"),
        ({"bos_tokens": (1, 1, 1, 24)}, r"'decoder.first' has shape \(1, 1, 1, 24\)"),
        ({"m.initializ.mean": (1, 1, 16)}, r"tensor 'm.initializ.mean' \(1, 1, 16\) has no counterpart"),
    ],
)
def test_files_that_do_not_fit_are_named(changes: dict, message: str, tmp_path: Path) -> None:
    shapes = {name: shape for name, shape in (SMALL | changes).items() if shape is not None}
    torch.save({"model": masked(drawn(shapes))}, tmp_path / "file.pt.tar")
    with pytest.raises(UsageError, match=f"file.pt.tar: .*{message}") as error:
        load_weights(small(), tmp_path / "file.pt.tar")
    assert "\n" not in str(error.value)


def test_a_mask_that_is_not_causal_is_refused(tmp_path: Path) -> None:
    state = masked(drawn(SMALL))
    state["dec.blocks.0.self_attn_mask"] = torch.zeros(9, 9, dtype=torch.bool)
    torch.save({"model": state}, tmp_path / "file.pt.tar")
    with pytest.raises(UsageError, match=r"tensor 'dec.blocks.0.self_attn_mask' \(9, 9\) is not the causal mask"):
        load_weights(small(), tmp_path / "file.pt.tar")


# --- preprocessing, card, options -------------------------------------------------------------------------------------


def test_the_encoder_is_dino_before_its_final_norm() -> None:
    model, seen = small(), []
    encoder = model.encoder
    assert isinstance(encoder, UnnormedEncoder)
    encoder.vit.patch_embed.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        encoder.vit.norm.weight.fill_(torch.nan)
    image = torch.rand(1, 3, 24, 24)
    tokens = model.encode(Batch(("a",), image))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(seen[0], (image - mean) / std)
    assert tokens.isfinite().all() and tokens.shape == (1, 24, 3, 3)


def test_card_and_contract() -> None:
    card = get_card("spot-paper")
    with torch.device("meta"):
        model = build(**card.options)
    assert (model.slots, model.input_size, model.permutations) == (7, 224, "all") and not card.weights
    options = {"encoder": "cnn", "dim": 16, "width": 8, "blocks": [1], "input_size": 32, "slots": 3, "slot_dim": 8}
    options |= {"decoder_heads": 4, "decoder_layers": 1}
    checks = check_model("spot-paper", "clevrtex", options=options)
    assert all(check.passed for check in checks), [check for check in checks if not check.passed]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "mae"}, "option encoder: 'mae' is unknown; use dino_base_16 or cnn"),
        ({"permutations": "random"}, "option permutations: 'random' is unknown; use all or standard"),
        ({"initialisation": "shared"}, "option initialisation: 'shared' is unknown; use embedding or gaussian"),
        ({"input_size": 225}, "option input_size: 225 is invalid; use a multiple of 16"),
        ({"slots": 0}, "option slots: 0 is invalid"),
        ({"decoder_heads": 5}, "option decoder_heads: 5 is invalid; use a divisor of the token width 768"),
    ],
)
def test_options_that_make_no_sense(options: dict, message: str) -> None:
    with torch.device("meta"), pytest.raises(UsageError, match=message):
        build(**options)

"""FT-DINOSAUR and DINOSAUR-v2: parity, names and shapes of official checkpoints, preprocessing, refused files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from official import Shapes, drawn, fits, gru, linear, norm, numbers, on_meta, vit
from parity_case import DTYPES, Case
from torch import Tensor, nn

from ocl_bench.cards.names import get_card
from ocl_bench.core.errors import UsageError
from ocl_bench.core.types import Batch
from ocl_bench.evaluation.check_model import check_model
from ocl_bench.models import dias
from ocl_bench.models.checkpoints.names import load_weights, save_weights
from ocl_bench.models.ftdinosaur import OFFICIAL_NAMES, V2_NAMES, DinosaurV2, FTDinosaur, build, build_v2
from ocl_bench.models.layers.vit import resample_positions
from ocl_bench.models.loading import get_model
from ocl_bench.models.slotcontrast import dinov2

# --- parity -----------------------------------------------------------------------------------------------------------


def tiny(dtype: torch.dtype, encoder: nn.Module | None = None, tokens: int = 36) -> FTDinosaur:
    """The model of the parity files: tokens of 32 channels, 7 slots of 24, 48 hidden units."""
    shape = {"feature_dim": 32, "tokens": tokens, "input_size": 56, "slot_dim": 24, "hidden": 48}
    return FTDinosaur(encoder or nn.Identity(), **shape).to(dtype)  # type: ignore[arg-type]


def load(model: FTDinosaur, weights: dict[str, Tensor]) -> None:
    unexpected = model.load_state_dict(model.translate_checkpoint(weights), strict=False).unexpected_keys
    assert not unexpected


def check_gradients(case: Case, model: FTDinosaur) -> None:
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for key in [key for key in sorted(case.unchecked) if key.startswith("grad.")]:
        (ours,) = model.translate_checkpoint({key.removeprefix("grad."): torch.zeros(())})
        case.check(key, gradients[ours])


@DTYPES
def test_parity_slot_attention(dtype: torch.dtype) -> None:
    case, model = Case("ftdinosaur_slot_attention", dtype), tiny(dtype)
    load(model, case.weights)
    features = case.trainable("in.features")
    initial, inputs = model.initialisation(case["in.noise"]), model.project(features)
    case.check("out.slot_init", initial)
    case.check("out.features_transformed", inputs)
    slots, maps = model.aggregation(inputs, initial)
    case.check("out.slots", slots)
    case.check("out.slot_masks", maps[-1])
    once, first = model.aggregation(inputs, initial, num_iter=1)
    case.check("out.iters_1.slots", once)
    case.check("out.iters_1.slot_masks", first[-1])
    slots.square().mean().backward()
    case.check("grad.in.features", features.grad)
    check_gradients(case, model)
    case.all_checked()


@DTYPES
def test_parity_decoder(dtype: torch.dtype) -> None:
    """Values, gradients, exact zeros, and which slots are decoded where."""
    case, model = Case("ftdinosaur_decoder_top_k", dtype), tiny(dtype)
    load(model, case.weights)
    slots, attention = case.trainable("in.slots"), case.trainable("in.slot_masks")
    reconstruction, masks = model.decoder(slots, prior=attention)
    case.check("out.reconstruction", reconstruction)
    case.check("out.masks", masks)
    case.check("out.selected", masks > 0)
    every, all_masks = model.decoder(slots)
    case.check("out.no_top_k.reconstruction", every)
    case.check("out.no_top_k.masks", all_masks)
    loss = F.mse_loss(reconstruction, case["in.features"])
    case.check("out.loss", loss)
    loss.backward()
    assert attention.grad is None, "the attention only chooses"
    case.check("grad.in.slots", slots.grad)
    check_gradients(case, model)
    case.all_checked()


def test_an_excluded_slot_is_not_decoded() -> None:
    model, slots, attention = tiny(torch.float32), torch.randn(2, 7, 24), torch.rand(2, 7, 36)
    valid = torch.tensor([[True, True, False, True, False, True, True], [True, True] + [False] * 5])
    attention = attention.masked_fill(~valid.unsqueeze(2), 0)
    _, masks = model.decoder(slots, prior=attention, slot_mask=valid)
    assert (masks[~valid] == 0).all() and masks[0, valid[0]].max() > 0
    torch.testing.assert_close(masks.sum(1), torch.ones(2, 36))


@DTYPES
def test_parity_full_model(dtype: torch.dtype) -> None:
    """With its encoder; the position table has 3 x 3 entries and the image 4 x 4 patches, so it is resampled."""
    case = Case("ftdinosaur_full_model", dtype)
    model = tiny(dtype, dinov2(dim=32, heads=4, depth=2, grid=3), tokens=16)
    model.load_state_dict(model.translate_checkpoint(case.weights), strict=True)
    features = model.encoder.vit.patch_grid(case["in.images"]).flatten(2).transpose(1, 2)
    case.check("out.features", features)
    case.check("out.slot_init", model.initialisation(case["in.noise"]))
    result = model.decompose(features, case["in.noise"])
    case.check("out.slots", result.slots)
    case.check("out.slot_masks", result.final_attention)
    case.check("out.pred_features", result.reconstruction)
    case.check("out.masks", result.masks)
    assert torch.equal((result.masks > 0).sum(1), torch.full((2, 16), 3))
    case.all_checked()


# --- names, shapes, sizes ---------------------------------------------------------------------------------------------


def official(
    width: int = 384, tokens: int = 256, *, slot: int = 256, hidden: int = 2048, blocks: int = 12, positions: int = 1370
) -> Shapes:
    """The table of the specification."""
    grouping = "slot_attention.slot_attention"
    shapes = vit("encoder.", width, blocks=blocks, positions=positions)
    shapes |= {"slot_init.slots_mu": (1, 1, slot), "slot_init.slots_logsigma": (1, 1, slot)}
    shapes |= norm("slot_attention.feature_transform.0", width)
    shapes |= linear("slot_attention.feature_transform.1", 2 * width, width)
    shapes |= linear("slot_attention.feature_transform.3", slot, 2 * width)
    for name in ("to_q", "to_k", "to_v"):
        shapes |= linear(f"{grouping}.{name}", slot, slot, bias=False)
    shapes |= gru(f"{grouping}.gru", slot) | norm(f"{grouping}.norm_input", slot) | norm(f"{grouping}.norm_slots", slot)
    shapes |= norm(f"{grouping}.ff_mlp.module.0", slot) | linear(f"{grouping}.ff_mlp.module.1", 4 * slot, slot)
    shapes |= linear(f"{grouping}.ff_mlp.module.3", slot, 4 * slot) | {"decoder.pos_embed": (1, tokens, slot)}
    for number, (outputs, inputs) in enumerate(
        ((hidden, slot), (hidden, hidden), (hidden, hidden), (width + 1, hidden))
    ):
        shapes |= linear(f"decoder.decoder.{2 * number}", outputs, inputs)
    return shapes


@pytest.mark.parametrize(
    ("encoder", "size", "width", "tokens"),
    [("vit_small", 224, 384, 256), ("vit_small", 518, 384, 1369),
     ("vit_base", 224, 768, 256), ("vit_base", 518, 768, 1369)],
)  # fmt: skip
def test_all_206_tensors_of_the_released_models_have_their_place(
    encoder: str, size: int, width: int, tokens: int
) -> None:
    shapes = official(width, tokens)
    assert len(shapes) == 206
    with torch.device("meta"):
        model = build(encoder=encoder, input_size=size)
    assert fits(model, shapes)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == numbers(shapes)
    if (encoder, size) == ("vit_small", 224):
        assert count == 33_441_153


def small(**changes: int) -> FTDinosaur:
    """Official names, 2 blocks of 32 channels, 4 x 4 tokens."""
    torch.manual_seed(0)
    shape = {"feature_dim": 32, "tokens": 16, "input_size": 56, "slot_dim": 24, "hidden": 48} | changes
    return FTDinosaur(dinov2(dim=32, heads=4, depth=2, grid=3), **shape).eval()  # type: ignore[arg-type]


SMALL = official(32, 16, slot=24, hidden=48, blocks=2, positions=10)


def test_an_official_file_loads_and_comes_back(tmp_path: Path) -> None:
    state = drawn(SMALL)
    torch.save(state, tmp_path / "official.pth")
    model, again = small(), small()
    load_weights(model, tmp_path / "official.pth")
    assert torch.equal(model.decoder.positions, state["decoder.pos_embed"].unsqueeze(1))
    assert torch.equal(model.aggregation.mlp[2].bias, state["slot_attention.slot_attention.ff_mlp.module.3.bias"])
    save_weights(model, tmp_path / "own.safetensors", torch.float32)
    load_weights(again, tmp_path / "own.safetensors")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    batch = Batch(("a", "b"), torch.rand(2, 3, 56, 56))
    prediction = model.predict(batch)
    assert prediction.masks is not None and prediction.masks.shape == (2, 7, 4, 4)
    assert torch.equal(prediction.masks, again.predict(batch).masks)  # type: ignore[arg-type]
    assert torch.equal((prediction.masks > 0).sum(1), torch.full((2, 4, 4), 3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoder.decoder.6.bias": None}, r"misses tensor 'decoder.mlp.6.bias' \(33,\)"),
        ({"encoder.norm.weight": (32,)}, r"has unexpected tensor 'encoder.vit.norm.weight' \(32,\)"),
        ({"predictor.weight": (3,)}, r"tensor 'predictor.weight' \(3,\) has no counterpart in this model"),
        ({"decoder.pos_embed": (1, 1369, 24)}, "1369 tokens of an image, the model 16; use --option input_size=518"),
        ({"slot_init.slots_mu": (1, 1, 64)}, "64 channels of a slot, the model 24; use --option slot_dim=64"),
        ({"slot_attention.feature_transform.0.weight": (768,)},
         "768 features of a token, the model 32; use --option encoder=vit_base"),
        ({"decoder.decoder.0.bias": (47,)}, r"'decoder.mlp.0.bias' has shape \(47,\), the model expects \(48,\)"),
    ],
)  # fmt: skip
def test_files_that_do_not_fit_are_named(changes: dict, message: str, tmp_path: Path) -> None:
    shapes = {name: shape for name, shape in (SMALL | changes).items() if shape is not None}
    torch.save(drawn(shapes), tmp_path / "file.pth")
    with pytest.raises(UsageError, match=f"file.pth: .*{message}") as error:
        load_weights(small(), tmp_path / "file.pth")
    assert "\n" not in str(error.value)


def test_a_file_of_dias_is_refused(tmp_path: Path) -> None:
    torch.save({f"m.{name}": value for name, value in drawn(SMALL).items()}, tmp_path / "dias.pth")
    with pytest.raises(UsageError, match=r"dias.pth: tensor 'm.encoder.cls_token' \(1, 1, 32\) has no counterpart"):
        load_weights(small(), tmp_path / "dias.pth")
    torch.save(drawn(SMALL), tmp_path / "ft.pth")
    with pytest.raises(UsageError, match=r"ft.pth"):
        load_weights(dias.build(encoder="cnn"), tmp_path / "ft.pth")


def test_every_renaming_rule_is_used() -> None:
    for pattern, _ in OFFICIAL_NAMES:
        assert any(re.match(pattern, name) for name in official()), pattern


# --- preprocessing, options, contract ---------------------------------------------------------------------------------


def test_the_encoder_sees_the_officially_normalised_image() -> None:
    model, seen = small(), []
    vit_ = model.encoder.vit
    vit_.patch_embed.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    image = torch.rand(1, 3, 56, 56)
    tokens = model.encode(Batch(("a",), image))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(seen[0], (image - mean) / std)
    assert tokens.shape == (1, 32, 4, 4) and isinstance(vit_.norm, nn.Identity)
    assert resample_positions(vit_.pos_embed, (4, 4)).shape == (1, 17, 32)


def test_the_card() -> None:
    with torch.device("meta"):
        model = build(**get_card_options())
    assert (model.input_size, model.slots, model.slot_dim) == (224, 7, 256)
    assert model.decoder.top_k == 3 and model.aggregation.iterations == 3 and model.aggregation.epsilon == 1e-8
    assert model.translate_checkpoint(on_meta(official()))


def get_card_options() -> dict:
    card = get_card("ftdinosaur-paper")
    assert card.supervision == "none" and not card.weights
    return dict(card.options)


def test_the_contract() -> None:
    """At the smallest size, with random weights."""
    options = {"input_size": 28, "slots": 4}
    assert get_model("ftdinosaur-paper", options=options).untrained
    checks = check_model("ftdinosaur-paper", "clevrtex", options=options)
    assert all(check.passed for check in checks), [check for check in checks if not check.passed]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "vit_large"}, "option encoder: 'vit_large' is unknown; use vit_small or vit_base"),
        ({"input_size": 256}, "option input_size: 256 is invalid; use a multiple of 14"),
        ({"slots": 0}, "option slots: 0 is invalid; use a whole number from 1"),
        ({"top_k": 1.5}, "option top_k: 1.5 is invalid; use a whole number from 1"),
        ({"mask_source": "slots"}, "option mask_source: 'slots' is unknown"),
    ],
)
def test_options_that_make_no_sense(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(**options)


def test_training_is_that_of_dias() -> None:
    model = small().train()
    features = torch.rand(2, 16, 32)
    terms = model.loss(features, noise=torch.randn(2, 7, 24), visible=None)
    assert set(terms) == {"total", "reconstruction"}
    terms["total"].backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if not name.startswith("encoder."))


# --- DINOSAUR by the code of VideoSAUR --------------------------------------------------------------------------------


def official_v2(width: int = 768, slot: int = 256, hidden: int = 2048, **backbone: int) -> Shapes:
    """Names and shapes by its configuration; an image model has no `module` in its names."""
    grouping, tokens = "processor.corrector", backbone.pop("tokens", 256)
    shapes = vit("encoder.backbone.model.", width, **backbone)
    shapes |= {"initializer.mean": (1, 1, slot), "initializer.log_std": (1, 1, slot)}
    shapes |= norm("encoder.output_transform.layers.0", width)
    shapes |= linear("encoder.output_transform.layers.1", 2 * width, width)
    shapes |= linear("encoder.output_transform.layers.3", slot, 2 * width)
    for name in ("to_q", "to_k", "to_v"):
        shapes |= linear(f"{grouping}.{name}", slot, slot, bias=False)
    shapes |= (
        gru(f"{grouping}.gru", slot) | norm(f"{grouping}.norm_features", slot) | norm(f"{grouping}.norm_slots", slot)
    )
    shapes |= norm(f"{grouping}.mlp.layers.0", slot) | linear(f"{grouping}.mlp.layers.1", 4 * slot, slot)
    shapes |= linear(f"{grouping}.mlp.layers.3", slot, 4 * slot) | {"decoder.pos_emb": (1, 1, tokens, slot)}
    widths = (slot, hidden, hidden, hidden, width + 1)
    for number in range(4):
        shapes |= linear(f"decoder.mlp.layers.{2 * number}", widths[number + 1], widths[number])
    return shapes


def test_all_tensors_of_dinosaur_v2_have_their_place() -> None:
    shapes, card = official_v2(), get_card("dinosaur-v2-paper")
    with torch.device("meta"):
        model = build_v2(**card.options)
    assert fits(model, shapes) and len(shapes) == 206
    assert sum(p.numel() for p in model.parameters()) == numbers(shapes)
    assert not card.weights and "names and shapes only" in card.title
    for pattern, _ in V2_NAMES:
        assert any(re.match(pattern, name) for name in shapes), pattern


def small_v2() -> DinosaurV2:
    torch.manual_seed(0)
    shape = {"feature_dim": 32, "tokens": 16, "input_size": 56, "slot_dim": 24, "hidden": 48, "slots": 7}
    return DinosaurV2(dinov2(dim=32, heads=4, depth=2, grid=3), **shape).eval()  # type: ignore[arg-type]


def test_dinosaur_v2_decodes_every_slot(tmp_path: Path) -> None:
    state = drawn(official_v2(32, 24, 48, blocks=2, positions=10, tokens=16))
    torch.save({"state_dict": state, "epoch": 1}, tmp_path / "coco.ckpt")
    model = small_v2()
    load_weights(model, tmp_path / "coco.ckpt")
    prediction = model.predict(Batch(("a",), torch.rand(1, 3, 56, 56)))
    assert prediction.masks is not None and (prediction.masks > 0).all()
    torch.testing.assert_close(prediction.masks.sum(1), torch.ones(1, 4, 4))
    assert model.aggregation.normalised_state and model.aggregation.attention_floor == 1e-8
    with pytest.raises(UsageError, match=r"tensor 'initializer.mean' .* has no counterpart"):
        load_weights(small(), tmp_path / "coco.ckpt")
    torch.save(drawn(SMALL), tmp_path / "ft.pth")
    with pytest.raises(UsageError, match=r"tensor 'encoder.cls_token' .* has no counterpart"):
        load_weights(small_v2(), tmp_path / "ft.pth")


def test_the_contract_of_dinosaur_v2() -> None:
    checks = check_model("dinosaur-v2-paper", "clevrtex", options={"encoder": "vit_small", "input_size": 28})
    assert all(check.passed for check in checks), [check for check in checks if not check.passed]

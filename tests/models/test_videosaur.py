"""VideoSAUR: parity with the official code, names and shapes of official files, streaming, preprocessing, bad input."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from official import Shapes, drawn, fits, gru, linear, norm, numbers, vit
from parity_case import DTYPES, Case
from torch import Tensor, nn

from ocl_bench.cards.names import get_card
from ocl_bench.core.errors import SampleError, UsageError
from ocl_bench.core.types import Batch
from ocl_bench.evaluation.check_model import check_model
from ocl_bench.models.checkpoints.names import load_weights, save_weights
from ocl_bench.models.checkpoints.videosaur import BACKBONES, OFFICIAL_NAMES, VARIANTS
from ocl_bench.models.layers.slot_attention import SlotAttention
from ocl_bench.models.layers.vit import VisionTransformer
from ocl_bench.models.losses import time_similarity, time_similarity_targets
from ocl_bench.models.reading import PatchEncoder
from ocl_bench.models.videosaur import SIMILARITY_WEIGHT, VideoSAUR, build

# --- parity -----------------------------------------------------------------------------------------------------------


def tiny(dtype: torch.dtype, **options: Any) -> VideoSAUR:
    """The model of the parity files: 4 x 5 tokens of 24 channels, 5 slots of 16."""
    shape: dict[str, Any] = {"feature_dim": 24, "grid": (4, 5), "input_size": 4, "slots": 5, "slot_dim": 16}
    shape |= {"hidden": 32, "decoder_layers": 3}
    return VideoSAUR(nn.Identity(), **(shape | options)).to(dtype)


def load(model: VideoSAUR, weights: dict[str, Tensor]) -> None:
    unexpected = model.load_state_dict(model.translate_checkpoint(weights), strict=False).unexpected_keys
    assert not unexpected


def check_gradients(case: Case, model: VideoSAUR) -> None:
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for key in [key for key in sorted(case.unchecked) if key.startswith("grad.")]:
        (ours,) = model.translate_checkpoint({key.removeprefix("grad."): torch.zeros(())})
        case.check(key, gradients[ours])


@DTYPES
def test_parity_of_the_decoder(dtype: torch.dtype) -> None:
    case, model = Case("videosaur_decoder", dtype), tiny(dtype)
    load(model, case.weights)
    slots = case.trainable("in.slots")
    reconstruction, masks = model.decoder(slots)
    case.check("out.reconstruction", reconstruction)
    case.check("out.masks", masks)
    loss = F.mse_loss(reconstruction[..., :24], case["in.features"])
    case.check("out.loss_featrec", loss)
    loss.backward()
    case.check("grad.in.slots", slots.grad)
    check_gradients(case, model)
    case.all_checked()


@DTYPES
@pytest.mark.parametrize("mlp", [False, True])
def test_parity_of_the_recurrence(dtype: torch.dtype, mlp: bool) -> None:
    """Without the MLP of slot attention (VideoSAUR) and with it (DINOSAUR in the same code)."""
    case, model = Case("videosaur_latent_processor" + ("_mlp" if mlp else ""), dtype), tiny(dtype)
    if mlp:
        model.corrector = SlotAttention(
            16, 16, 2, activation=nn.ReLU, normalised_state=True, attention_floor=1e-8
        ).to(dtype)  # fmt: skip
    load(model, case.weights)
    initial = model.initialisation(case["in.noise"])
    case.check("out.initial", initial)
    case.check("out.features", model.project(case["in.features"]))
    outputs = model.recurrence(case["in.features"], initial=initial)
    case.check("out.state", outputs.slots)
    case.check("out.state_predicted", outputs.predicted)
    case.check("out.masks", outputs.attention)
    outputs.slots.square().mean().backward()
    check_gradients(case, model)
    case.all_checked()


@DTYPES
def test_parity_of_the_losses(dtype: torch.dtype) -> None:
    case = Case("videosaur_losses", dtype)
    keys, logits = case["in.keys"], case.trainable("in.reconstruction")
    targets = time_similarity_targets(keys, 0.075)
    case.check("out.target", targets.flatten(1, 2))
    unit = F.normalize(keys, dim=-1)
    case.check("out.similarity", unit[:, :-1] @ unit[:, 1:].transpose(2, 3))
    similarity = time_similarity(logits[..., 24:], targets)
    case.check("out.timesim", similarity)
    similarity.backward(retain_graph=True)
    case.check("out.grad_timesim.in.reconstruction", logits.grad)
    logits.grad = None
    reconstruction = F.mse_loss(logits[..., :24], case["in.backbone_features"])
    case.check("out.featrec", reconstruction)
    total = reconstruction + SIMILARITY_WEIGHT * similarity
    case.check("out.total", total)
    total.backward()
    case.check("grad.in.reconstruction", logits.grad)
    case.all_checked()


def test_a_token_that_resembles_nothing_gets_equal_shares() -> None:
    keys = torch.tensor([[[[1.0, 0.0]], [[-1.0, 0.0]]]])
    assert torch.equal(time_similarity_targets(keys, 0.1), torch.ones(1, 1, 1, 1))
    two = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]], [[-1.0, 0.0], [-1.0, 0.1]]]])
    targets = time_similarity_targets(two, 0.1)
    assert torch.equal(targets[0, 0, 0], torch.tensor([0.5, 0.5])) and targets.isfinite().all()
    assert targets[0, 0, 1, 1] > 0.5


@DTYPES
def test_parity_of_the_full_model(dtype: torch.dtype) -> None:
    """Slots, masks, label maps, losses and gradients, from noise to the loss."""
    case, model = Case("videosaur_full_model", dtype), tiny(dtype)
    model.load_state_dict(model.translate_checkpoint(case.weights), strict=True)
    features, noise = case["in.features"], case["in.noise"]
    outputs = model.recurrence(features, initial=model.initialisation(noise))
    decoded, masks = model.decode(outputs.slots)
    case.check("out.state", outputs.slots)
    case.check("out.grouping_masks", outputs.attention)
    case.check("out.decoder_masks", masks)
    case.check("out.decoder_labels", masks.argmax(2).to(torch.uint8))
    case.check("out.reconstruction_features", decoded[..., :24])
    terms = model.loss(features, keys=features, noise=noise)
    case.check("out.loss_featrec", terms["reconstruction"])
    case.check("out.loss_timesim", terms["similarity"])
    case.check("out.loss_total", terms["total"])
    terms["total"].backward()
    check_gradients(case, model)
    case.all_checked()


def test_without_features_the_loss_is_the_similarity_alone() -> None:
    model = tiny(torch.float32, features=False)
    terms = model.loss(torch.rand(1, 3, 20, 24), keys=torch.rand(1, 3, 20, 8), noise=torch.randn(1, 5, 16))
    assert set(terms) == {"total", "similarity"} and model.decoder.output.out_features == 20
    torch.testing.assert_close(terms["total"].detach(), 0.1 * terms["similarity"])


# --- names, shapes, sizes ---------------------------------------------------------------------------------------------


def official(
    width: int, slot: int, tokens: int, outputs: int, *, blocks: int, layers: int, hidden: int = 1024, **backbone: Any
) -> Shapes:
    """Names and shapes of an official file, by its configuration."""
    corrector, predictor = "processor.module.corrector", "processor.module.predictor.blocks.0"
    decoder = "decoder.module"
    shapes = vit("encoder.module.backbone.model.", width, **backbone)
    shapes |= {"initializer.mean": (1, 1, slot), "initializer.log_std": (1, 1, slot)}
    shapes |= norm("encoder.module.output_transform.layers.0", width)
    shapes |= linear("encoder.module.output_transform.layers.1", 2 * width, width)
    shapes |= linear("encoder.module.output_transform.layers.3", slot, 2 * width)
    for name in ("to_q", "to_k", "to_v"):
        shapes |= linear(f"{corrector}.{name}", slot, slot, bias=False)
    shapes |= gru(f"{corrector}.gru", slot)
    shapes |= norm(f"{corrector}.norm_features", slot) | norm(f"{corrector}.norm_slots", slot)
    transformers = [predictor, *(f"{decoder}.allocator.blocks.{number}" for number in range(blocks))]
    for block in transformers:
        shapes |= linear(f"{block}.self_attn.qkv", 3 * slot, slot) | linear(f"{block}.self_attn.out_proj", slot, slot)
        shapes |= linear(f"{block}.linear1", 4 * slot, slot) | linear(f"{block}.linear2", slot, 4 * slot)
        shapes |= norm(f"{block}.norm1", slot) | norm(f"{block}.norm2", slot)
    shapes["decoder.module.pos_emb"] = (1, tokens, slot)
    for name in ("to_q", "to_k"):
        shapes |= linear(f"{decoder}.{name}", slot, slot, bias=False)
    for name in ("norm_q", "norm_k", "norm_memory"):
        shapes |= norm(f"{decoder}.{name}", slot)
    for number in range(layers):
        shapes |= linear(f"{decoder}.renderer.layers.{2 * number}", hidden, hidden if number else slot)
    return shapes | linear(f"{decoder}.output_transform", outputs, hidden)


RELEASED: dict[str, Shapes] = {
    "movi_c": official(768, 128, 784, 784, blocks=2, layers=4, patch=8, positions=785, scale=False),
    "movi_e": official(768, 128, 784, 784, blocks=2, layers=4, patch=8, positions=785, scale=False),
    "ytvis": official(768, 64, 196, 768 + 196, blocks=3, layers=3, patch=16, positions=197, scale=False),
    "ytvis_dinov2": official(768, 64, 1369, 768 + 1369, blocks=3, layers=3),
    "clevrer": official(384, 128, 196, 384 + 196, blocks=3, layers=3),
}


@pytest.mark.parametrize("variant", list(RELEASED))
def test_all_tensors_of_the_released_models_have_their_place(variant: str) -> None:
    shapes = RELEASED[variant]
    with torch.device("meta"):
        model = build(variant=variant)
    assert fits(model, shapes)
    assert sum(p.numel() for p in model.parameters()) == numbers(shapes)
    assert (model.first_iterations, model.iterations) == (3, 2)
    assert model.slots == {"movi_c": 11, "movi_e": 15}.get(variant, 7)
    assert set(RELEASED) == set(VARIANTS)


def test_every_renaming_rule_is_used() -> None:
    mlp = {f"processor.module.corrector.mlp.layers.{number}.weight": (1,) for number in (0, 1, 3)}
    for pattern, _ in OFFICIAL_NAMES:
        assert any(re.match(pattern, name) for name in RELEASED["ytvis"] | mlp), pattern


SMALL = official(12, 8, 16, 28, blocks=2, layers=2, hidden=16, positions=26)


def small(**changes: Any) -> VideoSAUR:
    torch.manual_seed(0)
    backbone = VisionTransformer(dim=12, heads=2, depth=12, grid=5, patch=14, layer_scale=1e-5, final_norm=False)
    shape: dict[str, Any] = {"feature_dim": 12, "grid": (4, 4), "input_size": 56, "slots": 3, "slot_dim": 8}
    shape |= {"hidden": 16, "decoder_layers": 2, "decoder_blocks": 2}
    return VideoSAUR(PatchEncoder(backbone), **(shape | changes)).eval()


def test_an_official_file_loads_and_comes_back(tmp_path: Path) -> None:
    state = drawn(SMALL)
    torch.save({"state_dict": state, "global_step": 3}, tmp_path / "videosaur-movi-c.ckpt")
    model, again = small(), small()
    load_weights(model, tmp_path / "videosaur-movi-c.ckpt")
    assert torch.equal(model.initialisation.log_std, state["initializer.log_std"])
    assert torch.equal(model.decoder.mlp[2].bias, state["decoder.module.renderer.layers.2.bias"])
    save_weights(model, tmp_path / "own.safetensors", torch.float32)
    load_weights(again, tmp_path / "own.safetensors")
    batch = Batch(("a",), torch.rand(1, 3, 56, 56))
    assert torch.equal(model.predict(batch).masks, again.predict(batch).masks)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"initializer.mean": None}, r"misses tensor 'initialisation.mean' \(1, 1, 8\)"),
        ({"initializer.slots": (1, 3, 8)}, r"tensor 'initializer.slots' \(1, 3, 8\) has no counterpart"),
        ({"decoder.module.mlp.layers.0.weight": (16, 8)}, "tensor 'decoder.module.mlp.layers.0.weight'"),
        ({"processor.module.corrector.mlp.layers.0.weight": (8,)}, "unexpected tensor 'corrector.norm_update.weight'"),
        ({"decoder.module.pos_emb": (1, 196, 8)}, "196 tokens of a frame, the model 16; use --option variant=ytvis"),
        ({"initializer.mean": (1, 1, 64)}, "64 channels of a slot, the model 8; use --option slot_dim=64"),
        ({"encoder.module.output_transform.layers.0.weight": (384,)}, "384 features .*; use --option variant=clevrer"),
    ],
)
def test_files_that_do_not_fit_are_named(changes: dict, message: str, tmp_path: Path) -> None:
    shapes = {name: shape for name, shape in (SMALL | changes).items() if shape is not None}
    torch.save({"state_dict": drawn(shapes)}, tmp_path / "file.ckpt")
    with pytest.raises(UsageError, match=f"file.ckpt: .*{message}") as error:
        load_weights(small(), tmp_path / "file.ckpt")
    assert "\n" not in str(error.value)


# --- videos, preprocessing, options, contract -------------------------------------------------------------------------


def test_clips_of_any_length_give_the_same_and_noise_is_that_of_the_video() -> None:
    model, video = small(), torch.rand(1, 5, 3, 56, 56)
    whole = model.predict(Batch(("v",), video[:, 0], video=video))
    parts, state = [], None
    for first, last in ((0, 2), (2, 5)):
        piece = video[:, first:last]
        part = model.predict(Batch(("v",), piece[:, 0], video=piece, start=first, state=state))
        parts.append(part.masks)
        state = part.state
    torch.testing.assert_close(torch.cat(parts, dim=1), whole.masks)  # type: ignore[arg-type]
    other = model.predict(Batch(("w",), video[:, 0], video=video))
    seeded = model.predict(Batch(("v",), video[:, 0], video=video, noise_seed=1))
    for changed in (other, seeded):
        assert not torch.equal(changed.slots, whole.slots)  # type: ignore[arg-type]


def test_bad_videos_are_named() -> None:
    model, video = small(), torch.rand(1, 2, 3, 56, 56)
    with pytest.raises(UsageError, match="6x6 tokens: this decoder has one size; give frames of the model's size"):
        model.predict(Batch(("v",), torch.rand(1, 3, 84, 84)))
    with pytest.raises(UsageError, match=r"frames from 2 on: batch.state is NoneType, expected \(1, 3, 8\)"):
        model.predict(Batch(("v",), video[:, 0], video=video, start=2))
    video[0, 1] = torch.inf
    with pytest.raises(SampleError, match="sample v: frame 1 holds NaN or infinity"):
        model.predict(Batch(("v",), video[:, 0], video=video))


@pytest.mark.parametrize("name", list(BACKBONES))
def test_the_encoders_see_the_officially_normalised_frame(name: str) -> None:
    """ImageNet's statistics, no final norm, timm's rule for positions; no LayerScale in DINO."""
    with torch.device("meta"):
        vit_ = VisionTransformer(**BACKBONES[name], depth=12, final_norm=False)
    assert isinstance(vit_.norm, nn.Identity) and vit_.position_offset is None
    assert ("blocks.0.ls1.gamma" in vit_.state_dict()) == name.startswith("dinov2")
    model, seen = small(), []
    model.encoder.vit.patch_embed.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    image = torch.rand(1, 3, 56, 56)
    model.predict(Batch(("a",), image))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(seen[0], (image - mean) / std)


def test_card_and_contract() -> None:
    card = get_card("videosaur-paper")
    assert not card.weights and card.supervision == "none"
    assert card.families == ("discovery", "video", "dynamics", "contact", "reasoning")
    options = {"encoder": "cnn", "blocks": [1], "width": 8, "dim": 12, "input_size": 32, "slots": 3, "slot_dim": 8}
    checks = check_model("videosaur-paper", "movi-c", options=options | {"hidden": 16})
    assert all(check.passed for check in checks), [check for check in checks if not check.passed]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "davis"}, "option variant: 'davis' is unknown; use movi_c or movi_e or ytvis"),
        ({"encoder": "resnet"}, "option encoder: 'resnet' is unknown"),
        ({"input_size": 100}, "option input_size: 100 is invalid; use a multiple of 8"),
        ({"decoder_blocks": 0}, "option decoder_blocks: 0 is invalid"),
        ({"attention_prior": True}, "option attention_prior: is unknown; options are chunk, "),
        ({"slot_dim": 10}, "option slot_dim: 10 is invalid"),
    ],
)
def test_options_that_make_no_sense(options: dict, message: str) -> None:
    with torch.device("meta"), pytest.raises(UsageError, match=message):
        build(**options)

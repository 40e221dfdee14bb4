"""SlotFormer, Aloe's head and the contact readout: parity with the official code, sizes, official files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from official import Shapes, drawn, fits, linear, norm, numbers, on_meta
from parity_case import DTYPES, Case
from torch import Tensor, nn

from ocl_bench.core.errors import UsageError
from ocl_bench.models.aloe import ALOE_NAMES, Aloe
from ocl_bench.models.checkpoints.names import load_weights, rename_keys
from ocl_bench.models.contact import ContactReadout
from ocl_bench.models.layers.pixel_decoder import PixelDecoder
from ocl_bench.models.layers.rollouter import SlotRollouter, countdown_encoding
from ocl_bench.models.slotformer import SIZES, SlotFormer, build


def small(dtype: torch.dtype, decoder: bool) -> SlotFormer:
    rollouter = SlotRollouter(16, history=6, dim=32, layers=2, heads=4, hidden=64)
    pixels = PixelDecoder(16, grid=4, side=16, widths=(8, 8)) if decoder else None
    return SlotFormer(rollouter, pixels).to(dtype).eval()


def loaded(model: nn.Module, case: Case) -> nn.Module:
    model.load_state_dict(model.translate_checkpoint(case.weights), strict=True)  # type: ignore[operator]
    return model


def check_gradients(case: Case, model: nn.Module) -> None:
    """Compare the gradients of all parameters for which the case has one."""
    of_parameters = {key for key in case.unchecked if key.startswith("grad.") and not key.startswith("grad.in.")}
    assert of_parameters
    named = dict(model.named_parameters())
    for key in of_parameters:
        official = key.removeprefix("grad.")
        name = next(iter(model.translate_checkpoint({official: torch.zeros(())})))  # type: ignore[operator]
        case.check(key, named[name].grad)


@DTYPES
def test_parity_of_the_rollouter(dtype: torch.dtype) -> None:
    """Ten steps, their losses, and the gradients through all of them."""
    case = Case("slotformer_rollouter", dtype)
    model = loaded(small(dtype, decoder=False), case)
    slots, target = case.trainable("in.slots"), case["in.target"]
    predicted = model(slots, 10)
    loss = F.mse_loss(predicted, target)
    loss.backward()
    case.check("out.slots", predicted)
    case.check("out.loss", loss)
    case.check("out.loss_per_step", (predicted - target).square().mean(dim=(0, 2, 3)))
    case.check("out.first_step_only", model(slots, 1))
    case.check("out.time_encoding", countdown_encoding(6, 32))
    case.check("out.time_encoding_long", countdown_encoding(15, 64))
    case.check("grad.in.slots", slots.grad)
    check_gradients(case, model)
    case.all_checked()


@DTYPES
def test_parity_of_the_losses(dtype: torch.dtype) -> None:
    """The loss of the pictures passes through the frozen decoder to the rollouter."""
    case = Case("slotformer_losses", dtype)
    model = loaded(small(dtype, decoder=True), case)
    losses = model.losses(case["in.slots"], case["in.img"])  # type: ignore[operator]
    sum(losses.values()).backward()  # type: ignore[union-attr]
    predicted = model(case["in.slots"][:, :6], 2)
    masks = model.decoder(predicted.flatten(0, 1))[2]  # type: ignore[operator]
    case.check("out.pred_slots", predicted)
    case.check("out.loss_slot", losses["slot"])
    case.check("out.loss_image", losses["image"])
    case.check("out.loss_total", losses["slot"] + losses["image"])
    case.check("out.mask_labels", masks.argmax(1).unflatten(0, (2, 2)).to(torch.uint8))
    check_gradients(case, model)
    assert all(parameter.grad is None for parameter in model.decoder.parameters())  # type: ignore[union-attr]
    case.all_checked()


@DTYPES
def test_parity_of_the_decoder(dtype: torch.dtype) -> None:
    case = Case("savi_decode", dtype)
    model = small(dtype, decoder=True)
    names = model.translate_checkpoint(case.weights)
    model.load_state_dict(names, strict=False)
    assert {name for name in model.state_dict() if name.startswith("decoder.")} == set(names)
    assert model.decoder is not None
    model.decoder.requires_grad_(True)
    slots = case.trainable("in.slots")
    picture, pictures, masks = model.decoder(slots)
    loss = F.mse_loss(picture, case["in.image"])
    loss.backward()
    case.check("out.recon_combined", picture)
    case.check("out.recons", pictures[:1])
    case.check("out.masks", masks[:, :, None])
    case.check("out.loss", loss)
    case.check("grad.in.slots", slots.grad)
    check_gradients(case, model)
    case.all_checked()


def test_another_order_of_the_slots_gives_the_same_slots() -> None:
    torch.manual_seed(0)
    model = build(size="embedded", slot_dim=8).eval()
    slots, order = torch.randn(2, 6, 5, 8), torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(model(slots[:, :, order], 4), model(slots, 4)[:, :, order], rtol=0, atol=1e-5)


def test_frames_before_the_history_do_not_matter() -> None:
    model = build(size="embedded", slot_dim=8).eval()
    slots = torch.randn(1, 9, 3, 8)
    assert torch.equal(model(slots, 3), model(slots[:, 3:], 3))


# --- Aloe's head ------------------------------------------------------------------------------------------------------


def small_aloe(dtype: torch.dtype) -> Aloe:
    sizes = {"frames": 4, "slots": 3, "embedding": 4, "layers": 2, "heads": 4, "hidden": 48, "head_hidden": 20}
    return Aloe(16, **sizes).to(dtype).eval()


@DTYPES
def test_parity_of_aloe(dtype: torch.dtype) -> None:
    """Tokens, logits, both losses, gradients, and the official counts of right questions."""
    case = Case("aloe_head", dtype)
    model = small_aloe(dtype)
    loaded(model, case)
    video, choices_video = case.trainable("in.cls_video_emb"), case.trainable("in.mc_video_emb")
    words, choice_words, question = case["in.cls_q_tokens"], case["in.mc_q_tokens"], case["in.mc_flag"]
    answers = model.descriptive(video, words)
    judged = model.choices(choices_video[question], choice_words)
    descriptive = F.cross_entropy(answers, case["in.cls_label"])
    multiple = F.binary_cross_entropy_with_logits(judged, case["in.mc_label"].to(dtype))
    (descriptive + multiple).backward()
    case.check("out.cls_logits", answers)
    case.check("out.mc_logits", judged)
    case.check("out.loss_cls", descriptive)
    case.check("out.loss_mc", multiple)
    case.check("out.loss_total", descriptive + multiple)
    bits = model.descriptive_bits.expand(1, words.shape[1], -1)
    case.check("out.tokens_cls", model.tokens(video[:1], words[:1], bits))
    case.check("out.tokens_mc", model.tokens(choices_video[question[:2]], choice_words[:2], model._parts(2)))
    case.check("grad.in.cls_video_emb", video.grad)
    case.check("grad.in.mc_video_emb", choices_video.grad)
    check_gradients(case, model)
    assert torch.equal(case["in.cls_q_pad_mask"].bool(), words == 0)
    assert torch.equal(case["in.mc_q_pad_mask"].bool(), choice_words == 0)
    for name, value in right_questions(case, answers, judged).items():
        case.check(f"out.eval.{name}", value)
    case.all_checked()


def right_questions(case: Case, answers: Tensor, judged: Tensor) -> dict[str, Tensor]:
    """Right questions and all questions of each type; a question is right if all its choices are."""
    right_choice = (judged > 0).long() == case["in.mc_label"]
    kinds = case["in.mc_subtype"]
    right = torch.stack([right_choice[case["in.mc_flag"] == number].all() for number in range(len(kinds))])
    groups = {"descriptive": answers.argmax(1) == case["in.cls_label"], "multiple-choice": right}
    groups |= {name: right[kinds == n] for n, name in enumerate(("explanatory", "predictive", "counterfactual"), 1)}
    return {
        f"{name}_{what}": torch.tensor(value)
        for name, one in groups.items()
        for what, value in (("correct", int(one.sum())), ("questions", len(one)))
    }


# --- the contact readout ----------------------------------------------------------------------------------------------


@DTYPES
def test_parity_of_the_contact_readout(dtype: torch.dtype) -> None:
    case = Case("physion_readout", dtype)
    model = ContactReadout(16, slots=6, hidden=16).to(dtype)
    model.load_state_dict(case.weights, strict=True)
    slots, label = case.trainable("in.slots"), case["in.label"]
    logits = model(slots)
    loss = F.binary_cross_entropy_with_logits(logits, label.to(dtype))
    loss.backward()
    case.check("out.logits", logits)
    case.check("out.loss", loss)
    case.check("grad.in.slots", slots.grad)
    for name, parameter in model.named_parameters():
        case.check(f"grad.{name}", parameter.grad)
    for threshold in (0.1, 0.3, 0.5, 0.7, 0.9):
        right = (logits.sigmoid() > threshold).long() == label
        case.check(f"out.correct_at_{threshold:.2f}", right.sum())
    # Only the official default, the maximum over pairs, exists here.
    assert case.unchecked == {"out.sum.logits", "out.mean.logits"}


# --- official files ---------------------------------------------------------------------------------------------------


def layers(name: str, dim: int, hidden: int, count: int) -> Shapes:
    shapes: Shapes = {}
    for number in range(count):
        at = f"{name}.layers.{number}"
        shapes |= {f"{at}.self_attn.in_proj_weight": (3 * dim, dim), f"{at}.self_attn.in_proj_bias": (3 * dim,)}
        shapes |= linear(f"{at}.self_attn.out_proj", dim, dim)
        shapes |= linear(f"{at}.linear1", hidden, dim) | linear(f"{at}.linear2", dim, hidden)
        shapes |= norm(f"{at}.norm1", dim) | norm(f"{at}.norm2", dim)
    return shapes


def rollouter_shapes(slot_dim: int, history: int, dim: int, layers_: int, hidden: int) -> Shapes:
    shapes: Shapes = {"rollouter.enc_t_pe": (1, history, dim)}
    shapes |= linear("rollouter.in_proj", dim, slot_dim) | linear("rollouter.out_proj", slot_dim, dim)
    return shapes | layers("rollouter.transformer_encoder", dim, hidden, layers_)


def savi_decoder_shapes() -> Shapes:
    shapes: Shapes = {"decoder_pos_embedding.grid": (1, 8, 8, 4), "decoder.4.weight": (4, 64, 1, 1)}
    shapes |= linear("decoder_pos_embedding.dense", 128, 4) | {"decoder.4.bias": (4,)}
    for number, width in enumerate((128, 64, 64, 64)):
        shapes |= {f"decoder.{number}.0.weight": (width, 64, 5, 5), f"decoder.{number}.0.bias": (64,)}
    return shapes


OFFICIAL = {
    "obj3d": (rollouter_shapes(128, 6, 128, 4, 512), 826_880),
    "clevrer": (rollouter_shapes(128, 6, 256, 4, 1024), 3_226_496),
    "physion": (rollouter_shapes(192, 15, 256, 8, 1024), 6_420_672),
}


@pytest.mark.parametrize("size", list(OFFICIAL))
def test_all_tensors_of_slotformer_have_their_place(size: str) -> None:
    shapes, count = OFFICIAL[size]
    with torch.device("meta"):
        model = build(size=size)
    assert sum(parameter.numel() for parameter in model.rollouter.parameters()) == count == numbers(shapes)
    decoder = savi_decoder_shapes() if size != "physion" else {"dvae.x.weight": (1,), "decoder.tf.weight": (1,)}
    assert fits(model, shapes | decoder)


def aloe_shapes() -> Shapes:
    at = "transformer_model"
    shapes: Shapes = {f"{at}.CLS": (1, 1, 144), f"{at}.transformer_encoder.pos_embedding": (1, 208, 144)}
    shapes |= {f"{at}.{name}_token": (2,) for name in ("text", "vision", "cls", "mc_question", "mc_choice")}
    shapes |= {f"{at}.q_embedding.weight": (82, 14)}
    shapes |= linear(f"{at}.q_in_proj", 144, 18) | linear(f"{at}.vision_in_proj", 144, 130)
    for name, outputs in (("cls", 22), ("mc", 1)):
        shapes |= linear(f"{at}.{name}_answer_mlp.0", 128, 144) | linear(f"{at}.{name}_answer_mlp.2", outputs, 128)
    return shapes | layers(f"{at}.transformer_encoder", 144, 512, 12)


def test_all_tensors_of_aloe_have_their_place() -> None:
    with torch.device("meta"):
        model = Aloe()
    assert sum(parameter.numel() for parameter in model.parameters()) == 2_879_437 == numbers(aloe_shapes())
    assert fits(model, aloe_shapes())
    assert set(rename_keys(on_meta(aloe_shapes()), ALOE_NAMES)) == set(model.state_dict())


def test_the_contact_readout_has_the_official_size() -> None:
    assert sum(parameter.numel() for parameter in ContactReadout().parameters()) == 74_113
    assert ContactReadout().state_dict()["comb_idx"].shape == (30,)


def test_official_files_load(tmp_path: Path) -> None:
    """`torch.save` of a mapping with `state_dict`, as the released files are."""
    state = drawn(rollouter_shapes(128, 6, 128, 4, 512) | savi_decoder_shapes())
    torch.save({"state_dict": state}, tmp_path / "model.pth")
    model = build(size="obj3d")
    load_weights(model, tmp_path / "model.pth")
    assert torch.equal(model.rollouter.time_encoding, state["rollouter.enc_t_pe"])
    assert model.decoder is not None and torch.equal(model.decoder.last.bias, state["decoder.4.bias"])  # type: ignore[arg-type]
    again = build(size="obj3d")
    torch.save(model.state_dict(), tmp_path / "ours.pth")
    load_weights(again, tmp_path / "ours.pth")
    assert torch.equal(again.rollouter.project_in.weight, model.rollouter.project_in.weight)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rollouter.in_proj.weight": (128, 192)}, r"'rollouter.project_in.weight' has shape \(128, 192\)"),
        ({"rollouter.enc_t_pe": None}, "misses tensor 'rollouter.time_encoding'"),
        ({"dvae.x.weight": (1,)}, r"tensor 'dvae.x.weight' \(1,\) has no counterpart"),
    ],
)
def test_files_that_do_not_fit_are_named(changes: dict, message: str, tmp_path: Path) -> None:
    shapes = rollouter_shapes(128, 6, 128, 4, 512) | savi_decoder_shapes() | changes
    state = drawn({name: shape for name, shape in shapes.items() if shape is not None})
    torch.save({"state_dict": state}, tmp_path / "file.pth")
    with pytest.raises(UsageError, match=f"file.pth: .*{message}") as error:
        load_weights(build(size="obj3d"), tmp_path / "file.pth")
    assert "\n" not in str(error.value)


def test_an_unknown_size_is_refused() -> None:
    with pytest.raises(
        UsageError, match="option size: 'small' is unknown; use obj3d or clevrer or physion or embedded"
    ):
        build(size="small")
    assert set(SIZES) == {"obj3d", "clevrer", "physion", "embedded"}

"""SlotContrast: its contrast from the definition, ranks, streaming, other sizes, bad input, sizes of the paper."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.utils.flop_counter import FlopCounterMode

from ocl_bench.core.errors import SampleError, UsageError
from ocl_bench.core.types import Batch, Prediction
from ocl_bench.evaluation.check_model import check_model
from ocl_bench.evaluation.evaluate import evaluate
from ocl_bench.evaluation.supplied.score import replay
from ocl_bench.models import slotmatch
from ocl_bench.models.checkpoints.names import load_weights, save_weights
from ocl_bench.models.layers.merging import merge_clip
from ocl_bench.models.layers.vit import Block, resample_positions
from ocl_bench.models.loading import get_model
from ocl_bench.models.losses import slot_contrast
from ocl_bench.models.ranks import RankOps
from ocl_bench.models.slotcontrast import SlotContrast, build, dinov2

TINY: dict = {"width": 8, "dim": 12, "input_size": 32, "slots": 3, "slot_dim": 8, "hidden": 16, "decoder_layers": 2}


def tiny(**options: object) -> SlotContrast:
    torch.manual_seed(0)
    return build(preset="embedded", **(TINY | options))


def clip(batch: int = 2, frames: int = 5, side: int = 32) -> Tensor:
    return torch.rand(batch, frames, 3, side, side, generator=torch.Generator().manual_seed(3))


def as_batch(video: Tensor, start: int = 0, state: object = None) -> Batch:
    ids = tuple(f"video-{number}" for number in range(len(video)))
    return Batch(ids, video[:, 0], video=video, start=start, state=state)


def streamed(model: SlotContrast, video: Tensor, pieces: list[int]) -> list[Prediction]:
    actual: list[Prediction] = []
    start = 0
    for length in pieces:
        state = actual[-1].state if actual else None
        actual.append(model.predict(as_batch(video[:, start : start + length], start, state)))
        start += length
    assert start == video.shape[1]
    return actual


# --- contrast -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_contrast", [True, False])
def test_contrast_is_its_definition(batch_contrast: bool) -> None:
    torch.manual_seed(0)
    slots, total, count = torch.randn(2, 4, 3, 8).double(), 0.0, 0
    for t in range(3):
        for video in range(2):
            for k in range(3):
                after = slots[video, t + 1, k]
                own = torch.stack([slots[v, t, j] for v in range(2) for j in range(3) if batch_contrast or v == video])
                logits = torch.cosine_similarity(own, after.expand_as(own), dim=-1) / 0.2
                total -= float(logits.log_softmax(0)[3 * video + k if batch_contrast else k])
                count += 1
    loss = slot_contrast(slots, 0.2, batch_contrast)
    torch.testing.assert_close(loss, torch.tensor(total / count).double())


def test_slots_that_stay_have_little_contrast_and_equal_ones_are_at_chance() -> None:
    slots = torch.eye(12).view(1, 1, 12, 12).expand(1, 3, -1, -1)
    assert float(slot_contrast(slots)) == pytest.approx(11 * 2.718281828**-10, rel=1e-2)
    same = torch.ones(4, 3, 5, 8)
    assert float(slot_contrast(same)) == pytest.approx(torch.log(torch.tensor(20.0)).item(), rel=1e-6)
    assert float(slot_contrast(same, batch_contrast=False)) == pytest.approx(torch.log(torch.tensor(5.0)).item())


def test_one_frame_has_no_contrast() -> None:
    slots = torch.randn(2, 1, 3, 8, requires_grad=True)
    loss = slot_contrast(slots)
    loss.backward()
    assert loss == 0 and slots.grad is not None and not slots.grad.any()
    model = tiny().train()
    terms = model.loss(model.encode_frames(clip(frames=1)))
    assert terms["contrast"] == 0 and torch.equal(terms["total"].detach(), terms["reconstruction"])
    terms["total"].backward()
    gradients = [p.grad for name, p in model.named_parameters() if p.requires_grad and "predictor" not in name]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def ranks_of(shares: list[Tensor], rank: int) -> RankOps:
    """What one rank sees of the others, without processes."""

    def gather(rows: Tensor) -> Tensor:
        if rows.shape == (1,):
            return torch.tensor([len(share) for share in shares])
        assert not rows.requires_grad
        return torch.cat(shares).detach()

    return RankOps(len(shares), rank, gather)


@pytest.mark.parametrize("batch_contrast", [True, False])
def test_ranks_give_the_loss_and_the_gradient_of_the_joint_batch(batch_contrast: bool) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(6, 4, 3, 8).double()
    weight = torch.randn(8, 8).double().requires_grad_()
    joint = slot_contrast(inputs @ weight, batch_contrast=batch_contrast)
    (expected,) = torch.autograd.grad(joint, weight)
    losses, gradients = [], []
    shares = [nn.functional.normalize(share @ weight, dim=-1) for share in inputs.split(2)]
    for rank, share in enumerate(inputs.split(2)):
        loss = slot_contrast(share @ weight, batch_contrast=batch_contrast, ranks=ranks_of(shares, rank))
        losses.append(loss.detach())
        gradients.append(torch.autograd.grad(loss, weight)[0])
    torch.testing.assert_close(torch.stack(losses).mean(), joint.detach())
    torch.testing.assert_close(torch.stack(gradients).mean(0), expected)


# --- recurrence and loss --------------------------------------------------------------------------------------------


def test_three_iterations_in_the_first_frame_of_a_video_and_two_after_it() -> None:
    model, features = tiny(), torch.randn(2, 3, 16, 12)
    outputs, inputs = model.recurrence(features), model.project(features)
    slots = model.initial_slots.expand(2, -1, -1)
    for frame, rounds in enumerate((3, 2, 2)):
        now, maps = model.corrector(inputs[:, frame], slots, num_iter=rounds)
        slots = model.predictor(now)
        assert torch.equal(outputs.slots[:, frame], now) and torch.equal(outputs.predicted[:, frame], slots)
        assert torch.equal(outputs.attention[:, frame], maps[-1]) and len(maps) == rounds
    shorter = tiny(first_iterations=2).recurrence(features)
    assert not torch.allclose(shorter.slots[:, 0], outputs.slots[:, 0])


def test_gradient_reaches_everything_but_the_encoder() -> None:
    model = tiny().train()
    features = model.encode_frames(clip())
    assert not features.requires_grad and features.shape == (2, 5, 16, 12)
    model.loss(features)["total"].backward()
    for name, parameter in model.named_parameters():
        if name.startswith("encoder."):
            assert not parameter.requires_grad and parameter.grad is None
        else:
            assert parameter.grad is not None and parameter.grad.any(), name


def test_weight_of_the_contrast() -> None:
    features = torch.randn(2, 3, 16, 12)
    off, on = tiny(contrast_weight=0.0).loss(features), tiny(contrast_weight=0.5).loss(features)
    assert torch.equal(off["total"].detach(), off["reconstruction"]) and torch.equal(off["contrast"], on["contrast"])
    torch.testing.assert_close(on["total"].detach(), on["reconstruction"] + 0.5 * on["contrast"])
    half = tiny().loss(features.half())["total"]
    torch.testing.assert_close(half, tiny().loss(features.half().float())["total"])
    with pytest.raises(UsageError, match=r"features \(2, 3, 9, 12\) do not fit; expected \(B, T, 16, 12\)"):
        tiny().loss(torch.randn(2, 3, 9, 12))


def test_training_lowers_both_terms() -> None:
    model, features = tiny().train(), torch.randn(3, 1, 16, 12).repeat(1, 4, 1, 1)
    features = features + 0.1 * torch.randn(3, 4, 16, 12)
    optimiser, first = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2), None
    for _ in range(30):
        terms = model.loss(features)
        first = first or terms
        optimiser.zero_grad()
        terms["total"].backward()
        optimiser.step()
    assert first is not None
    assert terms["reconstruction"] < 0.9 * first["reconstruction"] and terms["contrast"] < 0.5 * first["contrast"]


def test_autocast_and_compile() -> None:
    torch._dynamo.reset()
    model, counter = tiny().train(), CompileCounter()
    step = torch.compile(model.loss, backend=counter)
    for _ in range(2):
        features = torch.randn(2, 3, 16, 12)
        torch.testing.assert_close(step(features), model.loss(features))
    assert counter.frame_count == 1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = model.loss(features)
    assert terms["contrast"].dtype == torch.float32
    torch.testing.assert_close(terms, model.loss(features), rtol=0.05, atol=0.02)


# --- predictions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [[1, 1, 1, 1, 1], [2, 3], [4, 1]])
def test_streaming_is_clip_mode(pieces: list[int]) -> None:
    model, video = tiny().double(), clip()
    whole, parts = model.predict(as_batch(video)), streamed(model, video, pieces)
    for field in ("masks", "slots", "tokens"):
        joined = torch.cat([getattr(part, field) for part in parts], dim=1)
        torch.testing.assert_close(joined, getattr(whole, field), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(parts[-1].state, whole.state, rtol=1e-10, atol=1e-10)
    assert whole.masks is not None and whole.masks.shape == (2, 5, 3, 4, 4) and whole.mask_source == "decoder"
    torch.testing.assert_close(whole.masks.sum(2), torch.ones(2, 5, 4, 4).double())
    alone = model.predict(as_batch(video[1:]))
    torch.testing.assert_close(alone.masks, whole.masks[1:])


def test_positions_tell_slot_attention_where_a_token_is() -> None:
    """In frames of one colour slots see the same everywhere without them; also on another grid, and in pieces."""
    for side, grid in ((32, (4, 4)), (48, (6, 6))):
        video = torch.full((1, 3, 3, side, side), 0.5, dtype=torch.float64)
        for positions in (False, True):
            model = tiny(positions=positions, mask_source="attention").double()
            masks = model.predict(as_batch(video)).masks
            assert masks is not None and masks.shape[-2:] == grid
            inside = masks[..., 1:-1, 1:-1]  # the convolution pads the rim
            assert bool(inside.flatten(-2).std(-1).max() > 1e-6) == positions
            last = streamed(model, video, [1, 2])[-1].masks
            torch.testing.assert_close(last, masks[:, 1:], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_chunks_change_nothing(chunk: int) -> None:
    video, whole, pieces = clip(), tiny(chunk=64), tiny(chunk=chunk)
    torch.testing.assert_close(pieces.encode_frames(video, chunk), whole.encode_frames(video))
    seen: list[int] = []
    pieces.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    prediction, expected = pieces.predict(as_batch(video)), whole.predict(as_batch(video))
    assert max(seen) == chunk and sum(seen) == 10
    for field in ("masks", "slots", "tokens", "state"):
        torch.testing.assert_close(getattr(prediction, field), getattr(expected, field))


def test_an_image_is_a_video_of_one_frame() -> None:
    model, video = tiny(), clip(frames=1)
    image = model.predict(Batch(("a", "b"), video[:, 0]))
    frame = model.predict(as_batch(video))
    assert image.masks is not None and image.masks.shape == (2, 3, 4, 4) and image.state is None
    for field in ("masks", "slots", "tokens"):
        assert torch.equal(getattr(image, field), getattr(frame, field)[:, 0])


def test_masks_of_the_attention() -> None:
    model, batch = tiny(mask_source="attention"), as_batch(clip())
    prediction = model.predict(batch)
    attention = model.recurrence(model.encode_frames(clip())).attention
    assert prediction.masks is not None and prediction.mask_source == "attention"
    torch.testing.assert_close(prediction.masks.flatten(3), attention)
    assert not torch.allclose(prediction.masks, tiny().predict(batch).masks)  # type: ignore[arg-type]


def test_attention_prior_moves_the_masks_and_can_be_off() -> None:
    features = torch.randn(2, 3, 16, 12)
    model, plain = tiny(), tiny(attention_prior=False)
    outputs = model.recurrence(features)
    reconstruction, masks = plain.decode(outputs.slots)
    _, moved = model.decode(outputs.slots, outputs.attention)
    odds = moved / moved[:, :, :1] / (masks / masks[:, :, :1])
    torch.testing.assert_close(odds, outputs.attention / outputs.attention[:, :, :1], rtol=1e-3, atol=1e-3)
    assert reconstruction.shape == (2, 3, 16, 12)
    with pytest.raises(UsageError, match="attention_prior: the decoder needs the attention"):
        model.decode(outputs.slots)


def test_frames_of_another_size() -> None:
    """The decoder's positions are resampled, as the official code can do at evaluation; patches must fit."""
    model = tiny()
    prediction = model.predict(as_batch(clip(side=48)))
    assert prediction.masks is not None and prediction.masks.shape == (2, 5, 3, 6, 6)
    tall = model.predict(as_batch(clip(side=32).repeat(1, 1, 1, 2, 1)))
    assert tall.masks is not None and tall.masks.shape == (2, 5, 3, 8, 4)
    with pytest.raises(UsageError, match="frames of 30x30 pixels: the sides must be multiples of 8"):
        model.predict(as_batch(clip(side=30)))


@pytest.mark.parametrize(("value", "sample", "frame"), [(float("nan"), 1, 3), (float("inf"), 0, 0)])
def test_frames_that_are_not_finite_are_named(value: float, sample: int, frame: int) -> None:
    model, video = tiny(), clip()
    video[sample, frame, 0, 5, 5] = value
    with pytest.raises(SampleError, match=f"sample video-{sample}: frame {10 + frame} holds NaN or infinity"):
        model.predict(as_batch(video, 10, torch.zeros(2, 3, 8)))
    with pytest.raises(SampleError, match=f"sample picture-{sample}: the image holds NaN or infinity"):
        model.predict(Batch(("picture-0", "picture-1"), video[:, frame]))


def test_a_missing_state_is_no_new_video() -> None:
    model, video = tiny(), clip()
    with pytest.raises(UsageError, match=r"frames from 5 on: batch.state is NoneType, expected \(2, 3, 8\)"):
        model.predict(as_batch(video, 5))
    with pytest.raises(UsageError, match=r"batch.state is \(1, 3, 8\), expected \(2, 3, 8\)"):
        model.predict(as_batch(video, 5, torch.zeros(1, 3, 8)))


def test_slots_are_merged_over_the_whole_clip() -> None:
    plain = tiny(slots=5).predict(as_batch(clip()))
    assert plain.slots is not None and plain.masks is not None and not plain.whole_clip
    unit = nn.functional.normalize(plain.slots, dim=-1)
    distances = (1 - unit @ unit.transpose(-1, -2)).mean(1) + 3 * torch.eye(5)
    nearest = float(distances.flatten(1).min(1).values.max()) + 1e-3  # each of the two videos has a pair below it
    merging = tiny(slots=5, merge_threshold=nearest)
    found = merging.predict(as_batch(clip()))
    slots, masks = merge_clip(plain.slots, plain.masks, nearest)
    assert found.whole_clip and merging.whole_video and not tiny().whole_video
    torch.testing.assert_close(found.slots, slots)
    torch.testing.assert_close(found.masks, masks)
    assert not torch.equal(masks, plain.masks)
    torch.testing.assert_close(masks.sum(2), torch.ones_like(masks[:, :, 0]))
    image = merging.predict(Batch(("a", "b"), clip()[:, 0]))
    torch.testing.assert_close(image.masks, merging.predict(as_batch(clip()[:, :1])).masks[:, 0])  # type: ignore[index]
    assert not image.whole_clip
    with pytest.raises(UsageError, match="frames from 3 on: merging over the clip needs the whole video in one batch"):
        merging.predict(as_batch(clip(), 3, torch.zeros(2, 5, 8)))


def test_the_signature_says_that_later_frames_were_seen(tmp_path: Path) -> None:
    options = {"encoder": "cnn", "blocks": [1], **TINY, "merge_threshold": 0.5}
    result = evaluate(
        "slotcontrast-paper",
        "movi-c",
        limit=1,
        options=options,
        results=tmp_path,
        progress=False,
        save_predictions=True,
    )
    assert "mask:decoder+whole-clip│" in result.task.signature and result.path is not None
    again = replay(result.path).now
    assert again.task.signature == result.task.signature and again.metrics == result.metrics


def test_the_contract_of_video_models() -> None:
    options = {"encoder": "cnn", "attention_prior": True, "blocks": [1], **TINY}
    checks = check_model("slotcontrast-paper", "movi-c", options=options)
    assert all(check.passed for check in checks), [check for check in checks if not check.passed]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "huge"}, "option preset: 'huge' is unknown; use paper or embedded"),
        ({"preset": "paper", "variant": "davis"}, "option variant: 'davis' is unknown; use movi_c or movi_e or ytvis"),
        ({"encoder": "resnet"}, "option encoder: 'resnet' is unknown"),
        ({"input_size": 100}, "option input_size: 100 is invalid; use a multiple of 8, at least 16"),
        ({"slots": 0}, "option slots: 0 is invalid; use a whole number from 1"),
        ({"slot_dim": 10}, "option slot_dim: 10 is invalid; use a multiple of the 4 heads"),
        ({"temperature": 0}, "option temperature: 0 is invalid"),
        ({"contrast_weight": -1}, "option contrast_weight: -1 is invalid"),
        ({"mask_source": "slots"}, "option mask_source: 'slots' is unknown; use decoder or attention"),
        ({"merge_threshold": 3}, "option merge_threshold: 3 is not a cosine distance; use 0 to 2, or null for no"),
    ],
)
def test_options_that_make_no_sense(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(**({"preset": "embedded"} | TINY | options))


# --- sizes ----------------------------------------------------------------------------------------------------------

COUNTS = {
    "movi_c": (25_119_745, 3_064_321, {"project": 345_664, "corrector": 70_720, "predictor": 49_984}),
    "movi_e": (91_531_777, 4_953_601, {"project": 1_379_456, "corrector": 280_704, "predictor": 198_272}),
    "ytvis": (91_022_017, 4_443_841, {"project": 1_281_088, "corrector": 70_720, "predictor": 49_984}),
}
DECODERS = {"movi_c": 2_597_249, "movi_e": 3_093_249, "ytvis": 3_041_601}


def count(module: nn.Module, trained: bool = False) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad or not trained)


@pytest.mark.parametrize("variant", list(COUNTS))
def test_paper_sizes(variant: str) -> None:
    loaded = get_model_on_meta(variant)
    total, trained, parts = COUNTS[variant]
    assert count(loaded) == total and count(loaded, trained=True) == trained
    parts = parts | {"decoder": DECODERS[variant], "encoder": 22_055_424 if variant == "movi_c" else 86_578_176}
    assert {name: count(loaded.get_submodule(name)) for name in parts} == parts
    assert len(loaded.state_dict()) == 217 and loaded.predictor.attention.heads == 4
    assert loaded.first_iterations == 3 and loaded.iterations == 2 and not loaded.attention_prior
    assert (loaded.contrast_weight, loaded.temperature, loaded.batch_contrast) == (0.5, 0.1, True)
    assert loaded.grid == ((37, 37) if variant == "ytvis" else (24, 24)) and loaded.patch == 14


def get_model_on_meta(variant: str, **options: Any) -> SlotContrast:
    with torch.device("meta"):
        return build(variant=variant, **options)


def flops(make: Callable[..., SlotContrast], variant: str) -> tuple[float, float]:
    """Giga-operations of a frame by torch's counter, without and with the encoder's attention.

    The specification's numbers are without it: on a CPU the counter does not see fused attention.
    """
    with torch.device("meta"):
        model = make(variant=variant).requires_grad_(False)
        with FlopCounterMode(display=False) as encoder:
            features = model.encode_frames(torch.empty(1, 1, 3, model.input_size, model.input_size))
        with FlopCounterMode(display=False) as rest:
            outputs = model.recurrence(features)
            model.decode(outputs.slots, outputs.attention)
    attention = encoder.get_flop_counts()["Global"][torch.ops.aten.bmm]
    whole = encoder.get_total_flops() + rest.get_total_flops()
    return (whole - attention) / 1e9, whole / 1e9


@pytest.mark.parametrize(
    ("variant", "teacher", "ratio", "with_attention"), [("movi_e", 152.3, 2.16, 2.14), ("ytvis", 294.0, 2.70, 2.53)]
)
def test_operations_of_a_frame(variant: str, teacher: float, ratio: float, with_attention: float) -> None:
    ours, students = flops(build, variant), flops(slotmatch.build, variant)
    assert ours[0] == pytest.approx(teacher, abs=0.35)
    assert ours[0] / students[0] == pytest.approx(ratio, abs=0.006)
    assert ours[1] / students[1] == pytest.approx(with_attention, abs=0.006)


def test_paper_encoder_is_dinov2_before_the_final_norm() -> None:
    """ImageNet's statistics inside, timm's rule for positions, and no norm at the end."""
    torch.manual_seed(0)
    encoder, image = dinov2(dim=24, heads=3, depth=2, grid=5).eval(), torch.rand(2, 3, 42, 42)
    vit, actual = encoder.vit, encoder(image)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    patches = vit.patch_embed((image - mean) / std).flatten(2).transpose(1, 2)
    positions = resample_positions(vit.pos_embed, (3, 3), prefix=1, antialias=True)
    x = torch.cat([vit.cls_token.expand(2, -1, -1), patches], dim=1) + positions
    for block in vit.blocks:
        x = block(x)
    torch.testing.assert_close(actual, x[:, 1:].transpose(1, 2).unflatten(2, (3, 3)))
    assert cast(Block, vit.blocks[0]).norm1.eps == 1e-6 and actual.shape == (2, 24, 3, 3)


def test_embedded_size_takes_any_encoder() -> None:
    with torch.device("meta"):
        small, large = build(preset="embedded"), build(preset="embedded", encoder="vit_small", input_size=224)
    assert small.grid == large.grid == (16, 16) and small.attention_prior and large.attention_prior
    assert (small.feature_dim, large.feature_dim) == (64, 384) and small.slots == 11


def test_card_of_the_paper_size() -> None:
    loaded = get_model("slotcontrast-paper", options={"encoder": "cnn", **TINY})
    assert loaded.card.supervision == "none" and not loaded.card.weights
    assert get_model_on_meta(**loaded.card.options | {"variant": "ytvis"}).grid == (37, 37)


def test_own_weights_come_back(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    model, other = tiny(), tiny()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    save_weights(model, path, torch.float32)
    load_weights(other, path)
    prediction, expected = other.predict(as_batch(clip())), model.predict(as_batch(clip()))
    assert torch.equal(prediction.masks, expected.masks)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="K differs: the checkpoint has 3 slots, the model 4; use --option slots=3"):
        load_weights(tiny(slots=4), path)

"""SlotCurri and SRL: parity of cyclic inference, names and shapes of official files, the signature, refused files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from official import Shapes, drawn, fits, numbers
from official import slotcontrast_shapes as official
from parity_case import DTYPES, Case
from torch import Tensor, nn

from ocl_bench.cards.names import get_card
from ocl_bench.core.errors import UsageError
from ocl_bench.core.types import Batch
from ocl_bench.evaluation.check_model import check_model
from ocl_bench.evaluation.evaluate import evaluate
from ocl_bench.evaluation.supplied.score import replay
from ocl_bench.models import slotcontrast
from ocl_bench.models.checkpoints.names import load_weights
from ocl_bench.models.checkpoints.slotcontrast import BACKBONES, VARIANTS
from ocl_bench.models.slotcontrast import SlotContrast, dinov2
from ocl_bench.models.slotcurri import SRL, SlotCurri, build, build_srl


class Features(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image


def of_parity(dtype: torch.dtype, **options: Any) -> SlotCurri:
    shape = {"feature_dim": 20, "grid": (4, 4), "input_size": 4, "slots": 5, "slot_dim": 16, "hidden": 24}
    return SlotCurri(Features(), **shape, **options).to(dtype)  # type: ignore[arg-type]


def features_as_video(features: Tensor) -> Batch:
    """Features (B, T, P, F) as videos whose pixels they are; they are not images in [0, 1]."""
    video = features.transpose(2, 3).unflatten(3, (4, 4))
    return Batch(tuple(f"video-{i}" for i in range(len(video))), video[:, 0], video=video)


@DTYPES
@pytest.mark.parametrize("chunk", [1, 2, 4, 16])
def test_parity_of_cyclic_inference(dtype: torch.dtype, chunk: int) -> None:
    """Slots, attention, decoder masks and label maps, forward and cyclic, whatever the pieces of the video."""
    case = Case("slotcurri_cyclic", dtype)
    batch = features_as_video(case["in.features"])
    for name, cyclic in (("forward", False), ("cyclic", True)):
        for source, stored in (("decoder", "decoder_masks"), ("attention", "grouping_masks")):
            model = of_parity(dtype, cyclic=cyclic, chunk=chunk, mask_source=source)
            model.load_state_dict(model.translate_checkpoint(case.weights), strict=True)
            prediction = model.predict(batch)
            assert prediction.masks is not None and prediction.passes == (2 if cyclic else 1)
            masks = prediction.masks.flatten(3)
            case.check(f"out.{name}.{stored}", masks)
            if source == "decoder":
                # Processors add in another order, and in float32 two masks of a token are equal but for that.
                first, second = masks.topk(2, dim=2).values.unbind(2)
                tie = (first - second < 1e-6) & (dtype == torch.float32)
                labels = torch.where(tie, case[f"out.{name}.decoder_labels"].long(), masks.argmax(2))
                case.check(f"out.{name}.decoder_labels", labels.to(torch.uint8))
        case.check(f"out.{name}.state", prediction.slots)
    case.check("out.features", model.project(case["in.features"]))
    case.all_checked()


def tiny(**options: Any) -> SlotCurri:
    torch.manual_seed(0)
    small = {"width": 8, "dim": 12, "input_size": 32, "slots": 3, "slot_dim": 8, "hidden": 16, "decoder_layers": 2}
    return build(preset="embedded", **(small | options))


def clip(frames: int = 4) -> Batch:
    video = torch.rand(1, frames, 3, 32, 32, generator=torch.Generator().manual_seed(frames))
    return Batch(("v",), video[:, 0], video=video)


def test_every_frame_but_the_last_has_seen_the_end() -> None:
    model = tiny()
    one, other = clip(), clip()
    changed = other.video.clone()  # type: ignore[union-attr]
    changed[:, -1] = 0.1
    prediction = model.predict(one)
    again = model.predict(Batch(("v",), changed[:, 0], video=changed))
    assert not torch.equal(prediction.slots[:, 0], again.slots[:, 0])  # type: ignore[index]
    forward = tiny(cyclic=False)
    first, second = forward.predict(one), forward.predict(Batch(("v",), changed[:, 0], video=changed))
    assert torch.equal(first.slots[:, :3], second.slots[:, :3])  # type: ignore[index]
    torch.testing.assert_close(first.slots[:, 3], prediction.slots[:, 3])  # type: ignore[index]


def test_an_image_and_a_video_of_one_frame_are_ordinary() -> None:
    cyclic, forward = tiny(), tiny(cyclic=False)
    for batch in (clip(1), Batch(("a",), clip().image)):
        prediction, expected = cyclic.predict(batch), forward.predict(batch)
        assert torch.equal(prediction.masks, expected.masks)  # type: ignore[arg-type]
    assert prediction.passes == 1 and cyclic.predict(clip(1)).passes == 2


def test_a_part_of_a_video_is_refused() -> None:
    later = Batch(("v",), clip().image, video=clip().video, start=4, state=torch.zeros(1, 3, 8))
    with pytest.raises(UsageError, match="frames from 4 on: cyclic inference needs the whole video in one batch"):
        tiny().predict(later)
    assert tiny(cyclic=False).predict(later).masks is not None
    assert tiny().whole_video and not tiny(cyclic=False).whole_video


def test_the_signature_says_that_the_video_was_seen_twice(tmp_path: Path) -> None:
    options = {
        "encoder": "cnn",
        "blocks": [1],
        "width": 8,
        "dim": 12,
        "input_size": 32,
        "hidden": 16,
    }
    for cyclic, expected in ((True, "mask:decoder+passes-2│"), (False, "mask:decoder│")):
        result = evaluate(
            "slotcurri-paper", "movi-c", limit=1, options=options | {"cyclic": cyclic, "slot_dim": 8, "slots": 3},
            results=tmp_path, progress=False, save_predictions=True,
        )  # fmt: skip
        assert expected in result.task.signature, result.task.signature
        assert result.model.mask_source == expected.removeprefix("mask:").removesuffix("│")
        assert result.path is not None
        again = replay(result.path).now
        assert again.task.signature == result.task.signature and again.metrics == result.metrics


# --- official files ---------------------------------------------------------------------------------------------------


def projections(slot: int, width: int) -> Shapes:
    """The two tensors that SRL's files have besides."""
    return {"projector.projector.weight": (slot, width), "projector2.projector.weight": (slot, slot)}


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_all_tensors_have_their_place(variant: str) -> None:
    options = VARIANTS[variant]
    width, slot = BACKBONES[options["encoder"]]["dim"], options["slot_dim"]
    shapes = official(options["slots"], slot, (options["input_size"] // 14) ** 2, width)
    with torch.device("meta"):
        model, srl, base = build(variant=variant), build_srl(variant=variant), slotcontrast.build(variant=variant)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert len(shapes) == 217 and count == numbers(shapes) == sum(p.numel() for p in base.parameters())
    assert fits(model, shapes) and model.cyclic
    assert fits(srl, shapes | projections(slot, width)) and len(shapes | projections(slot, width)) == 219


SMALL = official(3, 8, 16, 12, blocks=2, positions=26, hidden=16)


def small(kind: type[SlotContrast]) -> SlotContrast:
    torch.manual_seed(0)
    shape = {"feature_dim": 12, "grid": (4, 4), "input_size": 56, "slots": 3, "slot_dim": 8, "hidden": 16}
    return kind(dinov2(dim=12, heads=2, depth=2, grid=5), **shape).eval()  # type: ignore[arg-type]


def test_official_files_load_and_give_the_same_as_slotcontrast(tmp_path: Path) -> None:
    state = drawn(SMALL)
    torch.save({"state_dict": state, "global_step": 3}, tmp_path / "slotcurri.ckpt")
    torch.save({"state_dict": state | drawn(projections(8, 12))}, tmp_path / "srl.ckpt")
    models = small(SlotCurri), small(SRL), small(SlotContrast)
    for model, name in zip(models, ("slotcurri", "srl", "slotcurri"), strict=True):
        load_weights(model, tmp_path / f"{name}.ckpt")
    batch = Batch(("a",), torch.rand(1, 3, 56, 56))
    masks = [model.predict(batch).masks for model in models]
    assert torch.equal(masks[0], masks[2]) and torch.equal(masks[1], masks[2])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (SlotCurri, projections(8, 12), r"tensor 'projector.projector.weight' \(8, 12\) has no counterpart"),
        (SlotCurri, {"initializer.slots": (1, 7, 8)}, "K differs: the checkpoint has 7 slots, the model 3"),
        (SlotCurri, {"decoder.module.mlp.layers.6.bias": None}, r"misses tensor 'decoder.mlp.6.bias' \(13,\)"),
        (SRL, {}, r"misses tensor 'projector.projector.weight' \(8, 12\); for a file without it use slotcontrast"),
        (SRL, projections(8, 13), r"'projector.projector.weight' has shape \(8, 13\), expected \(8, 12\)"),
        (SRL, projections(8, 12) | {"projector3.weight": (2,)}, r"'projector3.weight' \(2,\) has no counterpart"),
        (SRL, projections(8, 12) | {"initializer.slots": None}, "misses tensor 'initial_slots'"),
    ],
)  # fmt: skip
def test_files_that_do_not_fit_are_named(kind: type[SlotContrast], changes: dict, message: str, tmp_path: Path) -> None:
    shapes = {name: shape for name, shape in (SMALL | changes).items() if shape is not None}
    torch.save({"state_dict": drawn(shapes)}, tmp_path / "file.ckpt")
    with pytest.raises(UsageError, match=f"file.ckpt: .*{message}") as error:
        load_weights(small(kind), tmp_path / "file.ckpt")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["slotcurri-paper", "srl-paper"])
def test_cards_and_contract(name: str) -> None:
    card = get_card(name)
    assert not card.weights and card.supervision == "none"
    assert card.families == ("discovery", "video", "dynamics", "contact", "reasoning")
    options = {"encoder": "cnn", "attention_prior": True, "blocks": [1], "width": 8, "dim": 12, "input_size": 32}
    options |= {"slots": 3, "slot_dim": 8, "hidden": 16, "decoder_layers": 2}
    checks = check_model(name, "movi-c", options=options)
    assert all(check.passed for check in checks), [check for check in checks if not check.passed]
    with pytest.raises(UsageError, match="option variant: 'davis' is unknown"):
        (build if name == "slotcurri-paper" else build_srl)(variant="davis")


def test_cyclic_is_true_or_false() -> None:
    with pytest.raises(UsageError, match=re.escape("option cyclic: 'twice' is unknown; use True or False")):
        tiny(cyclic="twice")

"""SmoothSA and RandSF.Q: parity with the official code, official files, the flag of DIAS, streaming, bad input."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from official import Shapes, dias_shapes, fits, linear, norm, numbers
from parity_case import DTYPES, Case
from torch import Tensor, nn

from ocl_bench.cards.names import get_card
from ocl_bench.core.errors import SampleError, UsageError
from ocl_bench.core.types import Batch
from ocl_bench.evaluation.check_model import check_model
from ocl_bench.models import dias, randsfq
from ocl_bench.models.checkpoints.names import load_weights, save_weights
from ocl_bench.models.checkpoints.smoothsa import SMOOTH_NAMES, TRANSITION_NAMES
from ocl_bench.models.dias import DIAS
from ocl_bench.models.layers.smooth_initialisation import PREHEAT_WEIGHT, SmoothGaussian
from ocl_bench.models.randsfq import RandSFQ
from ocl_bench.training.dias_objective import SlotObjective, SlotOptions

# --- parity -----------------------------------------------------------------------------------------------------------


def tiny(dtype: torch.dtype, kind: type[DIAS] = DIAS, **options: Any) -> DIAS:
    """The model of the parity files: 5 x 5 tokens of 24 channels, 5 slots of 16, 2 decoder layers."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {"feature_dim": 24, "tokens": 25, "input_size": 5, "slots": 5, "slot_dim": 16}
    shape |= {"decoder_layers": 2, "initialisation": "smooth", "distill": False}
    return kind(nn.Identity(), **(shape | options)).to(dtype)


def check_gradients(case: Case, model: DIAS, prefix: str = "") -> None:
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for key in [key for key in sorted(case.unchecked) if key.startswith(f"grad.{prefix}")]:
        official = key.removeprefix("grad.")
        official = official if official.startswith("m.") else f"m.{official}"
        (ours,) = model.translate_checkpoint({official: torch.zeros(())})
        case.check(key, gradients[ours])


@DTYPES
def test_parity_of_the_initialiser(dtype: torch.dtype) -> None:
    """In evaluation and training; while `detached`, the tokens get no gradient at all."""
    case, model = Case("smoothsa_initializer", dtype), tiny(dtype)
    unexpected = model.load_state_dict(model.translate_checkpoint(case.weights), strict=False).unexpected_keys
    assert not unexpected and isinstance(model.initialisation, SmoothGaussian)
    for training, name in ((False, "eval"), (True, "train")):
        model.train(training)
        for detached in (True, False):
            inputs = case.trainable("in.encode")
            model.zero_grad()
            model.initialisation.detached.fill_(detached)
            query, warm = model.initial_slots(inputs, case["in.noise1"], case["in.noise2"])
            case.check(f"out.{name}.qinit", warm)
            case.check(f"out.{name}.query", query)
            if training:
                (100 * F.mse_loss(warm, case["in.target"]) + query.square().mean()).backward()  # type: ignore[arg-type]
                gradient = inputs.grad if inputs.grad is not None else torch.zeros_like(inputs)
                case.check("out.grad_detached.in.encode" if detached else "grad.in.encode", gradient)
                if detached:
                    check_gradients(case, model, "initializ")
    case.all_checked()


@DTYPES
def test_parity_of_the_full_model(dtype: torch.dtype) -> None:
    case, model = Case("smoothsa_full_model", dtype), tiny(dtype)
    model.load_state_dict(model.translate_checkpoint(case.weights), strict=True)
    features = case["in.feature"].flatten(2).transpose(1, 2)
    keep = torch.where(case["in.cond"].bool(), case["in.keep"], 24)
    shown = torch.arange(25).expand(3, -1) < keep
    visible = torch.zeros(3, 25, dtype=torch.bool).scatter(1, case["in.perm"], shown)
    for name, options in (("eval", {}), ("train", {"visible": visible, "query_noise": case["in.noise2"]})):
        model.train(name == "train")
        result = model.decompose(features, case["in.noise1"], **options)
        case.check(f"out.{name}.qinit", result.warm)
        case.check(f"out.{name}.slots", result.slots)
        case.check(f"out.{name}.attent_aggregat", result.final_attention.unflatten(2, (5, 5)))
        case.check(f"out.{name}.attent_decode", result.masks.unflatten(2, (5, 5)))
        case.check(f"out.{name}.reconstruction", result.reconstruction.transpose(1, 2).unflatten(2, (5, 5)))
        terms = model.loss(features, noise=case["in.noise1"], **({"visible": None} | options))
        case.check(f"out.{name}.loss_recon", terms["reconstruction"])
        case.check(f"out.{name}.loss_preheat", PREHEAT_WEIGHT * terms["preheat"])
        case.check(f"out.{name}.loss_total", terms["total"])
    terms["total"].backward()
    check_gradients(case, model)
    case.all_checked()


@DTYPES
@pytest.mark.parametrize("cut", [1, 2, 3])
def test_parity_of_the_video_model(dtype: torch.dtype, cut: int) -> None:
    """Queries, slots, both masks of three frames; whole, and continued from `state` after `cut` frames."""
    case, model = Case("smoothsa_video_eval", dtype), tiny(dtype, RandSFQ)
    assert isinstance(model, RandSFQ)
    model.eval().load_state_dict(model.translate_checkpoint(case.weights), strict=True)
    features = case["in.feature"].flatten(3).transpose(2, 3)
    parts, state = [], None
    for piece in (features[:, :cut], features[:, cut:]):
        if piece.shape[1]:
            parts.append(model.follow(piece, case["in.noise1"], state))
            state = parts[-1].slots[:, -1]
    queries, slots, attention, masks = (
        torch.cat([getattr(part, name) for part in parts], dim=1) for name in ("queries", "slots", "attention", "masks")
    )
    case.check("out.qinit0", queries[:, 0])
    case.check("out.query", queries[:, 1:])
    case.check("out.slots", slots)
    case.check("out.attent_aggregat", attention.unflatten(3, (5, 5)))
    case.check("out.attent_decode", masks.unflatten(3, (5, 5)))
    case.all_checked()


def test_the_gradient_of_bilevel_runs_through_one_round_only() -> None:
    """Values stay those of ordinary slot attention; other gradients than its whole ones."""
    smooth, plain = tiny(torch.float64), tiny(torch.float64, initialisation="shared")
    plain.aggregation.load_state_dict(smooth.aggregation.state_dict())
    inputs, start = torch.randn(1, 25, 24).double(), torch.randn(1, 5, 16).double()
    gradients = []
    for model in (smooth, plain):
        initial = start.clone().requires_grad_()
        slots, _ = model.aggregation(inputs, initial)
        slots.square().sum().backward()
        gradients.append((slots.detach(), initial.grad))
    assert torch.equal(gradients[0][0], gradients[1][0])
    before, _ = plain.aggregation(inputs, start, num_iter=2)
    last = before.detach().requires_grad_()
    plain.aggregation(inputs, last, num_iter=1)[0].square().sum().backward()
    torch.testing.assert_close(gradients[0][1], last.grad)
    assert (gradients[0][1] - gradients[1][1]).abs().max() > 1e-3


# --- names, shapes, sizes ---------------------------------------------------------------------------------------------


def initialiser(slot: int = 256, width: int = 384) -> Shapes:
    """The 12 tensors that SmoothSA has besides those of DIAS."""
    at = "m.initializ"
    shapes: Shapes = {f"{at}.logstd2": (1, 1, slot), f"{at}.detach_flag": ()}
    shapes |= linear(f"{at}.qproj_kv", slot, width)
    for name in ("self_attn", "multihead_attn"):
        shapes |= {f"{at}.qinit.{name}.in_proj_weight": (3 * slot, slot)}
        shapes |= {f"{at}.qinit.{name}.out_proj.weight": (slot, slot)}
    shapes |= linear(f"{at}.qinit.linear1", 4 * slot, slot, bias=False)
    shapes |= linear(f"{at}.qinit.linear2", slot, 4 * slot, bias=False)
    return shapes | norm(f"{at}.qinit.norm1", slot, bias=False) | norm(f"{at}.qinit.norm3", slot, bias=False)


def transition(slot: int = 256, width: int = 384) -> Shapes:
    """The 12 tensors of RandSF.Q's transition."""
    at = "m.transit.transit"
    shapes: Shapes = {"m.transit.te.weight": (5, slot)} | linear("m.transit.proji", slot, width)
    for name in ("self_attn", "multihead_attn"):
        shapes |= {f"{at}.{name}.in_proj_weight": (3 * slot, slot), f"{at}.{name}.out_proj.weight": (slot, slot)}
    shapes |= linear(f"{at}.linear1", 4 * slot, slot, bias=False) | linear(f"{at}.linear2", slot, 4 * slot, bias=False)
    for number in (1, 2, 3):
        shapes |= norm(f"{at}.norm{number}", slot, bias=False)
    return shapes


def smooth_shapes() -> Shapes:
    return dias_shapes() | initialiser()


@pytest.mark.parametrize(
    ("name", "options", "shapes"),
    [
        ("smoothsa-paper", {}, smooth_shapes()),
        ("randsfq-paper", {}, dias_shapes() | transition()),
        ("randsfq-paper", {"initialisation": "smooth"}, smooth_shapes() | transition()),
    ],
)
def test_all_tensors_of_official_files_have_their_place(name: str, options: dict, shapes: Shapes) -> None:
    card = get_card(name)
    factory = dias.build if name == "smoothsa-paper" else randsfq.build
    with torch.device("meta"):
        model = factory(**(card.options | options))
    assert fits(model, shapes) and len(initialiser()) == 12 and len(transition()) == 12
    assert sum(p.numel() for p in model.parameters()) == numbers(shapes) - ("m.initializ.detach_flag" in shapes)
    assert len([key for key in dias_shapes() if "encode_backbone" not in key]) == 69


def test_every_renaming_rule_is_used() -> None:
    for pattern, _ in (*SMOOTH_NAMES, *TRANSITION_NAMES):
        assert any(re.match(pattern, name) for name in initialiser() | transition()), pattern


def test_an_official_file_loads_and_comes_back(tmp_path: Path) -> None:
    case = Case("smoothsa_full_model", torch.float32)
    torch.save(case.weights, tmp_path / "42-0030.pth")
    model, again = tiny(torch.float32).eval(), tiny(torch.float32).eval()
    load_weights(model, tmp_path / "42-0030.pth")
    save_weights(model, tmp_path / "own.safetensors", torch.float32)
    load_weights(again, tmp_path / "own.safetensors")
    batch = Batch(("a", "b"), torch.rand(2, 24, 5, 5))
    assert torch.equal(model.predict(batch).masks, again.predict(batch).masks)  # type: ignore[arg-type]
    assert again.initialisation.detached.dtype == torch.bool


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"m.initializ.logstd2": None}, r"misses tensor 'initialisation.log_std_query' \(1, 1, 16\)"),
        ({"m.initializ.qinit.norm2.weight": (16,)}, r"unexpected tensor 'initialisation.qinit.norm2.weight' \(16,\)"),
        ({"m.transit.te.weight": (5, 16)}, r"tensor 'm.transit.te.weight' \(5, 16\) has no counterpart"),
        ({"m.initializ.logstd2": (1, 1, 8)}, r"'initialisation.log_std_query' has shape \(1, 1, 8\)"),
        ({"initial_slots": (1, 5, 16)}, r"tensor 'initial_slots' \(1, 5, 16\) has no counterpart"),
    ],
)
def test_files_that_do_not_fit_are_named(changes: dict, message: str, tmp_path: Path) -> None:
    weights = Case("smoothsa_full_model", torch.float32).weights
    for name, shape in changes.items():
        weights.pop(name, None)
        if shape is not None:
            weights[name] = torch.zeros(shape)
    torch.save(weights, tmp_path / "file.pth")
    with pytest.raises(UsageError, match=f"file.pth: .*{message}") as error:
        load_weights(tiny(torch.float32), tmp_path / "file.pth")
    assert "\n" not in str(error.value)


def test_files_of_dias_smoothsa_and_randsfq_are_told_apart(tmp_path: Path) -> None:
    smooth = Case("smoothsa_full_model", torch.float32).weights
    video = Case("smoothsa_video_eval", torch.float32).weights
    plain = {name: value for name, value in smooth.items() if name not in initialiser()}
    for name, weights in (("smooth", smooth), ("video", video), ("plain", plain)):
        torch.save(weights, tmp_path / f"{name}.pth")
    wrong = [
        (DIAS, "shared", "smooth", "has unexpected tensor 'initialisation.log_std_query'"),
        (DIAS, "smooth", "plain", "misses tensor 'initialisation.log_std_query'"),
        (DIAS, "smooth", "video", "tensor 'm.transit"),
        (RandSFQ, "smooth", "smooth", "misses tensor 'transition.time'"),
        (RandSFQ, "shared", "video", "has unexpected tensor 'initialisation.log_std_query'"),
    ]
    for kind, start, name, message in wrong:
        with pytest.raises(UsageError, match=f"{name}.pth: {message}"):
            load_weights(tiny(torch.float32, kind, initialisation=start), tmp_path / f"{name}.pth")


# --- videos -----------------------------------------------------------------------------------------------------------


def small_video_model() -> RandSFQ:
    torch.manual_seed(0)
    return randsfq.build(encoder="cnn", dim=16, width=8, blocks=(1,), input_size=32, slots=3, slot_dim=8)


def test_clips_of_any_length_give_the_same() -> None:
    model, video = small_video_model(), torch.rand(1, 5, 3, 32, 32)
    whole = model.predict(Batch(("v",), video[:, 0], video=video))
    parts, state = [], None
    for start in (0, 2):
        piece = video[:, start : start + 2 if start == 0 else None]
        part = model.predict(Batch(("v",), piece[:, 0], video=piece, start=start, state=state))
        parts.append(part.masks)
        state = part.state
    torch.testing.assert_close(torch.cat(parts, dim=1), whole.masks)  # type: ignore[arg-type]
    image = model.predict(Batch(("v",), video[:, 0]))
    torch.testing.assert_close(image.masks, whole.masks[:, 0])  # type: ignore[index]
    assert image.masks.shape == (1, 3, 4, 4) and image.state is None  # type: ignore[union-attr]


def test_bad_videos_are_named() -> None:
    model, video = small_video_model(), torch.rand(1, 3, 3, 32, 32)
    with pytest.raises(UsageError, match=r"frames from 3 on: batch.state is NoneType, expected \(1, 3, 8\)"):
        model.predict(Batch(("v",), video[:, 0], video=video, start=3))
    video[0, 2, 1, 4, 4] = torch.nan
    with pytest.raises(SampleError, match="sample v: frame 2 holds NaN or infinity"):
        model.predict(Batch(("v",), video[:, 0], video=video))


# --- the training flag of DIAS, cards, options ------------------------------------------------------------------------


class _Rows:
    """Cached tokens."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, indices: Any) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        return torch.randn(8, 16, 16, generator=generator)[torch.as_tensor(indices)]


def objective(model: DIAS, smooth: bool) -> SlotObjective:
    rows: Any = _Rows()
    options = SlotOptions(kind="slots", flip=False)
    return SlotObjective(rows, None, options, 0, 4, model.slots, model.slot_dim, 0.0, lambda model: {}, smooth)


def test_the_flag_trains_and_the_projection_follows_after_a_tenth() -> None:
    """The preheating brings the initial slots towards the final ones."""
    torch.manual_seed(0)
    model = dias.build(
        encoder="cnn", dim=16, width=8, blocks=(1,), input_size=32, slots=3, slot_dim=8, decoder_layers=1,
        initialisation="smooth", distill=False,
    ).train()  # fmt: skip
    assert isinstance(model.initialisation, SmoothGaussian)
    training, optimiser, losses = objective(model, True), torch.optim.Adam(model.parameters(), lr=3e-3), []
    for step in range(40):
        terms = training.loss(model, training.batch(step), step / 40)
        assert bool(model.initialisation.detached) == (step < 4)
        optimiser.zero_grad()
        terms["total"].backward()
        optimiser.step()
        losses.append(float(terms["preheat"]))
    assert set(terms) == {"total", "reconstruction", "preheat"} and losses[-1] < 0.5 * losses[0]


def test_other_trainings_draw_what_they_drew() -> None:
    """The noise of the queries comes last, and only where it is needed."""
    model = small_video_model()
    plain, smooth = objective(model, False).batch(3), objective(model, True).batch(3)
    assert set(smooth) - set(plain) == {"query_noise"}
    assert torch.equal(plain["noise"], smooth["noise"]) and plain["merge"] == smooth["merge"]
    assert torch.equal(plain["visible"], smooth["visible"])


def test_a_training_step_needs_the_noise_of_its_queries() -> None:
    model = tiny(torch.float32).train()
    with pytest.raises(UsageError, match=r"a training step needs query_noise \(B, K, C\)"):
        model.loss(torch.rand(1, 25, 24), noise=torch.randn(1, 5, 16), visible=None)


def test_the_preprocessing_is_that_of_dias() -> None:
    for name, factory in (("smoothsa-paper", dias.build), ("randsfq-paper", randsfq.build)):
        with torch.device("meta"):
            model = factory(**get_card(name).options)
        assert model.input_size == 256 and type(model.encoder).__name__ == "DinoEncoder"
        assert not get_card(name).weights and get_card(name).supervision == "none"


@pytest.mark.parametrize("start", ["shared", "smooth"])
def test_the_contract(start: str) -> None:
    options = {"encoder": "cnn", "dim": 16, "width": 8, "blocks": [1], "input_size": 32, "slots": 3, "slot_dim": 8}
    options |= {"initialisation": start}
    for name, task in (("smoothsa-paper", "clevrtex"), ("randsfq-paper", "movi-c")):
        checks = check_model(name, task, options=options)
        assert all(check.passed for check in checks), [check for check in checks if not check.passed]


def test_options_that_make_no_sense() -> None:
    for factory in (dias.build, randsfq.build):
        with pytest.raises(UsageError, match="option initialisation: 'warm' is unknown; use shared or smooth"):
            factory(initialisation="warm")
    with pytest.raises(UsageError, match="option slot_dim: 10 must be a multiple of the 4 heads of the transition"):
        randsfq.build(slot_dim=10)
    with pytest.raises(UsageError, match="option slot_dim: 10 must be a multiple of the 4 heads of smooth"):
        dias.build(slot_dim=10, initialisation="smooth")

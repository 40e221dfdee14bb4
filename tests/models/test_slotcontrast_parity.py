"""SlotContrast against the official code: every `slotcontrast_*` parity file, and the values of the specification.

In float64 and float32, gradients included; the learning rate is in tests/training. The values of the specification
(`specs/slotmatch.md` 3.4) were measured with the official code.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from parity_case import DTYPES, Case
from torch import Tensor, nn

from ocl_bench.families.discovery import label_map
from ocl_bench.metrics.video import VideoTables
from ocl_bench.models.checkpoints.slotcontrast import OFFICIAL_NAMES, translate_official
from ocl_bench.models.layers.decoders import BroadcastDecoder
from ocl_bench.models.layers.initialisation import SharedGaussian
from ocl_bench.models.layers.predictor import SlotPredictor
from ocl_bench.models.layers.slot_attention import SlotAttention
from ocl_bench.models.losses import slot_contrast
from ocl_bench.models.ranks import RankOps
from ocl_bench.models.slotcontrast import SlotContrast

ENCODER = "encoder.module.backbone.model."


class Features(nn.Module):
    """The parity files hold the encoder's output as maps (B, T, F, h, w)."""

    def forward(self, image: Tensor) -> Tensor:
        return image


def small(dtype: torch.dtype) -> SlotContrast:
    shape = {"feature_dim": 24, "grid": (4, 4), "input_size": 4, "slots": 5, "slot_dim": 16, "hidden": 32}
    return SlotContrast(Features(), **shape).to(dtype)  # type: ignore[arg-type]


def ours(weights: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    """The weights of one part of the model, without its name."""
    renamed = translate_official(weights)
    return {key.removeprefix(f"{part}."): value for key, value in renamed.items() if key.startswith(f"{part}.")}


def our_name(official: str) -> str:
    return next(iter(translate_official({official: torch.zeros(())})))


def corrector(dim: int, dtype: torch.dtype) -> SlotAttention:
    return SlotAttention(dim, dim, activation=nn.ReLU, normalised_state=True, attention_floor=1e-8).to(dtype)


# --- parity files ---------------------------------------------------------------------------------------------------


@DTYPES
def test_parity_initialisers(dtype: torch.dtype) -> None:
    case = Case("slotcontrast_initializers", dtype)
    model = small(dtype)
    model.load_state_dict(translate_official(case.weights), strict=False)
    case.check("out.fixed", model.initial_slots.expand(3, -1, -1))
    gaussian = SharedGaussian(16).to(dtype)
    gaussian.load_state_dict({name: case[f"in.random_init.{name}"] for name in ("mean", "log_std")})
    case.check("out.random", gaussian(case["in.random_init.noise"]))
    case.all_checked()


@DTYPES
def test_parity_slot_attention(dtype: torch.dtype) -> None:
    case = Case("slotcontrast_slot_attention", dtype)
    module, slots = corrector(16, dtype), case.trainable("in.slots")
    module.load_state_dict(ours(case.weights, "corrector"), strict=True)
    for rounds in (1, 2, 3):
        actual, maps = module(case["in.features"], slots, num_iter=rounds)
        case.check(f"out.n_iters_{rounds}.slots", actual)
        case.check(f"out.n_iters_{rounds}.masks", maps[-1])
    probe = (actual * case["in.probe"]).sum()
    case.check("out.probe_loss", probe)
    probe.backward()
    case.check("grad.in.slots", slots.grad)
    gradients = {f"corrector.{name}": parameter.grad for name, parameter in module.named_parameters()}
    for key in sorted(case.unchecked):
        case.check(key, gradients[our_name(key.removeprefix("grad."))])
    case.all_checked()


@DTYPES
def test_parity_predictor(dtype: torch.dtype) -> None:
    case = Case("slotcontrast_predictor", dtype)
    module = SlotPredictor(16).to(dtype)
    module.load_state_dict(ours(case.weights, "predictor"), strict=True)
    slots = module(case["in.slots"])
    case.check("out.slots", slots)
    probe = (slots * case["in.probe"]).sum()
    case.check("out.probe_loss", probe)
    probe.backward()
    gradients = {f"predictor.{name}": parameter.grad for name, parameter in module.named_parameters()}
    for key in sorted(case.unchecked):
        case.check(key, gradients[our_name(key.removeprefix("grad."))])
    case.all_checked()
    module.attention.scale = 1 / module.attention.scale  # the textbook's
    assert (module(case["in.slots"]) - slots).abs().max() > 0.01


@DTYPES
def test_parity_decoder(dtype: torch.dtype) -> None:
    case = Case("slotcontrast_decoder", dtype)
    module = BroadcastDecoder(24, 16, 16, 3, 32).to(dtype)
    module.load_state_dict(ours(case.weights, "decoder"), strict=True)
    reconstruction, masks = module(case["in.slots"])
    case.check("out.reconstruction", reconstruction)
    case.check("out.masks", masks)
    error = F.mse_loss(reconstruction, case["in.target"])
    case.check("out.mse", error)
    error.backward()
    gradients = {f"decoder.{name}": parameter.grad for name, parameter in module.named_parameters()}
    for key in [key for key in sorted(case.unchecked) if key.startswith("grad.")]:
        case.check(key, gradients[our_name(key.removeprefix("grad."))])
    resampled = dict(zip(("reconstruction", "masks"), module(case["in.slots"], grid=(6, 6)), strict=True))
    for name, value in resampled.items():  # timm interpolates in float32 whatever the type
        expected = case.tensors[f"out.eval_resampled.{name}"]
        torch.testing.assert_close(value.double(), expected, rtol=1e-4, atol=1e-5)
        case.unchecked.discard(f"out.eval_resampled.{name}")
    case.all_checked()


@DTYPES
def test_parity_losses(dtype: torch.dtype) -> None:
    case = Case("slotcontrast_losses", dtype)
    reconstruction = case.trainable("in.reconstruction")
    error = F.mse_loss(reconstruction, case["in.features"])
    case.check("out.featrec", error)
    error.backward()
    case.check("grad.in.reconstruction", reconstruction.grad)
    for name, batch, gradient in (
        ("out.slot_contrast.batch", True, "grad.in.state"),
        ("out.slot_contrast.own_video", False, "out.grad_own_video.in.state"),
    ):
        state = case.trainable("in.state")
        loss = slot_contrast(state, 0.1, batch)
        case.check(name, loss)
        loss.backward()
        case.check(gradient, state.grad)
    case.all_checked()


@DTYPES
def test_parity_recurrence(dtype: torch.dtype) -> None:
    case = Case("slotcontrast_latent_processor", dtype)
    model = small(dtype)
    model.project = nn.Identity()  # type: ignore[assignment]
    model.load_state_dict(translate_official(case.weights), strict=False)
    model.initial_slots = nn.Parameter(case["in.initial"])
    outputs = model.recurrence(case["in.features"])
    case.check("out.state", outputs.slots)
    case.check("out.state_predicted", outputs.predicted)
    case.check("out.masks", outputs.attention)
    case.all_checked()


@DTYPES
def test_parity_full_model(dtype: torch.dtype) -> None:
    """Outputs, losses, gradients, label maps and the official metrics of them."""
    case = Case("slotcontrast_full_model", dtype)
    model = small(dtype).train()
    model.load_state_dict(model.translate_checkpoint(case.weights), strict=True)
    features = case["in.video"].flatten(3).transpose(2, 3)
    terms, actual, reconstruction, masks = model._terms(features, RankOps())
    case.check("out.features", model.project(features))
    case.check("out.state", actual.slots)
    case.check("out.grouping_masks", actual.attention)
    case.check("out.reconstruction", reconstruction)
    case.check("out.decoder_masks", masks)
    case.check("out.loss_featrec", terms["reconstruction"])
    case.check("out.loss_ss", terms["contrast"])
    case.check("out.loss_total", terms["total"])
    terms["total"].backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for key in [key for key in sorted(case.unchecked) if key.startswith("grad.")]:
        case.check(key, gradients[our_name(key.removeprefix("grad."))])
    labels = {"decoder": masks.detach(), "grouping": actual.attention.detach()}
    for name, soft in labels.items():
        maps = [[label_map(frame.unflatten(1, (4, 4)), (24, 24)) for frame in video] for video in soft]
        labels[name] = torch.as_tensor(np.array(maps))
        case.check(f"out.{name}_labels", labels[name].to(case.tensors[f"out.{name}_labels"].dtype))
    _check_metrics(case, labels["decoder"].numpy())
    case.all_checked()


def _check_metrics(case: Case, labels: np.ndarray) -> None:
    """The official metrics of label maps (B, T, H, W): means over videos, or over the frames of all videos."""
    names = {"ari": "fg_ari_video", "image_ari": "fg_ari_frame", "mbo": "mbo_video", "image_mbo": "mbo_frame"}
    scores = []
    for truth, segments in zip(case.tensors["in.segmentations"].numpy(), labels, strict=True):
        tables = VideoTables()
        tables.add(truth, segments)
        scores.append(tables.scores(background=0, empty="one"))
    for official, name in names.items():
        values, weights = zip(*(score[name] for score in scores), strict=True)
        mean = np.average(np.nan_to_num(values), weights=weights)
        case.check(f"out.metric.{official}", torch.tensor(mean))


# --- values of the specification, drawn from NumPy ------------------------------------------------------------------


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape).astype(np.float32))


def fill(module: nn.Module, part: str, seed: int, scale: float) -> None:
    """Draw all parameters from one generator, in alphabetical order of their official names."""
    generator = np.random.RandomState(seed)
    state = {f"{part}.{name}": value for name, value in module.state_dict().items()}
    official = {_official(name): name for name in state}
    for name in sorted(official):
        values = generator.standard_normal(tuple(state[official[name]].shape)) * scale
        state[official[name]].copy_(torch.from_numpy(values.astype(np.float32)))


def _official(name: str) -> str:
    """The official name of one of our tensors."""
    pattern, new = max((rule for rule in OFFICIAL_NAMES if name.startswith(rule[1])), key=lambda rule: len(rule[1]))
    return pattern.replace("\\", "").rstrip("$") + name.removeprefix(new)


def close(value: Tensor, expected: list[float], atol: float) -> None:
    torch.testing.assert_close(value.flatten()[: len(expected)], torch.tensor(expected), rtol=0, atol=atol)


def test_specified_recurrence() -> None:
    """Slot attention, predictor and the recurrence of three frames; the textbook's scale gives other numbers."""
    model = SlotContrast(
        Features(), feature_dim=8, grid=(1, 5), input_size=5, slots=3, slot_dim=8, hidden=16, decoder_layers=2
    )
    fill(model.corrector, "corrector", 10, 0.8)
    fill(model.predictor, "predictor", 11, 0.8)
    model.project = nn.Identity()  # type: ignore[assignment]
    model.initial_slots = nn.Parameter(drawn(1, 2, 3, 8))
    with torch.no_grad():
        outputs = model.recurrence(drawn(2, 2, 3, 5, 8))
        close(outputs.slots, [-4.22153, -5.0342, -4.65374, -6.28448, 4.82866, 2.41316], 2e-5)
        assert float(outputs.slots.sum()) == pytest.approx(-155.7636, abs=2e-3)
        assert float(outputs.slots.abs().sum()) == pytest.approx(580.0441, abs=2e-3)
        close(outputs.slots[:, 2], [-0.99544, -7.03236, -2.9486], 2e-5)
        assert float(outputs.slots[:, 2].sum()) == pytest.approx(-61.3383, abs=1e-3)
        close(outputs.predicted, [-6.10467, -8.87567, -11.13123], 2e-5)
        assert float(outputs.predicted.sum()) == pytest.approx(-195.0415, abs=2e-3)
        close(outputs.attention, [0.51241, 0.04052, 0.52474], 1e-5)
        model.predictor.attention.scale **= -1
        textbook = model.recurrence(drawn(2, 2, 3, 5, 8))
        close(textbook.slots[:, 2], [-1.01839, -7.0891, -2.94276], 2e-5)
        assert float(textbook.slots[:, 2].sum()) == pytest.approx(-61.8319, abs=1e-3)


def test_specified_decoder() -> None:
    module = BroadcastDecoder(6, 8, 5, 2, 16)
    fill(module, "decoder", 12, 0.3)
    with torch.no_grad():
        reconstruction, masks = module(drawn(5, 2, 3, 8))
    close(reconstruction, [0.40084, -0.324729, -0.127165, -0.294976], 2e-6)
    assert float(reconstruction.sum()) == pytest.approx(-1.20056, abs=1e-5)
    close(masks, [0.299277, 0.198923, 0.2591, 0.233521], 2e-6)


def test_specified_contrast() -> None:
    slots = drawn(3, 2, 4, 3, 8)
    assert float(slot_contrast(slots)) == pytest.approx(5.706289, abs=2e-6)
    assert float(slot_contrast(slots, batch_contrast=False)) == pytest.approx(4.092422, abs=2e-6)
    assert float(slot_contrast(slots.flip(1))) == pytest.approx(5.392403, abs=2e-6)  # the other direction

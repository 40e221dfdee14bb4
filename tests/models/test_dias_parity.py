"""DIAS against the official code: every `dias_*` parity file, in float64 and float32, gradients included."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from parity_case import DTYPES, Case
from torch import Tensor, nn

from ocl_bench.models.dias import DIAS
from ocl_bench.models.losses import distillation_loss

SCALARS = {
    "dias_decoder": {"train.mse": 4.745186513734999},
    "dias_losses": {"distill": 1.6668171221199757, "recon": 1.9857739195130544, "total": 2.6024962546974453},
    "dias_full_model": {
        "train.loss_distill": 1.5162479599548475,
        "train.loss_recon": 4.930847827973603,
        "train.loss_total": 5.491859573156897,
    },
}


class DiasCase(Case):
    """With the official names of DIAS, and scalars that the manifest holds."""

    def check_scalar(self, key: str, value: Tensor) -> None:
        assert value.item() == pytest.approx(SCALARS[self.name][key], rel=1e-9 if self.dtype == torch.float64 else 1e-4)

    def check_gradients(self, model: DIAS, prefixes: tuple[str, ...]) -> None:
        """All stored parameter gradients, found under their official names."""
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        stored = [key.removeprefix("grad.") for key in self.tensors if key.startswith("grad.m.")]
        assert stored
        for official in stored:
            assert official.startswith(prefixes)
            (ours,) = model.translate_checkpoint({official: torch.zeros(())})
            gradient = gradients[ours]
            assert gradient is not None
            self.check(f"grad.{official}", gradient)


def tiny(dtype: torch.dtype, **options: object) -> DIAS:
    """DIAS of the parity files: 36 tokens of 24 channels, 5 slots of 16, 2 decoder layers, the encoder left out."""
    torch.manual_seed(0)
    settings: dict = dict(feature_dim=24, tokens=36, input_size=36, slots=5, slot_dim=16, decoder_layers=2)
    return DIAS(nn.Identity(), **(settings | options)).to(dtype)


def load_official(model: DIAS, weights: dict[str, Tensor]) -> None:
    ours = model.translate_checkpoint(weights)
    unexpected = model.load_state_dict(ours, strict=False).unexpected_keys
    assert not unexpected


def tokens(feature: Tensor) -> Tensor:
    return feature.flatten(2).transpose(1, 2)


@DTYPES
def test_parity_initialisation(dtype: torch.dtype) -> None:
    case, model = DiasCase("dias_normalshared", dtype), tiny(dtype)
    load_official(model, case.weights)
    case.check("out.query", model.initialisation(case["in.noise"]))
    case.check("out.query_n", model.initialisation(case["in.noise_n"]))


@DTYPES
def test_parity_slot_attention(dtype: torch.dtype) -> None:
    case, model = DiasCase("dias_slot_attention", dtype), tiny(dtype)
    load_official(model, case.weights)
    calls: dict[str, dict] = {"": {}, "masked.": {"slot_mask": case["in.slot_mask"]}, "num_iter_1.": {"num_iter": 1}}
    for prefix, options in calls.items():
        slots, maps = model.aggregation(case["in.input"], case["in.query"], **options)
        case.check(f"out.{prefix}slots", slots)
        assert len(maps) == options.get("num_iter", 3)
        for index, attention in enumerate(maps):
            case.check(f"out.{prefix}attent.{index}", attention)


@DTYPES
def test_parity_decoder(dtype: torch.dtype) -> None:
    case, model = DiasCase("dias_decoder", dtype), tiny(dtype)
    load_official(model, case.weights)
    calls: dict[str, dict] = {
        "eval": {},
        "eval_masked": {"slot_mask": case["in.slot_mask"]},
        "train": {"visible": case["in.visible"]},
    }
    for name, options in calls.items():
        reconstruction, masks = model.decoder(case["in.slots"], case["in.input"], **options)
        case.check(f"out.{name}.recon", reconstruction)
        case.check(f"out.{name}.attent", masks)
        if name == "eval_masked":
            assert (masks[~case["in.slot_mask"]] == 0).all()
    loss = F.mse_loss(reconstruction, case["in.input"])
    case.check_scalar("train.mse", loss)
    loss.backward()
    case.check_gradients(model, ("m.decode.",))


@DTYPES
def test_parity_losses(dtype: torch.dtype) -> None:
    case = DiasCase("dias_losses", dtype)
    student = case["in.attent.0"].requires_grad_()
    teacher = case["in.attent.2"].requires_grad_()
    recon = case["in.recon"].requires_grad_()
    distillation = distillation_loss(student.flatten(2), teacher.flatten(2))
    reconstruction = F.mse_loss(recon, case["in.feature"])
    total = reconstruction + 0.37 * distillation
    for key, value in {"distill": distillation, "recon": reconstruction, "total": total}.items():
        case.check_scalar(key, value)
    total.backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert recon.grad is not None
    case.check("grad.in.attent.0", student.grad)
    case.check("grad.in.recon", recon.grad)


@DTYPES
def test_parity_full_model_evaluation(dtype: torch.dtype) -> None:
    case, model = DiasCase("dias_full_model", dtype), tiny(dtype)
    model.load_state_dict(model.translate_checkpoint(case.weights), strict=True)
    features = tokens(case["in.feature"])
    case.check("out.eval.encode_project", model.project(features))
    result = model.decompose(features, case["in.noise"])
    case.check("out.eval.slotz", result.slots)
    for index in range(3):
        case.check(f"out.eval.attenta.{index}", result.attention[index].unflatten(2, (6, 6)))
    case.check("out.eval.recon", result.reconstruction.transpose(1, 2).unflatten(2, (6, 6)))
    masks = result.masks.unflatten(2, (6, 6))
    case.check("out.eval.attentd", masks)
    segment = F.interpolate(masks, size=(24, 24), mode="bilinear").argmax(1)
    assert torch.equal(segment, case["out.eval.segment"].long())


@DTYPES
def test_parity_full_model_training(dtype: torch.dtype) -> None:
    case, model = DiasCase("dias_full_model", dtype), tiny(dtype)
    model.load_state_dict(model.translate_checkpoint(case.weights), strict=True)
    features, options = tokens(case["in.feature"]), {"noise": case["in.noise"], "visible": case["in.visible"]}
    result = model.decompose(features, **options)
    case.check("out.train.recon", result.reconstruction.transpose(1, 2).unflatten(2, (6, 6)))
    case.check("out.train.attentd", result.masks.unflatten(2, (6, 6)))
    loss = model.loss(features, distill_weight=0.37, **options)
    for ours, theirs in {"total": "total", "reconstruction": "recon", "distillation": "distill"}.items():
        case.check_scalar(f"train.loss_{theirs}", loss[ours])
    loss["total"].backward()
    case.check_gradients(model, ("m.",))

"""DINO and iBOT against their official code: every parity file, in float64 and float32, gradients included.

(`dino_knn` is in tests/families.) ODIS has no official code; what it shares with these two is what is checked here.
"""

from __future__ import annotations

import pytest
import torch
from parity_case import DTYPES, PARITY, Case
from safetensors.torch import load_file

from ocl_bench.models.layers.projection import ProjectionHead
from ocl_bench.models.layers.vit import DINO_OFFSET, VisionTransformer, resample_positions
from ocl_bench.models.losses import cross_view_loss, patch_loss, targets
from ocl_bench.models.odis import Odis
from ocl_bench.models.ranks import RankOps

VIT: dict = {"grid": 4, "patch": 8, "dim": 24, "depth": 2, "heads": 3, "position_offset": DINO_OFFSET}


def test_parity_timm_positions() -> None:
    case = load_file(PARITY / "timm_pos_embed_resample.safetensors")
    result = resample_positions(case["in.table"], (5, 5), prefix=1)
    torch.testing.assert_close(result.double(), case["out.resampled"], rtol=0, atol=1e-5)
    plain = resample_positions(case["in.table"], (5, 5), prefix=1, antialias=False)
    torch.testing.assert_close(plain.double(), case["out.resampled_no_antialias"], rtol=0, atol=1e-5)
    assert resample_positions(case["in.table"], (7, 7)) is case["in.table"]


@DTYPES
def test_parity_dino_vit(dtype: torch.dtype) -> None:
    case = Case("dino_vit", dtype)
    vit = VisionTransformer(**VIT).to(dtype).eval()
    vit.load_state_dict(case.weights, strict=True)
    image, other = case["in.image"], case["in.image_other_size"]
    tokens = vit(image)
    case.check("out.cls", tokens[:, 0])
    first = vit.blocks[0](vit.embed(image))
    case.check("out.tokens.block0", vit.norm(first))
    case.check("out.tokens.block1", tokens)
    case.check("out.last_attention", vit.last_attention(image))
    case.check("out.other_size.tokens", vit(other))
    case.check("out.other_size.pos_embed", resample_positions(vit.pos_embed, (5, 6), offset=DINO_OFFSET))
    case.all_checked()
    by_size = resample_positions(vit.pos_embed, (5, 6))
    assert (by_size - case["out.other_size.pos_embed"]).abs().max() > 1e-3  # timm's rule is another one


@DTYPES
def test_parity_ibot_vit(dtype: torch.dtype) -> None:
    case = Case("ibot_vit", dtype)
    vit = VisionTransformer(**VIT, mask_token=True).to(dtype).eval()
    vit.load_state_dict(case.weights, strict=True)
    case.check("out.tokens", vit(case["in.image"]))
    case.check("out.tokens_masked", vit(case["in.image"], hidden=case["in.mask"].flatten(1)))
    case.all_checked()


@DTYPES
def test_parity_dino_head(dtype: torch.dtype) -> None:
    case = Case("dino_head", dtype)
    head = ProjectionHead(24, 40, hidden=32, bottleneck=16).to(dtype)
    head.load_state_dict(case.weights, strict=True)
    logits = head(case["in.features"])
    case.check("out.logits", logits)
    probe = (logits * case["in.probe"]).sum()
    case.check("out.probe_loss", probe)
    probe.backward()
    check_gradients(case, head)


@DTYPES
@pytest.mark.parametrize("name", ["ibot_head_shared", "ibot_head_separate"])
def test_parity_ibot_head(name: str, dtype: torch.dtype) -> None:
    case, shared = Case(name, dtype), name == "ibot_head_shared"
    head = ProjectionHead(24, 32, hidden=32, bottleneck=16, shared=shared, patch_out_dim=None if shared else 20)
    names = {key.replace("last_layer2", "last_layer_patch"): value for key, value in case.weights.items()}
    if shared:
        names = {key: value for key, value in names.items() if "last_layer_patch" not in key}
    head.to(dtype).load_state_dict(names, strict=True)
    tokens = case["in.tokens"]
    image, patches = head(tokens[:, 0], "image"), head(tokens[:, 1:], "patch")
    case.check("out.cls_logits", image)
    case.check("out.patch_logits", patches)
    case.check("out.local_cls_logits", head(case["in.local_cls"], "image"))
    probe = (image * case["in.probe_cls"]).sum() + (patches * case["in.probe_patch"]).sum()
    case.check("out.probe_loss", probe)
    probe.backward()
    check_gradients(case, head)


def check_gradients(case: Case, module: torch.nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if f"grad.{name}" in case.tensors:
            case.check(f"grad.{name}", parameter.grad)
    case.all_checked()


def losses(dtype: torch.dtype, patch_weight: float) -> Odis:
    """A small model; only its temperatures and centres matter."""
    vit = {"patch": 8, "dim": 8, "depth": 1, "heads": 1}
    weights = {"object_weight": 0.0, "image_weight": 1.0, "patch_weight": patch_weight}
    return Odis(vit, layout="cls", **weights, input_size=32, out_dim=32, hidden=8, bottleneck=8).to(dtype)


@DTYPES
def test_parity_dino_loss(dtype: torch.dtype) -> None:
    case, model = Case("dino_loss", dtype), losses(dtype, patch_weight=0.0)
    model.get_buffer("centre_image").copy_(case["weights.center"])
    student, teacher = case.trainable("in.student"), case["in.teacher"].unflatten(0, (2, 3)).unsqueeze(2)
    temperature, _ = model._schedule(12)
    target = targets(teacher, model._centre("image"), temperature)
    loss = cross_view_loss(student.unflatten(0, (5, 3)).unsqueeze(2), target, torch.ones(5, 3, dtype=torch.bool), 0.1)
    case.check("out.loss", loss)
    loss.backward()
    case.check("grad.in.student", student.grad)
    model._move_centre("image", teacher.mean((0, 1, 2)), RankOps())
    case.check("out.new_center", model._centre("image"))
    case.all_checked()


@DTYPES
def test_parity_ibot_loss(dtype: torch.dtype) -> None:
    case, model = Case("ibot_loss", dtype), losses(dtype, patch_weight=1.0)
    model.load_state_dict(
        {"centre_image": case["weights.center"], "centre_patch": case["weights.center2"].view(1, -1)}, strict=False
    )
    temperature, _ = model._schedule(5)
    views = [case.trainable(f"in.student_{name}") for name in ("cls", "local_cls", "patch")]
    teacher, patches = case["in.teacher_cls"].unflatten(0, (2, 3)).unsqueeze(2), case["in.teacher_patch"]
    present = torch.ones(4, 3, dtype=torch.bool)
    target = targets(teacher, model._centre("image"), temperature)
    image = cross_view_loss(torch.cat(views[:2]).unflatten(0, (4, 3)).unsqueeze(2), target, present, 0.1)
    case.check("out.cls", image)
    hidden = case["in.mask"].flatten(1)
    target = targets(patches[hidden], model._centre("patch"), temperature)
    patch = patch_loss(views[2][hidden], target, hidden, 0.1)
    case.check("out.patch", patch)
    case.check("out.loss", image + patch)
    (image + patch).backward()
    for name, view in zip(("cls", "local_cls", "patch"), views, strict=True):
        case.check(f"grad.in.student_{name}", view.grad)
    model._move_centre("image", teacher.mean((0, 1, 2)), RankOps())
    model._move_centre("patch", patches.mean((0, 1)), RankOps())
    case.check("out.new_center", model._centre("image"))
    case.check("out.new_center2", model._centre("patch"))
    case.all_checked()

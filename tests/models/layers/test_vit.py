"""The vision transformer: masked attention of object tokens, hidden patches, other grids, boxes as patches."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ocl_bench.core.errors import UsageError
from ocl_bench.models.layers import vit as module
from ocl_bench.models.layers.patches import patches_of_boxes
from ocl_bench.models.layers.vit import VisionTransformer, resample_positions

LAYOUTS = pytest.mark.parametrize("objects", [0, 1, 3], ids=["obj", "cls_obj", "cls_3obj"])


@pytest.fixture(params=["whole masks", "rows apart"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Masked attention as it is computed on a CPU, and as it is computed on a GPU."""
    monkeypatch.setattr(module, "WHOLE_MASKS", ("cpu",) if request.param == "whole masks" else ())
    return str(request.param)


def vit(**changes: object) -> VisionTransformer:
    """Four by four patches of 4 pixels, weights large enough that attention matters."""
    torch.manual_seed(0)
    options: dict = {"grid": 4, "patch": 4, "dim": 24, "depth": 3, "heads": 3, "position_offset": 0.1}
    model = VisionTransformer(**(options | changes)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def images(count: int = 2, side: int = 16, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def masks(objects: int, count: int = 2, seed: int = 2) -> Tensor:
    return torch.rand(count, max(1, objects), 16, generator=torch.Generator().manual_seed(seed)) < 0.4


def written_by_hand(model: VisionTransformer, image: Tensor, mask: Tensor) -> Tensor:
    """Additive masks of all rows, softmax in full, from the definition (specs/odis.md 1.2)."""
    objects, patches = model.objects, mask.shape[2]
    length = model.prefix + patches
    bias = torch.zeros(len(image), length, length, dtype=torch.float64)
    for number in range(max(1, objects)):
        row = number + (1 if objects else 0)
        bias[:, row] = -torch.inf
        bias[:, row, row] = 0
        if objects and model.object_sees_class:
            bias[:, row, 0] = 0
        bias[:, row, model.prefix :][mask[:, number]] = 0
    x = model.embed(image)
    for block in model.blocks:
        normed = block.norm1(x)
        query, key, value = block.attn.qkv(normed).unflatten(2, (3, 3, 8)).unbind(2)
        logits = torch.einsum("bnhd,bmhd->bhnm", query, key) / math.sqrt(8) + bias[:, None]
        mixed = torch.einsum("bhnm,bmhd->bnhd", logits.softmax(-1), value).flatten(2)
        x = x + block.attn.proj(mixed)
        x = x + block.mlp(block.norm2(x))
    return model.norm(x)


@LAYOUTS
def test_masked_attention_is_that_of_the_definition_with_gradients(objects: int, way: str) -> None:
    for sees_class in (True, False):
        model = vit(objects=objects, object_sees_class=sees_class)
        ours, theirs = images().requires_grad_(), images().requires_grad_()
        mask = masks(objects)
        mask[0, 0] = False  # an empty box
        expected, actual = written_by_hand(model, theirs, mask), model(ours, mask)
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
        weights = torch.randn_like(actual)
        (actual * weights).sum().backward()
        (expected * weights).sum().backward()
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("objects", [0, 1])
def test_a_mask_of_all_patches_changes_no_bit(objects: int, dtype: torch.dtype, way: str) -> None:
    model, image = vit(objects=objects).to(dtype), images().to(dtype)
    everything = torch.ones(2, 1, 16, dtype=torch.bool)
    assert torch.equal(model(image, everything), model(image))
    some = torch.cat([everything[:1], masks(objects)[:1, :1]])  # and that of one image none of another's
    assert torch.equal(model(image, some)[0], model(image)[0])
    assert not torch.equal(model(image, some)[1], model(image)[1])


def test_several_objects_never_see_each_other(way: str) -> None:
    model, image = vit(objects=2, object_sees_class=False, depth=1), images()
    mask = torch.zeros(2, 2, 16, dtype=torch.bool)
    before = model(image, mask)
    with torch.no_grad():
        model.obj_token[0, 1, 0] += 1
    after = model(image, mask)
    assert torch.equal(before[:, 1], after[:, 1])
    assert not torch.allclose(before[:, 2], after[:, 2])
    assert not torch.allclose(before[:, 3:], after[:, 3:])


def test_context_reaches_the_object_through_the_patches_from_the_second_block_on(way: str) -> None:
    mask, changed = torch.zeros(1, 1, 16, dtype=torch.bool), images(1)
    mask[..., :2] = True
    changed[..., -4:, -4:] *= -1  # the last patch, outside
    one, two = vit(depth=1), vit(depth=2)
    assert torch.equal(one(images(1), mask)[:, 0], one(changed, mask)[:, 0])
    assert not torch.allclose(one(images(1))[:, 0], one(changed)[:, 0])
    assert (two(images(1), mask)[:, 0] - two(changed, mask)[:, 0]).abs().max() > 1e-4


def test_an_object_without_patches_sees_itself_and_is_finite(way: str) -> None:
    nothing = torch.zeros(2, 1, 16, dtype=torch.bool)
    model = vit()
    tokens = model(images(), nothing)
    assert tokens.isfinite().all()
    torch.testing.assert_close(tokens[0, 0], tokens[1, 0])  # two images, the same token
    tokens.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@LAYOUTS
def test_last_attention_is_zero_outside_the_mask(objects: int, way: str) -> None:
    model, mask = vit(objects=objects), masks(objects)
    attention = model.last_attention(images(), mask)
    torch.testing.assert_close(attention.sum(3), torch.ones_like(attention[..., 0]))
    rows = attention[:, :, model.first_object : model.first_object + max(1, objects), model.prefix :]
    assert ((rows == 0) == ~mask[:, None]).all()


def test_hidden_patches_are_one_vector_with_their_own_positions() -> None:
    model, hidden = vit(mask_token=True), torch.zeros(2, 16, dtype=torch.bool)
    hidden[:, 3:7] = True
    image, other = images(), images(seed=5)
    tokens = model.embed(image, hidden)
    assert torch.equal(tokens[0, 4:8], tokens[1, 4:8])
    torch.testing.assert_close(tokens[0, 4] - tokens[0, 5], (model.pos_embed[0, 4] - model.pos_embed[0, 5]))
    mixed = torch.where(hidden[0].view(4, 4).repeat_interleave(4, 0).repeat_interleave(4, 1), other, image)
    assert torch.equal(model(image, hidden=hidden), model(mixed, hidden=hidden))
    with pytest.raises(UsageError, match="mask_token"):
        vit()(image, hidden=hidden)


def test_positions_of_named_tokens_are_kept_on_other_grids() -> None:
    model = vit(objects=2)
    assert model.pos_embed.shape == (1, 19, 24)
    assert model(images(side=24)).shape == (2, 3 + 36, 24)
    torch.testing.assert_close(model.embed(images(side=24))[0, 2], model.obj_token[0, 1] + model.pos_embed[0, 2])
    assert model.patch_grid(images(side=24)).shape == (2, 24, 6, 6)
    with pytest.raises(UsageError, match="class_position"):
        vit(objects=1, class_position=False)


def test_dino_positions_are_a_scale_and_not_a_size() -> None:
    """Oracle: bicubic sampling at the coordinates that follow from a scale of (14 + 0.1) / 7."""
    table = torch.randn(1, 50, 3, dtype=torch.float64)
    actual = resample_positions(table, (14, 5), offset=0.1)
    assert torch.equal(actual[:, 0], table[:, 0])
    y, x = (2 * (torch.arange(count).double() + 0.5) / (count + 0.1) - 1 for count in (14, 5))
    grid = torch.stack([x.expand(14, 5), y[:, None].expand(14, 5)], dim=2)[None]
    square = table[:, 1:].transpose(1, 2).view(1, 3, 7, 7)
    expected = F.grid_sample(square, grid, mode="bicubic", padding_mode="border", align_corners=False)
    torch.testing.assert_close(actual[:, 1:], expected.flatten(2).transpose(1, 2), rtol=0, atol=1e-12)
    assert resample_positions(table.bfloat16(), (5, 5), offset=0.1).dtype == torch.bfloat16


def test_stochastic_depth_drops_whole_samples_and_keeps_the_mean() -> None:
    model = vit(depth=2, drop_path=0.5)
    assert [block.drop_path for block in model.blocks] == [0, 0.5]
    block, x = model.blocks[1].train(), torch.ones(4000, 2, 3, dtype=torch.float64)
    torch.manual_seed(0)
    dropped = block._dropped(x)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert (dropped == dropped[:, :1, :1]).all()
    assert abs(dropped.mean() - 1) < 0.06
    assert torch.equal(block.eval()._dropped(x), x)


def test_registers_hide_nothing_from_patches_but_the_object_does_not_see_them(way: str) -> None:
    model = vit(registers=2, depth=1)
    mask = torch.zeros(2, 1, 16, dtype=torch.bool)
    before = model(images(), mask)
    with torch.no_grad():
        model.reg_token[..., 0] += 1
    after = model(images(), mask)
    assert torch.equal(before[:, 0], after[:, 0])
    assert not torch.allclose(before[:, 3:], after[:, 3:])


# --- boxes ----------------------------------------------------------------------------------------------------------


def by_pixels(box: tuple[float, float, float, float], margin: int) -> np.ndarray:
    """A patch is on if any tenth of a pixel of it is within the box; then the margin. 24 x 32 pixels, patches of 8."""
    x, y = (np.arange(0, length * 10) / 10 + 0.05 for length in (32, 24))
    inside = ((x > box[0]) & (x < box[2]))[None] & ((y > box[1]) & (y < box[3]))[:, None]
    on = inside.reshape(3, 80, 4, 80).any((1, 3))
    grown = np.zeros_like(on)
    for row, column in np.argwhere(on):
        grown[max(0, row - margin) : row + margin + 1, max(0, column - margin) : column + margin + 1] = True
    return grown


@pytest.mark.parametrize("margin", [0, 1])
def test_patches_of_boxes_are_those_that_any_pixel_touches(margin: int) -> None:
    draw = np.random.default_rng(0)
    corners = np.sort(draw.uniform(-4, 36, (60, 2, 2)), axis=1).round(1)
    boxes = np.concatenate([corners[:, 0], corners[:, 1]], axis=1)
    boxes = boxes[(boxes[:, 2:] - boxes[:, :2] > 0.5).all(1)]
    covered = patches_of_boxes(torch.from_numpy(boxes).view(-1, 1, 4), (24, 32), 8, margin)
    for box, patches in zip(boxes.tolist(), covered.patches[:, 0].view(-1, 3, 4).numpy(), strict=True):
        assert (patches == by_pixels(box, margin)).all(), box
    assert 0 < covered.outside.sum() < len(boxes)
    assert torch.equal(covered.outside, ~covered.patches.any(-1))


def test_odd_boxes_are_clear_and_counted() -> None:
    boxes = {
        "inverted": (20.0, 16.0, 2.0, 1.0),
        "point": (9.0, 9.0, 9.0, 9.0),
        "line": (0.0, 23.9, 32.0, 23.9),
        "right": (32.0, 3.0, 40.0, 9.0),
        "left": (-9.0, 3.0, -1.0, 9.0),
        "absent": (math.nan,) * 4,
        "infinite": (0.0, 0.0, math.inf, 3.0),
    }
    covered = patches_of_boxes(torch.tensor(list(boxes.values())), (24, 32), 8)
    sums = dict(zip(boxes, covered.patches.sum(1).tolist(), strict=True))
    assert sums == {"inverted": 6, "point": 1, "line": 4, "right": 0, "left": 0, "absent": 0, "infinite": 0}
    assert covered.patches[1, 5]
    for field, wanted in (("inverted", [0]), ("thin", [1, 2]), ("outside", [3, 4])):
        assert getattr(covered, field).nonzero().flatten().tolist() == wanted, field
    empty = patches_of_boxes(torch.zeros(2, 0, 4), (24, 32), 8)
    assert empty.patches.shape == (2, 0, 12)


def test_a_convolutional_stem_has_the_grid_of_the_patches_and_overlaps() -> None:
    torch.manual_seed(0)
    model = VisionTransformer(grid=4, patch=8, dim=16, depth=1, heads=2, stem="convolutional").double()
    image = torch.rand(2, 3, 32, 40, dtype=torch.float64, requires_grad=True)
    grid = model.patch_embed(image)
    assert grid.shape == (2, 16, 4, 5)
    convolutions = [layer for layer in model.patch_embed.proj if isinstance(layer, torch.nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [4, 8, 16]
    for layer in (one for one in model.patch_embed.proj if isinstance(one, torch.nn.GroupNorm)):
        layer.forward = lambda x: x  # type: ignore[method-assign]  # its statistics would see the whole image
    (seen,) = torch.autograd.grad(model.patch_embed(image)[0, :, 1, 2].sum(), image)
    rows, columns = (seen[0].abs().sum((0, axis)).nonzero().flatten().tolist() for axis in (2, 1))
    assert (rows[0], rows[-1]) == (1, 15)  # 2 * 8 - 1 pixels, where a linear patch sees 8..15
    assert (columns[0], columns[-1]) == (9, 23)
    assert len(seen[1].nonzero()) == 0


@pytest.mark.parametrize(("stem", "patch"), [("round", 8), ("convolutional", 14), ("convolutional", 32)])
def test_stems_that_do_not_exist_are_refused(stem: str, patch: int) -> None:
    with pytest.raises(UsageError, match="option stem"):
        VisionTransformer(grid=2, patch=patch, dim=16, depth=1, heads=2, stem=stem)  # type: ignore[arg-type]

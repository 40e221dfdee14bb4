"""Views of a whole batch: against Pillow's windows, and colours against torchvision's formulas."""

import torch
from torch.nn.functional import avg_pool2d

from ocl_bench.training.batched_views import colour_matrix, recoloured, sampled_crops
from ocl_bench.training.crops import _brightness, _contrast, _grey, _saturation, resized_crops


def looks(count=4, **changes):
    """Rows of `draw_looks` that change nothing, or what is given by the number of its column."""
    rows = torch.zeros(count, 11)
    rows[:, :3] = 1
    for column, value in changes.items():
        rows[:, int(column[1:])] = torch.as_tensor(value)
    return rows


def smooth_images(count, height, width, seed=0):
    noise = torch.rand(count, 3, height // 8, width // 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(noise, size=(height, width), mode="bicubic").clamp(0, 1)


def test_a_window_of_the_size_of_the_view_is_that_window():
    images = torch.randint(0, 256, (3, 3, 24, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    crops = torch.tensor([[0, 0, 16, 16], [8, 16, 16, 16], [3, 5, 16, 16]])
    views = sampled_crops(images, crops, torch.tensor([False, False, True]), 16)
    for view, image, (top, left, height, width), flip in zip(views, images, crops.tolist(), (0, 0, 1), strict=True):
        window = image[:, top : top + height, left : left + width].float() / 255
        torch.testing.assert_close(view, window.flip(-1) if flip else window, atol=2e-5, rtol=0)


def test_windows_of_all_sizes_are_nearly_those_of_pillow():
    images = (smooth_images(6, 96, 96) * 255).to(torch.uint8)
    crops = torch.tensor(
        [[0, 0, 96, 96], [10, 20, 64, 64], [40, 3, 31, 31], [5, 6, 16, 16], [0, 60, 90, 30], [9, 9, 8, 8]]
    )
    flips = torch.tensor([False, True] * 3)
    ours, pillow = sampled_crops(images, crops, flips, 16), resized_crops(images, crops, flips, 16) / 255
    assert (ours - pillow).abs().mean() < 0.02 and (ours - pillow).abs().max() < 0.15


def test_a_window_that_shrinks_is_averaged():
    """A fine checkerboard becomes grey; bilinear samples of it alone would be black or white."""
    board = torch.arange(64)[:, None].add(torch.arange(64)).remainder(2).mul(255).to(torch.uint8).expand(1, 3, 64, 64)
    view = sampled_crops(board, torch.tensor([[0, 0, 64, 64]]), torch.tensor([False]), 16)
    torch.testing.assert_close(view, torch.full_like(view, 0.5), atol=0.01, rtol=0)
    torch.testing.assert_close(view[:, :, 1:-1, 1:-1], avg_pool2d(board.float() / 255, 4)[:, :, 1:-1, 1:-1])


def test_each_change_of_colour_is_that_of_the_slow_way():
    images = smooth_images(4, 16, 16) * 0.4 + 0.3  # nothing is clamped
    factor = torch.tensor([0.7, 0.9, 1.1, 1.3])
    shaped = factor.view(-1, 1, 1, 1)
    torch.testing.assert_close(recoloured(images, looks()), images)
    torch.testing.assert_close(recoloured(images, looks(c0=factor)), _brightness(images, shaped))
    torch.testing.assert_close(recoloured(images, looks(c1=factor)), _contrast(images, shaped))
    torch.testing.assert_close(recoloured(images, looks(c2=factor)), _saturation(images, shaped), atol=1e-4, rtol=0)
    torch.testing.assert_close(recoloured(images, looks(c8=1.0)), _grey(images).expand_as(images), atol=1e-4, rtol=0)


def test_hue_turns_around_the_grey_axis():
    images = smooth_images(4, 16, 16) * 0.3 + 0.35
    turned = recoloured(images, looks(c3=[0.25, 0.5, -0.25, 1.0]))
    torch.testing.assert_close(_grey(turned), _grey(images), atol=1e-4, rtol=0)
    torch.testing.assert_close(turned[3], images[3], atol=1e-4, rtol=0)
    assert (turned[:3] - images[:3]).abs().mean() > 0.01
    back = colour_matrix(looks(c3=0.2)) @ colour_matrix(looks(c3=-0.2))
    torch.testing.assert_close(back, torch.eye(3).expand(4, 3, 3), atol=1e-4, rtol=0)
    assert recoloured(images, looks(c0=9.0)).max() == 1

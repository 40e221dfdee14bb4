"""Object-aware crops against a loop that follows the paper, against the pixels of marked objects, and bad boxes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ocl_bench.models.layers.patches import patches_of_boxes
from ocl_bench.training.crops import LOOKS, Looks, draw_uniform, pillow_crop, resized_crops
from ocl_bench.training.object_crops import (
    TRIES,
    CropOptions,
    clean_boxes,
    draw_object_crops,
    draw_object_looks,
    squares_around,
)
from ocl_bench.training.patch_masks import PatchMaskOptions, block_mask, draw_patch_masks

OPTIONS = CropOptions(size=32, scale=(0.25, 1.0), locals=3, local_size=16, local_scale=(0.05, 0.25))
PATCH = 4
NAN = [math.nan] * 4


def draw(boxes, sizes, options=OPTIONS, step=0, samples=None):
    """Crops of images of `sizes` with these lists of boxes."""
    most = max(len(own) for own in boxes)
    table = np.array([[*own, *[NAN] * (most - len(own))] for own in boxes], dtype=np.float64).reshape(
        len(boxes), most, 4
    )
    samples = np.arange(len(boxes)) if samples is None else samples
    uniform = draw_uniform(0, step, samples, options.columns, "object-crops")
    return draw_object_crops(uniform, np.array(sizes), table, options, PATCH)


def one_crop(u, height, width, scale):
    area = height * width * (scale[0] + (scale[1] - scale[0]) * u[0])
    aspect = math.exp(math.log(3 / 4) + (math.log(4 / 3) - math.log(3 / 4)) * u[1])
    w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    if not (0 < w <= width and 0 < h <= height):
        return None
    return int(u[2] * (height - h + 1)), int(u[3] * (width - w + 1)), h, w


def central(height, width):
    w = round(height * 4 / 3) if width > height * 4 / 3 else width
    h = round(width * 4 / 3) if width < height * 3 / 4 else height
    return (height - h) // 2, (width - w) // 2, h, w


def shows(crop, box, options):
    """One patch of the view, or the whole box, and at least the share `inside` of it."""
    top, left, h, w = crop
    wide = max(0.0, min(box[2], left + w) - max(box[0], left))
    high = max(0.0, min(box[3], top + h) - max(box[1], top))
    whole = (box[2] - box[0]) * (box[3] - box[1])
    of_view = wide * high * options.size**2 / (h * w)
    share = wide * high / whole
    return share > 0 and (of_view >= PATCH**2 or share >= 1 - 1e-9) and share >= options.inside - 1e-9


def by_loop(u, height, width, boxes, options):
    """Target, and for both global views crop, whether it shows the target, and the number of draws."""
    target = int(u[0] * len(boxes)) if boxes else -1
    found = []
    for view in range(2):
        numbers = u[1 + view * 321 :][:320].reshape(80, 4)
        kept, tries = None, 0
        for one in numbers:
            crop = one_crop(one, height, width, options.scale)
            if crop is None or tries == TRIES:
                continue
            kept, tries = crop, tries + 1
            if target < 0 or shows(crop, boxes[target], options):
                break
        kept = kept or central(height, width)
        found.append((kept, target >= 0 and shows(kept, boxes[target], options), tries))
    return target, found


@st.composite
def pictures(draw):
    height, width = draw(st.integers(20, 90)), draw(st.integers(20, 90))
    boxes = []
    for _ in range(draw(st.integers(0, 4))):
        x, y = draw(st.floats(0, width - 2)), draw(st.floats(0, height - 2))
        boxes.append([x, y, draw(st.floats(x + 1, width)), draw(st.floats(y + 1, height))])
    return height, width, boxes


@settings(max_examples=60, deadline=None)
@given(pictures(), st.sampled_from([0.0, 0.4, 1.0]), st.integers(0, 10**6))
def test_crops_equal_the_loop(picture, inside, step):
    height, width, boxes = picture
    options = OPTIONS.model_copy(update={"inside": inside})
    drawn = draw([boxes] * 4, [[height, width]] * 4, options, step)
    uniform = draw_uniform(0, step, np.arange(4), options.columns, "object-crops")
    for row in range(4):
        target, found = by_loop(uniform[row], height, width, boxes, options)
        assert int(drawn.target[row]) == target
        for view, (crop, shown, tries) in enumerate(found):
            assert tuple(drawn.crops[row, view].tolist()) == crop
            assert (bool(drawn.present[row, view]), int(drawn.tries[row, view])) == (shown, tries)
        for top, left, h, w in drawn.crops[row].tolist():
            assert h > 0 and w > 0 and 0 <= top <= height - h and 0 <= left <= width - w
    assert drawn.unusable.sum() == drawn.inverted.sum() == 0


def test_both_global_views_show_the_target_or_say_so():
    """Over ten thousand draws, twenty small crops sometimes miss an object in a corner."""
    source = np.random.default_rng(0)
    boxes, sizes = [], []
    for _ in range(10_000):
        height, width = source.integers(60, 120, 2)
        x, y = source.uniform(0, width - 9), source.uniform(0, height - 9)
        boxes.append([[x, y, x + 8, y + 8]])
        sizes.append([height, width])
    options = OPTIONS.model_copy(update={"scale": (0.25, 0.5), "locals": 0})
    drawn = draw(boxes, sizes, options)
    shown = drawn.present[:, :2]
    covered = patches_of_boxes(drawn.boxes, (32, 32), PATCH).patches
    assert (covered.any(-1) == shown).all()
    assert 0.9 < float(shown.float().mean()) < 1
    assert (drawn.tries[~shown] == TRIES).all() and drawn.tries.float().mean() < 6
    plain = draw(boxes, sizes, options.model_copy(update={"object_aware": False}))
    assert (plain.tries == 1).all() and float(plain.present[:, :2].all(1).float().mean()) < 0.5


def test_targets_are_drawn_over_all_objects():
    boxes = [[0, 0, 20, 20], [20, 0, 40, 20], [0, 20, 20, 40]]
    drawn = draw([boxes] * 3000, [[40, 40]] * 3000)
    assert (np.bincount(drawn.target, minlength=3) > 900).all()


@pytest.mark.parametrize("cut", ["tensor", "pillow"])
def test_boxes_are_where_the_object_is_in_the_view(cut):
    """A white rectangle on black: its pixels in every view, mirrored or not, against the box."""
    images = np.zeros((40, 3, 90, 100), dtype=np.uint8)
    source = np.random.default_rng(0)
    boxes = []
    for image in images:
        x, y = (int(source.integers(5, 50)) for _ in range(2))
        image[:, y : y + 30, x : x + 40] = 255
        boxes.append([[x, y, x + 40, y + 30]])
    options = CropOptions(size=64, locals=0)
    drawn = draw(boxes, [[90, 100]] * 40, options)
    assert drawn.flips.any() and not drawn.flips.all()
    for view in range(2):
        crops, flips = drawn.crops[:, view], drawn.flips[:, view]
        if cut == "tensor":
            views = resized_crops(torch.from_numpy(images), crops, flips, 64)
        else:
            pairs = zip(images, crops, flips.tolist(), strict=True)
            views = torch.stack([pillow_crop(one.transpose(1, 2, 0), crop, flip, 64) for one, crop, flip in pairs])
        for row in range(40):
            if not drawn.present[row, view]:
                continue
            rows, columns = torch.nonzero(views[row, 0] > 127, as_tuple=True)
            seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert drawn.boxes[row, view].tolist() == pytest.approx([float(one) for one in seen], abs=1.01)


def test_images_without_boxes_get_plain_crops():
    drawn = draw([[], [[5, 5, 30, 30]]], [[40, 50], [40, 50]])
    assert drawn.target.tolist() == [-1, 0] and not drawn.present[0].any()
    assert drawn.boxes[0].isnan().all() and (drawn.tries[0] == 1).all()
    empty = draw([[], []], [[40, 50], [1, 1]])
    assert empty.target.tolist() == [-1, -1] and (empty.crops[..., 2:] > 0).all()
    assert not patches_of_boxes(empty.boxes, (32, 32), PATCH).patches.any()


@pytest.mark.parametrize(
    ("box", "kept", "counts"),
    [
        ([5, 5, 30, 30], [5, 5, 30, 30], (0, 0)),
        ([30, 30, 5, 5], [5, 5, 30, 30], (0, 1)),  # swapped
        ([-10, 5, 30, 90], [0, 5, 30, 40], (0, 0)),  # reaches out of the image
        ([60, 5, 80, 30], None, (1, 0)),  # outside
        ([5, 5, 5, 30], None, (1, 0)),  # empty
        ([5, 5, math.inf, 30], None, (1, 0)),
        ([5, 5, math.nan, 30], None, (1, 0)),
        (NAN, None, (0, 0)),  # absent
    ],
)
def test_bad_boxes_are_mended_or_left_out_and_counted(box, kept, counts):
    cleaned, unusable, inverted = clean_boxes(np.array([[box]], dtype=float), np.array([[40, 50]]))
    assert cleaned[0, 0].tolist() == kept if kept else np.isnan(cleaned).all()
    assert (int(unusable[0]), int(inverted[0])) == counts
    drawn = draw([[box, NAN]], [[40, 50]])
    assert int(drawn.target[0]) == (0 if kept else -1)


def test_a_target_is_never_an_unusable_box():
    drawn = draw([[NAN, [5, 5, 5, 5], [10, 10, 30, 30], [99, 0, 120, 9]]] * 50, [[40, 50]] * 50)
    assert (drawn.target == 2).all() and (drawn.unusable == 2).all()


@pytest.mark.parametrize("box", [[10, 10.2, 40, 10.6], [10, 10, 10.001, 10.001], [0, 0, 0.5, 40]])
def test_boxes_thinner_than_a_patch_cover_one(box):
    drawn = draw([[box]] * 300, [[40, 50]] * 300)
    shown = drawn.present[:, :2]
    patches = patches_of_boxes(drawn.boxes, (32, 32), PATCH)
    assert shown.float().mean() > 0.3 and (patches.patches.any(-1) == shown).all()
    assert patches.thin[shown].all() and not patches.inverted.any()


def test_rows_depend_on_seed_step_and_sample_only():
    boxes, sizes = [[[5, 5, 30, 30]]] * 6, [[40, 50]] * 6
    whole = draw(boxes, sizes)
    part = draw(boxes[:2], sizes[:2], samples=np.array([4, 1]))
    assert torch.equal(part.crops, whole.crops[[4, 1]]) and torch.equal(part.flips, whole.flips[[4, 1]])
    assert not torch.equal(whole.crops, draw(boxes, sizes, step=1).crops)
    fewer = draw(boxes, sizes, OPTIONS.model_copy(update={"locals": 0}))
    assert torch.equal(fewer.crops, whole.crops[:, :2]) and fewer.present.shape == (6, 2)


def test_looks_of_each_view():
    options = OPTIONS.model_copy(update={"local_blur": 1.0})
    uniform = draw_uniform(0, 0, np.arange(500), options.columns, "object-crops")
    rows = draw_object_looks(uniform, options, Looks(blur=(1.0, 0.0), solarise=(0.0, 1.0)))
    assert rows.shape == (500, 5, 11)
    assert ((rows[..., 9] > 0).float().mean(0) == torch.tensor([1.0, 0, 1, 1, 1])).all()
    assert (rows[..., 10].mean(0) == torch.tensor([0.0, 1, 0, 0, 0])).all()
    assert (
        len({tuple(row) for row in rows[:, :, 0].T[:2].tolist()}) == 2 and uniform.shape[1] == 1 + 642 + 123 + 5 * LOOKS
    )


@pytest.mark.parametrize("shape", ["block", "random"])
def test_hidden_patches_keep_to_their_share(shape):
    masks = draw_patch_masks(0, 0, np.arange(400), 2, 14, PatchMaskOptions(shape=shape))
    shares = masks.float().mean(-1)
    assert masks.shape == (400, 2, 196) and float(shares.max()) <= 0.5
    assert 0.45 < float((shares == 0).float().mean()) < 0.6
    hidden = shares[shares > 0]
    assert float(hidden.mean()) == pytest.approx(0.3, abs=0.04)
    again = draw_patch_masks(0, 0, np.array([7]), 2, 14, PatchMaskOptions(shape=shape))
    assert torch.equal(again[0], masks[7]) and not torch.equal(masks[7, 0], masks[7, 1])


def test_blocks_are_blocks_and_end():
    source = np.random.default_rng(0)
    for wanted in (0, 1, 16, 40, 63.5, 64):
        assert block_mask(source, 8, wanted).sum() <= wanted
    neighbours = {}
    for shape in ("block", "random"):
        options = PatchMaskOptions(ratio=(0.3,), variation=(0.0,), shape=shape)
        masks = draw_patch_masks(0, 0, np.arange(100), 1, 14, options).view(100, 14, 14)
        neighbours[shape] = float((masks[:, :, 1:] & masks[:, :, :-1]).float().mean())
    assert neighbours["block"] > 2 * neighbours["random"]
    assert not draw_patch_masks(0, 0, np.arange(5), 2, 2, PatchMaskOptions(ratio=(0.1,), variation=(0.0,))).any()


# --- squares around objects -----------------------------------------------------------------------------------------


def test_squares_by_hand():
    sizes, target = np.array([[100, 80]] * 4), np.array([[20.0, 30, 40, 70]] * 4)  # 20 wide, 40 high
    numbers = np.array([[0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0.999, 0.999], [0.25, 0, 0.5, 0.5]])
    squares = squares_around(numbers, sizes, target, (1.0, 2.0))
    # Factors 1, 2, 2 and 1.25 of 40 pixels; corners from (bottom - side, right - side) to (top, left), in the image.
    assert squares.tolist() == [[30, 0, 40, 40], [0, 0, 80, 80], [20, 0, 80, 80], [25, 5, 50, 50]]
    wide = squares_around(numbers[:2], sizes[:2], np.array([[0.0, 0, 80, 90]] * 2), (1.0, 1.0))
    assert wide.tolist() == [[0, 0, 80, 80], [0, 0, 80, 80]]  # an object longer than the image is wide


def test_squares_show_the_whole_object_and_stay_inside():
    draw = np.random.default_rng(0)
    sizes = draw.integers(40, 120, (500, 2))
    low = draw.uniform(0, 0.6, (500, 2)) * sizes[:, ::-1]
    target = np.concatenate([low, low + np.minimum(draw.uniform(3, 30, (500, 2)), sizes[:, ::-1] - low)], axis=1)
    top, left, height, width = squares_around(draw.random((500, 4)), sizes, target, (1.0, 2.0)).T
    assert (height == width).all() and (top >= 0).all() and (left >= 0).all()
    assert (top + height <= sizes[:, 0]).all() and (left + width <= sizes[:, 1]).all()
    shown = np.minimum(target[:, 2], left + width) - np.maximum(target[:, 0], left)
    assert (shown >= target[:, 2] - target[:, 0] - 1).all()  # corners are whole pixels
    longer = np.maximum(target[:, 2] - target[:, 0], target[:, 3] - target[:, 1])
    assert (height >= longer - 1).all() and (height <= 2 * longer + 1).all() and len(np.unique(height)) > 20


def test_zoom_replaces_global_views_of_images_with_an_object_only():
    options = CropOptions(size=32, scale=(0.4, 1.0), locals=1, local_size=16, zoom=(1.0, 1.5))
    uniform = np.random.default_rng(1).random((2, options.columns))
    boxes = np.array([[[10.0, 12, 30, 28]], [[np.nan] * 4]])
    sizes = np.array([[64, 80], [64, 80]])
    zoomed = draw_object_crops(uniform, sizes, boxes, options, 8)
    plain = draw_object_crops(uniform, sizes, boxes, options.model_copy(update={"zoom": None}), 8)
    assert torch.equal(zoomed.crops[1], plain.crops[1]) and torch.equal(zoomed.crops[0, 2], plain.crops[0, 2])
    assert (zoomed.crops[0, :2, 2] == zoomed.crops[0, :2, 3]).all() and (zoomed.crops[0, :2, 2] <= 30).all()
    assert zoomed.present[0, :2].all() and zoomed.tries[0].tolist() == [1, 1]
    seen = zoomed.boxes[0, :, 2:] - zoomed.boxes[0, :, :2]
    assert (seen[:, 0] > 32 / 1.5 - 1.5).all() and not torch.equal(zoomed.crops[0, 0], zoomed.crops[0, 1])

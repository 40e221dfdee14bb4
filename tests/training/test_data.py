"""Cached scenes and features."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from ocl_bench.core.errors import UsageError
from ocl_bench.data.rendered import RECORD
from ocl_bench.data.scenes import render
from ocl_bench.training import data
from ocl_bench.training.data import frozen_features, object_boxes, training_scenes
from ocl_bench.training.recipe import SceneSelection


@dataclass
class _Rendered:
    image: torch.Tensor
    labels: torch.Tensor


def fake_render(variant, revision, split, indices, *, size, windows):
    """Scene i is filled with i; rows are counted in red, columns in blue, and pixel (16, 16) has label i + 1."""
    if revision != 1:
        raise ValueError(f"variant {variant} is at revision 1")
    image = torch.tensor(indices, dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, 3, size, size)
    image[:, 0] = torch.arange(size, dtype=torch.uint8).view(-1, 1)
    image[:, 2] = torch.arange(size, dtype=torch.uint8)
    labels = torch.zeros(len(indices), size, size, dtype=torch.uint8)
    labels[:, 16, 16] = torch.tensor(indices, dtype=torch.uint8) + 1
    return _Rendered(image, labels)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(data, "CHUNK", 4)


def open_scenes(count, **changes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ocl_bench.data.scenes.render", fake_render)
        return training_scenes(SceneSelection(count=count, **changes), workers=1, progress=False)


def test_scenes_are_cropped_and_read_in_any_order(small_chunks):
    scenes = open_scenes(10)
    assert len(scenes) == 10
    images, labels = scenes.images[[9, 0, 4]], scenes.labels[[9, 0, 4]]
    assert images.shape == (3, 3, 128, 128) and labels.shape == (3, 128, 128) and images.dtype == torch.uint8
    assert images[:, 1, 0, 0].tolist() == [9, 0, 4]
    assert images[0, 0, :, 5].tolist() == list(range(16, 144))
    assert labels[:, 0, 0].tolist() == [10, 1, 5]


def test_only_missing_chunks_are_rendered(small_chunks, monkeypatch):
    rendered = []
    real = data._render_chunk
    monkeypatch.setattr(data, "_render_chunk", lambda *arguments: (rendered.append(arguments[-1]), real(*arguments)))
    open_scenes(6)
    open_scenes(9)
    open_scenes(3)
    assert rendered == [0, 1, 2]
    open_scenes(3, variant="camo")
    assert rendered == [0, 1, 2, 0]


def test_a_chunk_that_was_cut_off_or_replaced_is_rendered_again(small_chunks):
    open_scenes(8)
    first, second = sorted(data.cache_root().rglob("images-*.npy"))
    before = first.read_bytes()
    for content in (before[:1000], second.read_bytes()):
        first.write_bytes(content)
        assert open_scenes(8).images[[1, 6]][:, 1, 0, 0].tolist() == [1, 6]
        assert first.read_bytes() == before


def test_a_chunk_that_was_cut_off_and_of_which_nothing_is_recorded_is_named(small_chunks):
    open_scenes(4)
    path = next(data.cache_root().rglob("images-*.npy"))
    path.write_bytes(path.read_bytes()[:1000])
    path.with_name(RECORD).unlink()
    with pytest.raises(UsageError, match=r"images-000000\.npy: cannot be read.*remove it"):
        open_scenes(4)


def test_a_revision_that_is_gone_is_a_usage_error(small_chunks):
    with pytest.raises(UsageError, match=r"'train\.scenes': variant full is at revision 1"):
        open_scenes(4, revision=7)


def test_the_crop_is_that_of_the_protocol(small_chunks):
    scene = render("full", 1, "train", [1])
    scenes = training_scenes(SceneSelection(count=2), workers=1, progress=False)
    assert torch.equal(scenes.images[[1]], scene.image[:, :, 16:144, 16:144])
    assert torch.equal(scenes.labels[[1]], scene.labels[:, 16:144, 16:144])


@pytest.mark.parametrize("flip", [False, True])
def test_features_are_cached_by_encoder_and_scenes(small_chunks, flip):
    scenes, calls = open_scenes(6), []

    def encode(image):
        calls.append(len(image))
        return image[:, :, ::8, ::8].cumsum(3)  # not symmetric under mirroring

    def make(key):
        return frozen_features(encode, scenes, key, device=torch.device("cpu"), flip=flip, progress=False)

    features = make("key-a")
    images = scenes.images[[5, 2]].float() / 255
    expected = encode(images.flip(-1) if flip else images).flatten(2).transpose(1, 2)
    assert features[[5, 2]].dtype == torch.float16 and features[[5, 2]].shape == (2, 256, 3)
    torch.testing.assert_close(features[[5, 2]], expected.half())
    done = len(calls)
    make("key-a")
    assert len(calls) == done
    make("key-b")
    assert len(calls) == done + 2


def test_object_boxes_against_a_loop():
    draw = np.random.default_rng(0)
    labels = torch.zeros(3, 20, 24, dtype=torch.uint8)
    for image in range(3):
        for label in (1, 2, 4):
            y, x = draw.integers(0, 14, 2)
            labels[image, y : y + 5, x : x + 6] = label
    boxes = object_boxes(labels, 5)
    for image in range(3):
        for label in range(1, 6):
            rows, columns = np.nonzero(labels[image].numpy() == label)
            box = boxes[image, label - 1]
            if len(rows) == 0:
                assert box.isnan().all()
            else:
                assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_arrays_that_are_written_differently_have_another_folder(tmp_path, small_chunks, monkeypatch):
    """Two versions of the suite may share a cache."""
    expected = open_scenes(8).images[range(8)]
    monkeypatch.setattr(data, "CACHE", "training-2")
    monkeypatch.setattr(data, "CHUNK", 2)
    assert torch.equal(open_scenes(8).images[range(8)], expected)
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["training", "training-2"]


def test_the_folder_stands_for_these_sizes():
    """Whoever changes one of them renames the folder here and there."""
    sizes = (data.CHUNK, data.RENDERED, data.CROPPED, data.MOST_OBJECTS, data.SIDES)
    assert (data.CACHE, *sizes) == ("training", 64, 160, 128, 16, {"things": 160, "salient": 128})

"""Clips: which frames they have, features from the cache and computed at once, videos of every reader, bad input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_video_training import SMALL
from tiny_videos import VideoMemory, memory_videos, video_task

from ocl_bench.cards.names import get_card, get_task
from ocl_bench.cards.task import TaskSpec
from ocl_bench.core.errors import SampleError, UsageError
from ocl_bench.data import OpenData
from ocl_bench.data.rendered import RECORD
from ocl_bench.data.scenes.videos import RenderedVideo, VideoStore, write_video
from ocl_bench.data.stand_ins.writers import find_writer
from ocl_bench.data.transforms import prepare
from ocl_bench.models.slotcontrast import SlotContrast, assemble
from ocl_bench.training import run
from ocl_bench.training.clips import (
    FrameFeatures,
    FrozenEncoders,
    ReadVideos,
    VideoOptions,
    cached_features,
    clip_frames,
    rendered_data,
    videos_of_reader,
    videos_of_scenes,
)
from ocl_bench.training.recipe import Recipe, SceneSelection


@pytest.mark.parametrize(
    ("length", "uniform", "expected"),
    [
        (8, 0.0, [0, 1, 2, 3]),
        (8, 0.999, [4, 5, 6, 7]),
        (11, 0.999, [4, 5, 6, 7]),  # the remainder is dropped
        (4, 0.7, [0, 1, 2, 3]),
        (3, 0.7, [0, 1, 2, 2]),
        (1, 0.7, [0, 0, 0, 0]),
    ],
)
def test_frames_of_a_clip(length: int, uniform: float, expected: list[int]) -> None:
    assert clip_frames(length, 4, uniform) == expected


def test_a_video_without_a_frame_has_no_clip() -> None:
    with pytest.raises(ValueError, match="without a frame"):
        clip_frames(0, 4, 0.5)


def tiny_model() -> SlotContrast:
    torch.manual_seed(0)
    return assemble(SlotContrast, "embedded", {**SMALL, "input_size": 128})


def frozen_encoders(model: SlotContrast) -> FrozenEncoders:
    return FrozenEncoders(model.encoder, None, model.input_size, torch.device("cpu"))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VideoStore:
    """Four videos of noise with 5, 4, 3 and 1 frames, in a separate cache."""
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "cache"))
    for split in ("train", "val"):
        for index, frames in enumerate((5, 4, 3, 1)):
            draw = np.random.default_rng(10 * index + (split == "val"))
            labels = np.zeros((frames, 128, 128), np.uint8)
            labels[:, 20:60, 30:90] = 1
            images = draw.integers(0, 256, (frames, 128, 128, 3), dtype=np.uint8)
            write_video(VideoStore(split=split).folder / f"{index:05d}.npz", RenderedVideo(images, labels, (2,)))
    return VideoStore(split="train", count=4)


def test_cached_features_are_those_of_the_frames(store: VideoStore) -> None:
    """A clip of a reader, encoded at once, equals the clip of the cache, mirrored or not."""
    model = tiny_model()
    recipe = Recipe(steps=1, validate_limit=2, scenes=SceneSelection(variant="motion", count=4))
    task = get_task("movi-c")
    cached, held_out = videos_of_scenes(
        task, recipe, VideoOptions(kind="video"), frozen_encoders(model), progress=False
    )
    assert held_out.ids == ("val-00000", "val-00001") and cached.note == "4 embedded videos of motion r1, train split"
    assert held_out.reader[1].frames[0].truth.labels.max() == 1
    read = ReadVideos(rendered_data(store, task), task.protocol, 128, "the same")
    indices, uniform, flips = (
        np.array([0, 1, 2, 3]),
        np.array([0.9, 0.0, 0.5, 0.2]),
        np.array([True, False, True, False]),
    )
    one, two = (source.clips(indices, uniform, flips, 2) for source in (cached, read))
    assert torch.equal(one["padded"], two["padded"]) and one["padded"].tolist() == [False, False, False, True]
    assert one["features"].dtype == torch.float16 and one["features"].shape == (4, 2, 256, SMALL["dim"])
    torch.testing.assert_close(one["features"].float(), model.encode_frames(two["video"], 3), atol=2e-3, rtol=0)


def test_features_are_computed_once_for_each_encoder(store: VideoStore, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    first = cached_features(model.encoder, store, frozen_encoders(model), True, progress=False)
    monkeypatch.setattr(VideoStore, "__getitem__", None)  # no frame is read again
    again = cached_features(model.encoder, store, frozen_encoders(model), True, progress=False)
    assert all(np.array_equal(a, b) for a, b in zip(first.plain, again.plain, strict=True))
    plain = cached_features(model.encoder, store, frozen_encoders(model), False, progress=False)
    assert plain.mirrored is None and first.mirrored is not None
    with torch.no_grad():
        next(model.encoder.parameters()).add_(1)
    with pytest.raises(TypeError):  # another encoder needs the frames
        cached_features(model.encoder, store, frozen_encoders(model), False, progress=False)


def test_frames_of_videos_one_after_the_other(store: VideoStore) -> None:
    model = tiny_model()
    videos = cached_features(model.encoder, store, frozen_encoders(model), False, progress=False).plain
    frames = FrameFeatures(videos)
    assert len(frames) == 5 + 4 + 3 + 1
    expected = np.stack([videos[0][4], videos[1][0], videos[3][0], videos[0][4]])
    assert np.array_equal(frames[np.array([4, 5, 12, 4])].numpy(), expected)


def test_frames_of_another_size_are_resized_as_in_evaluation(store: VideoStore) -> None:
    encoder = tiny_model().encoder
    found = cached_features(
        encoder, store, replace(frozen_encoders(tiny_model()), input_size=64), False, progress=False
    )
    video = rendered_data(store, get_task("movi-c")).reader[0]
    rules = get_task("clevrer-prediction").protocol
    frames = torch.stack([prepare(frame, rules, 64)[0] for frame in video.frames])
    with torch.no_grad():
        expected = encoder(frames).flatten(2).transpose(1, 2)
    assert expected.shape[1] == 64
    torch.testing.assert_close(torch.from_numpy(np.array(found.plain[0])).float(), expected, atol=2e-3, rtol=0)


def test_features_that_were_changed_are_computed_again(store: VideoStore) -> None:
    model = tiny_model()
    made = cached_features(model.encoder, store, frozen_encoders(model), False, progress=False)
    path = next((store.folder.parents[2] / "training").rglob("00002.npy"))
    before = [np.array(video) for video in made.plain]
    for content in (b"no array", path.with_name("00001.npy").read_bytes()):
        path.unlink()  # `made` shows the old file
        path.write_bytes(content)
        again = cached_features(model.encoder, store, frozen_encoders(model), False, progress=False)
        assert all(np.array_equal(a, b) for a, b in zip(again.plain, before, strict=True))


def test_a_damaged_file_of_features_of_which_nothing_is_recorded_is_named(store: VideoStore) -> None:
    model = tiny_model()
    cached_features(model.encoder, store, frozen_encoders(model), False, progress=False)
    path = next((store.folder.parents[2] / "training").rglob("00002.npy"))
    path.write_bytes(b"no array")
    path.with_name(RECORD).unlink()
    with pytest.raises(UsageError, match=r"00002\.npy: cannot be read .* remove it"):
        cached_features(model.encoder, store, frozen_encoders(model), False, progress=False)


def card_with(options: dict[str, Any]) -> Any:
    full = get_card("slotcontrast")
    train = {**full.train, "steps": 2, "batch": 2, "validate_limit": 1, "log_every": 1, "precision": "fp32"}
    objective = {"kind": "video", "encoder": "encoder", "images": "reader", "clip": 2}
    return full.model_copy(update={"options": {**full.options, **options}, "train": {**train, "objective": objective}})


READERS = {
    "movi-c": ("movi_c", "movi_c", "train"),
    "ytvis-2021": ("ytvis", "ytvis", "train"),
    "davis-2017": ("davis", "davis", "train"),
}


@pytest.fixture
def small_card(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"slots": 3, "slot_dim": 8, "hidden": 8, "decoder_layers": 1}
    encoder = {"width": 64, "dim": 64, "blocks": [1, 1]}  # the bundled small one
    monkeypatch.setattr(run, "get_card", lambda name: card_with({**sizes, **encoder}))


@pytest.mark.parametrize("name", READERS)
def test_videos_of_a_data_set_are_trained_on(
    tmp_path: Path, store: VideoStore, small_card: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The data has its official layout. The task validates on a held-out video of the same split."""
    # Of so few videos all would be those of validation.
    monkeypatch.setattr("ocl_bench.data.readers.ytvis._VALIDATION", 0)
    layout, folder, split = READERS[name]
    task = get_task(name)
    task = task.model_copy(update={"protocol": task.protocol.model_copy(update={"score_at": 32})})
    root = tmp_path / "data" / (task.data.folder or folder)
    find_writer(layout)(root if layout != "movi_c" else root.parent, split, store, 0)
    trained = run.train("slotcontrast", task, data_root=tmp_path / "data", out=tmp_path / "out", progress=False)
    assert trained["finished"] and trained["data"].startswith(f"3 videos of task {name}, train split, official ")
    assert f"val_{task.main}" in trained["numbers"]
    counts = [line for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines() if "count_clips" in line]
    assert len(counts) == 2 and all('"count_clips": 2' in line for line in counts)


def folder_task() -> TaskSpec:
    return TaskSpec.model_validate(
        {
            "name": "mine",
            "version": 1,
            "family": "video",
            "data": {"reader": "video-folder", "folder": "clips", "split": "train"},
            "protocol": {"input": 32, "score_at": 32, "crop": "square", "interpolation": "bicubic-tensor"},
            "metrics": ["mbo_video", "fg_ari_video"],
            "main": "mbo_video",
        }
    )


def write_folder(root: Path, lengths: tuple[int, ...]) -> None:
    """Videos of several sizes and lengths."""
    draw = np.random.default_rng(0)
    for number, length in enumerate(lengths):
        shape = (40 + 8 * number, 56 - 4 * number)
        for t in range(length):
            for kind, picture in (
                ("frames", draw.integers(0, 256, (*shape, 3), dtype=np.uint8)),
                ("masks", np.eye(*shape, dtype=np.uint8)),
            ):
                path = root / "clips" / kind / f"v{number}" / f"{t}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(path)


def test_folders_of_frames_of_any_size_and_length_are_trained_on(tmp_path: Path, small_card: None) -> None:
    write_folder(tmp_path, (3, 1, 7, 2))
    trained = run.train("slotcontrast", folder_task(), data_root=tmp_path, out=tmp_path / "out", progress=False)
    assert trained["data"].startswith("3 videos of task mine, train split, supplied ")
    with pytest.raises(UsageError, match="was trained with data"):  # other videos are another training
        (tmp_path / "clips" / "frames" / "v3" / "0.png").unlink()
        (tmp_path / "clips" / "masks" / "v3" / "0.png").unlink()
        run.train("slotcontrast", folder_task(), data_root=tmp_path, out=tmp_path / "out", progress=False)


def test_too_few_videos_are_refused(tmp_path: Path, small_card: None) -> None:
    write_folder(tmp_path, (2,))
    with pytest.raises(UsageError, match="split train has 1 samples, 1 are held out"):
        run.train("slotcontrast", folder_task(), data_root=tmp_path, out=tmp_path / "out", progress=False)


def read_memory(**changes: Any) -> ReadVideos:
    data: OpenData = memory_videos(3, **changes)
    return ReadVideos(data, video_task().protocol, 24, "in memory")


def test_a_broken_frame_names_its_video() -> None:
    source = read_memory(frames=3, broken=(1,))
    everything = np.array([0, 2]), np.array([0.5, 0.5]), np.array([False, False])
    assert source.clips(*everything, 3)["video"].shape == (2, 3, 3, 24, 24)
    with pytest.raises(SampleError, match="frame 00005 is missing") as caught:
        source.clips(np.array([0, 1]), *everything[1:], 3)
    assert caught.value.sample_id == "video1"


def test_a_video_without_frames_is_named() -> None:
    with pytest.raises(SampleError, match="has no frame"):
        read_memory(frames=0).clips(np.array([0]), np.array([0.5]), np.array([False]), 3)


def test_only_the_frames_of_the_clip_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    original = VideoMemory.__getitem__
    monkeypatch.setattr(VideoMemory, "__getitem__", lambda self, i: opened.append(original(self, i)) or opened[-1])
    read_memory(frames=6).clips(np.array([0]), np.array([0.6]), np.array([False]), 2)
    assert [one.frames.read for one in opened] == [[2, 3]]


def test_videos_that_validate_are_not_trained_on(tmp_path: Path) -> None:
    write_folder(tmp_path, (2, 2, 2, 2, 2))
    recipe = Recipe(steps=1, validate_limit=2)
    options = VideoOptions(kind="video", images="reader")
    trained, held_out = videos_of_reader(
        folder_task(), recipe, options, frozen_encoders(tiny_model()), tmp_path, progress=False
    )
    assert held_out.ids == ("v0", "v2") and trained.data.ids == ("v1", "v3", "v4")

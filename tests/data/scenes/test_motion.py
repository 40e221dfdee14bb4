"""Rendered videos: pure functions of their index, what happens in them, persistent numbers, textures that stick."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ocl_bench.data.scenes import videos
from ocl_bench.data.scenes.caster import build_world
from ocl_bench.data.scenes.motion import FRAMES, MAX_OBJECTS, MIN_OBJECTS, Camera, sample_video
from ocl_bench.data.scenes.pairs import Pairs
from ocl_bench.data.scenes.sampler import HALF_VIEW, Scene, SceneObject
from ocl_bench.data.scenes.shapes import SHAPE_NAMES
from ocl_bench.data.scenes.tracing import first_hits
from ocl_bench.data.scenes.videos import MIN_VISIBLE, RenderedVideo, VideoStore, read_video, render_video, write_video
from ocl_bench.data.stand_ins.layouts import StoreJob
from ocl_bench.data.stand_ins.processes import share_out

GOLDEN_MASKS = "bd432bd55a8f1186"
GOLDEN_GREY = [66.015, 78.454, 106.107, 67.101, 81.95, 106.049, 65.644, 78.016, 105.549]
GOLDEN_CATEGORIES = (2, 3, 2, 3)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As workers render: more threads are slower where processors are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def first_video() -> RenderedVideo:
    return render_video(1, "test", 0)


@pytest.fixture(scope="module")
def sampled() -> list[tuple[Scene, ...]]:
    return [sample_video(1, "test", index) for index in range(60)]


@pytest.fixture(scope="module")
def small() -> list[RenderedVideo]:
    return [render_video(1, "test", index, size=64) for index in range(5)]


def test_revision_is_frozen(first_video: RenderedVideo) -> None:
    """A change of any video is a new revision: masks are bit-equal, mean grey values move by less than 0.05."""
    assert first_video.frames.shape == (24, 128, 128, 3) and first_video.frames.dtype == np.uint8
    assert first_video.objects.shape == (24, 128, 128) and first_video.objects.dtype == np.uint8
    assert hashlib.sha256(first_video.objects.tobytes()).hexdigest()[:16] == GOLDEN_MASKS
    grey = first_video.frames[[0, 11, 23]].mean(axis=(1, 2)).flatten().tolist()
    assert grey == pytest.approx(GOLDEN_GREY, abs=0.05)
    assert first_video.categories == GOLDEN_CATEGORIES


def test_a_video_depends_on_its_index_split_and_seed_only(small: list[RenderedVideo]) -> None:
    again = render_video(1, "test", 3, size=64)
    assert np.array_equal(again.frames, small[3].frames) and np.array_equal(again.objects, small[3].objects)
    keys = [("test", 0, 0), ("val", 0, 0), ("train", 0, 0), ("test", 1, 0), ("test", 0, 1)]
    cameras = {sample_video(1, split, index, seed)[0].camera.tobytes() for split, index, seed in keys}
    assert len(cameras) == len(keys)


def test_unknown_revisions_splits_and_variants_are_refused() -> None:
    with pytest.raises(ValueError, match="revision 1"):
        sample_video(2, "test", 0)
    with pytest.raises(ValueError, match="unknown split"):
        sample_video(1, "validation", 0)
    VideoStore().check_revision()
    for store in (VideoStore(revision=2), VideoStore(variant="things")):
        with pytest.raises(ValueError, match="is not rendered by this version"):
            store.check_revision()


def paths_of(scenes: tuple[Scene, ...]) -> tuple[Camera, np.ndarray]:
    """The camera, and the centres (K, T, 3) of the objects."""
    camera = Camera(np.stack([scene.camera for scene in scenes]), np.stack([scene.axes for scene in scenes]))
    return camera, np.stack([[one.centre for one in scene.objects] for scene in scenes], axis=1)


def test_objects_keep_everything_but_place_and_yaw(sampled: list[tuple[Scene, ...]]) -> None:
    for scenes in sampled[:20]:
        assert len(scenes) == FRAMES and MIN_OBJECTS <= len(scenes[0].objects) <= MAX_OBJECTS
        for scene in scenes[1:]:
            assert scene.grounds[0] is scenes[0].grounds[0] and np.array_equal(scene.light, scenes[0].light)
            for one, before in zip(scene.objects, scenes[0].objects, strict=True):
                assert one.surface is before.surface and one.half is before.half and one.shape == before.shape
                assert one.centre[2] == one.half[2], "it stands on the ground"


def test_how_many_objects_move_and_how_fast(sampled: list[tuple[Scene, ...]]) -> None:
    standing, speeds, spins = [], [], []
    for scenes in sampled:
        _, centres = paths_of(scenes)
        steps = np.linalg.norm(np.diff(centres, axis=1), axis=2)
        yaws = np.array([[one.yaw for one in scene.objects] for scene in scenes])
        still = steps.max(axis=1) == 0
        standing.append(still.mean())
        speeds += steps[~still].flatten().tolist()
        spins += np.abs(np.diff(yaws, axis=0)).max(axis=0)[~still].tolist()
        assert np.array_equal(np.abs(np.diff(yaws, axis=0)).max(axis=0) == 0, still), "what moves turns, too"
        assert np.abs(np.diff(steps, axis=1)).max() < 0.2, "paths are smooth"
    assert 0.2 < np.mean(standing) < 0.5 and min(standing) > 0, "about 0.37"
    assert 0.05 < np.median(speeds) < 0.5 and max(speeds) < 0.7 and min(spins) >= 0.02 and max(spins) <= 0.12


def test_the_camera_moves_and_pans_in_every_video(sampled: list[tuple[Scene, ...]]) -> None:
    for scenes in sampled:
        camera, _ = paths_of(scenes)
        length = np.linalg.norm(np.diff(camera.position, axis=0), axis=1).sum()
        turned = np.degrees(np.arccos(np.clip(camera.axes[:, 2] @ camera.axes[:, 2].T, -1, 1)).max())
        assert length > 1 and turned > 2, "at least 1.3 and 2.7 degrees, mostly 4.4 and 15 degrees"
        assert camera.axes[:, 2, 2].max() + HALF_VIEW * camera.axes[:, 1, 2].max() < -0.05, "no horizon in sight"
        assert np.allclose(camera.axes @ camera.axes.transpose(0, 2, 1), np.eye(3))


def test_in_most_videos_an_object_leaves_the_picture_and_comes_back(sampled: list[tuple[Scene, ...]]) -> None:
    shares = []
    for scenes in sampled:
        camera, centres = paths_of(scenes)
        place, depth = camera.look_at(centres)
        size = np.array([np.linalg.norm(one.half) for one in scenes[0].objects])[:, None] / (HALF_VIEW * depth)
        farthest = np.abs(place).max(axis=2)
        inside, outside = farthest < 1, farthest > 1 + size
        back = [
            any(before[:t].any() and before[t:].any() for t in np.flatnonzero(away))
            for before, away in zip(inside, outside, strict=True)
        ]
        shares.append(any(back))
        assert (inside.sum(axis=1) >= 8).all(), "the centre of every object is in the picture for a third of the video"
    assert np.mean(shares) >= 0.8, "0.91 of many videos"


def test_in_most_videos_an_object_is_hidden_behind_another(sampled: list[tuple[Scene, ...]]) -> None:
    """The ray from the camera to the centre of an object in the picture meets another object first."""
    shares = []
    for scenes in sampled:
        camera, centres = paths_of(scenes)
        count = len(centres)
        start = torch.from_numpy(camera.position).repeat_interleave(count, 0)
        aim = torch.from_numpy(centres.transpose(1, 0, 2).reshape(-1, 3)) - start
        ray = torch.arange(FRAMES * count).repeat_interleave(count)
        pairs = Pairs(ray, ray // count * count + torch.arange(count).repeat(FRAMES * count))
        far = torch.full((FRAMES * count,), torch.inf, dtype=torch.float64)
        hits = first_hits(build_world(list(scenes)), aim.T.contiguous(), far, pairs)
        hit = np.full(FRAMES * count, -1)
        hit[hits.ray] = hits.solid % count
        hit = hit.reshape(FRAMES, count)
        inside = np.abs(camera.look_at(centres)[0]).max(axis=2).T < 1
        shares.append(((hit != np.arange(count)) & inside).any())
    assert np.mean(shares) >= 0.7, "0.85 of many videos"


def outline(one: SceneObject) -> np.ndarray:
    """Points (N, 2) on the edge of an object's footprint, in its own unit space."""
    angle = np.linspace(0, 2 * np.pi, 65)[:-1]
    edge = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    if SHAPE_NAMES[one.shape] == "cube":
        return edge / np.abs(edge).max(axis=1, keepdims=True)
    return edge / np.abs(edge).sum(axis=1, keepdims=True) if SHAPE_NAMES[one.shape] == "octahedron" else edge


def covers(one: SceneObject, points: np.ndarray) -> np.ndarray:
    """Whether points (N, 2) of the ground lie in an object's footprint."""
    back = np.array([[np.cos(one.yaw), np.sin(one.yaw)], [-np.sin(one.yaw), np.cos(one.yaw)]])
    local = (points - one.centre[:2]) @ back.T / one.half[:2]
    kind = SHAPE_NAMES[one.shape]
    if kind == "octahedron":
        return np.abs(local).sum(axis=1) <= 1
    return np.abs(local).max(axis=1) <= 1 if kind == "cube" else np.linalg.norm(local, axis=1) <= 1


def test_footprints_never_meet(sampled: list[tuple[Scene, ...]]) -> None:
    """Oracle: no point of the edge of one lies in another, with the shapes as they are and not as circles."""
    compared = 0
    for scenes in sampled[:25]:
        for scene in scenes[::3]:
            for first in scene.objects:
                turn = np.array([[np.cos(first.yaw), -np.sin(first.yaw)], [np.sin(first.yaw), np.cos(first.yaw)]])
                edge = (outline(first) * first.half[:2]) @ turn.T + first.centre[:2]
                assert covers(replace(first, half=first.half * 1.001), edge).all()
                for other in scene.objects:
                    if other is not first:
                        compared += 1
                        assert not covers(other, edge).any()
    assert compared > 3000


def test_numbers_are_compact_and_mean_visible_objects(small: list[RenderedVideo], first_video: RenderedVideo) -> None:
    for index, video in enumerate([*small, first_video]):
        objects, count = video.objects, len(video.categories)
        assert objects.max() <= count
        for number in range(1, count + 1):
            assert (objects == number).sum(axis=(1, 2)).max() >= MIN_VISIBLE * objects[0].size
        shapes = [one.shape + 1 for one in sample_video(1, "test", index % len(small))[0].objects]
        assert len(shapes) >= count and all(one in shapes for one in video.categories)


def test_an_object_that_nobody_sees_has_no_number_and_no_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is drawn far behind the others, where it shows a few pixels; all others keep theirs."""
    scenes = sample_video(1, "test", 2)
    far = scenes[0].camera + 30 * scenes[0].axes[2] * [1, 1, 0]
    speck = replace(scenes[0].objects[0], centre=np.array([far[0], far[1], 0.4]), half=np.full(3, 0.4))
    crowded = tuple(replace(scene, objects=[speck, *scene.objects]) for scene in scenes)
    expected = render_video(1, "test", 2, size=48)
    monkeypatch.setattr(videos, "sample_video", lambda *_: crowded)
    assert (videos._cast(crowded, 48)[1] == 0).any(), "without a rule it would be seen"
    video = render_video(1, "test", 2, size=48)
    assert video.categories == expected.categories
    assert np.array_equal(video.objects, expected.objects) and np.array_equal(video.frames, expected.frames)


def test_an_object_keeps_its_colour(small: list[RenderedVideo]) -> None:
    """Chromaticity of an object over the frames moves less than it differs between objects of a video."""
    within, between = [], []
    for video in small:
        means = []
        for number in range(1, len(video.categories) + 1):
            masks = video.objects == number
            colours = [
                frame[mask].mean(axis=0) for frame, mask in zip(video.frames, masks, strict=True) if mask.sum() > 60
            ]
            if len(colours) > 3:
                shares = np.array(colours) / np.sum(colours, axis=1, keepdims=True)
                within.append(np.linalg.norm(shares - shares.mean(axis=0), axis=1).max())
                means.append(shares.mean(axis=0))
        between += [np.linalg.norm(a - b) for k, a in enumerate(means) for b in means[:k]]
    assert len(within) > 8 and max(within) < 0.05 and np.median(within) < 0.1 * np.median(between)


def test_the_texture_of_the_ground_stays_where_it_is(small: list[RenderedVideo]) -> None:
    """A point of the ground has the same colour in two frames: where the camera of each sees it."""
    matched, unmoved = [], []
    for index, video in enumerate(small):
        scenes = sample_video(1, "test", index)
        row, column = np.nonzero(video.objects[0] == 0)
        here, there = (Camera(scenes[t].camera[None], scenes[t].axes[None]) for t in (0, 8))
        x, y = (column + 0.5) / 32 - 1, 1 - (row + 0.5) / 32
        way = here.axes[0, 2] + HALF_VIEW * (x[:, None] * here.axes[0, 0] + y[:, None] * here.axes[0, 1])
        ground = here.position[0] - way * (here.position[0, 2] / way[:, 2:])
        place = there.look_at(ground[:, None])[0][:, 0]
        seen = np.abs(place).max(axis=1) < 0.99
        column2, row2 = ((place[:, 0] + 1) * 32).astype(int), ((1 - place[:, 1]) * 32).astype(int)
        near = seen & (row > 24)  # far texture is finer than a pixel
        near[seen] &= video.objects[8][row2[seen], column2[seen]] == 0
        first = video.frames[0][row[near], column[near]].mean(axis=1)
        matched.append(np.corrcoef(first, video.frames[8][row2[near], column2[near]].mean(axis=1))[0, 1])
        unmoved.append(np.corrcoef(first, video.frames[8][row[near], column[near]].mean(axis=1))[0, 1])
    assert np.median(matched) > 0.6 and np.median(matched) > np.median(unmoved) + 0.4


def test_a_worker_process_renders_the_same(first_video: RenderedVideo) -> None:
    store = VideoStore()
    assert store.files(2) == {"00000.npz": 0, "00001.npz": 1} and len(store) == 0
    done: list[int] = []
    share_out([StoreJob(store, (0,))], done.append, helpers=1, here=False)
    assert done == [1] and [(store.folder / name).is_file() for name in store.files(2)] == [True, False]
    filled = replace(store, count=1)
    assert len(filled) == 1 and [len(video.categories) for video in filled] == [len(first_video.categories)]
    stored = filled[-1]
    assert np.array_equal(stored.frames, first_video.frames) and np.array_equal(stored.objects, first_video.objects)
    assert stored.categories == first_video.categories
    with pytest.raises(IndexError):
        filled[1]


def test_videos_of_seeds_and_splits_have_folders_of_their_own() -> None:
    places = {str(VideoStore(split=split, seed=seed).folder) for split in ("test", "train") for seed in (0, 3)}
    assert len(places) == 4 and all("motion-r1" in place for place in places)


def test_a_damaged_file_is_named(tmp_path: Path, first_video: RenderedVideo) -> None:
    path = tmp_path / "00000.npz"
    write_video(path, first_video)
    assert [one.name for one in tmp_path.iterdir()] == ["00000.npz"], "no scratch file is left"
    assert read_video(path).categories == first_video.categories
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(OSError, match="delete it, it is rendered again") as error:
        read_video(path)
    assert error.value.filename == str(path)

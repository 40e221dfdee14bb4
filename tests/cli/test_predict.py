"""`predict`: masks of images and videos without truth, which score exactly as `eval` scores the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_evaluation import HERE
from typer.testing import CliRunner, Result

from ocl_bench import get_task
from ocl_bench.cli import app
from ocl_bench.data import open_data
from ocl_bench.results.record import read_result
from ocl_bench.results.rows import read_rows


def call(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_images(folder: Path, task: str, limit: int) -> None:
    """The images of a task, and nothing of their truth."""
    for sample in open_data(get_task(task), limit=limit).reader:
        if hasattr(sample, "frames"):
            for name, frame in zip(sample.names, sample.frames, strict=True):
                save(folder / sample.id / f"{name}.png", frame.image)
        else:
            save(folder / f"{sample.id}.png", sample.image)


@pytest.mark.parametrize(("task", "model", "limit"), [("clevrtex", "dias", 4), ("davis-2017", "grid", 1)])
def test_predicted_masks_score_exactly_as_the_model_does(task: str, model: str, limit: int, tmp_path: Path) -> None:
    write_images(tmp_path / "images", task, limit)
    masks = tmp_path / "masks"
    done = call("predict", tmp_path / "images", "-m", model, "-t", task, "--out", masks, "--batch-size", 4)
    assert done.exit_code == 0, done.output
    assert f"next: ocl-bench score --task {task} --masks {masks} --extent crop" in done.stdout
    common = ("--task", task, "--limit", limit, "--results", tmp_path / "results", "--json")
    scored = call("score", "--masks", masks, "--extent", "crop", *common)
    evaluated = call("eval", "-m", model, "--batch-size", 4, "--no-pictures", *common)
    assert scored.exit_code == evaluated.exit_code == 0, scored.output + evaluated.output
    keys = [json.loads(one.stdout)["identity"]["key"][:8] for one in (scored, evaluated)]
    results = [read_result(next((tmp_path / "results").rglob(f"{key}.json"))) for key in keys]
    numbers = [{name: (one.value, one.ci95) for name, one in result.metrics.items()} for result in results]
    assert numbers[0] == numbers[1]
    rows = [read_rows(result.rows_path) for result in results if result.rows_path]
    assert rows[0].equals(rows[1])


def test_whole_images_keep_their_size_in_nested_folders_and_formats(tmp_path: Path) -> None:
    save(tmp_path / "images/wide.jpg", photo(20, 64))
    save(tmp_path / "images/a/b/tall.webp", photo(50, 16))
    save(tmp_path / "images/.hidden/no.png", photo(8, 8))
    (tmp_path / "images/notes.txt").write_text("no image")
    done = call("predict", tmp_path / "images", "--model", "grid", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "2 images" in done.stderr and "notes.txt" in done.stderr
    assert f"written: 2 id maps in {tmp_path / 'out'}" in done.stdout
    for name, shape in (("wide", (20, 64)), ("a/b/tall", (50, 16))):
        ids, picture = (pixels(tmp_path / "out" / place / f"{name}.png") for place in ("", "overlays"))
        assert ids.dtype == np.uint8 and ids.shape == shape and picture.shape == (*shape, 3)
        assert ids.min() >= 1  # 0 would be no segment
    assert len(list((tmp_path / "out").rglob("*.png"))) == 4


def test_the_picture_shows_the_segments_over_the_whole_image(tmp_path: Path) -> None:
    save(tmp_path / "images/one.png", np.full((32, 32, 3), 128, np.uint8))
    assert call("predict", tmp_path / "images", "-m", "grid", "--out", tmp_path / "out").exit_code == 0
    ids = pixels(tmp_path / "out/one.png")
    picture = pixels(tmp_path / "out/overlays/one.png")
    inner = np.zeros_like(ids, bool)
    inner[1:-1, 1:-1] = True
    for axis in (0, 1):
        for step in (-1, 1):
            inner &= np.roll(ids, step, axis) == ids
    colours = {number: {tuple(pixel) for pixel in picture[(ids == number) & inner]} for number in np.unique(ids)}
    assert len(colours) > 4 and all(len(found) == 1 for found in colours.values())
    assert len({found.pop() for found in colours.values()}) > 4


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_written(tmp_path: Path) -> None:
    save(tmp_path / "images/good.png", photo(16, 16))
    (tmp_path / "images/bad.jpg").write_text("no image")
    done = call("predict", tmp_path / "images", "-m", HERE, "--out", tmp_path / "out", "--no-overlays", "--json")
    assert done.exit_code == 1, done.output
    content = json.loads(done.stdout)
    assert content["written"] == 1 and [failure["id"] for failure in content["failed"]] == ["bad"]
    assert "failed: sample bad" in done.stderr and "bad.jpg" in done.stderr
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["good.png"]


def test_frames_are_a_video_when_asked_and_for_a_model_of_videos(tmp_path: Path) -> None:
    for name in ("f2", "f10"):
        save(tmp_path / f"clip/{name}.png", photo(16, 24))
    as_images = call("predict", tmp_path / "clip", "-m", HERE, "--out", tmp_path / "images", "--no-overlays")
    assert as_images.exit_code == 0 and (tmp_path / "images/f2.png").is_file()
    asked = call("predict", tmp_path / "clip", "-m", HERE, "--video", "--out", tmp_path / "asked")
    model = call("predict", tmp_path / "clip", "-m", "slotcontrast", "--out", tmp_path / "model")
    for done, out in ((asked, "asked"), (model, "model")):
        assert done.exit_code == 0, done.output
        assert "1 video of" in done.stderr
        maps = sorted(path.relative_to(tmp_path / out).as_posix() for path in (tmp_path / out).rglob("*.png"))
        assert maps == ["clip/f10.png", "clip/f2.png", "overlays/clip/f10.png", "overlays/clip/f2.png"]
    assert pixels(tmp_path / "model/clip/f2.png").shape == (16, 24)


def test_a_broken_frame_fails_its_video_alone(tmp_path: Path) -> None:
    for video in ("a", "b"):
        save(tmp_path / video / "0.png", photo(16, 16))
    (tmp_path / "a/1.png").write_text("no image")
    done = call("predict", tmp_path, "-m", HERE, "--video", "--out", tmp_path.parent / "masks-of-b", "--json")
    assert done.exit_code == 1, done.output
    assert [failure["id"] for failure in json.loads(done.stdout)["failed"]] == ["a"]
    assert (tmp_path.parent / "masks-of-b/b/0.png").is_file()


def test_what_cannot_be_done_is_said_before_anything_is_written(tmp_path: Path) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    save(images / "one.png", photo(16, 16))
    save(images / "overlays/two.png", photo(16, 16))
    (tmp_path / "empty").mkdir()
    for folder, arguments, code, text in (
        (tmp_path / "none", ("-m", HERE), 3, "there is no such folder"),
        (tmp_path / "empty", ("-m", HERE), 3, "no image"),
        (images, ("-m", "oracle"), 2, "needs the truth"),
        (images, ("-m", HERE, "-t", "imagenet-knn"), 2, "not scored by masks alone"),
        (images, ("-m", HERE, "-t", "clevrtex", "--video"), 2, "is one of images"),
        (images, ("-m", HERE), 2, "'overlays/two' would lie among the pictures"),
    ):
        done = call("predict", folder, *arguments, "--out", out)
        assert done.exit_code == code and text in done.stderr, done.output
        assert not out.exists()
    inside = call("predict", images, "-m", HERE, "--out", images / "masks")
    assert inside.exit_code == 2 and "lies in the folder of the images" in inside.stderr
    save(images / "one.jpg", photo(16, 16))
    twice = call("predict", images, "-m", HERE, "--out", out)
    assert twice.exit_code == 2 and "'one.jpg' and 'one.png'" in twice.stderr


def test_a_folder_that_is_not_empty_is_kept_without_force(tmp_path: Path) -> None:
    save(tmp_path / "images/one.png", photo(16, 16))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/one.png").write_text("mine")
    command = ("predict", tmp_path / "images", "-m", HERE, "--out", tmp_path / "out")
    refused = call(*command)
    assert refused.exit_code == 2 and "--force" in refused.stderr
    assert (tmp_path / "out/one.png").read_text() == "mine"
    assert call(*command, "--force").exit_code == 0
    assert pixels(tmp_path / "out/one.png").shape == (16, 16)

"""Broken and hostile inputs end in one line with exit code 2 or 3, before much memory is taken."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from ocl_bench.cli import app
from ocl_bench.core.errors import DataMissingError, OclBenchError, SampleError, UsageError
from ocl_bench.data import images as image_files
from ocl_bench.data.images import read_image
from ocl_bench.data.index import Manifest, open_index, take_manifest
from ocl_bench.data.options import read_json, read_lines
from ocl_bench.data.readers.tfrecord import index_records
from ocl_bench.evaluation.supplied import arrays
from ocl_bench.results.record import read_result

DEEP = 100_000
CARD = "name: mine\nversion: 1\nfamily: discovery\ndata: {reader: folder}\nmetrics: [mbo_fg]\nmain: mbo_fg\n"


def call(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def is_one_line(result: Result, *parts: str) -> bool:
    lines = result.stderr.strip().splitlines()
    return result.exit_code in (2, 3) and len(lines[-1:]) == 1 and all(part in lines[-1] for part in parts)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.ones((16, 16), np.uint8)).save(tmp_path / name / "a.png")
    (tmp_path / "mine.yaml").write_text(CARD + "protocol: {}\n")
    return tmp_path


def evaluate(folder: Path, *arguments: Any) -> Result:
    here = ["--data-root", folder, "--results", folder / "results", "--no-pictures"]
    return call("eval", "-m", "grid", "-t", folder / "mine.yaml", *here, *arguments)


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("protocol: {score_at: 20000}", "protocol.score_at"),
        ("protocol: {score_at: 1234567890}", "protocol.score_at"),
        (f"fit: {{head: linear, learning_rates: [{'0.1, ' * 100_000}0.1]}}", "fit.learning_rates"),
        ("protocol: {input: 100000}", "protocol.input"),
        ("protocol: {crop: center-0.0001}", "protocol.crop"),
        ("protocol: {crop: short-center-0.01}", "protocol.crop"),
        ("noise_seeds: [99999999999999999999]", "noise_seeds"),
        (f"noise_seeds: {list(range(2000))}", "noise_seeds"),
        ("version: " + "1" * 5000, "mine.yaml"),
        ("title: " + "[" * DEEP, "mine.yaml"),
        ("title: 2001-13-45", "mine.yaml"),
    ],
)
def test_cards_with_absurd_fields(folder: Path, line: str, field: str) -> None:
    rest = "" if line.startswith("protocol") else "protocol: {}\n"
    (folder / "mine.yaml").write_text(CARD + rest + line + "\n")
    assert is_one_line(evaluate(folder), "mine.yaml", field)


def test_an_absurd_stand_in(folder: Path) -> None:
    (folder / "mine.yaml").write_text(
        (CARD + "protocol: {}\n").replace(
            "reader: folder", "reader: clevrtex, stand_in: {scenes: clevrtex, samples: 1000000000000}"
        )
    )
    assert is_one_line(evaluate(folder), "data.stand_in.samples")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--seeds", "0..10000000000"),
        ("--seeds", "99999999999999999999"),
        ("--seeds", "[["),
        ("--batch-size", 1_000_000_000),
        ("--option", "cells=" + "[" * DEEP),
        ("--option", "cells=" + "1" * 5000),
    ],
)
def test_absurd_options(folder: Path, arguments: tuple[Any, ...]) -> None:
    result = evaluate(folder, *arguments)
    assert is_one_line(result, "error:"), result.stderr


def test_an_absurd_seed_of_a_stand_in() -> None:
    assert is_one_line(call("eval", "-m", "grid", "-t", "clevrtex", "--stand-in-seed", "1" * 30), "stand-in-seed")


def test_a_file_name_that_is_not_utf_8(folder: Path) -> None:
    for name in ("images", "masks"):
        shutil.copy(os.fsencode(folder / name / "a.png"), os.fsencode(folder / name) + b"/\xff.png")
    assert is_one_line(evaluate(folder), r"'\udcff': the name of a file is not UTF-8")


def test_an_error_that_nobody_foresaw_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1 says that samples failed; a fault of the suite must not look like that."""

    def broken(*_: object, **__: object) -> None:
        raise RecursionError("too deep\nin two lines")

    monkeypatch.setattr("ocl_bench.cli.evaluation.make_plan", broken)
    assert is_one_line(evaluate(folder), "RecursionError: too deep in two lines", "OCL_BENCH_DEBUG=1")


def test_json_and_lists(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in ("[" * DEEP, '{"a": ' * DEEP, "1" * 5000):
        path.write_text(content)
        with pytest.raises(UsageError, match="is not JSON"):
            read_json(path)
        with pytest.raises(UsageError, match="not a JSON file"):
            read_result(path)
    path.write_bytes(b"2007_000032\n2007\x00_000033\n")
    with pytest.raises(DataMissingError, match="NUL"):
        read_lines(path, "list", "download it")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes have names on Unix only")
def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(OclBenchError, match="not a regular file"):
        read_json(path)
    with pytest.raises(OclBenchError, match="not a regular file"):
        read_lines(path, "list", "download it")
    with pytest.raises(OclBenchError, match="not a regular file"):
        read_result(path)
    with pytest.raises(OSError, match="not a regular file"):
        next(index_records(path))


def test_an_image_of_too_many_pixels_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "LARGEST_IMAGE", 100)
    Image.new("RGB", (11, 10)).save(tmp_path / "a.png")
    with pytest.raises(SampleError, match="11x10 pixels, of which at most"):
        read_image(tmp_path / "a.png", "a", remedy="")


def test_archives_of_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "masks.npz"
    np.save(tmp_path / "masks.npy", np.zeros((1, 4, 4), np.uint8))
    (tmp_path / "masks.npy").rename(path)
    assert is_one_line(call("score", "--task", "clevrtex", "--masks", path), "masks.npz", "numpy.savez")
    np.savez_compressed(path, prediction=np.zeros((1, 4, 4), np.uint8), truth=np.zeros((1, 4, 4), np.uint8))
    monkeypatch.setattr(arrays, "LARGEST_ARRAYS", 100)
    assert is_one_line(call("score", "--task", "clevrtex", "--masks", path), "unpacks to")
    monkeypatch.undo()
    with zipfile.ZipFile(path, "w") as archive:
        head = b"{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000000,), }\n"
        archive.writestr("truth.npy", b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head)
    assert is_one_line(call("score", "--task", "clevrtex", "--masks", path), "cannot be read as plain arrays")


@pytest.mark.parametrize("damage", ["empty", "garbage", "cut", "folder"])
def test_a_damaged_index_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "cache"))
    columns = {"id": ["a", "b"], "image": ["a.png", "b.png"]}
    manifest: Manifest = take_manifest(tmp_path, columns["image"])
    open_index("test", columns, manifest)
    (place,) = (tmp_path / "cache" / "arrow").iterdir()
    content = place.read_bytes()
    place.unlink()
    if damage == "folder":
        place.mkdir()
        (place / "state.json").write_text("{}")
    else:
        place.write_bytes({"empty": b"", "garbage": b"\xff" * 200, "cut": content[: len(content) // 2]}[damage])
    table = open_index("test", columns, manifest)
    assert table.to_pydict() == columns and place.is_file()

"""Hostile inputs of verbs beyond `eval`, and of single readers: one line with exit code 2 or 3, and no markup."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
import yaml
from results_for_boards import board_of, image_values, taken_for_valid, write
from targets import clevrtex, coco_detection, davis, folder, imagenet, voc
from typer.testing import CliRunner, Result

from ocl_bench.cli import app
from ocl_bench.core.errors import UsageError
from ocl_bench.core.files import file_sha256
from ocl_bench.results.record import read_result
from ocl_bench.training import checkpoint as checkpoints
from ocl_bench.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

DEEP = 100_000


def call(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def evaluate(given: Path, *arguments: Any, model: str = "grid") -> Result:
    here = ["--data-root", given / "data", "--results", given / "results", "--no-pictures"]
    return call("eval", "-m", model, "-t", given / "task.yaml", *here, *arguments)


def assert_one_line(result: Result, *parts: str) -> None:
    last = result.stderr.strip().splitlines()[-1]
    assert result.exit_code in (2, 3) and last.startswith("error: "), result.output
    assert all(part in last for part in parts) and "OCL_BENCH_DEBUG" not in last, last


@pytest.mark.parametrize(
    ("setting", "field"),
    [
        ("lr=inf", "train.lr"),
        ("lr=nan", "train.lr"),
        ("weight_decay=inf", "train.weight_decay"),
        ("batch=1000000000", "train.batch"),
        ("scenes.count=1000000000000", "train.scenes.count"),
    ],
)
def test_absurd_recipes(setting: str, field: str, tmp_path: Path) -> None:
    assert_one_line(call("train", "--model", "encoder", "--out", tmp_path, "--set", setting), field)
    assert not any(tmp_path.iterdir())


def test_a_training_seed_that_no_result_may_have(tmp_path: Path) -> None:
    refused = call("train", "--model", "encoder", "--out", tmp_path, "--steps", "1", "--minutes", "0", "--seed", 10**30)
    assert_one_line(refused, "training seed 1000", "use a number from 0 to 4294967295")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--batch", "--clip", "--size"])
def test_a_profile_that_no_memory_holds(option: str) -> None:
    model = "slotcontrast" if option == "--clip" else "grid"
    assert_one_line(call("profile", "--model", model, option, 10**9, "--device", "cpu"), "at most")


def test_a_full_disk_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, Checkpoint(3, {"a": torch.ones(2)}, {}, {}))

    def full(content: Any, place: Path) -> None:
        place.write_bytes(b"PK")
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 128 vs 0\nframe #0")

    monkeypatch.setattr(checkpoints.torch, "save", full)
    with pytest.raises(UsageError, match=r"last\.pt: cannot be written; is there space left on the disk\?[^\n]*$"):
        save_checkpoint(path, Checkpoint(4, {"a": torch.ones(2)}, {}, {}))
    assert load_checkpoint(path).step == 3 and list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a Linux device")
def test_stdout_on_a_full_disk() -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "ocl_bench", "show", "clevrtex", "--json"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: No space left on device")
    assert len(done.stderr.splitlines()) == 1


MARKUP = "[/b][red]mine"


@pytest.fixture
def with_markup(tmp_path: Path) -> Path:
    """Two results, one of a model whose name is markup."""
    write(tmp_path / "results", MARKUP, image_values(0.6), stem="a")
    write(tmp_path / "results", "other", image_values(0.4, 1), stem="b")
    return tmp_path


def test_markup_in_the_name_of_a_model(with_markup: Path) -> None:
    results = with_markup / "results"
    files = [results / "clevrtex/a.json", results / "clevrtex/b.json"]
    compared = call("compare", *files, "--task", "clevrtex")
    assert compared.exit_code == 0 and MARKUP in compared.output
    board, _ = board_of(results, with_markup / "out")
    assert MARKUP in {line["model"] for line in board}
    assert MARKUP in (with_markup / "out/clevrtex.md").read_text().replace("\\", "")
    assert call("leaderboard", "--results", results, "--out", with_markup / "out").exit_code == 0
    assert call("validate", *files).exit_code in (0, 1, 2)


def test_results_in_files_whose_names_are_not_utf_8(with_markup: Path) -> None:
    folder = with_markup / "results/clevrtex"
    (folder / "b.json").rename(folder / os.fsdecode(b"b\xff.json"))
    taken_for_valid(read_result(folder / os.fsdecode(b"b\xff.json")))
    done = call("leaderboard", "--results", with_markup / "results", "--out", with_markup / "out")
    assert done.exit_code == 0, done.output
    page = (with_markup / "out/clevrtex.md").read_text(encoding="utf-8")
    assert "other" in page and "b\\udcff.json" in (with_markup / "out/clevrtex.csv").read_text(encoding="utf-8")
    files = [folder / "a.json", folder / os.fsdecode(b"b\xff.json")]
    assert call("compare", *files, "--task", "clevrtex").exit_code == 0
    assert call("validate", *files).exit_code in (0, 1, 2)


@pytest.mark.parametrize("verb", ["show", "eval"])
def test_markup_in_a_card(tmp_path: Path, verb: str) -> None:
    folder(tmp_path)
    content = yaml.safe_load((tmp_path / "task.yaml").read_text())
    (tmp_path / "task.yaml").write_text(yaml.safe_dump({**content, "title": MARKUP, "reference": MARKUP}))
    shown = call("show", tmp_path / "task.yaml") if verb == "show" else evaluate(tmp_path)
    assert shown.exit_code == 0, shown.output
    assert verb == "eval" or MARKUP in shown.output.replace("\n", "")


@pytest.mark.parametrize("text", ["[/b]", "[red]", "x[/]"])
def test_markup_in_names_that_do_not_exist(text: str, tmp_path: Path) -> None:
    folder(tmp_path)
    assert_one_line(call("show", text), text)
    assert_one_line(evaluate(tmp_path, model=text), text)
    assert_one_line(call("compare", text, "dias"), text)


def change_rows(path: Path, change: Any) -> None:
    """Change the rows of a result, and the hash that it records."""
    rows = path.with_suffix(".parquet")
    change(pandas.read_parquet(rows)).to_parquet(rows)
    content = json.loads(path.read_text())
    content["rows"]["sha256"] = file_sha256(rows)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda rows: rows.drop(columns="id"), "no column 'id'"),
        (lambda rows: rows.assign(id=[[1, 2]] * len(rows)), "no column 'id'"),
        (lambda rows: rows.assign(mbo_fg="high"), "'mbo_fg' that does not hold numbers"),
        (lambda rows: rows.assign(mbo_fg=[{"a": 1}] * len(rows)), "'mbo_fg' that does not hold numbers"),
        (lambda rows: rows.drop(columns="noise_seed"), "no column 'noise_seed'"),
        (lambda rows: rows.assign(mbo_fg=[float("inf"), *rows["mbo_fg"][1:]]), "'mbo_fg' that holds infinite numbers"),
        (lambda rows: pandas.concat([rows, rows[:1]]), "have a sample twice"),
    ],
)
def test_rows_of_other_columns(with_markup: Path, change: Any, reason: str) -> None:
    results = with_markup / "results"
    change_rows(results / "clevrtex/a.json", change)
    assert_one_line(call("compare", *sorted(results.glob("clevrtex/*.json")), "--task", "clevrtex"), reason)
    done = call("leaderboard", "--results", results, "--out", with_markup / "out")
    assert done.exit_code == 0 and reason in (with_markup / "out/clevrtex.md").read_text()


@pytest.mark.parametrize("place", ["train", "val"])
def test_a_class_of_imagenet_whose_name_is_not_utf8(tmp_path: Path, place: str) -> None:
    imagenet(tmp_path)
    first = sorted((tmp_path / "data" / place).iterdir())[0]
    (tmp_path / "data" / place / os.fsdecode(b"n\xff")).mkdir()
    file = sorted(first.iterdir())[0]
    file.rename(file.with_name(os.fsdecode(b"\xff.JPEG")))
    result = evaluate(tmp_path, "-o", "cell=4", model="pixels")
    assert_one_line(result)


def test_a_sequence_of_davis_whose_name_is_not_utf8(tmp_path: Path) -> None:
    davis(tmp_path)
    for parent in ("JPEGImages/480p", "Annotations_unsupervised/480p"):
        place = tmp_path / "data/DAVIS" / parent
        (place / "bear").rename(place / os.fsdecode(b"b\xff"))
    (tmp_path / "data/DAVIS/ImageSets/2017/val.txt").write_bytes(b"b\xff\ncows\n")
    assert_one_line(evaluate(tmp_path), "UTF-8")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes have names on Unix only")
@pytest.mark.parametrize(
    ("tree", "pattern"),
    [
        (voc, "data/VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"),
        (davis, "data/DAVIS/ImageSets/2017/val.txt"),
        (clevrtex, "data/clevrtex_full/0/*_000000.json"),
        (coco_detection, "data/annotations/*.json"),
    ],
)
def test_a_pipe_in_place_of_a_file(tmp_path: Path, tree: Any, pattern: str) -> None:
    tree(tmp_path)
    (path,) = tmp_path.glob(pattern)
    path.unlink()
    os.mkfifo(path)
    result = evaluate(tmp_path)
    assert result.exit_code in (0, 1, 2, 3)
    if result.exit_code > 1:
        assert_one_line(result)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes have names on Unix only")
def test_a_pipe_as_table_of_boxes_is_not_taken_for_a_missing_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from targets import box_table

    box_table(".parquet")(tmp_path)
    path = tmp_path / "boxes.parquet"
    path.unlink()
    os.mkfifo(path)
    monkeypatch.chdir(tmp_path)
    result = evaluate(tmp_path, "-o", "cell=4", "--boxes", path.name, model="pixels")
    assert_one_line(result, "boxes.parquet: boxes cannot be read (not a regular file)")


@pytest.mark.parametrize("odd", ["[" * DEEP, '[{"image_id": ' + "1" * 5000 + "}]", '[{"score": NaN}]', "null", "{}"])
def test_detections_that_are_no_results_file(tmp_path: Path, odd: str) -> None:
    coco_detection(tmp_path)
    (tmp_path / "found.json").write_text(odd)
    here = ["--data-root", tmp_path / "data", "--results", tmp_path / "results"]
    assert_one_line(call("score", "--task", tmp_path / "task.yaml", "--masks", tmp_path / "found.json", *here), "found")


@pytest.mark.parametrize("corner", ["1e300", "1" * 400, "NaN", '"one"', "null", "[" * DEEP])
def test_boxes_with_absurd_corners(tmp_path: Path, corner: str) -> None:
    from targets import box_table

    box_table(".jsonl")(tmp_path)
    path = tmp_path / "boxes.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0].replace("30", corner, 1), *lines[1:]]) + "\n")
    assert_one_line(evaluate(tmp_path, "-o", "cell=4", "--boxes", path, model="pixels"), "boxes.jsonl")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"metrics": ["ap_mask"], "main": "ap_mask"}, "ap_mask"),
        ({"metrics": ["miou_sem"], "main": "miou_sem"}, "miou_sem"),
        ({"metrics": ["knn_top1"], "main": "knn_top1"}, "knn_top1"),
    ],
)
def test_cards_of_other_families_and_places(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    folder(tmp_path)
    content = yaml.safe_load((tmp_path / "task.yaml").read_text())
    (tmp_path / "task.yaml").write_text(yaml.safe_dump({**content, **change}))
    assert_one_line(evaluate(tmp_path), told)


def test_a_stand_in_of_a_variant_that_is_a_path(tmp_path: Path) -> None:
    folder(tmp_path)
    content = yaml.safe_load((tmp_path / "task.yaml").read_text())
    stand_in = {"scenes": "clevrtex", "variant": "../../x", "samples": 2}
    content["data"] = {"reader": "clevrtex", "stand_in": stand_in}
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(content))
    assert_one_line(
        call("eval", "-m", "grid", "-t", tmp_path / "task.yaml", "--results", tmp_path / "results"), "../../x"
    )


@pytest.mark.parametrize(
    ("model", "option"),
    [
        ("kmeans", "iterations"),
        ("kmeans-features", "iterations"),
        ("dias", "iterations"),
        ("dias", "merge_iterations"),
        ("slotcontrast", "first_iterations"),
        ("slotcontrast", "iterations"),
        ("grid", "rows"),
    ],
)
def test_an_option_that_would_take_hours_or_all_memory(tmp_path: Path, model: str, option: str) -> None:
    folder(tmp_path)
    assert_one_line(evaluate(tmp_path, "-o", f"{option}=1000000000", model=model), option)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", np.zeros(3).tobytes()])
def test_a_checkpoint_that_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    out = tmp_path / "out.pth"
    assert_one_line(call("export", "--checkpoint", tmp_path / "a.pth", "--to", "torchvision", "--out", out), "a.pth")
    assert not out.exists()

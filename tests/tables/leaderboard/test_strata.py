"""Strata: which image is in which, what a row has there, and what is left out."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from places import OLD_RESULTS
from results_for_boards import N, image_values, taken_for_valid, write
from typer.testing import CliRunner

from ocl_bench.cli import app
from ocl_bench.core.errors import UsageError
from ocl_bench.families.image_properties import PROPERTIES as RECORDED
from ocl_bench.metrics.statistics import bootstrap_mean
from ocl_bench.results.record import Result, read_rows, write_result
from ocl_bench.tables.leaderboard.build import build_leaderboard, make_board
from ocl_bench.tables.leaderboard.strata import PROPERTIES, find_property, stratify
from ocl_bench.tables.leaderboard.strata_page import to_csv, to_markdown

OBJECTS = np.arange(N) % 9  # 0 .. 8 objects
SIZES = np.where(OBJECTS == 0, np.nan, np.linspace(0.001, 0.2, N))


def describe(result: Result, **columns: Any) -> None:
    """Write the result again with these columns in its rows."""
    assert result.path is not None
    rows = read_rows(result.path).assign(**columns)
    taken_for_valid(write_result(result, rows, result.path.parent, stem=result.path.stem))


def lines_of(folder: Path, by: str) -> list[dict[str, str]]:
    board = make_board([folder], "clevrtex")
    return list(csv.DictReader(to_csv(stratify(board, PROPERTIES[by])).splitlines()))


def test_edges_are_fixed_and_neither_overlap_nor_leave_a_gap() -> None:
    labels = {name: [one.label for one in split.strata] for name, split in PROPERTIES.items()}
    assert labels["objects"] == ["none", "1 to 2", "3 to 4", "5 to 6", "7 or more"]
    for split in PROPERTIES.values():
        assert split.strata[0].low == 0 and split.strata[-1].high == float("inf")
        assert [one.high for one in split.strata[:-1]] == [one.low for one in split.strata[1:]]
    assert {"n_objects", *RECORDED} == {split.column for split in PROPERTIES.values()}
    with pytest.raises(UsageError, match="--by colour: images are split by objects, size, occlusion"):
        find_property("colour")


def test_each_stratum_has_the_mean_and_interval_of_its_own_images(tmp_path: Path) -> None:
    values = image_values(0.5)
    describe(write(tmp_path, "m", values), n_objects=OBJECTS)
    lines = lines_of(tmp_path, "objects")
    members = [OBJECTS == 0, (OBJECTS == 1) | (OBJECTS == 2), (OBJECTS == 3) | (OBJECTS == 4)]
    members += [(OBJECTS == 5) | (OBJECTS == 6), OBJECTS >= 7]
    assert sum(own.sum() for own in members) == N
    for line, own in zip(lines, members, strict=True):
        interval = bootstrap_mean(values[own])
        assert int(line["images"]) == int(line["n_valid"]) == own.sum() > 0
        numbers = [float(line[name]) for name in ("value", "low", "high")]
        assert numbers == pytest.approx([values[own].mean(), interval.low, interval.high], abs=1e-6)


def test_images_on_which_the_metric_is_not_valid_are_counted_but_have_no_vote(tmp_path: Path) -> None:
    values = np.where(OBJECTS == 0, np.nan, image_values(0.5))
    values[OBJECTS.tolist().index(3)] = np.nan
    describe(write(tmp_path, "m", values), n_objects=OBJECTS)
    lines = {line["stratum"]: line for line in lines_of(tmp_path, "objects")}
    assert (lines["none"]["value"], lines["none"]["n_valid"]) == ("", "") and int(lines["none"]["images"]) > 0
    assert int(lines["3 to 4"]["n_valid"]) == int(lines["3 to 4"]["images"]) - 1
    page = to_markdown(stratify(make_board([tmp_path], "clevrtex"), PROPERTIES["objects"]))
    assert f"(n = {lines['3 to 4']['n_valid']})" in page and "| none (n = 5) |" in page


def test_an_older_result_gets_the_properties_of_the_images_from_a_newer_one(tmp_path: Path) -> None:
    write(tmp_path, "old", image_values(0.5))
    board = make_board([tmp_path], "clevrtex")
    without = stratify(board, PROPERTIES["size"])
    assert not without.groups and [one.model for one in without.excluded] == ["old"]
    assert "no result on these images records object_size" in without.excluded[0].reason
    assert "Left out:\n\n- old: no result" in to_markdown(without)
    describe(write(tmp_path, "new", image_values(0.4), role="floor", model__supervision="boxes"), object_size=SIZES)
    lines = lines_of(tmp_path, "size")
    assert {line["model"] for line in lines} == {"old", "new"}
    for line in lines:
        values, split = image_values(0.5 if line["model"] == "old" else 0.4), PROPERTIES["size"]
        stratum = next(one for one in split.strata if one.label == line["stratum"])
        own = np.array([stratum.low <= size < stratum.high for size in SIZES])
        assert int(line["images"]) == own.sum() and float(line["value"]) == pytest.approx(values[own].mean(), abs=1e-6)


def test_properties_of_other_images_are_not_taken(tmp_path: Path) -> None:
    write(tmp_path, "old", image_values(0.5))
    describe(write(tmp_path, "new", image_values(0.4), ids="b"), object_size=SIZES)
    assert {line["model"] for line in lines_of(tmp_path, "size")} == {"new"}


def test_the_mean_of_training_seeds_has_their_deviation_in_each_stratum(tmp_path: Path) -> None:
    for seed in range(3):
        describe(write(tmp_path, f"m:{seed}", image_values(0.5, seed), seed=seed), n_objects=OBJECTS)
    lines = [line for line in lines_of(tmp_path, "objects") if line["stratum"] == "3 to 4"]
    mean, *seeds = lines
    numbers = [float(line["value"]) for line in seeds]
    assert len(numbers) == 3 and {line["sd"] for line in seeds} == {""}
    assert float(mean["value"]) == pytest.approx(np.mean(numbers), abs=1e-6)
    assert float(mean["sd"]) == pytest.approx(np.std(numbers, ddof=1), abs=2e-6)


def test_metrics_of_a_whole_set_are_computed_anew_on_each_stratum(tmp_path: Path) -> None:
    """Recall of a real result on COCO's stand-in, against a count over its rows."""
    (tmp_path / "coco-detection").mkdir()
    for suffix in ("json", "parquet"):
        shutil.copy(OLD_RESULTS / f"grid.{suffix}", tmp_path / "coco-detection")
    found = stratify(make_board([tmp_path], "coco-detection"), PROPERTIES["objects"])
    rows = read_rows(OLD_RESULTS / "grid.json")
    ((_, counts, (one,)),) = found.groups
    kind = found.board.task.main.removeprefix("ar100_")
    for stratum, count, cell in zip(found.split.strata, counts, one.cells, strict=True):
        own = rows[(rows["n_objects"] >= stratum.low) & (rows["n_objects"] < stratum.high)]
        bits = sum(int(number).bit_count() for row in own[f"{kind}_matched"] for number in row)
        objects = sum(int(number) for row in own[f"{kind}_truth_counts"] for number in row)
        assert count == len(own)
        if objects:
            assert cell is not None and cell.value == pytest.approx(bits / 10 / objects, abs=1e-12)
        else:
            assert cell is None


def test_a_single_image_has_no_interval(tmp_path: Path) -> None:
    describe(write(tmp_path, "m", image_values(0.5)), n_objects=[1] + [3] * (N - 1))
    first = next(line for line in lines_of(tmp_path, "objects") if line["stratum"] == "1 to 2")
    assert first["value"] and (first["low"], first["high"], first["n_valid"]) == ("", "", "1")


def test_the_verb_writes_tables_of_their_own_and_refuses_another_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    describe(write(tmp_path / "results", "m", image_values(0.5)), n_objects=OBJECTS)
    command = ["leaderboard", "--task", "clevrtex", "--results", "results", "--out", "tables", "--by"]
    outcome = CliRunner().invoke(app, [*command, "objects"])
    assert outcome.exit_code == 0, outcome.output
    names = ["clevrtex-by-objects.csv", "clevrtex-by-objects.md"]
    assert sorted(path.name for path in Path("tables").iterdir()) == names
    before = [Path("tables", name).read_bytes() for name in names]
    build_leaderboard(["results"], "tables", "clevrtex", by="objects")
    assert before == [Path("tables", name).read_bytes() for name in names]
    outcome = CliRunner().invoke(app, [*command, "colour"])
    assert outcome.exit_code == 2 and "objects, size, occlusion" in outcome.stderr


def test_strata_columns_of_rows_are_read_by_image_and_not_by_noise_seed(tmp_path: Path) -> None:
    result = write(tmp_path, "m", image_values(0.5), seeds__noise=(0, 1))
    assert result.path is not None
    rows = read_rows(result.path).assign(n_objects=OBJECTS)
    both = pandas.concat([rows, rows.assign(noise_seed=1)], ignore_index=True)
    taken_for_valid(write_result(result, both, result.path.parent, stem=result.path.stem))
    assert sum(int(line["images"]) for line in lines_of(tmp_path, "objects")) == N

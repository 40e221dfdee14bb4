"""The report of a run as plain data: every sample, the mistakes in it, and what is missing."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from report_runs import (
    BROKEN,
    COUNT,
    NASTY,
    SIDE,
    Colours,
    VideoColours,
    own_images,
    own_videos,
    renamed,
    run_of,
    scene,
)
from typer.testing import CliRunner

import ocl_bench
from ocl_bench.cli import app
from ocl_bench.core.errors import DataMissingError, UsageError
from ocl_bench.evaluation.supplied.score import score_masks
from ocl_bench.families import find_family
from ocl_bench.metrics.mistakes import KINDS
from ocl_bench.pages.report import build
from ocl_bench.pages.report import run as run_of_report
from ocl_bench.pages.report.build import report
from ocl_bench.pages.report.views import segments
from ocl_bench.results.record import Result


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("own")


@pytest.fixture(scope="module")
def task(place: Path) -> Any:
    return own_images(place / "data")


@pytest.fixture(scope="module")
def good(place: Path, task: Any) -> Result:
    return renamed(run_of(task, place / "data", place / "results", Colours(), "good"), NASTY)


@pytest.fixture(scope="module")
def coarse(place: Path, task: Any) -> Result:
    return run_of(task, place / "data", place / "results", Colours(4), "coarse")


def data_of(page: Path) -> dict[str, Any]:
    """The data of a page, as its script reads them."""
    found = re.search(r'id="page-data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found
    content: dict[str, Any] = json.loads(found[1])
    return content


def codes(packed: dict[str, Any], size: list[int]) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(packed["text"])), f"<u{packed['bytes']}").reshape(size)


def test_every_sample_with_its_numbers_and_pictures(place: Path, task: Any, coarse: Result) -> None:
    page = report(coarse, out=place / "a.html", task=task, data_root=place / "data", progress=False)
    data = data_of(page)
    samples, pictures = data["samples"], data["pictures"]
    assert len(samples["ids"]) == len(pictures) == COUNT and samples["ids"][-1] == BROKEN
    rows = ocl_bench.read_rows(coarse.path).set_index("id")  # type: ignore[arg-type]
    main = samples["metrics"][0]
    assert main["name"] == "mbo_fg" and main["direction"] == 1
    assert main["values"][0][:-1] == pytest.approx([rows.loc[one, "mbo_fg"] for one in samples["ids"][:-1]], abs=1e-4)
    assert main["values"][0][-1] is None and BROKEN in samples["errors"] and "img007" in pictures[-1]["error"]
    assert samples["properties"]["objects"][:3] == [1, 2, 3]
    first = pictures[4]
    assert (codes(first["truth"], first["size"]) == scene(4) + 2).all()
    image = Image.open(io.BytesIO(base64.b64decode(first["image"])))
    assert image.format == "WEBP" and image.size == (SIDE, SIDE)


def test_the_mistakes_of_each_pixel(place: Path, task: Any, coarse: Result) -> None:
    page = report(coarse, out=place / "a.html", task=task, data_root=place / "data", progress=False)
    for sample in data_of(page)["pictures"][:-1]:
        run = sample["runs"][0]
        truth, segments = codes(sample["truth"], sample["size"]), codes(run["map"], sample["size"])
        drawn = [
            KINDS[int(run["kinds"][int(g) - 2][int(p)])] for g, p in zip(truth.ravel(), segments.ravel(), strict=True)
        ]
        assert {kind: drawn.count(kind) for kind in KINDS} == run["pixels"]
        assert len(run["colours"]) == len(run["ids"]) == len(run["owners"])


def test_a_perfect_run_has_no_mistake(place: Path, task: Any, good: Result) -> None:
    page = report(good, out=place / "b.html", task=task, data_root=place / "data", progress=False)
    text = page.read_text()
    assert "Every annotated pixel is right." in text
    assert "Not ranked: partial: 1 of 30 samples failed." in text and "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    kinds = {one["name"]: set(one["values"][0][:-1]) for one in data_of(page)["samples"]["mistakes"]}
    assert kinds == {f"{kind} pixels": {0.0} for kind in ("split", "merged", "missed", "spilled")}


def test_two_runs(place: Path, task: Any, good: Result, coarse: Result) -> None:
    page = report(good, coarse, out=place / "c.html", task=task, data_root=place / "data", progress=False)
    data, text = data_of(page), page.read_text()
    assert data["runs"] == [NASTY, "coarse"] and len(data["pictures"][0]["runs"]) == 2
    values = data["samples"]["metrics"][0]["values"]
    assert min(values[0][:-1]) == 1.0 and max(one for one in values[1] if one is not None) < 1
    assert "is ahead of this one of coarse" in text and "needs 3 training seeds" in text


def test_numbers_that_are_not_those_of_the_rows_are_named(task: Any, coarse: Result, tmp_path: Path) -> None:
    """An edited result must not look like a measured one."""
    assert coarse.path and coarse.rows_path
    for path in (coarse.path, coarse.rows_path):
        shutil.copy(path, tmp_path)
    file = tmp_path / coarse.path.name
    words = "are not those of its rows"
    assert words not in report(file, out=tmp_path / "a.html", task=task, progress=False).read_text()
    content = json.loads(file.read_text())
    content["metrics"]["mbo_fg"]["value"] = 0.99
    file.write_text(json.dumps(content))
    text = report(file, out=tmp_path / "b.html", task=task, progress=False).read_text()
    assert words in text and "metrics.mbo_fg.value: 0.99, but the rows give" in text


def test_what_is_missing_is_said(place: Path, task: Any, coarse: Result, tmp_path: Path) -> None:
    assert coarse.path and coarse.rows_path
    for path in (coarse.path, coarse.rows_path):
        shutil.copy(path, tmp_path)
    alone = tmp_path / coarse.path.name
    without_card = report(alone, out=tmp_path / "a.html", progress=False)
    assert "The card of task own-images is not at hand" in without_card.read_text()
    assert data_of(without_card)["pictures"] == [None] * COUNT
    without_masks = report(alone, out=tmp_path / "b.html", task=task, data_root=place / "data", progress=False)
    assert "Predictions of coarse were not saved" in without_masks.read_text()
    assert data_of(without_masks)["pictures"][0]["runs"] == [None]
    other = own_images(tmp_path / "other")
    (tmp_path / "other" / "images" / "img000.png").unlink()
    (tmp_path / "other" / "masks" / "img000.png").unlink()
    page = report(alone, out=tmp_path / "c.html", task=other, data_root=tmp_path / "other", progress=False)
    assert "holds other samples than the supplied data" in page.read_text()
    with pytest.raises(DataMissingError, match="no such folder"):
        report(alone, out=tmp_path / "d.html", task=task, data_root=tmp_path / "nowhere", progress=False)
    with pytest.raises(UsageError, match="made with another card"):
        report(alone, out=tmp_path / "d.html", task="clevrtex", progress=False)


def test_a_family_without_a_view(place: Path, task: Any, coarse: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_of_report, "find_family", lambda name: replace(find_family(name), view=""))
    page = report(coarse, out=place / "d.html", task=task, data_root=place / "data", progress=False)
    assert "Samples of discovery tasks cannot be shown: this page has their numbers only." in page.read_text()
    assert data_of(page)["pictures"] == [None] * COUNT


def test_a_damaged_prediction_is_said_at_its_sample(place: Path, task: Any, coarse: Result, tmp_path: Path) -> None:
    assert coarse.path
    copy = tmp_path / "run"
    shutil.copytree(coarse.path.parent, copy)
    stem = copy / coarse.path.name
    (stem.with_suffix(".predictions") / "seed-0" / "img003.png").write_bytes(b"no PNG")
    page = report(stem, out=tmp_path / "a.html", task=task, data_root=place / "data", progress=False)
    pictures = data_of(page)["pictures"]
    assert "img003" in pictures[3]["runs"][0]["error"] and "pixels" in pictures[2]["runs"][0]


def test_many_samples_lie_beside_the_page(
    place: Path, task: Any, coarse: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keywords: dict[str, Any] = {"task": task, "data_root": place / "data", "progress": False}
    whole = data_of(report(coarse, out=tmp_path / "all.html", **keywords))
    monkeypatch.setattr(build, "INLINE_PICTURES", 10)
    monkeypatch.setattr(build, "PART_BYTES", 8000)
    page = report(coarse, out=tmp_path / "parts.html", **keywords)
    data = data_of(page)
    assert data["pictures"] == [] and len(data["files"]) > 2
    found: list[Any] = []
    for file in data["files"]:
        assert file["first"] == len(found)
        part = tmp_path / file["file"]
        found += data_of(part)
        assert part.stat().st_size < 12_000 and "default-src" in part.read_text()
    order = [whole["samples"]["ids"].index(one) for one in data["samples"]["ids"]]
    assert sorted(order) == list(range(COUNT)) and found == [whole["pictures"][index] for index in order]
    values = data["samples"]["metrics"][0]["values"][0][:-1]
    assert values == sorted(values), "the worst samples lie together"
    monkeypatch.undo()
    report(coarse, out=tmp_path / "parts.html", **keywords)
    assert not list((tmp_path / "parts.files").glob("*.html")), "files of an earlier report would be stale"


def test_masks_that_were_scored(place: Path, task: Any, tmp_path: Path) -> None:
    """The masks themselves, and an `.npz` with truth, whose images are black."""
    root = own_images(tmp_path / "data") and tmp_path / "data"
    (root / "images" / f"{BROKEN}.png").unlink()
    (root / "masks" / f"{BROKEN}.png").unlink()
    keywords: dict[str, Any] = {"results": tmp_path / "results", "save_predictions": True, "progress": False}
    result = score_masks(task, root / "masks", data_root=root, **keywords)
    page = report(result, out=tmp_path / "a.html", task=task, data_root=root, progress=False)
    assert "Every annotated pixel is right." in page.read_text() and len(data_of(page)["pictures"]) == COUNT - 1
    maps = np.stack([scene(number) for number in range(4)])
    np.savez(tmp_path / "maps.npz", prediction=np.minimum(maps, 1), truth=maps)
    result = score_masks(task, tmp_path / "maps.npz", name="arrays", **keywords)
    page = report(result, out=tmp_path / "b.html", task=task, data_root=tmp_path / "maps.npz", progress=False)
    assert "Images are black: maps.npz holds label maps only." in page.read_text()
    assert [one["runs"][0]["pixels"]["merged"] > 0 for one in data_of(page)["pictures"]] == [False, True, True, False]
    np.savez(tmp_path / "other.npz", prediction=maps, truth=maps)
    with pytest.raises(UsageError, match="is not the file"):
        report(result, out=tmp_path / "c.html", task=task, data_root=tmp_path / "other.npz", progress=False)


def test_videos(tmp_path: Path) -> None:
    task = own_videos(tmp_path / "data")
    result = run_of(task, tmp_path / "data", tmp_path / "results", VideoColours(2), "video", batch_size=2)
    page = report(result, out=tmp_path / "a.html", task=task, data_root=tmp_path / "data", progress=False)
    sample = data_of(page)["pictures"][0]
    assert [frame["name"] for frame in sample["frames"]] == [f"{number:03d}" for number in range(5)]
    assert len(sample["runs"][0]["maps"]) == 5
    assert sum(sample["runs"][0]["pixels"].values()) == 5 * SIDE * SIDE


def test_a_data_root_of_an_embedded_run_is_refused(place: Path, task: Any, coarse: Result, tmp_path: Path) -> None:
    embedded = coarse.model_copy(update={"data": coarse.data.model_copy(update={"kind": "embedded"})})
    with pytest.raises(UsageError, match=r"was evaluated on (the )?embedded data, .*; leave --data-root out"):
        report(embedded, out=tmp_path / "a.html", task=task, data_root=place / "data", progress=False)


def test_long_videos_say_that_some_frames_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SHOWN_FRAMES", 3)
    task = own_videos(tmp_path / "data")
    result = run_of(task, tmp_path / "data", tmp_path / "results", VideoColours(2), "video", batch_size=2)
    keywords: dict[str, Any] = {"task": task, "data_root": tmp_path / "data", "progress": False}
    page = report(result, out=tmp_path / "a.html", **keywords)
    sample = data_of(page)["pictures"][0]
    assert [frame["name"] for frame in sample["frames"]] == ["000", "002", "004"] and sample["count"] == 5
    assert "over 3 videos. Counted are the 12 frames of each video that this page shows" in page.read_text()
    monkeypatch.setattr(build, "INLINE_PICTURES", 3 * 12 - 1)
    assert data_of(report(result, out=tmp_path / "b.html", **keywords))["files"], "frames count, not videos"


def test_the_best_floor_with_predictions_stands_beside_the_diagnosis(tmp_path: Path) -> None:
    task, root = own_images(tmp_path / "data"), tmp_path / "data"
    for folder in ("images", "masks"):
        (root / folder / f"{BROKEN}.png").unlink()
    coarse = run_of(task, root, tmp_path / "results", Colours(4), "coarse")
    keywords: dict[str, Any] = {"task": task, "data_root": root, "progress": False}
    text = report(coarse, out=tmp_path / "a.html", **keywords).read_text()
    assert "No floor or ceiling has been evaluated on these samples" in text and "No floor beside it" in text
    floors = {
        name: ocl_bench.evaluate(name, task, data_root=root, results=tmp_path / "results", progress=False, **kept)
        for name, kept in (("single-slot", {"save_predictions": True}), ("grid", {"save_predictions": True}))
    }
    best = max(floors.values(), key=lambda one: one.metrics["mbo_fg"].value or 0)
    text = report(coarse, out=tmp_path / "b.html", **keywords).read_text()
    assert f"floor {best.model.name}</th>" in text and "No floor beside it" not in text and "best floor" in text
    own = report(best, out=tmp_path / "c.html", **keywords).read_text()
    shares = re.findall(r'<td class="number muted">([\d.]+) %</td>', text)
    assert len(shares) == 5 and all(f'<td class="number">{share} %</td>' in own for share in shares)
    assert f"floor {best.model.name}</th>" not in own


def test_the_verb_and_the_method(place: Path, task: Any, coarse: Result, tmp_path: Path) -> None:
    by_method = coarse.report(out=tmp_path / "a.html", task=task, data_root=place / "data", progress=False)
    assert by_method.is_file()
    out = tmp_path / "b.html"
    done = CliRunner().invoke(app, ["report", str(coarse.path), "--out", str(out)])
    assert done.exit_code == 0 and f"written: {out}" in done.output and out.is_file()
    three = CliRunner().invoke(app, ["report", *[str(coarse.path)] * 3])
    assert three.exit_code == 2 and "one run or two, got 3" in three.output
    assert CliRunner().invoke(app, ["report", str(tmp_path / "none.json")]).exit_code == 2

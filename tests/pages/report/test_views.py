"""What a report shows of each family agrees with the rows of its result."""

from __future__ import annotations

import base64
import io
import json
import re
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from all_families import CASES, FITTED, Everything, annotated, small_task
from PIL import Image

from ocl_bench.core.errors import SampleError
from ocl_bench.evaluation.plan import make_plan
from ocl_bench.evaluation.run import run
from ocl_bench.families import FAMILIES
from ocl_bench.pages.report import build
from ocl_bench.pages.report import run as run_of_report
from ocl_bench.pages.report.run import Run, open_run
from ocl_bench.pages.report.views import VIEWS, neighbours
from ocl_bench.pages.report.views.base import Saved
from ocl_bench.pages.report.views.classes import class_name, confusion
from ocl_bench.results.rows import read_rows

COUNT = 6


@pytest.fixture
def shown(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """Rows by id, and the data of the page, of one small run."""
    task, data, train = small_task(request.param), annotated(COUNT), annotated(12, first=100)
    plan = make_plan(
        Everything(), task, data=data, train=train if request.param in FITTED else None, device="cpu", batch_size=4
    )
    result = run(plan, results=tmp_path, save_predictions=True, progress=False)
    monkeypatch.setattr(run_of_report, "open_data", lambda *_, **__: data)
    monkeypatch.setattr(neighbours, "open_train", lambda *_, **__: train)
    page = build.report(result, task=task, out=tmp_path / "a.html", progress=False)
    found = re.search(r'id="page-data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found and result.path
    return read_rows(result.path).set_index("id"), json.loads(found[1])


def answers(page: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The answer of the run by sample id."""
    assert all("error" not in one["runs"][0] for one in page["pictures"])
    return {sample: one["runs"][0] for sample, one in zip(page["samples"]["ids"], page["pictures"], strict=True)}


@pytest.mark.parametrize("shown", CASES, indirect=True)
def test_every_family_shows_every_sample(shown: tuple[Any, Any]) -> None:
    rows, page = shown
    assert page["view"] and list(rows.index) == page["samples"]["ids"] and len(answers(page)) == COUNT


@pytest.mark.parametrize("shown", ["detection", "slot", "dense"], indirect=True)
def test_detections(shown: tuple[Any, Any]) -> None:
    rows, page = shown
    for sample, answer in answers(page).items():
        listed = answer["detections"]
        scores = [one[5] for one in listed]
        assert scores == sorted(scores, reverse=True) and scores
        kind = "mask" if rows.loc[sample, "mask_scores"] is not None else "box"
        hits = sorted(int(one).bit_count() for one in rows.loc[sample, f"{kind}_matched"])
        assert sorted(one[8] for one in listed) == hits
        assert all(one[7] >= 0.45 + 0.05 * one[8] - 1e-3 for one in listed if one[8])


@pytest.mark.parametrize("shown", ["linear"], indirect=True)
def test_classes(shown: tuple[Any, Any]) -> None:
    rows, page = shown
    for sample, answer in answers(page).items():
        right, wrong = answer["pixels"]["right"], answer["pixels"]["wrong"]
        assert right / (right + wrong) == pytest.approx(rows.loc[sample, "pixel_acc"])


@pytest.mark.parametrize("shown", ["kmeans"], indirect=True)
def test_clusters_are_shown_as_the_class_of_most_of_their_pixels(shown: tuple[Any, Any]) -> None:
    rows, page = shown
    right = sum(answer["pixels"]["right"] for answer in answers(page).values())
    table: dict[int, dict[int, int]] = {}
    for cells, counts in zip(rows["cells_kmeans"], rows["counts_kmeans"], strict=True):
        for code, count in zip(cells, counts, strict=True):
            of = table.setdefault(int(code) % 65536, {})
            of[int(code) // 65536] = of.get(int(code) // 65536, 0) + int(count)
    assert right == sum(max(of.values()) for of in table.values())


@pytest.mark.parametrize("shown", ["recognition"], indirect=True)
def test_recognition(shown: tuple[Any, Any]) -> None:
    rows, page = shown
    for sample, answer in answers(page).items():
        named = answer["recognised"]
        assert sum(one[3] == 1 for one in named) == rows.loc[sample, "n_correct1"]
        assert sum(one[1] is not None for one in named) == rows.loc[sample, "n_matched"]


@pytest.mark.parametrize("shown", ["knn"], indirect=True)
def test_neighbours(shown: tuple[Any, Any]) -> None:
    rows, page = shown
    for sample, answer in answers(page).items():
        assert answer["right"] == (rows.loc[sample, "knn_top1"] == 1)
        assert sum(one[2] for one in answer["neighbours"]) == pytest.approx(1, abs=0.01)
        cosines = [one[1] for one in answer["neighbours"]]
        assert cosines == sorted(cosines, reverse=True) and len(cosines) == 12
        strip = answer["strip"]
        assert strip["known"] == [True] * 12, "every neighbour that votes has a picture"
        image = Image.open(io.BytesIO(base64.b64decode(strip["image"])))
        assert image.size == (12 * strip["side"], strip["side"])


def test_a_confusion_that_happens_once_is_not_the_most_frequent_one() -> None:
    rows = pd.DataFrame({"id": list("abcd"), "label": [0, 1, 2, 3], "predicted": [1, 2, 2, 3]})
    assert page_confusion(rows)["sentence"].startswith("No two classes are confused twice: each of the 2 wrong images")
    twice = pd.DataFrame({"id": list("abcd"), "label": [0, 0, 2, 3], "predicted": [1, 1, 0, 3]})
    assert page_confusion(twice)["sentence"] == "It most often takes class 0 for class 1: 67 % of the wrong images."


def test_class_0_of_a_data_set_that_names_its_classes_from_1_on_is_background() -> None:
    voc = {1: "aeroplane", 2: "bicycle"}
    assert class_name(voc, 0) == "background" and class_name(voc, 3) == "class 3"
    assert class_name({0: "road"}, 0) == "road" and class_name({}, 0) == "class 0"


def test_a_ratio_of_sums_has_the_value_of_the_own_counts_of_each_sample() -> None:
    """Questions about videos: rows have counts only, and the samples are to be sorted by what is right in them."""
    names = ("descriptive", "n_unanswered")
    record = SimpleNamespace(task=SimpleNamespace(main="descriptive"), metrics=dict.fromkeys(names))
    rows = pd.DataFrame(
        {"n_descriptive": [4.0, 0.0], "n_descriptive_right": [3.0, 0.0], "n_unanswered": [0.0, 1.0]}, index=["a", "b"]
    )
    values = Run(record, rows, FAMILIES["reasoning"]).sample_values  # type: ignore[arg-type]  # these fields suffice
    assert list(values) == list(names) and values["descriptive"]["a"] == 0.75
    assert np.isnan(values["descriptive"]["b"]), "no such question"


@pytest.mark.parametrize("shown", ["discovery"], indirect=True)
def test_masks(shown: tuple[Any, Any]) -> None:
    rows, page = shown
    for sample, answer in answers(page).items():
        best = [iou for _, iou, _, _ in answer["objects"]]
        assert np.mean(best) == pytest.approx(rows.loc[sample, "mbo_fg"], abs=1e-3)
        codes = np.frombuffer(zlib.decompress(base64.b64decode(answer["map"]["text"])), np.uint8)
        assert set(codes.tolist()) == set(range(len(answer["ids"])))


@pytest.mark.parametrize("shown", ["linear", "knn"], indirect=True)
def test_confusion(shown: tuple[Any, Any]) -> None:
    """Each row of the table adds up to 1, and its diagonal is the recall of the class."""
    rows, _ = shown
    found = page_confusion(rows)
    assert [sum(row) for row in found["shares"]] == pytest.approx([1] * len(found["names"]), abs=1e-3)
    if found["what"] == "images":
        recall = rows.assign(hit=rows["label"] == rows["predicted"]).groupby("label")["hit"].mean()
        assert [row[place] for place, row in enumerate(found["shares"])] == pytest.approx(list(recall), abs=1e-3)


def page_confusion(rows: Any) -> dict[str, Any]:
    """The confusion of rows alone."""
    found = confusion(Run(None, rows, FAMILIES["knn"]))  # type: ignore[arg-type]  # only its rows are asked for
    assert found is not None
    return found


@pytest.mark.parametrize("shown", ["recognition", "knn"], indirect=True)
def test_damaged_files_are_said_at_their_sample(shown: tuple[Any, Any], tmp_path: Path) -> None:
    """Every damage of a saved JSON file is an error of this sample, and never one of the page."""
    rows, page = shown
    name = next(iter(rows.index))
    view, saved = opened(page, tmp_path)
    sample = view.data.reader[0]
    (path,) = tmp_path.glob(f"**/{name}.json")
    content = json.loads(path.read_text())
    assert view.answer(sample, saved)
    first = content[0] if isinstance(content, list) else content
    key = next(iter(first))
    for damaged in (None, [], {}, [1], {**first, key: "x"}, [{**first, key: None}], [{**first, "box": [1]}]):
        path.write_text(json.dumps(damaged))
        with pytest.raises(SampleError, match=name):
            view.answer(sample, saved)
    path.write_bytes(b"\xff{")
    with pytest.raises(SampleError, match="cannot be read"):
        view.answer(sample, saved)


def opened(page: dict[str, Any], root: Path) -> tuple[Any, Saved]:
    """The view of a small run, and its saved predictions."""
    task = small_task({"slots": "recognition", "neighbours": "knn"}[page["view"]])
    (folder,) = root.glob("**/*.predictions")
    run = open_run(next(root.glob("small-*/**/*.json")), task=task, progress=False)
    assert run.task is not None and run.data is not None
    return VIEWS[page["view"]](run.task, run.data, None), Saved(run, folder, 0)

"""The detection adapter: its checks, its rows, and the agreement of its files with pycocotools."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from pydantic import ValidationError

from ocl_bench.cards.names import get_task
from ocl_bench.cards.task import TaskSpec
from ocl_bench.core.errors import NotApplicableError, UsageError
from ocl_bench.core.types import Instance, Prediction, Truth
from ocl_bench.families import get_adapter
from ocl_bench.families.coco_results import coco_results, read_results, write_results
from ocl_bench.families.detection import Detection
from ocl_bench.families.summary import summarise
from ocl_bench.metrics.accumulation import average_precision
from ocl_bench.metrics.detection import Detections, match_images

TASK = get_task("coco-detection")
SHAPE = (48, 64)
IDS = tuple(f"{number:012d}" for number in range(1, 9))


def truth(seed: int) -> Truth:
    """Three rectangles of two categories, one of them a crowd in every other image."""
    generator = np.random.default_rng(seed)
    labels = np.zeros(SHAPE, np.int16)
    instances = []
    for number in range(3):
        x, y = generator.integers(0, 40), generator.integers(0, 24)
        box = (float(x), float(y), float(x + 20), float(y + 16))
        mask = np.zeros(SHAPE, np.uint8, order="F")
        mask[y : y + 16, x : x + 20] = 1
        labels[mask > 0] = number + 1
        instances.append(Instance(1 + number % 2, box, coco_mask.encode(mask), 320.0, number == 2 and seed % 2 == 0))
    return Truth(labels, (1, 2, 1), instances=tuple(instances))


TRUTH = [truth(seed) for seed in range(len(IDS))]


def soft_masks(seed: int = 0) -> torch.Tensor:
    """Blurred truth of each image and one noisy slot: (B, 4, 24, 32)."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.stack([torch.from_numpy(image.labels.astype(np.int64)) for image in TRUTH])
    soft = torch.nn.functional.one_hot(maps, 4).permute(0, 3, 1, 2).float()
    soft = torch.nn.functional.avg_pool2d(soft, 2)
    return (4 * soft + torch.randn(soft.shape, generator=generator) / 2).softmax(1)


def prediction(**fields: Any) -> Prediction:
    return Prediction(masks=soft_masks(), mask_source="decoder", **fields)


def boxes_prediction() -> Prediction:
    """Truth boxes in pixels of the 256 x 256 image, one of them NaN."""
    scale = 256 / np.array([64, 48, 64, 48])
    boxes = np.array([[instance.box for instance in image.instances] for image in TRUTH]) * scale
    boxes[:, 1] = np.nan
    scores = np.tile([0.9, np.nan, 0.4], (len(TRUTH), 1))
    return Prediction(boxes=torch.from_numpy(boxes).float(), scores=torch.from_numpy(scores).float())


def outputs(adapter: Detection, model: Prediction) -> list[Detections]:
    return adapter.outputs(adapter.check(model, len(TRUTH), "mine"), [SHAPE] * len(TRUTH), 256)


def rows(adapter: Detection, by_seed: dict[int, list[Detections]], task: TaskSpec = TASK) -> pandas.DataFrame:
    """Rows in the order of the runner: noise seed by noise seed."""
    lines = [
        {"id": sample_id, "noise_seed": seed, **row}
        for seed, detections in by_seed.items()
        for sample_id, row in zip(IDS, adapter.score(TRUTH, detections, task), strict=True)
    ]
    types = {"id": "object", "noise_seed": "int64", "n_objects": "int64"} | adapter.columns(task)
    return pandas.DataFrame(lines, columns=list(types)).astype(types)


def pycocotools_values(results: list[dict[str, Any]] | str, kind: str) -> tuple[float, float]:
    """Class-agnostic average precision and recall of a results file."""
    annotations = [
        {
            "id": 100 * image + k + 1,
            "image_id": int(IDS[image]),
            "category_id": one.category,
            "bbox": [one.box[0], one.box[1], one.box[2] - one.box[0], one.box[3] - one.box[1]],
            "segmentation": one.mask,
            "area": one.area,
            "iscrowd": int(one.crowd),
        }
        for image in range(len(IDS))
        for k, one in enumerate(TRUTH[image].instances)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": int(i), "height": SHAPE[0], "width": SHAPE[1]} for i in IDS],
            "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
            "annotations": annotations,
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), kind)
        evaluation.params.useCats = 0
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0]), float(evaluation.stats[8])


def test_values_are_those_of_pycocotools_on_the_results_file(tmp_path: Path) -> None:
    adapter = Detection(TASK)
    detections = outputs(adapter, prediction())
    summary = summarise(rows(adapter, {0: detections}), TASK, "decoder")
    path = tmp_path / "results.json"
    write_results(path, detections, IDS, [1, 2])
    for kind, iou_type in (("mask", "segm"), ("box", "bbox")):
        expected = pycocotools_values(str(path), iou_type)
        ours = summary[f"ap_{kind}"].value, summary[f"ar100_{kind}"].value
        assert ours == pytest.approx(expected, abs=1e-12)
        assert 0 < expected[0] < expected[1] < 1
    ar = summary["ar100_mask"]
    assert ar.ci95 is not None and ar.value is not None
    assert ar.ci95[0] < ar.value < ar.ci95[1]
    assert ar.n_valid == len(IDS)
    assert "mask:decoder" in ar.signature and "score:mean-mask" in ar.signature


def test_rows_survive_parquet(tmp_path: Path) -> None:
    adapter = Detection(TASK)
    table = rows(adapter, {0: outputs(adapter, prediction())})
    table.to_parquet(tmp_path / "rows.parquet")
    again = pandas.read_parquet(tmp_path / "rows.parquet")
    assert summarise(again, TASK, "decoder") == summarise(table, TASK, "decoder")


def test_row_of_an_image() -> None:
    adapter = Detection(TASK)
    table = rows(adapter, {0: outputs(adapter, prediction())})
    assert table["n_objects"].tolist() == [2, 3] * 4  # crowds are not objects
    assert table["ap_mask"].isna().all()
    assert table["ar100_mask"].between(0, 1).all()
    nothing = Truth(np.zeros(SHAPE, np.int16))
    (row,) = adapter.score([nothing], outputs(adapter, prediction())[:1], TASK)
    assert row["n_objects"] == 0
    assert np.isnan(row["ar100_mask"])


def test_noise_seeds_are_averaged() -> None:
    adapter = Detection(TASK)
    other = Prediction(masks=soft_masks(1), mask_source="decoder")
    first, second = outputs(adapter, prediction()), outputs(adapter, other)
    values = [summarise(rows(adapter, {0: one}), TASK, "x")["ap_mask"].value for one in (first, second)]
    both = summarise(rows(adapter, {0: first, 5: second}), TASK, "x")["ap_mask"]
    assert values[0] != values[1]
    assert both.value == pytest.approx(np.mean(np.array(values, np.float64)), abs=1e-12)
    assert both.n_valid == len(IDS)


def test_native_boxes_leave_mask_metrics_null() -> None:
    adapter = Detection(TASK)
    model = boxes_prediction()
    assert adapter.source(model) == "boxes"
    assert adapter.finite(model).all()
    detections = outputs(adapter, model)
    assert detections[0].boxes == pytest.approx(np.array([TRUTH[0].instances[k].box for k in (0, 2)]), abs=1e-4)
    summary = summarise(rows(adapter, {0: detections}), TASK, "boxes")
    for name in ("ap_mask", "ar100_mask"):
        assert summary[name].value is None
        assert summary[name].ci95 is None
        assert summary[name].n_valid == 0
    # 8 images: 4 with 2 of 3 objects found, 4 with 1 of 2 objects found
    assert summary["ar100_box"].value == pytest.approx(12 / 20)


def test_nothing_proposed_finds_nothing() -> None:
    adapter = Detection(TASK)
    empty = [Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64), ())] * len(TRUTH)
    summary = summarise(rows(adapter, {0: empty}), TASK, "x")
    assert [(value.value, value.n_valid) for value in summary.values()] == [(0.0, len(IDS))] * 4


def test_unusable_predictions() -> None:
    adapter = Detection(TASK)
    boxes = torch.zeros(2, 5, 4)
    with pytest.raises(NotApplicableError, match="masks is missing"):
        adapter.check(Prediction(slots=torch.zeros(2, 5, 4)), 2, "mine")
    with pytest.raises(NotApplicableError, match="scores is missing"):
        adapter.check(Prediction(boxes=boxes), 2, "mine")
    for scores, labels in (
        (torch.zeros(2, 4), None),
        (torch.zeros(2, 5), torch.zeros(2, 5)),
        (torch.zeros(2, 5), torch.zeros(2, 1, dtype=torch.int64)),
    ):
        with pytest.raises(UsageError, match=r"model mine: Prediction\.(scores|labels) has shape"):
            adapter.check(Prediction(boxes=boxes, scores=scores, labels=labels), 2, "mine")
    bad = Prediction(boxes=boxes, scores=torch.tensor([[0.0, 1, 2, 3, 4], [0, 1, float("nan"), 3, 4]]))
    assert adapter.finite(adapter.check(bad, 2, "mine")).tolist() == [True, False]


@pytest.mark.parametrize("change", [{"crop": "center-0.8"}, {"score_at": 128}])
def test_card_that_crops_or_rescales_is_refused(change: dict[str, Any]) -> None:
    content = TASK.model_dump()
    with pytest.raises(ValidationError, match=r"set crop: none and leave score_at out"):
        TaskSpec.model_validate({**content, "protocol": {**content["protocol"], **change}})


def test_card_with_another_metric_is_refused() -> None:
    with pytest.raises(UsageError, match=r"metrics: 'probe_ap_box' needs a head"):
        get_adapter(TASK.model_copy(update={"metrics": ("probe_ap_box",), "main": "probe_ap_box"}))


def test_picture_and_file_of_an_image(tmp_path: Path) -> None:
    adapter = Detection(TASK)
    for model in (prediction(), boxes_prediction()):
        detections = outputs(adapter, model)[0]
        painted, labels = adapter.picture(detections, TRUTH[0])
        assert painted.shape == SHAPE
        assert set(np.unique(painted)) <= set(range(len(detections) + 1))
        assert labels is TRUTH[0].labels
        adapter.write(tmp_path, IDS[0], 3, detections)
        again = read_results(tmp_path / "seed-3" / f"{IDS[0]}.json", IDS)[IDS[0]]
        assert again.scores.tolist() == detections.scores.tolist()
        assert again.boxes == pytest.approx(detections.boxes, abs=0.011)
        assert again.masks == detections.masks


def test_results_are_read_as_written(tmp_path: Path) -> None:
    adapter = Detection(TASK)
    detections = outputs(adapter, prediction())
    path = tmp_path / "results.json"
    write_results(path, detections[:-1], IDS[:-1], [1, 2])
    again = read_results(path, IDS, categories=[1, 2], shapes=dict.fromkeys(IDS, SHAPE))
    assert list(again) == list(IDS)
    assert len(again[IDS[-1]]) == 0
    assert again[IDS[-1]].masks == ()
    for sample_id, one in zip(IDS[:-1], detections, strict=False):
        assert again[sample_id].masks == one.masks
        assert again[sample_id].labels.tolist() == [1] * len(one)
    ours, theirs = (match_images(TRUTH[:-1], list(d)[:7], "mask") for d in (detections, again.values()))
    assert average_precision(ours)[0] == average_precision(theirs)[0]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_results_from_another_system_are_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "results.json"
    write_results(path, outputs(Detection(TASK), prediction()), IDS, [1, 2])
    plain = read_results(path, IDS)
    path.write_bytes(path.read_text(encoding="utf-8").replace("\n", "\r\n").encode(encoding))
    again = read_results(path, IDS)
    assert all(again[sample_id].scores.tolist() == plain[sample_id].scores.tolist() for sample_id in IDS)


def test_labels_of_the_data_set_are_kept() -> None:
    detections = Detections(np.array([[1.004, 2, 4, 8.5]]), np.array([0.25]), np.array([18]), None)
    (entry,) = coco_results([detections], ["val_7"], [3, 18])
    assert entry == {"image_id": "val_7", "category_id": 18, "bbox": [1.0, 2.0, 3.0, 6.5], "score": 0.25}
    assert coco_results([detections], ["000000000139"])[0]["image_id"] == 139
    assert coco_results([detections], ["3"], numbers={"3": 1})[0]["image_id"] == 1


@pytest.mark.parametrize(("written", "expected"), [(3, "day/1"), (1, "3"), ("0001", "3"), ("day/1", "day/1")])
def test_images_are_known_by_their_numbers(tmp_path: Path, written: int | str, expected: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps([GOOD | {"image_id": written}]))
    found = read_results(path, ["3", "day/1"], numbers={"3": 1, "day/1": 3})
    assert [sample_id for sample_id, detections in found.items() if len(detections)] == [expected]


def test_a_text_that_may_mean_two_images_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps([GOOD | {"image_id": "3"}]))
    with pytest.raises(UsageError, match="image_id is '3', the id of one image and the name of another; use numbers"):
        read_results(path, ["3", "day/1"], numbers={"3": 1, "day/1": 3})


def mask(values: int = 1) -> dict[str, Any]:
    code = coco_mask.encode(np.full(SHAPE, values, np.uint8, order="F"))
    return {"size": list(SHAPE), "counts": code["counts"].decode()}


GOOD = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4], "score": 0.5, "segmentation": mask()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 99}, "image_id is 99, which is not one of the 8 images"),
        ({"image_id": None}, "image_id is None"),
        ({"category_id": 3}, "category_id is 3, which the data set does not have"),
        ({"category_id": "1"}, "category_id is '1', expected an integer"),
        ({"score": float("nan")}, "score has nan, expected a finite number"),
        ({"score": None}, "score has None"),
        ({"bbox": [0, 0, float("inf"), 4]}, "bbox has inf"),
        ({"bbox": [0, 0, -1, 4]}, "with a size of at least 0"),
        ({"bbox": [0, 0, 4]}, "expected x, y, width, height"),
        ({"segmentation": None}, "segmentation is missing, though other results have it"),
        ({"segmentation": [[0, 0, 4, 0, 4, 4]]}, "is not a run-length code"),
        ({"segmentation": {**mask(), "size": [64, 48]}}, "size 64 x 48 .*expected 48 x 64"),
        ({"segmentation": {**mask(), "size": [10, 10]}}, "do not add up to its size 10 x 10"),
        ({"segmentation": {"size": list(SHAPE), "counts": [5, 6]}}, "do not add up"),
        ({"segmentation": {"size": list(SHAPE), "counts": "0é"}}, "can't encode character"),
        ({"segmentation": {"size": list(SHAPE), "counts": "P"}}, "ends within a number"),
        ({"segmentation": {"size": ["48", 64], "counts": "0"}}, "expected height and width"),
    ],
)
def test_bad_results_are_refused_in_one_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps([GOOD, GOOD | change, GOOD | change]))
    with pytest.raises(
        UsageError, match=f"results.json: 2 of 3 results are bad, the first is entry 1: .*{message}"
    ) as e:
        read_results(path, IDS, categories=[1, 2], shapes=dict.fromkeys(IDS, SHAPE))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(("text", "message"), [("[{", "cannot be read"), ('{"annotations": []}', "an annotation file")])
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_results(path, IDS)
    with pytest.raises(UsageError, match="cannot be read"):
        read_results(tmp_path / "none.json", IDS)


def test_uncompressed_codes_and_boxes_from_masks(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    entries, codes = [], []
    for _ in range(20):
        picture = generator.random(SHAPE) < 0.02
        flat = np.concatenate([[False], picture.ravel(order="F")])
        edges = np.flatnonzero(np.diff(flat)).tolist()
        runs = np.diff([0, *edges, SHAPE[0] * SHAPE[1]]).tolist()
        codes.append(coco_mask.encode(np.asfortranarray(picture, np.uint8)))
        entries.append(
            {"image_id": 1, "category_id": 1, "score": 0.5, "segmentation": {"size": list(SHAPE), "counts": runs}}
        )
    path = tmp_path / "results.json"
    path.write_text(json.dumps(entries))
    detections = read_results(path, IDS)[IDS[0]]
    assert detections.masks is not None
    assert [code["counts"] for code in detections.masks] == [code["counts"] for code in codes]
    boxes = coco_mask.toBbox(codes)
    assert detections.boxes.tolist() == np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]).tolist()


def test_two_sizes_in_one_image_are_refused_without_knowing_the_image(tmp_path: Path) -> None:
    small = coco_mask.encode(np.ones((4, 4), np.uint8, order="F"))
    other = {"size": [4, 4], "counts": small["counts"].decode()}
    path = tmp_path / "results.json"
    path.write_text(json.dumps([GOOD, GOOD | {"segmentation": other}]))
    with pytest.raises(UsageError, match="entry 1: field segmentation has size 4 x 4"):
        read_results(path, IDS)

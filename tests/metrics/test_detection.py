"""Average precision and recall against pycocotools and faster-coco-eval, their weights against copies of images."""

from __future__ import annotations

import contextlib
import io
import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas
import pytest
from faster_coco_eval import COCO as FasterCOCO
from faster_coco_eval import COCOeval_faster
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ocl_bench.core.errors import UsageError
from ocl_bench.core.types import Instance, Truth
from ocl_bench.metrics import accumulation
from ocl_bench.metrics.accumulation import (
    RECALLS,
    average_precision,
    average_recall,
    precision_statistic,
    recall_statistic,
)
from ocl_bench.metrics.detection import (
    KINDS,
    THRESHOLDS,
    Detections,
    Kind,
    Matches,
    from_columns,
    image_recall,
    match_images,
    to_columns,
)
from ocl_bench.metrics.statistics_of_set import bootstrap_statistic

HEIGHT, WIDTH = 40, 56
IOU_TYPE = {"box": "bbox", "mask": "segm"}
CATEGORIES = (3, 7, 18)
Scene = tuple[Truth, Detections]


def rectangle(generator: np.random.Generator) -> np.ndarray:
    x, y = generator.integers(0, WIDTH - 12), generator.integers(0, HEIGHT - 12)
    w, h = generator.integers(4, 12, 2)
    return np.array([x, y, x + w, y + h], np.float64)


def encode(box: np.ndarray, cut: bool) -> dict:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    x0, y0, x1, y1 = box.astype(int)
    mask[y0:y1, x0:x1] = 1
    if cut:
        mask[y0, x0:x1] = 0
    return coco_mask.encode(mask)


def scene(generator: np.random.Generator, ties: bool) -> Scene:
    """Objects, crowds, and detections that are jittered copies of them, doubled, mislabelled or made up."""
    truths = [rectangle(generator) for _ in range(generator.integers(0, 6))]
    instances = []
    for box in truths:
        mask = encode(box, cut=bool(generator.integers(2)))
        category = int(generator.choice(CATEGORIES))
        crowd = bool(generator.random() < 0.2)
        instances.append(Instance(category, tuple(box.tolist()), mask, float(coco_mask.area(mask)), crowd))
    boxes, labels = [], []
    for _ in range(generator.integers(0, 14)):
        if truths and generator.random() < 0.7:
            chosen = generator.integers(len(truths))
            jitter = generator.integers(-1, 2, 4) * generator.integers(0, 2, 4)
            boxes.append(np.clip(truths[chosen] + jitter, 0, [WIDTH, HEIGHT, WIDTH, HEIGHT]))
            right = generator.random() < 0.8
            labels.append(instances[chosen].category if right else int(generator.choice((*CATEGORIES, 99))))
        else:
            boxes.append(rectangle(generator))
            labels.append(int(generator.choice(CATEGORIES)))
    scores = generator.integers(0, 4, len(boxes)) / 4 if ties else generator.random(len(boxes))
    masks = tuple(encode(box, cut=bool(generator.integers(2))) for box in boxes)
    found = Detections(np.array(boxes).reshape(-1, 4), scores, np.array(labels, np.int64), masks)
    return Truth(np.zeros((HEIGHT, WIDTH), np.int16), instances=tuple(instances)), found


def scenes(count: int, seed: int, ties: bool = False) -> list[Scene]:
    generator = np.random.default_rng(seed)
    return [scene(generator, ties) for _ in range(count)]


def xywh(box: Sequence[float]) -> list[float]:
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def coco_truth(corpus: list[Scene]) -> dict:
    annotations = [
        {
            "id": 1000 * image + k + 1,
            "image_id": image,
            "category_id": instance.category,
            "bbox": xywh(instance.box),
            "segmentation": instance.mask,
            "area": instance.area,
            "iscrowd": int(instance.crowd),
        }
        for image, (truth, _) in enumerate(corpus)
        for k, instance in enumerate(truth.instances)
    ]
    images = [{"id": image, "height": HEIGHT, "width": WIDTH} for image in range(len(corpus))]
    names = [{"id": category, "name": str(category)} for category in CATEGORIES]
    return {"images": images, "categories": names, "annotations": annotations}


def coco_detections(corpus: list[Scene], class_agnostic: bool) -> list[dict]:
    """Class-agnostic detections all get one known category: pycocotools drops unknown ones even then."""
    return [
        {
            "image_id": image,
            "category_id": CATEGORIES[0] if class_agnostic else int(found.labels[k]),
            "bbox": xywh(found.boxes[k].tolist()),
            "segmentation": found.masks[k],
            "score": float(found.scores[k]),
        }
        for image, (_, found) in enumerate(corpus)
        for k in range(len(found))
        if found.masks is not None
    ]


def oracle(
    corpus: list[Scene], kind: Kind, class_agnostic: bool, max_detections: int = 100, faster: bool = False
) -> tuple[float, float]:
    """Average precision and recall of the whole area range; one implementation or the other."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = FasterCOCO() if faster else COCO()
        truth.dataset = coco_truth(corpus)
        truth.createIndex()
        found = truth.loadRes(coco_detections(corpus, class_agnostic))
        # loadRes prefers boxes where there are both; areas do not matter in the range `all`
        evaluation = (COCOeval_faster if faster else COCOeval)(truth, found, IOU_TYPE[kind])
        evaluation.params.useCats = int(not class_agnostic)
        evaluation.params.maxDets = [1, 2, max_detections]
        evaluation.evaluate()
        evaluation.accumulate()
    values = []
    for name in ("precision", "recall"):
        table = np.asarray(evaluation.eval[name])[..., 0, 2]
        values.append(float(table[table > -1].mean()))
    return values[0], values[1]


def matches(corpus: list[Scene], kind: Kind, class_agnostic: bool, max_detections: int = 100) -> list[Matches | None]:
    truth, found = zip(*corpus, strict=True)
    return match_images(truth, found, kind, class_agnostic=class_agnostic, max_detections=max_detections)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("class_agnostic", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_pycocotools_and_faster_coco_eval(kind: Kind, class_agnostic: bool, ties: bool) -> None:
    for seed in range(3):
        corpus = scenes(60, seed, ties)
        for limit in (100, 3):
            ours = matches(corpus, kind, class_agnostic, limit)
            value = average_precision(ours)[0], average_recall(ours)[0]
            assert 0.05 < value[0] < 0.95
            assert value == pytest.approx(oracle(corpus, kind, class_agnostic, limit), abs=1e-12)
            assert value == pytest.approx(oracle(corpus, kind, class_agnostic, limit, faster=True), abs=1e-12)


def test_thresholds_are_those_of_pycocotools() -> None:
    parameters = COCOeval(iouType="bbox").params
    assert np.array_equal(THRESHOLDS, parameters.iouThrs)
    assert np.array_equal(RECALLS, parameters.recThrs)


@pytest.mark.parametrize("class_agnostic", [False, True])
def test_weights_are_copies_of_images(class_agnostic: bool) -> None:
    corpus = scenes(30, 5)
    generator = np.random.default_rng(0)
    weights = generator.multinomial(30, np.full(30, 1 / 30), size=4)
    ours = matches(corpus, "box", class_agnostic)
    precision, recall = average_precision(ours, weights), average_recall(ours, weights)
    for row, counts in enumerate(weights):
        copies = [corpus[image] for image in np.repeat(np.arange(30), counts)]
        expected = oracle(copies, "box", class_agnostic)
        assert (precision[row], recall[row]) == pytest.approx(expected, abs=1e-12)


def test_weights_with_ties_between_images() -> None:
    """Every image has other scores, each of them once, and all images share them."""
    generator = np.random.default_rng(1)
    corpus = []
    for truth, found in scenes(30, 6):
        scores = generator.permutation(20)[: len(found)] / 20
        corpus.append((truth, Detections(found.boxes, scores, found.labels, found.masks)))
    weights = generator.multinomial(30, np.full(30, 1 / 30), size=4)
    precision = average_precision(matches(corpus, "mask", True), weights)
    for row, counts in enumerate(weights):
        copies = [corpus[image] for image in np.repeat(np.arange(30), counts)]
        assert precision[row] == pytest.approx(oracle(copies, "mask", True)[0], abs=1e-12)


def one_detection(scores: Sequence[float], boxes: Sequence[Sequence[float]]) -> Detections:
    count = len(scores)
    masks = tuple(encode(np.array(box), cut=False) for box in boxes)
    return Detections(np.array(boxes, np.float64).reshape(-1, 4), np.array(scores), np.zeros(count, np.int64), masks)


def one_truth(*boxes: Sequence[float], crowd: bool = False) -> Truth:
    instances = tuple(Instance(3, tuple(b), encode(np.array(b), cut=False), 1.0, crowd) for b in boxes)  # type: ignore[arg-type]
    return Truth(np.zeros((HEIGHT, WIDTH), np.int16), instances=instances)


BOX = (0.0, 0.0, 10.0, 10.0)
OTHER = (20.0, 20.0, 30.0, 30.0)


@pytest.mark.parametrize("kind", KINDS)
def test_degenerate_sets(kind: Kind) -> None:
    nothing, something, found = one_detection([], []), one_truth(BOX), one_detection([0.5], [BOX])
    cases: list[tuple[Truth, Detections, float]] = [
        (something, nothing, 0.0),
        (one_truth(), found, np.nan),
        (one_truth(), nothing, np.nan),
        (one_truth(BOX, crowd=True), found, np.nan),
        (something, found, 1.0),
        (something, one_detection([0.5], [OTHER]), 0.0),
    ]
    for truth, detections, expected in cases:
        ours = match_images([truth], [detections], kind)
        assert average_precision(ours)[0] == pytest.approx(expected, nan_ok=True)
        assert average_recall(ours)[0] == pytest.approx(expected, nan_ok=True)
    assert np.isnan(average_precision([])[0])
    assert np.isnan(average_recall([None, None])[0])


def test_drawn_images_without_detections_or_truth() -> None:
    ours = match_images(
        [one_truth(BOX), one_truth(BOX), one_truth()],
        [one_detection([1.0], [BOX]), *[one_detection([], [])] * 2],
        "box",
    )
    weights = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 0, 0]])
    for function in (average_precision, average_recall):
        value = function(ours, weights)
        assert value[[0, 1]].tolist() == [1.0, 0.0]  # an object that is missed is a miss
        assert np.isnan(value[[2, 4]]).all()
        assert value[3] == pytest.approx(0.5, abs=0.01)


def test_crowd_takes_any_number_and_costs_nothing() -> None:
    crowd, found = one_truth(OTHER, crowd=True), one_detection([0.9, 0.8, 0.1], [OTHER, OTHER, BOX])
    both = Truth(crowd.labels, instances=(*crowd.instances, *one_truth(BOX).instances))
    (match,) = match_images([both], [found], "mask")
    assert match is not None
    assert match.ignored.tolist() == [1023, 1023, 0]
    assert match.matched.tolist() == [0, 0, 1023]
    assert average_precision([match])[0] == pytest.approx(1.0)


def test_image_recall() -> None:
    (match,) = match_images([one_truth(BOX, OTHER)], [one_detection([0.5], [(0.0, 0.0, 10.0, 7.0)])], "box")
    assert match is not None
    assert match.matched.tolist() == [0b11111]  # IoU .7, as floats compare: .50 .55 .60 .65 .70
    assert image_recall(match) == pytest.approx(0.25)
    assert np.isnan(image_recall(None))
    assert np.isnan(image_recall(match_images([one_truth()], [one_detection([0.5], [BOX])], "box")[0]))
    corpus = scenes(20, 3)
    for position, match in enumerate(matches(corpus, "mask", False)):
        recall = average_recall([match])[0]
        if match is not None and len(match.scores):
            assert image_recall(match) == pytest.approx(recall, nan_ok=True), position


def test_masks_are_not_compared_where_there_are_none() -> None:
    boxes = one_detection([0.5], [BOX])
    bare = Detections(boxes.boxes, boxes.scores, boxes.labels, None)
    assert match_images([one_truth(BOX)], [bare], "mask") == [None]
    assert match_images([one_truth(BOX)], [bare], "box") != [None]
    without = Truth(np.zeros((HEIGHT, WIDTH), np.int16), instances=(Instance(3, BOX, None, 100.0),))
    assert match_images([without], [boxes], "mask") == [None]


def test_masks_of_another_size_are_refused() -> None:
    found = Detections(
        np.array([BOX]), np.ones(1), np.zeros(1, np.int64), (coco_mask.encode(np.ones((4, 4), np.uint8, order="F")),)
    )
    with pytest.raises(UsageError, match="4 x 4 and 40 x 56"):
        match_images([one_truth(BOX)], [found], "mask")


def test_statistics_survive_parquet(tmp_path: object) -> None:
    ours: list[Matches | None] = [*matches(scenes(8, 2), "mask", False), None]
    table = pandas.DataFrame([to_columns(one, "mask") for one in ours])
    path = f"{tmp_path}/rows.parquet"
    table.to_parquet(path)
    again = from_columns(pandas.read_parquet(path), "mask")
    assert again[-1] is None
    assert average_precision(again)[0] == average_precision(ours)[0]
    first, second = ours[0], again[0]
    assert first is not None and second is not None
    assert second.matched.dtype == np.uint16


def test_bootstrap_of_the_whole_set() -> None:
    ours = matches(scenes(60, 9), "box", True)
    for statistic, function in ((precision_statistic, average_precision), (recall_statistic, average_recall)):
        value, interval = bootstrap_statistic(statistic(ours), len(ours), resamples=200)
        assert value == function(ours)[0]
        assert interval.low < value < interval.high


def random_matches(images: int, detections: int, seed: int) -> list[Matches | None]:
    generator = np.random.default_rng(seed)
    ours: list[Matches | None] = []
    for _ in range(images):
        reached = np.minimum(generator.geometric(0.25, detections), 11) - 1
        scores = -np.sort(-generator.random(detections))
        matched = ((1 << reached) - 1).astype(np.uint16)
        zeros = np.zeros(detections, np.int32)
        ours.append(
            Matches(scores, zeros, matched, zeros.astype(np.uint16), zeros[:1], np.array([detections], np.int32))
        )
    return ours


def test_bootstrap_is_fast_and_small() -> None:
    """A tenth of 2000 resamples of 20 000 detections, of which 3 in 10 are true, takes a tenth of 10 s and 200 MB."""
    ours = random_matches(1000, 20, 0)
    weights = np.random.default_rng(0).multinomial(1000, np.full(1000, 1e-3), size=200)
    statistic = precision_statistic(ours)
    tracemalloc.start()
    statistic(weights[:5])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6
    start = time.process_time()
    statistic(weights)
    assert time.process_time() - start < 2.0


def test_resamples_in_blocks_and_alone_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = random_matches(60, 20, 1)
    weights = np.random.default_rng(0).multinomial(60, np.full(60, 1 / 60), size=50)
    together = precision_statistic(ours)(weights)
    monkeypatch.setattr(accumulation, "BLOCK_BYTES", 1)
    assert (precision_statistic(ours)(weights) == together).all()


def test_an_object_without_a_mask_does_not_take_its_image_away() -> None:
    mask = np.zeros((8, 8), np.uint8, order="F")
    mask[:4, :4] = 1
    code = coco_mask.encode(mask)
    good, bare = Instance(1, (0, 0, 4, 4), code, 16.0), Instance(1, (4, 4, 8, 8), None, 16.0)
    found = Detections(np.array([[0.0, 0, 4, 4]]), np.array([0.9]), np.array([0]), (code,))
    labels = np.zeros((8, 8), np.int16)
    truth = Truth(labels, instances=(good, bare))
    (masks,), (boxes,) = (match_images([truth], [found], kind) for kind in ("mask", "box"))  # type: ignore[arg-type]
    assert masks is not None and masks.truth_counts.tolist() == [1]
    assert boxes is not None and boxes.truth_counts.tolist() == [2]
    only_boxes = replace(truth, instances=(bare,))
    assert match_images([only_boxes], [found], "mask") == [None]

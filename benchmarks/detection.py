"""Compare the speed of average precision and recall with pycocotools and faster-coco-eval, on the same detections.

    python benchmarks/detection.py                # boxes and masks
    python benchmarks/detection.py --images 200

The data are 2000 images with 45 000 detections, class-agnostic. Our time covers what the detection family calls: the
matching of each image and the accumulation over the set, for average precision and recall. The peers get their objects
indexed and loaded. Only their `evaluate` and `accumulate` are timed: once with the default parameters (four area
ranges, three limits), and once with the single area range and limit that we compute. The script stops unless all
numbers are equal. Times are the best of several runs.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from faster_coco_eval import COCO as FasterCOCO
from faster_coco_eval import COCOeval_faster
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ocl_bench.core.types import Instance, Truth
from ocl_bench.families.coco_results import coco_results
from ocl_bench.metrics.accumulation import average_precision, average_recall
from ocl_bench.metrics.detection import KINDS, Detections, Kind, match_images

HEIGHT, WIDTH = 480, 640
OBJECTS_PER_IMAGE = 7.36  # COCO val2017: 36 781 in 5000
IOU_TYPE = {"box": "bbox", "mask": "segm"}
Values = tuple[float, float]


def blob(box: np.ndarray, phase: float) -> dict[str, Any]:
    """Run-length code of a wavy ellipse inside a box xyxy."""
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    radius = 0.5 * (1 - 0.15 * np.sin(3 * angle + phase) ** 2)
    centre, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    points = centre + size * radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    encoded: dict[str, Any] = coco_mask.frPyObjects([points.ravel().tolist()], HEIGHT, WIDTH)[0]
    return encoded


def random_boxes(generator: np.random.Generator, count: int) -> np.ndarray:
    """Random boxes (count, 4) xyxy whose sides are log-uniform."""
    size = np.exp(generator.uniform(np.log(16), np.log(300), (count, 2)))
    corner = generator.uniform(0, 1, (count, 2)) * (np.array([WIDTH, HEIGHT]) - size)
    return np.hstack([corner, corner + size])


def data(images: int, detections: int, seed: int) -> tuple[list[Truth], list[Detections]]:
    """Objects of images, and detections. Half of the detections are jittered copies of objects."""
    generator = np.random.default_rng(seed)
    per_image = np.bincount(np.arange(detections) % images, minlength=images)
    truth, predictions = [], []
    for count in per_image:
        boxes = random_boxes(generator, int(generator.poisson(OBJECTS_PER_IMAGE)))
        phases = generator.uniform(0, 2, len(boxes))
        masks = [blob(box, phase) for box, phase in zip(boxes, phases, strict=True)]
        crowds = generator.random(len(boxes)) < 0.01
        instances = tuple(
            Instance(1, tuple(box.tolist()), mask, float(coco_mask.area(mask)), bool(crowd))
            for box, mask, crowd in zip(boxes, masks, crowds, strict=True)
        )
        truth.append(Truth(np.zeros((1, 1), np.int16), instances=instances))
        guesses = random_boxes(generator, count)
        if len(boxes):
            copied = generator.random(count) < 0.5
            chosen = boxes[generator.integers(len(boxes), size=count)]
            side = np.tile(chosen[:, 2:] - chosen[:, :2], 2)
            jittered = (chosen + generator.normal(0, 0.07, chosen.shape) * side).clip(0, [WIDTH, HEIGHT] * 2)
            guesses[copied] = jittered[copied]
        guesses = guesses.round(2)
        encoded = tuple(blob(box, 0.0) for box in guesses)
        predictions.append(Detections(guesses, generator.random(count), np.zeros(count, np.int64), encoded))
    return truth, predictions


def load_coco(api: Any, truth: list[Truth], predictions: list[Detections]) -> tuple[Any, Any]:
    """Truth and detections as objects of a peer's `COCO` class."""
    names = [f"{number:012d}" for number in range(1, len(truth) + 1)]
    annotations = [
        {
            "image_id": image,
            "category_id": instance.category,
            "bbox": [*instance.box[:2], instance.box[2] - instance.box[0], instance.box[3] - instance.box[1]],
            "segmentation": instance.mask,
            "area": instance.area,
            "iscrowd": int(instance.crowd),
        }
        for image, image_truth in enumerate(truth, start=1)
        for instance in image_truth.instances
    ]
    coco = api()
    coco.dataset = {
        "images": [{"id": image, "height": HEIGHT, "width": WIDTH} for image in range(1, len(truth) + 1)],
        "categories": [{"id": 1, "name": "object"}],
        "annotations": [{"id": number} | fields for number, fields in enumerate(annotations, start=1)],
    }
    coco.createIndex()
    return coco, coco.loadRes(coco_results(predictions, names, [1]))


def ours(truth: list[Truth], predictions: list[Detections], kind: Kind) -> Values:
    """Average precision and recall of this package."""
    matches = match_images(truth, predictions, kind)
    return float(average_precision(matches)[0]), float(average_recall(matches)[0])


def peer(evaluator: Any, coco: tuple[Any, Any], kind: Kind, whole: bool) -> Values:
    """Average precision and recall of a peer. `whole` keeps its default area ranges and limits."""
    evaluation = evaluator(*coco, IOU_TYPE[kind])
    evaluation.params.useCats = 0  # class-agnostic
    if not whole:
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [100]
    evaluation.evaluate()
    evaluation.accumulate()
    # Last two axes: the first area range is "all", the last limit is 100. -1 marks entries without truth.
    tables = (np.asarray(evaluation.eval[name])[..., 0, -1] for name in ("precision", "recall"))
    precision, recall = (float(table[table > -1].mean()) for table in tables)
    return precision, recall


def timed(function: Callable[[], Values], repeats: int) -> tuple[float, Values]:
    """Shortest time of a call in seconds, and its values."""
    best, values = float("inf"), (0.0, 0.0)
    for _ in range(repeats):
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            values = function()
        best = min(best, time.perf_counter() - start)
    return best, values


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of average precision against pycocotools.")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--detections-per-image", type=float, default=22.5)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    truth, predictions = data(options.images, int(options.images * options.detections_per_image), seed=0)
    detections, objects = sum(map(len, predictions)), sum(len(image.instances) for image in truth)
    print(f"{options.images} images, {detections} detections, {objects} objects")
    with contextlib.redirect_stdout(io.StringIO()):
        slow, fast = load_coco(COCO, truth, predictions), load_coco(FasterCOCO, truth, predictions)
    for kind in KINDS:
        seconds, values = timed(lambda kind=kind: ours(truth, predictions, kind), options.repeats)  # type: ignore[misc]
        print(f"{IOU_TYPE[kind]}: ap {values[0]:.4f}, ar100 {values[1]:.4f}\n  ocl-bench         {seconds:7.3f} s")
        ratios = []
        for name, evaluator, coco in (("pycocotools", COCOeval, slow), ("faster-coco-eval", COCOeval_faster, fast)):
            for whole in (True, False):
                peer_seconds, expected = timed(
                    lambda e=evaluator, c=coco, k=kind, w=whole: peer(e, c, k, w),  # type: ignore[misc]
                    options.repeats,
                )
                if not np.allclose(values, expected, rtol=0, atol=1e-9):
                    raise SystemExit(f"{kind}: ours {values} differs from {name}'s {expected}")
                note = "" if whole else " (one area range, one limit)"
                print(f"  {name:17s} {peer_seconds:7.3f} s{note}")
                ratios.append((peer_seconds / seconds, f"{name}{note} / ocl-bench, {IOU_TYPE[kind]}"))
        for ratio, what in ratios:
            print(f"ratio: {ratio:.1f} ({what})")


if __name__ == "__main__":
    main()

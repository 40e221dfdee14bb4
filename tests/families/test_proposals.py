"""Detections from masks and boxes: compared with a slow NMS that uses pycocotools' IoU, and on hand-made masks."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from scipy.ndimage import label

from ocl_bench.cards.protocols import Proposals
from ocl_bench.families.discovery import label_map
from ocl_bench.families.proposals import native_boxes, proposals
from ocl_bench.metrics.detection import Detections

SHAPE = (30, 44)


def decoded(detections: Detections) -> list[np.ndarray]:
    assert detections.masks is not None
    return [coco_mask.decode(mask).astype(bool) for mask in detections.masks]


def soft_masks(seed: int, slots: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(slots, 7, 9, generator=generator)).softmax(0)


def slow_proposals(soft: torch.Tensor, rule: Proposals) -> list[tuple[float, np.ndarray]]:
    """Reference implementation on whole-image masks: greedy suppression of all pairs by pycocotools' IoU."""
    large = torch.nn.functional.interpolate(soft[None], size=SHAPE, mode="bilinear", align_corners=False)[0].numpy()
    labels = large.argmax(0)
    candidates = []
    for slot in range(len(soft)):
        masks = [labels == slot]
        if rule.parts == "whole+components":
            components, count = label(labels == slot, np.ones((3, 3)))
            masks += [components == k + 1 for k in range(count)] if count > 1 else []
        if masks[0].sum() >= rule.min_area:
            masks = [mask for mask in masks if mask.sum() >= rule.min_area]
            candidates += [(float(large[slot][mask].mean(dtype=np.float64)), mask) for mask in masks]
    kept: list[tuple[float, np.ndarray]] = []
    for score, mask in sorted(candidates, key=lambda pair: -pair[0]):
        code = coco_mask.encode(np.asfortranarray(mask, np.uint8))
        others = [coco_mask.encode(np.asfortranarray(other, np.uint8)) for _, other in kept]
        if not others or coco_mask.iou([code], others, [0] * len(others)).max() <= rule.nms:
            kept.append((score, mask))
    return kept[: rule.max_detections]


@pytest.mark.parametrize("parts", ["whole", "whole+components"])
@pytest.mark.parametrize(("nms", "min_area"), [(1.0, 1), (0.95, 16), (0.6, 4), (0.2, 1)])
def test_equals_the_slow_way(parts: str, nms: float, min_area: int) -> None:
    rule = Proposals(parts=parts, nms=nms, min_area=min_area)  # type: ignore[arg-type]
    sizes = set()
    for seed in range(6):
        soft = soft_masks(seed)
        detections, expected = proposals(soft, SHAPE, rule), slow_proposals(soft, rule)
        assert detections.scores == pytest.approx([score for score, _ in expected], abs=1e-12)
        for ours, (_, mask) in zip(decoded(detections), expected, strict=True):
            assert np.array_equal(ours, mask)
        sizes.add(len(detections))
    assert max(sizes) > (5 if parts == "whole+components" else 1)


def test_suppression_matters_in_both_directions() -> None:
    """The largest component of a slot has the whole's IoU: the one with the higher score stays."""
    soft = torch.zeros(2, 10, 10)
    soft[1] = 0.5
    soft[0, :, :6] = 0.9
    soft[0, 5, 9] = 0.6  # below the component's .9: the component wins
    rule = Proposals(nms=0.9)
    detections = proposals(soft, (10, 10), rule)
    assert sorted(int(mask.sum()) for mask in decoded(detections)) == [1, 39, 60]
    soft[0, 5, 9] = 1.0  # above: the whole wins
    detections = proposals(soft, (10, 10), rule)
    assert sorted(int(mask.sum()) for mask in decoded(detections)) == [1, 39, 61]
    assert len(proposals(soft, (10, 10), Proposals(nms=1.0))) == 4


def test_boxes_are_those_of_pycocotools() -> None:
    detections = proposals(soft_masks(1), SHAPE, Proposals())
    assert detections.masks is not None
    boxes = coco_mask.toBbox(list(detections.masks))
    assert np.array_equal(detections.boxes[:, :2], boxes[:, :2])
    assert np.array_equal(detections.boxes[:, 2:] - detections.boxes[:, :2], boxes[:, 2:])
    assert detections.masks[0]["size"] == list(SHAPE)


def test_slots_in_chunks_are_the_label_map_of_discovery() -> None:
    soft = soft_masks(2, slots=40)
    detections = proposals(soft, SHAPE, Proposals(parts="whole", nms=1.0))
    labels = label_map(soft, SHAPE)
    painted = np.full(SHAPE, -1)
    for mask in decoded(detections):
        assert (painted[mask] == -1).all()
        painted[mask] = labels[mask][0]
    assert np.array_equal(painted, labels)


def test_ties_keep_the_first_slot() -> None:
    detections = proposals(torch.full((20, 4, 4), 0.05), (8, 8), Proposals())
    assert len(detections) == 1
    assert detections.scores[0] == pytest.approx(0.05)


def test_label_map_scores_one_and_is_deterministic() -> None:
    labels = torch.zeros(10, 10, dtype=torch.int64)
    labels[1:3, 1:3] = 700  # sparse ids
    labels[6:9, 6:9] = 700
    detections = proposals(labels, (20, 20), Proposals(nms=1.0))
    assert detections.scores.tolist() == [1.0] * 4
    assert detections.boxes.tolist() == [[0, 0, 20, 20], [2, 2, 18, 18], [2, 2, 6, 6], [12, 12, 18, 18]]
    assert (
        proposals(labels, (20, 20), Proposals(nms=1.0, max_detections=2)).boxes.tolist()
        == detections.boxes[:2].tolist()
    )


def test_diagonal_neighbours_are_one_component() -> None:
    labels = torch.eye(6, dtype=torch.int64)
    areas = [int(mask.sum()) for mask in decoded(proposals(labels, (6, 6), Proposals()))]
    assert areas == [30, 6]


def test_scores_are_cut_and_small_masks_left_out() -> None:
    soft = torch.full((2, 4, 4), -3.0)
    soft[1, 0, 0] = 7.0
    assert proposals(soft, (4, 4), Proposals()).scores.tolist() == [1.0, 0.0]
    detections = proposals(soft, (4, 4), Proposals(min_area=16))
    assert len(detections) == 0
    assert detections.boxes.shape == (0, 4)
    assert detections.masks == ()


def test_native_boxes_are_scaled_sorted_and_cut_to_a_count() -> None:
    nan = float("nan")
    boxes = torch.tensor([[0.0, 0, 64, 32], [nan] * 4, [32, 32, 64, 64], [1, 1, 2, 2]])
    scores = torch.tensor([0.5, nan, 0.9, 0.1])
    detections = native_boxes(boxes, scores, None, 64, (100, 200), count=2)
    assert detections.boxes.tolist() == [[100, 50, 200, 100], [0, 0, 200, 50]]
    assert detections.scores == pytest.approx([0.9, 0.5])
    assert detections.labels.tolist() == [0, 0]
    assert detections.masks is None
    labelled = native_boxes(boxes, scores, torch.tensor([4, 0, 6, 8]), 64, (100, 200))
    assert labelled.labels.tolist() == [6, 4, 8]


def test_detections_of_a_photograph_are_cheap() -> None:
    import time

    soft = torch.nn.functional.interpolate(soft_masks(0, 11)[None], size=(64, 64))[0]
    proposals(soft, (480, 640), Proposals(min_area=16))
    start = time.process_time()
    detections = proposals(soft, (480, 640), Proposals(min_area=16))
    assert time.process_time() - start < 1.0
    assert len(cast(tuple, detections.masks)) > 11

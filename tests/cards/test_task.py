"""Task cards: the signature names what shaped a number, and nothing else."""

from __future__ import annotations

from ocl_bench.cards.names import get_task


def test_the_signature_of_boxes_claims_nothing_about_masks() -> None:
    task = get_task("coco-detection")
    assert task.signature("boxes") == "crop:none│from:boxes│at:native│max:100│annotations:instances│v1"
    assert "mask:decoder│up:bilinear-argmax" in task.signature("decoder") and "nms:0.95" in task.signature("decoder")

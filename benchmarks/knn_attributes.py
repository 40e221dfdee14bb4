"""Measure which attributes an embedding holds: k-NN of class, shape, texture and hue on held-out training scenes.

    python benchmarks/knn_attributes.py --model odis-random --model odis --model ibot

A class of the salient scenes is a combination of shape and texture; several classes share a hue (`scenes/salient.py`).
Chance levels are 1/24, 1/4, 1/6 and 1/4. The protocol is that of the k-NN tasks.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ocl_bench.cards.names import get_task
from ocl_bench.core.machine import fixed_arithmetic, thread_count
from ocl_bench.core.types import Sample
from ocl_bench.data.scenes.salient import CLASSES
from ocl_bench.models.loading import get_model
from ocl_bench.training.neighbours import BOX_MODES, embeddings, top1
from ocl_bench.training.odis_images import salient_samples
from ocl_bench.training.recipe import SceneSelection

SHAPES, KINDS, HUES = (sorted({getattr(entry, name) for entry in CLASSES}) for name in ("shape", "kind", "hue"))

ATTRIBUTES: dict[str, Callable[[int], int]] = {
    "class": lambda label: label,
    "shape": lambda label: SHAPES.index(CLASSES[label].shape),
    "texture": lambda label: KINDS.index(CLASSES[label].kind),
    "hue": lambda label: HUES.index(CLASSES[label].hue),
}


def attribute_accuracy(
    model: Any, bank: Sequence[Sample], queries: Sequence[Sample], boxes: str | None
) -> dict[str, float]:
    """Top-1 accuracy of each attribute by the votes of the 20 nearest images of the bank.

    Args:
        model: Model with embeddings.
        bank: Images that vote.
        queries: Images to classify.
        boxes: How the k-NN protocol uses the boxes of the images; None ignores them.
    """
    rules = get_task("imagenet-knn").protocol.model_copy(update={"boxes": boxes})
    bank_vectors, query_vectors = (embeddings(model, samples, rules, "cpu") for samples in (bank, queries))
    accuracy = {}
    for name, attribute in ATTRIBUTES.items():
        bank_values, target = (
            np.array([attribute(_label(sample)) for sample in samples]) for samples in (bank, queries)
        )
        accuracy[name] = top1(bank_vectors, query_vectors, bank_values, target, rules)
    return accuracy


def _label(sample: Sample) -> int:
    assert sample.truth.label is not None
    return int(sample.truth.label)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", action="append", required=True, help="a card, or card=checkpoint; repeatable")
    parser.add_argument("--bank", type=int, default=1008)
    parser.add_argument("--queries", type=int, default=480)
    arguments = parser.parse_args()
    scenes = SceneSelection(variant="salient", revision=1, split="train", count=4096)
    bank = salient_samples(scenes, range(arguments.bank))
    queries = salient_samples(scenes, range(scenes.count, scenes.count + arguments.queries))
    print(f"{'model':24}{'boxes':12}" + "".join(f"{name:>9}" for name in ATTRIBUTES))
    with fixed_arithmetic(thread_count()):
        for text in arguments.model:
            name, _, checkpoint = text.partition("=")
            model = get_model(name, checkpoint=Path(checkpoint) if checkpoint else None).model
            for boxes in (None, *BOX_MODES.values()):
                accuracy = attribute_accuracy(model, bank, queries, boxes)
                print(f"{name:24}{boxes or 'none':12}" + "".join(f"{value:9.3f}" for value in accuracy.values()))


if __name__ == "__main__":
    main()

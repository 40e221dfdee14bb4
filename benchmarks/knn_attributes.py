"""Measure what an embedding holds: k-NN of class, shape and texture on held-out training scenes; and the tokens' rank.

    python benchmarks/knn_attributes.py --model odis-random --model odis --model ibot

A class of the salient scenes, revision 2, is a shape with a texture. Chance levels are 1/16, 1/4 and 1/4. The protocol
is that of the k-NN tasks. The effective rank of the tokens is the exponential of the entropy of their covariance's
eigenvalues (Roy and Vetterli, EUSIPCO 2007): in how many directions tokens of images differ.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ocl_bench.cards.names import get_task
from ocl_bench.core.machine import fixed_arithmetic, thread_count
from ocl_bench.core.types import Batch, Sample
from ocl_bench.data.scenes.salient import classes_of
from ocl_bench.data.transforms import prepare
from ocl_bench.models.loading import get_model
from ocl_bench.training.neighbours import BOX_MODES, embeddings, top1
from ocl_bench.training.odis_images import salient_samples
from ocl_bench.training.recipe import SceneSelection

REVISION = 2
RANK_IMAGES = 64
"""Images whose tokens give the rank."""

CLASSES = classes_of(REVISION)
SHAPES, KINDS = (sorted({getattr(entry, name) for entry in CLASSES}) for name in ("shape", "kind"))

ATTRIBUTES: dict[str, Callable[[int], int]] = {
    "class": lambda label: label,
    "shape": lambda label: SHAPES.index(CLASSES[label].shape),
    "texture": lambda label: KINDS.index(CLASSES[label].kind),
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


def token_rank(model: Any, samples: Sequence[Sample]) -> float:
    """Effective rank of the covariance (D, D) of all tokens of the images."""
    rules = get_task("imagenet-knn").protocol
    images = torch.stack([prepare(sample, rules, model.input_size)[0] for sample in samples])
    tokens = model.predict(Batch(tuple(sample.id for sample in samples), images, any_of=("tokens",))).tokens
    values = torch.linalg.eigvalsh(torch.cov(tokens.double().transpose(0, 1).flatten(1))).clamp_min(0)
    return float(torch.exp(torch.special.entr(values / values.sum()).sum()))


def _label(sample: Sample) -> int:
    assert sample.truth.label is not None
    return int(sample.truth.label)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", action="append", required=True, help="a card, or card=checkpoint; repeatable")
    parser.add_argument("--bank", type=int, default=1008)
    parser.add_argument("--queries", type=int, default=480)
    arguments = parser.parse_args()
    scenes = SceneSelection(variant="salient", revision=REVISION, split="train", count=4096)
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
            print(f"{name:24}rank of the tokens {token_rank(model, queries[:RANK_IMAGES]):.1f}")


if __name__ == "__main__":
    main()

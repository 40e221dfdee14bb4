"""What neighbours share: k-NN of shape, texture and hue besides the class, on held-out scenes of the training split.

    python benchmarks/knn_attributes.py --model odis-random --model odis --model ibot

A class of the salient scenes is a shape with a texture, and shares its hue with others (`scenes/salient.py`): these
numbers say which of them an embedding holds. Chance is 1/24, 1/4, 1/6 and 1/4. The rules are those of the k-NN tasks.
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

SHAPES, KINDS, HUES = (sorted({getattr(one, name) for one in CLASSES}) for name in ("shape", "kind", "hue"))

ATTRIBUTES: dict[str, Callable[[int], int]] = {
    "class": lambda label: label,
    "shape": lambda label: SHAPES.index(CLASSES[label].shape),
    "texture": lambda label: KINDS.index(CLASSES[label].kind),
    "hue": lambda label: HUES.index(CLASSES[label].hue),
}


def shared(model: Any, bank: Sequence[Sample], queries: Sequence[Sample], boxes: str | None) -> dict[str, float]:
    """Top-1 of each attribute by the votes of the 20 nearest images of the bank. boxes: a use of them, or None."""
    rules = get_task("imagenet-knn").protocol.model_copy(update={"boxes": boxes})
    of_bank, asked = (embeddings(model, samples, rules, "cpu") for samples in (bank, queries))
    found = {}
    for name, attribute in ATTRIBUTES.items():
        own, target = (np.array([attribute(_label(one)) for one in samples]) for samples in (bank, queries))
        found[name] = top1(of_bank, asked, own, target, rules)
    return found


def _label(sample: Sample) -> int:
    assert sample.truth.label is not None
    return int(sample.truth.label)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", action="append", required=True, help="a card, or card=checkpoint; repeatable")
    parser.add_argument("--bank", type=int, default=1008)
    parser.add_argument("--queries", type=int, default=480)
    asked = parser.parse_args()
    scenes = SceneSelection(variant="salient", revision=1, split="train", count=4096)
    bank = salient_samples(scenes, range(asked.bank))
    queries = salient_samples(scenes, range(scenes.count, scenes.count + asked.queries))
    print(f"{'model':24}{'boxes':12}" + "".join(f"{name:>9}" for name in ATTRIBUTES))
    with fixed_arithmetic(thread_count()):
        for text in asked.model:
            name, _, checkpoint = text.partition("=")
            model = get_model(name, checkpoint=Path(checkpoint) if checkpoint else None).model
            for boxes in (None, *BOX_MODES.values()):
                found = shared(model, bank, queries, boxes)
                print(f"{name:24}{boxes or 'none':12}" + "".join(f"{value:9.3f}" for value in found.values()))


if __name__ == "__main__":
    main()

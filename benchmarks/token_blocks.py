"""Linear probes on the tokens of single blocks of a vision transformer, and on several blocks joined. See docs/odis.md.

    python benchmarks/token_blocks.py odis-random odis ibot --blocks 3 2,3 1,2,3 1 2
    python benchmarks/token_blocks.py odis-random odis@runs/pilot/odis.safetensors --task ade20k-segmentation

The head, its recipe and the scores are those of the task. `eval --option token_blocks=2` is `--blocks 2,3`; only this
script reads a block alone. The scenes are a fresh stand-in (`--stand-in-seed`), as choices are not made on test scenes.
Printed for each model and choice of blocks: mIoU, the effective rank of the tokens (`knn_attributes.py`), and the
difference to the first model with the same blocks, with its 95 % interval over images.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ocl_bench.cards.protocols import SegmentationProtocol
from ocl_bench.core.machine import fixed_arithmetic, thread_count
from ocl_bench.core.types import Batch
from ocl_bench.data import OpenData
from ocl_bench.data.transforms import nearest, prepare
from ocl_bench.evaluation.plan import make_plan
from ocl_bench.families.discovery import label_map
from ocl_bench.families.heads.features import FeatureSet
from ocl_bench.families.heads.linear import class_scores, fit_linear
from ocl_bench.metrics.semantic import confusion, miou_sem
from ocl_bench.metrics.statistics_of_set import Statistic, paired_statistic_difference
from ocl_bench.models.loading import get_model


def images_and_classes(data: OpenData, rules: SegmentationProtocol, size: int) -> tuple[Tensor, list[np.ndarray]]:
    """All images (N, 3, size, size) of a split, and their class maps."""
    pairs = [prepare(data.reader[position], rules, size) for position in range(len(data.ids))]
    return torch.stack([image for image, _ in pairs]), [truth.classes for _, truth in pairs]  # type: ignore[misc]


@torch.inference_mode()
def tokens_of(model: Any, images: Tensor) -> Tensor:
    """Tokens (N, blocks x D, h, w)."""
    parts = images.split(16)
    return torch.cat([model.predict(Batch(tuple(map(str, range(len(part)))), part)).tokens for part in parts])


def effective_rank(tokens: Tensor) -> float:
    """In how many directions tokens (N, D, h, w) differ."""
    values = torch.linalg.eigvalsh(torch.cov(tokens.double().transpose(0, 1).flatten(1))).clamp_min(0)
    return float(torch.exp(torch.special.entr(values / values.sum()).sum()))


def statistic(matrices: np.ndarray) -> Statistic:
    """mIoU of the set as a function of how often each image counts, from its confusion matrices (N, C, C)."""
    total = matrices.sum(0)
    occurring = (total.sum(0) + total.sum(1)) > 0
    classes = int(occurring.sum())
    flat = matrices[:, occurring][:, :, occurring].reshape(len(matrices), -1)
    everything = np.ones(classes, dtype=bool)
    return lambda weights: miou_sem((weights @ flat).reshape(-1, classes, classes), everything)


class Probe:
    """Linear probes of one task on fresh scenes. Features are those of all blocks, from which each probe takes some."""

    def __init__(self, task: str, stand_in_seed: int, depth: int) -> None:
        self.plan, self.depth = make_plan("oracle", task, stand_in_seed=stand_in_seed), depth
        self.images: dict[tuple[int, str], tuple[Tensor, list[np.ndarray]]] = {}

    def split(self, name: str, size: int) -> tuple[Tensor, list[np.ndarray]]:
        """Images and class maps of `fit` or `score`, at the size that a model sees."""
        if (size, name) not in self.images:
            data = self.plan.train if name == "fit" else self.plan.data
            assert data is not None and isinstance(self.plan.task.protocol, SegmentationProtocol)
            self.images[size, name] = images_and_classes(data, self.plan.task.protocol, size)
        return self.images[size, name]

    def features(self, name: str) -> dict[str, Tensor]:
        """Tokens (N, depth x D, h, w) of a model on both splits. name: of a card, or `name@checkpoint`."""
        card, _, checkpoint = name.partition("@")
        model = get_model(card, checkpoint=checkpoint or None, options={"token_blocks": self.depth}).model
        self.size = model.input_size
        return {split: tokens_of(model, self.split(split, self.size)[0]) for split in ("fit", "score")}

    def matrices(self, features: dict[str, Tensor], blocks: str) -> tuple[np.ndarray, float]:
        """Confusion matrices (N, C, C) of a probe on some blocks, and the rank of its tokens."""
        rules, recipe = self.plan.task.protocol, self.plan.task.fit
        assert isinstance(rules, SegmentationProtocol) and recipe is not None
        numbers = [int(block) - 1 for block in blocks.split(",")]
        fit, score = (
            torch.cat([features[split].chunk(self.depth, dim=1)[number] for number in numbers], dim=1)
            for split in ("fit", "score")
        )
        small = np.stack([nearest(one, (recipe.at, recipe.at)) for one in self.split("fit", self.size)[1]])
        head = fit_linear(FeatureSet(fit.numpy().astype(np.float16), small.astype(np.int16)), rules.classes, recipe)
        truths = self.split("score", self.size)[1]
        named = [label_map(one, truth.shape) for one, truth in zip(class_scores(score, head), truths, strict=True)]
        found = [confusion(*pair, rules.classes) for pair in zip(truths, named, strict=True)]
        return np.stack(found), effective_rank(score)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("models", nargs="+", help="name or name@checkpoint; others are held against the first")
    parser.add_argument("--task", default="voc-segmentation")
    parser.add_argument("--stand-in-seed", type=int, default=5)
    parser.add_argument("--depth", type=int, default=3, help="blocks of the models")
    parser.add_argument("--blocks", nargs="+", default=["3", "1,2,3"], help="blocks from 1, joined by commas")
    arguments = parser.parse_args()
    first: dict[str, Statistic] = {}
    with fixed_arithmetic(thread_count()):
        probe = Probe(arguments.task, arguments.stand_in_seed, arguments.depth)
        for name in arguments.models:
            features = probe.features(name)
            for blocks in arguments.blocks:
                matrices, rank = probe.matrices(features, blocks)
                value = statistic(matrices)
                found = paired_statistic_difference(value, first.setdefault(blocks, value), len(matrices))
                print(
                    f"{name} blocks {blocks}: mIoU {float(miou_sem(matrices.sum(0))):.3f}, rank {rank:.1f}, "
                    f"difference {found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]",
                    flush=True,
                )


if __name__ == "__main__":
    main()

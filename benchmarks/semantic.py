"""Compare the speed of semantic mIoU over a set with the usual loop over classes.

    python benchmarks/semantic.py

The maps have 150 classes, 512 x 512 pixels and void; each image has a dozen classes, as in ADE20K. For every image and
class, the peer counts the pixels in the prediction, in the truth and in both, with boolean masks. This is the algorithm
of many evaluation scripts, written here from its description. Both sum the counts over the set, and the script stops
unless the numbers are equal. It prints milliseconds per image on one thread, as the best of several runs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from ocl_bench.metrics.semantic import confusion, miou_sem

CLASSES, PRESENT = 150, 12


def label_maps(images: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth (images, size, size) int16 with void -1, and a prediction that is right on two thirds of the blocks."""
    generator = np.random.default_rng(seed)
    blocks = size // 32
    truth, prediction = [], []
    for _ in range(images):
        names = generator.choice(CLASSES, PRESENT, replace=False)
        coarse = generator.choice(names, (blocks, blocks))
        wrong = np.where(generator.random(coarse.shape) < 1 / 3, generator.choice(names, coarse.shape), coarse)
        whole, guess = (
            np.kron(blocks_map, np.ones((32, 32), np.int16)).astype(np.int16) for blocks_map in (coarse, wrong)
        )
        whole[generator.random(whole.shape) < 0.05] = -1
        truth.append(whole)
        prediction.append(guess)
    return np.stack(truth), np.stack(prediction)


def ours(truth: np.ndarray, prediction: np.ndarray) -> float:
    """mIoU of this package: one pass over the pixels of each image."""
    total = sum(confusion(t, p, CLASSES) for t, p in zip(truth, prediction, strict=True))
    return float(miou_sem(np.asarray(total)))


def class_loop(truth: np.ndarray, prediction: np.ndarray) -> float:
    """mIoU of the peer: three counts for each image and class."""
    both, union = np.zeros(CLASSES), np.zeros(CLASSES)
    for t, p in zip(truth, prediction, strict=True):
        known = t >= 0
        for label in range(CLASSES):
            in_truth, in_prediction = t == label, (p == label) & known
            both[label] += (in_truth & in_prediction).sum()
            union[label] += (in_truth | in_prediction).sum()
    return float((both[union > 0] / union[union > 0]).mean())


def best_time(function: Callable[[], float], runs: int) -> tuple[float, float]:
    """Shortest time of several calls in seconds, and the value."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        value = function()
        times.append(time.perf_counter() - start)
    return min(times), value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    truth, prediction = label_maps(arguments.images, arguments.size, seed=0)
    seconds, value = best_time(lambda: ours(truth, prediction), arguments.runs)
    peer_seconds, peer_value = best_time(lambda: class_loop(truth, prediction), arguments.runs)
    assert abs(value - peer_value) < 1e-12, (value, peer_value)
    for name, spent in (("ocl-bench", seconds), ("loop over classes", peer_seconds)):
        print(f"{name:18} {1000 * spent / arguments.images:8.2f} ms an image")
    print(f"miou_sem {value:.6f} in both")
    print(f"ratio: {peer_seconds / seconds:.1f}")


if __name__ == "__main__":
    main()

"""Compare the speed of the mask metrics with the algorithm of the official codes and with scikit-learn.

    python benchmarks/metrics.py

The script prints milliseconds per image for ARI, FG-ARI, mBO and mIoU of 256 x 256 label maps with 11 x 11 segments, as
the best of several runs. The peer is the algorithm that DIAS and related codes run on GPUs: encode both maps as one-hot
masks and contract the pixel axis with `einsum` in float64, once per metric. It is written here from its description and
shares no code with them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score
from torch import Tensor
from torch.nn.functional import one_hot

from ocl_bench.metrics import compute

NAMES = ("ari", "fg_ari", "mbo_all", "miou_all")


def label_maps(images: int, size: int, segments: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Discs on a background, and a prediction: a shifted, relabelled, noisy copy. Both (images, size, size) uint8."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    truth = np.zeros((images, size, size), np.uint8)
    for image in truth:
        for label in range(1, segments):
            cy, cx = generator.uniform(0, size, 2)
            image[(y - cy) ** 2 + (x - cx) ** 2 < (generator.uniform(0.06, 0.18) * size) ** 2] = label
    prediction = (np.roll(truth, (3, 5), (1, 2)) * 7 + 3) % segments
    noise = generator.random(truth.shape) < 0.02
    prediction[noise] = generator.integers(0, segments, int(noise.sum()))
    return truth, prediction.astype(np.uint8)


def contract(truth: Tensor, prediction: Tensor) -> Tensor:
    """Joint pixel counts (B, P, G) of one-hot masks (B, pixels, G) and (B, pixels, P), computed in float64."""
    return torch.einsum("bnp,bng->bpg", prediction.double(), truth.double()).long()


def peer_ari(truth: Tensor, prediction: Tensor) -> Tensor:
    """ARI (B,) from one contraction. Numbers of pairs are int64."""
    counts = contract(truth, prediction)
    rows, columns = counts.sum(1), counts.sum(2)
    total = rows.sum(1)
    both, left, right = ((n * (n - 1)).flatten(1).sum(1) for n in (counts, rows, columns))
    expected = left * right / (total * (total - 1)).clip(1)
    return (both - expected) / ((left + right) / 2 - expected)


def peer_iou(truth: Tensor, prediction: Tensor) -> Tensor:
    """IoU (B, P, G) of all pairs of segments, from one contraction."""
    shared = contract(truth, prediction)
    union = prediction.sum(1)[:, :, None] + truth.sum(1)[:, None, :] - shared
    return shared / union.clip(1)


def peer_mbo(truth: Tensor, prediction: Tensor) -> Tensor:
    """mBO (B,): best IoU of each truth segment, averaged over the segments that exist."""
    return peer_iou(truth, prediction).amax(1).sum(1) / truth.any(1).sum(1)


def peer_miou(truth: Tensor, prediction: Tensor) -> Tensor:
    """mIoU (B,): IoU after Hungarian matching, averaged over the truth segments that exist."""
    overlap = peer_iou(truth, prediction)
    matched = [image[linear_sum_assignment(image, maximize=True)].sum() for image in overlap.numpy()]
    return torch.tensor(np.array(matched)) / truth.any(1).sum(1)


def peer_all(truth: np.ndarray, prediction: np.ndarray) -> dict[str, np.ndarray]:
    """The four metrics as the official code calls them: each metric contracts the one-hot masks again."""
    masks = one_hot(torch.from_numpy(truth).flatten(1).long()).bool()
    slots = one_hot(torch.from_numpy(prediction).flatten(1).long()).bool()
    scores = (
        peer_ari(masks, slots),
        peer_ari(masks[:, :, 1:], slots),
        peer_mbo(masks, slots),
        peer_miou(masks, slots),
    )
    return dict(zip(NAMES, (score.numpy() for score in scores), strict=True))


def milliseconds(function: Callable[[], object], images: int, repeats: int) -> float:
    """Shortest time of a call in milliseconds per image, after one warm-up call."""
    times = []
    function()
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times) / images * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of the mask metrics against two peers.")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--segments", type=int, default=11)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    truth, prediction = label_maps(options.images, options.size, options.segments, seed=0)

    ours = {name: value for name, (value, _) in compute(NAMES, truth, prediction).items()}
    for name, value in peer_all(truth, prediction).items():
        if not np.allclose(ours[name], value, atol=1e-5):
            raise SystemExit(f"{name}: ours {ours[name]} differs from the peer's {value}")

    def sklearn_ari() -> list[float]:
        return [adjusted_rand_score(t.ravel(), p.ravel()) for t, p in zip(truth, prediction, strict=True)]

    us = milliseconds(lambda: compute(NAMES, truth, prediction), options.images, options.repeats)
    wide = [maps.astype(np.int64) for maps in (truth, prediction)]
    us_wide = milliseconds(lambda: compute(NAMES, *wide), options.images, options.repeats)
    peer = milliseconds(lambda: peer_all(truth, prediction), options.images, options.repeats)
    sklearn = milliseconds(sklearn_ari, options.images, options.repeats)
    size, segments = options.size, options.segments
    print(f"{options.images} images, {size} x {size}, {segments} segments, threads: {options.threads}")
    print(f"ocl-bench     {', '.join(NAMES)}: {us:8.3f} ms an image (uint8 maps), {us_wide:.3f} ms (int64 maps)")
    print(f"one-hot peer  {', '.join(NAMES)}: {peer:8.3f} ms an image")
    print(f"scikit-learn  adjusted_rand_score alone: {sklearn:8.3f} ms an image")
    print(f"ratio: {peer / us:.1f} (one-hot peer / ocl-bench)")
    print(f"ratio: {sklearn / us:.1f} (scikit-learn's ARI alone / ocl-bench, all four)")


if __name__ == "__main__":
    main()

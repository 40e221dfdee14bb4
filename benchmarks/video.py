"""Compare speed and memory of the video metrics with the algorithms of the official codes.

    python benchmarks/video.py
    python benchmarks/video.py --threads 2     # threads of the peers' matrix products; ours use one

1. FG-ARI and mBO of tubes and of frames, 24 frames of 336 x 336, 11 truth labels and 11 slots. The peer is
   SlotContrast's algorithm: four metrics, each of which contracts the pixels of one-hot masks in float64. Its time does
   not include the making of the masks (without background) and the official checks of its input.
2. J and F of DAVIS, 10 frames of 480 x 854, 3 objects and 15 proposals. The peer follows the official evaluation: for
   each pair, J of all frames, then F frame by frame with two boundary maps and two dilations. It dilates with OpenCV,
   like the official code, if that is installed (`pip install opencv-python-headless`). Otherwise it uses scipy, which
   takes 30 times as long.
3. Memory of our tables for 24, 240 and 1000 frames: the largest size while they are filled with 8 frames at a time.

Both peers are written here from descriptions and share no code with the official ones. The script stops unless the
numbers are equal. Times are the best of several runs.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import torch
from scipy.ndimage import binary_dilation
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import one_hot

from ocl_bench.metrics.davis import VideoObjects
from ocl_bench.metrics.video import VIDEO_METRICS, VideoTables

Dilate = Callable[[np.ndarray, np.ndarray], np.ndarray]
CHUNK = 8


def label_maps(frames: int, height: int, width: int, labels: int, seed: int) -> np.ndarray:
    """Label maps (T, H, W) uint8: discs 1..labels that move over the background 0 and hide each other."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    maps = np.zeros((frames, height, width), np.uint8)
    for label in range(1, labels + 1):
        centre, speed = generator.uniform(0, (height, width)), generator.normal(0, 0.01 * height, 2)
        radius = generator.uniform(0.08, 0.25) * height
        for t, frame in enumerate(maps):
            cy, cx = (centre + t * speed) % (height, width)
            frame[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = label
    return maps


def guesses(truth: np.ndarray, slots: int, seed: int) -> np.ndarray:
    """Predictions (T, H, W) uint8: the objects of the truth, shifted by some pixels, over other discs."""
    frames, height, width = truth.shape
    prediction = label_maps(frames, height, width, slots - 1, seed)
    moved = np.roll(truth, (3, 5), (1, 2))
    prediction[moved > 0] = moved[moved > 0]
    return prediction


def peer_ari(truth: Tensor, slots: Tensor) -> Tensor:
    """ARI (B,) of one-hot masks (B, pixels, G) and (B, pixels, P)."""
    counts = torch.einsum("bng,bnp->bgp", truth.double(), slots.double())
    rows, columns = counts.sum(2), counts.sum(1)
    total = rows.sum(1)
    both, left, right = ((n * (n - 1)).flatten(1).sum(1) for n in (counts, rows, columns))
    expected = left * right / (total * (total - 1)).clip(1)
    rest = (left + right) / 2 - expected
    return torch.where(rest == 0, 1.0, (both - expected) / rest)


def peer_mbo(truth: Tensor, slots: Tensor) -> Tensor:
    """mBO of one-hot masks as in `peer_ari`, for the rows that have an object."""
    truth, slots = truth.double(), slots.double()
    shared = torch.einsum("bng,bnp->bgp", truth, slots)
    areas = truth.sum(1)
    union = areas[:, :, None] + slots.sum(1)[:, None, :] - shared
    best = (shared / union.clip(1)).amax(2).sum(1) / (areas > 0).sum(1)
    return best[(areas > 0).any(1)]


def peer_video(truth: Tensor, slots: Tensor) -> dict[str, float]:
    """The four metrics of one-hot bool masks (T, H, W, G) of objects and (T, H, W, P) of slots."""
    scores = {}
    for name in VIDEO_METRICS:
        shape = (1, -1) if name.endswith("video") else (len(truth), -1)
        masks, segments = truth.reshape(*shape, truth.shape[-1]), slots.reshape(*shape, slots.shape[-1])
        scores[name] = float((peer_ari if "ari" in name else peer_mbo)(masks, segments).mean())
    return scores


def peer_boundary(mask: np.ndarray) -> np.ndarray:
    """Boundary (H, W) bool: where the mask differs from its right, lower or lower right neighbour."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    right, below, across = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    different: np.ndarray = (mask ^ right) | (mask ^ below) | (mask ^ across)
    return different


def peer_f(truth: np.ndarray, segment: np.ndarray, disk: np.ndarray, dilate: Dilate) -> float:
    """Boundary F measure of two (H, W) masks."""
    of_truth, of_segment = peer_boundary(truth), peer_boundary(segment)
    truth_met, segment_met = of_truth & dilate(of_segment, disk), of_segment & dilate(of_truth, disk)
    n_truth, n_segment = of_truth.sum(), of_segment.sum()
    if n_truth == 0 or n_segment == 0:
        return float(n_truth == n_segment)
    recall, precision = truth_met.sum() / n_truth, segment_met.sum() / n_segment
    return 0.0 if precision + recall == 0 else float(2 * precision * recall / (precision + recall))


def peer_davis(truth: np.ndarray, segments: np.ndarray, dilate: Dilate) -> dict[str, float]:
    """Mean J and F over objects after one matching. The bool masks are (G, T, H, W) and (P, T, H, W), P >= G."""
    radius = int(np.ceil(0.008 * np.linalg.norm(truth.shape[2:])))
    offsets = np.arange(-radius, radius + 1)
    disk = (offsets[:, None] ** 2 + offsets**2 <= radius**2).astype(np.uint8)
    j, f = np.zeros((2, len(segments), len(truth), truth.shape[1]))
    for p, segment in enumerate(segments):
        for g, mask in enumerate(truth):
            shared, union = (mask & segment).sum((1, 2)), (mask | segment).sum((1, 2))
            j[p, g] = np.where(union == 0, 1.0, shared / np.maximum(union, 1))
            f[p, g] = [peer_f(*frames, disk, dilate) for frames in zip(mask, segment, strict=True)]
    rows, columns = linear_sum_assignment(-(j.mean(2) + f.mean(2)) / 2)
    return {"j": float(j[rows, columns].mean()), "f": float(f[rows, columns].mean())}


def installed_dilation() -> tuple[str, Dilate]:
    """Name and function of the dilation: OpenCV if it is installed, otherwise scipy."""
    if not importlib.util.find_spec("cv2"):
        return "scipy", lambda mask, disk: binary_dilation(mask, disk)
    cv2 = importlib.import_module("cv2")
    cv2.setNumThreads(torch.get_num_threads())
    return "OpenCV", lambda mask, disk: cv2.dilate(mask.astype(np.uint8), disk).astype(bool)


def ours_video(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """FG-ARI and mBO of this package."""
    tables = VideoTables()
    tables.add(truth, prediction)
    return {name: value for name, (value, _) in tables.scores().items()}


def ours_davis(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """J and F of this package."""
    objects = VideoObjects()
    objects.add(truth, prediction)
    scores = objects.scores()
    return {"j": float(scores.j_mean.mean()), "f": float(scores.f_mean.mean())}


def timed(function: Callable[[], dict[str, float]], repeats: int) -> tuple[float, dict[str, float]]:
    """Shortest time of a call in seconds, and its values."""
    best, values = float("inf"), dict[str, float]()
    for _ in range(repeats):
        start = time.perf_counter()
        values = function()
        best = min(best, time.perf_counter() - start)
    return best, values


def compare(what: str, ours: Callable[[], dict[str, float]], name: str, peer: Callable[[], dict[str, float]]) -> None:
    """Print our time, the time of the peer, and their ratio. Raises SystemExit if a number differs."""
    seconds, values = timed(ours, 7)
    peer_seconds, expected = timed(peer, 2)
    print(what, ", ".join(f"{key} {value:.4f}" for key, value in values.items()), sep="\n  ")
    for key, value in expected.items():
        if abs(values[key] - value) > 1e-9:
            raise SystemExit(f"{key}: ours {values[key]} differs from {value} of {name}")
    print(f"  {'ocl-bench':34s} {seconds * 1e3:10.1f} ms\n  {name:34s} {peer_seconds * 1e3:10.1f} ms")
    print(f"ratio: {peer_seconds / seconds:.1f} ({name} / ocl-bench)")


def compare_video(frames: int, size: int) -> None:
    """Part 1: FG-ARI and mBO."""
    truth = label_maps(frames, size, size, 10, seed=0)
    prediction = guesses(truth, 11, seed=1)
    masks, slots = (one_hot(torch.from_numpy(maps).long(), 11).bool() for maps in (truth, prediction))
    objects = masks[..., 1:].contiguous()
    compare(
        f"FG-ARI and mBO, {frames} frames of {size} x {size}, 11 labels, 11 slots, threads: {torch.get_num_threads()}",
        lambda: ours_video(truth, prediction),
        "SlotContrast's algorithm",
        lambda: peer_video(objects, slots),
    )


def compare_davis(frames: int, height: int) -> None:
    """Part 2: J and F."""
    width = int(height * 854 / 480)
    truth = label_maps(frames, height, width, 3, seed=2)
    prediction = guesses(truth, 15, seed=3)
    objects, segments = truth == np.arange(1, 4)[:, None, None, None], prediction == np.arange(15)[:, None, None, None]
    name, dilate = installed_dilation()
    compare(
        f"J and F, {frames} frames of {height} x {width}, 3 objects, 15 proposals",
        lambda: ours_davis(truth, prediction),
        f"DAVIS's algorithm, {name}",
        lambda: peer_davis(objects, segments, dilate),
    )


def memory(kind: type[VideoTables] | type[VideoObjects], frames: int, size: int) -> tuple[float, float]:
    """Largest and final size in MB of the tables of a video, while its frames are added and scored, without pixels."""
    truth = label_maps(CHUNK, size, size, 3, seed=0)
    prediction = guesses(truth, 11, seed=1)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    video = kind()
    for _ in range(0, frames, CHUNK):
        video.add(truth, prediction)
    final = tracemalloc.get_traced_memory()[0] - before
    video.scores()
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    return peak / 1e6, final / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed and memory of the video metrics.")
    parser.add_argument("--frames", type=int, default=24, help="of FG-ARI and mBO")
    parser.add_argument("--size", type=int, default=336)
    parser.add_argument("--davis-frames", type=int, default=10)
    parser.add_argument("--davis-height", type=int, default=480, help="the width is 16:9 of it, 854 for 480")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lengths", type=int, nargs="*", default=[24, 240, 1000])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    compare_video(options.frames, options.size)
    compare_davis(options.davis_frames, options.davis_height)
    for kind in (VideoTables, VideoObjects):
        print(f"memory of {kind.__name__}, {options.size} x {options.size}")
        for frames in options.lengths:
            peak, final = memory(kind, frames, options.size)
            print(f"  {frames:5d} frames: at most {peak:7.2f} MB, of which {final:6.2f} MB are kept")


if __name__ == "__main__":
    main()

"""Compare the speed of weighted k-NN for four k with the evaluation loop of DINO, on the same features.

    python benchmarks/knn.py                # bank of 200 000, 2000 queries, 384 numbers each, 1000 classes
    python benchmarks/knn.py --rows 20000

The peer is DINO's loop, written here from its description; it shares no code with the original. For each k it repeats
all work: queries in 100 blocks, the product with the whole bank, top-k, a one-hot tensor of the neighbours' labels,
weights exp(cosine / 0.07), the sum over neighbours and a sort of all classes. Ours searches once for all k. The script
stops unless top-1 and top-5 hits are equal for every query and k. For top-5, a class without votes is not a hit: the
peer sorts such classes in an arbitrary order. Both read the bank from memory. Times are the best of several runs.

Afterwards a separate process measures the peak memory of a search through a memory-mapped bank of 300 000 x 1024.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ocl_bench.metrics.knn import Search, knn_hits

KS = (10, 20, 100, 200)
TEMPERATURE = 0.07
Hits = dict[str, np.ndarray]
"""Name of a metric -> whether each query is a hit (Q,)."""


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1."""
    length: np.ndarray = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / length


def data(rows: int, queries: int, length: int, classes: int, seed: int) -> tuple[np.ndarray, ...]:
    """Bank, its labels, queries, their labels. Features are unit rows around the centre of their class."""
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((classes, length), dtype=np.float32)
    labels = generator.integers(0, classes, rows + queries)
    features = generator.standard_normal((rows + queries, length), dtype=np.float32)
    for first in range(0, len(features), 8192):
        part = slice(first, first + 8192)
        features[part] = unit(3.2 * features[part] + centres[labels[part]])
    return features[:rows], labels[:rows], features[rows:], labels[rows:]


def ours(arrays: tuple[np.ndarray, ...], classes: int) -> Hits:
    """Hits of this package: one search for all k."""
    bank, labels, queries, target = arrays
    similarity, index = Search(bank).nearest(queries, max(KS))
    names = [f"knn_top{top}_k{k}" for k in KS for top in (1, 5)]
    return knn_hits(names, similarity, labels[index], target, np.arange(classes), TEMPERATURE)[1]


def peer(tensors: tuple[Tensor, ...], classes: int) -> Hits:
    """Hits of DINO's algorithm: one search for each k."""
    bank, labels, queries, target = tensors
    hits = Hits()
    for k in KS:
        top1, top5 = [], []
        for part in torch.arange(len(queries)).split(max(1, len(queries) // 100)):
            cosines, rows = torch.mm(queries[part], bank.T).topk(k, largest=True, sorted=True)
            neighbours = labels[None].expand(len(part), -1).gather(1, rows)
            one_hot = torch.zeros(len(part) * k, classes).scatter_(1, neighbours.reshape(-1, 1), 1)
            weights = (cosines / TEMPERATURE).exp()
            sums = (one_hot.view(len(part), k, classes) * weights[:, :, None]).sum(1)
            votes, order = sums.sort(1, descending=True)
            right = (order == target[part, None]) & (votes > 0)
            top1.append(right[:, 0])
            top5.append(right[:, : min(5, k)].any(1))
        hits |= {f"knn_top1_k{k}": torch.cat(top1).numpy(), f"knn_top5_k{k}": torch.cat(top5).numpy()}
    return hits


def timed(function: Callable[[], Hits], repeats: int) -> tuple[float, Hits]:
    """Shortest time of a call in seconds, and its result."""
    best, result = float("inf"), Hits()
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        best = min(best, time.perf_counter() - start)
    return best, result


def peak_memory_mb() -> float:
    """Peak of resident memory of this process (Linux). After a fork, `getrusage` would start at the parent's peak."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def search_memory(path: Path) -> None:
    """Search 1024 queries and 16 more. Print the resident memory before, its peak (both in MB) and the seconds."""
    before, start = peak_memory_mb(), time.perf_counter()
    bank = np.load(path, mmap_mode="r")
    queries = np.array(bank[:: len(bank) // 1024][:1024])
    search = Search(bank)
    for block in (queries, queries[:16]):
        if (search.nearest(block, max(KS))[0][:, 0] < 1 - 1e-5).any():
            raise SystemExit("a row of the bank does not find itself")
    print(f"{before:.0f} {peak_memory_mb():.0f} {time.perf_counter() - start:.1f}")


def report_memory(rows: int, length: int) -> None:
    """Write a bank in blocks, search it in another process, and print the memory and time of the search."""
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bank.npy"
        bank = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, length))
        for first in range(0, rows, 8192):
            part = slice(first, first + 8192)
            bank[part] = unit(generator.standard_normal(bank[part].shape, dtype=np.float32))
        bank.flush()
        command = [sys.executable, __file__, "--memory-of", str(path), "--threads", str(torch.get_num_threads())]
        words = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        size = bank.nbytes / 2**20
    print(f"bank of {rows} x {length} on disk, {size:.0f} MB: resident {words[0]} MB before, at most {words[1]} MB")
    print(
        f"  while 1040 queries were searched in {words[2]} s; that includes pages of the file, which can be given back"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of weighted k-NN against DINO's loop.")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--length", type=int, default=384)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory-rows", type=int, default=300_000, help="0 skips the measurement of memory")
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        return search_memory(options.memory_of)
    arrays = data(options.rows, options.queries, options.length, options.classes, seed=0)
    tensors = tuple(torch.from_numpy(array) for array in arrays)
    print(f"{options.rows} rows, {options.queries} queries, {options.length} numbers, {options.classes} classes, {KS=}")
    with torch.inference_mode():
        seconds, hits = timed(lambda: ours(arrays, options.classes), options.repeats)
        peer_seconds, expected = timed(lambda: peer(tensors, options.classes), options.repeats)
    for name, wanted in expected.items():
        if not np.array_equal(hits[name], wanted):
            raise SystemExit(f"{name}: ours differs from the peer's for {(hits[name] != wanted).sum()} queries")
        print(f"  {name:14s} {100 * wanted.mean():6.2f}")
    print(f"ocl-bench    {seconds:7.2f} s\nDINO's loop  {peer_seconds:7.2f} s (threads: {options.threads})")
    print(f"ratio: {peer_seconds / seconds:.1f} (DINO's loop / ocl-bench, all four k)")
    if options.memory_rows:
        report_memory(options.memory_rows, 1024)
    return None


if __name__ == "__main__":
    main()

"""Nearest neighbours by cosine, and the weighted votes of DINO's k-NN protocol (arXiv:2104.14294; Wu et al. 2018).

The votes of a class are the sum of exp(cosine / temperature) over those of the k nearest neighbours that belong to it;
dividing all by the largest weight changes neither order nor zeros, and nothing overflows. All k come from one search.

The search is exact in the sense that neighbours are ordered by (cosine in float64 descending, row ascending), whatever
the device, the blocks and the number of queries. A float32 search proposes a few more candidates than needed; where
its rounding error or equal rows could have hidden a neighbour, that query is searched again in float64.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import UsageError
from .definitions.knn import MAIN_K, Mode, parse_metric

if TYPE_CHECKING:
    from collections.abc import Iterator

_SLACK = 16  # candidates beyond k, so that rounding rarely leaves a query undecided
_QUERIES = 2048  # searched at a time
_ROWS = 16384  # of the bank, compared at a time
_ROWS_AGAIN = 4096  # the same in float64
_FAISS_FROM = 512  # queries: below, the blocked product is several times faster than faiss 1.15
_BLOCK_BYTES = 4 * 2**20  # of temporary arrays, so that they stay in the cache of the processor


def ks(names: Iterable[str]) -> tuple[int, ...]:
    """The k of these metrics, ascending, each once."""
    return tuple(sorted({parse_metric(name)[1] for name in names}))


def nearest(bank: np.ndarray, queries: np.ndarray, k: int, *, device: str = "cpu") -> tuple[np.ndarray, np.ndarray]:
    """The k rows of `bank` with the largest cosine for each query; see `Search` for many calls on one bank."""
    return Search(bank, device).nearest(queries, k)


class Search:
    """Exact neighbours in a bank of unit rows (N, D) float32, which may be memory-mapped and is never copied on a CPU.

    On a CPU many queries go through `faiss.knn`, few (or all, where faiss is not installed) through a blocked product.
    On another device the product is taken there; the bank stays there if it takes at most half of the free memory of a
    CUDA device, else its blocks are sent each time. Raises UsageError for a bank that is not (N, D) float32.
    """

    def __init__(self, bank: np.ndarray, device: str = "cpu") -> None:
        if bank.ndim != 2 or 0 in bank.shape or bank.dtype != np.float32:
            raise UsageError(f"bank: shape {bank.shape} and dtype {bank.dtype}, expected float32 (N, D), not empty")
        self.bank = bank
        self.device = device
        self.resident: Tensor | None = None
        if device.startswith("cuda") and 2 * bank.nbytes <= torch.cuda.mem_get_info(device)[0]:
            self.resident = torch.cat([self._block(first).to(device) for first in range(0, len(bank), _ROWS)])

    def nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Cosine (Q, k) float64 and row (Q, k) int64 of the neighbours of unit rows (Q, D), the nearest first.

        Equal cosines are ordered by row. A bank of fewer than k rows gives all of its rows. Raises UsageError for
        queries of another length, queries that are not finite, or k < 1.
        """
        if k < 1:
            raise UsageError(f"k {k}: must be at least 1")
        if queries.ndim != 2 or queries.shape[1] != self.bank.shape[1]:
            raise UsageError(
                f"queries have shape {queries.shape}, the bank {self.bank.shape}: features differ in length"
            )
        if not np.isfinite(queries).all():
            raise UsageError("queries: not finite (NaN or infinity)")
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        k = min(k, len(self.bank))
        similarity, index = np.empty((len(queries), k)), np.empty((len(queries), k), np.int64)
        for first in range(0, len(queries), _QUERIES):
            rows = slice(first, first + _QUERIES)
            similarity[rows], index[rows] = self._nearest(queries[rows], k)
        return similarity, index

    def _nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Up to `_QUERIES` queries: candidates, their cosine in float64, and another search where that is not proof."""
        count = min(k + _SLACK, len(self.bank))
        last, index = self._candidates(queries, count)
        similarity = self._cosines(queries, index)
        order = np.lexsort((index, -similarity))[:, :k]
        similarity, index = np.take_along_axis(similarity, order, 1), np.take_along_axis(index, order, 1)
        if count < len(self.bank):
            # A row that was not proposed has a float32 score of at most `last`; its cosine is at most this margin more.
            margin = _margin(self.bank.shape[1], np.float32)
            unsure = np.flatnonzero(similarity[:, -1] <= last.astype(np.float64) + margin)
            if len(unsure):
                again = self._search_again(queries[unsure], k, similarity[unsure, -1])
                similarity[unsure], index[unsure] = again
        return similarity, index

    def _candidates(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Smallest float32 score (Q,) and rows (Q, count) of the `count` best by float32 score."""
        faiss = _faiss() if self.device == "cpu" and len(queries) >= _FAISS_FROM else None
        if faiss is None:
            return self._product(queries, count)
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(torch.get_num_threads())
        try:
            scores, index = faiss.knn(queries, self.bank, count, metric=faiss.METRIC_INNER_PRODUCT)
        finally:
            faiss.omp_set_num_threads(threads)
        return scores[:, -1], index

    def _product(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The same by products with blocks of the bank and a running selection, on any device."""
        scores = torch.empty(len(queries), 0, device=self.device)
        index = torch.empty(len(queries), 0, dtype=torch.int64, device=self.device)
        with torch.inference_mode(), _full_float32():
            sent = torch.from_numpy(queries).to(self.device)
            for first in range(0, len(self.bank), _ROWS):
                block = self._block(first).to(self.device) if self.resident is None else self.resident[first:][:_ROWS]
                best, rows = (sent @ block.T).topk(min(count, len(block)), dim=1, sorted=False)
                scores, index = torch.cat([scores, best], 1), torch.cat([index, rows + first], 1)
                if scores.shape[1] > count:
                    scores, kept = scores.topk(count, dim=1, sorted=False)
                    index = index.gather(1, kept)
            return scores.amin(1).cpu().numpy(), index.cpu().numpy()

    def _block(self, first: int) -> Tensor:
        return torch.from_numpy(np.array(self.bank[first : first + _ROWS]))

    def _cosines(self, queries: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Float64 cosines (Q, c) of the rows `index` (Q, c).

        Each is a sum over one contiguous axis, so it does not depend on what else is computed beside it.
        """
        cosines = np.empty(index.shape)
        step = max(1, _BLOCK_BYTES // (8 * index.shape[1] * queries.shape[1]))
        for first in range(0, len(queries), step):
            rows = slice(first, first + step)
            cosines[rows] = np.multiply(self.bank[index[rows]], queries[rows, None], dtype=np.float64).sum(-1)
        return cosines

    def _search_again(self, queries: np.ndarray, k: int, least: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Neighbours of a few queries by comparing everything in float64. least: k rows have this cosine or more."""
        margin = _margin(self.bank.shape[1], np.float64)
        similarity = np.full((len(queries), k), -np.inf)
        index = np.full((len(queries), k), len(self.bank))
        wide = queries.astype(np.float64)
        for first in range(0, len(self.bank), _ROWS_AGAIN):
            rough = wide @ self.bank[first : first + _ROWS_AGAIN].astype(np.float64).T
            wanted = np.maximum(similarity[:, -1], least) - margin
            near = (rough >= wanted[:, None]) & (self._earlier[first : first + _ROWS_AGAIN] < k)
            for query in np.flatnonzero(near.any(1)):
                rows = np.concatenate([index[query], first + np.flatnonzero(near[query])])
                found = self._cosines(queries[query, None], rows[None, k:])[0]
                found = np.concatenate([similarity[query], found])
                order = np.lexsort((rows, -found))[:k]
                similarity[query], index[query] = found[order], rows[order]
        return similarity, index

    @cached_property
    def _earlier(self) -> np.ndarray:
        """(N,) how many rows before this one are equal to it: with k of them it is nobody's neighbour.

        Without this, a bank of equal features (a collapsed model) would be compared row by row for each query.
        """
        digests = (hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in self.bank)
        keys = np.fromiter((int.from_bytes(digest, "little") for digest in digests), np.uint64, len(self.bank))
        order = np.argsort(keys, kind="stable")
        new = np.append(True, np.diff(keys[order]) != 0)
        place = np.arange(len(keys))
        earlier = np.empty(len(keys), np.int64)
        earlier[order] = place - np.maximum.accumulate(np.where(new, place, 0))
        return earlier


def votes(
    similarity: np.ndarray, labels: np.ndarray, classes: int, ks: Sequence[int], temperature: float = 0.07
) -> dict[int, np.ndarray]:
    """k -> votes (Q, classes) float64 of the first k neighbours, for all k in one pass over them.

    similarity: (Q, K) cosines, the nearest first. labels: (Q, K) class index of each neighbour, below `classes`.
    A k above K takes all K. Weights are exp((cosine - largest cosine) / temperature): the sums of the official code
    divided by one factor for each query. Memory grows with Q * classes * len(ks); `knn_hits` takes few queries at once.
    """
    weights = np.exp((similarity - similarity[:, :1]) / temperature)
    cells = np.arange(len(labels))[:, None] * classes + labels
    total, done, found = np.zeros(len(labels) * classes), 0, {}
    for k in sorted(set(ks)):
        # in the order of the neighbours: a sum is the same to the bit, whichever smaller k were asked for
        np.add.at(total, cells[:, done:k].ravel(), weights[:, done:k].ravel())
        found[k], done = total.reshape(len(labels), classes).copy(), k
    return found


def hits(votes: np.ndarray, target: np.ndarray, top: int, k: int, mode: Mode = "strict") -> np.ndarray:
    """(Q,) bool: whether class `target` (Q,) is among the `top` classes of votes (Q, C) by k neighbours.

    Equal votes are ordered by class. A target outside 0 .. C - 1 never hits. mode: see `Mode`.
    """
    known = (target >= 0) & (target < votes.shape[1])
    own = np.take_along_axis(votes, np.where(known, target, 0)[:, None], 1)
    before = np.arange(votes.shape[1]) < target[:, None]
    rank = (votes > own).sum(1) + ((votes == own) & before).sum(1)
    within = rank < (min(top, k) if mode == "dino" else top)
    voted = own[:, 0] > 0
    hit: np.ndarray = known & within & (voted if mode == "strict" else True)
    return hit


def knn_hits(
    names: Sequence[str],
    similarity: np.ndarray,
    labels: np.ndarray,
    target: np.ndarray,
    classes: np.ndarray,
    temperature: float = 0.07,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Predicted label (Q,) by 20 neighbours, the lowest in a tie, and name -> (Q,) bool for each metric.

    similarity, labels: (Q, K) cosine and label of the neighbours, the nearest first. target: (Q,) true labels.
    classes: all labels that count as classes, any integers, ascending, among them those of the neighbours; those
    without neighbours only matter to the modes `dino` and `ibot`. Raises UsageError for an unknown name.
    """
    parsed = {name: parse_metric(name) for name in names}
    wanted = tuple(sorted({MAIN_K, *ks(names)}))
    place = np.searchsorted(classes, labels)
    goal = np.searchsorted(classes, target)
    goal[classes[np.minimum(goal, len(classes) - 1)] != target] = -1
    predicted = np.empty(len(target), np.int64)
    found = {name: np.empty(len(target), bool) for name in names}
    step = max(1, _BLOCK_BYTES // (8 * len(classes) * (len(wanted) + 1)))
    for first in range(0, len(target), step):
        rows = slice(first, first + step)
        sums = votes(similarity[rows], place[rows], len(classes), wanted, temperature)
        predicted[rows] = classes[sums[MAIN_K].argmax(1)]
        for name, (top, k, mode) in parsed.items():
            found[name][rows] = hits(sums[k], goal[rows], top, k, mode)
    return predicted, found


def _margin(length: int, dtype: type[np.floating]) -> float:
    """How far a product of two unit vectors in `dtype` is from its float64 sum at most, in any order of summation."""
    return 1.01 * (length + 2) * float(np.finfo(dtype).eps)


@lru_cache(maxsize=1)
def _faiss() -> Any:
    """The module, or None where it cannot be imported (no wheel for the platform): the blocked product serves then."""
    try:
        import faiss
    except ImportError:
        return None
    return faiss


@contextmanager
def _full_float32() -> Iterator[None]:
    """No TF32 and no bfloat16 inside products; the setting from before comes back."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)

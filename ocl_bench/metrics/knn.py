"""Nearest neighbours by cosine, and the weighted votes of DINO's k-NN protocol (arXiv:2104.14294; Wu et al. 2018).

The votes of a class are the sum of exp(cosine / temperature) over those of the k nearest neighbours that belong to it.
They are divided by the largest weight, which changes neither their order nor their zeros and prevents overflow. One
search serves all k.

The search is exact: neighbours are ordered by (cosine in float64 descending, row ascending), whatever the device, the
blocks and the number of queries. A float32 search proposes a few more candidates than needed. A query is searched again
in float64 if rounding errors or equal rows could have hidden one of its neighbours.
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
from ..core.log import logger
from ..core.optional import MissingPackageError, import_optional
from .definitions.knn import MAIN_K, Mode, parse_metric

if TYPE_CHECKING:
    from collections.abc import Iterator

_SLACK = 16  # candidates beyond k: rounding then rarely leaves a query undecided
_QUERIES = 2048  # searched at a time
_ROWS = 16384  # of the bank, compared at a time
_ROWS_AGAIN = 4096  # the same in float64
_FAISS_FROM = 512  # queries: below, the blocked product is several times faster than faiss 1.15
_BLOCK_BYTES = 4 * 2**20  # of temporary arrays, which thus stay in the cache of the processor


def ks(names: Iterable[str]) -> tuple[int, ...]:
    """The k of these metrics, ascending, each once.

    Example:
        >>> ks(["knn_top1", "knn_top5_k10", "knn_top1_k10"])
        (10, 20)
    """
    return tuple(sorted({parse_metric(name)[1] for name in names}))


def nearest(bank: np.ndarray, queries: np.ndarray, k: int, *, device: str = "cpu") -> tuple[np.ndarray, np.ndarray]:
    """The k rows of `bank` with the largest cosine for each query.

    Args:
        bank: (N, D) float32 unit rows.
        queries: (Q, D) unit rows.
        k: number of neighbours.
        device: where the products are taken.

    Returns:
        Cosines (Q, k) float64 and rows (Q, k) int64, the nearest first. Use `Search` for many calls on one bank.

    Example:
        >>> bank, queries = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32), np.array([[0.8, 0.6]], np.float32)
        >>> cosines, rows = nearest(bank, queries, k=2)
        >>> cosines.round(3), rows
        (array([[0.96, 0.8 ]]), array([[2, 0]]))
    """
    return Search(bank, device).nearest(queries, k)


class Search:
    """Exact neighbours in a bank of unit rows, which may be memory-mapped and is never copied on a CPU.

    On a CPU many queries go through `faiss.knn`, few queries (or all, without faiss) through a blocked product. On
    another device the product is taken there. The bank stays on a CUDA device if it takes at most half of the free
    memory; otherwise its blocks are sent each time.

    Args:
        bank: (N, D) float32 unit rows.
        device: where the products are taken.

    Raises:
        UsageError: for a bank that is not (N, D) float32.
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

        Equal cosines are ordered by row. A bank of fewer than k rows gives all of its rows.

        Raises:
            UsageError: for queries of another length, queries that are not finite, and k < 1.
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
        """Neighbours of up to `_QUERIES` queries: candidates, their float64 cosines, a second search where needed."""
        count = min(k + _SLACK, len(self.bank))
        last, index = self._candidates(queries, count)
        similarity = self._cosines(queries, index)
        order = np.lexsort((index, -similarity))[:, :k]
        similarity, index = np.take_along_axis(similarity, order, 1), np.take_along_axis(index, order, 1)
        if count < len(self.bank):
            # A row that was not proposed has a float32 score of at most `last`; its cosine is at most this margin more.
            # Equality also counts as unsure: of equal cosines the lower row is the neighbour.
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
        faiss.omp_set_num_threads(torch.get_num_threads())  # faiss has its own setting, which is put back below
        try:
            scores, index = faiss.knn(queries, self.bank, count, metric=faiss.METRIC_INNER_PRODUCT)
        finally:
            faiss.omp_set_num_threads(threads)
        return scores[:, -1], index

    def _product(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """`_candidates` by products with blocks of the bank and a running selection, on any device."""
        scores = torch.empty(len(queries), 0, device=self.device)
        index = torch.empty(len(queries), 0, dtype=torch.int64, device=self.device)
        with torch.inference_mode(), _full_float32():
            sent = torch.from_numpy(queries).to(self.device)
            for first in range(0, len(self.bank), _ROWS):
                block = self._block(first).to(self.device) if self.resident is None else self.resident[first:][:_ROWS]
                best, rows = (sent @ block.T).topk(min(count, len(block)), dim=1, sorted=False)
                scores, index = torch.cat([scores, best], 1), torch.cat([index, rows + first], 1)
                if scores.shape[1] > count:
                    scores, places = scores.topk(count, dim=1, sorted=False)
                    index = index.gather(1, places)
            return scores.amin(1).cpu().numpy(), index.cpu().numpy()

    def _block(self, first: int) -> Tensor:
        """`_ROWS` rows of the bank, copied: torch warns of arrays that cannot be written, such as memory maps."""
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
        # A float64 product sums in another order than `_cosines`; only `_cosines` decides, so the last bits agree.
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
                cosines = self._cosines(queries[query, None], rows[None, k:])[0]
                cosines = np.concatenate([similarity[query], cosines])
                order = np.lexsort((rows, -cosines))[:k]
                similarity[query], index[query] = cosines[order], rows[order]
        return similarity, index

    @cached_property
    def _earlier(self) -> np.ndarray:
        """(N,) number of equal rows before each row. A row with k of them cannot be among the k neighbours.

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
    """Votes of the first k neighbours, for all k in one pass over them.

    Weights are exp((cosine - largest cosine) / temperature): the sums of DINO's `eval_knn.py` divided by one factor for
    each query.

    Args:
        similarity: (Q, K) cosines, the nearest first.
        labels: (Q, K) class index of each neighbour, below `classes`.
        classes: number of classes.
        ks: numbers of neighbours; one above K takes all K.
        temperature: of the weights.

    Returns:
        k -> votes (Q, classes) float64. Memory grows with Q * classes * len(ks); `knn_hits` takes few queries at once.

    Example:
        >>> cosines, labels = np.array([[0.96, 0.8, 0.6]]), np.array([[1, 0, 1]])
        >>> {k: sums.round(3).tolist() for k, sums in votes(cosines, labels, 2, [1, 3]).items()}
        {1: [[0.0, 1.0]], 3: [[0.102, 1.006]]}
    """
    weights = np.exp((similarity - similarity[:, :1]) / temperature)
    cells = np.arange(len(labels))[:, None] * classes + labels
    total, done, sums = np.zeros(len(labels) * classes), 0, {}
    for k in sorted(set(ks)):
        # In the order of the neighbours: a sum is the same to the bit, whichever smaller k are also computed.
        np.add.at(total, cells[:, done:k].ravel(), weights[:, done:k].ravel())
        sums[k], done = total.reshape(len(labels), classes).copy(), k
    return sums


def hits(votes: np.ndarray, target: np.ndarray, top: int, k: int, mode: Mode = "strict") -> np.ndarray:
    """(Q,) bool: whether the class of each query is among its `top` classes by votes.

    Args:
        votes: (Q, C) votes of k neighbours. Equal votes are ordered by class.
        target: (Q,) class index of each query; one outside 0 .. C - 1 never hits.
        top: number of classes.
        k: number of neighbours behind the votes, which the mode `dino` needs.
        mode: rule for classes without votes, see `Mode`.

    Example:
        >>> hits(np.array([[0.1, 1.0, 0.0], [0.1, 1.0, 0.0]]), np.array([1, 2]), top=5, k=3)  # 2 has no vote
        array([ True, False])
    """
    known = (target >= 0) & (target < votes.shape[1])
    target_votes = np.take_along_axis(votes, np.where(known, target, 0)[:, None], 1)
    before = np.arange(votes.shape[1]) < target[:, None]
    rank = (votes > target_votes).sum(1) + ((votes == target_votes) & before).sum(1)
    within = rank < (min(top, k) if mode == "dino" else top)
    voted = target_votes[:, 0] > 0
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
    """Predicted labels, and the hits of several metrics.

    Args:
        names: of the metrics.
        similarity: (Q, K) cosines of the neighbours, the nearest first.
        labels: (Q, K) labels of the neighbours.
        target: (Q,) true labels.
        classes: all labels that count as classes, any integers, ascending. They contain those of the neighbours; others
            only matter to the modes `dino` and `ibot`.
        temperature: of the weights of votes.

    Returns:
        Predicted label (Q,) by 20 neighbours, the lowest in a tie; and name -> (Q,) bool for each metric.

    Raises:
        UsageError: for an unknown name.

    Example:
        >>> cosines, labels = np.array([[0.96, 0.8, 0.6]]), np.array([[7, 4, 7]])
        >>> knn_hits(["knn_top1"], cosines, labels, target=np.array([7]), classes=np.array([4, 7]))
        (array([7]), {'knn_top1': array([ True])})
    """
    parsed = {name: parse_metric(name) for name in names}
    wanted = tuple(sorted({MAIN_K, *ks(names)}))
    place = np.searchsorted(classes, labels)
    goal = np.searchsorted(classes, target)
    goal[classes[np.minimum(goal, len(classes) - 1)] != target] = -1  # a label that is not a class never hits
    predicted = np.empty(len(target), np.int64)
    results = {name: np.empty(len(target), bool) for name in names}
    step = max(1, _BLOCK_BYTES // (8 * len(classes) * (len(wanted) + 1)))
    for first in range(0, len(target), step):
        rows = slice(first, first + step)
        sums = votes(similarity[rows], place[rows], len(classes), wanted, temperature)
        predicted[rows] = classes[sums[MAIN_K].argmax(1)]
        for name, (top, k, mode) in parsed.items():
            results[name][rows] = hits(sums[k], goal[rows], top, k, mode)
    return predicted, results


def _margin(length: int, dtype: type[np.floating]) -> float:
    """Largest distance of a product of two unit vectors in `dtype` from its float64 sum, in any order of summation."""
    return 1.01 * (length + 2) * float(np.finfo(dtype).eps)


@lru_cache(maxsize=1)
def _faiss() -> Any:
    """The module faiss; None, and a line in the log, where it is not installed."""
    try:
        return import_optional("faiss", "knn", "a faster search for neighbours")
    except MissingPackageError as error:
        logger.info("%s", error)
        return None


@contextmanager
def _full_float32() -> Iterator[None]:
    """Use neither TF32 nor bfloat16 inside products. The previous setting is restored at the end."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)

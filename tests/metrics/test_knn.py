"""Neighbours and votes against DINO's and iBOT's functions, brute force, and scikit-learn; ties; any blocks, any k."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from places import PARITY
from safetensors.numpy import load_file
from sklearn.neighbors import KNeighborsClassifier

from ocl_bench.core.errors import UsageError
from ocl_bench.metrics import knn
from ocl_bench.metrics.knn import Search, hits, knn_hits, ks, nearest, parse_metric, votes

DINO = PARITY / "dino_knn.safetensors"
OFFICIAL_KS = (1, 5, 10, 20, 100, 200)


def unit(rows: np.ndarray) -> np.ndarray:
    wide = rows.astype(np.float64)
    return (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32)


def random_rows(count: int, length: int, seed: int) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=(count, length)))


def brute_force(bank: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Rows in exact rational arithmetic: no rounding decides a tie."""
    whole_bank = [[Fraction(float(value)) for value in row] for row in bank]
    found = []
    for query in queries:
        exact = [Fraction(float(value)) for value in query]
        scores = [sum(a * b for a, b in zip(exact, row, strict=True)) for row in whole_bank]
        found.append(sorted(range(len(bank)), key=lambda row: (-scores[row], row))[:k])
    return np.array(found)


@pytest.fixture(params=["product", "faiss"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Every number of queries through one of the two searches."""
    if request.param == "faiss":
        pytest.importorskip("faiss")
    monkeypatch.setattr(knn, "_FAISS_FROM", 0 if request.param == "faiss" else 10**9)
    yield request.param


class TestSearch:
    def test_equals_exact_arithmetic(self, engine: str) -> None:
        bank, queries = random_rows(150, 7, 0), random_rows(12, 7, 1)
        similarity, index = nearest(bank, queries, 9)
        np.testing.assert_array_equal(index, brute_force(bank, queries, 9))
        expected = np.einsum("qd,qkd->qk", queries.astype(float), bank[index].astype(float))
        np.testing.assert_allclose(similarity, expected, rtol=0, atol=1e-15)
        assert similarity.dtype == np.float64 and index.dtype == np.int64

    def test_differences_that_float32_cannot_see_are_ordered(self, engine: str) -> None:
        """Cosines of 300 rows differ by 1e-9 and less: all are candidates, and the order is that of float64."""
        generator = np.random.default_rng(0)
        bank = unit(np.array([1, 0, 0, 0, 0]) + 1e-5 * generator.normal(size=(300, 5)))
        queries = unit(np.array([1, 0, 0, 0, 0]) + 1e-3 * generator.normal(size=(6, 5)))
        np.testing.assert_array_equal(nearest(bank, queries, 20)[1], brute_force(bank, queries, 20))

    def test_equal_rows_come_in_their_order(self, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
        bank = random_rows(20, 6, 0).repeat(50, axis=0)[np.random.default_rng(1).permutation(1000)]
        queries = random_rows(5, 6, 2)
        expected = brute_force(bank, queries, 70)
        assert (nearest(bank, queries, 70)[1] == expected).all()
        monkeypatch.setattr(knn, "_ROWS_AGAIN", 64)
        assert (nearest(bank, queries, 70)[1] == expected).all()

    def test_a_collapsed_model_has_the_first_rows_as_neighbours(self, engine: str) -> None:
        bank = np.tile(unit(np.ones((1, 384))), (3000, 1))
        similarity, index = nearest(bank, bank[:40], 10)
        assert (index == np.arange(10)).all() and np.ptp(similarity) == 0

    @pytest.mark.parametrize(("rows", "queries_at_once"), [(16, 2048), (33, 3), (10_000, 1)])
    def test_blocks_and_batches_change_no_bit(
        self, rows: int, queries_at_once: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bank, queries = random_rows(700, 96, 0), random_rows(530, 96, 1)
        bank[300:340] = bank[40:80]
        expected = nearest(bank, queries, 25)
        monkeypatch.setattr(knn, "_ROWS", rows)
        monkeypatch.setattr(knn, "_QUERIES", queries_at_once)
        monkeypatch.setattr(knn, "_BLOCK_BYTES", 1)
        for found, wanted in zip(nearest(bank, queries, 25), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)

    def test_both_engines_agree_to_the_bit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("faiss")
        bank, queries = random_rows(3000, 64, 0), random_rows(600, 64, 1)
        results = []
        for first in (0, 10**9):
            monkeypatch.setattr(knn, "_FAISS_FROM", first)
            results.append(nearest(bank, queries, 200))
        np.testing.assert_array_equal(results[0][0], results[1][0])
        np.testing.assert_array_equal(results[0][1], results[1][1])

    def test_without_faiss(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "faiss", None)
        monkeypatch.setattr(knn, "_FAISS_FROM", 0)
        knn._faiss.cache_clear()
        try:
            bank, queries = random_rows(50, 5, 0), random_rows(4, 5, 1)
            np.testing.assert_array_equal(nearest(bank, queries, 3)[1], brute_force(bank, queries, 3))
            assert knn._faiss() is None
        finally:
            knn._faiss.cache_clear()

    def test_ordinary_features_are_searched_once(self, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Search, "_search_again", None)
        monkeypatch.setattr(knn, "_ROWS", 100)
        bank, queries = random_rows(2000, 64, 0), random_rows(50, 64, 1)
        scores = queries.astype(float) @ bank.astype(float).T
        np.testing.assert_array_equal(nearest(bank, queries, 200)[1], np.argsort(-scores, 1)[:, :200])

    def test_products_have_full_precision_whatever_the_user_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found, original = [], Search._block

        def spy(search: Search, first: int) -> torch.Tensor:
            found.append(torch.get_float32_matmul_precision())
            return original(search, first)

        monkeypatch.setattr(Search, "_block", spy)
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("medium")
        try:
            nearest(random_rows(40, 6, 0), random_rows(8, 6, 1), 5)
            assert found == ["highest"] and torch.get_float32_matmul_precision() == "medium"
        finally:
            torch.set_float32_matmul_precision(before)

    def test_a_resident_bank_is_searched_in_blocks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        bank, queries = random_rows(500, 8, 0), random_rows(7, 8, 1)
        search = Search(bank)
        search.resident = torch.from_numpy(bank)
        monkeypatch.setattr(knn, "_ROWS", 64)
        monkeypatch.setattr(search, "_block", None)
        np.testing.assert_array_equal(search.nearest(queries, 11)[1], brute_force(bank, queries, 11))

    def test_a_memory_mapped_bank_and_k_above_it(self, engine: str, tmp_path: Path) -> None:
        np.save(tmp_path / "bank.npy", random_rows(9, 4, 0))
        bank = np.load(tmp_path / "bank.npy", mmap_mode="r")
        similarity, index = nearest(bank, np.array(bank[:1]), 200)
        assert index.shape == similarity.shape == (1, 9) and index[0, 0] == 0
        assert sorted(index[0]) == list(range(9)) and (np.diff(similarity[0]) <= 0).all()

    def test_refusals(self) -> None:
        bank = random_rows(9, 4, 0)
        with pytest.raises(UsageError, match=r"\(2, 5\), the bank \(9, 4\): features differ in length"):
            nearest(bank, random_rows(2, 5, 0), 1)
        with pytest.raises(UsageError, match="not finite"):
            nearest(bank, np.full((1, 4), np.nan, np.float32), 1)
        with pytest.raises(UsageError, match="k 0"):
            nearest(bank, bank, 0)
        for wrong in (bank[:0], bank.astype(np.float64), bank[0]):
            with pytest.raises(UsageError, match=r"expected float32 \(N, D\)"):
                nearest(wrong, bank, 1)


def official() -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    case = load_file(DINO)
    bank, queries = unit(case["in.train_features"]), unit(case["in.test_features"])
    similarity, index = nearest(bank, queries, max(OFFICIAL_KS))
    return case, similarity, case["in.train_labels"][index], case["in.test_labels"]


class TestParity:
    @pytest.mark.parametrize("k", OFFICIAL_KS)
    def test_scores_and_predictions(self, k: int) -> None:
        case, similarity, labels, _ = official()
        found = votes(similarity, labels, 10, OFFICIAL_KS)[k] * np.exp(similarity[:, :1] / 0.07)
        np.testing.assert_allclose(found, case[f"out.k{k}.scores"], rtol=1e-4, atol=1e-6)
        assert ((found > 0) == (case[f"out.k{k}.scores"] > 0)).all()
        np.testing.assert_array_equal(found.argmax(1), case[f"out.k{k}.prediction"])

    @pytest.mark.parametrize("position", range(len(OFFICIAL_KS)))
    def test_accuracies(self, position: int) -> None:
        case, similarity, labels, target = official()
        k = OFFICIAL_KS[position]
        sums = votes(similarity, labels, 10, OFFICIAL_KS)[k]
        assert 100 * hits(sums, target, 1, k).mean() == case["out.top1"][position]
        assert 100 * hits(sums, target, 5, k).mean() == case["out.top5_strict"][position]
        # The official sort is not stable. In this file it has put classes without votes in their order, as we do.
        assert 100 * hits(sums, target, 5, k, "dino").mean() == case["out.top5"][position]
        assert 100 * hits(sums, target, 5, k, "ibot").mean() == case["out.top5_ibot"][position]
        ambiguous = case[f"out.k{k}.top5_ambiguous"]
        assert bool(ambiguous.any()) == (k == 5)
        modes: list[knn.Mode] = ["strict", "dino"]
        strict, compatible = (hits(sums, target, 5, k, mode) for mode in modes)
        np.testing.assert_array_equal(compatible[~ambiguous], strict[~ambiguous])


class TestVotes:
    def test_equal_scikit_learn(self) -> None:
        bank, queries = random_rows(300, 16, 0), random_rows(80, 16, 1)
        labels = np.random.default_rng(2).integers(0, 7, 300)
        similarity, index = nearest(bank, queries, 15)

        def weight(distances: np.ndarray) -> np.ndarray:  # unit rows: d^2 = 2 - 2 cosine
            return np.exp((1 - distances**2 / 2) / 0.07)

        peer = KNeighborsClassifier(15, weights=weight, algorithm="brute").fit(bank.astype(float), labels)
        expected = peer.predict_proba(queries.astype(float))
        found = votes(similarity, labels[index], 7, [15])[15]
        np.testing.assert_allclose(
            found / found.sum(1, keepdims=True), expected, rtol=0, atol=1e-6
        )  # float32 rows are not quite unit

    @settings(max_examples=30, deadline=None)
    @given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 40), min_size=1, max_size=5))
    def test_one_pass_equals_many_to_the_bit(self, seed: int, several: list[int]) -> None:
        generator = np.random.default_rng(seed)
        similarity = np.sort(generator.uniform(-1, 1, (5, 30)))[:, ::-1]
        labels = generator.integers(0, 4, (5, 30))
        together = votes(similarity, labels, 4, several)
        assert set(together) == set(several)
        for k in several:
            np.testing.assert_array_equal(together[k], votes(similarity, labels, 4, [k])[k])
            direct = np.zeros((5, 4))
            for query, cosines in enumerate(similarity):
                for cosine, label in list(zip(cosines, labels[query], strict=True))[:k]:
                    direct[query, label] += np.exp((cosine - cosines[0]) / 0.07)
            np.testing.assert_array_equal(together[k], direct)

    def test_a_small_temperature_does_not_overflow(self) -> None:
        found = votes(np.array([[0.9, 0.5]]), np.array([[1, 0]]), 2, [2], 1e-4)[2]
        assert found.tolist() == [[0.0, 1.0]]


class TestHits:
    SUMS = np.array([[0.0, 2.0, 0.0, 0.0, 1.0, 0.0, 0.0]])

    def ranks(self, top: int, k: int, mode: knn.Mode) -> list[bool]:
        target = np.arange(7)
        return hits(np.tile(self.SUMS, (7, 1)), target, top, k, mode).tolist()

    def test_three_modes(self) -> None:
        assert self.ranks(5, 10, "strict") == [False, True, False, False, True, False, False]
        assert self.ranks(5, 10, "dino") == [True, True, True, True, True, False, False]
        assert self.ranks(5, 2, "dino") == [False, True, False, False, True, False, False]
        assert self.ranks(5, 2, "ibot") == [True, True, True, True, True, False, False]
        assert self.ranks(1, 10, "strict") == [False, True, False, False, False, False, False]

    def test_the_lowest_class_wins_a_tie(self) -> None:
        tied = np.array([[1.0, 1.0, 1.0]] * 3)
        assert hits(tied, np.array([0, 1, 2]), 1, 5).tolist() == [True, False, False]

    def test_a_class_outside_never_hits(self) -> None:
        for mode in ("strict", "dino", "ibot"):
            assert not hits(np.ones((2, 3)), np.array([-1, 3]), 5, 5, mode).any()  # type: ignore[arg-type]

    def test_any_integers_are_labels_and_few_classes_suffice(self, monkeypatch: pytest.MonkeyPatch) -> None:
        names = ["knn_top1", "knn_top5", "knn_top5_k1", "knn_top5_k1_dino", "knn_top5_k1_ibot"]
        similarity = np.array([[0.9, 0.8, 0.7], [0.9, 0.1, 0.0]])
        labels, target = np.array([[-7, 900, 900], [30, -7, 900]]), np.array([900, 5])
        classes = np.array([-7, 30, 900])
        predicted, found = knn_hits(names, similarity, labels, target, classes)
        assert predicted.tolist() == [-7, 30]
        expected = {"knn_top1": 0, "knn_top5": 1, "knn_top5_k1": 0, "knn_top5_k1_dino": 0, "knn_top5_k1_ibot": 1}
        assert {name: int(values[0]) for name, values in found.items()} == expected
        assert not any(values[1] for values in found.values())
        monkeypatch.setattr(knn, "_BLOCK_BYTES", 1)
        again = knn_hits(names, similarity, labels, target, classes)
        assert again[0].tolist() == predicted.tolist()
        assert all((again[1][name] == found[name]).all() for name in names)


def test_names() -> None:
    assert parse_metric("knn_top1") == (1, 20, "strict")
    assert parse_metric("knn_top5_k200_dino") == (5, 200, "dino")
    assert parse_metric("knn_top5_ibot") == (5, 20, "ibot")
    assert ks(["knn_top1", "knn_top5_k100", "knn_top1_k10", "knn_top5_k10"]) == (10, 20, 100)
    for wrong in ("knn_top2", "knn_top1_k0", "knn_top1_dino", "knn_top5_k", "top1", "knn_top5_k10_best", "knn_top1 "):
        with pytest.raises(UsageError, match="is unknown; k-NN has"):
            parse_metric(wrong)

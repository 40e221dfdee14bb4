"""Which maps and rules are accepted, what is said about the others, and that types and devices change nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from ocl_bench.core.errors import UsageError
from ocl_bench.core.types import OVERLAP, VOID
from ocl_bench.metrics import METRICS, compute, contingency, find_metric, is_metric, metric_names
from ocl_bench.metrics.contingency import MAX_PREDICTED_COLUMNS, MAX_TRUTH_LABEL, _count, _prediction_columns

GENERATOR = np.random.default_rng(3)
TRUTH = GENERATOR.integers(OVERLAP, 5, (5, 16, 12)).astype(np.int16)
PREDICTION = GENERATOR.integers(0, 6, TRUTH.shape).astype(np.uint8)


def slow_table(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    table = np.zeros((len(truth), truth.max() + 1, prediction.max() + 1), np.int64)
    for b, g, p in zip(np.indices(truth.shape)[0].ravel(), truth.ravel(), prediction.ravel(), strict=True):
        if g >= 0:
            table[b, g, p] += 1
    return table


@pytest.mark.parametrize("truth_type", [np.int8, np.int16, np.int32, np.int64])
@pytest.mark.parametrize("prediction_type", [np.uint8, np.int16, np.uint16, np.int64, np.uint64])
def test_every_integer_type(truth_type: type, prediction_type: type) -> None:
    counts = contingency(TRUTH.astype(truth_type), PREDICTION.astype(prediction_type))
    np.testing.assert_array_equal(counts.table, slow_table(TRUTH, PREDICTION))
    assert counts.table.dtype == counts.predicted.dtype == counts.n_overlap.dtype == np.int64


def test_rows_columns_and_areas() -> None:
    dropped, counted = (contingency(TRUTH, PREDICTION, void=void) for void in ("drop", "count"))
    np.testing.assert_array_equal(dropped.predicted, dropped.table.sum(1))
    for b in range(len(TRUTH)):
        for p in range(6):
            assert counted.predicted[b, p] == ((PREDICTION[b] == p) & (TRUTH[b] != OVERLAP)).sum()
        assert dropped.n_overlap[b] == (TRUTH[b] == OVERLAP).sum()
        assert dropped.truth[b].tolist() == [(TRUTH[b] == g).sum() for g in range(5)]
    np.testing.assert_array_equal(dropped.table, counted.table)


@pytest.mark.parametrize("truth_labels, slots", [(2, 3), (16, 16), (17, 15), (120, 300), (256, 256), (4000, 2)])
def test_every_code_width(truth_labels: int, slots: int) -> None:
    truth = GENERATOR.integers(VOID, truth_labels, (2, 40, 40))
    prediction = GENERATOR.integers(0, slots, truth.shape)
    truth[0, 0, 0], prediction[0, 0, 0] = truth_labels - 1, slots - 1
    counts = contingency(truth, prediction, ignore_index=None)
    np.testing.assert_array_equal(counts.table, slow_table(truth, prediction))


def devices() -> list[str]:
    return ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", devices())
def test_torch_equals_numpy(device: str) -> None:
    truth, prediction = torch.from_numpy(TRUTH).to(device), torch.from_numpy(PREDICTION).to(device)
    for void in ("drop", "count"):
        expected = contingency(TRUTH, PREDICTION, void=void)
        for maps in ((truth, prediction), (TRUTH, prediction), (truth, PREDICTION)):
            counts = contingency(*maps, void=void)
            for field in ("table", "predicted", "n_overlap"):
                np.testing.assert_array_equal(getattr(counts, field), getattr(expected, field))


@pytest.mark.parametrize("device", devices())
def test_large_predicted_ids_are_renumbered(device: str) -> None:
    ids = np.array([0, 7, 70_000, 2**31, 2**40, 11], np.int64)
    sparse = torch.from_numpy(ids[PREDICTION]).to(device)
    assert contingency(TRUTH, sparse).table.shape[2] <= 6 < MAX_PREDICTED_COLUMNS
    names = [name for name in METRICS if name != "mbo_class"]
    dense, renumbered = compute(names, TRUTH, PREDICTION), compute(names, TRUTH, sparse)
    for name in names:
        np.testing.assert_allclose(dense[name][0], renumbered[name][0], rtol=0, atol=1e-12)


def test_counting_as_on_a_gpu() -> None:
    """The same code that counts CUDA tensors, on CPU tensors, so that it is tested everywhere."""
    truth, prediction = (torch.from_numpy(maps).flatten(1).long() for maps in (TRUTH, PREDICTION))
    renumbered, columns = _prediction_columns(torch.where(prediction == 5, 10**6, prediction))
    counts = _count(truth, renumbered, rows=7, columns=columns, special=2)
    np.testing.assert_array_equal(counts[:, 2:], slow_table(TRUTH, PREDICTION))
    np.testing.assert_array_equal(counts[:, 0].sum(1), (TRUTH == OVERLAP).sum((1, 2)))


def test_not_contiguous_maps() -> None:
    flipped = contingency(TRUTH[:, ::-1], PREDICTION[:, ::-1]).table
    np.testing.assert_array_equal(flipped, contingency(TRUTH, PREDICTION).table)


def test_maps_are_left_as_they_were() -> None:
    truth, prediction = TRUTH.copy(), PREDICTION.copy()
    compute(["ari", "mbo_fg"], truth, prediction, void="count")
    np.testing.assert_array_equal(truth, TRUTH)
    np.testing.assert_array_equal(prediction, PREDICTION)


@pytest.mark.parametrize("shape", [(0, 8, 8), (0, 0, 0), (2, 0, 8)])
def test_empty_batches(shape: tuple[int, ...]) -> None:
    maps = np.zeros(shape, np.int16)
    result = compute(METRICS, maps, maps, truth_categories=[()] * shape[0])
    for value, valid in result.values():
        assert value.shape == valid.shape == (shape[0],) and not valid.any() and np.isnan(value).all()


MASKS = GENERATOR.random((5, 6, 16, 12))


@pytest.mark.parametrize(
    "maps",
    [MASKS.astype(np.float32), torch.from_numpy(MASKS), MASKS > 0.5, torch.from_numpy(MASKS > 0.5), PREDICTION * 1.0],
)
def test_soft_masks(maps: np.ndarray | torch.Tensor) -> None:
    with pytest.raises(UsageError, match=r"prediction: .*argmax"):
        contingency(TRUTH, maps)
    with pytest.raises(UsageError, match=r"truth: .*argmax"):
        contingency(maps, PREDICTION)


@pytest.mark.parametrize(
    "truth, prediction, message",
    [
        (TRUTH, PREDICTION[:4], "prediction: shape"),
        (TRUTH, (MASKS > 0.5).astype(np.uint8), "prediction: shape .*argmax"),
        (TRUTH, PREDICTION.astype(np.int16) - 1, "prediction: label -1 is negative"),
        (TRUTH - 1, PREDICTION, "truth: label -3 is outside"),
        (TRUTH + MAX_TRUTH_LABEL, PREDICTION, f"truth: label {MAX_TRUTH_LABEL + 4} is outside"),
        (TRUTH.ravel(), PREDICTION.ravel(), "truth: shape .* pass"),
        (TRUTH.tolist(), PREDICTION, "truth: got list"),
    ],
)
def test_other_bad_maps(truth: np.ndarray, prediction: np.ndarray, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        contingency(truth, prediction)
    assert "\n" not in str(caught.value)


def test_too_large_a_table_is_refused_before_it_is_allocated() -> None:
    truth = np.full((200, 2, 2), MAX_TRUTH_LABEL)
    prediction = np.full((200, 2, 2), MAX_PREDICTED_COLUMNS - 1)
    with pytest.raises(UsageError, match="fewer images"):
        contingency(truth, prediction)


def test_overlap_rule() -> None:
    with pytest.raises(UsageError, match=r"image 0 of the batch has \d+ overlap pixels"):
        contingency(TRUTH, PREDICTION, overlap="error")
    clean = np.maximum(TRUTH, VOID)
    np.testing.assert_array_equal(
        contingency(clean, PREDICTION, overlap="error").table, contingency(TRUTH, PREDICTION).table
    )


@pytest.mark.parametrize("rule", ["void", "overlap", "empty"])
def test_unknown_rules(rule: str) -> None:
    with pytest.raises(UsageError, match=f"{rule}: 'maybe' is not a rule"):
        compute(["ari"], TRUTH, PREDICTION, **{rule: "maybe"})  # type: ignore[arg-type]


def test_unknown_metric() -> None:
    with pytest.raises(UsageError, match="did you mean 'fg_ari'"):
        compute(["fg_arj"], TRUTH, PREDICTION)


def test_categories_are_needed_and_checked() -> None:
    with pytest.raises(UsageError, match="needs truth_categories"):
        compute(["mbo_class"], TRUTH, PREDICTION)
    with pytest.raises(UsageError, match="2 entries for 5 images"):
        compute(["mbo_class"], TRUTH, PREDICTION, truth_categories=[(1, 1, 1, 1)] * 2)
    with pytest.raises(UsageError, match=r"object 4 of image 0 .* lists 3"):
        compute(["mbo_class"], TRUTH, PREDICTION, truth_categories=[(1, 1, 1)] * 5)


def test_metrics_describe_themselves() -> None:
    for name, metric in METRICS.items():
        assert metric.name == name and metric.meaning and metric.low <= metric.best <= metric.high
        assert metric.direction == (-1 if name == "vi" else 1)


@pytest.mark.parametrize("name", metric_names())
def test_every_metric_says_what_it_is(name: str) -> None:
    metric = find_metric(name)
    assert metric.name == name and is_metric(name)
    texts = (metric.meaning, metric.formula, metric.edge_cases, metric.source, metric.of_set.text, metric.range)
    assert all(texts) and metric.families and metric.low <= metric.best <= metric.high
    assert json.loads(json.dumps(metric.to_dict(), allow_nan=False))["name"] == name

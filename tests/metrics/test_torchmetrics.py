"""The generic wrapper: the same mean as `compute`, for any batch size and number of processes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics

from ocl_bench.core.errors import UsageError
from ocl_bench.metrics import METRICS, compute
from ocl_bench.metrics.torchmetrics import MaskMetric

GENERATOR = torch.Generator().manual_seed(0)
TRUTH = torch.randint(-1, 4, (10, 9, 9), generator=GENERATOR)
PREDICTION = torch.randint(0, 4, (10, 9, 9), generator=GENERATOR)
TRUTH[3] = 0
CATEGORIES = [(1, 2, 1)] * 10


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("size", [1, 4, 10])
def test_mean_over_valid_images(name: str, size: int) -> None:
    metric = MaskMetric(name, void="count")
    assert isinstance(metric, torchmetrics.Metric) and metric.higher_is_better == (METRICS[name].direction > 0)
    for start in range(0, 10, size):
        part = slice(start, start + size)
        metric.update(truth=TRUTH[part], prediction=PREDICTION[part], truth_categories=CATEGORIES[part])
    value, valid = compute([name], TRUTH, PREDICTION, void="count", truth_categories=CATEGORIES)[name]
    assert metric.compute().dtype == torch.float64
    assert metric.compute().item() == pytest.approx(value[valid].mean(), abs=1e-12)
    assert metric.n_valid.item() == valid.sum()


def test_forward_reset_and_rules() -> None:
    metric = MaskMetric("fg_ari", empty="one")
    alone = metric(truth=TRUTH[3:4], prediction=PREDICTION[3:4])
    assert alone.item() == 1
    metric.reset()
    assert metric.n_valid == 0 and metric.total == 0
    skipping = MaskMetric(METRICS["fg_ari"])
    skipping.update(truth=TRUTH[3:4], prediction=PREDICTION[3:4])
    assert torch.isnan(skipping.compute()) and skipping.n_valid == 0


def test_states_add_up_over_processes() -> None:
    whole, parts = MaskMetric("mbo_fg"), [MaskMetric("mbo_fg") for _ in range(2)]
    whole.update(truth=TRUTH, prediction=PREDICTION)
    for part, metric in zip((slice(0, 3), slice(3, 10)), parts, strict=True):
        metric.update(truth=TRUTH[part], prediction=PREDICTION[part])
    reductions = parts[0]._reductions
    assert all(reductions[name] is torchmetrics.utilities.dim_zero_sum for name in ("total", "n_valid"))
    total, n_valid = (sum(getattr(m, name) for m in parts) for name in ("total", "n_valid"))
    assert (total / n_valid).item() == pytest.approx(whole.compute().item(), abs=1e-12)


def test_in_a_collection() -> None:
    collection = torchmetrics.MetricCollection({name: MaskMetric(name) for name in ("ari", "fg_ari", "mbo_fg")})
    collection.update(truth=TRUTH[:5], prediction=PREDICTION[:5])
    collection.update(truth=TRUTH[5:], prediction=PREDICTION[5:])
    for name, (value, valid) in compute(["ari", "fg_ari", "mbo_fg"], TRUTH, PREDICTION).items():
        assert collection.compute()[name].item() == pytest.approx(np.mean(value[valid]), abs=1e-12)


def test_errors() -> None:
    with pytest.raises(UsageError, match="did you mean 'mbo_fg'"):
        MaskMetric("mbo_gf")
    with pytest.raises(UsageError, match="argmax"):
        MaskMetric("ari").update(truth=TRUTH, prediction=torch.rand(10, 3, 9, 9))


def test_maps_are_given_by_name_as_torchmetrics_has_the_other_order() -> None:
    with pytest.raises(TypeError, match="positional"):
        MaskMetric("mbo_fg").update(PREDICTION, TRUTH)  # type: ignore[misc]


def test_a_collection_with_a_metric_of_torchmetrics() -> None:
    both = torchmetrics.MetricCollection(
        {"ours": MaskMetric("ari"), "theirs": torchmetrics.classification.MulticlassAccuracy(4, average="micro")}
    )
    truth = TRUTH.clamp_min(0)
    both.update(preds=PREDICTION, target=truth, prediction=PREDICTION, truth=truth)
    values = both.compute()
    assert values["theirs"].item() == pytest.approx((truth == PREDICTION).float().mean().item(), abs=1e-6)
    value, valid = compute(["ari"], truth, PREDICTION)["ari"]
    assert values["ours"].item() == pytest.approx(value[valid].mean(), abs=1e-12)


@pytest.mark.parametrize("ignore_index", ["auto", 255, None])
def test_255_is_void_by_the_rule_of_compute(ignore_index: Any) -> None:
    truth = TRUTH.clone()
    truth[:, 4] = 255
    metric = MaskMetric("mbo_fg", ignore_index=ignore_index)
    metric.update(truth=truth, prediction=PREDICTION)
    value, valid = compute(["mbo_fg"], truth, PREDICTION, ignore_index=ignore_index)["mbo_fg"]
    assert metric.compute().item() == pytest.approx(value[valid].mean(), abs=1e-12)

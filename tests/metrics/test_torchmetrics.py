"""The generic wrapper: the same mean as `compute`, for any batch size and number of processes."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import matplotlib.pyplot as pyplot
import numpy as np
import pytest
import torch
import torchmetrics

from ocl_bench.core.errors import UsageError
from ocl_bench.metrics import METRICS, compute, contingency
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


def test_a_list_of_metrics_is_named_by_them_and_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []

    def count(*maps: Any, **rules: Any) -> Any:
        counted.append(1)
        return contingency(*maps, **rules)

    monkeypatch.setattr("ocl_bench.metrics.torchmetrics.contingency", count)
    names = ["ari", "fg_ari", "mbo_fg", "miou_fg"]
    collection = torchmetrics.MetricCollection([MaskMetric(name) for name in names])
    for part in (slice(0, 5), slice(5, 10)):
        collection.update(target=TRUTH[part], preds=PREDICTION[part])
    assert len(counted) == 2
    values = collection.compute()
    assert set(values) == set(names)
    for name, (value, valid) in compute(names, TRUTH, PREDICTION).items():
        assert values[name].item() == pytest.approx(np.mean(value[valid]), abs=1e-12)


def test_metrics_that_agree_on_the_first_batch_stay_apart() -> None:
    """Collections merge metrics whose states are equal then, and all metrics are 1 for a perfect prediction."""
    metrics = [MaskMetric("ari"), MaskMetric("fg_ari"), MaskMetric("mbo_fg")]
    collection = torchmetrics.MetricCollection(metrics, MaskMetric("miou_fg"))
    whole = torch.cat([TRUTH[:1].clamp_min(0), PREDICTION])
    truth = torch.cat([TRUTH[:1].clamp_min(0), TRUTH])
    collection.update(truth=truth[:1], prediction=whole[:1])
    collection.update(truth=truth[1:], prediction=whole[1:])
    values = collection.compute()
    for name, (value, valid) in compute(list(values), truth, whole).items():
        assert values[name].item() == pytest.approx(np.mean(value[valid]), abs=1e-12)


def test_rules_keep_metrics_apart_and_equal_ones_share() -> None:
    rules: list[dict[str, Any]] = [{}, {"void": "count"}, {"background": None}, {}]
    collection = torchmetrics.MetricCollection({str(i): MaskMetric("mbo_fg", **one) for i, one in enumerate(rules)})
    seen = TRUTH[:1].clamp_min(1)  # without void and background these rules give one value
    collection.update(truth=seen, prediction=PREDICTION[:1])
    collection.update(truth=TRUTH, prediction=PREDICTION)
    assert sorted(map(sorted, collection.compute_groups.values())) == [["0", "3"], ["1"], ["2"]]
    truth, prediction = torch.cat([seen, TRUTH]), torch.cat([PREDICTION[:1], PREDICTION])
    for key, one in enumerate(rules):
        value, valid = compute(["mbo_fg"], truth, prediction, **one)["mbo_fg"]
        assert collection.compute()[str(key)].item() == pytest.approx(value[valid].mean(), abs=1e-12)


def test_maps_that_are_changed_in_place_are_counted_again() -> None:
    metric, truth = MaskMetric("mbo_fg"), TRUTH.clone()
    metric.update(truth=truth, prediction=PREDICTION)
    truth.fill_(0)[:, :4] = 1
    other = MaskMetric("mbo_fg")
    other.update(truth=truth, prediction=PREDICTION)
    value, valid = compute(["mbo_fg"], truth, PREDICTION)["mbo_fg"]
    assert other.compute().item() == pytest.approx(value[valid].mean(), abs=1e-12)


def test_copies_keep_metric_rules_and_values() -> None:
    metric = MaskMetric("mbo_fg", void="count")
    metric.update(truth=TRUTH, prediction=PREDICTION)
    for copied in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric)), metric.clone()):
        assert repr(copied) == repr(metric) and copied.compute() == metric.compute()
        copied.update(truth=TRUTH, prediction=PREDICTION)
        assert copied.n_valid == 2 * metric.n_valid
    assert repr(metric) == (
        "MaskMetric('mbo_fg', background=0, void='count', overlap='drop', empty='skip', ignore_index='auto')"
    )


def test_the_mean_is_drawn() -> None:
    metric = MaskMetric("mbo_fg")
    values = [metric(truth=TRUTH[:5], prediction=PREDICTION[:5]), metric(truth=TRUTH[5:], prediction=PREDICTION[5:])]
    figure, axes = metric.plot(values)
    (line,) = axes.lines
    assert [float(value) for value in line.get_ydata()] == pytest.approx([float(value) for value in values])
    pyplot.close(figure)


def test_errors() -> None:
    with pytest.raises(UsageError, match="did you mean 'mbo_fg'"):
        MaskMetric("mbo_gf")
    with pytest.raises(UsageError, match="give truth= and prediction="):
        MaskMetric("ari").update(truth=TRUTH, preds=None)
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

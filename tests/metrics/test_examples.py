"""The examples in docstrings print what they say, and every public metric function has one."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

import ocl_bench.metrics
from ocl_bench.core import rle
from ocl_bench.metrics import (
    METRICS,
    accumulation,
    contingency,
    davis,
    detection,
    knn,
    of_set,
    semantic,
    statistics,
    statistics_of_set,
    torchmetrics,
    video,
)

MODULES = [
    *(
        importlib.import_module(module.name)
        for module in pkgutil.walk_packages(ocl_bench.metrics.__path__, "ocl_bench.metrics.")
    ),
    ocl_bench.metrics,
    rle,
]
NAMES = {"np": np, "contingency": contingency}
"""What the examples of metrics use without importing it; the module docstrings say so."""

PUBLIC: list[Callable[..., object]] = [
    *(metric.function for metric in METRICS.values() if metric.function is not None),
    contingency,
    ocl_bench.metrics.compute,
    ocl_bench.metrics.evaluate_table,
    ocl_bench.metrics.find_metric,
    *(getattr(semantic, name) for name in ("confusion", "miou_sem", "pixel_acc", "match_clusters", "majority")),
    *(getattr(accumulation, name) for name in ("average_precision", "average_recall")),
    *(getattr(detection, name) for name in ("match_images", "image_recall")),
    *(getattr(davis, name) for name in ("frame_overlap", "region_similarity", "boundary_measure", "VideoObjects")),
    *(getattr(knn, name) for name in ("votes", "hits", "knn_hits", "nearest")),
    *(
        getattr(statistics, name)
        for name in (
            "bootstrap_mean",
            "paired_difference",
            "holm",
            "effect_size",
            "sign_flip_p_value",
            "smallest_detectable",
        )
    ),
    *(
        getattr(statistics_of_set, name)
        for name in (
            "bootstrap_statistic",
            "paired_statistic_difference",
            "two_level_statistic_difference",
            "swap_p_value",
        )
    ),
    *(getattr(of_set, name) for name in ("Weighted", "SumRatio", "Total")),
    torchmetrics.MaskMetric,
    video.VideoTables,
    rle.unpack_runs,
]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_examples_print_what_they_say(module: ModuleType) -> None:
    outcome = doctest.testmod(module, extraglobs=NAMES)
    assert outcome.failed == 0


@pytest.mark.parametrize("function", PUBLIC, ids=lambda function: function.__name__)
def test_public_functions_have_an_example(function: Callable[..., object]) -> None:
    text = function.__doc__ or ""
    assert "Example:\n" in text and ">>> " in text


def test_a_wrong_example_is_seen() -> None:
    module = ModuleType("wrong")
    module.__doc__ = ">>> contingency(np.zeros((1, 2, 2), int), np.zeros((1, 2, 2), int)).table.item()\n5\n"
    assert doctest.testmod(module, extraglobs=NAMES, report=False, verbose=False).failed == 1

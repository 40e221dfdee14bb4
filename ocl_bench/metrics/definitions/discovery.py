"""Metrics of object discovery: functions of the contingency table of one image, averaged over images."""

from __future__ import annotations

import math

from ..clustering import ari, ari_int64_legacy, fg_ari, fg_ari_multi, vi
from ..metric import LOWER, Metric
from ..overlap import mbo_all, mbo_class, mbo_fg, miou_all, miou_clevrtex, miou_fg

_FAMILY = ("discovery",)
_INDEX = "(index - expected) / (maximum - expected), the index being the number of pixel pairs together in both maps"
_RAND = "Hubert and Arabie, Comparing Partitions, Journal of Classification 1985"
_BEST = "for each {}: the largest IoU with any slot; then the mean over {}"
_NO_OBJECT = "not valid without an object (with `empty: one` such an image scores 1)"
_NO_LABEL = "not valid without a pixel that has a label"

DEFINITIONS = (
    Metric(
        "ari",
        _FAMILY,
        "adjusted Rand index, all annotated pixels",
        low=-1,
        formula=f"{_INDEX}; background is one more segment; exact integers, one division",
        edge_cases=f"{_NO_LABEL}; two equal maps of one segment score 1, where the index is 0/0",
        source=_RAND,
        function=ari,
    ),
    Metric(
        "fg_ari",
        _FAMILY,
        "adjusted Rand index, pixels of truth objects",
        low=-1,
        formula=f"{_INDEX}; only over pixels of truth objects, so that slots may leak into the background at no cost",
        edge_cases=f"{_NO_OBJECT}; with one object it is 1 if a single slot covers it and 0 if one pixel differs",
        source="Greff et al., IODINE, ICML 2019, arXiv:1903.00450",
        function=fg_ari,
    ),
    Metric(
        "fg_ari_multi",
        _FAMILY,
        "fg_ari, images with >= 2 objects",
        low=-1,
        formula="fg_ari, on the images with at least two objects only",
        edge_cases="not valid with fewer than two objects, also with `empty: one`",
        source="fg_ari; the selection is ours",
        function=fg_ari_multi,
        selects=True,
    ),
    Metric(
        "mbo_fg",
        _FAMILY,
        "mean best IoU over truth objects (mBO_i)",
        formula=_BEST.format("truth object", "objects"),
        edge_cases=f"{_NO_OBJECT}; one slot may be the best of several objects",
        source="Pont-Tuset et al., TPAMI 2017, arXiv:1503.00848",
        function=mbo_fg,
    ),
    Metric(
        "mbo_class",
        _FAMILY,
        "mean best IoU over categories (mBO_c)",
        formula=_BEST.format("category, whose objects are united first", "categories"),
        edge_cases=f"{_NO_OBJECT}; needs data with categories or semantic truth",
        source="Seitzer et al., DINOSAUR, ICLR 2023, arXiv:2209.14860",
        function=mbo_class,
        by_category=True,
    ),
    Metric(
        "mbo_all",
        _FAMILY,
        "mean best IoU, background is an object",
        formula=_BEST.format("truth segment, background among them", "segments"),
        edge_cases=_NO_LABEL,
        source="as in the code of DIAS and VQ-VFM-OCL",
        function=mbo_all,
    ),
    Metric(
        "miou_fg",
        _FAMILY,
        "Hungarian IoU / number of truth objects",
        formula="the largest sum of IoU over one-to-one pairs of truth objects and slots, divided by the objects",
        edge_cases=f"{_NO_OBJECT}; an object without a slot counts 0, a spare slot costs nothing",
        source="as in OCLF and object-centric-library",
        function=miou_fg,
    ),
    Metric(
        "miou_all",
        _FAMILY,
        "Hungarian IoU, background is an object",
        formula="the largest sum of IoU over one-to-one pairs of truth segments and slots, divided by the segments",
        edge_cases=_NO_LABEL,
        source="as in the code of DIAS and VQ-VFM-OCL",
        function=miou_all,
    ),
    Metric(
        "miou_clevrtex",
        _FAMILY,
        "mIoU of the official CLEVRTEX evaluator",
        formula="as miou_all, divided by the larger of the numbers of segments and of slots with a pixel",
        edge_cases=f"{_NO_LABEL}; a spare slot counts 0",
        source="Karazija et al., ClevrTex, NeurIPS 2021, arXiv:2111.10265, and its `ool/clevrtex_eval.py`",
        function=miou_clevrtex,
    ),
    Metric(
        "vi",
        _FAMILY,
        "variation of information in nats, all annotated pixels",
        LOWER,
        high=math.inf,
        best=0.0,
        formula="H(truth | prediction) + H(prediction | truth), in nats",
        edge_cases=_NO_LABEL,
        source="Meila, Comparing Clusterings, Journal of Multivariate Analysis 2007",
        function=vi,
    ),
    Metric(
        "ari_int64_legacy",
        _FAMILY,
        "ari with the int64 wrap of DIAS",
        low=-math.inf,
        high=math.inf,
        formula="ari with products in int64, which wrap around on large images, and float32 afterwards",
        edge_cases=f"{_NO_LABEL}; can exceed 1; only to reproduce published numbers",
        source="Genera1Z/DIAS, `object_centric_bench/learn/metric.py`",
        function=ari_int64_legacy,
    ),
)

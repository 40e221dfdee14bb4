"""Equality with the official codes (groups 1 to 3 of the parity fixtures) and with our own rule where they disagree."""

from __future__ import annotations

import numpy as np
import pytest
from places import PARITY
from safetensors.numpy import load_file

from ocl_bench.core.types import VOID
from ocl_bench.metrics import compute, contingency
from ocl_bench.metrics.overlap import iou

OFFICIAL_VOID = 255
OURS = {
    "ari": "ari",
    "ari_fg": "fg_ari",
    "mbo": "mbo_all",
    "mbo_fg": "mbo_fg",
    "miou": "miou_all",
    "miou_fg": "miou_fg",
}
OURS |= {"abo": "mbo_all", "abo_fg": "mbo_fg"}

DIAS_CASES = ("metrics_labelmaps_dias", "metrics_labelmaps_void_dias")
OVERFLOW_CASES = ("metrics_int64_overflow_1", "metrics_int64_overflow_2")


def load(name: str) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    case = load_file(PARITY / f"{name}.safetensors")
    truth = case["in.true"].astype(np.int16)
    truth[truth == OFFICIAL_VOID] = VOID
    return case, truth, case["in.pred"]


def assert_scores(actual: tuple[np.ndarray, np.ndarray], value: np.ndarray, valid: np.ndarray, atol: float) -> None:
    np.testing.assert_array_equal(actual[1], valid.astype(bool))
    assert valid.any(), "the case proves nothing"
    np.testing.assert_allclose(actual[0][actual[1]], value[actual[1]], rtol=0, atol=atol)
    assert np.isnan(actual[0][~actual[1]]).all()


@pytest.mark.parametrize("name", DIAS_CASES)
@pytest.mark.parametrize("metric", ["ari", "ari_fg", "mbo", "mbo_fg", "miou", "miou_fg"])
def test_dias(name: str, metric: str) -> None:
    case, truth, prediction = load(name)
    scores = compute([OURS[metric]], truth, prediction, void="count")[OURS[metric]]
    atol = 2e-5 if metric.startswith("ari") else 1e-6
    assert_scores(scores, case[f"out.dias.{metric}"], case[f"out.dias.{metric}.valid"], atol)


@pytest.mark.parametrize("name", DIAS_CASES + OVERFLOW_CASES)
def test_dias_pairwise_iou(name: str) -> None:
    case, truth, prediction = load(name)
    ours = iou(contingency(truth, prediction, void="count")).transpose(0, 2, 1)
    official = case["out.dias.pairwise_iou"]
    np.testing.assert_allclose(ours, official[:, : ours.shape[1], : ours.shape[2]], rtol=0, atol=1e-6)
    assert not official[:, ours.shape[1] :].any() and not official[:, :, ours.shape[2] :].any()


@pytest.mark.parametrize("name", DIAS_CASES + OVERFLOW_CASES)
@pytest.mark.parametrize("metric", ["ari", "ari_fg"])
def test_scikit_learn_and_rational_arithmetic(name: str, metric: str) -> None:
    case, truth, prediction = load(name)
    sklearn = case[f"out.sklearn.{metric}"]
    exact = case.get(f"out.exact.{metric}", case.get(f"out.exact.{metric}_float64"))
    scores = compute([OURS[metric]], truth, prediction)[OURS[metric]]
    assert_scores(scores, sklearn, ~np.isnan(sklearn), 1e-12)
    np.testing.assert_array_equal(scores[0][scores[1]], exact[scores[1]])


@pytest.mark.parametrize("name", OVERFLOW_CASES)
@pytest.mark.parametrize("metric", ["mbo", "miou"])
def test_dias_large_images(name: str, metric: str) -> None:
    case, truth, prediction = load(name)
    scores = compute([OURS[metric]], truth, prediction, void="count")[OURS[metric]]
    assert_scores(scores, case[f"out.dias.{metric}"], case[f"out.dias.{metric}.valid"], 1e-6)


@pytest.mark.parametrize("name", OVERFLOW_CASES)
@pytest.mark.parametrize("metric", ["ari", "ari_fg"])
def test_legacy_reproduces_the_int64_wrap(name: str, metric: str) -> None:
    case, truth, prediction = load(name)
    shown = truth - 1 if metric == "ari_fg" else truth  # background 0 becomes void -1, as the official `skip=[0]`
    scores = compute(["ari_int64_legacy", "ari"], shown, prediction)
    official = case[f"out.dias.{metric}_int64_overflow"]
    assert_scores(scores["ari_int64_legacy"], official, case[f"out.dias.{metric}_int64_overflow.valid"], 2e-4)
    wrapped = case[f"out.product_exceeds_int64.{metric}"]
    differs = np.abs(scores["ari_int64_legacy"][0] - scores["ari"][0]) > 1e-3
    np.testing.assert_array_equal(differs, wrapped)


def test_the_overflow_cases_do_overflow() -> None:
    flags = [load(name)[0][f"out.product_exceeds_int64.{m}"] for name in OVERFLOW_CASES for m in ("ari", "ari_fg")]
    assert 0 < np.concatenate(flags).sum() < np.concatenate(flags).size


@pytest.mark.parametrize("name", DIAS_CASES)
def test_legacy_equals_dias_where_nothing_wraps(name: str) -> None:
    case, truth, prediction = load(name)
    scores = compute(["ari_int64_legacy"], truth, prediction)["ari_int64_legacy"]
    assert_scores(scores, case["out.dias.ari"], case["out.dias.ari.valid"], 2e-7)


OCLF = ("ari", "ari_fg", "abo", "abo_fg", "miou", "miou_fg")
SLOTCONTRAST = ("ari", "ari_fg", "mbo", "mbo_fg", "miou", "miou_fg")
SLOTCONTRAST_VOID = ("ari", "mbo", "miou")


@pytest.mark.parametrize("code, metric", [("oclf", m) for m in OCLF] + [("slotcontrast", m) for m in SLOTCONTRAST])
def test_other_codebases(code: str, metric: str) -> None:
    case, truth, prediction = load("metrics_labelmaps_other_codebases")
    # Both count FG-ARI of an image without objects as 1 and leave such images out of mBO and mIoU.
    empty = "one" if metric == "ari_fg" else "skip"
    scores = compute([OURS[metric]], truth, prediction, empty=empty)[OURS[metric]]
    assert_scores(scores, case[f"out.{code}.{metric}"], case[f"out.{code}.{metric}.counted"], 1e-12)
    np.testing.assert_allclose(scores[0][scores[1]].mean(), case[f"out.{code}.{metric}.pooled"], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "code, void, metric",
    [("oclf", "count", m) for m in OCLF]
    + [("oclf_ignore", "drop", m) for m in OCLF]
    + [("slotcontrast", "count", m) for m in SLOTCONTRAST_VOID],
)
def test_other_codebases_with_void(code: str, void: str, metric: str) -> None:
    case, truth, prediction = load("metrics_labelmaps_void_other_codebases")
    # OCLF counts an image that is all void as a perfect ARI, slotcontrast skips it.
    empty = "one" if metric.startswith("ari") and code != "slotcontrast" else "skip"
    scores = compute([OURS[metric]], truth, prediction, empty=empty, void=void)[OURS[metric]]
    assert_scores(scores, case[f"out.{code}.{metric}"], case[f"out.{code}.{metric}.counted"], 1e-12)


def test_object_centric_library() -> None:
    case, truth, prediction = load("metrics_labelmaps_other_codebases")
    pairs = {"ari": "ari", "ari_fg": "fg_ari", "mean_segcover": "mbo_all", "mean_segcover_fg": "mbo_fg"}
    scores = compute(pairs.values(), truth, prediction)
    for official, ours in pairs.items():
        value, valid = scores[ours]
        np.testing.assert_allclose(value[valid], case[f"out.ocl.{official}"][valid], rtol=0, atol=1e-6)
    # An image without objects: FG-ARI 1 and segmentation covering 0, both counted there; invalid here.
    empty = ~scores["fg_ari"][1]
    assert np.flatnonzero(empty).tolist() == [5, 6]
    assert (case["out.ocl.ari_fg"][empty] == 1).all() and (case["out.ocl.mean_segcover_fg"][empty] == 0).all()


VIDEO = {"ari_fg": "fg_ari", "ari_all": "ari", "mbo_fg": "mbo_fg", "mbo_all": "mbo_all", "miou_fg": "miou_fg"}


@pytest.mark.parametrize("metric", VIDEO)
def test_slotcontrast_videos_share_ids_over_time(metric: str) -> None:
    case, truth, prediction = load("metrics_video_slotcontrast")
    empty = "one" if metric == "ari_fg" else "skip"
    scores = compute([VIDEO[metric]], truth, prediction, empty=empty)[VIDEO[metric]]
    counted = case[f"out.video_{metric}.count_per_video"]
    assert_scores(scores, case[f"out.video_{metric}.per_video"], counted > 0, 1e-12)
    np.testing.assert_allclose(scores[0][scores[1]].mean(), case[f"out.video_{metric}.pooled"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("metric", VIDEO)
def test_slotcontrast_frames(metric: str) -> None:
    case, truth, prediction = load("metrics_video_slotcontrast")
    frames = (truth.shape[0] * truth.shape[1], *truth.shape[2:])
    empty = "one" if metric == "ari_fg" else "skip"
    scores = compute([VIDEO[metric]], truth.reshape(frames), prediction.reshape(frames), empty=empty)[VIDEO[metric]]
    np.testing.assert_allclose(scores[0][scores[1]].mean(), case[f"out.image_{metric}.pooled"], rtol=0, atol=1e-12)
    if f"out.image_{metric}.per_frame" in case:
        counted = case[f"out.image_{metric}.count_per_frame"].ravel() > 0
        assert_scores(scores, case[f"out.image_{metric}.per_frame"].ravel(), counted, 1e-12)

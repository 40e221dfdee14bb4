"""FG-ARI and mBO of videos against SlotContrast's numbers, scikit-learn and image metrics; chunks change nothing."""

from __future__ import annotations

import math
import re
import runpy
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from places import PARITY, ROOT
from safetensors.numpy import load_file
from sklearn.metrics import adjusted_rand_score

from ocl_bench.core.errors import UsageError
from ocl_bench.core.types import OVERLAP, VOID
from ocl_bench.metrics import compute
from ocl_bench.metrics.video import VIDEO_METRICS, VideoTables

SLOTCONTRAST = PARITY / "metrics_video_slotcontrast.safetensors"
BENCHMARK = ROOT / "benchmarks/video.py"
OFFICIAL = {
    "fg_ari_video": "video_ari",
    "mbo_video": "video_mbo",
    "fg_ari_frame": "image_ari",
    "mbo_frame": "image_mbo",
}


def tables(truth: np.ndarray, prediction: np.ndarray, chunk: int = 1000) -> VideoTables:
    video = VideoTables()
    for start in range(0, len(truth), chunk):
        video.add(truth[start : start + chunk], prediction[start : start + chunk])
    return video


def random_video(seed: int, frames: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Labels in blocks, with special pixels, an object that comes late and a frame without objects."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, 4, (frames, 6, 8)).repeat(2, 1).repeat(2, 2).astype(np.int16)
    truth[: frames // 2][truth[: frames // 2] == 3] = 0
    truth[1] = 0
    truth[generator.random(truth.shape) < 0.05] = VOID
    truth[generator.random(truth.shape) < 0.05] = OVERLAP
    prediction = np.where(generator.random(truth.shape) < 0.7, truth.clip(0) + 1, generator.integers(0, 6, truth.shape))
    return truth, prediction


def test_acceptance_values_of_the_official_classes() -> None:
    t, y, x = np.ogrid[:5, :24, :32]
    video = tables((y // 7 + x // 9 + t // 2) % 5, (y // 5 + 2 * (x // 8) + t) % 7)
    ignored = {"fg_ari_video": 0.1335918647, "fg_ari_frame": 0.1821474193}
    ignored |= {"mbo_video": 0.2373235441, "mbo_frame": 0.2722628824}
    kept = {"fg_ari_video": 0.1214199669, "fg_ari_frame": 0.1697292864}
    kept |= {"mbo_video": 0.2272384114, "mbo_frame": 0.2617770867}
    for background, expected in ((0, ignored), (None, kept)):
        scores = video.scores(background)
        assert tuple(scores) == VIDEO_METRICS
        for name, value in expected.items():
            assert scores[name] == (pytest.approx(value, abs=6e-11), 5 if name.endswith("frame") else 1)


def test_edge_cases_of_the_official_classes() -> None:
    truth = np.zeros((2, 8, 8), np.int16)
    truth[0, :4, :4], truth[0, 4:, 4:] = 1, 2
    prediction = truth.copy()
    prediction[0, 4:, 2:4] = 2
    video = tables(truth, prediction)

    def rounded(background: int | None, empty: str) -> list[tuple[float, int]]:
        return [(round(value, 4), number) for value, number in video.scores(background, empty).values()]  # type: ignore[arg-type]

    assert rounded(0, "one") == [(1.0, 1), (0.8333, 1), (1.0, 2), (0.8333, 1)]
    assert rounded(0, "skip") == [(1.0, 1), (0.8333, 1), (1.0, 1), (0.8333, 1)]
    assert rounded(None, "skip") == [(0.7938, 1), (0.8611, 1), (0.8256, 2), (0.9028, 2)]

    nothing = tables(truth[1:], prediction[1:])
    skipped = nothing.scores()
    assert all(math.isnan(value) and number == 0 for value, number in skipped.values())
    one = nothing.scores(empty="one")
    assert one["fg_ari_video"] == one["fg_ari_frame"] == (1.0, 1) and one["mbo_video"][1] == one["mbo_frame"][1] == 0

    single = (truth[:1] == 1).astype(np.int16)
    split = np.where(np.arange(8) % 2 == 0, 1, 2) * np.ones((1, 8, 1), np.int16)
    assert tables(single, single).scores()["fg_ari_video"] == (1.0, 1)
    assert tables(single, split).scores()["fg_ari_video"] == (0.0, 1)


@pytest.mark.parametrize("pixels", ["fg", "all"])
def test_parity_with_slotcontrast(pixels: str) -> None:
    case = load_file(SLOTCONTRAST)
    background, empty = (0, "one") if pixels == "fg" else (None, "skip")
    videos = [tables(*video, chunk=2) for video in zip(case["in.true"], case["in.pred"], strict=True)]
    scores = [video.scores(background, empty) for video in videos]  # type: ignore[arg-type]
    for name, official in OFFICIAL.items():
        prefix = f"out.{official}_{pixels}"
        values, numbers = (np.array(column) for column in zip(*(score[name] for score in scores), strict=True))
        np.testing.assert_array_equal(numbers, case[f"{prefix}.count_per_video"])
        np.testing.assert_allclose(values, case[f"{prefix}.per_video"], rtol=0, atol=1e-12)
        pooled = (np.where(numbers > 0, values, 0) * numbers).sum() / numbers.sum()
        np.testing.assert_allclose(pooled, case[f"{prefix}.pooled"], rtol=0, atol=1e-12)
    if pixels == "all":
        return
    for name in ("fg_ari_frame", "mbo_frame"):
        value, valid = (np.stack(part) for part in zip(*(v.frame_values(0, "one")[name] for v in videos), strict=True))
        prefix = f"out.{OFFICIAL[name]}_fg"
        np.testing.assert_array_equal(valid, case[f"{prefix}.count_per_frame"] > 0)
        np.testing.assert_allclose(value[valid], case[f"{prefix}.per_frame"][valid], rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_equal_to_image_metrics_and_scikit_learn(seed: int) -> None:
    truth, prediction = random_video(seed)
    scores = tables(truth, prediction, chunk=3).scores()
    one_image = compute(["fg_ari", "mbo_fg"], truth[None], prediction[None])
    frames = compute(["fg_ari", "mbo_fg"], truth, prediction)
    for ours, theirs in (("fg_ari", "fg_ari"), ("mbo", "mbo_fg")):
        assert scores[f"{ours}_video"] == (one_image[theirs][0][0], 1)
        value, valid = frames[theirs]
        assert scores[f"{ours}_frame"] == (pytest.approx(value[valid].mean(), abs=1e-12), valid.sum())
    objects = truth > 0
    expected = adjusted_rand_score(truth[objects], prediction[objects])
    assert scores["fg_ari_video"][0] == pytest.approx(expected, abs=1e-12)
    tubes = [
        max(
            ((truth == g) & (prediction == p)).sum() / (((truth == g) | (prediction == p)) & (truth >= 0)).sum()
            for p in range(7)
        )
        for g in (1, 2, 3)
    ]
    assert scores["mbo_video"][0] == pytest.approx(np.mean(tubes), abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 8), st.integers(0, 2))
def test_chunks_ids_and_types_change_no_bit(seed: int, chunk: int, how: int) -> None:
    truth, prediction = random_video(seed)
    expected = tables(truth, prediction).scores()
    renamed = (
        np.random.default_rng(seed).permutation(600)[prediction],  # on both sides of the width of a table
        prediction.astype(np.int64) * 10**12 + 5,
        prediction.astype(np.uint8),
    )[how]
    assert tables(truth, renamed, chunk).scores() == expected
    video = VideoTables()
    video.add(torch.from_numpy(truth), torch.from_numpy(renamed))
    assert video.scores() == expected and len(video) == len(truth)


def test_large_ids_are_one_segment_over_time() -> None:
    truth = np.ones((2, 4, 4), np.int16)
    truth[:, 2:] = 2
    prediction = np.where(truth == 1, 3, 4)
    video = VideoTables()
    video.add(truth[:1], prediction[:1])
    large = prediction[1:].copy()
    large[0, 3, 3] = 70_000  # a void slot beyond the width of the table
    video.add(truth[1:], large)
    assert video.tube().table[0, 1:].tolist() == [[0, 0, 0, 16, 0, 0], [0, 0, 0, 0, 15, 1]]
    value, number = video.scores()["mbo_video"]
    assert number == 1 and value == pytest.approx((1 + 15 / 16) / 2)


def test_more_segments_than_columns() -> None:
    """Superpixels: a frame with more than 512 segments, none of which starts at 0."""
    prediction = np.arange(2 * 32 * 32).reshape(2, 32, 32) + 9
    truth = np.zeros((2, 32, 32), np.int16)
    truth[:, :16] = 1
    scores = tables(truth, prediction).scores()
    assert scores["fg_ari_video"] == (0.0, 1) and scores["mbo_video"][0] == pytest.approx(1 / 1024)
    assert scores["mbo_frame"] == (pytest.approx(1 / 512), 2)


def test_a_frame_without_annotation_never_counts() -> None:
    truth, prediction = np.full((3, 4, 4), VOID, np.int16), np.zeros((3, 4, 4), np.uint8)
    truth[1, 0] = 1
    assert tables(truth, prediction).scores(empty="one")["fg_ari_frame"] == (1.0, 1)
    assert tables(truth[:1], prediction[:1]).scores(empty="one")["fg_ari_video"][1] == 0


def test_a_leak_costs_overlap_but_no_rand_index() -> None:
    truth = np.zeros((2, 4, 4), np.int16)
    truth[:, 0], truth[:, 1] = 1, 2
    leak = truth.copy()
    leak[:, 2:] = 1
    scores = tables(truth, leak).scores()
    assert scores["fg_ari_video"] == (1.0, 1) and scores["mbo_video"] == (pytest.approx((1 / 3 + 1) / 2), 1)
    truth[:, 2:] = VOID
    assert tables(truth, leak).scores()["mbo_video"] == (1.0, 1)


def test_an_identity_switch_costs_tubes_only() -> None:
    truth = np.ones((2, 4, 4), np.int16)
    truth[:, 2:] = 2
    prediction = truth.copy()
    prediction[1] = 3 - prediction[1]
    scores = tables(truth, prediction).scores()
    assert scores["fg_ari_frame"] == scores["mbo_frame"] == (1.0, 2)
    assert scores["fg_ari_video"][0] < 0.1 and scores["mbo_video"][0] == pytest.approx(1 / 3)


def test_memory_is_that_of_the_tables() -> None:
    truth, prediction = np.zeros((20, 128, 128), np.int16), np.zeros((20, 128, 128), np.uint8)
    truth[:, 9:, 9:], prediction[:, :80] = 10, 10
    video = VideoTables()
    tracemalloc.start()
    for _ in range(10):
        video.add(truth, prediction)
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(video) == 200 and kept < 200 * 11 * 11 * 4 + 20_000


def test_bad_input_is_one_line() -> None:
    labels = np.zeros((2, 4, 4), np.int16)
    video = VideoTables()
    for truth, prediction, text in (
        (labels, np.zeros((2, 3, 4, 4)), "(T, H, W)"),
        (labels, labels.astype(np.float32), "argmax"),
        (labels, labels - 1, "negative"),
        (labels, np.where(np.arange(4) > 1, 1000, -3) + labels, "negative"),
        (labels, labels[:1], "same frames"),
        (labels, labels[:1] + 1000, "same frames"),
        (labels, labels + 1000.0, "argmax"),
        (labels, labels + np.nan, "argmax"),
        (labels - 3, labels, "outside"),
    ):
        with pytest.raises(UsageError, match=text.replace("(", r"\(").replace(")", r"\)")) as caught:
            video.add(truth, prediction)
        assert "\n" not in str(caught.value)
    assert len(video) == 0
    with pytest.raises(UsageError, match="empty: 'zero'"):
        video.scores(empty="zero")  # type: ignore[arg-type]
    assert all(number == 0 for _, number in video.scores().values())


def test_benchmark_agrees_with_its_peers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    names = runpy.run_path(str(BENCHMARK), run_name="benchmark")
    small = ["--frames", "3", "--size", "40", "--davis-frames", "2", "--davis-height", "54", "--lengths", "8", "16"]
    monkeypatch.setattr(sys, "argv", [str(BENCHMARK), *small, "--threads", str(torch.get_num_threads())])
    names["main"]()
    printed = capsys.readouterr().out
    assert len(re.findall(r"^ratio: \d+\.\d", printed, re.MULTILINE)) == 2
    assert len(re.findall(r"\d+\.\d ms", printed)) == 4 and len(re.findall("MB are kept", printed)) == 4
    monkeypatch.setitem(names["main"].__globals__, "peer_f", lambda *_: 0.5)
    with pytest.raises(SystemExit, match=r"[jf]: ours .* differs"):
        names["main"]()

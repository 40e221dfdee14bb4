"""J and F against the official code's numbers and against a plain computation of every pair by distances."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from places import PARITY, SHARED
from safetensors.numpy import load_file
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from ocl_bench.core.errors import UsageError
from ocl_bench.core.types import OVERLAP, VOID
from ocl_bench.metrics.boundaries import boundary_bits
from ocl_bench.metrics.davis import (
    PairScores,
    VideoObjects,
    frame_overlap,
    match,
    statistics,
    tolerance,
)

REAL = SHARED / "parity/davis_jf_real.safetensors"
TOLERANCES = {"F": 0.008, "F_bound_th_0.02": 0.02, "F_bound_th_3px": 3.0}


def objects(truth: np.ndarray, prediction: np.ndarray, bound_th: float = 0.008, chunk: int = 1000) -> VideoObjects:
    video = VideoObjects(bound_th)
    for start in range(0, len(truth), chunk):
        video.add(truth[start : start + chunk], prediction[start : start + chunk])
    return video


def edge_pixels(mask: np.ndarray) -> np.ndarray:
    """(N, 2) boundary pixels: some pixel of the window to the lower right differs."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2, 2))
    return np.argwhere(windows.any((2, 3)) & ~windows.all((2, 3)))


def plain_pair(mask: np.ndarray, segment: np.ndarray, radius: int) -> tuple[float, float]:
    """J and F of two masks by the definition, with the distance of every pair of boundary pixels."""
    union = (mask | segment).sum()
    j = 1.0 if union == 0 else (mask & segment).sum() / union
    of_mask, of_segment = edge_pixels(mask), edge_pixels(segment)
    if not len(of_mask) and not len(of_segment):
        return j, 1.0
    if not len(of_mask) or not len(of_segment):
        return j, 0.0
    met = cdist(of_mask, of_segment, "sqeuclidean") <= radius**2
    recall, precision = met.any(1).mean(), met.any(0).mean()
    return j, 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def plain_pairs(truth: np.ndarray, prediction: np.ndarray, count: int, ids: list[int], radius: int) -> np.ndarray:
    """(2, T, G, P) J and F; id -1 is an empty mask."""
    known = truth >= 0
    return np.array(
        [
            [
                [plain_pair(frame == g, (segments == p) & (p >= 0) & there, radius) for p in ids]
                for g in range(1, count + 1)
            ]
            for frame, segments, there in zip(truth, prediction, known, strict=True)
        ]
    ).transpose(3, 0, 1, 2)


def random_video(seed: int, frames: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Blocky objects and segments; some come late or leave, void and overlap pixels, pixels of no proposal."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, 4, (frames, 5, 7)).repeat(4, 1).repeat(4, 2).astype(np.int16)
    prediction = generator.integers(-1, 6, (frames, 10, 14)).repeat(2, 1).repeat(2, 2)
    prediction = np.where(generator.random((frames, 20, 28)) < 0.5, truth, prediction)
    truth[0][truth[0] == 3] = 0
    truth[-1] = 0
    prediction[:2][prediction[:2] == 5] = 1
    truth[:, 3:6, 10:13] = VOID
    truth[1, 12:15, 2:4] = OVERLAP
    return truth, prediction


@pytest.mark.parametrize(
    ("name", "void"), [("F", False), ("F", True), ("F_bound_th_0.02", False), ("F_bound_th_3px", False)]
)
def test_parity_with_the_official_functions(name: str, void: bool) -> None:
    case = load_file(PARITY / "davis_jf_random.safetensors")
    truth = case["in.true"].astype(np.int16)
    if void:
        truth[case["in.void"] > 0] = VOID
    suffix = "_void" if void else ""
    pairs = objects(truth, np.where(case["in.pred"] > 0, 4, -1), TOLERANCES[name]).pairs(1)
    assert pairs.ids.tolist() == [4]
    np.testing.assert_allclose(pairs.j[:, 0, 0], case[f"out.J{suffix}"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(pairs.f[:, 0, 0], case[f"out.{name}{suffix}"], rtol=0, atol=1e-12)


def test_boundary_maps_of_the_official_code() -> None:
    case = load_file(PARITY / "davis_jf_random.safetensors")
    ours = np.stack([boundary_bits(mask > 0) for mask in case["in.true"]])
    np.testing.assert_array_equal(ours, case["out.boundary_true"] > 0)
    assert not boundary_bits(np.ones((5, 6), bool)).any() and not boundary_bits(np.zeros((1, 1), bool)).any()


@pytest.mark.parametrize("number", range(3))
def test_statistics_of_the_official_code(number: int) -> None:
    case = load_file(PARITY / "davis_statistics.safetensors")
    np.testing.assert_allclose(statistics(case[f"in.{number}"]), case[f"out.{number}"], rtol=0, atol=1e-12)


@pytest.mark.skipif(not REAL.exists(), reason="no ../shared/parity beside the checkout")
@pytest.mark.parametrize("number", range(6))
def test_real_masks(number: int) -> None:
    case = load_file(REAL)
    truth, official = case[f"in.{number}.true"].astype(np.int16), [case[f"out.{number}.{part}"] for part in "JF"]
    video = objects(truth[None], case[f"in.{number}.pred"][None].astype(np.int16) - 1)
    pairs = video.pairs(len(official[0]))
    for ours, theirs in zip((pairs.j, pairs.f), official, strict=True):
        np.testing.assert_allclose(ours[0], theirs[:, pairs.ids], rtol=0, atol=1e-12)
    # The official list is ordered by proposal, and ids without a pixel are empty proposals in it.
    chosen = np.sort(match(official[0][None], official[1][None]))
    for part, theirs in zip("JF", official, strict=True):
        expected = case[f"out.{number}.matched_{part}"]
        rows = np.argsort(match(official[0][None], official[1][None]))
        np.testing.assert_allclose(theirs[rows, chosen], expected, rtol=0, atol=1e-12)
    if set(range(1, len(official[0]) + 1)) <= set(np.unique(truth).tolist()):
        scores = video.scores()
        order = np.argsort(scores.proposal)
        np.testing.assert_allclose(scores.j_mean[order], case[f"out.{number}.matched_J"], rtol=0, atol=1e-12)
        np.testing.assert_allclose(scores.f_mean[order], case[f"out.{number}.matched_F"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("radius", [0, 1, 2, 5, 40])
def test_pairs_by_distances(seed: int, radius: int) -> None:
    truth, prediction = random_video(seed)
    bound_th = radius if radius else 0.0
    pairs = objects(truth, prediction, bound_th, chunk=1 + seed).pairs()
    assert pairs.ids.tolist() == [0, 1, 2, 3, 4, 5]
    j, f = plain_pairs(truth, prediction, 3, pairs.ids.tolist(), radius)
    np.testing.assert_allclose(pairs.j, j, rtol=0, atol=1e-12)
    np.testing.assert_allclose(pairs.f, f, rtol=0, atol=1e-12)


def test_more_labels_than_bits_of_a_word() -> None:
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 71, (1, 9, 10)).repeat(3, 1).repeat(3, 2)
    prediction = generator.integers(0, 90, (1, 9, 10)).repeat(3, 1).repeat(3, 2)
    pairs = objects(truth, prediction, 1.0).pairs(70, max_proposals=100)
    j, f = plain_pairs(truth, prediction, 70, pairs.ids.tolist(), 1)
    assert len(pairs.ids) == max(70, len(np.unique(prediction)))
    np.testing.assert_allclose(pairs.j, j, rtol=0, atol=1e-12)
    np.testing.assert_allclose(pairs.f, f, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_scores_follow_the_official_procedure(seed: int) -> None:
    """Fewer segments than objects: filled up with empty masks, matched once per video, all frames counted."""
    truth, prediction = random_video(seed, frames=9)
    prediction = np.where(prediction > 2, -1, prediction // 2)  # proposals 0 and 1 for three objects
    scores = objects(truth, prediction).scores()
    j, f = plain_pairs(truth, prediction, 3, [0, 1, -1], tolerance((20, 28)))
    rows, columns = linear_sum_assignment(-(j.mean(0) + f.mean(0)))
    assert scores.proposal.tolist() == np.array([0, 1, -1])[columns].tolist() and len(scores) == 3
    for values, mean, recall, decay in (
        (j, scores.j_mean, scores.j_recall, scores.j_decay),
        (f, scores.f_mean, scores.f_recall, scores.f_decay),
    ):
        frames = values[:, rows, columns]
        np.testing.assert_allclose(mean, frames.mean(0), rtol=0, atol=1e-12)
        np.testing.assert_allclose(recall, (frames > 0.5).mean(0), rtol=0, atol=1e-12)
        np.testing.assert_allclose(decay, frames[:3].mean(0) - frames[6:].mean(0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_names_chunks_and_types_change_nothing(seed: int) -> None:
    truth, prediction = random_video(seed)
    expected = objects(truth, prediction).scores()
    renamed = np.array([70_000, 3, 511, 2**40, 0, 600, -1])[prediction]
    video = VideoObjects()
    video.add(torch.from_numpy(truth[:1]), torch.from_numpy(renamed[:1]))
    video.add(torch.from_numpy(truth[1:]), torch.from_numpy(renamed[1:]))
    scores = video.scores(3)
    for name in ("j_mean", "j_recall", "j_decay", "f_mean", "f_recall", "f_decay"):
        np.testing.assert_array_equal(getattr(scores, name), getattr(expected, name))
    assert len(video) == 4


def test_perfect_even_with_swapped_ids_and_absent_frames() -> None:
    truth, _ = random_video(1)
    truth = truth.clip(0)
    prediction = np.array([9, 30, 10, 2])[truth]
    scores = objects(truth, prediction).scores()
    assert scores.proposal.tolist() == [30, 10, 2]
    assert (scores.j_mean == 1).all() and (scores.f_mean == 1).all() and (scores.f_recall == 1).all()
    assert (scores.j_decay == 0).all()


def test_background_slots_are_proposals_and_the_largest_are_taken() -> None:
    truth = np.zeros((2, 30, 40), np.int16)
    truth[:, 5:9, 5:9] = 1
    prediction = np.zeros((2, 30, 40), np.int16)
    prediction[:, 5:9, 5:9] = 7
    prediction[:, 20:30, :] = 3
    prediction[1, 0, 0:3] = 8
    video = objects(truth, prediction)
    assert video.pairs().ids.tolist() == [0, 3, 7, 8]
    assert video.pairs(max_proposals=3).ids.tolist() == [0, 3, 7] and video.scores(max_proposals=3).j_mean.tolist() == [
        1
    ]
    few = video.scores(max_proposals=2)
    assert video.pairs(max_proposals=2).ids.tolist() == [0, 3]
    assert few.proposal.tolist() == [0] and few.j_mean.tolist() == [0]  # F of the hole in 0 is perfect, J is not
    assert few.f_mean[0] > 0


def test_void_hides_segments_and_objects() -> None:
    truth = np.full((1, 10, 12), VOID, np.int16)
    truth[0, :, :6] = 1
    prediction = np.where(truth < 0, 5, 2)
    pairs = objects(truth, prediction).pairs()
    assert pairs.ids.tolist() == [2] and pairs.j.item() == 1 and pairs.f.item() == 1
    nothing = objects(np.full_like(truth, OVERLAP), prediction).pairs(2)
    assert nothing.ids.tolist() == [-1, -1] and (nothing.j == 1).all() and (nothing.f == 1).all()
    assert len(objects(np.zeros_like(truth), prediction).scores()) == 0


def test_labels_that_no_frame_shows_count_only_when_asked_for() -> None:
    truth = np.zeros((2, 10, 12), np.int16)
    truth[0, 2:5, 2:5], truth[:, 6:9, 6:9] = 1, 3
    prediction = np.where(truth == 0, -1, truth)
    video = objects(truth, prediction)
    assert video.pairs().j.shape == (2, 2, 2) and video.scores().proposal.tolist() == [1, 3]
    scores = video.scores(3)  # an empty mask fills up, and is right about an empty object
    assert scores.proposal.tolist() == [1, -1, 3] and (scores.j_mean == 1).all() and (scores.f_mean == 1).all()


def test_counts_of_a_frame() -> None:
    truth = np.zeros((6, 8), np.int16)
    truth[1:3, 1:4] = 2
    counts = frame_overlap(truth, (truth > 0) * 3 - 1, 0)
    assert counts.objects.tolist() == counts.proposals.tolist() == [2]
    assert counts.shared.tolist() == [[6]] and counts.truth_area.tolist() == counts.predicted_area.tolist() == [6]
    assert counts.truth_edge.tolist() == [10] == counts.predicted_edge.tolist()
    assert counts.truth_met.tolist() == [[10]] == counts.predicted_met.tolist()


def test_disks_reach_from_the_first_row_to_the_last() -> None:
    truth, prediction = np.zeros((2, 6, 2), np.int16)
    truth[0, 0], prediction[5, 0] = 1, 1
    for radius, met in ((3, 0), (4, 1), (5, 2)):
        counts = frame_overlap(truth, prediction - 1, radius)
        assert counts.predicted_edge.tolist() == [2] and counts.predicted_met.tolist() == [[met]]


def test_matching_is_one_to_one_on_the_mean_of_j_and_f_over_frames() -> None:
    j = np.array([[[0.9, 0.8], [0.8, 0.1]], [[0.9, 0.8], [0.8, 0.1]]])
    assert match(j, j).tolist() == [1, 0]  # 0.8 + 0.8 beats 0.9 + 0.1, though both prefer proposal 0
    f = np.array([[[1.0, 0.0], [0.0, 0.2]], [[1.0, 0.0], [0.0, 0.9]]])
    assert match(j, f).tolist() == [0, 1] and match(f, j).tolist() == [0, 1]
    assert match(j[:, :1], j[:, :1]).tolist() == [0]


def test_tolerance_is_rounded_up_and_from_one_on_in_pixels() -> None:
    assert tolerance((480, 854)) == 8 and tolerance((1080, 1920)) == 18 and tolerance((30, 40), 0.02) == 1
    assert tolerance((480, 854), 3) == 3 and tolerance((480, 854), 0.0) == 0
    for wrong in (-0.1, 1.5):
        with pytest.raises(UsageError, match="bound_th"):
            tolerance((480, 854), wrong)


def test_decay_beyond_255_frames() -> None:
    values = np.r_[np.ones(300), np.zeros(700)]
    mean, recall, decay = statistics(np.stack([values, values[::-1]]))
    assert mean.tolist() == recall.tolist() == [0.3, 0.3] and decay.tolist() == [1, -1]
    assert [part.item() for part in statistics(np.array([0.25]))] == [0.25, 0, 0]
    mean, recall, decay = statistics(np.array([np.nan, np.nan]))
    assert np.isnan(mean) and recall == 0 and np.isnan(decay)


def test_memory_is_that_of_the_tables() -> None:
    truth, prediction = np.zeros((5, 240, 320), np.int16), np.zeros((5, 240, 320), np.uint8)
    truth[:, 30:90, 30:90], prediction[:, 40:99, 40:99] = 1, 9
    video = VideoObjects()
    video.add(truth[:1], prediction[:1])
    tracemalloc.start()
    for _ in range(8):
        video.add(truth, prediction)
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(video) == 41 and kept < 41 * 4000


def test_bad_input_is_one_line() -> None:
    labels = np.zeros((2, 4, 4), np.int16)
    video = VideoObjects()
    for truth, prediction, text in (
        (labels, labels[:1], "same frames"),
        (labels[0], labels[0], "same frames"),
        (labels, labels - 2, "below -1"),
        (labels, labels + 0.5, "label maps"),
        (labels + 0.5, labels, "truth: float64"),
        (labels - 3, labels, "outside"),
    ):
        with pytest.raises(UsageError, match=text) as caught:
            video.add(truth, prediction)
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="without frames"):
        video.scores()
    video.add(labels + 3, labels)
    with pytest.raises(UsageError, match="label 3 in a video of 2 objects"):
        video.scores(2)
    pairs: PairScores = video.pairs(3)
    with pytest.raises(UsageError, match="1 for 3 objects"):
        match(pairs.j[:, :, :1], pairs.f[:, :, :1])

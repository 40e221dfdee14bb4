"""Semantic segmentation on class maps in memory: heads, vocabularies, intervals and bad input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from pydantic import ValidationError

from ocl_bench.cards.names import get_card, get_task
from ocl_bench.cards.task import TaskSpec
from ocl_bench.core.errors import NotApplicableError, UsageError
from ocl_bench.core.paths import bundled
from ocl_bench.core.types import VOID, Batch, Prediction, Sample, Truth
from ocl_bench.data import OpenData
from ocl_bench.data.base import SampleSequence
from ocl_bench.evaluation.plan import Plan, make_plan
from ocl_bench.evaluation.run import run
from ocl_bench.families.segmentation import Segmentation, majority_accuracy
from ocl_bench.families.summary import set_statistic
from ocl_bench.metrics.semantic_set import STRIDE
from ocl_bench.metrics.statistics_of_set import paired_statistic_difference
from ocl_bench.models.floors import build_grid, build_oracle, build_patch_oracle
from ocl_bench.models.loading import LoadedModel
from ocl_bench.results.record import Result, read_rows
from ocl_bench.tables.gate.golden import read_golden
from ocl_bench.tables.gate.regression import check_itself, compare_corpus
from ocl_bench.tables.leaderboard.board_csv import to_csv
from ocl_bench.tables.leaderboard.board_page import to_markdown
from ocl_bench.tables.leaderboard.build import make_board

COLOURS = np.array([[220, 40, 40], [40, 220, 40], [40, 40, 220], [220, 220, 40]], dtype=np.uint8)
ALL = ["miou_sem", "pixel_acc", "miou_sem_kmeans", "pixel_acc_kmeans", "miou_sem_majority", "pixel_acc_majority"]


def spec(head: str, metrics: list[str] | None = None, **fit: Any) -> TaskSpec:
    return TaskSpec.model_validate(
        {
            "name": f"four-{head}",
            "version": 1,
            "family": "segmentation",
            "data": {"reader": "voc"},
            "protocol": {"crop": "none", "input": 16, "classes": 4},
            "fit": {"head": head, "learning_rates": [0.1, 0.01], "steps": 40, "batch": 4, "at": 8, **fit},
            "metrics": metrics or (ALL if head == "kmeans" else ALL[:2]),
            "main": "miou_sem",
        }
    )


class Quarters(SampleSequence):
    """Images of four coloured quarters in a random order of classes, 16 x 24 pixels, with a void row."""

    def __init__(self, count: int, first: int = 0) -> None:
        self.numbers = list(range(first, first + count))
        self.ids = tuple(f"q{number:03d}" for number in self.numbers)

    def __getitem__(self, index: int) -> Sample:
        generator = np.random.default_rng(self.numbers[index])
        order = generator.integers(0, 4, (2, 2))
        classes = np.kron(order, np.ones((8, 12), np.int16)).astype(np.int16)
        image = COLOURS[classes]
        classes[0] = VOID
        noisy = np.clip(image + generator.normal(0, 12, image.shape), 0, 255).astype(np.uint8)
        return Sample(self.ids[index], noisy, Truth(classes + 1, classes=classes))


def data(count: int, first: int = 0) -> OpenData:
    reader = Quarters(count, first)
    return OpenData(reader, "supplied", "supplied-1", Path("."), reader.ids, "in memory")


class Colours:
    """Tokens: mean colour of each 4 x 4 cell. classes: named by hand. vocabulary: distance to K colours."""

    supervision = "none"  # declared, so that a board shows the ceilings beside it

    def __init__(self, *fields: str, clusters: int = 4) -> None:
        self.fields, self.clusters = fields, clusters

    def predict(self, batch: Batch) -> Prediction:
        mean = torch.nn.functional.avg_pool2d(batch.image, 4)
        colours = torch.from_numpy(COLOURS / 255).float()[torch.arange(self.clusters) % 4]
        near = (-(mean[:, None] - colours[None, :, :, None, None]).square().sum(2)).exp()  # in [0, 1], same order
        return Prediction(
            tokens=mean if "tokens" in self.fields else None,
            masks=near.flip(1) if "vocabulary" in self.fields else None,
            mask_source="prototypes",
            classes=near if "classes" in self.fields else None,
        )


def ceiling(name: str, model: Any) -> LoadedModel:
    return LoadedModel(model, get_card(name), name, "", 0, None, {})


def plan(model: Any, task: TaskSpec, count: int = 12) -> Plan:
    return make_plan(model, task, data=data(count, 100), train=data(12), batch_size=5, device="cpu")


def score(model: Any, task: TaskSpec, folder: Path) -> Result:
    return run(plan(model, task), results=folder, progress=False)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "cache"))


def test_a_linear_head_names_colours(tmp_path: Path) -> None:
    result = score(Colours("tokens"), spec("linear"), tmp_path)
    assert result.value("miou_sem") > 0.9 and result.value("pixel_acc") > 0.95  # type: ignore[operator]
    low, high = result.metrics["miou_sem"].ci95  # type: ignore[misc]
    assert low <= result.value("miou_sem") <= high  # type: ignore[operator]
    assert "from:tokens" in result.task.signature and "head:linear" in result.task.signature
    assert not (tmp_path / "cache" / "heads").exists(), "no key can name the state of a live object"
    rows = read_rows(result.path)  # type: ignore[arg-type]
    assert rows["pixel_acc"].mean() == pytest.approx(result.value("pixel_acc"))  # all images have equally many pixels
    assert {sum(counts) for counts in rows["counts"]} == {15 * 24}, "the void row counts nowhere"


def test_the_head_of_a_model_with_a_name_is_kept_until_something_changes(tmp_path: Path) -> None:
    def heads() -> int:
        return len(list((tmp_path / "cache" / "heads").glob("*/*.safetensors")))

    model = ceiling("pixels", Colours("tokens"))
    score(model, spec("linear"), tmp_path / "a")
    score(model, spec("linear"), tmp_path / "b")
    assert heads() == 1
    score(model, spec("linear", seed=1), tmp_path / "a")
    assert heads() == 2
    score(replace(model, checkpoint_sha256="0" * 64), spec("linear"), tmp_path / "a")
    assert heads() == 3


def test_a_model_that_names_classes_is_scored_as_it_is(tmp_path: Path) -> None:
    for head in ("linear", "kmeans"):
        result = score(Colours("classes"), spec(head), tmp_path)
        assert result.value("miou_sem") > 0.9 and "from:classes" in result.task.signature  # type: ignore[operator]
    assert result.value("miou_sem_kmeans") is None and result.value("miou_sem_majority") is None


def test_ceilings(tmp_path: Path) -> None:
    for head in ("linear", "kmeans"):
        assert score(ceiling("oracle", build_oracle()), spec(head), tmp_path).value("miou_sem") == 1.0
    assert score(ceiling("patch-oracle", build_patch_oracle(4)), spec("linear"), tmp_path).value("miou_sem") > 0.8  # type: ignore[operator]


def test_a_vocabulary_is_matched_once_for_the_whole_set(tmp_path: Path) -> None:
    result = score(Colours("vocabulary"), spec("kmeans"), tmp_path)
    assert result.value("miou_sem") > 0.9 and result.value("miou_sem_majority") > 0.9  # type: ignore[operator]
    assert result.value("miou_sem_kmeans") is None and result.metrics["miou_sem_kmeans"].n_valid == 0
    assert "from:prototypes" in result.task.signature


def test_pictures_of_clusters_are_chosen_by_the_names_of_the_whole_set() -> None:
    """Cluster 7 has class 1 in 60 of 90 pixels and cluster 2 has class 0 in 30 of 40; images are scored by these."""
    stride = STRIDE
    cells = [[1 * stride + 7, 0 * stride + 2], [0 * stride + 7], [1 * stride + 2]]
    rows = pandas.DataFrame(
        {
            "id": ["a", "b", "c"],
            "cells": [[]] * 3,
            "counts": [[]] * 3,
            "cells_kmeans": [np.array(codes) for codes in cells],
            "counts_kmeans": [np.array([60, 30]), np.array([30]), np.array([10])],
        }
    )
    assert majority_accuracy(rows).to_dict() == {"a": 1.0, "b": 0.0, "c": 0.0}
    assert majority_accuracy(rows.assign(cells_kmeans=[[]] * 3, counts_kmeans=[[]] * 3)).empty


def test_too_many_prototypes_have_a_majority_only(tmp_path: Path) -> None:
    result = score(Colours("vocabulary", clusters=8), spec("kmeans"), tmp_path)
    assert result.value("miou_sem") is None and result.value("pixel_acc") is None
    assert result.value("miou_sem_majority") > 0.9  # type: ignore[operator]


def test_tokens_are_clustered(tmp_path: Path) -> None:
    result = score(Colours("tokens"), spec("kmeans"), tmp_path)
    assert result.value("miou_sem_kmeans") > 0.9 and result.value("miou_sem") is None  # type: ignore[operator]
    both = score(Colours("tokens", "vocabulary"), spec("kmeans"), tmp_path)
    assert both.value("miou_sem_kmeans") == result.value("miou_sem_kmeans")
    assert "from:prototypes+tokens" in both.task.signature


def test_blind_floors_have_a_vocabulary(tmp_path: Path) -> None:
    grid = score(ceiling("grid", build_grid(2, 2)), spec("kmeans"), tmp_path)
    assert 0 < grid.value("miou_sem") < 0.5  # type: ignore[operator]
    assert grid.value("miou_sem_majority") > 0  # type: ignore[operator]
    with pytest.raises(NotApplicableError, match="prototypes"):
        score(build_grid(2, 2), spec("kmeans"), tmp_path)  # not known as a floor: its numbers may mean nothing


def test_what_does_not_fit_says_so_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(NotApplicableError, match=r"Prediction\.tokens is missing"):
        score(build_grid(2, 2), spec("linear"), tmp_path)
    with pytest.raises(UsageError, match=r"classes has shape \(5, 8, 4, 4\)"):
        score(Colours("classes", clusters=8), spec("linear"), tmp_path)
    for side, classes in ((4, 3), (3, 4)):  # fewer rows than there are classes, so that these could be scores
        with pytest.raises(UsageError, match=r"the classes last; give classes.permute\(0, 3, 1, 2\)$"):
            last = Prediction(classes=torch.rand(1, side, side, classes))
            Segmentation(spec("linear")).check(last, 1, "mine")
    for strip in (torch.rand(1, 4, 1, 64), torch.zeros(1, 64, 1, dtype=torch.int64)):
        with pytest.raises(UsageError, match="are flattened, or a strip"):
            Segmentation(spec("linear")).check(Prediction(classes=strip), 1, "mine")
    card = spec("linear").model_dump()
    for broken, message in (
        ({**card, "fit": None}, "is not a head of segmentation, which knows: linear or kmeans"),
        ({**card, "fit": {"head": "slot"}}, "'slot' is not a head of segmentation"),
        ({**card, "protocol": {"input": 16}}, "Field required"),
    ):
        with pytest.raises(ValidationError, match=message):
            TaskSpec.model_validate(broken)


def test_each_resample_matches_anew(tmp_path: Path) -> None:
    """Weights that drop images must give what scoring without these images gives."""
    task = spec("kmeans")
    chosen = plan(Colours("tokens", "vocabulary"), task)
    rows = read_rows(run(chosen, results=tmp_path, progress=False).path)  # type: ignore[arg-type]
    subset = sorted(rows["id"])[:5]
    weights = np.array([[int(sample_id in subset) for sample_id in sorted(rows["id"])]])
    part = rows[rows["id"].isin(subset)].reset_index(drop=True)
    for metric in ("pixel_acc", "pixel_acc_kmeans", "pixel_acc_majority"):
        whole, alone = set_statistic(rows, task, metric), set_statistic(part, task, metric)
        assert whole is not None and alone is not None
        np.testing.assert_allclose(whole(weights), alone(np.ones((1, 5), int)))


def test_two_models_are_compared_on_the_same_resamples(tmp_path: Path) -> None:
    task = spec("linear")
    good = read_rows(score(Colours("tokens"), task, tmp_path).path)  # type: ignore[arg-type]
    better = read_rows(score(ceiling("oracle", build_oracle()), task, tmp_path).path)  # type: ignore[arg-type]
    first, second = (set_statistic(rows, task, "miou_sem") for rows in (better, good))
    assert first is not None and second is not None
    gap = paired_statistic_difference(first, second, 12)
    assert 0 < gap.low <= gap.mean <= gap.high < 0.1


class Weak(Colours):
    """Tokens with more noise than colour."""

    name = "weak"

    def predict(self, batch: Batch) -> Prediction:
        prediction = super().predict(batch)
        assert prediction.tokens is not None
        return replace(prediction, tokens=prediction.tokens + 2 * batch.noise(*prediction.tokens.shape[1:]))


def test_the_board_ranks_by_the_corpus_value_and_pairs_resamples(tmp_path: Path) -> None:
    task = spec("linear")
    for model in (Colours("tokens"), Weak("tokens"), ceiling("oracle", build_oracle())):
        score(model, task, tmp_path)
    ((_, rows),) = make_board([tmp_path], task).groups
    ranked = {row.model: row for row in rows}
    assert (ranked["oracle"].rank, ranked["colours"].rank, ranked["weak"].rank) == ("ceiling", "1", "2")
    assert ranked["colours"].tied_with_best is True and ranked["weak"].tied_with_best is False
    cell = ranked["weak"].cells["miou_sem"]
    assert cell.low is not None and cell.high is not None and cell.low <= cell.value <= cell.high


def test_a_row_whose_main_metric_does_not_apply_is_shown_without_a_rank(tmp_path: Path) -> None:
    task = spec("kmeans")
    score(Colours("tokens"), task, tmp_path)
    score(ceiling("grid", build_grid(2, 2)), task, tmp_path)
    named = Colours("vocabulary")
    named.name = "named"  # type: ignore[attr-defined]
    score(named, task, tmp_path)
    board = make_board([tmp_path], task)
    assert not board.excluded
    ranked = {row.model: row.rank for _, rows in board.groups for row in rows}
    assert ranked == {"named": "1", "colours": "-", "grid": "floor"}
    assert "| - | colours |" in to_markdown(board) and "miou_sem_kmeans" in to_csv(board)


def test_the_mean_over_training_seeds_has_an_interval_of_its_own(tmp_path: Path) -> None:
    task = spec("linear")
    for seed in (0, 1):
        weak = ceiling("pixels", Weak("tokens"))
        card = weak.card.model_copy(update={"role": "model"})
        seeded = {"training_seed": seed, "checkpoint_sha256": str(seed) * 64}
        named = replace(weak, card=card, name="mine", bundled=False, **seeded)
        score(named, task, tmp_path)
    ((_, rows),) = make_board([tmp_path], task).groups
    mean, *seeds = rows
    assert mean.model == "mine (mean of 2 training seeds)" and [row.rank for row in seeds] == ["seed", "seed"]
    cell = mean.cells["miou_sem"]
    assert cell.low is not None and cell.high is not None and cell.low < cell.value < cell.high


def test_the_gate_compares_corpus_metrics(tmp_path: Path) -> None:
    """A golden value above the measured one fails the gate even though no row contains it."""
    golden = read_golden(bundled("leaderboards") / "golden" / "coco-detection" / "oracle.json")
    assert set(golden.corpus) == set(golden.metrics)
    assert not check_itself(golden, get_task("coco-detection").metrics)
    values = {name: metric.value for name, metric in golden.metrics.items()}
    measured = SimpleNamespace(metrics={name: SimpleNamespace(value=value) for name, value in values.items()})
    assert not compare_corpus(golden, measured)  # type: ignore[arg-type]
    measured.metrics["ap_mask"].value -= 1e-3
    measured.metrics["ar100_box"].value = None
    levels = {finding.message.split(":")[0]: finding.level for finding in compare_corpus(golden, measured)}  # type: ignore[arg-type]
    assert levels == {"ap_mask": "fail", "ar100_box": "fail"}
    measured.metrics["ap_mask"].value += 2e-3
    assert [f.level for f in compare_corpus(golden, measured) if "ap_mask" in f.message] == ["warn"]  # type: ignore[arg-type]

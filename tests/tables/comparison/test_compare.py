"""Two methods on the same images: joins, tests against scipy's, and what the command line shows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from results_with_values import RESULTS, made
from scipy.stats import bootstrap, permutation_test
from typer.testing import CliRunner
from typer.testing import Result as Call

import ocl_bench
from ocl_bench.cli import app
from ocl_bench.core.errors import UsageError
from ocl_bench.core.paths import bundled
from ocl_bench.metrics.statistics import RESAMPLES
from ocl_bench.metrics.statistics_of_set import Statistic, two_level_statistic_difference
from ocl_bench.results.record import Result, read_rows
from ocl_bench.tables.comparison.compare import compare, corrected, difference, measure
from ocl_bench.tables.comparison.methods import find_method, tasks_of
from ocl_bench.tables.comparison.pairing import pair


class Methods:
    """The committed results of one task, by method."""

    def __init__(self, task: str) -> None:
        self.task = task

    def __getitem__(self, name: str) -> list[Result]:
        (found,) = find_method([RESULTS], name, self.task).values()
        return found


@pytest.fixture(scope="module")
def clevrtex() -> Methods:
    return Methods("clevrtex")


@pytest.fixture(scope="module")
def stuff() -> Methods:
    return Methods("cocostuff-segmentation")


def column(result: Result, metric: str) -> np.ndarray:
    assert result.rows_path is not None
    return read_rows(result.rows_path).groupby("id")[metric].mean().to_numpy()


def mean(values: np.ndarray) -> Statistic:
    return lambda weights: weights @ values / weights.sum(axis=1)


def test_training_seeds_are_one_method_in_order(clevrtex: Methods) -> None:
    assert [one.model.training_seed for one in clevrtex["dias"]] == [0, 1, 2]
    assert {one.model.name for one in clevrtex["dias"]} == {"dias", "dias:1", "dias:2"}


def test_means_over_images_are_the_two_level_bootstrap(clevrtex: Methods) -> None:
    found = difference(clevrtex["dias"], clevrtex["slot-attention"], "mbo_fg")
    sides = [[column(one, "mbo_fg") for one in clevrtex[name]] for name in ("dias", "slot-attention")]
    assert found == two_level_statistic_difference(*([mean(row) for row in side] for side in sides), sides[0][0].size)
    assert corrected([measure(pair(clevrtex["dias"], clevrtex["slot-attention"], "mbo_fg"))])[0].verdict == "better"


def test_one_result_meets_every_training_seed(clevrtex: Methods) -> None:
    found = difference(clevrtex["dias"], clevrtex["grid"], "ari")
    values = [one.value("ari") or 0 for one in clevrtex["dias"]]
    assert found.mean == pytest.approx(np.mean(values) - (clevrtex["grid"][0].value("ari") or 0))
    assert found.seed_signs == (1, 1, 1)
    assert difference(clevrtex["grid"], clevrtex["dias"], "ari").mean == pytest.approx(-found.mean)


def test_seeds_are_joined_by_number(clevrtex: Methods) -> None:
    dias, other = clevrtex["dias"], clevrtex["slot-attention"]
    assert difference(dias[1:], other, "ari") == difference(dias[1:], other[1:], "ari")
    one = difference(dias, other[:1], "ari")
    assert one.seed_signs == (1,), "one trained seed is not met by three"
    assert corrected([measure(pair(dias, other[:1], "ari"), permute=False)])[0].verdict == "undecided"
    with pytest.raises(UsageError, match="no training seed in common"):
        difference(dias[:2], [*other[2:], *other[2:]], "ari")


def test_corpus_metrics_and_two_metrics_of_one_task(stuff: Methods) -> None:
    encoder, random = stuff["encoder-boxes"], stuff["random-features"]
    found = difference(encoder, random, "miou_sem_kmeans")
    values = [one.value("miou_sem_kmeans") for one in (*encoder, *random)]
    assert found.mean == pytest.approx(values[0] - values[1])  # type: ignore[operator]
    assert found.low < found.mean < found.high
    mixed = difference(stuff["grid"], random, "miou_sem", "miou_sem_kmeans")
    assert mixed.mean == pytest.approx((stuff["grid"][0].value("miou_sem") or 0) - (values[1] or 0))


def test_other_protocols_images_and_metrics_are_refused(clevrtex: Methods, stuff: Methods, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"grid .*: task is cocostuff-segmentation, not clevrtex"):
        difference(clevrtex["dias"], stuff["grid"], "ari")
    with pytest.raises(UsageError, match="grid: no metric 'jf'"):
        difference(clevrtex["grid"], clevrtex["grid"], "jf")
    ours = made(tmp_path, "a", [0.1, 0.2])
    for field, value in (("ids_sha256", "0" * 64), ("revision", "r2"), ("kind", "official"), ("limit", 3)):
        other = made(tmp_path, "b", [0.1, 0.2], data={field: value})
        with pytest.raises(UsageError, match=rf"data\.{field} is {value}"):
            difference([ours], [other], "mbo_fg")
    older = made(tmp_path, "b", [0.1, 0.2], task={"hash": "0" * 64})
    with pytest.raises(UsageError, match=r"task hash is 00000000, not \w+ \(another version"):
        difference([ours], [older], "mbo_fg")
    signature = ours.task.signature.replace("void:drop", "void:count").replace("mask:attention", "mask:decoder")
    older = made(tmp_path, "b", [0.1, 0.2], task={"hash": "0" * 64, "signature": signature})
    with pytest.raises(UsageError, match="signature has void:count, not void:drop;"):
        difference([ours], [older], "mbo_fg")
    assert older.rows_path is not None
    older = made(tmp_path, "b", [0.1, 0.2])
    older.rows_path.unlink()  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="per-image rows are missing"):
        difference([ours], [older], "mbo_fg")


def test_heads_that_were_fitted_on_other_images_are_refused(tmp_path: Path) -> None:
    fit = {"head": "linear", "kind": "official", "split": "train", "revision": "2012", "ids_sha256": "0" * 64}
    fit |= {"samples": 1464, "left_out": [], "chosen": {"learning_rate": 0.1}}
    ours = made(tmp_path, "a", [0.1, 0.2], fit=fit)
    assert compare([ours], [made(tmp_path, "b", [0.1, 0.2], fit={**fit, "chosen": {"learning_rate": 1.0}})])
    for field, value in (("ids_sha256", "1" * 64), ("revision", "2007"), ("split", "trainval"), ("samples", 9)):
        other = made(tmp_path, "b", [0.1, 0.2], fit=fit | {field: value})
        with pytest.raises(UsageError, match=rf"b .*: fit\.{field} is {value}, that of a is {fit[field]};"):
            difference([ours], [other], "mbo_fg")
    unknown = dict.fromkeys(fit) | {"head": "linear", "kind": "official"}
    older = made(tmp_path, "old", [0.1, 0.2], fit=unknown)
    assert difference([ours], [older], "mbo_fg").mean == 0, "format 1 does not say and joins any"
    seeds = [made(tmp_path, "a", [0.1, 0.2], seed, fit=fit | {"samples": seed}) for seed in range(2)]
    with pytest.raises(UsageError, match=r"a:1 .*fit\.samples is 1, that of a is 0"):
        difference([older], seeds, "mbo_fg")


def test_one_side_is_one_method_with_another_checkpoint_for_each_seed(tmp_path: Path) -> None:
    a, b = ([made(tmp_path, name, [0.1, 0.2], seed) for seed in range(3)] for name in "ab")
    with pytest.raises(UsageError, match=r"b:1 .*model\.name is not of a"):
        difference([a[0], b[1]], b, "mbo_fg")
    with pytest.raises(UsageError, match=r"a:1 .*model\.options are {'slots': 3}"):
        difference([a[0], made(tmp_path, "a", [0.1, 0.2], 1, model={"options": {"slots": 3}})], b, "mbo_fg")
    copied = made(tmp_path, "a", [0.1, 0.2], 2, model={"checkpoint_sha256": a[0].model.checkpoint_sha256})
    with pytest.raises(UsageError, match=r"a:2 .*model\.checkpoint_sha256 is also that of a"):
        difference([a[0], copied], b, "mbo_fg")


def test_rows_that_are_not_those_of_the_result_are_refused(tmp_path: Path) -> None:
    a, b = made(tmp_path, "a", [0.1, 0.2]), made(tmp_path, "b", [0.1, 0.2])
    better = made(tmp_path / "other", "a", [0.9, 0.9])
    shutil.copy(better.rows_path, a.rows_path)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"a .*per-image rows are not those that the result recorded"):
        difference([a], [b], "mbo_fg")


def test_validation_images_never_stand_in_for_the_cards_split(tmp_path: Path) -> None:
    """`ocl-bench tune` writes results of the validation split into the same folders."""
    made(tmp_path, "a", [0.9, 0.9], data={"split": "val", "ids_sha256": "0" * 64})
    assert find_method([tmp_path], "a", "clevrtex") == {}
    made(tmp_path, "a", [0.1, 0.2], data={"split": "test"})
    assert len(find_method([tmp_path], "a", "clevrtex")) == 1, "--split with the card's own split"


def test_an_edited_name_or_supervision_of_a_bundled_model_is_refused(tmp_path: Path) -> None:
    results = bundled("leaderboards") / "results" / "clevrtex"
    for name in ("slot-attention.json", "slot-attention.parquet"):
        shutil.copy(results / name, tmp_path / name)
    path, other = tmp_path / "slot-attention.json", str(results / "dias.json")
    (found,) = compare(str(path), other)
    assert not any("noise seeds" in remark for remark in found.remarks)
    content = json.loads(path.read_text())
    for field, value in (("supervision", "masks"), ("name", "grid")):
        path.write_text(json.dumps({**content, "model": {**content["model"], field: value}}))
        with pytest.raises(UsageError, match=rf"model.{field} .* was the file edited\? evaluate again"):
            compare(str(path), other)


def test_other_noise_seeds_are_remarked(tmp_path: Path) -> None:
    a, b = made(tmp_path, "a", [0.1, 0.2], 0), made(tmp_path, "b", [0.2, 0.4], 0, seeds={"noise": [5]})
    (found,) = compare([a], [b], metrics="mbo_fg")
    assert "noise seeds differ: 0 and 5; a value over other seeds has another error" in found.remarks


def test_by_hand(tmp_path: Path) -> None:
    """Four images: differences +.1, +.1, 0, -.05 and one that the second method could not be scored on."""
    a = made(tmp_path, "a", [0.6, 0.5, 0.4, 0.3, 0.9])
    b = made(tmp_path, "b", [0.5, 0.4, 0.4, 0.35, np.nan])
    (one,) = compare([a], [b])
    assert (one.n, one.n_failed, one.n_without_value) == (4, 0, 1)
    assert (one.value_a, one.value_b) == (pytest.approx(0.45), pytest.approx(0.4125))
    assert one.difference == pytest.approx(0.0375)
    assert (one.wins, one.ties, one.losses) == (2, 1, 1)
    assert one.effect_size == pytest.approx(0.0375 / np.std([0.1, 0.1, 0, -0.05], ddof=1))
    assert (one.verdict, one.separable) == ("undecided", False)
    assert one.p_permutation == pytest.approx(0.5, abs=0.02), "4 of the 8 sign patterns are as far from 0"


def test_failed_images_are_counted(tmp_path: Path) -> None:
    failed = {"failed": [{"id": "i02", "error": "broken"}], "scored": 2}
    a, b = made(tmp_path, "a", [0.6, 0.5, 0.4]), made(tmp_path, "b", [0.5, 0.4, np.nan], counts=failed)
    (one,) = compare([a], [b])
    assert (one.n, one.n_failed, one.n_without_value) == (2, 1, 0)


def test_two_checkpoints_are_scipys_bootstrap_and_permutation(clevrtex: Methods) -> None:
    pairs = pair(clevrtex["dias"][:1], clevrtex["fps-features"], "mbo_fg")
    one = measure(pairs)
    values = column(clevrtex["dias"][0], "mbo_fg") - column(clevrtex["fps-features"][0], "mbo_fg")
    expected = bootstrap((values,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(0))
    assert (one.low, one.high) == (expected.confidence_interval.low, expected.confidence_interval.high)
    other = permutation_test(
        (values,), np.mean, permutation_type="samples", vectorized=True, n_resamples=4000, batch=500, rng=1
    )
    assert one.p_permutation == pytest.approx(other.pvalue, abs=0.01)
    assert one.smallest_detectable == pytest.approx(2.8072 * values.std(ddof=1) / 512**0.5, rel=1e-3)


def test_the_other_way_round_is_the_negative(clevrtex: Methods) -> None:
    ours, theirs = (measure(pair(clevrtex[a], clevrtex[b], "ari")) for a, b in (("dias", "grid"), ("grid", "dias")))
    assert ours.difference == pytest.approx(-theirs.difference)
    assert (ours.low, ours.high) == (pytest.approx(-theirs.high), pytest.approx(-theirs.low))
    assert (ours.wins, ours.ties) == (theirs.losses, theirs.ties)
    assert ours.p_permutation == theirs.p_permutation


def test_the_rule_needs_seeds_signs_and_holm(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    base = list(generator.uniform(0.2, 0.4, 30))
    a = [made(tmp_path, "a", [v + 0.1 for v in base], seed) for seed in range(3)]
    b = [made(tmp_path, "b", [v + 0.01 * seed for v in base], seed) for seed in range(3)]
    (one,) = compare(a, b)
    assert (one.verdict, one.separable, one.seed_signs) == ("better", True, (1, 1, 1))
    assert corrected([measure(pair(b, a, "mbo_fg"))])[0].verdict == "worse"
    (two,) = compare(a[:2], b[:2])
    assert (two.verdict, two.separable, two.enough_seeds) == ("undecided", True, False)
    many = corrected([measure(pair(a, b, "mbo_fg"), permute=False)] * 60)
    assert {x.verdict for x in many} == {"undecided"}, "60 tests at the smallest p of 2000 resamples"
    own = made(tmp_path, "own", base, None)
    assert compare(a, [own])[0].verdict == "undecided", "one checkpoint of a user, whatever its seed"
    floor = made(tmp_path, "floor", base, None, model={"role": "floor"})
    assert compare(a, [floor])[0].verdict == "better", "a floor is no draw of a training"
    turned = [*b[:2], made(tmp_path, "b", [v + 0.2 for v in base], 2)]
    assert compare(a, turned)[0].verdict == "undecided", "one pair of seeds says otherwise"


def test_corpus_metrics_use_all_images_and_swap_them(stuff: Methods) -> None:
    detection = Methods("coco-detection")
    found = measure(pair(detection["grid"], detection["single-slot"], "ar100_mask"))
    assert found.n == 256 and found.wins is None and found.permutations == RESAMPLES
    assert found.value_a == pytest.approx(detection["grid"][0].value("ar100_mask"))
    assert found.p_permutation is not None and found.p_bootstrap is not None
    assert (found.p_permutation < 0.05) == (found.p_bootstrap < 0.05)
    scores = pair(detection["grid"], detection["single-slot"], "ap_mask")
    assert scores.swappable() is None and scores.n == 256
    assert pair(stuff["grid"], stuff["single-slot"], "miou_sem").swappable() is None, "clusters have no names"


def test_swapping_everything_is_the_same_comparison() -> None:
    """The mixture with nothing swapped is each method itself, and means over images give the sign-flip test."""
    voc = Methods("voc-segmentation")
    (both,) = pair(voc["encoder"], voc["random-features"], "miou_sem").swappable() or []
    halves = np.kron(np.eye(2, dtype=np.int64), np.ones((1, 256), dtype=np.int64))
    assert both(halves) == pytest.approx(
        [voc[n][0].value("miou_sem") for n in ("encoder", "random-features")], abs=1e-9
    )


def test_names_seeds_and_files_are_found(tmp_path: Path) -> None:
    assert "clevrtex" in tasks_of([RESULTS], "dinosaur")
    assert [one.model.training_seed for one in Methods("clevrtex")["dias:1"]] == [1]
    assert [one.model.name for one in Methods("clevrtex")["dias:0"]] == ["dias"]
    with pytest.raises(UsageError, match=r"unknown model 'dia': no model and no result .*did you mean dias"):
        compare("dia", "grid", "clevrtex")
    with pytest.raises(UsageError, match=r"^unknown model 'slotmach': .*; did you mean slotmatch"):
        compare("grid", "slotmach:1")
    with pytest.raises(UsageError, match=r"^dias:9: none of its results is ranked in .*; name their files"):
        compare("grid", "dias:9")
    with pytest.raises(UsageError, match=r"^dias:9: no ranked result on task 'clevrtex' .*eval --model dias:9 --task"):
        compare("grid", "dias:9", "clevrtex")
    made(tmp_path, "a", [0.1, 0.2], data={"limit": 2})
    assert find_method([tmp_path], "a", "clevrtex") == {}
    first = made(tmp_path, "a", [0.1, 0.2])
    made(tmp_path / "others", "a", [0.3, 0.2], model={"options": {"slots": 3}})
    with pytest.raises(UsageError, match=r"a: several results with different options.*clevrtex/a-0\.json or .*others/"):
        find_method([tmp_path, tmp_path / "others"], "a", "clevrtex")
    newer = made(tmp_path / "n", "a", [0.3, 0.4], identity={"created": "2030-01-01T00:00:00+00:00"})
    (found,) = find_method([tmp_path, tmp_path / "n"], "a", "clevrtex").values()
    assert [one.path for one in found] == [newer.path], "of equal runs the newest"
    made(tmp_path / "m", "a", [0.1, 0.2], task={"name": "mine"})
    (tmp_path / "m" / "clevrtex").rename(tmp_path / "m" / "mine")
    with pytest.raises(UsageError, match="task mine is not one of the suite; pass --task with the path of its card"):
        compare("a", "a", results=[tmp_path / "m"])
    made(tmp_path / "m", "a", [0.1, 0.2])
    assert [one.task for one in compare("a", "a", results=[tmp_path / "m"])] == ["clevrtex"], "whose card is known"
    (one,) = compare(str(first.path), str(newer.path))
    assert one.difference == pytest.approx(-0.2)


def call(*arguments: Any) -> Call:
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


def test_the_verb_prints_a_table_and_draws(tmp_path: Path) -> None:
    picture = tmp_path / "out.png"
    found = call(
        "dias", "grid", "--task", "clevrtex", "--metrics", "ari,mbo_fg", "--results", RESULTS, "--out", picture
    )
    assert found.exit_code == 0, found.output
    for text in ("dias minus grid", "ari ↑", "mbo_fg ↑", "dias better", "p swap", "+++", "supervision in training"):
        assert text in found.stdout, text
    assert str(picture) in found.stderr
    with Image.open(picture) as drawn:
        width, height = drawn.size
    assert width == 1280 and height > 200


def test_the_verb_prints_one_json_document() -> None:
    found = call("dias:1", "grid", "-t", "clevrtex", "--results", RESULTS, "--json")
    assert found.exit_code == 0, found.output
    (one,) = json.loads(found.stdout)["comparisons"]
    assert (one["a"], one["metric"], one["n"]) == ("dias:1", "mbo_fg", 512)
    assert one["verdict"] == "undecided" and one["separable"] is True
    assert one["low"] < one["difference"] < one["high"]


def test_several_tasks_are_named_before_they_are_compared() -> None:
    found = call("dias:1", "grid", "--results", RESULTS, "--metrics", "no_such_metric")
    lines = [line for line in found.stderr.splitlines() if line.startswith("comparing")]
    assert len(lines) == 1 and "dias:1 and grid on" in lines[0] and "clevrtex, " in lines[0] and "--task" in lines[0]
    assert "comparing" not in call("dias:1", "grid", "-t", "clevrtex", "--results", RESULTS, "--json").stderr


def test_the_verb_refuses_in_one_line() -> None:
    found = call("dias", "nothing", "-t", "clevrtex", "--results", RESULTS)
    assert (found.exit_code, found.stdout) == (2, "")
    assert found.stderr.startswith("error: unknown model 'nothing': no model") and found.stderr.count("\n") == 1


def test_compare_is_a_public_name() -> None:
    assert ocl_bench.compare is compare and "compare" in dir(ocl_bench)


def test_comparisons_print_as_a_table_that_fits_a_terminal_and_a_notebook() -> None:
    found = ocl_bench.compare("dias", "slot-attention", "clevrtex", ["mbo_fg", "ari"], results=[RESULTS])
    text = str(found)
    lines = text.splitlines()
    assert lines[0] == "dias minus slot-attention, positive is better for dias"
    assert lines[1].split("  ")[0] == "task" and lines[1].endswith("verdict")
    assert [line.split()[1] for line in lines[2:4]] == ["mbo_fg", "ari"]
    assert f"{found[0].value_a:.3f}" in lines[2] and f"{found[0].difference:+.3f} [" in lines[2]
    assert max(map(len, lines[:4])) <= 80
    assert repr(found) == text and str(found[0]).splitlines()[2].split() == lines[2].split()
    html = found._repr_html_()
    assert html.count("<tr>") == 3 and "dias minus slot-attention" in html and "<table>" in found[0]._repr_html_()
    assert str(found[:0]) == "no comparisons" and isinstance(found, list)


def test_a_lead_of_checkpoints_alone_is_marked_in_print(tmp_path: Path) -> None:
    high, low = (made(tmp_path, name, [value] * 20) for name, value in (("high", 0.8), ("low", 0.2)))
    for pair_of, lead in ((([high], [low]), "ahead *"), (([low], [high]), "behind *")):
        text = str(ocl_bench.compare(*pair_of, "clevrtex", "mbo_fg", results=[tmp_path]))
        assert text.splitlines()[2].endswith(lead) and "needs 3 training seeds" in text

import json
from pathlib import Path

import numpy as np
import pytest

from ocl_bench.comparison import difference, load_methods
from ocl_bench.errors import UsageError
from ocl_bench.paths import bundled
from ocl_bench.results import Result, read_rows
from ocl_bench.statistics import two_level_difference

RESULTS = bundled("leaderboards") / "results"


@pytest.fixture(scope="module")
def clevrtex() -> dict[str, list[Result]]:
    return load_methods(RESULTS / "clevrtex")


@pytest.fixture(scope="module")
def stuff() -> dict[str, list[Result]]:
    return load_methods(RESULTS / "cocostuff-segmentation")


def column(result: Result, metric: str) -> np.ndarray:
    assert result.rows_path is not None
    return read_rows(result.rows_path).groupby("id")[metric].mean().to_numpy()


def test_training_seeds_are_one_method_in_order(clevrtex: dict[str, list[Result]]) -> None:
    assert [one.model.training_seed for one in clevrtex["dias"]] == [0, 1, 2]
    assert {one.model.name for one in clevrtex["dias"]} == {"dias", "dias:1", "dias:2"}


def test_means_over_images_are_the_two_level_bootstrap(clevrtex: dict[str, list[Result]]) -> None:
    found = difference(clevrtex["dias"], clevrtex["slot-attention"], "mbo_fg")
    sides = [[column(one, "mbo_fg") for one in clevrtex[name]] for name in ("dias", "slot-attention")]
    assert found == two_level_difference(*sides)
    assert found.verdict == "better"


def test_one_result_meets_every_training_seed(clevrtex: dict[str, list[Result]]) -> None:
    found = difference(clevrtex["dias"], clevrtex["grid"], "ari")
    values = [one.value("ari") or 0 for one in clevrtex["dias"]]
    assert found.mean == pytest.approx(np.mean(values) - (clevrtex["grid"][0].value("ari") or 0))
    assert found.seed_signs == (1, 1, 1)
    assert difference(clevrtex["grid"], clevrtex["dias"], "ari").mean == pytest.approx(-found.mean)


def test_seeds_are_joined_by_number(clevrtex: dict[str, list[Result]]) -> None:
    dias, other = clevrtex["dias"], clevrtex["slot-attention"]
    assert difference(dias[1:], other, "ari") == difference(dias[1:], other[1:], "ari")
    one = difference(dias, other[:1], "ari")
    assert one.seed_signs == (1,) and one.verdict == "undecided", "one trained seed is not met by three"
    with pytest.raises(UsageError, match="no training seed in common"):
        difference(dias[:2], [*other[2:], *other[2:]], "ari")


def test_corpus_metrics_and_two_metrics_of_one_task(stuff: dict[str, list[Result]]) -> None:
    encoder, random = stuff["encoder-boxes"], stuff["random-features"]
    found = difference(encoder, random, "miou_sem_kmeans")
    values = [one.value("miou_sem_kmeans") for one in (*encoder, *random)]
    assert found.mean == pytest.approx(values[0] - values[1])  # type: ignore[operator]
    assert found.low < found.mean < found.high
    mixed = difference(stuff["grid"], random, "miou_sem", "miou_sem_kmeans")
    assert mixed.mean == pytest.approx((stuff["grid"][0].value("miou_sem") or 0) - (values[1] or 0))


def test_other_protocols_images_and_metrics_are_refused(
    clevrtex: dict[str, list[Result]], stuff: dict[str, list[Result]], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="dias and grid: results of different protocols"):
        difference(clevrtex["dias"], stuff["grid"], "ari")
    with pytest.raises(UsageError, match="grid: no metric 'jf'"):
        difference(clevrtex["grid"], clevrtex["grid"], "jf")
    content = json.loads(clevrtex["grid"][0].to_json())
    content["data"]["ids_sha256"] = "0" * 64
    (tmp_path / "grid.json").write_text(json.dumps(content))
    elsewhere = load_methods(tmp_path)["grid"]
    with pytest.raises(UsageError, match="different images"):
        difference(clevrtex["dias"], elsewhere, "ari")
    content["data"]["ids_sha256"] = clevrtex["grid"][0].data.ids_sha256
    (tmp_path / "grid.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match="rows of its result are missing"):
        difference(clevrtex["dias"], load_methods(tmp_path)["grid"], "ari")

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from clevrtex_tree import SCENES, write_scenes
from typer.testing import CliRunner

from ocl_bench.cards.names import get_task
from ocl_bench.cli import app
from ocl_bench.core.errors import UsageError
from ocl_bench.core.paths import bundled
from ocl_bench.evaluation.evaluate import evaluate
from ocl_bench.metrics import METRICS
from ocl_bench.tables.gate.golden import Golden, Tolerance, golden_files, read_golden
from ocl_bench.tables.gate.recording import make_golden
from ocl_bench.tables.gate.regression import check_itself, compare_images, regress

METRIC_NAMES = get_task("clevrtex").metrics


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A baseline with one exact and one tolerant golden file, measured by the real corridor."""
    baseline = tmp_path_factory.mktemp("golden")
    write_scenes(baseline / "scenes")
    exact, loose = Tolerance(absolute=1e-9), Tolerance(absolute=1e-3)
    make_golden("clevrtex", "patch-oracle", baseline, limit=SCENES, scenes="scenes", tolerance=exact, reason="first")
    make_golden("clevrtex", "kmeans", baseline, limit=SCENES, scenes="scenes", tolerance=loose, reason="first")
    return baseline


@pytest.fixture
def baseline(made: Path, tmp_path: Path) -> Path:
    """A copy whose golden files a test may change."""
    for name in ("patch-oracle", "kmeans"):
        (tmp_path / "clevrtex").mkdir(exist_ok=True)
        (tmp_path / "clevrtex" / f"{name}.json").write_text((made / "clevrtex" / f"{name}.json").read_text())
    (tmp_path / "scenes").symlink_to(made / "scenes")
    return tmp_path


def _edit(baseline: Path, change: Callable[[dict[str, Any]], None], model: str = "patch-oracle") -> None:
    path = baseline / "clevrtex" / f"{model}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_unchanged_is_green_and_fast(baseline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCL_BENCH_DATA", str(baseline / "no-such-folder"))
    start = time.perf_counter()
    report = regress(baseline)
    assert (report.failed, report.findings) == (False, [])
    assert [one.golden for one in report.checked] == ["clevrtex/kmeans", "clevrtex/patch-oracle"]
    assert report.lines()[-1] == "green: no regression (2 golden files)"
    assert time.perf_counter() - start < 20


@pytest.mark.parametrize("metric", METRIC_NAMES)
def test_one_flipped_sign_in_a_metric_is_red(baseline: Path, metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = METRICS[metric].function

    def flipped(*arguments: Any, **keywords: Any) -> Any:
        value, valid = original(*arguments, **keywords)
        return -value, valid

    monkeypatch.setitem(METRICS, metric, dataclasses.replace(METRICS[metric], function=flipped))
    report = regress(baseline)
    assert report.failed
    red = [finding for finding in report.findings if finding.level == "fail"]
    assert {finding.golden for finding in red} == {"clevrtex/patch-oracle", "clevrtex/kmeans"}
    assert all(
        finding.message.startswith(f"{metric}: ") and "CLEVRTEX_full_000000" in finding.message for finding in red
    )


def test_a_value_that_is_not_the_mean_of_its_rows_is_red(baseline: Path) -> None:
    _edit(baseline, lambda content: content["metrics"]["ari"].update(value=content["metrics"]["ari"]["value"] + 1e-6))
    messages = [f.message for f in regress(baseline).findings if f.level == "fail"]
    assert any("ari: stored value" in m and "is not the mean of its own rows" in m for m in messages)


def test_values_and_rows_raised_together_are_red(baseline: Path) -> None:
    """One image's row and the mean are inflated consistently: chance could explain it, the gate still sees it."""

    def inflate(content: dict[str, Any]) -> None:
        content["rows"]["mbo_fg"][3] += 0.06
        content["metrics"]["mbo_fg"]["value"] = float(np.mean(content["rows"]["mbo_fg"]))

    _edit(baseline, inflate, "kmeans")
    report = regress(baseline)
    (finding,) = report.findings
    assert finding.level == "fail"
    assert "lies above what is measured" in finding.message
    assert "first differing image CLEVRTEX_full_000003" in finding.message


def test_accept_needs_a_reason_and_writes_it(baseline: Path) -> None:
    def inflate(content: dict[str, Any]) -> None:
        content["rows"]["ari"] = [value + 0.1 for value in content["rows"]["ari"]]
        content["metrics"]["ari"]["value"] = float(np.mean(content["rows"]["ari"]))

    (baseline / "clevrtex" / "kmeans.json").unlink()
    _edit(baseline, inflate)
    with pytest.raises(UsageError, match="--why"):
        regress(baseline, accept=True, reason=" ")
    assert regress(baseline).failed
    report = regress(baseline, accept=True, reason="the inflated ari was wrong")
    assert not report.failed and len(report.accepted) == 1
    golden = read_golden(baseline / "clevrtex" / "patch-oracle.json")
    assert [entry.reason for entry in golden.accepted] == ["first", "the inflated ari was wrong"]
    assert set(golden.accepted[-1].changes) == {"ari"}
    assert regress(baseline).findings == []


def test_candidate_results_are_compared_instead(baseline: Path, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    keywords: dict[str, Any] = {"data_root": baseline / "scenes", "results": folder, "progress": False}
    evaluate("patch-oracle", "clevrtex", **keywords)
    report = regress(baseline, candidate=folder)
    (finding,) = report.findings
    assert finding.golden == "clevrtex/kmeans" and "has no result" in finding.message
    evaluate("kmeans", "clevrtex", noise_seeds=(0,), **keywords)
    assert regress(baseline, candidate=folder).findings == []
    evaluate("kmeans", "clevrtex", limit=SCENES - 1, **{**keywords, "results": tmp_path / "few"})
    assert regress(baseline, candidate=tmp_path / "few").failed


def test_another_protocol_is_red(baseline: Path) -> None:
    _edit(baseline, lambda content: content["task"].update(hash="0" * 64))
    report = regress(baseline)
    assert report.failed and "another protocol" in report.findings[0].message


def test_a_gate_without_golden_files_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no golden file"):
        regress(tmp_path)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda c: c["rows"]["ari"].pop(), "rows.ari has 5 values for 6 ids"),
        (lambda c: c["rows"].pop("ari"), "rows has"),
        (lambda c: c["tolerance"].update(absolute=-1), "tolerance.absolute"),
        (lambda c: c.update(note="x"), "note"),
        (lambda c: c["recipe"].update(scenes="../elsewhere"), "recipe.scenes"),
        (lambda c: c["ids"].__setitem__(1, c["ids"][0]), "ids holds an id twice"),
    ],
)
def test_a_damaged_golden_file_names_file_and_field(
    baseline: Path, change: Callable[[dict[str, Any]], None], field: str
) -> None:
    _edit(baseline, change)
    with pytest.raises(UsageError, match=r"patch-oracle\.json") as caught:
        regress(baseline)
    assert field in str(caught.value)


def _golden(values: list[float | None], *, absolute: float = 1e-9, relative: float = 0, direction: int = 1) -> Golden:
    finite = [value for value in values if value is not None]
    return Golden.model_validate(
        {
            "task": {"name": "t", "version": 1, "hash": "h"},
            "model": "m",
            "recipe": {"limit": len(values), "noise_seeds": [0]},
            "made": {"data_revision": "", "checkpoint_sha256": "", "suite_version": "", "commit": "", "versions": {}},
            "tolerance": {"absolute": absolute, "relative": relative},
            "metrics": {"x": {"value": float(np.mean(finite)), "direction": direction}},
            "ids": [f"i{k}" for k in range(len(values))],
            "rows": {"x": values},
            "accepted": [{"reason": "r", "created": "", "commit": "", "changes": {}}],
        }
    )


def _measured(values: list[float]) -> pandas.DataFrame:
    return pandas.DataFrame({"x": values}, index=[f"i{k}" for k in range(len(values))])


def _levels(golden: Golden, values: list[float]) -> list[str]:
    return [finding.level for finding in compare_images(golden, _measured(values))]


def test_direction_and_tolerance_decide() -> None:
    then: list[float | None] = [0.5] * 30
    assert _levels(_golden(then, absolute=0.02), [0.49] * 30) == []
    assert _levels(_golden(then, absolute=0.005), [0.49] * 30) == ["fail"]
    assert _levels(_golden(then, absolute=0.005, relative=0.03), [0.49] * 30) == []
    assert _levels(_golden(then, absolute=0.005), [0.51] * 30) == ["warn"]
    assert _levels(_golden(then, absolute=0.005, direction=-1), [0.51] * 30) == ["fail"]
    assert _levels(_golden(then, absolute=0.005, direction=-1), [0.49] * 30) == ["warn"]


def test_a_fall_on_all_images_excludes_zero_in_the_message() -> None:
    (finding,) = compare_images(_golden([0.5, 0.6, 0.7, 0.8]), _measured([0.4, 0.5, 0.6, 0.7]))
    assert "excludes 0" in finding.message and "i0: 0.5 -> 0.4 (4 differ)" in finding.message


def test_an_exact_golden_is_exact_on_each_image() -> None:
    (finding,) = compare_images(_golden([0.5, 0.6, 0.7, 0.8]), _measured([0.5, 0.7, 0.6, 0.8]))
    assert finding.level == "fail" and "i1: 0.6 -> 0.7" in finding.message
    assert _levels(_golden([0.5, 0.6, 0.7, 0.8], absolute=1e-3), [0.5, 0.7, 0.6, 0.8]) == []
    assert _levels(_golden([0.5, 0.6]), [0.5, 0.6 + 1e-12]) == []


def test_images_that_lose_their_value_or_vanish_are_red() -> None:
    golden = _golden([0.5, 0.6, None])
    assert _levels(golden, [0.5, 0.6, np.nan]) == []
    assert _levels(golden, [0.5, np.nan, np.nan]) == ["fail"]
    assert _levels(golden, [0.5, 0.6, 0.55]) == ["fail"]
    assert compare_images(golden, _measured([0.5, 0.6]))[0].message.startswith(
        "1 of 3 images were not scored, first i2"
    )
    assert compare_images(golden, _measured([0.5, 0.6, 0.7]).rename(columns={"x": "y"}))[0].level == "fail"


def test_a_metric_removed_from_the_golden_file_is_red() -> None:
    golden = _golden([0.5, 0.6])
    assert check_itself(golden, ["x"]) == []
    assert [finding.level for finding in check_itself(golden, ["x", "y"])] == ["fail"]


def test_the_verb_ends_with_the_exit_code_of_the_verdict(baseline: Path) -> None:
    (baseline / "clevrtex" / "kmeans.json").unlink()
    outcome = CliRunner().invoke(app, ["regress", "--baseline", str(baseline)])
    assert outcome.exit_code == 0 and outcome.stdout.endswith("green: no regression (1 golden file)\n")
    _edit(baseline, lambda content: content["metrics"]["ari"].update(value=0.99))
    outcome = CliRunner().invoke(app, ["regress", "--baseline", str(baseline), "--json"])
    report = json.loads(outcome.stdout)
    assert outcome.exit_code == 1 and report["failed"] is True
    assert all(finding["golden"] == "clevrtex/patch-oracle" for finding in report["findings"])
    outcome = CliRunner().invoke(app, ["regress", "--baseline", str(baseline), "--accept"])
    assert outcome.exit_code == 2 and "--why" in outcome.stderr


def test_the_committed_golden_files_agree_with_themselves_and_with_their_cards() -> None:
    for path in golden_files(bundled("leaderboards") / "golden"):
        golden = read_golden(path)
        task = get_task(golden.task.name)
        assert golden.task.hash == task.hash
        assert check_itself(golden, task.metrics) == []
        assert path.relative_to(bundled("leaderboards") / "golden").as_posix() == f"{golden.name}.json"

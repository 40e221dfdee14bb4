"""Results in Python: what print and notebooks show, tables of many results, comparisons among them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

import ocl_bench
from ocl_bench.core.errors import UsageError
from ocl_bench.core.paths import bundled

COMMITTED = bundled("leaderboards") / "results"


@pytest.fixture(scope="module")
def results() -> ocl_bench.Results:
    return ocl_bench.load_results(COMMITTED, task="clevrtex")


def test_print_shows_a_table_with_interval_and_protocol() -> None:
    result = ocl_bench.read_result(COMMITTED / "clevrtex" / "dias.json")
    first, head, main, *others, signature = str(result).splitlines()
    assert first.startswith("dias, training seed 0 on clevrtex v1 (embedded data, revision embedded-r1-")
    assert head.split() == ["metric", "value", "[95", "%", "interval]", "n"]
    low, high = result.metrics["mbo_fg"].ci95 or (0.0, 0.0)
    assert main.split() == ["mbo_fg", f"{result.value('mbo_fg'):.3f}", f"[{low:.3f},", f"{high:.3f}]", "512"]
    assert len(others) == len(result.metrics) - 1 and result.task.signature in signature
    assert repr(result) == str(result) and len(str(result)) < 1000


def test_print_says_why_a_result_is_not_ranked(tmp_path: Path) -> None:
    for suffix in ("json", "parquet"):
        shutil.copy(COMMITTED / "clevrtex" / f"dias.{suffix}", tmp_path)
    result = ocl_bench.read_result(tmp_path / "dias.json")
    limited = result.model_copy(update={"data": result.data.model_copy(update={"limit": 16})})
    assert "not ranked: limited to 16 samples" in str(limited)
    assert "not ranked: limited to 16 samples" in limited._repr_html_()
    assert "not ranked" not in str(result)


def test_a_notebook_escapes_the_name_of_a_model() -> None:
    result = ocl_bench.read_result(COMMITTED / "clevrtex" / "dias.json")
    named = result.model_copy(update={"model": result.model.model_copy(update={"name": "<b>x</b>"})})
    assert "<b>" not in named._repr_html_() and "&lt;b&gt;" in named._repr_html_()
    assert "<b>" not in ocl_bench.Results([named])._repr_html_()


def test_the_rows_of_a_result_are_a_frame_and_have_its_mean() -> None:
    result = ocl_bench.read_result(COMMITTED / "clevrtex" / "dias.json")
    rows = result.to_frame()
    assert len(rows) == 512 and rows["mbo_fg"].mean() == pytest.approx(result.value("mbo_fg"), abs=1e-12)


def test_latex_has_a_line_for_each_metric() -> None:
    result = ocl_bench.read_result(COMMITTED / "clevrtex" / "dias.json")
    latex = result.to_latex()
    assert rf"mbo\_fg & {result.metrics['mbo_fg']} & 512 \\" in latex
    comments, table = latex.split("\\begin{tabular}")
    assert comments.isascii() and all(line.startswith("% ") for line in comments.splitlines())
    for said in (
        result.model.name,
        "clevrtex v1",
        "signature: crop:",
        result.identity.key,
        "512 of 512",
        "95 % bootstrap",
    ):
        assert said in comments and said not in table


def test_filters_take_patterns_and_functions(results: ocl_bench.Results) -> None:
    dias = results.filter(model="dias")
    assert {result.model.training_seed for result in dias} == {0, 1, 2} and isinstance(dias[:2], ocl_bench.Results)
    floors = results.filter(role="floor", supervision="none")
    assert floors and all(result.model.role == "floor" for result in floors)
    better = results.filter(lambda result: (result.value("mbo_fg") or 0) > 0.69, model="dias*")
    assert {result.model.name for result in better} == {
        result.model.name for result in dias if (result.value("mbo_fg") or 0) > 0.69
    }
    assert len(results.filter(task="movi*")) == 0


def test_a_frame_has_a_row_for_each_result_and_metric(results: ocl_bench.Results) -> None:
    frame = results.to_frame()
    assert len(frame) == sum(len(result.metrics) for result in results)
    seeds = frame[(frame["model"] == "dias") & frame["main"]].set_index("training_seed")["value"]
    for result in results.filter(model="dias"):
        assert seeds[result.model.training_seed] == result.value("mbo_fg")


def test_two_models_of_the_results_are_compared(results: ocl_bench.Results) -> None:
    (found,) = results.compare("dias", "slot-attention")
    (expected,) = ocl_bench.compare("dias", "slot-attention", "clevrtex", results=[COMMITTED])
    assert (found.difference, found.low, found.high) == (expected.difference, expected.low, expected.high)
    assert found.training_seeds_a == (0, 1, 2)
    with pytest.raises(UsageError, match=r"model 'dyas' is not among these results; they have .*dias"):
        results.compare("dyas", "dias")


def test_a_missing_folder_and_a_damaged_file_are_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere: not a folder of results"):
        ocl_bench.load_results(tmp_path / "nowhere")
    (tmp_path / "clevrtex").mkdir()
    (tmp_path / "clevrtex" / "broken.json").write_text("{")
    with pytest.raises(UsageError, match=r"broken\.json: "):
        ocl_bench.load_results(tmp_path)
    assert len(ocl_bench.load_results(tmp_path, task="coco-discovery")) == 0


def test_the_examples_of_the_page_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    first, second = re.findall(r"```python\n(.*?)```", (root / "docs" / "result-schema.md").read_text(), re.DOTALL)
    exec(first)
    assert "mbo_fg" in capsys.readouterr().out
    exec(second)
    assert capsys.readouterr().out.split()[-1] in ("better", "worse", "undecided")

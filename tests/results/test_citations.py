"""What to cite: each paper once, the data set of a task also where its card refers to another paper."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ocl_bench.cards.names import model_names, task_names
from ocl_bench.cli import app
from ocl_bench.core.errors import UsageError
from ocl_bench.core.paths import bundled
from ocl_bench.results.citations import citations


def keys(names: list[str]) -> list[str]:
    return [re.split("[{,]", entry)[1] for entry in citations(names).entries]


def test_suite_model_protocol_and_data_set_are_cited_once() -> None:
    assert keys(["dias", "clevrtex-dias-v3"]) == ["ocl-bench", "dias2025", "clevrtex2021"]
    assert keys(["voc-segmentation"]) == ["ocl-bench", "voc2010", "sbd2011", "dinov22024"]
    assert set(keys(["imagenet-knn"])) >= {"imagenet2015", "dino2021"}


def test_floors_without_a_paper_have_nothing_to_cite() -> None:
    assert keys(["grid"]) == ["ocl-bench"]


def test_every_card_has_what_it_cites() -> None:
    found = citations(["all"])
    assert found.unknown == ()
    assert all(entry.count("{") == entry.count("}") for entry in found.entries)
    assert len(set(found.entries)) == len(found.entries)
    for name in task_names():
        assert len(citations([name]).entries) > 1, name
    assert set(citations(model_names()).entries) <= set(found.entries)


def test_the_verb_prints_entries_alone_and_refuses_unknown_names() -> None:
    printed = CliRunner().invoke(app, ["cite", "grid", "slotcon"])
    assert printed.exit_code == 0 and "slotcon" not in printed.stderr
    assert [line for line in printed.stdout.splitlines() if line.startswith("@")] == [
        "@software{ocl-bench,",
        "@inproceedings{slotcon2022,",
    ]
    assert CliRunner().invoke(app, ["cite", "dyas"]).exit_code == 2
    with pytest.raises(UsageError, match=r"dyas.*dias"):
        citations(["dyas"])


def test_a_paper_that_is_not_known_is_said(tmp_path: Path) -> None:
    card = tmp_path / "mine.yaml"
    text = (Path(__file__).parents[2] / "tasks" / "clevrtex.yaml").read_text()
    card.write_text(re.sub("reference: .*", 'reference: "Nobody et al., arXiv:2999.00001; the head is ours"', text))
    found = citations([str(card)])
    assert found.unknown == ("Nobody et al., arXiv:2999.00001",) and "@inproceedings{clevrtex2021," in found.entries[1]
    printed = CliRunner().invoke(app, ["cite", str(card)])
    assert printed.stderr == "no BibTeX here for: Nobody et al., arXiv:2999.00001\n"


def test_a_name_of_ones_own_has_the_suite_to_cite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A card without a paper, and a name that only results have; a name that nothing has gets no far-fetched advice."""
    made = CliRunner().invoke(app, ["new", "task", "mine", "--out", str(tmp_path / "card")])
    assert made.exit_code == 0, made.output
    result = bundled("leaderboards") / "results" / "clevrtex" / "grid.json"
    text = result.read_text().replace('"name": "clevrtex"', '"name": "mine"')
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "grid.json").write_text(text)
    monkeypatch.setenv("OCL_BENCH_RESULTS", str(tmp_path))
    for name in (str(tmp_path / "card" / "mine.yaml"), "mine"):
        printed = CliRunner().invoke(app, ["cite", name])
        assert printed.exit_code == 0 and printed.stdout.count("@") == 1, printed.output
        assert printed.stderr.startswith(f"{name} names no paper: cite the suite")
    with pytest.raises(UsageError, match="no card 'my-task'; see"):
        citations(["my-task"])

"""The lines of `list` say what the checked cards say, although they are read without checking them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocl_bench.cards.names import get_card, get_task, matching, model_names, task_names
from ocl_bench.cards.overview import model_line, task_line
from ocl_bench.models.loading import get_model
from ocl_bench.results.published import load_published


def test_lines_of_tasks_are_those_of_their_cards() -> None:
    for name in task_names():
        line, card, published = task_line(name), get_task(name), load_published(name)
        expected = (card.family, card.title, card.protocol.input, len(published.rows) if published else 0)
        assert (line.family, line.title, line.input, line.published) == expected, name
        assert line.data == "embedded"


def test_official_data_are_found_below_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "movi_c").mkdir()
    monkeypatch.setenv("OCL_BENCH_DATA", str(tmp_path))
    assert (task_line("movi-c").data, task_line("movi-e").data) == ("both", "embedded")


def test_lines_of_models_are_those_of_their_cards() -> None:
    for name in model_names():
        line, card = model_line(name), get_card(name)
        assert (line.role, line.title, line.families or card.families) == (card.role, card.title, card.families), name
        assert line.paper in card.paper and (line.paper == "") == (card.paper == "")
        needs_none = card.role in ("floor", "ceiling")
        assert line.bundled == ("weights" if card.weights else "none needed" if needs_none else "no weights")


@pytest.mark.parametrize("name", ["dias", "kmeans-features", "kmeans-features-label-free", "grid"])
def test_supervision_and_parameters_are_those_of_the_model_that_runs(name: str) -> None:
    line, model = model_line(name), get_model(name)
    assert line.supervision == model.card.supervision
    assert line.parameters in (None, model.parameters)


def test_matching_keeps_the_order_of_the_known_names() -> None:
    assert matching(["movi-*", "davis"], ["ovis", "movi-e", "movi-c", "davis"]) == ["movi-e", "movi-c", "davis"]

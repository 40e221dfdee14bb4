"""From names to cards; every wrong name or file is one line with a remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ocl_bench.cards.model import ModelCard
from ocl_bench.cards.names import find_card, get_card, get_task, model_names, task_names
from ocl_bench.cards.task import TaskSpec
from ocl_bench.core.errors import UsageError


def test_bundled_names_resolve() -> None:
    assert {"clevrtex", "clevrtex-camo", "clevrtex-ood", "clevrtex-dias-v3"} <= set(task_names())
    assert {"single-slot", "grid", "random", "kmeans", "oracle", "patch-oracle"} <= set(model_names())
    for name in task_names():
        assert get_task(name).name == name
    assert isinstance(find_card("clevrtex"), TaskSpec) and isinstance(find_card("grid"), ModelCard)


def test_a_task_card_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nversion: 1\nfamily: discovery\ndata: {reader: folder}\nprotocol: {}\n")
    with pytest.raises(UsageError, match=r"mine.yaml: field 'metrics'"):
        get_task(path)
    path.write_text(path.read_text() + "metrics: [ari]\nmain: ari\nsurprise: 1\n")
    with pytest.raises(UsageError, match=r"field 'surprise'.*remove it"):
        get_task(str(path))
    path.write_text(path.read_text().replace("surprise: 1\n", ""))
    task = get_task(path)
    assert task.name == "mine" and get_task(task) is task


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: get_task("clevrtx"), "unknown task 'clevrtx'; did you mean clevrtex"),
        (lambda: get_task("../secrets"), "unknown task"),
        (
            lambda: get_task("my-holidays"),
            "unknown task 'my-holidays'; see `ocl-bench list tasks`, or give the path of a card",
        ),
        (
            lambda: get_card("my_holidays"),
            "unknown model 'my_holidays'; see `ocl-bench list models`, or give path.py:build",
        ),
        (lambda: find_card("clevr"), "no card 'clevr'; did you mean clevrtex"),
    ],
)
def test_mistakes_are_one_line(call: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)

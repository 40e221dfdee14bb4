"""The page about the embedded world prints what the committed results say."""

from __future__ import annotations

import re
from statistics import mean

import pytest
from places import ROOT

from ocl_bench.cards.names import get_card, get_task
from ocl_bench.results.record import read_result
from ocl_bench.results.store import find

PAGE = (ROOT / "docs" / "embedded-world.md").read_text(encoding="utf-8")
ROWS = [line.split(" | ") for line in PAGE.splitlines() if line.startswith("| `")]
AGAIN = "run: python benchmarks/embedded_world.py --write docs/embedded-world.md"


def values_of(task: str) -> dict[str, float]:
    """The main metric of each method, mean over its training seeds."""
    main, found = get_task(task).main, {}
    for result in find([ROOT / "leaderboards" / "results"], task):
        value = result.metrics[main].value
        if value is not None:
            found.setdefault(result.model.name.partition(":")[0], []).append(value)
    return {name: mean(values) for name, values in found.items()}


def is_floor_of(name: str, model: str, task: str) -> bool:
    """Whether a method is a floor that saw no other labels than the model."""
    allowed = {"none", supervision_of(model, task)}
    return get_card(name).role == "floor" and supervision_of(name, task) in allowed


def supervision_of(name: str, task: str) -> str:
    return read_result(ROOT / "leaderboards" / "results" / task / f"{name}.json").model.supervision


def named(cell: str) -> tuple[str, float] | None:
    """The name and the number in a cell."""
    match = re.match(r"`([^`]+)` (\S+)", cell.strip())
    return (match[1], float(match[2])) if match else None


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]} {row[1]}")
def test_each_row_is_that_of_the_results(row: list[str]) -> None:
    model, task = row[0].strip("| `"), re.match(r"`([^`]+)`", row[1])[1]
    values = values_of(task)
    number = float(row[5].strip("* "))
    assert number == pytest.approx(values[model], abs=6e-4), AGAIN
    for cell in (row[3], row[4], row[7].strip(" |")):
        if shown := named(cell):
            assert shown[1] == pytest.approx(values[shown[0]], abs=6e-4), AGAIN
    floors = {name: value for name, value in values.items() if is_floor_of(name, model, task)}
    assert named(row[3])[0] in floors
    low = float(re.search(r"\[([-+.0-9]+),", row[6])[1])
    if low:  # an end that is printed as 0.000 may lie on either side
        assert row[5].strip().startswith("**") == (low > 0)
    assert low <= 0 or number > max(floors.values())


def test_the_page_has_every_paper_and_names_what_is_not_above() -> None:
    assert {row[0].strip("| `") for row in ROWS} >= {"dias", "odis", "ibot", "slotcon", "slotcontrast", "slotmatch"}
    below = {(row[0].strip("| `"), re.match(r"`([^`]+)`", row[1])[1]) for row in ROWS if "**" not in row[5]}
    summary = next(line for line in PAGE.splitlines() if "stand above every floor. Not above:" in line)
    said = re.findall(r"`([^`]+)` on `([^`]+)`", summary)
    assert below == set(said), AGAIN

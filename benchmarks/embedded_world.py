"""Where does the bundled model of each paper stand between the floors and the ceiling? Nothing is evaluated here.

    python benchmarks/embedded_world.py                                   # prints the table
    python benchmarks/embedded_world.py --write docs/embedded-world.md    # and writes it into the page

The numbers are those of leaderboards/results. A model is above a floor if the 95 % interval of the difference, over
training seeds and images, lies above 0. The table gives the difference to the floor that comes closest. A floor that
saw other labels than the model is no floor of it: clusters of an encoder that learnt from boxes do not stand below a
model without labels.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from worlds import replace_table

from ocl_bench.cards.names import get_card, get_task
from ocl_bench.core.paths import bundled
from ocl_bench.families import find_family
from ocl_bench.results.record import Result
from ocl_bench.results.store import find
from ocl_bench.tables.comparison.compare import Comparison, measure
from ocl_bench.tables.comparison.pairing import pair

MODELS = {
    "dias": ("clevrtex", "coco-discovery", "voc-discovery", "coco-detection", "coco-recognition"),
    "dias-label-free": ("clevrtex", "movi-c"),
    "odis": ("imagenet-knn", "imagenet-knn-boxes", "imagenet-knn-crop", "imagenet-knn-blackout", "voc-segmentation"),
    "ibot": ("imagenet-knn", "imagenet-knn-boxes", "imagenet-knn-crop", "imagenet-knn-blackout", "voc-segmentation"),
    "slotcon": ("cocostuff-segmentation", "voc-segmentation", "ade20k-segmentation", "coco-discovery"),
    "slotcontrast": ("movi-c", "ytvis-2021", "davis-2017"),
    "slotmatch": ("movi-c", "ytvis-2021", "davis-2017"),
    "slotcontrast-clevrer": ("clevrer-prediction", "clevrer-contact", "clevrer-reasoning"),
    "dias-clevrer": ("clevrer-prediction", "clevrer-contact", "clevrer-reasoning"),
}
"""The bundled model of each paper, and iBOT, the baseline of ODIS: the cards that it is made for."""

UNTRAINED = ("odis-random", "slotcon-random", "random-features")
"""Networks that were never trained. They are floors too."""

Named = dict[str, list[Result]]
"""Results of a task by the name of the method, one for each training seed."""


@dataclass(frozen=True)
class Line:
    """A model on a task.

    Attributes:
        closest: comparison with the floor whose difference has the least end in favour of the model.
        untrained: name of the best untrained network and its value, if the task has one.
        ceiling: the same of the ceiling: masks made of whole patches where the task has that row, else the truth.
    """

    model: str
    task: str
    closest: Comparison
    untrained: tuple[str, float] | None
    ceiling: tuple[str, float] | None

    @property
    def is_above(self) -> bool:
        """Whether the model is above every floor, by the interval."""
        return self.closest.low is not None and surely(self.closest) > 0


def surely(one: Comparison) -> float:
    """By how much the model is better than the floor at the lower end of the interval, or at all where it has none.

    A comparison counts differences in favour of its first side, also of errors.
    """
    return one.difference if one.low is None else one.low


def by_method(task: str) -> Named:
    """The committed results of a task."""
    found: Named = {}
    for result in find([bundled("leaderboards") / "results"], task):
        found.setdefault(result.model.name.partition(":")[0], []).append(result)
    return found


def line_of(model: str, task: str) -> Line:
    """The place of a model between the floors and the ceiling of a task."""
    results, card = by_method(task), get_task(task)

    # Features without prototypes have no value where a card matches one prototype to each class.
    every = {name: results[name][0].metrics[card.main].value for name in sorted(results)}
    values = {name: value for name, value in every.items() if value is not None}
    allowed = {"none", results[model][0].model.supervision}
    floors = [
        name for name in values if get_card(name).role == "floor" and results[name][0].model.supervision in allowed
    ]
    pairs = (pair(results[model], results[floor], card.main, card=card) for floor in floors)
    compared = [measure(one, permute=False) for one in pairs]
    sign = 1 if compared[0].direction > 0 else -1
    untrained = [(name, values[name]) for name in floors if name in UNTRAINED]
    ceilings = [(name, values[name]) for name in ("patch-oracle", "oracle") if name in values]
    return Line(
        model,
        task,
        min(compared, key=surely),
        max(untrained, key=lambda one: sign * one[1]) if untrained else None,
        ceilings[0] if ceilings else None,
    )


def lines() -> list[Line]:
    """One line for each model and task."""
    return [line_of(model, task) for model, tasks in MODELS.items() for task in tasks]


def table(found: Sequence[Line]) -> str:
    """The lines as Markdown, and below them the models that are not above every floor."""
    head = "| model | task | metric | closest floor | untrained | model | difference to that floor | ceiling |\n"
    rows = "".join(_row(line) for line in found)
    below = [f"`{line.model}` on `{line.task}`" for line in found if not line.is_above]
    count = f"{len(found) - len(below)} of {len(found)} stand above every floor."
    return f"{head}|---|---|---|---|---|---|---|---|\n{rows}\n{count} Not above: {', '.join(below) or 'none'}."


def _row(line: Line) -> str:
    """A line of the table; bold where the model is above every floor."""
    one, mark = line.closest, "**" if line.is_above else ""
    interval = "no interval" if one.low is None else f"[{one.low:+.3f}, {one.high:+.3f}]"
    cells: Iterable[str] = (
        f"`{line.model}`",
        f"`{line.task}` ({find_family(get_task(line.task).family).name})",
        f"`{one.metric}`",
        _named((one.b, one.value_b)),
        _named(line.untrained),
        f"{mark}{one.value_a:.3f}{mark}",
        f"{mark}{one.difference:+.3f}{mark} {interval}",
        _named(line.ceiling),
    )
    return f"| {' | '.join(cells)} |\n"


def _named(entry: tuple[str, float] | None) -> str:
    """A name with its value."""
    return "" if entry is None else f"`{entry[0]}` {entry[1]:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="page whose part embedded-world is replaced")
    arguments = parser.parse_args()
    text = table(lines())
    print(text)
    if arguments.write:
        replace_table(arguments.write, "embedded-world", text)


if __name__ == "__main__":
    main()

"""Processes that are killed at random moments, that run at the same time, and ranks that lose one of them."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from layout_trees import save_image, save_palette
from malformed import rows_of
from sandbox import Ending, cli, files_of, run, start
from targets import (
    LABELS,
    SHAPE,
    TWO_RESULTS,
    card,
    evaluation,
    forget_training,
    head_card,
    imagenet,
    results,
    stand_in,
    train_small,
    without_data,
)

from ocl_bench.data.rendered import RECORD

TOGETHER = 8
"""Processes that run at the same time."""
Act = Callable[[], None]


@dataclass(frozen=True)
class Work:
    """Something that takes a while, and what it leaves.

    Attributes:
        name: as the table shows it.
        write: writes the input into the folder `given`.
        act: does the work in that folder.
        left: what must be equal to what an undisturbed run leaves.
        first: commands that run before.
    """

    name: str
    write: Callable[[Path], None]
    act: Act
    left: Callable[[Path], object]
    first: tuple[Act, ...] = ()


@dataclass
class Trial:
    """What became of one trial. faults: empty where all is well."""

    name: str
    killed: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


def images(given: Path, count: int = 150) -> None:
    """Enough images for three shards."""
    for number in range(count):
        save_image(given / f"data/images/a{number:03d}.png", SHAPE, number)
        save_palette(given / f"data/masks/a{number:03d}.png", LABELS)
    card(given, "folder")


def more_imagenet(given: Path) -> None:
    imagenet(given)
    for path in [*(given / "data").glob("*/*/*.JPEG")]:
        for number in range(10):
            shutil.copy(path, path.with_stem(f"{path.stem}_{number}"))


def numbers_of(given: Path) -> object:
    """Rows, and the metrics of every result."""
    files = sorted(given.glob("results/task/*/*.json"))
    return rows_of(given), {path.name: json.loads(path.read_text())["metrics"] for path in files}


def scenes_of(given: Path) -> object:
    """Numbers and rendered files, without the records of size and times that lie beside these."""
    rendered = files_of(given / "cache/stand-ins")
    return numbers_of(given), {
        name: content for name, content in rendered.items() if ".tmp" not in name and Path(name).name != RECORD
    }


def training_of(given: Path) -> object:
    """The log and the exported weights, bit for bit."""
    return (given / "out/log.jsonl").read_text(), (given / "out/encoder.safetensors").read_bytes()


def store_of(given: Path) -> object:
    """The training, and the arrays of scenes that it keeps in the cache."""
    kept = files_of(given / "cache/training")
    return training_of(given), {name: content for name, content in kept.items() if name.endswith(".npy")}


def boards_of(given: Path) -> object:
    return {name: content for name, content in files_of(given / "out").items() if not name.startswith(".")}


_PIXELS = evaluation("pixels", "-o", "cell=4")
_BOARD = cli("leaderboard", "--results", "results", "--out", "out")
_TRAINED = (train_small(), forget_training)

WORKS = (
    Work("eval", images, evaluation(), numbers_of),
    Work("head", head_card, _PIXELS, numbers_of),
    Work("bank", more_imagenet, _PIXELS, numbers_of),
    Work("rendering", partial(stand_in, samples=12), without_data(), scenes_of),
    Work("train", lambda given: None, train_small(), training_of, _TRAINED),
    Work("training store", lambda given: None, train_small(), store_of),
    Work("leaderboard", results, _BOARD, boards_of, TWO_RESULTS),
)


def prepared(work: Work, folder: Path) -> Path:
    """The input of a work, with what its first commands leave. Returns the folder `given`."""
    given = folder / "given"
    (given / "out").mkdir(parents=True)
    run(lambda: work.write(given), given).check("cannot be written")
    for act in work.first:
        run(act, given).check("a first command fails")
    return given


def alone(work: Work, given: Path, place: Path) -> tuple[object, float]:
    """What an undisturbed run leaves, and how long it takes by the clock."""
    shutil.copytree(given, place / "given")
    ending = run(work.act, place / "given")
    ending.check(f"{work.name}: fails undisturbed")
    return work.left(place / "given"), ending.waited


def kills(work: Work, count: int, seed: int, folder: Path) -> Iterator[Trial]:
    """Kill a work one to three times at random moments; then the same command has to finish it."""
    draw = random.Random(f"{seed}/{work.name}")
    given = prepared(work, folder / "valid")
    expected, duration = alone(work, given, folder / "alone")
    trial = Trial(work.name)
    for number in range(count):
        place = folder / f"trial-{number}"
        shutil.copytree(given, place / "given")
        for _ in range(draw.randint(1, 3)):
            ending = run(work.act, place / "given", kill_after=draw.uniform(0, duration))
            trial.killed += ending.code == -9
            if ending.code not in (0, -9):
                trial.faults.append(f"after a kill: exit code {ending.code}: {ending.last}")
        trial.faults += finished(work, place / "given", expected)
        shutil.rmtree(place)
        yield trial
        trial = Trial(work.name)


def finished(work: Work, given: Path, expected: object) -> list[str]:
    """Run the command to its end, and compare what it leaves."""
    ending = run(work.act, given)
    if ending.code != 0 or ending.faults():
        return [f"exit code {ending.code}: {ending.last} {ending.faults()}"]
    return [] if work.left(given) == expected else ["leaves something else than an undisturbed run"]


# At the same time


def at_once(acts: list[Act], given: Path) -> list[Ending]:
    """Run these at the same time in one folder."""
    running = [start(act, given, number=number) for number, act in enumerate(acts)]
    return [one.end() for one in running]


def all_well(endings: list[Ending]) -> list[str]:
    return [f"exit code {one.code}: {one.last} {one.faults()}" for one in endings if one.code != 0 or one.faults()]


def equal_work(work: Work, folder: Path) -> Trial:
    """The same command in all processes."""
    trial = Trial(f"{work.name}, all the same")
    given = prepared(work, folder / "valid")
    expected, _ = alone(work, given, folder / "alone")
    trial.faults += all_well(at_once([work.act] * TOGETHER, given))
    if not trial.faults and work.left(given) != expected:
        trial.faults.append("leaves something else than one process")
    return trial


def different_work(name: str, work: Work, acts: list[Act], folder: Path) -> Trial:
    """Commands that share data and caches, but no result; each must leave what it leaves alone."""
    trial = Trial(name)
    given = prepared(work, folder / "valid")
    shutil.copytree(given, folder / "alone/given")
    for act in acts:
        run(act, folder / "alone/given").check(f"{name}: fails alone")
    trial.faults += all_well(at_once(acts, given))
    if not trial.faults and work.left(given) != work.left(folder / "alone/given"):
        trial.faults.append("leaves something else than one after the other")
    return trial


def boards_while_evaluating(folder: Path) -> Trial:
    """Boards are built while results are written: they end well, and the last one is that of all results."""
    trial = Trial("leaderboard while eval")
    work = Work("leaderboard", results, _BOARD, boards_of)
    given = prepared(work, folder / "valid")
    evaluations = [*TWO_RESULTS, *(evaluation("grid", "-o", f"rows={k}", task="clevrtex") for k in (2, 4))]
    trial.faults += all_well(at_once([act for one in evaluations for act in (one, _BOARD)], given))
    shutil.copytree(given, folder / "alone/given")
    shutil.rmtree(folder / "alone/given/out")
    for place in (given, folder / "alone/given"):
        run(_BOARD, place).check("leaderboard fails")
    if boards_of(given) != boards_of(folder / "alone/given"):
        trial.faults.append("leaves something else than one after the other")
    return trial


def trainings_with_one_folder(folder: Path) -> Trial:
    """One of them trains, the others say so; or they come later, and find it finished."""
    trial = Trial("trainings with one --out")
    work = WORKS[4]
    given = prepared(work, folder / "valid")
    expected, _ = alone(work, given, folder / "alone")
    endings = at_once([work.act] * TOGETHER, given)
    codes = sorted(one.code if one.code is not None else 99 for one in endings)
    refused = [one for one in endings if one.code == 2]
    if codes[0] != 0 or codes[-1] not in (0, 2) or any("another training writes" not in one.last for one in refused):
        trial.faults += [f"exit code {one.code}: {one.last}" for one in endings]
    elif work.left(given) != expected:
        trial.faults.append("leaves something else than one training")
    return trial


def together(folder: Path, only: Sequence[str] = ()) -> Iterator[Trial]:
    """Every kind of work in several processes at the same time. only: numbers of kinds."""
    several = [evaluation("grid", "-o", f"rows={1 + k}") for k in range(TOGETHER)]
    limited = [evaluation("pixels", "-o", "cell=4", "--limit", str(1 + k % 2)) for k in range(TOGETHER)]
    scenes = [without_data("grid", "-o", f"rows={1 + k}") for k in range(TOGETHER)]
    steps: tuple[Callable[[Path], Trial], ...] = (
        partial(equal_work, WORKS[0]),
        partial(different_work, "eval, all different", WORKS[0], several),
        boards_while_evaluating,
        partial(different_work, "head, one for all", WORKS[1], limited),
        partial(different_work, "bank, one for all", WORKS[2], limited),
        partial(different_work, "rendering, one for all", WORKS[3], scenes),
        trainings_with_one_folder,
    )
    for number, step in enumerate(steps):
        if only and str(number) not in only:
            continue
        start_time = time.monotonic()
        trial = step(folder / str(number))
        trial.seconds = time.monotonic() - start_time
        yield trial
        shutil.rmtree(folder / str(number))


# Ranks

SILENCE = 3.0
"""Seconds without a sign of life after which the ranks of an evaluation give up here; a minute in earnest."""
BOUND = 60.0


def as_rank(rank: int, port: int, act: Act) -> Act:
    """One of two ranks, with the variables that a launcher sets."""

    def ranked() -> None:
        from ocl_bench.evaluation import ranks

        ranks._SILENCE = SILENCE
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in names.items()})
        act()

    return ranked


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def two_ranks(act: Act, given: Path, victim: int | None = None, moment: float = 0.0) -> list[Ending]:
    """Both ranks of a work; one of them is killed after `moment` seconds."""
    port = free_port()
    running = [start(as_rank(rank, port, act), given, moment if rank == victim else None, rank) for rank in range(2)]
    order = running if victim in (None, 0) else running[::-1]  # the one that is killed first
    endings = [one.end() for one in order]
    return endings if order is running else endings[::-1]


def lost_ranks(work: Work, count: int, seed: int, folder: Path) -> Iterator[Trial]:
    """Kill one of two ranks; the other has to say so in one line, and both then finish the work."""
    draw = random.Random(f"{seed}/{work.name} in ranks")
    given = prepared(work, folder / "valid")
    shutil.copytree(given, folder / "alone/given")
    began = time.monotonic()
    for ending in two_ranks(work.act, folder / "alone/given"):
        ending.check(f"{work.name}: fails undisturbed in two ranks")
    duration, expected = time.monotonic() - began, work.left(folder / "alone/given")
    for number in range(count):
        place, victim = folder / f"trial-{number}", draw.randrange(2)
        shutil.copytree(given, place / "given")
        trial, moment = Trial(f"{work.name} in two ranks"), draw.uniform(0, duration)
        endings = two_ranks(work.act, place / "given", victim, moment)
        other = endings[1 - victim]
        trial.killed, trial.seconds = int(endings[victim].code == -9), max(0.0, other.waited - moment)
        if trial.killed and (other.code not in (0, 2) or other.faults() or trial.seconds > BOUND):
            trial.faults.append(f"the other rank: exit code {other.code}: {other.last} {other.faults()}")
        trial.faults += all_well(two_ranks(work.act, place / "given"))
        if not trial.faults and work.left(place / "given") != expected:
            trial.faults.append("leaves something else than undisturbed ranks")
        yield trial
        shutil.rmtree(place)


def ranks(count: int, seed: int, folder: Path) -> Iterator[Trial]:
    """Evaluations and trainings in two ranks that lose one of them."""
    yield from lost_ranks(WORKS[0], count, seed, folder / "eval")
    yield from lost_ranks(WORKS[4], count, seed, folder / "train")

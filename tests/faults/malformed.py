"""Damaged inputs of every kind, one at a time, each in a process of its own."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow
import pyarrow.parquet
from generators import EXECUTED, damages_for
from sandbox import WRITABLE, Ending, files_of, run
from targets import Target


@dataclass(frozen=True)
class Case:
    """One damaged input and how its command ended. faults: empty where all is well."""

    target: str
    damage: str
    file: str
    seed: int
    ending: Ending
    faults: tuple[str, ...]


def prepare(target: Target, folder: Path) -> Path:
    """The valid input of a target, with what its first commands leave. Returns the folder `given`."""
    given = folder / "given"
    (given / "out").mkdir(parents=True)
    run(lambda: target.write(given), given).check("cannot be written")
    for act in target.first:
        run(act, given).check("a first command fails")
    return given


def rows_of(given: Path) -> dict[str, object]:
    """The columns of all rows below `results` by file."""
    files = sorted((given / "results").rglob("*.parquet")) if (given / "results").is_dir() else []
    # Bytes, because pyarrow refuses a name that is not UTF-8.
    tables = {path.name: path.read_bytes() for path in files if ".work" not in str(path)}
    read = pyarrow.parquet.read_table
    return {name: read(pyarrow.BufferReader(content)).to_pydict() for name, content in tables.items()}


def candidates(given: Path, target: Target) -> list[Path]:
    """The files that may be damaged, in a fixed order."""
    found = {path for pattern in target.files for path in given.glob(pattern) if path.is_file()}
    return sorted(path for path in found if path.stat().st_size)


def cases(target: Target, count: int, seed: int, folder: Path, only: Sequence[str] = ()) -> Iterator[Case]:
    """Damage a target `count` times. The damages are gone through in a random order, each on a random file.

    only: names of damages; all by default.
    """
    given = prepare(target, folder / "valid")
    good = run_copy(target, given, folder / "good")
    if good.faults() or good.code != 0:
        raise AssertionError(f"{target.name}: fails undamaged: {good}")
    expected = rows_of(folder / "good/given")
    draw = random.Random(f"{seed}/{target.name}")
    pending: list[tuple[str, str]] = []
    for number in range(count):
        if not pending:
            kinds = {path.suffix: path for path in candidates(given, target)}
            pending = [(kind, act.__name__) for kind, path in kinds.items() for act in damages_for(path)]
            pending = [pair for pair in pending if not only or pair[1] in only]
            draw.shuffle(pending)
        kind, name = pending.pop()
        own_seed = draw.randrange(2**32)
        yield one_case(target, given, folder / f"case-{number}", kind, name, own_seed, expected)


def run_copy(target: Target, given: Path, place: Path) -> Ending:
    shutil.copytree(given, place / "given", symlinks=True)
    return run(target.act, place / "given")


def one_case(
    target: Target, given: Path, place: Path, kind: str, name: str, seed: int, expected: dict[str, object]
) -> Case:
    """Damage a copy of the input and run the command on it."""
    outside, copy = place / "outside", place / "given"
    outside.mkdir(parents=True)
    (outside / "secret").write_text("secret")
    shutil.copytree(given, copy, symlinks=True)
    draw = random.Random(seed)
    path = draw.choice([path for path in candidates(copy, target) if path.suffix == kind])
    act = next(act for act in damages_for(path) if act.__name__ == name)
    file = str(path.relative_to(copy))
    act(path, draw, outside)
    inputs = files_of(copy, without=WRITABLE)
    ending = run(target.act, copy)
    faults = [*ending.faults(), *traces(place, copy, inputs)]
    # A damaged scene of the cache may also be counted as a failed sample, with the remedy.
    named = ending.code == 1 and "it is rendered again" in ending.err
    # A pipe is not replaced, because writing refuses everything that is not a regular file; it is named instead.
    refused = name == "pipe_in_its_place" and ending.code == 2 and "not a regular file" in ending.err
    # Nor is a folder among the results, which are the user's; in the cache it is.
    of_user = name == "folder_in_its_place" and file.startswith("results/")
    refused = refused or (of_user and ending.code == 2 and "is a folder" in ending.err)
    if target.same and ending.code != 0 and not (named or refused):
        faults.append(f"a damaged cache ends the run with exit code {ending.code}")
    elif target.same and not (named or refused):
        found = rows_of(copy)
        if any(found.get(name) != rows for name, rows in expected.items()):
            faults.append("rows of a damaged cache")
    shutil.rmtree(place)
    return Case(target.name, name, file, seed, ending, tuple(faults))


def traces(place: Path, copy: Path, inputs: dict[str, bytes]) -> list[str]:
    """What a command left where it had nothing to write."""
    found = []
    if (place / "outside" / EXECUTED).exists():
        found.append("code of the file was executed")
    if files_of(copy, without=WRITABLE) != inputs:
        found.append("an input was changed")
    if any(files_of(place / "home")):
        found.append("something was written in the home folder")
    strangers = set(os.listdir(place)) - {"outside", "given", "home", "tmp"}
    strangers = {name for name in strangers if not name.startswith("printed-")}
    return [*found, *(f"{name} was written" for name in sorted(strangers))]


def malformed(
    targets: Sequence[Target], count: int, seed: int, folder: Path, only: Sequence[str] = ()
) -> Iterator[Case]:
    """`count` cases in all, spread evenly over the targets; if there are fewer, the seed draws the targets."""
    drawn = random.Random(seed).sample(list(targets), len(targets))
    for number, target in enumerate(drawn):
        share = count // len(targets) + (number < count % len(targets))
        if share:
            yield from cases(target, share, seed, folder / str(number), only)
            shutil.rmtree(folder / str(number))

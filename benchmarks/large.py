"""Evaluations of the size of official sets, on files that are made here: time, memory, and what a kill leaves.

    python benchmarks/large.py --out large.json                             # every part at full size: 5 GB of disk
    python benchmarks/large.py --out large.json --parts coco ytvis          # some parts
    python benchmarks/large.py --out large.json --write docs/at-scale.md    # puts the tables into the page
    python benchmarks/large.py --out toy.json --scale 0.002                 # does it run at all?

Each part is written as soon as it is done, and a part that is there is not measured again. Parts:

1. `neighbours`: a bank of ImageNet's size on disk, written as an evaluation writes it, opened and searched.
2. `bank`: the features of 8,192 images in ImageNet's layout, extracted by `eval`; killed half-way, and resumed.
3. `coco`, `ytvis`: `eval` of a model that costs nothing on files in the official layouts; killed and resumed.
4. `ranks`: `dias` on clevrtex by one process and by two ranks, with one thread each.

The script stops unless the rows of a run that was killed, or of two ranks, are those of the undisturbed one. Times are
what passed, and seconds of processors, which other work on the machine hardly stretches.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

from large_parts import PARTS, Sizes
from large_runs import Result
from worlds import show_tables

from ocl_bench.core.errors import UsageError
from ocl_bench.core.files import write_atomically
from ocl_bench.core.processors import processors

QUERIES = 50_000
"""Of ImageNet's validation set, to which the measured ones are extrapolated."""


def measure(out: Path, names: list[str], scale: float) -> Result:
    """Measure those of the parts that are not in `out` yet, and write it after each of them; the content.

    Raises:
        UsageError: `out` is of another scale, or a run fails.
    """
    found: Result = {"scale": scale, "processors": processors(), "parts": {}}
    if out.exists():
        found = json.loads(out.read_text())
        if found["scale"] != scale:
            raise UsageError(f"{out}: was measured with --scale {found['scale']}; choose another --out")
    for name in names:
        if name in found["parts"]:
            continue
        begin, load = time.monotonic(), os.getloadavg()[0]
        with tempfile.TemporaryDirectory(prefix=f"large-{name}-") as folder:
            found["parts"][name] = PARTS[name](Sizes().scaled(scale), Path(folder)) | {"load": load}
        print(f"{name}: {time.monotonic() - begin:.0f} s", flush=True)
        write_atomically(out, partial(Path.write_text, data=json.dumps(found, indent=1) + "\n"))
    return found


def tables(found: Result) -> dict[str, str]:
    """Markdown of what was measured, by the name of the place on the page."""
    parts = found["parts"]
    note = "Nobody has run this at full size yet."
    if parts:
        loads = ", ".join(f"{name} {part['load']:.1f}" for name, part in parts.items())
        note = f"{found['processors']} processors, one thread of torch; load before each part: {loads}."
    if found["scale"] != 1:
        note += f" Sizes times {found['scale']}: these numbers say nothing."
    lines = [*_neighbours(parts), *_ranks(parts)]
    return {
        "large-runs": "\n".join(_runs(parts)),
        "large-parts": "\n".join(["| what | measured |", "|---|---|", *lines, "", note]),
    }


def _neighbours(parts: Result) -> list[str]:
    if "neighbours" not in parts:
        return ["| bank of ImageNet's size | not measured |"]
    part, write, search = (parts["neighbours"], *(parts["neighbours"][step] for step in ("write", "search")))
    size = f"{part['bank']:,} x {part['width']}, {part['bank'] * part['width'] * 4 / 1e9:.1f} GB"
    one = search["processor"] / part["queries"]
    return [
        f"| bank written ({size}) | {write['seconds']:.1f} s in blocks of 1,024 rows; the first tenth "
        f"{1e3 * write['first']:.1f} ms a block, the last {1e3 * write['last']:.1f} ms |",
        f"| bank opened, checksums verified | {search['opened']:.1f} s |",
        f"| table of all its rows, for the remark on equal images | {search['remarks']:.1f} s |",
        f"| search of {part['queries']:,} queries, k = 200 | {search['searched']:.0f} s "
        f"({search['processor']:.0f} s of processors): {1e3 * one:.0f} ms a query, "
        f"{one * QUERIES / 60:.0f} min for all 50,000 by extrapolation |",
        f"| memory of opening and searching | {search['memory_mb']:.0f} MB, "
        f"and pages of the file, which can be given back ({search['process']['memory_mb']:.0f} MB in all) |",
    ]


def _runs(parts: Result) -> list[str]:
    titles = {"bank": "imagenet-knn, bank", "coco": "coco-discovery", "ytvis": "ytvis-2021-all300"}
    lines = ["| task | seen | time | a unit, start-up apart | memory, a quarter → all | killed half-way | again |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for name, title in titles.items():
        if (part := parts.get(name)) is None:
            lines.append(f"| {title} | | not measured | | | | |")
            continue
        whole, resumed, again, quarter = (part.get(side) for side in ("whole", "resumed", "again", "quarter"))
        unit, memory = "–", ""
        if quarter:
            left = part["count"] - max(1, part["count"] // 4)
            each = [1e3 * (whole[time] - quarter[time]) / left for time in ("seconds", "processor")]
            unit = f"{each[0]:.1f} ms, {each[1]:.1f} of processors"
            memory = f"{quarter['memory_mb']:.0f} → "
        seen = f"{part['count']:,} images"
        if name == "ytvis":
            seen = f"{part['count']:,} videos of {part['frames']} frames"
        pieces = "images" if name == "bank" else "shards"
        kept = f"{part['kept']:,} {pieces} kept, {resumed['seconds']:.0f} s for the rest"
        lines.append(
            f"| {title} | {seen} | {_both(whole)} | {unit} | {memory}{whole['memory_mb']:.0f} MB | "
            f"{kept}, rows equal | {again['seconds']:.1f} s |"
        )
    return lines


def _both(one: Result) -> str:
    return f"{one['seconds']:.0f} s, {one['processor']:.0f} s of processors"


def _ranks(parts: Result) -> list[str]:
    if "ranks" not in parts:
        return ["| two ranks against one process | not measured |"]
    rounds = parts["ranks"]["rounds"]

    def ratio(one: str, two: str) -> tuple[float, float]:
        """Of all scenes, and of those beyond a quarter: without what each process does once."""
        costs = [
            [(side[one], side[two] if two == "two" else max(side[two])) for side in (each["whole"], each["quarter"])]
            for each in rounds
        ]
        whole = [alone / shared for (alone, shared), _ in costs]
        rest = [(alone - less) / (shared - fewer) for (alone, shared), (less, fewer) in costs]
        return statistics.median(whole), statistics.median(rest)

    lines = []
    for title, pair in (("time that passed", ("one", "two")), ("of processors", ("one_processor", "two_processors"))):
        whole, rest = ratio(*pair)
        what = f"{parts['ranks']['scenes']} scenes, two ranks against one process, {title}"
        lines.append(f"| {what} | {whole:.2f} times; without start-up {rest:.2f} times; rows equal |")
    return lines


def main() -> None:
    """Measure what is missing; print the tables, or write them into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("large.json"), help="what was measured; it is continued")
    parser.add_argument("--parts", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--scale", type=float, default=1.0, help="of all sizes, to try the script")
    parser.add_argument("--write", type=Path, help="page whose tables are replaced")
    arguments = parser.parse_args()
    try:
        found = measure(arguments.out, arguments.parts, arguments.scale)
    except UsageError as error:
        raise SystemExit(f"error: {error}") from error
    show_tables(tables(found), arguments.write)


if __name__ == "__main__":
    main()

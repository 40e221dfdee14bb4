"""The parts of `large.py`: data of the size of official sets, and what is measured on them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from large_runs import HERE, Result, disturbed, ended, evaluation, rows_of, run, shards_done, started
from watching import looking

sys.path.insert(0, str(HERE / "tests/helpers"))

from layout_trees import annotation, compressed, save_picture, write_coco, write_json
from pipeline import photograph
from video_layout_trees import frame, moving_labels, track, write_ytvis

from ocl_bench.cards.names import get_task
from ocl_bench.core.errors import UsageError
from ocl_bench.core.files import parse_json
from ocl_bench.core.machine import fixed_arithmetic
from ocl_bench.evaluation import bank as banks
from ocl_bench.families.knn import Knn

WIDTH, CLASSES, BLOCK = 768, 1000, 1024
DISTINCT = 64
"""Images that differ; the others are links to them."""


@dataclass(frozen=True)
class Sizes:
    """How much of everything.

    Attributes:
        bank: rows of the bank. queries: those that are searched, of 50,000.
        images: of COCO. videos, frames: of YouTube-VIS, and in each of them; shape: their height and width.
        extracted: images whose features the real command extracts for a bank.
        scenes: of CLEVRTEX, for ranks; a quarter of them as well. rounds: of both.
    """

    bank: int = 1_281_167
    queries: int = 2 * BLOCK
    images: int = 5000
    videos: int = 300
    frames: int = 20
    shape: tuple[int, int] = (360, 640)
    extracted: int = 8192
    scenes: int = 512
    rounds: int = 1

    def scaled(self, scale: float) -> Sizes:
        """The same at a smaller size, but never too small to be killed half-way."""
        if scale == 1:
            return self

        def size(full: int, least: int) -> int:
            return max(least, round(full * scale))

        return Sizes(
            size(self.bank, 2560), size(self.queries, 8), size(self.images, 640), size(self.videos, 12),
            size(self.frames, 3), (90, 160), size(self.extracted, 2560), size(self.scenes, 256),
        )  # fmt: skip


def features(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows (rows, WIDTH) around the centres of their classes, and the classes."""
    centres = np.random.default_rng(0).standard_normal((CLASSES, WIDTH), dtype=np.float32)
    generator = np.random.default_rng([1, seed])
    labels = generator.integers(0, CLASSES, rows)
    found = 3.2 * generator.standard_normal((rows, WIDTH), dtype=np.float32) + centres[labels]
    return found / np.linalg.norm(found, axis=1, keepdims=True), labels


def write_bank(folder: Path, rows: int) -> Result:
    """Append features to a bank block after block, as an evaluation does; seconds of the first and the last tenth."""
    folder.mkdir(parents=True)
    files = banks._Files(folder, banks._Progress(rows, key=folder.name))
    seconds = []
    for first in range(0, rows, BLOCK):
        found, labels = features(min(BLOCK, rows - first), first)
        items = zip(range(first, first + len(found)), labels.tolist(), found, strict=True)
        block = [banks._Row(str(position), position, label, feature) for position, label, feature in items]
        begin = time.perf_counter()
        banks._add(files, len(block), block, [])
        files.keep()
        seconds.append(time.perf_counter() - begin)
    tenth = max(1, len(seconds) // 10)
    return {"seconds": sum(seconds), "first": float(np.mean(seconds[:tenth])), "last": float(np.mean(seconds[-tenth:]))}


def search_bank(folder: Path, rows: int, queries: int) -> Result:
    """Open a bank and score queries as an evaluation does; seconds, and memory that cannot be given back."""
    found, labels = features(queries, rows)
    truth: list[Any] = [SimpleNamespace(label=label, instances=()) for label in labels.tolist()]
    marks, before = [time.perf_counter()], anonymous()
    with looking(anonymous, 0.05) as seen, fixed_arithmetic(1):
        data: Any = SimpleNamespace(ids=range(rows))
        files = banks._open_files(folder, data)
        if files is None:
            raise UsageError(f"{folder}: is not a whole bank")
        adapter = Knn(get_task("imagenet-knn")).with_bank(files.bank(), range(CLASSES))
        marks.append(time.perf_counter())
        adapter.remarks([found[0]])  # makes the table of all rows
        marks.append(time.perf_counter())
        cpu, hits = time.process_time(), 0.0
        for first in range(0, queries, BLOCK):
            place = slice(first, first + BLOCK)
            hits += sum(row["knn_top1"] for row in adapter.score(truth[place], list(found[place]), adapter.task))
        marks.append(time.perf_counter())
        processor = time.process_time() - cpu
    opened, remarks, searched = np.diff(marks).tolist()
    memory = (max(seen, default=before) - before) / 2**20
    return {
        "opened": opened, "remarks": remarks, "searched": searched, "processor": processor,
        "top1": hits / queries, "memory_mb": memory,
    }  # fmt: skip


def anonymous() -> float:
    """Bytes of this process that are no pages of a file."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return float(status.split("RssAnon:")[1].split()[0]) * 1024


def neighbours(sizes: Sizes, place: Path) -> Result:
    """The bank of ImageNet: written, opened, searched, each by a process of its own."""
    folder, found = place / "bank", Result()
    for step in ("write", "search"):
        out = place / f"{step}.json"
        process = run([__file__, step, str(folder), str(sizes.bank), str(sizes.queries), str(out)], place)
        found[step] = parse_json(out.read_text()) | {"process": asdict(process)}
    return {"bank": sizes.bank, "queries": sizes.queries, "width": WIDTH, **found}


def link(first: Path, path: Path) -> None:
    """Another name of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.hardlink_to(first)


def pictures(place: Path) -> list[Path]:
    """Files of distinct images of 480 x 640."""
    return [
        save_picture(place / f"{number}.jpg", np.asarray(photograph(number)), quality=90) for number in range(DISTINCT)
    ]


def bank(sizes: Sizes, place: Path) -> Result:
    """Features of the images of ImageNet's layout, extracted by the real command and killed half-way."""
    root, made = place / "data/imagenet", pictures(place / "pictures")
    for split, count in (("train", sizes.extracted), ("val", 64)):
        for number in range(count):
            wnid = f"n{number % 64:08d}"
            link(made[number % DISTINCT], root / split / wnid / f"{wnid}_{number}.JPEG")
    state = partial(images_in_bank, place / "cache")
    undisturbed, killed = place / "whole", place / "killed"

    def command(results: Path) -> list[str]:
        return evaluation("pixels-4x4", "imagenet-knn", results, "--data-root", str(root.parent))

    whole = run(command(undisturbed), place)
    again = run(command(place / "again"), place)  # another result, of the bank that is there
    for folder in (place / "cache/banks").iterdir():
        folder.rename(place / f"bank-{folder.name}")
    stopped = run(command(killed), place, lambda: state() >= sizes.extracted / 2)
    if not stopped.killed:
        raise UsageError(f"{place}: the evaluation ended before it was half-way; choose a larger --scale")
    kept = state()
    resumed = run(command(killed), place)
    if rows_of(undisturbed) != rows_of(killed):
        raise UsageError(f"{place}: the rows of the run that was killed differ from those of the undisturbed one")
    runs = {"whole": whole, "again": again, "killed": stopped, "resumed": resumed}
    return {"count": sizes.extracted, "kept": kept} | {name: asdict(one) for name, one in runs.items()}


def images_in_bank(cache: Path) -> int:
    """Images of the only bank in a cache that are done."""
    found = [parse_json(path.read_text())["done"] for path in cache.glob("banks/*/*/progress.json")]
    return int(found[0]) if found else 0


def blob(generator: np.random.Generator, shape: tuple[int, int]) -> list[list[float]]:
    """A polygon of 24 corners around a random place, as an annotator draws it."""
    height, width = shape
    centre, size = generator.uniform((60, 60), (width - 60, height - 60)), generator.uniform(10, 55)
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    radius = size * generator.uniform(0.7, 1.0, 24)
    corners = centre + radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    return [corners.round(2).ravel().tolist()]


def write_images(root: Path, sizes: Sizes, made: list[Path]) -> Path:
    """COCO's layout: images of 640 x 480 with seven objects each (val2017 has 7.4); the path of the table."""
    generator, shape, names = np.random.default_rng(0), (480, 640), [f"{n:012d}.jpg" for n in range(sizes.images)]
    objects = [
        annotation(7 * number + k, number, blob(generator, shape), category_id=18 if k % 2 else 1)
        for number in range(sizes.images)
        for k in range(7)
    ]
    listing = write_coco(root, {}, objects)
    listed = [{"id": n, "file_name": name, "height": 480, "width": 640} for n, name in enumerate(names)]
    write_json(listing, parse_json(listing.read_text()) | {"images": listed})
    for number, name in enumerate(names):
        link(made[number % DISTINCT], root / "val2017" / name)
    return listing


def coco(sizes: Sizes, place: Path) -> Result:
    """An evaluation on COCO's layout, killed half-way."""
    root = place / "data/coco"
    listing = write_images(root, sizes, pictures(place / "pictures"))

    def command(results: Path, limit: int) -> list[str]:
        words = evaluation("grid", "coco-discovery", results, "--data-root", str(root.parent))
        return words if limit == sizes.images else [*words, "--limit", str(limit)]

    found = disturbed(place, sizes.images, command, shards_done, sizes.images // 64 // 2)
    return found | {"table_mb": listing.stat().st_size / 2**20}


def write_videos(root: Path, sizes: Sizes) -> Path:
    """YouTube-VIS's layout: videos with two objects each, whose masks are run-length codes; the path of the table."""
    videos = {f"{number:010x}": sizes.frames for number in range(sizes.videos)}
    masks = [moving_labels(number, sizes.shape) for number in range(sizes.frames)]
    codes = [[compressed((labels == value).astype(np.uint8)) for labels in masks] for value in (1, 2)]
    objects = [track(2 * number + k, number, codes[k]) for number in range(1, sizes.videos + 1) for k in (0, 1)]
    table = write_ytvis(root, videos, objects, sizes.shape, pictures=False)
    made = [
        save_picture(root.parent / f"frame-{number}.jpg", frame(number, sizes.shape), quality=90)
        for number in range(sizes.frames)
    ]
    for name in videos:
        for number, one in enumerate(made):
            link(one, root / "train/JPEGImages" / name / f"{5 * number:05d}.jpg")
    return table


def ytvis(sizes: Sizes, place: Path) -> Result:
    """An evaluation on YouTube-VIS's layout, killed half-way."""
    root = place / "data/ytvis2021"
    table = write_videos(root, sizes)

    def command(results: Path, limit: int) -> list[str]:
        words = evaluation("grid", "ytvis-2021-all300", results, "--data-root", str(root.parent))
        return words if limit == sizes.videos else [*words, "--limit", str(limit)]

    found = disturbed(place, sizes.videos, command, shards_done, sizes.videos // 2)
    return found | {"frames": sizes.frames, "shape": sizes.shape, "table_mb": table.stat().st_size / 2**20}


def ranks(sizes: Sizes, place: Path) -> Result:
    """`dias` on rendered scenes by one process of one thread, and by two ranks of one thread each."""
    run(evaluation("grid", "clevrtex", place / "warm", "--limit", str(sizes.scenes)), place)  # renders the scenes
    found: Result = {"scenes": sizes.scenes, "rounds": []}
    for number in range(sizes.rounds):
        sides: Result = {}
        for name, count in (("whole", sizes.scenes), ("quarter", sizes.scenes // 4)):
            folders = [place / f"{name}-{side}-{number}" for side in ("one", "two")]
            words = ("--limit", str(count), "--workers", "0")
            one = run(evaluation("dias", "clevrtex", folders[0], *words), place)
            begin, port = time.perf_counter(), 20_000 + time.time_ns() % 20_000
            shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            command = evaluation("dias", "clevrtex", folders[1], *words)
            processes = [started(command, place, shared | {"RANK": str(rank)}) for rank in (0, 1)]
            two = [ended(process, place, begin) for process in processes]
            if rows_of(folders[0]) != rows_of(folders[1]):
                raise UsageError(f"{place}: the rows of two ranks differ from those of one process")
            sides[name] = {
                "count": count, "one": one.seconds, "two": max(side.seconds for side in two),
                "one_processor": one.processor, "two_processors": [side.processor for side in two],
            }  # fmt: skip
        found["rounds"].append(sides)
    return found


PARTS: dict[str, Callable[[Sizes, Path], Result]] = {
    "neighbours": neighbours,
    "bank": bank,
    "coco": coco,
    "ytvis": ytvis,
    "ranks": ranks,
}


def main() -> None:
    """A step of `neighbours`, in a process of its own."""
    step, folder, rows, queries, out = sys.argv[1:]
    if step == "write":
        found = write_bank(Path(folder), int(rows))
    else:
        found = search_bank(Path(folder), int(rows), int(queries))
    write_json(Path(out), found)


if __name__ == "__main__":
    main()

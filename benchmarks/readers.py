"""Speed of the readers, in images or frames per second, against the plainest loop that does the same work.

    python benchmarks/readers.py --samples 100
    python benchmarks/readers.py --index 200000

For each form of the data, samples are read through the reader, and by the loop that a reference loader has: open the
files of a sample with Pillow, or the arrays with NumPy, and convert them; nothing is checked (TFRecords are read by our
own parser in both, as there is no TensorFlow). Both read the same files,
in turns, and the best of three rounds counts. `--index N` makes N empty files in ImageNet's class folders instead and
measures what opening them takes. The last lines compare the checksum of TFRecords with and without google-crc32c.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/helpers"))

from layout_trees import card, save_palette, write_ade20k, write_clevrtex, write_coco
from modern_trees import image_file, movi_parts, opencv, video_card, write_lmdb, write_shards
from video_layout_trees import write_davis, write_movi

from ocl_bench.data import OpenData, open_data
from ocl_bench.data.readers import tfrecord

SIZE = (240, 320)
ROUNDS = 3

Loop = Callable[[], Iterable[object]]


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def numbers(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def decoded(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def frames(data: OpenData) -> Iterable[object]:
    return (frame for video in data.reader for frame in video.frames)


def seconds(loop: Loop) -> tuple[float, int]:
    start = time.perf_counter()
    count = sum(1 for _ in loop())
    return time.perf_counter() - start, count


def compare(name: str, reader: Loop, plain: Loop) -> None:
    """Print one line: both loops in turns, the best round of each."""
    best = [np.inf, np.inf]
    for _ in range(ROUNDS):
        for number, loop in enumerate((reader, plain)):
            took, count = seconds(loop)
            best[number] = min(best[number], took / count)
    rates = f"{1 / best[0]:9,.0f} /s  plain {1 / best[1]:9,.0f} /s"
    print(f"{name:<28} {rates}  {best[1] / best[0]:5.2f} of plain")


def images(root: Path, count: int) -> None:
    """Readers of images."""
    noise = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    labels = np.zeros(SIZE, np.uint8)
    labels[40:120, 30:200], labels[150:220, 100:300] = 1, 2
    for number in range(count):
        write_ade20k(root / "ade", "validation", f"ADE_val_{number:08d}", labels)
        path = root / f"folder/images/{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).save(path)
        save_palette(root / f"folder/masks/{number:05d}.png", labels)
    write_clevrtex(root, range(count), size=SIZE[::-1], passes=False)
    write_coco(root / "coco", dict.fromkeys(range(1, count + 1), SIZE))
    samples = [{"image": image_file(noise, "jpeg"), "segment": opencv(labels, "webp")}] * count
    write_lmdb(root / "lmdb/clevrtex/train.lmdb", [sample | {"depth": b""} for sample in samples])

    def reads(data: OpenData) -> Loop:
        return lambda: data.reader

    def pairs(folder: Path, image: str, mask: Callable[[Path], Path]) -> Loop:
        return lambda: ((picture(path), numbers(mask(path))) for path in sorted(folder.glob(image)))

    ade = open_data(card(reader="ade20k", folder="ade", split="val"), data_root=root)
    masks = root / "ade/annotations/validation"
    compare("ade20k", reads(ade), pairs(root / "ade/images/validation", "*.jpg", lambda p: masks / f"{p.stem}.png"))
    own = open_data(card(reader="folder", folder=str(root / "folder")))
    masks_of_folder = root / "folder/masks"
    compare("folder", reads(own), pairs(root / "folder/images", "*.jpg", lambda p: masks_of_folder / f"{p.stem}.png"))
    scenes = open_data(card(reader="clevrtex", folder="clevrtex_full", split="test"), data_root=root)
    place = root / "clevrtex_full/0"
    compare("clevrtex", reads(scenes), pairs(place, "*[0-9].png", lambda p: p.with_name(f"{p.stem}_flat.png")))
    coco = open_data(card(reader="coco", folder="coco", split="val"), data_root=root)
    compare("coco", reads(coco), lambda: (picture(path) for path in sorted((root / "coco/val2017").iterdir())))
    lmdb = open_data(card(reader="clevrtex", folder="clevrtex_full", split="test"), data_root=root / "lmdb")

    def plain_lmdb() -> Iterable[object]:
        return ((decoded(one["image"]), decoded(one["segment"].tobytes())) for one in samples)

    compare("clevrtex, LMDB", reads(lmdb), plain_lmdb)


def videos(root: Path, count: int) -> None:
    """Readers of videos; `count` is the number of frames, 24 a video."""
    videos = max(count // 24, 1)
    write_movi(root, (videos,), frames=24)
    task = video_card(reader="movi", folder="movi_c", split="validation", options={"dataset": "movi_c", "size": 128})
    movi = open_data(task, data_root=root)
    file = root / "movi_c/128x128/1.0.0" / movi.reader.records[0][0]

    def plain_movi() -> Iterable[object]:
        for offset, _ in tfrecord.index_records(file):
            content = tfrecord.decode_example(tfrecord.read_record(file, offset), ("video", "segmentations"))
            for image, mask in zip(content["video"], content["segmentations"], strict=True):
                yield decoded(image), decoded(mask)

    compare("movi, TFRecord", lambda: frames(movi), plain_movi)
    parts = [(str(number), movi_parts(video)) for number, video in enumerate(movi.reader)]
    write_shards(root / "shards", "movi_c-validation", parts)
    shards = open_data(task, data_root=root / "shards")

    def plain_shards() -> Iterable[object]:
        for _, files in parts:
            video, masks = (np.load(io.BytesIO(files[f"{name}.npy"])) for name in ("video", "segmentations"))
            yield from zip(video, masks, strict=True)

    compare("movi, WebDataset", lambda: frames(shards), plain_shards)
    write_davis(root, {f"s{number}": 24 for number in range(videos)}, SIZE)
    davis = open_data(video_card(reader="davis", folder="DAVIS", split="val", options={}), data_root=root)
    base = root / "DAVIS"

    def plain_davis() -> Iterable[object]:
        for path in sorted((base / "JPEGImages/480p").glob("*/*.jpg")):
            mask = base / "Annotations_unsupervised/480p" / path.parent.name / f"{path.stem}.png"
            yield picture(path), numbers(mask)

    compare("davis", lambda: frames(davis), plain_davis)


def checksums() -> None:
    """The checksum of a record of 5 MB."""
    content = np.random.default_rng(0).integers(0, 256, 5_000_000, dtype=np.uint8).tobytes()
    for name, function in (("numpy", tfrecord.crc32c_numpy), ("as used", tfrecord.crc32c)):
        function(content[:1000])
        took = min(seconds(lambda function=function: [function(content)])[0] for _ in range(ROUNDS))  # type: ignore[misc]
        print(f"CRC-32C of 5 MB, {name:<12} {1000 * took:9.2f} ms")


def index(root: Path, count: int) -> None:
    """Open ImageNet's class folders: listed for the first time, and again."""
    from ocl_bench.cards.names import get_task

    for number in range(1000):
        folder = root / f"imagenet/train/n{number:08d}"
        folder.mkdir(parents=True)
        for image in range(count // 1000):
            (folder / f"n{number:08d}_{image}.JPEG").touch()
    for what in ("first opening", "second opening"):
        start = time.perf_counter()
        data = open_data(get_task("imagenet-knn"), data_root=root, split="train")
        memory = psutil.Process().memory_info().rss / 1e9
        print(f"{what}: {len(data):,} images in {time.perf_counter() - start:.1f} s, {memory:.2f} GB of memory in all")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--index", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["OCL_BENCH_CACHE"] = str(Path(folder, "cache"))
        root = Path(folder, "data")
        if arguments.index:
            index(root, arguments.index)
            return
        images(root, arguments.samples)
        videos(root, arguments.samples)
        checksums()


if __name__ == "__main__":
    main()

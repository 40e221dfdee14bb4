"""Speed of the readers, in images or frames per second, against the plainest loop that does the same work.

    python benchmarks/readers.py --samples 100
    python benchmarks/readers.py --index 200000

For each form of the data, samples are read through the reader, and by the loop that a reference loader has: open the
files of a sample with Pillow, the arrays with NumPy or the polygons with pycocotools, and convert them; nothing is
checked, and masks are left as they are stored (TFRecords are read by our own parser in both, as there is no
TensorFlow). Both read the same files, in turns, and the best of several rounds counts. Time is that of the processor,
which other programs do not change much; all files are in the disk cache.

`--index N` makes N empty files in ImageNet's class folders instead and measures what opening them takes: for the first
time, again, and after a file was added to one class. The last lines compare the checksum of TFRecords with and without
google-crc32c.
"""

from __future__ import annotations

import argparse
import io
import os
import pickle
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/helpers"))

from layout_trees import annotation, card, square, write_ade20k, write_cityscapes, write_clevrtex, write_coco, write_voc
from modern_trees import movi_parts, opencv, video_card, write_lmdb, write_shards
from video_layout_trees import track, write_davis, write_movi, write_ytvis

from ocl_bench.cards.names import get_task
from ocl_bench.data import OpenData, open_data
from ocl_bench.data.readers import tfrecord

SIZE = (480, 640)
ROUNDS = 7
BOXES = ((60, 80, 300, 240), (200, 300, 420, 470), (350, 40, 620, 260), (10, 10, 90, 60), (500, 300, 630, 460))

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
    start = time.process_time()
    count = sum(1 for _ in loop())
    return time.process_time() - start, count


def compare(name: str, reader: Loop, plain: Loop) -> None:
    """Print one line: both loops in turns, the best round of each."""
    best = [np.inf, np.inf]
    for _ in range(ROUNDS):
        for number, loop in enumerate((reader, plain)):
            took, count = seconds(loop)
            best[number] = min(best[number], took / count)
    rates = f"{1 / best[0]:9,.0f} /s  plain {1 / best[1]:9,.0f} /s"
    print(f"{name:<28} {rates}  {best[1] / best[0]:5.2f} of plain", flush=True)


def photograph(root: Path, pattern: str) -> None:
    """Replace the flat images of the test trees by one with the detail of a photograph."""
    small = np.random.default_rng(0).integers(0, 256, (SIZE[0] // 8, SIZE[1] // 8, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize(SIZE[::-1], Image.Resampling.BICUBIC)
    for path in root.glob(pattern):
        image.save(path, quality=90)


def label_map(count: int = len(BOXES)) -> np.ndarray:
    """Regions 1, 2, .. on 0."""
    labels = np.zeros(SIZE, np.uint8)
    for number, (left, top, right, bottom) in enumerate(BOXES[:count], start=1):
        labels[top:bottom, left:right] = number
    return labels


def pairs(folder: Path, image: str, mask: Callable[[Path], Path]) -> Loop:
    """Each image of a folder, and its mask."""
    return lambda: ((picture(path), numbers(mask(path))) for path in sorted(folder.glob(image)))


def drawn(segmentations: Iterable[list[list[float]]]) -> list[np.ndarray]:
    """The masks of polygons."""
    from pycocotools import mask as rle

    return [rle.decode(rle.merge(rle.frPyObjects(polygons, *SIZE))) for polygons in segmentations]


def maps(root: Path, count: int) -> None:
    """Readers of images with a map of labels or classes."""
    labels, ids = label_map(), [f"{number:06d}" for number in range(count)]
    for name in ids:
        write_ade20k(root / "ade", "validation", f"ADE_val_{name}", labels)
        write_cityscapes(root / "cityscapes", labels + 6, labels + 6, f"ulm_{name}_000000")
    write_voc(root, labels, labels, val=tuple(ids))
    for pattern in ("ade/images/validation/*", "cityscapes/leftImg8bit/val/*/*", "VOCdevkit/VOC2012/JPEGImages/*"):
        photograph(root, pattern)
    ade, voc, city = root / "ade", root / "VOCdevkit/VOC2012", root / "cityscapes"
    task = card(reader="ade20k", folder="ade", split="val")
    masks = ade / "annotations/validation"
    plain = pairs(ade / "images/validation", "*.jpg", lambda path: masks / f"{path.stem}.png")
    compare("ade20k", reads(open_data(task, data_root=root)), plain)
    options = {"images": "images/validation", "masks": "annotations/validation"}
    compare("folder", reads(open_data(card(reader="folder", folder=str(ade), split="val", options=options))), plain)
    place = city / "gtFine/val/ulm"
    plain = pairs(
        city / "leftImg8bit/val/ulm",
        "*.png",
        lambda path: place / path.name.replace("leftImg8bit", "gtFine_labelIds"),
    )
    compare("cityscapes", reads(open_data(get_task("cityscapes-segmentation"), data_root=root)), plain)

    def plain_voc() -> Iterable[object]:
        for path in sorted((voc / "JPEGImages").iterdir()):
            kinds = (numbers(voc / kind / f"{path.stem}.png") for kind in ("SegmentationClass", "SegmentationObject"))
            yield picture(path), *kinds

    compare("voc", reads(open_data(get_task("voc-discovery"), data_root=root, split="val")), plain_voc)
    write_clevrtex(root, range(count), size=SIZE[::-1], passes=False)
    scenes = root / "clevrtex_full/0"
    task = card(reader="clevrtex", folder="clevrtex_full", split="test")
    plain = pairs(scenes, "*[0-9].png", lambda path: path.with_name(f"{path.stem}_flat.png"))
    compare("clevrtex", reads(open_data(task, data_root=root)), plain)


def reads(data: OpenData) -> Loop:
    return lambda: data.reader


def other_images(root: Path, count: int) -> None:
    """Readers of images whose truth is not a map: polygons, classes, and the values of an LMDB file."""
    import lmdb

    polygons = [square(*box) for box in BOXES]
    entries = [annotation(5 * n + k, n + 1, polygons[k]) for n in range(count) for k in range(len(BOXES))]
    write_coco(root / "coco", dict.fromkeys(range(1, count + 1), SIZE), entries)
    photograph(root, "coco/val2017/*")
    coco = open_data(card(reader="coco", folder="coco", split="val"), data_root=root)
    files = sorted((root / "coco/val2017").iterdir())
    compare("coco", reads(coco), lambda: ((picture(path), drawn(polygons)) for path in files))
    for split in ("train", "val"):
        (root / f"imagenet/{split}/n01440764").mkdir(parents=True)
    for number in range(count):
        (root / f"imagenet/val/n01440764/{number:06d}.JPEG").touch()
    photograph(root, "imagenet/val/*/*")
    imagenet = open_data(get_task("imagenet-knn"), data_root=root, split="val")
    images = sorted((root / "imagenet/val/n01440764").iterdir())
    compare("imagenet", reads(imagenet), lambda: (picture(path) for path in images))
    sample = {"image": files[0].read_bytes(), "segment": opencv(label_map(), "webp"), "depth": b""}
    file = write_lmdb(root / "lmdb/clevrtex/train.lmdb", [sample] * count)
    copy = Path(shutil.copy(file, root / "copy.lmdb"))  # a file must not be opened twice in one process
    task = card(reader="clevrtex", folder="clevrtex_full", split="test")

    def plain() -> Iterable[object]:
        with lmdb.open(str(copy), subdir=False, readonly=True, lock=False) as opened, opened.begin() as values:
            for number in range(count):
                one = pickle.loads(values.get(f"{number:06d}".encode()))
                yield decoded(one["image"]), decoded(one["segment"].tobytes())[..., 0]

    compare("clevrtex, LMDB", reads(open_data(task, data_root=root / "lmdb")), plain)


def movi(root: Path, videos: int) -> None:
    """MOVi as TFRecords and as shards."""
    write_movi(root, (videos,), frames=24)
    task = video_card(reader="movi", folder="movi_c", split="validation", options={"dataset": "movi_c", "size": 128})
    data = open_data(task, data_root=root)
    file = root / "movi_c/128x128/1.0.0" / data.reader.records[0][0]

    def plain() -> Iterable[object]:
        for offset, _ in tfrecord.index_records(file):
            content = tfrecord.decode_example(tfrecord.read_record(file, offset), ("video", "segmentations"))
            for image, mask in zip(content["video"], content["segmentations"], strict=True):
                yield decoded(image), decoded(mask)

    compare("movi, TFRecord", lambda: frames(data), plain)
    write_shards(root / "shards", "movi_c-validation", [(str(k), movi_parts(one)) for k, one in enumerate(data.reader)])
    shards = open_data(task, data_root=root / "shards")

    def plain_shards() -> Iterable[object]:
        for path in sorted((root / "shards").glob("*.tar")):
            arrays = {}
            with tarfile.open(path) as archive:
                for member in archive:
                    if not member.name.endswith("flow.npy"):
                        content = archive.extractfile(member).read()  # type: ignore[union-attr]
                        arrays[member.name] = np.load(io.BytesIO(content))
            for name in arrays:
                if name.endswith(".video.npy"):
                    masks = arrays[name.replace("video", "segmentations")]
                    yield from zip(arrays[name], masks, strict=True)

    compare("movi, WebDataset", lambda: frames(shards), plain_shards)


def video_files(root: Path, videos: int) -> None:
    """Videos of which each frame is a file."""
    length = 24
    base = write_davis(root, {f"s{number}": length for number in range(videos)}, SIZE)
    photograph(base, "JPEGImages/480p/*/*")
    images, masks = base / "JPEGImages/480p", base / "Annotations_unsupervised/480p"

    def plain() -> Iterable[object]:
        for path in sorted(images.glob("*/*.jpg")):
            yield picture(path), numbers(masks / path.parent.name / f"{path.stem}.png")

    davis = open_data(video_card(reader="davis", folder="DAVIS", split="val", options={}), data_root=root)
    compare("davis", lambda: frames(davis), plain)
    options = {"images": images.relative_to(base).as_posix(), "masks": masks.relative_to(base).as_posix()}
    own = open_data(video_card(reader="video-folder", folder=str(base), split="val", options=options))

    # Numbers are ranked over the whole video, for which all its masks are read before the first frame.
    def plain_twice() -> Iterable[object]:
        for video in sorted(images.iterdir()):
            files = sorted((masks / video.name).iterdir())
            for path in files:
                numbers(path)
            yield from (
                (picture(path), numbers(mask)) for path, mask in zip(sorted(video.iterdir()), files, strict=True)
            )

    compare("video-folder", lambda: frames(own), plain_twice)
    polygons = [square(*box) for box in BOXES]
    tracks = [
        track(len(BOXES) * video + k, video, [polygon] * length)
        for video in range(1, videos + 1)
        for k, polygon in enumerate(polygons)
    ]
    write_ytvis(root / "ytvis2021", {f"v{number}": length for number in range(videos)}, tracks, SIZE)
    photograph(root, "ytvis2021/train/JPEGImages/*/*")
    files = sorted((root / "ytvis2021/train/JPEGImages").glob("*/*"))
    ytvis = open_data(get_task("ytvis-2021"), data_root=root)
    compare("ytvis", lambda: frames(ytvis), lambda: ((picture(path), drawn(polygons)) for path in files))


def checksums() -> None:
    """The checksum of a record of 5 MB."""
    content = np.random.default_rng(0).integers(0, 256, 5_000_000, dtype=np.uint8).tobytes()
    for name, function in (("numpy", tfrecord.crc32c_numpy), ("as used", tfrecord.crc32c)):
        function(content[:1000])
        took = min(seconds(lambda function=function: [function(content)])[0] for _ in range(ROUNDS))  # type: ignore[misc]
        print(f"CRC-32C of 5 MB, {name:<12} {1000 * took:9.2f} ms")


def index(root: Path, count: int) -> None:
    """Open ImageNet's class folders: for the first time, again, and after a change."""
    folders = [root / f"imagenet/train/n{number:08d}" for number in range(1000)]
    for folder in folders:
        folder.mkdir(parents=True)
        for image in range(count // 1000):
            (folder / f"{folder.name}_{image}.JPEG").touch()
    for what in ("first opening", "second opening", "after a change"):
        start = time.perf_counter()
        data = open_data(get_task("imagenet-knn"), data_root=root, split="train")
        took = time.perf_counter() - start
        memory = psutil.Process().memory_info().rss / 1e9
        print(f"{what}: {len(data):,} images in {took:.1f} s, {memory:.2f} GB of memory in all", flush=True)
        (folders[0] / "added.JPEG").touch()


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
        maps(root, arguments.samples)
        other_images(root, arguments.samples)
        for videos in (movi, video_files):
            videos(root, max(arguments.samples // 24, 1))
        checksums()


if __name__ == "__main__":
    main()

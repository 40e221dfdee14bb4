"""Data sets in the forms of other codes: WebDataset shards of VideoSAUR, LMDB files of Genera1Z's converters.

Each is written from the samples that the reader of the official form gives, member by member as those scripts do it.
"""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ocl_bench.cards.task import TaskSpec
from ocl_bench.core.types import Sample, Truth, Video


def video_card(**data: Any) -> TaskSpec:
    """A card of the video family with this data section."""
    return TaskSpec.model_validate(
        {
            "name": "probe",
            "version": 1,
            "family": "video",
            "data": data,
            "protocol": {"input": 32, "score_at": 32},
            "metrics": ["mbo_video"],
            "main": "mbo_video",
        }
    )


def npy(array: np.ndarray, **options: Any) -> bytes:
    """A NumPy file."""
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def image_file(array: np.ndarray, kind: str, **options: Any) -> bytes:
    """An image file."""
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind, **options)
    return file.getvalue()


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    """A tar file of these members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            head = tarfile.TarInfo(name)
            head.size = len(content)
            archive.addfile(head, io.BytesIO(content))
    return path


def write_shards(folder: Path, name: str, samples: Sequence[tuple[str, Mapping[str, bytes]]], each: int = 2) -> None:
    """Shards `<name>-000000.tar` with `each` samples; parts of a sample are sorted, as webdataset sorts them."""
    for number in range(0, len(samples), each):
        members = {
            f"{key}.{part}": parts[part] for key, parts in samples[number : number + each] for part in sorted(parts)
        }
        write_tar(folder / f"{name}-{number // each:06d}.tar", members)


def arrays(video: Video) -> tuple[np.ndarray, np.ndarray]:
    """Frames (T, H, W, 3) and labels (T, H, W) of a video."""
    samples = list(video.frames)
    return np.stack([one.image for one in samples]), np.stack([one.truth.labels for one in samples])


def movi_parts(video: Video) -> dict[str, bytes]:
    """The parts of a sample of MOVi in `save_movi.py`."""
    frames, labels = arrays(video)
    flow = np.zeros((*labels.shape, 2), np.float32)
    masks = labels.astype(np.uint8)[..., None]
    return {"video.npy": npy(frames), "segmentations.npy": npy(masks), "forward_flow.npy": npy(flow)}


def ytvis_parts(frames: np.ndarray, masks: Sequence[np.ndarray], categories: Sequence[int]) -> dict[str, bytes]:
    """The parts of a sample in `save_ytvis2021.py`: a channel for each object (T, H, W), with its category."""
    channels = [np.asarray(mask, np.uint8) * kind for mask, kind in zip(masks, categories, strict=True)]
    stacked = np.stack(channels, -1) if channels else np.zeros((*frames.shape[:3], 1), np.uint8)
    return {"video.npy": npy(frames), "segmentations.npy": npy(stacked.astype(np.uint8))}


def write_lmdb(path: Path, samples: Iterable[Any], dumps: Callable[[Any], bytes] = pickle.dumps) -> Path:
    """An LMDB file of pickled samples as the converters write it; bytes are stored as they are."""
    import lmdb

    path.parent.mkdir(parents=True, exist_ok=True)
    keys = []
    with lmdb.open(str(path), map_size=1 << 26, subdir=False, lock=False) as environment:
        with environment.begin(write=True) as transaction:
            for number, sample in enumerate(samples):
                keys.append(f"{number:06d}".encode("ascii"))
                transaction.put(keys[-1], sample if isinstance(sample, bytes) else dumps(sample))
        with environment.begin(write=True) as transaction:
            transaction.put(b"__keys__", dumps(keys))
    return path


def opencv(array: np.ndarray, kind: str = "png") -> np.ndarray:
    """What `cv2.imencode` returns: an array of bytes. WebP has no grey: OpenCV writes three equal channels."""
    if kind == "webp":
        return np.frombuffer(image_file(np.repeat(array[..., None], 3, -1), "webp", lossless=True), np.uint8)
    return np.frombuffer(image_file(array, kind), np.uint8)


def same_truth(first: Truth, second: Truth, *, renumbered: bool = False) -> None:
    """Both say the same of every pixel; `renumbered` allows that objects have other numbers."""
    one, other = first.labels, second.labels
    assert one.dtype == other.dtype == np.int16 and one.shape == other.shape
    if not renumbered:
        assert np.array_equal(one, other)
        return
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1).T
    assert len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)
    assert all(a == b for a, b in pairs if min(a, b) <= 0)


def same_sample(first: Sample, second: Sample, *, renumbered: bool = False) -> None:
    """Both have the same pixels and the same truth."""
    assert np.array_equal(first.image, second.image)
    same_truth(first.truth, second.truth, renumbered=renumbered)


def same_video(first: Video, second: Video) -> None:
    """Both have the same frames and truths."""
    assert len(first) == len(second)
    for one, other in zip(first.frames, second.frames, strict=True):
        same_sample(one, other)

"""Masks that exist already, as a model that looks them up: id-map PNGs of images or of the frames of videos."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import torch

from ...cards.model import ModelCard
from ...cards.task import TaskSpec
from ...core.errors import SampleError, UsageError
from ...core.files import find_file
from ...core.types import Batch, MaskSource, Prediction, Sample, Video
from ...data import OpenData
from ...data.transforms import nearest
from ...families import find_family
from ...families.video import VideoAdapter
from ...models.loading import LoadedModel
from ..plan import Plan, make_plan
from .label_maps import REMEDY, read_prediction

_LOSSY = (".jpg", ".jpeg", ".webp")

FindFile = Callable[[str, int], Path]
"""Name of a mask and noise seed to its PNG. The name is a sample id, or `<video id>/<frame>`."""

ReadMask = Callable[[str, Sample, int], np.ndarray]
"""Name of a mask, its image or frame, and noise seed to segment ids (H, W) int64."""


class MaskLookup:
    """A model that looks masks up instead of predicting them.

    Args:
        data: the images or videos that the masks belong to.
        read: reads one mask; it raises SampleError for one that cannot be used.
        source: mask source as a result records it, with `+linked-<what>` where slots were linked over time, and with
            `+passes-<number>` where the model went through a video more than once, `+whole-clip` where the masks of a
            frame depend on later ones.
        reads_video: whether the data are videos.
    """

    sees_images = False

    def __init__(self, data: OpenData, read: ReadMask, source: str = "none", *, reads_video: bool = False) -> None:
        self.data, self.read, self.reads_video = data, read, reads_video
        self.whole_clip = source.endswith("+whole-clip")
        source, _, passes = source.removesuffix("+whole-clip").partition("+passes-")
        mask_source, _, self.link = source.partition("+linked-")
        self.passes = int(passes) if passes else 1
        self.softmax = mask_source.endswith("+softmax")
        mask_source = mask_source.removesuffix("+softmax")
        self.mask_source = cast(MaskSource, mask_source)
        self.position = {sample_id: index for index, sample_id in enumerate(data.ids)}
        self.video: Video | None = None

    def predict(self, batch: Batch) -> Prediction:
        """Label maps (B, H, W), or (1, T, H, W) for a clip."""
        maps = [self.read(name, sample, batch.noise_seed) for name, sample in self._named_samples(batch)]
        # Images of one batch may differ in size: enlarging to the largest loses nothing, and scoring undoes it exactly.
        shape = (max(m.shape[0] for m in maps), max(m.shape[1] for m in maps))
        masks = torch.from_numpy(np.stack([nearest(m, shape) for m in maps]))
        return Prediction(
            masks=masks[None] if self.reads_video else masks,
            mask_source=self.mask_source,
            link=self.link,
            passes=self.passes,
            whole_clip=self.whole_clip,
            softmax=self.softmax,
        )

    def _named_samples(self, batch: Batch) -> list[tuple[str, Sample]]:
        """The images of a batch, or the frames of its clip, with the names of their masks."""
        if batch.video is None:
            return [(sample_id, self.data.reader[self.position[sample_id]]) for sample_id in batch.ids]
        video = self._open_video(batch.ids[0])
        frames = range(batch.start, batch.start + batch.video.shape[1])
        return [(f"{video.id}/{video.names[frame]}", video.frames[frame]) for frame in frames]

    def _open_video(self, video_id: str) -> Video:
        """The video, kept until another one is asked for: opening one may read megabytes."""
        if self.video is None or self.video.id != video_id:
            self.video = self.data.reader[self.position[video_id]]
        return self.video


def masks_plan(
    task: TaskSpec,
    data: OpenData,
    file: FindFile,
    name: str,
    *,
    background: int | None = None,
    source: str = "none",
    noise_seeds: Sequence[int] = (0,),
    limit: int | None = None,
    split: str | None = None,
    extent: str | None = None,
) -> Plan:
    """The plan that scores masks from PNG files.

    Args:
        task: of images or of videos.
        data: what the masks belong to; `limit` and `split` say how it was opened.
        file: where each mask is. A file that is missing fails its image or video when it is read.
        name: of the model in the result.
        background: for videos, the id of pixels that are no proposal in J and F, as in DAVIS; FG-ARI and mBO count it
            as a segment all the same. None makes every id a proposal.
        source: mask source, as a result records it.
        extent: what the masks show, see `read_prediction`.
    """
    videos = find_family(task.family).unit == "videos"

    def read(mask_name: str, sample: Sample, seed: int) -> np.ndarray:
        codes = read_prediction(file(mask_name, seed), sample, task, extent)
        if videos:  # an id means the same segment in all frames
            return codes
        # Small ids: the time that detection takes grows with the largest one, and colours reach 2^24.
        return np.unique(codes, return_inverse=True)[1].reshape(codes.shape)

    content = hashlib.sha256()
    for names in _mask_names(data, videos):
        for path in (file(mask_name, seed) for seed in noise_seeds for mask_name in names):
            # A missing file is not an error here: the runner records it for its sample.
            found = find_file(path)
            content.update(found.read_bytes() if found else b"")
    lookup = MaskLookup(data, read, source, reads_video=videos)
    model = masks_model(lookup, name, content.hexdigest(), {"extent": extent} if extent else {})
    plan = make_plan(model, task, data=data, noise_seeds=noise_seeds, limit=limit, split=split, device="cpu")
    return replace(plan, adapter=VideoAdapter(task, no_segment=background)) if videos else plan


def masks_model(
    lookup: MaskLookup, name: str, sha256: str, options: Mapping[str, str] = MappingProxyType({})
) -> LoadedModel:
    """The masks as a loaded model; the hash of their content takes the place of a checkpoint's."""
    about: dict[str, Any] = {"notes": ("masks from files",), "supervision": "undeclared"}
    card = ModelCard(name="supplied-masks", source="user:object", input=8, **about)
    return LoadedModel(lookup, card, name, sha256, 0, None, options, bundled=False)


def masks_in(folder: Path, task: TaskSpec, data: OpenData) -> FindFile:
    """Where the masks in a user's folder are. Raises UsageError when one is missing.

    Videos that cannot be opened need no masks.
    """
    videos = find_family(task.family).unit == "videos"
    what, place = ("video id", "folder") if videos else ("sample id", "file name")
    for sample_id in data.ids:  # an id like `../x` would read files outside of the folder
        if Path(sample_id).is_absolute() or ".." in Path(sample_id).parts:
            raise UsageError(f"{what} '{sample_id}' is not usable as a {place} below {folder}")
    paths = [folder / f"{name}.png" for names in _mask_names(data, videos) for name in names]
    missing = [path for path in paths if find_file(path) is None]
    if missing:
        first = missing[0].relative_to(folder)
        remedy = "write one id-map PNG for each frame, <video>/<frame>.png" if videos else f"{REMEDY}, or use --limit"
        others = (path.with_suffix(suffix) for path in missing for suffix in _LOSSY)
        if lossy := next((other for other in others if find_file(other)), None):
            remedy = f"{lossy.name} is no mask, as lossy compression makes new ids at every border; {remedy}"
        raise UsageError(f"{folder}: {len(missing)} of {len(paths)} masks are missing, first {first}; {remedy}")
    return lambda name, seed: folder / f"{name}.png"


def _mask_names(data: OpenData, videos: bool) -> Iterator[Sequence[str]]:
    """Names of the masks of all images at once, or of one video after another."""
    if not videos:
        yield data.ids
        return
    for index in range(len(data.ids)):
        with suppress(SampleError):  # the runner records videos that cannot be opened
            video: Video = data.reader[index]
            yield [f"{video.id}/{frame}" for frame in video.names]

"""Your own videos: frames and id-map masks in two folders, described by an ordinary task card (see docs/data.md).

    <folder>/<images>/<video>/<frame>.jpg|.jpeg|.png|.webp|.bmp|.tif|.tiff      <folder>/<masks>/<video>/<frame>.png
    <folder>/<images>/<video>.mp4|.mov|.mkv|.webm|.avi|.gif            masks as above, one for each frame, in its order

Frames are taken in the order of the numbers in their names (`f2` before `f10`). A mask pixel holds the number (palette,
grey or 16-bit PNG) or the colour (RGB PNG) of its object, which must be the same in all frames of a video. Numbers may
have gaps: they are ranked over the whole video. Other files and folders are counted and named. Options of the card
(`data.options`), all optional:

images, masks  folder names below the folder (`frames`, `masks`)
ids            text file below the folder with one name of a video per line; `{split}` in its name becomes the split
void           number, or [R, G, B], of pixels without annotation (255, but an object in a video whose masks have larger
               numbers); null when there are none
background     number, or [R, G, B], of the background (0); null when every segment is an object
max_objects    more objects than this in one video are an error (1000)

The masks of a video are all read once, before its first frame, and only the table of their numbers is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from ...core.errors import DataMissingError, SampleError, UsageError
from ...core.numbers import counted
from ...core.types import Sample, Truth, Video
from ..base import OpenData, Request, SampleSequence
from ..images import read_image
from ..index import Manifest, take_manifest
from ..labels import Runs, distinct
from ..rims import remark_rims
from .folder import FolderOptions, find_folder, folder_options, list_ids, not_read, rank_labels, void_number
from .frames import IMAGES, by_stem, files_below, in_time, lazy_video, list_files
from .mask_files import MASK_FILES, read_mask_file
from .video_files import VIDEOS, VideoFile

_REMEDY = "repair the file, or list the other videos in data.options.ids"


class VideoFolderOptions(FolderOptions):
    """The options of the card, validated."""

    images: str = "frames"


def open_video_folder(request: Request) -> OpenData:
    """Open a folder of videos. Raises UsageError for an option, DataMissingError for a missing folder."""
    options = folder_options(VideoFolderOptions, request, "video-folder")
    if options.in_one_folder:
        text = "are one folder, in which a frame would be its own mask; put the masks into another"
        raise UsageError(f"task '{request.task.name}': data.options.images and data.options.masks {text}")
    root = find_folder(request, options)
    reader = VideoFolderReader.open(root, options, list_ids(root, options, request), request.limit)
    note = f"data: supplied by you, {counted(len(reader), 'video')} of {root}"
    note += reader.left_out()
    return OpenData(reader, "supplied", f"supplied-{reader.manifest.content}", root, reader.ids, note)


@dataclass(frozen=True)
class VideoFolderReader(SampleSequence[Video]):
    """Videos whose masks have the stems of their frames. `reader[i]` lists the files, its frames read them."""

    root: Path
    ids: tuple[str, ...]
    options: VideoFolderOptions

    @classmethod
    def open(
        cls, root: Path, options: VideoFolderOptions, ids: list[str] | None, limit: int | None
    ) -> VideoFolderReader:
        """List the first `limit` videos: all folders of frames or masks, or those of `ids` where these are given."""
        if ids is None:
            # A folder of masks without frames is listed too: it then fails as a sample, instead of vanishing.
            folders = [path for kind in (options.images, options.masks) for path in (root / kind).iterdir()]
            found = {path.name for path in folders if path.is_dir() and not path.name.startswith(".")}
            ids = sorted(found | set(_video_files(root / options.images)))
        if not ids:
            text = "no folder of frames in it; put the frames of each video into a folder of its own"
            raise DataMissingError(f"{root / options.images}: {text}")
        return cls(root, tuple(ids[:limit]), options)

    @cached_property
    def manifest(self) -> Manifest:
        """All files of the videos."""
        kinds = ((self.options.images, IMAGES), (self.options.masks, MASK_FILES))
        frames, masks = (
            files_below(self.root, [Path(kind, name) for name in self.ids], suffixes) for kind, suffixes in kinds
        )
        files = _video_files(self.root / self.options.images)
        frames += [f"{self.options.images}/{files[name]}" for name in self.ids if name in files]
        return take_manifest(self.root, frames, masks)

    def left_out(self) -> str:
        """What lies in the folders of these videos and is not read, for the note; '' for nothing."""
        names = []
        for kind, suffixes in ((self.options.images, IMAGES), (self.options.masks, MASK_FILES)):
            files = files_below(self.root, [Path(kind, video_id) for video_id in self.ids])
            names += [name for name in files if Path(name).suffix.lower() not in suffixes]
            # Beside the folders of videos: frames that nobody sorted into one.
            beside = [name for name in files_below(self.root, [Path(kind)]) if not (self.root / name).is_dir()]
            names += [name for name in beside if kind == self.options.masks or Path(name).suffix.lower() not in VIDEOS]
        return not_read(("files or folders", names))

    def __getitem__(self, index: int) -> Video:
        """Video `index`. Raises SampleError when it has no frame, or two files for one frame."""
        video_id = self.ids[range(len(self))[index]]
        folder = self.root / self.options.images
        images = list_files(folder / video_id, IMAGES, video_id)
        masks = list_files(self.root / self.options.masks / video_id, MASK_FILES, video_id)
        video = self._video_file(video_id, len(images), len(masks))
        names = in_time(masks if video is not None else {*images, *masks})
        files = _VideoFiles(
            video_id,
            video if video is not None else [folder / video_id / images.get(name, f"{name}.jpg") for name in names],
            [self.root / self.options.masks / video_id / masks.get(name, f"{name}.png") for name in names],
            self.options,
        )
        return lazy_video(video_id, names, partial(_read_frame, files), _REMEDY)

    def _video_file(self, video_id: str, images: int, masks: int) -> VideoFile | None:
        """The frames of a video in a file; None for a folder of frames.

        Raises SampleError when there are both, or not as many masks as frames.
        """
        folder = self.root / self.options.images
        name = _video_files(folder).get(video_id)
        if name is None:
            return None
        if images:
            raise SampleError(video_id, f"{folder}: '{name}' and a folder of frames are one video; remove one")
        video = VideoFile(folder / name, video_id, _REMEDY)
        if video.count != masks:
            raise SampleError(
                video_id, f"{folder / name}: {video.count} frames, {masks} masks; give one for each frame"
            )
        return video


def _video_files(folder: Path) -> dict[str, str]:
    """Stem -> name of the video files in a folder. Raises UsageError when two have one stem."""
    try:
        return by_stem((path.name for path in folder.iterdir() if path.is_file()), VIDEOS)[0]
    except ValueError as error:
        raise UsageError(f"{folder}: {error} are one video; remove one") from error


@dataclass
class _VideoFiles:
    """The files of one video.

    images: file of each frame, or the frames of a video file. codes: numbers of all masks in ascending order, and
    whether they are colours; None until the first frame is read.
    """

    video_id: str
    images: list[Path] | VideoFile
    masks: list[Path]
    options: VideoFolderOptions
    codes: tuple[np.ndarray, bool] | None = field(default=None)


def _read_frame(files: _VideoFiles, position: int) -> Sample:
    """One frame with its truth; the first one that is read also collects the numbers of all masks."""
    frame = files.images[position]
    image = frame if isinstance(frame, np.ndarray) else read_image(frame, files.video_id, remedy=_REMEDY)
    if files.codes is None:
        files.codes = _collect(files, image.shape)
    table, coloured = files.codes
    path = files.masks[position]
    codes, _ = read_mask_file(path, files.video_id, shape=image.shape, remedy=_REMEDY)
    runs = Runs.of(codes)
    if not np.isin(runs.values[0], table).all():
        raise SampleError(files.video_id, f"{path}: was changed while its video was read; evaluate again")
    labels = _rank(files, table, runs.values[0], coloured).astype(np.int16)
    return Sample(files.video_id, image, Truth(runs.drawn(labels)))


def _collect(files: _VideoFiles, shape: tuple[int, ...]) -> tuple[np.ndarray, bool]:
    """All codes of the masks in ascending order, and whether they are colours.

    Raises SampleError when one mask holds numbers and another one colours, and for too many objects.
    """
    table, kinds = np.zeros(0, dtype=np.int64), set()
    for path in files.masks:
        codes, coloured = read_mask_file(path, files.video_id, shape=shape, remedy=f"a video has one size; {_REMEDY}")
        void = files.options.void
        remark_rims(codes, coloured, void if isinstance(void, int) and not coloured else None, path, path.parent.parent)
        table = np.union1d(table, distinct(codes))
        kinds.add(coloured)
        if len(kinds) > 1:
            raise SampleError(files.video_id, f"{path}: colours and numbers in the masks of one video; {_REMEDY}")
        most = files.options.max_objects
        # Two codes more than objects: one may be void, one the background. Checked after each mask, so that a folder
        # of photographs fails at once and does not fill the memory.
        if len(table) > most + 2 or _rank(files, table, table, coloured).max(initial=0) > most:
            text = f"more than {most} objects in the video, as many as data.options.max_objects allows"
            raise SampleError(files.video_id, f"{path}: {text}; are these id maps? else raise the limit")
    return table, kinds.pop()


def _rank(files: _VideoFiles, table: np.ndarray, codes: np.ndarray, coloured: bool) -> np.ndarray:
    """Labels of `codes`, which are ranked among all codes of the video (`table`)."""
    try:
        void = void_number(table, coloured, files.options, files.masks[0].parent, files.masks[0].parents[1])
        return rank_labels(codes, coloured, void, files.options.background, table)
    except ValueError as error:
        raise SampleError(files.video_id, f"{files.masks[0]}: {error}") from error

"""DAVIS 2017 at 480p (Pont-Tuset et al. 2017, arXiv:1704.00675), below <data root>/davis or <data root> itself.

    DAVIS/JPEGImages/480p/<sequence>/00000.jpg                DAVIS/ may be left out
    DAVIS/Annotations_unsupervised/480p/<sequence>/00000.png  `annotations: unsupervised` (Caelles et al. 2019,
                                                              arXiv:1905.00737; DAVIS-2017-Unsupervised-trainval-480p)
    DAVIS/Annotations/480p/<sequence>/00000.png               `annotations: semi`
    DAVIS/ImageSets/2017/{train,val}.txt                      60 and 30 names of sequences

Options of a card: `annotations`, see above. Masks are palette PNGs whose numbers mean the same object in all frames:
0 is unlabelled, 1.. are objects, 255 is void. Frames are numbered from 00000 without gaps, as DAVIS numbers them, up to
the last image or mask: a sequence that lacks an image or a mask is a failed sample. Without the folder ImageSets all
sequences are read, whatever the split.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from ...core.errors import DataMissingError, SampleError, UsageError
from ...core.numbers import counted
from ...core.types import VOID, Sample, Truth, Video
from ..base import OpenData, Request, SampleSequence
from ..images import read_image, read_mask
from ..index import Manifest, take_manifest
from ..options import check_split, first_repeated, parse_options, read_lines
from ..stand_ins.layouts import ensure_layout
from .frames import MASKS, files_below, lazy_video, list_files
from .places import find_root

_REMEDY = "unpack the archive again, or take the sequence out of the list"
_IMAGES = Path("JPEGImages/480p")
_ANNOTATIONS = {"unsupervised": Path("Annotations_unsupervised/480p"), "semi": Path("Annotations/480p")}
_VOID_CODE = 255
_FRAMES, _LISTS = (".jpg",), (".txt",)


class DavisOptions(BaseModel):
    """The options of the card, validated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    annotations: Literal["unsupervised", "semi"] = "unsupervised"


def open_davis(request: Request) -> OpenData:
    """Open one split. Raises UsageError for an option or a split, DataMissingError when the data is not there."""
    options = parse_options(DavisOptions, request)
    check_split(request, "DAVIS", ("train", "val"))
    if request.root is None:
        tree = ensure_layout(request, "davis")
        reader = DavisReader.open(_find(tree.root, request), request.split, options, None)
        return OpenData(reader, "embedded", tree.revision, reader.root, reader.ids, tree.note)
    reader = DavisReader.open(_find(request.root, request), request.split, options, request.limit)
    what = f"DAVIS 2017 {request.split} ({options.annotations})"
    note = f"data: {what}, {counted(len(reader), 'sequence')} of {reader.root}"
    if not reader.listed:
        note += "; it has no ImageSets, so that these are all its sequences"
    return OpenData(reader, "official", f"official-{reader.manifest.content}", reader.root, reader.ids, note)


@dataclass(frozen=True)
class DavisReader(SampleSequence[Video]):
    """The sequences of a split. Their files are listed by `reader[i]` and read by `reader[i].frames[t]`.

    annotations: folder of the masks below `root`. listed: whether a file of ImageSets names the sequences.
    """

    root: Path
    ids: tuple[str, ...]
    annotations: Path
    listed: bool

    @classmethod
    def open(cls, root: Path, split: str, options: DavisOptions, limit: int | None) -> DavisReader:
        """Find the names of the first `limit` sequences. Raises DataMissingError without folders of such masks."""
        annotations = _ANNOTATIONS[options.annotations]
        if not (root / annotations).is_dir():
            # The archives of the two kinds are often unpacked alone, so the message names the kind that is there.
            other = next((name for name, path in _ANNOTATIONS.items() if (root / path).is_dir()), None)
            hint = f"data.options.annotations: {other} reads {_ANNOTATIONS[other]}" if other else "unpack it again"
            raise DataMissingError(f"{root / annotations}: there is no such folder; {hint}")
        listed = (root / "ImageSets").is_dir()
        ids = _listed(root, split) if listed else _found(root)
        return cls(root, tuple(ids[:limit]), annotations, listed)

    @cached_property
    def manifest(self) -> Manifest:
        """All files of the sequences, and the lists."""
        frames, masks = ([place / video_id for video_id in self.ids] for place in (_IMAGES, self.annotations))
        annotations = files_below(self.root, [Path("ImageSets/2017")], _LISTS) + files_below(self.root, masks, MASKS)
        return take_manifest(self.root, files_below(self.root, frames, _FRAMES), annotations)

    def __getitem__(self, index: int) -> Video:
        """Sequence `index`. Raises SampleError when it has no frame, or a file whose name is not one of DAVIS."""
        video_id = self.ids[range(len(self))[index]]
        names = self._names(video_id)
        strange = next((name for name in names if not _is_number(name)), None)
        if strange is not None:
            raise SampleError(video_id, f"frame '{strange}': names are numbers of 5 digits in DAVIS; {_REMEDY}")
        return lazy_video(video_id, names, partial(self._frame, video_id, names), _REMEDY)

    def _names(self, video_id: str) -> list[str]:
        """Names of the frames, 00000 to the last one; just the names in the folders if one of them is not a number."""
        images = list_files(self.root / _IMAGES / video_id, _FRAMES, video_id)
        masks = list_files(self.root / self.annotations / video_id, MASKS, video_id)
        names = sorted({*images, *masks})
        if not names or not all(map(_is_number, names)):
            return names
        # Counted, not listed: a frame whose files are both missing must not close up silently.
        return [f"{number:05d}" for number in range(int(names[-1]) + 1)]

    def _frame(self, video_id: str, names: list[str], position: int) -> Sample:
        name = names[position]
        image = read_image(self.root / _IMAGES / video_id / f"{name}.jpg", video_id, remedy=_REMEDY)
        path = self.root / self.annotations / video_id / f"{name}.png"
        codes, coloured = read_mask(path, video_id, shape=image.shape, remedy=_REMEDY)
        if coloured:
            raise SampleError(video_id, f"{path}: is a colour image; DAVIS stores palette numbers; {_REMEDY}")
        # Only a 16-bit PNG can get here: 8 bits hold no larger number.
        if codes.max(initial=0) > _VOID_CODE:
            raise SampleError(video_id, f"{path}: number {codes.max()}, expected 0..255; {_REMEDY}")
        labels = codes.astype(np.int16)
        labels[labels == _VOID_CODE] = VOID
        return Sample(video_id, image, Truth(labels))


def _is_number(name: str) -> bool:
    return len(name) == 5 and name.isascii() and name.isdigit()


def _find(base: Path, request: Request) -> Path:
    """The folder that holds JPEGImages."""
    folders = [base / request.data.folder, base]
    candidates = [place for folder in folders for place in (folder / "DAVIS", folder)]
    return find_root(request, candidates, lambda place: (place / _IMAGES).is_dir(), f"folder {_IMAGES} (DAVIS 2017)")


def _listed(root: Path, split: str) -> list[str]:
    """Names of the sequences that the list of a split holds, in its order."""
    path = root / "ImageSets/2017" / f"{split}.txt"
    ids = read_lines(path, "list of sequences", "unpack the archive again")
    # Names become paths: none may lead out of the folder of the sequences.
    wrong = next((name for name in ids if Path(name).name != name or name == ".." or "\\" in name), None)
    if wrong is not None:
        raise UsageError(f"{path}: '{wrong}' is not the name of a sequence; unpack the archive again")
    if (twice := first_repeated(ids)) is not None:
        raise UsageError(f"{path}: '{twice}' is listed twice; remove one")
    if not ids:
        raise DataMissingError(f"{path}: lists no sequence; unpack the archive again")
    return ids


def _found(root: Path) -> list[str]:
    """Names of all folders of images, sorted."""
    folders = (path for path in (root / _IMAGES).iterdir() if path.is_dir() and not path.name.startswith("."))
    ids = sorted(path.name for path in folders)
    if not ids:
        raise DataMissingError(f"{root / _IMAGES}: no sequence in it; unpack the archive again")
    return ids

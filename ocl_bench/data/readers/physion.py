"""Physion (Bear et al., NeurIPS 2021, arXiv:2106.08261), below <data root>/Physion or the data root itself.

    PhysionTestMP4s/<scenario>/mp4s-redyellow/<name>/000000.jpg       split `test`: frames as pictures (SlotFormer)
    PhysionTestMP4s/labels.csv
    PhysionTrainMP4s/<scenario>_readout_MP4s/<name>/000000.jpg        split `readout`
    PhysionTrainMP4s/readout_labels.csv
    stand-in.json                                                     timing of videos shorter than the official ones

A sample is a video, and its id is `<scenario>/<name>`, so that no list that leaves videos out can shift the scenarios.
The truth is whether the red and the yellow object touch in the whole video; nothing is said of masks and places.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from ...core.errors import DataMissingError, SampleError
from ...core.numbers import counted
from ...core.types import Sample, Truth, Video
from ..base import OpenData, Request, SampleSequence
from ..clevrer.annotations import read_timing
from ..images import read_image
from ..index import Manifest, take_manifest
from ..options import check_split
from ..physion import PLACES, SCENARIOS, read_labels
from ..stand_ins.layouts import ensure_layout
from .frames import files_below, lazy_video, list_files
from .places import find_root, usual_places

_FRAMES = (".png", ".jpg", ".jpeg")
_REMEDY = "extract or download the video again"
_TOUCHED, _APART = frozenset({(1, 2)}), frozenset[tuple[int, int]]()


def open_physion(request: Request) -> OpenData:
    """Open one split. Raises UsageError for another split, DataMissingError when the data is not there."""
    check_split(request, "Physion", tuple(PLACES))
    tree = ensure_layout(request, "physion") if request.root is None else None
    places = (tree.root,) if tree is not None else usual_places(request)
    labels = PLACES[request.split].labels
    candidates = [folder for place in places for folder in (place / "Physion", place)]
    root = find_root(request, candidates, lambda place: (place / labels).is_file(), f"{labels} (Physion)")
    reader = PhysionReader.open(root, request.split, request.limit if tree is None else None)
    timing = read_timing(root)
    if tree is not None:
        return OpenData(reader, "embedded", tree.revision, tree.root, reader.ids, tree.note, timing=timing)
    note = f"data: Physion {request.split}, {counted(len(reader), 'video')} of {root}"
    revision = f"official-{reader.manifest.content}"
    return OpenData(reader, "official", revision, root, reader.ids, note, timing=timing)


@dataclass(frozen=True)
class PhysionReader(SampleSequence[Video]):
    """The videos of a split. Files are read when a video or a frame is asked for."""

    root: Path
    split: str
    ids: tuple[str, ...]
    folders: Mapping[str, Path]
    labels: Mapping[str, bool]

    @classmethod
    def open(cls, root: Path, split: str, limit: int | None) -> PhysionReader:
        """Find the folders of frames of the first `limit` videos, scenario by scenario.

        Raises DataMissingError without any, and what `read_labels` raises.
        """
        place = PLACES[split]
        found: dict[str, Path] = {}
        for scenario in SCENARIOS:
            folder = Path(place.folder(scenario))
            if (root / folder).is_dir():
                names = sorted(path.name for path in (root / folder).iterdir() if path.is_dir())
                found |= {f"{scenario}/{name}": folder / name for name in names}
        if not found:
            where = place.folder(f"{{{','.join(SCENARIOS)}}}")
            raise DataMissingError(
                f"{root}: no folder with frames in {where}", "extract each film.mp4 to film/000000.jpg .."
            )
        ids = tuple(found)[:limit]
        return cls(root, split, ids, {name: found[name] for name in ids}, read_labels(root / place.labels))

    @cached_property
    def manifest(self) -> Manifest:
        """All frames, and the file of labels."""
        frames = files_below(self.root, self.folders.values(), _FRAMES)
        return take_manifest(self.root, frames, (PLACES[self.split].labels,))

    def __getitem__(self, index: int) -> Video:
        """Video `index`. Raises SampleError for a video without a label or without frames."""
        name = self.ids[range(len(self))[index]]
        folder, place = self.folders[name], PLACES[self.split]
        label = place.label_of(folder.name)
        if label not in self.labels:
            raise SampleError(name, f"{self.root / place.labels}: has no row of '{label}'; download Physion again")
        files = list_files(self.root / folder, _FRAMES, name)
        touched = _TOUCHED if self.labels[label] else _APART
        read = partial(self._frame, name, folder, [files[stem] for stem in sorted(files)], touched)
        return lazy_video(name, sorted(files), read, _REMEDY)

    def _frame(
        self, name: str, folder: Path, files: list[str], touched: frozenset[tuple[int, int]], position: int
    ) -> Sample:
        image = read_image(self.root / folder / files[position], name, remedy=_REMEDY)
        return Sample(name, image, Truth(np.zeros(image.shape[:2], np.int16), touched=touched))

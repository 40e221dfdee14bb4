"""Further forms in which people hold the data of a reader: which of them is below a data root, and who reads it.

The form is chosen by what is found. Where two fit, nobody can know which one is meant, and one line refuses both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ..core.errors import DataMissingError, UsageError
from .base import OpenData, Request
from .readers import ade20k_parquet, coco_exports, lmdb_images, lmdb_videos, video_shards
from .readers.ade20k import find_official as find_ade20k
from .readers.clevrtex import find_official as find_clevrtex
from .readers.coco import find_table as find_coco
from .readers.movi import find_official as find_movi
from .readers.voc import find_official as find_voc
from .readers.ytvis import find_official as find_ytvis


@dataclass(frozen=True)
class Layout:
    """One form of a data set.

    Attributes:
        name: what messages call it.
        find: the place of the data below the root of a request; None where there is none.
        open: opens what `find` found.
        check: raises DataMissingError when a part of it is there, and says what it lacks.
    """

    name: str
    find: Callable[[Request], Path | None]
    open: Callable[[Request, Path], OpenData]
    check: Callable[[Request], None] = lambda request: None


OFFICIAL: dict[str, Callable[[Request], Path]] = {
    "ade20k": find_ade20k,
    "clevrtex": find_clevrtex,
    "coco": find_coco,
    "movi": find_movi,
    "voc": find_voc,
    "ytvis": find_ytvis,
}
"""Reader -> function that finds the official form and raises DataMissingError without it."""

LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "ade20k": (Layout("Parquet files", ade20k_parquet.find, ade20k_parquet.open_parquet),),
    "clevrtex": (Layout("LMDB file", lmdb_images.find_clevrtex_lmdb, lmdb_images.open_clevrtex_lmdb),),
    "coco": (
        Layout("LMDB file", lmdb_images.find_coco_lmdb, lmdb_images.open_coco_lmdb),
        *(Layout(f"export of {one.program}", one.find, one.open, one.check) for one in coco_exports.EXPORTS),
    ),
    "movi": (
        Layout("WebDataset shards", video_shards.find_movi_shards, video_shards.open_movi_shards),
        Layout("LMDB file", lmdb_videos.find_movi_lmdb, lmdb_videos.open_movi_lmdb),
    ),
    "voc": (Layout("LMDB file", lmdb_images.find_voc_lmdb, lmdb_images.open_voc_lmdb),),
    "ytvis": (
        Layout("WebDataset shards", video_shards.find_ytvis_shards, video_shards.open_ytvis_shards),
        Layout("LMDB file", lmdb_videos.find_ytvis_lmdb, lmdb_videos.open_ytvis_lmdb),
    ),
}
"""Reader -> its further forms."""

_SPLITS = ("train", "val", "validation", "test")
"""Splits of which a form may have one file each."""


def found_layouts(reader: str, request: Request, opener: Callable[[Request], OpenData]) -> list[tuple[Layout, Path]]:
    """The forms of the data that are below the root of a request, each with its place; the official one first.

    Raises UsageError when an option of the card is wrong.
    """

    def official(request: Request) -> Path | None:
        try:
            return OFFICIAL[reader](request)
        except DataMissingError:
            return None

    layouts = (Layout("official files", official, lambda request, _: opener(request)), *LAYOUTS[reader])
    return [(layout, place) for layout in layouts if (place := layout.find(request)) is not None]


def _check_parts(reader: str, request: Request) -> None:
    """Raise DataMissingError when a part of a form is there: the official folders are not what is missing."""
    for layout in LAYOUTS[reader]:
        layout.check(request)
        found = ((split, layout.find(replace(request, split=split))) for split in _SPLITS)
        there, place = next(((split, place) for split, place in found if place is not None), (None, None))
        if place is not None:
            text = f"found {layout.name} of split '{there}' in {place}, none of split '{request.split}'"
            raise DataMissingError(f"task '{request.task.name}': {text}; copy that split to the same place")


def open_layout(reader: str, opener: Callable[[Request], OpenData], request: Request) -> OpenData:
    """Open the data of a request in the form that is there.

    Args:
        reader: name of the reader.
        opener: opens the official form, or the stand-in.
        request: see `Request`.

    Raises:
        UsageError: the data are there in two forms.
        DataMissingError: they are there in none.
    """
    if request.root is None or reader not in LAYOUTS:
        return opener(request)
    found = found_layouts(reader, request, opener)
    if len(found) > 1:
        shown = " and ".join(f"{layout.name} in {place}" for layout, place in found)
        raise UsageError(f"task '{request.task.name}': found {shown}; give --data-root the folder of one of them")
    if not found:
        _check_parts(reader, request)
        return opener(request)  # it says what is missing
    layout, place = found[0]
    return layout.open(request, place)

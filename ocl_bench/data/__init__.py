"""Readers turn official on-disk layouts, or a rendered stand-in in the same layout, into samples."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

from ..cards.protocols import LARGEST_SEED
from ..cards.task import TaskSpec
from ..core import entry_points, paths
from ..core.errors import DataMissingError, UsageError
from ..core.log import logger
from .base import OpenData, Reader, Request, manifest_of, subset
from .hints import hints
from .hub import fetch, is_hub
from .index import check_utf8
from .layouts import open_layout
from .options import first_repeated
from .readers.ade20k import open_ade20k
from .readers.cityscapes import open_cityscapes
from .readers.clevrer import open_clevrer
from .readers.clevrtex import open_clevrtex
from .readers.coco import open_coco
from .readers.davis import open_davis
from .readers.folder import open_folder
from .readers.imagenet import open_imagenet
from .readers.movi import open_movi
from .readers.physion import open_physion
from .readers.video_folder import open_video_folder
from .readers.voc import open_voc
from .readers.ytvis import open_ovis, open_ytvis

__all__ = ["READERS", "OpenData", "Reader", "open_data", "pick", "spread", "subset"]

READERS: dict[str, Callable[[Request], OpenData]] = {
    "ade20k": open_ade20k,
    "cityscapes": open_cityscapes,
    "clevrer": open_clevrer,
    "clevrtex": open_clevrtex,
    "coco": open_coco,
    "davis": open_davis,
    "folder": open_folder,
    "imagenet": open_imagenet,
    "movi": open_movi,
    "ovis": open_ovis,
    "physion": open_physion,
    "video-folder": open_video_folder,
    "voc": open_voc,
    "ytvis": open_ytvis,
}
"""Name in a task card's `data.reader` -> function that opens the data."""


def open_data(
    task: TaskSpec,
    *,
    data_root: Path | None = None,
    limit: int | None = None,
    split: str | None = None,
    stand_in_seed: int | None = None,
    embedded: bool = False,
    progress: bool = True,
    verify: bool = False,
) -> OpenData:
    """Open the data of a task: real data when there is a root for it, else the stand-in, rendered when it is absent.

    A corrupt sample raises SampleError later, at `reader[i]`; the other samples can still be read.

    Args:
        task: the task card.
        data_root: folder with real data, or `hf://datasets/OWNER/NAME[@revision]` on the hub. None reads
            `OCL_BENCH_DATA`, which may be either; where that is unset, the stand-in is opened.
        limit: number of samples to keep; most readers keep the first ones. A stand-in renders no more than these.
        split: split to open instead of the card's.
        stand_in_seed: 1 or more renders a fresh stand-in split, to check that nothing was tuned to the shipped one.
        embedded: take the stand-in even where `OCL_BENCH_DATA` is set.
        progress: draw a progress bar on stderr while a stand-in is rendered.
        verify: read all files, images too, whatever is remembered of their content; see docs/data.md.

    Returns:
        The opened data: samples are read one at a time, by index.

    Raises:
        UsageError: the reader, the split or an option is unknown, or an image is not the one that an earlier
            verification recorded.
        DataMissingError: a root was given, but the data is not in it.
    """
    reader = _find_reader(task)
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit}: give a number of samples of 1 or more")
    if stand_in_seed is not None and stand_in_seed < 1:
        raise UsageError(f"--stand-in-seed {stand_in_seed}: give 1 or more (0 is the shipped split)")
    if stand_in_seed is not None and stand_in_seed > LARGEST_SEED:
        raise UsageError(f"--stand-in-seed {str(stand_in_seed)[:40]}: give at most {LARGEST_SEED}")
    named = paths.data_root() if data_root is None and stand_in_seed is None else data_root
    if named is not None and is_hub(named) and not embedded:
        folder = fetch(named)
        data = open_data(
            task, data_root=folder.path, limit=limit, split=split, stand_in_seed=stand_in_seed, verify=verify
        )
        return replace(data, revision=f"{data.revision}-{folder.revision}", note=f"{data.note} ({folder.revision})")
    root = Path(data_root).expanduser() if data_root is not None else None
    if root is not None and not root.is_dir():
        raise DataMissingError(f"--data-root {root}: there is no such folder; see docs/data.md for the layouts")
    request = Request(task, root, limit, split or task.data.split, stand_in_seed, progress, embedded, verify)
    data = _opened(reader, request)
    check_utf8(data.ids)
    return _verified(data, reader, request) if verify else data


def _opened(reader: Callable[[Request], OpenData], request: Request) -> OpenData:
    """The data of a request. Raises DataMissingError that says where they may be instead."""
    opener = partial(open_layout, request.data.reader, reader)
    try:
        return opener(request)
    except DataMissingError as error:
        if request.root is None:
            raise
        raise DataMissingError(f"{error}{hints(request, opener)}") from error


def _verified(data: OpenData, reader: Callable[[Request], OpenData], request: Request) -> OpenData:
    """Opened data after all its files were read; opened again where its revision was made of other content."""
    if data.kind == "embedded":
        logger.info("--verify: read all files of the stand-in %s", data.root)
        return data
    manifest = manifest_of(data)
    if manifest is None:
        logger.warning(
            "--verify: reader '%s' does not say which files it reads: none was verified", request.data.reader
        )
        return data
    return data if manifest.verify() else open_layout(request.data.reader, reader, request)


def _find_reader(task: TaskSpec) -> Callable[[Request], OpenData]:
    """The function that opens the data of a task, bundled or from another package. Raises UsageError with a hint."""
    name = task.data.reader
    if name in READERS:
        return READERS[name]
    added = entry_points.offered(entry_points.READERS)
    if name in added:
        opener = added[name].load()
        if callable(opener):
            return cast(Callable[[Request], OpenData], opener)
        raise UsageError(f"reader '{name}': {added[name].value} is not a function (request: Request) -> OpenData")
    known = sorted([*READERS, *added])
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean '{near[0]}'?" if near else f"known readers: {', '.join(known)}"
    raise UsageError(f"task '{task.name}': data.reader '{name}' is unknown; {hint}")


def pick(data: OpenData, ids: Sequence[str], source: object) -> OpenData:
    """The samples of these ids, in the order of the data.

    Args:
        data: opened data.
        ids: of samples.
        source: what messages call the list.

    Raises:
        UsageError: the list is empty, has an id that the data lack, or one twice.
    """
    wanted, known = set(ids), set(data.ids)
    unknown = [sample_id for sample_id in ids if sample_id not in known]
    if not ids or unknown:
        text = f"{len(unknown)} ids are not in the data, first '{unknown[0]}'" if unknown else "lists no id"
        raise UsageError(f"{source}: {text}; `ocl-bench show --ids TASK` lists them")
    if (twice := first_repeated(ids)) is not None:
        raise UsageError(f"{source}: '{twice}' is listed twice; remove one")
    return subset(data, [position for position, sample_id in enumerate(data.ids) if sample_id in wanted])


def spread(data: OpenData, count: int | None) -> OpenData:
    """At most `count` samples of the data, evenly spread over its order; all of them for None."""
    if count is None or count >= len(data.ids):
        return data
    return subset(data, [position * len(data.ids) // count for position in range(count)])

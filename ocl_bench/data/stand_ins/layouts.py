"""Stand-ins in official layouts: rendered scenes, written as trees that the reader of the real data can read.

<cache>/stand-ins/<layout>/things-r1-w1/<official split>-<count>[-seed<N>]/     a whole data root
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import DataMissingError, UsageError
from ...core.log import progress_bar
from ...core.paths import cache_root
from ..base import Request
from ..rendered import ensure_files, ensure_folder
from ..scenes.store import Store, open_store
from . import stand_in
from .processes import cannot_write, share_out
from .writers import find_writer

WRITERS = {"clevrer": 2}
"""Add 1 when a layout is written differently, from 1 on: trees of another number in a cache are then not read."""

FIRST = {"train": 0, "test": 500_000}
"""Number of scene 0 in file names, so that no name occurs in two splits."""

_WORTH_A_PROCESS = 8
"""Fewer files than this are rendered in this process alone: starting torch in another one takes as long."""

_SPLITS = {
    "ade20k": ("train", "val"),
    "cityscapes": ("train", "val"),
    "clevrer": ("train", "val"),
    "coco": ("train", "val"),
    "davis": ("train", "val"),
    "imagenet": ("train", "val"),
    "movi_a": ("train", "validation", "test"),
    "movi_b": ("train", "validation", "test"),
    "movi_c": ("train", "validation", "test"),
    "movi_d": ("train", "validation", "test"),
    "movi_e": ("train", "validation", "test"),
    "physion": ("readout", "test"),
    "ytvis": ("train", "validation"),
    "voc2007": ("train", "val", "trainval", "test", "all-masks"),
    "voc2012": ("train", "val", "trainval", "trainaug", "all-masks"),
}
"""Official splits with public annotations. Names of splits become folders of the cache, so all others are refused."""


@dataclass(frozen=True)
class LayoutTree:
    """A written stand-in. root: data root in the official layout. note: one line for the user."""

    root: Path
    revision: str
    count: int
    note: str


@dataclass(frozen=True)
class StoreJob:
    """Chunks of a store for one worker process."""

    store: Store
    chunks: tuple[int, ...]

    @property
    def module(self) -> str:
        """The module whose `main` renders them."""
        return type(self.store).__module__

    @property
    def folder(self) -> str:
        """The folder of the chunks."""
        return str(self.store.folder)

    def run(self, advance: Callable[[int], None]) -> None:
        """Render the chunks in this process."""
        self.store.render(self.chunks, advance)

    def to_json(self) -> str:
        """The job as text, which `main` of the store's module reads."""
        return json.dumps({"store": json.loads(self.store.to_json()), "chunks": self.chunks})


def ensure_layout(request: Request, layout: str) -> LayoutTree:
    """The stand-in of a task in a layout, rendered and written if it is not in the cache yet.

    Splits whose name begins with `train`, and Physion's `readout`, show training scenes, all others test scenes.

    Args:
        request: gives the card, the split, the limit and the seed.
        layout: one of `_SPLITS`.

    Raises:
        UsageError: the layout does not have the split, or the cache cannot be written.
        DataMissingError: the card has no stand-in.
    """
    if request.split not in _SPLITS[layout]:
        known = ", ".join(_SPLITS[layout])
        raise UsageError(f"task '{request.task.name}': {layout} has the splits {known}, not '{request.split}'")
    card = request.data.stand_in
    if card is None:
        how = request.data.get or "see docs/data.md"
        raise DataMissingError(f"task '{request.task.name}' has no stand-in: give --data-root ({how})")
    training = request.split.startswith(("train", "readout"))
    count = card.samples if request.split == request.data.split else card.fit_samples or card.samples
    count = min(count, request.limit or count)
    split, seed = "train" if training else "test", request.stand_in_seed or 0
    try:
        store = open_store(card.variant, card.revision, split, seed)
    except ValueError as error:
        raise UsageError(f"task '{request.task.name}': data.stand_in: {error}") from error
    stand_in.check_scenes(request, "collisions" if card.variant == "contacts" else card.variant)
    # The revision names what is rendered, not how many: a limit evaluates a part of the same data.
    identity = f"{layout}|{card.variant}|{card.revision}|{request.split}|{seed}"
    revision = f"embedded-r{card.revision}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"
    suffix = f"-seed{seed}" if seed else ""
    release = cache_root() / "stand-ins" / layout / f"{card.variant}-r{card.revision}-w{WRITERS.get(layout, 1)}"
    root = release / f"{request.split}-{count}{suffix}"

    def write(folder: Path) -> None:
        scenes = ensure_scenes(store, count, progress=request.progress, verify=request.verify)
        find_writer(layout)(folder, request.split, scenes, FIRST[split])

    try:
        ensure_folder(root, write, verify=request.verify)
    except OSError as error:
        # A damaged chunk of scenes is met here as well: its own name says what to delete.
        raise cannot_write(error.filename or str(root), error.strerror or str(error)) from error
    note = f"data: embedded stand-in in the layout of {layout}, {count} rendered scenes ({request.split})"
    if seed:
        note += f", fresh seed {seed} (never ranked)"
    return LayoutTree(root, revision, count, f"{note}; --data-root DIR or OCL_BENCH_DATA selects the official data")


def ensure_scenes(store: Store, count: int, *, progress: bool = True, verify: bool = False) -> Store:
    """The store with its first `count` scenes rendered; chunks that are there as they were rendered are kept.

    Args:
        store: of the scenes.
        count: number of scenes.
        progress: draw a progress bar.
        verify: read all chunks, see `ensure_files`.

    Raises:
        UsageError: this version does not render the revision of the store, or the cache cannot be written.
    """
    try:
        store.check_revision()
    except ValueError as error:
        raise UsageError(f"data.stand_in: {error}") from error
    chunks = store.files(count)

    def render(names: Sequence[str]) -> None:
        pending = sorted(chunks[name] for name in names)
        jobs = [StoreJob(store, (chunk,)) for chunk in pending]
        helpers = stand_in.processors() - 1 if len(pending) >= _WORTH_A_PROCESS else 0
        text = f"rendering {store.variant}/{store.split}"
        with progress_bar(text, len(pending) * store.chunk, progress, "scenes") as advance:
            share_out(jobs, advance, helpers)

    try:
        ensure_files(store.folder, chunks, render, verify=verify)
    except OSError as error:
        raise cannot_write(error.filename or str(store.folder), error.strerror or str(error)) from error
    return store.first(count)

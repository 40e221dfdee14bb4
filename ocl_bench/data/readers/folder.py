"""Your own images and id-map masks in two folders, described by an ordinary task card (see docs/data.md).

    <folder>/<images>/<id>.jpg|.jpeg|.png|.webp|.bmp|.tif|.tiff      <folder>/<masks>/<id>.png

A mask pixel holds the number (palette, grey or 16-bit PNG) or the colour (RGB PNG) of its object. Masks may also be
.npy, .npz or .json, see `ocl_bench/data/readers/mask_files.py`. Numbers may have
gaps: they are ranked image by image. What else lies there, a folder or a mask without an image, is counted and named.
Options of the card (`data.options`), all optional:

images, masks  folder names below the folder (`images`, `masks`)
ids            text file below the folder with one id per line; `{split}` in its name becomes the split
void           number, or [R, G, B], of pixels without annotation (255, but an object in a mask with larger numbers);
               null when there are none; also called `ignore_index`, as in `ocl_bench.metrics`
background     number, or [R, G, B], of the background (0); null when every segment is an object
max_objects    more labels than this in one mask are an error (1000)
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from ...core.errors import DataMissingError, SampleError, UsageError
from ...core.log import warn_once
from ...core.numbers import counted
from ...core.types import VOID, Sample, Truth
from ...metrics.ignored import IGNORED, spread_to_255
from ..base import OpenData, Request, SampleSequence
from ..images import read_image
from ..index import Manifest, open_index, read_row, take_manifest
from ..labels import Runs, distinct
from ..options import first_repeated, parse_options, read_lines
from ..rims import remark_rims
from .frames import IMAGES, by_stem, name_some
from .mask_files import MASK_FILES, read_mask_file
from .places import first_folder

if TYPE_CHECKING:
    import pyarrow

_REMEDY = "repair the file, or list the other samples in data.options.ids"
_Code = int | tuple[int, int, int] | None
"""A number or a colour (R, G, B) of mask pixels, or None for "no such pixels"."""


class FolderOptions(BaseModel):
    """The options of the card, validated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: str = "images"
    masks: str = "masks"
    ids: str | None = None
    void: _Code = Field(default=IGNORED, validation_alias=AliasChoices("void", "ignore_index"))
    background: _Code = 0
    max_objects: int = Field(default=1000, ge=1, le=32767)  # labels are int16

    @property
    def in_one_folder(self) -> bool:
        """Whether images and masks lie in the same folder."""
        return PurePosixPath(self.images) == PurePosixPath(self.masks)


Options = TypeVar("Options", bound=FolderOptions)


def open_folder(request: Request) -> OpenData:
    """Open a folder of images and masks. Raises UsageError for an option, DataMissingError for a missing folder."""
    name = request.task.name
    options = folder_options(FolderOptions, request, "folder")
    root = find_folder(request, options)
    reader = FolderReader.open(root, name, options, list_ids(root, options, request), request.limit)
    note = f"data: supplied by you, {counted(len(reader), 'image')} of {root}"
    note += reader.left_out
    return OpenData(reader, "supplied", f"supplied-{reader.manifest.content}", root, reader.ids, note)


def find_folder(request: Request, options: FolderOptions) -> Path:
    """The folder of a card: the first place that holds both the image folder and the mask folder.

    Places are `data.folder` below `--data-root` (or `OCL_BENCH_DATA`), that root itself, `data.folder` beside the card
    and below the current folder. An absolute `data.folder` is the only place. Raises DataMissingError.
    """
    folder = Path(request.data.folder).expanduser()
    candidates: list[Path] = []
    if folder.is_absolute():
        candidates = [folder]
    else:
        if request.root is not None:
            candidates += [request.root / folder, request.root]
        if request.data_root is None:
            candidates += [home / folder for home in (request.task.home, Path.cwd()) if home is not None]
    inner = (options.images, options.masks)
    place = first_folder(candidates, lambda candidate: all((candidate / name).is_dir() for name in inner))
    if place is not None:
        return place
    wanted = f"'{options.images}' and '{options.masks}'"
    looked = ", ".join(dict.fromkeys(str(candidate) for candidate in candidates))
    raise DataMissingError(
        f"task '{request.task.name}': no folder with {wanted} in it; looked at {looked}; "
        "set data.folder, data.options.images and data.options.masks, or give --data-root"
    )


@dataclass(frozen=True)
class FolderReader(SampleSequence[Sample]):
    """Images with masks of the same stem.

    index: Arrow index with the columns id, image and mask, below `root`. left_out: what is not read, for the note.
    """

    root: Path
    ids: tuple[str, ...]
    index: pyarrow.Table
    manifest: Manifest
    options: FolderOptions
    left_out: str = ""

    @classmethod
    def open(
        cls, root: Path, name: str, options: FolderOptions, ids: list[str] | None, limit: int | None
    ) -> FolderReader:
        """List the first `limit` images of the folder, or of `ids` where these are given; no pixel is read."""
        images, other_images = _list(root / options.images, IMAGES)
        # In one folder with the images, as LabelMe saves them, a PNG is an image.
        together = options.in_one_folder
        suffixes = tuple(one for one in MASK_FILES if one not in IMAGES) if together else MASK_FILES
        masks, other_masks = _list(root / options.masks, suffixes)
        if together:
            other_images = [name for name in other_images if name not in masks.values()]
            other_masks = []
        # A mask in another format is asked for, so that the error names the file that is there.
        masks |= {Path(name).stem: name for name in other_masks if Path(name).suffix.lower() in IMAGES} | masks
        chosen = (sorted(images) if ids is None else ids)[:limit]
        if not chosen:
            held = f"it holds {name_some(other_images)}" if other_images else "it is empty"
            raise DataMissingError(f"{root / options.images}: no image ({', '.join(IMAGES)}) directly in it; {held}")
        columns = {
            "id": chosen,
            "image": [f"{options.images}/{images.get(i, f'{i}.jpg')}" for i in chosen],
            "mask": [f"{options.masks}/{masks.get(i, i + suffixes[0])}" for i in chosen],
        }
        # A list of ids says what is left out.
        alone = sorted(masks[i] for i in masks.keys() - images.keys()) if ids is None else []
        other_masks = sorted({*other_masks} - {*masks.values()})
        left_out = not_read(
            (f"in {options.images}", other_images), (f"in {options.masks}", other_masks), ("masks without image", alone)
        )
        manifest = take_manifest(root, columns["image"], columns["mask"])
        index = open_index(f"folder-{name}", columns, manifest)
        return cls(root, tuple(chosen), index, manifest, options, left_out)

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`. Raises SampleError when a file is missing or broken, or has more labels than declared."""
        row = read_row(self.index, range(len(self))[index])
        image = read_image(self.root / row["image"], row["id"], remedy=_REMEDY)
        path = self.root / row["mask"]
        codes, coloured = read_mask_file(path, row["id"], shape=image.shape, remedy=_REMEDY)
        try:
            runs = Runs.of(codes)
            numbers = np.unique(runs.values[0])
            void = void_number(numbers, coloured, self.options, path, self.root)
            about = self.root / self.options.masks
            remark_rims(codes, coloured, _code(void, coloured, "void"), path, about, numbers)
            labels = runs.drawn(rank_labels(runs.values[0], coloured, void, self.options.background, numbers))
        except ValueError as error:
            raise SampleError(row["id"], f"{path}: {error}") from error
        if labels.max(initial=0) > self.options.max_objects:
            limit = f"data.options.max_objects allows {self.options.max_objects}"
            raise SampleError(
                row["id"], f"{path}: {labels.max()} labels, {limit}; is it an id map? else raise the limit"
            )
        return Sample(row["id"], image, Truth(labels.astype(np.int16, copy=False)))


def rank_labels(
    codes: np.ndarray, coloured: bool, void: _Code, background: _Code, numbers: np.ndarray | None = None
) -> np.ndarray:
    """Labels of a mask: `VOID` where void, 0 for the background, and 1, 2, .. for the other codes in ascending order.

    Args:
        codes: integers as `read_mask` gives them, of the pixels or of runs of them.
        coloured: whether the codes are colours.
        void: code of the void pixels, None without any.
        background: code of the background, None when every segment is an object.
        numbers: sorted codes among which those of the mask are ranked; None for its own.

    Raises:
        ValueError: an option is a colour, but the mask holds numbers.
    """
    empty = _code(void, coloured, "void")
    ground = _code(background, coloured, "background")
    numbers = distinct(codes) if numbers is None else numbers
    own = np.ones(len(numbers), bool)
    for code in (empty, ground):
        if code is not None:
            own &= numbers != code
    labels = np.cumsum(own)
    if len(numbers) < np.iinfo(np.int16).max:
        labels = labels.astype(np.int16)
    if ground is not None:
        labels[numbers == ground] = 0
    if empty is not None:
        labels[numbers == empty] = VOID
    return labels[np.searchsorted(numbers, codes)]


def void_number(codes: np.ndarray, coloured: bool, options: FolderOptions, path: Path, about: object) -> _Code:
    """The option `void` for a mask (or for all masks of a video) with these codes.

    255 means void in 8-bit maps. A map that counts further than that has an object 255, unless the card itself says
    `void: 255`; either way a remark names the first such file. Another one names the first map in which 255 looks like
    an object, if the card does not say what it is.

    Args:
        codes: integers as `read_mask` gives them; each number once is enough.
        coloured: whether the codes are colours.
        options: of the card.
        path: the mask, for the remark.
        about: what the remark is said once for.
    """
    said = "void" in options.model_fields_set
    if coloured or options.void != IGNORED or not (codes == IGNORED).any():
        return options.void
    if codes.max() <= IGNORED:
        if not said and (numbers := spread_to_255(codes)):
            shown = ", ".join(map(str, numbers))
            text = "255 is read as void; set data.options.void to null if it is an object, or to 255 if it is not"
            reason = f"numbers are spread evenly up to 255 ({shown}), and {text} (said once for {about})"
            warn_once("spread", about, f"{path}: {reason}")
        return options.void
    text = "read as void, as data.options.void says; set it to null if that is an object"
    if not said:
        text = "read as an object; set data.options.void to 255 if it means void"
    reason = f"has numbers above {IGNORED}, and {IGNORED} is {text} (said once for {about})"
    warn_once("void", about, f"{path}: {reason}")
    return options.void if said else None


def _code(value: _Code, coloured: bool, field: str) -> int | None:
    """The code of an option in a mask, as `read_mask` writes codes; None when no pixel can have it."""
    if isinstance(value, tuple):
        if not coloured:
            raise ValueError(f"data.options.{field} is a colour, but the mask holds numbers; give a number")
        return value[0] + 256 * value[1] + 65536 * value[2]
    if coloured and field == "void" and value is not None:
        # In a colour mask no number can mean void: 255 would be pure red, a common colour of an object.
        return None
    return value


def folder_options(kind: type[Options], request: Request, reader: str) -> Options:
    """The options of a card for `reader`. Raises UsageError for a name outside `data.folder` and a stand-in seed."""
    task = f"task '{request.task.name}'"
    if request.stand_in_seed is not None:
        raise UsageError(f"{task}: the {reader} reader has no stand-in, so --stand-in-seed has no meaning")
    options = parse_options(kind, request)
    for field in ("images", "masks", "ids"):
        value = getattr(options, field)
        if value is not None and not _stays_below(value):
            raise UsageError(f"{task}: data.options.{field} '{value}' must lie below data.folder")
    return options


def list_ids(root: Path, options: FolderOptions, request: Request) -> list[str] | None:
    """Ids that the file of a split lists, in its order; None when the card names no such file.

    Raises UsageError for a split or an id that is not a plain name, DataMissingError when the file cannot be read.
    """
    task = f"task '{request.task.name}'"
    if options.ids is None:
        if request.split != request.data.split:
            raise UsageError(f"{task}: no split '{request.split}'; write 'ids: splits/{{split}}.txt' in data.options")
        return None
    if not re.fullmatch(r"[\w-]+", request.split):
        raise UsageError(f"{task}: split '{request.split}' is not a plain name")
    if request.split != request.data.split and "{split}" not in options.ids:
        raise UsageError(f"{task}: data.options.ids '{options.ids}' has no {{split}} in it")
    path = root / options.ids.replace("{split}", request.split)
    ids = read_lines(path, "list of ids", "correct data.options.ids")
    for number, entry in enumerate(ids, start=1):
        if "/" in entry or "\\" in entry or entry.startswith(".") or "\0" in entry:
            raise UsageError(f"{path}: id {number} '{entry}' is not a plain file name without suffix")
    if (twice := first_repeated(ids)) is not None:
        raise UsageError(f"{path}: id '{twice}' is there twice; remove one")
    return ids


def _list(folder: Path, suffixes: tuple[str, ...]) -> tuple[dict[str, str], list[str]]:
    """Id -> file name, and the other names in the folder. Raises UsageError when two files have the same id."""
    try:
        return by_stem(os.listdir(folder), suffixes)
    except ValueError as error:
        raise UsageError(f"{folder}: {error} have one id; remove one") from error


def not_read(*parts: tuple[str, list[str]]) -> str:
    """What is on the disk and not read, for the note: where, how many and the first names; '' for nothing."""
    texts = [f"{len(names)} {where} ({name_some(names)})" for where, names in parts if names]
    return f"; not read: {', '.join(texts)}" if texts else ""


def _stays_below(name: str) -> bool:
    """Whether a name of the card stays below the folder of the data, on any system."""
    # A card is shared between systems: backslashes and drive letters ("C:") lead out of a folder on Windows.
    parts = PurePosixPath(name.replace("\\", "/"))
    return not (parts.is_absolute() or ".." in parts.parts or ":" in name or "\0" in name)

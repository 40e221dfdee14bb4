"""CLEVRTEX in its official layout (Karazija et al. 2021, arXiv:2111.10265).

    clevrtex_<variant>/<shard>/CLEVRTEX_<variant>_<6 digits>.png          image (320 x 240, RGBA)
                               CLEVRTEX_<variant>_<6 digits>_flat.png     mask
                               CLEVRTEX_<variant>_<6 digits>.json         metadata

Albedo, depth, normal and shadow files lie beside these and are not read. The official generator stores the mask as a
palette image whose numbers are 0 for the background and i for object i of the metadata. Copies that were re-saved in
colour are also read: black is the background, the other colours are ranked by R + 256 G + 65536 B in each image.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...core.errors import DataMissingError, SampleError, UsageError
from ...core.files import find_files, parse_json, read_text
from ...core.numbers import counted
from ...core.types import Sample, Truth
from ..base import OpenData, Request, SampleSequence
from ..images import read_image, read_mask
from ..index import Manifest, open_index, read_row, take_manifest
from ..labels import narrowed
from ..stand_ins.stand_in import StandInTree, check_scenes

if TYPE_CHECKING:
    import pyarrow

VARIANTS = ("full", "pbg", "vbg", "grassbg", "camo", "outd")
SCENES = {"full": 50_000, "pbg": 20_000, "vbg": 20_000, "grassbg": 20_000, "camo": 20_000, "outd": 10_000}
"""Number of scenes of each variant."""

SPLITS = ("test", "val", "train")
"""Official splits: first tenth, second tenth, the rest. `outd` has no splits, all of it is for testing."""

_HOME = "https://www.robots.ox.ac.uk/~vgg/data/clevrtex"
_IMAGE_MODES = frozenset({"RGB", "RGBA"})


def open_clevrtex(request: Request) -> OpenData:
    """Open one split of one variant: official files below the data root, else the stand-in.

    Raises UsageError for an unknown variant or split, DataMissingError when no scene of the split is there.
    """
    variant = request.data.variant or "full"
    _check_variant(request, "data.variant", variant)
    if request.data.options:
        raise UsageError(f"task '{request.task.name}': data.options: the clevrtex reader has none; remove them")
    if request.root is None:
        return _open_stand_in(request, variant)
    numbers = split_numbers(variant, request.split)
    folder = find_official(request)
    scenes = list_scenes(folder, variant)
    stems = _choose(scenes, numbers, request.limit)
    if not stems:
        raise DataMissingError(
            f"{folder}: no scene of the {request.split} split of '{variant}'; {_how_to_get(variant)}"
        )
    reader = ClevrtexReader.open(folder, variant, stems, "download its shard again")
    note = f"data: official CLEVRTEX {variant}/{request.split}, {counted(len(reader), 'scene')} of {folder}"
    note += partial_note(scenes, numbers)
    return OpenData(reader, "official", f"official-{reader.manifest.content}", folder, reader.ids, note)


def _check_variant(request: Request, field: str, variant: str) -> None:
    """Raise UsageError that names the field of the card for a variant that CLEVRTEX does not have."""
    if variant not in VARIANTS:
        raise UsageError(f"task '{request.task.name}': {field} '{variant}'; known: {', '.join(VARIANTS)}")


def split_numbers(variant: str, split: str) -> range | None:
    """Scene numbers of a split, or None for every scene. Raises UsageError for a split that the variant lacks.

    Variants are split by tenths, except `outd`, as in the official loader (karazijal/clevrtex-generation,
    `clevrtex_eval.py`).
    """
    # By the number in the file name, not by the files that are there: otherwise a partial download would move training
    # scenes into the test split.
    if split == "all":
        return None
    if variant == "outd":
        raise UsageError(f"split '{split}': CLEVRTEX 'outd' is not split, all of it is for testing; use 'all'")
    if split not in SPLITS:
        raise UsageError(f"split '{split}': CLEVRTEX '{variant}' has {', '.join(SPLITS)} and 'all'")
    tenth = SCENES[variant] // 10
    return {"test": range(tenth), "val": range(tenth, 2 * tenth), "train": range(2 * tenth, 10 * tenth)}[split]


def find_official(request: Request) -> Path:
    """The folder of the official files of a request. Raises DataMissingError."""
    assert request.root is not None
    return find_folder(request.root, request.data.variant or "full", request.data.folder)


def find_folder(root: Path, variant: str, folder: str = "") -> Path:
    """The folder of a variant: `root/clevrtex_<variant>`, or `root` itself. Raises DataMissingError with the remedy."""
    name = folder or f"clevrtex_{variant}"
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise UsageError(f"data.folder '{name}': give a folder name below the data root")
    if (root / name).is_dir():
        return root / name
    scene = f"CLEVRTEX_{variant}_??????.png"
    shards = find_files(root, f"[0-9]*/{scene}")
    if root.is_dir() and (root.name == name or any(shards) or any(find_files(root, scene))):
        return root
    raise DataMissingError(
        f"CLEVRTEX '{variant}': looked for {root / name} and for {root}/<shard>/{scene}; {_how_to_get(variant)}, "
        "or leave out --data-root and OCL_BENCH_DATA to use the stand-in"
    )


def list_scenes(folder: Path, variant: str) -> dict[int, str]:
    """Scene number -> path below `folder` without `.png`, for every image in any shard; other files are ignored.

    Raises UsageError when a scene is there twice.
    """
    pattern = re.compile(rf"CLEVRTEX_{variant}_([0-9]{{6}})\.(?:png|PNG)")
    scenes: dict[int, str] = {}
    for parent, _, names in os.walk(folder, followlinks=True):
        for name in names:
            match = pattern.fullmatch(name)
            if match is None:
                continue
            stem = Path(os.path.relpath(parent, folder), name[: -len(".png")]).as_posix()
            other = scenes.setdefault(int(match[1]), stem)
            if other != stem:
                raise UsageError(f"{folder}: scene {match[1]} is there twice, {other}.png and {stem}.png; remove one")
    return dict(sorted(scenes.items()))


@dataclass(frozen=True)
class ClevrtexReader(SampleSequence[Sample]):
    """Scenes of one folder. index: Arrow index with the columns id, image, mask and metadata (paths below `root`)."""

    root: Path
    ids: tuple[str, ...]
    index: pyarrow.Table
    manifest: Manifest
    remedy: str

    @classmethod
    def open(cls, root: Path, variant: str, stems: list[str], remedy: str) -> ClevrtexReader:
        """Index the scenes with these stems below `root`; no pixel is read. `remedy` ends each error message."""
        columns = {
            "id": [Path(stem).name for stem in stems],
            "image": [f"{stem}.png" for stem in stems],
            "mask": [f"{stem}_flat.png" for stem in stems],
            "metadata": [f"{stem}.json" for stem in stems],
        }
        manifest = take_manifest(root, columns["image"], [*columns["mask"], *columns["metadata"]])
        index = open_index(f"clevrtex-{variant}", columns, manifest)
        return cls(root, tuple(columns["id"]), index, manifest, remedy)

    def __getitem__(self, index: int) -> Sample:
        """Scene `index`. Raises SampleError when a file is missing, broken, or the mask contradicts the metadata."""
        row = read_row(self.index, range(len(self))[index])
        image = read_image(self.root / row["image"], row["id"], modes=_IMAGE_MODES, remedy=self.remedy)
        path = self.root / row["mask"]
        codes, coloured = read_mask(path, row["id"], shape=image.shape, remedy=self.remedy)
        labels = rank_colours(codes) if coloured else codes
        declared = self._declared_objects(row)
        if declared is not None and labels.max(initial=0) > declared:
            message = f"{path}: mask label {labels.max()}, but num_objects of {row['metadata']} is {declared}"
            raise SampleError(row["id"], f"{message}; {self.remedy}")
        return Sample(row["id"], image, Truth(narrowed(labels, row["id"], path)))

    def _declared_objects(self, row: dict[str, str]) -> int | None:
        """Number of objects that the metadata states; None without metadata, as in some copies of the data."""
        path = self.root / row["metadata"]
        try:
            content = parse_json(read_text(path))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise SampleError(row["id"], f"{path}: metadata is not readable JSON ({error}); {self.remedy}") from error
        if not isinstance(content, dict):
            raise SampleError(row["id"], f"{path}: metadata is not a JSON object; {self.remedy}")
        declared = content.get("num_objects")
        if type(declared) is not int:  # not isinstance: True is an int
            raise SampleError(row["id"], f"{path}: field 'num_objects' is not a whole number; {self.remedy}")
        return declared


def rank_colours(codes: np.ndarray) -> np.ndarray:
    """Labels (H, W) of a mask in colours: 0 for black, 1, 2, .. for the other colours in ascending order of code."""
    colours = np.unique(codes[codes != 0])
    return np.where(codes == 0, 0, np.searchsorted(colours, codes) + 1)


def _open_stand_in(request: Request, variant: str) -> OpenData:
    """Open the stand-in of a card, rendered when it is not in the cache. `variant` is named when there is none."""
    card = request.data.stand_in
    if card is None:
        raise DataMissingError(f"task '{request.task.name}' has no stand-in: give --data-root; {_how_to_get(variant)}")
    _check_variant(request, "data.stand_in.variant", card.variant)
    numbers = split_numbers(card.variant, request.split)
    split = "test" if request.split == "all" else request.split
    check_scenes(request, "clevrtex")
    count = stand_in_count(card.samples, request)
    if numbers is not None and count > len(numbers):
        raise UsageError(f"task '{request.task.name}': {count} samples, but split '{split}' holds {len(numbers)}")
    tree = StandInTree(
        card.variant, card.revision, split, request.stand_in_seed or 0, first=(numbers or range(1)).start
    )
    tree.ensure(count, progress=request.progress, verify=request.verify)
    remedy = "delete the file, it is rendered again"
    stems = _choose(list_scenes(tree.folder, card.variant), numbers, count)
    reader = ClevrtexReader.open(tree.folder, card.variant, stems, remedy)
    note = f"data: embedded stand-in of CLEVRTEX {card.variant}/{split}, {len(reader)} rendered scenes"
    if request.stand_in_seed:
        note += f", fresh seed {request.stand_in_seed} (never ranked)"
    note += "; --data-root DIR or OCL_BENCH_DATA selects the official data"
    return OpenData(reader, "embedded", tree.revision_name, tree.folder, reader.ids, note)


def stand_in_count(samples: int, request: Request) -> int:
    """Number of scenes to render: a limit can only reduce the split of the card, but may enlarge another split."""
    if request.limit is None:
        return samples
    return min(samples, request.limit) if request.split == request.data.split else request.limit


def _choose(scenes: dict[int, str], numbers: range | None, limit: int | None) -> list[str]:
    """Paths of the first `limit` scenes with these numbers, of all scenes for None."""
    return [stem for number, stem in scenes.items() if numbers is None or number in numbers][:limit]


def partial_note(present: Collection[int], numbers: range | None) -> str:
    """A remark on scenes of a split that are missing among those present, '' when it is complete.

    numbers: those of the split, None for all up to the last one that is there.
    """
    expected = numbers if numbers is not None else range(max(present) + 1)
    missing = [number for number in expected if number not in present]
    if not missing:
        return ""
    shards = sorted({number // 1000 for number in missing})
    text = ", ".join(map(str, shards[:8])) + (", .." if len(shards) > 8 else "")
    return f"; PARTIAL download, {len(missing)} of {len(expected)} scenes are missing (shards {text})"


def _how_to_get(variant: str) -> str:
    return f"download '{variant}' from {_HOME} and unpack it to <data root>/clevrtex_{variant}/<shard>/"

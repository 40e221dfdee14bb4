"""ADE20K SceneParsing-150 as Parquet files of the Hugging Face hub (`scene_parse_150`, configuration scene_parsing).

    data/{train,validation}-*.parquet                  columns image and annotation, both encoded images
    scene_parsing/{train,validation}/*.parquet         the same, as the hub converts data sets with a script

Row groups are read one at a time, and images are decoded from their bytes. A sample has the name of its image file
where the column stores one, else `val/000123`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ...core.errors import SampleError
from ...core.numbers import counted
from ...core.types import Sample
from ..base import OpenData, Request, SampleSequence
from ..images import decode_image, decode_mask, one_line
from ..index import Manifest, take_manifest
from ..options import check_split, first_repeated
from .ade20k import read_truth
from .imagenet_hub import ParquetRows, open_images
from .places import first_folder, usual_places

_REMEDY = "download the file again"
_PARTS = {"train": "train", "val": "validation"}
_COLUMNS = ("image", "annotation")


def find(request: Request) -> Path | None:
    """The folder of the Parquet files of a split, None without them."""
    return first_folder(usual_places(request), lambda place: bool(_files(place, request.split)))


def open_parquet(request: Request, root: Path) -> OpenData:
    """Open one split. Raises UsageError for an unknown split or broken files."""
    check_split(request, "ADE20K", tuple(_PARTS))
    reader = ParquetImages.open(root, request.split, request.limit)
    note = f"data: ADE20K SceneParsing-150 {request.split}, {counted(len(reader), 'image')} of Parquet files in {root}"
    return OpenData(reader, "official", f"official-{reader.manifest.content}", root, reader.ids, note)


@dataclass(frozen=True)
class ParquetImages(SampleSequence[Sample]):
    """The images of Parquet files, each with a map of classes."""

    rows: ParquetRows
    ids: tuple[str, ...]

    @classmethod
    def open(cls, root: Path, split: str, limit: int | None) -> ParquetImages:
        """List the first `limit` rows of a split; only names are read."""
        rows = open_images(root, _files(root, split), _COLUMNS)
        count = int(rows.first[-1])
        names = [Path(name).stem for name in rows.names("image") if name]
        usable = len(names) == count and first_repeated(names) is None
        ids = names if usable else [f"{split}/{position:06d}" for position in range(count)]
        return cls(rows, tuple(ids[:limit]))

    @cached_property
    def manifest(self) -> Manifest:
        """The files, which hold annotations."""
        return take_manifest(self.rows.folder, [], self.rows.files)

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`. Raises SampleError when its row is damaged, in colour, or of another size."""
        position = range(len(self))[index]
        sample_id = self.ids[position]
        try:
            where, cells = self.rows.cells(position)
        except Exception as error:  # Arrow raises errors of many kinds for a damaged row group
            text = f"row {position} cannot be read ({one_line(error)})"
            raise SampleError(sample_id, f"{self.rows.folder}: {text}; {_REMEDY}") from error
        picture, annotation = ((cells[name] or {}).get("bytes") for name in _COLUMNS)
        if picture is None or annotation is None:
            raise SampleError(sample_id, f"{where}: holds no image or no annotation; {_REMEDY}")
        image = decode_image(picture, Path(where), sample_id, remedy=_REMEDY)
        codes, coloured = decode_mask(annotation, Path(where), sample_id, shape=image.shape, remedy=_REMEDY)
        if coloured:
            raise SampleError(sample_id, f"{where}: the annotation is in colour, expected class numbers; {_REMEDY}")
        return Sample(sample_id, image, read_truth(codes, Path(where), sample_id))


def _files(root: Path, split: str) -> tuple[str, ...]:
    """The Parquet files of a split below `root`."""
    part = _PARTS.get(split, split)
    for pattern in (f"data/{part}-*.parquet", f"scene_parsing/{part}/*.parquet"):
        if names := sorted(path.relative_to(root).as_posix() for path in root.glob(pattern)):
            return tuple(names)
    return ()

"""What every reader shares: the request, the opened data, and the choice between real data and the stand-in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

from ..cards.task import DataSpec, TaskSpec
from ..core import paths
from ..core.errors import UsageError
from ..core.types import Sample, Video
from .index import Manifest

DataKind = Literal["embedded", "official", "supplied"]

Item = TypeVar("Item", bound=Sample | Video)
ItemOut = TypeVar("ItemOut", bound=Sample | Video, covariant=True)


class Reader(Protocol[ItemOut]):
    """Turns one layout on disk into samples: images, or videos for the tasks of the video family.

    Opening lists names only. Pixels are read by `reader[i]`, those of a video by `reader[i].frames[t]`.
    """

    @property
    def ids(self) -> tuple[str, ...]:
        """Sample ids, in the order of the indices."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> ItemOut:
        """Sample `index`. Raises SampleError when one of its files is missing, broken or contradicts another."""
        ...

    def __iter__(self) -> Iterator[ItemOut]: ...


@dataclass(frozen=True)
class OpenData:
    """Opened data of a task.

    Attributes:
        reader: gives the samples.
        kind: `embedded` (stand-in), `official` or `supplied` (brought by the user). Results of different kinds are
            never ranked together.
        revision: changes when the content changes; it is part of the key of each result.
        root: folder that holds the files.
        ids: sample ids in order.
        note: one line for the user.
        categories: id -> name of the object categories that the data set declares.
        image_ids: sample id -> id of the image in COCO results files; empty where the sample ids say it.
        timing: `seen_frames`, frames of a video before its cut, and `stride`, frames from one that counts to the next,
            of a stand-in whose videos are shorter than the official ones; they replace those of the card.
    """

    reader: Reader[Any]
    kind: DataKind
    revision: str
    root: Path
    ids: tuple[str, ...]
    note: str
    categories: Mapping[int, str] = field(default_factory=dict)
    image_ids: Mapping[str, int | str] = field(default_factory=dict)
    timing: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Request:
    """The arguments of `open_data`, checked. `embedded`: take the stand-in whatever `OCL_BENCH_DATA` says."""

    task: TaskSpec
    data_root: Path | None
    limit: int | None
    split: str
    stand_in_seed: int | None
    progress: bool
    embedded: bool = False
    verify: bool = False

    @property
    def data(self) -> DataSpec:
        """The data section of the task card."""
        return self.task.data

    @property
    def root(self) -> Path | None:
        """The folder with real data: `data_root`, else `OCL_BENCH_DATA`; None asks for the stand-in.

        A stand-in seed overrides the environment variable. Raises UsageError when it comes with a `data_root`.
        """
        if self.embedded:
            return None
        if self.stand_in_seed is not None:
            if self.data_root is not None:
                raise UsageError("--stand-in-seed renders scenes, --data-root reads real ones: give only one of them")
            return None
        return self.data_root if self.data_root is not None else paths.data_root()


def subset(data: OpenData, positions: Sequence[int]) -> OpenData:
    """The samples of opened data at these positions, in that order; kind and revision are unchanged."""
    ids = tuple(data.ids[position] for position in positions)
    return replace(data, reader=_Subset(data.reader, tuple(positions), ids), ids=ids)


class SampleSequence(Generic[Item]):
    """Gives a reader that has `ids` and `__getitem__` its length and its iteration."""

    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Item:
        raise NotImplementedError

    def __iter__(self) -> Iterator[Item]:
        return (self[i] for i in range(len(self)))


def manifest_of(data: OpenData) -> Manifest | None:
    """The files of opened data, of which a subset may be read; None for a reader that does not list them."""
    reader: Any = data.reader
    while isinstance(reader, _Subset):
        reader = reader.reader
    return getattr(reader, "manifest", None)


@dataclass(frozen=True)
class _Subset(SampleSequence[Any]):
    reader: Reader[Any]
    positions: tuple[int, ...]
    ids: tuple[str, ...]

    def __getitem__(self, index: int) -> Any:
        # range() turns a negative index into a position, and raises IndexError for one that is out of range.
        return self.reader[self.positions[range(len(self))[index]]]

"""The work folder of an evaluation. Each file holds the rows of consecutive ids, so that a killed run resumes."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from errno import EIO
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.files import write_atomically
from ..core.log import logger
from ..results.record import Failure

if TYPE_CHECKING:
    import pandas
    import pyarrow

SHARD_SIZE = 64
"""Ids of a shard, unless the adapter says how many it scores at once."""
_META, _CHECKSUM = b"ocl_bench", b"ocl_bench.sha256"


@dataclass(frozen=True)
class Shard:
    """What was computed for consecutive ids.

    Attributes:
        rows: as the adapter scores them, with `id` and `noise_seed`.
        failed: samples that could not be read, predicted or scored.
        source: where the model's part comes from, as `Adapter.source` says; empty when every sample failed.
        seconds_total: seconds of the shard. seconds_model: those within the model.
        remarks: what is odd about the outputs, see `Family.remarks`.
    """

    rows: pandas.DataFrame
    failed: tuple[Failure, ...]
    source: str
    seconds_total: float
    seconds_model: float
    remarks: Mapping[str, int] = field(default_factory=dict)


def split(count: int, size: int = SHARD_SIZE) -> list[range]:
    """Positions 0 .. count - 1 in shards of `size`."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


class WorkFolder:
    """The finished shards of one key.

    Args:
        folder: where their files are.
        setup: key, batch size, threads, device and versions. Shards are mixed only when these are equal, as otherwise
            numbers or bits could differ. A shard of another setup, or of other ids, counts as missing.
    """

    def __init__(self, folder: Path, setup: dict[str, Any]) -> None:
        self.folder = folder
        self.setup = json.loads(json.dumps(setup))  # as it comes back from a file: tuples are lists there

    def path(self, index: int) -> Path:
        """The file of one shard."""
        return self.folder / f"shard-{index:05d}.parquet"

    def read(self, index: int) -> Shard | None:
        """A finished shard, or None when it is missing, damaged, or from another setup or place."""
        import pyarrow
        import pyarrow.parquet

        if not self.path(index).is_file():
            return None
        try:
            table = pyarrow.parquet.read_table(self.path(index), page_checksum_verification=True)
            metadata = table.schema.metadata or {}
            if metadata[_CHECKSUM] != _checksum(metadata[_META]):
                return None
            content = json.loads(metadata[_META])
            rows = table.replace_schema_metadata(None).to_pandas()
        except (OSError, ValueError, KeyError, pyarrow.ArrowException):
            return None  # a damaged file is computed again
        if (content["setup"], content.get("index"), content["shape"]) != (self.setup, index, _shape(table)):
            return None
        failed = tuple(Failure(**failure) for failure in content["failed"])
        times, remarks = (content["seconds_total"], content["seconds_model"]), content.get("remarks", {})
        return Shard(rows, failed, content["source"], *times, remarks)

    def write(self, index: int, shard: Shard) -> None:
        """Write a shard atomically: other ranks see all of it or nothing."""
        import pyarrow
        import pyarrow.parquet

        table = pyarrow.Table.from_pandas(shard.rows, preserve_index=False)
        content = {
            "setup": self.setup,
            "index": index,
            "shape": _shape(table),
            "failed": [failure.model_dump() for failure in shard.failed],
            "source": shard.source,
            "seconds_total": shard.seconds_total,
            "seconds_model": shard.seconds_model,
            "remarks": dict(shard.remarks),
        }
        # Rows and what belongs to them are one file: two could be of different runs. All of it has checksums: a byte
        # that changed on the disk would be another number.
        notes = json.dumps(content).encode()
        table = table.replace_schema_metadata({_META: notes, _CHECKSUM: _checksum(notes)})
        self.folder.mkdir(parents=True, exist_ok=True)
        # Lists keep the name of their items, so that the columns come back with the types that `shape` records.
        options = {"write_page_checksum": True, "use_compliant_nested_type": False}
        write_atomically(self.path(index), partial(pyarrow.parquet.write_table, table, **options))

    def read_back(self, own: Sequence[int]) -> dict[int, Shard]:
        """The shards that this process wrote. Raises OSError when one of them is not whole on the disk."""
        found = {index: shard for index in own if (shard := self.read(index)) is not None}
        for index in own:
            if index not in found:  # everybody would wait for it for ever
                text = "cannot be read back after it was written; look after the disk"
                raise OSError(EIO, text, str(self.path(index)))
        return found

    def collect(
        self, count: int, own: Sequence[int], seconds: float = 0.1, check: Callable[[], None] = lambda: None
    ) -> list[Shard]:
        """All shards in order. Those that other ranks compute are waited for.

        Args:
            count: number of shards.
            own: those that this process wrote.
            seconds: between two looks.
            check: called between two looks; raises when there is nobody to wait for.

        Raises:
            OSError: an own one is not whole on the disk.
        """
        found, said = self.read_back(own), False
        while True:
            pending = [index for index in range(count) if index not in found]
            found |= {index: shard for index in pending if (shard := self.read(index)) is not None}
            if len(found) == count:
                return [found[index] for index in range(count)]
            if not said:
                text = "waiting for other ranks, which compute %d shards in %s"
                logger.info(text, count - len(found), self.folder)
                said = True
            check()
            time.sleep(seconds)

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _checksum(notes: bytes) -> bytes:
    return hashlib.sha256(notes).hexdigest().encode()


def _shape(table: pyarrow.Table) -> list[Any]:
    """Number of rows, and names and types of the columns."""
    return [table.num_rows, *([field.name, str(field.type)] for field in table.schema)]


def to_frame(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> pandas.DataFrame:
    """Rows as a table. columns: types of the adapter's columns.

    Types are explicit because a shard whose samples all fail has no values that would show them.
    """
    import pandas

    types = {"id": "object", "noise_seed": "int64", "n_objects": "int64", **columns}
    return pandas.DataFrame(list(rows), columns=list(types)).astype(types)


def merge(shards: Sequence[Shard]) -> pandas.DataFrame:
    """All rows in the order of the data."""
    import pandas

    # pandas warns about empty frames in a concatenation, as they could change its types.
    filled = [shard.rows for shard in shards if len(shard.rows)] or [shards[0].rows]
    return pandas.concat(filled, ignore_index=True)

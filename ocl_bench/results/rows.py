"""Per-image rows as Parquet files, as small as they get without losing a bit.

Columns that hold the same bits are stored once (the scores of detections serve boxes and masks): the file's metadata
say which column is a copy of which, and `read_rows` restores them. Files without such metadata are read as they are.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import UsageError

if TYPE_CHECKING:
    import pandas
    import pyarrow

_COLUMNS = b"ocl_bench.columns"
"""Metadata of the file: JSON object, for each column in order the column that holds its values."""


def read_rows(path: Path | str) -> pandas.DataFrame:
    """Per-image rows: id, noise_seed, n_objects and a float64 column for each metric (NaN = not valid).

    path: the Parquet file, or the JSON file beside it. Raises UsageError when it is missing or not readable.
    """
    import pyarrow.parquet

    path = Path(path)
    path = path.with_suffix(".parquet") if path.suffix == ".json" else path
    try:
        table = pyarrow.parquet.read_table(path)
        sources = json.loads((table.schema.metadata or {}).get(_COLUMNS, b"null"))
        if sources is not None:
            table = pyarrow.table({name: table.column(source) for name, source in sources.items()})
        return table.to_pandas()
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise UsageError(f"{path}: per-image rows cannot be read ({error})") from error


def write_rows(rows: pandas.DataFrame, path: Path) -> None:
    """Write one Parquet file: equal columns once, the bytes of one rank of all numbers side by side, strong zstd."""
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_pandas(rows, preserve_index=False)
    sources = _sources(table)
    stored = table.select(list(dict.fromkeys(sources.values()))).replace_schema_metadata(None)
    settings = {"compression": "zstd", "compression_level": 19, "write_statistics": False, "store_schema": False}
    with pyarrow.parquet.ParquetWriter(path, stored.schema, **settings, **_encodings(stored.schema)) as writer:
        writer.write_table(stored)
        writer.add_key_value_metadata({_COLUMNS: json.dumps(sources).encode()})  # without a schema none is kept


def _sources(table: pyarrow.Table) -> dict[str, str]:
    """For each column the first one with the same type and bits, often itself."""
    first: dict[tuple[Any, ...], str] = {}
    return {name: first.setdefault(_bits(table.column(name)), name) for name in table.column_names}


def _bits(column: pyarrow.ChunkedArray) -> tuple[Any, ...]:
    """Type, length and bytes: unlike values, they tell -0.0 from 0.0 and find NaN equal to itself."""
    buffers = column.combine_chunks().buffers()
    return column.type, len(column), *(None if buffer is None else buffer.to_pybytes() for buffer in buffers)


def _encodings(schema: pyarrow.Schema) -> dict[str, Any]:
    """Numbers of 4 and 8 bytes are split into streams of bytes of one rank; other lists of numbers get a dictionary."""
    import pyarrow

    split: list[str] = []
    others: list[str] = []
    for field in schema:
        listed = pyarrow.types.is_list(field.type)
        kind = field.type.value_type if listed else field.type
        path = f"{field.name}.list.element" if listed else field.name
        if pyarrow.types.is_floating(kind) or kind in (pyarrow.int32(), pyarrow.int64()):
            split.append(path)
        elif listed:
            others.append(path)
    return {"use_dictionary": others or False, "use_byte_stream_split": split or False}

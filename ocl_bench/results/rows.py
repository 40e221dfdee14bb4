"""Per-image rows as small, lossless Parquet files.

Columns with identical bits are stored once; for example, box and mask metrics share the scores of the detections. The
metadata of the file records which column is a copy of which, and `read_rows` restores the copies. Files without this
metadata are read as they are.
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
"""Metadata key. Its value is a JSON object from each column, in order, to the column that stores its values."""


def read_rows(path: Path | str) -> pandas.DataFrame:
    """Read the per-image rows of a result.

    Args:
        path: the Parquet file, or the JSON file beside it.

    Returns:
        One row for each image and noise seed: `id`, `noise_seed`, `n_objects`, a float64 column for each metric (NaN =
        not valid), and the statistics of metrics that are computed over the whole set.

    Raises:
        UsageError: the file is missing or cannot be read.
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
    # The file may come from a stranger (`validate`, `submit`): damaged metadata raises any of these.
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError, NotImplementedError) as error:
        raise UsageError(f"{path}: per-image rows cannot be read ({error})") from error


def write_rows(rows: pandas.DataFrame, path: Path) -> None:
    """Write rows as one Parquet file: equal columns once, numbers split into byte streams, then strong zstd."""
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_pandas(rows, preserve_index=False)
    sources = _sources(table)
    stored = table.select(list(dict.fromkeys(sources.values()))).replace_schema_metadata(None)
    settings = {"compression": "zstd", "compression_level": 19, "write_statistics": False, "store_schema": False}
    with pyarrow.parquet.ParquetWriter(path, stored.schema, **settings, **_encodings(stored.schema)) as writer:
        writer.write_table(stored)
        # With store_schema=False the writer drops the metadata of the schema, so it is added here.
        writer.add_key_value_metadata({_COLUMNS: json.dumps(sources).encode()})


def _sources(table: pyarrow.Table) -> dict[str, str]:
    """For each column the first column with the same type and bits, which is often the column itself."""
    first: dict[tuple[Any, ...], str] = {}
    return {name: first.setdefault(_bits(table.column(name)), name) for name in table.column_names}


def _bits(column: pyarrow.ChunkedArray) -> tuple[Any, ...]:
    """Type, length and bytes of a column. Comparing values would merge -0.0 with 0.0 and never match NaN with NaN."""
    buffers = column.combine_chunks().buffers()
    return column.type, len(column), *(None if buffer is None else buffer.to_pybytes() for buffer in buffers)


def _encodings(schema: pyarrow.Schema) -> dict[str, Any]:
    """Parquet encodings: byte-stream split for numbers of 4 and 8 bytes, dictionaries for lists of other types.

    Byte-stream split stores all first bytes, then all second bytes, and so on. The exponents of similar numbers then
    lie side by side, which zstd compresses well.
    """
    import pyarrow

    split_columns: list[str] = []
    dictionary_columns: list[str] = []
    for field in schema:
        is_list = pyarrow.types.is_list(field.type)
        kind = field.type.value_type if is_list else field.type
        path = f"{field.name}.list.element" if is_list else field.name
        if pyarrow.types.is_floating(kind) or kind in (pyarrow.int32(), pyarrow.int64()):
            split_columns.append(path)
        elif is_list:
            dictionary_columns.append(path)
    return {"use_dictionary": dictionary_columns or False, "use_byte_stream_split": split_columns or False}

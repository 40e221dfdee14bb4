"""What one evaluation writes, and how it is read again. Everything later reads only results.

`result.schema.json` beside this file is the JSON Schema of `Result`; numbers are finite or null, never NaN.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from ..cards.model import Privilege, Supervision
from ..core.errors import UsageError, first_problem
from ..core.files import write_atomically
from ..core.paths import PACKAGE
from .migrations import SCHEMA, migrate
from .rows import read_rows as read_rows
from .rows import write_rows

if TYPE_CHECKING:
    import pandas

SCHEMA_FILE = PACKAGE / "results" / "result.schema.json"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Identity(_Section):
    """Which evaluation this is. `key` is the SHA-256 of everything that can change a number."""

    key: str = Field(pattern=r"^[0-9a-f]{64}$")
    created: str
    command: str
    status: Literal["complete", "failed samples"]
    suite_version: str
    commit: str
    dirty: bool


class TaskSection(_Section):
    """The protocol; `signature` without the metric's name."""

    name: str
    version: int
    hash: str
    signature: str
    main: str
    metrics: tuple[str, ...]


class DataSection(_Section):
    """The data; `ids_sha256` is the hash of the sorted sample ids."""

    kind: Literal["embedded", "official", "supplied"]
    revision: str
    ids_sha256: str
    limit: int | None
    split: str | None
    stand_in_seed: int | None


class FitSection(_Section):
    """The split on which the task's head was fitted, or of which its bank was made; null: not recorded (format 1).

    samples: images of the split, `left_out` those of them that could not be read or predicted. ids_sha256: of all of
    them. chosen: what was chosen on images held out of the split. The split is named even where the model needs no head
    because it names classes itself.
    """

    head: str
    kind: Literal["embedded", "official", "supplied"] | None
    split: str | None
    revision: str | None
    ids_sha256: str | None
    samples: int | None
    left_out: tuple[str, ...] | None
    chosen: dict[str, float] | None


class ModelSection(_Section):
    """The model; `supervision` is what training saw, `privilege` what inference gets."""

    name: str
    card: str
    options: dict[str, Any]
    checkpoint_sha256: str
    parameters: int
    supervision: Supervision
    privilege: Privilege
    role: str
    mask_source: str
    training_seed: int | None


class Seeds(_Section):
    """Noise seeds: draws of the slots at evaluation, not training seeds."""

    noise: tuple[int, ...]


class Setup(_Section):
    """Where it ran: recorded, not part of the key."""

    device: str
    dtype: str
    threads: int
    batch_size: int
    versions: dict[str, str]


class Failure(_Section):
    """A sample that could not be read or scored."""

    id: str
    error: str


class Counts(_Section):
    """Images attempted and scored; `single_object_share` is the share of scored images with exactly one object."""

    attempted: int
    scored: int
    failed: tuple[Failure, ...]
    single_object_share: float | None


class MetricValue(_Section):
    """One number with its interval. `value` is None when the metric is valid on no image."""

    value: float | None
    se: float | None
    ci95: tuple[float, float] | None
    n_valid: int
    direction: Literal[1, -1]
    signature: str


class Cost(_Section):
    """Seconds of the loop and of `predict` alone; images per second of the loop; resident memory at its peak."""

    seconds_total: float
    seconds_model: float
    images_per_second: float | None
    peak_memory_mb: float


class RowsFile(_Section):
    """The per-image values beside the JSON file."""

    file: str
    sha256: str


class Result(_Section):
    """Everything that one evaluation says. `path` is where the JSON file lies, once written or read."""

    schema_: Literal[2] = Field(alias="schema", default=SCHEMA)
    identity: Identity
    task: TaskSection
    data: DataSection
    fit: FitSection | None = None
    model: ModelSection
    seeds: Seeds
    setup: Setup
    counts: Counts
    metrics: dict[str, MetricValue]
    cost: Cost
    rows: RowsFile

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True, protected_namespaces=()
    )
    _path: Path | None = PrivateAttr(default=None)
    _reused: bool = PrivateAttr(default=False)

    @property
    def path(self) -> Path | None:
        """The JSON file of this result."""
        return self._path

    @property
    def reused(self) -> bool:
        """True when `evaluate` found this result finished instead of computing it."""
        return self._reused

    @property
    def rows_path(self) -> Path | None:
        """The Parquet file with the per-image values, beside this file: a path in a file is not trusted."""
        return self._path.parent / Path(self.rows.file).name if self._path else None

    def value(self, metric: str) -> float | None:
        """The value of one metric. Raises UsageError when the result does not have it."""
        if metric not in self.metrics:
            raise UsageError(f"metric '{metric}' is not in this result; it has {', '.join(self.metrics)}")
        return self.metrics[metric].value

    def to_json(self) -> str:
        """The result as it is written: indented JSON in a fixed order."""
        return (
            json.dumps(self.model_dump(mode="json", by_alias=True), indent=2, allow_nan=False, ensure_ascii=False)
            + "\n"
        )


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a result; `result.schema.json` holds the same (a test compares them)."""
    schema = Result.model_json_schema(by_alias=True, mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def read_result(path: Path | str) -> Result:
    """Read a result file of any format. Raises UsageError naming the file and the field."""
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not a JSON file ({error})") from error
    try:
        result = Result.model_validate(migrate(content) if isinstance(content, dict) else content)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    except ValidationError as error:
        field, problem = first_problem(error, "result")
        raise UsageError(f"{path}: field '{field}': {problem}; evaluate again to rewrite it") from error
    result._path = path
    return result


def write_result(result: Result, rows: pandas.DataFrame, folder: Path, stem: str | None = None) -> Result:
    """Write `<stem>.parquet`, then `<stem>.json` (by default the first 8 of the key), each atomically.

    Returns the result with `rows` filled in and `path` set.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stem = stem or result.identity.key[:8]
    parquet = folder / f"{stem}.parquet"
    write_atomically(parquet, lambda target: write_rows(rows, target))
    section = RowsFile(file=parquet.name, sha256=hashlib.sha256(parquet.read_bytes()).hexdigest())
    written = result.model_copy(update={"rows": section})
    text = written.to_json()
    path = folder / f"{stem}.json"
    write_atomically(path, lambda target: target.write_text(text, encoding="utf-8"))
    written._path = path
    return written

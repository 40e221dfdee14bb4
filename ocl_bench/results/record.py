"""The result of one evaluation: its fields, and how it is written and read.

Boards, comparisons and checks read only these files. `result.schema.json` beside this file is the JSON Schema of
`Result`; numbers are finite or null, never NaN. The docstrings of the sections are the descriptions in that schema.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from ..cards.model import Privilege, Supervision
from ..core.errors import UsageError, first_problem
from ..core.files import parse_json, read_bytes, write_atomically
from ..core.paths import PACKAGE
from ..core.text_tables import html_table, latex_table, text_table
from .migrations import SCHEMA, migrate
from .rows import read_rows as read_rows
from .rows import write_rows

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure
    from PIL.Image import Image

SCHEMA_FILE = PACKAGE / "results" / "result.schema.json"


NOT_DETERMINISTIC = "not deterministic: two predictions of its first batch differ"
"""Remark about a result whose `identity.deterministic` is false."""
BATCH_DEPENDENT = "depends on its batch: its first batch predicted in other company gives something else"
"""Remark about a result whose `identity.batch_independent` is false."""


class _Section(BaseModel):
    """Part of the file: unknown fields and numbers that are not finite are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Identity(_Section):
    """Identity and provenance of the evaluation. `key` is the SHA-256 of everything that can change a number.

    `deterministic` is false when the model predicted the first batch twice and the two predictions differed; null
    when that was not tried. `batch_independent` is false when a third prediction, in batches of another size and order
    or in clips of another length, differed; such a result is used again at its own batch size only.
    """

    key: str = Field(pattern=r"^[0-9a-f]{64}$")
    created: str
    command: str
    status: Literal["complete", "failed samples"]
    suite_version: str
    commit: str
    dirty: bool
    deterministic: bool | None = None
    batch_independent: bool | None = None

    @property
    def remarks(self) -> list[str]:
        """What makes the numbers depend on more than model, task and data."""
        doubts = ((self.deterministic, NOT_DETERMINISTIC), (self.batch_independent, BATCH_DEPENDENT))
        return [text for agrees, text in doubts if agrees is False]


class TaskSection(_Section):
    """The protocol. `signature` is its one-line form without the name of a metric; `main` is the ranked metric."""

    name: str
    version: int
    hash: str
    signature: str
    main: str
    metrics: tuple[str, ...]


class DataSection(_Section):
    """The data that were scored. `ids_sha256` is the hash of the sorted sample ids.

    `listed` is the number of samples in a list that the user gave (`--ids`), null for whole splits.
    """

    kind: Literal["embedded", "official", "supplied"]
    revision: str
    ids_sha256: str
    limit: int | None
    split: str | None
    stand_in_seed: int | None
    listed: int | None = None


class FitSection(_Section):
    """The data on which the head of the task was fitted or from which its k-NN bank was made.

    A field is null when it was not recorded (format 1). `samples` is the number of images in the split, `ids_sha256`
    the hash of their ids, and `left_out` lists images that could not be read or predicted. `chosen` holds settings
    that were chosen on images held out of the split. The section is present even for a model that predicts classes
    itself and therefore needs no head.
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
    """The model. `supervision` is what it saw in training, `privilege` what it receives at inference.

    `input_size` is the side in pixels of the square images that it saw. `code_sha256` is the hash of the sources of a
    user's own model, and `state` that of its parameters, buffers and numbers as it was built; both are empty for a
    bundled model. `arrays` is the hash of parameters and buffers alone, by which training seeds are told apart. These
    four are null or empty where they were not recorded.
    """

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
    input_size: int | None = None
    code_sha256: str = ""
    state: str = ""
    arrays: str = ""

    @property
    def weights(self) -> str:
        """What tells one training of the model from another; empty where nothing was recorded that does."""
        return self.state or self.checkpoint_sha256


class Seeds(_Section):
    """Seeds of the evaluation. Noise seeds draw the initial slots; they are not training seeds."""

    noise: tuple[int, ...]


class Setup(_Section):
    """Machine and settings of the run. They are recorded but are not part of the key."""

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
    """Numbers of samples. `single_object_share` is the share of scored images with exactly one object.

    `remarks` says what is odd about the outputs, such as boxes outside of their image, and how often.
    """

    attempted: int
    scored: int
    failed: tuple[Failure, ...]
    single_object_share: float | None
    remarks: dict[str, int] = {}


class MetricValue(_Section):
    """One metric with its standard error and 95 % interval. `value` is null when the metric is valid on no image.

    `n_valid` is the number of valid images (or videos). `direction` is 1 when larger is better and -1 otherwise.
    """

    value: float | None
    se: float | None
    ci95: tuple[float, float] | None
    n_valid: int
    direction: Literal[1, -1]
    signature: str

    def __str__(self) -> str:
        """Value and 95 % interval with three decimals, such as `0.693 [0.688, 0.699]`."""
        if self.value is None:
            return "not valid"
        # + 0.0 turns -0.0 into 0.0
        interval = f" [{self.ci95[0] + 0.0:.3f}, {self.ci95[1] + 0.0:.3f}]" if self.ci95 else ""
        return f"{round(self.value, 3) + 0.0:.3f}{interval}"


class Cost(_Section):
    """Cost of the run: seconds of the whole loop and of `predict` alone, images per second of the loop, peak memory."""

    seconds_total: float
    seconds_model: float
    images_per_second: float | None
    peak_memory_mb: float


class RowsFile(_Section):
    """The Parquet file of per-image rows beside the JSON file."""

    file: str
    sha256: str


class Result(_Section):
    """The result of one evaluation. `path` is the location of its JSON file after it was written or read."""

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
        """The Parquet file of per-image rows, or None before the result is written.

        Only the file name is taken from the JSON file: a result from a stranger must not make us read other folders.
        """
        return self._path.parent / Path(self.rows.file).name if self._path else None

    def value(self, metric: str) -> float | None:
        """The value of one metric; None when it is valid on no image. Raises UsageError for an unknown metric."""
        if metric not in self.metrics:
            raise UsageError(f"metric '{metric}' is not in this result; it has {', '.join(self.metrics)}")
        return self.metrics[metric].value

    @property
    def title(self) -> str:
        """Model, task and data in one line."""
        seed = "" if self.model.training_seed is None else f", training seed {self.model.training_seed}"
        data = f"{self.data.kind} data, revision {self.data.revision}"
        return f"{self.model.name}{seed} on {self.task.name} v{self.task.version} ({data})"

    def _cells(self) -> list[list[str]]:
        """The metrics as rows of a table, the ranked one first."""
        names = sorted(self.metrics, key=lambda name: name != self.task.main)
        rows = [[name, str(self.metrics[name]), str(self.metrics[name].n_valid)] for name in names]
        return [["metric", "value [95 % interval]", "n"], *rows]

    def _below(self) -> list[str]:
        """The lines below the table: the protocol, and why the result is not ranked."""
        # By its name: the rules of ranking know results, and results know no rules.
        reasons = importlib.import_module(".ranks_with", __package__).reasons_against_ranking(self)
        return [f"signature: {self.task.signature}", *(f"not ranked: {reason.message}" for reason in reasons)]

    def __repr__(self) -> str:
        return "\n".join([self.title, text_table(self._cells()), *self._below()])

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return f"<p>{escape(self.title)}</p>{html_table(self._cells())}<p>{'<br>'.join(map(escape, self._below()))}</p>"

    def to_latex(self) -> str:
        """The metrics as a LaTeX table, for the package booktabs, below comments that say what its numbers are."""
        about = f"key {self.identity.key}, supervision: {self.model.supervision}, privilege: {self.model.privilege}"
        samples = f"{self.counts.scored} of {self.counts.attempted} samples scored"
        said = [self.title, *self._below(), about, f"{samples}; [ ] 95 % bootstrap interval over the n samples"]
        return "\n".join([*(f"% {line.replace('│', '|')}" for line in said), latex_table(self._cells())])

    def to_frame(self) -> pandas.DataFrame:
        """One row for each sample and noise seed: `id`, `noise_seed`, the metrics, properties of the sample.

        Raises UsageError when the rows beside the file are missing or not those that the result recorded.
        """
        # By its name: the store knows results, and results know no store.
        rows: pandas.DataFrame = importlib.import_module(".store", __package__).rows_of(self)
        return rows

    def report(self, other: Result | None = None, **keywords: Any) -> Path:
        """Write the HTML report of this run, or of this one and another; keywords as in `ocl_bench.report`."""
        # By its public name: a page knows results, and results know no pages.
        written: Path = importlib.import_module("ocl_bench").report(self, other, **keywords)
        return written

    def plot(self) -> Figure:
        """Bars of the metrics with their intervals, beside stored floors and ceilings (matplotlib)."""
        # By their names, as `report`: pictures know results.
        drawn: Figure = importlib.import_module("ocl_bench.tables.pictures.bars").metric_bars(self)
        return drawn

    def pictures(self, n: int = 3, **where: Any) -> list[Image]:
        """PIL images of samples from best to worst: image, truth, prediction. See `tables.pictures.of_result`.

        where: such as `model=`, a live model, or `data_root=`, if they are not found by themselves.
        """
        module = importlib.import_module("ocl_bench.tables.pictures.of_result")
        drawn: list[Image] = module.sample_pictures(self, n, **where)
        return drawn

    def to_json(self) -> str:
        """The text of the JSON file: indented, fields in a fixed order. Bytes that are no UTF-8 stand as `\\xff`."""
        content = self.model_dump(mode="json", by_alias=True)
        text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        # A command or an error may name a file whose name is not UTF-8; Python keeps such bytes as half characters.
        return re.sub("[\udc80-\udcff]", lambda half: f"\\\\x{ord(half[0]) - 0xDC00:02x}", text)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a result. It equals `result.schema.json`, which a test checks."""
    schema = Result.model_json_schema(by_alias=True, mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def read_result(path: Path | str) -> Result:
    """Read a result file of any format and set its `path`. Raises UsageError naming the file and the field."""
    path = Path(path)
    try:
        content = parse_json(read_bytes(path))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # not UTF-8, not JSON, or nested too deeply
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
    """Write `<stem>.parquet` and `<stem>.json`, each atomically.

    Args:
        result: the result; its section `rows` is replaced.
        rows: its per-image rows.
        folder: folder of the files, created if needed.
        stem: name without suffix, by default the first 8 characters of the key.

    Returns:
        The result with the name and the hash of its rows and with `path` set.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stem = stem or result.identity.key[:8]
    parquet = folder / f"{stem}.parquet"
    # Rows come first: the JSON file holds their hash, and a run that is killed in between leaves no broken result.
    write_atomically(parquet, lambda target: write_rows(rows, target))
    section = RowsFile(file=parquet.name, sha256=hashlib.sha256(parquet.read_bytes()).hexdigest())
    written = result.model_copy(update={"rows": section})
    text = written.to_json()
    path = folder / f"{stem}.json"
    write_atomically(path, lambda target: target.write_text(text, encoding="utf-8"))
    written._path = path
    return written

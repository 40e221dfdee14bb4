"""Numbers that papers print, with their source, evidence and protocol. Data in `leaderboards/published/<task>.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from .errors import UsageError
from .paths import bundled
from .spec import Privilege, Supervision


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PublishedValue(_Strict):
    """One printed number. value and spread stand as printed, in units of `PublishedTable.scale`."""

    value: float
    spread: float | None = Field(default=None, ge=0)
    spread_kind: Literal["sample_sd", "population_sd", "standard_error", "unstated"] | None = None

    @model_validator(mode="after")
    def _spread_has_a_kind(self) -> PublishedValue:
        if (self.spread is None) != (self.spread_kind is None):
            raise ValueError("spread and spread_kind come together; write spread_kind: unstated if unknown")
        return self


class PublishedRow(_Strict):
    """One row of a paper's table.

    comparable: whether the numbers may stand beside rows of this task on official data; `why` gives the reason.
    seeds: training seeds, empty when the source does not state them.
    """

    model: str = Field(min_length=1)
    paper: str = Field(min_length=1)
    source: str = Field(min_length=1)
    evidence: str = Field(min_length=1)
    protocol: str
    seeds: tuple[int, ...] = ()
    supervision: Supervision = "none"
    privilege: Privilege = "none"
    metrics: dict[str, PublishedValue] = Field(min_length=1)
    comparable: Literal["yes", "no"]
    why: str = Field(min_length=1)

    @field_validator("comparable", mode="before")
    @classmethod
    def _yaml_says_true(cls, value: object) -> object:
        # YAML 1.1 reads a bare yes or no as a boolean.
        return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


class PublishedTable(_Strict):
    """All published rows of one task. value * scale is the fraction that the leaderboard shows."""

    task: str
    version: int = Field(ge=1)
    scale: float = Field(gt=0)
    protocols: dict[str, str]
    left_out: tuple[str, ...] = ()
    rows: tuple[PublishedRow, ...]

    @model_validator(mode="after")
    def _protocols_are_described(self) -> PublishedTable:
        for row in self.rows:
            if row.protocol not in self.protocols:
                raise ValueError(f"row '{row.model}': protocol '{row.protocol}' is not described in protocols")
        names = [row.model for row in self.rows]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"model '{repeated[0]}' has two rows")
        return self


def published_folder() -> Path:
    """The bundled folder of published rows."""
    return bundled("leaderboards") / "published"


def load_published(task: str, folder: Path | None = None) -> PublishedTable | None:
    """The published rows of a task, or None when no file `<task>.yaml` is in the folder.

    Raises UsageError naming the file and the field when the file is there but wrong.
    """
    path = (folder or published_folder()) / f"{task}.yaml"
    if not path.is_file():
        return None
    try:
        table = PublishedTable.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a YAML file ({str(error).splitlines()[0]})") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "file"
        raise UsageError(f"{path}: field '{field}': {first['msg']}; see leaderboards/README.md") from error
    if table.task != task:
        raise UsageError(f"{path}: field 'task': '{table.task}' is not '{task}'; rename the file or the field")
    return table

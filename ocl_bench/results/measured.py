"""The file format of a committed cost ratio. A profile writes it and a claim reads it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Figure(BaseModel):
    """A measured ratio of two costs, stored in `leaderboards/claims/figures/<figure>`.

    Attributes:
        ratio: the measured ratio, without unit.
        low: lower end of its range.
        high: upper end of its range.
        setup: the machine and the settings of the measurement.
        command: the command line that produced it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    ratio: float = Field(gt=0)
    low: float = Field(gt=0)
    high: float = Field(gt=0)
    setup: str = Field(min_length=1)
    command: str = Field(min_length=1)

    @model_validator(mode="after")
    def _lies_in_its_range(self) -> Figure:
        if not self.low <= self.ratio <= self.high:
            raise ValueError(f"ratio {self.ratio:g} lies outside its range {self.low:g} to {self.high:g}")
        return self

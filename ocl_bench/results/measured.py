"""A committed measurement: a ratio of two costs, which a profile writes and a claim reads."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Figure(BaseModel):
    """A committed measurement, `leaderboards/claims/figures/<figure>`: a ratio with its range and how it was made."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    ratio: float = Field(gt=0)
    low: float = Field(gt=0)
    high: float = Field(gt=0)
    setup: str = Field(min_length=1)
    command: str = Field(min_length=1)

    @model_validator(mode="after")
    def _lies_in_its_range(self) -> Figure:
        if not self.low <= self.ratio <= self.high:
            raise ValueError(f"ratio {self.ratio:g} lies outside of its range {self.low:g} to {self.high:g}")
        return self

"""Errors that a user can act on: one line that names the file, the field and the remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class OclBenchError(Exception):
    """An expected error. The command line prints its message as one line and exits with `exit_code`.

    Args:
        problem: what is wrong.
        remedy: what to do; it ends the message.
    """

    exit_code = 2

    def __init__(self, problem: str = "", remedy: str = "") -> None:
        super().__init__(f"{problem}; {remedy}" if remedy else problem)
        self.problem, self.remedy = problem, remedy


class UsageError(OclBenchError):
    """A wrong name, option, card or model (exit code 2)."""


class NotApplicableError(UsageError):
    """The model lacks an output that the task needs: `n/a` in a matrix, a usage error for one evaluation."""


class DataMissingError(OclBenchError):
    """The requested data is not on this machine (exit code 3)."""

    exit_code = 3


class SampleError(OclBenchError):
    """One sample cannot be read or scored. It is recorded as failed; the other samples are kept (exit code 1)."""

    exit_code = 1

    def __init__(self, sample_id: str, message: str) -> None:
        super().__init__(f"sample {sample_id}: {message}")
        self.sample_id, self.message = sample_id, message

    def __reduce__(self) -> tuple[type[SampleError], tuple[str, str]]:
        """What pickle sends to another process: by default it would send the text alone."""
        return type(self), (self.sample_id, self.message)


def first_problem(error: ValidationError, whole: str = "") -> tuple[str, str]:
    """The dotted name of the first field that pydantic refused, and its message.

    Args:
        error: of a validation.
        whole: name for the document itself, when the error is not that of a field.
    """
    first = error.errors()[0]
    inner = first.get("ctx", {}).get("field", "")  # set by validators that check a section with another class
    place = ".".join(str(part) for part in (*first["loc"], *([inner] if inner else [])))
    return place or whole, first["msg"].removeprefix("Value error, ")

"""Packages that only some commands need: the extras of `pip install 'ocl-bench[...]'`."""

from __future__ import annotations

import importlib
from typing import Any

from .errors import UsageError


class MissingPackageError(UsageError, ImportError):
    """An optional package is not installed, or cannot be imported here."""


def import_optional(module: str, extra: str, subject: str) -> Any:
    """The module of an optional package.

    Args:
        module: its name, such as `matplotlib` or `av`.
        extra: the extra that installs it.
        subject: what needs it; the message begins with it.

    Raises:
        MissingPackageError: says what to install.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:  # names what is missing: the package, or one that it needs
        what = (error.name or module).partition(".")[0]
        raise MissingPackageError(f"{subject} needs {what}", _remedy(extra)) from error
    except (ImportError, RuntimeError) as error:  # torchvision of another torch fails with a RuntimeError
        what = f"{module}, which cannot be imported ({str(error).partition(chr(10))[0]})"
        raise MissingPackageError(f"{subject} needs {what}", _remedy(extra)) from error


def _remedy(extra: str) -> str:
    return f"pip install 'ocl-bench[{extra}]'"

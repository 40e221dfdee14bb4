"""Where a data set lies: the first of several folders that holds what a reader needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ...core.errors import DataMissingError
from ..base import Request


def first_folder(candidates: Iterable[Path], holds: Callable[[Path], bool]) -> Path | None:
    """The first candidate for which `holds` is true, resolved; None when there is none."""
    return next((candidate.resolve() for candidate in candidates if holds(candidate)), None)


def usual_places(request: Request) -> tuple[Path, Path]:
    """`<data root>/<data.folder>` and the data root itself, in the order in which readers search them."""
    assert request.root is not None
    return request.root / request.data.folder, request.root


def find_root(
    request: Request,
    candidates: Sequence[Path],
    holds: Callable[[Path], bool],
    wanted: str,
    *,
    looked: Sequence[Path] | None = None,
    between: str = ", ",
) -> Path:
    """The first folder that holds a data set, resolved.

    Args:
        request: names the task in the message, and how to get the data.
        candidates: folders in the order of preference.
        holds: whether a folder holds what the reader needs.
        wanted: what was not found, for the message "no <wanted>; looked in ...".
        looked: folders that the message names, when these are not the candidates.
        between: text between these folders.

    Raises:
        DataMissingError: no candidate holds the data.
    """
    folder = first_folder(candidates, holds)
    if folder is not None:
        return folder
    names = between.join(dict.fromkeys(map(str, looked or candidates)))
    raise DataMissingError(f"task '{request.task.name}': no {wanted}; looked in {names}; get it: {request.data.get}")


def find_root_with(request: Request, folders: Sequence[str]) -> Path:
    """The first of the usual places that has all these folders. Raises DataMissingError."""
    return find_root(
        request,
        usual_places(request),
        lambda place: all((place / folder).is_dir() for folder in folders),
        f"folders {' and '.join(folders)}",
        between=" and ",
    )

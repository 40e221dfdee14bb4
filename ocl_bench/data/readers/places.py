"""Where a data set lies: the first of several folders that holds what a reader needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ...core.errors import DataMissingError, UsageError
from ..base import Request


def first_folder(candidates: Iterable[Path], holds: Callable[[Path], bool]) -> Path | None:
    """The first candidate for which `holds` is true, resolved; None when there is none."""
    return next((candidate.resolve() for candidate in candidates if holds(candidate)), None)


def only_folder(candidates: Iterable[Path], holds: Callable[[Path], bool]) -> Path | None:
    """The candidate for which `holds` is true, None when there is none. Raises UsageError when there are several."""
    found = list({candidate.resolve(): candidate for candidate in candidates if holds(candidate)}.values())
    if len(found) > 1:
        raise UsageError(f"found the same data in {found[0]} and in {found[1]}; move one elsewhere")
    return found[0] if found else None


def within(folder: Path, name: str, holds: Callable[[Path], bool]) -> Path | None:
    """`folder/name`, or the same in the folder of the archive that it came in, as tools make one when they unpack.

    The name of that folder contains the first part of `name`: val2017/val2017, gtFine_trainvaltest/gtFine.

    Returns:
        The place, None when `holds` is true for none.

    Raises:
        UsageError: it is true for several, and not for `folder/name`.
    """
    if holds(folder / name):
        return folder / name
    if not folder.is_dir():
        return None
    first = Path(name).parts[0]
    wrappers = (one for one in sorted(folder.iterdir()) if first in one.name and not one.name.startswith("."))
    return only_folder((wrapper / name for wrapper in wrappers), holds)


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
    wrapped: Iterable[Path] = (),
    looked: Sequence[Path] | None = None,
    between: str = ", ",
) -> Path:
    """The first folder that holds a data set, resolved.

    Args:
        request: names the task in the message, and how to get the data.
        candidates: folders in the order of preference.
        holds: whether a folder holds what the reader needs.
        wanted: what was not found, for the message "no <wanted>; looked in ...".
        wrapped: further folders, which count only where no candidate fits, as do those in a candidate that have its
            own name. Two of them are refused.
        looked: folders that the message names, when these are not the candidates.
        between: text between these folders.

    Raises:
        DataMissingError: no candidate holds the data.
        UsageError: two of the wrapped folders do.
    """
    folder = first_folder(candidates, holds)
    if folder is None:
        folder = only_folder((*(place / place.absolute().name for place in candidates), *wrapped), holds)
    if folder is not None:
        return folder.resolve()
    names = between.join(dict.fromkeys(map(str, looked or candidates)))
    raise DataMissingError(f"task '{request.task.name}': no {wanted}; looked in {names}; get it: {request.data.get}")


def find_root_with(request: Request, folders: Sequence[str]) -> Path:
    """The first of the usual places that has all these folders. Raises DataMissingError."""
    return find_root(
        request,
        usual_places(request),
        lambda place: all(within(place, folder, Path.is_dir) for folder in folders),
        f"folders {' and '.join(folders)}",
        between=" and ",
    )

"""Removing what is in the cache: whole or not at all, and errors name what was to be removed."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

import pytest

from ocl_bench.data import folders


def test_an_error_names_the_folder_that_was_to_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not the temporary name inside, which nobody knows."""
    (tmp_path / "tree").mkdir()

    def refuse(**keywords: str) -> None:
        raise OSError(errno.EROFS, "Read-only file system", f"{tmp_path}/.removing-abc")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    for act in (folders.remove, lambda path: folders.write_folder(path, lambda place: place.mkdir())):
        with pytest.raises(OSError, match="Read-only") as caught:
            act(tmp_path / "tree")
        assert caught.value.filename == str(tmp_path / "tree") and caught.value.errno == errno.EROFS
    assert (tmp_path / "tree").is_dir()


@pytest.mark.parametrize("kind", ["file", "link", "folder", "nothing"])
def test_what_is_there_is_removed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    (tmp_path / "kept").mkdir()
    if kind == "file":
        path.write_text("")
    elif kind == "link":
        path.symlink_to(tmp_path / "kept")
    elif kind == "folder":
        (path / "inside").mkdir(parents=True)
    folders.remove(path)
    assert [one.name for one in tmp_path.iterdir()] == ["kept"]

"""The index of file names in the cache: what it says must be what the reader found, in every row."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ocl_bench.data.index import open_index, take_manifest

COLUMNS = {
    "id": [f"scene-{i}" for i in range(5)],
    "image": [f"scene-{i}.png" for i in range(5)],
    "mask": [f"scene-{i}_flat.png" for i in range(5)],
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of an index of these columns."""
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "cache"))
    open_index("test", COLUMNS, take_manifest(tmp_path, COLUMNS["image"]))
    (file,) = (tmp_path / "cache/arrow").iterdir()
    return file


@pytest.mark.parametrize("name", ["id", "image", "mask"])
@pytest.mark.parametrize("row", range(5))
def test_an_edited_name_in_any_row_is_noticed(tmp_path: Path, place: Path, name: str, row: int) -> None:
    """One byte makes the mask of a scene that of another one: before, only the first and the last row were compared."""
    old = COLUMNS[name][row].encode()
    content = place.read_bytes()
    position = content.index(old + (b"scene" if row < 4 else b""))
    new = old.replace(str(row).encode(), str((row + 2) % 5).encode())
    place.write_bytes(content[:position] + new + content[position + len(new) :])
    assert open_index("test", COLUMNS, take_manifest(tmp_path, COLUMNS["image"])).to_pydict() == COLUMNS


def test_the_index_of_other_data_in_its_place_is_noticed(tmp_path: Path, place: Path) -> None:
    swapped = [*COLUMNS["mask"][:1], *COLUMNS["mask"][3:0:-1], *COLUMNS["mask"][4:]]
    other = tmp_path / "other"
    other.mkdir()
    open_index("other", {**COLUMNS, "mask": swapped}, take_manifest(other, COLUMNS["image"]))
    next((tmp_path / "cache/arrow").glob("other-*")).replace(place)
    assert open_index("test", COLUMNS, take_manifest(tmp_path, COLUMNS["image"])).to_pydict() == COLUMNS


def test_no_flipped_bit_changes_a_row(tmp_path: Path, place: Path) -> None:
    """In a process of its own: offsets that lead out of the file would end it without an exception."""
    program = f"""
import logging
from pathlib import Path
from ocl_bench.data.index import open_index, take_manifest
columns, root, file = {COLUMNS!r}, Path({str(tmp_path)!r}), Path({str(place)!r})
manifest = take_manifest(root, columns["image"])
good = file.read_bytes()
for position in range(0, len(good), 23):
    file.write_bytes(good[:position] + bytes([good[position] ^ 1 << position % 8]) + good[position + 1 :])
    assert open_index("test", columns, manifest).to_pydict() == columns, position
    file.write_bytes(good)
print("done")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "done\n", done.stderr

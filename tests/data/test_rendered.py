"""Rendered files in the cache that another program changed are noticed and rendered again, and nothing else is."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import forked
import numpy as np
import pytest
from layout_trees import card
from PIL import Image

from ocl_bench.data import OpenData, contents, open_data, rendered
from ocl_bench.data.contents import Memory, stamp
from ocl_bench.data.rendered import RECORD, _place_in_cache, _recorded, ensure_files, ensure_folder
from ocl_bench.data.stand_ins.stand_in import StandInTree

STAND_IN = {"scenes": "clevrtex", "variant": "full", "revision": 1, "samples": 6}
TASK = card(variant="full", split="test", stand_in=STAND_IN)
Rendered = list[tuple[str, int, tuple[int, ...]]]


@pytest.fixture(autouse=True)
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What is logged."""
    caplog.set_level(logging.INFO, "ocl_bench")
    return caplog


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Files count as settled at once. Returns the names of those that are read from now on."""
    read: list[str] = []
    original = contents._hash_file
    monkeypatch.setattr(contents, "SETTLED_NS", -10_000_000_000)
    monkeypatch.setattr(contents, "_hash_file", lambda path: read.append(path.name) or original(path))
    return read


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("[!.]*") if path.is_file()}


def opened(count: int | None = None, *, verify: bool = False) -> OpenData:
    return open_data(TASK, limit=count, progress=False, verify=verify)


def mask_of(number: int) -> Path:
    return StandInTree("full", 1, "test").folder / f"0/CLEVRTEX_full_{number:06d}_flat.png"


def replace_mask(path: Path) -> None:
    """Another valid mask with the same objects."""
    with Image.open(path) as picture:
        other = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    other.save(path)


def test_a_scene_that_was_replaced_by_another_valid_one_is_rendered_again(
    rendered: Rendered, said: pytest.LogCaptureFixture
) -> None:
    data = opened()
    before, truth = files(data.root), data.reader[2].truth.labels
    replace_mask(mask_of(2))
    said.clear()
    again = opened()
    assert np.array_equal(again.reader[2].truth.labels, truth) and files(again.root) == before
    assert [call[2] for call in rendered] == [(0, 1, 2, 3, 4, 5), (2,)] and again.revision == data.revision
    (line,) = [record.getMessage() for record in said.records]
    assert line == f"{mask_of(2)}: not there as it was rendered (1 such files); rendered again"


@pytest.mark.parametrize("number", [0, 5])
def test_two_scenes_that_changed_places_are_rendered_again(rendered: Rendered, number: int) -> None:
    before = files(opened().root)
    shutil.copy2(mask_of(3), mask_of(number))
    assert files(opened().root) == before


def test_an_edit_that_keeps_size_and_modification_time_is_noticed(rendered: Rendered, settled: list[str]) -> None:
    before = files(opened().root)
    path = mask_of(1)
    times, content = path.stat(), path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert files(opened().root) == before


def test_verify_reads_all_files_of_a_stand_in_whatever_their_times_say(
    rendered: Rendered, settled: list[str], said: pytest.LogCaptureFixture
) -> None:
    data = opened()
    before = files(data.root)
    replace_mask(mask_of(4))
    memory = _recorded(data.root)
    name = str(mask_of(4).relative_to(data.root))
    memory.keep({name: str(memory.entries[name][3])}, {name: stamp(mask_of(4))})  # as if nothing had been touched
    assert files(opened().root) != before, "the disk says that nothing was touched"
    settled.clear()
    assert files(opened(verify=True).root) == before
    assert len(set(settled)) == 18 and str(mask_of(4)) in said.text
    assert "--verify: read all files of the stand-in" in said.text


def test_files_that_were_not_touched_are_not_read_and_touched_ones_once(rendered: Rendered, settled: list[str]) -> None:
    opened()
    settled.clear()
    opened()
    assert settled == []
    os.utime(mask_of(3), ns=(1, 1))
    opened()
    opened()
    assert settled == [mask_of(3).name] and len(rendered) == 1


def test_scenes_without_a_record_are_kept_and_recorded_as_they_are(rendered: Rendered) -> None:
    data = opened()
    (data.root / RECORD).unlink()
    replace_mask(mask_of(2))
    found = files(data.root)
    assert files(opened().root) == found and len(rendered) == 1
    replace_mask(mask_of(2))
    opened()
    assert [call[2] for call in rendered][1:] == [(2,)]


def _record(content: object) -> Callable[[Path], object]:
    """Writes a record whose checksum is right, whatever its files are."""

    def write_record(path: Path) -> None:
        place = _place_in_cache(path.parent)
        path.write_text(
            json.dumps({"checksum": Memory(path, place)._checksum(content), "root": place, "files": content})
        )

    return write_record


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "bytes": lambda path: path.write_bytes(b"\xff\x00" * 50),
    "edited": lambda path: path.write_text(path.read_text().replace("000001_flat", "000002_flat")),
    "list": lambda path: path.write_text("[1]"),
    "deep": lambda path: path.write_text("[" * 100_000),
    "long number": lambda path: path.write_text('{"files": ' + "9" * 6000 + "}"),
    "files are a list": _record([1, 2]),
    "entries are numbers": _record({"0/CLEVRTEX_full_000001.png": 3}),
    "entries are short": _record({"0/CLEVRTEX_full_000001.png": [1]}),
    "entries are odd": _record({"0/CLEVRTEX_full_000001.png": [None, {}, [], "x"]}),
    "folder": _folder,
    "pipe": _pipe,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_vouches_for_nothing(rendered: Rendered, damage: str) -> None:
    data = opened()
    before = files(data.root)
    DAMAGES[damage](data.root / RECORD)
    replace_mask(mask_of(1))
    assert files(opened().root) == before
    assert len(_recorded(data.root).entries) == 18
    replace_mask(mask_of(3))
    assert files(opened().root) == before


@pytest.mark.parametrize("verify", [False, True])
def test_a_folder_of_another_seed_is_rendered_again_though_it_has_its_own_record(
    rendered: Rendered, verify: bool, said: pytest.LogCaptureFixture
) -> None:
    root = opened().root
    before = files(root)
    other = open_data(TASK, stand_in_seed=3, progress=False).root
    assert files(other) != before and set(files(other)) == set(before), "other scenes under the same names"
    shutil.rmtree(root)
    other.rename(root)
    said.clear()
    opened(verify=verify)
    assert files(root) == before
    assert "is damaged, or of another folder or version; the files of its folder are rendered again" in said.text


@pytest.mark.parametrize("stranger", [_folder, _pipe, lambda path: path.unlink() or path.symlink_to(path)])
def test_what_is_no_file_makes_room(rendered: Rendered, stranger: Callable[[Path], None]) -> None:
    before = files(opened().root)
    stranger(mask_of(1))
    assert files(opened().root) == before


def test_a_cache_that_cannot_be_written_is_read(
    rendered: Rendered, monkeypatch: pytest.MonkeyPatch, said: pytest.LogCaptureFixture
) -> None:
    data = opened()
    os.utime(mask_of(3), ns=(1, 1))
    lock = data.root.parent / f".{data.root.name}.lock"
    lock.mkdir()  # cannot be locked

    def refuse(path: Path, write: object) -> None:
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(contents, "write_atomically", refuse)
    assert len(opened()) == 6 and "Read-only file system" in said.text and len(rendered) == 1


def open_many(counts: Iterable[int]) -> None:
    """In another process: the first scenes of a folder, more and more of them."""

    def render(names: Iterable[str]) -> None:
        for name in names:
            (Path("scenes") / name).write_text(f"scene {name}")

    for count in counts:
        ensure_files(Path("scenes"), [f"{number}.txt" for number in range(count)], render)


def test_no_process_loses_what_another_records(tmp_path: Path) -> None:
    (tmp_path / "scenes").mkdir()
    counts = [range(start, 120, 7) for start in range(1, 5)]
    running = [forked.start(open_many, steps, cwd=tmp_path) for steps in counts]
    assert [process.end().returncode for process in running] == [0] * 4
    assert len(Memory.load(tmp_path / "scenes" / RECORD, "scenes").entries) == max(map(max, counts))


# Whole folders


def write(folder: Path) -> None:
    (folder / "images").mkdir(parents=True)
    (folder / "images/a.txt").write_text("a")
    (folder / "images/b.txt").write_text("b")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "cache"))
    ensure_folder(tmp_path / "cache/tree", write)
    return tmp_path / "cache/tree"


TREE = {"images/a.txt": b"a", "images/b.txt": b"b"}
CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda root: (root / "images/a.txt").write_text("b"),
    "lost": lambda root: (root / "images/a.txt").unlink(),
    "one more": lambda root: (root / "images/c.txt").write_text("c"),
    "name": lambda root: (root / "images/a.txt").rename(root / "images/\udcff.txt"),
    "no folder": lambda root: shutil.rmtree(root / "images"),
    "empty": lambda root: (shutil.rmtree(root), root.mkdir()),
    "a file": lambda root: (shutil.rmtree(root), root.write_text("")),
    "a link": lambda root: (root.rename(root.parent / "other"), root.symlink_to("nowhere")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_folder_is_rendered_again_as_a_whole(tree: Path, change: str, said: pytest.LogCaptureFixture) -> None:
    CHANGES[change](tree)
    ensure_folder(tree, write)
    assert files(tree) == TREE and not tree.is_symlink()
    assert {path.name for path in tree.parent.iterdir()} <= {"tree", "other"}, "nothing is left beside it"
    if change in ("content", "lost", "one more"):
        (line,) = [record.getMessage() for record in said.records]
        assert "not there as it was rendered (1 such files)" in line and str(tree / "images") in line


def test_a_folder_that_is_as_it_was_rendered_is_kept(
    tree: Path, settled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path) -> None:
        raise AssertionError("rendered again")

    (tree / ".DS_Store").write_text("of a desktop")
    shutil.copytree(tree.parent, tree.parent.with_name("moved"))  # a cache may be moved
    for place in (tree.parent.with_name("moved") / tree.name, tree):
        monkeypatch.setenv("OCL_BENCH_CACHE", str(place.parent))
        ensure_folder(place, refuse)
        settled.clear()
        ensure_folder(place, refuse)
        assert settled == []
    ensure_folder(tree, refuse, verify=True)
    assert sorted(settled) == ["a.txt", "b.txt"]
    (tree / RECORD).unlink()
    (tree / "images/a.txt").write_text("of an earlier version")
    ensure_folder(tree, refuse)
    assert len(_recorded(tree).entries) == 2
    (tree / "images/a.txt").write_text("A")
    with pytest.raises(AssertionError, match="rendered again"):
        ensure_folder(tree, refuse)


def test_a_folder_of_another_split_is_rendered_again_though_it_has_its_own_record(tree: Path) -> None:
    other = tree.with_name("other")
    ensure_folder(other, lambda folder: (write(folder), (folder / "images/a.txt").write_text("of other scenes")))
    shutil.rmtree(tree)
    other.rename(tree)
    ensure_folder(tree, write)
    assert files(tree) == TREE


def test_a_disk_that_is_full_leaves_no_half_folder(tmp_path: Path) -> None:
    def stop(folder: Path) -> None:
        write(folder)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        ensure_folder(tmp_path / "tree", stop)
    assert not (tmp_path / "tree").exists() and not rendered._Look.inside(tmp_path / "tree").files

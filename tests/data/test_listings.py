"""Names of files that are remembered by the times of their folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from layout_trees import card

from ocl_bench.core.paths import cache_root
from ocl_bench.data import OpenData, contents, listings, open_data
from ocl_bench.data.readers import imagenet_files

CLASSES = ("n01440764", "n01530575", "n02105855")


@pytest.fixture(autouse=True)
def trusted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Folders that were changed a moment ago are trusted, as no test waits for two seconds."""
    monkeypatch.setattr(contents, "SETTLED_NS", -(10**12))
    yield


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that are listed, by name."""
    seen: list[str] = []
    original = imagenet_files._list_names

    def spy(folder: Path, *arguments: Any) -> Any:
        seen.append(folder.name)
        return original(folder, *arguments)

    monkeypatch.setattr(imagenet_files, "_list_names", spy)
    return seen


def tree(root: Path) -> Path:
    for wnid in CLASSES:
        folder = root / "imagenet/train" / wnid / "inner"
        folder.mkdir(parents=True)
        for place in (folder, folder.parent):
            for number in range(3):
                (place / f"{place.name}_{number}.JPEG").write_bytes(b"x")
        (folder / "notes.txt").touch()
    return root / "imagenet/train"


def opened(root: Path, *, verify: bool = False) -> OpenData:
    return open_data(card(reader="imagenet", split="train"), data_root=root, verify=verify)


def test_folders_are_listed_once(tmp_path: Path, listed: list[str]) -> None:
    tree(tmp_path)
    first = opened(tmp_path)
    assert sorted(listed) == sorted([*CLASSES, *["inner"] * 3])
    listed.clear()
    second = opened(tmp_path)
    assert listed == []
    assert second.ids == first.ids and second.revision == first.revision and second.note == first.note
    assert len(first) == 18 and "3 files that are not images" in first.note


def test_a_changed_folder_is_listed_again_and_the_others_are_not(tmp_path: Path, listed: list[str]) -> None:
    folder = tree(tmp_path)
    first = opened(tmp_path)
    inner = folder / CLASSES[1] / "inner"
    changes = (
        lambda: (inner / "added.JPEG").write_bytes(b"x"),
        lambda: (inner / "added.JPEG").rename(inner / "other.JPEG"),
        lambda: (inner / "other.JPEG").unlink(),
        lambda: (inner / "deeper").mkdir(),
        lambda: (inner / "deeper/one.png").write_bytes(b"x"),
        lambda: inner.rename(inner.with_name("renamed")),
    )
    revisions = [first.revision]
    for change in changes:
        listed.clear()
        change()
        data = opened(tmp_path)
        assert {*listed} <= {CLASSES[1], "inner", "deeper", "renamed"} and CLASSES[1] in listed
        files = {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.[Jp][Pn]*")}
        assert {*data.ids} == files
        revisions.append(data.revision)
    assert revisions[3] == revisions[0] == revisions[4] and len({*revisions}) == 5


def test_another_folder_in_the_place_of_one_is_noticed(tmp_path: Path) -> None:
    folder = tree(tmp_path)
    (tmp_path / "away").mkdir()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.JPEG").write_bytes(b"x")
        os.utime(tmp_path / name, (1, 1))
    link = folder / "n03000684"
    for name in ("one", "two"):
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / name, target_is_directory=True)
        assert opened(tmp_path).ids[-1] == f"n03000684/{name}"


def test_a_link_that_leads_to_a_folder_later_is_noticed(tmp_path: Path) -> None:
    folder = tree(tmp_path)
    (folder / CLASSES[0] / "more").symlink_to(tmp_path / "disk", target_is_directory=True)
    assert len(opened(tmp_path)) == 18
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/new.JPEG").write_bytes(b"x")
    assert f"{CLASSES[0]}/more/new" in opened(tmp_path).ids


def test_roots_do_not_share_their_memory(tmp_path: Path) -> None:
    for name in ("a", "b"):
        tree(tmp_path / name)
    (tmp_path / "b/imagenet/train" / CLASSES[0] / "z.JPEG").write_bytes(b"x")
    link = tmp_path / "link"
    for name, count in (("a", 18), ("b", 19)) * 2:
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / name, target_is_directory=True)
        assert len(opened(tmp_path / name)) == len(opened(link)) == count


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tree(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setattr(listings, "cache_root", lambda: tmp_path / "file")
    assert len(opened(tmp_path)) == 18
    (folder / CLASSES[0] / "new.JPEG").write_bytes(b"x")
    assert len(opened(tmp_path)) == 19


@pytest.mark.parametrize(("nanoseconds", "verify"), [(0, False), (1, True)])
def test_folders_whose_times_stand_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nanoseconds: int, verify: bool
) -> None:
    """As mounted buckets show them: not trusted in whole seconds, and listed by --verify in any case."""
    folder = tree(tmp_path)
    for module in (listings, imagenet_files):
        monkeypatch.setattr(module, "folder_stamp", lambda place: (1, len(str(place)), 5, nanoseconds))
    opened(tmp_path)
    (folder / CLASSES[0] / "new.JPEG").write_bytes(b"x")
    assert len(opened(tmp_path, verify=verify)) == 19
    assert len(opened(tmp_path)) == 19


def test_a_folder_that_was_just_changed_is_not_trusted(
    tmp_path: Path, listed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path)
    monkeypatch.setattr(contents, "SETTLED_NS", 3600 * 10**9)
    opened(tmp_path)
    listed.clear()
    opened(tmp_path)
    assert len(listed) == 6


@pytest.mark.parametrize("damage", ["cut", "edited", "empty", "folder"])
def test_a_damaged_memory_is_made_again(tmp_path: Path, listed: list[str], damage: str) -> None:
    tree(tmp_path)
    ids = opened(tmp_path).ids
    (path,) = (cache_root() / "listings").iterdir()
    text = path.read_text()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    else:
        path.write_text({"cut": text[:-9], "edited": text.replace("_1.JPEG", "_7.JPEG"), "empty": ""}[damage])
    for _ in range(2):
        listed.clear()
        assert opened(tmp_path).ids == ids
    assert len(listed) == (6 if damage == "folder" else 0)


def test_names_of_any_bytes_come_back(tmp_path: Path) -> None:
    folder = tree(tmp_path)
    for name in ("a\nb.JPEG", "ü😀.JPEG", 'q"\\.JPEG'):
        (folder / CLASSES[0] / name).write_bytes(b"x")
    first, second = opened(tmp_path), opened(tmp_path)
    assert first.ids == second.ids and f"{CLASSES[0]}/a\nb" in first.ids

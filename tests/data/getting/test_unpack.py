"""Archives: what leads out of the folder, links, devices, bombs and cut files are refused and leave nothing behind."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ocl_bench.core.errors import UsageError
from ocl_bench.data.getting import unpack as module
from ocl_bench.data.getting.unpack import unpack

FILES = {"set/images/a.jpg": b"a" * 3000, "set/images/b.jpg": b"b", "set/list.txt": b""}
MOST = 10**6


def make_zip(path: Path, files: dict[str, bytes], mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return path


def make_tar(path: Path, files: dict[str, bytes], mode: str = "w", change: Callable[..., None] | None = None) -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            head = tarfile.TarInfo(name)
            head.size = len(content)
            if change is not None:
                change(head)
            archive.addfile(head, io.BytesIO(content))
    return path


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_files_come_out(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    make_zip(path, FILES) if kind == "zip" else make_tar(path, FILES, f"w:{kind[4:]}" if kind != "tar" else "w")
    (tmp_path / "out/set").mkdir(parents=True)
    (tmp_path / "out/set/other.txt").write_bytes(b"mine")
    (tmp_path / "out/set/list.txt").write_bytes(b"old")
    assert unpack(path, tmp_path / "out", MOST) == 3
    assert tree(tmp_path / "out") == {**FILES, "set/other.txt": b"mine"}, "beside what is there"


def refused(path: Path, tmp_path: Path, reason: str, most: int = MOST) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        unpack(path, tmp_path / "out", most)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert os.listdir(tmp_path / "out") == [], "nothing is left behind"
    assert not (tmp_path / "escaped").exists()


@pytest.mark.parametrize("name", ["../escaped", "/tmp/escaped", "a/../../escaped", "..\\escaped", "C:\\x", "C:x"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_lead_out(tmp_path: Path, kind: str, name: str) -> None:
    make = make_zip if kind == "zip" else make_tar
    refused(make(tmp_path / f"a.{kind}", {"good.txt": b"1", name: b"2"}), tmp_path, "leads out of the folder")


def link(kind: bytes, target: str) -> Callable[[tarfile.TarInfo], None]:
    def change(head: tarfile.TarInfo) -> None:
        head.type, head.linkname, head.size = kind, target, 0

    return change


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
@pytest.mark.parametrize("target", ["/etc/passwd", "../..", "beside"])
def test_links_and_devices_in_a_tar(tmp_path: Path, kind: bytes, target: str) -> None:
    path = make_tar(tmp_path / "a.tar", {"x": b""}, change=link(kind, target))
    refused(path, tmp_path, "'x' is a link or a device")


def test_links_and_encryption_in_a_zip(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"x": b"/etc/passwd"}, mode=stat.S_IFLNK | 0o777)
    refused(path, tmp_path, "is a link, a device or encrypted")


def test_a_link_that_is_already_there_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/set").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="is a link that leads out"):
        unpack(make_zip(tmp_path / "a.zip", {"set/x": b"1"}), tmp_path / "out", MOST)
    assert os.listdir(tmp_path / "elsewhere") == []


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_bombs(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path, bomb = tmp_path / f"a.{kind}", {"zeros": bytes(2 * MOST)}
    make_zip(path, bomb) if kind == "zip" else make_tar(path, bomb, "w:gz")
    assert path.stat().st_size < 10_000
    refused(path, tmp_path, "unpacks to more than 1000000 bytes")
    monkeypatch.setattr(module, "MOST_FILES", 5)
    many = {f"f{number}": b"" for number in range(6)}
    make_zip(path, many) if kind == "zip" else make_tar(path, many, "w:gz")
    refused(path, tmp_path, "or 5 files")


def test_a_zip_that_holds_more_than_it_announces(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"zeros": bytes(50_000)})
    content = path.read_bytes()
    size = (50_000).to_bytes(4, "little")
    assert content.count(size) == 2
    path.write_bytes(content.replace(size, (10).to_bytes(4, "little")))
    refused(path, tmp_path, "damaged|larger than announced|too early")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_cut_and_damaged_archives(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    files = {"a": os.urandom(20_000), "b": os.urandom(20_000)}
    make_zip(path, files) if kind == "zip" else make_tar(path, files, "w:gz" if kind == "tar.gz" else "w")
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], content[:100], b"", b"no archive" * 100):
        path.write_bytes(damaged)
        refused(path, tmp_path, "is damaged or cut|holds no file")


def test_a_page_instead_of_an_archive_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(b"<html>please sign in</html>" * 40)
    refused(path, tmp_path, r"is damaged or cut \(it is neither zip nor tar; did the server send a page\?\)")


def test_a_flipped_byte_in_a_zip_is_seen(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"a": os.urandom(20_000)})
    content = bytearray(path.read_bytes())
    content[5000] ^= 255
    path.write_bytes(bytes(content))
    refused(path, tmp_path, "is damaged or cut")

"""Downloads from a local server that cuts, redirects, lies and changes its mind."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from ocl_bench.core.errors import DataMissingError, UsageError

pytest.importorskip("pooch")

from ocl_bench.data.getting import download as module
from ocl_bench.data.getting.download import download

CONTENT = bytes(range(256)) * 4000
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


@dataclass
class Site:
    """What the server does. cuts: bytes after which the next connections end. asked: the Range of each request."""

    content: bytes = CONTENT
    tag: str | None = '"v1"'
    cuts: list[int] = field(default_factory=list)
    status: int = 200
    location: str = ""
    ranges: bool = True
    length: bool = True
    asked: list[str | None] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def site() -> Iterator[Site]:
    served = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            served.asked.append(asked)
            if served.location and not self.path.startswith("/there"):
                self.send_response(302)
                self.send_header("Location", served.location)
                self.end_headers()
                return
            if served.status != 200:
                self.send_error(served.status)
                return
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and served.ranges else 0
            if self.headers.get("If-Range") not in (None, served.tag):
                start = 0
            if start and start >= len(served.content):
                self.send_error(416)
                return
            body = served.content[start:]
            self.send_response(206 if start else 200)
            if served.length:
                self.send_header("Content-Length", str(len(body)))
            if served.tag:
                self.send_header("ETag", served.tag)
            self.end_headers()
            cut = served.cuts.pop(0) if served.cuts else len(body)
            self.wfile.write(body[:cut])
            if cut < len(body):
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}/file.zip"
    yield served
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)


def test_a_file_comes_whole_and_once(site: Site, tmp_path: Path) -> None:
    counted: list[int] = []
    path = download(site.url, tmp_path / "a/file.zip", MD5, advance=counted.append)
    assert path == tmp_path / "a/file.zip" and path.read_bytes() == CONTENT and sum(counted) == len(CONTENT)
    assert os.listdir(path.parent) == ["file.zip"]
    assert download(site.url, path, MD5) == path and len(site.asked) == 1, "it is there already"


def test_cut_connections_go_on(site: Site, tmp_path: Path) -> None:
    site.cuts = [100_000, 1, 300_000]
    assert download(site.url, tmp_path / "file.zip", MD5).read_bytes() == CONTENT
    assert site.asked == [None, "bytes=100000-", "bytes=100001-", "bytes=400001-"]


def test_a_killed_download_goes_on(site: Site, tmp_path: Path) -> None:
    site.cuts = [50_000] * 2
    with pytest.raises(DataMissingError, match=r"failed 2 times .*; run the same command again, it goes on"):
        download(site.url, tmp_path / "file.zip", MD5, tries=2)
    assert (tmp_path / "file.zip.part").stat().st_size == 100_000 and not (tmp_path / "file.zip").exists()
    assert download(site.url, tmp_path / "file.zip", MD5).read_bytes() == CONTENT
    assert site.asked[-1] == "bytes=100000-" and os.listdir(tmp_path) == ["file.zip"]


def test_a_file_that_changed_meanwhile_begins_anew(site: Site, tmp_path: Path) -> None:
    site.cuts = [50_000]
    with pytest.raises(DataMissingError):
        download(site.url, tmp_path / "file.zip", tries=1)
    site.content, site.tag = CONTENT[::-1], '"v2"'
    assert download(site.url, tmp_path / "file.zip").read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("change", [{"ranges": False}, {"tag": None}])
def test_servers_that_cannot_go_on_begin_anew(site: Site, tmp_path: Path, change: dict[str, Any]) -> None:
    for name, value in change.items():
        setattr(site, name, value)
    site.cuts = [50_000]
    assert download(site.url, tmp_path / "file.zip", MD5).read_bytes() == CONTENT


def test_a_part_of_something_else_is_dropped(site: Site, tmp_path: Path) -> None:
    site.cuts = [50_000]
    with pytest.raises(DataMissingError):
        download(site.url, tmp_path / "file.zip", tries=1)
    (tmp_path / "file.zip.part").write_bytes(CONTENT * 2)
    assert download(site.url, tmp_path / "file.zip", MD5).read_bytes() == CONTENT


def test_a_wrong_hash_is_refused_and_removed(site: Site, tmp_path: Path) -> None:
    site.content = CONTENT[:-1] + b"x"
    with pytest.raises(UsageError, match=r"the hash is not md5:.*; the file was removed, get it again") as caught:
        download(site.url, tmp_path / "file.zip", MD5)
    assert os.listdir(tmp_path) == [] and "\n" not in str(caught.value)


@pytest.mark.parametrize("status", [403, 404])
def test_what_the_server_refuses_is_not_tried_again(site: Site, tmp_path: Path, status: int) -> None:
    site.status = status
    with pytest.raises(DataMissingError, match=f"the server answers {status}; is it still there?"):
        download(site.url, tmp_path / "file.zip")
    assert len(site.asked) == 1


def test_a_server_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked once: waiting would not help, and five tries without a network take minutes."""
    asked = []
    real = requests.get
    monkeypatch.setattr(requests, "get", lambda *given, **options: (asked.append(given), real(*given, **options))[1])
    with pytest.raises(DataMissingError, match=r"127\.0\.0\.1 cannot be reached; is there a network\?"):
        download("http://127.0.0.1:9/file.zip", tmp_path / "file.zip", tries=2)
    assert len(asked) == 1


def test_redirects_are_followed_but_not_out_of_encryption(site: Site, tmp_path: Path) -> None:
    site.location = "/there"
    assert download(site.url, tmp_path / "file.zip", MD5).read_bytes() == CONTENT
    site.location = "ftp://127.0.0.1/file.zip"
    with pytest.raises(DataMissingError):
        download(site.url, tmp_path / "other.zip", tries=1)
    with pytest.raises(DataMissingError, match="which is not encrypted; it is refused"):
        module._check_redirect("https://a.org/file", "http://a.org/file")
    module._check_redirect("http://a.org/file", "https://b.org/file")


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/a.zip", "no-scheme/a.zip", "http:///a.zip"])
def test_what_is_no_address_is_not_tried_again(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.time, "sleep", lambda seconds: pytest.fail("waited"))
    with pytest.raises(DataMissingError, match=f"^{url}: is no address of http or https, or redirects to"):
        download(url, tmp_path / "a.zip")


def test_a_redirect_to_what_is_no_address_is_not_tried_again(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.time, "sleep", lambda seconds: pytest.fail("waited"))
    site.location = "ftp://127.0.0.1/file.zip"
    with pytest.raises(DataMissingError, match="is no address of http or https, or redirects to"):
        download(site.url, tmp_path / "a.zip")


def test_a_full_disk_is_said_and_the_part_is_kept(site: Site, tmp_path: Path) -> None:
    """/dev/full refuses every byte, as a full disk does."""
    (tmp_path / "file.zip.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="the disk is full; make space and run the same command again") as caught:
        download(site.url, tmp_path / "file.zip", MD5)
    assert str(caught.value.filename).endswith("file.zip.part") and len(site.asked) == 1


def test_a_disk_that_is_too_small_is_said_at_once(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(OSError, match=r"0\.0 GB are missing, 0\.0 GB are free; make space"):
        download(site.url, tmp_path / "file.zip", MD5)

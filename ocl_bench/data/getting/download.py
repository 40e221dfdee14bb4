"""Downloads that go on where they stopped, through `pooch`, which compares the hash."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from ...core.errors import DataMissingError, UsageError
from ...core.files import write_atomically
from ...core.log import logger
from ...core.optional import import_optional
from ..images import one_line

_PIECE = 1 << 20
_SECONDS = 60
"""Without a byte for so long, a connection counts as cut."""

_CLIENT_ERRORS = range(400, 500)


def download(
    url: str,
    path: Path,
    known_hash: str | None = None,
    *,
    tries: int = 5,
    advance: Callable[[int], None] = lambda count: None,
) -> Path:
    """Download a file; what an earlier try left in `<path>.part` is kept.

    Args:
        url: http or https; it may redirect, but not from https to http.
        path: where the file goes. If it is there already and has the hash, nothing is downloaded.
        known_hash: `md5:..` or `sha256:..` that the publisher gives; None where there is none.
        tries: connections that may be cut before it gives up.
        advance: gets the number of bytes of each piece.

    Raises:
        UsageError: the hash is another one, or the package pooch is not installed.
        DataMissingError: the server refuses or cannot be reached, or the connection was cut too often.
        OSError: the disk refuses; a full one is said in one line that names the file.
    """
    pooch = import_optional("pooch", "download", "downloading")
    pooch.get_logger().setLevel("ERROR")  # what it says of hashes is said here
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        found = pooch.retrieve(
            url,
            known_hash=known_hash,
            fname=path.name,
            path=path.parent,
            downloader=_Resuming(path, tries, advance),
        )
    except ValueError as error:
        # pooch has removed the file: its bytes are wrong, so that going on would not help.
        text = f"the hash is not {known_hash}" if known_hash else one_line(error)
        raise UsageError(f"{url}: {text}; the file was removed, get it again") from error
    return Path(found)


class _Resuming:
    """A downloader for `pooch.retrieve`: fills `<path>.part` over several connections, then hands it over."""

    def __init__(self, path: Path, tries: int, advance: Callable[[int], None]) -> None:
        self.part = path.with_name(f"{path.name}.part")
        self.state = path.with_name(f"{path.name}.part.json")
        self.tries, self.advance = tries, advance
        self.answered = False  # whether the server was ever reached

    def __call__(self, url: str, output_file: str, pooch: Any, check_only: bool = False) -> None:
        """Download `url` to `output_file`."""
        import requests

        for attempt in range(self.tries):
            try:
                self._fetch(url)
                break
            except requests.RequestException as error:
                status = error.response.status_code if error.response is not None else None
                if status in _CLIENT_ERRORS:
                    raise DataMissingError(f"{url}: the server answers {status}; is it still there?") from error
                if isinstance(error, ValueError):  # as requests calls an address that it cannot ask for
                    text = "is no address of http or https, or redirects to one that is not"
                    raise DataMissingError(f"{url}: {text}") from error
                if not self.answered and isinstance(error, requests.ConnectionError):
                    host = urlparse(url).hostname
                    raise DataMissingError(f"{url}: {host} cannot be reached; is there a network?") from error
                if attempt + 1 == self.tries:
                    text = f"the connection failed {self.tries} times ({type(error).__name__})"
                    raise DataMissingError(f"{url}: {text}; run the same command again, it goes on") from error
                logger.info("%s: cut (%s); going on", url, type(error).__name__)
                time.sleep(min(2**attempt - 1, 30))
        os.replace(self.part, output_file)
        self.state.unlink(missing_ok=True)

    def _fetch(self, url: str) -> None:
        """One connection. Raises requests.RequestException when it ends before the file does."""
        import requests

        have = self.part.stat().st_size if self.part.is_file() else 0
        tag = self._tag(url)
        # If-Range: a file that changed meanwhile is sent from its beginning. Without a tag nothing could tell.
        headers = {"Range": f"bytes={have}-", "If-Range": tag} if have and tag else {}
        headers["Accept-Encoding"] = "identity"
        with requests.get(url, headers=headers, stream=True, timeout=_SECONDS) as response:
            self.answered = True
            _check_redirect(url, response.url)
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                self.part.unlink()
                raise requests.ConnectionError("the part does not belong to this file")
            response.raise_for_status()
            going_on = response.status_code == requests.codes.partial_content
            self._remember(url, response.headers.get("ETag") or response.headers.get("Last-Modified"))
            length = response.headers.get("Content-Length")
            whole = (have if going_on else 0) + int(length) if length is not None else None
            self._check_space(whole, have if going_on else 0)
            # Else urllib3 would throw away the last piece of a cut connection; the length is compared below.
            response.raw.enforce_content_length = False
            self._write(response.iter_content(_PIECE), "ab" if going_on else "wb")
        if whole is not None and (size := self.part.stat().st_size) != whole:
            raise requests.ConnectionError(f"{size} of {whole} bytes")

    def _write(self, pieces: Any, mode: str) -> None:
        try:
            with self.part.open(mode) as file:
                for piece in pieces:
                    file.write(piece)
                    self.advance(len(piece))
        except OSError as error:
            import requests

            if error.errno == errno.ENOSPC and not isinstance(error, requests.RequestException):
                raise OSError(
                    errno.ENOSPC, "the disk is full; make space and run the same command again", str(self.part)
                ) from error
            raise

    def _check_space(self, whole: int | None, have: int) -> None:
        """Raise OSError when the rest of the file cannot fit on the disk."""
        free = shutil.disk_usage(self.part.parent).free
        if whole is not None and whole - have > free:
            text = f"{(whole - have) / 1e9:.1f} GB are missing, {free / 1e9:.1f} GB are free; make space"
            raise OSError(errno.ENOSPC, text, str(self.part))

    def _tag(self, url: str) -> str | None:
        """What the server called this version of the file when the part began."""
        try:
            state = json.loads(self.state.read_text(encoding="utf-8"))
            return str(state["tag"]) if state["url"] == url and state["tag"] else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _remember(self, url: str, tag: str | None) -> None:
        text = json.dumps({"url": url, "tag": tag})
        write_atomically(self.state, lambda place: place.write_text(text, encoding="utf-8"))


def _check_redirect(asked: str, answered: str) -> None:
    """Raise DataMissingError when a redirect leaves the encrypted connection, or http altogether."""
    schemes = urlparse(asked).scheme, urlparse(answered).scheme
    if schemes[1] not in ("http", "https") or schemes == ("https", "http"):
        raise DataMissingError(f"{asked}: redirects to {answered}, which is not encrypted; it is refused")

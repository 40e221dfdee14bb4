"""Streams that cannot show every character get plain ones."""

from __future__ import annotations

import io
import json
import sys

import forked
import pytest

from ocl_bench.core.terminal import json_for, make_streams_safe

TEXT = "0.612 ±.013 │ ↑ ↓ é 語 \udcff"


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", b"0.612 +-.013 | ^ v \\xe9 \\u8a9e \\udcff"),
        ("latin-1", b"0.612 +-.013 | ^ v \xe9 \\u8a9e \\udcff"),
        ("cp1252", b"0.612 +-.013 | ^ v \xe9 \\u8a9e \\udcff"),
        ("utf-8", "0.612 ±.013 │ ↑ ↓ é 語 \\udcff".encode()),
    ],
)
def test_every_character_can_be_printed(encoding: str, shown: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding=encoding))
    make_streams_safe()
    make_streams_safe()  # a second command in this process
    print(TEXT, end="", flush=True)
    assert content.getvalue() == shown
    text = json.dumps({"signature": "a│b"}, ensure_ascii=False)
    assert json.loads(json_for(sys.stdout, text)) == {"signature": "a│b"}


@pytest.mark.parametrize(("encoding", "arguments"), [("ascii", ["show", "clevrtex"]), ("latin-1", ["show", "mbo_fg"])])
def test_commands_print_ascii_where_signs_cannot_be_shown(encoding: str, arguments: list[str]) -> None:
    done = forked.run(forked.command, *arguments, environment={"PYTHONIOENCODING": encoding})
    assert done.returncode == 0 and done.stdout and done.stdout.isascii(), done.stderr

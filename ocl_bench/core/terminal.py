"""Output streams: lines that fit a terminal, and text for streams that cannot show every character.

A terminal or a log in latin-1, cp1252 or ASCII would otherwise end a command with a UnicodeEncodeError when the work is
done and the table is printed. Signs of the tables become ASCII there, the rest an escape.
"""

from __future__ import annotations

import codecs
import json
import re
import shutil
import sys
import textwrap
from typing import Any, TextIO

_SIGNS = {
    "±": "+-",
    "│": "|",
    "↑": "^",
    "↓": "v",
    "←": "<-",
    "→": "->",
    "•": "*",
    "●": "o",
    "·": ".",
    "…": "...",
    "×": "x",
    "–": "-",
    "—": "-",
}
"""What the command line prints beyond ASCII, and what stands for it."""

_TABLE = str.maketrans(_SIGNS)
_PLAIN = "ocl-bench-plain-"
"""A codec of this name and an encoding: signs as ASCII, and what the encoding lacks as backslash escapes."""


def make_streams_safe() -> None:
    """Let standard output and standard error print whatever they are given; an error there would lose the result."""
    for stream in (sys.stdout, sys.stderr):
        encoding = getattr(stream, "encoding", None)
        if not encoding or not hasattr(stream, "reconfigure") or encoding.startswith(_PLAIN):
            continue
        if _shows_signs(encoding):
            # A file name that is not UTF-8 is a str with surrogates, which UTF-8 cannot encode either.
            stream.reconfigure(errors="backslashreplace")
        else:
            stream.reconfigure(encoding=_PLAIN + codecs.lookup(encoding).name, errors="strict")


def is_plain(stream: TextIO) -> bool:
    """Whether a stream shows ASCII signs only, since `make_streams_safe` found that its encoding has no others."""
    return (getattr(stream, "encoding", None) or "").startswith(_PLAIN)


def plain(text: str) -> str:
    """The text with ASCII in place of the signs of the tables."""
    return text.translate(_TABLE)


def fitted(text: str, stream: TextIO) -> str:
    """A line, cut at spaces where it is wider than the terminal; for a file or a pipe as it is. Paths stay whole."""
    if not stream.isatty():
        return text
    width = shutil.get_terminal_size().columns
    return textwrap.fill(text, width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)


def paragraphs(text: str) -> list[str]:
    """The paragraphs of a docstring: prose without its line breaks, and lists in columns as they are."""
    blocks = re.split(r"\n\s*\n", text)
    return [block if re.search(r"^ |\S {2,}\S", block, re.MULTILINE) else " ".join(block.split()) for block in blocks]


def fitted_command(command: str, stream: TextIO) -> str:
    """The line `next: <command>`; on a terminal that it does not fit, in lines that a shell reads as one command."""
    line = f"next: {command}"
    width = shutil.get_terminal_size().columns
    if not stream.isatty() or len(line) <= width:
        return line
    # A comment and what stands in quotation marks stay whole: a break there would change the command.
    first, *words = re.findall(r"# .*|(?:'[^']*'|[^\s'])+", line)
    lines = [first]
    for word in words:
        fits = len(lines[-1]) + len(word) + len("  \\") <= width
        lines = [*lines[:-1], f"{lines[-1]} {word}"] if fits else [*lines, f"    {word}"]
    return " \\\n".join(lines)


def json_for(stream: TextIO, text: str) -> str:
    """JSON as the stream can show it: with escapes, which are the same JSON, where it has no such characters."""
    return json.dumps(json.loads(text), indent=2) + "\n" if is_plain(stream) else text


def _shows_signs(encoding: str) -> bool:
    try:
        "".join(_SIGNS).encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _codec(name: str) -> codecs.CodecInfo | None:
    """The codec of a name that begins with `_PLAIN`; its letters may have been changed to lower case and `_`."""
    prefix = _PLAIN.replace("-", "_")
    if not name.replace("-", "_").startswith(prefix):
        return None
    encoding = name[len(prefix) :]

    def encode(text: str, errors: str = "strict") -> tuple[bytes, int]:
        del errors
        return plain(text).encode(encoding, "backslashreplace"), len(text)

    def decode(content: Any, errors: str = "strict") -> tuple[str, int]:
        return bytes(content).decode(encoding, errors), len(content)

    class Encoder(codecs.IncrementalEncoder):
        def encode(self, input: str, final: bool = False) -> bytes:
            del final
            return encode(input)[0]

    class Decoder(codecs.IncrementalDecoder):
        def decode(self, input: Any, final: bool = False) -> str:
            del final
            return decode(input, self.errors)[0]

    return codecs.CodecInfo(encode, decode, incrementalencoder=Encoder, incrementaldecoder=Decoder, name=_PLAIN)


codecs.register(_codec)

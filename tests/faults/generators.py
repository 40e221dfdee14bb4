"""Seeded damage of files: what disks, downloads, editors and attackers do to them.

A damage is a function of a file, a generator of random numbers, and a folder outside of everything that a command is
given. `damages_for` lists those that suit a file; each of them is deterministic for one seed.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch
import yaml
from pickles_with_code import Touching
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.io import savemat
from video_layout_trees import crc32c

Act = Callable[[Path, random.Random, Path], None]

EXECUTED = "code-was-executed"
"""Name of the file outside that appears when code of a file was run."""

_DAMAGES: list[tuple[tuple[str, ...], Act]] = []
_TEXTS = (".json", ".jsonl", ".yaml", ".txt", ".csv", ".xml")
_IMAGES = (".png", ".jpg", ".jpeg", ".JPEG")


def damage(*suffixes: str) -> Callable[[Act], Act]:
    """Register a damage of files with these suffixes; of all files without any."""

    def register(act: Act) -> Act:
        _DAMAGES.append((suffixes, act))
        return act

    return register


def kind_of(path: Path) -> str:
    """The suffix that says how a file is written."""
    return ".tfrecord" if ".tfrecord" in path.name else path.suffix


def damages_for(path: Path) -> list[Act]:
    """The damages that suit a file: those of any file, and those of its kind."""
    return [act for suffixes, act in _DAMAGES if not suffixes or kind_of(path) in suffixes]


def damage_names() -> list[str]:
    return [act.__name__ for _, act in _DAMAGES]


# Any file


@damage()
def empty(path: Path, draw: random.Random, outside: Path) -> None:
    path.write_bytes(b"")


@damage()
def zeros(path: Path, draw: random.Random, outside: Path) -> None:
    """What a file system leaves of a file when the power fails."""
    path.write_bytes(bytes(path.stat().st_size))


@damage()
def cut(path: Path, draw: random.Random, outside: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: draw.randrange(len(content))])


@damage()
def without_its_last_byte(path: Path, draw: random.Random, outside: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@damage()
def flipped_bytes(path: Path, draw: random.Random, outside: Path) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(draw.choice((1, 8, 64))):
        content[draw.randrange(len(content))] ^= draw.randrange(1, 256)
    path.write_bytes(content)


@damage()
def flipped_head(path: Path, draw: random.Random, outside: Path) -> None:
    """Most formats say at the start how large the rest is."""
    content = bytearray(path.read_bytes())
    content[draw.randrange(min(32, len(content)))] ^= draw.randrange(1, 256)
    path.write_bytes(content)


@damage()
def garbage(path: Path, draw: random.Random, outside: Path) -> None:
    path.write_bytes(draw.randbytes(draw.choice((1, 100, 10_000))))


@damage()
def twice(path: Path, draw: random.Random, outside: Path) -> None:
    path.write_bytes(path.read_bytes() * 2)


@damage()
def with_nul(path: Path, draw: random.Random, outside: Path) -> None:
    content = path.read_bytes()
    place = draw.randrange(len(content))
    path.write_bytes(content[:place] + b"\0" + content[place:])


@damage()
def missing(path: Path, draw: random.Random, outside: Path) -> None:
    path.unlink()


@damage()
def folder_in_its_place(path: Path, draw: random.Random, outside: Path) -> None:
    path.unlink()
    path.mkdir()


@damage()
def pipe_in_its_place(path: Path, draw: random.Random, outside: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@damage()
def link_to_a_device(path: Path, draw: random.Random, outside: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


@damage()
def link_to_nothing(path: Path, draw: random.Random, outside: Path) -> None:
    path.unlink()
    path.symlink_to(outside / "nothing")


@damage()
def link_to_itself(path: Path, draw: random.Random, outside: Path) -> None:
    path.unlink()
    path.symlink_to(path)


@damage()
def link_outside(path: Path, draw: random.Random, outside: Path) -> None:
    """A good file that lies elsewhere: it may be read, never written."""
    target = outside / f"linked{path.suffix}"
    path.rename(target)
    path.symlink_to(target)


@damage()
def name_that_is_not_utf8(path: Path, draw: random.Random, outside: Path) -> None:
    name = os.fsencode(path.stem) + b"\xff" + os.fsencode(path.suffix)
    os.rename(os.fsencode(path), os.path.join(os.fsencode(path.parent), name))


@damage()
def a_stranger_beside_it(path: Path, draw: random.Random, outside: Path) -> None:
    """A second file with markup and a new line in its name."""
    (path.parent / f"[b]\n{path.stem} 2{path.suffix}").write_bytes(path.read_bytes())


# Texts


@damage(*_TEXTS)
def byte_order_mark(path: Path, draw: random.Random, outside: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


@damage(*_TEXTS)
def utf_16(path: Path, draw: random.Random, outside: Path) -> None:
    path.write_bytes(path.read_text(encoding="utf-8").encode("utf-16"))


@damage(*_TEXTS)
def windows_lines(path: Path, draw: random.Random, outside: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


@damage(*_TEXTS)
def latin_1(path: Path, draw: random.Random, outside: Path) -> None:
    content = path.read_bytes()
    place = draw.randrange(len(content))
    path.write_bytes(content[:place] + "é".encode("latin-1") + content[place:])


@damage(*_TEXTS)
def a_character_of_another(path: Path, draw: random.Random, outside: Path) -> None:
    text = path.read_text(encoding="utf-8")
    place = draw.randrange(len(text))
    path.write_text(
        text[:place] + draw.choice('{}[]",:0-<>&\t\n#*\u2028\U0001f600') + text[place + 1 :], encoding="utf-8"
    )


@damage(".txt", ".csv", ".jsonl")
def odd_line(path: Path, draw: random.Random, outside: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    odd = ("../../outside/secret", "/etc/passwd", "x" * 1_000_000, "", "[/b]", "*", "~", ".", "a,b,c,d", "null")
    line = draw.choice((*odd, *lines))  # a line of the file occurs twice
    lines.insert(draw.randrange(len(lines) + 1), line)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@damage(".xml")
def entities_of_entities(path: Path, draw: random.Random, outside: Path) -> None:
    """Grows to gigabytes where an XML parser has no limit."""
    levels = "".join(f'<!ENTITY e{k + 1} "{f"&e{k};" * 10}">' for k in range(10))
    head = f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY e0 "{"x" * 100}">{levels}]>'
    path.write_text(head + path.read_text().replace("</name>", "&e10;</name>", 1))


@damage(".xml")
def a_file_as_an_entity(path: Path, draw: random.Random, outside: Path) -> None:
    head = f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY e SYSTEM "file://{outside}/secret">]>'
    path.write_text(head + path.read_text().replace("</name>", "&e;</name>", 1))


@damage(".xml")
def odd_number(path: Path, draw: random.Random, outside: Path) -> None:
    text = path.read_text()
    starts = [place + 1 for place, sign in enumerate(text[:-1]) if sign == ">" and text[place + 1].isdigit()]
    start = draw.choice(starts)
    odd = draw.choice(("nan", "inf", "-5", "1e300", "9" * 400, "", "one", "\N{ARABIC-INDIC DIGIT ONE}"))
    path.write_text(text[:start] + odd + text[text.index("<", start) :])


# JSON and YAML

ODD_VALUES = {
    "null": "null",
    "true": "true",
    "zero": "0",
    "negative": "-1",
    "fraction": "0.5",
    "large": "1e300",
    "too large": "1e999",
    "not a number": "NaN",
    "infinite": "-Infinity",
    "400 digits": "9" * 400,
    "5000 digits": "9" * 5000,
    "beyond int64": str(2**63),
    "text": '"text"',
    "empty text": '""',
    "markup": '"[/b][red]"',
    "path outside": '"../../outside/secret"',
    "absolute path": '"/etc/passwd"',
    "NUL": '"a\\u0000b"',
    "half a character": '"\\ud800"',
    "two lines": '"two\\nlines"',
    "escape": '"\\u001b[31mred"',
    "long text": '"' + "x" * 100_000 + '"',
    "list": "[]",
    "object": "{}",
    "list of lists": "[[[1]], [null]]",
    "list of NaN": "[NaN, 1e999]",
    "deep list": "[" * 100_000 + "]" * 100_000,
    "deep object": '{"a":' * 100_000 + "1" + "}" * 100_000,
}
"""What stands in place of a value, as JSON; all of it is YAML, too."""

_HOLE = "value that is replaced"


def places_of(content: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every value in parsed JSON, as keys and positions from the top."""
    yield place
    entries = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in entries:
        yield from places_of(value, (*place, key))


def choose_place(content: Any, draw: random.Random) -> tuple[Any, ...]:
    """A place; fields of equal names count once, so that long lists do not hide the rest."""
    kinds: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
    for place in places_of(content):
        kinds.setdefault(tuple("*" if isinstance(key, int) else key for key in place), []).append(place)
    return draw.choice(kinds[draw.choice(sorted(kinds))])


def with_value(content: Any, place: tuple[Any, ...], text: str) -> str:
    """The content as JSON, with this text in place of one value."""
    if not place:
        return text
    parent = content
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = _HOLE
    return json.dumps(content).replace(json.dumps(_HOLE), text)


def _parse(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    return yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)


def _write(path: Path, text: str, content: Any) -> None:
    """Write JSON; of a file of lines, each entry of the list as one line."""
    if path.suffix == ".jsonl" and isinstance(content, list):
        text = text.replace("}, {", "}\n{").strip("[]") + "\n"
    path.write_text(text, encoding="utf-8")


@damage(".json", ".yaml", ".jsonl")
def odd_value(path: Path, draw: random.Random, outside: Path) -> None:
    content = _parse(path)
    name = draw.choice(sorted(ODD_VALUES))
    _write(path, with_value(content, choose_place(content, draw), ODD_VALUES[name]), content)


@damage(".json", ".yaml", ".jsonl")
def another_odd_value(path: Path, draw: random.Random, outside: Path) -> None:
    """Drawn twice as often as other damages: most of what a file can have wrong is a value."""
    odd_value(path, draw, outside)


@damage(".json", ".yaml")
def field_gone(path: Path, draw: random.Random, outside: Path) -> None:
    content = _parse(path)
    place = choose_place(content, draw)
    if place:
        del _at(content, place[:-1])[place[-1]]
    path.write_text(json.dumps(content if place else None), encoding="utf-8")


@damage(".json", ".yaml")
def field_twice(path: Path, draw: random.Random, outside: Path) -> None:
    content = _parse(path)
    if isinstance(content, dict) and content:
        key = draw.choice(sorted(content))
        again = f"{json.dumps(key)}: {draw.choice(('null', '[]', json.dumps(content[key])))}, "
        path.write_text("{" + again + json.dumps(content)[1:], encoding="utf-8")


@damage(".json", ".yaml")
def unknown_field(path: Path, draw: random.Random, outside: Path) -> None:
    content = _parse(path)
    places = [place for place in places_of(content) if isinstance(_at(content, place), dict)]
    if places:
        _at(content, draw.choice(places))["[/b] unknown"] = 1
    path.write_text(json.dumps(content), encoding="utf-8")


def _at(content: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        content = content[key]
    return content


@damage(".yaml")
def yaml_that_runs_code(path: Path, draw: random.Random, outside: Path) -> None:
    with path.open("a") as file:
        file.write(f"title: !!python/object/apply:os.system ['touch {outside / EXECUTED}']\n")


@damage(".yaml")
def yaml_that_repeats_itself(path: Path, draw: random.Random, outside: Path) -> None:
    """Ten references to ten references to ...: small in memory until somebody walks through them."""
    levels = "".join(f"a{k + 1}: &a{k + 1} [{', '.join([f'*a{k}'] * 10)}]\n" for k in range(9))
    text = path.read_text()
    path.write_text(f"a0: &a0 [x, x]\n{levels}{text}" + draw.choice(("", "title: *a9\n", "metrics: *a9\n")))


# Images


@damage(*_IMAGES)
def claims_many_pixels(path: Path, draw: random.Random, outside: Path) -> None:
    side = draw.choice((9_000, 30_000, 2**31 - 1))
    head = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, draw.choice((0, 2, 3, 6)), 0, 0, 0)
    rows = zlib.compress(bytes(10_000))
    chunks = [head, b"PLTE" + bytes(768), b"IDAT" + rows, b"IEND"]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    )


@damage(*_IMAGES)
def large_black_square(path: Path, draw: random.Random, outside: Path) -> None:
    """A few kilobytes on the disk."""
    Image.new("P", (12_000, 12_000)).save(path, "PNG")


@damage(*_IMAGES)
def another_mode(path: Path, draw: random.Random, outside: Path) -> None:
    mode = draw.choice(("1", "L", "LA", "RGB", "RGBA", "I;16", "P", "CMYK"))
    with Image.open(path) as picture:
        changed = picture.convert("L").convert(mode) if mode != "I;16" else picture.convert("L").convert("I;16")
    changed.save(path, "TIFF" if mode == "CMYK" else "PNG")


@damage(*_IMAGES)
def another_size(path: Path, draw: random.Random, outside: Path) -> None:
    with Image.open(path) as picture:
        size = draw.choice(((1, 1), (picture.width, 1), (picture.width + 1, picture.height), (picture.height, 500)))
        picture.resize(size, Image.Resampling.NEAREST).save(path, "PNG")


@damage(*_IMAGES)
def another_format(path: Path, draw: random.Random, outside: Path) -> None:
    with Image.open(path) as picture:
        frames = [picture.convert("P"), picture.rotate(90).convert("P")]
    frames[0].save(path, draw.choice(("GIF", "TIFF", "PNG")), save_all=True, append_images=frames[1:])


@damage(*_IMAGES)
def every_number(path: Path, draw: random.Random, outside: Path) -> None:
    """A map with as many numbers as it has pixels."""
    with Image.open(path) as picture:
        width, height = picture.size
    numbers = np.arange(width * height).reshape(height, width)
    Image.fromarray((numbers % 65536).astype(np.uint16)).save(path, "PNG")


@damage(".png")
def text_that_unpacks(path: Path, draw: random.Random, outside: Path) -> None:
    """A compressed text chunk of 300 MB."""
    content = path.read_bytes()
    pack = zlib.compressobj(9)
    packed = b"".join(pack.compress(bytes(1 << 20)) for _ in range(300)) + pack.flush()
    chunk = b"zTXta\0\0" + packed
    whole = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(content[:33] + whole + content[33:])


# Arrays, tables and checkpoints


def _pickle_with_code(outside: Path) -> bytes:
    return pickle.dumps({"state_dict": Touching(outside / EXECUTED)})


@damage(".npz", ".npy", ".pt", ".pth", ".pth.tar", ".mat", ".parquet", ".safetensors")
def pickle_with_code(path: Path, draw: random.Random, outside: Path) -> None:
    path.write_bytes(_pickle_with_code(outside))


@damage(".pt", ".pth")
def checkpoint_with_code(path: Path, draw: random.Random, outside: Path) -> None:
    torch.save({"model": {"a": torch.zeros(1)}, "more": Touching(outside / EXECUTED)}, path)


@damage(".pt", ".pth")
def checkpoint_of_other_things(path: Path, draw: random.Random, outside: Path) -> None:
    text = {"model": "text", "step": "[/b]", "optimizer": None, "identity": "{", "seconds": "soon"}
    torch.save(draw.choice(([1, 2], text, torch.zeros(3), {}, None, {"model": {1: torch.zeros(1)}})), path)


def _odd_tensor(tensor: torch.Tensor, draw: random.Random) -> torch.Tensor | None:
    """The tensor with one property changed; None for none."""
    odd = [
        lambda: None,
        lambda: torch.full_like(tensor, float("nan")) if tensor.is_floating_point() else tensor + 1,
        lambda: torch.full_like(tensor, float("inf")) if tensor.is_floating_point() else tensor + 1,
        lambda: tensor.to(torch.int64),
        lambda: tensor.to(torch.float64),
        lambda: tensor[None],
        lambda: tensor.flatten()[:0],
        lambda: torch.zeros(0, 3),
    ]
    return draw.choice(odd)()


@damage(".safetensors")
def odd_tensor(path: Path, draw: random.Random, outside: Path) -> None:
    tensors = load_file(path)
    name = draw.choice(sorted(tensors))
    changed = _odd_tensor(tensors.pop(name), draw)
    if changed is not None:
        tensors[draw.choice((name, name, "[/b] another"))] = changed.contiguous()
    save_file(tensors, path)


@damage(".pt", ".pth")
def odd_tensor_of_a_checkpoint(path: Path, draw: random.Random, outside: Path) -> None:
    content = torch.load(path, weights_only=True)
    tensors = next((value for value in content.values() if isinstance(value, dict)), content)
    name = draw.choice(sorted(key for key, value in tensors.items() if isinstance(value, torch.Tensor)))
    changed = _odd_tensor(tensors.pop(name), draw)
    if changed is not None:
        tensors[name] = changed
    torch.save(content, path)


@damage(".safetensors")
def header_of_many_bytes(path: Path, draw: random.Random, outside: Path) -> None:
    content = path.read_bytes()
    length = draw.choice((2**60, 2**40, len(content) * 2, 0))
    path.write_bytes(struct.pack("<Q", length) + content[8:])


@damage(".npz")
def odd_array(path: Path, draw: random.Random, outside: Path) -> None:
    with np.load(path) as content:
        arrays = dict(content)
    name = draw.choice(sorted(arrays))
    array = arrays.pop(name)
    odd: list[Callable[[], Any]] = [
        lambda: None,
        lambda: array.astype(np.float64) * np.nan,
        lambda: array.astype(complex),
        lambda: array.astype(str),
        lambda: np.array([{"a": 1}], dtype=object),
        lambda: array[..., None],
        lambda: array[:0],
        lambda: array.astype(np.int64) - 2**40,
        lambda: np.array(7),
    ]
    changed = draw.choice(odd)()
    np.savez_compressed(path, **arrays, **({} if changed is None else {name: changed}))


@damage(".npz")
def array_that_unpacks(path: Path, draw: random.Random, outside: Path) -> None:
    """5 GB of zeros in a few megabytes, or a header that claims petabytes."""
    count = draw.choice((5_000_000_000, 10**16))
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    head = str({"descr": "|u1", "fortran_order": False, "shape": (count // 10**6, 1000, 1000)}).encode() + b"\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in names:
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head)
                block = bytes(50_000_000)
                for _ in range(100 if count == 5_000_000_000 and name == names[0] else 0):
                    file.write(block)


@damage(".npy")
def odd_header(path: Path, draw: random.Random, outside: Path) -> None:
    array = np.load(path)
    odd = (
        array[:-1],
        array.astype(np.float64),
        array.T,
        np.full_like(array, np.nan) if array.dtype.kind == "f" else -array,
    )
    np.save(path, draw.choice(odd))


@damage(".parquet")
def odd_column(path: Path, draw: random.Random, outside: Path) -> None:
    table = pyarrow.parquet.read_table(path)
    number = draw.randrange(table.num_columns)
    name, count = table.column_names[number], table.num_rows
    odd: list[Any] = [
        None,
        pa.array(["[/b]"] * count),
        pa.array([[1, 2]] * count),
        pa.array([{"a": 1}] * count),
        pa.array([None] * count, pa.float64()),
        pa.array([float("nan")] * count),
        pa.array([float("inf")] * count),
        pa.array([-(2**62)] * count),
        pa.array([b"\xff"] * count),
    ]
    column = draw.choice(odd)
    table = table.remove_column(number)
    if column is not None:
        table = table.add_column(number, name, column)
    pyarrow.parquet.write_table(table, path)


@damage(".parquet")
def odd_rows(path: Path, draw: random.Random, outside: Path) -> None:
    table = pyarrow.parquet.read_table(path)
    changed = draw.choice((table.slice(0, 0), table.slice(1), pa.concat_tables([table, table])))
    pyarrow.parquet.write_table(changed, path)


@damage(".parquet")
def odd_notes_of_pandas(path: Path, draw: random.Random, outside: Path) -> None:
    table = pyarrow.parquet.read_table(path)
    notes = {b"pandas": draw.choice((b"", b"{", b"[]", b'{"index_columns": ["no"], "columns": 3}'))}
    pyarrow.parquet.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), **notes}), path)


@damage(".mat")
def odd_structure(path: Path, draw: random.Random, outside: Path) -> None:
    content = draw.choice(
        ({"other": 1}, {"GTcls": 3}, {"GTcls": {"Segmentation": "text"}}, {"GTinst": np.array(["a", 1.0], object)})
    )
    savemat(path, content)


@damage(".tfrecord")
def record_of_garbage(path: Path, draw: random.Random, outside: Path) -> None:
    """Lengths and checksums are right; what is inside is not."""
    data = draw.choice(
        (b"", b"\xff" * 20, b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", draw.randbytes(300), b"\x0a\x80" * 50_000)
    )
    head = struct.pack("<Q", len(data))
    record = head + struct.pack("<I", crc32c(head)) + data + struct.pack("<I", crc32c(data))
    path.write_bytes(record)


@damage(".tfrecord")
def record_of_many_bytes(path: Path, draw: random.Random, outside: Path) -> None:
    head = struct.pack("<Q", draw.choice((2**63, 2**40, 10**10)))
    path.write_bytes(head + struct.pack("<I", crc32c(head)) + path.read_bytes()[12:])

"""Readers of text and bytes on random input: what was written comes back, all else ends in a documented error."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from results_with_values import RESULTS
from video_layout_trees import crc32c

from ocl_bench.core.errors import OclBenchError, SampleError, UsageError
from ocl_bench.core.files import parse_json, parse_yaml
from ocl_bench.core.rle import unpack_runs
from ocl_bench.data.images import read_mask
from ocl_bench.data.labels import run_length
from ocl_bench.data.readers.tfrecord import decode_example, encode_example, index_records, read_record, write_records
from ocl_bench.results.record import read_result

few = settings(max_examples=80, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
"""The same few examples in every run."""

scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8)
jsons = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
)
masks = st.integers(0, 2**32 - 1).map(
    lambda seed: np.random.default_rng(seed).integers(0, 2, np.random.default_rng(seed).integers(1, 12, 2), np.uint8)
)


def reading(content: bytes, name: str, read: Callable[[Path], Any], *errors: type[Exception]) -> Any:
    """What `read` makes of a file with this content; None where it raises one of the documented errors."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        try:
            return read(path)
        except errors as error:
            assert "\n" not in str(error)
            return None


@few
@given(jsons)
def test_json_comes_back(content: Any) -> None:
    assert repr(parse_json(json.dumps(content))) == repr(json.loads(json.dumps(content)))


@few
@given(st.text() | st.binary())
def test_any_text_as_json_or_yaml(text: str | bytes) -> None:
    readers: list[Callable[[Any], Any]] = [parse_json, *([parse_yaml] if isinstance(text, str) else [])]
    for parse in readers:
        try:
            parse(text)
        except ValueError as error:
            assert parse is parse_json or "\n" not in str(error)


@few
@given(
    st.dictionaries(st.text(st.characters(codec="ascii", categories=["L"]), min_size=1, max_size=6), jsons, max_size=4)
)
def test_yaml_comes_back(content: dict[str, Any]) -> None:
    text = yaml.safe_dump(content, allow_unicode=False)
    try:
        found = parse_yaml(text)
    except ValueError as error:
        assert "is written twice" in str(error)  # mappings below may have keys that are one text in YAML
        return
    assert repr(found) == repr(yaml.safe_load(text))


@few
@given(masks)
def test_run_lengths_come_back(mask: np.ndarray) -> None:
    code = coco_mask.encode(np.asfortranarray(mask))
    runs = unpack_runs(code["counts"])
    values = np.repeat(np.arange(len(runs)) % 2, runs)
    assert np.array_equal(values.reshape(mask.shape, order="F"), mask)
    for counts in (runs, code["counts"].decode()):
        again = run_length({"size": list(mask.shape), "counts": counts}, mask.shape)
        assert again is not None and np.array_equal(coco_mask.decode(again), mask)


@few
@given(st.binary(max_size=20) | st.text("0123456789:;<=>?@ABCDEFGOPQRSTUVWXYZ[]^_`abcdefghijklmno", max_size=12), masks)
def test_any_counts_are_a_whole_mask_or_an_error(counts: bytes | str, mask: np.ndarray) -> None:
    """pycocotools would read memory behind the mask."""
    try:
        code = run_length({"size": list(mask.shape), "counts": counts}, mask.shape)
    except ValueError:
        return
    assert code is not None and coco_mask.decode(code).shape == mask.shape


@few
@given(jsons | st.fixed_dictionaries({"size": jsons, "counts": jsons}) | st.lists(jsons, max_size=3))
def test_any_segmentation_is_a_mask_or_an_error(segmentation: Any) -> None:
    try:
        code = run_length(segmentation, (5, 7))
    except (ValueError, TypeError):  # what the readers turn into the error of a sample
        return
    assert code is None or coco_mask.decode(code).shape == (5, 7)


features = st.dictionaries(
    st.text(max_size=6),
    st.lists(st.binary(max_size=6), min_size=1, max_size=3)
    | st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=3),
    max_size=4,
)


@few
@given(st.lists(features, max_size=3))
def test_records_come_back(content: list[dict[str, Any]]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.tfrecord"
        lengths = write_records(path, [encode_example(one) for one in content])
        assert [length for _, length in index_records(path)] == lengths
        offsets = [offset for offset, _ in index_records(path)]
        for offset, expected in zip(offsets, content, strict=True):
            found = decode_example(read_record(path, offset))
            assert {name: list(values) for name, values in found.items()} == expected


@few
@given(st.binary(max_size=60), st.integers(0, 2**64 - 1), st.booleans())
def test_any_bytes_as_records(data: bytes, length: int, right: bool) -> None:
    """Also where the checksums are right, and only what is inside is not."""
    head = struct.pack("<Q", len(data) if right else length)
    whole = head + struct.pack("<I", crc32c(head)) + data + struct.pack("<I", crc32c(data))

    def read(path: Path) -> list[Any]:
        return [decode_example(read_record(path, offset)) for offset, _ in index_records(path)]

    for content in (data, whole):
        reading(content, "a.tfrecord", read, ValueError)


@few
@given(st.integers(0, 2**32 - 1), st.sampled_from([np.uint8, np.uint16]))
def test_id_maps_come_back(seed: int, kind: type) -> None:
    draw = np.random.default_rng(seed)
    numbers = draw.integers(0, np.iinfo(kind).max + 1, draw.integers(1, 12, 2)).astype(kind)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.png"
        Image.fromarray(numbers).save(path)
        found, _ = read_mask(path, "a", shape=numbers.shape, remedy="")
        assert np.array_equal(found, numbers)


@few
@given(st.integers(0, 2**32 - 1), st.binary(max_size=40))
def test_any_bytes_as_an_id_map(seed: int, data: bytes) -> None:
    draw = np.random.default_rng(seed)
    with TemporaryDirectory() as folder:
        Image.fromarray(draw.integers(0, 9, (6, 8)).astype(np.uint8)).save(Path(folder) / "a.png")
        png = bytearray((Path(folder) / "a.png").read_bytes())
    for _ in range(3):
        png[draw.integers(len(png))] ^= int(draw.integers(1, 256))
    for content in (data, bytes(png), bytes(png)[:-5]):
        found = reading(content, "a.png", lambda path: read_mask(path, "a", shape=(6, 8), remedy=""), SampleError)
        assert found is None or found[0].shape[:2] == (6, 8)


RESULT = json.loads((RESULTS / "clevrtex/dias.json").read_text())


@few
@given(st.data())
def test_a_result_with_any_value_in_any_place(data: st.DataObject) -> None:
    content = json.loads(json.dumps(RESULT))
    section = data.draw(st.sampled_from(sorted(content)))
    inner = content[section]
    if isinstance(inner, dict) and inner and data.draw(st.booleans()):
        inner[data.draw(st.sampled_from(sorted(inner)))] = data.draw(jsons)
    else:
        content[section] = data.draw(jsons)
    found = reading(json.dumps(content).encode(), "a.json", read_result, UsageError)
    if found is not None:
        again = reading(found.to_json().encode(), "a.json", read_result, OclBenchError)
        assert again is not None and again.to_json() == found.to_json()


@few
@given(st.binary() | jsons.map(lambda content: json.dumps(content).encode()))
def test_any_bytes_as_a_result(content: bytes) -> None:
    assert reading(content, "a.json", read_result, UsageError) is None

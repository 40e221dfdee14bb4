"""Every reader of text takes marks of the byte order, CRLF and UTF-16, and refuses a pipe at once."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ocl_bench.cards.model import load_model_card
from ocl_bench.cards.names import CARDS, is_model_card
from ocl_bench.cards.task import load_task
from ocl_bench.core.errors import OclBenchError
from ocl_bench.core.files import file_sha256
from ocl_bench.core.paths import bundled
from ocl_bench.data.options import read_json, read_lines
from ocl_bench.data.readers import ade20k, imagenet_boxes, imagenet_files, movi, voc_boxes
from ocl_bench.evaluation.examination import examine_file
from ocl_bench.families.coco_results import read_results
from ocl_bench.results import published
from ocl_bench.results.record import read_result
from ocl_bench.tables.comparison.claims import load_claims
from ocl_bench.tables.gate.golden import read_golden
from ocl_bench.training.curves import read_log

LEADERBOARDS = bundled("leaderboards")
_XML = (
    "<annotation><size><width>9</width><height>9</height></size>"
    "<object><name>dog</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>5</xmax><ymax>6</ymax></bndbox></object>"
    "</annotation>"
)
_TABLE = "Idx\tName\n1\twall\n2\tbuilding\n"
_RESULTS = json.dumps([{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}])
_LOG = '{"step": 0, "loss": 1.5}\n{"step": 1, "loss": 1.25}\n'


def first(pattern: str) -> str:
    return next(iter(sorted(LEADERBOARDS.glob(pattern)))).read_text(encoding="utf-8")


Reader = tuple[str, str, Callable[[Path], Any]]
READERS: dict[str, Reader] = {
    "task card": ("c.yaml", (bundled("tasks") / "clevrtex.yaml").read_text(encoding="utf-8"), load_task),
    "model card": ("m.yaml", (CARDS / "grid.yaml").read_text(encoding="utf-8"), load_model_card),
    "kind of card": ("m.yaml", (CARDS / "grid.yaml").read_text(encoding="utf-8"), is_model_card),
    "result": ("r.json", first("results/*/*.json"), read_result),
    "validated result": ("r.json", first("results/*/*.json"), examine_file._read_json),
    "claims": ("dias.yaml", (LEADERBOARDS / "claims/dias.yaml").read_text(encoding="utf-8"), load_claims),
    "published": (
        "clevrtex-dias-v3.yaml",
        (LEADERBOARDS / "published/clevrtex-dias-v3.yaml").read_text(encoding="utf-8"),
        lambda path: published._load(path, path.stem),
    ),
    "golden": ("g.json", first("golden/**/*.json"), read_golden),
    "training log": ("l.jsonl", _LOG, read_log),
    "COCO results": (
        "d.json",
        _RESULTS,
        lambda path: next(iter(read_results(path, ["000000000001"]).values())).scores.tolist(),
    ),
    "annotations": ("a.json", '{"images": []}', read_json),
    "list": ("l.txt", "a\nb\n", lambda path: read_lines(path, "list", "repair it")),
    "names of ADE20K": ("objectInfo150.txt", _TABLE, lambda path: ade20k.read_names(path.parent)),
    "names of MOVi": (movi._NAMES, "one\ntwo\n", lambda path: movi._read_names(path.parent)),
    "labels of ImageNet": ("v.csv", "ImageId,PredictionString\na,n1 1 2 3 4\n", imagenet_files._read_solution),
    "labels of Tiny ImageNet": ("v.txt", "a.JPEG\tn1\t0\t0\t1\t1\n", imagenet_files._read_tiny),
    "table of boxes": ("b.jsonl", '{"image_id": "a"}\n', lambda path: next(iter(imagenet_boxes._rows(path)))[1]),
    "boxes of VOC": ("b.xml", _XML, lambda path: voc_boxes.read_boxes(path, "b", (9, 9), ("background", "dog"))),
    "boxes of ImageNet": ("b.xml", _XML, lambda path: imagenet_boxes.read_xml(path, "b", 0, (9, 9), {"dog": 0})),
}
ENCODINGS = {
    "mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "mark and CRLF": lambda text: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(),
    "UTF-16": lambda text: text.encode("utf-16"),  # with its mark, as PowerShell writes it
}


def put(folder: Path, name: str, content: bytes) -> Path:
    folder.mkdir()
    path = folder / name
    path.write_bytes(content)
    return path


def plain(value: Any, folder: Path) -> str:
    """What was read, without the place where it was read."""
    return repr(value).replace(str(folder), "")


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("reader", READERS)
def test_text_of_any_system_reads_alike(tmp_path: Path, reader: str, encoding: str) -> None:
    name, text, read = READERS[reader]
    expected = read(put(tmp_path / "plain", name, text.encode()))
    found = read(put(tmp_path / "other", name, ENCODINGS[encoding](text)))
    assert plain(found, tmp_path / "other") == plain(expected, tmp_path / "plain")


@pytest.fixture
def five_seconds() -> Iterator[None]:
    def stop(*arguments: Any) -> None:
        raise TimeoutError("waits for the other end of a pipe")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(5)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("reader", READERS)
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, reader: str, five_seconds: None) -> None:
    name, _, read = READERS[reader]
    os.mkfifo(tmp_path / name)
    if reader in ("kind of card", "names of ADE20K", "names of MOVi"):  # absent, and then another reader says so
        assert not read(tmp_path / name)
        return
    with pytest.raises(OclBenchError) as caught:
        read(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_hashes_do_not_wait_either(tmp_path: Path, five_seconds: None) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        file_sha256(tmp_path / "pipe")


def test_a_key_that_is_written_twice_is_an_error_in_every_yaml(tmp_path: Path) -> None:
    for reader in ("task card", "model card", "claims", "published"):
        name, text, read = READERS[reader]
        path = tmp_path / name
        path.write_text(twice(text), encoding="utf-8")
        with pytest.raises(OclBenchError, match="is written twice"):
            read(path)


def twice(text: str) -> str:
    """The text with its first top-level key written again at the end."""
    key = next(line.split(":")[0] for line in text.splitlines() if line and line[0].isalpha())
    return f"{text}\n{key}: again\n"

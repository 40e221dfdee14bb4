"""The verbs of `data`: from a local server to the official layout, what is missing, checks and links."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layout_trees import write_ade20k
from typer.testing import CliRunner
from video_layout_trees import write_davis, write_movi

from ocl_bench.cards.names import get_task
from ocl_bench.cli import app
from ocl_bench.core.errors import DataMissingError, UsageError
from ocl_bench.data import open_data
from ocl_bench.data.getting import catalogue
from ocl_bench.data.getting.catalogue import DATA_SETS, Archive, movi_files
from ocl_bench.data.getting.work import announce, get, link, look, verify

pytest.importorskip("pooch")
LABELS = np.zeros((20, 30), np.uint8)
LABELS[3:9, 2:12] = 7


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "site").mkdir()
    served = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "site")))
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{served.server_address[1]}"
    served.shutdown()
    served.server_close()
    thread.join()


def pack(folder: Path, path: Path) -> Path:
    """A zip file of a folder, with its name in front."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder.parent))
    return path


def write_ade(root: Path) -> None:
    for number in range(3):
        write_ade20k(root, "validation", f"ADE_val_{number + 1:08d}", np.roll(LABELS, number))


def ade(url: str) -> Archive:
    return Archive(f"{url}/ADEChallengeData2016.zip", 5000, "")


def test_from_a_server_to_the_official_layout(tmp_path: Path, server: str) -> None:
    write_ade(tmp_path / "made/ADEChallengeData2016")
    path = pack(tmp_path / "made/ADEChallengeData2016", tmp_path / "site/ADEChallengeData2016.zip")
    root = tmp_path / "data"
    assert get([ade(server)], root, progress=False) == 6
    data = open_data(get_task("ade20k-segmentation"), data_root=root)
    original = open_data(get_task("ade20k-segmentation"), data_root=tmp_path / "made")
    assert data.ids == original.ids and data.revision == original.revision
    assert not list(root.rglob("*.zip")), "the archive is not kept"
    path.unlink()
    assert get([ade(server)], root, progress=False) == 0, "what was unpacked is not downloaded again"


def test_archives_in_an_archive(tmp_path: Path, server: str) -> None:
    made = tmp_path / "made/annotations"
    (made / "panoptic_val2017").mkdir(parents=True)
    (made / "panoptic_val2017/a.png").write_bytes(b"1")
    pack(made / "panoptic_val2017", made / "panoptic_val2017.zip")
    (made / "panoptic_val2017/a.png").unlink()
    (made / "panoptic_val2017.json").write_text("{}")
    pack(made, tmp_path / "site/p.zip")
    archive = Archive(f"{server}/p.zip", 900, "coco", inner=("annotations/panoptic_val2017.zip",))
    assert get([archive], tmp_path / "data", progress=False, keep=True) == 2
    assert (tmp_path / "data/coco/annotations/panoptic_val2017/a.png").read_bytes() == b"1"
    assert not list((tmp_path / "data/coco").rglob("*.zip")) and (tmp_path / "data/.downloads/p.zip").is_file()


def test_movi_from_the_list_of_the_bucket(tmp_path: Path, server: str) -> None:
    """Names, sizes and MD5 come from the list; training files and other folders are left out."""
    folder = write_movi(tmp_path / "site/kubric-public/tfds", (2, 1))
    (folder / "movi_c-train.tfrecord-00000-of-00001").write_bytes(b"training")
    items = [
        {
            "name": f"tfds/movi_c/128x128/1.0.0/{path.name}",
            "size": str(path.stat().st_size),
            "md5Hash": base64.b64encode(hashlib.md5(path.read_bytes()).digest()).decode(),
        }
        for path in sorted(folder.iterdir())
    ]
    (tmp_path / "site/storage/v1/b/kubric-public").mkdir(parents=True)
    listed = tmp_path / "site/storage/v1/b/kubric-public/o"
    listed.write_text(json.dumps({"items": items}))
    archives = movi_files("movi_c", server)
    assert len(archives) == len(items) - 1 and all(archive.known_hash for archive in archives)
    get(archives, tmp_path / "data", progress=False)
    data = open_data(get_task("movi-c"), data_root=tmp_path / "data")
    assert len(data) == 3 and data.kind == "official"
    items[0]["md5Hash"] = base64.b64encode(b"0" * 16).decode()
    listed.write_text(json.dumps({"items": items}))
    with pytest.raises(UsageError, match="the hash is not md5:"):
        get(movi_files("movi_c", server), tmp_path / "other", progress=False)
    listed.write_text("no list")
    with pytest.raises(DataMissingError, match="the list of movi_c cannot be read"):
        movi_files("movi_c", server)


def test_where_and_verify(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="ocl_bench")
    write_ade(tmp_path / "ADEChallengeData2016")
    write_davis(tmp_path, {"bear": 2})
    tasks = [get_task(name) for name in ("ade20k-segmentation", "davis-2017", "movi-c")]
    found = {place.task: place for place in look(tasks, tmp_path)}
    assert "ADE20K" in found["ade20k-segmentation"].found and "DAVIS" in found["davis-2017"].found
    assert found["movi-c"].found == "" and "get it" in found["movi-c"].problem
    checks = {check.task: check for check in verify(tasks, tmp_path)}
    (text,) = [one for one in caplog.messages if "not verified" in one]
    assert text.startswith("movi-c: not verified, ") and "get it" in text
    assert set(checks) == {"ade20k-segmentation", "davis-2017"}
    assert checks["ade20k-segmentation"].samples == checks["ade20k-segmentation"].tried == 3
    damaged = tmp_path / "ADEChallengeData2016/annotations/validation/ADE_val_00000002.png"
    damaged.write_bytes(damaged.read_bytes()[:-30])
    (check,) = verify(tasks[:1], tmp_path)
    assert len(check.failed) == 1 and "ADE_val_00000002" in check.failed[0]
    with pytest.raises(DataMissingError):
        verify(tasks[2:], tmp_path)


def test_link(tmp_path: Path) -> None:
    write_ade(tmp_path / "disk/anything")
    root = tmp_path / "data"
    for _ in range(2):
        assert link(DATA_SETS["ade20k"], tmp_path / "disk/anything", root) == root / "ADEChallengeData2016"
    assert len(open_data(get_task("ade20k-segmentation"), data_root=root)) == 3
    with pytest.raises(UsageError, match="is there already"):
        link(DATA_SETS["ade20k"], tmp_path / "disk", root)
    with pytest.raises(DataMissingError, match="there is no such folder"):
        link(DATA_SETS["ade20k"], tmp_path / "nowhere", root)
    with pytest.raises(UsageError, match="is the data root itself"):
        link(DATA_SETS["coco"], root, root)


def test_a_link_to_other_data_is_not_kept(tmp_path: Path) -> None:
    write_ade(tmp_path / "disk/anything")
    (tmp_path / "disk/empty").mkdir()
    root = tmp_path / "data"
    outcome = run("link", "ade20k", str(tmp_path / "disk/empty"), "--data-root", str(root))
    assert outcome.exit_code == 3 and "nothing was found there" in outcome.output
    assert not (root / "ADEChallengeData2016").is_symlink() and "written:" not in outcome.output
    assert run("link", "ade20k", str(tmp_path / "disk/anything"), "--data-root", str(root)).exit_code == 0


def test_an_archive_that_was_unpacked_earlier_is_said(
    tmp_path: Path, server: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Else nobody would understand why data that were deleted do not come back."""
    write_ade(tmp_path / "made/ADEChallengeData2016")
    pack(tmp_path / "made/ADEChallengeData2016", tmp_path / "site/ADEChallengeData2016.zip")
    caplog.set_level("INFO", logger="ocl_bench")
    get([ade(server)], tmp_path / "data", progress=False)
    assert not caplog.messages
    get([ade(server)], tmp_path / "data", progress=False)
    (text,) = caplog.messages
    (marker,) = (tmp_path / "data/.downloads").glob("*.done")
    assert text == f"ADEChallengeData2016.zip: was got earlier; delete {marker} to get it again"


def test_every_data_set_serves_a_task_and_can_be_announced(tmp_path: Path) -> None:
    from ocl_bench.cards.names import task_names

    tasks = [get_task(name) for name in task_names()]
    for data_set in DATA_SETS.values():
        assert any(data_set.serves(task) for task in tasks), data_set.name
        if data_set.archives:
            lines = announce(data_set, data_set.files(), tmp_path / "not/there")
            assert data_set.terms in lines[1] and "GB" in lines[0] and "free" in lines[-1]
        elif data_set.listing is None:
            with pytest.raises(DataMissingError, match=r"without a login or a form: 1\. .*; 2\. "):
                data_set.files()


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["data", *arguments])


def test_command_line(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OCL_BENCH_DATA", raising=False)
    write_ade(tmp_path / "made/ADEChallengeData2016")
    pack(tmp_path / "made/ADEChallengeData2016", tmp_path / "site/ADEChallengeData2016.zip")
    from dataclasses import replace

    data_set = replace(DATA_SETS["ade20k"], archives=(ade(server),))
    monkeypatch.setitem(catalogue.DATA_SETS, "ade20k", data_set)
    root = str(tmp_path / "data")
    outcome = run("get", "ade20k", "--data-root", root)
    assert outcome.exit_code == 2 and "add --yes" in outcome.output, "nobody agreed"
    assert "non-commercial" in outcome.output and not (tmp_path / "data").exists()
    outcome = run("get", "ade20k", "--data-root", root, "--yes")
    assert outcome.exit_code == 0 and "written: 6 files" in outcome.output
    outcome = run("verify", "ade20k", "--data-root", root)
    assert outcome.exit_code == 0 and "ok      ade20k-segmentation: 3 samples, 3 read" in outcome.output
    outcome = run("where", "ade20k", "--data-root", root, "--json")
    assert outcome.exit_code == 0 and json.loads(outcome.stdout)[0]["task"] == "ade20k-segmentation"
    outcome = run("where", "ade20k", "--data-root", root)
    assert outcome.exit_code == 0 and "1 image of" in outcome.output
    assert "the first sample of each task was looked for; `ocl-bench data verify` counts them" in outcome.output
    assert run("where", "movi_c", "--data-root", root).exit_code == 3
    outcome = run("get", "imagenet", "--data-root", root, "--yes")
    assert outcome.exit_code == 3 and "register at" in outcome.output
    assert run("verify", "coco", "--data-root", root).exit_code == 3
    for arguments in (
        ("get", "kinetics", "--data-root", root),
        ("where", "ade20k"),
        ("verify", "x", "--data-root", root),
    ):
        outcome = run(*arguments)
        assert outcome.exit_code == 2 and outcome.output.startswith("error: ")

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from interruptions import interrupt_replacing
from layout_trees import card
from PIL import Image

from ocl_bench.core.errors import UsageError
from ocl_bench.data import open_data, scenes
from ocl_bench.data.stand_ins.clevrtex import WriteJob, mask_palette, scene_path
from ocl_bench.data.stand_ins.processes import share_out
from ocl_bench.data.stand_ins.stand_in import StandInTree

STAND_IN = {"scenes": "clevrtex", "variant": "full", "revision": 1, "samples": 24}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("[!.]*") if path.is_file()}


def test_stand_in_is_rendered_once_in_the_official_layout(rendered, private_places):
    task = card(variant="full", split="test", stand_in=STAND_IN)
    data = open_data(task, progress=False)
    assert data.kind == "embedded" and data.revision.startswith("embedded-r1-")
    assert data.root == private_places / "stand-ins/clevrtex/full-r1/test/clevrtex_full"
    assert data.ids[0] == "CLEVRTEX_full_000000" and len(data.ids) == 24
    assert (data.root / "0/CLEVRTEX_full_000023_flat.png").is_file()
    assert "embedded" in data.note and "--data-root" in data.note and "\n" not in data.note
    sample = data.reader[3]
    assert sample.image.shape == (160, 160, 3) and sample.truth.labels.dtype == np.int16
    assert set(np.unique(sample.truth.labels)) == {0, 1, 2}
    metadata = json.loads((data.root / "0/CLEVRTEX_full_000003.json").read_text())
    assert metadata["objects"][1] == {"shape": "sphere", "depth": 3.0, "index": 2}
    before = len(rendered)
    open_data(task, progress=False)
    assert len(rendered) == before


def test_limit_renders_only_the_first_and_a_later_run_adds_the_rest_with_the_same_bytes(
    rendered, tmp_path, monkeypatch
):
    task = card(variant="full", split="test", stand_in=STAND_IN)
    few = open_data(task, limit=5, progress=False)
    assert few.ids == tuple(f"CLEVRTEX_full_{i:06d}" for i in range(5))
    assert sum(len(call[2]) for call in rendered) == 5
    whole = open_data(task, progress=False)
    assert sum(len(call[2]) for call in rendered) == 24
    assert open_data(task, limit=5, progress=False).ids == few.ids
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "other"))
    fresh = open_data(task, progress=False)
    assert files(fresh.root) == files(whole.root)
    assert fresh.revision == whole.revision == few.revision


def test_a_lost_file_is_rendered_again(rendered):
    task = card(variant="full", split="test", stand_in=STAND_IN)
    data = open_data(task, progress=False)
    before = files(data.root)
    scene_path(data.root, "full", 7).unlink()
    scene_path(data.root, "full", 9).with_suffix(".json").unlink()
    again = open_data(task, progress=False)
    assert rendered[-1][2] == (7, 9)
    assert files(again.root) == before


def test_a_killed_run_leaves_no_half_scene(rendered, monkeypatch):
    task = card(variant="full", split="test", stand_in=STAND_IN)
    interrupt_replacing(monkeypatch, at=20)
    with pytest.raises(KeyboardInterrupt):
        open_data(task, progress=False)
    data = open_data(task, progress=False)
    assert len(data.ids) == 24
    assert all(sample.truth.labels.max() == 2 for sample in data.reader)


def test_seed_and_split_have_their_own_trees(rendered, private_places):
    task = card(variant="full", split="test", stand_in=STAND_IN)
    shipped = open_data(task, limit=2, progress=False)
    fresh = open_data(task, limit=2, stand_in_seed=3, progress=False)
    val = open_data(task, limit=2, split="val", progress=False)
    assert fresh.root.parent.name == "test-seed3" and "never ranked" in fresh.note
    assert rendered[1][:2] == ("test", 3)
    assert val.ids[0] == "CLEVRTEX_full_005000"
    assert len({shipped.revision, fresh.revision, val.revision}) == 3
    assert not np.array_equal(shipped.reader[0].image, fresh.reader[0].image)


def test_another_split_may_be_longer_but_the_card_fixes_its_own(rendered):
    task = card(variant="full", split="test", stand_in=STAND_IN)
    assert len(open_data(task, limit=30, progress=False)) == 24
    assert len(open_data(task, limit=30, split="train", progress=False)) == 30


def test_the_unsplit_variant_uses_the_test_scenes_and_has_no_others(rendered):
    task = card(variant="outd", split="all", stand_in={**STAND_IN, "variant": "outd", "samples": 3})
    data = open_data(task, progress=False)
    assert data.ids == tuple(f"CLEVRTEX_outd_{i:06d}" for i in range(3)) and rendered[0][0] == "test"
    with pytest.raises(UsageError, match="is not split"):
        open_data(task, split="val", progress=False)


def test_camo_has_the_official_scene_numbers(rendered):
    task = card(variant="camo", split="test", stand_in={**STAND_IN, "variant": "camo", "samples": 3})
    assert open_data(task, progress=False).ids == tuple(f"CLEVRTEX_camo_{i:06d}" for i in range(3))
    assert open_data(task, split="val", limit=2, progress=False).ids == ("CLEVRTEX_camo_002000", "CLEVRTEX_camo_002001")


def test_wrong_seed_is_refused(rendered, tmp_path):
    task = card(variant="full", split="test", stand_in=STAND_IN)
    with pytest.raises(UsageError, match="stand-in-seed 0"):
        open_data(task, stand_in_seed=0)
    with pytest.raises(UsageError, match="only one of them"):
        open_data(task, stand_in_seed=2, data_root=tmp_path)


def test_unwritable_cache_is_one_line(rendered, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(UsageError, match="OCL_BENCH_CACHE") as caught:
        open_data(card(variant="full", split="test", stand_in=STAND_IN), progress=False)
    assert "\n" not in str(caught.value)


def test_mask_colours_are_distinct_so_that_colour_coded_loaders_agree(rendered):
    palette = np.array(mask_palette()).reshape(256, 3)
    assert len(np.unique(palette, axis=0)) == 256 and not palette[0].any()
    data = open_data(card(variant="full", split="test", stand_in=STAND_IN), limit=1, progress=False)
    mask = Image.open(data.root / "0/CLEVRTEX_full_000000_flat.png")
    colours = np.asarray(mask.convert("RGB")).reshape(-1, 3)
    labels = np.asarray(mask).ravel()
    assert len(np.unique(colours, axis=0)) == len(np.unique(labels))


def test_opening_512_scenes_is_quick_and_silent(rendered, capfd):
    tree = {**STAND_IN, "samples": 512}
    task = card(variant="full", split="test", stand_in=tree)
    StandInTree("full", 1, "test").ensure(512, progress=False)
    start = time.perf_counter()
    data = open_data(task)
    assert time.perf_counter() - start < 3
    assert len(data) == 512
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""


def test_unknown_revision_is_refused_before_anything_is_written(rendered, private_places):
    task = card(variant="full", split="test", stand_in={**STAND_IN, "revision": 7})
    with pytest.raises(UsageError, match="revision 7 is not rendered") as caught:
        open_data(task, progress=False)
    assert "\n" not in str(caught.value) and not any(path.is_file() for path in private_places.rglob("*"))


@pytest.mark.slow
def test_worker_processes_write_the_same_bytes_as_this_process(tmp_path, monkeypatch):
    monkeypatch.setattr("ocl_bench.data.stand_ins.stand_in.IMAGE_SIZE", 32)
    tree = StandInTree("full", scenes.REVISIONS["full"][-1], "test")
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "here"))
    one = files(tree.ensure(3, progress=False))
    done: list[int] = []
    jobs = [WriteJob(str(tmp_path / "there"), "full", 1, "test", 0, 32, 0, indices) for indices in ((0,), (1, 2))]
    share_out(jobs, done.append, helpers=2, here=False)
    assert sorted(done) == [1, 2] and files(tmp_path / "there") == one


@pytest.mark.slow
def test_this_process_does_not_wait_for_others_that_are_still_starting(tmp_path):
    jobs = [WriteJob(str(tmp_path), "full", 1, "test", 0, 32, 0, (index,)) for index in range(3)]
    done: list[int] = []
    before = set(psutil.Process().children())  # other tests in this process may have left some
    share_out(jobs, done.append, helpers=2)
    assert done == [1, 1, 1] and len(files(tmp_path)) == 9
    assert set(psutil.Process().children()) <= before


def test_many_scenes_are_shared_out_and_few_are_not(rendered, monkeypatch):
    asked: list[tuple[int, int]] = []

    def share(jobs, advance, helpers):
        asked.append((sum(len(job.indices) for job in jobs), helpers))
        for job in jobs:
            job.run(advance)

    monkeypatch.setattr("ocl_bench.data.stand_ins.stand_in.processors", lambda: 3)
    monkeypatch.setattr("ocl_bench.data.stand_ins.stand_in.share_out", share)
    tree = StandInTree("full", 1, "test")
    tree.ensure(127, progress=False)
    tree.ensure(255, progress=False)
    assert asked == [(127, 0), (128, 2)]


@pytest.mark.slow
def test_a_failing_worker_is_one_line(tmp_path):
    job = WriteJob(str(tmp_path), "full", 99, "test", seed=0, size=32, first=0, indices=(0,))
    with pytest.raises(UsageError, match=r"cannot be rendered \(ValueError: .*99") as caught:
        share_out([job], lambda n: None, helpers=1, here=False)
    assert "\n" not in str(caught.value)

"""The bank of k-NN: the same however often it was interrupted, damaged or built; failures counted across it all."""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ocl_bench.cards.task import TaskSpec
from ocl_bench.core.errors import SampleError, UsageError
from ocl_bench.core.types import Batch, Prediction, Sample, Truth
from ocl_bench.data import OpenData
from ocl_bench.evaluation import bank as banks
from ocl_bench.evaluation.bank import bank_for, bank_key
from ocl_bench.evaluation.plan import Plan, make_plan
from ocl_bench.families.knn import Bank, Knn

COUNT = 50
TASK = TaskSpec.model_validate(
    {
        "name": "tiny-knn",
        "version": 1,
        "family": "knn",
        "data": {"reader": "folder"},
        "protocol": {"input": 8, "score_at": 8, "temperature": 0.07},
        "fit": {"head": "bank"},
        "metrics": ["knn_top1"],
        "main": "knn_top1",
    }
)


class LabelledReader:
    """Random images of three classes. broken: positions that cannot be read. reads: which were."""

    def __init__(self, count: int = COUNT, broken: tuple[int, ...] = (), labels: bool = True) -> None:
        self.ids = tuple(f"image{number:03d}" for number in range(count))
        self.broken, self.labels, self.reads = broken, labels, list[int]()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        self.reads.append(index)
        if index in self.broken:
            raise SampleError(self.ids[index], "does not decode; repair the file")
        image = np.random.default_rng(index).integers(0, 256, (8, 8, 3)).astype(np.uint8)
        return Sample(
            self.ids[index], image, Truth(np.zeros((8, 8), np.int16), label=index % 3 if self.labels else None)
        )


def data(**keywords: Any) -> OpenData:
    reader = LabelledReader(**keywords)
    return OpenData(reader, "supplied", "supplied-1", Path("."), reader.ids, "")  # type: ignore[arg-type]


class Pixels:
    """The image itself as an embedding. dies_at: number of the call that raises. blind: ids without a finite value."""

    def __init__(self, dies_at: int = -1, blind: tuple[str, ...] = ()) -> None:
        self.dies_at, self.blind, self.calls = dies_at, blind, 0

    def predict(self, batch: Batch) -> Prediction:
        if self.calls == self.dies_at:
            raise KeyboardInterrupt
        self.calls += 1
        embedding = batch.image.flatten(1) - 0.5
        for row, sample_id in enumerate(batch.ids):
            if sample_id in self.blind:
                embedding[row] = torch.nan
        return Prediction(embedding=embedding, embedding_source="pixels")


def plan_for(model: Any, train: OpenData, *, live: bool = False, batch_size: int = 4, **changes: Any) -> Plan:
    plan = make_plan(model, TASK, data=train, train=train, device="cpu", batch_size=batch_size)
    loaded = replace(plan.model, reusable=live is False, name="pixels")
    return replace(plan, model=loaded, adapter=Knn(TASK), **changes)


def expected() -> np.ndarray:
    reader = LabelledReader()
    rows = np.stack([reader[position].image.transpose(2, 0, 1).reshape(-1) / 255 - 0.5 for position in range(COUNT)])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(banks, "_BLOCK", 8)
    yield tmp_path


def folder_of(plan: Plan, cache: Path) -> Path:
    key = bank_key(plan, plan.data)
    return cache / "banks" / key[:2] / key


def assert_complete(bank: Bank) -> None:
    np.testing.assert_allclose(bank.features, expected(), rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(bank.features, axis=1), 1, atol=1e-6)
    assert isinstance(bank.features, np.memmap) and bank.features.dtype == np.float32
    assert bank.labels.tolist() == [position % 3 for position in range(COUNT)]
    assert bank.positions.tolist() == list(range(COUNT)) and bank.left_out == 0


def test_features_are_unit_rows_on_disk_and_reused(own_cache: Path) -> None:
    train, model = data(), Pixels()
    plan = plan_for(model, train)
    assert_complete(bank_for(plan, train))
    assert model.calls == -(-COUNT // 4)
    files = {path.name for path in folder_of(plan, own_cache).iterdir()}
    assert files == {"features.npy", "labels.npy", "progress.json"}
    assert_complete(bank_for(plan, train))
    assert model.calls == -(-COUNT // 4)
    assert not bank_for(plan, train).features.flags.writeable


def test_a_killed_run_goes_on_where_it_stopped() -> None:
    train = data(broken=(1, 42))
    with pytest.raises(KeyboardInterrupt):
        bank_for(plan_for(Pixels(dies_at=7), train), train)  # 28 images predicted, 24 of them announced
    again, model = data(broken=(1, 42)), Pixels(blind=("image047",))
    bank = bank_for(plan_for(model, again), again)
    assert min(again.reader.reads) == 24  # type: ignore[attr-defined]
    kept = [position for position in range(COUNT) if position not in (1, 42, 47)]
    assert bank.positions.tolist() == kept and bank.labels.tolist() == [position % 3 for position in kept]
    np.testing.assert_allclose(bank.features, expected()[kept], rtol=0, atol=1e-6)
    assert bank.left_out == 3
    assert bank_for(plan_for(Pixels(dies_at=0), again), again).left_out == 3


def test_killed_before_anything_was_announced() -> None:
    train = data()
    with pytest.raises(KeyboardInterrupt):
        bank_for(plan_for(Pixels(dies_at=1), train), train)
    assert_complete(bank_for(plan_for(Pixels(), train), train))


def test_a_slow_model_loses_seconds_and_not_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bank of fewer images than a block, as the rendered one, goes on as well."""
    monkeypatch.setattr(banks, "_BLOCK", 10**6)
    monkeypatch.setattr(banks, "_SECONDS", -1.0)
    train = data()
    with pytest.raises(KeyboardInterrupt):
        bank_for(plan_for(Pixels(dies_at=7), train), train)
    again = data()
    assert_complete(bank_for(plan_for(Pixels(), again), again))
    assert min(again.reader.reads) == 28  # type: ignore[attr-defined]


def test_features_of_zeros_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    class Empty(Pixels):
        def predict(self, batch: Batch) -> Prediction:
            blank = torch.tensor([sample_id in ("image003", "image040") for sample_id in batch.ids])
            prediction = super().predict(batch)
            return replace(prediction, embedding=prediction.embedding * ~blank[:, None])  # type: ignore[operator]

    train = data()
    with pytest.raises(KeyboardInterrupt):
        bank_for(plan_for(Empty(dies_at=7), train), train)
    for _ in range(2):
        bank = bank_for(plan_for(Empty(), train), train)
        assert bank.zeros == 2 and not bank.features[[3, 40]].any()


def test_failures_are_named_and_refused_above_a_tenth(caplog: pytest.LogCaptureFixture, own_cache: Path) -> None:
    train = data(broken=(0, 1, 2, 3, 30))
    plan = plan_for(Pixels(), train)
    assert bank_for(plan, train).left_out == 5
    said = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(said) == 1 and said[0].startswith(
        "left out: 5 of 50 images of the fit split fail, first: sample image000:"
    )
    caplog.clear()
    bank_for(plan, train)
    assert "left out: 5 of 50 " in caplog.text, "whoever uses the bank should know"
    many = replace(data(broken=(0, 1, 2, 3, 30, 31)), revision="r2")
    plan = plan_for(Pixels(), many)
    with pytest.raises(UsageError, match="more than a tenth fail: 6 of 50 images of the fit split fail"):
        bank_for(plan, many)
    assert max(many.reader.reads) < 36, "refused at once"  # type: ignore[attr-defined]
    many.reader.broken = ()  # type: ignore[attr-defined]
    assert_complete(bank_for(plan, many))


@pytest.mark.parametrize(
    "damage",
    [
        *("cut", "cut labels", "gone", "progress", "other field", "other shape", "noise", "count"),
        *("labels", "turned", "key"),
    ],
)
def test_a_damaged_bank_is_built_anew(damage: str, own_cache: Path) -> None:
    train, model = data(), Pixels()
    plan = plan_for(model, train)
    folder = folder_of(plan, own_cache)
    bank_for(plan, train)
    features, progress = folder / "features.npy", folder / "progress.json"
    content = json.loads(progress.read_text())
    if damage == "cut":
        features.write_bytes(features.read_bytes()[:-100])
    elif damage == "cut labels":
        (folder / "labels.npy").write_bytes((folder / "labels.npy").read_bytes()[:60])
    elif damage == "gone":
        features.unlink()
    elif damage == "progress":
        progress.write_text(progress.read_text()[:-3])
    elif damage == "other field":
        progress.write_text(json.dumps({**content, "colour": 1}))
    elif damage == "other shape":
        np.save(features, np.zeros((COUNT, 5), np.float32))
    elif damage == "noise":
        stored = np.load(features, mmap_mode="r+")
        stored[20] *= 3
        stored.flush()
    elif damage in ("labels", "turned"):
        stored = np.load(folder / "labels.npy" if damage == "labels" else features, mmap_mode="r+")
        stored[20] = stored[21]  # features are of unit length still
        stored.flush()
    elif damage == "key":
        progress.write_text(json.dumps({**content, "key": "ab" * 32}))
    else:
        progress.write_text(json.dumps({**content, "images": COUNT - 1}))
    assert_complete(bank_for(plan, train))
    assert model.calls == 2 * -(-COUNT // 4)


def test_cards_that_prepare_images_alike_share_a_bank() -> None:
    train, model = data(), Pixels()
    first = plan_for(model, train)
    bank_for(first, train)
    protocol = TASK.protocol.model_copy(update={"temperature": 0.2, "score_at": None, "empty": "one"})
    changes = {"name": "other", "metrics": ("knn_top5_k3",), "main": "knn_top5_k3", "protocol": protocol}
    other = TASK.model_copy(update=changes)
    assert_complete(bank_for(replace(first, task=other, adapter=Knn(other), batch_size=7, threads=3), train))
    assert model.calls == -(-COUNT // 4), "nothing that changes a feature is different"


def test_where_a_box_file_lies_changes_no_feature() -> None:
    train = data()
    boxed = TASK.model_copy(update={"protocol": TASK.protocol.model_copy(update={"boxes": "crop"})})
    plan = plan_for(Pixels(), train)
    keys = {bank_key(replace(plan, task=boxed.with_boxes(Path(name))), train) for name in ("a.jsonl", "b.jsonl")}
    assert len(keys) == 1


def with_rule(**rule: Any) -> dict[str, Any]:
    return {"task": TASK.model_copy(update={"protocol": TASK.protocol.model_copy(update=rule)})}


def test_whatever_changes_a_feature_changes_the_bank() -> None:
    train = data()
    plan = plan_for(Pixels(), train)
    attention = Knn(with_rule(boxes="attention")["task"])
    reads = Knn(with_rule(boxes="attention")["task"], reads_boxes=True)
    options = TASK.model_copy(update={"data": TASK.data.model_copy(update={"options": {"subset": "small"}})})
    others: list[dict[str, Any]] = [
        *(with_rule(**{name: value}) for name, value in (("crop", "square"), ("short_side", 8), ("input", 16))),
        *(with_rule(**{name: value}) for name, value in (("interpolation", "bicubic"), ("boxes", "crop"))),
        {"adapter": attention},
        {"adapter": reads},
        {"task": options},
        {"noise_seeds": (1,)},
        {"model": replace(plan.model, name="m")},
        {"model": replace(plan.model, options={"a": 1})},
        {"model": replace(plan.model, checkpoint_sha256="c")},
        {"model": replace(plan.model, source_sha256="s")},
    ]
    keys = [bank_key(plan, train), *(bank_key(replace(plan, **other), train) for other in others)]
    changes: list[dict[str, Any]] = [{"revision": "r2"}, {"ids": train.ids[::-1]}, {"kind": "official"}]
    keys += [bank_key(plan, replace(train, **change)) for change in changes]
    assert len(set(keys)) == len(keys)


def test_refit_builds_anew() -> None:
    train, model = data(), Pixels()
    bank_for(plan_for(model, train), train)
    assert_complete(bank_for(plan_for(model, train, refit=True), train))
    assert model.calls == 2 * -(-COUNT // 4)


def test_the_bank_of_a_live_object_is_temporary(own_cache: Path) -> None:
    train = data()
    bank = bank_for(plan_for(Pixels(), train, live=True), train)
    assert_complete(bank)
    assert len(list((own_cache / "banks").iterdir())) == 1
    del bank
    gc.collect()
    assert not list((own_cache / "banks").iterdir())
    with pytest.raises(KeyboardInterrupt):
        bank_for(plan_for(Pixels(dies_at=3), train, live=True), train)
    assert not list((own_cache / "banks").iterdir())


def test_of_two_processes_one_extracts_and_the_next_goes_on_where_it_died() -> None:
    """Locks of two open files exclude each other within a process as well."""
    train, model = data(), Pixels()
    waits, dies, found = threading.Event(), threading.Event(), list[Bank]()

    class Dies(Pixels):
        def predict(self, batch: Batch) -> Prediction:
            if self.calls == 4:
                waits.set()
                assert dies.wait(10)
                raise KeyboardInterrupt
            return super().predict(batch)

    def first() -> None:
        with pytest.raises(KeyboardInterrupt):
            bank_for(plan_for(Dies(), train), train)

    one = threading.Thread(target=first)
    other = threading.Thread(target=lambda: found.append(bank_for(plan_for(model, train), train)))
    one.start()
    assert waits.wait(10)
    other.start()
    other.join(0.3)
    assert other.is_alive() and model.calls == 0
    dies.set()
    one.join(10)
    other.join(10)
    assert_complete(found[0])
    assert model.calls == -(-(COUNT - 16) // 4)


def test_a_batch_size_changes_nothing_but_rounding() -> None:
    train = data()
    one = np.array(bank_for(plan_for(Pixels(), train), train).features)
    other = bank_for(plan_for(Pixels(), train, batch_size=7, refit=True), train)
    np.testing.assert_allclose(other.features, one, rtol=0, atol=1e-6)


def test_refusals(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unlabelled = data(labels=False)
    with pytest.raises(UsageError, match="sample image000: has no label"):
        bank_for(plan_for(Pixels(), unlabelled), unlabelled)

    class Grows:
        def predict(self, batch: Batch) -> Prediction:
            return Prediction(embedding=torch.ones(len(batch), 5 if "image000" in batch.ids else 6))

    train = replace(data(), revision="r3")
    with pytest.raises(UsageError, match="the model gives a feature of 6 numbers, and gave 5 before"):
        bank_for(plan_for(Grows(), train), train)
    monkeypatch.setenv("OCL_BENCH_CACHE", str(own_cache / "banks" / "no" / "file"))
    (own_cache / "banks" / "no").write_text("a file")
    with pytest.raises(UsageError, match=r"cannot be written .*set OCL_BENCH_CACHE elsewhere"):
        bank_for(plan_for(Pixels(), train), train)

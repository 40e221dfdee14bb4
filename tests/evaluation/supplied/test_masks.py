"""Masks without a model: folders, arrays, and the saved predictions of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_evaluation import SIZE, MemoryReader, memory_data, tiny_task

from ocl_bench import evaluate
from ocl_bench.core.errors import UsageError
from ocl_bench.core.types import VOID, Sample, Truth
from ocl_bench.data import OpenData
from ocl_bench.evaluation.supplied import score
from ocl_bench.evaluation.supplied.score import replay, score_masks
from ocl_bench.metrics import compute
from ocl_bench.results.record import Result, read_rows


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> OpenData:
    opened = memory_data(6)
    monkeypatch.setattr(score, "open_data", lambda *arguments, **keywords: opened)
    return opened


def truth_of(data: OpenData, index: int) -> np.ndarray:
    return data.reader[index].truth.labels


def write_masks(folder: Path, data: OpenData, change: Any = lambda labels: labels) -> None:
    folder.mkdir(exist_ok=True)
    for index, sample_id in enumerate(data.ids):
        Image.fromarray(change(truth_of(data, index)).astype(np.uint8)).save(folder / f"{sample_id}.png")


def test_the_truth_as_masks_is_perfect_whatever_its_numbers(
    tmp_path: Path, data: OpenData, caplog: pytest.LogCaptureFixture
) -> None:
    write_masks(tmp_path / "masks", data, lambda labels: 250 - 20 * labels)
    with caplog.at_level("INFO", logger="ocl_bench"):
        result = score_masks(tiny_task(), tmp_path / "masks", results=tmp_path, progress=False)
    assert result.value("mbo_fg") == result.value("ari") == 1
    assert (result.data.kind, result.model.name, result.model.card) == ("supplied", "supplied-masks", "")
    assert [record.message for record in caplog.records] == [data.note] and data.kind == "embedded"


def test_every_predicted_id_is_a_slot_also_zero(tmp_path: Path, data: OpenData) -> None:
    write_masks(tmp_path / "masks", data, lambda labels: np.where(labels == 1, 0, 1 + labels))
    result = score_masks(tiny_task(), tmp_path / "masks", results=tmp_path, progress=False)
    assert result.value("mbo_fg") == 1


def test_changed_masks_are_another_result(tmp_path: Path, data: OpenData) -> None:
    write_masks(tmp_path / "masks", data)
    first = score_masks(tiny_task(), tmp_path / "masks", results=tmp_path, progress=False)
    write_masks(tmp_path / "masks", data, np.zeros_like)
    second = score_masks(tiny_task(), tmp_path / "masks", results=tmp_path, progress=False)
    assert not second.reused and second.value("ari") == 0 != first.value("ari")


class Oblong(MemoryReader):
    """Images of 40 x 20 whose central square has the truth of the small images."""

    def __getitem__(self, index: int) -> Sample:
        labels = np.zeros((20, 40), np.int16)
        labels[2 : 2 + SIZE, 12 : 12 + SIZE] = super().__getitem__(index).truth.labels
        return Sample(self.ids[index], np.zeros((20, 40, 3), np.uint8), Truth(labels))


def test_masks_of_whole_images_are_cropped_like_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Oblong(4)
    data = OpenData(reader, "supplied", "supplied-1", tmp_path, reader.ids, "")  # type: ignore[arg-type]
    monkeypatch.setattr(score, "open_data", lambda *arguments, **keywords: data)
    task = tiny_task(protocol={"crop": "center-0.8", "input": SIZE, "score_at": SIZE})
    write_masks(tmp_path / "whole", data)
    write_masks(tmp_path / "crop", data, lambda labels: labels[2:18, 12:28])
    write_masks(tmp_path / "other", data, lambda labels: labels[:10, :10])
    for folder in ("whole", "crop"):
        assert score_masks(task, tmp_path / folder, results=tmp_path, progress=False).value("mbo_fg") == 1
    with pytest.raises(UsageError, match="mask is 10x10, expected 40x20 or 16x16"):
        score_masks(task, tmp_path / "other", results=tmp_path, progress=False)


class Square(MemoryReader):
    """Images as large as the side at which the task scores, whose centre is what it scores."""

    def __getitem__(self, index: int) -> Sample:
        labels = np.zeros((SIZE, SIZE), np.int16)
        labels[index : index + 7, 4:13] = 1
        labels[8:16, :6] = 2
        return Sample(self.ids[index], np.zeros((SIZE, SIZE, 3), np.uint8), Truth(labels))


def test_masks_whose_size_fits_image_and_crop_are_refused_or_declared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Square(4)
    data = OpenData(reader, "supplied", "supplied-1", tmp_path, reader.ids, "")  # type: ignore[arg-type]
    monkeypatch.setattr(score, "open_data", lambda *arguments, **keywords: data)
    task = tiny_task(protocol={"crop": "center-0.5", "input": SIZE, "score_at": SIZE})
    write_masks(tmp_path / "whole", data)
    write_masks(tmp_path / "crop", data, lambda labels: labels[4:12, 4:12].repeat(2, 0).repeat(2, 1))
    for folder in ("whole", "crop"):
        with pytest.raises(UsageError, match=r"16x16 is the size of the whole image and of the scored crop.*--extent"):
            score_masks(task, tmp_path / folder, results=tmp_path, progress=False)
    for folder in ("whole", "crop"):
        for extent in ("whole", "crop"):
            result = score_masks(task, tmp_path / folder, extent=extent, results=tmp_path, progress=False)
            assert (result.value("mbo_fg") == 1) == (extent == folder) and not result.reused
    uncut = tiny_task(protocol={"input": SIZE, "score_at": SIZE})  # both are the same where nothing is cropped
    assert score_masks(uncut, tmp_path / "whole", results=tmp_path, progress=False).value("mbo_fg") == 1


def test_the_declared_extent_must_fit(tmp_path: Path, data: OpenData) -> None:
    write_masks(tmp_path / "masks", data, lambda labels: labels.repeat(2, 0).repeat(2, 1))
    with pytest.raises(UsageError, match="mask is 32x32, expected 16x16"):
        score_masks(tiny_task(), tmp_path / "masks", extent="crop", results=tmp_path, progress=False)
    with pytest.raises(UsageError, match="extent 'all': use whole or crop"):
        score_masks(tiny_task(), tmp_path / "masks", extent="all", results=tmp_path, progress=False)
    with pytest.raises(UsageError, match="belongs to folders of masks"):
        score_masks("clevrtex", tmp_path / "masks.npz", extent="crop", results=tmp_path, progress=False)


def test_missing_and_broken_masks(tmp_path: Path, data: OpenData) -> None:
    write_masks(tmp_path / "masks", data)
    broken = tmp_path / "masks" / "s0002.png"
    broken.write_bytes(broken.read_bytes()[:40])
    result = score_masks(tiny_task(), tmp_path / "masks", results=tmp_path, progress=False)
    assert [failure.id for failure in result.counts.failed] == ["s0002"] and result.counts.scored == 5
    broken.unlink()
    with pytest.raises(UsageError, match=r"1 of 6 masks are missing, first s0002.png"):
        score_masks(tiny_task(), tmp_path / "masks", results=tmp_path, progress=False)
    with pytest.raises(UsageError, match=r"neither a folder of id-map PNGs nor an \.npz"):
        score_masks(tiny_task(), tmp_path / "nothing", results=tmp_path, progress=False)


def test_masks_with_capitals_are_found_and_lossy_ones_are_named(tmp_path: Path, data: OpenData) -> None:
    folder = tmp_path / "masks"
    write_masks(folder, data)
    for path in folder.glob("*.png"):
        path.rename(path.with_suffix(".PNG"))
    result = score_masks(tiny_task(), folder, results=tmp_path / "capitals", progress=False)
    assert result.value("mbo_fg") == 1 and not result.counts.failed
    first = folder / f"{data.ids[0]}.PNG"
    changed = score_masks(tiny_task(), folder, results=tmp_path / "capitals", progress=False)
    assert changed.reused
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(first)  # its content is part of the key
    assert not score_masks(tiny_task(), folder, results=tmp_path / "capitals", progress=False).reused
    Image.open(first).save(first.with_suffix(".JPG"))
    first.unlink()
    with pytest.raises(UsageError, match=r"1 of 6 masks are missing.*\.jpg is no mask, as lossy compression"):
        score_masks(tiny_task(), folder, results=tmp_path / "lossy", progress=False)


def arrays(count: int = 5) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 4, (count, 12, 18)).astype(np.uint8)
    prediction = np.where(generator.random(truth.shape) < 0.8, truth, generator.integers(0, 9, truth.shape))
    truth[:, :2] = 255
    return prediction.astype(np.uint8), truth


def score_arrays(tmp_path: Path, **fields: Any) -> Result:
    path = tmp_path / "masks.npz"
    np.savez(path, **fields)
    return score_masks("clevrtex", path, results=tmp_path, progress=False)


def test_arrays_are_scored_at_their_own_resolution(tmp_path: Path) -> None:
    prediction, truth = arrays()
    result = score_arrays(tmp_path, prediction=prediction, truth=truth)
    labels = truth.astype(np.int64)
    labels[truth == 255] = VOID
    for name, (value, valid) in compute(result.task.metrics, labels, prediction.astype(np.int64)).items():
        assert result.value(name) == pytest.approx(value[valid].mean(), abs=1e-12), name
    assert result.data.kind == "supplied" and result.task.name == "clevrtex"
    assert "crop:none" in result.task.signature and "at:native" in result.task.signature
    assert result.path is not None and list(read_rows(result.path)["id"][:2]) == ["000000", "000001"]


def test_arrays_may_bring_ids(tmp_path: Path) -> None:
    prediction, truth = arrays(2)
    result = score_arrays(tmp_path, prediction=prediction, truth=truth, ids=np.array(["a", "b"]))
    assert result.path is not None and list(read_rows(result.path)["id"]) == ["a", "b"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"truth": None}, "field 'truth' is missing; it has prediction"),
        ({"prediction": np.zeros((5, 12, 18))}, "field 'prediction' is float64"),
        ({"prediction": np.zeros((5, 12, 17), int)}, "must be equal"),
        ({"prediction": np.full((5, 12, 18), -1)}, "labels outside 0"),
        ({"truth": np.full((5, 12, 18), 70_000)}, "labels outside 0"),
        ({"ids": np.array(["a"] * 5)}, "field 'ids' must hold 5 different names"),
        ({"prediction": np.array([{}], object)}, "cannot be read as plain arrays"),
        ({"ignore_label": np.array(1)}, "field 'ignore_label' is unknown; the fields are ids, ignore_index, "),
    ],
)
def test_wrong_arrays_are_one_line(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    prediction, truth = arrays()
    merged = {"prediction": prediction, "truth": truth, **fields}
    with pytest.raises(UsageError, match=message) as caught:
        score_arrays(tmp_path, **{name: value for name, value in merged.items() if value is not None})
    assert "masks.npz" in str(caught.value) and "\n" not in str(caught.value)


def test_number_255_of_arrays_is_an_object_where_there_are_larger_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    truth = np.arange(1, 401, dtype=np.uint16).reshape(1, 20, 20)
    result = score_arrays(tmp_path, prediction=truth, truth=truth)
    assert result.path is not None and list(read_rows(result.path)["n_objects"]) == [400]
    assert "masks.npz: truth has numbers above 255, so that 255 is an object and not void" in caplog.text


def test_binary_truth_of_0_and_255_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    truth = np.zeros((2, 8, 8), np.uint8)
    truth[:, 2:6, 2:6] = 255
    result = score_arrays(tmp_path, prediction=truth, truth=truth)
    assert result.value("mbo_fg") is None
    text = "masks.npz: truth has numbers that are spread evenly up to 255 (0, 255), and 255 is read as void"
    assert text in caplog.text and "`ignore_index`" in caplog.text
    caplog.clear()
    declared = score_arrays(tmp_path, prediction=truth, truth=truth, ignore_index=np.array(-1))
    assert declared.value("mbo_fg") == 1 and "spread" not in caplog.text


def test_arrays_exclude_other_data(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="brings its own truth"):
        score_masks("clevrtex", tmp_path / "masks.npz", data_root=tmp_path)


def test_replay_gives_the_same_numbers(tmp_path: Path) -> None:
    result = evaluate(
        "random", "clevrtex", limit=3, noise_seeds=[0, 5], results=tmp_path, save_predictions=True, progress=False
    )
    assert result.path is not None
    outcome = replay(result.path, progress=False)
    assert outcome.equal and set(outcome.differences.values()) == {0.0}
    assert outcome.now.metrics == result.metrics and outcome.now.counts == result.counts
    mask = next((result.path.with_suffix(".predictions") / "seed-5").glob("*.png"))
    Image.fromarray(np.zeros_like(np.asarray(Image.open(mask)))).save(mask)
    changed = replay(result.path, progress=False)
    assert not changed.equal and changed.differences["mbo_fg"] != 0


def test_replay_needs_saved_predictions(tmp_path: Path) -> None:
    result = evaluate("single-slot", "clevrtex", limit=2, results=tmp_path, progress=False)
    assert result.path is not None
    with pytest.raises(UsageError, match="evaluate again with --save-predictions"):
        replay(result.path)

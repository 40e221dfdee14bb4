"""The corridor: the same rows however they are computed, whatever breaks, and the truth only for ceilings."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import sys
import weakref
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pandas as pd
import pytest
import torch
from tiny_evaluation import HERE, SIZE, MemoryReader, SlotModel, memory_data, tiny_plan, tiny_task
from tiny_evaluation_in_processes import print_rows_sha256, until_killed

import ocl_bench
from ocl_bench.core.errors import SampleError, UsageError
from ocl_bench.core.files import path_name
from ocl_bench.core.types import Batch, Prediction
from ocl_bench.evaluation.plan import make_plan
from ocl_bench.evaluation.run import run
from ocl_bench.evaluation.shards import Shard, WorkFolder
from ocl_bench.results.record import Result, read_result, read_rows
from ocl_bench.results.rows import write_rows


def rows_of(result: Result) -> pd.DataFrame:
    assert result.path is not None
    return read_rows(result.path)


def evaluate(tmp_path: Path, *arguments: Any, **keywords: Any) -> Result:
    return run(tiny_plan(*arguments, **keywords), results=tmp_path, progress=False)


def test_values_are_means_of_rows_and_of_an_independent_computation(tmp_path: Path) -> None:
    from sklearn.metrics import adjusted_rand_score

    result = evaluate(tmp_path, count=10)
    rows = rows_of(result)
    plan = tiny_plan(count=10)
    expected = []
    for index, sample_id in enumerate(plan.data.ids):
        sample = plan.data.reader[index]
        image = torch.from_numpy(sample.image).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            masks = plan.model.model.predict(Batch((sample_id,), image)).masks
        size = (SIZE, SIZE)
        labels = torch.nn.functional.interpolate(masks, size, mode="bilinear", align_corners=False).argmax(1)
        expected.append(adjusted_rand_score(sample.truth.labels.ravel(), labels.numpy().ravel()))
    assert list(rows["id"]) == list(plan.data.ids)
    np.testing.assert_allclose(rows["ari"], expected, atol=1e-12)
    assert result.metrics["ari"].value == pytest.approx(np.mean(expected), abs=1e-12)
    assert result.metrics["ari"].n_valid == 10
    assert result.metrics["fg_ari_multi"].n_valid == 5
    assert result.counts.single_object_share == pytest.approx((rows["n_objects"] == 1).mean())
    low, high = result.metrics["ari"].ci95 or (0, 0)
    assert low < result.metrics["ari"].value < high
    assert result.metrics["ari"].signature.startswith("ari│crop:none│mask:attention│")


@pytest.mark.parametrize("seed", [0, 1])
def test_rows_do_not_depend_on_the_order(tmp_path: Path, seed: int) -> None:
    order = list(np.random.default_rng(seed).permutation(70))
    straight = rows_of(evaluate(tmp_path / "a", count=70)).set_index("id")
    shuffled = rows_of(evaluate(tmp_path / "b", data=memory_data(70, order=order))).set_index("id")
    pd.testing.assert_frame_equal(straight, shuffled.loc[straight.index], check_exact=True)


def test_batch_size_moves_no_metric(tmp_path: Path) -> None:
    first = rows_of(evaluate(tmp_path / "a", count=9, batch_size=4))
    second = rows_of(evaluate(tmp_path / "b", count=9, batch_size=7))
    np.testing.assert_allclose(first["ari"], second["ari"], atol=5e-3)


def test_batches_are_padded_and_never_cross_a_shard(tmp_path: Path) -> None:
    seen: list[tuple[str, ...]] = []

    class Recorder(SlotModel):
        def predict(self, batch: Batch) -> Prediction:
            seen.append(batch.ids)
            return super().predict(batch)

    evaluate(tmp_path, Recorder(), count=70, batch_size=24)
    assert [len(ids) for ids in seen[:4]] == [24] * 4
    assert [len(set(ids)) for ids in seen[:4]] == [24, 24, 16, 6]
    assert seen[4:6] == seen[:1] * 2, "two more predictions of the first batch: are they equal?"
    assert seen[6:] == [seen[0][:11:-1], seen[0][11::-1]], "and a third one, apart"


def test_several_noise_seeds_are_one_vote_per_image(tmp_path: Path) -> None:
    result = evaluate(tmp_path, count=8, noise_seeds=[0, 1, 2])
    rows = rows_of(result)
    assert len(rows) == 24 and list(rows["noise_seed"][:3]) == [0, 1, 2]
    assert rows.groupby("id")["ari"].nunique().max() > 1
    assert result.metrics["ari"].n_valid == 8
    assert result.value("ari") == pytest.approx(rows.groupby("id")["ari"].mean().mean())
    single = rows_of(evaluate(tmp_path / "single", count=8, noise_seeds=[1]))
    assert list(single["ari"]) == list(rows[rows["noise_seed"] == 1]["ari"])


def test_finished_results_are_reused_and_recomputed_by_force(tmp_path: Path) -> None:
    first = evaluate(tmp_path)
    plan = tiny_plan()
    again = run(plan, results=tmp_path, progress=False)
    assert again.reused and plan.data.reader.reads == []  # type: ignore[attr-defined]
    assert again.to_json() == first.to_json()
    forced = run(plan, results=tmp_path, progress=False, force=True)
    assert not forced.reused and forced.rows.sha256 == first.rows.sha256
    assert first.path is not None and not list(first.path.parent.glob("*.work"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda rows: rows.drop(columns="noise_seed"),
        lambda rows: rows.assign(id=range(len(rows))),
        lambda rows: rows.assign(mbo_fg="many"),
    ],
)
def test_a_finished_result_with_unusable_rows_is_computed_again(tmp_path: Path, damage: Any) -> None:
    first = run(tiny_plan(), results=tmp_path, progress=False)
    assert first.path is not None and first.rows_path is not None
    rows = read_rows(first.path)
    write_rows(damage(rows), first.rows_path)
    content = json.loads(first.path.read_text())
    content["rows"]["sha256"] = hashlib.sha256(first.rows_path.read_bytes()).hexdigest()
    first.path.write_text(json.dumps(content))  # as a version of another day might have left it
    again = run(tiny_plan(), results=tmp_path, progress=False)
    assert not again.reused and again.metrics == first.metrics
    assert again.path is not None and read_rows(again.path).equals(rows)
    assert run(tiny_plan(), results=tmp_path, progress=False).reused


def test_the_key_changes_with_whatever_changes_a_number() -> None:
    plans = [
        tiny_plan(),
        tiny_plan(noise_seeds=[1]),
        tiny_plan(count=9),
        tiny_plan(options={"slots": 5}),
        tiny_plan(task=tiny_task(version=2)),
        tiny_plan("grid"),
    ]
    assert len({plan.key for plan in plans}) == len(plans)
    assert tiny_plan(batch_size=3).key == tiny_plan().key


def test_objects_are_never_reused(tmp_path: Path) -> None:
    first = evaluate(tmp_path, SlotModel(4))
    second = evaluate(tmp_path, SlotModel(2))
    assert not second.reused and first.value("ari") != second.value("ari")


def test_failed_samples_are_recorded_and_the_others_kept(tmp_path: Path) -> None:
    result = evaluate(tmp_path / "a", data=memory_data(10, broken=(3, 8)))
    clean = rows_of(evaluate(tmp_path / "b", count=10)).set_index("id")
    assert [failure.id for failure in result.counts.failed] == ["s0003", "s0008"]
    assert "repair the file" in result.counts.failed[0].error
    assert (result.counts.attempted, result.counts.scored) == (10, 8)
    assert result.identity.status == "failed samples"
    rows = rows_of(result).set_index("id")
    pd.testing.assert_frame_equal(rows, clean.loc[rows.index], check_exact=True)


def test_failed_samples_are_tried_again(tmp_path: Path) -> None:
    evaluate(tmp_path, data=memory_data(10, broken=(3,)))
    assert evaluate(tmp_path, data=memory_data(10)).counts.scored == 10


class Answer:
    """A model that returns what it is told to, of the right batch size."""

    def __init__(self, make: Any) -> None:
        self.make = make

    def predict(self, batch: Batch) -> Any:
        return self.make(batch)


WRONG = {
    "no prediction": (lambda b: b.image, "expected a Prediction"),
    "no masks": (lambda b: Prediction(slots=b.image), "Prediction.masks is missing (got slots)"),
    "float labels": (lambda b: Prediction(masks=b.image[:, 0]), "expected floating (B,K,h,w) or integer (B,H,W)"),
    "wrong batch": (lambda b: Prediction(masks=b.image[:1]), "has batch size 1, expected 4"),
    "negative": (lambda b: Prediction(masks=-torch.ones(4, 8, 8).long()), "has label -1"),
    "all NaN": (lambda b: Prediction(masks=b.image * torch.nan), "is not finite"),
    "array": (
        lambda b: Prediction(masks=b.image.numpy()),
        "is ndarray of shape (4, 3, 16, 16), expected a torch",
    ),
    "crash": (lambda b: b.nothing, "predict failed on a batch of 4 images of side 16 (AttributeError"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_prediction_is_one_line_with_model_and_field(tmp_path: Path, case: str) -> None:
    make, expected = WRONG[case]
    with pytest.raises(UsageError, match="model answer: ") as caught:
        evaluate(tmp_path, Answer(make), count=4)
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_a_model_that_exits_or_invents_a_mask_source_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"predict failed .*SystemExit: 0"):
        evaluate(tmp_path, Answer(lambda batch: sys.exit(0)))
    with pytest.raises(UsageError, match="mask_source is 'guess', expected one of decoder, attention"):
        evaluate(tmp_path, Answer(lambda batch: Prediction(masks=batch.image, mask_source="guess")))  # type: ignore[arg-type]


def test_not_finite_for_some_images_fails_only_these(tmp_path: Path) -> None:
    def half(batch: Batch) -> Prediction:
        masks = batch.image.clone()
        masks[[sample_id == "s0001" for sample_id in batch.ids]] = torch.inf
        return Prediction(masks=masks)

    result = evaluate(tmp_path, Answer(half), count=6)
    assert [failure.id for failure in result.counts.failed] == ["s0001"]
    assert result.counts.scored == 5


def test_a_model_may_fail_for_one_sample(tmp_path: Path) -> None:
    def picky(batch: Batch) -> Prediction:
        if "s0002" in batch.ids:
            raise SampleError("s0002", "no mask file")
        return Prediction(masks=batch.image)

    result = evaluate(tmp_path, Answer(picky), count=6, noise_seeds=[0, 1])
    assert [failure.id for failure in result.counts.failed] == ["s0002"]
    assert sorted(set(rows_of(result)["id"])) == ["s0000", "s0001", "s0003", "s0004", "s0005"]


def test_nothing_scored_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no sample could be scored; first: sample s0000"):
        evaluate(tmp_path, data=memory_data(2, broken=(0, 1)))


def test_only_ceilings_get_the_truth(tmp_path: Path) -> None:
    class Thief(SlotModel):
        needs_truth = True

        def predict(self, batch: Batch, truth: Any = None) -> Prediction:
            raise AssertionError("must never be called")

    with pytest.raises(UsageError, match="needs_truth is reserved for bundled ceilings"):
        tiny_plan(Thief())
    assert evaluate(tmp_path, "oracle").value("mbo_fg") == 1

    calls: list[tuple[Any, ...]] = []

    class Spy:
        def predict(self, *arguments: Any, **keywords: Any) -> Prediction:
            calls.append((arguments, keywords))
            return Prediction(masks=arguments[0].image)

    plan = tiny_plan(Spy(), count=4)
    run(plan, results=tmp_path, progress=False)
    assert len(calls) == 5, "one batch, two predictions that are compared, and a third in halves"
    (arguments, keywords), *_ = calls
    (batch,) = arguments
    fields = {"ids", "image", "video", "boxes", "noise_seed", "start", "state", "any_of", "questions"}
    assert keywords == {} and vars(batch).keys() == fields
    assert batch.video is None and batch.boxes is None and batch.state is None


def test_ceilings_are_given_by_cards_alone() -> None:
    from ocl_bench.cards.model import load_model_card
    from ocl_bench.cards.names import CARDS
    from ocl_bench.models.loading import get_model

    cards = [load_model_card(path) for path in sorted(CARDS.glob("*.yaml"))]
    ceilings = {card.name for card in cards if card.role == "ceiling"}
    assert ceilings == {"constant-velocity", "executor", "oracle", "patch-oracle", "true-slots", "true-states"}
    for name in ("oracle", "patch-oracle"):
        assert get_model(name).needs_truth
    # This one sees the future frames as images, and no masks of them.
    assert get_model("true-slots").model.needs_future and not get_model("true-slots").needs_truth
    assert not get_model("grid").needs_truth


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    most = 0

    class Counting(SlotModel):
        def predict(self, batch: Batch) -> Prediction:
            nonlocal most
            alive.add(batch.image)
            most = max(most, len(alive))
            return super().predict(batch)

    evaluate(tmp_path, Counting(), count=200, batch_size=8)
    assert most <= 2


def test_an_input_size_of_the_model_wins(tmp_path: Path) -> None:
    class Small(SlotModel):
        input_size = 8

        def predict(self, batch: Batch) -> Prediction:
            assert batch.image.shape[-2:] == (8, 8)
            assert batch.image.dtype == torch.float32 and batch.image.min() >= 0 and batch.image.max() <= 1
            return super().predict(batch)

    assert evaluate(tmp_path, Small(), count=4).counts.scored == 4


def test_usage_errors(tmp_path: Path) -> None:
    for keywords, message in [
        ({"noise_seeds": []}, "noise seeds"),
        ({"noise_seeds": [1, 1]}, "noise seeds"),
        ({"limit": 0}, "limit 0"),
        ({"batch_size": 0}, "batch size 0"),
    ]:
        with pytest.raises(UsageError, match=message):
            tiny_plan(**keywords)
    wrong = tiny_task().model_copy(update={"metrics": ("mbo_fg", "arii")})
    with pytest.raises(UsageError, match=r"task tiny: metrics: metric 'arii' is unknown; did you mean 'ari'\?"):
        tiny_plan(task=wrong)
    assert path_name("../../x") == "-..-x" and path_name("..") == "model" and path_name("dias:1") == "dias-1"
    with pytest.raises(UsageError, match="device 'nonsense' is not available"):
        make_plan(HERE, tiny_task(), data=memory_data(2), device="nonsense")


def test_overlap_error_fails_the_sample(tmp_path: Path) -> None:
    data = memory_data(6)
    whole = data.reader.__class__.__getitem__

    class Overlapping(MemoryReader):
        def __getitem__(self, index: int) -> Any:
            sample = whole(self, index)
            if index == 2:
                sample.truth.labels[0, 0] = -2
            return sample

    reader = Overlapping(6)
    object.__setattr__(data, "reader", reader)
    strict = tiny_task(protocol={"input": SIZE, "score_at": SIZE, "overlap": "error"})
    result = evaluate(tmp_path, data=data, task=strict)
    assert [failure.id for failure in result.counts.failed] == ["s0002"]


def test_no_module_has_the_name_of_a_public_function() -> None:
    """Importing such a module would put it where `ocl_bench.evaluate` was."""
    taken = {name for name in ocl_bench.__all__ if find_spec(f"ocl_bench.{name}") is not None}
    assert taken == set() and find_spec("ocl_bench.core") is not None


def test_kill_and_resume_give_the_same_bytes(tmp_path: Path) -> None:
    killed = forked.run(until_killed, 2, tmp_path / "killed")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    work = list((tmp_path / "killed").rglob("shard-*.parquet"))
    assert len(work) == 2
    plan = tiny_plan(count=150, noise_seeds=[0, 1])
    resumed = run(plan, results=tmp_path / "killed", progress=False)
    reads = set(plan.data.reader.reads)  # type: ignore[attr-defined]
    assert reads == {*range(128, 150), *range(4)}, "what was missing, and the first batch to compare two predictions"
    straight = evaluate(tmp_path / "straight", count=150, noise_seeds=[0, 1])
    assert resumed.rows.sha256 == straight.rows.sha256
    assert resumed.metrics == straight.metrics and resumed.identity.key == straight.identity.key


def test_shards_of_another_setup_or_damaged_ones_are_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = WorkFolder.write

    def interrupted(self: WorkFolder, index: int, shard: Shard) -> None:
        write(self, index, shard)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(WorkFolder, "write", interrupted)
        evaluate(tmp_path, count=150)
    (path,) = tmp_path.rglob("shard-*.parquet")
    assert WorkFolder(path.parent, {"batch_size": 5}).read(0) is None
    path.write_bytes(path.read_bytes()[:100])
    plan = tiny_plan(count=150)
    run(plan, results=tmp_path, progress=False)
    assert len(set(plan.data.reader.reads)) == 150  # type: ignore[attr-defined]


def test_a_shard_of_another_run_is_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(WorkFolder, "read_back", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        evaluate(tmp_path / "other", count=80, noise_seeds=[7])
    plan = tiny_plan(count=80, noise_seeds=[0])
    (left,) = (tmp_path / "other").rglob("*.work")
    shutil.copytree(left, plan.folder(tmp_path / "run") / f"{plan.key[:8]}.work")
    mixed = run(plan, results=tmp_path / "run", progress=False)
    assert set(rows_of(mixed)["noise_seed"]) == {0}
    assert mixed.rows.sha256 == evaluate(tmp_path / "straight", count=80, noise_seeds=[0]).rows.sha256


def test_ranks_share_the_shards_and_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    second = forked.start(print_rows_sha256, tmp_path / "ranks", environment={"WORLD_SIZE": "2", "RANK": "1"})
    with monkeypatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        patch.setenv("RANK", "0")
        plan = tiny_plan(count=150)
        first = run(plan, results=tmp_path / "ranks", progress=False)
    assert len(set(plan.data.reader.reads)) == 64 + 22  # type: ignore[attr-defined]
    assert second.end().stdout.strip() == first.rows.sha256
    assert first.rows.sha256 == evaluate(tmp_path / "one", count=150).rows.sha256


def test_ranks_that_make_no_sense_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(UsageError, match="RANK 2 is not below WORLD_SIZE 2"):
        evaluate(tmp_path)
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UsageError, match="with several ranks, name a model that can be identified"):
        evaluate(tmp_path, SlotModel())


def test_saved_predictions_are_the_scored_maps(tmp_path: Path) -> None:
    from PIL import Image

    from ocl_bench.metrics import compute

    plan = tiny_plan(count=5, noise_seeds=[7])
    result = run(plan, results=tmp_path, progress=False, save_predictions=True)
    assert result.path is not None
    folder = result.path.with_suffix(".predictions") / "seed-7"
    rows = read_rows(result.path).set_index("id")
    for index, sample_id in enumerate(plan.data.ids):
        labels = np.asarray(Image.open(folder / f"{sample_id}.png")).astype(np.int64)
        value = compute(["ari"], plan.data.reader[index].truth.labels[None], labels[None])["ari"][0][0]
        assert value == rows.loc[sample_id, "ari"]
    assert not run(plan, results=tmp_path, progress=False, force=True).reused


def test_a_result_is_written_after_its_rows_and_reads_back(tmp_path: Path) -> None:
    result = evaluate(tmp_path)
    assert result.path is not None
    assert result.path == tmp_path / "tiny" / "tiny_evaluation-build" / f"{result.identity.key[:8]}.json"
    assert read_result(result.path).to_json() == result.to_json()
    assert json.loads(result.path.read_text())["rows"]["file"] == result.path.with_suffix(".parquet").name
    assert not list(tmp_path.rglob("*.tmp"))


def test_limit_cuts_the_scored_split_and_never_the_fit_split(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def opened(task: Any, **keywords: Any) -> Any:
        asked.append(keywords)
        return memory_data(6 if keywords.get("split") == "train" else keywords["limit"])

    monkeypatch.setattr("ocl_bench.data.open_data", opened)
    fit = {"head": "linear", "split": "train", "samples": 4}
    protocol = {"crop": "none", "classes": 3}
    task = tiny_task(family="segmentation", protocol=protocol, metrics=["miou_sem"], main="miou_sem", fit=fit)
    plan = make_plan(HERE, task, limit=2, device="cpu")
    assert len(plan.data.ids) == 2 and plan.train is not None
    assert plan.train.ids == ("s0000", "s0001", "s0003", "s0004"), "4 of 6, evenly spread"
    assert [keywords.get("limit") for keywords in asked] == [2, None]
    assert asked[1]["embedded"] is True, "embedded data is fitted on embedded data"
    assert make_plan(HERE, task, limit=1, device="cpu").fit_key == plan.fit_key
    changed = task.model_copy(update={"fit": task.fit.model_copy(update={"seed": 1})})
    assert make_plan(HERE, changed, limit=2, device="cpu").fit_key != plan.fit_key

"""k-NN: choice of the vector, boxes, agreement with DINO's numbers, rows, intervals and files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from places import PARITY
from pydantic import ValidationError
from safetensors.numpy import load_file
from torch import Tensor

from ocl_bench.cards.task import TaskSpec
from ocl_bench.core.errors import NotApplicableError, SampleError, UsageError
from ocl_bench.core.types import Batch, Instance, Prediction, Sample, Truth
from ocl_bench.data import OpenData
from ocl_bench.evaluation.heads import with_head
from ocl_bench.evaluation.plan import make_plan
from ocl_bench.evaluation.run import run
from ocl_bench.families.knn import IN_BANK, Bank, Knn, touched
from ocl_bench.families.summary import summarise

DINO = PARITY / "dino_knn.safetensors"
METRICS = ["knn_top1", "knn_top1_k10", "knn_top1_k200", "knn_top5", "knn_top5_k5", "knn_top5_k5_dino"]


def card(boxes: str | None = None, **changes: Any) -> TaskSpec:
    content: dict[str, Any] = {
        "name": "tiny-knn",
        "version": 1,
        "family": "knn",
        "data": {"reader": "folder"},
        "protocol": {"input": 16, "temperature": 0.07, "boxes": boxes},
        "fit": {"head": "bank"},
        "metrics": METRICS,
        "main": "knn_top1",
        **changes,
    }
    return TaskSpec.model_validate(content)


def truth(label: int | None, boxes: Sequence[tuple[int, tuple[float, float, float, float]]] = ()) -> Truth:
    instances = tuple(Instance(category, box, None, 1.0) for category, box in boxes)
    return Truth(np.zeros((4, 4), np.int16), instances=instances, label=label)


class TestCard:
    def test_the_card_must_say_what_is_needed(self) -> None:
        with pytest.raises(ValidationError, match=r"is not a head of knn, which knows: bank"):
            card(fit=None)
        with pytest.raises(ValidationError, match=r"Field required"):
            card(protocol={"input": 16})
        with pytest.raises(ValidationError, match="'ari' is a metric of discovery, not of knn"):
            card(metrics=["ari", "knn_top1"])


class TestPooling:
    TOKENS = torch.arange(2 * 3 * 2 * 4, dtype=torch.float32).reshape(2, 3, 2, 4)
    SLOTS = torch.tensor([[[3.0, 4.0], [0.0, 0.0], [1.0, 2.0]], [[0.0, 0.0]] * 3])
    EMBEDDING = torch.tensor([[3.0, 4.0], [0.0, 5.0]])

    def test_an_embedding_goes_first_then_slots_then_tokens(self) -> None:
        adapter = Knn(card())
        everything = Prediction(embedding=self.EMBEDDING, tokens=self.TOKENS, slots=self.SLOTS, embedding_source="cls")
        for prediction, source, expected in (
            (everything, "cls", self.EMBEDDING),
            (replace(everything, embedding=None), "slots:mean", torch.tensor([[2.0, 3.0], [0.0, 0.0]])),
            (Prediction(tokens=self.TOKENS), "tokens:mean", self.TOKENS.mean((2, 3))),
        ):
            assert adapter.check(prediction, 2, "m") is prediction
            assert adapter.source(prediction) == source
            torch.testing.assert_close(adapter.pooled(prediction, None, None), expected)

    def test_outputs_are_unit_vectors(self) -> None:
        first, second = Knn(card()).outputs(Prediction(embedding=1e-30 * self.EMBEDDING.double()), [(4, 4)] * 2)
        np.testing.assert_allclose(first, [0.6, 0.8], atol=1e-7)
        np.testing.assert_allclose(second, [0, 1], atol=1e-7)
        assert first.dtype == np.float32
        assert not Knn(card()).outputs(Prediction(slots=self.SLOTS), [(4, 4)] * 2)[1].any()

    @pytest.mark.parametrize("scale", [1e300, 1e-300, 1e-320])
    def test_the_scale_of_a_vector_does_not_matter(self, scale: float) -> None:
        """Includes values whose squares overflow or underflow, and values that do not fit float32."""
        tokens = scale * torch.tensor([3.0, 4.0], dtype=torch.float64).reshape(1, 2, 1, 1).expand(1, 2, 2, 2)
        slots = scale * torch.tensor([[[3.0, 4.0], [0.0, 0.0]]], dtype=torch.float64)
        for prediction in (Prediction(tokens=tokens), Prediction(slots=slots), Prediction(embedding=slots[:, 0])):
            np.testing.assert_allclose(Knn(card()).outputs(prediction, [(4, 4)])[0], [0.6, 0.8], rtol=1e-3)

    def test_finite_numbers_whose_sum_is_not(self) -> None:
        large = torch.full((2, 3, 4, 4), 3e38)
        large[1] = 1
        with pytest.raises(UsageError, match=r"task tiny-knn: tokens:mean overflows; scale what the model gives"):
            Knn(card()).outputs(Prediction(tokens=large), [(4, 4)] * 2)
        large[0, 0] = torch.inf  # a failed image of its own, which the runner counts
        first, second = Knn(card()).outputs(Prediction(tokens=large), [(4, 4)] * 2)
        assert not first.any()
        np.testing.assert_allclose(second, 3**-0.5, rtol=1e-6)

    def test_with_boxes_an_embedding_counts_only_from_a_model_that_reads_them(self) -> None:
        both = Prediction(embedding=self.EMBEDDING, tokens=self.TOKENS, embedding_source="cls")
        blind, reads = Knn(card("attention")), Knn(card("attention"), reads_boxes=True)
        assert reads.source(reads.check(both, 2, "m")) == "cls"
        assert blind.source(blind.check(both, 2, "m")) == "tokens:mean-in-box"
        assert reads.source(reads.check(replace(both, embedding=None), 2, "m")) == "tokens:mean-in-box"
        assert Knn(card("crop")).source(both) == "cls"
        for prediction in (Prediction(embedding=self.EMBEDDING), Prediction(slots=self.SLOTS)):
            with pytest.raises(NotApplicableError, match=r"model m: Prediction.tokens is missing.*imagenet-knn-crop"):
                blind.check(prediction, 2, "m")

    def test_tokens_within_boxes(self) -> None:
        adapter = Knn(card("attention"))
        granted = (torch.tensor([[0.0, 0.0, 4.0, 8.0], [9.0, 9.0, 11.0, 10.0]]), torch.zeros(0, 4))
        prediction = Prediction(tokens=self.TOKENS, granted=granted)
        first, second = adapter.pooled(prediction, granted, 16)
        torch.testing.assert_close(first, (self.TOKENS[0, :, 0, 0] + self.TOKENS[0, :, 1, 2]) / 2)
        torch.testing.assert_close(second, self.TOKENS[1].mean((1, 2)))
        outputs = adapter.outputs(prediction, [(4, 4)] * 2, 16)
        np.testing.assert_allclose(outputs[0], first / first.norm(), atol=1e-7)
        with pytest.raises(UsageError, match="no boxes were granted"):
            adapter.outputs(Prediction(tokens=self.TOKENS), [(4, 4)] * 2, 16)

    @pytest.mark.parametrize(
        ("box", "expected"),
        [
            ((0, 0, 4, 4), [(0, 0)]),
            ((0, 0, 4.01, 4), [(0, 0), (0, 1)]),
            ((5, 9, 5.5, 9.2), [(2, 1)]),
            ((5, 9, 5, 9), [(2, 1)]),
            ((-5, 3, 2, 5), [(0, 0), (1, 0)]),
            ((15, 15, 90, 90), [(3, 3)]),
            ((0, 0, 0, 0), [(0, 0)]),
        ],
    )
    def test_cells_that_a_box_touches(self, box: tuple[float, ...], expected: list[tuple[int, int]]) -> None:
        cells = touched(torch.tensor([box]), (4, 4), 16)
        assert [tuple(cell) for cell in cells.nonzero().tolist()] == expected

    @pytest.mark.parametrize("box", [(-9, 0, 0, 4), (16, 0, 20, 4), (0, -4, 4, -1), (0, 30, 4, 40)])
    def test_boxes_outside_leave_the_whole_image(self, box: tuple[float, ...]) -> None:
        assert bool(touched(torch.tensor([box], dtype=torch.float32), (4, 4), 16).all())
        both = torch.tensor([box, (0, 0, 1, 1)], dtype=torch.float32)
        assert touched(both, (4, 4), 16).sum() == 1

    def test_refusals(self) -> None:
        adapter = Knn(card())
        with pytest.raises(NotApplicableError, match=r"Prediction.embedding is missing \(got masks\)"):
            adapter.check(Prediction(masks=torch.ones(2, 1, 4, 4)), 2, "m")
        with pytest.raises(UsageError, match=r"embedding has shape \(2, 2\).*expected floating \(3, \*\)"):
            adapter.check(Prediction(embedding=self.EMBEDDING), 3, "m")
        with pytest.raises(UsageError, match=r"slots has shape .* expected floating \(2, \*, \*\)"):
            adapter.check(Prediction(slots=self.EMBEDDING), 2, "m")
        with pytest.raises(UsageError, match="returned dict"):
            adapter.check({}, 2, "m")
        broken = self.EMBEDDING.clone()
        broken[1, 0] = torch.inf
        assert adapter.finite(Prediction(embedding=broken)).tolist() == [True, False]


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def small_bank(rows: Sequence[Sequence[float]], labels: Sequence[int]) -> Bank:
    return Bank(unit(np.array(rows, float)), np.array(labels), 10 * np.arange(len(labels)), 0)


class TestScore:
    def test_official_numbers_in_batches(self) -> None:
        case = load_file(DINO)
        names = [f"knn_top{top}_k{k}{mode}" for k in (5, 10, 20, 100, 200) for top, mode in ((1, ""), (5, ""))]
        names += [f"knn_top5_k{k}_{mode}" for k in (5, 10, 20, 100, 200) for mode in ("dino", "ibot")]
        task = card(metrics=names, main=names[0])
        bank = Bank(unit(case["in.train_features"]), case["in.train_labels"], np.arange(400), 0)
        adapter = Knn(task).with_bank(bank, range(10))
        queries, labels = list(unit(case["in.test_features"])), case["in.test_labels"].tolist()
        rows = []
        for first in range(0, len(queries), 7):
            part = slice(first, first + 7)
            rows += adapter.score([truth(label) for label in labels[part]], queries[part], task)
        frame = pandas.DataFrame(rows).assign(id=range(len(rows)), noise_seed=0)
        assert set(adapter.columns(task)) | {"n_objects"} == set(rows[0])
        np.testing.assert_array_equal(frame["predicted"], case["out.k20.prediction"])
        summary = summarise(frame, task, "cls")
        for position, k in enumerate((5, 10, 20, 100, 200), start=1):
            for name, key in (
                ("1_k{}", "top1"),
                ("5_k{}", "top5_strict"),
                ("5_k{}_dino", "top5"),
                ("5_k{}_ibot", "top5_ibot"),
            ):
                values = summary["knn_top" + name.format(k)]
                assert values.value == pytest.approx(case[f"out.{key}"][position] / 100, abs=1e-12)
                assert values.n_valid == 128 and values.direction == 1 and values.ci95 and values.value
                assert values.ci95[0] <= values.value <= values.ci95[1]
        assert summary["knn_top1_k20"].signature.startswith("knn_top1_k20│crop:none│from:cls│")

    def test_rows(self) -> None:
        task = card()
        bank = small_bank([[1, 0], [1, 0.1], [0, 1], [-1, 0.5], [0, -1], [-1, -1]], [7, 7, -2, 30, 40, 50])
        adapter = Knn(task).with_bank(bank)
        boxes = [(7, (0, 0, 1, 1)), (7, (2, 2, 3, 3)), (30, (0, 0, 4, 4))]
        outputs = list(unit(np.array([[1.0, 0.05], [0.1, 1.0], [0.0, 1.0]])))
        rows = adapter.score([truth(7, boxes), truth(7), truth(1)], outputs, task)
        assert [row["n_objects"] for row in rows] == [2, 0, 0]
        assert [row["label"] for row in rows] == [7.0, 7.0, 1.0]
        assert [row["predicted"] for row in rows] == [7.0, -2.0, -2.0]
        assert [row["knn_top1"] for row in rows] == [1.0, 0.0, 0.0]
        assert [row["knn_top5"] for row in rows] == [1.0, 1.0, 0.0]
        assert all(isinstance(row[name], float) for row in rows for name in adapter.columns(task))
        alone = adapter.score([truth(7)], outputs[1:2], task)
        assert alone == rows[1:2], "a row does not depend on its batch"

    def test_declared_classes_fill_up_the_top_five(self) -> None:
        task = card(metrics=["knn_top5_dino", "knn_top5"], main="knn_top5")
        bank = small_bank([[1, 0], [0, 1]], [5, 9])
        query = [np.array([1, 0], np.float32)]
        for declared, hit in (((), 0.0), (range(8), 1.0)):
            row = Knn(task).with_bank(bank, declared).score([truth(2)], query, task)[0]
            assert (row["knn_top5_dino"], row["knn_top5"]) == (hit, 0.0)

    def test_refusals(self) -> None:
        task, query = card(), [np.array([1, 0], np.float32)]
        with pytest.raises(UsageError, match=r"the bank is missing; call with_head"):
            Knn(task).score([truth(1)], query, task)
        adapter = Knn(task).with_bank(small_bank([[1, 0, 0]], [1]))
        wrong = r"task tiny-knn: the model gives features of 2 numbers, and gave 3 for the bank"
        for queries in (query, [np.zeros(3, np.float32), *query]):
            with pytest.raises(UsageError, match=wrong):
                adapter.score([truth(1)] * len(queries), queries, task)
        with pytest.raises(UsageError, match=r"Truth.label is missing"):
            adapter.score([truth(None)], query, task)
        with pytest.raises(UsageError, match="no masks to draw"):
            adapter.picture(query[0], truth(1))


class ColourReader:
    """Noise with a square in the colour of the class, in a box, and a stripe in any colour."""

    def __init__(self, count: int, seed: int, classes: int = 3) -> None:
        self.ids, self.seed, self.classes = tuple(f"i{number:03d}" for number in range(count)), seed, classes

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        generator = np.random.default_rng([self.seed, index])
        label = index % self.classes
        image = generator.integers(0, 256, (20, 20, 3))
        image[5:10, 5:10] = 0.5 * image[5:10, 5:10] + 128 * np.eye(3)[label]
        image[12:20] = 0.2 * image[12:20] + 200 * np.eye(3)[generator.integers(3)]
        shown = Instance(label, (5.0, 5.0, 10.0, 10.0), None, 25.0)
        other = Instance((label + 1) % 3, (12.0, 12.0, 20.0, 20.0), None, 64.0)
        return Sample(
            self.ids[index],
            image.astype(np.uint8),
            Truth(np.zeros((20, 20), np.int16), (), None, (shown, other), label),
        )


def colours(count: int, seed: int) -> OpenData:
    reader = ColourReader(count, seed)
    revision, names = f"supplied-{seed}", {0: "red", 1: "green", 2: "blue"}
    return OpenData(reader, "supplied", revision, Path("."), reader.ids, "", names)  # type: ignore[arg-type]


class Tokens:
    """Means of 4 x 4 cells as tokens. embed: also give their mean within the granted boxes as an embedding."""

    def __init__(self, embed: bool = False) -> None:
        self.reads_boxes, self.seen = embed, list[tuple[Tensor, ...] | None]()

    def predict(self, batch: Batch) -> Prediction:
        self.seen.append(batch.boxes)
        tokens = torch.nn.functional.adaptive_avg_pool2d(batch.image - 0.5, 4)
        if not self.reads_boxes:
            return Prediction(tokens=tokens)
        assert batch.boxes is not None
        cells = [touched(boxes, (4, 4), batch.image.shape[-1]) for boxes in batch.boxes]
        pooled = torch.stack([grid[:, inside].mean(1) for grid, inside in zip(tokens, cells, strict=True)])
        return Prediction(tokens=tokens, embedding=pooled, embedding_source="obj")


class TestCorridor:
    def result(self, model: Any, task: TaskSpec, results: Path, batch_size: int = 4) -> Any:
        plan = make_plan(model, task, data=colours(30, 1), train=colours(60, 0), device="cpu", batch_size=batch_size)
        return run(plan, results=results, save_predictions=True, progress=False)

    def test_boxes_help_and_reach_bank_and_queries(self, tmp_path: Path) -> None:
        protocol = {"input": 20, "temperature": 0.07}
        without = self.result(Tokens(), card(protocol=protocol), tmp_path)
        model = Tokens()
        within = self.result(model, card(protocol={**protocol, "boxes": "attention"}, name="in-box"), tmp_path)
        attending = self.result(
            Tokens(embed=True), card(protocol={**protocol, "boxes": "attention"}, name="own"), tmp_path
        )
        crop = self.result(Tokens(), card(protocol={**protocol, "boxes": "crop"}, name="cropped"), tmp_path)
        assert within.metrics["knn_top1"].value > 0.9 > without.metrics["knn_top1"].value
        assert crop.metrics["knn_top1"].value > 0.9
        assert attending.metrics == {
            name: value.model_copy(update={"signature": value.signature.replace("tokens:mean-in-box", "obj")})
            for name, value in within.metrics.items()
        }
        assert all(boxes is not None and boxes[0].tolist() == [[5, 5, 10, 10]] for boxes in model.seen)
        assert "from:tokens:mean-in-box" in within.task.signature and "from:tokens:mean│" in without.task.signature
        assert within.counts.single_object_share == 1.0

    def test_a_model_that_changes_its_boxes_changes_no_others(self, tmp_path: Path) -> None:
        class Careless(Tokens):
            def predict(self, batch: Batch) -> Prediction:
                prediction = super().predict(batch)
                for boxes in batch.boxes or ():
                    boxes.zero_()
                return prediction

        task = card(protocol={"input": 20, "temperature": 0.07, "boxes": "attention"}, name="in-box")
        careful = self.result(Tokens(), task, tmp_path / "a")
        assert self.result(Careless(), task, tmp_path / "b").metrics == careful.metrics

    def test_rows_do_not_depend_on_the_batch_and_files_say_why(self, tmp_path: Path) -> None:
        first = self.result(Tokens(), card(), tmp_path / "a")
        second = self.result(Tokens(), card(), tmp_path / "b", batch_size=7)
        frames = [pandas.read_parquet(result.rows_path) for result in (first, second)]
        pandas.testing.assert_frame_equal(frames[0], frames[1])
        files = sorted(first.path.with_suffix(".predictions").rglob("*.json"))
        assert [file.stem for file in files] == [f"i{number:03d}" for number in range(30)]
        for file, (_, row) in zip(files, frames[0].iterrows(), strict=True):
            content = json.loads(file.read_text())
            assert content["predicted"] == row["predicted"] and len(content["positions"]) == 20
            assert content["labels"] == [position % 3 for position in content["positions"]]
            assert content["similarity"] == sorted(content["similarity"], reverse=True)

    def test_the_result_names_the_images_that_are_not_in_the_bank(self, tmp_path: Path) -> None:
        whole = self.result(Tokens(), card(), tmp_path / "whole").fit
        train = colours(60, 0)

        class Damaged(ColourReader):
            def __getitem__(self, index: int) -> Sample:
                if index == 7:
                    raise SampleError(self.ids[index], "image cannot be read")
                return super().__getitem__(index)

        plan = make_plan(
            Tokens(), card(), data=colours(30, 1), train=replace(train, reader=Damaged(60, 0)), device="cpu"
        )
        fit = run(plan, results=tmp_path / "damaged", progress=False).fit
        assert whole is not None and fit is not None
        assert (whole.head, whole.samples, whole.left_out, whole.chosen) == ("bank", 60, (), {})
        assert (fit.samples, fit.left_out) == (60, ("i007",))

    def test_images_that_stand_in_bank_and_queries_are_counted_and_said(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """One split in place of the other: every query finds itself."""
        task = card(protocol={"input": 20, "temperature": 0.07})
        plan = make_plan(Tokens(), task, data=colours(30, 1), train=colours(60, 0), device="cpu", batch_size=4)
        assert run(plan, results=tmp_path / "apart", progress=False).counts.remarks == {}
        plan = make_plan(Tokens(), task, data=colours(9, 0), train=colours(60, 0), device="cpu", batch_size=4)
        result = run(plan, results=tmp_path / "mixed", progress=False)
        assert result.value("knn_top1") is not None and result.counts.remarks == {IN_BANK: 9}
        assert "9 queries with exactly the features of an image in the bank" in caplog.text

    def test_the_bank_comes_from_the_fit_split(self) -> None:
        scored = replace(colours(3, 1), categories={5: "grey"})
        plan = make_plan(Tokens(), card(), data=scored, train=colours(60, 0), device="cpu")
        adapter = with_head(plan).adapter
        assert isinstance(adapter, Knn) and adapter.bank is not None
        assert adapter.bank.features.shape == (60, 3) and adapter.classes.tolist() == [0, 1, 2, 5]

    def test_what_is_unusual_about_a_bank_is_said(self, caplog: pytest.LogCaptureFixture) -> None:
        def said(model: Any, train: OpenData, task: TaskSpec) -> list[str]:
            caplog.clear()
            with caplog.at_level("INFO", logger="ocl_bench"):
                with_head(make_plan(model, task, data=colours(3, 1), train=train, device="cpu"))
            lines = [record.message for record in caplog.records]
            return [line for line in lines if "features of the bank" not in line]

        class Blank:
            def predict(self, batch: Batch) -> Prediction:
                return Prediction(embedding=torch.zeros(len(batch), 3))

        task, train = card(metrics=["knn_top1"]), colours(60, 0)
        assert said(Tokens(), train, task) == []
        more = replace(train, categories={**train.categories, 3: "pink", 4: "white"})
        assert said(Tokens(), more, task) == [
            "task tiny-knn: 2 of 5 classes have no image in the bank, first pink: nothing votes for them"
        ]
        assert said(Blank(), train, card()) == [
            "task tiny-knn: the bank has 60 images, fewer than k = 200: a larger k takes all of them",
            "model blank: gives zeros for 60 of 60 images of the bank: their cosine with every image is 0",
        ]


def test_means_are_those_of_discovery() -> None:
    """Each image has one vote, NaN is not valid, and a single valid image has no interval."""
    task = card(family="discovery", metrics=["ari", "vi"], main="ari", fit=None, protocol={})
    rows = pandas.DataFrame(
        {
            "id": list("aabbc"),
            "noise_seed": [0, 1, 0, 1, 0],
            "ari": [0.0, 1.0, np.nan, 0.2, np.nan],
            "vi": [np.nan] * 4 + [2.0],
        }
    )
    values = summarise(rows, task, "decoder")
    assert values["vi"].direction == -1 and values["vi"].value == 2 and values["vi"].ci95 is None
    assert values["ari"].value == pytest.approx(0.35) and values["ari"].n_valid == 2
    assert (values["vi"].value, values["vi"].n_valid, values["vi"].se, values["vi"].direction) == (2.0, 1, None, -1)

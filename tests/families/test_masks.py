"""One rule for masks in every family: weights in [0, 1], declared logits, or label maps; all else is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from all_families import SIDE, SLOTS, Everything, annotated, small_task
from tiny_videos import Colours, memory_videos, video_task

from ocl_bench.core.errors import UsageError
from ocl_bench.core.types import Batch, Prediction, Truth
from ocl_bench.evaluation.check_model import check_model
from ocl_bench.evaluation.plan import make_plan
from ocl_bench.evaluation.run import run
from ocl_bench.families import get_adapter
from ocl_bench.families.checks import check_field, check_prediction
from ocl_bench.families.masks import check_masks
from ocl_bench.results.record import Result
from ocl_bench.results.rows import read_rows

SIZE = 4
WEIGHTS = torch.rand(SIZE, SLOTS, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.zeros(SIZE, 8, 8, dtype=torch.int64)


def check(masks: Any, **fields: Any) -> Prediction:
    return check_masks(Prediction(masks=masks, mask_source="decoder", **fields), SIZE, "mine")


@pytest.mark.parametrize(
    "masks",
    [
        WEIGHTS,
        WEIGHTS.softmax(1).half(),
        WEIGHTS.softmax(1).bfloat16(),
        WEIGHTS.double(),
        WEIGHTS / 3,  # weights need not sum to 1
        torch.rand(SIZE, 8, 8, 3),  # as many slots as rows
        torch.full((SIZE, 3, 8, 8), 0.125),  # rows that sum to 1
        torch.ones(SIZE, 1, 8, 8),
        torch.full((SIZE, SLOTS, 8, 8), 1 + 1e-4),  # rounding
        LABELS,
        LABELS.to(torch.uint8),
        LABELS + 100_000,
    ],
)
def test_usable_masks_are_left_as_they_are(masks: torch.Tensor) -> None:
    checked = check(masks)
    assert checked.masks is masks and checked.masks_from == "decoder"


def test_declared_logits_become_weights_and_the_signature_says_so() -> None:
    logits = 9 * torch.randn(SIZE, SLOTS, 8, 8, generator=torch.Generator().manual_seed(1))
    checked = check(logits, mask_logits=True)
    assert checked.masks is not None
    torch.testing.assert_close(checked.masks, logits.softmax(1))
    assert checked.masks_from == "decoder+softmax" and not checked.mask_logits
    again = check_masks(checked, SIZE, "mine")  # a second check changes nothing
    assert again.masks is checked.masks and again.masks_from == "decoder+softmax"


def test_logits_are_recognised_by_their_range_only() -> None:
    """Those within [0, 1] cannot be told from weights, which the contract says."""
    with pytest.raises(UsageError, match=r"values from -2 to 3, expected weights in \[0, 1\].*mask_logits=True"):
        check(torch.linspace(-2, 3, SIZE * SLOTS * 64).view(SIZE, SLOTS, 8, 8))
    with pytest.raises(UsageError, match=r"values from -inf to 1, .*the finite weight 0 for a slot at -inf"):
        check(torch.where(torch.arange(SLOTS).view(1, -1, 1, 1) == 1, -torch.inf, torch.ones(SIZE, SLOTS, 8, 8)))
    check(WEIGHTS, mask_logits=False)
    one_row = WEIGHTS.clone()
    one_row[2] = torch.nan  # an image, which is counted, and no reason to refuse the others
    check(one_row)
    with pytest.raises(UsageError, match=r"values from 0\.5 to 7,"):
        check(torch.where(one_row.isnan(), one_row, torch.tensor([0.5, 7.0, 0.5]).view(1, 3, 1, 1)))


@pytest.mark.parametrize("low", [-torch.inf, -1e4])
def test_a_slot_at_minus_infinity_wins_nothing(low: float) -> None:
    logits = WEIGHTS.log()
    logits[:, 1] = low
    adapter = get_adapter(small_task("discovery"))
    checked = adapter.check(Prediction(masks=logits, mask_source="clusters", mask_logits=True), SIZE, "mine")
    assert adapter.finite(checked).all()
    expected = WEIGHTS[:, [0, 2]].argmax(1) * 2
    maps = adapter.outputs(checked, [(8, 8)] * SIZE)
    np.testing.assert_array_equal(np.stack(maps), expected.numpy())


def test_a_pixel_without_any_slot_fails_its_image_only() -> None:
    logits = WEIGHTS.log()
    logits[1, :, 0, 0] = -torch.inf
    adapter = get_adapter(small_task("discovery"))
    checked = adapter.check(Prediction(masks=logits, mask_source="clusters", mask_logits=True), SIZE, "mine")
    assert adapter.finite(checked).tolist() == [True, False, True, True]


SHAPES = {
    "numpy": (WEIGHTS.numpy(), r"is ndarray of shape \(4, 3, 8, 8\), expected a torch.Tensor .*torch.from_numpy"),
    "list": (list(WEIGHTS), r"is list, expected a torch.Tensor .*torch.stack"),
    "bool": (WEIGHTS > 0.5, r"shape \(4, 3, 8, 8\) and dtype torch.bool, .*give weights, masks.float\(\)$"),
    "bool maps": (LABELS > 0, r"\(4, 8, 8\) and dtype torch.bool, .*give masks.long\(\)"),
    "one-hot": (WEIGHTS.round().long(), r"give weights, masks.float\(\)$"),
    "bytes": ((WEIGHTS * 255).to(torch.uint8), r"torch.uint8, .*masks.float\(\) / 255$"),
    "one channel": (LABELS[:, None], r"\(4, 1, 8, 8\).*drop the axis of length 1, masks\[:, 0\]"),
    "float maps": (LABELS.float(), r"label maps are integers, masks.long\(\).*give masks\[:, None\]"),
    "no batch": (WEIGHTS[0], r"\(3, 8, 8\).*is the axis of the batch missing\? For one image give masks\[None\]"),
    "no batch of maps": (LABELS[0], r"\(8, 8\).*is the axis of the batch missing"),
    "slots last": (WEIGHTS.softmax(1).permute(0, 2, 3, 1), r"\(4, 8, 8, 3\).*masks.permute\(0, 3, 1, 2\)"),
    "many slots last": (torch.rand(4, 8, 8, 24).softmax(-1), r"\(4, 8, 8, 24\).*masks.permute\(0, 3, 1, 2\)"),
    "clip": (WEIGHTS[None], r"clips \(B,T,..\) are for tasks on videos"),
    "no slots": (WEIGHTS[:, :0], "no axis may be empty"),
    "complex": (WEIGHTS.to(torch.complex64), "give real numbers"),
    "other size": (WEIGHTS[:2], "has batch size 2, expected 4"),
    "negative label": (LABELS - 1, "has label -1, expected labels >= 0"),
}


@pytest.mark.parametrize("case", SHAPES)
def test_other_layouts_are_named_with_the_shape_and_the_remedy(case: str) -> None:
    masks, message = SHAPES[case]
    with pytest.raises(UsageError, match=message) as caught:
        check(masks)
    assert str(caught.value).startswith("model mine: Prediction.masks ") and "\n" not in str(caught.value)


def test_logits_with_the_slots_last_are_named_where_the_grid_says_it() -> None:
    with pytest.raises(UsageError, match=r"masks.permute\(0, 3, 1, 2\)"):
        check(9 * torch.randn(SIZE, 16, 16, 3), mask_logits=True)


def test_label_maps_are_no_logits() -> None:
    with pytest.raises(UsageError, match="mask_logits is set, but masks are label maps"):
        check(LABELS, mask_logits=True)


class Logits(Everything):
    """The same masks as weights (their softmax), as logits, or as logits that are not declared."""

    def __init__(self, *, softmax: bool = False, declared: bool = True) -> None:
        super().__init__()
        self.softmax, self.declared = softmax, declared

    def predict(self, batch: Batch) -> Prediction:
        found = super().predict(batch)
        assert found.masks is not None
        logits = (found.masks.log() * 9).contiguous()
        logits[:, 2] = logits[:, 2].clamp_min(-5)
        if self.softmax:
            return replace(found, masks=logits.softmax(1), mask_source="prototypes")
        return replace(found, masks=logits, mask_source="prototypes", mask_logits=self.declared)


def result(case: str, model: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Result:
    monkeypatch.setenv("OCL_BENCH_CACHE", str(folder / "cache"))
    task = small_task(case)
    train = annotated(12, 100) if task.fit else None
    plan = make_plan(model, task, data=annotated(6), train=train, batch_size=4, device="cpu")
    return run(plan, results=folder, progress=False)


USING_MASKS = ("discovery", "detection", "slot", "recognition", "kmeans")


@pytest.mark.parametrize("case", USING_MASKS)
def test_every_family_scores_logits_as_their_softmax(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In detection too, whose scores are means of the weights: cut to 0..1, logits would all score 1."""
    weights = result(case, Logits(softmax=True), tmp_path / "weights", monkeypatch)
    logits = result(case, Logits(), tmp_path / "logits", monkeypatch)
    assert {name: one.value for name, one in logits.metrics.items()} == {
        name: one.value for name, one in weights.metrics.items()
    }
    assert "prototypes+softmax" in logits.task.signature and "+softmax" not in weights.task.signature
    with pytest.raises(UsageError, match=r"expected weights in \[0, 1\]"):
        result(case, Logits(declared=False), tmp_path / "undeclared", monkeypatch)


class Ranked:
    """Six slots on 16 x 16: background, two objects, and two false parts that lie between them in the ranking."""

    def __init__(self, *, softmax: bool) -> None:
        self.softmax = softmax

    def predict(self, batch: Batch, truth: list[Truth]) -> Prediction:
        logits = torch.full((len(batch), 4, SIDE, SIDE), -6.0)
        logits[:, 0] = 1.1
        for row, one in enumerate(truth):
            logits[row, 2][torch.from_numpy(one.labels > 0)] = 9.0
        logits[:, 1, :4, :4] = 1.2  # a false part in front of the object
        if self.softmax:
            return Prediction(masks=logits.softmax(1), mask_source="decoder")
        return Prediction(masks=logits, mask_source="decoder", mask_logits=True)

    needs_truth = True


def test_objects_rank_before_false_parts_in_detection() -> None:
    task = small_task("detection")
    reader = annotated(4).reader
    truth = [reader[index].truth for index in range(4)]
    adapter = get_adapter(task)
    batch = Batch(tuple("abcd"), torch.zeros(4, 3, SIDE, SIDE))
    for softmax in (False, True):
        checked = adapter.check(Ranked(softmax=softmax).predict(batch, truth), 4, "mine")
        for output in adapter.outputs(checked, [(SIDE, SIDE)] * 4):
            assert output.scores[0] > 0.999 > output.scores[1]
            assert (output.boxes[0][2:] - output.boxes[0][:2]).tolist() == [8, 8]


class LogitColours(Colours):
    """A model of images whose slots are linked over time."""

    def __init__(self, *, softmax: bool) -> None:
        super().__init__()
        self.softmax = softmax

    def predict(self, batch: Batch) -> Prediction:
        found = super().predict(batch)
        assert found.masks is not None
        logits = 9 * found.masks - 5
        if self.softmax:
            return replace(found, masks=logits.softmax(1))
        return replace(found, masks=logits, mask_logits=True)


def test_logits_of_a_model_of_images_on_videos(tmp_path: Path) -> None:
    found = [
        run(
            make_plan(LogitColours(softmax=softmax), video_task(), data=memory_videos(3), device="cpu"),
            results=tmp_path / str(softmax),
            progress=False,
        )
        for softmax in (True, False)
    ]
    weights, logits = (read_rows(one.path) for one in found if one.path is not None)
    pandas.testing.assert_frame_equal(weights, logits)
    assert "+softmax+linked-slots" in found[1].task.signature


def test_check_model_says_what_eval_says() -> None:
    class Bare(Everything):
        def predict(self, batch: Batch) -> Prediction:
            found = super().predict(batch)
            assert found.masks is not None
            return Prediction(masks=found.masks.log(), mask_source="decoder")

    class Declared(Bare):
        def predict(self, batch: Batch) -> Prediction:
            found = super().predict(batch)
            assert found.masks is not None
            off = found.masks.clone()
            off[:, 0] = -torch.inf
            return replace(found, masks=off, mask_logits=True)

    failed = [one for one in check_model(Bare()) if one.passed is False]
    assert [one.name for one in failed] == ["fields and shapes"] and "expected weights in [0, 1]" in failed[0].detail
    assert all(one.passed for one in check_model(Declared()))


@pytest.mark.parametrize(
    "masks",
    [
        LABELS.reshape(SIZE, 1, 64),
        LABELS.reshape(SIZE, 64, 1),
        LABELS.reshape(SIZE, 1, 64)[:, :, :4],
        WEIGHTS.reshape(SIZE, SLOTS, 1, 64),
        WEIGHTS.reshape(SIZE, SLOTS, 64, 1),
        torch.zeros(SIZE, 2, 128, dtype=torch.int64),
    ],
)
def test_flattened_masks_are_refused(masks: torch.Tensor) -> None:
    with pytest.raises(UsageError, match=r"are flattened, or a strip.*reshape"):
        check(masks)


def test_flattened_tokens_are_refused() -> None:
    with pytest.raises(UsageError, match=r"Prediction.tokens has shape \(4, 5, 1, 64\).*are flattened, or a strip"):
        check_field(Prediction(tokens=torch.zeros(SIZE, 5, 1, 64)), "tokens", (SIZE, None, None, None), "mine")


@pytest.mark.parametrize(("side", "width"), [(8, 3), (16, 64), (16, 256)])
def test_tokens_with_the_features_last_are_refused(side: int, width: int) -> None:
    """Two equal axes and then another one: a grid on square images would be square."""
    tokens = torch.rand(SIZE, side, side, width)
    for shape in ((SIZE, None, None, None), (SIZE, side, None, None)):
        with pytest.raises(UsageError, match=r"the features last; give tokens.permute\(0, 3, 1, 2\)$"):
            check_field(Prediction(tokens=tokens), "tokens", shape, "mine")
    for usable in (tokens.permute(0, 3, 1, 2), torch.rand(SIZE, side, side, side), torch.rand(SIZE, 5, 8, 6)):
        assert check_field(Prediction(tokens=usable), "tokens", (SIZE, None, None, None), "mine") is usable


@pytest.mark.parametrize("field", ["masks", "slots", "tokens", "embedding", "boxes", "scores"])
def test_sparse_fields_are_one_short_line(field: str) -> None:
    sparse = torch.eye(SIZE).to_sparse()
    with pytest.raises(UsageError, match=f"Prediction.{field} is a sparse tensor.*to_dense") as caught:
        check_prediction(Prediction(**{field: sparse}), "mine")  # type: ignore[arg-type]
    assert len(str(caught.value)) < 150

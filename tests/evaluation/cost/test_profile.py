"""`ocl-bench profile`: counts against closed forms, turns and ratios on made-up clocks, memory, JSON, errors.

No test asserts a time: it depends on the machine.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from ocl_bench.cards.names import model_names
from ocl_bench.cli import app
from ocl_bench.core.errors import UsageError
from ocl_bench.evaluation.cost import ModelChoice, ProfileSetup, Subject, profile_models, write_figure
from ocl_bench.evaluation.cost import measure as measuring
from ocl_bench.evaluation.cost.counts import Operations, Parameters, count_operations, count_parameters
from ocl_bench.evaluation.cost.measure import ModelCost, describe, in_turns, ratio_of_times
from ocl_bench.evaluation.cost.memory import NOWHERE, method, peak_memory
from ocl_bench.results.measured import Figure

OWN = '''
import torch
from ocl_bench.core.types import Prediction


class Frames(torch.nn.Module):
    """A convolution of every pixel to 4 slots, attention of the mean colours, and layers that no prediction reads."""

    input_size, mask_source = 16, "decoder"

    def __init__(self, memory_mb=0):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 1)
        self.frozen = torch.nn.Parameter(torch.ones(4), requires_grad=False)
        self.teacher = torch.nn.Linear(100, 100)
        self.megabytes = memory_mb

    def predict(self, batch):
        x = batch.image.flatten(2).transpose(1, 2)[:, None, :8]
        torch.nn.functional.scaled_dot_product_attention(x, x, x)
        if self.megabytes:
            torch.ones(self.megabytes, 10**6, dtype=torch.uint8)
        masks = self.conv(batch.image) * self.frozen[:, None, None]
        return Prediction(masks=masks, slots=masks.mean((2, 3))[..., None], mask_source="decoder")


def build(memory_mb=0):
    return Frames(memory_mb)


def fails():
    model = Frames()
    model.conv = torch.nn.Conv2d(5, 4, 1)
    return model
'''


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "own.py").write_text(OWN)
    return f"{tmp_path / 'own.py'}"


def call(*arguments: Any) -> Result:
    return CliRunner().invoke(app, ["profile", *(str(argument) for argument in arguments)])


def cost(seconds: list[float], frames: int = 4, parameters: int = 10) -> ModelCost:
    counts = Parameters(parameters, parameters, parameters), Operations(2e9, 1e9), 1000
    return ModelCost("m", {}, False, True, 16, frames, *counts, tuple(seconds))


def test_parameters_are_those_that_a_prediction_reads(own: str) -> None:
    """The frozen ones are in it, a teacher is not; trainable are those that have a gradient, read or not."""
    found = count_parameters(Subject(ModelChoice(f"{own}:build"), ProfileSetup()))
    assert found == Parameters(inference=3 * 4 + 4 + 4, whole=3 * 4 + 4 + 4 + 10_100, trainable=16 + 10_100)


@pytest.mark.parametrize("batch", [1, 3])
def test_operations_are_counted_per_frame_with_attention_apart(own: str, batch: int) -> None:
    found = count_operations(Subject(ModelChoice(f"{own}:build"), ProfileSetup(batch=batch)))
    convolution, attention = 2 * 3 * 4 * 16 * 16, 2 * (2 * 8 * 8 * 3)
    assert found == Operations(convolution + attention, convolution)


def paper_side(card: str, variant: str, **options: Any) -> ModelChoice:
    return ModelChoice(card, {"variant": variant, **options}, untrained=True)


def test_the_whole_student_is_read_and_its_attention_is_as_in_the_closed_form() -> None:
    """At the paper's widths on few pixels; 12 blocks, two products of (N, 384) each, N = 3 * 3 patches + 1, and the
    predictor, once a frame. The 217 tensors are the parameters: nothing is left out and nothing counted twice."""
    subject = Subject(paper_side("slotmatch-paper", "movi_e", input_size=42, hidden=64), ProfileSetup(clip=2))
    counted, operations = count_parameters(subject), count_operations(subject)
    assert counted.inference == counted.whole == sum(one.numel() for one in subject.loaded.model.parameters())
    backbone = sum(one.numel() for one in subject.loaded.model.encoder.parameters())
    assert counted.trainable == counted.whole - backbone
    attention = operations.total - operations.without_attention
    assert attention == 12 * 4 * 10**2 * 384 + 4 * 15**2 * 128


@pytest.mark.parametrize(("variant", "ratio"), [("movi_e", 3.57), ("ytvis", 3.62)])
def test_the_papers_ratio_of_parameters(variant: str, ratio: float) -> None:
    """Weights without storage: what is read is tested above, so that the whole is what counts here."""
    from ocl_bench.models import slotcontrast, slotmatch

    with torch.device("meta"):
        models = slotcontrast.build(variant=variant), slotmatch.build(variant=variant)
    whole = [sum(one.numel() for one in model.parameters()) for model in models]
    assert whole[0] / whole[1] == pytest.approx(ratio, abs=0.005)


def test_models_are_timed_in_turns_after_warming_up() -> None:
    done: list[str] = []
    ticks: Iterator[float] = iter(itertools.count(0.0, 1.0))
    seconds = in_turns([lambda: done.append("a"), lambda: done.append("b")], 1, 3, lambda: next(ticks))
    assert "".join(done) == "abababab" and seconds.shape == (2, 3) and (seconds == 1).all()


def test_ratio_is_the_median_of_turns_with_an_interval() -> None:
    """One slow turn of both changes nothing; constant turns have no spread; frames are counted."""
    ours = [1.0, 1.0, 9.0, 1.0, 1.0]
    assert ratio_of_times(cost(ours), cost([2 * one for one in ours])).ratio == 2
    constant = ratio_of_times(cost(ours), cost([2 * one for one in ours]))
    assert (constant.low, constant.high) == (2, 2)
    assert ratio_of_times(cost(ours, frames=4), cost(ours, frames=1)).ratio == 4
    noisy = ratio_of_times(cost([1.0] * 40), cost(list(np.random.default_rng(0).normal(3, 0.3, 40))))
    assert 2.7 < noisy.low < noisy.ratio < noisy.high < 3.3


def test_quartiles_and_rate() -> None:
    one = cost([1.0, 2.0, 3.0, 4.0, 5.0], frames=6)
    assert one.quartiles == (2, 3, 4) and one.frames_per_second == 2


def test_figure_is_what_claims_reads(own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "peak_memory", lambda subject: None)
    side = ModelChoice(f"{own}:build")
    found = profile_models([side, side], ProfileSetup(repeats=2, warmup=0))
    path = write_figure(tmp_path / "new" / "f.json", found, ["profile", "--model", "a b"])
    read = Figure.model_validate_json(path.read_text())
    assert read.low <= read.ratio <= read.high and read.command == "ocl-bench profile --model 'a b'"
    assert read.setup == describe(found)
    with pytest.raises(UsageError, match="--against"):
        write_figure(path, profile_models([side], ProfileSetup(repeats=2, warmup=0)), [])


@pytest.mark.skipif(method("cpu") == NOWHERE, reason="Linux only")
def test_memory_of_a_pass_is_seen(own: str) -> None:
    """A pass that fills 200 MB for a moment has grown by as much, one that does not has not."""
    small, large = (
        peak_memory(Subject(ModelChoice(f"{own}:build", {"memory_mb": megabytes}), ProfileSetup()))
        for megabytes in (0, 200)
    )
    assert small is not None and large is not None
    assert 190e6 < large - small < 215e6


def test_memory_that_cannot_be_measured_says_so(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocl_bench.evaluation.cost.memory._RESET", Path("/nowhere/clear_refs"))
    subject = Subject(ModelChoice(f"{own}:build"), ProfileSetup())
    assert peak_memory(subject) is None and method("cpu") == NOWHERE


def test_streaming_gives_frames_one_by_one_with_the_state() -> None:
    setup = ProfileSetup(clip=3, streaming=True, size=32)
    subject = Subject(ModelChoice("slotcontrast"), setup)
    starts: list[tuple[int, int, bool]] = []
    model, predict = subject.model, subject.model.predict

    def noted(batch: Any) -> Any:
        starts.append((batch.start, batch.video.shape[1], batch.state is None))
        return predict(batch)

    model.predict = noted
    subject.run()
    assert starts == [(0, 1, True), (1, 1, False), (2, 1, False)]


def test_a_model_of_images_gets_clips_beside_one_of_videos(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "peak_memory", lambda subject: None)
    choices = [ModelChoice(f"{own}:build"), ModelChoice("slotcontrast")]
    found = profile_models(choices, ProfileSetup(repeats=2, warmup=0, clip=2, size=32))
    assert [one.video for one in found.costs] == [True, True] and [one.frames for one in found.costs] == [2, 2]
    assert "memory" not in found.ratios and "clips of 2 frames" in describe(found)
    alone = profile_models(choices[:1], ProfileSetup(repeats=2, warmup=0))
    assert not alone.costs[0].video and alone.ratios == {} and alone.time_ratio is None


def test_lower_precision_counts_the_same(own: str) -> None:
    counts = [
        count_operations(Subject(ModelChoice(f"{own}:build"), ProfileSetup(dtype=dtype)))
        for dtype in ("float32", "bfloat16")
    ]
    assert counts[0] == counts[1]


def test_a_model_of_videos_can_be_profiled_in_lower_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its operations are counted in float32: autocast does not see the parts of those that the counter breaks up."""
    monkeypatch.setattr(measuring, "peak_memory", lambda subject: None)
    found = profile_models([ModelChoice("slotmatch")], ProfileSetup(dtype="bfloat16", repeats=2, warmup=0, clip=2))
    assert found.setup.dtype == "bfloat16" and found.costs[0].operations.total > 0


@pytest.mark.parametrize("name", ["oracle", "grid", "kmeans-features", "pixels", "dias", "slotcon", "odis"])
def test_cards_of_every_kind_can_be_profiled(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a model is asked for differs by its families; each at its own size."""
    monkeypatch.setattr(measuring, "peak_memory", lambda subject: None)
    found = profile_models([ModelChoice(name)], ProfileSetup(repeats=2, warmup=0))
    assert found.costs[0].parameters.inference <= found.costs[0].parameters.whole


def test_json_is_one_document_with_everything(own: str, tmp_path: Path) -> None:
    figure = tmp_path / "f.json"
    arguments = ["--model", f"{own}:build", "--against", f"{own}:build", "--against-option", "memory_mb=1"]
    result = call(*arguments, "--repeats", 2, "--device", "cpu", "--threads", 1, "--out", figure, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert set(found) == {"setup", "machine", "memory", "models", "ratios", "time_ratio"}
    assert set(found["setup"]) == {
        "device",
        "dtype",
        "threads",
        "batch",
        "clip",
        "size",
        "streaming",
        "warmup",
        "repeats",
    }
    assert {"device", "tf32", "processors", "load_before", "torch"} <= set(found["machine"])
    assert found["ratios"]["parameters"] == 1 and set(found["time_ratio"]) == {"ratio", "low", "high"}
    (one, other) = found["models"]
    assert len(one["seconds"]["all"]) == 2 and other["options"] == {"memory_mb": 1} and figure.is_file()


def test_table_has_counts_ratio_and_setup(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "peak_memory", lambda subject: None)
    result = call("--model", f"{own}:build", "--against", f"{own}:build", "--repeats", 2, "--device", "cpu")
    assert result.exit_code == 0, result.output
    for text in ("10,120", "trainable", "without attention", "quartiles", "TF32 off", "in turns", "batch 1"):
        assert text in result.stdout, text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "slotmatch-paper"), "--untrained"),
        (("--model", "slotmatsh"), "did you mean slotmatch"),
        (("--model", "grid", "--dtype", "int8"), "--dtype int8"),
        (("--model", "grid", "--out", "f.json"), "--against MODEL"),
        (("--model", "grid", "--against-option", "a=1"), "--against MODEL"),
        (("--model", "slotcontrast", "--untrained", "--size", "33"), "multiples of 8"),
    ],
)
def test_errors_are_one_line_with_a_remedy(arguments: tuple[str, ...], message: str) -> None:
    result = call(*arguments, "--device", "cpu")
    assert result.exit_code == 2 and message in result.stderr and "slotmatch-paper" in model_names()
    assert result.stderr.strip().splitlines()[-1].startswith("error: ")


def test_a_failing_model_is_named(own: str) -> None:
    with pytest.raises(UsageError, match="predict failed on 1 frames of side 16"):
        Subject(ModelChoice(f"{own}:fails"), ProfileSetup()).run()


@pytest.mark.parametrize(("field", "value"), [("repeats", 1), ("batch", 0), ("clip", 0), ("warmup", -1), ("size", 4)])
def test_setups_that_measure_nothing_are_refused(field: str, value: int) -> None:
    with pytest.raises(UsageError, match=f"--{field}"):
        ProfileSetup(**{field: value})

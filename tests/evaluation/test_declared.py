"""What a user says about a model: its name, its training seed, what it saw; and what a result records of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rectangles_with_boxes import TASK as DETECTION_TASK
from rectangles_with_boxes import rectangles
from tiny_evaluation import HERE, SlotModel, tiny_plan, tiny_task
from tiny_videos import VideoMemory, video_task

from ocl_bench.core.errors import UsageError
from ocl_bench.core.types import Batch, Prediction
from ocl_bench.data import OpenData
from ocl_bench.evaluation.determinism import agreement
from ocl_bench.evaluation.plan import make_plan
from ocl_bench.evaluation.run import run
from ocl_bench.models.loading import get_model
from ocl_bench.results.record import Result, read_result
from ocl_bench.tables.comparison.compare import compare
from ocl_bench.tables.leaderboard.build import make_board

MODEL = """
import torch
from ocl_bench import Prediction
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.tensor({shift}))
    def predict(self, batch):
        first = (batch.image.mean(1) + self.shift).clamp(0, 1)
        return Prediction(masks=torch.stack([first, 1 - first], 1), mask_source="clusters")
def build(weights=""): return Net()
"""


def model_file(folder: Path, shift: float = 0.0, text: str = MODEL) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.py").write_text(text.format(shift=shift))
    return f"{folder / 'model.py'}:build"


def evaluated(folder: Path, model: Any, **keywords: Any) -> Result:
    return run(tiny_plan(model, **keywords), results=folder / "results", progress=False)


def rows_of_board(folder: Path) -> dict[str, tuple[str, str]]:
    """Group and rank of each row by its name."""
    board = make_board([folder / "results"], tiny_task())
    return {row.model: (group.supervision, row.rank) for group, rows in board.groups for row in rows}


def test_an_undeclared_model_ranks_in_a_group_of_its_own(tmp_path: Path) -> None:
    undeclared = evaluated(tmp_path, model_file(tmp_path))
    assert undeclared.model.supervision == "undeclared"
    declared = evaluated(tmp_path, model_file(tmp_path), supervision="none", name="said")
    assert declared.model.supervision == "none"
    assert rows_of_board(tmp_path) == {"model-build": ("undeclared", "1"), "said": ("none", "1")}
    with pytest.raises(UsageError, match="supervision 'much': use none, boxes, masks, undeclared"):
        evaluated(tmp_path, model_file(tmp_path), supervision="much")


def test_an_attribute_declares_and_an_option_cannot_say_otherwise(tmp_path: Path) -> None:
    head = "class Net(torch.nn.Module):\n"
    path = model_file(tmp_path, text=MODEL.replace(head, f"{head}    supervision = 'masks'\n"))
    assert get_model(path).card.supervision == "masks"
    with pytest.raises(UsageError, match="declares supervision masks itself, not none"):
        evaluated(tmp_path, path, supervision="none")


def test_a_card_without_the_field_is_undeclared(tmp_path: Path) -> None:
    model_file(tmp_path)
    card = tmp_path / "mine.yaml"
    card.write_text("name: mine\nsource: model.py:build\n")
    assert get_model(str(card)).card.supervision == "undeclared"
    card.write_text("name: mine\nsource: model.py:build\nsupervision: none\n")
    assert get_model(str(card)).card.supervision == "none"


def test_a_result_declared_anew_is_not_reused(tmp_path: Path) -> None:
    path = model_file(tmp_path)
    evaluated(tmp_path, path)
    again = evaluated(tmp_path, path, supervision="boxes")
    assert not again.reused and again.model.supervision == "boxes"
    assert evaluated(tmp_path, path, supervision="boxes").reused


def test_an_old_result_of_a_user_without_declaration_is_undeclared(tmp_path: Path) -> None:
    new = evaluated(tmp_path, model_file(tmp_path), supervision="none")
    assert new.path is not None
    content = json.loads(new.path.read_text())
    for field in ("input_size", "code_sha256", "state"):
        del content["model"][field]
    del content["identity"]["deterministic"]
    new.path.write_text(json.dumps(content))
    old = read_result(new.path)
    assert (old.model.supervision, old.model.input_size, old.identity.deterministic) == ("undeclared", None, None)
    assert rows_of_board(tmp_path) == {"model-build": ("undeclared", "1")}
    content["model"]["card"] = "dias"
    new.path.write_text(json.dumps(content))
    assert read_result(new.path).model.supervision == "none", "a bundled card has declared it"


def test_the_side_of_the_images_is_recorded_and_on_the_board(tmp_path: Path) -> None:
    class Large(SlotModel):
        input_size = 32
        name = "large"

    result = evaluated(tmp_path, Large())
    assert result.model.input_size == 32
    assert evaluated(tmp_path, HERE).model.input_size == 16, "that of the task"
    board = make_board([tmp_path / "results"], tiny_task())
    sizes = {row.model: row.facts.input_size for _, rows in board.groups for row in rows}
    assert sizes == {"large": "32", "tiny_evaluation-build": "16"}


def test_two_files_of_one_name_are_two_models(tmp_path: Path) -> None:
    first, second = (
        evaluated(tmp_path, model_file(tmp_path / name, shift)) for name, shift in (("a", 0.0), ("b", 0.4))
    )
    assert first.path != second.path
    names = rows_of_board(tmp_path)
    assert len(names) == 2 and all(name.startswith("model-build ") for name in names)
    with pytest.raises(UsageError, match=r"model-build: several results with different .*name one"):
        compare("model-build", "grid", tiny_task(), results=[tmp_path / "results"])


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"name": "dias"}, "name 'dias': is that of a bundled model"),
        ({"name": "My Model"}, "name 'My Model': use small letters"),
        ({"name": "../x"}, "use small letters"),
        ({"training_seed": -1}, "training seed -1: use a number from 0"),
    ],
)
def test_what_cannot_be_declared_is_one_line(tmp_path: Path, keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        evaluated(tmp_path, model_file(tmp_path), **keywords)


def test_a_bundled_model_keeps_what_its_card_says() -> None:
    for keywords, message in (
        ({"name": "mine"}, "a floor keeps its name"),
        ({"supervision": "masks"}, "its card says supervision none"),
    ):
        with pytest.raises(UsageError, match=message):
            tiny_plan("grid", **keywords)
    with pytest.raises(UsageError, match="these are the bundled weights, which keep their name"):
        tiny_plan("slot-attention", name="mine")
    with pytest.raises(UsageError, match="its name says training seed 1, not 2"):
        tiny_plan("slot-attention:1", training_seed=2)
    assert tiny_plan("slot-attention", name="mine", options={"slots": 5}).model.name == "mine"


def test_an_object_of_a_bundled_class_is_not_the_bundled_model() -> None:
    class Grid(SlotModel):
        pass

    assert get_model(Grid()).name == "grid-object"


def test_other_code_under_one_name_is_no_training_seed(tmp_path: Path) -> None:
    for seed in range(3):
        result = evaluated(tmp_path, model_file(tmp_path, 0.1 * seed), name="mine", training_seed=seed)
        assert (result.model.name, result.model.training_seed) == (f"mine:{seed}", seed)
    assert set(rows_of_board(tmp_path)) == {"mine:0", "mine:1", "mine:2"}


def trained(folder: Path, method: str, start: float, seeds: range = range(3), **keywords: Any) -> list[Result]:
    """Results of training seeds of one method, whose `build` reads what a training wrote."""
    text = MODEL.replace("torch.tensor({shift})", "torch.load(Path(__file__).parent / 'last.pt', weights_only=True)")
    path = model_file(folder / method, text=f"from pathlib import Path\n{text}")
    results = []
    for seed in seeds:
        torch.save(torch.tensor(start + 0.01 * seed), folder / method / "last.pt")
        results.append(evaluated(folder, path, name=method, **{"training_seed": seed, **keywords}))
    return results


def test_seeds_trained_anew_are_one_method_and_can_be_better(tmp_path: Path) -> None:
    ours, theirs = trained(tmp_path, "ours", 0.0, count=40), trained(tmp_path, "theirs", 0.3, count=40)
    names = rows_of_board(tmp_path)
    assert "ours (mean of 3 training seeds)" in names and names["ours:1"][1] == "seed"
    (by_name,) = compare("ours", "theirs", tiny_task(), results=[tmp_path / "results"])
    assert by_name.training_seeds_a == (0, 1, 2) and by_name.enough_seeds and len(by_name.seed_signs) == 3
    files = [[str(result.path) for result in side] for side in (ours, theirs)]
    (by_files,) = compare(files[0], files[1], tiny_task())
    assert by_files.difference == by_name.difference and by_files.verdict == by_name.verdict != "undecided"


def test_a_list_of_results_is_numbered_where_nobody_gave_seeds(tmp_path: Path) -> None:
    ours = trained(tmp_path, "ours", 0.0, training_seed=None)
    (one,) = compare([str(result.path) for result in ours], trained(tmp_path, "theirs", 0.3), tiny_task())
    assert one.training_seeds_a == one.training_seeds_b == (0, 1, 2) and one.enough_seeds
    with pytest.raises(UsageError, match=r"model.state is also that of .*another training seed is another checkpoint"):
        compare([str(ours[0].path)] * 3, ours, tiny_task())


def test_one_checkpoint_whose_model_writes_its_seed_down_is_one_seed(tmp_path: Path) -> None:
    build = "def build(seed=0, file=''):\n    net = Net()\n    net.seed, net.file = seed, file\n    return net\n"
    text = MODEL[: MODEL.index("def build")].format(shift=0.2) + build
    path = model_file(tmp_path / "copy", text=text)
    copies = [
        evaluated(tmp_path, path, name="copy", training_seed=seed, options={"seed": seed, "file": f"run{seed}.pt"})
        for seed in range(3)
    ]
    assert len({result.model.state for result in copies}) == 3 and len({r.model.arrays for r in copies}) == 1
    assert set(rows_of_board(tmp_path)) == {"copy:0", "copy:1", "copy:2"}
    board = make_board([tmp_path / "results"], tiny_task())
    remarks = {row.model: row.remark for _, rows in board.groups for row in rows}
    reason = "no other training seed: its parameters and buffers are those of copy:0"
    assert remarks == {"copy:0": "", "copy:1": reason, "copy:2": reason}
    theirs = trained(tmp_path, "theirs", 0.3)
    assert len({result.model.arrays for result in theirs}) == 3
    with pytest.raises(UsageError, match=r"model.arrays is also that of copy:0 .*another training seed is another"):
        compare(copies, theirs, tiny_task())
    old = [copy.model_copy(update={"model": copy.model.model_copy(update={"arrays": ""})}) for copy in copies]
    (one,) = compare(old, theirs, tiny_task())  # of before arrays were recorded
    assert one.training_seeds_a == (0, 1, 2)


def test_other_options_code_or_sizes_are_not_training_seeds(tmp_path: Path) -> None:
    ours = trained(tmp_path, "ours", 0.0)
    other = trained(tmp_path, "ours", 0.5, range(3, 4), options={"weights": "large"})
    theirs = trained(tmp_path, "theirs", 0.3)
    with pytest.raises(UsageError, match=r"model.options are .*training seeds of one method share them"):
        compare([*ours, *other], theirs, tiny_task())
    changed = evaluated(tmp_path, model_file(tmp_path / "x", 0.3), name="ours", training_seed=4)
    with pytest.raises(UsageError, match=r"model.code_sha256 is .*evaluate all with the same files"):
        compare([*ours, changed], theirs, tiny_task())
    assert not any(name.startswith("ours (mean of 4") for name in rows_of_board(tmp_path))


def test_an_option_may_name_the_file_of_the_seed(tmp_path: Path) -> None:
    ours = [
        trained(tmp_path, "ours", 0.1 * seed, range(seed, seed + 1), options={"weights": f"runs/seed{seed}.pt"})[0]
        for seed in range(3)
    ]
    assert "ours (mean of 3 training seeds)" in rows_of_board(tmp_path)
    (one,) = compare(ours, trained(tmp_path, "theirs", 0.3), tiny_task())
    assert one.enough_seeds


class Restless(SlotModel):
    """Draws its noise from the global generator."""

    def predict(self, batch: Batch) -> Prediction:
        features = self.convolution(batch.image)
        return Prediction(
            masks=torch.rand(len(batch), self.slots, 8, 8),
            mask_source="attention",
            embedding=features.mean((2, 3)) + torch.rand(len(batch), 24),
            boxes=torch.rand(len(batch), 2, 4).sort(-1).values,
            scores=torch.rand(len(batch), 2),
        )


def test_a_model_that_is_not_deterministic_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    result = evaluated(tmp_path, Restless())
    assert result.identity.deterministic is False
    assert "model restless: not deterministic: two predictions of its first batch differ" in caplog.text
    board = make_board([tmp_path / "results"], tiny_task())
    assert [row.remark for _, rows in board.groups for row in rows] == [
        "not deterministic: two predictions of its first batch differ"
    ]
    (one,) = compare([result], [evaluated(tmp_path, HERE)], tiny_task())
    assert any("not deterministic" in remark for remark in one.remarks)


def test_a_deterministic_model_is_recorded_and_bundled_ones_are_not_asked(tmp_path: Path) -> None:
    assert evaluated(tmp_path, HERE).identity.deterministic is True
    assert evaluated(tmp_path, "grid").identity.deterministic is None
    plan = make_plan(Restless(), DETECTION_TASK, data=rectangles(), device="cpu")
    assert agreement(plan) == (False, None)


def test_videos_are_asked_too() -> None:
    reader = VideoMemory(2)
    data = OpenData(reader, "embedded", "embedded-r1-00000000", Path("."), reader.ids, "data: in memory")  # type: ignore[arg-type]
    for model, expected in ((SlotModel(), (True, True)), (Restless(), (False, None))):
        assert agreement(make_plan(model, video_task(), data=data, device="cpu")) == expected


OF_ITS_BATCH = """
import torch
from tiny_evaluation import SlotModel
from ocl_bench import Prediction
class OfItsBatch(SlotModel):
    def predict(self, batch):
        masks = super().predict(batch).masks
        place = torch.arange(1.0, len(batch) + 1).view(-1, 1, 1, 1)
        return Prediction(masks=masks / BY, mask_source="attention")
def build(): return OfItsBatch()
"""


@pytest.mark.parametrize("by", ["(1 + 9 * batch.image[:, :, 0, 0].mean())", "place"])
def test_a_model_that_depends_on_its_batch_is_named_and_not_used_again_at_another_size(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, by: str
) -> None:
    path = model_file(tmp_path, text=OF_ITS_BATCH.replace("BY", by))
    result = evaluated(tmp_path, path, name="mine", supervision="none")
    assert (result.identity.deterministic, result.identity.batch_independent) == (True, False)
    text = "depends on its batch: its first batch predicted in other company gives something else"
    assert f"model mine: {text}" in caplog.text
    assert evaluated(tmp_path, path, name="mine", supervision="none").reused
    assert not evaluated(tmp_path, path, name="mine", supervision="none", batch_size=3).reused
    board = make_board([tmp_path / "results"], tiny_task())
    assert [row.remark for _, rows in board.groups for row in rows] == [text]
    (one,) = compare([result], [evaluated(tmp_path, HERE, supervision="none")], tiny_task())
    assert f"mine: {text}" in one.remarks
    assert evaluated(tmp_path, HERE, supervision="none", batch_size=3).reused, "one that does not is used again"


def test_clips_are_tried_at_another_length() -> None:
    reader = VideoMemory(1)
    data = OpenData(reader, "embedded", "embedded-r1-00000000", Path("."), reader.ids, "data: in memory")  # type: ignore[arg-type]

    class Clip(SlotModel):
        reads_video = True

        def predict(self, batch: Batch) -> Prediction:
            assert batch.video is not None
            frames = batch.video.shape[1]
            masks = torch.arange(frames * 64).view(1, frames, 8, 8) * 3 // (frames * 64)
            return Prediction(masks=masks, mask_source="clusters")

    assert agreement(make_plan(Clip(), video_task(), data=data, device="cpu", batch_size=4)) == (True, False)


def test_the_numbers_are_those_without_the_two_predictions(tmp_path: Path) -> None:
    """A model that counts its calls gives what it would give without the probe, which comes last."""

    class Counting(SlotModel):
        calls = 0
        seen = ()

        def predict(self, batch: Batch) -> Prediction:
            self.calls, self.seen = self.calls + 1, (*self.seen, batch.ids[0])
            first = torch.full((len(batch), 1, 8, 8), 1 / self.calls)
            return Prediction(masks=torch.cat([first, torch.full_like(first, 0.5)], 1), mask_source="clusters")

    model = Counting()
    assert evaluated(tmp_path, model).identity.deterministic is False
    assert model.seen == ("s0000", "s0004", "s0008", "s0000", "s0000", "s0003", "s0001")


@pytest.mark.parametrize(
    ("section", "field", "value", "said"),
    [
        ("metrics", "value", 0.99, "is 0.99 in the file, but its rows give"),
        ("metrics", "ci95", [0.1, 0.9], ".ci95: (0.1, 0.9), but the rows give"),
        ("metrics", "n_valid", 3, ".n_valid: 3, but the rows give"),
        ("counts", "single_object_share", 0.25, "counts.single_object_share: 0.25, but the rows give"),
        ("model", "role", "floor", "model.role: 'floor' is reserved"),
    ],
)
def test_a_result_that_was_edited_by_hand_is_computed_again(
    section: str, field: str, value: Any, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = model_file(tmp_path)
    first = evaluated(tmp_path, path)
    assert first.path is not None
    content = json.loads(first.path.read_text())
    place = content["metrics"][first.task.main] if section == "metrics" else content[section]
    assert place[field] != value
    place[field] = value
    first.path.write_text(json.dumps(content))
    again = evaluated(tmp_path, path)
    assert not again.reused and (again.metrics, again.model.role) == (first.metrics, "model")
    assert said in caplog.text and caplog.text.count("it is computed again") == 1
    assert evaluated(tmp_path, path).reused and caplog.text.count("it is computed again") == 1

"""From names and files to models; every wrong name, option or file is one line with a remedy."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from pickles_with_code import Touching
from safetensors.torch import save_file
from tiny_evaluation import HERE, SlotModel, build

from ocl_bench.cards.names import get_task, model_names, task_names
from ocl_bench.core import entry_points
from ocl_bench.core.errors import UsageError
from ocl_bench.models.loading import get_model


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: get_model("gird"), "unknown model 'gird'; did you mean grid"),
        (lambda: get_model("grid:one"), "a training seed"),
        (lambda: get_model("grid", options={"rosw": 3}), "options are: rows, columns"),
        (lambda: get_model("grid", options={"rows": 0}), "option 'rows': 0 is not an integer >= 1"),
        (lambda: get_model("grid:1"), "training seed 1 are not bundled"),
        (lambda: get_model("missing.py:build"), "missing.py does not exist"),
        (lambda: get_model(HERE.replace(":build", ":bild")), "has no 'bild'; did you mean build"),
        (lambda: get_model(object()), r"object has no method predict\(batch\)"),
        (lambda: get_model(SlotModel), r"is a class; pass an instance: SlotModel\(\)"),
        (lambda: get_model(SlotModel(), options={"a": 1}), "this one is built already"),
    ],
)
def test_mistakes_are_one_line(call: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_model_from_a_file() -> None:
    loaded = get_model(HERE, options={"slots": 3})
    assert loaded.model.slots == 3 and loaded.name == "tiny_evaluation-build" and loaded.options == {"slots": 3}
    assert loaded.parameters == sum(p.numel() for p in build().parameters())
    assert loaded.card.role == "model" and loaded.reusable and len(loaded.source_sha256) == 64
    assert not loaded.model.training


def test_a_file_that_cannot_be_imported(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("import nothing_of_that_name\n")
    with pytest.raises(UsageError, match=r"importing it failed \(ModuleNotFoundError"):
        get_model(f"{path}:build")


def test_an_edited_file_is_another_model(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    text = "class M:\n    def predict(self, batch): ...\nbuild = M\n"
    path.write_text(text)
    first = get_model(f"{path}:build").source_sha256
    path.write_text(text + "# edited\n")
    assert get_model(f"{path}:build").source_sha256 != first


def test_attributes_of_a_user_model_become_its_card() -> None:
    class Boxed(SlotModel):
        supervision = "boxes"
        input_size = 64

    card = get_model(Boxed()).card
    assert (card.name, card.supervision, card.input) == ("boxed", "boxes", 64)

    class Wrong(SlotModel):
        supervision = "much"

    with pytest.raises(
        UsageError, match="model Wrong: attribute supervision: Input should be 'none', 'boxes', 'masks'"
    ):
        get_model(Wrong())


def test_checkpoints_load_strictly(tmp_path: Path) -> None:
    trained = build()
    with torch.no_grad():
        trained.query.weight.add_(1)
    path = tmp_path / "weights.safetensors"
    save_file(trained.state_dict(), path)
    loaded = get_model(HERE, checkpoint=path)
    assert torch.equal(loaded.model.query.weight, trained.query.weight)
    assert len(loaded.checkpoint_sha256) == 64 and get_model(HERE).checkpoint_sha256 == ""
    save_file({"query.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(UsageError, match=r"weights.safetensors: tensor 'query.weight' has shape"):
        get_model(HERE, checkpoint=path)
    with pytest.raises(UsageError, match="does not exist"):
        get_model(HERE, checkpoint=tmp_path / "none.safetensors")
    with pytest.raises(UsageError, match="has no load_state_dict"):
        get_model("grid", checkpoint=path)


def test_a_pickle_with_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"query.weight": Touching(tmp_path / "ran")}, path)
    with pytest.raises(UsageError, match=r"weights.pt: refused"):
        get_model(HERE, checkpoint=path)
    assert not (tmp_path / "ran").exists()


def test_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    offered = {
        entry_points.MODELS: {"theirs": EntryPoint("theirs", "tiny_evaluation:build", entry_points.MODELS)},
        entry_points.TASKS: {"tiny": EntryPoint("tiny", "tiny_evaluation:tiny_task", entry_points.TASKS)},
    }
    monkeypatch.setattr(entry_points, "offered", lambda group: offered.get(group, {}))
    assert "theirs" in model_names() and "tiny" in task_names()
    loaded = get_model("theirs", options={"slots": 2})
    assert loaded.model.slots == 2 and loaded.name == "theirs" and loaded.card.role == "model"
    assert get_task("tiny").name == "tiny"


def test_a_card_with_parameters_and_no_checkpoint_is_untrained() -> None:
    grid = get_model("grid")
    floor = replace(grid, parameters=5)
    random_weights = replace(floor, card=grid.card.model_copy(update={"role": "model"}))
    assert random_weights.untrained and not grid.untrained
    assert not floor.untrained, "a floor may be random on purpose"
    assert not replace(random_weights, checkpoint_sha256="ab").untrained
    assert not replace(get_model(SlotModel()), parameters=5).untrained

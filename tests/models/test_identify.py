"""`check-checkpoint`: official names and shapes of every released model are recognised, and what fits none is named."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch
from official import Shapes, dias_shapes, drawn, linear, slotcontrast_shapes
from torch import Tensor
from typer.testing import CliRunner

from ocl_bench.cards.names import CARDS, get_card, is_task
from ocl_bench.cli import app
from ocl_bench.core.errors import UsageError
from ocl_bench.core.paths import PACKAGE
from ocl_bench.models.identify import RELEASED, Fit, identify, suggested_task
from ocl_bench.training.recipe import Recipe


def thin(shapes: Shapes) -> dict[str, Tensor]:
    """Tensors of these shapes that hold one number each, so that a file of them is small."""
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}


def found(path: Path) -> list[tuple[str, dict]]:
    return [(fit.model, fit.options) for fit in identify(path)]


def own_weights(model: str, options: dict) -> Shapes:
    """Names and shapes of our own files of a card."""
    card = get_card(model)
    module, attribute = card.source.split(":")
    with torch.device("meta"):
        built = getattr(importlib.import_module(module), attribute)(**{**card.options, **options})
    return {name: tuple(value.shape) for name, value in built.state_dict().items()}


def test_an_official_file_of_dias(tmp_path: Path) -> None:
    torch.save(thin(dias_shapes()), tmp_path / "42-0029.pth")
    (fit,) = identify(tmp_path / "42-0029.pth")
    assert fit.model == "dias-paper" and fit.paper.endswith("2507.23755") and fit.likeness == 1
    assert fit.command == "ocl-bench eval --model dias-paper --checkpoint FILE --task TASK"


@pytest.mark.parametrize(
    ("model", "options", "task"),
    [
        ("slotcontrast-paper", {"variant": "movi_e"}, "movi-e"),
        ("videosaur-paper", {"variant": "ytvis_dinov2"}, "ytvis-2021"),
        ("videosaur-paper", {"variant": "clevrer"}, "TASK"),
        ("spot-paper", {}, "coco-discovery-spot"),
        ("spot-paper", {"slots": 6}, "voc-discovery-spot"),
        ("slotcon-paper", {}, "coco-detection"),
        ("slotcontrast", {}, "movi-c"),
        ("dias", {}, "clevrtex"),
        ("smoothsa-paper", {}, "TASK"),
    ],
)
def test_the_suggested_task_is_that_of_the_training(model: str, options: dict, task: str) -> None:
    assert suggested_task(get_card(model), options) == task
    assert task == "TASK" or is_task(task)
    assert Recipe(steps=1).task == suggested_task(get_card("dias"), {}), "the default of recipes"


@pytest.mark.parametrize(
    ("model", "options", "others"),
    [
        ("ftdinosaur-paper", {"encoder": "vit_base", "input_size": 518}, []),
        ("smoothsa-paper", {}, []),
        ("randsfq-paper", {"initialisation": "smooth"}, []),
        ("videosaur-paper", {"variant": "clevrer"}, []),
        ("videosaur-paper", {"variant": "movi_e"}, [{"variant": "movi_c"}]),
        ("spot-paper", {"slots": 6}, []),
        ("slotcurri-paper", {"variant": "ytvis"}, ["slotcontrast-paper", "srl-paper"]),
    ],
)
def test_files_of_every_size_are_recognised(model: str, options: dict, others: list, tmp_path: Path) -> None:
    """By our names, which the official ones lead to; equal networks are all named."""
    tensors = thin(own_weights(model, options))
    if "initialisation.detached" in tensors:
        tensors["initialisation.detached"] = torch.tensor(True)
    torch.save(tensors, tmp_path / "file.pt")
    fits = found(tmp_path / "file.pt")
    assert (model, options) in fits
    for other in others:
        assert ((model, other) if isinstance(other, dict) else (other, options)) in fits


def test_srl_is_told_from_slotcontrast_by_its_projections(tmp_path: Path) -> None:
    shapes = slotcontrast_shapes(11, 64, 576, 384)
    torch.save({"state_dict": thin(shapes)}, tmp_path / "plain.ckpt")
    names = {name for name, _ in found(tmp_path / "plain.ckpt")}
    assert {"slotcontrast-paper", "slotcurri-paper"} <= names and "srl-paper" not in names
    extra = linear("projector.projector", 64, 384, bias=False) | linear("projector2.projector", 64, 64, bias=False)
    torch.save({"state_dict": thin(shapes | extra), "epoch": 1}, tmp_path / "srl.ckpt")
    assert found(tmp_path / "srl.ckpt") == [("srl-paper", {"variant": "movi_c"})]


def test_bundled_weights_are_those_of_their_cards() -> None:
    names = [name for name, _ in found(PACKAGE / "models" / "weights" / get_card("slotcontrast").weights)]
    assert "slotcontrast" in names and "dias" not in names


def test_a_file_that_fits_nothing(tmp_path: Path) -> None:
    shapes = dias_shapes() | {"m.decode.norm0.weight": (383,)}
    torch.save(thin(shapes), tmp_path / "odd.pth")
    fits = identify(tmp_path / "odd.pth")
    assert all(fit.error for fit in fits) and fits[0].model == "dias-paper" and fits[0].likeness > 0.98
    assert fits[0].error.startswith("tensor 'decoder.norm_in.weight' has shape (383,), the model expects (384,)")
    assert [fit.likeness for fit in fits] == sorted((fit.likeness for fit in fits), reverse=True)
    assert fits[-1].error == "is of another network"
    (only,) = identify(tmp_path / "odd.pth", "smoothsa-paper")
    assert "misses tensor" in only.error or "has shape" in only.error


def test_the_verb(tmp_path: Path) -> None:
    torch.save(thin(dias_shapes()), tmp_path / "fits.pth")
    torch.save(drawn({"a": (3, 4)}), tmp_path / "odd.pth")
    run = CliRunner().invoke(app, ["check-checkpoint", str(tmp_path / "fits.pth")])
    assert run.exit_code == 0 and "fits dias-paper: DIAS, paper size" in run.stdout
    assert f"ocl-bench eval --model dias-paper --checkpoint {tmp_path / 'fits.pth'} --task TASK" in run.stdout
    assert "the file does not say on which data it was trained: `ocl-bench list tasks`" in run.stdout
    run = CliRunner().invoke(app, ["check-checkpoint", str(tmp_path / "odd.pth"), "--model", "dias"])
    assert run.exit_code == 2 and "fits no card dias; the most alike:" in run.stderr
    run = CliRunner().invoke(app, ["check-checkpoint", str(tmp_path / "fits.pth"), "-m", "dias-paper", "--json"])
    assert json.loads(run.stdout)[0]["model"] == "dias-paper"


def test_the_verb_tells_sizes_of_one_card_from_several_cards(tmp_path: Path) -> None:
    torch.save(thin(own_weights("videosaur-paper", {"variant": "movi_e"})), tmp_path / "file.pt")
    run = CliRunner().invoke(app, ["check-checkpoint", str(tmp_path / "file.pt")])
    assert run.exit_code == 0 and "2 settings of this card fit; the file does not say which is its own" in run.stdout


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3}, "holds no tensors"),
        ([1, 2], "holds a list, expected named tensors"),
        (None, "no such checkpoint"),
    ],
)
def test_files_without_tensors_are_named(content: object, message: str, tmp_path: Path) -> None:
    if content is not None:
        torch.save(content, tmp_path / "file.pt")
    with pytest.raises(UsageError, match=f"file.pt: {message}"):
        identify(tmp_path / "file.pt")


def test_cards_without_weights_of_their_own_are_not_tried(tmp_path: Path) -> None:
    torch.save(drawn({"a": (3,)}), tmp_path / "file.pt")
    with pytest.raises(UsageError, match="model grid: has no weights that a checkpoint could fill"):
        identify(tmp_path / "file.pt", "grid")
    with pytest.raises(UsageError, match="dino-hub"):
        identify(tmp_path / "file.pt", "dino-hub")


def test_every_released_card_is_a_card() -> None:
    cards = {path.stem for path in CARDS.glob("*.yaml")}
    assert set(RELEASED) <= cards
    assert isinstance(Fit("a", "", "", {"x": True}, "", 1.0, "TASK").command, str)
    assert "--option x=true" in Fit("a", "", "", {"x": True}, "", 1.0, "TASK").command

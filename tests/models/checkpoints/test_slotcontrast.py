"""Official checkpoints of SlotContrast: names and shapes of all 217 tensors, Lightning's files, refused files."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from ocl_bench.core.errors import UsageError
from ocl_bench.core.types import Batch
from ocl_bench.models import slotmatch
from ocl_bench.models.checkpoints.names import load_weights
from ocl_bench.models.checkpoints.slotcontrast import BACKBONES, VARIANTS
from ocl_bench.models.slotcontrast import SlotContrast, build, dinov2

Shapes = dict[str, tuple[int, ...]]


def official(
    k: int, d: int, p: int, f: int, *, blocks: int = 12, patch: int = 14, grid: int = 37, h: int = 1024
) -> Shapes:
    """The table of the specification: official names and shapes (D slot dim, F features, K slots, P tokens)."""
    vit, attention = "encoder.module.backbone.model", "processor.module.predictor.blocks.0"
    corrector, mlp = "processor.module.corrector", "decoder.module.mlp.layers"
    shapes: Shapes = {
        "initializer.slots": (1, k, d),
        f"{vit}.pos_embed": (1, 1 + grid * grid, f),
        f"{vit}.cls_token": (1, 1, f),
        f"{vit}.patch_embed.proj.weight": (f, 3, patch, patch),
        f"{vit}.patch_embed.proj.bias": (f,),
        "decoder.module.pos_emb": (1, 1, p, d),
    }

    def linear(name: str, outputs: int, inputs: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs), (outputs,)

    def norm(name: str, width: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (width,), (width,)

    for number in range(blocks):
        block = f"{vit}.blocks.{number}"
        norm(f"{block}.norm1", f)
        norm(f"{block}.norm2", f)
        linear(f"{block}.attn.qkv", 3 * f, f)
        linear(f"{block}.attn.proj", f, f)
        linear(f"{block}.mlp.fc1", 4 * f, f)
        linear(f"{block}.mlp.fc2", f, 4 * f)
        shapes[f"{block}.ls1.gamma"] = shapes[f"{block}.ls2.gamma"] = (f,)
    norm("encoder.module.output_transform.layers.0", f)
    linear("encoder.module.output_transform.layers.1", 2 * f, f)
    linear("encoder.module.output_transform.layers.3", d, 2 * f)
    for name in ("to_q", "to_k", "to_v"):
        shapes[f"{corrector}.{name}.weight"] = (d, d)
    for name in ("ih", "hh"):
        shapes[f"{corrector}.gru.weight_{name}"], shapes[f"{corrector}.gru.bias_{name}"] = (3 * d, d), (3 * d,)
    norm(f"{corrector}.mlp.layers.0", d)
    linear(f"{corrector}.mlp.layers.1", 4 * d, d)
    linear(f"{corrector}.mlp.layers.3", d, 4 * d)
    norm(f"{corrector}.norm_features", d)
    norm(f"{corrector}.norm_slots", d)
    linear(f"{attention}.self_attn.qkv", 3 * d, d)
    linear(f"{attention}.self_attn.out_proj", d, d)
    linear(f"{attention}.linear1", 4 * d, d)
    linear(f"{attention}.linear2", d, 4 * d)
    norm(f"{attention}.norm1", d)
    norm(f"{attention}.norm2", d)
    for number, (outputs, inputs) in {0: (h, d), 2: (h, h), 4: (h, h), 6: (f + 1, h)}.items():
        linear(f"{mlp}.{number}", outputs, inputs)
    return shapes


def of_variant(variant: str, encoder: str | None = None) -> Shapes:
    options = VARIANTS[variant]
    features = BACKBONES[encoder or options["encoder"]]["dim"]
    return official(options["slots"], options["slot_dim"], (options["input_size"] // 14) ** 2, features)


def small(**changes: object) -> SlotContrast:
    """A model with DINOv2's names, of 2 blocks of 12 features, 56 pixels: 4 x 4 tokens."""
    torch.manual_seed(0)
    shape = {"feature_dim": 12, "grid": (4, 4), "input_size": 56, "slots": 3, "slot_dim": 8, "hidden": 16} | changes
    return SlotContrast(dinov2(dim=12, heads=2, depth=2, grid=5), **shape).eval()  # type: ignore[arg-type]


def random_state(seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = official(3, 8, 16, 12, blocks=2, grid=5, h=16)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.mark.parametrize("variant", list(VARIANTS))
@pytest.mark.parametrize("student", [False, True])
def test_all_217_tensors_have_their_place(variant: str, student: bool) -> None:
    expected = of_variant(variant, "vit_small" if student else None)
    assert len(expected) == 217
    with torch.device("meta"):
        model = slotmatch.build(variant=variant) if student else build(variant=variant)
        state = model.translate_checkpoint({name: torch.empty(shape) for name, shape in expected.items()})
    assert {name: value.shape for name, value in state.items()} == {
        name: value.shape for name, value in model.state_dict().items()
    }


def test_a_file_of_lightning_loads_strictly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With hyperparameters of a class that is not installed here, optimiser and loops; nothing of them is run."""
    state, content = random_state(), {"epoch": 3, "loops": {"fit_loop": {"state_dict": {}}}, "callbacks": {}}
    content |= {"state_dict": state, "optimizer_states": [{"state": {0: {"step": torch.tensor(3.0)}}}]}
    with monkeypatch.context() as lightning:
        for name in ("pytorch_lightning", "pytorch_lightning.utilities", "pytorch_lightning.utilities.parsing"):
            lightning.setitem(sys.modules, name, ModuleType(name))
        hyper = type("AttributeDict", (dict,), {"__module__": name})
        sys.modules[name].AttributeDict = hyper  # type: ignore[attr-defined]
        torch.save(content | {"hyper_parameters": hyper(lr=4e-4)}, tmp_path / "movi.ckpt")
    model = small()
    load_weights(model, tmp_path / "movi.ckpt")
    assert torch.equal(model.initial_slots, state["initializer.slots"])
    assert torch.equal(model.decoder.positions, state["decoder.module.pos_emb"])
    gamma = "vit.blocks.1.ls2.gamma"
    assert torch.equal(model.encoder.state_dict()[gamma], state[f"encoder.module.backbone.model{gamma[3:]}"])
    assert len(state) == len(model.state_dict())
    torch.save(state, tmp_path / "plain.pt")
    other = small()
    load_weights(other, tmp_path / "plain.pt")
    batch = Batch(("a",), torch.rand(1, 3, 56, 56))
    assert torch.equal(other.predict(batch).masks, model.predict(batch).masks)  # type: ignore[arg-type]


def test_what_is_missing_or_left_over_is_named(tmp_path: Path) -> None:
    path, state = tmp_path / "file.ckpt", random_state()
    torch.save({"state_dict": {k: v for k, v in state.items() if "gru.bias_hh" not in k}}, path)
    with pytest.raises(UsageError, match=r"misses tensor 'corrector.gru.bias_hh'"):
        load_weights(small(), path)
    torch.save({"state_dict": state | {"dynamics.weight": torch.zeros(2)}}, path)
    with pytest.raises(UsageError, match=r"tensor 'dynamics.weight' \(2,\) has no counterpart in this model"):
        load_weights(small(), path)
    torch.save({"state_dict": state | {"decoder.module.mlp.layers.6.bias": torch.full((13,), torch.nan)}}, path)
    with pytest.raises(UsageError, match=r"has NaN in tensor 'decoder.mlp.6.bias'"):
        load_weights(small(), path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slots": 7}, "K differs: the checkpoint has 3 slots, the model 7; use --option slots=3"),
        ({"slot_dim": 16}, "D differs: the checkpoint has 8 channels of a slot, the model 16; use --option slot_dim=8"),
        ({"grid": (6, 6), "input_size": 84}, "P differs: the checkpoint has 16 tokens of a frame, the model 36; use "
         "--option input_size=56"),
        ({"feature_dim": 24}, "F differs: the checkpoint has 12 features of a token, the model 24"),
    ],
)  # fmt: skip
def test_another_size_is_refused_with_the_option_to_give(changes: dict, message: str, tmp_path: Path) -> None:
    torch.save({"state_dict": random_state()}, tmp_path / "file.ckpt")
    with pytest.raises(UsageError, match=f"file.ckpt: {message}"):
        load_weights(small(**changes), tmp_path / "file.ckpt")


@pytest.mark.parametrize(("theirs", "ours"), [("movi_e", "movi_c"), ("ytvis", "movi_c"), ("movi_c", "ytvis")])
def test_another_variant_is_recognised(theirs: str, ours: str) -> None:
    with torch.device("meta"):
        model = build(variant=ours)
        state = {name: torch.empty(shape) for name, shape in of_variant(theirs).items()}
    with pytest.raises(UsageError, match=f"differs: .*; use --option variant={theirs}$"):
        model.translate_checkpoint(state)
    with torch.device("meta"):
        student = {name: torch.empty(shape) for name, shape in of_variant("ytvis", "vit_small").items()}
        teacher = build(variant="ytvis")
    with pytest.raises(UsageError, match=r"F differs: .* 384 features .*; use --option encoder=vit_small"):
        teacher.translate_checkpoint(student)


class Evil:
    def __reduce__(self) -> tuple:
        return (print, ("code was run",))


def test_a_file_with_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": random_state(), "callbacks": Evil()}, tmp_path / "file.ckpt")
    with pytest.raises(UsageError, match="refused, loading it could run code"):
        load_weights(small(), tmp_path / "file.ckpt")
    assert "code was run" not in capsys.readouterr().out

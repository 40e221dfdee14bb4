"""SlotCon's encoder under other names: whole, the teacher's, and the same numbers."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import ResNetConfig, ResNetModel
from typer.testing import CliRunner

from ocl_bench.cli import app
from ocl_bench.core.errors import UsageError
from ocl_bench.models.checkpoints.export import (
    detectron2_name,
    export_encoder,
    export_file,
    read_checkpoint,
    resnet50_names,
)


def encoder(fill: float = 0.0) -> dict[str, Tensor]:
    return {name: torch.full(shape, fill) for name, shape in resnet50_names().items()}


def checkpoint(prefix: str = "module.") -> dict[str, Tensor]:
    """Student 1, teacher 2, and other parts, as in the official file."""
    state = {f"{prefix}encoder_q.{name}": value for name, value in encoder(1.0).items()}
    state |= {f"{prefix}encoder_k.{name}": value for name, value in encoder(2.0).items()}
    more = {"center": torch.zeros(1, 256), "grouping_k.slot_embed.weight": torch.ones(256, 256)}
    return state | {f"{prefix}{name}": value for name, value in more.items()}


def test_names_and_sizes_are_those_of_the_official_encoder() -> None:
    shapes = resnet50_names()
    assert len(shapes) == 318 and sum(name.endswith("num_batches_tracked") for name in shapes) == 53
    parameters = [shape for name, shape in shapes.items() if name.endswith((".weight", ".bias"))]
    assert sum(int(np.prod(shape)) for shape in parameters) == 23_508_032
    assert shapes["layer4.2.conv3.weight"] == (2048, 512, 1, 1)
    assert shapes["layer2.0.downsample.0.weight"] == (512, 256, 1, 1)


def test_shapes_are_those_of_another_implementation() -> None:
    """Oracle: the ResNet-50 of transformers, whose tensors come in the same order under other names."""
    theirs = [tuple(value.shape) for value in ResNetModel(ResNetConfig()).state_dict().values()]
    assert sorted(theirs) == sorted(resnet50_names().values())


@pytest.mark.parametrize("prefix", ["module.", ""])
def test_the_teacher_is_taken(prefix: str) -> None:
    exported = export_encoder(checkpoint(prefix), "torchvision")
    assert set(exported) == set(resnet50_names()) and all(float(v.mean()) == 2.0 for v in exported.values())


def test_bare_and_backbone_files_are_taken_and_counters_may_be_missing() -> None:
    bare = {name: value for name, value in encoder(3.0).items() if "num_batches" not in name}
    assert len(export_encoder(bare, "torchvision")) == 265
    assert len(export_encoder({f"backbone.{k}": v for k, v in encoder().items()}, "detectron2")) == 265


def test_detectron2_names() -> None:
    for ours, theirs in {
        "conv1.weight": "stem.conv1.weight",
        "bn1.running_var": "stem.conv1.norm.running_var",
        "layer1.0.bn2.bias": "res2.0.conv2.norm.bias",
        "layer4.2.conv3.weight": "res5.2.conv3.weight",
        "layer3.0.downsample.0.weight": "res4.0.shortcut.weight",
        "layer3.0.downsample.1.running_mean": "res4.0.shortcut.norm.running_mean",
    }.items():
        assert detectron2_name(ours) == theirs
    exported = export_encoder(checkpoint(), "detectron2")
    assert len(exported) == 265 and not any("num_batches" in name for name in exported)


def test_what_is_not_whole_is_refused() -> None:
    state = checkpoint()
    del state["module.encoder_k.layer3.4.conv2.weight"]
    with pytest.raises(UsageError, match=r"'layer3\.4\.conv2\.weight' of the ResNet-50 is missing"):
        export_encoder(state, "torchvision")
    with pytest.raises(UsageError, match="has shape"):
        export_encoder(checkpoint() | {"module.encoder_k.conv1.weight": torch.zeros(64, 3, 3, 3)}, "torchvision")
    with pytest.raises(UsageError, match="'layer5'"):
        export_encoder(encoder() | {"layer5": torch.zeros(1)}, "torchvision")
    with pytest.raises(UsageError, match="no 'module"):
        export_encoder({"vit.cls_token": torch.zeros(1)}, "torchvision")


def test_files(tmp_path: Path) -> None:
    """The official container: arguments as a Namespace beside the model."""
    path = tmp_path / "ckpt_epoch_800.pth"
    torch.save({"args": argparse.Namespace(arch="resnet50"), "model": checkpoint(), "epoch": 800}, path)
    assert len(read_checkpoint(path)) == 638
    safe = load_file(export_file(path, tmp_path / "encoder.safetensors", "torchvision"))
    assert set(safe) == set(resnet50_names())
    content = pickle.loads(export_file(path, tmp_path / "encoder.pkl", "detectron2").read_bytes())
    assert content["matching_heuristics"] is True and content["model"]["stem.conv1.weight"].shape == (64, 3, 7, 7)
    with pytest.raises(UsageError, match=r"ends in \.pkl"):
        export_file(path, tmp_path / "encoder.pth", "detectron2")
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"model": CliRunner()}))
    with pytest.raises(UsageError, match=r"refused|not a readable checkpoint"):
        read_checkpoint(tmp_path / "evil.pth")


def test_command_line(tmp_path: Path) -> None:
    path = tmp_path / "slotcon.pth"
    torch.save({"model": checkpoint()}, path)
    out = tmp_path / "r50.pkl"
    shown = CliRunner().invoke(app, ["export", "--checkpoint", str(path), "--to", "detectron2", "--out", str(out)])
    assert shown.exit_code == 0 and out.is_file() and "265 tensors" in shown.output
    failed = CliRunner().invoke(
        app, ["export", "--checkpoint", str(tmp_path / "no"), "--to", "detectron2", "--out", str(out)]
    )
    assert failed.exit_code == 2

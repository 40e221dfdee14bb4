"""Backbones by name: small random networks of transformers, and a network with timm's interface."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ocl_bench.core.errors import DataMissingError, UsageError
from ocl_bench.core.types import Batch
from ocl_bench.evaluation.evaluate import evaluate
from ocl_bench.models.backbone_names import split_name, supervision_of
from ocl_bench.models.backbones import build_hub, build_timm, from_timm
from ocl_bench.models.declared import Declared
from ocl_bench.models.loading import get_model
from ocl_bench.tables.validation.examine import validate

transformers = pytest.importorskip("transformers")

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
WITHOUT_CLS = ("ijepa", "siglip")
TYPES = ("vit", "dinov2", "dinov2_with_registers", "dinov3_vit", "vit_mae", "ijepa", "siglip", "clip")


def network_of(kind: str) -> Any:
    """A small random network, whose weights are not near their start."""
    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    text |= {"vocab_size": 99, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "projection_size": 32}
    makers = {
        "vit": lambda: transformers.ViTModel(transformers.ViTConfig(**SMALL), add_pooling_layer=False),
        "dinov2": lambda: transformers.Dinov2Model(transformers.Dinov2Config(**SMALL)),
        "dinov2_with_registers": lambda: transformers.Dinov2WithRegistersModel(
            transformers.Dinov2WithRegistersConfig(**SMALL, num_register_tokens=3)
        ),
        "dinov3_vit": lambda: transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**SMALL, num_register_tokens=4)),
        "vit_mae": lambda: transformers.ViTMAEModel(transformers.ViTMAEConfig(**SMALL)),
        "ijepa": lambda: transformers.IJepaModel(transformers.IJepaConfig(**SMALL), add_pooling_layer=False),
        "siglip": lambda: transformers.SiglipModel(transformers.SiglipConfig(vision_config=SMALL, text_config=text)),
        "clip": lambda: transformers.CLIPModel(transformers.CLIPConfig(vision_config=SMALL, text_config=text)),
    }
    torch.manual_seed(3)
    network = makers[kind]().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def saved(kind: str, folder: Path, processor: dict[str, Any] | None = HALF) -> Any:
    """Save a small network as a repository and return it."""
    network = network_of(kind)
    network.save_pretrained(folder)
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return network


def images(height: int = 32, width: int = 32, count: int = 2) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(tuple(map(str, range(count))), torch.rand(count, 3, height, width, generator=generator))


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("height", [32, 48])
def test_tokens_are_those_of_the_network_in_the_order_of_the_patches(kind: str, height: int, tmp_path: Path) -> None:
    network = saved(kind, tmp_path)
    batch = images(height)
    prediction = get_model(f"hub:{tmp_path}").model.predict(batch)
    inner = getattr(network, "vision_model", network)
    pixels = (batch.image - 0.5) / 0.5
    with torch.no_grad():
        if kind == "vit_mae":
            inner.config.mask_ratio = inner.embeddings.config.mask_ratio = 0.0
            order = torch.arange(4 * height // 8, dtype=torch.float32).expand(2, -1)
            hidden = inner(pixels, noise=order, interpolate_pos_encoding=True).last_hidden_state
        elif kind.startswith("dino"):
            hidden = inner(pixels).last_hidden_state
        else:
            hidden = inner(pixels, interpolate_pos_encoding=True).last_hidden_state
    patches = hidden[:, -(4 * height // 8) :]
    torch.testing.assert_close(prediction.tokens.flatten(2).transpose(1, 2), patches)
    assert prediction.tokens.shape == (2, 32, height // 8, 4)
    torch.testing.assert_close(prediction.embedding, patches.mean(1))


@pytest.mark.parametrize("kind", TYPES)
def test_a_token_follows_its_patch(kind: str, tmp_path: Path) -> None:
    """A change in one patch changes the token there most: rows and columns are not swapped, no token is off by one."""
    saved(kind, tmp_path)
    model = build_hub(str(tmp_path))
    batch = images(48, 32, count=1)
    changed = batch.image.clone()
    changed[..., 40:48, 8:16] = 1 - changed[..., 40:48, 8:16]
    difference = (model.encode(batch) - model.encode(Batch(batch.ids, changed))).square().sum(1)[0]
    assert np.unravel_index(int(difference.argmax()), difference.shape) == (5, 1)


def test_the_class_token_and_the_head(tmp_path: Path) -> None:
    network = saved("dinov3_vit", tmp_path / "a")
    batch = images()
    prediction = build_hub(str(tmp_path / "a"), token="cls+mean").predict(batch)
    hidden = network((batch.image - 0.5) / 0.5).last_hidden_state
    torch.testing.assert_close(prediction.embedding, torch.cat([hidden[:, 0], hidden[:, 5:].mean(1)], 1))
    network = saved("siglip", tmp_path / "b")
    prediction = build_hub(str(tmp_path / "b"), token="head").predict(batch)
    torch.testing.assert_close(prediction.embedding, network.vision_model((batch.image - 0.5) / 0.5).pooler_output)


def test_the_signature_says_what_changes_numbers(tmp_path: Path) -> None:
    saved("dinov3_vit", tmp_path)
    source = build_hub(str(tmp_path)).predict(images(48, 48)).embedding_source
    said = "token:mean,hub,patch-8,registers-4,positions-rope,norm-final,statistics-half,size-48"
    assert source == said
    assert "statistics-imagenet" in build_hub(str(tmp_path), statistics="imagenet").predict(images()).embedding_source


def test_statistics_change_tokens_and_are_never_guessed(tmp_path: Path) -> None:
    saved("dinov2", tmp_path, processor=None)
    with pytest.raises(UsageError, match="does not say how images are normalised; give --option statistics="):
        build_hub(str(tmp_path))
    half, imagenet = (build_hub(str(tmp_path), statistics=name).encode(images()) for name in ("half", "imagenet"))
    assert (half - imagenet).abs().max() > 0.01


def test_a_floor_takes_a_backbone_and_its_supervision(tmp_path: Path) -> None:
    saved("dinov3_vit", tmp_path)
    floor = get_model("kmeans-features", options={"encoder": f"hub:{tmp_path}", "clusters": 3})
    prediction = floor.model.predict(images())
    assert prediction.masks.shape == (2, 3, 4, 4)
    assert floor.card.supervision == "undeclared"  # a folder does not say what it saw
    assert floor.checkpoint_sha256 == get_model(f"hub:{tmp_path}").checkpoint_sha256 != ""


def test_whoever_evaluates_a_folder_declares_what_it_saw(tmp_path: Path) -> None:
    saved("dinov3_vit", tmp_path)
    declared = Declared(supervision="none")
    assert get_model(f"hub:{tmp_path}", declared=declared).card.supervision == "none"
    floor = get_model("kmeans-features", options={"encoder": f"hub:{tmp_path}"}, declared=declared)
    assert floor.card.supervision == "none"
    with pytest.raises(UsageError, match="its card says supervision none; leave the option out"):
        get_model("grid", declared=Declared(supervision="boxes"))


def test_a_result_of_a_backbone_is_valid_and_one_with_another_supervision_is_not(tmp_path: Path) -> None:
    saved("dinov3_vit", tmp_path / "model")
    options = {"encoder": f"hub:{tmp_path / 'model'}", "clusters": 3}
    evaluate("kmeans-features", "clevrtex", options=options, limit=4, results=tmp_path / "results", progress=False)
    path = next((tmp_path / "results").rglob("*.json"))
    assert validate(path) == []
    record = json.loads(path.read_text())
    record["model"]["options"]["encoder"] = "hub:facebook/dinov3-vits16"
    record["model"]["supervision"] = "boxes"
    path.write_text(json.dumps(record))
    assert any("'boxes' is not that of the card, 'none'" in str(problem) for problem in validate(path))


def test_other_weights_are_another_model(tmp_path: Path) -> None:
    network = saved("vit", tmp_path / "a")
    with torch.no_grad():
        network.layernorm.bias.add_(1)
    network.save_pretrained(tmp_path / "b")
    (tmp_path / "b" / "preprocessor_config.json").write_text(json.dumps(HALF))
    first, second = (get_model(f"hub:{tmp_path / name}") for name in "ab")
    assert first.checkpoint_sha256 != second.checkpoint_sha256


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hub:facebook/dinov3-vits16-pretrain-lvd1689m", ("hub", "none")),
        ("hub:facebook/vit-mae-base", ("hub", "none")),
        ("hub:google/siglip2-base-patch16-224", ("hub", "undeclared")),
        ("timm:vit_small_patch14_dinov2.lvd142m", ("timm", "none")),
        ("timm:vit_base_patch16_224.augreg_in21k", ("timm", "undeclared")),
    ],
)
def test_supervision_by_name(name: str, expected: tuple[str, str]) -> None:
    source, rest = split_name(name)
    assert (source, supervision_of(source, rest)) == expected


def test_names_of_other_models_are_left_alone() -> None:
    assert split_name("dias:1") is None and split_name("hub") is None


def test_bad_input_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="option name: is missing; write the model as hub:facebook/"):
        get_model("hub")
    with pytest.raises(DataMissingError, match=f"there is no such folder: {tmp_path / 'nothing'}$"):
        get_model(f"hub:{tmp_path / 'nothing'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataMissingError, match="is not available"):
        get_model(f"hub:{tmp_path / 'empty'}")
    transformers.BertConfig().save_pretrained(tmp_path / "bert")
    with pytest.raises(UsageError, match="type 'bert' is not supported; known are vit, dinov2"):
        get_model(f"hub:{tmp_path / 'bert'}")
    saved("ijepa", tmp_path / "ijepa")
    with pytest.raises(UsageError, match="this network has no 'cls'; use mean"):
        build_hub(str(tmp_path / "ijepa"), token="cls")
    with pytest.raises(UsageError, match="33 is not a multiple of the patch, 8"):
        build_hub(str(tmp_path / "ijepa"), input_size=33)
    with pytest.raises(UsageError, match="sides must be multiples of the patch"):
        build_hub(str(tmp_path / "ijepa")).predict(images(36))


class TimmLike(nn.Module):
    """A network with the parts of timm's interface that are read: tokens (B, 2 + P, D), a register after [CLS]."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 8, 4, 4)
        self.patch_embed.patch_size = (4, 4)
        self.cls_token = nn.Parameter(torch.full((1, 1, 8), 7.0))
        self.num_prefix_tokens = 2
        self.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "input_size": (3, 16, 16)}

    def forward_features(self, image: Tensor) -> Tensor:
        patches = self.patch_embed(image).flatten(2).transpose(1, 2)
        special = self.cls_token.expand(len(image), 1, 8)
        return torch.cat([special, special + 1, patches], 1)


def test_a_network_with_the_interface_of_timm() -> None:
    network = TimmLike()
    model = from_timm(network, "vit_tiny.dino", None, "cls+mean")
    batch = images(16, 24)
    prediction = model.predict(batch)
    expected = network.patch_embed((batch.image - 0.5) / 0.5)
    torch.testing.assert_close(prediction.tokens, expected)
    torch.testing.assert_close(prediction.embedding, torch.cat([torch.full((2, 8), 7.0), expected.mean((2, 3))], 1))
    assert (model.supervision, model.input_size) == ("none", 16)
    assert prediction.embedding_source.startswith("token:cls+mean,timm,patch-4,registers-1,")


def test_timm_itself_where_it_imports() -> None:
    try:
        import timm
    except (ImportError, RuntimeError) as error:
        with pytest.raises(UsageError, match=r"model timm:\S+ needs timm.*; pip install 'ocl-bench\[timm\]'"):
            build_timm("vit_tiny_patch16_224")
        pytest.skip(f"timm cannot be imported: {error}")
    network = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0)
    tokens = from_timm(network, "vit_tiny_patch16_224", None, "cls").encode(images(224, 224))
    assert tokens.shape == (2, 192, 14, 14)


def test_timm_without_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no network\nmore")

    monkeypatch.setitem(__import__("sys").modules, "timm", SimpleNamespace(create_model=refuse))
    with pytest.raises(DataMissingError, match=r"model timm:vit: not available \(no network\)"):
        build_timm("vit")

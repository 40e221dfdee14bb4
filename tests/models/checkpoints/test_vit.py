"""Checkpoints of DINO, iBOT and DINOv2 in every container, and models of transformers with their traps."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ocl_bench.core.errors import DataMissingError, UsageError
from ocl_bench.core.types import Batch
from ocl_bench.models import hugging_face
from ocl_bench.models.checkpoints.names import load_weights, save_weights
from ocl_bench.models.checkpoints.vit import bare_backbone, from_transformers
from ocl_bench.models.layers.normalisation import normalise
from ocl_bench.models.odis import Odis, build

TINY: dict = {"preset": "embedded", "dim": 16, "depth": 2, "heads": 2, "hidden": 16, "bottleneck": 8, "out_dim": 12}
IBOT: dict = {"layout": "cls", "object_weight": 0.0, "image_weight": 1.0}
DINO: dict = {**IBOT, "patch_weight": 0.0}


def tiny(seed: int = 0, **options: object) -> Odis:
    torch.manual_seed(seed)
    model = build(**(TINY | {"input_size": 32} | options))
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(0.1 * torch.randn_like(tensor))
    return model


def official(model: Odis, loss: str) -> dict[str, Any]:
    """A checkpoint as the official trainings of DINO and iBOT write it."""
    parts: dict[str, dict[str, Tensor]] = {"student": {}, "teacher": {}, loss: {}}
    for name, value in model.state_dict().items():
        network, _, rest = name.partition(".")
        if network == "student":
            parts["student"][f"module.{rest}"] = value
        elif network == "teacher":
            parts["teacher"][rest] = value
        elif loss == "ibot_loss" and name == "centre_patch":
            parts[loss]["center2"] = value.unsqueeze(0)
        else:
            parts[loss]["center"] = value
    if loss == "ibot_loss":
        for network, prefix in (("student", "module."), ("teacher", "")):
            own = parts[network]
            for kind in ("weight_g", "weight_v"):
                separate = own.pop(f"{prefix}head.last_layer_patch.{kind}", None)
                shared = own[f"{prefix}head.last_layer.{kind}"]
                own[f"{prefix}head.last_layer2.{kind}"] = shared if separate is None else separate
    optimizer = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 5e-4, "betas": (0.9, 0.999)}]}
    return {**parts, "optimizer": optimizer, "epoch": 800, "args": argparse.Namespace(arch="vit_small", momentum=0.996)}


def same(loaded: Odis, expected: Odis, but: str = "nothing") -> None:
    for name, value in expected.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value) == (but not in name), name


@pytest.mark.parametrize(
    ("options", "loss"),
    [
        (DINO, "dino_loss"),
        (IBOT, "ibot_loss"),
        ({**IBOT, "shared_head": False, "patch_out_dim": 20}, "ibot_loss"),
        ({}, "ibot_loss"),
    ],
    ids=["dino", "ibot", "ibot-separate", "odis-from-ibot"],
)
def test_full_checkpoints_load_heads_and_centres_included(options: dict, loss: str, tmp_path: Path) -> None:
    model, path = tiny(**options), tmp_path / "checkpoint.pth"
    torch.save(official(model, loss), path)
    loaded = tiny(1, **options)
    load_weights(loaded, path)
    same(loaded, model)


def test_one_network_serves_for_both(tmp_path: Path) -> None:
    model, path = tiny(**DINO), tmp_path / "checkpoint.pth"
    content = official(model, "dino_loss")
    torch.save({"teacher": content["teacher"], "epoch": 3}, path)
    loaded = tiny(1, **DINO)
    load_weights(loaded, path)
    for network in ("student", "teacher"):
        state = getattr(loaded, network).state_dict()
        assert all(torch.equal(state[name], value) for name, value in model.teacher.state_dict().items())


def test_new_names_of_weight_norm(tmp_path: Path) -> None:
    model, path = tiny(**DINO), tmp_path / "checkpoint.pth"
    content = official(model, "dino_loss")
    for part in ("student", "teacher"):
        for kind, number in (("weight_g", 0), ("weight_v", 1)):
            for prefix in ("module.", ""):
                if (old := f"{prefix}head.last_layer.{kind}") in content[part]:
                    new = f"{prefix}head.last_layer.parametrizations.weight.original{number}"
                    content[part][new] = content[part].pop(old)
    torch.save(content, path)
    loaded = tiny(1, **DINO)
    load_weights(loaded, path)
    same(loaded, model)


@pytest.mark.parametrize("container", ["bare", "state_dict", "module.backbone.", "safetensors"])
@pytest.mark.parametrize("options", [DINO, IBOT, {}], ids=["dino", "ibot", "odis"])
def test_bare_backbones_load_into_both_networks(container: str, options: dict, tmp_path: Path) -> None:
    backbone = {name: value.clone() for name, value in tiny(**options).teacher.backbone.state_dict().items()}
    path = tmp_path / ("file.safetensors" if container == "safetensors" else "file.pth")
    if container == "safetensors":
        save_file(backbone, path)
    elif container == "state_dict":
        torch.save({"state_dict": backbone}, path)
    else:
        prefix = container if container.endswith(".") else ""
        torch.save({prefix + name: value for name, value in backbone.items()}, path)
    loaded, untouched = tiny(1, **options), tiny(1, **options)
    load_weights(loaded, path)
    for network in (loaded.student, loaded.teacher):
        state = network.backbone.state_dict()
        assert all(torch.equal(state[name], value) for name, value in backbone.items())
        assert set(state) - set(backbone) <= {"masked_embed"}
    for name, value in untouched.state_dict().items():
        if ".head." in name or "masked_embed" in name or name.startswith("centre"):
            assert torch.equal(loaded.state_dict()[name], value)


def test_own_checkpoints_are_complete_or_refused(tmp_path: Path) -> None:
    model, path = tiny(), tmp_path / "own.safetensors"
    save_weights(model, path, torch.float32)
    loaded = tiny(1)
    load_weights(loaded, path)
    same(loaded, model)
    state = load_file(path)
    state.pop("student.backbone.masked_embed")
    save_file(state, path)
    with pytest.raises(UsageError, match=r"own\.safetensors: misses tensor 'student\.backbone\.masked_embed'"):
        load_weights(loaded, path)


def broken(name: str) -> tuple[dict[str, Any], dict]:
    """A full iBOT checkpoint with one fault, and the options of the model that reads it."""
    content, options = official(tiny(**IBOT), "ibot_loss"), dict(IBOT)
    if name == "missing":
        content["teacher"].pop("backbone.blocks.1.mlp.fc1.bias")
    elif name == "extra":
        content["teacher"]["backbone.fc.weight"] = torch.ones(3)
    elif name == "headless":
        content["teacher"] = {k: v for k, v in content["teacher"].items() if not k.startswith("head.")}
    elif name == "prototypes":
        options["out_dim"] = 9
    elif name == "separate":
        content["student"]["module.head.last_layer2.weight_v"] = torch.ones(12, 8)
    elif name == "centre":
        options = dict(DINO)
    elif name == "positions":
        options["input_size"] = 64
    elif name == "unknown centre":
        content["ibot_loss"]["center3"] = torch.ones(1)
    elif name == "partial":
        content = {k: v for k, v in content["teacher"].items() if "blocks.0" not in k}
        content = {k.removeprefix("backbone."): v for k, v in content.items() if k.startswith("backbone.")}
    elif name == "two":
        content = {"a.cls_token": torch.ones(1), "b.cls_token": torch.ones(1)}
    elif name == "other":
        content = {"conv1.weight": torch.ones(1)}
    return content, options


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing", r"misses tensor 'teacher\.backbone\.blocks\.1\.mlp\.fc1\.bias'"),
        ("extra", r"has unexpected tensor 'teacher\.backbone\.fc\.weight'"),
        ("headless", r"misses tensor 'teacher\.head\."),
        ("prototypes", "K differs: the checkpoint has 12 prototypes, the model 9; use --option out_dim=12"),
        ("separate", "last layer of their own in this file; use --option shared_head=false"),
        ("centre", "tensor 'ibot_loss.center2' is of a loss that is off"),
        (
            "positions",
            r"'(student|teacher)\.backbone\.pos_embed' has shape \(1, 17, 16\), the model expects \(1, 65, 16\)",
        ),
        ("unknown centre", "tensor 'ibot_loss.center3'"),
        ("partial", r"misses tensor 'student\.backbone\.blocks\.0"),
        ("two", "2 tensors 'cls_token'"),
        ("other", "no tensor 'cls_token'"),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(fault: str, message: str, tmp_path: Path) -> None:
    content, options = broken(fault)
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(UsageError, match=rf"file\.pth: .*{message}"):
        load_weights(tiny(**options), tmp_path / "file.pth")


def test_files_that_would_run_code_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    torch.save({"teacher": official(tiny(**DINO), "dino_loss")["teacher"], "args": Path("x")}, path)
    with pytest.raises(UsageError, match="refused, loading it could run code"):
        load_weights(tiny(**DINO), path)
    with pytest.raises(UsageError, match="no such checkpoint file"):
        load_weights(tiny(**DINO), tmp_path / "none.pth")


def test_paper_size_has_the_official_names() -> None:
    with torch.device("meta"):
        model = build(**{"preset": "paper", **DINO, "out_dim": 65536})
    names = {name: tuple(value.shape) for name, value in model.teacher.state_dict().items()}
    backbone = {name.removeprefix("backbone."): shape for name, shape in names.items() if name.startswith("backbone.")}
    assert len(backbone) == 150
    assert backbone["pos_embed"] == (1, 197, 384) and backbone["blocks.11.attn.qkv.weight"] == (1152, 384)
    assert backbone["patch_embed.proj.weight"] == (384, 3, 16, 16) and backbone["norm.bias"] == (384,)
    head = {f"head.mlp.{layer}.{kind}" for layer in (0, 2, 4) for kind in ("weight", "bias")}
    assert set(names) - {f"backbone.{name}" for name in backbone} == head | {
        "head.last_layer.weight_g",
        "head.last_layer.weight_v",
    }
    assert names["head.last_layer.weight_v"] == (65536, 256) and names["head.last_layer.weight_g"] == (65536, 1)


# --- transformers ---------------------------------------------------------------------------------------------------


def theirs(family: str, **changes: Any) -> Any:
    """A small random model of transformers, whose weights are not near their start."""
    transformers = pytest.importorskip("transformers")
    options = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 28, "patch_size": 7}
    torch.manual_seed(0)
    if family == "vit":
        config = transformers.ViTConfig(**{**options, "intermediate_size": 96, "layer_norm_eps": 1e-12, **changes})
        model = transformers.ViTModel(config, add_pooling_layer=False)
    elif family == "dinov2":
        model = transformers.Dinov2Model(transformers.Dinov2Config(**{**options, **changes}))
    else:
        config = transformers.Dinov2WithRegistersConfig(**{**options, "num_register_tokens": 2, **changes})
        model = transformers.Dinov2WithRegistersModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def images(count: int = 2, side: int = 28) -> Batch:
    pixels = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))
    return Batch(tuple(f"image-{number}" for number in range(count)), pixels)


@pytest.mark.parametrize("family", ["vit", "dinov2", "registers"])
def test_models_of_transformers_load_and_agree(family: str, tmp_path: Path) -> None:
    """With the epsilon that both methods use, whatever the configuration says, and with their transform."""
    model = theirs(family)
    model.save_pretrained(tmp_path)
    processor = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": 224, "width": 224}, "resample": 2}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    ours = hugging_face.build(repo=str(tmp_path), input_size=28)
    batch = images()
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-6
    prediction = ours.predict(batch)
    with torch.no_grad():
        expected = model(normalise(batch.image)).last_hidden_state
    prefix = 3 if family == "registers" else 1
    torch.testing.assert_close(prediction.embedding, expected[:, 0], rtol=1e-5, atol=1e-5)
    assert prediction.tokens is not None and prediction.embedding_source == "token:cls"
    torch.testing.assert_close(prediction.tokens.flatten(2).transpose(1, 2), expected[:, prefix:], rtol=1e-5, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in ours.parameters())
    assert len(ours.checkpoint_sha256) == 64 and ours.reads_boxes and ours.input_size == 28
    assert ours.backbone.position_offset == (None if family == "registers" else 0.1)


@pytest.mark.parametrize("family", ["vit", "dinov2", "registers"])
def test_features_of_the_last_blocks_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    """`hidden_states` are before the final norm."""
    model = theirs(family)
    model.save_pretrained(tmp_path)
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-6
    batch = images()
    with torch.no_grad():
        hidden = model(normalise(batch.image), output_hidden_states=True).hidden_states[-2:]
        expected = torch.cat([model.layernorm(one)[:, 3 if family == "registers" else 1 :] for one in hidden], dim=2)
    tokens = hugging_face.build(repo=str(tmp_path), input_size=28, token_blocks=2).predict(batch).tokens
    assert tokens is not None
    torch.testing.assert_close(tokens.flatten(2).transpose(1, 2), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(UsageError, match="option token_blocks: 99 is invalid; use 1 to"):
        hugging_face.build(repo=str(tmp_path), input_size=28, token_blocks=99)


def test_the_epsilon_of_the_file_would_change_the_result(tmp_path: Path) -> None:
    """Tokens that hardly vary: what dino-vits16's `layer_norm_eps` of 1e-12 does is not small there."""
    model = theirs("vit")
    with torch.no_grad():
        for parameter in (model.embeddings.cls_token, model.embeddings.position_embeddings):
            parameter.mul_(1e-3)
        model.embeddings.patch_embeddings.projection.weight.mul_(1e-3)
        model.embeddings.patch_embeddings.projection.bias.mul_(1e-3)
        batch = images()
        model.save_pretrained(tmp_path)
        naive = model(normalise(batch.image)).last_hidden_state[:, 0]
    ours = hugging_face.build(repo=str(tmp_path), input_size=28)
    assert json.loads((tmp_path / "config.json").read_text())["layer_norm_eps"] == 1e-12
    assert (ours.predict(batch).embedding - naive).abs().max() > 1e-2  # type: ignore[operator]
    assert all(m.eps == 1e-6 for m in ours.modules() if isinstance(m, torch.nn.LayerNorm))


def test_names_of_transformers_4_and_5_give_the_same_tensors() -> None:
    """Version 4.57 of ViTModel: query, key and value in `attention.attention`, blocks in `encoder.layer`."""
    new = {name.removeprefix("vit."): value for name, value in theirs("vit").state_dict().items()}
    pairs = (
        (".attention.q_proj.", ".attention.attention.query."),
        (".attention.k_proj.", ".attention.attention.key."),
        (".attention.v_proj.", ".attention.attention.value."),
        (".attention.o_proj.", ".attention.output.dense."),
        (".mlp.fc1.", ".intermediate.dense."),
        (".mlp.fc2.", ".output.dense."),
    )
    if "layers.0.attention.q_proj.weight" not in new:
        pytest.skip("this version of transformers has the old names itself")
    old = {}
    for name, value in new.items():
        for one, other in pairs:
            name = name.replace(one, other)
        old[f"vit.encoder.{name.replace('layers.', 'layer.')}" if name.startswith("layers.") else f"vit.{name}"] = value
    assert "vit.encoder.layer.1.attention.attention.query.weight" in old and len(old) == len(new)
    one, two = bare_backbone(new), bare_backbone(old)
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    parts = [new[f"layers.0.attention.{part}_proj.weight"] for part in "qkv"]
    assert torch.equal(one["blocks.0.attn.qkv.weight"], torch.cat(parts))
    with pytest.raises(UsageError, match=r"tensor 'pooler\.dense\.weight'"):
        bare_backbone({**old, "vit.pooler.dense.weight": torch.ones(24, 24)})
    del new["layers.1.attention.k_proj.bias"]
    with pytest.raises(UsageError, match=r"query, key or value of blocks\.1\.attn is missing"):
        from_transformers(new)


def test_a_dino_file_and_a_hub_model_are_the_same_model(tmp_path: Path) -> None:
    """A state dict under transformers' names also loads into the card's model."""
    model = theirs("vit")
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    size = {"dim": 24, "depth": 2, "heads": 3, "patch": 7, "input_size": 28}
    loaded = tiny(**{**DINO, **size})
    load_weights(loaded, tmp_path / "pytorch_model.bin")
    model.save_pretrained(tmp_path / "folder")
    ours = hugging_face.build(repo=str(tmp_path / "folder"), input_size=28)
    assert torch.equal(loaded.predict(images()).embedding, ours.predict(images()).embedding)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing", "tensor '.*' is missing"),
        ("type", "is a model of type 'bert'; supported are vit, dinov2"),
        ("act", "hidden_act is relu; only gelu is supported"),
        ("side", "option input_size: 30 is not a multiple of"),
        ("token", "the model has no 'obj' token; use cls"),
    ],
)
def test_hub_models_that_do_not_fit_are_refused(fault: str, message: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    options: dict[str, Any] = {"input_size": 28}
    if fault == "type":
        transformers.BertConfig().save_pretrained(tmp_path)
    else:
        theirs("vit", **({"hidden_act": "relu"} if fault == "act" else {})).save_pretrained(tmp_path)
    if fault == "missing":
        tensors = load_file(tmp_path / "model.safetensors")
        tensors.pop(next(name for name in tensors if "layernorm_after" in name))
        save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    options |= {"side": {"input_size": 30}, "token": {"token": "obj"}}.get(fault, {})
    with pytest.raises(UsageError, match=message):
        hugging_face.build(repo=str(tmp_path), **options)


def test_other_repositories_are_refused_and_missing_files_are_named(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(
        UsageError, match=r"option repo: google/vit-base is neither facebook/dino-\* or facebook/dinov2-"
    ):
        hugging_face.build(repo="google/vit-base")
    with pytest.raises(DataMissingError, match="is not available"):
        hugging_face.build(repo=str(tmp_path))
    with pytest.raises(DataMissingError, match=f"^option repo: there is no such folder: {tmp_path / 'nothing'}$"):
        hugging_face.build(repo=str(tmp_path / "nothing"))
    with pytest.raises(DataMissingError, match=f"there is no such folder: {Path.cwd() / 'nothing'}$"):
        hugging_face.build(repo="./nothing")
    with pytest.raises(DataMissingError, match=f"there is no such folder: {Path.cwd() / 'tests' / 'nothing'}$"):
        hugging_face.build(repo="tests/nothing")  # could be a name on the hub, but its folder is here

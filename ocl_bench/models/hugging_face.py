"""DINO and DINOv2 from the Hugging Face hub: `facebook/dino-*` and `facebook/dinov2-*`, or a folder with such a model.

Only the weights are loaded, into the vision transformer used here. The rest of a repository would change the numbers:

* The processor of `facebook/dino-*` squashes images to a square and normalises by 0.5. DINO's `eval_knn.py` resizes,
  crops and normalises by ImageNet's statistics.
* Its `config.json` has a LayerNorm epsilon of 1e-12. DINO's `vision_transformer.py` has 1e-6.
* transformers resamples position tables by another rule than either method's code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..core.errors import DataMissingError, OclBenchError, UsageError
from ..core.log import quiet
from ..core.optional import import_optional
from ..core.types import Batch, Prediction
from .checkpoints.vit import bare_backbone
from .layers.vit import DINO_OFFSET, VisionTransformer
from .reading import Reading, attention_keys

REPOSITORIES = ("facebook/dino-", "facebook/dinov2-")
"""Starts of the supported names; other vision transformers on the hub need image transforms that are not used here."""

Loaded = TypeVar("Loaded")

MODEL_TYPES = ("vit", "dinov2", "dinov2_with_registers")
"""Supported values of `model_type` in a configuration."""


class HuggingFaceViT(nn.Module):
    """A frozen backbone and a reading of it. Results are stored under `checkpoint_sha256`, a hash of its tensors."""

    def __init__(self, backbone: VisionTransformer, reading: Reading, input_size: int) -> None:
        super().__init__()
        reading.check(backbone)
        self.backbone, self.reading, self.input_size = backbone.requires_grad_(False), reading, input_size
        self.reads_boxes = reading.reads_boxes
        self.checkpoint_sha256 = fingerprint(backbone.state_dict())

    def predict(self, batch: Batch) -> Prediction:
        """Predict tokens and embedding of whole images; with boxes, [CLS] attends only within them."""
        return self.reading.predict(self.backbone, batch)

    def encode_keys(self, batch: Batch) -> Tensor:
        """Keys (B, D, h, w) of the last block's attention, which `maskcut` and `tokencut` cut."""
        return attention_keys(self.backbone, batch)


def build(
    *,
    repo: str = "facebook/dino-vits16",
    revision: str | None = None,
    input_size: int = 224,
    token: str = "cls",
    margin: int = 0,
    use_boxes: bool = True,
    attention: bool = False,
    token_blocks: int = 1,
) -> HuggingFaceViT:
    """Download a model (or find it in the hub's cache) and load it.

    Args:
        repo: name on the hub, or a folder.
        revision: commit of the repository.
        input_size: side in pixels, a multiple of the patch.
        token, margin, use_boxes, attention, token_blocks: see `reading.Reading`.

    Raises:
        UsageError: the model is not supported, or transformers is not installed.
        DataMissingError: the files are not available.
    """
    check_repository("option repo", repo)
    if not repo.startswith(REPOSITORIES) and not Path(repo).is_dir():
        names = " or ".join(f"{name}*" for name in REPOSITORIES)
        raise UsageError(f"option repo: {repo} is neither {names} nor a folder; others need another image transform")
    config, state = _download(repo, revision)
    backbone = VisionTransformer(**shape_of(config, repo))
    if input_size % backbone.patch:
        raise UsageError(f"option input_size: {input_size} is not a multiple of {backbone.patch}, the patch of {repo}")
    tensors = bare_backbone(state)
    tensors.pop("masked_embed", None)  # used in the training only
    difference = sorted(set(tensors) ^ set(backbone.state_dict()))
    if difference:
        side = "is missing" if difference[0] in backbone.state_dict() else "has no counterpart"
        raise UsageError(f"option repo: {repo}: tensor '{difference[0]}' {side} ({len(difference)} such tensors)")
    try:
        backbone.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise UsageError(f"option repo: {repo}: {str(error).splitlines()[-1].strip()}") from error
    reading = Reading(token, "cls", margin, use_boxes, attention, token_blocks)
    return HuggingFaceViT(backbone, reading, input_size).eval()


def shape_of(config: dict[str, Any], repo: str) -> dict[str, Any]:
    """Translate a configuration of transformers into options of `VisionTransformer`; UsageError if it is not supported.

    The LayerNorm epsilon is 1e-6, whatever the configuration says.
    """
    model_type = config.get("model_type")
    if model_type not in MODEL_TYPES:
        raise UsageError(
            f"option repo: {repo} is a model of type {model_type!r}; supported are {', '.join(MODEL_TYPES)}"
        )
    for field, wanted in (("hidden_act", "gelu"), ("qkv_bias", True), ("use_swiglu_ffn", False)):
        if config.get(field, wanted) != wanted:
            raise UsageError(f"option repo: {repo}: {field} is {config[field]}; only {wanted} is supported")
    registers = config.get("num_register_tokens", 0) if model_type == "dinov2_with_registers" else 0
    dim = config["hidden_size"]
    return {
        "grid": config["image_size"] // config["patch_size"],
        "patch": config["patch_size"],
        "dim": dim,
        "depth": config["num_hidden_layers"],
        "heads": config["num_attention_heads"],
        "mlp_ratio": config["intermediate_size"] / dim if model_type == "vit" else config["mlp_ratio"],
        "registers": registers,
        "layer_scale": None if model_type == "vit" else config["layerscale_value"],
        # The rule of each method's own code: DINO and DINOv2 resample by scale with the offset, DINOv2 with registers
        # by size and with antialias, as timm does.
        "position_offset": None if registers else DINO_OFFSET,
    }


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, shapes and values, in order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def check_repository(subject: str, repo: str) -> None:
    """Raise DataMissingError for a folder that is not there: for all that cannot be a name on the hub.

    That is also `checkpoints/mine` where there is a folder `checkpoints`.

    subject: start of the message, such as `option repo`.
    """
    hub = import_optional("huggingface_hub.utils", "hub", subject)
    if Path(repo).is_dir():
        return
    missing = f"{subject}: there is no such folder: {Path(repo).absolute()}"
    if len(Path(repo).parts) > 1 and Path(repo).parent.is_dir():
        raise DataMissingError(missing)
    try:
        hub.validate_repo_id(repo)
    except hub.HFValidationError as error:
        raise DataMissingError(missing) from error


def with_transformers(subject: str, load: Callable[[Any], Loaded]) -> Loaded:
    """Call `load` with the module transformers.

    Args:
        subject: start of the messages, such as `option repo: facebook/dino-vits16`.
        load: what reads a model from the hub or a folder.

    Raises:
        UsageError: transformers is not installed.
        DataMissingError: the files are not available.
    """
    transformers = import_optional("transformers", "hub", subject)
    try:
        with quiet("huggingface_hub", "transformers"):
            return load(transformers)
    except (OSError, ValueError) as error:
        if isinstance(error, OclBenchError):
            raise
        reason = str(error).strip().splitlines()[0]
        raise DataMissingError(f"{subject} is not available ({reason}); download it and give its folder") from error


def load_strictly(kind: Any, subject: str, repo: str, revision: str | None, **options: Any) -> Any:
    """A model of transformers in float32, on the CPU. Raises UsageError for a tensor that the files do not hold.

    kind: class of transformers with `from_pretrained`, such as `AutoModel`.
    """
    options |= {"revision": revision, "dtype": torch.float32, "output_loading_info": True}
    model, info = kind.from_pretrained(repo, **options)
    absent = sorted(str(name) for name in info["missing_keys"] if "mask_token" not in str(name))
    if absent:  # transformers only warns and initialises them at random
        raise UsageError(f"{subject}: tensor '{absent[0]}' is missing ({len(absent)} such tensors)")
    return model


def _download(repo: str, revision: str | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the configuration and the tensors of a repository, in float32, on the CPU."""
    subject = f"option repo: {repo}"

    def load(transformers: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
        config = transformers.AutoConfig.from_pretrained(repo, revision=revision)
        if config.model_type not in MODEL_TYPES:
            return config.to_dict(), {}
        extra = {"add_pooling_layer": False} if config.model_type == "vit" else {}
        model = load_strictly(transformers.AutoModel, subject, repo, revision, **extra)
        return config.to_dict(), dict(model.state_dict())

    return with_transformers(subject, load)

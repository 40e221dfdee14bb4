"""Backbones by name, for probes and floors: any vision transformer of the Hugging Face hub, any network of timm.

`hub:facebook/dinov3-vits16-pretrain-lvd1689m` or `timm:vit_base_patch16_224.mae` stands wherever a model's name does,
also as `encoder` of a floor. The network runs in the library's own code. What differs between networks and changes
numbers is written into the signature: token, patch, registers, positions, final norm, image statistics and input size.

`dino-hub` is the stricter card for DINO and DINOv2: it has the position and LayerNorm rules of the methods' own code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import DataMissingError, UsageError
from ..core.optional import import_optional
from ..core.types import Batch, Prediction
from .backbone_names import supervision_of
from .hugging_face import REPOSITORIES, check_repository, fingerprint, load_strictly, with_transformers
from .layers.normalisation import MEAN, STD

STATISTICS = {"imagenet": (MEAN, STD), "half": ((0.5,) * 3, (0.5,) * 3)}
"""Mean and standard deviation by which images are normalised, by name."""


@dataclass(frozen=True)
class Kind:
    """Networks of one `model_type` of transformers.

    Attributes:
        prefix: tokens before the patches, without registers: the class token, or none.
        positions: how they know where a patch is: `learnt` (a table, resampled to other sizes), `sincos` or `rope`.
        norm: whether the tokens are those after the final norm, `final` or `none`.
        head: whether `head` is a trained pooling of the tokens.
        arguments: keyword arguments of the call.
    """

    prefix: int = 1
    positions: str = "learnt"
    norm: str = "final"
    head: bool = False
    arguments: tuple[str, ...] = ("interpolate_pos_encoding",)


KINDS = {
    "vit": Kind(),
    "dinov2": Kind(arguments=()),
    "dinov2_with_registers": Kind(arguments=()),
    "dinov3_vit": Kind(positions="rope", arguments=()),
    "vit_mae": Kind(positions="sincos", arguments=("interpolate_pos_encoding", "noise")),
    "ijepa": Kind(prefix=0),
    "siglip_vision_model": Kind(prefix=0, head=True),
    "clip_vision_model": Kind(norm="none", head=True),
}
"""Supported networks. A model of images and texts, such as SigLIP and CLIP, is taken by its half for images."""


@dataclass(frozen=True)
class Tokens:
    """What a network makes of B images: class tokens (B, D) or None, patches (B, D, h, w), pooled (B, D) or None."""

    cls: Tensor | None
    patches: Tensor
    head: Tensor | None


@dataclass(frozen=True)
class Facts:
    """What is printed in the signature about a backbone, the statistics of its images, and its kinds of embeddings."""

    source: str
    patch: int
    registers: int
    positions: str
    norm: str
    statistics: str
    mean: Sequence[float]
    std: Sequence[float]
    supervision: str
    parts: tuple[str, ...]

    def __str__(self) -> str:
        fields = (f"patch-{self.patch}", f"registers-{self.registers}", f"positions-{self.positions}")
        return ",".join((self.source, *fields, f"norm-{self.norm}", f"statistics-{self.statistics}"))


class Backbone(nn.Module):
    """A frozen network. Results are stored under `checkpoint_sha256`, a hash of its tensors."""

    def __init__(
        self, network: nn.Module, run: Callable[[Tensor], Tokens], facts: Facts, token: str, input_size: int
    ) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self._run, self._facts, self._parts = run, facts, tuple(token.split("+"))
        for part in self._parts:
            if part not in facts.parts:
                raise UsageError(
                    f"option token: this network has no {part!r}; use {', '.join(facts.parts)}, joined by +"
                )
        self.input_size, self.supervision = input_size, facts.supervision
        self.checkpoint_sha256 = fingerprint(network.state_dict())

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        """Predict tokens (B, D, h, w) and an embedding (B, parts x D).

        Raises:
            UsageError: image sides that are no multiples of the patch.
        """
        tokens = self._tokens(batch)
        embedding = torch.cat([self._part(part, tokens) for part in self._parts], dim=1)
        source = f"token:{'+'.join(self._parts)},{self._facts},size-{batch.image.shape[-1]}"
        return Prediction(tokens=tokens.patches, embedding=embedding, embedding_source=source)

    @torch.no_grad()
    def encode(self, batch: Batch) -> Tensor:
        """Tokens (B, D, h, w) of the patches."""
        return self._tokens(batch).patches

    def _tokens(self, batch: Batch) -> Tokens:
        image = batch.image.to(next(self.network.parameters()))
        if image.shape[-1] % self._facts.patch or image.shape[-2] % self._facts.patch:
            sides = "x".join(map(str, image.shape[-2:]))
            raise UsageError(f"images of {sides} pixels: the sides must be multiples of the patch, {self._facts.patch}")
        mean, std = (image.new_tensor(values).view(3, 1, 1) for values in (self._facts.mean, self._facts.std))
        return self._run((image - mean) / std)

    def _part(self, part: str, tokens: Tokens) -> Tensor:
        """One part of the embedding, (B, D)."""
        return tokens.patches.mean((2, 3)) if part == "mean" else getattr(tokens, part)


def build_hub(
    name: str = "",
    revision: str | None = None,
    input_size: int | None = None,
    token: str = "mean",
    statistics: str = "auto",
) -> Backbone:
    """Download a vision transformer with transformers (or find it in the cache), or read it from a folder.

    Args:
        name: on the hub, or a folder.
        revision: commit of the repository; also written `OWNER/NAME@COMMIT`.
        input_size: side in pixels, a multiple of the patch; None takes that of the configuration.
        token: parts of the embedding, joined by +: `cls`, `mean` of the patches, `head` (the network's own pooling).
        statistics: `imagenet`, `half` (0.5), or `auto`: those of the repository's image processor.

    Raises:
        UsageError: the network is not supported, an option is wrong, or transformers is not installed.
        DataMissingError: the files are not available.
    """
    name, _, commit = _named(name, "hub:facebook/dinov3-vits16-pretrain-lvd1689m").partition("@")
    revision = commit or revision
    check_repository(f"model hub:{name}", name)
    config, network = with_transformers(
        f"model hub:{name}", lambda transformers: _network(transformers, name, revision)
    )
    kind = KINDS[config.model_type]
    mean, std = _statistics(name, revision, statistics)
    facts = Facts(
        source="hub",
        patch=int(config.patch_size),
        registers=int(getattr(config, "num_register_tokens", 0)),
        positions=kind.positions,
        norm=kind.norm,
        statistics=_name_of(mean, std),
        mean=mean,
        std=std,
        supervision=supervision_of("hub", name),
        parts=("mean", *(["cls"] if kind.prefix else []), *(["head"] if kind.head else [])),
    )
    run = _HubCall(network, kind, facts)
    return Backbone(network, run, facts, token, _size(input_size or int(config.image_size), facts.patch))


def build_timm(name: str = "", input_size: int | None = None, token: str = "mean") -> Backbone:
    """Make a network of timm with its pretrained weights.

    Args:
        name: as in `timm.list_pretrained()`.
        input_size: side in pixels; None takes that of the weights. timm resamples position tables to it.
        token: `cls` or `mean`, or both joined by +.

    Raises:
        UsageError: timm is not installed, or an option is wrong.
        DataMissingError: the weights are not available.
    """
    name = _named(name, "timm:vit_base_patch16_224.mae")
    timm = import_optional("timm", "timm", f"model timm:{name}")
    sizes = {} if input_size is None else {"img_size": input_size}
    try:
        network = timm.create_model(name, pretrained=True, num_classes=0, **sizes)
    except OSError as error:
        raise DataMissingError(f"model timm:{name}: not available ({str(error).strip().splitlines()[0]})") from error
    except (RuntimeError, TypeError, ValueError) as error:
        raise UsageError(f"model timm:{name}: {str(error).strip().splitlines()[0]}") from error
    return from_timm(network, name, input_size, token)


def from_timm(network: Any, name: str, input_size: int | None, token: str) -> Backbone:
    """Wrap a network with timm's interface: `forward_features`, `num_prefix_tokens`, `pretrained_cfg`."""
    config = network.pretrained_cfg
    prefix = int(getattr(network, "num_prefix_tokens", 0))
    has_cls = prefix > 0 and getattr(network, "cls_token", None) is not None
    mean, std = tuple(config["mean"]), tuple(config["std"])
    size = input_size or int(config["input_size"][-1])
    embedding = getattr(network, "patch_embed", None)
    facts = Facts(
        source="timm",
        patch=int(embedding.patch_size[0]) if embedding is not None else 1,  # a convolutional network takes any side
        registers=prefix - has_cls,
        positions="timm",
        norm="final",
        statistics=_name_of(mean, std),
        mean=mean,
        std=std,
        supervision=supervision_of("timm", name),
        parts=("mean", "cls") if has_cls else ("mean",),
    )

    def run(image: Tensor) -> Tokens:
        output = network.forward_features(image)
        if output.ndim == 4:
            return Tokens(None, output, None)
        patches = _grid(output[:, prefix:], image, facts.patch)
        return Tokens(output[:, 0] if has_cls else None, patches, None)

    return Backbone(network, run, facts, token, _size(size, facts.patch))


class _HubCall:
    """Call of a network of transformers: images (B, 3, H, W), normalised, -> its tokens."""

    def __init__(self, network: nn.Module, kind: Kind, facts: Facts) -> None:
        self.network, self.kind, self.facts = network, kind, facts

    def __call__(self, image: Tensor) -> Tokens:
        arguments: dict[str, Any] = {"interpolate_pos_encoding": True}
        if "noise" in self.kind.arguments:  # MAE sorts patches by noise: rising numbers leave their order as it is
            count = image.shape[-2] * image.shape[-1] // self.facts.patch**2
            arguments["noise"] = torch.arange(count, device=image.device, dtype=torch.float32).expand(len(image), -1)
        output = self.network(image, **{key: arguments[key] for key in self.kind.arguments})
        hidden = output.last_hidden_state
        patches = _grid(hidden[:, self.kind.prefix + self.facts.registers :], image, self.facts.patch)
        head = output.pooler_output if self.kind.head else None
        return Tokens(hidden[:, 0] if self.kind.prefix else None, patches, head)


def _network(transformers: Any, name: str, revision: str | None) -> tuple[Any, nn.Module]:
    """Configuration and network of a repository. Raises UsageError for one that is not known."""
    config = transformers.AutoConfig.from_pretrained(name, revision=revision)
    inner = getattr(config, "vision_config", config)
    if inner.model_type not in KINDS:
        raise UsageError(f"model hub:{name}: type {inner.model_type!r} is not supported; known are {', '.join(KINDS)}")
    options: dict[str, Any] = {"mask_ratio": 0.0} if inner.model_type == "vit_mae" else {}
    if inner.model_type in ("vit", "ijepa"):
        options["add_pooling_layer"] = False
    model = load_strictly(transformers.AutoModel, f"model hub:{name}", name, revision, **options)
    return inner, getattr(model, "vision_model", model)


def _statistics(name: str, revision: str | None, statistics: str) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation of the images. Raises UsageError where nobody says them."""
    if statistics in STATISTICS:
        return STATISTICS[statistics]
    if statistics != "auto":
        raise UsageError(f"option statistics: {statistics!r} is none of auto, {', '.join(STATISTICS)}")
    if name.startswith(REPOSITORIES):  # their processors say 0.5, their training code says ImageNet
        return STATISTICS["imagenet"]
    import transformers

    try:
        found, _ = transformers.ImageProcessingMixin.get_image_processor_dict(name, revision=revision)
        return tuple(found["image_mean"]), tuple(found["image_std"])
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"model hub:{name}: does not say how images are normalised; give --option statistics=imagenet or half"
        ) from error


def _name_of(mean: Sequence[float], std: Sequence[float]) -> str:
    """The name of these statistics; the numbers where they have none."""
    for name, known in STATISTICS.items():
        if known == (tuple(mean), tuple(std)):
            return name
    return "/".join(f"{value:.4g}" for value in (*mean, *std))


def _grid(tokens: Tensor, image: Tensor, patch: int) -> Tensor:
    """Tokens (B, P, D) of the patches of images -> (B, D, h, w)."""
    return tokens.transpose(1, 2).unflatten(2, (image.shape[-2] // patch, image.shape[-1] // patch))


def _named(name: str, example: str) -> str:
    if not name:
        raise UsageError(f"option name: is missing; write the model as {example}")
    return name


def _size(size: int, patch: int) -> int:
    if size % patch:
        raise UsageError(f"option input_size: {size} is not a multiple of the patch, {patch}")
    return size

"""VideoSAUR: slots of videos that learn from the similarity of features over time (Zadaianchuk et al., NeurIPS 2023).

arXiv:2306.04829; official code martius-lab/videosaur, commit 5d09311. It is the ancestor of SlotContrast and has its
network (`slotcontrast.SlotContrast`) with three other parts: initial slots are sampled, the update of slot attention
has no MLP, and the decoder is `layers.slot_mixer`. Besides features the decoder predicts, for each token, where its
content is in the next frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import UsageError
from ..core.types import Batch
from .checkpoints.names import rename_keys
from .checkpoints.sizes import check_sizes
from .checkpoints.videosaur import BACKBONES, OFFICIAL_NAMES, SIZES, VARIANTS
from .encoder import STRIDE, Encoder
from .layers.initialisation import SharedGaussian
from .layers.slot_attention import SlotAttention
from .layers.slot_mixer import SlotMixerDecoder
from .layers.vit import VisionTransformer
from .losses import time_similarity, time_similarity_targets
from .options import check_choice, check_range
from .reading import PatchEncoder
from .slotcontrast import SlotContrast

SIMILARITY_WEIGHT = 0.1
"""Weight of the time similarity in the loss, in all official configurations."""


class VideoSAUR(SlotContrast):
    """VideoSAUR around a frozen encoder. `recurrence`, `decode` and `predict` are those of `SlotContrast`.

    Args:
        encoder, feature_dim, grid, input_size, slots, slot_dim, options: see `SlotContrast`.
        heads: attention heads of predictor and decoder.
        hidden, decoder_layers: width and number of the hidden layers of the decoder's MLP.
        decoder_blocks: blocks of the decoder's allocator.
        features: whether the decoder predicts features (F channels) before the P channels of the time similarity.
        temperature: of the time similarity.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        feature_dim: int,
        grid: Sequence[int],
        slots: int,
        slot_dim: int,
        heads: int = 4,
        hidden: int = 1024,
        decoder_layers: int = 4,
        decoder_blocks: int = 2,
        features: bool = True,
        temperature: float = 0.075,
        **options: Any,
    ) -> None:
        shape: dict[str, Any] = {"feature_dim": feature_dim, "grid": grid, "slots": slots, "slot_dim": slot_dim}
        shape |= {"hidden": 1, "decoder_layers": 1}  # of a decoder that is replaced below
        super().__init__(encoder, **shape, heads=heads, temperature=temperature, **options)
        self.features = features
        del self.initial_slots
        self.initialisation = SharedGaussian(slot_dim)
        self.corrector = SlotAttention(
            slot_dim, slot_dim, self.iterations, normalised_state=True, attention_floor=1e-8, mlp=False
        )
        tokens = self.grid[0] * self.grid[1]
        outputs = tokens + (feature_dim if features else 0)
        self.decoder = SlotMixerDecoder(  # type: ignore[assignment]
            outputs, slot_dim, tokens, blocks=decoder_blocks, heads=heads, hidden=hidden, layers=decoder_layers
        )

    def sampled_slots(self, batch: Batch) -> Tensor:
        """Initial slots (B, K, D), sampled in evaluation too, as officially; the noise is that of the batch."""
        return self.initialisation(batch.noise(self.slots, self.slot_dim).to(self.weight))

    def loss(  # type: ignore[override]
        self, features: Tensor, *, keys: Tensor, noise: Tensor
    ) -> dict[str, Tensor]:
        """Compute the training loss of B clips of T frames, T >= 2.

        Args:
            features: (B, T, P, F) from `encode_frames`.
            keys: (B, T, P, D'), attention keys of the encoder's last block.
            noise: (B, K, D) standard normal.

        Returns:
            Scalars: "total", with gradient; "similarity" and, where features are predicted, "reconstruction".
        """
        features = features.detach().to(self.weight.dtype)
        recurrence = self.recurrence(features, initial=self.initialisation(noise))
        decoded, _ = self.decode(recurrence.slots)
        split = self.feature_dim if self.features else 0
        targets = time_similarity_targets(keys.to(features), self.temperature)
        similarity = time_similarity(decoded[..., split:], targets)
        total = SIMILARITY_WEIGHT * similarity
        terms = {"similarity": similarity.detach()}
        if self.features:
            reconstruction = F.mse_loss(decoded[..., :split], features)
            total = total + reconstruction
            terms["reconstruction"] = reconstruction.detach()
        return {"total": total, **terms}

    def translate_checkpoint(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the tensors of an official checkpoint; a checkpoint with our names is returned unchanged.

        Raises:
            UsageError: it is of another model, or D, P or F differs from the model's.
        """
        if "initialisation.mean" not in state:
            state = rename_keys(state, OFFICIAL_NAMES)
        check_sizes(state, self.state_dict(), SIZES)
        return state


def build(*, variant: str = "movi_c", **options: Any) -> VideoSAUR:
    """Build the model of the card `videosaur-paper`.

    Args:
        variant: a released model: movi_c, movi_e, ytvis, ytvis_dinov2, or clevrer (C-JEPA's).
        options: over those of the variant: `encoder` (a key of `checkpoints.videosaur.BACKBONES`, or cnn with its own
            `width`, `dim`, `blocks`), `input_size`, and the keywords of `VideoSAUR`.

    Raises:
        UsageError: an option is unknown or out of range.
    """
    check_choice("variant", variant, tuple(VARIANTS))
    options = {**VARIANTS[variant], **options}
    name, size = options.pop("encoder"), options["input_size"]
    check_choice("encoder", name, (*BACKBONES, "cnn"))
    patch = STRIDE if name == "cnn" else BACKBONES[name]["patch"]
    whole = isinstance(size, int) and size % patch == 0 and size >= 2 * patch
    check_range("input_size", size, whole, f"a multiple of {patch}, at least {2 * patch}")
    for count in ("decoder_blocks", "decoder_layers", "hidden"):
        value = options.get(count, 1)
        check_range(count, value, isinstance(value, int) and value >= 1, "a whole number from 1")
    unknown = set(options) - _KEYWORDS - ({"width", "dim", "blocks"} if name == "cnn" else set())
    if unknown:
        raise UsageError(f"option {min(unknown)}: is unknown; options are {', '.join(sorted(_KEYWORDS))}")
    encoder: nn.Module
    if name == "cnn":
        shape = {key: options.pop(key) for key in ("width", "dim", "blocks") if key in options}
        encoder = Encoder(**shape)
        width = encoder.dim
    else:
        encoder, width = PatchEncoder(VisionTransformer(**BACKBONES[name], depth=12, final_norm=False)), 0
        width = BACKBONES[name]["dim"]
    side = size // patch
    return VideoSAUR(encoder, feature_dim=width, grid=(side, side), **options).eval()


_KEYWORDS = {"input_size", "slots", "slot_dim", "heads", "hidden", "decoder_layers", "decoder_blocks", "features"}
_KEYWORDS |= {"temperature", "first_iterations", "iterations", "mask_source", "chunk"}
"""Options of `build` besides `variant` and `encoder`."""

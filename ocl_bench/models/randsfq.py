"""RandSF.Q: DIAS on videos, with queries predicted from the last slots and the new frame (Zhao et al. 2025).

    frame 0: slot attention from the initial slots, 3 rounds
    frame t: slot attention from transition(slots of frame t - 1, tokens of frame t), 1 round

With `initialisation="smooth"` it is the video model of SmoothSA. Network and decoder are those of `dias.DIAS`. Source:
`RSFQTransit` and the video models in the official code (Genera1Z/RandSF.Q, commit b2f7894; Genera1Z/SmoothSA, commit
b26d2b7). The training, which draws random pairs of frames, is not here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..core.errors import UsageError
from ..core.types import Batch, Prediction
from .checkpoints.dias import OFFICIAL_NAMES
from .checkpoints.names import rename_keys
from .checkpoints.smoothsa import SMOOTH_NAMES, TRANSITION_NAMES
from .dias import DIAS, assemble, soften
from .streaming import check_finite, checked_state

TIMES = 5
"""Rows of the table of times: the frames of a clip in the official training. Evaluation uses the first two."""


class Transition(nn.Module):
    """From the slots of a frame and the tokens of the next one to the queries of the next one.

    One decoder layer as torch's, norms after the additions, without biases.

    Args:
        slot_dim: C, a multiple of `heads`.
        input_dim: D of the projected tokens.
        heads: of the layer.
    """

    def __init__(self, slot_dim: int, input_dim: int, heads: int = 4) -> None:
        super().__init__()
        self.time = nn.Parameter(torch.randn(TIMES, slot_dim))
        self.memory = nn.Linear(input_dim, slot_dim)
        self.layer = nn.TransformerDecoderLayer(
            slot_dim, heads, 4 * slot_dim, dropout=0.0, activation="gelu", batch_first=True, bias=False
        )

    def forward(self, slots: Tensor, inputs: Tensor) -> Tensor:
        """Slots (B, K, C) of the last frame, projected tokens (B, P, D) of this one -> queries (B, K, C)."""
        queries: Tensor = self.layer(slots + self.time[1], self.memory(inputs) + self.time[0])
        return queries


@dataclass(frozen=True)
class Following:
    """The slots of B videos through T frames.

    Attributes:
        queries: (B, T, K, C), with which slot attention starts in each frame.
        slots: (B, T, K, C).
        attention: (B, T, K, P), of slot attention's last round.
        masks: (B, T, K, P), the decoder's.
    """

    queries: Tensor
    slots: Tensor
    attention: Tensor
    masks: Tensor


class RandSFQ(DIAS):
    """A DIAS that follows its slots through videos. An image is a video of one frame.

    Args:
        encoder, feature_dim, tokens, options: see `DIAS`.
    """

    reads_video = True

    def __init__(self, encoder: nn.Module, *, feature_dim: int, **options: Any) -> None:
        super().__init__(encoder, feature_dim=feature_dim, **(options | {"distill": False}))
        self.transition = Transition(self.slot_dim, feature_dim)

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        """Predict soft masks (B, T, K, h, w), slots (B, T, K, C) and tokens (B, T, D, h, w) of videos.

        `state` is the slots of the last frame, from which the next frames continue. The fields of images have no T.

        Raises:
            SampleError: a frame is not finite.
            UsageError: `state` is missing or has another shape.
        """
        video = batch.image.unsqueeze(1) if batch.video is None else batch.video
        state = checked_state(batch, self.slots, self.slot_dim, self.initialisation.mean)
        check_finite(batch, video)
        frames = [self.encoder(frame.to(self.initialisation.mean)) for frame in video.unbind(1)]
        tokens = torch.stack(frames, dim=1)  # frame by frame, because the encoder needs much memory
        noise = batch.noise(self.slots, self.slot_dim).to(tokens)
        result = self.follow(tokens.flatten(3).transpose(2, 3), noise, state)
        masks = result.masks if self.mask_source == "decoder" else result.attention
        masks = soften(masks.flatten(0, 1), self.mask_temperature).view_as(masks).unflatten(3, tokens.shape[-2:])
        slots, last = result.slots, result.slots[:, -1]
        if batch.video is None:
            return Prediction(masks=masks[:, 0], mask_source=self.mask_source, slots=slots[:, 0], tokens=tokens[:, 0])
        return Prediction(masks=masks, mask_source=self.mask_source, slots=slots, tokens=tokens, state=last)

    def follow(self, features: Tensor, noise: Tensor, state: Tensor | None = None) -> Following:
        """Follow the objects of raw tokens (B, T, P, D) from noise (B, K, C), or from the slots of the frame before.

        Args:
            features: raw encoder tokens.
            noise: standard normal; it is not used with a state.
            state: (B, K, C), slots of the frame before the first of these; None at the beginning of a video.
        """
        steps = []
        for frame in features.unbind(1):
            inputs = self.project(frame)
            if state is None:
                query, rounds = self.initial_slots(inputs, noise)[0], self.aggregation.iterations
            else:
                query, rounds = self.transition(state, inputs), 1
            state, attention = self.aggregation(inputs, query, num_iter=rounds)
            masks = self.decoder(state, frame)[1]
            steps.append((query, state, attention[-1], masks))
        return Following(*(torch.stack(parts, dim=1) for parts in zip(*steps, strict=True)))

    def translate_checkpoint(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the tensors of an official checkpoint, whose keys all start with `m.`; others stay as they are."""
        if not any(key.startswith("m.") for key in state):
            return state
        return rename_keys(state, (*TRANSITION_NAMES, *SMOOTH_NAMES, *OFFICIAL_NAMES))


def build(
    *,
    encoder: Literal["cnn", "dinov2s14reg", "vit"] = "dinov2s14reg",
    vit: Mapping[str, Any] | None = None,
    dim: int = 64,
    width: int = 64,
    blocks: Sequence[int] = (1, 1),
    input_size: int = 128,
    slots: int = 7,
    slot_dim: int = 256,
    **options: Any,
) -> RandSFQ:
    """Build the model of the card `randsfq-paper`; arguments and errors as in `dias.build`."""
    if slot_dim % 4:
        raise UsageError(f"option slot_dim: {slot_dim} must be a multiple of the 4 heads of the transition")
    sizes = {"dim": dim, "width": width, "blocks": blocks, "input_size": input_size}
    return assemble(RandSFQ, encoder, vit, sizes, {"slots": slots, "slot_dim": slot_dim, **options})

"""SlotContrast: slots that follow objects through a video (Manasyan et al., CVPR 2025, arXiv:2412.14295).

    frame -> frozen encoder -> projection -> slot attention <- slots predicted from the frame before
                                                  |-> decoder -> reconstruction and masks
                                                  '-> predictor -> slots for the next frame

Slots start from learnt vectors, the same in every video, so that slot k means the same query everywhere. Two things
are learnt: the slots have to explain the features of their frame (reconstruction), and slot k of a frame has to be
more like slot k of the next one than like any other slot of the batch (contrast).

As in the official code (martius-lab/slotcontrast, commit 17b42b0), and unlike what one may expect: the GRU continues
from normalised slots; the predictor's attention is sharper than the textbook's; features are those of the last block
before the final norm; corrected slots are decoded, not predicted ones; the contrast asks, for each slot of frame t + 1,
which slot of frame t it was.

The training objective calls, in training mode, once per step:

    features = model.encode_frames(video)                    # (B, T, P, F), frozen, may be cached
    SlotContrast.loss(features: Tensor, *, ranks: RankOps = RankOps()) -> dict[str, Tensor]
        "total" (with gradient), "reconstruction", "contrast" (both unweighted, without gradient)

The parts: `recurrence(features, state) -> Recurrence`, `decode(slots, attention) -> (reconstruction, masks)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import SampleError, UsageError
from ..core.types import Batch, Prediction
from .checkpoints.slotcontrast import BACKBONES, VARIANTS, check_sizes, read_official, translate_official
from .encoder import STRIDE, Encoder
from .layers.decoders import BroadcastDecoder
from .layers.normalisation import normalise
from .layers.predictor import SlotPredictor
from .layers.slot_attention import SlotAttention
from .layers.vit import VisionTransformer
from .ranks import RankOps


@dataclass(frozen=True)
class Recurrence:
    """What the slots did in T frames of B videos. K slots of D channels, P tokens of a frame.

    slots: (B, T, K, D), corrected by what the frame shows. predicted: (B, T, K, D), what `slots` are expected to be in
    the next frame; the last one is the state that a continuation starts from. attention: (B, T, K, P), of the last
    iteration, sums to 1 over the slots.
    """

    slots: Tensor
    predicted: Tensor
    attention: Tensor


def slot_contrast(
    slots: Tensor, temperature: float = 0.1, batch_contrast: bool = True, ranks: RankOps = RankOps()
) -> Tensor:
    """Which slot was it in the frame before? Cross entropy of the true one, in nats; a scalar.

    slots: (B, T, K, D). For each slot of frame t + 1 the candidates are all slots of frame t, of the same video and,
    with `batch_contrast`, of all other videos, compared by cosine / `temperature`; the mean is over (T - 1) B K slots.
    Computed in float32 or more, also under autocast. One frame (T = 1) has nothing to compare: 0, with gradient 0.

    With `ranks`, candidates and mean are those of the joint batch, and so is the mean of the gradients over the ranks
    (the official code contrasts within each GPU). All ranks must have the same T.
    """
    if slots.shape[1] < 2:
        return slots.sum() * 0
    with torch.autocast(slots.device.type, enabled=False):
        unit = F.normalize(slots.to(torch.promote_types(slots.dtype, torch.float32)), dim=-1)
        if batch_contrast:
            unit = _joint(unit, ranks).transpose(0, 1).flatten(1, 2)
        similarity = unit[..., :-1, :, :] @ unit[..., 1:, :, :].transpose(-2, -1) / temperature
        loss = -similarity.log_softmax(-2).diagonal(dim1=-2, dim2=-1).mean()
        if batch_contrast and ranks.size > 1:
            # Every rank has the whole loss, but the gradient of its own slots only; the mean of them is over the ranks.
            loss = loss.detach() + ranks.size * (loss - loss.detach())
    return loss


def _joint(rows: Tensor, ranks: RankOps) -> Tensor:
    """Rows (n, ...) of all ranks in their order; only the own ones have a gradient."""
    if ranks.size == 1:
        return rows
    counts = ranks.gather(torch.tensor([len(rows)], device=rows.device))
    start, everything = int(counts[: ranks.rank].sum()), ranks.gather(rows.detach())
    return torch.cat([everything[:start], rows, everything[start + len(rows) :]])


class SlotContrast(nn.Module):
    """The model around a frozen encoder, which maps images (N, 3, H, W) in [0, 1] to tokens (N, F, h, w).

    feature_dim: F. input_size: side in pixels of the frames that it is made for. grid: (h, w) of their tokens, those
    of the decoder's position table, P = h w. slots: K. slot_dim: D, a multiple of `heads` of the predictor.
    first_iterations: rounds of slot attention in the first frame of a video, `iterations` in all others.
    hidden, decoder_layers: width and number of the decoder's hidden layers. contrast_weight: of the contrast, the
    reconstruction has 1. temperature, batch_contrast: see `slot_contrast`. mask_source: what `predict` calls masks.
    chunk: frames that the encoder and the decoder see at once in `predict`; it changes no result.
    attention_prior (not in the paper): adds the log of the last attention to the decoder's logits, for short trainings.
    """

    reads_video = True

    def __init__(
        self,
        encoder: nn.Module,
        *,
        feature_dim: int,
        grid: Sequence[int],
        input_size: int,
        slots: int,
        slot_dim: int,
        heads: int = 4,
        first_iterations: int = 3,
        iterations: int = 2,
        hidden: int = 1024,
        decoder_layers: int = 3,
        attention_prior: bool = False,
        contrast_weight: float = 0.5,
        temperature: float = 0.1,
        batch_contrast: bool = True,
        mask_source: Literal["decoder", "attention"] = "decoder",
        chunk: int = 8,
    ) -> None:
        super().__init__()
        counts = {"slots": slots, "slot_dim": slot_dim, "heads": heads, "first_iterations": first_iterations}
        counts |= {"iterations": iterations, "hidden": hidden, "decoder_layers": decoder_layers, "chunk": chunk}
        for name, count in counts.items():
            check_range(name, count, isinstance(count, int) and count >= 1, "a whole number from 1")
        check_range("slot_dim", slot_dim, slot_dim % heads == 0, f"a multiple of the {heads} heads of the predictor")
        check_range("temperature", temperature, 0 < temperature < float("inf"), "a number above 0")
        check_range("contrast_weight", contrast_weight, 0 <= contrast_weight < float("inf"), "a number from 0")
        check_choice("mask_source", mask_source, ("decoder", "attention"))
        self.input_size, self.grid = input_size, (grid[0], grid[1])
        self.slots, self.slot_dim, self.feature_dim = slots, slot_dim, feature_dim
        self.first_iterations, self.iterations, self.chunk = first_iterations, iterations, chunk
        self.contrast_weight, self.temperature, self.batch_contrast = contrast_weight, temperature, batch_contrast
        self.attention_prior, self.mask_source = attention_prior, mask_source
        self.encoder = encoder.requires_grad_(False)
        self.initial_slots = nn.Parameter(torch.randn(1, slots, slot_dim) * slot_dim**-0.5)
        self.project = nn.Sequential(
            nn.LayerNorm(feature_dim),
            nn.Linear(feature_dim, 2 * feature_dim),
            nn.ReLU(),
            nn.Linear(2 * feature_dim, slot_dim),
        )
        self.corrector = SlotAttention(
            slot_dim, slot_dim, iterations, activation=nn.ReLU, normalised_state=True, attention_floor=1e-8
        )
        self.predictor = SlotPredictor(slot_dim, heads)
        self.decoder = BroadcastDecoder(
            feature_dim, slot_dim, grid[0] * grid[1], decoder_layers, hidden, position_std=slot_dim**-0.5
        )

    @property
    def patch(self) -> int:
        """Side of a token in pixels."""
        return self.input_size // self.grid[0]

    @torch.no_grad()
    def encode_frames(self, video: Tensor, chunk: int | None = None) -> Tensor:
        """The frozen encoder's tokens, frame by frame: input of the slots and target of the reconstruction.

        video: (B, T, 3, H, W) in [0, 1], un-normalised. chunk: frames that the encoder sees at once, None = all.
        Returns (B, T, P, F), tokens in row-major order. Raises UsageError for sides that are no multiples of `patch`.
        """
        return self._encode(video, chunk).flatten(3).transpose(2, 3)

    def _encode(self, video: Tensor, chunk: int | None) -> Tensor:
        """Token maps (B, T, F, h, w)."""
        height, width = video.shape[-2:]
        if height % self.patch or width % self.patch or not height or not width:
            raise UsageError(f"frames of {height}x{width} pixels: the sides must be multiples of {self.patch}")
        frames = video.flatten(0, 1).to(self.initial_slots)
        tokens = torch.cat([self.encoder(some) for some in frames.split(chunk or max(1, len(frames)))])
        return tokens.unflatten(0, video.shape[:2])

    def recurrence(self, features: Tensor, state: Tensor | None = None) -> Recurrence:
        """Follow the objects through T frames.

        features: (B, T, P, F). state: (B, K, D), `predicted` of the frame before; None where a video begins.
        """
        inputs = self.project(features)
        slots = self.initial_slots.expand(len(features), -1, -1).clone() if state is None else state
        rounds = self.first_iterations if state is None else self.iterations
        corrected, predicted, attention = [], [], []
        for frame in inputs.unbind(1):
            now, maps = self.corrector(frame, slots, num_iter=rounds)
            slots, rounds = self.predictor(now), self.iterations
            corrected.append(now)
            predicted.append(slots)
            attention.append(maps[-1])
        return Recurrence(*(torch.stack(parts, dim=1) for parts in (corrected, predicted, attention)))

    def decode(
        self, slots: Tensor, attention: Tensor | None = None, grid: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Corrected slots (B, T, K, D) -> reconstruction (B, T, P, F) and masks (B, T, K, P), sum 1 over the slots.

        attention: (B, T, K, P), needed with `attention_prior`. grid: (h, w) of frames of another size.
        """
        prior = None
        if self.attention_prior:
            if attention is None:
                raise UsageError("option attention_prior: the decoder needs the attention; give it, or set it to false")
            prior = attention.flatten(0, 1)
        other = None if grid is None or tuple(grid) == self.grid else grid
        reconstruction, masks = self.decoder(slots.flatten(0, 1), prior=prior, grid=other)
        return reconstruction.unflatten(0, slots.shape[:2]), masks.unflatten(0, slots.shape[:2])

    def loss(self, features: Tensor, *, ranks: RankOps = RankOps()) -> dict[str, Tensor]:
        """The training loss of B clips of T frames; T = 1 trains on images, with contrast 0.

        features: (B, T, P, F) from `encode_frames`, of any float type, without gradient. ranks: see `slot_contrast`.
        Returns scalars: "total", with gradient; "reconstruction", the mean squared error over all frames, tokens and
        channels; "contrast". With equal shares of a batch, the means over the ranks are those of the joint batch.
        """
        return self._terms(features, ranks)[0]

    def _terms(self, features: Tensor, ranks: RankOps) -> tuple[dict[str, Tensor], Recurrence, Tensor, Tensor]:
        """Loss, recurrence, reconstruction (B, T, P, F) and masks (B, T, K, P)."""
        if features.ndim != 4 or tuple(features.shape[2:]) != (self.grid[0] * self.grid[1], self.feature_dim):
            raise UsageError(
                f"features {tuple(features.shape)} do not fit; expected (B, T, {self.grid[0] * self.grid[1]}, "
                f"{self.feature_dim}) from encode_frames"
            )
        features = features.detach().to(self.initial_slots.dtype)
        found = self.recurrence(features)
        reconstructed, masks = self.decode(found.slots, found.attention)
        reconstruction = F.mse_loss(reconstructed, features)
        contrast = slot_contrast(found.slots, self.temperature, self.batch_contrast, ranks)
        total = reconstruction + self.contrast_weight * contrast
        terms = {"total": total, "reconstruction": reconstruction.detach(), "contrast": contrast.detach()}
        return terms, found, reconstructed, masks

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        """Soft masks on the grid of tokens; the model must be in evaluation mode.

        Videos: masks (B, T, K, h, w), slots (B, T, K, D), tokens (B, T, F, h, w), and the `state` with which the next
        frames go on, in pieces of any length, as if all had come at once. Images are videos of one frame: without T.
        Raises SampleError for frames that are not finite, UsageError for sides that do not fit and a missing `state`.
        """
        video = batch.image.unsqueeze(1) if batch.video is None else batch.video
        state = self._checked_state(batch)
        _check_finite(batch, video)
        pieces = []
        for some in video.split(self.chunk, dim=1):
            tokens = self._encode(some, self.chunk)
            found = self.recurrence(tokens.flatten(3).transpose(2, 3), state)
            state = found.predicted[:, -1]
            masks = found.attention
            if self.mask_source == "decoder":
                masks = self._decoded_masks(found, tuple(tokens.shape[-2:]))
            pieces.append((masks.unflatten(3, tokens.shape[-2:]), found.slots, tokens))
        masks, slots, tokens = (torch.cat(parts, dim=1) for parts in zip(*pieces, strict=True))
        if batch.video is None:
            masks, slots, tokens, state = masks.squeeze(1), slots.squeeze(1), tokens.squeeze(1), None
        return Prediction(masks=masks, mask_source=self.mask_source, slots=slots, tokens=tokens, state=state)

    def _decoded_masks(self, found: Recurrence, grid: tuple[int, ...]) -> Tensor:
        """The decoder's masks (B, T, K, P), a few frames at once: K copies of a frame are wide."""
        frames = zip(found.slots.split(1, dim=1), found.attention.split(1, dim=1), strict=True)
        return torch.cat([self.decode(slots, attention, grid)[1] for slots, attention in frames], dim=1)

    def _checked_state(self, batch: Batch) -> Tensor | None:
        """The state that a batch goes on from; raises UsageError where it is missing or of another shape."""
        if batch.video is None or (batch.state is None and batch.start == 0):
            return None
        expected = (len(batch.video), self.slots, self.slot_dim)
        if not isinstance(batch.state, Tensor) or tuple(batch.state.shape) != expected:
            what = tuple(batch.state.shape) if isinstance(batch.state, Tensor) else type(batch.state).__name__
            raise UsageError(
                f"frames from {batch.start} on: batch.state is {what}, expected {expected}; "
                "give Prediction.state of the frames before"
            )
        return batch.state.to(self.initial_slots)

    def read_checkpoint(self, path: Path) -> dict[str, Tensor]:
        """Tensors of a checkpoint file, official ones (of Lightning, with optimiser and loops) included."""
        return read_official(path)

    def translate_checkpoint(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the tensors of an official checkpoint; those of our own are returned unchanged.

        Raises UsageError when K, D, P or F of the file is not that of the model.
        """
        state = translate_official(state)
        check_sizes(state, self.state_dict(), self.patch)
        return state


class DinoV2(nn.Module):
    """The paper's frozen encoder: DINOv2, image (N, 3, H, W) in [0, 1] -> block 12 before the final norm (N, F, h, w).

    dim: F. grid: side of the position table in patches, which is resampled to other sizes by timm's rule.
    """

    def __init__(self, *, dim: int, heads: int, depth: int = 12, grid: int = 37, patch: int = 14) -> None:
        super().__init__()
        self.vit = VisionTransformer(
            grid=grid, patch=patch, dim=dim, depth=depth, heads=heads, layer_scale=1e-5, final_norm=False
        )

    def forward(self, image: Tensor) -> Tensor:
        """Image (N, 3, H, W) in [0, 1] -> (N, F, H / patch, W / patch)."""
        return self.vit.patch_grid(normalise(image))


EMBEDDED: dict[str, Any] = {"encoder": "cnn", "input_size": 128, "slots": 11, "slot_dim": 64}
EMBEDDED |= {"hidden": 128, "decoder_layers": 3, "attention_prior": True}
"""Options of the embedded size; the others are those of `SlotContrast`."""

CNN: dict[str, Any] = {"width": 64, "dim": 64, "blocks": (1, 1)}
"""Options of the encoder `cnn`, see `encoder.Encoder`."""

Kind = TypeVar("Kind", bound=SlotContrast)


def build(*, preset: Literal["paper", "embedded"] = "paper", **options: Any) -> SlotContrast:
    """Factory of the cards `slotcontrast` and `slotcontrast-paper`; options as in `assemble`."""
    return assemble(SlotContrast, preset, options)


def assemble(kind: type[Kind], preset: str, options: dict[str, Any]) -> Kind:
    """A SlotContrast or SlotMatch with its encoder.

    preset: "paper" (option `variant`: movi_c, movi_e or ytvis) or "embedded". options: `encoder` (vit_small, vit_base,
    or cnn, with its own `width`, `dim`, `blocks`), `input_size`, and the keywords of `kind`. Raises UsageError.
    """
    check_choice("preset", preset, ("paper", "embedded"))
    options = dict(options)
    if preset == "paper":
        variant = options.pop("variant", "movi_c")
        check_choice("variant", variant, tuple(VARIANTS))
        options = {**VARIANTS[variant], **options}
    else:
        options = {**EMBEDDED, **options}
    name, size = options.pop("encoder"), options["input_size"]
    check_choice("encoder", name, (*BACKBONES, "cnn"))
    patch = STRIDE if name == "cnn" else 14
    whole = isinstance(size, int) and size % patch == 0 and size >= 2 * patch
    check_range("input_size", size, whole, f"a multiple of {patch}, at least {2 * patch}")
    side = size // patch
    if name == "cnn":
        shape = {key: options.pop(key, default) for key, default in CNN.items()}
        return kind(Encoder(**shape), feature_dim=shape["dim"], grid=(side, side), **options).eval()
    backbone = BACKBONES[name]
    return kind(DinoV2(**backbone), feature_dim=backbone["dim"], grid=(side, side), **options).eval()


def check_choice(option: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raises UsageError for a value that is none of those allowed."""
    if value not in allowed:
        raise UsageError(f"option {option}: {value!r} is unknown; use {' or '.join(allowed)}")


def check_range(option: str, value: object, valid: bool, expected: str) -> None:
    """Raises UsageError for a value that is not valid."""
    if not valid:
        raise UsageError(f"option {option}: {value!r} is invalid; use {expected}")


def _check_finite(batch: Batch, video: Tensor) -> None:
    """Raises SampleError that names the first sample with NaN or infinity, and its frame."""
    broken = ~video.isfinite().flatten(2).all(2)
    if broken.any():
        sample, frame = (int(number) for number in broken.nonzero()[0])
        what = "the image" if batch.video is None else f"frame {batch.start + frame}"
        raise SampleError(batch.ids[sample], f"{what} holds NaN or infinity; expected values in [0, 1]")

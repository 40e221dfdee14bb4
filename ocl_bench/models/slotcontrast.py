"""SlotContrast: slots that follow objects through a video (Manasyan et al., CVPR 2025, arXiv:2412.14295).

    frame -> frozen encoder -> projection -> slot attention <- slots predicted from the frame before
                                                  |-> decoder -> reconstruction and masks
                                                  '-> predictor -> slots for the next frame

Slots start from learnt vectors that are the same in every video, so slot k is the same query everywhere. There are
two losses: the slots of a frame must reconstruct its features, and slot k of a frame must be more similar to slot k of
the next frame than to any other slot of the batch (contrast).

Five details follow the official code (martius-lab/slotcontrast, commit 17b42b0) and may surprise:

* The GRU continues from *normalised* slots (`slotcontrast/modules/groupers.py`).
* The predictor's attention is sharper than the textbook's (`slotcontrast/modules/networks.py`).
* Features are those of the last block *before* the final norm (`slotcontrast/modules/encoders.py`).
* Corrected slots are decoded, not predicted ones.
* The contrast asks, for each slot of frame t + 1, which slot of frame t it was (`slotcontrast/losses.py`).

The training objective calls `SlotContrast.loss(model.encode_frames(video))` in training mode, once per step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import UsageError
from ..core.types import Batch, Prediction
from .checkpoints.slotcontrast import BACKBONES, PATCH, VARIANTS, check_sizes, read_official, translate_official
from .encoder import STRIDE, Encoder
from .layers.decoders import BroadcastDecoder
from .layers.merging import merge_clip
from .layers.places import PLACE, places
from .layers.predictor import SlotPredictor
from .layers.recurrence import Recurrence
from .layers.slot_attention import SlotAttention
from .layers.vit import VisionTransformer
from .losses import slot_contrast
from .options import also_takes, check_choice, check_distance, check_range
from .ranks import RankOps
from .reading import PatchEncoder
from .streaming import check_finite, check_whole, checked_state


class SlotContrast(nn.Module):
    """SlotContrast around a frozen encoder.

    Args:
        encoder: maps images (N, 3, H, W) in [0, 1] to tokens (N, F, h, w); it is frozen here.
        feature_dim: F.
        grid: (h, w) of the tokens and of the decoder's position table; P = h w.
        input_size: side in pixels of the frames that give this grid.
        slots: K.
        slot_dim: D, a multiple of `heads`.
        heads: attention heads of the predictor.
        first_iterations: rounds of slot attention in the first frame of a video.
        iterations: rounds in all other frames.
        hidden, decoder_layers: width and number of the decoder's hidden layers.
        attention_prior: add the log of the last attention to the decoder's logits. It is not in the paper and
            helps short trainings.
        positions: add where a token is to what slot attention reads. It is not in the paper, whose encoder says it
            already; the tokens of a CNN do not, and their slots then cannot tell where an object is.
        contrast_weight: weight of the contrast; the reconstruction has weight 1.
        temperature, batch_contrast: see `losses.slot_contrast`.
        mask_source: whether `predict` returns the decoder's masks or the attention.
        chunk: frames that encoder and decoder process at once in `predict`; it changes no result.
        merge_threshold: slots whose cosine distance, averaged over the clip, is below it are one segment in `predict`
            (`layers.merging.merge_clip`, not in the paper); the whole video must come in one batch. None = never.

    Raises:
        UsageError: an option is out of range.
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
        positions: bool = False,
        contrast_weight: float = 0.5,
        temperature: float = 0.1,
        batch_contrast: bool = True,
        mask_source: Literal["decoder", "attention"] = "decoder",
        chunk: int = 8,
        merge_threshold: float | None = None,
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
        check_distance("merge_threshold", merge_threshold)
        self.merge_threshold, self.whole_video = merge_threshold, merge_threshold is not None
        self.encoder = encoder.requires_grad_(False)
        # Learnt vectors without noise, in training and evaluation alike, unlike the Gaussian of slot attention: a slot
        # keeps its number through a video and between teacher and student.
        self.initial_slots = nn.Parameter(torch.randn(1, slots, slot_dim) * slot_dim**-0.5)
        # Officially no positions are added to the features; DINOv2's already carry them.
        self.place = nn.Linear(PLACE, slot_dim) if positions else None
        self.project = nn.Sequential(
            nn.LayerNorm(feature_dim),
            nn.Linear(feature_dim, 2 * feature_dim),
            nn.ReLU(),
            nn.Linear(2 * feature_dim, slot_dim),
        )
        # PyTorch's default biases stay: the official helper that should set them to 0 does nothing.
        self.corrector = SlotAttention(
            slot_dim, slot_dim, iterations, activation=nn.ReLU, normalised_state=True, attention_floor=1e-8
        )
        self.predictor = SlotPredictor(slot_dim, heads)
        self.decoder = BroadcastDecoder(
            feature_dim, slot_dim, grid[0] * grid[1], decoder_layers, hidden, position_std=slot_dim**-0.5
        )

    @property
    def weight(self) -> Tensor:
        """A parameter; its device and type are those of the model."""
        return self.corrector.to_queries.weight

    @property
    def patch(self) -> int:
        """Side of a token in pixels."""
        return self.input_size // self.grid[0]

    @torch.no_grad()
    def encode_frames(self, video: Tensor, chunk: int | None = None) -> Tensor:
        """Encode each frame by itself; the tokens are input of the slots and target of the reconstruction.

        Args:
            video: (B, T, 3, H, W) in [0, 1], not normalised.
            chunk: frames that the encoder processes at once; None = all.

        Returns:
            (B, T, P, F), tokens in row-major order, without gradient.

        Raises:
            UsageError: a side of the frames is not a multiple of `patch`.
        """
        return self._encode(video, chunk).flatten(3).transpose(2, 3)

    def _encode(self, video: Tensor, chunk: int | None) -> Tensor:
        """Encode a video (B, T, 3, H, W) into token maps (B, T, F, h, w)."""
        height, width = video.shape[-2:]
        if height % self.patch or width % self.patch or not height or not width:
            raise UsageError(f"frames of {height}x{width} pixels: the sides must be multiples of {self.patch}")
        frames = video.flatten(0, 1).to(self.weight)
        tokens = torch.cat([self.encoder(piece) for piece in frames.split(chunk or max(1, len(frames)))])
        return tokens.unflatten(0, video.shape[:2])

    def recurrence(
        self,
        features: Tensor,
        state: Tensor | None = None,
        initial: Tensor | None = None,
        grid: Sequence[int] | None = None,
    ) -> Recurrence:
        """Follow the objects through T frames: correct the slots by each frame, then predict the next frame's.

        Args:
            features: (B, T, P, F) from `encode_frames`.
            state: (B, K, D), `predicted` of the frame before; None at the beginning of a video.
            initial: (B, K, D), with which a video begins; None = the learnt ones.
            grid: (h, w) of the tokens of frames of another size; None = that of the model.
        """
        inputs = self.project(features)
        if self.place is not None:
            inputs = inputs + self.place(places(grid or self.grid).to(inputs))
        if initial is None and state is None:
            initial = self.initial_slots.expand(len(features), -1, -1).clone()
        slots = cast(Tensor, initial if state is None else state)
        rounds = self.first_iterations if state is None else self.iterations
        corrected, predicted, attention = [], [], []
        # The gradient runs through all frames and iterations: officially nothing is truncated or detached.
        for frame in inputs.unbind(1):
            frame_slots, maps = self.corrector(frame, slots, num_iter=rounds)
            slots, rounds = self.predictor(frame_slots), self.iterations
            corrected.append(frame_slots)
            predicted.append(slots)
            attention.append(maps[-1])
        return Recurrence(*(torch.stack(parts, dim=1) for parts in (corrected, predicted, attention)))

    def decode(
        self, slots: Tensor, attention: Tensor | None = None, grid: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Decode slots into features and masks, frame by frame.

        Args:
            slots: (B, T, K, D), corrected slots.
            attention: (B, T, K, P), needed with the option `attention_prior`.
            grid: (h, w) of the tokens of frames of another size; None = that of the model.

        Returns:
            The reconstruction (B, T, P, F) and masks (B, T, K, P), which sum to 1 over the slots.
        """
        prior = None
        if self.attention_prior:
            if attention is None:
                raise UsageError("option attention_prior: the decoder needs the attention; give it, or set it to false")
            prior = attention.flatten(0, 1)
        new_grid = None if grid is None or tuple(grid) == self.grid else grid
        reconstruction, masks = self.decoder(slots.flatten(0, 1), prior=prior, grid=new_grid)
        return reconstruction.unflatten(0, slots.shape[:2]), masks.unflatten(0, slots.shape[:2])

    def decode_slots(self, slots: Tensor) -> Tensor:
        """Masks (B, K, h, w) of slots (B, K, D) alone, such as predicted ones.

        There is no attention to a frame that is not there: with `attention_prior`, it is left out.
        """
        return self.decoder(slots.to(self.weight))[1].unflatten(2, self.grid)

    def loss(self, features: Tensor, *, ranks: RankOps = RankOps()) -> dict[str, Tensor]:
        """Compute the training loss of B clips of T frames; T = 1 trains on images, with contrast 0.

        Args:
            features: (B, T, P, F) from `encode_frames`, of any float type.
            ranks: see `losses.slot_contrast`.

        Returns:
            Scalars: "total", with gradient; "reconstruction", the mean squared error over all frames, tokens and
            channels; "contrast". With equal shares of a batch, their means over the ranks are the joint batch's.
        """
        return self._terms(features, ranks)[0]

    def _terms(self, features: Tensor, ranks: RankOps) -> tuple[dict[str, Tensor], Recurrence, Tensor, Tensor]:
        """Return the loss terms, the recurrence, the reconstruction (B, T, P, F) and the masks (B, T, K, P)."""
        if features.ndim != 4 or tuple(features.shape[2:]) != (self.grid[0] * self.grid[1], self.feature_dim):
            raise UsageError(
                f"features {tuple(features.shape)} do not fit; expected (B, T, {self.grid[0] * self.grid[1]}, "
                f"{self.feature_dim}) from encode_frames"
            )
        features = features.detach().to(self.weight.dtype)
        recurrence = self.recurrence(features)
        reconstructed, masks = self.decode(recurrence.slots, recurrence.attention)
        # The target is the encoder's raw output, neither normalised nor projected, as officially.
        reconstruction = F.mse_loss(reconstructed, features)
        contrast = slot_contrast(recurrence.slots, self.temperature, self.batch_contrast, ranks)
        total = reconstruction + self.contrast_weight * contrast
        terms = {"total": total, "reconstruction": reconstruction.detach(), "contrast": contrast.detach()}
        return terms, recurrence, reconstructed, masks

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        """Predict soft masks on the grid of tokens; the model must be in evaluation mode.

        Returns:
            For videos masks (B, T, K, h, w), slots (B, T, K, D), tokens (B, T, F, h, w) and the `state` from which
            the next frames continue: a video may come in pieces of any length and gives the same result. Images are
            videos of one frame, and their fields have no T.

        Raises:
            SampleError: a frame is not finite.
            UsageError: the frames' sides do not fit, or `state` is missing or has another shape.
        """
        video = batch.image.unsqueeze(1) if batch.video is None else batch.video
        if self.merge_threshold is not None:
            check_whole(batch, "merging over the clip")
        state = checked_state(batch, self.slots, self.slot_dim, self.weight)
        check_finite(batch, video)
        pieces = self._follow(video, state, self.sampled_slots(batch))
        state = pieces[-1][1].predicted[:, -1]
        masks = torch.cat([self._masks(tokens, recurrence) for tokens, recurrence in pieces], dim=1)
        tokens = torch.cat([tokens for tokens, _ in pieces], dim=1)
        slots = torch.cat([recurrence.slots for _, recurrence in pieces], dim=1)
        if self.merge_threshold is not None:
            slots, masks = merge_clip(slots, masks, self.merge_threshold)
        found = Prediction(masks=masks, mask_source=self.mask_source, slots=slots, tokens=tokens, state=state)
        if batch.video is None:
            return replace(found, masks=masks.squeeze(1), slots=slots.squeeze(1), tokens=tokens.squeeze(1), state=None)
        return replace(found, whole_clip=self.merge_threshold is not None)

    def sampled_slots(self, batch: Batch) -> Tensor | None:
        """Initial slots (B, K, D) of a batch; None here, as they are learnt."""
        del batch
        return None

    def _follow(self, video: Tensor, state: Tensor | None, initial: Tensor | None) -> list[tuple[Tensor, Recurrence]]:
        """Encode a video (B, T, 3, H, W) and follow its objects, in pieces of `chunk` frames and in their order.

        Returns:
            For each piece the tokens (B, t, F, h, w) and the recurrence.
        """
        pieces = []
        for piece in video.split(self.chunk, dim=1):
            tokens = self._encode(piece, self.chunk)
            grid = (tokens.shape[-2], tokens.shape[-1])
            recurrence = self.recurrence(tokens.flatten(3).transpose(2, 3), state, initial, grid)
            state = recurrence.predicted[:, -1]
            pieces.append((tokens, recurrence))
        return pieces

    def _masks(self, tokens: Tensor, recurrence: Recurrence) -> Tensor:
        """Masks (B, T, K, h, w) of frames with tokens (B, T, F, h, w), from the source that the model was given."""
        grid = (tokens.shape[-2], tokens.shape[-1])
        masks = recurrence.attention if self.mask_source == "attention" else self._decoded_masks(recurrence, grid)
        return masks.unflatten(3, grid)

    def _decoded_masks(self, recurrence: Recurrence, grid: tuple[int, ...]) -> Tensor:
        """Decode the masks (B, T, K, P) frame by frame, because the decoder's K copies of a frame need much memory."""
        frames = zip(recurrence.slots.split(1, dim=1), recurrence.attention.split(1, dim=1), strict=True)
        return torch.cat([self.decode(slots, attention, grid)[1] for slots, attention in frames], dim=1)

    def read_checkpoint(self, path: Path) -> dict[str, Tensor]:
        """Read the tensors of a checkpoint file; official files (Lightning) also hold the optimiser."""
        return read_official(path)

    def translate_checkpoint(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the tensors of an official checkpoint; a checkpoint with our names is returned unchanged.

        Raises:
            UsageError: K, D, P or F of the file differs from the model's.
        """
        state = translate_official(state)
        check_sizes(state, self.state_dict(), self.patch)
        return state


EMBEDDED: dict[str, Any] = {"encoder": "cnn", "input_size": 128, "slots": 11, "slot_dim": 64}
EMBEDDED |= {"hidden": 128, "decoder_layers": 3, "attention_prior": True}
"""Options of the embedded size; `SlotContrast` has the defaults of the rest."""

CNN: dict[str, Any] = {"width": 64, "dim": 64, "blocks": (1, 1)}
"""Options of the encoder `cnn`, see `encoder.Encoder`."""

Model = TypeVar("Model", bound=SlotContrast)


@also_takes("variant", "encoder", "input_size", *CNN)
def build(*, preset: Literal["paper", "embedded"] = "paper", **options: Any) -> SlotContrast:
    """Build the model of the cards `slotcontrast` and `slotcontrast-paper`; options as in `assemble`."""
    return assemble(SlotContrast, preset, options)


def assemble(model: type[Model], preset: str, options: dict[str, Any]) -> Model:
    """Build a SlotContrast or SlotMatch together with its encoder.

    Args:
        model: the class.
        preset: "paper" (option `variant`: movi_c, movi_e or ytvis) or "embedded".
        options: `encoder` (vit_small, vit_base, or cnn with its own `width`, `dim`, `blocks`), `input_size`, and the
            keywords of the class.

    Raises:
        UsageError: an option is unknown or out of range.
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
    patch = STRIDE if name == "cnn" else PATCH
    whole = isinstance(size, int) and size % patch == 0 and size >= 2 * patch
    check_range("input_size", size, whole, f"a multiple of {patch}, at least {2 * patch}")
    side = size // patch
    if name == "cnn":
        shape = {key: options.pop(key, default) for key, default in CNN.items()}
        return model(Encoder(**shape), feature_dim=shape["dim"], grid=(side, side), **options).eval()
    return model(dinov2(**BACKBONES[name]), feature_dim=BACKBONES[name]["dim"], grid=(side, side), **options).eval()


def dinov2(*, dim: int, heads: int, depth: int = 12, grid: int = 37) -> PatchEncoder:
    """Build the paper's frozen encoder: DINOv2 without registers, output of the last block before the final norm.

    Its position table has 37 x 37 entries, as published, and is resampled to other sizes by timm's rule; the original
    DINOv2 code has another rule and gives other features (`layers.vit.resample_positions`).
    """
    return PatchEncoder(
        VisionTransformer(grid=grid, patch=PATCH, dim=dim, depth=depth, heads=heads, layer_scale=1e-5, final_norm=False)
    )

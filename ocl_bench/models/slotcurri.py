"""Two trainings of SlotContrast with official checkpoints: SlotCurri (CVPR 2026) and SRL (ICLR 2026).

Both have the network of `slotcontrast.SlotContrast` and another training, which is not here.

* SlotCurri lets the number of slots grow in training and predicts *cyclically*: from the last frame it goes back to the
  first one, and what it says on the way back counts (wjun0830/SlotCurri, commit a26a379).
* SRL lets encoder and decoder correct each other in training. Its files hold two more tensors, which inference does not
  use (hynnsk/SRL, commit ed04867).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..core.errors import UsageError
from ..core.types import Batch, Prediction
from .layers.recurrence import Recurrence
from .options import also_takes, check_choice
from .slotcontrast import CNN, SlotContrast, assemble
from .streaming import check_whole


class SlotCurri(SlotContrast):
    """A SlotContrast that may go through a video forwards and then backwards.

    Args:
        encoder: see `SlotContrast`.
        cyclic: whether to do so, as officially in evaluation. A frame is then predicted with all other frames seen,
            so the whole video must come in one batch, and the signature says `+passes-2`. False predicts as
            SlotContrast does.
        options: the keywords of `SlotContrast`.
    """

    def __init__(self, encoder: nn.Module, *, cyclic: bool = True, **options: Any) -> None:
        super().__init__(encoder, **options)
        check_choice("cyclic", cyclic, (True, False))
        self.cyclic = cyclic
        self.whole_video = self.whole_video or cyclic

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        """Predict as `SlotContrast.predict`; UsageError for a part of a video if `cyclic`."""
        if self.cyclic:
            check_whole(batch, "cyclic inference")
        prediction = super().predict(batch)
        return replace(prediction, passes=2) if self.cyclic and batch.video is not None else prediction

    def _follow(self, video: Tensor, state: Tensor | None, initial: Tensor | None) -> list[tuple[Tensor, Recurrence]]:
        forward = super()._follow(video, state, initial)
        return self.backward(forward) if self.cyclic else forward

    def backward(self, forward: list[tuple[Tensor, Recurrence]]) -> list[tuple[Tensor, Recurrence]]:
        """Go back from the last frame to the first.

        The last frame keeps what the forward pass said. Its predicted slots begin the frame before it, and so on to
        frame 0, which has the ordinary number of rounds here.

        Args:
            forward: tokens (B, t, F, h, w) and recurrence of each piece of the video, in order.

        Returns:
            The same pieces with the recurrence of the way back.
        """
        state, pieces = forward[-1][1].predicted[:, -1], list[tuple[Tensor, Recurrence]]()
        for tokens, seen in reversed(forward):
            kept = 0 if pieces else 1  # the last frame of the video
            again, frames = seen, tokens[:, : tokens.shape[1] - kept]
            if frames.shape[1]:
                flat = frames.flip(1).flatten(3).transpose(2, 3)
                back = self.recurrence(flat, state, grid=frames.shape[-2:])
                state = back.predicted[:, -1]
                again = _joined(back, seen, kept)
            pieces.insert(0, (tokens, again))
        return pieces


def _joined(back: Recurrence, seen: Recurrence, kept: int) -> Recurrence:
    """The recurrence of the way back in the order of the frames, then the last `kept` frames of the way there."""

    def join(name: str) -> Tensor:
        there, backwards = getattr(seen, name), getattr(back, name).flip(1)
        return torch.cat([backwards, there[:, there.shape[1] - kept :]], dim=1)

    return Recurrence(join("slots"), join("predicted"), join("attention"))


class SRL(SlotContrast):
    """A SlotContrast whose official files hold two projections that only the training uses."""

    def translate_checkpoint(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the tensors of an official checkpoint and leave out its two projections, by their names.

        Raises:
            UsageError: one of the two is missing or has another shape, or as `SlotContrast.translate_checkpoint`.
        """
        if "initial_slots" not in state:
            shapes = {
                "projector.projector.weight": (self.slot_dim, self.feature_dim),
                "projector2.projector.weight": (self.slot_dim, self.slot_dim),
            }
            rest = super().translate_checkpoint({name: value for name, value in state.items() if name not in shapes})
            for name, shape in shapes.items():
                if name not in state:
                    raise UsageError(f"misses tensor '{name}' {shape}; for a file without it use slotcontrast-paper")
                if tuple(state[name].shape) != shape:
                    raise UsageError(f"tensor '{name}' has shape {tuple(state[name].shape)}, expected {shape}")
            return rest
        return super().translate_checkpoint(state)


@also_takes("variant", "encoder", "input_size", *CNN)
def build(*, preset: Literal["paper", "embedded"] = "paper", **options: Any) -> SlotCurri:
    """Build the model of the card `slotcurri-paper`; options as in `slotcontrast.assemble`, and `cyclic`."""
    return assemble(SlotCurri, preset, options)


@also_takes("variant", "encoder", "input_size", *CNN)
def build_srl(*, preset: Literal["paper", "embedded"] = "paper", **options: Any) -> SRL:
    """Build the model of the card `srl-paper`; options as in `slotcontrast.assemble`."""
    return assemble(SRL, preset, options)

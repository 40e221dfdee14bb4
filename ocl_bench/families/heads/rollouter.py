"""The fitted rollouter: SlotFormer's network (`models.layers.rollouter`), fitted on a frozen model's slots in minutes.

The recipe is one for all models. It differs from SlotFormer's, which trains for hours: slots are standardised, the
network predicts the change from the last frame and begins with none, so that a short fit starts from copying, and the
loss is that of slots alone. Empty slots (all zero) are left out and stay empty. Windows in which an object comes into
view are left out, as officially: nobody can predict them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...cards.protocols import Fit
from ...core.errors import UsageError
from ...models.layers.rollouter import SlotRollouter
from ...models.slotformer import SIZES
from ..base import Head
from .fitting import mean_and_scale, used_slots, warmed_up

STEPS_AHEAD = 5
"""Steps that are predicted in each step of the fit; the gradient runs through all of them."""
SETTLED = 3
"""Frames of a clip in which objects may still come into view (SlotFormer)."""
_PREFIX = "rollouter."


@dataclass(frozen=True)
class SlotVideo:
    """The slots of a video (T, K, D) float32 on the CPU, and the frames in which an object comes into view."""

    slots: Tensor
    entries: Sequence[int]

    def starts(self, frames: int) -> list[int]:
        """First frames of the windows of `frames` frames in which no object comes into view after they settled."""
        return [
            start
            for start in range(len(self.slots) - frames + 1)
            if not any(start + SETTLED < entry < start + frames for entry in self.entries)
        ]


def history_of(size: str) -> int:
    """Number of frames that a rollouter of this size sees."""
    return SIZES[size]["history"]


def fit_rollouter(videos: Sequence[SlotVideo], size: str, fit: Fit) -> Head:
    """Fit the rollouter. The result is deterministic for one number of threads.

    Args:
        videos: of the fit split.
        size: of the rollouter.
        fit: the recipe of the task card: steps, batch, the learning rate, and the seed of weights and draws.

    Returns:
        Tensors `slot_mean` and `slot_scale` (D,), and those of the network, `rollouter.*`.

    Raises:
        UsageError: no window of the fit split can be used.
    """
    window = history_of(size) + STEPS_AHEAD
    places = [(number, start) for number, video in enumerate(videos) for start in video.starts(window)]
    if not places:
        raise UsageError(f"the fit split has no {window} frames in a row in which no object comes into view")
    everything = torch.cat([video.slots.flatten(0, 1) for video in videos])
    mean, scale = mean_and_scale(everything[used_slots(everything)])

    def clip(place: tuple[int, int]) -> Tensor:
        """The standardised slots (T, K, D) of a window that are not empty in all of its frames."""
        frames = videos[place[0]].slots[place[1] : place[1] + window]
        return ((frames[:, used_slots(frames.transpose(0, 1).flatten(1))] - mean) / scale).clone()

    with torch.random.fork_rng(devices=[]), torch.enable_grad(), torch.inference_mode(False):
        torch.manual_seed(fit.seed)  # weights, draws and dropout
        network = _network(size, len(mean))
        torch.nn.init.zeros_(network.project_out.weight)
        torch.nn.init.zeros_(network.project_out.bias)
        _descend(network, places, clip, fit)
    weights = {f"{_PREFIX}{name}": value.detach() for name, value in network.state_dict().items()}
    return {"slot_mean": mean, "slot_scale": scale, **weights}


def _network(size: str, slot_dim: int) -> SlotRollouter:
    """A rollouter of this size with new weights."""
    return SlotRollouter(**{**SIZES[size], "slot_dim": slot_dim})


def _descend(
    network: SlotRollouter, places: Sequence[tuple[int, int]], clip: Callable[[tuple[int, int]], Tensor], fit: Fit
) -> None:
    """Train in place: Adam, 5 % of warm-up, cosine decay; the loss is the mean squared error of the predicted slots.

    Clips with fewer slots than others of their batch are filled up with slots of the mean.
    """
    rate = fit.learning_rates[0] if fit.learning_rates else 1e-3
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=rate)
    schedule = warmed_up(optimizer, rate, fit.steps, 0.05)
    network.train()
    for _ in range(fit.steps):
        chosen = [clip(places[k]) for k in torch.randint(len(places), (fit.batch,)).tolist()]
        most = max(one.shape[1] for one in chosen)
        clips = torch.stack([F.pad(one, (0, 0, 0, most - one.shape[1])) for one in chosen])
        past, future = clips[:, : network.history], clips[:, network.history :]
        loss = F.mse_loss(_rolled(network, past, future.shape[1]), future)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval()


def _rolled(network: SlotRollouter, past: Tensor, steps: int) -> Tensor:
    """Standardised slots (B, T, K, D) -> the next (B, steps, K, D). The network gives their change in a frame."""
    predicted = []
    for _ in range(steps):
        following = past[:, -1:] + network(past, 1)
        predicted.append(following)
        past = torch.cat([past[:, 1:], following], dim=1)
    return torch.cat(predicted, dim=1)


class FittedRollouter:
    """A rollouter from the tensors of a head. size: of the rollouter."""

    def __init__(self, head: Head, size: str) -> None:
        self.mean, self.scale = head["slot_mean"], head["slot_scale"]
        self.network = _network(size, len(self.mean)).eval()
        self.network.load_state_dict(
            {name.removeprefix(_PREFIX): value for name, value in head.items() if name.startswith(_PREFIX)}
        )

    def __call__(self, slots: Tensor, steps: int) -> Tensor:
        """Slots (T, K, D) of seen frames -> the next (steps, K, D), on the device of the slots."""
        past = slots.cpu()[-self.network.history :]
        used = used_slots(past.transpose(0, 1))
        following = past.new_zeros(steps, *past.shape[1:])
        if used.any():
            with torch.inference_mode():
                standard = (past[:, used] - self.mean) / self.scale
                following[:, used] = _rolled(self.network, standard[None], steps)[0] * self.scale + self.mean
        return following.to(slots.device)

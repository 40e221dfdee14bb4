"""The contact readout (`models.contact`), fitted on the frozen slots of seen and predicted frames in seconds.

The recipe is one for all models, and that of SlotFormer for Physion but for two points: slots are standardised, and the
last step is taken, not the epoch that is best on the test set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.errors import UsageError
from ...models.contact import ContactReadout
from ..base import Head
from .fitting import mean_and_scale

EPOCHS, BATCH, RATE, HIDDEN = 50, 64, 1e-3, 192
_PREFIX = "readout."


@dataclass(frozen=True)
class ContactExample:
    """Slots (T, K, D) of the frames of a clip, of which the readout compares all pairs, and whether two touch."""

    slots: Tensor
    touch: bool


def fit_contact(examples: Sequence[ContactExample], seed: int) -> Head:
    """Fit the readout: Adam, cosine decay. The result is deterministic for one number of threads.

    Args:
        examples: of the fit split; all have as many frames.
        seed: of weights and draws.

    Returns:
        Tensors `contact_mean` and `contact_scale` (D,), and those of the readout, `readout.*`.

    Raises:
        UsageError: there are no examples of both answers.
    """
    if len({example.touch for example in examples}) < 2:
        raise UsageError("the fit split has not both objects that touch after the cut and objects that do not")
    mean, scale = mean_and_scale(torch.cat([example.slots.flatten(0, 1) for example in examples]))
    most = max(_pairable(example.slots) for example in examples)
    slots = torch.stack([_standard(example.slots, mean, scale, most) for example in examples])
    targets = torch.tensor([float(example.touch) for example in examples])
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), torch.inference_mode(False):
        torch.manual_seed(seed)
        network = ContactReadout(len(mean), most, HIDDEN)
        _descend(network, slots.clone(), targets)
    weights = {f"{_PREFIX}{name}": value.detach() for name, value in network.named_parameters()}
    return {"contact_mean": mean, "contact_scale": scale, **weights}


def _pairable(slots: Tensor) -> int:
    """Number of the slots (T, K, D), or 2 for a single one: there must be a pair."""
    return max(slots.shape[1], 2)


def _standard(slots: Tensor, mean: Tensor, scale: Tensor, count: int) -> Tensor:
    """Standardised slots; clips with fewer than `count` are filled up with slots of the mean."""
    return F.pad((slots - mean) / scale, (0, 0, 0, count - slots.shape[1]))


def _descend(network: ContactReadout, slots: Tensor, targets: Tensor) -> None:
    """Train in place with the binary cross entropy."""
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * -(-len(slots) // BATCH))
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(slots)).split(BATCH):
            loss = F.binary_cross_entropy_with_logits(network(slots[chosen]), targets[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def contact_probability(head: Head, slots: Tensor) -> float:
    """The probability that two of the slots (T, K, D) of a clip touch."""
    with torch.no_grad():
        count = _pairable(slots)
        network = ContactReadout(len(head["contact_mean"]), count, HIDDEN)
        weights = {name.removeprefix(_PREFIX): value for name, value in head.items() if name.startswith(_PREFIX)}
        network.load_state_dict({**weights, "comb_idx": network.comb_idx})
        standard = _standard(slots.cpu(), head["contact_mean"], head["contact_scale"], count)
        return float(network(standard[None]).sigmoid()[0])

"""Contacts: do two objects touch after the cut? A readout is fitted on the slots of seen and predicted frames.

The clip and the dynamics are those of visual prediction (`dynamics`). What is asked is a field of the card: single
pairs of objects (CLEVRER), or one question for each video (Physion).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..cards.contact import ContactProtocol
from ..cards.protocols import Fit
from ..cards.task import TaskSpec
from ..core.errors import DataMissingError, NotApplicableError
from ..core.types import Prediction, Truth, Video
from ..metrics.definitions.contact import THRESHOLDS, right_at
from ..models.states import States
from .base import Batches, Family, Head
from .checks import check_alike
from .dynamics import ClipTally, Dynamics
from .future import entries
from .heads.contact import ContactExample, contact_probability, fit_contact
from .heads.rollouter import SlotVideo, fit_rollouter
from .recognition import fitted_head

if TYPE_CHECKING:
    from ..data import OpenData
    from ..models.loading import LoadedModel

_COLUMNS = ("n_contact", "n_contact_right", *map(right_at, THRESHOLDS))


@dataclass(frozen=True)
class ContactQuestion:
    """Whether two objects touch. pair: their labels; None for the two that have the same part in every video."""

    pair: tuple[int, int] | None
    touch: bool


def questions_about(truth: Sequence[Truth], protocol: ContactProtocol) -> list[ContactQuestion]:
    """What is asked about a clip.

    Single pairs are of objects that the burn-in shows, and have not touched before the cut. As many touch as do not:
    the first ones in the order of the labels, which says nothing of their motion.

    Raises:
        DataMissingError: the data do not say what touches.
    """
    before, after = truth[protocol.burn_in - 1].touched, truth[-1].touched
    if before is None or after is None:
        raise DataMissingError("the data do not say what touches", "download the annotations, see docs/contact.md")
    if protocol.pairs == "all":
        return [ContactQuestion(None, bool(after))]
    seen = sorted({int(label) for frame in truth[: protocol.burn_in] for label in np.unique(frame.labels) if label > 0})
    pairs = [(a, b) for a in seen for b in seen if a < b and (a, b) not in before]
    touching, apart = [one for one in pairs if one in after], [one for one in pairs if one not in after]
    count = min(len(touching), len(apart))
    return [ContactQuestion(one, one in after) for one in (*touching[:count], *apart[:count])]


class Contact(Dynamics):
    """Adapter of the `contact` family."""

    @classmethod
    def of(cls, task: TaskSpec, loaded: LoadedModel | None = None) -> Self:
        """The adapter of a task for a model. Raises what that of visual prediction raises.

        Raises NotApplicableError for other ceilings than true states: their slots do not say what touches.
        """
        if loaded is not None and loaded.needs_truth and not isinstance(loaded.model, States):
            raise NotApplicableError(f"model {loaded.name}: its slots do not say what touches; take true-states")
        return super().of(task, loaded)

    @property
    def asks(self) -> ContactProtocol:
        """The protocol of the task."""
        return cast(ContactProtocol, self.task.protocol)

    def clip(self, video: Video, fitting: bool) -> range:
        """Numbers of the frames that are scored; while fitting, of all frames of the video at the same stride."""
        clip = super().clip(video, False)  # raises for a video that is too short
        return range(self._first % self.stride, len(video), self.stride) if fitting else clip

    @property
    def _first(self) -> int:
        """The frame of a video with which its clip begins."""
        return cast(int, self.seen) - 1 - (self.protocol.burn_in - 1) * self.stride

    def source(self, prediction: Prediction) -> str:
        """Where the dynamics come from."""
        del prediction
        return f"slots,dyn:{self.methods.dynamics}"

    def columns(self, task: TaskSpec) -> dict[str, str]:
        """Counts, from which all metrics are computed."""
        return dict.fromkeys((*_COLUMNS, "n_frames"), "float64")

    def fit(self, batches: Batches, split: OpenData) -> Head:
        """Fit the rollouter, unless the model has dynamics of its own, and the readout."""
        videos: list[SlotVideo] = []
        clips: list[ContactTally] = []
        first = self._first // self.stride
        for truth, prediction in batches:
            shapes = [(int(frame.labels.shape[0]), int(frame.labels.shape[1])) for frame in truth]
            frames = self.outputs(prediction, shapes)
            videos.append(SlotVideo(torch.stack([frame.slots for frame in frames]).cpu(), entries(truth)))
            check_alike("slots", videos[-1].slots.shape[2:], videos[0].slots.shape[2:])
            tally, part = ContactTally(self), slice(first, first + self.protocol.frames)
            tally.add(truth[part], frames[part])
            clips.append(tally)
        head: Head = {}
        if self.methods.uses_probe:
            head = fit_rollouter(videos, self.protocol.rollouter, cast(Fit, self.task.fit))
        ready = self.with_head(head)
        examples = [example for tally in clips for example in tally.of(ready).examples()]
        return {**head, **fit_contact(examples, cast(Fit, self.task.fit).seed)}

    def tally(self, task: TaskSpec) -> ContactTally:
        """A new `ContactTally` for one video."""
        del task
        return ContactTally(self)


class ContactTally(ClipTally):
    """Gathers the frames of one clip, and answers the questions about it."""

    adapter: Contact

    def of(self, adapter: Contact) -> ContactTally:
        """The same clip for an adapter with another head."""
        tally = ContactTally(adapter)
        tally.add(self.truth, self.frames)
        return tally

    def examples(self) -> list[ContactExample]:
        """The slots that the readout compares for each question, and the answers."""
        return [
            ContactExample(self._compared(question.pair), question.touch)
            for question in questions_about(self.truth, self.adapter.asks)
        ]

    def _compared(self, pair: tuple[int, int] | None) -> Tensor:
        """All slots (T, K, D) of all frames, or those of two objects. An object without a slot has the mean of all."""
        slots = torch.cat([self._slots[: self.adapter.protocol.burn_in].cpu(), self._predicted.cpu()])
        if pair is None:
            return slots
        objects, matched = self._objects()
        chosen = sorted(int(matched[objects == label][0]) for label in pair)
        filled = F.pad(slots, (0, 0, 1, 0))  # slot -1, which stands for none, is now slot 0
        filled[:, 0] = slots.mean(dim=1)
        return filled[:, [number + 1 for number in chosen]]

    def row(self) -> dict[str, Any]:
        """Counts of questions and right answers."""
        head = fitted_head(self.adapter.head, self.adapter.task)
        answers = [(contact_probability(head, one.slots), one.touch) for one in self.examples()]

        def right(threshold: float) -> float:
            return float(sum((probability > threshold) == touch for probability, touch in answers))

        return {
            "n_objects": len(self._objects()[0]),
            "n_frames": float(len(self.frames)),
            "n_contact": float(len(answers)),
            "n_contact_right": right(self.adapter.asks.threshold),
            **{right_at(threshold): right(threshold) for threshold in THRESHOLDS},
        }


CONTACT = Family(
    name="contact",
    protocol=ContactProtocol,
    adapter=Contact.of,
    unit=ContactProtocol.unit,
    picture="storyboard",
    view="frames",
    for_data=lambda adapter, data: cast(Contact, adapter).with_timing(data),
    clip=lambda adapter, video, fitting: cast(Contact, adapter).clip(video, fitting),
)
"""The family of tasks that ask whether objects touch after the cut."""

"""What is true of a CLEVRER video: objects and places, what happens, and what would happen without an object."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Literal

COLOURS = ("gray", "red", "blue", "green", "brown", "cyan", "purple", "yellow")
MATERIALS = ("metal", "rubber")
SHAPES = ("cube", "sphere", "cylinder")

EventKind = Literal["start", "end", "in", "out", "collision"]
_ORDER: tuple[EventKind, ...] = ("start", "end", "in", "out", "collision")
"""Order of events of one frame (NS-DR)."""

FRAME_STEP = 5
"""NS-DR knows positions in every fifth frame only."""

ROWS = 320
"""Height of CLEVRER's pictures in pixels, the unit of positions."""


@dataclass(frozen=True)
class Thing:
    """An object. No two objects of a video have the same three attributes."""

    color: str
    material: str
    shape: str

    def __str__(self) -> str:
        return f"{self.color} {self.material} {self.shape}"


KINDS = tuple(Thing(*one) for one in product(COLOURS, MATERIALS, SHAPES))
"""The 48 kinds of objects; the position of one is its category in the truth of a frame."""


@dataclass(frozen=True)
class Event:
    """Something that happens in one frame to one object (`in`, `out`), to two (`collision`) or to none.

    frame is None for a collision that is only possible.
    """

    kind: EventKind
    objects: tuple[int, ...] = ()
    frame: int | None = None

    def is_like(self, other: Event) -> bool:
        """Whether both are of one kind and happen to the same objects, in any order and in any frame."""
        return self.kind == other.kind and set(self.objects) == set(other.objects)


@dataclass(frozen=True)
class Facts:
    """What is true of one video.

    Attributes:
        things: the objects; an event names them by their position.
        positions: frame -> object -> row and column in the picture, of the objects that are in view, unseen frames too.
        visible: what happens while the video is seen, ordered by frame.
        unseen: what happens later.
        without: object -> the collisions of the video without that object.
        step: frames between two frames with positions.
    """

    things: tuple[Thing, ...]
    positions: Mapping[int, Mapping[int, tuple[float, float]]]
    visible: tuple[Event, ...]
    unseen: tuple[Event, ...] = ()
    without: Mapping[int, tuple[Event, ...]] = field(default_factory=dict)
    step: int = FRAME_STEP

    def possible(self) -> tuple[Event, ...]:
        """The collision of every pair of objects."""
        count = len(self.things)
        return tuple(Event("collision", (a, b)) for a in range(count) for b in range(a + 1, count))

    def ancestors(self, event: Event) -> tuple[Event, ...]:
        """The visible events without which an event would not have happened as it did, in the order of the video.

        The parents of an event are the events of its objects directly before it, and so on.
        """
        found: set[Event] = set()
        waiting = [event]
        while waiting:
            child = waiting.pop()
            for number in child.objects:
                own = [one for one in self.visible if number in one.objects]
                before = own[: own.index(child)] if child in own else []
                if before and before[-1] not in found:
                    found.add(before[-1])
                    waiting.append(before[-1])
        return tuple(one for one in self.visible if one in found)


def order_events(events: Iterable[Event]) -> tuple[Event, ...]:
    """Order events by their frame, and those of one frame as NS-DR does."""
    return tuple(sorted(events, key=lambda event: (event.frame or 0, _ORDER.index(event.kind))))


def entries_and_exits(seen: Sequence[tuple[int, Iterable[int]]]) -> list[Event]:
    """The `in` and `out` events of a video.

    Args:
        seen: frame and the objects in view, in the order of the frames. Objects of the first frame do not enter.
    """
    events: list[Event] = []
    before = set(seen[0][1]) if seen else set[int]()
    for frame, objects in seen[1:]:
        now = set(objects)
        events += [Event("in", (number,), frame) for number in sorted(now - before)]
        events += [Event("out", (number,), frame) for number in sorted(before - now)]
        before = now
    return events

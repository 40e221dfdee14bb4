"""Which protocol belongs to which family: the bundled ones, and those that installed packages add."""

from __future__ import annotations

from typing import Literal

from ..core import entry_points
from ..core.errors import UsageError
from .contact import ContactProtocol
from .dynamics import DynamicsProtocol
from .protocols import (
    DetectionProtocol,
    KnnProtocol,
    Protocol,
    RecognitionProtocol,
    SegmentationProtocol,
    VideoProtocol,
)
from .reasoning import ReasoningProtocol

PROTOCOLS: dict[str, type[Protocol]] = {
    "discovery": Protocol,
    "detection": DetectionProtocol,
    "segmentation": SegmentationProtocol,
    "recognition": RecognitionProtocol,
    "knn": KnnProtocol,
    "video": VideoProtocol,
    "dynamics": DynamicsProtocol,
    "contact": ContactProtocol,
    "reasoning": ReasoningProtocol,
}
"""The protocol class of each bundled family."""


def family_names() -> tuple[str, ...]:
    """Names of the bundled families, then of those that installed packages add."""
    return (*PROTOCOLS, *sorted(set(entry_points.offered(entry_points.FAMILIES)) - set(PROTOCOLS)))


def default_families(role: str) -> tuple[str, ...]:
    """Names of the families of a model card that names none: all, but for other roles those that ask no questions."""
    names = family_names()
    if role in ("model", "control"):
        return names
    return tuple(name for name in names if name not in PROTOCOLS or not PROTOCOLS[name].asks)


def unit_of(family: str) -> Literal["images", "videos"]:
    """What one row of a result describes. Raises UsageError for an unknown family.

    Unlike `Family.unit` it needs none of the code that scores, which imports torch.
    """
    if family in PROTOCOLS:
        return PROTOCOLS[family].unit
    protocol_of(family)
    unit: Literal["images", "videos"] = entry_points.offered(entry_points.FAMILIES)[family].load().unit
    return unit


def protocol_of(family: str) -> type[Protocol]:
    """The protocol class of a family. Raises UsageError for an unknown family."""
    if family in PROTOCOLS:
        return PROTOCOLS[family]
    offers = entry_points.offered(entry_points.FAMILIES)
    if family not in offers:
        raise UsageError(f"'{family}' is not a family; known are {', '.join(family_names())}")
    protocol = getattr(offers[family].load(), "protocol", None)
    if not (isinstance(protocol, type) and issubclass(protocol, Protocol)):
        raise UsageError(
            f"family '{family}': {offers[family].value} is not an ocl_bench.families.base.Family with a protocol"
        )
    return protocol

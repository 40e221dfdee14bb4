"""The classes of the salient scenes, by revision: shapes with textures, none of which is named by either alone."""

from __future__ import annotations

from dataclasses import dataclass

from .shapes import FULL_SHAPES

_KINDS = ("plain", "checker", "stripes", "dots", "camouflage", "lattice")
_HUES = 4


@dataclass(frozen=True)
class SalientClass:
    """One class, a shape with a kind of texture. index: 0.. . hue: mean of its colours, in turns; None: any hue."""

    index: int
    shape: str
    kind: str
    hue: float | None


CLASSES: tuple[SalientClass, ...] = tuple(
    SalientClass(s * len(_KINDS) + k, shape, kind, (s + k) % _HUES / _HUES)
    for s, shape in enumerate(FULL_SHAPES)
    for k, kind in enumerate(_KINDS)
)
"""Revision 1: 24 classes. Each of four hues is shared by six of them."""

_REVISION_2 = tuple(
    SalientClass(4 * s + k, shape, kind, None)
    for s, shape in enumerate(FULL_SHAPES)
    for k, kind in enumerate(_KINDS[:4])
)


def classes_of(revision: int) -> tuple[SalientClass, ...]:
    """The classes of a revision. Raises KeyError for an unknown one."""
    return {1: CLASSES, 2: _REVISION_2}[revision]

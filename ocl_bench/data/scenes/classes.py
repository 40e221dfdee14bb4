"""The 27 classes of the `things` scenes, and their ids in each official layout.

A thing is a shape with a texture: four shapes times three textures, and neither alone determines it. Stuff is a texture
of the ground and its scale. Each of nine hues is shared by three classes: colour helps, but does not determine the
class. The COCO ids lie in 27 different coarse classes of COCO-Stuff-27 (12 of things, 15 of stuff), so these classes
correspond to those of this table one to one.
"""

from __future__ import annotations

from dataclasses import dataclass

N_THINGS = 12


@dataclass(frozen=True)
class SceneClass:
    """One class.

    Attributes:
        index: 0..11 for things, 12..26 for stuff.
        name: that of COCO.
        shape: name of the shape, empty for stuff.
        kind: texture.
        scale: factor on the frequency of the texture.
        hue: mean of its colours, in turns.
        share: frequency with which it is drawn, relative to other classes.
        coco: COCO category id (things) or COCO-Stuff id (stuff); the pixel value of a stuff-thing map is one less.
        voc: 1..20 for things, 0 for stuff, which is background there.
        ade20k: 1..150.
        cityscapes: labelId; several classes share one, because only 19 are evaluated there.
    """

    index: int
    name: str
    shape: str
    kind: str
    scale: float
    hue: float
    share: float
    coco: int
    voc: int
    ade20k: int
    cityscapes: int

    @property
    def thing(self) -> bool:
        """Whether it is a countable object."""
        return self.index < N_THINGS


# name (that of COCO), shape, texture, COCO id, VOC id, ADE20K id, Cityscapes labelId
_THINGS = (
    ("person", "cube", "checker", 1, 15, 13, 24),
    ("car", "cube", "stripes", 3, 7, 21, 26),
    ("chair", "cube", "dots", 62, 9, 20, 27),
    ("dog", "sphere", "checker", 18, 12, 127, 25),
    ("sports ball", "sphere", "stripes", 37, 2, 120, 32),
    ("apple", "sphere", "dots", 53, 16, 121, 33),
    ("bottle", "cylinder", "checker", 44, 5, 99, 27),
    ("bench", "cylinder", "stripes", 15, 18, 70, 28),
    ("suitcase", "cylinder", "dots", 33, 11, 116, 31),
    ("tv", "octahedron", "checker", 72, 20, 90, 26),
    ("oven", "octahedron", "stripes", 79, 6, 119, 28),
    ("book", "octahedron", "dots", 84, 14, 68, 33),
)
# name (that of COCO-Stuff), texture, scale, COCO-Stuff id, ADE20K id, Cityscapes labelId
_STUFF = (
    ("ceiling-other", "clouds", 0.7, 102, 6, 23),
    ("floor-wood", "clouds", 1.8, 118, 4, 8),
    ("food-other", "marble", 0.6, 121, 143, 21),
    ("counter", "marble", 1.5, 107, 71, 12),
    ("metal", "rings", 0.5, 132, 85, 17),
    ("rug", "rings", 1.2, 152, 29, 22),
    ("wall-brick", "lattice", 0.5, 171, 1, 12),
    ("window-other", "lattice", 1.2, 181, 9, 11),
    ("house", "zigzag", 0.5, 128, 26, 11),
    ("road", "zigzag", 1.2, 149, 7, 7),
    ("grass", "camouflage", 0.7, 124, 10, 22),
    ("sky-other", "plain", 1.0, 157, 3, 23),
    ("stone", "camouflage", 1.8, 162, 35, 21),
    ("fence", "stripes", 0.35, 113, 33, 13),
    ("sea", "dots", 0.5, 155, 27, 20),
)


def _hue(index: int) -> float:
    """One of nine hues; neighbours in the table differ."""
    return index * 5 % 9 / 9


def _share(position: int, count: int) -> float:
    """5 for the first class of a kind, 1 for the last: classes of real data are not balanced either."""
    return 5.0 - 4.0 * position / (count - 1)


CLASSES: tuple[SceneClass, ...] = (
    *(
        SceneClass(i, name, shape, kind, 1.0, _hue(i), _share(i, len(_THINGS)), coco, voc, ade20k, cityscapes)
        for i, (name, shape, kind, coco, voc, ade20k, cityscapes) in enumerate(_THINGS)
    ),
    *(
        SceneClass(
            N_THINGS + i, name, "", kind, scale, _hue(N_THINGS + i), _share(i, len(_STUFF)), coco, 0, ade20k, cityscapes
        )
        for i, (name, kind, scale, coco, ade20k, cityscapes) in enumerate(_STUFF)
    ),
)
THINGS, STUFF = CLASSES[:N_THINGS], CLASSES[N_THINGS:]

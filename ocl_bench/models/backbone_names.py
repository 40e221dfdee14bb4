"""Names of backbones from elsewhere: `hub:OWNER/NAME[@REVISION]`, `hub:FOLDER` and `timm:NAME`."""

from __future__ import annotations

import re

SOURCES = ("hub", "timm")
"""Where backbones come from; each source has a card of the same name."""

_LABEL_FREE = {
    "hub": r"facebook/(dino-|dinov2-|dinov3-|vit-mae-|ijepa_)",
    "timm": r".*\.(dino|lvd142m|lvd1689m|mae)$",
}
"""Names of networks that learnt from images alone. Captions and classes of images are labels, too."""


def split_name(name: str) -> tuple[str, str] | None:
    """Source and name of a backbone, `("hub", "facebook/dinov3-..")`; None for the name of another model."""
    source, colon, rest = name.partition(":")
    return (source, rest) if colon and source in SOURCES else None


def supervision_of(source: str, name: str) -> str:
    """What the backbone saw in training: `none` where its name says that it learnt from images alone.

    Everything else is `undeclared` and ranks apart: classes and captions of images have no group of their own.
    """
    return "none" if re.match(_LABEL_FREE[source], name) else "undeclared"

"""The functions that write rendered scenes in the layout of each data set, exactly as that is downloaded."""

from __future__ import annotations

import importlib
from collections.abc import Callable

_WRITERS = {
    "ade20k": "ade20k:write",
    "cityscapes": "cityscapes:write",
    "coco": "coco:write",
    "clevrer": "clevrer:write",
    "davis": "davis:write",
    "imagenet": "imagenet:write",
    "movi_a": "movi:write_movi_a",
    "movi_b": "movi:write_movi_b",
    "movi_c": "movi:write_movi_c",
    "movi_d": "movi:write_movi_d",
    "movi_e": "movi:write_movi_e",
    "physion": "physion:write",
    "voc2007": "voc:write_2007",
    "voc2012": "voc:write_2012",
    "ytvis": "ytvis:write",
}


def find_writer(layout: str) -> Callable[..., None]:
    """The function `write(folder, split, scenes, first)` of a layout; it writes scene k with number first + k."""
    # Imported only now, because some modules need pycocotools or scipy, which take long to import.
    module, _, name = _WRITERS[layout].partition(":")
    writer: Callable[..., None] = getattr(importlib.import_module(f".{module}", __package__), name)
    return writer

"""The fields of a signature in words."""

from __future__ import annotations

import re

_MEANINGS = {
    "crop": "part of the image that is used: none (all of it), center-F (central square of F times the shorter side), "
    "square (largest central square), short-center (shorter side resized, then the central square)",
    "mask": "part of the model that gives the masks",
    "from": "part of the model that gives what is scored",
    "up": "how soft masks get the size at which they are compared: bilinear, then the largest mask of each pixel",
    "at": "side in pixels of the square on which masks are compared; native is the size of the truth",
    "bg": "truth label that is background and no object",
    "void": "pixels without annotation: dropped, or counted in the predicted areas",
    "overlap": "pixels that two objects claim: dropped, or an error",
    "empty": "images without objects: skipped, or counted as one",
    "annotations": "which of the data set's annotations are the truth",
    "crowd": "what becomes of regions with many objects",
    "stuff": "what becomes of classes without single objects",
    "short_side": "shorter side to which images are first resized",
    "interpolation": "kernel that resizes images",
    "match": "smallest overlap from which a slot stands for an object",
    "parts": "what becomes a detection: whole slots, or also their connected parts",
    "score": "how a detection gets its score",
    "nms": "overlap above which the worse of two detections is removed",
    "max": "most detections of an image",
    "classes": "number of classes, or whether each class is scored by itself",
    "boxes": "whether boxes of objects are granted at inference, and how",
    "T": "temperature of the votes of neighbours",
    "head": "what is fitted on the frozen model before it is scored",
    "max_proposals": "most segments of a video that are compared in J and F",
    "boundary": "tolerance of F: share of the diagonal, or pixels",
}


def terms(signature: str) -> list[dict[str, str]]:
    """Each field of a signature, with its meaning."""
    return [{"text": text, "meaning": _meaning(text)} for text in signature.split("│")]


def _meaning(text: str) -> str:
    key, separator, _ = text.partition(":")
    if not separator:
        return "version of the task card" if re.fullmatch(r"v\d+", text) else "the metric"
    return _MEANINGS.get(key, "a field of the task card")

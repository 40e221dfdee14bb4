"""How images, truth and predictions are prepared and compared: the part of a task card that changes numbers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .base import Card

HEAD_VERSION = 1
"""Raised when the fitting of any head changes; it is part of the key under which a head is cached."""


class Proposals(Card):
    """How masks become detections.

    parts: `whole` takes the mask of a slot, `whole+components` also its connected components (8 neighbours) when there
    are several. min_area: smaller ones are left out, in pixels of the scored image. nms: of two masks with a larger IoU
    the one with the lower score goes; 1 keeps all. max_detections: the best of an image.
    The score is the mean of the soft mask over its area; a label map has scores of 1.
    """

    parts: Literal["whole", "whole+components"] = "whole+components"
    min_area: int = Field(default=1, ge=1)
    nms: float = Field(default=0.95, gt=0, le=1)
    max_detections: int = Field(default=100, ge=1)


class Fit(Card):
    """What is fitted on top of a frozen model before it is scored, on another split than the one that is scored.

    head: `linear` (affine-free batch norm and a 1x1 convolution on tokens), `kmeans` (spherical k-means of tokens),
    `slot` and `dense` (detection from slots or tokens), `recognition` (class and box of a matched slot), `bank` (the
    unit feature and label of each image, for nearest neighbours; nothing is trained).
    held_out: share of the fit split on which the learning rate is chosen; the head is then fitted again on all of it.
    at: side of the square on which classes are compared while fitting.
    samples: only so many of the fit split, spread evenly; None takes all.
    """

    head: Literal["linear", "kmeans", "slot", "dense", "recognition", "bank"]
    split: str = "train"
    samples: int | None = Field(default=None, gt=0)
    held_out: float = Field(default=0.1, ge=0, lt=1)
    learning_rates: tuple[float, ...] = ()
    steps: int = Field(default=1000, ge=1)
    batch: int = Field(default=32, ge=1)
    weight_decay: float = Field(default=0.0, ge=0)
    hidden: int = Field(default=512, ge=1)
    at: int = Field(default=64, ge=1)
    seed: int = 0


class Protocol(Card):
    """How images and truth are cropped, resized and compared.

    crop: `none`; `center-F`, the central square whose side is F times the shorter image side (floor); or
        `short-center`, which first resizes the shorter side to the size asked for and then takes the central square
        (SPOT, PiCIE); `short-center-F` resizes it to the size / F, so that the central F of it is kept (DINO: 0.875,
        256 -> 224). `square` is the largest central square, its corner rounded half to even (SlotContrast).
    short_side: frames and truth are first resized to this shorter side by nearest pixel centre.
    interpolation: of images: `bilinear` or `bicubic` as Pillow does them, or `bicubic-tensor`, torch's cubic kernel on
        [0, 1] without antialias, clamped. None is `bilinear`.
    input: side in pixels of the square given to models that declare no size of their own.
    score_at: side of the square on which masks are compared; None scores at the truth's own size after the crop.
    resize: `bilinear-argmax` upsamples soft masks bilinearly before the argmax; label maps go by nearest.
    background: truth label that is background, or None when every label is an object.
    void / overlap / empty: see `ocl_bench.metrics.contingency`.
    classes: number of classes of the semantic truth (segmentation).
    proposals: how masks become detections (detection).
    matching_iou: a slot is matched to an object only above this IoU (recognition and the slot head).
    boxes: how the boxes of the image's own class are granted at inference (knn), for bank and queries alike:
        `attention` hands them to the model, `crop` cuts the image to them, `blackout` makes the rest black.
    temperature: of the votes of neighbours, exp(cosine / temperature) (knn).
    max_proposals: only so many segments of a video, the largest ones, are compared in J and F (video).
    boundary: tolerance of F as a share of the image diagonal, or in pixels from 1 on (video).
    """

    crop: str = Field(default="none", pattern=r"^(none|square|((short-)?center-(0\.\d+|1(\.0+)?))|short-center)$")
    input: int = Field(default=128, ge=8)
    score_at: int | None = Field(default=None, ge=8)
    resize: Literal["bilinear-argmax"] = "bilinear-argmax"
    background: int | None = 0
    void: Literal["drop", "count"] = "drop"
    overlap: Literal["drop", "error"] = "drop"
    empty: Literal["skip", "one"] = "skip"
    classes: int | None = Field(default=None, ge=2)
    proposals: Proposals | None = None
    matching_iou: float | None = Field(default=None, ge=0, lt=1)
    short_side: int | None = Field(default=None, ge=8)
    interpolation: Literal["bilinear", "bicubic", "bicubic-tensor"] | None = None
    boxes: Literal["attention", "crop", "blackout"] | None = None
    temperature: float | None = Field(default=None, gt=0)
    max_proposals: int | None = Field(default=None, ge=1)
    boundary: float | None = Field(default=None, gt=0)

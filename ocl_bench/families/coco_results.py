"""Detections as the COCO results file, which `pycocotools`, detectron2 and mmdetection write and read."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import UsageError
from ..core.rle import unpack_runs
from ..metrics.detection import Detections

_FORMAT = "https://cocodataset.org/#format-results"


def coco_results(
    outputs: Sequence[Detections],
    image_ids: Sequence[str],
    category_ids: Sequence[int] = (),
    *,
    digits: int | None = 2,
) -> list[dict[str, Any]]:
    """One entry for each detection, in the order of the images: image_id, category_id, bbox, score, segmentation.

    image_ids: sample ids; those of digits become COCO's numbers. category_ids: of the data set; a label that is not
    among them, such as the 0 of class-agnostic detections, is written as the first, since `pycocotools` drops
    detections of unknown categories even when it ignores classes. bbox is x, y, width, height in pixels, rounded to
    `digits` decimals (None keeps them all).
    """
    entries = []
    for found, sample_id in zip(outputs, image_ids, strict=True):
        corners = found.boxes.astype(np.float64)
        sides = np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]])
        boxes = (sides if digits is None else sides.round(digits)).tolist()
        for position, (box, score, label) in enumerate(
            zip(boxes, found.scores.tolist(), found.labels.tolist(), strict=True)
        ):
            known = not category_ids or label in category_ids
            entry = {
                "image_id": image_number(sample_id),
                "category_id": label if known else category_ids[0],
                "bbox": box,
                "score": score,
            }
            if found.masks is not None:
                mask = found.masks[position]
                entry["segmentation"] = {"size": list(mask["size"]), "counts": mask["counts"].decode("ascii")}
            entries.append(entry)
    return entries


def write_results(
    path: Path, outputs: Sequence[Detections], image_ids: Sequence[str], category_ids: Sequence[int] = ()
) -> None:
    """Write the COCO results file; arguments as in `coco_results`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(coco_results(outputs, image_ids, category_ids)), encoding="utf-8")


def image_number(sample_id: str) -> int | str:
    """The id as COCO has it: 000000000139 is 139. Ids that are no numbers stay as they are."""
    return int(sample_id) if sample_id.isdecimal() else sample_id


def read_results(
    path: Path,
    ids: Sequence[str],
    *,
    categories: Collection[int] | None = None,
    shapes: Mapping[str, tuple[int, int]] | None = None,
) -> dict[str, Detections]:
    """Detections of a COCO results file for each sample id; none where the file has no entry for it.

    categories: the ids that may occur; None allows all. shapes: (H, W) of the images, where they are known; the
    run-length codes of one image must have one size in any case. Masks are None when no entry has a `segmentation`.

    Raises UsageError, with the first bad entry and how many there are, for a file that is no list of results, unknown
    images and categories, run-length codes of another size, boxes and scores that are not finite, and for entries
    without a mask beside others with one.
    """
    entries = _load(path)
    by_number = {image_number(sample_id): sample_id for sample_id in ids}
    masked = any(isinstance(entry, dict) and entry.get("segmentation") is not None for entry in entries)
    sizes: dict[str, tuple[int, int]] = dict(shapes or {})
    grouped: dict[str, list[_Entry]] = {sample_id: [] for sample_id in ids}
    bad: list[str] = []
    for position, entry in enumerate(entries):
        try:
            sample_id = _image(entry, by_number)
            grouped[sample_id].append(_entry(entry, sample_id, masked, categories, sizes))
        except ValueError as error:
            bad.append(f"entry {position}: {error}")
    if bad:
        raise UsageError(f"{path}: {len(bad)} of {len(entries)} results are bad, the first is {bad[0]}; see {_FORMAT}")
    return {sample_id: _detections(found, masked or not entries) for sample_id, found in grouped.items()}


_Entry = tuple[list[float], float, int, dict[str, Any] | None]
"""Box xyxy, score, category, mask."""


def _load(path: Path) -> list[Any]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{path}: cannot be read as a COCO results file ({reason}); see {_FORMAT}") from error
    if not isinstance(entries, list):
        found = "an annotation file" if isinstance(entries, dict) and "annotations" in entries else "no list"
        raise UsageError(f"{path}: is {found}, expected a list of results; see {_FORMAT}")
    return entries


def _image(entry: Any, by_number: Mapping[int | str, str]) -> str:
    if not isinstance(entry, dict):
        raise ValueError(f"is {type(entry).__name__}, expected an object with image_id, category_id, bbox and score")
    number = entry.get("image_id")
    if isinstance(number, bool) or not isinstance(number, int | str):
        raise ValueError(f"field image_id is {number!r}, expected the id of an image")
    sample_id = by_number.get(image_number(number) if isinstance(number, str) else number)
    if sample_id is None:
        raise ValueError(f"field image_id is {number!r}, which is none of the {len(by_number)} images of the task")
    return sample_id


def _entry(
    entry: dict[str, Any],
    sample_id: str,
    masked: bool,
    categories: Collection[int] | None,
    sizes: dict[str, tuple[int, int]],
) -> _Entry:
    """One result, checked. sizes: of the images so far; a new one is added."""
    category = entry.get("category_id")
    if isinstance(category, bool) or not isinstance(category, int):
        raise ValueError(f"field category_id is {category!r}, expected an integer")
    if categories is not None and category not in categories:
        raise ValueError(f"field category_id is {category}, which the data set does not have")
    (score,) = _numbers("score", [entry.get("score")])
    mask = None
    if masked:
        mask = _mask(entry.get("segmentation"))
        size = (mask["size"][0], mask["size"][1])
        if sizes.setdefault(sample_id, size) != size:
            wanted = " x ".join(map(str, sizes[sample_id]))
            raise ValueError(f"field segmentation has size {size[0]} x {size[1]} (height x width), expected {wanted}")
    box = entry.get("bbox")
    if box is None and mask is not None:
        from pycocotools import mask as coco_mask

        box = coco_mask.toBbox(mask).tolist()
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError(f"field bbox is {box!r}, expected x, y, width, height")
    x, y, width, height = _numbers("bbox", box)
    if width < 0 or height < 0:
        raise ValueError(f"field bbox is {box}, expected x, y, width, height with a size of at least 0")
    return [x, y, x + width, y + height], score, category, mask


def _numbers(field: str, values: Sequence[Any]) -> list[float]:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
            raise ValueError(f"field {field} has {value!r}, expected a finite number")
    return [float(value) for value in values]


def _mask(segmentation: Any) -> dict[str, Any]:
    """Either kind of run-length code as the compressed one. Raises ValueError, also when its runs miss its size."""
    if not isinstance(segmentation, dict) or not isinstance(segmentation.get("counts"), str | list):
        shown = "missing, though other results have it" if segmentation is None else "no run-length code"
        raise ValueError(f"field segmentation is {shown}, expected size and counts")
    size, counts = segmentation.get("size"), segmentation["counts"]
    if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)):
        raise ValueError(f"field segmentation has size {size!r}, expected height and width")
    try:
        runs = unpack_runs(counts.encode("ascii")) if isinstance(counts, str) else counts
    except ValueError as error:  # a character that is not ASCII, too
        raise ValueError(f"field segmentation: {error}") from error
    if any(type(run) is not int or run < 0 for run in runs) or sum(runs) != size[0] * size[1]:
        raise ValueError(f"field segmentation has runs that do not add up to its size {size[0]} x {size[1]}")
    if isinstance(counts, str):
        return {"size": size, "counts": counts.encode("ascii")}
    from pycocotools import mask as coco_mask

    encoded: dict[str, Any] = coco_mask.frPyObjects({"size": size, "counts": counts}, *size)
    return encoded


def _detections(found: Sequence[_Entry], masked: bool) -> Detections:
    """Detections of one image in the order of the file."""
    masks = tuple(mask for *_, mask in found if mask is not None)
    return Detections(
        np.array([box for box, *_ in found], np.float64).reshape(-1, 4),
        np.array([score for _, score, *_ in found], np.float64),
        np.array([category for _, _, category, _ in found], np.int64),
        masks if masked else None,
    )

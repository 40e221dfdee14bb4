"""Read and write detections as COCO results files, the format of `pycocotools`, detectron2 and mmdetection."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ..core.errors import UsageError
from ..core.files import parse_json, read_text
from ..core.numbers import finite_numbers
from ..core.rle import unpack_runs
from ..metrics.detection import Detections

_FORMAT = "https://cocodataset.org/#format-results"


def coco_results(
    outputs: Sequence[Detections],
    image_ids: Sequence[str],
    category_ids: Sequence[int] = (),
    *,
    numbers: Mapping[str, int | str] = MappingProxyType({}),
    digits: int | None = 2,
) -> list[dict[str, Any]]:
    """Convert detections to the entries of a COCO results file.

    Args:
        outputs: detections of each image.
        image_ids: sample id of each image. An id of digits is written as COCO's number.
        numbers: sample id -> id in the annotation file, of images whose sample id does not say it.
        category_ids: category ids of the data set; empty to write all labels unchanged.
        digits: decimals of the boxes; None keeps all of them.

    Returns:
        One entry for each detection, in the order of the images, with `image_id`, `category_id`, `bbox` (x, y, width,
        height in pixels), `score` and, for detections with masks, `segmentation`.
    """
    entries = []
    for detections, sample_id in zip(outputs, image_ids, strict=True):
        corners = detections.boxes.astype(np.float64)
        xywh = np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]])
        boxes = (xywh if digits is None else xywh.round(digits)).tolist()
        for position, (box, score, label) in enumerate(
            zip(boxes, detections.scores.tolist(), detections.labels.tolist(), strict=True)
        ):
            # Class-agnostic detections have label 0. pycocotools drops detections of unknown categories even when it
            # ignores classes, so such a label is written as the first category.
            known = not category_ids or label in category_ids
            entry = {
                "image_id": numbers.get(sample_id, image_number(sample_id)),
                "category_id": label if known else category_ids[0],
                "bbox": box,
                "score": score,
            }
            if detections.masks is not None:
                mask = detections.masks[position]
                entry["segmentation"] = {"size": list(mask["size"]), "counts": mask["counts"].decode("ascii")}
            entries.append(entry)
    return entries


def write_results(
    path: Path, outputs: Sequence[Detections], image_ids: Sequence[str], category_ids: Sequence[int] = ()
) -> None:
    """Write a COCO results file; see `coco_results` for the arguments."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(coco_results(outputs, image_ids, category_ids)), encoding="utf-8")


def image_number(sample_id: str) -> int | str:
    """COCO's form of a sample id: 000000000139 becomes the number 139, an id that is not a number stays as it is."""
    return int(sample_id) if sample_id.isdecimal() else sample_id


def read_results(
    path: Path,
    ids: Sequence[str],
    *,
    numbers: Mapping[str, int | str] = MappingProxyType({}),
    categories: Collection[int] | None = None,
    shapes: Mapping[str, tuple[int, int]] | None = None,
) -> dict[str, Detections]:
    """Read the detections of a COCO results file.

    Args:
        path: the file.
        ids: sample ids of the images; entries of other images are errors.
        numbers: sample id -> id in the annotation file, as in `coco_results`.
        categories: category ids that may occur; None allows all.
        shapes: size (H, W) of the images, where it is known. All run-length codes of one image must have one size even
            when it is not.

    Returns:
        Detections by sample id, empty for an image without an entry. `masks` is None when no entry has a
        `segmentation`.

    Raises:
        UsageError: the file is not a list of results, or an entry has an unknown image or category, a run-length code
            of a wrong size, or a box or score that is not finite, or some entries have masks and others do not. The
            message shows the first bad entry and the number of bad entries.
    """
    entries = _load(path)
    by_number = {numbers.get(sample_id, image_number(sample_id)): sample_id for sample_id in ids}
    masked = any(isinstance(entry, dict) and entry.get("segmentation") is not None for entry in entries)
    sizes: dict[str, tuple[int, int]] = dict(shapes or {})
    grouped: dict[str, list[_Entry]] = {sample_id: [] for sample_id in ids}
    bad: list[str] = []
    for position, entry in enumerate(entries):
        try:
            sample_id = _image(entry, by_number, grouped)
            grouped[sample_id].append(_entry(entry, sample_id, masked, categories, sizes))
        except ValueError as error:
            bad.append(f"entry {position}: {error}")
    if bad:
        raise UsageError(f"{path}: {len(bad)} of {len(entries)} results are bad, the first is {bad[0]}; see {_FORMAT}")
    # An empty file may be that of a mask model without detections: it gets empty masks, not None.
    return {sample_id: _detections(rows, masked or not entries) for sample_id, rows in grouped.items()}


_Entry = tuple[list[float], float, int, dict[str, Any] | None]
"""Box xyxy, score, category, mask."""


def _load(path: Path) -> list[Any]:
    """The list of entries, not checked yet."""
    try:
        entries = parse_json(read_text(path))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{path}: cannot be read as a COCO results file ({reason}); see {_FORMAT}") from error
    if not isinstance(entries, list):
        content = "an annotation file" if isinstance(entries, dict) and "annotations" in entries else "not a list"
        raise UsageError(f"{path}: is {content}, expected a list of results; see {_FORMAT}")
    return entries


def _image(entry: Any, by_number: Mapping[int | str, str], ids: Collection[str]) -> str:
    """Sample id of an entry. Raises ValueError for an unknown image, or a text that may mean two."""
    if not isinstance(entry, dict):
        raise ValueError(f"is {type(entry).__name__}, expected an object with image_id, category_id, bbox and score")
    number = entry.get("image_id")
    # bool is a subclass of int: without the first test, `true` would be image 1.
    if isinstance(number, bool) or not isinstance(number, int | str):
        raise ValueError(f"field image_id is {number!r}, expected the id of an image")
    sample_id = by_number.get(number)
    if sample_id is None and isinstance(number, str):
        # Some tools write the name of the file, zero-padded in COCO, as a string instead of the number.
        sample_id = by_number.get(image_number(number))
        if number in ids and sample_id not in (None, number):
            raise ValueError(f"field image_id is {number!r}, the id of one image and the name of another; use numbers")
        sample_id = number if number in ids else sample_id
    if sample_id is None:
        raise ValueError(f"field image_id is {number!r}, which is not one of the {len(by_number)} images of the task")
    return sample_id


def _entry(
    entry: dict[str, Any],
    sample_id: str,
    masked: bool,
    categories: Collection[int] | None,
    sizes: dict[str, tuple[int, int]],
) -> _Entry:
    """Check and convert one entry. Raises ValueError naming the field.

    Args:
        entry: the entry.
        sample_id: its image.
        masked: whether entries must have masks.
        categories: category ids that may occur; None allows all.
        sizes: size (H, W) of the images so far; the size of a new image is added.
    """
    category = entry.get("category_id")
    if isinstance(category, bool) or not isinstance(category, int):
        raise ValueError(f"field category_id is {category!r}, expected an integer")
    if categories is not None and category not in categories:
        raise ValueError(f"field category_id is {category}, which the data set does not have")
    (score,) = finite_numbers("field score", [entry.get("score")])
    mask = None
    if masked:
        mask = _mask(entry.get("segmentation"))
        size = (mask["size"][0], mask["size"][1])
        if sizes.setdefault(sample_id, size) != size:
            wanted = " x ".join(map(str, sizes[sample_id]))
            raise ValueError(f"field segmentation has size {size[0]} x {size[1]} (height x width), expected {wanted}")
    box = entry.get("bbox")
    if box is None and mask is not None:  # results of pure mask models often have no bbox
        from pycocotools import mask as coco_mask

        box = coco_mask.toBbox(mask).tolist()
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError(f"field bbox is {box!r}, expected x, y, width, height")
    x, y, width, height = finite_numbers("field bbox", box)
    if width < 0 or height < 0:
        raise ValueError(f"field bbox is {box}, expected x, y, width, height with a size of at least 0")
    return [x, y, x + width, y + height], score, category, mask


def _mask(segmentation: Any) -> dict[str, Any]:
    """A compressed run-length code from a compressed or an uncompressed one. Raises ValueError for a damaged one."""
    if not isinstance(segmentation, dict) or not isinstance(segmentation.get("counts"), str | list):
        shown = "missing, though other results have it" if segmentation is None else "not a run-length code"
        raise ValueError(f"field segmentation is {shown}, expected size and counts")
    size, counts = segmentation.get("size"), segmentation["counts"]
    if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)):
        raise ValueError(f"field segmentation has size {size!r}, expected height and width")
    try:
        runs = unpack_runs(counts.encode("ascii")) if isinstance(counts, str) else counts
    except ValueError as error:  # includes UnicodeEncodeError
        raise ValueError(f"field segmentation: {error}") from error
    # pycocotools does not check this when it decodes.
    if any(type(run) is not int or run < 0 for run in runs) or sum(runs) != size[0] * size[1]:
        raise ValueError(f"field segmentation has runs that do not add up to its size {size[0]} x {size[1]}")
    if isinstance(counts, str):
        return {"size": size, "counts": counts.encode("ascii")}
    from pycocotools import mask as coco_mask

    encoded: dict[str, Any] = coco_mask.frPyObjects({"size": size, "counts": counts}, *size)
    return encoded


def _detections(entries: Sequence[_Entry], masked: bool) -> Detections:
    """Detections of one image in the order of the file."""
    masks = tuple(mask for *_, mask in entries if mask is not None)
    return Detections(
        np.array([box for box, *_ in entries], np.float64).reshape(-1, 4),
        np.array([score for _, score, *_ in entries], np.float64),
        np.array([category for _, _, category, _ in entries], np.int64),
        masks if masked else None,
    )

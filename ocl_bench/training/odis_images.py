"""Images with boxes that ODIS learns from: rendered scenes, or those of a reader; and those that validate it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..cards.task import TaskSpec
from ..core.errors import UsageError
from ..core.types import Instance, Sample, Truth
from ..data import open_data, spread
from ..data.base import OpenData
from ..data.readers.imagenet_boxes import open_table
from ..data.scenes.store import open_store
from ..data.stand_ins.layouts import ensure_scenes
from .crops import pillow_crop
from .data import ChunkedArray, PaddedImages, held_out_scenes, hold_out, object_boxes, padded_scenes, scene_boxes
from .object_crops import CropOptions, ObjectCrops, draw_object_crops
from .odis_objective import OdisOptions, OdisSource
from .recipe import Recipe, SceneSelection

READERS = 4
"""Threads that decode and crop images of a reader."""

ASKED = 64
"""Images of a reader, spread evenly, of which one at least must have a box."""

Boxes = Callable[[int, Sample], np.ndarray]
"""Boxes (M, 4) of all objects of image `index`, xyxy pixels of the stored image, given its sample."""


@dataclass(frozen=True)
class BoxedScenes:
    """SceneSelection in one padded array: whole images go to the device and are cropped there. boxes: None without any."""

    images: PaddedImages
    boxes: ChunkedArray | None

    def __len__(self) -> int:
        return len(self.images)

    def crops(
        self, indices: np.ndarray, uniform: np.ndarray, options: CropOptions, patch: int
    ) -> tuple[dict[str, Tensor], ObjectCrops]:
        """`image` (B, 3, S, S) uint8, `crops` (B, 2 + L, 4) and `flips` (B, 2 + L)."""
        boxes = np.full((len(indices), 0, 4), np.nan) if self.boxes is None else self.boxes[indices].numpy()
        drawn = draw_object_crops(uniform, self.images.sizes[indices].numpy(), boxes, options, patch)
        return {"image": self.images.images[indices], "crops": drawn.crops, "flips": drawn.flips}, drawn


@dataclass(frozen=True)
class BoxedReader:
    """Images of any size from a reader: decoded and cropped by Pillow in threads. A broken file raises SampleError.

    boxes: of image `index` with its sample -> (M, 4) xyxy pixels, or None where they are not to be seen.
    """

    data: OpenData
    boxes: Callable[[int, Sample], np.ndarray] | None
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(READERS))

    def __len__(self) -> int:
        return len(self.data)

    def _read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        sample = self.data.reader[int(index)]
        return sample.image, np.zeros((0, 4)) if self.boxes is None else self.boxes(int(index), sample)

    def crops(
        self, indices: np.ndarray, uniform: np.ndarray, options: CropOptions, patch: int
    ) -> tuple[dict[str, Tensor], ObjectCrops]:
        """`globals` (B, 2, 3, S, S) and `locals` (B, L, 3, s, s) uint8."""
        read = list(self.pool.map(self._read, indices))
        sizes = np.array([image.shape[:2] for image, _ in read])
        boxes = np.full((len(read), max(len(own) for _, own in read), 4), np.nan)
        for row, (_, own) in zip(boxes, read, strict=True):
            row[: len(own)] = own
        drawn = draw_object_crops(uniform, sizes, boxes, options, patch)

        def cut(row: int) -> tuple[Tensor, Tensor]:
            sides = [options.size] * 2 + [options.local_size] * options.locals
            places = zip(drawn.crops[row], drawn.flips[row].tolist(), sides, strict=True)
            views = [pillow_crop(read[row][0], crop, flip, side) for crop, flip, side in places]
            side = options.local_size
            return torch.stack(views[:2]), torch.stack([*views[2:], torch.zeros(3, side, side, dtype=torch.uint8)])[:-1]

        both = list(self.pool.map(cut, range(len(read))))
        return {
            "globals": torch.stack([one for one, _ in both]),
            "locals": torch.stack([two for _, two in both]),
        }, drawn


def boxes_of(index: int, sample: Sample) -> np.ndarray:
    """Boxes (M, 4) of all objects of a sample: its instances without crowds, else those of its label map."""
    del index
    if sample.truth.instances:
        return np.array([one.box for one in sample.truth.instances if not one.crowd], dtype=np.float64).reshape(-1, 4)
    labels = torch.from_numpy(sample.truth.labels.astype(np.int64))
    most = max(0, int(labels.max())) if labels.numel() else 0
    found = object_boxes(labels[None], most)[0].double().numpy()
    present: np.ndarray = found[~np.isnan(found).any(1)]
    return present


@dataclass(frozen=True)
class OdisImages:
    """What a training sees. bank: some of its images, queries: held-out ones of the same split. note: one line."""

    source: OdisSource
    bank: Sequence[Sample]
    queries: Sequence[Sample]
    note: str


def images_of_scenes(recipe: Recipe, options: OdisOptions, *, progress: bool) -> OdisImages:
    """Rendered scenes. Those with a salient object are validated on the scenes after the last one that is trained on.

    Raises UsageError for a table of boxes, which scenes do not need.
    """
    if options.boxes_file is not None:
        raise UsageError("field 'train.objective.boxes_file': scenes have their own boxes; set objective.images=reader")
    scenes, kept = recipe.scenes, recipe.validate_limit
    boxes = scene_boxes(scenes, progress=progress) if options.boxes else None
    source = BoxedScenes(padded_scenes(scenes, progress=progress), boxes)
    bank: Sequence[Sample] = ()
    queries: Sequence[Sample] = ()
    if scenes.variant == "salient":
        bank = salient_samples(scenes, range(min(options.bank, scenes.count)), progress=progress)
        queries = salient_samples(scenes, range(scenes.count, scenes.count + kept), progress=progress)
    elif scenes.variant == "things":
        queries = held_out_scenes(scenes, kept, progress=progress)
    return OdisImages(source, bank, queries, scenes.note + (", boxes of all objects" if options.boxes else ""))


def salient_samples(scenes: SceneSelection, numbers: range, *, progress: bool = True) -> list[Sample]:
    """SceneSelection of one class each, with the boxes of all objects: for validation, which knows the classes."""
    store = ensure_scenes(open_store(scenes.variant, scenes.revision, scenes.split, 0), numbers.stop, progress=progress)
    shown = islice(enumerate(store), numbers.start, numbers.stop)  # a file holds many: in order, each is read once
    return [_salient_sample(f"{scenes.split}-{number}", scene) for number, scene in shown]


def _salient_sample(sample_id: str, scene: Any) -> Sample:
    instances = tuple(
        Instance(category, box, None, (box[2] - box[0]) * (box[3] - box[1])) for category, box in scene.boxes
    )
    labels = np.zeros(scene.image.shape[:2], np.int16)
    return Sample(sample_id, scene.image, Truth(labels, instances=instances, label=scene.label))


def images_of_reader(
    task: TaskSpec, recipe: Recipe, options: OdisOptions, data_root: Path | None, *, progress: bool
) -> OdisImages:
    """Images of a task's data; every so-many-th one, `validate_limit` in all, is held out.

    Boxes are the reader's own (of masks, where it has no boxes) or those of a table. Raises UsageError for a split with
    too few images, and where boxes are asked for and none is found.
    """
    own_table = options.boxes_file is not None and task.data.reader != "imagenet"
    if options.boxes and task.data.reader == "imagenet":
        table = {"boxes_file": options.boxes_file} if options.boxes_file else {}
        given = {**task.data.options, "boxes": "labelled", **table}
        task = task.model_copy(update={"data": task.data.model_copy(update={"options": given})})
    data = open_data(task, data_root=data_root, split=options.split, progress=progress)
    trained, held_out = hold_out(data, options.split, recipe.validate_limit)
    boxes = None
    if options.boxes:
        boxes = _table_boxes(Path(str(options.boxes_file)), trained, options.split) if own_table else boxes_of
        _check_boxes(trained, boxes)
    bank = spread(trained, options.bank)
    where = f"{options.boxes_file}" if options.boxes_file else "the data"
    note = f"{len(trained)} images of task {task.name}, {options.split} split, {data.kind} {data.revision}"
    note += f", boxes of {where}" if options.boxes else ""
    return OdisImages(BoxedReader(trained, boxes), bank.reader, held_out.reader, note)  # type: ignore[arg-type]


def _table_boxes(path: Path, data: OpenData, split: str) -> Boxes:
    """Boxes of a table for a reader that knows none."""
    table = open_table(path, split, data.ids, np.zeros(len(data), np.int16), {})

    def boxes(index: int, sample: Sample) -> np.ndarray:
        found = table.read(index, sample.id, 0, sample.image.shape[:2])
        return np.array([one.box for one in found], dtype=np.float64).reshape(-1, 4)

    return boxes


def _check_boxes(data: OpenData, boxes: Boxes) -> None:
    asked = min(ASKED, len(data))
    positions = (place * len(data) // asked for place in range(asked))
    if not any(len(boxes(position, data.reader[position])) for position in positions):
        raise UsageError(
            f"{data.root}: none of {asked} images has a box; give --set objective.boxes_file=FILE, or a model "
            "that needs none (ibot)"
        )

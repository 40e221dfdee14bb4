"""Supplies the training images of ODIS with their boxes, from scenes or a reader, and its validation images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
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
from . import ahead
from .background import Background
from .crops import pillow_crop
from .data import (
    SIDES,
    ChunkedArray,
    PaddedImages,
    object_boxes,
    padded_scenes,
    reader_pool,
    scene_boxes,
)
from .held_out import Later, held_out_scenes, hold_out
from .object_crops import CropOptions, ObjectCrops, draw_object_crops
from .odis_objective import OdisOptions, OdisSource
from .recipe import Recipe, SceneSelection

CHECKED_IMAGES = 64
"""Images of a reader, evenly spread, that are searched for a box before the training starts."""

Boxes = Callable[[int, Sample], np.ndarray]
"""Function of the number of an image and its sample: boxes (M, 4) of all its objects, xyxy pixels of that image."""


@dataclass(frozen=True)
class BoxedScenes:
    """Scenes in one padded array. Whole images go to the device and are cropped there.

    Attributes:
        images: The padded images.
        boxes: Boxes of all objects, see `scene_boxes`; None for a training without boxes.
    """

    images: PaddedImages
    boxes: ChunkedArray | None

    def __len__(self) -> int:
        return len(self.images)

    def crops(
        self, indices: np.ndarray, uniform: np.ndarray, options: CropOptions, patch: int
    ) -> tuple[dict[str, Tensor], ObjectCrops]:
        """Return `image` (B, 3, S, S) uint8, `crops` (B, 2 + L, 4) and `flips` (B, 2 + L), and the drawn crops."""
        boxes = np.full((len(indices), 0, 4), np.nan) if self.boxes is None else self.boxes[indices].numpy()
        drawn = draw_object_crops(uniform, self.images.sizes[indices].numpy(), boxes, options, patch)
        return {"image": self.images.images[indices], "crops": drawn.crops, "flips": drawn.flips}, drawn


@dataclass(frozen=True)
class BoxedReader:
    """Images of any size from a reader, decoded and cropped by Pillow in threads. A broken file raises SampleError.

    Attributes:
        data: The images.
        boxes: Gives the boxes of an image; None for a training without boxes.
    """

    data: OpenData
    boxes: Boxes | None
    pool: ThreadPoolExecutor = field(default_factory=reader_pool)

    def __len__(self) -> int:
        return len(self.data)

    def _read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, 3) uint8 and its boxes (M, 4)."""
        sample = self.data.reader[int(index)]
        return sample.image, np.zeros((0, 4)) if self.boxes is None else self.boxes(int(index), sample)

    def crops(
        self, indices: np.ndarray, uniform: np.ndarray, options: CropOptions, patch: int
    ) -> tuple[dict[str, Tensor], ObjectCrops]:
        """Return `globals` (B, 2, 3, S, S) and `locals` (B, L, 3, s, s) uint8, and the drawn crops."""
        read = list(self.pool.map(self._read, indices))
        sizes = np.array([image.shape[:2] for image, _ in read])
        boxes = np.full((len(read), max(len(image_boxes) for _, image_boxes in read), 4), np.nan)
        for row, (_, image_boxes) in zip(boxes, read, strict=True):
            row[: len(image_boxes)] = image_boxes
        drawn = draw_object_crops(uniform, sizes, boxes, options, patch)

        def cut_views(row: int) -> tuple[Tensor, Tensor]:
            """Global and local views of one image."""
            sides = [options.size] * 2 + [options.local_size] * options.locals
            places = zip(drawn.crops[row], drawn.flips[row].tolist(), sides, strict=True)
            views = [pillow_crop(read[row][0], crop, flip, side) for crop, flip, side in places]
            # `torch.stack` refuses an empty list; the extra view gives the result its shape if there are no locals.
            extra = torch.zeros(3, options.local_size, options.local_size, dtype=torch.uint8)
            return torch.stack(views[:2]), torch.stack([*views[2:], extra])[:-1]

        rows = list(self.pool.map(cut_views, range(len(read))))
        return {
            "globals": torch.stack([global_views for global_views, _ in rows]),
            "locals": torch.stack([local_views for _, local_views in rows]),
        }, drawn


def boxes_of(index: int, sample: Sample) -> np.ndarray:
    """Boxes (M, 4) of all objects of a sample: its instances without crowds, or those of its label map."""
    del index  # only tables of boxes need the number of the image
    if sample.truth.instances:
        return _as_rows([instance.box for instance in sample.truth.instances if not instance.crowd])
    labels = torch.from_numpy(sample.truth.labels.astype(np.int64))
    most = max(0, int(labels.max())) if labels.numel() else 0
    boxes = object_boxes(labels[None], most)[0].double().numpy()
    present: np.ndarray = boxes[~np.isnan(boxes).any(1)]
    return present


def _as_rows(boxes: Sequence[Sequence[float]]) -> np.ndarray:
    """Boxes as an array (M, 4), also for M = 0."""
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


@dataclass(frozen=True)
class OdisImages:
    """The images of a training.

    Attributes:
        source: Images to train on.
        bank: Some of them, which vote in the k-NN validation.
        queries: Held-out images of the same split, which are classified.
        note: One line that describes the images.
    """

    source: OdisSource
    bank: Sequence[Sample]
    queries: Sequence[Sample]
    note: str


def scenes_and_boxes(
    scenes: SceneSelection, background: Background | None, *, boxes: bool, progress: bool
) -> tuple[PaddedImages, ChunkedArray | None]:
    """Images of training scenes, and if wanted the boxes of all objects.

    Args:
        scenes: Which scenes.
        background: Renders scenes with classes while the model is trained. Without it, and other scenes, at once.
        boxes: Give boxes.
        progress: Draw progress bars for what is rendered at once.
    """
    if background is None or scenes.variant not in SIDES:
        images = padded_scenes(scenes, progress=progress)
        return images, scene_boxes(scenes, progress=progress) if boxes else None
    return ahead.padded_scenes(background, scenes), ahead.scene_boxes(background, scenes) if boxes else None


def images_of_scenes(
    recipe: Recipe, options: OdisOptions, background: Background | None, *, progress: bool
) -> OdisImages:
    """Rendered scenes to train and validate on.

    Scenes with a salient object are validated on the scenes that follow the last training scene.

    Raises:
        UsageError: The options name a table of boxes. Scenes have their own boxes.
    """
    if options.boxes_file is not None:
        raise UsageError("field 'train.objective.boxes_file': scenes have their own boxes; set objective.images=reader")
    scenes, held_out = recipe.scenes, recipe.validate_limit
    source = BoxedScenes(*scenes_and_boxes(scenes, background, boxes=options.boxes, progress=progress))
    bank: Sequence[Sample] = ()
    queries: Sequence[Sample] = ()
    if scenes.variant == "salient":

        def samples(numbers: range) -> list[Sample]:
            if background is not None:
                ahead.finish_store(background, scenes)
            return salient_samples(scenes, numbers, progress=False)

        bank = Later(partial(samples, range(min(options.bank, scenes.count))))
        queries = Later(partial(samples, range(scenes.count, scenes.count + held_out)))
    elif scenes.variant == "things":
        queries = Later(partial(held_out_scenes, scenes, held_out, progress=False))
    return OdisImages(source, bank, queries, scenes.note + (", boxes of all objects" if options.boxes else ""))


def salient_samples(scenes: SceneSelection, numbers: range, *, progress: bool = True) -> list[Sample]:
    """Scenes with their class and the boxes of all objects. Only validation may use the classes.

    Args:
        scenes: Variant, revision and split.
        numbers: Numbers of the scenes; missing scenes are rendered, also beyond `scenes.count`.
        progress: Draw a progress bar.
    """
    store = ensure_scenes(open_store(scenes.variant, scenes.revision, scenes.split, 0), numbers.stop, progress=progress)
    # A file holds many scenes. Iterating in order reads each file once; indexing would read it for every scene.
    selection = islice(enumerate(store), numbers.start, numbers.stop)
    return [salient_sample(f"{scenes.split}-{number}", scene) for number, scene in selection]


def salient_sample(sample_id: str, scene: Any) -> Sample:
    """A scene as a sample with its class and boxes, without masks."""
    instances = tuple(
        Instance(category, box, None, (box[2] - box[0]) * (box[3] - box[1])) for category, box in scene.boxes
    )
    labels = np.zeros(scene.image.shape[:2], np.int16)
    return Sample(sample_id, scene.image, Truth(labels, instances=instances, label=scene.label))


def images_of_reader(
    task: TaskSpec, recipe: Recipe, options: OdisOptions, data_root: Path | None, *, progress: bool
) -> OdisImages:
    """Images of a task's data to train on; `validate_limit` images, evenly spread, are held out for validation.

    Boxes come from the table `options.boxes_file`, or from the reader: its boxes, or those around its masks.

    Raises:
        UsageError: The split has too few images, or the training needs boxes and none are found.
    """
    # ImageNet's reader reads the table itself, because its boxes belong to the class of each image.
    own_table = options.boxes_file is not None and task.data.reader != "imagenet"
    if options.boxes and task.data.reader == "imagenet":
        table = {"boxes_file": options.boxes_file} if options.boxes_file else {}
        reader_options = {**task.data.options, "boxes": "labelled", **table}
        task = task.model_copy(update={"data": task.data.model_copy(update={"options": reader_options})})
    data = open_data(task, data_root=data_root, split=options.split, progress=progress)
    trained, held_out = hold_out(data, options.split, recipe.validate_limit)
    boxes = None
    if options.boxes:
        boxes = _table_boxes(Path(str(options.boxes_file)), trained, options.split) if own_table else boxes_of
        _check_boxes(trained, boxes)
    bank = spread(trained, options.bank)
    origin = f"{options.boxes_file}" if options.boxes_file else "the data"
    note = f"{len(trained)} images of task {task.name}, {options.split} split, {data.kind} {data.revision}"
    note += f", boxes of {origin}" if options.boxes else ""
    return OdisImages(BoxedReader(trained, boxes), bank.reader, held_out.reader, note)  # type: ignore[arg-type]


def _table_boxes(path: Path, data: OpenData, split: str) -> Boxes:
    """Boxes of a table, for a reader that does not read tables itself."""
    table = open_table(path, split, data.ids, np.zeros(len(data), np.int16), {})

    def boxes(index: int, sample: Sample) -> np.ndarray:
        return _as_rows([instance.box for instance in table.read(index, sample.id, 0, sample.image.shape[:2])])

    return boxes


def _check_boxes(data: OpenData, boxes: Boxes) -> None:
    """Raise UsageError if no image of a sample has a box: the training would silently be one without boxes."""
    count = min(CHECKED_IMAGES, len(data))
    positions = (number * len(data) // count for number in range(count))
    if not any(len(boxes(position, data.reader[position])) for position in positions):
        raise UsageError(
            f"{data.root}: none of {count} images has a box; give --set objective.boxes_file=FILE, or a model "
            "that needs none (ibot)"
        )

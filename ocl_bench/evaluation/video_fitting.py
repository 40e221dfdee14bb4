"""The videos of a fit split with their predictions, which are kept until the head is there: a killed fit resumes.

<cache>/heads/<first two of the key>/<key>.videos/00012.safetensors     the prediction of video 12 of the split
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..core.errors import NotApplicableError, OclBenchError, UsageError
from ..core.log import logger, progress_bar
from ..core.types import Prediction, Truth
from ..results.record import Failure
from .reading import make_item
from .sealed import read_sealed, write_sealed
from .video_loop import VideoRunner

if TYPE_CHECKING:
    from .plan import Plan

_FIELDS = ("masks", "slots")
"""Fields that are kept of each frame, where the adapter of the task needs them."""


def video_predictions(
    plan: Plan, left_out: list[int], kept: Path | None
) -> Iterator[tuple[Sequence[Truth], Prediction]]:
    """The truths of all frames of each video, and their prediction as if they were images.

    Videos that cannot be read or predicted are left out, and a warning says how many.

    Args:
        plan: whose data are the fit split; the first noise seed is used.
        left_out: gets the positions in `plan.data.ids` of the videos that are left out.
        kept: folder in which predictions are kept; None keeps none.

    Raises:
        UsageError: when more than a tenth of the videos are left out.
    """
    runner, ids = VideoRunner(plan), plan.data.ids
    count, failed = len(ids), list[Failure]()
    name = plan.model.name
    logger.info("%s: %d videos of the fit split are predicted once, then probes are fitted", name, count)
    with progress_bar(f"{name}: videos to fit the head on", count, True, "videos") as advance:
        for position in range(count):
            try:
                predicted = _predicted(runner, position, plan.noise_seeds[0], kept)
            except NotApplicableError:
                raise  # of the model, and so of every video
            except OclBenchError as error:
                failed.append(Failure(id=ids[position], error=str(error)))
                left_out.append(position)
                if len(failed) > count / 10:
                    share = f"{len(failed)} of {count} videos of the fit split fail, first: {failed[0].error}"
                    raise UsageError(share) from error
            else:
                yield predicted
            advance(1)
    if failed:
        logger.warning("left out: %d of %d videos of the fit split, first: %s", len(failed), count, failed[0].error)


def _predicted(runner: VideoRunner, position: int, seed: int, kept: Path | None) -> tuple[list[Truth], Prediction]:
    """One video with the prediction of its frames, read from the disk where it is there."""
    video = runner.video(position, fitting=True)
    path = None if kept is None else kept / f"{position:05d}.safetensors"
    if path is not None and (prediction := _read(path, len(video))) is not None:
        items = (make_item(frame, runner.plan.task.protocol, runner.input_size) for frame in video.frames)
        return [item.truth for item in items], prediction
    truth: list[Truth] = []
    parts: list[Prediction] = []
    for _, items_of_clip, prediction in runner.predicted(video, seed):
        truth += [item.truth for item in items_of_clip]
        parts.append(prediction)
    prediction = Prediction(masks=_joined(parts, "masks"), slots=_joined(parts, "slots"))
    if path is not None:
        _write(path, prediction)
    return truth, prediction


def _joined(parts: Sequence[Prediction], field: str) -> Tensor | None:
    """A field of all clips, with as many slots as any of them has: the others get empty ones. None where it is None."""
    if getattr(parts[0], field) is None:
        return None
    tensors = [getattr(part, field).detach().cpu() for part in parts]
    if not tensors[0].is_floating_point():
        return torch.cat(tensors)
    most = max(tensor.shape[1] for tensor in tensors)
    return torch.cat(
        [torch.cat([one, one.new_zeros(len(one), most - one.shape[1], *one.shape[2:])], dim=1) for one in tensors]
    )


def _read(path: Path, frames: int) -> Prediction | None:
    """A kept prediction of that many frames; None when it is missing, damaged, or that of another fit or video."""
    tensors = read_sealed(path, _key(path))
    if not tensors or not set(tensors) <= set(_FIELDS) or any(len(tensor) != frames for tensor in tensors.values()):
        return None
    return Prediction(masks=tensors.get("masks"), slots=tensors.get("slots"))


def _write(path: Path, prediction: Prediction) -> None:
    """Keep a prediction. Raises UsageError when the cache cannot be written."""
    tensors = {field: getattr(prediction, field) for field in _FIELDS}
    there = {field: tensor.contiguous() for field, tensor in tensors.items() if tensor is not None}
    write_sealed(path, _key(path), there)


def _key(path: Path) -> str:
    """The fit and the video that a kept prediction is of."""
    return f"{path.parent.name}/{path.name}"

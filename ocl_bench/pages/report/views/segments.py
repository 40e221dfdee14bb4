"""Images and videos with segments: the kind of mistake of each pixel, and for each object its best overlap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ....core.types import Sample, Video
from ....data.transforms import prepare
from ....families.files import prediction_path
from ....metrics import contingency
from ....metrics.mistakes import mistakes
from ..encode import fitted, map_of, truth_map
from .base import Saved, Shown, compact, names_of, pixels_and_truth, saved_map, scored_clip, segments_part

SHOWN_FRAMES = 12
"""Most frames of a video on the page, evenly spread."""


@dataclass(frozen=True)
class Masks(Shown):
    """Images with segments."""

    def scene(self, sample: Sample) -> dict[str, Any]:
        """The image and its objects."""
        image, shape, truth = pixels_and_truth(sample, self.task)
        return {
            "size": shape,
            "image": image,
            "truth": truth_map(truth.labels, shape),
            "names": names_of(truth, self.data),
        }

    def answer(self, sample: Sample, saved: Saved) -> dict[str, Any]:
        """The segments, whose they are, and what is wrong with each pixel."""
        segments = saved_map(prediction_path(saved.folder, sample.id, saved.seed), sample, self.task)
        truth = prepare(sample, self.task.protocol, 8)[1]  # 8: side of the image, which is not used
        ids, codes = compact(segments)
        table = contingency(truth.labels[None], codes[None], ignore_index=None).table[0]
        found = mistakes(table, self.task.protocol.background)
        saved.count(sample.id, found, ids)
        shape = fitted(truth.labels.shape)
        return {"map": map_of(codes, shape), **segments_part(found, ids, table)}


@dataclass(frozen=True)
class Frames(Shown):
    """Videos with segments whose ids are shared over time. Of long videos, some frames are shown and compared."""

    def scene(self, video: Video) -> dict[str, Any]:
        """Some frames with their objects."""
        (video, seen), frames = scored_clip(self.task, self.data, video), []
        for number in self._shown(video):
            image, shape, truth = pixels_and_truth(video.frames[number], self.task)
            name = video.names[number] if number < seen else f"{video.names[number]} (predicted)"
            frames.append({"name": name, "image": image, "truth": truth_map(truth.labels, shape)})
        names = names_of(video.frames[0].truth, self.data)
        return {"size": shape, "frames": frames, "count": len(video), "names": names}

    def answer(self, video: Video, saved: Saved) -> dict[str, Any]:
        """The segments of these frames."""
        video, _ = scored_clip(self.task, self.data, video)
        numbers = self._shown(video)
        samples = [video.frames[number] for number in numbers]
        paths = [prediction_path(saved.folder, f"{video.id}/{video.names[number]}", saved.seed) for number in numbers]
        segments = np.stack([saved_map(path, sample, self.task) for path, sample in zip(paths, samples, strict=True)])
        truth = np.stack([prepare(sample, self.task.protocol, 8)[1].labels for sample in samples])
        ids, codes = compact(segments)
        table = contingency(truth[None], codes[None], ignore_index=None).table[0]
        found = mistakes(table, self.task.protocol.background)
        saved.count(video.id, found, ids)
        shape = fitted(truth.shape[1:])
        return {"maps": [map_of(frame, shape) for frame in codes], **segments_part(found, ids, table)}

    def _shown(self, video: Video) -> list[int]:
        """Numbers of the frames that are shown."""
        count = min(len(video), SHOWN_FRAMES)
        return sorted({round(position) for position in np.linspace(0, len(video) - 1, count)})

"""CLEVRER (Yi et al., ICLR 2020, arXiv:1910.01442), below <data root>/CLEVRER or the data root itself.

    questions/<split>.json, or validation.json, for `content: questions`
    videos/<split>/video_10000-11000/video_10000/000000.png    frames as pictures, for `content: frames`
    annotations/<split>/annotation_10000-11000/annotation_10000.json
    derender_proposals/proposal_10000.json, or sim_10000.json  masks of objects
    propnet_preds/sim_10000.json                               what happens and what would happen, for the `executor`
    stand-in.json                                              timing of videos that are shorter than the official ones

Options of a card: `content`. `questions` gives one sample without pixels for each video, with the questions in its
truth. `frames` gives videos; the masks are proposals of a network, as in SlotFormer, and exact ones in the stand-in. An
object is told by its colour, material and shape, which no other object of the video has. Where it lies and what it has
touched are known if the annotations are there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pycocotools import mask as rle
from pydantic import BaseModel, ConfigDict

from ...core.errors import DataMissingError, SampleError
from ...core.files import parse_json, read_text
from ...core.numbers import counted
from ...core.questions import Question
from ...core.types import OVERLAP, Sample, Truth, Video
from ..base import OpenData, Request, SampleSequence
from ..clevrer.annotations import Annotation, annotation_of, read_annotation, read_timing
from ..clevrer.facts import Thing
from ..clevrer.questions import read_questions, video_name, video_number
from ..clevrer.simulations import OFFICIAL_FRAMES, read_facts, simulation_name
from ..images import read_image
from ..index import Manifest, take_manifest
from ..options import check_split, parse_options
from ..stand_ins.layouts import ensure_layout
from .frames import files_below, lazy_video, list_files
from .places import find_root, usual_places

_FRAMES = (".png", ".jpg", ".jpeg")
_REMEDY = "extract or download the video again"
_NO_PIXELS = 8
"""Side of the black image of a sample that has questions only."""

_BROKEN = {10_800: "its official annotation is broken"}
"""Videos that are left out, as in SlotFormer."""

_FILES = {"train": ("train.json",), "val": ("val.json", "validation.json")}


class ClevrerOptions(BaseModel):
    """The options of the card, validated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    content: Literal["questions", "frames"]


def open_clevrer(request: Request) -> OpenData:
    """Open one split. Raises UsageError for an option or a split, DataMissingError when the data is not there."""
    options = parse_options(ClevrerOptions, request)
    check_split(request, "CLEVRER", tuple(_FILES))
    tree = ensure_layout(request, "clevrer") if request.root is None else None
    places = (tree.root,) if tree is not None else usual_places(request)
    reader: QuestionReader | FrameReader
    limit = request.limit if tree is None else None
    if options.content == "questions":
        reader = QuestionReader.open(_find_questions(places, request), limit)
    else:
        reader = FrameReader.open(_find(places, request, f"videos/{request.split}"), request.split, limit)
    timing = read_timing(reader.root)
    if tree is not None:
        return OpenData(reader, "embedded", tree.revision, tree.root, reader.ids, tree.note, timing=timing)
    note = f"data: CLEVRER {request.split} ({options.content}), {counted(len(reader), 'video')} of {reader.root}"
    revision = f"official-{reader.manifest.content}"
    return OpenData(reader, "official", revision, reader.root, reader.ids, note, timing=timing)


def _find(places: tuple[Path, ...], request: Request, wanted: str) -> Path:
    """The folder of CLEVRER that holds `wanted`."""
    candidates = [folder for place in places for folder in (place / "CLEVRER", place)]
    return find_root(request, candidates, lambda place: (place / wanted).exists(), f"{wanted} (CLEVRER)")


def _find_questions(places: tuple[Path, ...], request: Request) -> Path:
    """The file of questions of the split: in `questions/`, or in the folder itself."""
    for name in _FILES[request.split]:
        for folder in ("questions", ""):
            for place in places:
                for root in (place / "CLEVRER", place):
                    if (root / folder / name).is_file():
                        return root / folder / name
    names = " or ".join(f"questions/{name}" for name in _FILES[request.split])
    looked = ", ".join(str(place) for place in places)
    raise DataMissingError(f"task '{request.task.name}': no {names}; looked in {looked}; get it: {request.data.get}")


@dataclass(frozen=True)
class QuestionReader(SampleSequence[Sample]):
    """The videos of a file of questions, without their pixels."""

    path: Path
    ids: tuple[str, ...]
    questions: Mapping[int, tuple[Question, ...]]

    @classmethod
    def open(cls, path: Path, limit: int | None) -> QuestionReader:
        """Read the file and keep its first `limit` videos. Raises what `read_questions` raises."""
        questions = read_questions(path)
        return cls(path, tuple(video_name(number) for number in list(questions)[:limit]), questions)

    @property
    def root(self) -> Path:
        """The folder of the file."""
        return self.path.parent

    @cached_property
    def manifest(self) -> Manifest:
        """The file."""
        return take_manifest(self.root, (), (self.path.name,))

    def __getitem__(self, index: int) -> Sample:
        """The questions about video `index`, in the truth of a black image."""
        name = self.ids[range(len(self))[index]]
        black = np.zeros((_NO_PIXELS, _NO_PIXELS, 3), np.uint8)
        number = video_number(name)
        file = next((path for base in self._bases if (path := base / simulation_name(number)).is_file()), None)
        facts = partial(read_facts, file, name, self._seen) if file is not None else None
        labels = np.zeros((_NO_PIXELS, _NO_PIXELS), np.int16)
        return Sample(name, black, Truth(labels, questions=self.questions[number], facts=facts))

    @property
    def _bases(self) -> tuple[Path, Path]:
        """The folders that may be CLEVRER's."""
        return self.root.parent, self.root

    @cached_property
    def _seen(self) -> int:
        """Frames of a video before its end."""
        timing = next((found for base in self._bases if (found := read_timing(base))), {})
        return timing.get("seen_frames", OFFICIAL_FRAMES)


@dataclass(frozen=True)
class FrameReader(SampleSequence[Video]):
    """The videos of a split with masks from proposals. Files are read when a video or a frame is asked for."""

    root: Path
    ids: tuple[str, ...]
    folders: Mapping[str, Path]

    @classmethod
    def open(cls, root: Path, split: str, limit: int | None) -> FrameReader:
        """Find the folders of frames of the first `limit` videos. Raises DataMissingError without any."""
        place = root / "videos" / split
        found = {path.name: path.relative_to(root) for path in sorted(place.glob("video_*/video_*")) if path.is_dir()}
        found = {name: path for name, path in found.items() if video_number(name) not in _BROKEN}
        if not found:
            films = next(place.glob("**/*.mp4"), None)
            hint = f"; {films.name} is a film, extract its frames to {films.stem}/000000.png .." if films else ""
            raise DataMissingError(f"{place}: no folder video_*/video_NNNNN with frames{hint}")
        ids = tuple(found)[:limit]
        return cls(root, ids, {name: found[name] for name in ids})

    @cached_property
    def manifest(self) -> Manifest:
        """All frames, the proposals, and the annotations that are there."""
        annotations = [path for folder in self.folders.values() if (path := annotation_of(self.root, folder)).is_file()]
        truth = [*(self._proposals(name) for name in self.ids), *annotations]
        names = [path.relative_to(self.root).as_posix() for path in truth]
        return take_manifest(self.root, files_below(self.root, self.folders.values(), _FRAMES), names)

    def _proposals(self, name: str) -> Path:
        number, place = name.removeprefix("video_"), self.root / "derender_proposals"
        of_nsdr = place / f"sim_{number}.json"
        return of_nsdr if of_nsdr.is_file() else place / f"proposal_{number}.json"

    def __getitem__(self, index: int) -> Video:
        """Video `index`. Raises SampleError for proposals or annotations that are broken or of another length."""
        name = self.ids[range(len(self))[index]]
        files = list_files(self.root / self.folders[name], _FRAMES, name)
        names = sorted(files)
        path = self._proposals(name)
        frames = _frames_of(path, name)
        if set(frames) - set(range(len(names))):
            raise SampleError(name, f"{path}: has frame {max(frames)}, the video has {len(names)} frames; {_REMEDY}")
        things = _things(frames, path, name)
        numbers = {thing: number for number, thing in enumerate(things, start=1)}
        place = annotation_of(self.root, self.folders[name])
        annotation = read_annotation(place, name, things, len(names)) if place.is_file() else None
        read = partial(self._frame, name, files, names, frames, numbers, annotation, path)
        return lazy_video(name, names, read, _REMEDY)

    def _frame(
        self,
        name: str,
        files: Mapping[str, str],
        names: list[str],
        frames: Mapping[int, list[Any]],
        numbers: Mapping[Thing, int],
        annotation: Annotation | None,
        path: Path,
        position: int,
    ) -> Sample:
        """One frame. A frame without proposals (NS-DR has every fifth only) raises SampleError."""
        image = read_image(self.root / self.folders[name] / files[names[position]], name, remedy=_REMEDY)
        if position not in frames:
            raise SampleError(name, f"{path}: has no proposals of frame {position}; {_REMEDY}")
        labels = np.zeros(image.shape[:2], np.int16)
        for entry in frames[position]:
            mask = _mask(entry, image.shape[:2], path, name, position)
            labels[mask] = np.where(labels[mask] > 0, OVERLAP, numbers[_thing(entry, path, name)])
        if annotation is None:
            return Sample(name, image, Truth(labels))
        known = {"locations": annotation.locations[position], "touched": annotation.touched(position)}
        return Sample(name, image, Truth(labels, **known))


def _frames_of(path: Path, name: str) -> dict[int, list[Any]]:
    """Frame -> its proposals."""
    try:
        content = parse_json(read_text(path))
        frames = {int(frame["frame_index"]): frame["objects"] for frame in content["frames"]}
    except OSError as error:
        raise SampleError(name, f"{path}: cannot be read ({error.strerror}); {_REMEDY}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise SampleError(name, f"{path}: is no file of proposals ({type(error).__name__}: {error})") from error
    if not all(isinstance(objects, list) for objects in frames.values()):
        raise SampleError(name, f"{path}: 'objects' of a frame is not a list")
    return frames


def _things(frames: Mapping[int, list[Any]], path: Path, name: str) -> list[Thing]:
    """The objects of a video, sorted by their attributes."""
    found = {_thing(entry, path, name) for objects in frames.values() for entry in objects}
    return sorted(found, key=str)


def _thing(entry: Any, path: Path, name: str) -> Thing:
    try:
        return Thing(str(entry["color"]), str(entry["material"]), str(entry["shape"]))
    except (KeyError, TypeError) as error:
        raise SampleError(name, f"{path}: a proposal has no color, material or shape") from error


def _mask(entry: Any, shape: tuple[int, ...], path: Path, name: str, position: int) -> np.ndarray:
    """A proposal's mask (H, W) bool at the size of the frame, by nearest pixels where the sizes differ."""
    try:
        mask = rle.decode({"size": list(entry["mask"]["size"]), "counts": str(entry["mask"]["counts"]).encode()})
    except Exception as error:  # pycocotools raises whatever the bytes lead to
        raise SampleError(name, f"{path}: frame {position} has a mask that cannot be decoded") from error
    if mask.shape == tuple(shape):
        return np.asarray(mask, dtype=bool)
    rows, columns = ((np.arange(n) * m // n) for n, m in zip(shape, mask.shape, strict=True))
    return np.asarray(mask[rows][:, columns], dtype=bool)

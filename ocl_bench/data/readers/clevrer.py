"""CLEVRER (Yi et al., ICLR 2020, arXiv:1910.01442), below <data root>/CLEVRER or the data root itself.

    questions/<split>.json, or validation.json, for `content: questions`
    videos/<split>/video_10000-11000/video_10000/000000.png    frames as pictures, or films, see `clevrer_videos`
    annotations/<split>/annotation_10000-11000/annotation_10000.json
    derender_proposals/proposal_10000.json, or sim_10000.json  masks of objects
    propnet_preds/sim_10000.json                               what happens and what would happen, for the `executor`
    stand-in.json                                              timing of videos that are shorter than the official ones

Options of a card: `content`. `questions` gives one black sample for each video, with the questions in its truth, and
reads the video for models that need it, without masks. `frames` gives videos; the masks are proposals of a network, as
in SlotFormer, and exact ones in the stand-in. An object is told by its colour, material and shape, which no other
object of the video has. Where it lies and what it has touched are known if the annotations are there.
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
from ..index import Manifest, take_manifest
from ..options import check_split, parse_options
from ..stand_ins.layouts import ensure_layout
from .clevrer_videos import BROKEN, FILM, FRAMES, REMEDY, Footage, asked_video, find_videos, open_footage
from .frames import files_below, lazy_video
from .places import find_root, usual_places

_NO_PIXELS = 8
"""Side of the black image of a sample that has questions only."""

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
        reader = QuestionReader.open(_find_questions(places, request), request.split, limit)
    else:
        reader = FrameReader.open(_find(places, request, f"videos/{request.split}"), request.split, limit)
    if tree is not None:
        return OpenData(reader, "embedded", tree.revision, tree.root, reader.ids, tree.note, timing=reader.timing)
    note = f"data: CLEVRER {request.split} ({options.content}), {counted(len(reader), 'video')} of {reader.root}"
    revision = f"official-{reader.manifest.content}"
    return OpenData(reader, "official", revision, reader.root, reader.ids, note, timing=reader.timing)


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
    """The videos of a file of questions; their frames are read when they are asked for."""

    path: Path
    split: str
    ids: tuple[str, ...]
    questions: Mapping[int, tuple[Question, ...]]

    @classmethod
    def open(cls, path: Path, split: str, limit: int | None) -> QuestionReader:
        """Read the file and keep its first `limit` videos. Raises what `read_questions` raises."""
        questions = read_questions(path)
        return cls(path, split, tuple(video_name(number) for number in list(questions)[:limit]), questions)

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
        truth = Truth(labels, questions=self.questions[number], facts=facts)
        return Sample(name, black, truth, partial(self._video, name, truth))

    def _video(self, name: str, truth: Truth) -> Video:
        """The frames of a video, without masks. Raises what `asked_video` raises."""
        root = next((base for base in self._bases if (base / "videos" / self.split).is_dir()), None)
        if root is None:
            looked = " or ".join(str(base / "videos" / self.split) for base in self._bases)
            remedy = "slots need the videos: get them from clevrer.csail.mit.edu, see docs/clevrer.md"
            raise DataMissingError(f"no folder of videos: {looked}", remedy)
        return asked_video(root, self.split, name, truth)

    @property
    def _bases(self) -> tuple[Path, Path]:
        """The folders that may be CLEVRER's."""
        return self.root.parent, self.root

    @cached_property
    def timing(self) -> dict[str, int]:
        """As `read_timing` says."""
        return next((found for base in self._bases if (found := read_timing(base))), {})

    @property
    def _seen(self) -> int:
        """Frames of a video before its end."""
        return self.timing.get("seen_frames", OFFICIAL_FRAMES)


@dataclass(frozen=True)
class FrameReader(SampleSequence[Video]):
    """The videos of a split with masks from proposals. Files are read when a video or a frame is asked for.

    places: name of each video -> its folder of frames or its film, relative to the root.
    """

    root: Path
    ids: tuple[str, ...]
    places: Mapping[str, Path]

    @classmethod
    def open(cls, root: Path, split: str, limit: int | None) -> FrameReader:
        """Find the frames of the first `limit` videos. Raises DataMissingError without any."""
        found = {name: path for name, path in find_videos(root, split).items() if video_number(name) not in BROKEN}
        if not found:
            place = root / "videos" / split
            raise DataMissingError(f"{place}: no folder video_*/video_NNNNN with frames, and no film video_NNNNN.mp4")
        ids = tuple(found)[:limit]
        return cls(root, ids, {name: found[name] for name in ids})

    @cached_property
    def manifest(self) -> Manifest:
        """All frames, the proposals, and the annotations that are there."""
        annotations = [path for place in self.places.values() if (path := annotation_of(self.root, place)).is_file()]
        truth = [*(self._proposals(name) for name in self.ids), *annotations]
        names = [path.relative_to(self.root).as_posix() for path in truth]
        films = [place.as_posix() for place in self.places.values() if place.suffix.lower() == FILM]
        return take_manifest(self.root, [*files_below(self.root, self.places.values(), FRAMES), *films], names)

    @property
    def timing(self) -> dict[str, int]:
        """As `read_timing` says."""
        return read_timing(self.root)

    def _proposals(self, name: str) -> Path:
        number, place = name.removeprefix("video_"), self.root / "derender_proposals"
        of_nsdr = place / f"sim_{number}.json"
        return of_nsdr if of_nsdr.is_file() else place / f"proposal_{number}.json"

    def __getitem__(self, index: int) -> Video:
        """Video `index`. Raises SampleError for proposals or annotations that are broken or of another length."""
        name = self.ids[range(len(self))[index]]
        footage = open_footage(self.root / self.places[name], name)
        names, path = footage.names, self._proposals(name)
        frames = _frames_of(path, name)
        if set(frames) - set(range(len(names))):
            raise SampleError(name, f"{path}: has frame {max(frames)}, the video has {len(names)} frames; {REMEDY}")
        things = _things(frames, path, name)
        numbers = {thing: number for number, thing in enumerate(things, start=1)}
        place = annotation_of(self.root, self.places[name])
        annotation = read_annotation(place, name, things, len(names)) if place.is_file() else None
        read = partial(self._frame, name, footage, frames, numbers, annotation, path)
        return lazy_video(name, names, read, REMEDY)

    def _frame(
        self,
        name: str,
        footage: Footage,
        frames: Mapping[int, list[Any]],
        numbers: Mapping[Thing, int],
        annotation: Annotation | None,
        path: Path,
        position: int,
    ) -> Sample:
        """One frame. A frame without proposals (NS-DR has every fifth only) raises SampleError."""
        image = footage.image(position)
        if position not in frames:
            raise SampleError(name, f"{path}: has no proposals of frame {position}; {REMEDY}")
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
        raise SampleError(name, f"{path}: cannot be read ({error.strerror}); {REMEDY}") from error
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

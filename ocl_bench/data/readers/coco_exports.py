"""Annotations of anybody's images in COCO's JSON, as annotation programs export them: `annotations: instances` only.

    Roboflow   {train,valid,test}/_annotations.coco.json, images beside it
    CVAT       annotations/instances_{default,Train,Validation,..}.json, images/ or a folder of that name in it
    FiftyOne   labels.json, data/
    LabelMe    annotations.json, whose file names begin with JPEGImages/ (labelme2coco)

Roboflow has splits, and CVAT may have subsets; the others are the split of the card.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...core.errors import DataMissingError
from ...core.numbers import counted
from ..base import OpenData, Request
from ..options import parse_options
from .coco import CocoOptions, CocoReader
from .places import first_folder, usual_places


@dataclass(frozen=True)
class Export:
    """The export of one program.

    Attributes:
        program: its name.
        places: split, or '' for any -> annotation file and folder of the images below the root, in the order of
            preference.
    """

    program: str
    places: dict[str, tuple[tuple[str, str], ...]]

    def find(self, request: Request) -> Path | None:
        """The folder of the export, None without it and for a split that it does not have."""
        if parse_options(CocoOptions, request).annotations != "instances":
            return None
        return first_folder(reversed(usual_places(request)), lambda place: self._place(place, request) is not None)

    def check(self, request: Request) -> None:
        """Raise DataMissingError when an annotation file lies there without its images, as CVAT exports by default."""
        for root in reversed(usual_places(request)):
            for table, folder in self._places(request):
                if (root / table).is_file() and not (root / folder).is_dir():
                    text = f"export of {self.program} without images, there is no folder {folder}"
                    raise DataMissingError(f"{root / table}: {text}; export it with them, or put them there")

    def open(self, request: Request, root: Path) -> OpenData:
        """Open the export. Raises UsageError and DataMissingError as `open_coco` does."""
        place = self._place(root, request)
        assert place is not None
        options = parse_options(CocoOptions, request)
        reader = CocoReader.open_table(root, *place, request.split, options, request.limit)
        note = (
            f"data: export of {self.program} in COCO's JSON, {counted(len(reader), 'image')} of {root}{reader.remark}"
        )
        revision = f"supplied-{reader.manifest.content}{'-by-id' if reader.image_ids else ''}"
        return OpenData(reader, "supplied", revision, root, reader.ids, note, reader.categories, reader.image_ids)

    def _place(self, root: Path, request: Request) -> tuple[Path, Path] | None:
        """The annotation file and the folder of the images of a split."""
        found = ((root / table, root / folder) for table, folder in self._places(request))
        return next((place for place in found if place[0].is_file() and place[1].is_dir()), None)

    def _places(self, request: Request) -> tuple[tuple[str, str], ...]:
        """Where a split may be: those of `places`, and those for any split if it is that of the card."""
        places = self.places.get(request.split, ())
        return places + self.places.get("", ()) if request.split == request.data.split else places


def _roboflow(name: str) -> tuple[tuple[str, str], ...]:
    return ((f"{name}/_annotations.coco.json", name),)


def _cvat(*subsets: str) -> tuple[tuple[str, str], ...]:
    ends = ((subset, end) for subset in subsets for end in (f"/{subset}", ""))
    return tuple((f"annotations/instances_{subset}.json", f"images{end}") for subset, end in ends)


EXPORTS = (
    Export("Roboflow", {"train": _roboflow("train"), "val": _roboflow("valid"), "test": _roboflow("test")}),
    Export(
        "CVAT",
        {
            "train": _cvat("train", "Train"),
            "val": _cvat("val", "Val", "validation", "Validation"),
            "test": _cvat("test", "Test"),
            "": _cvat("default"),
        },
    ),
    Export("FiftyOne", {"": (("labels.json", "data"),)}),
    Export("LabelMe", {"": (("annotations.json", "."),)}),
)

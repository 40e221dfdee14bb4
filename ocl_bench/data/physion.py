"""Physion's layout: where the videos and labels of a split lie, and what a label says.

A file of labels has a column without a name, the name of the video, and the column `ground truth outcome`, whether the
red and the yellow object touch: `True` or `False`. (bool("False") is True: a loader in use makes every label so.)
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import DataMissingError, UsageError
from ..core.files import read_text

SCENARIOS = ("Collide", "Contain", "Dominoes", "Drape", "Drop", "Link", "Roll", "Support")
OUTCOME = "ground truth outcome"
_OUTCOMES = {"True": True, "False": False}


@dataclass(frozen=True)
class SplitPlace:
    """Where a split lies.

    Attributes:
        labels: the file of labels.
        videos: folder of the videos of a scenario.
        marks: parts of a video's name that its name among the labels lacks; the first ones of the stand-in.
    """

    labels: str
    videos: str
    marks: tuple[str, ...]

    def folder(self, scenario: str) -> str:
        """The folder of the videos of a scenario."""
        return self.videos.format(scenario)

    def label_of(self, name: str) -> str:
        """The name of a video among the labels."""
        for mark in self.marks:
            name = name.replace(mark, "")
        return name


PLACES = {
    "test": SplitPlace("PhysionTestMP4s/labels.csv", "PhysionTestMP4s/{}/mp4s-redyellow", ("-redyellow",)),
    "readout": SplitPlace("PhysionTrainMP4s/readout_labels.csv", "PhysionTrainMP4s/{}_readout_MP4s", ("", "_img")),
}
"""The splits with labels. The dynamics split of Physion has none."""


def read_labels(path: Path) -> Mapping[str, bool]:
    """Name of a video -> whether the two objects touch.

    Raises:
        DataMissingError: the file cannot be read.
        UsageError: a column is missing, an outcome is neither True nor False, or a video occurs twice.
    """
    try:
        rows = list(csv.reader(read_text(path).splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataMissingError(f"{path}: labels cannot be read ({error})", "download Physion again") from error
    header = rows[0] if rows else []
    if "" not in header or OUTCOME not in header:
        raise UsageError(f"{path}: has no columns '' and '{OUTCOME}'", "download Physion again")
    name, outcome = header.index(""), header.index(OUTCOME)
    found: dict[str, bool] = {}
    for line, row in enumerate(rows[1:], start=2):
        if len(row) != len(header) or row[outcome] not in _OUTCOMES:
            raise UsageError(f"{path}, line {line}: the outcome is neither True nor False", "download Physion again")
        if row[name] in found:
            raise UsageError(f"{path}, line {line}: {row[name]} occurs twice", "download Physion again")
        found[row[name]] = _OUTCOMES[row[outcome]]
    return found

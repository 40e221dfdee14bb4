"""The editions of YouTube-VIS and OVIS: where each keeps its tables and frames, and how its categories are numbered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

Place = tuple[str, str]
"""Annotation file and folder of the frames, relative to the root."""


@dataclass(frozen=True)
class Edition:
    """One edition.

    Attributes:
        name: what messages call it.
        splits: split -> its places, in the order in which they are tried.
        person: id of the category person, which tells editions apart.
        categories: the edition that introduced this numbering, for messages.
    """

    name: str
    splits: dict[str, tuple[Place, ...]]
    person: int
    categories: str

    def find(self, root: Path, split: str) -> tuple[Path, Path] | None:
        """The annotation file and the folder of the frames of a split below `root`; None without such a file.

        Several editions may lie in one folder: the place that is usual for this one is tried first.
        """
        found = [(root / table, root / frames) for table, frames in self.splits[split] if (root / table).is_file()]
        return next((place for place in found if place[1].is_dir()), found[0] if found else None)


_NEW, _OLD = ("train/instances.json", "train/JPEGImages"), ("train.json", "train/JPEGImages")


def _hq(split: str) -> tuple[Place, ...]:
    """Tables beside the frames (Genera1Z) or in `annotations` (VMT); frames of all splits are those of 2019's train."""
    table, folders = f"ytvis_hq-{split}.json", ("JPEGImages", "train/JPEGImages")
    return tuple((place, frames) for place in (table, f"annotations/{table}") for frames in folders)


EDITIONS: dict[int | str, Edition] = {
    2019: Edition("YouTube-VIS 2019", {"train": (_OLD, _NEW), "validation": (_OLD, _NEW)}, 1, "YouTube-VIS 2019"),
    2021: Edition("YouTube-VIS 2021", {"train": (_NEW, _OLD), "validation": (_NEW, _OLD)}, 26, "YouTube-VIS 2021"),
    2022: Edition(
        "YouTube-VIS 2022",
        {
            "train": (_NEW,),
            "val": (("valid/gt.json", "valid/JPEGImages"),),
            "test": (("test/test_gt.json", "test/JPEGImages"),),
        },
        26,
        "YouTube-VIS 2021",
    ),
    "hq": Edition("HQ-YTVIS", {split: _hq(split) for split in ("train", "val", "test")}, 1, "YouTube-VIS 2019"),
}
"""By `data.options.year`. In 2019 and 2021 only the training set has annotations, and validation is its end."""

OVIS = Edition(
    "OVIS",
    {"train": (("annotations_train.json", "train"), ("annotations_train.json", "Images"))},
    1,
    "OVIS",
)
"""Occluded Video Instance Segmentation (Qi et al. 2022, arXiv:2102.01558); only train has public annotations."""

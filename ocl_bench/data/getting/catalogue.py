"""The data sets that `ocl-bench data` knows: archives, sizes, terms, and the official layout that they unpack to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...cards.task import TaskSpec
from ...core.errors import DataMissingError, UsageError
from ...core.optional import import_optional


@dataclass(frozen=True)
class Archive:
    """A file to download.

    Attributes:
        url: where it is.
        bytes: its size as published, rounded; what is unpacked may be three times as large.
        into: folder below the data root in which it is unpacked, or to which it belongs.
        known_hash: `md5:..` or `sha256:..` of the publisher, None where there is none.
        inner: archives in it, below `into`, that are unpacked in their own folders.
        packed: False for a plain file.
    """

    url: str
    bytes: int
    into: str
    known_hash: str | None = None
    inner: tuple[str, ...] = ()
    packed: bool = True

    @property
    def name(self) -> str:
        """The name of the file."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class DataSet:
    """A data set.

    Attributes:
        name: as the command line calls it.
        folder: its folder below a data root, which `link` makes.
        terms: licence, and what using the data means.
        serves: whether a task reads it.
        archives: what to download; empty where people have to do it by hand, as `steps` says.
        listing: makes further archives when asked, from the list of a server.
        steps: lines that say how to get it by hand.
        note: what is not certain about the entry.
    """

    name: str
    folder: str
    terms: str
    serves: Callable[[TaskSpec], bool]
    archives: tuple[Archive, ...] = ()
    listing: Callable[[], tuple[Archive, ...]] | None = None
    steps: tuple[str, ...] = ()
    note: str = ""

    def files(self) -> tuple[Archive, ...]:
        """What to download. Raises DataMissingError with the steps where it cannot be downloaded."""
        if self.listing is not None:
            return self.listing()
        if not self.archives:
            lines = "; ".join(f"{number}. {step}" for number, step in enumerate(self.steps, start=1))
            raise DataMissingError(f"{self.name} is not given out without a login or a form: {lines}")
        return self.archives


def find_data_set(name: str) -> DataSet:
    """The data set of a name. Raises UsageError with the known names."""
    if name not in DATA_SETS:
        raise UsageError(f"'{name}' is no data set that can be got; known are {', '.join(DATA_SETS)}")
    return DATA_SETS[name]


def _reads(reader: str, **wanted: Any) -> Callable[[TaskSpec], bool]:
    """Whether a task has this reader, and options or a variant of these values."""

    def serves(task: TaskSpec) -> bool:
        values = {"variant": task.data.variant, **task.data.options}
        return task.data.reader == reader and all(values.get(key) == value for key, value in wanted.items())

    return serves


GB = 10**9
_BUCKET = "https://storage.googleapis.com"
_COCO = "http://images.cocodataset.org"
_VOC = "http://host.robots.ox.ac.uk/pascal/VOC"
_CLEVRTEX = "https://thor.robots.ox.ac.uk/datasets/clevrtex"


def movi_files(dataset: str, server: str = _BUCKET) -> tuple[Archive, ...]:
    """The files of MOVi in Google's bucket, each with its MD5. Raises DataMissingError when the list cannot be read."""
    import base64

    requests = import_optional("requests", "download", "downloading")
    prefix = f"tfds/{dataset}/128x128/1.0.0/"
    query = {"prefix": prefix, "fields": "items(name,size,md5Hash),nextPageToken"}
    items: list[dict[str, str]] = []
    try:
        while True:
            answer = requests.get(f"{server}/storage/v1/b/kubric-public/o", params=query, timeout=60)
            answer.raise_for_status()
            page = answer.json()
            items += page.get("items", [])
            if "nextPageToken" not in page:
                break
            query["pageToken"] = page["nextPageToken"]
        return tuple(
            Archive(
                f"{server}/kubric-public/{item['name']}",
                int(item["size"]),
                f"{dataset}/128x128/1.0.0",
                f"md5:{base64.b64decode(item['md5Hash']).hex()}",
                packed=False,
            )
            for item in items
            if "/" not in item["name"].removeprefix(prefix) and "-train." not in item["name"]
        )
    except (requests.RequestException, ValueError, KeyError, AttributeError) as error:
        raise DataMissingError(f"{server}: the list of {dataset} cannot be read ({type(error).__name__})") from error


def _movi(letter: str) -> DataSet:
    name = f"movi_{letter}"
    terms = "Kubric: Apache 2.0; its assets have licences of their own. Without the training videos"
    serves = _reads("movi", dataset=name)
    return DataSet(name, name, terms, serves, listing=lambda: movi_files(name))


def _clevrtex(variant: str, parts: int, size: float) -> DataSet:
    names = [f"clevrtex_{variant}_part{k}" for k in range(1, parts + 1)] if parts > 1 else [f"clevrtex_{variant}"]
    archives = tuple(Archive(f"{_CLEVRTEX}/{name}.tar.gz", int(size * GB), "") for name in names)
    note = "addresses from memory: if one is gone, see https://www.robots.ox.ac.uk/~vgg/data/clevrtex"
    serves = _reads("clevrtex", variant=variant)
    return DataSet(f"clevrtex_{variant}", f"clevrtex_{variant}", "see its page", serves, archives, note=note)


_ALL = (
    _clevrtex("full", 5, 4.7),
    _clevrtex("outd", 1, 5.3),
    _clevrtex("camo", 1, 5.0),
    DataSet(
        "coco",
        "coco",
        "annotations CC BY 4.0; the images stay under the terms of their Flickr owners",
        _reads("coco"),
        (
            Archive(f"{_COCO}/zips/val2017.zip", 815_585_330, "coco"),
            Archive(f"{_COCO}/annotations/annotations_trainval2017.zip", 252_907_541, "coco"),
            Archive(
                f"{_COCO}/annotations/panoptic_annotations_trainval2017.zip",
                int(0.82 * GB),
                "coco",
                inner=("annotations/panoptic_train2017.zip", "annotations/panoptic_val2017.zip"),
            ),
            Archive(f"{_COCO}/zips/train2017.zip", int(19.3 * GB), "coco"),
        ),
        note="sizes from memory; stuff-thing maps: https://github.com/nightrome/cocostuff",
    ),
    DataSet(
        "voc",
        "VOCdevkit",
        "images under the Flickr terms of use; no licence of their own for the annotations",
        _reads("voc"),
        (
            Archive(f"{_VOC}/voc2012/VOCtrainval_11-May-2012.tar", int(2.0 * GB), ""),
            Archive(f"{_VOC}/voc2007/VOCtrainval_06-Nov-2007.tar", int(0.46 * GB), ""),
        ),
        note="without SBD (split trainaug)",
    ),
    DataSet(
        "ade20k",
        "ADEChallengeData2016",
        "images for non-commercial research and education only; annotations BSD 3",
        _reads("ade20k"),
        (Archive("http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip", int(0.97 * GB), ""),),
    ),
    DataSet(
        "davis",
        "DAVIS",
        "see the terms at davischallenge.org",
        _reads("davis"),
        (
            Archive(
                "https://data.vision.ee.ethz.ch/csergi/share/davis/DAVIS-2017-Unsupervised-trainval-480p.zip",
                int(0.83 * GB),
                "",
            ),
        ),
    ),
    *(_movi(letter) for letter in "abcde"),
    DataSet(
        "imagenet",
        "imagenet",
        "non-commercial research and education only",
        _reads("imagenet"),
        steps=(
            "register at https://image-net.org and accept the terms",
            "download ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz",
            "unpack the first into <root>/imagenet/train, and each of its 1000 archives into a folder of its name",
            "unpack the second into <root>/imagenet/val, the third into <root>/imagenet",
        ),
    ),
    DataSet(
        "cityscapes",
        "cityscapes",
        "non-commercial research only",
        _reads("cityscapes"),
        steps=(
            "register at https://www.cityscapes-dataset.com with an address of an institution",
            "download gtFine_trainvaltest.zip and leftImg8bit_trainvaltest.zip",
            "unpack both into <root>/cityscapes",
        ),
    ),
    DataSet(
        "ytvis2021",
        "ytvis2021",
        "annotations CC BY 4.0, for research; the videos stay with their owners",
        _reads("ytvis", year=2021),
        steps=(
            "sign in at https://youtube-vos.org/dataset/vis/ and choose the 2021 version",
            "download train.zip",
            "unpack it into <root>/ytvis2021, so that <root>/ytvis2021/train/instances.json is there",
        ),
    ),
    DataSet(
        "ovis",
        "ovis",
        "for research, see its page; the videos stay with their owners",
        _reads("ovis"),
        steps=(
            "see https://songbai.site/ovis/ for the links",
            "download train.zip and annotations_train.json",
            "unpack the first into <root>/ovis and put the second beside it",
        ),
    ),
)

DATA_SETS: dict[str, DataSet] = {one.name: one for one in _ALL}
"""By name."""

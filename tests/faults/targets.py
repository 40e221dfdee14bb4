"""Small valid inputs of every kind that the suite reads, and the command that reads them.

Each target writes what a command is given into a folder, and names the files that may be damaged.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import yaml
from layout_trees import (
    annotation,
    compressed,
    filled,
    save_image,
    save_palette,
    square,
    uncompressed,
    write_ade20k,
    write_cityscapes,
    write_clevrtex,
    write_coco,
    write_sbd,
    write_voc,
)
from places import ROOT
from sandbox import cli
from video_layout_trees import track, write_davis, write_movi, write_ytvis

SHAPE = (24, 32)
LABELS = filled((2, 4, 12, 14), shape=SHAPE) + 2 * filled((18, 8, 30, 20), shape=SHAPE)


@dataclass(frozen=True)
class Target:
    """A kind of input.

    Attributes:
        name: as the table shows it.
        write: writes the input into the folder `given`, in which it is called.
        act: what reads it, called in that folder.
        files: patterns of the files that are damaged.
        first: commands that run before anything is damaged; they fill caches and results.
        same: whether a run that ends well must leave the rows of an undamaged one: what is damaged is only a cache.
    """

    name: str
    write: Callable[[Path], None]
    act: Callable[[], None]
    files: tuple[str, ...]
    first: tuple[Callable[[], None], ...] = ()
    same: bool = False


def tests_of(path: str) -> ModuleType:
    """A test module, for the trees that it writes."""
    name = path.replace("/", "_").removesuffix(".py")
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "tests" / path)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def card(given: Path, reader: str, family: str = "discovery", **more: Any) -> None:
    """given/task.yaml. Names in `more` with `data_` before them go into the data section."""
    metrics = {"discovery": ["mbo_fg", "ari"], "detection": ["ar100_mask", "ap_box"], "video": ["fg_ari_video", "jf"]}
    metrics |= {"knn": ["knn_top1"], "segmentation": ["miou_sem", "pixel_acc"]}
    data = {name.removeprefix("data_"): more.pop(name) for name in list(more) if name.startswith("data_")}
    content = {
        "name": "task",
        "version": 1,
        "family": family,
        "data": {"reader": reader, **data},
        "protocol": {"input": 32, **({"score_at": 32} if family == "discovery" else {}), **more.pop("protocol", {})},
        "metrics": metrics[family],
        "main": metrics[family][0],
        **more,
    }
    (given / "task.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


def evaluation(model: str = "grid", *more: str, task: str = "task.yaml") -> Callable[[], None]:
    here = ("--data-root", "data", "--results", "results", "--no-pictures", "--device", "cpu")
    return cli("eval", "--model", model, "--task", task, *here, *more)


# Readers


def folder(given: Path) -> None:
    for number in range(3):
        save_image(given / f"data/images/a{number}.png", SHAPE)
        save_palette(given / f"data/masks/a{number}.png", LABELS)
    (given / "data/ids.txt").write_text("a0\na2\n")
    card(given, "folder", data_options={"ids": "ids.txt"})


def clevrtex(given: Path) -> None:
    write_clevrtex(given / "data", range(2))
    card(given, "clevrtex", data_folder="clevrtex_full", data_split="test")


def _coco_annotations() -> list[dict[str, Any]]:
    box = filled((3, 3, 9, 9), shape=SHAPE)
    return [
        annotation(1, 7, square(2, 2, 12, 14)),
        annotation(2, 7, compressed(box)),
        annotation(3, 9, uncompressed(box), iscrowd=1),
        annotation(4, 9, square(5, 5, 20, 20), category_id=18),
    ]


def coco(given: Path) -> None:
    write_coco(given / "data", {7: SHAPE, 9: SHAPE}, _coco_annotations())
    card(given, "coco", data_split="val", data_options={"annotations": "instances", "crowd": "drop"})


def coco_detection(given: Path) -> None:
    write_coco(given / "data", {7: SHAPE, 9: SHAPE}, _coco_annotations())
    proposals = {"parts": "whole+components", "min_area": 4, "nms": 0.95, "max_detections": 100}
    protocol = {"proposals": proposals}
    card(given, "coco", "detection", protocol=protocol, data_split="val", data_options={"annotations": "instances"})


def coco_panoptic(given: Path) -> None:
    tests_of("data/readers/test_coco_maps.py").write_panoptic(given / "data", (1, 2))
    card(given, "coco", data_split="val", data_options={"annotations": "panoptic", "stuff": "merged"})


def coco_stuff(given: Path) -> None:
    write_map = tests_of("data/readers/test_coco_maps.py").write_map
    for name in ("a", "b"):
        write_map(given / "data", name, (LABELS * 30).astype(np.uint8))
    (given / "data/curated/val2017").mkdir(parents=True)
    (given / "data/curated/val2017/list.txt").write_text("a\nb\n")
    card(
        given,
        "coco",
        data_split="val",
        data_options={"annotations": "stuffthings", "ids": "curated/{split}2017/list.txt"},
    )


def voc(given: Path) -> None:
    write_voc(given / "data", LABELS * 5, LABELS, train=("a",), val=("b", "c"))
    card(given, "voc", data_folder="VOCdevkit", data_split="val", data_options={"year": 2012, "truth": "instances"})


def sbd(given: Path) -> None:
    write_voc(given / "data", LABELS * 5, LABELS, train=("a",), val=("b",))
    write_sbd(given / "data", LABELS * 5, LABELS, train=("d", "e"), val=("b",))
    card(given, "voc", data_folder="VOCdevkit", data_split="trainaug", data_options={"year": 2012, "truth": "classes"})


def ade20k(given: Path) -> None:
    for name in ("ADE_val_00000001", "ADE_val_00000002"):
        write_ade20k(given / "data/ADEChallengeData2016", "validation", name, LABELS * 3)
    card(given, "ade20k", data_folder="ADEChallengeData2016", data_split="val")


def cityscapes(given: Path) -> None:
    for number in range(2):
        name = f"ulm_{number:06d}_000019"
        write_cityscapes(given / "data/cityscapes", LABELS * 8, LABELS.astype(np.uint16) * 8_001, name)
    card(given, "cityscapes", data_folder="cityscapes", data_split="val")


def davis(given: Path) -> None:
    write_davis(given / "data", {"bear": 3, "cows": 3})
    card(given, "davis", "video", data_folder="DAVIS", data_split="val", data_options={"annotations": "unsupervised"})


def movi(given: Path) -> None:
    write_movi(given / "data", [1, 1])
    card(given, "movi", "video", data_folder="movi_c", data_split="validation", data_options={"dataset": "movi_c"})


def ytvis(given: Path) -> None:
    masks = [compressed(filled((1, k, 5, k + 4), shape=(12, 20))) for k in range(3)]
    write_ytvis(given / "data", {"v1": 3, "v2": 3}, [track(1, 1, masks), track(2, 2, [None, *masks[1:]])])
    card(given, "ytvis", "video", data_split="validation", data_options={"year": 2021, "subset": "all"})


def video_folder(given: Path) -> None:
    module = tests_of("data/readers/test_video_folder.py")
    for name in ("a", "b"):
        module.write_video(given / "data", name, [module.moving_labels(t, module.SHAPE) for t in range(3)])
    card(given, "video-folder", "video")


# ImageNet and its boxes


def knn_card(given: Path, **options: Any) -> None:
    boxes = {"boxes": "attention"} if options else {}
    protocol = {"crop": "short-center-0.875", "temperature": 0.07, **boxes}
    fit = {"head": "bank", "split": "train"}
    card(given, "imagenet", "knn", protocol=protocol, fit=fit, data_split="val", data_options=options)


def imagenet(given: Path) -> None:
    tests_of("data/readers/test_imagenet.py").write_folders(given / "data")
    knn_card(given)


def imagenet_tables(given: Path) -> None:
    """Flat val with the development kit."""
    module = tests_of("data/readers/test_imagenet.py")
    module.write_folders(given / "data")
    module.flatten(given / "data")
    module.with_devkit(given / "data")
    knn_card(given)


def imagenet_kaggle(given: Path) -> None:
    module = tests_of("data/readers/test_imagenet.py")
    module.write_folders(given / "data")
    module.flatten(given / "data")
    module.with_solution(given / "data/LOC_val_solution.csv")
    knn_card(given)


def imagenet_xml(given: Path) -> None:
    module = tests_of("data/readers/test_imagenet.py")
    module.write_folders(given / "data")
    for path in sorted((given / "data/val").glob("*/*.JPEG")):
        place = given / "data/bbox/val" / f"{path.stem}.xml"
        module.put(place, module.xml((path.parent.name, 2, 3, 20, 18), (path.parent.name, 5, 1, 9, 9)))
    for path in sorted((given / "data/train").glob("*/*.JPEG")):
        place = given / "data/bbox/train" / path.parent.name / f"{path.stem}.xml"
        module.put(place, module.xml((path.parent.name, 2, 3, 20, 18)))
    knn_card(given, boxes="labelled")


def box_table(suffix: str) -> Callable[[Path], None]:
    def write(given: Path) -> None:
        module = tests_of("data/readers/test_imagenet.py")
        module.write_folders(given / "data")
        images = [*sorted((given / "data/val").glob("*/*")), *sorted((given / "data/train").glob("*/*"))]
        names = [f"{path.parts[-3]}/{path.parts[-2]}/{path.stem}" for path in images]
        rows = [module.row(name, (1, 2, 30, 20), score=[0.5], label=None, source="x") for name in names]
        if suffix == ".parquet":
            for row in rows:
                row["label"] = [None]
        module.write_table(given / f"boxes{suffix}", rows)
        knn_card(given, boxes="labelled")

    return write


def imagenet_hub(given: Path) -> None:
    module = tests_of("data/readers/test_imagenet.py")
    for part in ("train", "validation"):
        module.write_parquet(given / "data", part, module.ROWS)
    knn_card(given)


# Cards and checkpoints


def model_card(given: Path) -> None:
    folder(given)
    content = {"name": "mine", "title": "Mine", "source": "ocl_bench.models.floors:build_grid"}
    content |= {"options": {"rows": 2, "columns": 2}, "role": "model", "notes": ["a note"]}
    (given / "mine.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


SMALL = {"width": 8, "dim": 8, "blocks": "[1]", "slots": 3, "slot_dim": 8, "decoder_layers": 1, "decoder_heads": 2}


def weights(given: Path) -> None:
    from ocl_bench.cards.names import get_card
    from ocl_bench.training.checkpoint import export_weights
    from ocl_bench.training.run import build_untrained

    folder(given)
    dias = get_card("dias")
    options = {**dias.options, **SMALL, "blocks": [1]}
    export_weights(build_untrained(dias.model_copy(update={"options": options}), 0), given / "small.safetensors")


def official_checkpoint(given: Path) -> None:
    state = tests_of("models/checkpoints/test_export.py").checkpoint()
    torch.save({"model": state, "epoch": 3}, given / "official.pth")


def nothing(given: Path) -> None:
    """The commands that run first write everything."""


def train_small(*arguments: str) -> Callable[[], None]:
    """`ocl-bench train` of a small encoder on four scenes, into `out`."""

    def act() -> None:
        from ocl_bench.cards.names import get_card
        from ocl_bench.training import data, objectives, run

        recipe = {"batch": 2, "scenes": {"count": 4}, "validate_limit": 2, "log_every": 1, "checkpoint_every": 2}
        recipe |= {"steps": 8, "validate_every": 4, "precision": "fp32", "objective": {"kind": "boxes", "anchors": 4}}
        options = {"width": 8, "dim": 8, "blocks": [1]}
        small = get_card("encoder").model_copy(update={"options": options, "supervision": "boxes", "train": recipe})
        data.CHUNK = 4
        run.get_card = lambda name: small
        objectives.training_scenes = partial(data.training_scenes, workers=1)
        cli("train", "--model", "encoder", "--out", "out", "--device", "cpu", *arguments)()

    return act


def forget_training() -> None:
    """Delete the training of the first run; the scenes that it rendered stay."""
    shutil.rmtree("out")
    Path("out").mkdir()


# Results and predictions


def score(masks: str) -> Callable[[], None]:
    return cli("score", "--task", "task.yaml", "--masks", masks, "--data-root", "data", "--results", "results")


def results(given: Path) -> None:
    write_clevrtex(given / "data", range(2))
    (given / "results").mkdir()  # for a board that is built before there is a result


def with_results(*arguments: str, model: str = "*") -> Callable[[], None]:
    """A command with the result files of a model, or of all, after its verb."""

    def act() -> None:
        verb, *rest = arguments
        found = sorted(map(str, Path().glob(f"results/clevrtex/{model}/*.json")))
        cli(verb, *(found or ["results/clevrtex/grid/gone.json"]), *rest)()

    return act


TWO_RESULTS = (
    evaluation("grid", "--save-predictions", task="clevrtex"),
    evaluation("single-slot", task="clevrtex"),
)


def golden(given: Path) -> None:
    from ocl_bench.tables.gate.golden import Tolerance
    from ocl_bench.tables.gate.recording import make_golden

    write_clevrtex(given / "golden/scenes", range(2))
    tolerance = Tolerance(absolute=0.01)
    make_golden("clevrtex", "grid", given / "golden", limit=2, scenes="scenes", tolerance=tolerance, reason="first")


def supplied_masks(given: Path) -> None:
    clevrtex(given)
    for number in range(2):
        save_palette(given / f"masks/CLEVRTEX_full_{number:06d}.png", LABELS)


def supplied_arrays(given: Path) -> None:
    maps = np.stack([LABELS, LABELS[::-1]]).astype(np.uint8)
    np.savez_compressed(given / "masks.npz", prediction=maps, truth=maps, ids=np.array(["a", "b"]))
    card(given, "folder")


def supplied_detections(given: Path) -> None:
    coco_detection(given)
    code = compressed(filled((2, 2, 12, 14), shape=SHAPE))
    entry = {"category_id": 1, "bbox": [2, 2, 10, 12], "score": 0.9}
    found = [{"image_id": image, **entry, "segmentation": code} for image in (7, 9)]
    (given / "found.json").write_text(json.dumps(found))


def supplied_videos(given: Path) -> None:
    davis(given)
    for name in ("bear", "cows"):
        for t in range(3):
            save_palette(given / f"masks/{name}/{t:05d}.png", np.ones((12, 20), np.uint8))


# Caches


def head_card(given: Path) -> None:
    write_voc(given / "data", LABELS * 5, LABELS, train=("a", "d"), val=("b", "c"))
    fit = {"head": "linear", "split": "train", "learning_rates": [0.01], "steps": 5, "batch": 2, "weight_decay": 0.0}
    options = {"year": 2012, "truth": "classes"}
    card(
        given,
        "voc",
        "segmentation",
        protocol={"void": "drop", "classes": 21},
        fit={**fit, "at": 16},
        data_folder="VOCdevkit",
        data_split="val",
        data_options=options,
    )


def stand_in(given: Path, samples: int = 2) -> None:
    scenes = {"scenes": "clevrtex", "variant": "full", "revision": 1, "samples": samples}
    card(given, "clevrtex", data_folder="clevrtex_full", data_split="test", data_stand_in=scenes)


def without_data(model: str = "grid", *more: str) -> Callable[[], None]:
    return cli("eval", "--model", model, "--task", "task.yaml", "--results", "results", "--no-pictures", *more)


def unfinished() -> None:
    """Leaves what a run leaves that is killed before it writes its result."""
    from ocl_bench.evaluation.shards import WorkFolder

    WorkFolder.remove = lambda self: None  # type: ignore[method-assign]
    try:
        evaluation()()
    finally:
        for path in Path("results/task/grid").glob("*.*"):
            if path.is_file():
                path.unlink()


def forget_results() -> None:
    """Delete the result of the first run, so that the next one needs what it cached."""
    shutil.rmtree("results")


_PICTURES = ("data/**/*.png", "data/**/*.jpg", "data/**/*.JPEG")
_PIXELS = ("-o", "cell=4")
_KNN = evaluation("pixels", *_PIXELS)
_DIAS = [part for name, value in SMALL.items() for part in ("-o", f"{name}={value}")]
_RESULT = ("results/clevrtex/grid/*.json", "results/clevrtex/grid/*.parquet")
_PREDICTIONS = ("results/clevrtex/grid/*.predictions/**/*.png",)
_EXPORT = ("--checkpoint", "official.pth", "--to", "torchvision", "--out", "out/encoder.pth")

STOPPED = tuple(train_small("--minutes", "0") for _ in range(3))
"""Three visits of one step each."""

TARGETS: Sequence[Target] = (
    Target("reader folder", folder, evaluation(), (*_PICTURES, "data/ids.txt")),
    Target("reader clevrtex", clevrtex, evaluation(), ("data/**/*.png", "data/**/*.json")),
    Target("reader coco instances", coco, evaluation(), ("data/**/*.json", *_PICTURES)),
    Target("reader coco boxes", coco_detection, evaluation(), ("data/**/*.json",)),
    Target("reader coco panoptic", coco_panoptic, evaluation(), ("data/**/*.json", *_PICTURES)),
    Target("reader coco stuff maps", coco_stuff, evaluation(), (*_PICTURES, "data/**/*.txt")),
    Target("reader voc", voc, evaluation(), (*_PICTURES, "data/**/*.txt")),
    Target("reader voc with sbd", sbd, evaluation(), ("data/**/*.mat", "data/**/*.txt")),
    Target("reader ade20k", ade20k, evaluation(), _PICTURES),
    Target("reader cityscapes", cityscapes, evaluation(), _PICTURES),
    Target("reader davis", davis, evaluation(), (*_PICTURES, "data/**/*.txt")),
    Target("reader movi", movi, evaluation(), ("data/**/*tfrecord*", "data/**/*.json")),
    Target("reader ytvis", ytvis, evaluation(), ("data/**/*.json", *_PICTURES)),
    Target("reader video-folder", video_folder, evaluation(), _PICTURES),
    Target("reader imagenet folders", imagenet, _KNN, _PICTURES),
    Target("reader imagenet devkit", imagenet_tables, _KNN, ("data/**/*.txt", "data/**/*.mat")),
    Target("reader imagenet kaggle", imagenet_kaggle, _KNN, ("data/**/*.csv",)),
    Target("reader imagenet parquet", imagenet_hub, _KNN, ("data/**/*.parquet",)),
    Target("boxes xml", imagenet_xml, _KNN, ("data/**/*.xml",)),
    *(
        Target(f"boxes {kind}", box_table(f".{kind}"), evaluation("pixels", *_PIXELS, "--boxes", file), (file,))
        for kind, file in (("jsonl", "boxes.jsonl"), ("parquet", "boxes.parquet"))
    ),
    Target("task card", folder, evaluation(), ("task.yaml",)),
    Target("task card with a head", head_card, _KNN, ("task.yaml",)),
    Target("model card", model_card, evaluation("mine.yaml"), ("mine.yaml",)),
    Target("checkpoint", weights, evaluation("dias", *_DIAS, "--checkpoint", "small.safetensors"), ("*.safetensors",)),
    Target("checkpoint to export", official_checkpoint, cli("export", *_EXPORT), ("official.pth",)),
    Target("checkpoint of a training", nothing, train_small(), ("out/last.pt", "out/log.jsonl"), STOPPED),
    Target(
        "result on a board", results, cli("leaderboard", "--results", "results", "--out", "out"), _RESULT, TWO_RESULTS
    ),
    Target("result compared", results, with_results("compare"), _RESULT, TWO_RESULTS),
    Target(
        "result reported",
        results,
        with_results("report", "--out", "out/report.html", "--data-root", "data"),
        (*_RESULT, *_PREDICTIONS),
        TWO_RESULTS,
    ),
    Target(
        "result validated",
        results,
        with_results("validate", "--data-root", "data"),
        (*_RESULT, *_PREDICTIONS),
        TWO_RESULTS,
    ),
    Target(
        "result submitted",
        results,
        with_results("submit", "--out", "out", "--data-root", "data", model="grid"),
        _RESULT,
        TWO_RESULTS,
    ),
    Target("result reused", results, TWO_RESULTS[0], _RESULT, TWO_RESULTS, same=True),
    Target(
        "predictions replayed",
        results,
        with_results("replay", "--data-root", "data", model="grid"),
        (*_RESULT, *_PREDICTIONS),
        TWO_RESULTS,
    ),
    Target("golden file", golden, cli("regress", "--baseline", "golden"), ("golden/clevrtex/*.json",)),
    Target("predictions, masks", supplied_masks, score("masks"), ("masks/*.png",)),
    Target(
        "predictions, arrays",
        supplied_arrays,
        cli("score", "--task", "task.yaml", "--masks", "masks.npz"),
        ("masks.npz",),
    ),
    Target("predictions, COCO", supplied_detections, score("found.json"), ("found.json",)),
    Target("predictions, videos", supplied_videos, score("masks"), ("masks/**/*.png",)),
    Target("cache of an index", folder, evaluation(), ("cache/arrow/**/*",), (evaluation(), forget_results), same=True),
    Target(
        "cache of contents", coco, evaluation(), ("cache/contents/**/*",), (evaluation(), forget_results), same=True
    ),
    Target(
        "cache of a bank",
        imagenet,
        _KNN,
        ("cache/banks/**/*.npy", "cache/banks/**/*.json"),
        (_KNN, forget_results),
        same=True,
    ),
    Target("cache of a head", head_card, _KNN, ("cache/heads/**/*",), (_KNN, forget_results), same=True),
    Target(
        "cache of scenes",
        stand_in,
        without_data(),
        ("cache/stand-ins/**/*",),
        (without_data(), forget_results),
        same=True,
    ),
    Target("unfinished work", clevrtex, evaluation(), ("results/**/*.work/*",), (unfinished,), same=True),
)


def by_name(names: Sequence[str]) -> Mapping[str, Target]:
    """Targets whose names begin so; all without any."""
    return {target.name: target for target in TARGETS if not names or target.name.startswith(tuple(names))}

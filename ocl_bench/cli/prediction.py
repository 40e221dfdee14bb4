"""The verb `predict`: masks of images or videos without any truth, as id maps and as pictures."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..core.errors import UsageError
from ..core.numbers import counted
from .options import (
    BatchSize,
    Checkpoint,
    Device,
    Json,
    Limit,
    ModelName,
    Offline,
    Options,
    go_offline,
    out_folder,
    own_stdout,
    parse_options,
    print_failed,
    print_json,
    print_next,
)

if TYPE_CHECKING:
    from ..evaluation.predict import SegmentMap
    from ..results.record import Failure

OVERLAYS = "overlays"
"""Folder of the pictures below `--out`, beside the id maps."""


def predict(
    images: Annotated[Path, typer.Argument(help="Folder of images, or of videos: folders of frames.")],
    model: ModelName,
    out: Annotated[Path, typer.Option(help="Folder for the id maps, <image>.png.", callback=out_folder)],
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="Crop and resize as this task; by default nothing is cropped.")
    ] = None,
    video: Annotated[bool, typer.Option("--video", help="A folder of images is a video.")] = False,
    overlays: Annotated[bool, typer.Option(help="Draw the masks over the images, too.")] = True,
    limit: Limit = None,
    seed: Annotated[int, typer.Option(min=0, help="Noise seed of the slots.")] = 0,
    device: Device = "auto",
    batch_size: BatchSize = 16,
    option: Options = None,
    checkpoint: Checkpoint = None,
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that is not empty.")] = False,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Predict the masks of your own images or videos; no truth needed.

    Each image gets an id map: slot k has the number k + 1. Exit code 1 when an image cannot be read or predicted.
    """
    go_offline(offline)
    _check_place(out, images, force)
    from ..core.log import logger
    from ..evaluation.predict import prediction_plan, segment_maps

    failed: list[Failure] = []
    written = 0
    with own_stdout(json):
        plan = prediction_plan(
            model,
            images,
            task=task,
            video=video,
            limit=limit,
            seed=seed,
            device=device,
            batch_size=batch_size,
            checkpoint=checkpoint,
            options=parse_options(option),
        )
        if inside := next((one for one in plan.data.ids if overlays and Path(one).parts[0] == OVERLAYS), None):
            raise UsageError(f"{images}: '{inside}' would lie among the pictures; rename it, or give --no-overlays")
        logger.info("%s", plan.data.note)
        if plan.model.untrained:
            logger.warning("model %s has no bundled weights: pass --checkpoint FILE", plan.model.name)
        for one in segment_maps(plan, failed):
            _write(one, out, overlays)
            written += 1
    if json:
        print_json({"out": str(out), "written": written, "failed": [failure.model_dump() for failure in failed]})
    else:
        pictures = f", pictures in {out / OVERLAYS}" if overlays else ""
        typer.echo(f"written: {counted(written, 'id map')} in {out}{pictures}")
    print_failed(failed, "give --json to list them")
    if task is not None and not json:
        print_next(shlex.join(["ocl-bench", "score", "--task", task, "--masks", str(out), "--extent", "crop"]))
    raise typer.Exit(1 if failed else 0)


def _check_place(out: Path, images: Path, force: bool) -> None:
    """Raise UsageError for a folder that holds something, or that lies among the images and would be read as such."""
    if images.resolve() in (out.resolve(), *out.resolve().parents):
        raise UsageError(f"--out {out}: lies in the folder of the images; choose a place beside it")
    if not force and out.is_dir() and any(out.iterdir()):
        raise UsageError(f"--out {out}: is not empty; choose another place, or give --force to write into it")


def _write(one: SegmentMap, out: Path, overlays: bool) -> None:
    """Write the id map of one image or frame, and its picture."""
    from PIL import Image

    from ..families.files import write_label_map
    from ..tables.pictures.overlays import fit, overlay, truth_colours

    write_label_map(out / f"{one.name}.png", one.ids)
    if not overlays:
        return
    path = out / OVERLAYS / f"{one.name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = fit(one.ids, one.image.shape[:2])
    Image.fromarray(overlay(one.image, ids, truth_colours(ids))).save(path)

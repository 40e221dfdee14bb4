"""The verb `profile`. It imports what it needs when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..core.errors import UsageError
from ..core.log import logger
from .options import Device, Json, ModelName, Options, out_file, own_stdout, parse_options, print_json


def profile(
    model: ModelName,
    against: Annotated[str | None, typer.Option(help="Another model, measured in turns with it.")] = None,
    option: Options = None,
    against_option: Annotated[list[str] | None, typer.Option(help="key=value for the other; repeatable.")] = None,
    untrained: Annotated[bool, typer.Option("--untrained", help="Random weights where none are bundled.")] = False,
    device: Device = "auto",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16 (autocast).")] = "float32",
    threads: Annotated[int | None, typer.Option(min=1, help="Number of torch threads; by default as in eval.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Clips or images in a pass.")] = 1,
    clip: Annotated[int, typer.Option(min=1, help="Frames of a clip, for models of videos.")] = 4,
    size: Annotated[int | None, typer.Option(min=8, help="Side of a frame; by default the model's own.")] = None,
    warmup: Annotated[int, typer.Option(min=0, help="Passes of each model that are not timed.")] = 2,
    repeats: Annotated[int, typer.Option(min=2, help="Timed passes of each model.")] = 20,
    streaming: Annotated[bool, typer.Option("--streaming", help="Frame by frame, with the state so far.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write the ratio of times as a figure for `claims`.", callback=out_file)
    ] = None,
    json: Json = False,
) -> None:
    """What a model costs: parameters, FLOPs, time, memory; alone or against another (docs/profile.md)."""
    import sys

    from ..core.machine import choose_device, thread_count
    from ..evaluation.cost import ModelChoice, ProfileSetup, profile_models, write_figure

    setup = ProfileSetup(
        choose_device(device), dtype, threads or thread_count(), batch, clip, size, streaming, warmup, repeats
    )
    sides = [ModelChoice(model, parse_options(option), untrained)]
    if against is not None:
        sides.append(ModelChoice(against, parse_options(against_option), untrained))
    elif against_option or out:
        raise UsageError("--against-option and --out need --against MODEL")
    with own_stdout(json):
        found = profile_models(sides, setup)
    if json:
        print_json(found.to_dict())
    else:
        from .console import make_console
        from .profile import print_profile

        print_profile(make_console(), found)
    if out is not None:
        logger.info("written: %s", write_figure(out, found, sys.argv[1:]))

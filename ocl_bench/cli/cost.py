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
    warmup: Annotated[int, typer.Option(min=0, help="Passes of each model, or steps, that are not timed.")] = 2,
    repeats: Annotated[int, typer.Option(min=2, help="Timed passes of each model, or steps.")] = 20,
    streaming: Annotated[bool, typer.Option("--streaming", help="Frame by frame, with the state so far.")] = False,
    train: Annotated[
        bool, typer.Option("--train", help="Where the time of a training step goes, and images/s.")
    ] = False,
    compile: Annotated[bool, typer.Option("--compile", help="With --train: use torch.compile.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="With --train: scenes to render; by default 64.")] = None,
    set: Annotated[
        list[str] | None, typer.Option(help="With --train: key=value for the recipe, such as batch=8; repeatable.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write the ratio of times as a figure for `claims`; with --train all as JSON.", callback=out_file
        ),
    ] = None,
    json: Json = False,
) -> None:
    """What a model costs: parameters, FLOPs, time, memory; alone, against another, or in training (docs/profile.md)."""
    if train:
        given = {
            "--against": against, "--against-option": against_option, "--streaming": streaming, "--size": size,
            "--untrained": untrained, "--dtype": dtype != "float32", "--batch": batch != 1, "--clip": clip != 4,
        }  # fmt: skip
        if wrong := [name for name, value in given.items() if value]:
            raise UsageError(f"{wrong[0]}: not with --train, which follows the recipe; change its fields by --set")
        _profile_training(model, option, set, limit, device, threads, warmup, repeats, compile, out, json)
        return
    if needed := [name for name, value in {"--set": set, "--limit": limit, "--compile": compile}.items() if value]:
        raise UsageError(f"{needed[0]}: needs --train")
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


def _profile_training(
    model: str,
    option: list[str] | None,
    set: list[str] | None,
    limit: int | None,
    device: str,
    threads: int | None,
    warmup: int,
    repeats: int,
    compile: bool,
    out: Path | None,
    json: bool,
) -> None:
    """Measure steps of a training, and print and write what they cost."""
    from json import dumps

    from ..core.files import write_atomically
    from ..core.machine import thread_count
    from ..training.step_cost import step_cost

    with own_stdout(json):
        cost = step_cost(
            model,
            options=parse_options(option),
            overrides=parse_options(set),
            limit=limit,
            device=device,
            threads=threads or thread_count(),
            warmup=warmup,
            repeats=repeats,
            compile_model=compile,
        )
    if json:
        print_json(cost.to_dict())
    else:
        from .console import make_console
        from .profile import print_step_cost

        print_step_cost(make_console(), cost)
    if out is not None:
        text = dumps(cost.to_dict(), indent=2) + "\n"
        write_atomically(out, lambda path: path.write_text(text, encoding="utf-8"))
        logger.info("written: %s", out)

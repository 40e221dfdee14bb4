"""The verb that says which model a checkpoint file belongs to."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from .options import Json, print_json

SHOWN = 3
"""How many cards are named when none fits."""


def check_checkpoint(
    file: Annotated[Path, typer.Argument(help="A checkpoint: .pt, .pth, .ckpt, .safetensors, ..")],
    model: Annotated[str | None, typer.Option("--model", "-m", help="Try this card alone.")] = None,
    json: Json = False,
) -> None:
    """Say which bundled card a checkpoint file fits, and how to run it; names and shapes are compared."""
    from ..models.identify import UNKNOWN_TASK, identify

    fits = identify(file, model)
    found = not fits[0].error
    if json:
        print_json([{**asdict(fit), "command": fit.command} for fit in fits])
    elif found:
        for fit in fits:
            typer.echo(f"fits {fit.model}: {fit.title}{f' ({fit.paper})' if fit.paper else ''}")
            typer.echo(f"  {fit.command.replace('FILE', str(file))}")
        if any(fit.task == UNKNOWN_TASK for fit in fits):
            typer.echo("the file does not say on which data it was trained: `ocl-bench list tasks`")
        cards = len({fit.model for fit in fits})
        if cards > 1:
            typer.echo(f"{cards} cards have this network; the file does not say which training made it")
        elif len(fits) > 1:
            typer.echo(f"{len(fits)} settings of this card fit; the file does not say which is its own")
    else:
        typer.echo(f"{file}: fits no card{f' {model}' if model else ''}; the most alike:", err=True)
        for fit in fits[:SHOWN]:
            options = "".join(f" {name}={value}" for name, value in fit.options.items())
            typer.echo(f"  {fit.model}{options}: {fit.likeness:.0%} of the shapes are shared; {fit.error}", err=True)
    raise typer.Exit(0 if found else 2)

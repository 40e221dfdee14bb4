"""The verb that trains: one model by the recipe of its card, or a whole suite of them.

It imports what it needs when it runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..core.errors import UsageError
from .options import Json, Log, Options, out_folder, own_stdout, parse_options, print_json, print_line, print_next


def train(
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="A card; with --suite only these and what they need."),
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="Train all models of a suite in order; `embedded` has all bundled ones.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="With --suite: training seeds 0 to N - 1.")] = 1,
    scale: Annotated[float, typer.Option(help="With --suite: factor of all numbers of steps.")] = 1.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --suite: only print what it will cost.")] = False,
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="Task used for validation; by default the card's.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the whole training, not of this session.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Stop after N minutes; go on later.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Training seed.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder; by default runs/<model>-seed<seed>, with --suite runs.", callback=out_folder),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    precision: Annotated[str | None, typer.Option(help="auto, fp32 or bf16; by default the card's.")] = None,
    compile: Annotated[bool, typer.Option(help="Compile the model.")] = False,
    world_size: Annotated[int | None, typer.Option(min=1, help="Refuse unless torchrun started so many ranks.")] = None,
    scenes: Annotated[int | None, typer.Option(min=1, help="Number of training scenes.")] = None,
    set: Annotated[
        list[str] | None, typer.Option(help="key=value for the recipe, such as lr=1e-3; repeatable.")
    ] = None,
    option: Options = None,
    data_root: Annotated[
        Path | None,
        typer.Option(help="Train on the task's data in this folder instead of scenes (slotcon, odis, videos)."),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on from OUT/last.pt where there is one.")] = True,
    log: Log = None,
    json: Json = False,
) -> None:
    """Train a model by the recipe of its card, or go on with a training that was stopped."""
    if suite is not None:
        _train_suite(suite, model or [], seeds, scale, out, minutes, device, dry_run, log, json)
        return
    if not model or len(model) > 1:
        raise UsageError("train: give one --model, or --suite embedded for all of them")
    from ..training import train as train_model

    with own_stdout(json):
        record = train_model(
            model[0],
            task,
            steps=steps,
            minutes=minutes,
            seed=seed,
            out=out,
            device=device,
            precision=precision,
            compile_model=compile,
            world_size=world_size,
            scenes=scenes,
            overrides=parse_options(set),
            options=parse_options(option),
            data_root=data_root,
            resume=resume,
            log=log,
        )
    if not record["main_rank"]:
        return
    if json:
        print_json(record)
        return
    for name, value in record["numbers"].items():
        typer.echo(f"{name}: {value:.4f}")
    print_line(f"{record['steps']} of {record['recipe']['steps']} steps; written: {record['weights']}")
    print_next(record["next"])


def _train_suite(
    suite: str,
    models: list[str],
    seeds: int,
    scale: float,
    out: Path | None,
    minutes: float | None,
    device: str,
    dry_run: bool,
    log: str | None,
    json: bool,
) -> None:
    """Print the plan of a suite and what it costs, then train unless `dry_run`."""
    from ..training.suite import cost_of, plan_rows, plan_suite, train_suite
    from .console import make_console, print_plan

    plan = plan_suite(suite, seeds=seeds, scale=scale, models=models, out=out or Path("runs"))
    if dry_run and json:
        print_json({"plan": plan_rows(plan), "cost": cost_of(plan)})
        return
    print_plan(make_console(stderr=json), plan_rows(plan), cost_of(plan))
    if dry_run:
        return
    records: list[dict[str, Any]] = []
    with own_stdout(json):
        for planned, record in train_suite(plan, minutes=minutes, device=device, log=log):
            if record is None:
                continue
            records.append(record)
            done = "finished" if record["finished"] else f"stopped after {record['steps']} steps"
            typer.echo(f"{planned.model}, seed {planned.seed}: {done}, {planned.weights}", err=json)
    left = cost_of(plan)
    if json:
        print_json({"trained": records, "cost": left})
    elif left["finished"] < left["trainings"]:
        print_line(f"{left['trainings'] - left['finished']} trainings are left; the same command goes on with them")

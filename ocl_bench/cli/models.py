"""Verbs about models: evaluate, inspect, score, replay, tune, export.

Each imports what it needs when it runs.
"""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import Annotated, Any

import typer

from ..core.errors import UsageError
from ..core.imports import imports_at_once
from .options import (
    BatchSize,
    Checkpoint,
    DataRoot,
    Device,
    ExportTarget,
    Json,
    Limit,
    Log,
    ModelName,
    Offline,
    Options,
    Results,
    Seeds,
    Split,
    Supervision,
    TaskName,
    TrainingSeed,
    Workers,
    exit_code,
    go_offline,
    out_file,
    own_stdout,
    parse_options,
    parse_seeds,
    print_json,
    print_matrix,
    print_next,
    print_result,
    split_option,
)


def evaluate_model(
    model: ModelName,
    task: TaskName,
    data_root: DataRoot = None,
    limit: Limit = None,
    seeds: Seeds = None,
    device: Device = "auto",
    batch_size: BatchSize = 16,
    workers: Workers = "auto",
    split: Split = None,
    stand_in_seed: Annotated[
        int | None, typer.Option(min=1, help="Render a fresh stand-in split from this seed (never ranked).")
    ] = None,
    option: Options = None,
    checkpoint: Checkpoint = None,
    name: Annotated[str | None, typer.Option(help="Name in results and boards; by default that of the file.")] = None,
    training_seed: TrainingSeed = None,
    supervision: Supervision = None,
    boxes: Annotated[
        Path | None, typer.Option(help="Boxes (JSONL, Parquet) instead of the data set's, where the task grants any.")
    ] = None,
    ids: Annotated[
        Path | None, typer.Option(help="Score only the samples of a file, one id a line (never ranked).")
    ] = None,
    results: Results = None,
    save_predictions: Annotated[bool, typer.Option(help="Keep the predicted id maps, for `replay`.")] = False,
    floors: Annotated[bool, typer.Option(help="Compute missing cheap floors; predictions as for the model.")] = False,
    pictures: Annotated[bool, typer.Option(help="Draw the best, median and worst images.")] = True,
    force: Annotated[bool, typer.Option(help="Compute again even if this result is finished.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Read every file of the data first, images too.")] = False,
    launcher: Annotated[
        str | None, typer.Option(help="Run each model on each task as a job: slurm, or local for processes here.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Jobs at one time, with --launcher.")] = 4,
    job_option: Annotated[
        list[str] | None,
        typer.Option(help="key=value for the jobs, such as partition=gpu; repeatable."),
    ] = None,
    log: Log = None,
    offline: Offline = False,
    json: Json = False,
    config: Annotated[
        Path | None, typer.Option(help="YAML file with any of these options by name; those typed win.")
    ] = None,
) -> None:
    """Score a model on a task, beside floors and ceiling.

    --model and --task take several, with commas: names, patterns such as 'movi*', suite:FAMILY (tasks of a family, or
    models that do them), and all. Each pair is one result; one that fails does not stop the others, and the exit code
    is 1.
    """
    del config  # `SeveralValues` has put the options of the file in its place
    go_offline(offline)
    plan: dict[str, Any] = {
        "data_root": data_root,
        "limit": limit,
        "noise_seeds": parse_seeds(seeds),
        "device": device,
        "batch_size": batch_size,
        "workers": workers,
        "split": split,
        "stand_in_seed": stand_in_seed,
        "options": parse_options(option),
        "checkpoint": checkpoint,
        "boxes": boxes,
        "ids": ids,
        "verify": verify,
        "name": name,
        "training_seed": training_seed,
        "supervision": supervision,
    }
    with imports_at_once():
        from ..core.trackers import find_tracker
        from ..evaluation.matrix import exit_code_of, several
        from ..results.tracking import track_results
        from .evaluation import evaluate_and_report, evaluate_several

    make_tracker = find_tracker(log)
    kept: dict[str, Any] = {"results": results, "force": force, "save_predictions": save_predictions}
    if several(model) or several(task) or launcher or job_option:
        with own_stdout(json):
            cells = evaluate_several(model, task, launcher, jobs, parse_options(job_option), **kept, **plan)
            track_results([cell.result for cell in cells if cell.result is not None], make_tracker)
        print_matrix(cells, json)
        raise typer.Exit(exit_code_of(cells))
    with own_stdout(json):
        report = evaluate_and_report(model, task, floors=floors, pictures=pictures, **kept, **plan)
        track_results([report.result], make_tracker)
    print_result(report.result, json, report.references, report.paths, report.next_command)
    raise typer.Exit(exit_code(report.result))


def show(
    name: Annotated[str, typer.Argument(help="A task, a model or a metric, or the path of a card.")],
    ids: Annotated[bool, typer.Option("--ids", help="List the samples of a task in their order instead.")] = False,
    data_root: DataRoot = None,
    split: Split = None,
    json: Json = False,
) -> None:
    """Show a card (protocol, signature, data layout, weights and what they saw) or the definition of a metric."""
    if ids:
        _show_ids(name, data_root, split, json)
        return
    from ..cards.names import find_card
    from ..cards.task import TaskSpec
    from ..metrics import find_metric, is_metric, metric_names
    from .console import make_console, print_metric, print_model, print_task

    if is_metric(name):
        metric = find_metric(name)
        if json:
            print_json(metric.to_dict())
        else:
            print_metric(make_console(), metric)
        return
    card = find_card(name, metric_names())
    if json:
        print_json(card.model_dump(mode="json"))
    elif isinstance(card, TaskSpec):
        print_task(make_console(), card)
    else:
        print_model(make_console(), card)


def _show_ids(task: str, data_root: Path | None, split: str | None, json: bool) -> None:
    """Print the ids of the samples of a task, one a line, in the order in which they are scored."""
    from ..cards.names import get_task
    from ..core.log import logger
    from ..data import open_data

    data = open_data(get_task(task), data_root=data_root, split=split)
    logger.info("%s", data.note)
    if json:
        print_json(list(data.ids))
        return
    for sample_id in data.ids:
        typer.echo(sample_id)


def check(
    model: ModelName,
    task: TaskName = "clevrtex",
    option: Options = None,
    checkpoint: Checkpoint = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    json: Json = False,
) -> None:
    """Tell in seconds whether a model will work, and what to change if not."""
    from dataclasses import asdict

    from ..evaluation.check_model import check_model
    from .console import make_console, print_checks

    with own_stdout(json):
        checks = check_model(model, task, checkpoint=checkpoint, options=parse_options(option), device=device)
    if json:
        print_json([asdict(entry) for entry in checks])
    else:
        print_checks(make_console(), model, checks)
    failed = [entry for entry in checks if not entry.passed]
    if not failed and not json:
        print_next(f"ocl-bench eval --model {model} --task {task} --limit 64")
    raise typer.Exit(2 if failed else 0)


def score(
    task: TaskName,
    masks: Annotated[
        Path, typer.Option(help="Folder of <sample id>.png, .npz with truth, COCO results .json, or answers .json.")
    ],
    name: Annotated[str, typer.Option(help="Name under which the result is written.")] = "supplied-masks",
    training_seed: TrainingSeed = None,
    supervision: Supervision = None,
    classes: Annotated[
        bool, typer.Option("--classes", help="Detections: score each category by itself, as pycocotools does.")
    ] = False,
    extent: Annotated[
        str | None, typer.Option(help="What masks of a size that fits both show: the whole image or the scored crop.")
    ] = None,
    data_root: DataRoot = None,
    limit: Limit = None,
    split: Split = None,
    results: Results = None,
    save_predictions: Annotated[bool, typer.Option(help="Keep the masks as they were scored, for `report`.")] = False,
    workers: Workers = "auto",
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Score masks that exist already; no model needed."""
    go_offline(offline)
    from ..evaluation.supplied.score import score_masks

    result = score_masks(
        task,
        masks,
        name=name,
        training_seed=training_seed,
        supervision=supervision,
        classes=classes,
        extent=extent,
        data_root=data_root,
        limit=limit,
        split=split,
        results=results,
        save_predictions=save_predictions,
        workers=workers,
    )
    print_result(result, json)
    raise typer.Exit(exit_code(result))


def replay(
    run: Annotated[Path, typer.Argument(help="Result JSON of an evaluation with --save-predictions.")],
    task: Annotated[str | None, typer.Option(help="Task card of the run, when it is not a bundled one.")] = None,
    data_root: DataRoot = None,
    json: Json = False,
) -> None:
    """Score the saved predictions of a run again; exit code 1 when a number differs."""
    from ..evaluation.supplied.score import replay as replay_run

    outcome = replay_run(run, task=task, data_root=data_root)
    print_result(outcome.now, json)
    if not outcome.equal:
        differences = ", ".join(f"{name} {value:+.3g}" for name, value in outcome.differences.items() if value)
        typer.echo(f"not the stored numbers: {differences}", err=True)
        raise typer.Exit(1)
    typer.echo("equal to the stored numbers", err=True)


def reproduce(
    result: Annotated[Path, typer.Argument(help="Result JSON of an evaluation.")],
    model: Annotated[str | None, typer.Option("--model", "-m", help="Where the model is now: path.py:build.")] = None,
    task: Annotated[str | None, typer.Option("--task", "-t", help="Task card, when it is not a bundled one.")] = None,
    data_root: DataRoot = None,
    checkpoint: Checkpoint = None,
    boxes: Annotated[Path | None, typer.Option(help="File of boxes, where the run had one.")] = None,
    ids: Annotated[Path | None, typer.Option(help="File of sample ids, where the run had one.")] = None,
    device: Annotated[str | None, typer.Option(help="Another device than the recorded one.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Another batch size than the recorded one.")] = None,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Evaluate again what a result is of, and compare every number.

    Exit code 0 when all agree to 1e-6, 1 when one does not, 2 when the model and 3 when the data are not found.
    """
    go_offline(offline)
    from ..evaluation.reproduce import reproduce as reproduce_run
    from .console import make_console, print_reproduction

    places: dict[str, Any] = {
        "model": model,
        "task": task,
        "data_root": data_root,
        "checkpoint": checkpoint,
        "boxes": boxes,
    }
    with own_stdout(json):
        outcome = reproduce_run(result, **places, ids=ids, device=device, batch_size=batch_size)
    if json:
        finite = {name: value if isfinite(value) else None for name, value in outcome.differences.items()}
        said = {"verdict": outcome.verdict, "differences": finite, "same_rows": outcome.same_rows}
        print_json({**said, "changes": outcome.changes})
    else:
        print_reproduction(make_console(), outcome)
    raise typer.Exit(1 if outcome.verdict == "different" else 0)


def tune(
    model: ModelName,
    task: TaskName,
    option: Annotated[list[str], typer.Option("--option", "-o", help="key=3..15 or key=a,b is tuned; key=v is fixed.")],
    data_root: DataRoot = None,
    limit: Limit = None,
    seeds: Seeds = None,
    device: Device = "auto",
    batch_size: BatchSize = 16,
    split: Annotated[str, typer.Option(help="Validation split.")] = "val",
    checkpoint: Checkpoint = None,
    results: Results = None,
    json: Json = False,
) -> None:
    """Choose one option of a model on the validation split by the main metric."""
    from ..evaluation.tune import parse_values
    from ..evaluation.tune import tune as tune_option
    from .console import make_console, print_tuning

    texts = dict(split_option(text) for text in option)
    several = {key: values for key, text in texts.items() if len(values := parse_values(text)) > 1}
    if len(several) != 1:
        raise UsageError("--option: exactly one option needs several values, such as slots=3..15")
    (key, values) = next(iter(several.items()))
    fixed = {name: parse_values(text)[0] for name, text in texts.items() if name != key}
    with own_stdout(json):
        outcome = tune_option(
            model,
            task,
            key,
            values,
            split=split,
            results=results,
            options=fixed,
            data_root=data_root,
            limit=limit,
            noise_seeds=parse_seeds(seeds),
            device=device,
            batch_size=batch_size,
            checkpoint=checkpoint,
        )
    if json:
        print_json(outcome)
        return
    print_tuning(make_console(), key, outcome["main"], outcome["tried"], outcome["best"])
    typer.echo(f"written: {outcome['path']}")
    print_next(f"ocl-bench eval --model {model} --task {task} --option {key}={outcome['best']}")


def export(
    checkpoint: Annotated[Path, typer.Option(help="A SlotCon checkpoint, official or ours.")],
    to: Annotated[ExportTarget, typer.Option(help="Naming scheme of the tensors.")],
    out: Annotated[Path, typer.Option(help="torchvision: .safetensors or .pth; detectron2: .pkl.", callback=out_file)],
) -> None:
    """Write SlotCon's teacher encoder for torchvision or detectron2, to fine-tune it there (docs/transfer.md)."""
    from ..models.checkpoints.export import export_encoder, export_file, read_checkpoint

    number = len(export_encoder(read_checkpoint(checkpoint), to.value))
    typer.echo(f"written: {export_file(checkpoint, out, to.value)} ({number} tensors)")

"""The command line: parse, call, print. Each verb imports what it needs, so `--help` and `list` start no torch.

Exit codes: 0 ok, 1 regression or failed samples, 2 usage, 3 data missing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .cli_parts import (
    Annotations,
    BatchSize,
    Checkpoint,
    DataRoot,
    Device,
    ErrorsInOneLine,
    ExportTarget,
    Json,
    Limit,
    ModelName,
    Offline,
    Options,
    Results,
    Seeds,
    Split,
    TaskName,
    What,
    exit_code,
    go_offline,
    own_stdout,
    parse_options,
    parse_seeds,
    print_gate,
    print_json,
    print_matrix,
    print_result,
    print_validation,
    say,
    several,
    split_option,
    validation_content,
)
from .errors import UsageError

app = typer.Typer(
    cls=ErrorsInOneLine,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="How good is this object-centric model, really, and compared with what?",
    epilog="Start with: ocl-bench eval --model dias --task clevrtex",
)


@app.command("eval")
def evaluate_model(
    model: ModelName,
    task: TaskName,
    data_root: DataRoot = None,
    limit: Limit = None,
    seeds: Seeds = None,
    device: Device = "auto",
    batch_size: BatchSize = 16,
    split: Split = None,
    stand_in_seed: Annotated[
        int | None, typer.Option(min=1, help="Render a fresh stand-in split from this seed (never ranked).")
    ] = None,
    option: Options = None,
    checkpoint: Checkpoint = None,
    boxes: Annotated[
        Path | None, typer.Option(help="Boxes (JSONL, Parquet) instead of the data set's, where the task grants any.")
    ] = None,
    results: Results = None,
    save_predictions: Annotated[bool, typer.Option(help="Keep the predicted id maps, for `replay`.")] = False,
    floors: Annotated[bool, typer.Option(help="Compute cheap floors where no stored result fits.")] = False,
    pictures: Annotated[bool, typer.Option(help="Draw the best, median and worst images.")] = True,
    force: Annotated[bool, typer.Option(help="Compute again even if this result is finished.")] = False,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Score a model on a task, beside floors and ceiling; `all` or names with commas score several of either."""
    go_offline(offline)
    plan: dict[str, Any] = {
        "data_root": data_root,
        "limit": limit,
        "noise_seeds": parse_seeds(seeds),
        "device": device,
        "batch_size": batch_size,
        "split": split,
        "stand_in_seed": stand_in_seed,
        "options": parse_options(option),
        "checkpoint": checkpoint,
        "boxes": boxes,
    }
    if several(model, task):
        from .matrix import evaluate_matrix, exit_code_of, expand

        with own_stdout(json):
            cells = evaluate_matrix(
                expand(model, "model"),
                expand(task, "task"),
                results=results,
                force=force,
                save_predictions=save_predictions,
                say=say,
                **plan,
            )
        print_matrix(cells, json)
        raise typer.Exit(exit_code_of(cells))
    from .report.evaluation import evaluate_and_report

    with own_stdout(json):
        report = evaluate_and_report(
            model,
            task,
            results=results,
            save_predictions=save_predictions,
            force=force,
            floors=floors,
            pictures=pictures,
            say=say,
            **plan,
        )
    print_result(report.result, json, report.references, report.paths)
    if not json:
        typer.echo(f"next: {report.next_command}")
    raise typer.Exit(exit_code(report.result))


@app.command("list")
def list_names(
    what: Annotated[What | None, typer.Argument(help="By default tasks and models.")] = None, json: Json = False
) -> None:
    """List tasks, models or metrics."""
    from .registry import model_names, task_names

    names: dict[str, list[str]] = {}
    if what in (None, What.tasks):
        names["tasks"] = task_names()
    if what in (None, What.models):
        names["models"] = model_names()
    if what is What.metrics:
        from .metrics import metric_names

        names["metrics"] = metric_names()
    if json:
        print_json(names[what.value] if what else names)
        return
    for kind, entries in names.items():
        if what is None:
            typer.echo(f"{kind}:")
        for entry in entries:
            typer.echo(entry if what else f"  {entry}")


@app.command()
def show(
    card: Annotated[str, typer.Argument(help="Name of a task or a model, or the path of a task card.")],
    json: Json = False,
) -> None:
    """Show a card: protocol, signature, data layout, weights and what they saw."""
    from .console import make_console, print_model, print_task
    from .registry import find_card
    from .spec import TaskSpec

    found = find_card(card)
    if json:
        print_json(found.model_dump(mode="json"))
    elif isinstance(found, TaskSpec):
        print_task(make_console(), found)
    else:
        print_model(make_console(), found)


@app.command("check-model")
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

    from .check_model import check_model
    from .console import make_console, print_checks

    with own_stdout(json):
        checks = check_model(model, task, checkpoint=checkpoint, options=parse_options(option), device=device)
    if json:
        print_json([asdict(entry) for entry in checks])
    else:
        print_checks(make_console(), model, checks)
    failed = [entry for entry in checks if not entry.passed]
    if not failed and not json:
        typer.echo(f"next: ocl-bench eval --model {model} --task {task} --limit 64")
    raise typer.Exit(2 if failed else 0)


@app.command()
def score(
    task: TaskName,
    masks: Annotated[Path, typer.Option(help="Folder of <sample id>.png, .npz with truth, or COCO results .json.")],
    name: Annotated[str, typer.Option(help="Name under which the result is written.")] = "supplied-masks",
    data_root: DataRoot = None,
    limit: Limit = None,
    split: Split = None,
    results: Results = None,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Score masks that exist already; no model needed."""
    go_offline(offline)
    from .score import score_masks

    result = score_masks(
        task, masks, name=name, data_root=data_root, limit=limit, split=split, results=results, say=say
    )
    print_result(result, json)
    raise typer.Exit(exit_code(result))


@app.command()
def replay(
    run: Annotated[Path, typer.Argument(help="Result JSON of an evaluation with --save-predictions.")],
    task: Annotated[str | None, typer.Option(help="Task card of the run, when it is not a bundled one.")] = None,
    data_root: DataRoot = None,
    json: Json = False,
) -> None:
    """Score the saved predictions of a run again; exit code 1 when a number differs."""
    from .score import replay as replay_run

    outcome = replay_run(run, task=task, data_root=data_root)
    print_result(outcome.now, json)
    if not outcome.equal:
        differences = ", ".join(f"{name} {value:+.3g}" for name, value in outcome.differences.items() if value)
        typer.echo(f"not the stored numbers: {differences}", err=True)
        raise typer.Exit(1)
    typer.echo("equal to the stored numbers", err=True)


@app.command()
def profile(
    model: ModelName,
    against: Annotated[str | None, typer.Option(help="Another model, measured in turns with it.")] = None,
    option: Options = None,
    against_option: Annotated[list[str] | None, typer.Option(help="key=value for the other; repeatable.")] = None,
    untrained: Annotated[bool, typer.Option("--untrained", help="Random weights where none are bundled.")] = False,
    device: Device = "auto",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16 (autocast).")] = "float32",
    threads: Annotated[int | None, typer.Option(min=1, help="Of torch; by default as in eval.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Clips or images in a pass.")] = 1,
    clip: Annotated[int, typer.Option(min=1, help="Frames of a clip, for models of videos.")] = 4,
    size: Annotated[int | None, typer.Option(min=8, help="Side of a frame; by default the model's own.")] = None,
    warmup: Annotated[int, typer.Option(min=0, help="Passes of each model that are not timed.")] = 2,
    repeats: Annotated[int, typer.Option(min=2, help="Timed passes of each model.")] = 20,
    streaming: Annotated[bool, typer.Option("--streaming", help="Frame by frame, with the state so far.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the ratio of times as a figure for `claims`.")] = None,
    json: Json = False,
) -> None:
    """What a model costs: parameters, FLOPs, time, memory; alone or against another (docs/profile.md)."""
    import sys

    from .machine import choose_device, thread_count
    from .profiling import Setup, Side, profile_models, write_figure

    setup = Setup(
        choose_device(device), dtype, threads or thread_count(), batch, clip, size, streaming, warmup, repeats
    )
    sides = [Side(model, parse_options(option), untrained)]
    if against is not None:
        sides.append(Side(against, parse_options(against_option), untrained))
    elif against_option or out:
        raise UsageError("--against-option and --out need --against MODEL")
    with own_stdout(json):
        found = profile_models(sides, setup, say=say)
    if json:
        print_json(found.to_dict())
    else:
        from .console import make_console
        from .report.profile import print_profile

        print_profile(make_console(), found)
    if out is not None:
        say(f"written: {write_figure(out, found, sys.argv[1:])}")


@app.command()
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
    from .console import make_console, print_tuning
    from .tune import parse_values
    from .tune import tune as tune_option

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
    typer.echo(f"next: ocl-bench eval --model {model} --task {task} --option {key}={outcome['best']}")


@app.command()
def train(
    model: ModelName,
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="Whose protocol validates; by default the card's.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the whole training, not of this visit.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Stop this visit after N minutes; go on later.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Training seed.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder; by default runs/<model>-seed<seed>.")] = None,
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
        Path | None, typer.Option(help="Train on the task's images in this folder instead of scenes (slotcon).")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on from OUT/last.pt where there is one.")] = True,
    json: Json = False,
) -> None:
    """Train a model by the recipe of its card, or go on with a training that was stopped."""
    from .training import train as train_model

    with own_stdout(json):
        record = train_model(
            model,
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
        )
    if not record["main_rank"]:
        return
    if json:
        print_json(record)
        return
    for name, value in record["numbers"].items():
        typer.echo(f"{name}: {value:.4f}")
    typer.echo(f"{record['steps']} of {record['recipe']['steps']} steps; written: {record['weights']}")
    typer.echo(f"next: {record['next']}")


@app.command()
def leaderboard(
    task: Annotated[str | None, typer.Option("--task", "-t", help="One task; by default all.")] = None,
    results: Annotated[
        list[Path] | None,
        typer.Option(help="Folder with results; repeatable. By default the committed ones and yours."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the tables go.")] = Path("leaderboards"),
    committed: Annotated[
        bool, typer.Option("--committed", help="Only committed results: the tables to commit.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 when a committed table is old.")
    ] = False,
    by: Annotated[str | None, typer.Option(help="Split the images: objects, size or occlusion.")] = None,
    json: Json = False,
) -> None:
    """Build one table per task (CSV, Markdown) from results and published rows."""
    from .leaderboard import build_leaderboard, default_folders, stale_files

    if check:
        stale = stale_files()
        if json:
            print_json({"stale": stale})
        for name in stale:
            typer.echo(
                f"{name} is not what the committed results give; run: ocl-bench leaderboard --committed", err=True
            )
        raise typer.Exit(1 if stale else 0)
    written = build_leaderboard(default_folders()[:1] if committed else results, out, task, by=by)
    if json:
        print_json({"written": [str(path) for path in written]})
        return
    for path in written:
        typer.echo(f"written: {path}")
    typer.echo(f"next: less {next(path for path in written if path.suffix == '.md')}")


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="A model (all its training seeds), name:SEED, or result files.")],
    b: Annotated[str, typer.Argument(help="The other one; differences are a minus b.")],
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="Tasks with commas; by default all that both have results on.")
    ] = None,
    metrics: Annotated[str | None, typer.Option(help="With commas, or all; by default the main metric.")] = None,
    results: Annotated[
        list[Path] | None,
        typer.Option(help="Folder with results; repeatable. By default the committed ones and yours."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Draw the differences into this PNG.")] = None,
    json: Json = False,
) -> None:
    """Is one model better than another? Paired intervals and tests on the images of both (docs/compare.md)."""
    from .comparison import compare as compare_methods
    from .report.comparison import print_comparisons, write_comparison

    with own_stdout(json):
        found = compare_methods(a, b, task, metrics, results=results)
    if json:
        print_json({"a": a, "b": b, "comparisons": [one.to_dict() for one in found]})
    else:
        from .console import make_console

        print_comparisons(make_console(), found)
    if out is not None:
        say(f"written: {write_comparison(out, found)}")


@app.command()
def claims(
    results: Annotated[
        list[Path] | None, typer.Option(help="Folder with results; repeatable. By default the committed ones only.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for claims.md.")] = Path("leaderboards"),
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 when the committed claims.md is old.")
    ] = False,
    json: Json = False,
) -> None:
    """What the papers claim, and which of it holds here: a verdict by rule from results."""
    from .claims import judge_all
    from .report.claims import is_current, print_claims, write_claims

    with own_stdout(json):
        papers = judge_all(results)
    if json:
        print_json([{"method": one.method, "claims": [entry.to_dict() for entry in found]} for one, found, _ in papers])
    else:
        from .console import make_console

        print_claims(make_console(), papers)
    if check:
        current = is_current(papers)
        say("claims.md is up to date" if current else "claims.md is not what the results give; run: ocl-bench claims")
        raise typer.Exit(0 if current else 1)
    say(f"written: {write_claims(papers, out)}")


@app.command()
def regress(
    baseline: Annotated[Path | None, typer.Option(help="Folder with golden files; by default the bundled one.")] = None,
    task: Annotated[str | None, typer.Option("--task", "-t", help="Only golden files of this task.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Only golden files of this model.")] = None,
    candidate: Annotated[Path | None, typer.Option(help="Compare these results instead of evaluating again.")] = None,
    accept: Annotated[
        bool,
        typer.Option("--accept", help="Write what is measured into the golden files; a task and a model get a first."),
    ] = False,
    why: Annotated[str, typer.Option("--why", "--reason", help="Why the numbers changed; stored with --accept.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="Samples of a first golden file.")] = 64,
    absolute: Annotated[float, typer.Option(min=0, help="A first golden file: allowed fall of a metric.")] = 0.01,
    relative: Annotated[float, typer.Option(min=0, help="The same as a share of the value; the larger counts.")] = 0.01,
    annotations: Annotated[
        Annotations, typer.Option(help="github marks findings in the pull request; auto: where GITHUB_ACTIONS is set.")
    ] = Annotations.auto,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    json: Json = False,
) -> None:
    """The gate: measure the golden models again; exit code 1 when a metric fell (docs/ci.md)."""
    from .golden import Tolerance
    from .paths import bundled
    from .regression import regress as run_gate

    report = run_gate(
        baseline or bundled("leaderboards") / "golden",
        task=task,
        model=model,
        candidate=candidate,
        accept=accept,
        reason=why,
        device=device,
        limit=limit,
        tolerance=Tolerance(absolute=absolute, relative=relative),
    )
    print_gate(report, json, annotations)
    raise typer.Exit(1 if report.failed else 0)


@app.command()
def submit(
    run: Annotated[Path, typer.Argument(help="A result JSON, or the folder with it.")],
    out: Annotated[Path, typer.Option(help="Where the files for the pull request go.")] = Path("submission"),
    predictions: Annotated[bool, typer.Option("--predictions", help="Add the predictions that the run saved.")] = False,
    data_root: DataRoot = None,
    json: Json = False,
) -> None:
    """Validate a run and write the files for a pull request (docs/submit.md)."""
    from .submission import submit as submit_run

    with own_stdout(json):
        made = submit_run(run, out, predictions=predictions, data_root=data_root)
    if json:
        print_json({"files": [str(file) for file in made.files], **validation_content(made.validation)})
    else:
        print_validation(made.validation)
        for file in made.files:
            typer.echo(f"written: {file}")
        if made.next:
            typer.echo(f"next: {made.next}")
    raise typer.Exit(0 if made.files else 1)


@app.command()
def validate(
    files: Annotated[list[Path], typer.Argument(help="Result files (JSON); their rows lie beside them.")],
    predictions: Annotated[
        Path | None, typer.Option(help="Saved predictions of a single file; by default <stem>.predictions beside it.")
    ] = None,
    data_root: DataRoot = None,
    json: Json = False,
) -> None:
    """Check results against their rows and cards; exit code 1 when a number is not what its rows give."""
    from .validation import examine

    if predictions is not None and len(files) > 1:
        raise UsageError("--predictions belongs to one result; name one file")
    found, unreadable = [], []
    with own_stdout(json):
        for file in files:
            try:
                found.append(examine(file, predictions=predictions, data_root=data_root))
            except UsageError as error:
                unreadable.append(str(error))
                say(f"error: {error}")
            else:
                if not json:
                    print_validation(found[-1])
    if json:
        print_json({"results": [validation_content(one) for one in found], "unreadable": unreadable})
    raise typer.Exit(2 if unreadable else 0 if all(one.valid for one in found) else 1)


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Option(help="A SlotCon checkpoint, official or ours.")],
    to: Annotated[ExportTarget, typer.Option(help="Whose names the tensors get.")],
    out: Annotated[Path, typer.Option(help="torchvision: .safetensors or .pth; detectron2: .pkl.")],
) -> None:
    """Write SlotCon's teacher encoder for torchvision or detectron2, to fine-tune it there (docs/transfer.md)."""
    from .models.export import export_encoder, export_file, read_checkpoint

    number = len(export_encoder(read_checkpoint(checkpoint), to.value))
    typer.echo(f"written: {export_file(checkpoint, out, to.value)} ({number} tensors)")


@app.command()
def schema() -> None:
    """Print the JSON Schema of a result."""
    from .results import SCHEMA_FILE

    typer.echo(SCHEMA_FILE.read_text(encoding="utf-8"), nl=False)


def main() -> None:
    """Entry point of the console script `ocl-bench`."""
    app(prog_name="ocl-bench")


if __name__ == "__main__":
    main()

"""Verbs about results: boards, comparisons, claims, the gate, submissions. Each imports what it needs when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..core.errors import UsageError
from ..core.log import logger
from ..core.paths import results_root
from .options import (
    Annotations,
    DataRoot,
    Json,
    existing,
    out_file,
    out_folder,
    own_stdout,
    print_gate,
    print_json,
    print_line,
    print_next,
    print_validation,
    validation_content,
)

if TYPE_CHECKING:
    from ..tables.leaderboard.ranking import Board


def leaderboard(
    task: Annotated[str | None, typer.Option("--task", "-t", help="One task; by default all.")] = None,
    results: Annotated[
        list[Path] | None,
        typer.Option(help="Folder with results; repeatable. By default the committed ones and yours."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where the tables go; by default `leaderboards` in your results, not the committed folder.",
            callback=out_folder,
        ),
    ] = None,
    committed: Annotated[
        bool, typer.Option("--committed", help="Only committed results, into ./leaderboards: the tables to commit.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 when a committed table is old.")
    ] = False,
    by: Annotated[str | None, typer.Option(help="Split the images: objects, size or occlusion.")] = None,
    layout: Annotated[
        Literal["text", "latex", "badge"],
        typer.Option("--format", help="What is printed: text, LaTeX for a paper, or badges for the README of a model."),
    ] = "text",
    json: Json = False,
) -> None:
    """Build one table per task (CSV, Markdown) from results and published rows; print each best row."""
    from ..results.store import default_folders
    from ..tables.leaderboard.build import build_leaderboard, stale_files

    if check:
        stale = stale_files()
        if json:
            print_json({"stale": stale})
        for name in stale:
            typer.echo(
                f"{name} is not what the committed results give; run: ocl-bench leaderboard --committed", err=True
            )
        raise typer.Exit(1 if stale else 0)
    if layout != "text" and by is not None:
        raise UsageError(f"--format {layout} prints whole boards; leave out --by")
    folders = default_folders()[:1] if committed else existing(results)
    boards: list[Board] = []
    written = build_leaderboard(
        folders, out or _tables(committed), task, by=by, committed=committed, on_board=boards.append
    )
    if json:
        print_json({"written": [str(path) for path in written]})
        return
    if by is None:
        from ..tables.leaderboard.board_text import badges, latex_tables
        from .console import make_console, print_best, print_board

        if layout != "text":
            for board in boards:
                typer.echo((latex_tables if layout == "latex" else badges)(board))
        elif task is not None:
            print_board(make_console(), boards[0])
        else:
            print_best(make_console(), boards)
    for path in written:
        typer.echo(f"written: {path}", err=layout != "text")
    print_next(f"less {next(path for path in written if path.suffix == '.md')}", err=layout != "text")


def _tables(committed: bool) -> Path:
    """Where tables go unless `--out` says it. A table with anybody's results does not replace a committed one."""
    return Path("leaderboards") if committed else results_root() / "leaderboards"


def compare(
    methods: Annotated[
        list[str], typer.Argument(help="Two models (name, name:SEED, result file), or all seeds of one with --against.")
    ],
    against: Annotated[
        list[str] | None, typer.Option(help="The other method: names or files; differences are the first minus this.")
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="Tasks with commas; by default all that both have results on.")
    ] = None,
    metrics: Annotated[str | None, typer.Option(help="With commas, or all; by default the main metric.")] = None,
    results: Annotated[
        list[Path] | None,
        typer.Option(help="Folder with results; repeatable. By default the committed ones and yours."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Draw the differences into this PNG.", callback=out_file)] = None,
    json: Json = False,
) -> None:
    """Is one model better than another? Paired intervals and tests on the images of both (docs/compare.md)."""
    from ..core.plot_style import import_matplotlib
    from ..tables.comparison.compare import compare as compare_methods
    from ..tables.comparison.comparison_page import print_comparisons, write_comparison

    if not against and len(methods) != 2:
        raise UsageError(
            f"compare takes two methods, got {len(methods)}; "
            "with several files of a method write: compare A1 A2 A3 --against B1 B2 B3"
        )
    if out is not None:
        import_matplotlib()  # before anything is compared
    a, b = (methods, against) if against else (methods[:1], methods[1:])
    with own_stdout(json):
        found = compare_methods(a, b, task, metrics, results=existing(results))
    if json:
        print_json({"a": ",".join(a), "b": ",".join(b), "comparisons": [comparison.to_dict() for comparison in found]})
    else:
        from .console import make_console

        print_comparisons(make_console(), found)
    if out is not None:
        logger.info("written: %s", write_comparison(out, found))


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN [RUN2]", help="A result JSON, or the folder with it; or two, to compare."),
    ],
    out: Annotated[Path, typer.Option(help="The page.", callback=out_file)] = Path("report.html"),
    task: Annotated[str | None, typer.Option(help="Task card of the run, when it is not a bundled one.")] = None,
    data_root: DataRoot = None,
    json: Json = False,
) -> None:
    """Write one HTML page about a run: its numbers, every sample, and what the model does wrong (docs/report.md)."""
    from ..pages.report.build import report as write_report

    if len(runs) > 2:
        raise UsageError(f"report takes one run or two, got {len(runs)}")
    with own_stdout(json):
        page = write_report(*runs, out=out, task=task, data_root=data_root)
    if json:
        print_json({"page": str(page)})
    else:
        typer.echo(f"written: {page}")


def claims(
    results: Annotated[
        list[Path] | None, typer.Option(help="Folder with results; repeatable. By default the committed ones only.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for claims.md; by default ./leaderboards, with --results that in your results.",
            callback=out_folder,
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 when the committed claims.md is old.")
    ] = False,
    json: Json = False,
) -> None:
    """What the papers claim, and which of it holds here: a verdict by rule from results."""
    from ..tables.comparison.claims import judge_all
    from ..tables.comparison.claims_page import is_current, print_claims, write_claims

    with own_stdout(json):
        papers = judge_all(existing(results))
    if json:
        print_json(
            [{"method": paper.method, "claims": [entry.to_dict() for entry in judged]} for paper, judged, _ in papers]
        )
    else:
        from .console import make_console

        print_claims(make_console(), papers)
    if check:
        current = is_current(papers)
        old = "claims.md is not what the results give; run: ocl-bench claims"
        logger.info("%s", "claims.md is up to date" if current else old)
        raise typer.Exit(0 if current else 1)
    logger.info("written: %s", write_claims(papers, out or _tables(results is None)))


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
    from ..core.paths import bundled
    from ..tables.gate.golden import Tolerance
    from ..tables.gate.regression import regress as run_gate

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


def submit(
    run: Annotated[Path, typer.Argument(help="A result JSON, or the folder with it.")],
    out: Annotated[Path, typer.Option(help="Where the files for the pull request go.", callback=out_folder)] = Path(
        "submission"
    ),
    predictions: Annotated[bool, typer.Option("--predictions", help="Add the predictions that the run saved.")] = False,
    data_root: DataRoot = None,
    json: Json = False,
) -> None:
    """Validate a run and write the files for a pull request (docs/submit.md)."""
    from ..tables.validation.submission import submit as submit_run

    with own_stdout(json):
        submission = submit_run(run, out, predictions=predictions, data_root=data_root)
    if json:
        print_json({"files": [str(file) for file in submission.files], **validation_content(submission.validation)})
    else:
        print_validation(submission.validation)
        for file in submission.files:
            typer.echo(f"written: {file}")
        if submission.next:
            print_line(f"next: {submission.next}")
    raise typer.Exit(0 if submission.files else 1)


def validate(
    files: Annotated[list[Path], typer.Argument(help="Result files (JSON); their rows lie beside them.")],
    task: Annotated[str | None, typer.Option(help="Task card of the results, when it is not a bundled one.")] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Saved predictions of a single file; by default <stem>.predictions beside it.")
    ] = None,
    data_root: DataRoot = None,
    json: Json = False,
) -> None:
    """Check results against their rows and cards; exit code 1 when a number is not what its rows give."""
    from ..tables.validation.examine import examine

    if predictions is not None and len(files) > 1:
        raise UsageError("--predictions belongs to one result; name one file")
    validations, unreadable = [], []
    with own_stdout(json):
        for file in files:
            try:
                validations.append(examine(file, task=task, predictions=predictions, data_root=data_root))
            except UsageError as error:
                unreadable.append(str(error))
                typer.echo(f"error: {error}", err=True)
            else:
                if not json:
                    print_validation(validations[-1])
    if json:
        print_json({"results": list(map(validation_content, validations)), "unreadable": unreadable})
    raise typer.Exit(2 if unreadable else 0 if all(validation.valid for validation in validations) else 1)


def schema() -> None:
    """Print the JSON Schema of a result."""
    from ..results.record import SCHEMA_FILE

    typer.echo(SCHEMA_FILE.read_text(encoding="utf-8"), nl=False)


def cite(
    names: Annotated[list[str], typer.Argument(help="Models and tasks, or their cards; `all` for every bundled one.")],
) -> None:
    """Print BibTeX: the suite, the papers of models, those of tasks and data sets."""
    from ..results.citations import citations

    found = citations(names)
    typer.echo("\n\n".join(found.entries))
    for reference in found.unknown:
        typer.echo(f"no BibTeX here for: {reference}", err=True)
    for name in found.own:
        print_line(
            f"{name} names no paper: cite the suite, and the paper of your data or model if there is one", err=True
        )

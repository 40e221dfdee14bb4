"""Tables have lines on a terminal; in a file or a pipe they are columns between tabs."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text
from typer.testing import CliRunner

from ocl_bench import read_result
from ocl_bench.cli import app
from ocl_bench.cli.console import make_console
from ocl_bench.core.paths import bundled


def test_a_table_in_a_pipe_has_neither_lines_nor_padding(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(title="a title", title_justify="left")
    table.add_column("model")
    table.add_column("mbo_fg ↑\nn = 64", justify="right")
    table.add_row("[bold]mine[/]", "0.5", end_section=True)
    table.add_row(Text("[odd]"), "0.25")
    console = make_console()
    assert not console.is_terminal
    console.print(table)
    console.print("a line")
    assert capsys.readouterr().out == "a title\nmodel\tmbo_fg ↑ n = 64\nmine\t0.5\n[odd]\t0.25\na line\n"


@pytest.mark.parametrize(
    ("arguments", "row"),
    [
        (["show", "clevrtex"], "input\t128"),
        (["check-model", "-m", "grid"], "input unchanged\tpass\tbatch.image is as it was\t"),
        (["train", "--suite", "embedded", "--dry-run"], "model\tseed\tsteps\timages\tminutes\tneeds\tstate"),
    ],
)
def test_verbs_print_tables_that_scripts_can_read(arguments: list[str], row: str) -> None:
    run = CliRunner().invoke(app, arguments)
    assert run.exit_code == 0, run.output
    assert row in run.stdout.splitlines()
    assert not set("┏━┃┡└") & set(run.stdout)


def test_leaderboard_prints_the_best_row_of_each_board(tmp_path: Path) -> None:
    (tmp_path / "clevrtex").mkdir()
    for name in ("dias", "dinosaur", "grid"):
        for file in bundled("leaderboards").glob(f"results/clevrtex/{name}.*"):
            shutil.copy(file, tmp_path / "clevrtex")
    run = CliRunner().invoke(app, ["leaderboard", "--results", str(tmp_path), "--out", str(tmp_path / "tables")])
    assert run.exit_code == 0, run.output
    lines = [line.split("\t") for line in run.stdout.splitlines() if "\t" in line]
    assert lines[0] == ["task", "data", "supervision", "best", "metric", "value"]
    rows = {task: cells for task, *cells in lines[1:]}
    value = read_result(tmp_path / "clevrtex" / "dias.json").value("mbo_fg")
    assert rows["clevrtex"][:4] == ["embedded", "boxes", "dias", "mbo_fg"] and value is not None
    assert rows["clevrtex"][4].startswith(f"{value:.3f} [")
    others = {tuple(cells[:3]) for task, cells in rows.items() if task != "clevrtex"}
    assert others <= {("-", "-", "-")}


def test_leaderboard_prints_badges_for_the_readme_of_a_model(tmp_path: Path) -> None:
    """Floors and ceilings have no rank and no badge. Dashes of names are doubled, as the service asks for."""
    results = bundled("leaderboards") / "results"
    arguments = ["leaderboard", "-t", "clevrtex", "--results", str(results), "--out", str(tmp_path)]
    run = CliRunner().invoke(app, [*arguments, "--format", "badge"])
    lines = run.stdout.splitlines()
    (line,) = [line for line in lines if line.startswith("![dias (3 seeds), ")]
    text, _, address = line.partition("](")
    about = r"rank 1 of \d, mbo_fg 0\.701 \(embedded data, supervision: boxes\)"
    assert re.fullmatch(rf"!\[dias \(3 seeds\), ocl-bench clevrtex v1: {about}", text)
    assert address.startswith("https://img.shields.io/badge/ocl--bench_clevrtex_v1-rank_1_of_")
    assert address.endswith("-blue)") and "mbo__fg_0.701" in address and " " not in address
    assert not any("grid" in line or "oracle" in line for line in lines)
    refused = CliRunner().invoke(app, [*arguments, "--format", "badge", "--by", "size"])
    assert refused.exit_code == 2 and "--format badge prints whole boards; leave out --by" in refused.output


def test_leaderboard_prints_latex_for_a_paper(tmp_path: Path) -> None:
    """Only LaTeX on stdout, so that it can go into a file; all metrics, as a page is wider than a terminal."""
    results = bundled("leaderboards") / "results"
    arguments = [
        "leaderboard",
        "-t",
        "clevrtex",
        "--results",
        str(results),
        "--out",
        str(tmp_path),
        "--format",
        "latex",
    ]
    run = CliRunner().invoke(app, arguments)
    assert run.exit_code == 0, run.output
    lines = run.stdout.splitlines()
    assert lines[0] == "% clevrtex v1, ranked by mbo_fg" and lines[1].startswith("% embedded data, supervision: ")
    assert lines[2].startswith("% signature: crop:center-0.8|"), "a number is comparable with its protocol only"
    assert run.stdout.count(r"\begin{tabular}{lr") == run.stdout.count("% embedded data, ") > 1
    heads = [line for line in lines if line.startswith("model & rank & mbo")]
    assert heads and all(r"fg\_ari & " in head and r"miou\_clevrtex" in head for head in heads)
    value = read_result(results / "clevrtex" / "grid.json").value("mbo_fg")
    assert any(line.startswith("grid & floor") and f" & {value:.3f} [" in line for line in lines)
    assert run.stdout.isascii(), "pdflatex reads it"
    assert "written: " in run.stderr and (tmp_path / "clevrtex.csv").is_file()

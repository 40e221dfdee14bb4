"""Reports on the site: found by the key that they state, copied with their pictures, linked in the row."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
from results_for_boards import image_values, write
from typer.testing import CliRunner

from ocl_bench.cli import app
from ocl_bench.pages.report.build import report
from ocl_bench.pages.site import build
from ocl_bench.results.record import Result


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Result]:
    """Two models, one of them a mean of two training seeds, and one that is on no board."""
    monkeypatch.setattr(build, "all_tasks", lambda *_: ["clevrtex"])
    results = tmp_path / "results"
    # Official data that are not there: a report of them renders nothing.
    own = {"model__card": "", "data__kind": "official"}
    dias = own | {"model__card": "dias", "model__supervision": "boxes"}
    seeds = [write(results, f"dias:{seed}", image_values(0.6, seed), seed=seed, **dias) for seed in (0, 1)]
    return [
        write(results, "m", image_values(0.5), **own),
        *seeds,
        write(tmp_path / "other", "gone", image_values(0.4), **own),
    ]


def site(tmp_path: Path, *arguments: str) -> tuple[int, str]:
    command = ["site", "--results", str(tmp_path / "results"), "--out", str(tmp_path / "site"), "--no-pictures"]
    outcome = CliRunner().invoke(app, [*command, *arguments])
    return outcome.exit_code, outcome.output


def links(page: Path) -> list[tuple[str, str]]:
    found = re.findall(r'<a href="([^"]+)">([^<]*)</a>', page.read_text(encoding="utf-8"))
    return [(text, address) for address, text in found if text.startswith("report")]


def test_a_report_is_copied_and_linked_in_the_row_of_its_result(
    tmp_path: Path, runs: list[Result], caplog: pytest.LogCaptureFixture
) -> None:
    reports = tmp_path / "reports"
    plain, first, _, gone = runs
    report(plain, out=reports / "my run #1.html", progress=False)
    report(plain, first, out=reports / "a pair.html", progress=False)
    report(gone, out=reports / "gone.html", progress=False)
    (reports / "my run #1.files").mkdir()
    (reports / "my run #1.files" / "part-000.html").write_text("pictures")
    (reports / "notes.html").write_text("<p>no report</p>")
    with caplog.at_level(logging.WARNING, logger="ocl_bench"):
        code, output = site(tmp_path, "--reports", str(reports))
    assert code == 0, output
    assert links(tmp_path / "site/tasks/clevrtex-v1.html") == [
        ("report", "../reports/my%20run%20%231.html"),
        ("report", "../reports/a%20pair.html"),
    ]
    assert links(tmp_path / "site/models/dias.html") == [("report of seed 0", "../reports/a%20pair.html")]
    copied = sorted(
        path.relative_to(tmp_path / "site/reports").as_posix() for path in tmp_path.glob("site/reports/**/*.html")
    )
    assert copied == ["a pair.html", "my run #1.files/part-000.html", "my run #1.html"]
    assert "notes.html: states no key" in caplog.text and "gone.html: its result is on no board" in caplog.text


def test_without_reports_no_row_links_one(tmp_path: Path, runs: list[Result]) -> None:
    code, output = site(tmp_path)
    assert code == 0, output
    assert links(tmp_path / "site/tasks/clevrtex-v1.html") == []
    assert not (tmp_path / "site/reports").exists()


def test_a_missing_folder_is_said_before_anything_is_written(tmp_path: Path, runs: list[Result]) -> None:
    code, output = site(tmp_path, "--reports", str(tmp_path / "nowhere"))
    assert code == 3 and "there is no such folder" in output
    assert not (tmp_path / "site").exists()

"""What is said beside a result goes through the logger `ocl_bench`: plain lines, each once, and one for every wait."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator

import pytest

from ocl_bench.core.log import logger, print_on_stderr, progress_bar


class Terminal(io.StringIO):
    """A stream that says that somebody watches it."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before, level = list(logger.handlers), logger.level
    yield
    logger.handlers[:] = before
    logger.setLevel(level)


def test_the_command_line_prints_each_line_once(capsys: pytest.CaptureFixture[str]) -> None:
    print_on_stderr()
    for _ in range(2):
        logger.info("data: %s", "embedded")
    logger.warning("left out: 1 of 9")
    logger.debug("nobody asked")
    captured = capsys.readouterr()
    assert captured.err.splitlines() == ["data: embedded", "left out: 1 of 9"] and captured.out == ""


def test_another_command_in_the_same_process_says_it_again(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        print_on_stderr()
        logger.info("data: embedded")
    assert capsys.readouterr().err.splitlines() == ["data: embedded"] * 2


def test_markup_in_a_name_is_text_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "dumb")
    print_on_stderr()
    logger.info("model %s", "[/b]")
    assert "model [/b]" in terminal.getvalue()


def test_a_python_user_captures_and_filters_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="ocl_bench"):
        logger.info("data: embedded")
        logger.warning("left out: 1 of 9")
    assert [(record.name, record.message) for record in caplog.records] == [("ocl_bench", "left out: 1 of 9")]


def test_where_nobody_watches_a_long_preparation_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="ocl_bench"):
        with progress_bar("rendering full/test", 512, unit="scenes") as advance:
            advance(512)
        with progress_bar("nothing to do", 0), progress_bar("not asked for", 9, enabled=False):
            pass
    assert [record.message for record in caplog.records] == ["rendering full/test: 512 scenes"]

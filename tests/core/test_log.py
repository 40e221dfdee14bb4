"""What is said beside a result goes through the logger `ocl_bench`: plain lines, each once, and one for every wait."""

from __future__ import annotations

import io
import logging
import re
import sys
import time
from collections.abc import Iterator

import pytest

from ocl_bench.core import log
from ocl_bench.core.log import duration, logger, print_on_stderr, progress_bar, quiet


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


def test_a_log_gets_a_line_again_and_again_also_while_a_step_takes_long(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "_EVERY", 0.02)
    monkeypatch.setattr(log, "_SETTLED", 0.0)

    def wait_for(text: str) -> None:
        end = time.monotonic() + 10
        while not any(record.message.startswith(text) for record in caplog.records):
            assert time.monotonic() < end, [record.message for record in caplog.records]
            time.sleep(0.005)

    with caplog.at_level(logging.INFO, logger="ocl_bench"):
        with progress_bar("rendering", 400, unit="scenes") as advance:
            wait_for("rendering: 0 of 400 scenes, 0 %")
            advance(100)
            wait_for("rendering: 100 of 400 scenes, 25 %, ")
        number = len(caplog.records)
        time.sleep(0.1)
    assert len(caplog.records) == number, "nothing is said any more"
    messages = [record.message for record in caplog.records]
    assert messages[:2] == ["rendering: 400 scenes", "rendering: 0 of 400 scenes, 0 %"] and messages[-1].endswith(
        " left"
    )


def test_what_was_there_already_does_not_count_as_speed(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that goes on finds most of its shards at once; the rest is not finished as fast."""
    monkeypatch.setattr(log, "_EVERY", 0.2)
    monkeypatch.setattr(log, "_SETTLED", 0.05)
    with caplog.at_level(logging.INFO, logger="ocl_bench"), progress_bar("model", 1000, unit="images") as advance:
        advance(990)
        time.sleep(0.4)
    line = next(record.message for record in caplog.records if "990" in record.message)
    assert line == "model: 990 of 1000 images, 99 %"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (130, "2 min 10 s"), (3900, "1 h 05 min")]
)
def test_durations_are_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_terminal_is_told_how_much_time_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with progress_bar("slotcontrast on [ytvis]", 4) as advance:
        advance(1)
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue()).replace("\r", "\n").splitlines()
    bar = next(line for line in lines if " 25%" in line)
    assert bar.startswith("slotcontrast on [ytvis]") and bar.rstrip().endswith(" left") and len(bar) <= 80


def test_what_another_package_logs_is_kept_back_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    """The level of its logger is the one that it had before, also after an error."""
    other, part = logging.getLogger("other_package"), logging.getLogger("other_package.part")
    other.setLevel(logging.INFO)
    with pytest.raises(OSError, match="unreachable"), quiet("other_package"):
        part.warning("trying again in 1 s")
        raise OSError("unreachable")
    part.warning("heard")
    assert [record.message for record in caplog.records] == ["heard"] and other.level == logging.INFO

"""Write the figures of boards and of runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...cards.task import TaskSpec
from ...core.log import logger
from ...core.plot_style import FORMATS, import_matplotlib, save_figure, style
from ...results.published import published_folder
from ...results.store import default_folders
from ...tables.leaderboard.build import all_tasks, make_board
from .boards import board_figures
from .runs import run_figures


def build_figures(
    out: str | Path,
    *,
    tasks: Sequence[str] | None = None,
    runs: Sequence[str | Path] = (),
    results: Sequence[str | Path] | None = None,
    card: str | Path | TaskSpec | None = None,
    data_root: str | Path | None = None,
) -> list[Path]:
    """Write every figure of boards, and pictures of runs, as PDF, SVG and PNG.

    Args:
        out: folder of the figures.
        tasks: boards to draw; by default all, or none where `runs` are given.
        runs: results with saved predictions, whose best, median and worst samples are drawn.
        results: folders with results; by default the committed ones and the user's.
        card: of the task of the runs, when it is not a bundled one.
        data_root: folder of the data set of the runs.

    Returns:
        Paths of the figures.

    Raises:
        UsageError: an unknown task, a run without predictions or data, or matplotlib is not installed.
    """
    import_matplotlib()  # before runs and boards are read
    out, folders = Path(out), default_folders() if results is None else [Path(folder) for folder in results]
    if tasks is None:
        tasks = [] if runs else all_tasks(folders, published_folder())
    written = []
    for run in runs:
        root = Path(data_root) if data_root is not None else None
        written += run_figures(Path(run), out, FORMATS, card, root)
    for task in tasks:
        logger.info("figures of %s", task)
        with style():
            for name, figure in board_figures(make_board(folders, task)):
                written += [save_figure(figure, out / f"{task}-{name}.{kind}", 300) for kind in FORMATS]
    return written

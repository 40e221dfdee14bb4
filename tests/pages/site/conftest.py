"""A small site: one task with made-up results, one of them with a hostile name, and the committed published rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from results_for_boards import N, image_values, write

from ocl_bench.pages.site.build import copy_sources, pages_of, result_files
from ocl_bench.pages.site.build import write as write_to
from ocl_bench.results.published import load_all
from ocl_bench.tables.leaderboard.build import make_board

NASTY = "<script>alert(1)</script>"


@pytest.fixture(scope="session")
def small_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a site with the tasks clevrtex (measured) and coco-dias-v3 (published)."""
    root = tmp_path_factory.mktemp("site")
    results = root / "results"
    for seed in range(3):
        write(results, f"dias:{seed}", image_values(0.6, seed), seed=seed, model__card="dias")
    write(results, NASTY, image_values(0.5, 7), stem="nasty")
    write(results, "near", image_values(0.599, 8), model__parameters=1000, model__card="")
    write(results, "boxed", image_values(0.4, 9), model__supervision="boxes")
    write(results, "grid", image_values(0.3, 4), role="floor", model__card="grid")
    write(results, "oracle", np.full(N, 0.98), role="ceiling", model__privilege="truth", model__card="oracle")
    write(results, "there", image_values(0.45, 3), data__kind="official")
    boards = [make_board([results], "clevrtex"), make_board([], "coco-dias-v3")]
    copy_sources(boards, result_files(boards, [results]), root / "out")
    for page in pages_of(boards, load_all(), [results], pictures=False):
        write_to(page, root / "out")
    return root / "out"

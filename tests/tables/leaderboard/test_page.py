"""Boards as Markdown: six columns, official and published rows first, seeds folded, links that lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from results_for_boards import N, board_of, image_values, write

from ocl_bench.core.paths import bundled
from ocl_bench.results.papers import find_paper, load_papers, source_address
from ocl_bench.results.published import load_all
from ocl_bench.tables.leaderboard.board_page import to_markdown
from ocl_bench.tables.leaderboard.build import make_board
from ocl_bench.tables.leaderboard.index_page import index_page
from ocl_bench.tables.leaderboard.shown import folded_published

BOARDS = sorted(path for path in bundled("leaderboards").glob("*.md") if path.with_suffix(".csv").is_file())
NASTY = "<script>alert(1)</script>"


def tables(page: str) -> list[list[list[str]]]:
    """Cells of every table of a page, heads included."""
    blocks = re.findall(r"(?:^\|.*\|\n)+", page, re.MULTILINE)
    rows = [[re.split(r"(?<!\\)\|", line)[1:-1] for line in block.splitlines()] for block in blocks]
    return [[[cell.strip() for cell in row] for row in block if set(row) != {"---"}] for block in rows]


@pytest.mark.parametrize("path", [*BOARDS, bundled("leaderboards") / "README.md"], ids=lambda path: path.stem)
def test_a_committed_page_has_at_most_six_columns_and_its_links_lead_somewhere(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    assert tables(page) or page.rstrip().endswith("No ranked results yet.")
    assert all(len(row) == len(table[0]) <= 6 for table in tables(page) for row in table)
    for target in re.findall(r"\]\((?!https://)([^)#]+)", page):
        assert (path.parent / target).is_file(), target


def test_official_rows_come_first_then_published_then_embedded(tmp_path: Path) -> None:
    write(tmp_path, "here", image_values(0.5))
    write(tmp_path, "there", image_values(0.6), data__kind="official")
    _, page = board_of(tmp_path, tmp_path / "out")
    places = [page.index(text) for text in ("| there |", "### Published numbers", "## Embedded data", "| here |")]
    assert places == sorted(places)


def test_training_seeds_are_folded_under_their_mean_and_their_files_stay_linked(tmp_path: Path) -> None:
    for seed in range(3):
        write(tmp_path, f"m:{seed}", image_values(0.5, seed), seed=seed)
    lines, page = board_of(tmp_path, tmp_path / "out")
    assert len(lines) == 4 and len(tables(page)[0]) == 2
    committed = to_markdown(make_board([tmp_path], "clevrtex"), committed=True)
    (_, row) = tables(committed)[0]
    assert row[1] == "m (3 seeds)"
    assert row[-1] == " · ".join(f"[{seed}](results/clevrtex/m-{seed}.json)" for seed in range(3))
    assert "](results/" not in page, "a page that lies elsewhere must not link files beside the committed boards"


def test_marks_and_counts_are_explained_below_the_table(tmp_path: Path) -> None:
    write(tmp_path, "good", image_values(0.6, 1))
    write(tmp_path, "twin", image_values(0.6, 2))
    write(tmp_path, "grid", image_values(0.2, 4), role="floor")
    write(tmp_path, "oracle", np.ones(N), role="ceiling", model__privilege="truth")
    _, page = board_of(tmp_path, tmp_path / "out")
    ranks = {row[1]: row[0] for row in tables(page)[0][1:]}
    assert (ranks["oracle"], ranks["grid"]) == ("ceiling", "floor")
    assert {ranks["good"], ranks["twin"]} == {"1 ●", "2 ●"}
    assert "● best, or not separable from the best (paired bootstrap over images); floor, ceiling: shown" in page
    assert f"[ ] 95 % interval over {N} images" in page
    assert "truth at inference" in page


def test_a_tag_in_the_name_of_a_model_stays_text(tmp_path: Path) -> None:
    write(tmp_path, NASTY, image_values(0.5), stem="nasty")
    write(tmp_path, f"{NASTY}2", image_values(0.4), stem="nasty2", data__limit=16)
    _, page = board_of(tmp_path, tmp_path / "out")
    assert "<script" not in page and page.count("&lt;script>") >= 2
    assert "<script" not in index_page([make_board([tmp_path], "clevrtex")])


def test_published_seeds_are_folded_under_their_mean() -> None:
    board = make_board([], "coco-dias-v3")
    entries = {row.model: [seed.model for seed in seeds] for row, seeds in folded_published(board)}
    assert entries["DIAS"] == ["DIAS (seed 42)", "DIAS (seed 43)", "DIAS (seed 44)"]
    assert not any("(seed 4" in name for name in entries)
    assert board.published is not None
    assert sum(1 + len(seeds) for seeds in entries.values()) == len(board.published.rows)


def test_comparable_rows_stand_apart_from_those_of_other_protocols() -> None:
    page = to_markdown(make_board([], "coco-dias-v3"))
    comparable, others = tables(page)[:2]
    assert {row[-1].rpartition("; ")[2] for row in comparable[1:]} == {"`dias-v3`"}
    assert {row[-1].rpartition("; ")[2] for row in others[1:]} == {"`dias-v1`"}
    assert "no: void pixels counted as background" in page


def test_every_published_row_and_every_paper_of_a_card_is_known() -> None:
    rows = [row for table in load_all().values() for row in table.rows]
    assert [row.paper for row in rows if find_paper(row.paper) is None] == []
    assert sum(bool(source_address(row)) for row in rows) > 0.8 * len(rows)
    keys = [paper.key for paper in load_papers()]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("Zhao et al., DIAS, ACM MM 2025, arXiv:2507.23755", "dias"),
        ("Singh et al., STEVE, arXiv:2205.14065; as printed by Manasyan et al., arXiv:2412.14295", "steve"),
        ("https://github.com/Genera1Z/SmoothSA", "smoothsa"),
        ("SlotCurri", "slotcurri"),
        ("Nobody et al., arXiv:9999.99999", None),
        ("", None),
    ],
)
def test_a_paper_is_found_by_number_code_or_name(text: str, key: str | None) -> None:
    paper = find_paper(text)
    assert (paper.key if paper else None) == key


def test_bibtex_has_what_is_known_and_nothing_else() -> None:
    entries = {paper.key: paper.bibtex for paper in load_papers()}
    assert entries["dias"].startswith("@inproceedings{dias2025,") and "eprint        = {2507.23755}" in entries["dias"]
    assert entries["odis"].startswith("@misc{odis2025,") and "booktitle" not in entries["odis"]
    assert entries["xssc"] == ""

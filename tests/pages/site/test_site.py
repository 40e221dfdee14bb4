"""The site as files: every link leads somewhere, everything is escaped, numbers are those of the boards."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from results_for_boards import N, image_values, taken_for_valid, write
from typer.testing import CliRunner

from ocl_bench.cards.names import get_card, get_task
from ocl_bench.cli import app
from ocl_bench.core.paths import bundled
from ocl_bench.metrics import compute
from ocl_bench.pages.site import build
from ocl_bench.pages.site.entries import Placed, _supervision
from ocl_bench.pages.site.examples import EXAMPLES
from ocl_bench.pages.site.plots import axis, band, history, interval_plot, scatter, short_number
from ocl_bench.pages.site.rows import Line, Section, Value, tabs_of
from ocl_bench.pages.site.strata_plots import strata_plots
from ocl_bench.pages.site.texts import to_html
from ocl_bench.pages.site.thumbnails import thumbnail
from ocl_bench.results.papers import find_paper
from ocl_bench.results.record import read_rows, write_result
from ocl_bench.tables.leaderboard.build import make_board
from ocl_bench.tables.leaderboard.shown import Link

NASTY = "<script>alert(1)</script>"


def pages(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


def line(name: str, value: float, role: str = "model", **changes: Any) -> Line:
    fields: dict[str, Any] = {
        "card": "",
        "kind": "embedded",
        "rank": "1",
        "tied": None,
        "supervision": "none",
        "privilege": "none",
        "paper": None,
        "source": Link("result", ""),
        "protocol": "",
    }
    return Line(name=name, role=role, values={"mbo_fg": Value(value, value - 0.02, value + 0.02)}, **(fields | changes))


def test_every_link_of_every_page_leads_somewhere(small_site: Path) -> None:
    found = 0
    for page in pages(small_site):
        html = page.read_text(encoding="utf-8")
        names = set(re.findall(r'id="([^"]+)"', html))
        for target in re.findall(r'<a [^>]*href="([^"]+)"', html):
            address, _, anchor = target.partition("#")
            if address.startswith("https://"):
                continue
            found += 1
            assert not address or (page.parent / address).is_file(), f"{page.name}: {target}"
            assert address or anchor in names, f"{page.name}: #{anchor}"
    assert found > 500


def test_a_tag_in_the_name_of_a_model_stays_text_on_every_page(small_site: Path) -> None:
    assert all("<script>alert" not in page.read_text(encoding="utf-8") for page in pages(small_site))
    task = (small_site / "tasks" / "clevrtex-v1.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in task


def test_a_page_loads_nothing_and_has_no_inline_style(small_site: Path) -> None:
    for page in pages(small_site):
        html = page.read_text(encoding="utf-8")
        assert not re.search(r'(?:src|<link [^>]*href)="(?!data:)', html), page
        assert not re.search(r'<[a-z]+ [^>]*(?:style|onclick)="', html), page


def test_a_table_has_the_numbers_of_the_csv(small_site: Path) -> None:
    with (small_site / "tables" / "clevrtex.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    html = (small_site / "tasks" / "clevrtex-v1.html").read_text(encoding="utf-8")
    rows = re.findall(r"<tr class=\"of-.*?</tr>", html, re.DOTALL)
    assert len(rows) == len(lines) == 10
    for metric in get_task("clevrtex").metrics:
        shown = sorted(
            round(float(one), 6) for one in re.findall(rf'data-column="{metric}" data-value="([^"]+)"', html)
        )
        assert shown == sorted(float(one[metric]) for one in lines)
    assert sum("data-seed hidden" in row for row in rows) == 3


def test_official_and_published_rows_come_first_and_seeds_are_folded(tmp_path: Path) -> None:
    for seed in range(3):
        write(tmp_path, f"m:{seed}", image_values(0.6, seed), seed=seed)
    write(tmp_path, "there", image_values(0.45, 3), data__kind="official")
    first, second = tabs_of(make_board([tmp_path], "clevrtex"))
    assert [one.name for one in first.lines] == ["there"]
    assert [(one.name, len(one.seeds)) for one in second.lines] == [("m (3 seeds)", 3)]
    published, _ = tabs_of(make_board([], "coco-dias-v3"))
    titles = [section.title for section in published.sections]
    assert titles[0].startswith("Published, comparable") and "not comparable" in titles[1]
    assert published.metrics[:2] == ("mbo_all", "ari_int64_legacy")


def test_rows_without_the_main_metric_are_sorted_by_what_they_have() -> None:
    published, _ = tabs_of(make_board([], "coco-detection"))
    for section in published.sections:
        values = [one.values["ap_mask"].value for one in section.lines]
        assert len(values) > 5 and values == sorted(values, reverse=True)


def test_a_table_of_printed_numbers_has_no_ranks_and_draws_only_spreads(small_site: Path) -> None:
    measured = (small_site / "tasks" / "clevrtex-v1.html").read_text(encoding="utf-8")
    printed = (small_site / "tasks" / "coco-dias-v3-v1.html").read_text(encoding="utf-8")
    assert '<td class="rank"' in measured and '<td class="rank"' not in printed
    assert '<svg class="whisker"' in printed, "DIAS prints a spread"
    alone = Section("", "", tuple(line(name, 0.3) for name in "abc"))
    assert interval_plot(alone, "mbo_fg", 1) is not None
    bare = [replace(one, values={"mbo_fg": Value(0.3)}) for one in alone.lines]
    assert interval_plot(Section("", "", tuple(bare)), "mbo_fg", 1) is None


def test_a_board_says_what_its_protocol_is(small_site: Path) -> None:
    html = (small_site / "tasks" / "clevrtex-v1.html").read_text(encoding="utf-8")
    assert "crop:center-0.8" in html and "truth label that is background and no object" in html
    assert "mean best IoU over truth objects" in html


def test_the_page_of_a_paper_says_under_which_protocol_each_number_stands(small_site: Path) -> None:
    html = (small_site / "papers" / "slotcontrast.html").read_text(encoding="utf-8")
    for data in ("MOVi-D, K = 21", "MOVi-C, K = 11", "YouTube-VIS 2022 as printed by SmoothSA"):
        assert data in html
    ytvis = html[html.index("YouTube-VIS 2022 as printed") :]
    assert ytvis.index("Not comparable: another task") < ytvis.index("0.352") < ytvis.index("</tbody>")


def test_supervision_that_only_results_know_stands_in_the_list_of_models() -> None:
    card = get_card("fps-features")
    boxes = line("fps-features", 0.5, "floor", supervision="boxes")
    assert card.supervision == "none" and _supervision(card, {}) == "none"
    assert _supervision(card, {"clevrtex": [Placed(boxes, 3)]}) == "boxes"


def test_verdicts_lead_to_the_page_of_claims(small_site: Path) -> None:
    html = (small_site / "models" / "dias.html").read_text(encoding="utf-8")
    claims = (small_site / "claims.html").read_text(encoding="utf-8")
    (place,) = re.findall(r'href="\.\./claims\.html#([^"]+)"', html)
    assert f'id="{place}"' in claims and "beyond merging slots at evaluation" in claims


def test_the_page_of_a_paper_folds_training_seeds(small_site: Path) -> None:
    html = (small_site / "papers" / "dias.html").read_text(encoding="utf-8")
    names = re.findall(r'<th scope="row">([^<]*)', html)
    assert "DIAS" in names and not [name for name in names if "(seed " in name]
    folded = re.findall(r"<summary>(\d) seeds</summary><ul>(.*?)</ul>", html)
    assert folded and all(items.count("<li>seed ") == int(count) > 1 for count, items in folded)


def test_floors_and_ceilings_become_bands_at_the_ends_of_the_axis() -> None:
    lines = (line("a", 0.5), line("f", 0.3, "floor"), line("g", 0.2, "floor"), line("c", 0.9, "ceiling"))
    section = Section("", "", lines)
    scale = axis(lines, "mbo_fg", 0, 100)
    assert (scale.low, scale.high) == (0.0, 1.0)
    assert [(one["role"], one["x"], one["width"]) for one in band(section, "mbo_fg", scale, 1)] == [
        ("floor", 0, 30),
        ("ceiling", 90, 10),
    ]
    # Where smaller is better, floors lie at the upper end.
    assert [one["role"] for one in band(section, "mbo_fg", scale, -1) if one["x"] == 20] == ["floor"]
    plot = interval_plot(section, "mbo_fg", 1)
    assert plot is not None and [row["line"].name for row in plot["rows"]] == ["a", "f", "g", "c"]
    assert interval_plot(Section("", "", lines[:2]), "mbo_fg", 1) is None


def test_an_axis_starts_at_zero_unless_all_numbers_lie_close_together() -> None:
    close = axis([line("a", 0.50), line("b", 0.52)], "mbo_fg", 0, 100)
    assert (close.low, close.high) == pytest.approx((0.48, 0.54))
    assert axis([line("a", 0.1), line("b", 0.5)], "mbo_fg", 0, 100).low == 0
    one = axis([line("a", 0.5)], "mbo_fg", 0, 100)
    assert one.high > one.low


def test_points_of_cost_are_logarithmic_and_labels_never_meet() -> None:
    rows = [line(f"model {k}", 0.3 + k / 100, facts={"parameters": str(10**k)}) for k in range(3, 8)]
    plot = scatter(rows, "mbo_fg", "parameters")
    assert plot is not None
    places = sorted(point["x"] for point in plot["points"])
    steps = [after - before for before, after in pairwise(places)]
    assert max(steps) - min(steps) < 0.3
    assert [tick["text"] for tick in plot["x_ticks"]] == ["1 k", "10 k", "100 k", "1 M", "10 M"]
    same = scatter([line(f"twin {k}", 0.5, facts={"parameters": "1000"}) for k in range(3)], "mbo_fg", "parameters")
    assert same is None
    assert [short_number(value) for value in (0.5, 20, 1000, 5e4, 2e6)] == ["0.5", "20", "1 k", "50 k", "2 M"]


def test_the_metric_on_strata_is_drawn_for_each_group_with_its_best_floor(tmp_path: Path) -> None:
    objects = np.arange(N) % 6
    for name, level, role in (("a", 0.6, "model"), ("b", 0.5, "model"), ("f", 0.3, "floor"), ("g", 0.2, "floor")):
        result = write(tmp_path, name, image_values(level), role=role)
        assert result.path is not None
        rows = read_rows(result.path).assign(n_objects=objects)
        taken_for_valid(write_result(result, rows, result.path.parent, stem=result.path.stem))
    (drawn,) = strata_plots(make_board([tmp_path], "clevrtex"))
    assert drawn["tab"] == "embedded" and [one["name"] for one in drawn["plot"]["drawn"]] == ["a", "b", "f"]
    values = image_values(0.6)
    expected = [values[(objects >= low) & (objects < low + 2)].mean() for low in (1, 3)]
    assert drawn["plot"]["lines"][0]["values"][1:3] == pytest.approx(expected, abs=1e-9)


def test_history_is_made_of_comparable_rows_with_a_year() -> None:
    papers = [find_paper(text) for text in ("arXiv:2110.11405", "arXiv:2209.14860", "arXiv:2507.23755")]
    rows = [line(f"m{k}", 0.3 - k / 100, paper=paper, comparable="yes") for k, paper in enumerate(papers)]
    plot = history([*rows, line("other", 0.9, paper=papers[0], comparable="no")], "mbo_fg", 1)
    assert plot is not None and len(plot["points"]) == 3
    assert all(point["rise"] > 6 for point in plot["points"]), "labels stand above the line of the best so far"
    assert len({y for _, y in plot["steps"]}) == 1, "later and worse rows do not lower the best so far"
    assert history(rows[:2], "mbo_fg", 1) is None


@pytest.mark.parametrize(
    "name", ["clevrtex", "clevrtex-camo", "clevrtex-ood", "coco-discovery", "movi-c", "imagenet-knn"]
)
def test_each_kind_of_scene_has_a_picture(name: str) -> None:
    assert thumbnail(get_task(name)).startswith("data:image/webp;base64,")


def test_examples_show_what_the_document_says() -> None:
    shown = {
        key: [choice["numbers"] for choice in example.content("x")["choices"]] for key, example in EXAMPLES.items()
    }
    assert shown["1."][1]["ari"] == "0.000" and float(shown["1."][1]["ari_int64_legacy"]) > 0.9
    assert shown["2."] == [{"fg_ari": "not defined", "mbo_fg": "not defined"}, {"fg_ari": "1.000", "mbo_fg": "1.000"}]
    assert shown["3."][0] == {"mbo_all": "0.250", "mbo_fg": "0.050", "miou_all": "0.212", "miou_fg": "0.026"}
    assert shown["4."] == [{"fg_ari": "1.000", "mbo_fg": "1.000"}, {"fg_ari": "0.000", "mbo_fg": "0.984"}]
    assert shown["5."][1] == {"mbo_fg": "0.600", "mbo_all": "0.800", "ari": "1.000"}
    assert shown["6."][1] == {"miou_fg": "1.000", "miou_all": "0.926", "miou_clevrtex": "0.555"}
    assert shown["7."][0] == {"mbo_fg": "0.667", "mbo_class": "1.000"}
    assert shown["9."] == [{"ari": "1.000"}, {"ari": "-0.008"}]
    assert shown["10."] == [{"fg_ari": "1.000", "mbo_fg": "1.000"}, {"fg_ari": "-0.003", "mbo_fg": "0.333"}]
    soft, enlarged, centre, corner = (float(one["mbo_fg"]) for one in shown["8."])
    assert corner < enlarged < soft < centre, "the order of the document's means over 40 scenes"


def test_the_first_scene_of_the_document_is_the_one_that_is_drawn() -> None:
    text = (bundled("docs") / "why-numbers-differ.md").read_text(encoding="utf-8")
    section = text[text.index("## 8.") :]
    names: dict[str, Any] = {"np": np, "torch": torch, "compute": compute}
    code = section.split("```python\n")[1].split("for name, maps")[0]
    exec(code.replace("(40, 256, 256)", "(1, 256, 256)"), names)
    protocols = names["protocols"]
    drawn = EXAMPLES["8."].choices()
    for choice, place in zip(drawn, (0, 2, 3, 4), strict=True):
        truth, prediction = list(protocols.values())[place]
        assert (choice.truth == truth[0].numpy()).all() and (choice.prediction == prediction[0].numpy()).all()


def test_text_is_escaped_and_links_to_absent_pages_are_plain() -> None:
    html = to_html(f"# A {NASTY}\n\n[here](submit.md#x) [gone](data.md) [out](https://a.b)", {})
    assert "<script>" not in html and 'href="submit.html#x"' in html
    assert "data.md" not in html and 'href="https://a.b"' in html


def test_the_verb_writes_pages_tables_and_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "mine", "m", image_values(0.5))
    monkeypatch.setattr(build, "all_tasks", lambda *_: ["clevrtex"])
    command = ["site", "--results", str(tmp_path / "mine"), "--out", str(tmp_path / "site"), "--no-pictures"]
    outcome = CliRunner().invoke(app, command)
    assert outcome.exit_code == 0, outcome.output
    assert "next: open" in outcome.stdout
    for name in ("index.html", "tasks/clevrtex-v1.html", "tables/clevrtex.csv", "results/clevrtex/m.json"):
        assert (tmp_path / "site" / name).is_file()

"""Small tables: columns stand straight, and no text becomes markup."""

from __future__ import annotations

from ocl_bench.core.text_tables import html_table, latex_table, text_table

CELLS = [["metric", "value"], ["mbo_fg", "0.693"], ["n & <b>100 %</b>", "7"]]


def test_numbers_stand_to_the_right_and_no_line_ends_with_spaces() -> None:
    assert text_table(CELLS) == "metric            value\nmbo_fg            0.693\nn & <b>100 %</b>      7"
    assert text_table([["name", "note"], ["a", ""]]) == "name  note\na"


def test_html_escapes_every_text() -> None:
    html = html_table(CELLS)
    assert html.count("<tr>") == 3 and "<b>" not in html and "n &amp; &lt;b&gt;100 %&lt;/b&gt;" in html


def test_latex_escapes_what_it_would_read() -> None:
    assert latex_table(CELLS).splitlines() == [
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"metric & value \\",
        r"\midrule",
        r"mbo\_fg & 0.693 \\",
        r"n \& <b>100 \%</b> & 7 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    assert r"1 $\bullet$" in latex_table([["1 ●"], ["x"]])
    assert r"a\textbackslash{}b\textasciitilde{}c $\pm$ \{d\}" in latex_table([["a\\b~c ± {d}"], ["x"]])

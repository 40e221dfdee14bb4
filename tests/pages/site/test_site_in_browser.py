"""The site in a real browser: tabs, sorting, filters, columns, permalinks, keyboard, copying, widths, accessibility."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsers import WIDTHS, chromium, errors, scheme, screenshot, size, violations, wait
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

PAGES = (
    "index.html",
    "matrix.html",
    "models.html",
    "papers.html",
    "claims.html",
    "why-numbers-differ.html",
    "submit.html",
)
TASK = "tasks/clevrtex-v1.html"
PANEL = "#panel-embedded"
NAMES = (
    f"[...document.querySelectorAll('{PANEL} tbody tr')].filter(one => !one.hidden && !one.parentElement.hidden && "
    "!one.classList.contains('block')).map(one => one.cells[1].dataset.value)"
)
NASTY = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as made:
        yield made


def visit(browser: Any, site: Path, address: str, hash: str = "") -> None:
    browser.get("about:blank")
    scheme(browser, "light")
    size(browser, 1440)
    browser.get((site / address).as_uri() + hash)
    wait(browser, "document.readyState === 'complete'")


def embedded(browser: Any) -> Any:
    browser.find_element(By.ID, "tab-embedded").click()
    return browser.find_element(By.CSS_SELECTOR, PANEL)


def test_tabs_show_one_table_and_the_address_remembers_it(browser: Any, small_site: Path) -> None:
    visit(browser, small_site, TASK)
    first, second = browser.find_elements(By.CSS_SELECTOR, ".panel")
    assert first.is_displayed() and not second.is_displayed()
    browser.find_element(By.ID, "tab-official").send_keys(Keys.ARROW_RIGHT)
    assert second.is_displayed() and not first.is_displayed()
    assert browser.switch_to.active_element.get_attribute("id") == "tab-embedded"
    visit(browser, small_site, TASK, "#tab=embedded")
    assert browser.find_element(By.CSS_SELECTOR, PANEL).is_displayed()


def test_sorting_stays_within_blocks_and_seeds_stay_below_their_mean(browser: Any, small_site: Path) -> None:
    visit(browser, small_site, TASK)
    panel = embedded(browser)
    ranked = browser.execute_script(f"return {NAMES}")
    assert ranked[:2] == ["oracle", "dias (3 seeds)"] and ranked[-1] == "boxed" and NASTY in ranked
    panel.find_element(By.CSS_SELECTOR, ".fold").click()
    panel.find_element(By.CSS_SELECTOR, "th[data-column=mbo_fg] button").click()
    head = panel.find_element(By.CSS_SELECTOR, "th[data-column=mbo_fg]")
    assert head.get_attribute("aria-sort") == "descending"
    head.find_element(By.TAG_NAME, "button").click()
    names = browser.execute_script(f"return {NAMES}")
    place = names.index("dias (3 seeds)")
    assert names[0] == "grid" and names[-1] == "boxed"
    assert sorted(names[place + 1 : place + 4]) == ["dias:0", "dias:1", "dias:2"]
    visit(browser, small_site, TASK, "#tab=embedded&sort=mbo_fg+up")
    assert browser.execute_script(f"return {NAMES}")[0] == "grid"


def test_filters_and_columns(browser: Any, small_site: Path) -> None:
    visit(browser, small_site, TASK)
    panel = embedded(browser)
    Select(panel.find_element(By.CSS_SELECTOR, "[data-filter=supervision]")).select_by_visible_text("boxes")
    assert browser.execute_script(f"return {NAMES}") == ["boxed"]
    assert panel.find_element(By.CSS_SELECTOR, "[data-count]").text == "1 of 6 rows"
    head = panel.find_element(By.CSS_SELECTOR, "th[data-column=fg_ari_multi]")
    assert not head.is_displayed()
    panel.find_element(By.CSS_SELECTOR, "summary").click()
    panel.find_element(By.CSS_SELECTOR, "[data-show=fg_ari_multi]").click()
    assert head.is_displayed() and "fg_ari_multi" in browser.current_url
    panel.find_element(By.CSS_SELECTOR, "[data-show=fg_ari_multi]").send_keys(Keys.ESCAPE)
    assert panel.find_element(By.CSS_SELECTOR, ".columns").get_attribute("open") is None


def test_digits_appear_on_focus_and_arrows_lead_from_number_to_number(browser: Any, small_site: Path) -> None:
    visit(browser, small_site, TASK, "#tab=embedded")
    stops = browser.find_elements(By.CSS_SELECTOR, f"{PANEL} .digits[tabindex='0']")
    assert len(stops) == 1
    browser.execute_script("arguments[0].focus()", stops[0])
    tip = stops[0].find_element(By.CSS_SELECTOR, ".tip")
    assert tip.is_displayed() and "95 % interval" in tip.text
    stops[0].send_keys(Keys.ARROW_DOWN)
    below = browser.switch_to.active_element
    assert below != stops[0] and "digits" in below.get_attribute("class") and not tip.is_displayed()
    below.send_keys(Keys.ARROW_RIGHT)
    cell = "return document.activeElement.closest('td').dataset.column"
    assert browser.execute_script(cell) == "ari"


def test_what_is_copied_is_what_is_shown(browser: Any, small_site: Path) -> None:
    visit(browser, small_site, TASK, "#tab=embedded")
    panel = browser.find_element(By.CSS_SELECTOR, PANEL)
    panel.find_element(By.CSS_SELECTOR, "[data-copy=latex]").click()
    area = browser.find_element(By.CSS_SELECTOR, "#copied textarea")
    text = area.get_attribute("value")
    assert "\\begin{tabular}{llrrl}" in text and "\\toprule" in text
    assert text.count("\\\\\n") == 7 and "dias (3 seeds) & 0.6" in text
    browser.find_element(By.CSS_SELECTOR, "[data-do=close]").click()
    panel.find_element(By.CSS_SELECTOR, "[data-copy=bibtex]").click()
    assert area.get_attribute("value").startswith("@inproceedings{dias2025,")


def test_an_example_shows_the_state_that_is_chosen(browser: Any, small_site: Path) -> None:
    visit(browser, small_site, "why-numbers-differ.html")
    example = browser.find_elements(By.CSS_SELECTOR, ".example")[0]
    states = example.find_elements(By.CSS_SELECTOR, ".state")
    assert [state.is_displayed() for state in states] == [True, False]
    example.find_elements(By.CSS_SELECTOR, "input")[1].click()
    assert [state.is_displayed() for state in states] == [False, True] and "0.916" in states[1].text


@pytest.mark.parametrize(
    "address",
    [
        *PAGES,
        TASK,
        "tasks/coco-dias-v3-v1.html",
        "models/dias.html",
        "models/dinosaur-v2-paper.html",
        "papers/dias.html",
    ],
)
def test_each_page_is_accessible_and_fits_in_light_and_dark(browser: Any, small_site: Path, address: str) -> None:
    visit(browser, small_site, address)
    assert errors(browser) == []
    for mode in ("light", "dark"):
        scheme(browser, mode)
        assert violations(browser) == [], mode
        for width in WIDTHS:
            size(browser, width)
            assert browser.execute_script("return document.documentElement.scrollWidth") <= width, f"{mode} {width}"
            screenshot(browser, f"site-{address.replace('/', '-').removesuffix('.html')}-{width}-{mode}")
    assert errors(browser) == []


def test_names_of_tasks_and_models_have_room_at_every_width(browser: Any, small_site: Path) -> None:
    for address, least in (("index.html", 95), ("models.html", 140), ("papers.html", 140)):
        visit(browser, small_site, address)
        for width in WIDTHS:
            size(browser, width)
            cell = browser.find_element(By.CSS_SELECTOR, "tbody th[scope=row]")
            assert cell.size["width"] >= (least if width < 800 else 2 * least), f"{address} {width}"


def test_the_board_of_a_task_is_whole_without_its_script(small_site: Path) -> None:
    html = (small_site / TASK).read_text(encoding="utf-8")
    assert html.count('<section class="panel"') == 2 and '<section class="panel" hidden' not in html
    assert '<div class="controls" data-for="embedded" hidden>' in html

"""The report in a real browser: sort, filter, permalink, keyboard, scrubber, two runs, dark, accessibility."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsers import WIDTHS, chromium, errors, scheme, screenshot, size, violations, wait
from report_runs import BROKEN, COUNT, NASTY, Colours, VideoColours, own_images, own_videos, renamed, run_of
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from ocl_bench.pages.report import build

VALUES = "[...document.querySelectorAll('.gallery button')].map(one => one.children[1].textContent)"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reports of one run, two runs, many samples (small limits) and videos."""
    root = tmp_path_factory.mktemp("pages")
    task, data, results = own_images(root / "data"), root / "data", root / "results"
    good = renamed(run_of(task, data, results, Colours(), "good"), NASTY)
    coarse = run_of(task, data, results, Colours(4), "coarse")
    keywords: dict[str, Any] = {"task": task, "data_root": data, "progress": False}
    made = {
        "one": build.report(coarse, out=root / "one.html", **keywords),
        "two": build.report(good, coarse, out=root / "two.html", **keywords),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "INLINE_PICTURES", 10)
        patch.setattr(build, "PART_BYTES", 8000)
        made["many"] = build.report(coarse, out=root / "many.html", **keywords)
    videos = own_videos(root / "videos")
    clips = run_of(videos, root / "videos", results, VideoColours(2), "clips", batch_size=2)
    made["video"] = build.report(clips, out=root / "video.html", task=videos, data_root=root / "videos", progress=False)
    return made


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as made:
        yield made


def visit(browser: Any, page: Path, hash: str = "") -> None:
    """Open a page anew, and wait for its first sample."""
    browser.get("about:blank")
    scheme(browser, "light")
    size(browser, 1440)
    browser.get(page.as_uri() + hash)
    wait(browser, "document.querySelector('#detail')?.dataset.ready")


def chosen(browser: Any) -> str:
    return str(browser.find_element(By.CSS_SELECTOR, "#detail h3").text)


def pixels(browser: Any, place: int) -> list[int]:
    """Sums of the colours of a panel."""
    script = """const canvas = document.querySelectorAll('.panels canvas')[arguments[0]];
        const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        const sums = [0, 0, 0]; data.forEach((value, index) => { if (index % 4 < 3) sums[index % 4] += value; });
        return sums;"""
    return list(browser.execute_script(script, place))


def test_sort_filter_and_histogram(browser: Any, pages: dict[str, Path]) -> None:
    visit(browser, pages["one"])
    values = [float(one) for one in browser.execute_script(f"return {VALUES}")]
    assert len(values) == 24 and values == sorted(values)
    browser.find_element(By.ID, "order").click()
    values = [float(one) for one in browser.execute_script(f"return {VALUES}")]
    assert values == sorted(values, reverse=True)
    Select(browser.find_element(By.ID, "sort")).select_by_visible_text("objects")
    browser.find_element(By.ID, "objects-min").send_keys("3")
    status = browser.find_element(By.CSS_SELECTOR, "[role=status]")
    assert status.text == f"10 of {COUNT} images"  # every third
    assert set(browser.execute_script(f"return {VALUES}")) == {"3"}
    browser.find_element(By.ID, "reset").click()
    assert status.text == f"{COUNT} of {COUNT} images"
    bars = browser.find_elements(By.CSS_SELECTOR, ".histogram button")
    full = next(bar for bar in bars if not bar.get_attribute("aria-label").endswith(": 0"))
    number = full.get_attribute("aria-label").rpartition(": ")[2]
    full.click()
    assert status.text == f"{number} of {COUNT} images"
    browser.find_element(By.ID, "reset").click()
    browser.find_element(By.ID, "search").send_keys("img01")
    assert status.text == f"10 of {COUNT} images"
    browser.find_element(By.ID, "reset").click()
    browser.find_element(By.ID, "failed").click()
    assert status.text == f"1 of {COUNT} images"
    browser.find_element(By.CSS_SELECTOR, ".gallery button").click()
    wait(browser, f"document.querySelector('#detail').dataset.ready === '{BROKEN}'")
    assert "cannot be read" in browser.find_element(By.CSS_SELECTOR, "#detail .note").text
    assert errors(browser) == []


def test_permalink(browser: Any, pages: dict[str, Path]) -> None:
    visit(browser, pages["one"], "#sample=img012")
    wait(browser, "document.querySelector('#detail').dataset.ready === 'img012'")
    assert chosen(browser) == "img012"
    browser.find_element(By.ID, "next").click()
    here = browser.current_url.rpartition("#sample=")[2]
    assert here == chosen(browser) != "img012"
    visit(browser, pages["one"], f"#sample={here}")
    assert chosen(browser) == here
    visit(browser, pages["one"], "#sample=%E0%A4%A")  # no text: nothing happens
    assert errors(browser) == []


def test_keyboard(browser: Any, pages: dict[str, Path]) -> None:
    visit(browser, pages["one"])
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    assert browser.switch_to.active_element.text == "Skip to content"
    first = browser.find_element(By.CSS_SELECTOR, ".gallery button")
    first.send_keys(Keys.ARROW_RIGHT)
    active = browser.switch_to.active_element
    second = active.get_attribute("title")
    assert second != first.get_attribute("title")
    active.send_keys(Keys.ENTER)
    wait(browser, f"document.querySelector('#detail').dataset.ready === '{second}'")
    assert chosen(browser) == second
    bar = browser.find_element(By.CSS_SELECTOR, ".histogram button[tabindex='0']")
    bar.send_keys(Keys.ARROW_RIGHT)
    assert browser.switch_to.active_element.get_attribute("aria-label") != bar.get_attribute("aria-label")
    term = browser.find_element(By.CSS_SELECTOR, ".signature .term")
    tip = term.find_element(By.CSS_SELECTOR, "[role=tooltip]")
    assert not tip.is_displayed()
    browser.execute_script("arguments[0].focus()", term)
    assert tip.is_displayed()


def test_slots_and_opacity_change_the_pictures(browser: Any, pages: dict[str, Path]) -> None:
    visit(browser, pages["one"])
    browser.find_element(By.ID, "order").click()  # the best sample has segments of objects
    best = browser.find_element(By.CSS_SELECTOR, ".gallery button")
    best.click()
    wait(browser, f"document.querySelector('#detail').dataset.ready === '{best.get_attribute('title')}'")
    before = [pixels(browser, place) for place in range(4)]
    chip = browser.find_element(By.CSS_SELECTOR, ".chips button")
    browser.execute_script("arguments[0].focus()", chip)
    alone = [pixels(browser, place) for place in range(4)]
    assert all(one != other for one, other in zip(before, alone, strict=True)), "all panels show the single slot"
    browser.execute_script("arguments[0].blur()", chip)
    assert [pixels(browser, place) for place in range(4)] == before
    browser.execute_script(
        "const one = document.querySelector('#opacity'); one.value = 0; one.dispatchEvent(new Event('input'))"
    )
    clear = [pixels(browser, place) for place in range(4)]
    assert clear[0] == before[0] and clear[2] != before[2]
    assert clear[1] == clear[2], "without colours only the grey image is left"


def test_scrubber(browser: Any, pages: dict[str, Path]) -> None:
    visit(browser, pages["video"])
    before = pixels(browser, 2)
    assert browser.find_element(By.CSS_SELECTOR, "output").text == "frame 000 (1 of 5 shown, 5 in all)"
    slider = browser.find_element(By.ID, "scrubber")
    slider.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    wait(browser, "document.querySelector('output').textContent.startsWith('frame 002')")
    wait(browser, "document.querySelector('#scrubber').value === '2'")
    # The frame is decoded beside the script: it is drawn a moment after its name.
    assert WebDriverWait(browser, 20).until(lambda one: pixels(one, 2) != before)
    assert slider.get_attribute("aria-valuetext") == "frame 002"
    browser.find_element(By.ID, "play").click()
    wait(browser, "document.querySelector('#scrubber').value !== '2'")
    browser.find_element(By.ID, "play").click()
    assert errors(browser) == []


def test_two_runs(browser: Any, pages: dict[str, Path]) -> None:
    visit(browser, pages["two"])
    wait(browser, "document.querySelectorAll('.extremes canvas').length > 4")
    assert browser.find_element(By.TAG_NAME, "h1").text.startswith(NASTY)
    assert len(browser.find_elements(By.CSS_SELECTOR, ".pair circle")) == COUNT - 1
    assert len(browser.find_elements(By.CSS_SELECTOR, ".panels canvas")) == 6
    gain = browser.find_element(By.CSS_SELECTOR, ".extremes button")
    gain.click()
    wait(browser, "location.hash.startsWith('#sample=')")
    assert chosen(browser) in gain.text
    assert errors(browser) == []


def test_a_name_with_a_script_stays_text(browser: Any, pages: dict[str, Path]) -> None:
    visit(browser, pages["two"])
    assert browser.execute_script("return document.querySelectorAll('script').length") == 2
    browser.execute_script(
        "document.body.append(Object.assign(document.createElement('script'), {text: 'window.ran = 1'}))"
    )
    assert browser.execute_script("return window.ran") is None, "the policy lets nothing else run"
    assert any("Content Security Policy" in one for one in errors(browser))


def test_pictures_beside_the_page(browser: Any, pages: dict[str, Path]) -> None:
    visit(browser, pages["many"], "#sample=img021")
    wait(browser, "document.querySelectorAll('.panels canvas').length === 4")
    assert chosen(browser) == "img021"
    visit(browser, pages["one"], "#sample=img021")
    inline = [pixels(browser, place) for place in range(4)]
    visit(browser, pages["many"], "#sample=img021")
    wait(browser, "document.querySelectorAll('.panels canvas').length === 4")
    assert [pixels(browser, place) for place in range(4)] == inline
    wait(
        browser,
        "document.querySelectorAll('.gallery canvas').length && "
        "[...document.querySelectorAll('.gallery canvas')].every(one => one.width > 1)",
    )
    assert errors(browser) == []


@pytest.mark.parametrize("name", ["one", "two", "video"])
def test_accessible_in_light_and_dark_at_all_widths(browser: Any, pages: dict[str, Path], name: str) -> None:
    for preferred in ("light", "dark"):
        visit(browser, pages[name])
        scheme(browser, preferred)
        paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 23, 26)"}[preferred]
        for width in WIDTHS:
            size(browser, width)
            assert browser.execute_script("return document.documentElement.scrollWidth") <= width, "nothing is cut"
            screenshot(browser, f"report-{name}-{width}-{preferred}")
        assert violations(browser) == []
    assert errors(browser) == []


def test_the_switch_between_light_and_dark(browser: Any, pages: dict[str, Path]) -> None:
    visit(browser, pages["one"])
    button = browser.find_element(By.ID, "theme")
    assert button.text == "Dark"
    button.click()
    assert button.text == "Light"
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 26)"

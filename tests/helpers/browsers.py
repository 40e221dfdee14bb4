"""Headless Chromium for the tests of pages; tests that need it are skipped where there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

WIDTHS = (390, 800, 1440)


@contextmanager
def chromium() -> Iterator[webdriver.Chrome]:
    """Debian's packages `chromium` and `chromium-driver`, or what CHROMIUM and CHROMEDRIVER name."""
    binary = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    driver = os.environ.get("CHROMEDRIVER") or shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("no Chromium: install chromium and chromium-driver, or set CHROMIUM and CHROMEDRIVER")
    options = Options()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield browser
    finally:
        browser.quit()


def size(browser: webdriver.Chrome, width: int, height: int = 1000) -> None:
    """Give the page this width and height in pixels."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def scheme(browser: webdriver.Chrome, value: str) -> None:
    """Prefer `light` or `dark`, as a system says it."""
    feature = {"name": "prefers-color-scheme", "value": value}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def wait(browser: webdriver.Chrome, condition: str) -> Any:
    """Wait until a JavaScript expression is true, and return its value."""
    return WebDriverWait(browser, 20).until(lambda one: one.execute_script(f"return {condition}"))


def errors(browser: webdriver.Chrome) -> list[str]:
    """Errors and warnings of the console since the last call. Reading pixels often is our tests' own doing."""
    said = [one["message"] for one in browser.get_log("browser") if one["level"] in ("SEVERE", "WARNING")]
    return [one for one in said if "willReadFrequently" not in one]


def violations(browser: webdriver.Chrome) -> list[str]:
    """Violations that axe-core finds on the page: rule, and the first elements."""
    # DevTools may evaluate where the policy of the page lets no script in.
    script = files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    run = "axe.run(document, {resultTypes: ['violations']}).then(found => found.violations)"
    browser.execute_cdp_cmd("Runtime.evaluate", {"expression": script})
    asked = {"expression": run, "awaitPromise": True, "returnByValue": True}
    found = browser.execute_cdp_cmd("Runtime.evaluate", asked)["result"]["value"]
    return [f"{one['id']}: {[node['html'][:120] for node in one['nodes'][:3]]}" for one in found]


def screenshot(browser: webdriver.Chrome, name: str) -> None:
    """Keep a picture of the whole page in the folder OCL_BENCH_SCREENSHOTS, if it is set."""
    folder = os.environ.get("OCL_BENCH_SCREENSHOTS")
    if not folder:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    width, height = browser.execute_script("return [innerWidth, document.documentElement.scrollHeight]")
    size(browser, width, min(height, 8000))
    browser.save_screenshot(str(Path(folder) / f"{name}.png"))
    size(browser, width)

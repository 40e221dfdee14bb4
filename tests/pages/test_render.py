"""Pages: everything is escaped, and only the style and the script of the page run."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest
from jinja2 import DictLoader, UndefinedError

from ocl_bench.pages import render as pages

NASTY = "<script>alert(1)</script>"


@pytest.fixture
def template(monkeypatch: pytest.MonkeyPatch) -> str:
    """A small page on the base template."""
    text = (
        '{% extends "base.html.j2" %}{% block title %}{{ name }}{% endblock %}{% block main %}{{ name }}{% endblock %}'
    )
    base = (pages.TEMPLATES / "base.html.j2").read_text()
    monkeypatch.setattr(pages.environment(), "loader", DictLoader({"own.html.j2": text, "base.html.j2": base}))
    return "own.html.j2"


def test_text_and_data_are_escaped(template: str) -> None:
    html = pages.render(template, {"name": NASTY}, data={"name": NASTY, "end": "</script><!--"})
    assert "alert(1)</script>" not in html and "<script>alert" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    found = re.search(r'id="page-data">(.*?)</script>', html, re.DOTALL)
    assert found and json.loads(found[1]) == {"name": NASTY, "end": "</script><!--"}


def test_the_policy_names_the_hash_of_what_is_inline(template: str) -> None:
    html = pages.render(template, {"name": "x"})
    allowed = set(re.findall(r"sha256-([A-Za-z0-9+/=]+)", html))
    inline = re.findall(r"<style>(.*?)</style>|<script type=\"module\">(.*?)</script>", html, re.DOTALL)
    texts = [style or script for style, script in inline]
    assert len(texts) == 2
    assert {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts} == allowed
    assert "unsafe" not in html and "default-src &#39;none&#39;" in html
    assert not re.search(r'(src|href)="(https?:)?//', html), "a page loads nothing"


def test_a_missing_name_and_a_number_that_is_not_finite_are_errors(template: str) -> None:
    with pytest.raises(UndefinedError, match="name"):
        pages.render(template, {})
    with pytest.raises(ValueError, match="JSON"):
        pages.render(template, {"name": "x"}, data=[float("nan")])


def test_counts_have_no_decimals() -> None:
    assert pages.number(79.0, True) == "79" and pages.number(0.5) == "0.500" and pages.number(1234.4) == "1234"


def test_backticks_become_code_and_everything_else_stays_text() -> None:
    assert pages.code_marks("images of `full` & `a<b`") == "images of <code>full</code> &amp; <code>a&lt;b</code>"
    assert "<script>" not in pages.code_marks(f"`{NASTY}` {NASTY}")

"""`docs/why-numbers-differ.md` says what its code prints."""

from __future__ import annotations

import contextlib
import io
import re

import pytest
from places import ROOT

from ocl_bench.metrics import METRICS

PAGE = ROOT / "docs/why-numbers-differ.md"
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_every_example_prints_what_the_page_says() -> None:
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    examples = [(blocks[i][1], blocks[i + 1 : i + 2]) for i in range(len(blocks)) if blocks[i][0] == "python"]
    assert len(examples) >= 11
    namespace: dict[str, object] = {}
    for code, following in examples:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, str(PAGE), "exec"), namespace)
        expected = following[0][1] if following and following[0][0] == "text" else ""
        assert printed.getvalue() == expected, f"the output of this example changed:\n{code}"


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_on_the_page(name: str) -> None:
    assert f"\n| `{name}` |" in PAGE.read_text(encoding="utf-8")

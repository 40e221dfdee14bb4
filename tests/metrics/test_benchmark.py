"""The benchmark runs, agrees with its peer, and prints both absolute times and the ratios."""

from __future__ import annotations

import re
import runpy
import sys

import pytest
import torch
from places import ROOT

BENCHMARK = ROOT / "benchmarks/metrics.py"


def test_benchmark(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--images", "3", "--size", "64", "--repeats", "1", "--threads", str(torch.get_num_threads())]
    monkeypatch.setattr(sys, "argv", [str(BENCHMARK), *arguments])
    runpy.run_path(str(BENCHMARK), run_name="__main__")
    printed = capsys.readouterr().out
    assert len(re.findall(r"^ratio: \d+\.\d", printed, re.MULTILINE)) == 2
    assert len(re.findall(r"\d+\.\d{3} ms", printed)) == 4


def test_a_wrong_peer_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    names = runpy.run_path(str(BENCHMARK), run_name="benchmark")
    truth, prediction = names["label_maps"](2, 64, 5, seed=1)
    assert truth.dtype == prediction.dtype == "uint8" and truth.max() == 4
    monkeypatch.setitem(names["main"].__globals__, "peer_mbo", lambda masks, slots: torch.zeros(len(masks)))
    monkeypatch.setattr(sys, "argv", [str(BENCHMARK), "--images", "2", "--size", "64", "--repeats", "1"])
    threads = torch.get_num_threads()
    with pytest.raises(SystemExit, match=r"mbo_all: ours .* differs"):
        names["main"]()
    torch.set_num_threads(threads)

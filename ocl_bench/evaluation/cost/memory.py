"""Peak memory of one pass: of the accelerator as torch counts it, else of a fresh process as Linux counts it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ...core.errors import UsageError
from ...core.machine import fixed_arithmetic
from .subject import Setup, Side, Subject

ON_GPU = "largest memory that torch had allocated in a pass, weights of this model included, above all else before"
ON_CPU = "growth of the largest resident memory in one pass of a fresh process, weights not included"
NOWHERE = "not measured: only on CUDA, and on Linux for the CPU"

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def method(device: str) -> str:
    """How peak memory is measured on this device."""
    if torch.device(device).type == "cuda":
        return ON_GPU
    return ON_CPU if torch.device(device).type == "cpu" and _RESET.exists() else NOWHERE


def peak_memory(subject: Subject) -> int | None:
    """Bytes of one pass, or None where `method` says so. Raises UsageError when the process of its own fails."""
    how = method(subject.setup.device)
    if how == NOWHERE:
        return None
    return _on_gpu(subject) if how == ON_GPU else _in_fresh_process(subject)


def _on_gpu(subject: Subject) -> int:
    device = subject.setup.device
    model = subject.loaded.model
    tensors = [*model.parameters(), *model.buffers()] if callable(getattr(model, "buffers", None)) else []
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    subject.run()
    return torch.cuda.max_memory_allocated(device) - before + sum(one.numel() * one.element_size() for one in tensors)


def _in_fresh_process(subject: Subject) -> int:
    """In this process, memory that was used before and is free again would be used again, and not seen to grow."""
    side = {"name": subject.side.name, "options": dict(subject.side.options), "untrained": subject.side.untrained}
    request = json.dumps({"side": side, "setup": asdict(subject.setup), "as_video": subject.video})
    run = subprocess.run(
        [sys.executable, "-m", "ocl_bench.evaluation.cost.memory"],
        input=request,
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        reason = (run.stderr.strip().splitlines() or [f"exit code {run.returncode}"])[-1]
        raise UsageError(f"model {subject.side.name}: the process that measures its memory failed ({reason[:200]})")
    return int(json.loads(run.stdout.splitlines()[-1])["bytes"])


def growth(request: dict[str, Any]) -> int:
    """Bytes by which the resident memory of this process grows at most in one pass; Linux only."""
    setup = Setup(**request["setup"])
    with fixed_arithmetic(setup.threads):
        subject = Subject(Side(**request["side"]), setup, as_video=request["as_video"])
        _RESET.write_text("5", encoding="ascii")  # the peak starts again from here, see proc(5)
        before = _kilobytes("VmRSS")
        subject.run()
        return 1024 * (_kilobytes("VmHWM") - before)


def _kilobytes(name: str) -> int:
    """A size in /proc/self/status."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", _STATUS.read_text(encoding="ascii"), re.MULTILINE)
    assert found is not None
    return int(found[1])


if __name__ == "__main__":
    print(json.dumps({"bytes": growth(json.load(sys.stdin))}))

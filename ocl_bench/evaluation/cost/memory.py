"""Peak memory of one pass: on a GPU as torch counts it, on the CPU as Linux counts it for a fresh process."""

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
from .subject import ModelChoice, ProfileSetup, Subject

ON_GPU = "largest memory that torch had allocated in a pass, weights of this model included, above all else before"
ON_CPU = "growth of the largest resident memory in one pass of a fresh process, weights not included"
NOWHERE = "not measured: only on CUDA, and on Linux for the CPU"

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def method(device: str) -> str:
    """How peak memory is measured on this device, in words: `ON_GPU`, `ON_CPU` or `NOWHERE`."""
    if torch.device(device).type == "cuda":
        return ON_GPU
    return ON_CPU if torch.device(device).type == "cpu" and _RESET.exists() else NOWHERE


def peak_memory(subject: Subject) -> int | None:
    """Peak memory of one pass in bytes; None where it cannot be measured.

    Raises UsageError when the fresh process fails.
    """
    how = method(subject.setup.device)
    if how == NOWHERE:
        return None
    return _on_gpu(subject) if how == ON_GPU else _in_fresh_process(subject)


def _on_gpu(subject: Subject) -> int:
    """Peak of a pass above what was allocated before it, and the model's weights, which were allocated before."""
    device = subject.setup.device
    model = subject.loaded.model
    tensors = [*model.parameters(), *model.buffers()] if callable(getattr(model, "buffers", None)) else []
    before = torch.cuda.memory_allocated(device)  # includes the weights of all models that are loaded
    torch.cuda.reset_peak_memory_stats(device)
    subject.run()
    weights = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return torch.cuda.max_memory_allocated(device) - before + weights


def _in_fresh_process(subject: Subject) -> int:
    """Growth of the memory of a fresh process, in which `growth` runs.

    In this process a pass would use memory again that was used and freed before, and no growth would be seen.
    """
    choice = subject.choice
    arguments = {"name": choice.name, "options": dict(choice.options), "untrained": choice.untrained}
    request = json.dumps({"choice": arguments, "setup": asdict(subject.setup), "as_video": subject.video})
    run = subprocess.run(
        [sys.executable, "-m", "ocl_bench.evaluation.cost.memory"],
        input=request,
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        reason = (run.stderr.strip().splitlines() or [f"exit code {run.returncode}"])[-1]
        raise UsageError(f"model {choice.name}: the process that measures its memory failed ({reason[:200]})")
    return int(json.loads(run.stdout.splitlines()[-1])["bytes"])  # a model may print something before


def growth(request: dict[str, Any]) -> int:
    """The largest growth of this process's resident memory in one pass, in bytes. Linux only.

    request: arguments of `ModelChoice`, `ProfileSetup` and `Subject`, as `_in_fresh_process` sends them.
    """
    setup = ProfileSetup(**request["setup"])
    with fixed_arithmetic(setup.threads):
        subject = Subject(ModelChoice(**request["choice"]), setup, as_video=request["as_video"])
        _RESET.write_text("5", encoding="ascii")  # resets the peak to the current size, see proc(5)
        before = _kilobytes("VmRSS")
        subject.run()
        return 1024 * (_kilobytes("VmHWM") - before)


def _kilobytes(name: str) -> int:
    """A size from /proc/self/status in kB. name: `VmRSS` is the current size, `VmHWM` the peak."""
    match = re.search(rf"^{name}:\s+(\d+) kB$", _STATUS.read_text(encoding="ascii"), re.MULTILINE)
    assert match is not None
    return int(match[1])


if __name__ == "__main__":
    print(json.dumps({"bytes": growth(json.load(sys.stdin))}))

"""What a GPU gives: training steps, nearest neighbours, evaluations at 518 pixels, SlotContrast against SlotMatch.

    python benchmarks/gpu.py --out gpu.json                            # on one GPU, then again if something is left
    python benchmarks/gpu.py --out gpu.json --write docs/at-scale.md   # puts the tables of a run into the page
    python benchmarks/gpu.py --out toy.json --toy                      # small models on the CPU: does it run at all?

Each part is written as soon as it is done, and a part that is there is not measured again: give the same command until
nothing is left. After `--minutes` no part begins. Weights are random and images are made here, since neither changes a
time, and a machine with a GPU may have no network. TF32 is off, as in evaluations.

1. `neighbours`: a search in a bank of ImageNet's size.
2. `profile ..`: SlotContrast and SlotMatch in turns, on clips.
3. `pipeline ..`: an evaluation of a ViT-S/14 from JPEGs to scores, against the same forward passes alone, and how busy
   the GPU is meanwhile.
4. `step ..`: forward, backward and AdamW of each model at the size of its paper: float32 and eager, then bfloat16 with
   `torch.compile`, as `ocl-bench train --precision bf16 --compile` does. Frozen encoders and teachers are part of it.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gpu_parts import LOSSES, PAPER, PARTS, TOY, Result, Scale
from worlds import show_tables

from ocl_bench.core.errors import UsageError
from ocl_bench.core.files import write_atomically
from ocl_bench.core.machine import choose_device, fixed_arithmetic
from ocl_bench.evaluation.cost.measure import describe_machine
from ocl_bench.evaluation.cost.subject import ProfileSetup

NAMES = {
    "dias": "DIAS",
    "odis": "ODIS, 2 + 10 crops",
    "slotcon": "SlotCon, 2 crops",
    "slotcontrast": "SlotContrast, clips",
    "slotmatch": "SlotMatch with its teacher, clips",
}


NOTHING: Result = {"toy": False, "machine": None, "parts": {}}
"""What a page shows before anybody ran this."""


def measure_all(out: Path, scale: Scale, device: str, minutes: float) -> Result:
    """Measure the parts that are not in `out` yet, and write it after each of them; the content.

    Raises:
        UsageError: `out` is of another machine or of another size.
    """
    end, machine = time.monotonic() + 60 * minutes, describe_machine(ProfileSetup(device))
    found: Result = {"toy": scale is TOY, "machine": machine, "parts": {}}
    if out.exists():
        found = json.loads(out.read_text())
        here = (scale is TOY, machine["device"])
        if (there := (found["toy"], found["machine"]["device"])) != here:
            raise UsageError(f"{out}: was measured with (toy, device) = {there}, not {here}; choose another --out")
    for name, part in PARTS.items():
        if name in found["parts"] or time.monotonic() > end:
            continue
        begin = time.monotonic()
        with fixed_arithmetic(1 if scale is TOY else 4):
            found["parts"][name] = part(scale, device)
        if device != "cpu":
            torch.cuda.empty_cache()
        print(f"{name}: {time.monotonic() - begin:.0f} s", flush=True)
        write_atomically(out, partial(Path.write_text, data=json.dumps(found, indent=1) + "\n"))
    return found


def tables(found: Result) -> dict[str, str]:
    """Markdown of what was measured, by the name of the place on the page."""
    parts = found["parts"]
    about = found["machine"]
    note = "Nobody has run this on a GPU yet."
    if about is not None:
        note = f"Measured on {about['device']}, torch {about['torch']}, {about['processors']} processors"
        note += " (a toy: these numbers say nothing)." if found["toy"] else "."
    return {"gpu-steps": "\n".join(_steps(parts)), "gpu-parts": "\n".join([*_others(parts), "", note])}


def _steps(parts: dict[str, Any]) -> list[str]:
    lines = ["| training step | batch | float32, eager | bfloat16, compiled | times | first step, compiled | memory |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for name in LOSSES:
        part = parts.get(f"step {name}")
        if part is None:
            lines.append(f"| {NAMES[name]} | | not measured | | | | |")
            continue
        plain, fast = part["fp32"], part["bf16 compiled"]
        rates = (f"{side['per_second']:.1f} /s" for side in (plain, fast))
        ratio = f"{plain['seconds'] / fast['seconds']:.2f}"
        memory = " → ".join(f"{side['memory_gb']:.1f}" for side in (plain, fast)) + " GB" if plain["memory_gb"] else "–"
        lines.append(
            f"| {NAMES[name]} | {part['batch']} | {' | '.join(rates)} | {ratio} | {fast['first']:.0f} s | {memory} |"
        )
    return lines


def _others(parts: dict[str, Any]) -> list[str]:
    lines = ["| what | measured |", "|---|---|"]
    for name in (name for name in PARTS if not name.startswith("step ")):
        part = parts.get(name)
        lines.append(f"| {name} | {'not measured' if part is None else _TEXTS[name.partition(' ')[0]](part)} |")
    return lines


def _neighbours(part: Result) -> str:
    data = f"{part['queries']:,} queries in {part['bank']:,} x {part['width']}"
    return f"{data}: {part['seconds']:.2f} s, {part['per_second'] / 1e12:.1f} T operations a second"


def _profile(part: Result) -> str:
    rates = ", ".join(f"{name} {rate:.0f} frames/s" for name, rate in part["frames_per_second"].items())
    ratio, counts = part["time_ratio"], part["ratios"]
    faster = f"{ratio['ratio']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}] times as fast"
    return f"{rates}: {faster}, with {counts['parameters']:.2f} times fewer parameters (claimed: up to 2.7 and 3.6)"


def _pipeline(part: Result) -> str:
    busy = "" if part["busy"] is None else f", GPU busy {part['busy']:.0%} of the time"
    rates = f"{1 / part['image']:.0f} images/s at {part['side']} pixels, {1 / part['bare']:.0f} of the model alone"
    return f"{rates}: {part['image'] / part['bare']:.2f} times its time{busy}"


_TEXTS = {"neighbours": _neighbours, "profile": _profile, "pipeline": _pipeline}


def main() -> None:
    """Measure what is missing; print the tables, or write them into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="what was measured; it is continued")
    parser.add_argument("--minutes", type=float, default=10.0, help="after these no further part begins")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--toy", action="store_true", help="small models, to try the script on a CPU")
    parser.add_argument("--write", type=Path, help="page whose tables are replaced")
    arguments = parser.parse_args()
    device = "cpu" if arguments.toy else choose_device(arguments.device)
    if arguments.write:  # also on a machine without the GPU
        found = json.loads(arguments.out.read_text()) if arguments.out.exists() else NOTHING
    elif not arguments.toy and device == "cpu":
        raise SystemExit("error: no GPU here; --toy tries the script on the CPU")
    else:
        try:
            found = measure_all(arguments.out, TOY if arguments.toy else PAPER, device, arguments.minutes)
        except UsageError as error:
            raise SystemExit(f"error: {error}") from error
    left = [name for name in PARTS if name not in found["parts"]]
    print(f"not measured yet, give the same command again: {', '.join(left)}" if left else "all parts are measured")
    show_tables(tables(found), arguments.write)


if __name__ == "__main__":
    main()

"""Bundle a finished training: copy its weights into the package and write its record into the model card.

    python benchmarks/bundle.py runs/dias-seed0

The script writes the fields `weights`, `sha256` and `training` of the card. The options of the card, updated by its
`train.options`, must be equal to those of the training.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import yaml

from ocl_bench.cards.names import CARDS, WEIGHTS
from ocl_bench.training.checkpoint import file_sha256

RECORDED = ("trained_on", "machine", "recipe", "seed", "steps", "seconds", "commit", "data", "numbers")


def bundle(run: Path) -> Path:
    """Copy the weights of the training in folder `run` and rewrite the card. Returns the path of the card."""
    record = json.loads((run / "training.json").read_text(encoding="utf-8"))
    name = record["model"]
    if not record["finished"]:
        raise SystemExit(f"{run}: the training of {name} is not finished; run `ocl-bench train` again to continue it")
    source, card_path = run / f"{name}.safetensors", CARDS / f"{name}.yaml"
    sha256 = file_sha256(source)
    if sha256 != record["sha256"]:
        raise SystemExit(f"{source}: field 'sha256' of training.json has another value; train again")
    card = yaml.safe_load(card_path.read_text(encoding="utf-8"))
    expected = card["options"] | card["train"].get("options", {})
    if changed := sorted(key for key in expected if expected[key] != record["options"].get(key)):
        raise SystemExit(f"{card_path}: options {changed} differ from those of the training")
    objective = record["recipe"]["objective"]
    for field in (name for name in objective if name.endswith("_checkpoint")):
        objective[field] = Path(objective[field]).name  # the folder existed only on the training machine
    shutil.copyfile(source, WEIGHTS / source.name)
    card |= {"weights": source.name, "sha256": sha256, "training": {key: record[key] for key in RECORDED}}
    card_path.write_text(yaml.safe_dump(card, sort_keys=False, width=118, default_flow_style=None), encoding="utf-8")
    return card_path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Bundle a finished training.")
    parser.add_argument("run", type=Path)
    print(bundle(parser.parse_args().run))

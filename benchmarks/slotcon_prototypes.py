"""Which prototypes of a trained SlotCon win pixels of validation scenes, and why the others do not.

    python benchmarks/slotcon_prototypes.py runs/slotcon-seed0

For each prototype of the teacher, from the most to the least used: share of the pixels of its maps that it wins, mean
and standard deviation of its cosines, and its mean share of the targets that a centre gives, in percent. The
scenes are those on which the training was validated. At the end: the share of pixels of the most common classes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from ocl_bench.cards.names import get_task
from ocl_bench.data.transforms import prepare
from ocl_bench.models.checkpoints.names import load_weights
from ocl_bench.models.layers.normalisation import normalise
from ocl_bench.models.slotcon import build, group
from ocl_bench.training.held_out import held_out_scenes
from ocl_bench.training.recipe import Recipe
from ocl_bench.training.slotcon_objective import STAND_IN_CLASSES, WINNER


def main() -> None:
    parser = argparse.ArgumentParser(description="Which prototypes of a trained SlotCon win pixels.")
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    record = json.loads((run / "training.json").read_text(encoding="utf-8"))
    recipe = Recipe.model_validate(record["recipe"])
    model = build(**record["options"])
    load_weights(model, run / f"{record['model']}.safetensors")
    scenes = held_out_scenes(recipe.scenes, recipe.validate_limit)
    rules = get_task(recipe.task).protocol
    with torch.no_grad():
        images = [prepare(scene, rules, model.input_size)[0] for scene in scenes]
        maps = [
            group(model.teacher(normalise(image[None])), model.teacher.prototypes, model.teacher_temperature)[1]
            for image in images
        ]
    cosines = torch.cat([dots.flatten(2).squeeze(0).T for dots in maps])
    shares = cosines.argmax(1).bincount(minlength=cosines.shape[1]) / len(cosines)
    targets = ((cosines - model.centre) / model.teacher_temperature).softmax(1).mean(0)
    print(f"{int((shares > WINNER).sum())} of {len(shares)} prototypes win more than {WINNER:.1%} of the pixels")
    print("won %  mean  spread  target %")
    for k in shares.argsort(descending=True).tolist():
        spread = float(cosines[:, k].std())
        print(f"{shares[k]:5.1%} {cosines[:, k].mean():6.2f} {spread:6.2f} {targets[k]:7.1%}")
    classes = np.concatenate([scene.truth.classes.ravel() for scene in scenes if scene.truth.classes is not None])
    counts = np.bincount(classes[(classes >= 0) & (classes < STAND_IN_CLASSES)], minlength=STAND_IN_CLASSES)
    print("most common classes:", ", ".join(f"{share:.1%}" for share in sorted(counts / counts.sum())[::-1][:8]))


if __name__ == "__main__":
    main()

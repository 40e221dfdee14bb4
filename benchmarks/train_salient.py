"""Train the models of the k-NN tasks on revision 2 of the salient scenes, before their cards name it.

    python benchmarks/train_salient.py odis --seed 0 --out runs/odis-r2-seed0

The losses are the papers': objects or images, and hidden patches. What is in neither paper: batch norm in the head,
Sinkhorn targets, squares around objects as views (docs/odis.md). A training that was stopped goes on with the same
command. The controls infonce-objects and infonce-images name revision 2 in their own cards. All models are tried with
the same values of --size, --steps and --near (docs/worlds.md).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ocl_bench.cards.names import get_card
from ocl_bench.training import train

HEAD: dict[str, Any] = {
    "patch_weight": 1.0,
    "batch_norm": True,
    "assignment": "sinkhorn",
    "norm_last_layer": True,
    "warmup_temperature": 0.02,
    "teacher_temperature": 0.02,
    "freeze_last_layer": 0.0,
}
"""Options of the model beside those of its card. Where a card has no patch loss, it stays without."""

CONTROLS = ("infonce-objects", "infonce-images")
MODELS = ("odis", "ibot", "odis-without-masked-attention", "odis-without-object-crops", "odis-pooling", *CONTROLS)


NEAR = {"scale": [0.4, 1.0]}, {"zoom": [1.0, 1.5]}
"""Views of images and of objects that share more with each other: the third setting of the search."""


def recipe(name: str, size: int, near: bool) -> dict[str, Any]:
    """Fields of the recipe that differ from the card's: those of the InfoNCE control, with views of ``size`` pixels.

    near: both views of a pair show more of the same, see `NEAR`.
    """
    card = get_card(name)
    control = get_card("infonce-objects" if card.supervision == "boxes" else "infonce-images").train
    crops = dict(control["objective"]["crops"])
    if name == "odis-without-object-crops":
        crops = {**get_card("infonce-images").train["objective"]["crops"], "object_aware": False}
    crops["size"] = size
    if near:
        crops |= NEAR["zoom" in crops]
    constant = {"weight_decay_end": control["weight_decay"]}
    return {**control, **constant, "objective": {**control["objective"], "crops": crops}}


def name_of(arguments: argparse.Namespace) -> str:
    """The folder of a run below `runs`."""
    near = "-near" if arguments.near else ""
    return f"{arguments.model}-r2-{arguments.size}px{near}-seed{arguments.seed}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--size", type=int, default=32, help="pixels of a view")
    parser.add_argument("--near", action="store_true", help="views that share more: see docs/worlds.md")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    record = train(
        arguments.model,
        seed=arguments.seed,
        steps=arguments.steps,
        out=arguments.out or Path("runs") / name_of(arguments),
        options={} if arguments.model in CONTROLS else HEAD,
        overrides=recipe(arguments.model, arguments.size, arguments.near),
    )
    print({name: value for name, value in record["numbers"].items()})


if __name__ == "__main__":
    main()

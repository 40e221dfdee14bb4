"""A training small enough for a test; `main` is one in a process of its own."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ocl_bench.models.encoder import Encoder
from ocl_bench.training import Recipe, fit, loop
from ocl_bench.training.checkpoint import load_checkpoint
from ocl_bench.training.data import CHUNK, ChunkedArray, TrainingScenes
from ocl_bench.training.encoder_objectives import EncoderObjective, EncoderOptions
from ocl_bench.training.ranks import start_ranks


def tiny_scenes(count: int = 10) -> TrainingScenes:
    """Noise pictures 128x128 with two rectangles of their own colours."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (CHUNK, 3, 128, 128), dtype=np.uint8)
    labels = np.zeros((CHUNK, 128, 128), dtype=np.uint8)
    for i in range(CHUNK):
        for label, left in ((1, 8), (2, 72)):
            top, height = draw.integers(4, 40), draw.integers(30, 80)
            labels[i, top : top + height, left : left + 45] = label
            images[i, :, top : top + height, left : left + 45] //= 4
            images[i, label, top : top + height, left : left + 45] += 150
    return TrainingScenes(ChunkedArray((images,), count), ChunkedArray((labels,), count), "tiny")


def tiny_recipe(**changes: Any) -> Recipe:
    fields = {
        "steps": 8,
        "batch": 4,
        "lr": 2e-3,
        "warmup": 2,
        "log_every": 1,
        "checkpoint_every": 1,
        "precision": "fp32",
    }
    return Recipe(**{**fields, "validate_every": 4, **changes})


def tiny_colours(images: torch.Tensor) -> torch.Tensor:
    """Mean colours (B, 3, 16, 16) of cells of 8 x 8 pixels: the tokens that `segments` clusters."""
    return torch.nn.functional.avg_pool2d(images, 8)


def tiny_objective(kind: str = "neighbour", batch: int = 4, gather: Any = None, **options: Any) -> EncoderObjective:
    extra: dict[str, Any] = {"gather": gather} if gather else {}
    if kind == "segments":
        scenes = torch.from_numpy(tiny_scenes().images.chunks[0]).float() / 255
        tokens = tiny_colours(scenes).flatten(2).transpose(1, 2).half().numpy()
        extra["clustered"] = ChunkedArray((tokens,), 10)
        options = {"encoder": "encoder", "zoom": 1.0, "clusters": 3, **options}
    chosen = EncoderOptions(kind=kind, **{"anchors": 6, **options})
    return EncoderObjective(tiny_scenes(), chosen, 0, batch, lambda model: {"mbo_fg": 0.5}, **extra)


def tiny_model() -> Encoder:
    torch.manual_seed(0)
    return Encoder(width=8, dim=8, blocks=(1,))


def log_rows(out: Path) -> list[dict[str, Any]]:
    """What was logged of steps; rows of validations are left out."""
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [row for row in rows if "loss" in row]


def logged_losses(out: Path) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in log_rows(out)}


def learn_alone(out: Path, model: Any, objective: Any, recipe: Any, *, seed: int = 0, **options: Any) -> Any:
    """A training in this process, without ranks."""
    ranks = start_ranks("cpu", "fp32")
    return fit(model, objective, recipe, seed=seed, out=out, ranks=ranks, progress=False, **options)


def losses_and_weights(out: Path) -> tuple[dict[int, float], dict[str, torch.Tensor]]:
    """What a training logged and learnt."""
    return logged_losses(out), load_checkpoint(out / "last.pt").model


def assert_visits_learn_the_same(out: Path, learn: Any, losses: Any, weights: Any) -> None:
    """Three visits that are cut short after a step, and one to the end, learn what one visit does."""
    for _ in range(3):
        learn(out, minutes=0)
    assert learn(out).finished
    assert_same_training(out, losses, weights)


def assert_same_training(out: Path, losses: dict[int, float], weights: dict[str, torch.Tensor]) -> None:
    """The log and the last checkpoint of a training, bit for bit."""
    assert logged_losses(out) == losses
    for name, tensor in load_checkpoint(out / "last.pt").model.items():
        assert (tensor == weights[name]).all(), name


def terminate_between(objective: Any, step: int, out: Path) -> None:
    """SIGTERM to this process while it learns a step; every checkpoint that is saved adds a line to saved.txt."""
    learn, save = objective.loss, loop.save_checkpoint

    def loss_with_signal(model: Any, inputs: Any, fraction: float) -> Any:
        if round(fraction * 8) == step:
            signal.raise_signal(signal.SIGTERM)
        return learn(model, inputs, fraction)

    def save_and_note(path: Path, checkpoint: Any) -> None:
        save(path, checkpoint)
        with (out / "saved.txt").open("a") as file:
            file.write(f"{checkpoint.step}\n")

    objective.loss, loop.save_checkpoint = loss_with_signal, save_and_note


def main(out: Path, *arguments: str) -> None:
    """A training in `out`, with kill=STEP, term=STEP, world=N; with kinds=A,B once for each kind of objective."""
    torch.set_num_threads(1)
    options = dict(argument.split("=") for argument in arguments)
    ranks = start_ranks("cpu", "fp32", int(options["world"]) if "world" in options else None)
    if "kinds" in options:
        for kind in options["kinds"].split(","):
            objective = tiny_objective(kind, gather=ranks.gather)
            fit(tiny_model(), objective, tiny_recipe(), seed=0, out=out / kind, ranks=ranks, progress=False)
        return
    objective = tiny_objective(gather=ranks.gather)
    if "kill" in options:
        learn, last = objective.loss, int(options["kill"])

        def loss_until_killed(model: Any, inputs: Any, fraction: float) -> Any:
            if round(fraction * 8) == last:
                os.kill(os.getpid(), signal.SIGKILL)
            return learn(model, inputs, fraction)

        objective.loss = loss_until_killed
    if "term" in options:
        terminate_between(objective, int(options["term"]) + ranks.rank, out)
    fit(tiny_model(), objective, tiny_recipe(), seed=0, out=out, ranks=ranks, progress=False)

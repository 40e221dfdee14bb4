"""`ocl-bench train`: trains the model of a card and writes its weights, a log and a record of the training."""

from __future__ import annotations

import importlib
import json
import os
import platform
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..cards.model import ModelCard
from ..cards.names import get_card, get_task
from ..cards.task import TaskSpec
from ..core.errors import UsageError
from ..core.files import write_atomically
from ..core.locks import locked
from ..core.log import logger
from ..core.optional import MissingPackageError
from ..core.schedules import stream_seed
from ..core.trackers import find_tracker, tracked
from ..models.declared import check_training_seed
from ..models.options import check_sizes
from ..results.provenance import git_state
from .background import Background
from .checkpoint import export_weights
from .follow_up import flags, next_command, resume_command
from .loop import TrainingOutcome, fit
from .objectives import build_objective
from .ranks import Ranks, lost_ranks_named, start_ranks
from .recipe import Recipe, read_recipe

_WORTH_SAYING = 5.0
"""Seconds of preparation, above which the log says how long it took."""


def train(
    model_name: str,
    task: str | TaskSpec | None = None,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    seed: int = 0,
    out: Path | str | None = None,
    device: str = "auto",
    precision: str | None = None,
    compile_model: bool = False,
    world_size: int | None = None,
    scenes: int | None = None,
    data_root: Path | str | None = None,
    overrides: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
    resume: bool = True,
    progress: bool = True,
    log: str | None = None,
) -> dict[str, Any]:
    """Train a bundled model by the recipe of its card, or continue a stopped training.

    Writes `last.pt`, `log.jsonl`, `<model>.safetensors` (float16), `training.json` and `curves.png` into `out`.

    Args:
        model_name: Name of a model card.
        task: Task whose protocol validates the training; by default `train.task` of the card.
        steps: Steps of the whole training, instead of the card's.
        minutes: Stop this visit after so many minutes, preparation of the data included, with a checkpoint. The same
            command continues later.
        seed: Seed of the weights and of all random choices.
        out: Folder for the results, by default `runs/<model>-seed<seed>`.
        device: `auto`, `cpu` or `cuda`.
        precision: `auto`, `fp32` or `bf16`, instead of the card's.
        compile_model: Use `torch.compile`.
        world_size: Expected number of ranks.
        scenes: Number of rendered scenes, instead of the card's.
        data_root: Train on the data of the task in this folder instead of rendered scenes. This works for the
            objectives `slotcon`, `odis` and `video`.
        overrides: Recipe fields by dotted name, such as `{"lr": 1e-3, "objective.radius": 3}`.
        options: Options of the model that replace those of the card, such as `{"slots": 7}`.
        resume: Continue from `last.pt` in `out` if it exists.
        progress: Draw progress bars.
        log: Name of an experiment tracker that gets the numbers of the log, too (see `core.trackers`).

    Returns:
        The content of `training.json`, with `main_rank`, `weights` (path) and `next` (the command to run next).

    Raises:
        UsageError: A name, the seed, an option or the data are wrong, the tracker is not installed, `last.pt` belongs
            to another training, or another training writes into `out`.
    """
    check_training_seed(seed)
    card = get_card(model_name)
    model_options = {**card.options, **card.train.get("options", {}), **(options or {})}
    card = card.model_copy(update={"options": model_options})
    named = {"steps": steps, "precision": precision, "scenes.count": scenes}
    changes = {**(overrides or {}), **{field: value for field, value in named.items() if value is not None}}
    # The arguments are collected before task and data are added to the changes: they have flags of their own.
    arguments = [*flags("option", options or {}), *flags("set", changes)]
    if data_root is not None:
        arguments += ["--data-root", str(data_root)]
        changes["objective.images"] = "reader"
    if task is not None:
        changes["task"] = task.name if isinstance(task, TaskSpec) else task
    recipe = read_recipe(card.train, f"model card {card.name}", **changes)
    spec = get_task(recipe.task if task is None else task)
    make_tracker = find_tracker(log)
    ranks = start_ranks(device, recipe.precision, world_size)
    out = Path(out) if out else Path("runs") / f"{card.name}-seed{seed}"
    busy = f"{out}: another training writes there; wait for it, or choose another --out"
    lock = locked(out / ".lock", busy, wait=False) if ranks.main else nullcontext()
    tracker = make_tracker(f"{card.name}-seed{seed}", out) if ranks.main else find_tracker(None)("", out)
    settings = {"model": card.name, "options": card.options, "seed": seed, "recipe": recipe.model_dump(mode="json")}
    # Several ranks prepare all data first: one of them renders, the others read what is complete.
    ahead = Background(seed, progress) if ranks.size == 1 and os.name == "posix" else None
    shared: dict[str, Any] = {"seed": seed, "ranks": ranks, "progress": progress}
    with lost_ranks_named(ranks, out), lock, tracked(tracker, settings) as summary, ahead or nullcontext():
        start = time.monotonic()
        model = build_untrained(card, seed)
        objective = build_objective(model, card, spec, recipe, **shared, data_root=data_root, background=ahead)
        data = getattr(objective, "note", "") or recipe.scenes.note
        prepared = time.monotonic() - start
        if ranks.main and prepared > _WORTH_SAYING:
            logger.info("training: the data were ready after %.0f s", prepared)
        trained = fit(
            model,
            objective,
            recipe,
            out=out,
            identity={"model": card.name, "options": card.options, **getattr(objective, "identity", {})},
            minutes=None if minutes is None else max(0.0, minutes - prepared / 60),
            resume=resume,
            compile_model=compile_model,
            tracker=tracker,
            begun=start,
            note=ahead.note if ahead else str,
            **shared,
        )
        record = _record(card, spec, recipe, seed, ranks, trained, data)
        summary |= record["numbers"]
        weights = out / f"{card.name}.safetensors"
        if ranks.main:
            record["sha256"] = export_weights(model, weights)
            _write_record(out, record)
    if trained.finished:
        command = next_command(card, spec.name, weights, options or {})
    else:
        command = resume_command(card, spec.name, seed, out, arguments)
    return {**record, "main_rank": ranks.main, "weights": str(weights), "next": command}


def build_untrained(card: ModelCard, seed: int) -> nn.Module:
    """The card's model with fresh weights, which depend on the seed alone.

    Raises:
        UsageError: The options do not fit, or the model is not a torch module.
    """
    check_sizes(card.options)
    module, attribute = card.source.split(":")
    torch.manual_seed(stream_seed(seed, "weights", 0))
    try:
        model = getattr(importlib.import_module(module), attribute)(**card.options)
    except TypeError as error:
        raise UsageError(f"model {card.name}: {error}; see `ocl-bench show {card.name}` for its options") from error
    if not isinstance(model, nn.Module):
        raise UsageError(f"model {card.name}: not a torch module, there is nothing to train; choose another --model")
    return model


def _record(
    card: ModelCard, task: TaskSpec, recipe: Recipe, seed: int, ranks: Ranks, trained: TrainingOutcome, data: str
) -> dict[str, Any]:
    """The record of a training. `benchmarks/bundle.py` copies most of it to the `training:` section of the card."""
    commit, dirty = git_state()
    return {
        "model": card.name,
        "options": card.options,
        "supervision": card.supervision,
        "finished": trained.finished,
        "trained_on": ranks.device.type,
        "machine": describe_machine(ranks),
        "recipe": recipe.model_dump(mode="json") | {"precision": "bf16" if ranks.bf16 else "fp32"},
        "seed": seed,
        "steps": trained.steps,
        "seconds": round(trained.seconds, 1),
        "commit": commit + ("-dirty" if dirty else ""),
        "data": data,
        "numbers": {f"val_{name}": round(value, 5) for name, value in trained.numbers.items()},
        "validation": {"task": task.name, "split": "val", "limit": recipe.validate_limit},
    }


def _write_record(out: Path, record: dict[str, Any]) -> None:
    """Write `training.json` and `curves.png`."""
    text = json.dumps(record, indent=2) + "\n"
    write_atomically(out / "training.json", lambda path: path.write_text(text, encoding="utf-8"))
    draw_curves(out, f"{record['model']}, seed {record['seed']}")


def describe_machine(ranks: Ranks) -> str:
    """One line that describes processor, ranks and torch."""
    if ranks.device.type == "cuda":
        name = torch.cuda.get_device_name(ranks.device)
    else:
        lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
        models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        name = f"{models[0] if models else platform.machine()}, {torch.get_num_threads()} threads"
    return f"{name}, {ranks.size} rank(s), torch {torch.__version__}"


def draw_curves(out: Path, title: str) -> None:
    """Draw `curves.png`; without matplotlib, say so instead. It is imported only here, because that is slow."""
    from .curves import write_curves

    try:
        write_curves(out / "curves.png", out / "log.jsonl", title=title)
    except MissingPackageError as error:
        logger.info("no curves.png: %s", error)

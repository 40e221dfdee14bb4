"""`ocl-bench train`: from the name of a model card to weights, a log and the record of how they were made."""

from __future__ import annotations

import importlib
import json
import platform
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..cards.model import ModelCard
from ..cards.names import get_card, get_task
from ..cards.task import TaskSpec
from ..core.errors import UsageError
from ..core.files import write_atomically
from ..core.schedules import stream_seed
from ..results.provenance import git_state
from .checkpoint import export_weights
from .follow_up import flags, next_command, resume_command
from .loop import TrainingOutcome, fit
from .objectives import build_objective
from .ranks import Ranks, start_ranks
from .recipe import Recipe, read_recipe


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
) -> dict[str, Any]:
    """Train a bundled model by the recipe of its card, or go on with a training that was stopped.

    task: validates, by default `train.task` of the card.
    data_root: train on the task's images in this folder instead of rendered scenes (`slotcon` and `odis`).
    minutes: stop this visit after so long, with a checkpoint; the same command goes on later. out: folder, by default
    `runs/<model>-seed<seed>`. overrides: recipe fields by dotted name, such as {"lr": 1e-3, "objective.radius": 3}.
    options: options of the model instead of its card's, such as {"slots": 7}.
    Writes `last.pt`, `log.jsonl`, `<model>.safetensors` (float16), `training.json` and `curves.png` into `out`;
    returns the content of `training.json` with `main_rank`, `weights` (path) and `next` (command). Raises UsageError.
    """
    card = get_card(model_name)
    trained_with = {**card.options, **card.train.get("options", {}), **(options or {})}
    card = card.model_copy(update={"options": trained_with})
    named = {"steps": steps, "precision": precision, "scenes.count": scenes}
    changes = {**(overrides or {}), **{field: value for field, value in named.items() if value is not None}}
    asked = [*flags("option", options or {}), *flags("set", changes)]
    if data_root is not None:
        asked += ["--data-root", str(data_root)]
        changes["objective.images"] = "reader"
    if task is not None:
        changes["task"] = task.name if isinstance(task, TaskSpec) else task
    recipe = read_recipe(card.train, f"model card {card.name}", **changes)
    spec = get_task(recipe.task if task is None else task)
    ranks = start_ranks(device, recipe.precision, world_size)
    out = Path(out) if out else Path("runs") / f"{card.name}-seed{seed}"
    model = build_untrained(card, seed)
    objective = build_objective(model, card, spec, recipe, seed, ranks, progress=progress, data_root=data_root)
    data = getattr(objective, "note", "") or recipe.scenes.note
    trained = fit(
        model,
        objective,
        recipe,
        seed=seed,
        out=out,
        ranks=ranks,
        identity={"model": card.name, "options": card.options, **getattr(objective, "identity", {})},
        minutes=minutes,
        resume=resume,
        compile_model=compile_model,
        progress=progress,
    )
    record = _record(card, spec, recipe, seed, ranks, trained, data)
    weights = out / f"{card.name}.safetensors"
    if ranks.main:
        record["sha256"] = export_weights(model, weights)
        text = json.dumps(record, indent=2) + "\n"
        write_atomically(out / "training.json", lambda path: path.write_text(text, encoding="utf-8"))
        _draw_curves(out, f"{card.name}, seed {seed}")
    if trained.finished:
        following = next_command(card, spec.name, weights, options or {})
    else:
        following = resume_command(card, spec.name, seed, out, asked)
    return {**record, "main_rank": ranks.main, "weights": str(weights), "next": following}


def build_untrained(card: ModelCard, seed: int) -> nn.Module:
    """The card's model with fresh weights, a pure function of the seed. Raises UsageError when it cannot be trained."""
    module, attribute = card.source.split(":")
    torch.manual_seed(stream_seed(seed, "weights", 0))
    try:
        model = getattr(importlib.import_module(module), attribute)(**card.options)
    except TypeError as error:
        raise UsageError(f"model {card.name}: {error}; see `ocl-bench show {card.name}` for its options") from error
    if not isinstance(model, nn.Module):
        raise UsageError(f"model {card.name}: is no torch module, there is nothing to train")
    return model


def _record(
    card: ModelCard, task: TaskSpec, recipe: Recipe, seed: int, ranks: Ranks, trained: TrainingOutcome, data: str
) -> dict[str, Any]:
    """What a card's `training:` section records, and the share of the training that is done."""
    commit, dirty = git_state()
    return {
        "model": card.name,
        "options": card.options,
        "supervision": card.supervision,
        "finished": trained.finished,
        "trained_on": ranks.device.type,
        "machine": _machine(ranks),
        "recipe": recipe.model_dump(mode="json") | {"precision": "bf16" if ranks.bf16 else "fp32"},
        "seed": seed,
        "steps": trained.steps,
        "seconds": round(trained.seconds, 1),
        "commit": commit + ("-dirty" if dirty else ""),
        "data": data,
        "numbers": {f"val_{name}": round(value, 5) for name, value in trained.numbers.items()},
        "validation": {"task": task.name, "split": "val", "limit": recipe.validate_limit},
    }


def _machine(ranks: Ranks) -> str:
    if ranks.device.type == "cuda":
        name = torch.cuda.get_device_name(ranks.device)
    else:
        lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
        models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        name = f"{models[0] if models else platform.machine()}, {torch.get_num_threads()} threads"
    return f"{name}, {ranks.size} rank(s), torch {torch.__version__}"


def _draw_curves(out: Path, title: str) -> None:
    from .curves import write_curves

    write_curves(out / "curves.png", out / "log.jsonl", title=title)

"""The one training loop. What is learnt is an `Objective`; how it is learnt is a `Recipe`; where it runs is `Ranks`.

Batch t is a pure function of (seed, t), so weights, optimiser state and t are all that a resume needs.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..core.errors import UsageError
from ..core.files import write_atomically
from ..core.log import logger
from ..core.schedules import cosine, learning_rate
from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from .lars import LARS
from .ranks import Ranks
from .recipe import Recipe


class Objective(Protocol):
    """What is learnt."""

    def batch(self, step: int) -> dict[str, Any]:
        """The global batch of a step, a pure function of (seed, step): CPU tensors with one row per image, and plain
        numbers that all ranks share."""
        ...

    def loss(self, model: nn.Module, inputs: dict[str, Any], step_fraction: float) -> dict[str, Tensor]:
        """Loss terms of this rank's rows, scalars, `total` among them; their mean over ranks is that of the batch.

        Terms named `count_..` are no losses: the log has their sums over ranks and over the steps since its last line.
        """
        ...

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Numbers on the validation split, the most telling one first."""
        ...


@dataclass
class Trained:
    """How a training ended. steps: finished ones. numbers: last validation. seconds: over all visits."""

    steps: int
    finished: bool
    numbers: dict[str, float]
    seconds: float


@dataclass
class _Progress:
    step: int = 0
    seconds: float = 0.0
    numbers: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @property
    def spent(self) -> float:
        return self.seconds + time.monotonic() - self.started


def fit(
    model: nn.Module,
    objective: Objective,
    recipe: Recipe,
    *,
    seed: int,
    out: Path,
    ranks: Ranks,
    identity: dict[str, Any] | None = None,
    minutes: float | None = None,
    resume: bool = True,
    compile_model: bool = False,
    progress: bool = True,
) -> Trained:
    """Train to `recipe.steps`, or for `minutes` of this visit, and leave `last.pt` and `log.jsonl` in `out`.

    resume: continue from `out/last.pt` when it is there. identity: what else makes this training another one, such
    as the model's options. Raises UsageError when `last.pt` belongs to another recipe, seed or identity, when the
    batch cannot be split over the ranks, and when the loss is not finite.
    """
    if recipe.batch % ranks.size:
        raise UsageError(f"field 'train.batch': {recipe.batch} images cannot be split over {ranks.size} ranks evenly")
    model.to(ranks.device).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    run = _Run(model, objective, recipe, ranks, out, parameters, _optimizer(recipe, parameters))
    run.identity = {**recipe.identity, "seed": seed, **(identity or {})}
    at = run.at = _restore(out / "last.pt", model, run.optimizer, run.identity) if resume else _Progress()
    log = _Log(out / "log.jsonl", at.step, ranks.main)
    if compile_model:
        _compile(model)
    deadline = None if minutes is None else at.started + 60 * minutes
    saved, stop = at.step, False
    with (
        _bar(recipe.steps, at.step, progress and ranks.main) as show,
        _Batches(objective, at.step) as batches,
        _interrupts(ranks.size == 1) as interrupted,
    ):
        while at.step < recipe.steps and not stop:
            terms = run.step(batches.take(recipe.steps))
            if at.step % recipe.log_every == 0 or at.step == recipe.steps - 1:
                log.train(at.step, _finite(terms, at.step, ranks, out), run.rate, run.counted())
            at.step += 1
            show(at.step, log.last, at.numbers)
            stop = interrupted() or (deadline is not None and ranks.any(time.monotonic() >= deadline))
            if at.step % recipe.checkpoint_every == 0:
                run.checkpoint()
                saved = at.step
            if at.step % recipe.validate_every == 0 and at.step < recipe.steps and not stop:
                log.validation(at.step, run.validate())
    if saved != at.step:
        run.checkpoint()
    if interrupted():
        raise KeyboardInterrupt
    log.validation(at.step, run.validate())
    return Trained(at.step, at.step >= recipe.steps, at.numbers, at.spent)


@dataclass
class _Run:
    """What the steps of one training share."""

    model: nn.Module
    objective: Objective
    recipe: Recipe
    ranks: Ranks
    out: Path
    parameters: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    identity: dict[str, Any] = field(default_factory=dict)
    at: _Progress = field(default_factory=_Progress)
    counts: dict[str, Tensor] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Learning rate of the current step."""
        r = self.recipe
        return learning_rate(
            self.at.step, r.steps, r.lr, warmup=r.warmup_steps, schedule=r.schedule, floor=r.floor, start=r.start
        )

    def step(self, inputs: dict[str, Any]) -> dict[str, Tensor]:
        """One update; returns this rank's loss terms, detached."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
            if self.recipe.weight_decay_end is not None and group["decayed"]:
                fraction = self.at.step / self.recipe.steps
                group["weight_decay"] = cosine(self.recipe.weight_decay, self.recipe.weight_decay_end, fraction)
        self.optimizer.zero_grad(set_to_none=True)
        with self.ranks.autocast():
            terms = self.objective.loss(self.model, self.ranks.share(inputs), self.at.step / self.recipe.steps)
        terms["total"].backward()
        self.ranks.average_gradients(self.parameters)
        if self.recipe.clip_each:
            clip_each(self.parameters, self.recipe.clip_each)
        if self.recipe.clip:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip)
        self.optimizer.step()
        for name in [name for name in terms if name.startswith("count_")]:
            self.counts[name] = terms.pop(name).detach() + self.counts.get(name, 0)
        return {name: value.detach() for name, value in terms.items()}

    def counted(self) -> dict[str, int]:
        """The counts of all ranks since the last call."""
        counts, self.counts = self.counts, {}
        return {name: int(self.ranks.sum(counts[name].float())) for name in sorted(counts)}

    def checkpoint(self) -> None:
        """The main rank writes `last.pt`, the others wait."""
        if self.ranks.main:
            model, optimizer = self.model.state_dict(), self.optimizer.state_dict()
            save_checkpoint(
                self.out / "last.pt", Checkpoint(self.at.step, model, optimizer, self.identity, self.at.spent)
            )
        self.ranks.state.wait_for_everyone()

    def validate(self) -> dict[str, float]:
        """Validate in evaluation mode on the main rank while the others wait; the numbers stay in `at`."""
        if self.ranks.main:
            self.model.eval()
            with torch.no_grad():
                self.at.numbers = self.objective.validate(self.model)
            self.model.train()
        self.ranks.state.wait_for_everyone()
        return self.at.numbers


@contextmanager
def _interrupts(enabled: bool) -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed: the step is finished and kept in a checkpoint. A second Ctrl-C ends it at once."""
    asked = False
    if not enabled or threading.current_thread() is not threading.main_thread():
        yield lambda: asked
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: object) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


def _finite(terms: dict[str, Tensor], step: int, ranks: Ranks, out: Path) -> dict[str, float]:
    names = sorted(terms)
    values = ranks.mean(torch.stack([terms[name].float() for name in names])).tolist()
    numbers = dict(zip(names, values, strict=True))
    if not all(abs(value) < float("inf") for value in values):
        raise UsageError(f"{out}: loss is not finite at step {step} ({numbers}); lower `lr` or use --precision fp32")
    return numbers


def _optimizer(recipe: Recipe, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    if not parameters:
        raise UsageError("this model has no trainable parameters; nothing to train")
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "lars": LARS}[recipe.optimizer]
    groups: list[dict[str, Any]] = [{"params": parameters, "decayed": True}]
    if recipe.decay == "matrices":
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "decayed": True},
            {"params": [p for p in parameters if p.ndim <= 1], "decayed": False, "weight_decay": 0.0},
        ]
    optimizer: torch.optim.Optimizer = kind(groups, lr=recipe.lr, weight_decay=recipe.weight_decay)
    return optimizer


@torch.no_grad()
def clip_each(parameters: Sequence[nn.Parameter], most: float) -> None:
    """Scale the gradient of each parameter down to an L2 norm of `most`, by itself, as DINO does."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return
    factors = [(most / (norm + 1e-6)).clamp(max=1) for norm in torch._foreach_norm(gradients)]
    torch._foreach_mul_(gradients, factors)


def _restore(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, identity: dict[str, Any]) -> _Progress:
    if not path.exists():
        return _Progress()
    checkpoint = load_checkpoint(path)
    for name, value in identity.items():
        if checkpoint.identity.get(name) != value:
            raise UsageError(
                f"{path}: was trained with {name} = {checkpoint.identity.get(name)}, not {value}; "
                "use the same recipe, another --out, or --no-resume"
            )
    try:
        model.load_state_dict(checkpoint.model, strict=True)
        optimizer.load_state_dict(checkpoint.optimizer)
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"{path}: does not fit the model ({str(error).splitlines()[-1].strip()[:160]})") from error
    return _Progress(step=checkpoint.step, seconds=checkpoint.seconds)


def _compile(model: nn.Module) -> None:
    """Compile what the loop calls: `model.loss` where there is one, else `forward`."""
    loss = getattr(model, "loss", None)
    if callable(loss):
        model.loss = torch.compile(loss)  # type: ignore[assignment]
    else:
        model.compile()


class _Batches:
    """Makes the next batch in a thread while the current one is learnt from."""

    def __init__(self, objective: Objective, first: int) -> None:
        self.objective, self.step = objective, first
        self.pool = ThreadPoolExecutor(1)

    def __enter__(self) -> _Batches:
        self.next = self.pool.submit(self.objective.batch, self.step)
        return self

    def take(self, end: int) -> dict[str, Any]:
        """The batch of the current step; starts the one after it unless that is step `end`."""
        inputs = self.next.result()
        self.step += 1
        if self.step < end:
            self.next = self.pool.submit(self.objective.batch, self.step)
        return inputs

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(wait=True, cancel_futures=True)


class _Log:
    """`log.jsonl`: one line per logged step, after a resume without the lines that the checkpoint does not know."""

    def __init__(self, path: Path, step: int, enabled: bool) -> None:
        self.path, self.enabled = path, enabled
        self.last: dict[str, float] = {}
        if enabled:
            lines = path.read_text(encoding="utf-8").splitlines(True) if path.exists() and step else []
            kept = [line for line in lines if _logged_before(line, step)]
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, lambda temporary: temporary.write_text("".join(kept), encoding="utf-8"))

    def train(self, step: int, terms: dict[str, float], rate: float, counts: dict[str, int]) -> None:
        """Append the loss terms of a step: `loss` is the total, `loss_NAME` its parts."""
        self.last = {"loss" if name == "total" else f"loss_{name}": value for name, value in terms.items()}
        self._append({"step": step, **self.last, "lr": rate, **counts})

    def validation(self, step: int, numbers: dict[str, float]) -> None:
        """Append validation numbers after `step` steps."""
        self._append({"step": step, "val": numbers})

    def _append(self, row: dict[str, Any]) -> None:
        if self.enabled:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


def _logged_before(line: str, step: int) -> bool:
    """True for complete lines of training steps before `step` and of validations up to it."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return False  # a kill in the middle of a line
    return bool(row["step"] < step or ("val" in row and row["step"] == step))


def _log_validation(step: int, steps: int, terms: dict[str, float], numbers: dict[str, float]) -> None:
    """A line in the log for each validation: nobody watches a bar there."""
    if numbers:
        values = ", ".join(f"{name} {value:.3f}" for name, value in numbers.items())
        logger.info("training: step %d of %d, loss %.4f, validation: %s", step, steps, terms.get("loss", 0.0), values)


@contextmanager
def _bar(steps: int, done: int, enabled: bool) -> Iterator[Callable[[int, dict[str, float], dict[str, float]], None]]:
    """A progress bar on stderr with the loss and the first validation number; yields its update function."""
    if not enabled:
        yield lambda step, terms, numbers: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if not Console(stderr=True).is_terminal:
        logger.info("training: step %d of %d", done, steps)
        yield lambda step, terms, numbers: _log_validation(step, steps, terms, numbers)
        return

    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[told]}"), console=Console(stderr=True)) as bar:
        task = bar.add_task("training", total=steps, completed=done, told="")

        def show(step: int, terms: dict[str, float], numbers: dict[str, float]) -> None:
            told = [f"loss {terms['loss']:.4f}"] if terms else []
            told += [f"val {name} {value:.3f}" for name, value in list(numbers.items())[:1]]
            bar.update(task, completed=step, told="  ".join(told))

        yield show

"""The training loop. An `Objective` gives batches and losses, a `Recipe` the schedule, `Ranks` the devices.

Batch t is a pure function of (seed, t). A resume therefore needs only the weights, the optimiser state and t.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..core.errors import UsageError
from ..core.log import logger
from ..core.schedules import cosine, learning_rate
from ..core.trackers import Tracker
from .batches import Batches
from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from .lars import LARS
from .log_file import LogFile
from .parts import part
from .progress import training_progress
from .ranks import Ranks
from .recipe import Recipe
from .undecided import Undecided


class Objective(Protocol):
    """Supplies the batches, the loss and the validation of a training."""

    def batch(self, step: int) -> dict[str, Any]:
        """The batch of a step, for all ranks together. It must be a pure function of (seed, step).

        Returns:
            CPU tensors with one row per image, which are split over the ranks, and plain numbers that all ranks share.
        """
        ...

    def loss(self, model: nn.Module, inputs: dict[str, Any], step_fraction: float) -> dict[str, Tensor]:
        """Loss terms of this rank's rows. Their mean over the ranks must be the loss of the whole batch.

        Args:
            model: The model in training mode.
            inputs: This rank's rows of the batch, on its device.
            step_fraction: Share of the training that is done, in [0, 1).

        Returns:
            Scalars by name. `total` is minimised. Names that begin with `count_` are counts, not losses: the log
            contains their sums over the ranks and over the steps since its last line. Those that begin with `monitor_`
            are no losses either: they are logged as they are.
        """
        ...

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Numbers on the validation split. The progress bar shows the first one."""
        ...


@dataclass
class TrainingOutcome:
    """How a training ended.

    Attributes:
        steps: Number of finished steps.
        finished: Whether that is the whole training.
        numbers: Result of the last validation.
        seconds: Training time over all visits.
    """

    steps: int
    finished: bool
    numbers: dict[str, float]
    seconds: float


@dataclass
class _TrainingState:
    """Position in the training: finished steps, seconds of earlier visits, last validation, start of this visit."""

    step: int = 0
    seconds: float = 0.0
    numbers: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @property
    def spent(self) -> float:
        """Training time in seconds over all visits."""
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
    tracker: Tracker | None = None,
    begun: float | None = None,
    note: Callable[[], str] = str,
) -> TrainingOutcome:
    """Train a model up to `recipe.steps` and write `last.pt` and `log.jsonl` into `out`.

    Args:
        model: The model; it is trained in place.
        objective: Batches, loss and validation.
        recipe: Schedule, optimiser and intervals.
        seed: Seed of the training.
        out: Folder for checkpoint and log.
        ranks: Device, precision and processes.
        identity: Further values that must be equal for a resume, such as the options of the model.
        minutes: Stop this visit after so many minutes, with a checkpoint.
        resume: Continue from `out/last.pt` if it exists.
        compile_model: Use `torch.compile`.
        progress: Draw a progress bar.
        tracker: Gets the numbers of the log, too; it is started already.
        begun: When the preparation began, by `time.monotonic`: the log says how long the first step took to come.
        note: Says what is done in the background, for the progress bar.

    Raises:
        UsageError: `last.pt` belongs to another recipe, seed or identity, the batch cannot be split evenly over the
            ranks, the loss is not finite, or a self-distilling teacher stays undecided.
        KeyboardInterrupt: Ctrl-C was pressed; the finished step is in `last.pt`.
        SystemExit: with code 143, after SIGTERM (Slurm, spot machines); the finished step is in `last.pt`.
    """
    if recipe.batch % ranks.size:
        raise UsageError(f"field 'train.batch': {recipe.batch} images cannot be split over {ranks.size} ranks evenly")
    model.to(ranks.device).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    run = _Run(model, objective, recipe, ranks, out, parameters, _optimizer(recipe, parameters))
    run.identity = {**recipe.identity, "seed": seed, **(identity or {})}
    state = run.state = _restore(out / "last.pt", model, run.optimizer, run.identity) if resume else _TrainingState()
    log = LogFile(out / "log.jsonl", state.step, ranks.main, tracker)
    undecided = Undecided(recipe.undecided, recipe.steps, out)
    if compile_model:
        compile_loss(model)
    if run.validates_after(state.step) and ranks.any(log.lacks(state.step)):
        log.validation(state.step, run.validate())  # stopped after the checkpoint and before the validation
    deadline = None if minutes is None else state.started + 60 * minutes
    saved, stop, stopped_by = state.step, False, 0
    with (
        training_progress(recipe.steps, state.step, progress and ranks.main, begun, note) as show,
        Batches(objective.batch, state.step) as batches,
        _interrupts(ranks.size == 1) as interrupted,
    ):
        while state.step < recipe.steps and not stop:
            terms = run.step(batches.take(recipe.steps))
            if state.step % recipe.log_every == 0 or state.step == recipe.steps - 1:
                numbers = _finite(terms, state.step, ranks, out)
                log.train(state.step, numbers, run.rate, run.counted())
                undecided.check(state.step, numbers)
            state.step += 1
            show(state.step, log.last, state.numbers)
            # Clocks differ, and so does when a signal arrives: all ranks stop as soon as one of them has to, since one
            # that stopped alone would leave the others waiting.
            stopped_by = ranks.largest(interrupted())
            stop = stopped_by > 0 or (deadline is not None and ranks.any(time.monotonic() >= deadline))
            if state.step % recipe.checkpoint_every == 0:
                run.checkpoint()
                saved = state.step
            if run.validates_after(state.step) and not stop:
                log.validation(state.step, run.validate())
    if saved != state.step:
        run.checkpoint()
    _leave_after(stopped_by, out, state.step, ranks.main)
    log.validation(state.step, run.validate())
    return TrainingOutcome(state.step, state.step >= recipe.steps, state.numbers, state.spent)


def steps_of(model: nn.Module, objective: Objective, recipe: Recipe, ranks: Ranks) -> Callable[[int], None]:
    """A function that makes the step of a number, batch included, for measurements: nothing is written."""
    model.to(ranks.device).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    run = _Run(model, objective, recipe, ranks, Path(), parameters, _optimizer(recipe, parameters))

    def step(number: int) -> None:
        run.state.step = number
        with part("preparation"):
            inputs = objective.batch(number)
        run.step(inputs)

    return step


@dataclass
class _Run:
    """The objects that all steps of one training share, and the step itself."""

    model: nn.Module
    objective: Objective
    recipe: Recipe
    ranks: Ranks
    out: Path
    parameters: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    identity: dict[str, Any] = field(default_factory=dict)
    state: _TrainingState = field(default_factory=_TrainingState)
    counts: dict[str, Tensor] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Learning rate of the current step."""
        r = self.recipe
        return learning_rate(
            self.state.step, r.steps, r.lr, warmup=r.warmup_steps, schedule=r.schedule, floor=r.floor, start=r.start
        )

    def step(self, inputs: dict[str, Any]) -> dict[str, Tensor]:
        """Update the weights once. Returns this rank's loss terms, detached, without counts."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
            if self.recipe.weight_decay_end is not None and group["decayed"]:
                fraction = self.state.step / self.recipe.steps
                group["weight_decay"] = cosine(self.recipe.weight_decay, self.recipe.weight_decay_end, fraction)
        self.optimizer.zero_grad(set_to_none=True)
        with part("forward"), self.ranks.autocast():
            terms = self.objective.loss(self.model, self.ranks.share(inputs), self.state.step / self.recipe.steps)
        with part("backward"):
            terms["total"].backward()
        with part("optimiser"):
            # Gradients are averaged before they are clipped: the norm is that of the whole batch on all ranks.
            self.ranks.average_gradients(self.parameters)
            if self.recipe.clip_each:
                clip_each(self.parameters, self.recipe.clip_each)
            if self.recipe.clip:
                torch.nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip)
            self.optimizer.step()
        for name in [name for name in terms if name.startswith("count_")]:
            self.counts[name] = terms.pop(name).detach() + self.counts.get(name, 0)
        return {name: value.detach() for name, value in terms.items()}

    def validates_after(self, step: int) -> bool:
        """Whether a validation is due after so many steps; the one at the end is not meant."""
        return 0 < step < self.recipe.steps and step % self.recipe.validate_every == 0

    def counted(self) -> dict[str, int]:
        """Sums of the counts over all ranks since the last call."""
        counts, self.counts = self.counts, {}
        return {name: int(self.ranks.sum(counts[name].float())) for name in sorted(counts)}

    def checkpoint(self) -> None:
        """Write `last.pt` on the main rank while the other ranks wait."""
        if self.ranks.main:
            model, optimizer = self.model.state_dict(), self.optimizer.state_dict()
            save_checkpoint(
                self.out / "last.pt", Checkpoint(self.state.step, model, optimizer, self.identity, self.state.spent)
            )
        self.ranks.state.wait_for_everyone()

    def validate(self) -> dict[str, float]:
        """Validate in evaluation mode on the main rank while the others wait, and remember the numbers."""
        if self.ranks.main:
            self.model.eval()
            with torch.no_grad():
                self.state.numbers = self.objective.validate(self.model)
            self.model.train()
        self.ranks.state.wait_for_everyone()
        return self.state.numbers


@contextmanager
def _interrupts(ctrl_c: bool) -> Iterator[Callable[[], int]]:
    """Handle SIGTERM and Ctrl-C; yields a function that gives the number of the signal that came, or 0.

    The first one lets the loop finish its step and write a checkpoint. The second one stops the program at once.

    ctrl_c: whether to handle Ctrl-C as well. torchrun answers it with a SIGTERM to every rank.
    """
    came = 0
    if threading.current_thread() is not threading.main_thread():
        yield lambda: came
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, *([signal.SIGINT] if ctrl_c else []))}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def remember(number: int, frame: object) -> None:
        nonlocal came
        came = number
        restore()

    for number in before:
        signal.signal(number, remember)
    try:
        yield lambda: came
    finally:
        restore()


def _leave_after(number: int, out: Path, step: int, says_so: bool) -> None:
    """End the program as the signal asks for, now that the checkpoint is written; 0 goes on."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    if number == signal.SIGTERM:
        if says_so:
            place = out / "last.pt"
            logger.warning("stopped by SIGTERM: step %d is in %s; the same command goes on from it", step, place)
        raise SystemExit(128 + number)


def _finite(terms: dict[str, Tensor], step: int, ranks: Ranks, out: Path) -> dict[str, float]:
    """Loss terms averaged over the ranks, as numbers. Raises UsageError when one of them is not finite."""
    names = sorted(terms)
    values = ranks.mean(torch.stack([terms[name].float() for name in names])).tolist()
    numbers = dict(zip(names, values, strict=True))
    if not all(abs(value) < float("inf") for value in values):  # False for NaN as well
        raise UsageError(f"{out}: loss is not finite at step {step} ({numbers}); lower `lr` or use --precision fp32")
    return numbers


def _optimizer(recipe: Recipe, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser of the recipe. `decayed` marks the groups whose weight decay follows the schedule."""
    if not parameters:
        raise UsageError("this model has no trainable parameters; there is nothing to train")
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
    """Scale the gradient of each single parameter down to an L2 norm of at most `most`, as in DINO's code."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return
    # 1e-6 is DINO's guard against a norm of 0; foreach avoids one kernel launch per parameter.
    factors = [(most / (norm + 1e-6)).clamp(max=1) for norm in torch._foreach_norm(gradients)]
    torch._foreach_mul_(gradients, factors)


def _restore(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, identity: dict[str, Any]
) -> _TrainingState:
    """Load `last.pt` into model and optimiser. Raises UsageError for a checkpoint of another training."""
    if not path.exists():
        return _TrainingState()
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
    return _TrainingState(step=checkpoint.step, seconds=checkpoint.seconds)


def compile_loss(model: nn.Module) -> None:
    """Compile the function that the objective calls: `loss`, or `tokens_at` of an encoder, otherwise `forward`."""
    for name in ("loss", "tokens_at"):
        if callable(function := getattr(model, name, None)):
            setattr(model, name, torch.compile(function))
            return
    model.compile()

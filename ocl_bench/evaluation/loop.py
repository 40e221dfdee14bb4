"""One shard of the corridor: read, predict, score. Truth goes from the reader to the adapter, past the model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..core.errors import OclBenchError, SampleError, UsageError
from ..core.types import OVERLAP, Batch, Prediction, Sample, Truth
from ..results.record import Failure
from .shards import Shard

if TYPE_CHECKING:
    from ..data import OpenData
    from .plan import Plan


@dataclass(frozen=True)
class Item:
    """One sample, or one frame of a video, after the protocol.

    image: (3, S, S) float32. truth: at the size on which it is scored. boxes: (N, 4), those that the card grants.
    """

    id: str
    image: Tensor
    truth: Truth
    boxes: Tensor | None = None


def make_item(sample: Sample, plan: Plan, side: int) -> Item:
    """A sample after the protocol. Raises SampleError where the card forbids its overlaps."""
    from ..data.transforms import granted_boxes, prepare

    protocol = plan.task.protocol
    image, truth = prepare(sample, protocol, side)
    if protocol.overlap == "error" and (truth.labels == OVERLAP).any():
        raise SampleError(sample.id, "two objects claim one pixel, and the task card says `overlap: error`")
    boxes = granted_boxes(sample, protocol, side) if protocol.grants == "attention" else None
    return Item(sample.id, image, truth, boxes)


@dataclass(frozen=True)
class _Answer:
    """What the model says of one image with one noise seed. output: as the adapter makes it."""

    id: str
    seed: int
    truth: Truth
    output: Any


@dataclass(frozen=True)
class GivenOutputs:
    """Takes the place of a model whose outputs exist already: the runner looks them up and predicts nothing.

    by_seed: noise seed -> sample id -> output, as the adapter of the task makes it. source: as `Adapter.source` says.
    """

    by_seed: Mapping[int, Mapping[str, Any]]
    source: str


class Runner:
    """Computes shards of a plan; keeps the images of no more than one batch in memory."""

    def __init__(self, plan: Plan, predictions: Path | None = None) -> None:
        self.plan = plan
        self.predictions = predictions
        self.input_size = input_size(plan)
        self.source = ""
        self.seconds_model = 0.0

    def shard(self, positions: Sequence[int], advance: Callable[[int], None] = lambda count: None) -> Shard:
        """Rows of these positions in `plan.data.ids`; batches never cross a shard."""
        import pandas

        start, self.seconds_model = time.perf_counter(), 0.0
        rows: list[dict[str, Any]] = []
        failed: list[Failure] = []
        waiting: list[_Answer] = []
        for first in range(0, len(positions), self.plan.batch_size):
            chosen = positions[first : first + self.plan.batch_size]
            items, unreadable = self.read(chosen)
            answers, unanswered = self._answers(items)
            waiting += answers
            failed += unreadable + unanswered
            if not self.plan.adapter.scored_at_once:
                rows, waiting = rows + self._score(waiting), []
            advance(len(chosen))
        rows += self._score(waiting)
        types = {"id": "object", "noise_seed": "int64", "n_objects": "int64"}
        types |= self.plan.adapter.columns(self.plan.task)
        frame = pandas.DataFrame(rows, columns=list(types)).astype(types)
        return Shard(frame, tuple(failed), self.source, time.perf_counter() - start, self.seconds_model)

    def read(self, positions: Sequence[int]) -> tuple[list[Item], list[Failure]]:
        """Samples after the protocol, and those that cannot be read."""
        items, failed = [], []
        for position in positions:
            try:
                items.append(make_item(self.plan.data.reader[position], self.plan, self.input_size))
            except SampleError as error:
                failed.append(Failure(id=self.plan.data.ids[position], error=str(error)))
        return items, failed

    def _answers(self, items: list[Item]) -> tuple[list[_Answer], list[Failure]]:
        """What the model says of a batch with each noise seed, image by image."""
        answers: list[_Answer] = []
        failed: list[Failure] = []
        for seed in self.plan.noise_seeds:
            items, outputs, failures = self.outputs(items, seed)
            failed += failures
            answers += [_Answer(item.id, seed, item.truth, output) for item, output in zip(items, outputs, strict=True)]
        lost = {failure.id for failure in failed}  # one image, one vote: a sample that fails for one seed fails
        order = {item.id: position for position, item in enumerate(items)}
        kept = [answer for answer in answers if answer.id not in lost]
        return sorted(kept, key=lambda answer: order[answer.id]), failed

    def _score(self, answers: list[_Answer]) -> list[dict[str, Any]]:
        if not answers:
            return []
        plan = self.plan
        values = plan.adapter.score([one.truth for one in answers], [one.output for one in answers], plan.task)
        if self.predictions is not None:
            for one in answers:
                plan.adapter.write(self.predictions, one.id, one.seed, one.output)
        return [{"id": one.id, "noise_seed": one.seed, **value} for one, value in zip(answers, values, strict=True)]

    def outputs(self, items: list[Item], seed: int) -> tuple[list[Item], list[Any], list[Failure]]:
        """What the model says of up to one batch of items: those that worked, their outputs, and the failures."""
        model = self.plan.model.model
        if isinstance(model, GivenOutputs):
            self.source = model.source
            return items, [model.by_seed[seed][item.id] for item in items], []
        items, prediction, failed = self.predict(items, seed)
        if prediction is None:
            return [], [], failed
        finite = self.plan.adapter.finite(prediction)[: len(items)]
        message = f"model {self.plan.model.name}: the prediction is not finite (NaN or infinity)"
        if not finite.any():
            raise UsageError(f"{message} for every image of a batch, first {items[0].id}; expected finite values")
        outputs = self.plan.adapter.outputs(prediction, self._shapes(items), self.input_size)
        failed += [
            Failure(id=item.id, error=f"sample {item.id}: {message}")
            for item, fine in zip(items, finite, strict=True)
            if not fine
        ]
        kept = [position for position, fine in enumerate(finite) if fine]
        return [items[k] for k in kept], [outputs[k] for k in kept], failed

    def predict(self, items: list[Item], seed: int) -> tuple[list[Item], Prediction | None, list[Failure]]:
        """The prediction for a padded batch, whose first rows belong to the items that are returned; and the failures.

        None when no item is left: a model that reads files may fail for single images.
        """
        failed: list[Failure] = []
        while items:
            try:
                return items, self._predict(items, seed), failed
            except SampleError as error:
                if error.sample_id not in {item.id for item in items}:
                    raise
                failed.append(Failure(id=error.sample_id, error=str(error)))
                items = [item for item in items if item.id != error.sample_id]
        return [], None, failed

    def _shapes(self, items: list[Item]) -> list[tuple[int, int]]:
        shapes = [(int(item.truth.labels.shape[0]), int(item.truth.labels.shape[1])) for item in items]
        return shapes + shapes[-1:] * (self.plan.batch_size - len(items))

    def _predict(self, items: list[Item], seed: int) -> Prediction:
        """Predict a batch that is padded to the batch size by repeating its last image."""
        plan = self.plan
        padded = items + items[-1:] * (plan.batch_size - len(items))
        image = on_device(torch.stack([item.image for item in padded]), plan)
        boxes = None
        if plan.task.protocol.grants == "attention":
            boxes = tuple(on_device(item.boxes, plan) for item in padded if item.boxes is not None)
        ids, any_of = tuple(item.id for item in padded), getattr(plan.adapter, "any_of", ())
        batch = Batch(ids, image, boxes=boxes, noise_seed=seed, any_of=any_of)
        start = time.perf_counter()
        prediction = ask(plan, plan.model.model, batch, [item.truth for item in padded])
        self.seconds_model += time.perf_counter() - start
        prediction = plan.adapter.check(prediction, len(padded), plan.model.name)
        self.source = plan.adapter.source(prediction)
        return prediction if boxes is None else replace(prediction, granted=boxes)


def ask(plan: Plan, model: Any, batch: Batch, truth: list[Truth]) -> Any:
    """What a model says of a batch; only a ceiling is given the truth. Raises UsageError when the model fails."""
    try:
        with torch.inference_mode():
            prediction = model.predict(batch, *((truth,) if plan.model.needs_truth else ()))
        if plan.device.startswith("cuda"):
            torch.cuda.synchronize()
        return prediction
    except OclBenchError:
        raise
    except (Exception, SystemExit) as error:  # a model that calls sys.exit must not end the run in silence
        reason = str(error).splitlines()[0][:300] if str(error) else ""
        number, side = len(truth), batch.image.shape[-1]
        raise UsageError(
            f"model {plan.model.name}: predict failed on a batch of {number} images of side {side} "
            f"({type(error).__name__}: {reason})"
        ) from error


def on_device(tensor: Tensor, plan: Plan) -> Tensor:
    """Where the model is; only one that can be moved is on another device than the CPU."""
    return tensor.to(plan.device) if callable(getattr(plan.model.model, "to", None)) else tensor


def input_size(plan: Plan) -> int:
    """Side of the square that the model sees: the model's own, else its card's, else the task card's `input`."""
    own = getattr(plan.model.model, "input_size", None) or plan.model.card.input
    return int(own or plan.task.protocol.input)


def predictions(
    plan: Plan, data: OpenData, left_out: list[int] | None = None, *, progress: bool = True
) -> Iterator[tuple[list[Item], Prediction]]:
    """Batches of another split of the task with what the model says of them, for fitting a head.

    The first rows of a prediction belong to the items; the batch is padded. Samples that cannot be read or predicted
    are left out and counted on stderr. Raises UsageError when they are more than a tenth.

    left_out: gets their positions in `data.ids`.
    """
    import sys

    from ..core.machine import progress_bar

    runner, failed = Runner(replace(plan, data=data)), list[Failure]()
    seed = plan.noise_seeds[0]
    with progress_bar(f"{plan.model.name}: {len(data.ids)} images to fit on", len(data.ids), progress) as advance:
        for first in range(0, len(data.ids), plan.batch_size):
            chosen = range(first, min(first + plan.batch_size, len(data.ids)))
            items, unreadable = runner.read(chosen)
            items, prediction, unpredicted = runner.predict(items, seed)
            failed += [*unreadable, *unpredicted]
            if prediction is not None:
                yield items, prediction
            advance(len(chosen))
    if failed:
        if left_out is not None:
            lost = {failure.id for failure in failed}
            left_out += [position for position, sample_id in enumerate(data.ids) if sample_id in lost]
        share = f"{len(failed)} of {len(data.ids)} images of the fit split fail, first: {failed[0].error}"
        if len(failed) > len(data.ids) / 10:
            raise UsageError(share)
        print(f"left out: {share}", file=sys.stderr)

"""Shards of images: read, predict, score. The truth goes from the reader to the adapter; the model never sees it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from ..core.errors import OclBenchError, UsageError
from ..core.log import logger, progress_bar
from ..core.types import Batch, Prediction, Truth
from ..models.user_code import described
from ..results.record import Failure
from .behind import Behind
from .failures import Patience, attempt, failure
from .reading import ImageSource, Item
from .shards import Shard, to_frame
from .workers import Outcome, read_ahead

if TYPE_CHECKING:
    from ..cards.task import TaskSpec
    from ..data import OpenData
    from ..models.loading import LoadedModel
    from .plan import Plan


ReadBatch = Outcome[Sequence[int], tuple[list[Item], list[Failure]]]
"""The positions of a batch, with its samples and the failures of those that cannot be read."""


@dataclass(frozen=True)
class _ImageOutput:
    """The output of one image with one noise seed, as the adapter makes it, and the truth to score it against."""

    id: str
    seed: int
    truth: Truth
    output: Any


@dataclass(frozen=True)
class _Predicted:
    """A batch that waits to be scored: its number of samples, and the source and the seconds of the model."""

    count: int
    outputs: list[_ImageOutput]
    failed: list[Failure]
    source: str
    seconds: float


@dataclass
class _Unfinished:
    """A shard, of which so many samples are left. finish: gets it when none is."""

    left: int
    finish: Callable[[Shard], None]
    rows: list[dict[str, Any]] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    unscored: list[_ImageOutput] = field(default_factory=list)
    seconds_model: float = 0.0


@dataclass(frozen=True)
class GivenOutputs:
    """Takes the place of a model whose outputs exist already: the runner looks them up and predicts nothing.

    by_seed: noise seed -> sample id -> output, as the adapter of the task makes it. source: as `Adapter.source` says.
    """

    by_seed: Mapping[int, Mapping[str, Any]]
    source: str
    sees_images: ClassVar[bool] = False
    answers_questions: ClassVar[bool] = True


class Runner:
    """Computes shards of a plan, with the images of a few batches in memory.

    Args:
        plan: what is evaluated.
        predictions: folder in which outputs are saved, or None.
    """

    def __init__(self, plan: Plan, predictions: Path | None = None) -> None:
        self.plan = plan
        self.predictions = predictions
        self.input_size = input_size(plan.model, plan.task)
        self.read = ImageSource(plan.data.reader, plan.data.ids, plan.task.protocol, self.input_size)
        self.patience = Patience(len(plan.data.ids))
        self.source = ""
        self.seconds_model = 0.0
        self.remarks = Counter[str]()
        self.began = 0.0

    def reading(self, groups: Iterable[Sequence[int]]) -> AbstractContextManager[Iterator[ReadBatch]]:
        """The batches of groups of positions in `plan.data.ids`, read ahead by `plan.workers` processes."""
        batches = (chosen for positions in groups for chosen in self.batches(positions))
        return read_ahead(batches, self.read, self.read, self.plan.workers, self.plan.device)

    def batches(self, positions: Sequence[int]) -> Iterator[Sequence[int]]:
        """The positions in batches. These never cross a shard, so that resuming changes no batch."""
        for first in range(0, len(positions), self.plan.batch_size):
            yield positions[first : first + self.plan.batch_size]

    def shards(
        self,
        groups: Sequence[Sequence[int]],
        finish: Callable[[int, Shard], None],
        advance: Callable[[int], None] = lambda count: None,
    ) -> None:
        """Compute the rows of groups of samples. A thread scores each batch while the next one is predicted.

        Args:
            groups: positions of the samples in `plan.data.ids`, those of one shard in each group.
            finish: gets the number of a group and its shard, in order, in that thread.
            advance: gets the number of samples of each finished batch, in that thread.
        """
        self.began = time.perf_counter()
        with self.reading(groups) as reads, Behind() as scoring:
            for number, positions in enumerate(groups):
                shard = _Unfinished(len(positions), finish=partial(finish, number))
                for chosen in self.batches(positions):
                    items, unreadable = next(reads).get()
                    outputs, unpredicted = self._predict_seeds(items)
                    failed = unreadable + unpredicted
                    batch = _Predicted(len(chosen), outputs, failed, self.source, self._spent())
                    scoring.do(partial(self._add, shard, batch, advance))

    def _spent(self) -> float:
        """Seconds within the model since the last call."""
        seconds, self.seconds_model = self.seconds_model, 0.0
        return seconds

    def _add(self, shard: _Unfinished, batch: _Predicted, advance: Callable[[int], None]) -> None:
        """Score a batch of a shard; after the last one, the shard is finished."""
        shard.left -= batch.count
        shard.seconds_model += batch.seconds
        shard.unscored += batch.outputs
        shard.failed += batch.failed
        # Some adapters score a whole shard at once, after its last batch.
        if not self.plan.adapter.scored_at_once or not shard.left:
            scored, unscorable = self._score(shard.unscored)
            shard.rows += scored
            shard.failed += unscorable
            shard.unscored = []
        advance(batch.count)
        if shard.left:
            return
        frame, now = to_frame(shard.rows, self.plan.adapter.columns(self.plan.task)), time.perf_counter()
        seconds = now - self.began, shard.seconds_model
        shard.finish(Shard(frame, tuple(shard.failed), batch.source, *seconds, self.remarks))
        self.began, self.remarks = now, Counter()

    def _predict_seeds(self, items: list[Item]) -> tuple[list[_ImageOutput], list[Failure]]:
        """The outputs of a batch with every noise seed, image by image, and the failures."""
        predicted: list[_ImageOutput] = []
        failed: list[Failure] = []
        for seed in self.plan.noise_seeds:
            items, outputs, failures = self.outputs(items, seed)
            failed += failures
            predicted += [
                _ImageOutput(item.id, seed, item.truth, output) for item, output in zip(items, outputs, strict=True)
            ]
        # A sample that fails for one noise seed fails as a whole: every image has the same weight in a mean.
        failed_ids = {failure.id for failure in failed}
        # The rows of one image stand together, whatever the number of seeds; `items` holds those that never failed.
        order = {item.id: position for position, item in enumerate(items)}
        complete = [entry for entry in predicted if entry.id not in failed_ids]
        return sorted(complete, key=lambda entry: order[entry.id]), failed

    def _score(self, predicted: list[_ImageOutput]) -> tuple[list[dict[str, Any]], list[Failure]]:
        """A row for each output, which is also saved where the run saves predictions, and the failures.

        Where the outputs cannot be scored together, those of each sample are scored alone.
        """
        if not predicted:
            return [], []
        try:
            return self._rows(predicted), []
        except OclBenchError as error:
            samples = list(dict.fromkeys(entry.id for entry in predicted))
            if len(samples) == 1:
                return [], [Failure(id=samples[0], error=f"sample {samples[0]}: {error}")]
        parts = [self._score([entry for entry in predicted if entry.id == sample_id]) for sample_id in samples]
        return [row for rows, _ in parts for row in rows], [one for _, failed in parts for one in failed]

    def _rows(self, predicted: list[_ImageOutput]) -> list[dict[str, Any]]:
        """A row for each output. Raises what the adapter raises."""
        plan = self.plan
        values = plan.adapter.score(
            [entry.truth for entry in predicted], [entry.output for entry in predicted], plan.task
        )
        side = None if isinstance(plan.model.model, GivenOutputs) else self.input_size
        shapes = [(int(one.truth.labels.shape[0]), int(one.truth.labels.shape[1])) for one in predicted]
        self.remarks.update(plan.family.remarks(plan.adapter, [entry.output for entry in predicted], shapes, side))
        if self.predictions is not None:
            for entry in predicted:
                plan.adapter.write(self.predictions, entry.id, entry.seed, entry.output)
        named = plan.family.sample_columns
        return [
            {"id": entry.id, "noise_seed": entry.seed, **value, **named(plan.adapter, entry.id)}
            for entry, value in zip(predicted, values, strict=True)
        ]

    def outputs(self, items: list[Item], seed: int) -> tuple[list[Item], list[Any], list[Failure]]:
        """The items of up to one batch that could be predicted, their outputs, and the failures.

        Raises the error of the model when no sample could be predicted so far (see `failures.Patience`).
        """
        model = self.plan.model.model
        if isinstance(model, GivenOutputs):
            self.source = model.source
            return items, [model.by_seed[seed][item.id] for item in items], []

        def use(some: list[Item]) -> tuple[list[Item], list[Any], list[Failure]]:
            kept, prediction, failures = self._usable(some, seed)
            outputs = self.plan.adapter.outputs(prediction, self._shapes(kept), self.input_size) if kept else []
            return kept, outputs[: len(kept)], failures  # without those of the padding

        parts, failed = attempt(items, use, self.patience)
        kept = [item for part, _, _ in parts for item in part]
        outputs = [output for _, part, _ in parts for output in part]
        return kept, outputs, failed + [one for _, _, failures in parts for one in failures]

    def predict(self, items: list[Item], seed: int) -> tuple[list[tuple[list[Item], Prediction]], list[Failure]]:
        """The finite predictions of a batch, each with its items, and the failures.

        There is one prediction, or one for each sample where the batch as a whole fails. It is padded: its first rows
        belong to the items. Raises what `outputs` raises.
        """
        parts, failed = attempt(items, lambda some: self._usable(some, seed), self.patience)
        predicted = [(kept, prediction) for kept, prediction, _ in parts if kept]
        return predicted, failed + [one for _, _, failures in parts for one in failures]

    def _usable(self, items: list[Item], seed: int) -> tuple[list[Item], Prediction, list[Failure]]:
        """The items whose prediction is finite, the prediction of these, and the failures of the others.

        Raises what the model and `Adapter.check` raise for the batch.
        """
        prediction = self._predict(items, seed)
        finite = self.plan.adapter.finite(prediction)[: len(items)]  # without the padding
        self.patience.succeeded |= bool(finite.any())
        message = f"model {self.plan.model.name}: the prediction is not finite (NaN or infinity)"
        pairs = list(zip(items, finite, strict=True))
        failures = [failure(item.id, UsageError(message), self.patience) for item, fine in pairs if not fine]
        kept = [item for item, fine in pairs if fine]
        # Predicted again without the others, so that no head and no adapter meets a NaN. The rows do not change.
        return kept, self._predict(kept, seed) if failures and kept else prediction, failures

    def _shapes(self, items: list[Item]) -> list[tuple[int, int]]:
        """Height and width at which each row of the padded batch is scored."""
        shapes = [(int(item.truth.labels.shape[0]), int(item.truth.labels.shape[1])) for item in items]
        return shapes + shapes[-1:] * (self.plan.batch_size - len(items))

    def _predict(self, items: list[Item], seed: int) -> Prediction:
        """Predict a batch that is padded to the batch size by repeating its last image.

        Kernels may round differently for another batch size: without padding, a row would depend on the size of the
        last batch.
        """
        plan = self.plan
        padded = items + items[-1:] * (plan.batch_size - len(items))
        # One after the other, as what other processes read lies in pinned memory, which a GPU fetches by itself.
        image = torch.stack([on_device(item.image, plan) for item in padded])
        boxes = given = None
        if plan.task.protocol.grants == "attention":
            boxes = tuple(on_device(item.boxes, plan) for item in padded if item.boxes is not None)
            given = tuple(box.clone() for box in boxes)  # a model that changes its boxes in place changes no others
        ids, any_of = tuple(item.id for item in padded), plan.family.any_of(plan.adapter)
        asked = tuple(tuple(question.asked() for question in item.truth.questions) for item in padded)
        batch = Batch(ids, image, boxes=given, noise_seed=seed, any_of=any_of, questions=asked if any(asked) else ())
        start = time.perf_counter()
        prediction = predict_batch(plan, plan.model.model, batch, [item.truth for item in padded])
        self.seconds_model += time.perf_counter() - start
        prediction = plan.adapter.check(prediction, len(padded), plan.model.name)
        self.source = plan.adapter.source(prediction)
        # A head that pools within the granted boxes reads them here: models do not return them.
        return prediction if boxes is None else replace(prediction, granted=boxes)


def predict_batch(plan: Plan, model: Any, batch: Batch, truth: list[Truth]) -> Any:
    """The model's answer to a batch, unchecked. Only ceilings are given the truth.

    Raises UsageError when the model fails.
    """
    one = len(set(batch.ids)) == 1  # one image that is repeated to fill a batch, or frames of one video
    what = f"sample {batch.ids[0]}" if one else f"a batch of {len(truth)} images"
    with name_failures(plan.model.name, f"{what} of side {batch.image.shape[-1]}"):
        with torch.inference_mode():
            prediction = model.predict(batch, *((truth,) if plan.model.needs_truth else ()))
        if plan.device.startswith("cuda"):
            torch.cuda.synchronize()  # kernels run asynchronously: errors and time would appear elsewhere
    return prediction


@contextmanager
def name_failures(model: str, what: str) -> Iterator[None]:
    """Turn whatever a model raises into a UsageError of one line. what: the input, for the message."""
    try:
        yield
    except OclBenchError:
        raise
    except (Exception, SystemExit) as error:  # a model that calls sys.exit must not end the run silently
        raise UsageError(f"model {model}: predict failed on {what} ({described(error)})") from error


def on_device(tensor: Tensor, plan: Plan) -> Tensor:
    """The tensor on the device of the model. A model without `to` cannot have been moved and stays on the CPU."""
    movable = callable(getattr(plan.model.model, "to", None))
    return tensor.to(plan.device, non_blocking=True) if movable else tensor


def input_size(model: LoadedModel, task: TaskSpec) -> int:
    """Side of the square that the model sees: the model's own, else its card's, else the task card's `input`."""
    declared = getattr(model.model, "input_size", None) or model.card.input
    return int(declared or task.protocol.input)


def predictions(
    plan: Plan, data: OpenData, left_out: list[int] | None = None, *, progress: bool = True
) -> Iterator[tuple[list[Item], Prediction]]:
    """Batches of the fit split with their predictions, on which a head is fitted.

    A batch is padded: the first rows of its prediction belong to the items. Samples that cannot be read or predicted
    are left out, and a warning says how many.

    Args:
        plan: provides the model and the first noise seed.
        data: the fit split.
        left_out: gets the positions in `data.ids` of the samples that are left out.
        progress: whether to show a progress bar.

    Raises:
        UsageError: when more than a tenth of the samples are left out.
    """
    runner, failed = Runner(replace(plan, data=data)), list[Failure]()  # exactly as the scored images are predicted
    seed = plan.noise_seeds[0]
    bar = progress_bar(f"{plan.model.name}: features to fit the head on", len(data.ids), progress, "images")
    with bar as advance, runner.reading([range(len(data.ids))]) as reads:
        for read in reads:
            items, unreadable = read.get()
            predicted, unpredicted = runner.predict(items, seed)
            failed += [*unreadable, *unpredicted]
            yield from predicted
            advance(len(read.unit))
    if failed:
        if left_out is not None:
            failed_ids = {failure.id for failure in failed}
            left_out += [position for position, sample_id in enumerate(data.ids) if sample_id in failed_ids]
        share = f"{len(failed)} of {len(data.ids)} images of the fit split fail, first: {failed[0].error}"
        if len(failed) > len(data.ids) / 10:
            raise UsageError(share)
        logger.warning("left out: %s", share)

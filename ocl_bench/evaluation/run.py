"""The corridor: the only loop that evaluates anything.

Plan -> Reader -> Batch -> model.predict -> Prediction -> Adapter.score -> rows -> summarise -> Result. Rows are
bit-equal for any order, shard, worker or rank count at one batch size and thread count, and memory does not grow with
the data.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cards.task import TaskSpec
from ..core.errors import UsageError
from ..core.log import logger, progress_bar
from ..core.machine import fixed_arithmetic, peak_memory_mb
from ..core.paths import results_root
from ..families.summary import summarise
from ..models.loading import LoadedModel
from ..results import provenance
from ..results import record as records
from ..results.record import Result
from ..results.store import rows_problem
from .fitting import fit_section
from .heads import with_head
from .loop import Runner
from .plan import DTYPE, Plan, make_plan
from .shards import SHARD_SIZE, Shard, WorkFolder, merge, split

if TYPE_CHECKING:
    import pandas

    from .video_loop import VideoRunner


@dataclass(frozen=True)
class Ranks:
    """This process among those that torchrun started (WORLD_SIZE, RANK): rank r computes shards r, r + world, .."""

    world: int
    rank: int

    @classmethod
    def from_environment(cls) -> Ranks:
        """Ranks as torchrun names them, else one process. Raises UsageError when they are inconsistent."""
        try:
            world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        except ValueError as error:
            raise UsageError("WORLD_SIZE and RANK must be integers; start ranks with torchrun") from error
        if not 0 <= rank < world:
            raise UsageError(f"RANK {rank} is not below WORLD_SIZE {world}; start ranks with torchrun")
        return cls(world, rank)


def evaluate(
    model: Any,
    task: str | Path | TaskSpec,
    *,
    data_root: str | Path | None = None,
    limit: int | None = None,
    noise_seeds: Sequence[int] | None = None,
    device: str = "auto",
    batch_size: int = 16,
    split: str | None = None,
    stand_in_seed: int | None = None,
    results: str | Path | None = None,
    save_predictions: bool = False,
    options: Mapping[str, Any] | None = None,
    checkpoint: str | Path | None = None,
    boxes: str | Path | None = None,
    progress: bool = True,
    force: bool = False,
) -> Result:
    """Score a model on a task and write the result.

    model: a name (see `ocl-bench list models`), `name:SEED`, `path.py:build`, or any object with `predict`.
    task: a name, a path of a task card, or a TaskSpec. noise_seeds: by default those of the card.
    results: folder for results, by default `OCL_BENCH_RESULTS` or `./results`. A finished result with the same key is
    reused (`Result.reused`) unless `force`; a killed run goes on where it stopped. boxes: a file with other boxes than
    the data set's own, for a task that grants boxes.

    Raises UsageError (wrong name, card or prediction) and DataMissingError. Samples that cannot be read or scored are
    listed in `counts.failed`, the others are kept.
    """
    plan = make_plan(
        model,
        task,
        data_root=data_root,
        limit=limit,
        noise_seeds=noise_seeds,
        device=device,
        batch_size=batch_size,
        split=split,
        stand_in_seed=stand_in_seed,
        options=options,
        checkpoint=checkpoint,
        boxes=boxes,
        progress=progress,
    )
    return run(plan, results=results, save_predictions=save_predictions, progress=progress, force=force)


def run(
    plan: Plan,
    *,
    results: str | Path | None = None,
    save_predictions: bool = False,
    progress: bool = True,
    force: bool = False,
) -> Result:
    """Compute a plan, or reuse its finished result. With ranks, all return the same result."""
    ranks = Ranks.from_environment()
    if ranks.world > 1 and (force or not plan.model.reusable):
        raise UsageError(
            "with several ranks, name a model that can be identified (a card, or path.py:build with parameters or an "
            "attribute `fingerprint`) and do not use --force"
        )
    folder = plan.folder(Path(results) if results is not None else results_root())
    stem = plan.key[:8]
    if plan.model.reusable and not force and (found := _finished(folder / f"{stem}.json", plan, save_predictions)):
        return found
    predictions = folder / f"{stem}.predictions" if save_predictions else None
    work = WorkFolder(folder / f"{stem}.work", _work_setup(plan, save_predictions))
    if force or not plan.model.reusable:
        work.remove()
    shards = split_plan(plan)
    plan = with_head(replace(plan, refit=force))
    _compute(plan, work, shards, ranks, predictions, progress)
    if ranks.rank > 0:
        logger.info("rank %d is done and waits for rank 0, which writes %s", ranks.rank, folder / f"{stem}.json")
        while not (found := _finished(folder / f"{stem}.json", plan, save_predictions, failed_too=True)):
            time.sleep(0.1)
        return found
    work.wait(range(len(shards)))
    finished = [shard for index in range(len(shards)) if (shard := work.read(index)) is not None]
    result, rows = _collect(plan, finished)
    written = records.write_result(result, rows, folder)
    work.remove()
    return written


def split_plan(plan: Plan) -> list[range]:
    """The shards of a plan, as positions in `plan.data.ids`."""
    return split(len(plan.data.ids), _shard_size(plan))


def _shard_size(plan: Plan) -> int:
    return plan.adapter.scored_at_once or SHARD_SIZE


def _work_setup(plan: Plan, save_predictions: bool) -> dict[str, Any]:
    """What must be equal for shards to be mixed."""
    return {**asdict(_setup(plan)), "predictions": save_predictions, "shard": _shard_size(plan)}


def _compute(
    plan: Plan, work: WorkFolder, shards: list[range], ranks: Ranks, predictions: Path | None, progress: bool
) -> None:
    """Compute and write the shards of this rank that are not there yet."""
    runner = make_runner(plan, predictions)
    mine = range(ranks.rank, len(shards), ranks.world)
    total = sum(len(shards[index]) for index in mine)
    text = f"{plan.model.name} on {plan.task.name}"
    bar = progress_bar(text, total, progress and ranks.rank == 0, plan.family.unit)
    with fixed_arithmetic(plan.threads), bar as advance:
        for index in mine:
            if work.read(index) is not None:
                advance(len(shards[index]))
                continue
            work.write(index, runner.shard(shards[index], advance))


def make_runner(plan: Plan, predictions: Path | None) -> Runner | VideoRunner:
    """What computes the shards of the plan."""
    if plan.family.unit == "images":
        return Runner(plan, predictions)
    from .video_loop import VideoRunner

    return VideoRunner(plan, predictions)


def _collect(plan: Plan, shards: Sequence[Shard]) -> tuple[Result, pandas.DataFrame]:
    """Rows of all shards, and the result that sums them up."""
    rows = merge(shards)
    failed = tuple(failure for shard in shards for failure in shard.failed)
    scored = int(rows["id"].nunique())
    if not scored:
        raise UsageError(f"task {plan.task.name}: no sample could be scored; first: {failed[0].error}")
    source = next(shard.source for shard in shards if shard.source)
    objects = rows.drop_duplicates("id")["n_objects"]
    seconds = sum(shard.seconds_total for shard in shards)
    task, model = plan.task, plan.model
    result = Result(
        identity=provenance.identity(plan.key, "failed samples" if failed else "complete"),
        task=records.TaskSection(
            name=task.name,
            version=task.version,
            hash=task.hash,
            signature=task.signature(source),
            main=task.main,
            metrics=task.metrics,
        ),
        data=plan.data_section,
        fit=fit_section(plan),
        model=_model_section(model, source, task),
        seeds=records.Seeds(noise=plan.noise_seeds),
        setup=records.Setup(**asdict(_setup(plan))),
        counts=records.Counts(
            attempted=len(plan.data.ids),
            scored=scored,
            failed=failed,
            single_object_share=float((objects == 1).mean()),
        ),
        metrics=summarise(rows, task, source),
        cost=records.Cost(
            seconds_total=seconds,
            seconds_model=sum(shard.seconds_model for shard in shards),
            images_per_second=_images(rows) / seconds if seconds > 0 else None,
            peak_memory_mb=peak_memory_mb(),
        ),
        rows=records.RowsFile(file="", sha256=""),
    )
    return result, rows


def _images(rows: pandas.DataFrame) -> float:
    """How many images were predicted; in videos, frames."""
    return float(rows["n_frames"].sum()) if "n_frames" in rows else float(len(rows))


def _model_section(model: LoadedModel, source: str, task: TaskSpec) -> records.ModelSection:
    return records.ModelSection(
        name=model.name,
        card=model.card.name if model.bundled else "",
        options=dict(model.options),
        checkpoint_sha256=model.checkpoint_sha256,
        parameters=model.parameters,
        supervision=model.card.supervision,
        privilege="boxes" if task.protocol.grants and model.card.privilege == "none" else model.card.privilege,
        role=model.card.role,
        mask_source=source,
        training_seed=model.training_seed,
    )


@dataclass(frozen=True)
class _Setup:
    device: str
    dtype: str
    threads: int
    batch_size: int
    versions: dict[str, str]


def _setup(plan: Plan) -> _Setup:
    return _Setup(plan.device, DTYPE, plan.threads, plan.batch_size, provenance.package_versions())


def _finished(path: Path, plan: Plan, save_predictions: bool, *, failed_too: bool = False) -> Result | None:
    """The finished result of this plan with its rows, or None when there is none that can be trusted."""
    if not path.is_file():
        return None
    try:
        result = records.read_result(path)
    except UsageError:
        return None  # damaged or of an unknown format: computed again
    if result.identity.key != plan.key or (result.identity.status != "complete" and not failed_too):
        return None
    if rows_problem(result):
        return None
    if save_predictions and not path.with_suffix(".predictions").is_dir():
        return None
    result._reused = True
    return result

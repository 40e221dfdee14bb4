"""Run one evaluation, from a plan to a result.

Plan -> Reader -> Batch -> model.predict -> Prediction -> Adapter.score -> rows -> summarise -> Result. At one batch
size and thread count, rows are bit-equal for any order, shard, worker or rank count. Memory does not grow with the
data.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ..cards.task import TaskSpec
from ..core.errors import UsageError
from ..core.launcher import one_of_several, remedy
from ..core.locks import locked
from ..core.log import logger, progress_bar
from ..core.machine import fixed_arithmetic, peak_memory_mb
from ..core.paths import results_root
from ..families.summary import summarise
from ..models.loading import LoadedModel
from ..results import provenance
from ..results import record as records
from ..results.config import write_config
from ..results.record import Result
from ..results.store import rows_of
from .determinism import agreement
from .examination.refusals import refusal
from .fitting import fit_section
from .heads import with_head
from .loop import Runner, input_size
from .plan import DTYPE, Plan
from .ranks import Companions, ProcessRank
from .shards import SHARD_SIZE, Shard, WorkFolder, merge, split

if TYPE_CHECKING:
    import pandas

    from .video_loop import VideoRunner


def run(
    plan: Plan,
    *,
    results: str | Path | None = None,
    save_predictions: bool = False,
    progress: bool = True,
    force: bool = False,
) -> Result:
    """The result of a plan, computed or reused; arguments as in `evaluate`. All ranks return the same result."""
    rank = ProcessRank.from_environment()
    if other := one_of_several():
        logger.info("this is %s; each process evaluates everything, and equal evaluations wait for each other", other)
    # Ranks find each other's shards by the key: without one, or with old files in the folder, they could not.
    if rank.world > 1 and (force or not plan.model.reusable):
        raise UsageError(
            "with several ranks, name a model that can be identified (a card, or path.py:build with parameters or an "
            f"attribute `fingerprint`) and do not use --force ({remedy()})"
        )
    folder = plan.folder(Path(results) if results is not None else results_root())
    stem = plan.key[:8]  # for people; `_read_finished` compares the whole key
    path = folder / f"{stem}.json"

    refused: set[Any] = set()

    def finished() -> Result | None:
        return _reusable(path, plan, save_predictions, refused) if plan.model.reusable and not force else None

    if done := finished():
        return done
    before = _stamp(path)
    one_at_a_time = locked(folder / f".{stem}.lock", f"waiting for another process, which computes {path}")
    # Live objects of one class share a key, but no work folder: they may run at the same time, and write in turn.
    alone = rank.rank == 0 and (plan.model.reusable or save_predictions)
    with Companions(rank, folder / f"{stem}.ranks") as others, ExitStack() as stack:
        if alone:
            stack.enter_context(one_at_a_time)
        others.meet(lambda: finished() is not None)
        if done := finished():  # by the process that had the lock
            return done
        if plan.model.reusable:
            place = folder / f"{stem}.work"
        else:
            place = Path(stack.enter_context(TemporaryDirectory(prefix="ocl-bench-")))
        work = WorkFolder(place, _work_setup(plan, save_predictions))
        if force:
            work.remove()
        shards = split(len(plan.data.ids), _shard_size(plan))
        plan = with_head(replace(plan, refit=force), others.check)
        own = range(rank.rank, len(shards), rank.world)
        predictions = folder / f"{stem}.predictions" if save_predictions else None
        _compute(plan, work, shards, own, predictions, progress and rank.rank == 0)
        if rank.rank > 0:
            work.read_back(own)
            return _wait_for_result(path, plan, save_predictions, before, others)
        done_shards = work.collect(len(shards), own, check=others.check)
        # Last: a model with a state of its own gives the numbers that it would give without these predictions.
        result, rows = _collect(plan, work, done_shards, agreement(plan))
        if not alone:
            stack.enter_context(one_at_a_time)
        if plan.config:
            write_config(path, plan.config)
        written = records.write_result(result, rows, folder)
        work.remove()  # after the result is there: a run that is killed in between has nothing to compute again
        return written


def _stamp(path: Path) -> tuple[int, int] | None:
    """Tells one content of a file from the next, as each is written to a new file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _wait_for_result(
    path: Path, plan: Plan, save_predictions: bool, before: tuple[int, int] | None, others: Companions
) -> Result:
    """What rank 0 writes. before: stamp of an earlier result with failed samples, which is computed again."""
    logger.info("rank %d is done and waits for rank 0, which writes %s", others.rank.rank, path)
    while _stamp(path) == before or not (done := _read_finished(path, plan, save_predictions, failed_too=True)):
        others.check()
        time.sleep(0.1)
    return done


def _shard_size(plan: Plan) -> int:
    """Ids of a shard: as many as the adapter scores at once, where it says so."""
    return plan.adapter.scored_at_once or SHARD_SIZE


def _work_setup(plan: Plan, save_predictions: bool) -> dict[str, Any]:
    """What must be equal for shards to be mixed."""
    setup = _setup_of(plan).model_dump()
    return {**setup, "key": plan.key, "predictions": save_predictions, "shard": _shard_size(plan)}


def _compute(
    plan: Plan, work: WorkFolder, shards: list[range], own: Sequence[int], predictions: Path | None, progress: bool
) -> None:
    """Compute and write those of the own shards that are not there yet."""
    runner = _make_runner(plan, predictions)
    total = sum(len(shards[index]) for index in own)
    bar = progress_bar(f"{plan.model.name} on {plan.task.name}", total, progress, plan.family.unit)
    with fixed_arithmetic(plan.threads), bar as advance:
        missing = []
        for index in own:
            if (done := work.read(index)) is None:
                missing.append(index)
                continue
            runner.patience.succeeded |= bool(len(done.rows))  # computed by a run that was killed
            advance(len(shards[index]))
        groups = [shards[index] for index in missing]
        runner.shards(groups, lambda number, shard: work.write(missing[number], shard), advance)


def _make_runner(plan: Plan, predictions: Path | None) -> Runner | VideoRunner:
    """The runner that computes the shards of the plan."""
    if not plan.by_clips:
        return Runner(plan, predictions)
    from .video_loop import VideoRunner

    return VideoRunner(plan, predictions)


def _collect(
    plan: Plan, work: WorkFolder, shards: Sequence[Shard], agreed: tuple[bool | None, bool | None]
) -> tuple[Result, pandas.DataFrame]:
    """The result of all shards, and their rows. agreed: as `agreement` says.

    Raises UsageError when no sample was scored, or when the shards are not of all samples, each once.
    """
    failed = tuple(failure for shard in shards for failure in shard.failed)
    rows = merge(shards)
    _check_counts(plan, work, rows, [failure.id for failure in failed])
    scored = int(rows["id"].nunique())
    if not scored:
        raise UsageError(f"task {plan.task.name}: no sample could be scored; first: {failed[0].error}")
    source = next(shard.source for shard in shards if shard.source)  # a shard whose samples all fail has none
    objects = rows.drop_duplicates("id")["n_objects"]  # there is a row for each noise seed
    seconds = sum(shard.seconds_total for shard in shards)
    remarks = sum((Counter(shard.remarks) for shard in shards), Counter[str]())
    for kind, number in remarks.items():
        logger.warning("model %s: %d %s", plan.model.name, number, kind)
    task, model = plan.task, plan.model
    result = Result(
        identity=provenance.identity(plan.key, "failed samples" if failed else "complete", agreed),
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
        setup=_setup_of(plan),
        counts=records.Counts(
            attempted=len(plan.data.ids),
            scored=scored,
            failed=failed,
            single_object_share=float((objects == 1).mean()),
            remarks=dict(remarks),
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


def _check_counts(plan: Plan, work: WorkFolder, rows: pandas.DataFrame, failed: list[str]) -> None:
    """Delete the work and raise UsageError unless each id has a row for each noise seed, or has failed once."""
    ids = [*rows["id"].iloc[:: len(plan.noise_seeds)], *failed]
    expected = len(plan.noise_seeds) * (len(plan.data.ids) - len(failed))
    if len(rows) == expected and sorted(ids) == sorted(plan.data.ids):
        return
    work.remove()
    raise UsageError(
        f"task {plan.task.name}: {len(plan.data.ids)} samples were attempted, of which {len(failed)} failed, but there "
        f"are {len(rows)} rows instead of {expected}, or rows of other samples: something else wrote to {work.folder}, "
        "which is deleted now; evaluate again"
    )


def _images(rows: pandas.DataFrame) -> float:
    """The number of predicted images, each noise seed counted; of videos, the number of frames."""
    return float(rows["n_frames"].sum()) if "n_frames" in rows else float(len(rows))


def _model_section(model: LoadedModel, source: str, task: TaskSpec) -> records.ModelSection:
    """The model, as a result records it. A task that grants boxes gives every model that privilege."""
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
        # Masks from files have been predicted before: at which size is not known.
        input_size=input_size(model, task) if getattr(model.model, "sees_images", True) else None,
        code_sha256=model.code_sha256,
        state=model.state,
        arrays=model.arrays,
    )


def _setup_of(plan: Plan) -> records.Setup:
    """Where and how the plan runs, as a result records it."""
    return records.Setup(
        device=plan.device,
        dtype=DTYPE,
        threads=plan.threads,
        batch_size=plan.batch_size,
        versions=provenance.package_versions(),
    )


def _reusable(path: Path, plan: Plan, save_predictions: bool, refused: set[Any]) -> Result | None:
    """The finished result of this plan, unless `validate` refuses it, which is said once. refused: stamps of such."""
    stamp = _stamp(path)
    done = _read_finished(path, plan, save_predictions) if stamp not in refused else None
    if done is None or (problem := refusal(done, plan.task)) is None:
        return done
    refused.add(stamp)
    logger.warning("%s: %s; it is computed again", path, problem.message)
    return None


def _read_finished(path: Path, plan: Plan, save_predictions: bool, *, failed_too: bool = False) -> Result | None:
    """The finished result of this plan, or None when it is missing, damaged, or without its rows or predictions.

    failed_too: also accept a result with failed samples; by default such a plan is computed again.
    """
    if not path.is_file():
        return None
    try:
        result = records.read_result(path)
    except UsageError:
        return None  # damaged or of an unknown format: computed again
    if result.identity.key != plan.key or (result.identity.status != "complete" and not failed_too):
        return None
    section, model = result.model, plan.model
    if (section.supervision, section.training_seed) != (model.card.supervision, model.training_seed):
        return None  # declared anew since then, and no part of the key
    if result.identity.batch_independent is False and result.setup.batch_size != plan.batch_size:
        return None  # another batch size would give something else
    try:
        rows_of(result)
    except UsageError:
        return None  # missing, or not those that the result recorded: computed again
    if save_predictions and not path.with_suffix(".predictions").is_dir():
        return None
    result._reused = True  # a private attribute: it is not written to the file
    return result

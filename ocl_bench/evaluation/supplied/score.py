"""Score what exists already: id-map PNGs, an `.npz` with truth, COCO results, or the saved predictions of a run.

Masks go through the same corridor as a model: a model that looks them up takes its place.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from ...cards.names import get_task
from ...cards.task import TaskSpec
from ...core.errors import UsageError
from ...core.log import logger
from ...data import OpenData, open_data, subset
from ...families import find_family
from ...families.files import prediction_path
from ...models.declared import Declared
from ...results.differences import differences
from ...results.record import Result, read_result, read_rows
from ..plan import Plan
from ..run import run
from ..workers import Workers, check_workers
from .answers import answers_plan
from .arrays import array_plan
from .detections import kept_plan, results_plan
from .label_maps import EXTENTS
from .masks import masks_in, masks_plan


def score_masks(
    task: str | Path | TaskSpec,
    masks: str | Path,
    *,
    name: str = "supplied-masks",
    training_seed: int | None = None,
    supervision: str | None = None,
    classes: bool = False,
    extent: str | None = None,
    data_root: str | Path | None = None,
    limit: int | None = None,
    split: str | None = None,
    results: str | Path | None = None,
    save_predictions: bool = False,
    workers: int | str = 0,
    progress: bool = True,
) -> Result:
    """Score masks on a task and write the result under `name`.

    The result is always `data: supplied`, because no one can verify what made the masks. The log says where the truth
    comes from.

    Args:
        task: a name, a path of a task card, or a TaskSpec.
        masks: one of five things.
            A folder with `<sample id>.png`. Each PNG has the size of its image, and is then cropped as the protocol
            says, or the size at which the task scores. Every id is a slot, also 0. Where the two sizes are equal,
            `extent` says which it is.
            For videos, a folder with `<video>/<frame>.png`. An id means the same in all frames; 0 is no proposal in J
            and F.
            An `.npz` with `prediction` and `truth` (N, H, W), scored at their own resolution without a crop. In the
            truth, 0 is the background and 255 is void (but an object in a map with larger numbers). One integer
            `ignore_index` beside them names another label for void, and -1 says that there is none.
            For a detection task, a COCO results file (`.json`).
            For a task of reasoning, a file of answers in the form of CLEVRER's test server (`.json`).
        name: of the method in results and boards.
        training_seed, supervision: of the model that made the masks, as in `evaluate`.
        classes: of a COCO results file, score each category by itself, as `pycocotools` does. This is another protocol
            with metrics of its own, on the task `<task>-classes`; by default categories play no part.
        extent: what the masks of a folder show: the `whole` image, or the `crop` that the task scores.
        data_root, limit, split: as in `evaluate`.
        results: folder for results, by default `OCL_BENCH_RESULTS` or `./results`.
        save_predictions: keep the masks beside the result as they were scored, for `report`.
        workers: processes that read the truth ahead, as in `evaluate`.

    Raises:
        UsageError: for masks that are missing or cannot be read as a whole. A single broken PNG fails its sample.
        DataMissingError: when the data set is not there.
    """
    spec, masks, ahead = get_task(task), Path(masks), check_workers(workers)
    said = Declared(training_seed=training_seed, supervision=supervision)
    if classes:
        if masks.suffix != ".json":
            raise UsageError(f"{masks}: has no categories; --classes is for COCO results files (.json)")
        spec = spec.with_classes()
    if extent is not None:
        _check_extent(extent, masks)
    if find_family(spec.family).output == "answers" and masks.suffix != ".json":
        raise UsageError(f"{masks}: task {spec.name} scores a file of answers (.json)")
    if spec.fit is not None and masks.suffix != ".json":
        raise UsageError(f"{masks}: task {spec.name} fits a head on what a model gives beside its masks; use `eval`")
    if masks.suffix == ".npz":
        if data_root is not None or split is not None:
            raise UsageError(f"{masks}: brings its own truth; leave out --data-root and --split")
        plan = array_plan(spec, masks, name, limit)
        logger.info("%s", plan.data.note)
        return run(_by(said, plan, ahead), results=results, save_predictions=save_predictions, progress=progress)
    if masks.suffix != ".json" and not masks.is_dir():
        raise UsageError(f"{masks}: neither a folder of id-map PNGs nor an .npz or COCO results .json file")
    root = Path(data_root) if data_root is not None else None
    data = open_data(spec, data_root=root, limit=limit, split=split, progress=progress)
    logger.info("%s", data.note)
    data = replace(data, kind="supplied")
    if masks.suffix == ".json" and find_family(spec.family).output == "answers":
        plan = answers_plan(spec, data, masks, name, limit=limit, split=split)
    elif masks.suffix == ".json":
        plan = results_plan(spec, data, masks, name, limit=limit, split=split)
    else:
        file = masks_in(masks, spec, data)
        plan = masks_plan(spec, data, file, name, background=0, limit=limit, split=split, extent=extent)
    return run(_by(said, plan, ahead), results=results, save_predictions=save_predictions, progress=progress)


def _check_extent(extent: str, masks: Path) -> None:
    if extent not in EXTENTS:
        raise UsageError(f"extent '{extent}': use {' or '.join(EXTENTS)}")
    if masks.suffix in (".npz", ".json"):
        raise UsageError(f"{masks}: --extent belongs to folders of masks; leave it out")


def _by(said: Declared, plan: Plan, workers: Workers) -> Plan:
    """The plan with what is said about the model. Raises UsageError for the name of a bundled model."""
    return replace(plan, model=said.applied(plan.model), workers=workers)


@dataclass(frozen=True)
class Replay:
    """A run, and the scores of its saved predictions now.

    differences: value now minus stored value, by metric.
    """

    stored: Result
    now: Result
    differences: dict[str, float]

    @property
    def equal(self) -> bool:
        """Whether every metric is the same to 1e-12."""
        return all(abs(difference) <= 1e-12 for difference in self.differences.values())


def replay(
    path: str | Path,
    *,
    task: str | Path | TaskSpec | None = None,
    data_root: str | Path | None = None,
    progress: bool = True,
) -> Replay:
    """Score the saved predictions of a run again; writes nothing. Arguments and errors are those of `replay_plan`."""
    stored, plan = replay_plan(path, task=task, data_root=data_root, progress=progress)
    with tempfile.TemporaryDirectory() as scratch:  # `run` always writes a result
        now = run(plan, results=scratch, progress=progress)
    return Replay(stored, now, differences(stored, now))


def replay_plan(
    path: str | Path,
    *,
    task: str | Path | TaskSpec | None = None,
    data_root: str | Path | None = None,
    progress: bool = True,
) -> tuple[Result, Plan]:
    """A stored run, and the plan that scores its saved predictions.

    Args:
        path: result JSON of the run.
        task: card of the run, when it is not a bundled one.
        data_root: folder of the data set, as in `evaluate`.

    Raises:
        UsageError: when the run saved no predictions, or when the task card or the data have changed.
    """
    stored = read_result(path)
    folder = Path(path).with_suffix(".predictions")
    spec = get_task(task if task is not None else stored.task.name)
    if not find_family(spec.family).replayable(spec):
        raise UsageError(f"{path}: predictions of task {stored.task.name} cannot be scored again without its head")
    if not folder.is_dir():
        raise UsageError(f"{folder}: the run saved no predictions; evaluate again with --save-predictions")
    if spec.hash != stored.task.hash:
        raise UsageError(f"{path}: is not of this task card {spec.name} v{spec.version}; pass --task or evaluate again")
    section = stored.data
    root = Path(data_root) if data_root is not None else None
    data = open_data(
        spec,
        data_root=root,
        limit=section.limit,
        split=section.split,
        stand_in_seed=section.stand_in_seed,
        progress=progress,
    )
    if section.listed is not None:
        scored = {*read_rows(path)["id"].astype(str), *(failure.id for failure in stored.counts.failed)}
        data = subset(data, [position for position, sample_id in enumerate(data.ids) if sample_id in scored])
    # The hash of the ids is of all samples, so it can only be compared where none failed.
    failed = {failure.id for failure in stored.counts.failed}
    plan = saved_plan(stored, spec, _without(data, failed), folder)
    if data.kind != section.kind or (not failed and plan.ids_sha256 != section.ids_sha256):
        raise UsageError(f"{path}: was scored on other data ({section.kind} {section.revision}); pass its --data-root")
    return stored, plan


def saved_plan(stored: Result, task: TaskSpec, data: OpenData, folder: Path) -> Plan:
    """The plan that scores what the run `stored` predicted for `data`. folder: its saved predictions.

    Raises UsageError for detections that are missing or damaged. Label maps are read later, and fail one by one.
    """
    name, source, seeds = stored.model.name, stored.model.mask_source, stored.seeds.noise
    limit, split = stored.data.limit, stored.data.split
    if find_family(task.family).output == "detections":
        return kept_plan(task, data, folder, name, source, seeds, limit, split)
    return masks_plan(
        task,
        data,
        lambda mask_name, seed: prediction_path(folder, mask_name, seed),
        name,
        source=source,
        noise_seeds=seeds,
        limit=limit,
        split=split,
        extent="crop",  # a run saves masks as they were scored
    )


def _without(data: OpenData, failed: set[str]) -> OpenData:
    """The data without samples that failed in the run: they have no saved predictions."""
    return subset(data, [position for position, sample_id in enumerate(data.ids) if sample_id not in failed])

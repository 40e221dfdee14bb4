"""The plan of one evaluation: model built, data opened, and the key of everything that can change a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cards.names import get_task
from ..cards.protocols import HEAD_VERSION, LARGEST_SEED, MOST_SEEDS
from ..cards.task import TaskSpec
from ..core.errors import NotApplicableError, UsageError
from ..core.files import digest, ids_hash, path_name
from ..core.machine import choose_device, thread_count
from ..families import find_family, get_adapter
from ..families.base import Adapter, Family
from ..metrics.catalogue import METRIC_VERSION
from ..models.declared import Declared
from ..models.loading import LoadedModel, get_model
from ..results.record import DataSection
from ..results.store import key_of
from .extensions import extensions_of
from .workers import Workers, check_workers

if TYPE_CHECKING:
    from ..data import OpenData

DTYPE = "float32"
LARGEST_BATCH = 2 * 2**30
"""Most bytes of the images of a batch, (B, 3, side, side) float32."""

_OF_ALL_PROTOCOLS = (
    "classes",
    "proposals",
    "matching_iou",
    "short_side",
    "interpolation",
    "boxes",
    "temperature",
    "max_proposals",
    "boundary",
)
"""Fields that all protocols once had. They stay in the key of a head, as None where a protocol lacks them: otherwise
the keys would change, and every head in a cache would be fitted again."""


@dataclass(frozen=True)
class Plan:
    """Everything that one evaluation needs. What `run` computes is a function of this.

    Attributes:
        task, model, data: what is scored.
        adapter: of the task; `heads.with_head` replaces it by one with a fitted head.
        noise_seeds: every image is predicted with each of them.
        batch_size: images of a batch, or frames of a clip.
        device: device of the model.
        threads: number of torch threads on the CPU.
        train: the fit split, for a task that fits a head or a bank.
        limit, split, stand_in_seed: how `data` was opened, for the record.
        listed: number of samples of the user's list, when `data` are only these.
        refit: compute the head or bank again, even if it is in the cache.
        workers: number of processes that read ahead, or `auto`; see `workers.read_ahead`.
        config: the options of `eval` that give this plan; empty for a live model, which no option names.
    """

    task: TaskSpec
    model: LoadedModel
    data: OpenData
    adapter: Adapter
    noise_seeds: tuple[int, ...]
    batch_size: int
    device: str
    threads: int
    train: OpenData | None = None
    limit: int | None = None
    split: str | None = None
    stand_in_seed: int | None = None
    refit: bool = False
    listed: int | None = None
    workers: Workers = 0
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def family(self) -> Family:
        """The family of the task."""
        return find_family(self.task.family)

    @property
    def by_clips(self) -> bool:
        """Whether samples are videos that are read and predicted clip by clip."""
        return self.family.by_clips(self.adapter)

    @property
    def ids_sha256(self) -> str:
        """Hash of the sorted sample ids; their order does not matter."""
        return ids_hash(self.data.ids)

    @property
    def key(self) -> str:
        """SHA-256 of everything that can change a number.

        Device, batch size, threads and commit are recorded, but not part of it.
        """
        model, train = self.model, self.train
        # `validate` computes the same key from a stored result, with the same function.
        return key_of(
            task_hash=self.task.hash,
            data=self.data_section,
            model=model.name,
            options=model.options,
            checkpoint_sha256=model.checkpoint_sha256,
            source_sha256=model.source_sha256,
            noise_seeds=self.noise_seeds,
            dtype=DTYPE,
            fit=(train.revision, ids_hash(train.ids)) if train is not None else None,
            extensions=extensions_of(self.task),
        )

    @property
    def data_section(self) -> DataSection:
        """The data, as a result records it."""
        return DataSection(
            kind=self.data.kind,
            revision=self.data.revision,
            ids_sha256=self.ids_sha256,
            limit=self.limit,
            split=self.split,
            stand_in_seed=self.stand_in_seed,
            listed=self.listed,
        )

    @property
    def fit_key(self) -> str:
        """SHA-256 of everything that can change the head that is fitted on `train`."""
        assert self.train is not None
        return digest(
            {
                "task": [self.task.family, self.task.data.reader, self.task.data.options],
                "versions": [METRIC_VERSION, HEAD_VERSION],
                "protocol": dict.fromkeys(_OF_ALL_PROTOCOLS) | self.task.protocol.model_dump(mode="json"),
                "fit": self.task.fit.model_dump(mode="json") if self.task.fit else None,
                "data": [self.train.kind, self.train.revision, ids_hash(self.train.ids)],
                "model": [self.model.name, dict(self.model.options), self.model.checkpoint_sha256],
                "source": self.model.source_sha256,
                "noise_seed": self.noise_seeds[0],
                "dtype": DTYPE,
            }
        )

    def folder(self, results: Path) -> Path:
        """Where the result goes: `<results>/<task>/<model>`."""
        return results / self.task.name / path_name(self.model.name)


def make_plan(
    model: Any,
    task: str | Path | TaskSpec,
    *,
    data: OpenData | None = None,
    train: OpenData | None = None,
    data_root: str | Path | None = None,
    limit: int | None = None,
    noise_seeds: Sequence[int] | None = None,
    device: str = "auto",
    batch_size: int = 16,
    workers: int | str = 0,
    split: str | None = None,
    stand_in_seed: int | None = None,
    options: Mapping[str, Any] | None = None,
    checkpoint: str | Path | None = None,
    boxes: str | Path | None = None,
    ids: str | Path | None = None,
    progress: bool = True,
    verify: bool = False,
    name: str | None = None,
    training_seed: int | None = None,
    supervision: str | None = None,
) -> Plan:
    """The plan of one evaluation: names are resolved, the model is built, and the data are opened.

    Other arguments are those of `evaluate`.

    Args:
        model: as in `evaluate`, or a LoadedModel, of which nothing can be declared any more.
        data: opened already, in place of what `data_root`, `limit`, `split` and `stand_in_seed` say.
        train: the fit split, opened already.

    Raises:
        UsageError: for names, cards and numbers that cannot be used; before the data are opened where possible.
        NotApplicableError: when the model does not do the family of the task.
        DataMissingError: when the data set is not there.
    """
    spec = get_task(task) if boxes is None else get_task(task).with_boxes(Path(boxes))
    if limit is not None and limit < 1:
        raise UsageError(f"limit {limit}: must be at least 1")
    if limit is not None and ids is not None:
        raise UsageError(f"limit {limit} and a list of ids: give only one of them")
    if batch_size < 1:
        raise UsageError(f"batch size {batch_size}: must be at least 1")
    device, ahead = choose_device(device), check_workers(workers)
    declared = Declared(name, training_seed, supervision)
    loaded = model if isinstance(model, LoadedModel) else None
    if loaded is None:
        loaded = get_model(model, checkpoint=checkpoint, options=options, device=device, declared=declared)
    if spec.family not in loaded.card.families:
        offered = ", ".join(loaded.card.families) or "none"
        raise NotApplicableError(
            f"model {loaded.name} does not do {spec.family} (task {spec.name}); its families: {offered}"
        )
    adapter = get_adapter(spec, loaded)
    _ = loaded.needs_truth  # raises here, before any data are opened, for a model that must not have the truth
    if data is None:
        from ..data import open_data

        root = Path(data_root) if data_root is not None else None
        how: dict[str, Any] = {"split": split, "stand_in_seed": stand_in_seed, "progress": progress, "verify": verify}
        data = open_data(spec, data_root=root, limit=limit, **how)
    if ids is not None:
        data = _listed(data, Path(ids))
    if not data.ids:
        raise UsageError(f"task {spec.name}: {data.root} holds no sample of split '{split or spec.data.split}'")
    adapter = find_family(spec.family).for_data(adapter, data)
    if find_family(spec.family).whole(adapter):
        train = None
    elif train is None:
        train = open_train(spec, data, data_root, progress, verify)
    seeds = tuple(noise_seeds) if noise_seeds is not None else spec.noise_seeds
    if not seeds or len(set(seeds)) != len(seeds):
        raise UsageError(f"noise seeds {list(seeds)}: need at least one, each only once")
    if len(seeds) > MOST_SEEDS or not all(0 <= seed <= LARGEST_SEED for seed in seeds):
        raise UsageError(f"noise seeds: give at most {MOST_SEEDS}, each from 0 to {LARGEST_SEED}")
    check_batch(batch_size, loaded.card.input or spec.protocol.input)
    plan = Plan(
        spec, loaded, data, adapter, seeds, batch_size, device, thread_count(), train, limit, split, stand_in_seed
    )
    said: dict[str, Any] = {"data_root": data_root, "checkpoint": checkpoint, "boxes": boxes, "ids": ids}
    said |= {"name": name, "training_seed": training_seed, "supervision": supervision}
    listed = None if ids is None else len(data.ids)
    return replace(plan, listed=listed, workers=ahead, config=_config(plan, model, task, said))


def _config(plan: Plan, model: Any, task: str | Path | TaskSpec, said: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `eval` that give a plan again. said: options that the plan itself does not hold."""
    if not isinstance(model, str):
        return {}
    options = {
        "model": model,
        "task": task.name if isinstance(task, TaskSpec) else task,
        **said,
        "limit": plan.limit,
        "split": plan.split,
        "stand_in_seed": plan.stand_in_seed,
        "seeds": list(plan.noise_seeds),
        "option": dict(plan.model.options) or None,
        "device": plan.device,
        "batch_size": plan.batch_size,
    }
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    return {name: value for name, value in plain.items() if value is not None}


def _listed(data: OpenData, path: Path) -> OpenData:
    """The samples of a file with one id per line. Raises UsageError and DataMissingError."""
    from ..data import pick
    from ..data.options import read_lines

    return pick(data, read_lines(path, "list of ids", "give a file with one id per line"), path)


def check_batch(batch_size: int, side: int) -> None:
    """Raise UsageError for a batch whose images alone would take too much memory, before any is read."""
    most = LARGEST_BATCH // (3 * 4 * side**2)
    if batch_size > most:
        raise UsageError(f"batch size {batch_size}: at {side} pixels give at most {most}, or memory would not do")


def open_train(
    task: TaskSpec, data: OpenData, data_root: str | Path | None, progress: bool, verify: bool
) -> OpenData | None:
    """The split on which the task's head is fitted, or None for a task that fits nothing.

    It is embedded exactly when the scored data are. `limit` never cuts it: a head must be the same for any limit.
    """
    if task.fit is None:
        return None
    from ..data import open_data, spread

    # Mixing embedded with real images would fit the head on other data than it is scored on.
    root = Path(data_root) if data_root is not None and data.kind != "embedded" else None
    how: dict[str, Any] = {"embedded": data.kind == "embedded", "progress": progress, "verify": verify}
    train = open_data(task, data_root=root, split=task.fit.split, **how)
    return spread(train, task.fit.samples)

"""The public `evaluate`: a plan, and the result of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..cards.task import TaskSpec
from ..models.plain_module import MasksFrom, WithMasks
from ..results.record import Result
from .model_diagnosis import left_as_found
from .plan import make_plan
from .run import run


def evaluate(
    model: Any,
    task: str | Path | TaskSpec,
    *,
    data_root: str | Path | None = None,
    limit: int | None = None,
    noise_seeds: Sequence[int] | None = None,
    device: str = "auto",
    batch_size: int = 16,
    workers: int | str = 0,
    split: str | None = None,
    stand_in_seed: int | None = None,
    results: str | Path | None = None,
    save_predictions: bool = False,
    options: Mapping[str, Any] | None = None,
    checkpoint: str | Path | None = None,
    boxes: str | Path | None = None,
    ids: str | Path | None = None,
    progress: bool = True,
    force: bool = False,
    verify: bool = False,
    name: str | None = None,
    training_seed: int | None = None,
    supervision: str | None = None,
    masks_from: MasksFrom | None = None,
) -> Result:
    """Score a model on a task and write the result.

    A finished result with the same key is reused (`Result.reused`), and a killed run is continued. Samples that cannot
    be read or scored are listed in `counts.failed`; the result covers the remaining ones. A live model is left in the
    modes and on the devices in which it was found.

    Args:
        model: a name (see `ocl-bench list models`), `name:SEED`, `path.py:build`, or any object with `predict`.
        task: a name, a path of a task card, or a TaskSpec.
        data_root: folder of the data set; see docs/data.md for what is used without it.
        limit: keep the first `limit` samples.
        noise_seeds: by default those of the card.
        device: `auto`, `cpu`, `cuda`, ...
        batch_size: images of a batch, or frames of a clip.
        workers: processes that read and prepare the next batches while the model works on this one, which changes no
            row; 0 for none. `auto` starts some once reading has taken a few seconds, as the verb `eval` does. A script
            that asks for them needs `if __name__ == "__main__":`, as the processes import it.
        split: another one than the card's.
        stand_in_seed: of the embedded data.
        results: folder for results, by default `OCL_BENCH_RESULTS` or `./results`.
        save_predictions: keep label maps or detections beside the result, for `replay` and for other tools.
        options: build options of the model, over those of its card.
        checkpoint: file of weights, in place of the bundled ones.
        boxes: a file of boxes in place of the data set's own, for a task that grants boxes.
        ids: file with one sample id per line: only these are scored. The result records how many, and is not ranked.
        progress: whether to show a progress bar.
        force: compute again even if there is a finished result.
        verify: read all files of the data first, images too, whatever is remembered of them; see docs/data.md.
        name: of the method in results and boards, in place of that of the file or class.
        training_seed: number of the training that made the weights. Results of one name with different numbers are
            training seeds of one method.
        supervision: what the model saw in training, encoder included (`none`, `boxes` or `masks`), for a model that
            does not say it itself.
        masks_from: where the masks are in the output of a plain `nn.Module`, which is then called with the images: a
            key, an attribute, an index, or a function of the output (see `WithMasks`).

    Returns:
        The result, as it was written.

    Raises:
        UsageError: for a wrong name, card or prediction.
        DataMissingError: when the data set is not there.
    """
    model = model if masks_from is None else WithMasks(model, masks_from)
    with left_as_found(model):
        plan = make_plan(
            model,
            task,
            data_root=data_root,
            limit=limit,
            noise_seeds=noise_seeds,
            device=device,
            batch_size=batch_size,
            workers=workers,
            split=split,
            stand_in_seed=stand_in_seed,
            options=options,
            checkpoint=checkpoint,
            boxes=boxes,
            ids=ids,
            progress=progress,
            verify=verify,
            name=name,
            training_seed=training_seed,
            supervision=supervision,
        )
        return run(plan, results=results, save_predictions=save_predictions, progress=progress, force=force)

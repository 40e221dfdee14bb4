"""A whole evaluation against the validation loops of two official codes: the same images and weights, in one run.

    python benchmarks/loops_of_peers.py                # models of embedded sizes
    python benchmarks/loops_of_peers.py --paper        # models of the papers' sizes

Weights are random, as they cost the same.

Images: the validation loop of DIAS on COCO panoptic at 256 x 256 (`coco-dias-v3`). Its loader decodes an image and its
segments, crops and resizes both, and pads the one-hot masks of a batch; the masks of the model are upsampled, their
argmax is encoded one-hot, and each of the metrics contracts the pixels again in float64.

Videos: the validation loop of SlotContrast on YouTube-VIS at 256 x 256, one video in a batch: frames and one-hot masks
of all objects are resized, the whole video is predicted, and four metrics contract its pixels, of tubes and of frames.

Both are written here from descriptions (of arXiv:2507.23755 and arXiv:2412.14295) and share no code with the official
ones. They read with our readers, so that only the loops differ. Ours is the whole evaluation, with intervals and files.
All runs in one process, whose processor time is measured: other programs hardly change it. The numbers must be equal.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from metrics import peer_ari, peer_mbo, peer_miou
from torch import Tensor
from torch.nn.functional import interpolate, one_hot, pad
from video import peer_video

from ocl_bench.cards.names import get_task
from ocl_bench.core.machine import fixed_arithmetic, thread_count
from ocl_bench.core.types import Batch, Prediction, Truth
from ocl_bench.evaluation.loop import Runner
from ocl_bench.evaluation.plan import Plan, make_plan
from ocl_bench.evaluation.run import run
from ocl_bench.evaluation.video_loop import VideoRunner
from ocl_bench.models import dias, slotcontrast

PAPER = {"encoder": "dinov2s14reg", "slot_dim": 256, "slots": 7, "merge_threshold": None}
IMAGE_VALUES, VIDEO_VALUES = ("mbo_all", "miou_all", "fg_ari"), ("fg_ari_video", "mbo_video")


def stacked(truth: Truth, side: int) -> Tensor:
    """The objects of a map (H, W) and its background as masks (side * side, G) bool, resized one by one."""
    labels = torch.from_numpy(truth.labels.astype(np.int64))
    masks = one_hot(labels.clamp(min=0), int(labels.max()) + 1) * (labels >= 0)[..., None]
    resized = interpolate(masks.permute(2, 0, 1)[None].float(), size=(side, side), mode="nearest-exact")[0]
    return resized.flatten(1).T.bool()


def upsampled(masks: Tensor, side: int) -> Tensor:
    """Soft masks (B, K, h, w) as one-hot masks (B, side * side, K) bool."""
    large = interpolate(masks, size=(side, side), mode="bilinear", align_corners=False)
    return one_hot(large.argmax(1).flatten(1), masks.shape[1]).bool()


def loop_of_dias(plan: Plan) -> dict[str, float]:
    """mBO, mIoU and FG-ARI by the loop of DIAS; images without an object do not count in FG-ARI."""
    runner, side = Runner(plan), cast(int, plan.task.protocol.score_at)
    sums, counts = dict.fromkeys(IMAGE_VALUES, 0.0), dict.fromkeys(IMAGE_VALUES, 0)
    with torch.inference_mode():
        for chosen in runner.batches(range(len(plan.data.ids))):
            items, _ = runner.read(chosen)
            whole = [stacked(item.truth, side) for item in items]
            most = max(mask.shape[1] for mask in whole)
            truth = torch.stack([pad(mask, (0, most - mask.shape[1])) for mask in whole])
            batch = Batch(tuple(item.id for item in items), torch.stack([item.image for item in items]))
            slots = upsampled(plan.model.model.predict(batch).masks, side)
            objects = truth[:, :, 1:]
            found = {
                "ari": peer_ari(truth, slots),
                "fg_ari": peer_ari(objects, slots)[objects.flatten(1).any(1)],
                "mbo_all": peer_mbo(truth, slots),
                "miou_all": peer_miou(truth, slots),
            }
            for name in IMAGE_VALUES:
                sums[name] += float(found[name].sum())
                counts[name] += len(found[name])
    return {name: sums[name] / counts[name] for name in IMAGE_VALUES}


def loop_of_slotcontrast(plan: Plan) -> dict[str, float]:
    """FG-ARI and mBO of whole videos by the loop of SlotContrast; videos without an object do not count."""
    runner, side, found = VideoRunner(plan), cast(int, plan.task.protocol.score_at), list[dict[str, float]]()
    with torch.inference_mode():
        for position in range(len(plan.data.ids)):
            video = runner.video(position)
            items = [runner.item(frame) for frame in video.frames]
            clip = torch.stack([item.image for item in items])[None]
            masks = plan.model.model.predict(Batch((video.id,), clip[:, 0], video=clip)).masks[0]
            whole = [stacked(item.truth, side) for item in items]
            most = max(mask.shape[1] for mask in whole)
            truth = torch.stack([pad(mask, (0, most - mask.shape[1])) for mask in whole])[:, :, 1:]
            shape = (len(items), side, side, -1)
            if truth.any():
                found.append(peer_video(truth.reshape(shape), upsampled(masks, side).reshape(shape)))
    return {name: statistics.fmean(values[name] for values in found) for name in VIDEO_VALUES}


class Watched:
    """Adds up the time that the model of a plan takes."""

    def __init__(self, plan: Plan) -> None:
        self.model, self.seconds = plan.model.model, 0.0
        self.predict = self.model.predict
        self.model.predict = self

    def __call__(self, batch: Batch) -> Prediction:
        """What the model predicts."""
        start = time.process_time()
        found = self.predict(batch)
        self.seconds += time.process_time() - start
        return found


def ours(plan: Plan) -> dict[str, float]:
    """The whole evaluation: with intervals, rows and the result on the disk."""
    with tempfile.TemporaryDirectory() as folder:
        result = run(plan, results=folder, progress=False, force=True)
    return {name: cast(float, metric.value) for name, metric in result.metrics.items()}


def compare(what: str, plan: Plan, loop: Callable[[Plan], dict[str, float]], rounds: int) -> None:
    """Both in turns. Raises SystemExit where a number differs."""
    # As a bundled model, of which nobody asks whether it gives the same twice: both loops predict the same batches.
    plan = replace(plan, model=replace(plan.model, bundled=True))
    model, times = Watched(plan), list[tuple[float, ...]]()
    for _ in range(rounds + 1):  # the first round warms both up
        round_, values = list[float](), list[dict[str, float]]()
        for one in (ours, loop):
            start, model.seconds = time.process_time(), 0.0
            with fixed_arithmetic(plan.threads):
                values.append(one(plan))
            round_ += [time.process_time() - start, model.seconds]
        times.append(tuple(round_))
    for name, value in values[1].items():
        if abs(values[0][name] - value) > 1e-4:
            raise SystemExit(f"{what}, {name}: ours {values[0][name]} differs from {value}")
    mine, mine_model, other, other_model = (statistics.median(part) for part in zip(*times[1:], strict=True))
    print(
        f"{what}, {len(plan.data.ids)} {plan.family.unit}: " + ", ".join(f"{k} {v:.4f}" for k, v in values[1].items())
    )
    print(
        f"  ocl-bench {mine:6.1f} s ({mine_model:.1f} in the model), official loop {other:6.1f} s ({other_model:.1f})"
    )
    print(
        f"  ratio {other / mine:.2f}, without the model {(other - other_model) / (mine - mine_model):.1f}", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paper", action="store_true", help="models of the papers' sizes")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--videos", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.manual_seed(0)
    print(f"256 x 256, {thread_count()} threads, processor time, medians of {options.rounds} rounds", flush=True)
    how = {"device": "cpu", "progress": False, "noise_seeds": [0]}
    model = dias.build(**(PAPER if options.paper else {"input_size": 256, "slots": 7}))
    compare("DIAS", make_plan(model, "coco-dias-v3", limit=options.images, **how), loop_of_dias, options.rounds)
    task = get_task("ytvis-2021-all300")
    task = task.model_copy(update={"protocol": task.protocol.model_copy(update={"input": 256, "score_at": 256})})
    sizes = {"variant": "ytvis", "input_size": 252} if options.paper else {"preset": "embedded", "input_size": 256}
    plan = make_plan(slotcontrast.build(**sizes), task, limit=options.videos, **how)
    compare("SlotContrast", plan, loop_of_slotcontrast, options.rounds)


if __name__ == "__main__":
    main()

"""The parts of `gpu.py`: what is measured, at the size of the papers and at that of a toy."""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pipeline import BATCH, steady, write_data
from torch import Tensor, nn
from watching import looking

from ocl_bench.core.machine import synchronise
from ocl_bench.core.types import Batch, Prediction
from ocl_bench.evaluation.cost.measure import profile_models
from ocl_bench.evaluation.cost.subject import ModelChoice, ProfileSetup
from ocl_bench.evaluation.loop import Runner
from ocl_bench.evaluation.plan import make_plan
from ocl_bench.metrics.knn import Search
from ocl_bench.models.layers.decoders import random_visible
from ocl_bench.models.loading import get_model
from ocl_bench.models.odis import Views
from ocl_bench.models.slotmatch import teach

Result = dict[str, Any]
Loss = Callable[[], Tensor]


@dataclass(frozen=True)
class Model:
    """A model whose training step is measured: its card, its options and the images (or clips) of a step."""

    card: str
    batch: int
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scale:
    """How large everything is.

    Attributes:
        models: by the name of their loss in `LOSSES`.
        clip: frames of a clip. local: side of ODIS's small crops.
        steps: timed training steps. repeats: timed passes of the profile.
        bank: rows and width of the bank, and queries.
        images, image_batch: of an evaluation.
        workers: processes that read.
        backend: of `torch.compile`; None compiles nothing.
    """

    models: Mapping[str, Model]
    clip: int
    local: int
    steps: int
    repeats: int
    bank: tuple[int, int, int]
    images: int
    image_batch: int
    workers: int
    backend: str | None


_YTVIS = {"variant": "ytvis"}
PAPER = Scale(
    models={
        "dias": Model("dias-paper", 32),
        "odis": Model("odis-paper", 64),
        "slotcon": Model("slotcon-paper", 128),
        "slotcontrast": Model("slotcontrast-paper", 8, _YTVIS),
        "slotmatch": Model("slotmatch-paper", 8, _YTVIS),
    },
    clip=4,
    local=96,
    steps=10,
    repeats=20,
    bank=(1_281_167, 768, 8192),
    images=4096,
    image_batch=32,
    workers=12,
    backend="inductor",
)
TOY = Scale(
    models={
        "dias": Model("dias", 2),
        "odis": Model("odis", 2),
        "slotcon": Model("slotcon", 2),
        "slotcontrast": Model("slotcontrast", 1),
        "slotmatch": Model("slotmatch", 1),
    },
    clip=2,
    local=64,
    steps=2,
    repeats=2,
    bank=(2000, 16, 64),
    images=12,
    image_batch=2,
    workers=0,
    backend=None,  # even tracing takes a test too long
)


def loss_of_dias(model: Any, scale: Scale, batch: int, device: str) -> Loss:
    """Images -> tokens of the frozen encoder -> slots -> reconstruction and self-distillation."""
    images = Batch(tuple(map(str, range(batch))), torch.rand(batch, 3, model.input_size, model.input_size).to(device))
    noise = torch.randn(batch, model.slots, model.slot_dim).to(device)
    tokens = model.encode(images)[0, 0].numel()
    visible = random_visible(batch, tokens, torch.Generator().manual_seed(0)).to(device)
    weight = torch.tensor(1.0, device=device)

    def loss() -> Tensor:
        features = model.encode(images).flatten(2).transpose(1, 2).float()
        total: Tensor = model.loss(features, noise=noise, visible=visible, merge_coin=1.0, distill_weight=weight)[
            "total"
        ]
        return total

    return loss


def loss_of_odis(model: Any, scale: Scale, batch: int, device: str) -> Loss:
    """Two large and ten small crops of each image, an object in the middle of them, 30 % of the patches hidden."""
    side, patch = model.input_size, model.patch
    patches = (side // patch) ** 2
    objects = torch.zeros(2, batch, 1, patches, dtype=torch.bool)
    objects[..., patches // 4 : patches // 2] = True
    views = Views(
        torch.randn(2, batch, 3, side, side).to(device),
        torch.randn(10, batch, 3, scale.local, scale.local).to(device),
        objects.to(device),
        torch.ones(12, batch, dtype=torch.bool, device=device),
        (torch.rand(2, batch, patches) < 0.3).to(device),
    )
    return lambda: model.loss(views, epoch=1.0, momentum=0.996)["total"]  # type: ignore[no-any-return]


def loss_of_slotcon(model: Any, scale: Scale, batch: int, device: str) -> Loss:
    """Two crops of each image that share three quarters of each side."""
    side = model.input_size
    views = tuple(torch.randn(batch, 3, side, side).to(device) for _ in range(2))
    boxes = tuple(torch.tensor([edges] * batch).to(device) for edges in ([0.25, 0.25, 1, 1], [0, 0, 0.75, 0.75]))
    flips = tuple(torch.zeros(batch, dtype=torch.bool, device=device) for _ in range(2))
    return lambda: model.loss(views, boxes, flips, momentum=0.99)["total"]  # type: ignore[no-any-return]


def loss_of_slotcontrast(model: Any, scale: Scale, batch: int, device: str) -> Loss:
    """Clips -> tokens of the frozen encoder -> slots over time -> reconstruction and contrast."""
    video = torch.rand(batch, scale.clip, 3, model.input_size, model.input_size).to(device)
    return lambda: model.loss(model.encode_frames(video))["total"]  # type: ignore[no-any-return]


def loss_of_slotmatch(model: Any, scale: Scale, batch: int, device: str) -> Loss:
    """The same clips through a frozen SlotContrast, whose slots are distilled."""
    choice = scale.models["slotcontrast"]
    teacher: Any = get_model(choice.card, options=choice.options, device=device).model
    teacher.eval()
    video = torch.rand(batch, scale.clip, 3, model.input_size, model.input_size).to(device)

    def loss() -> Tensor:
        with torch.no_grad():
            targets = teach(teacher, teacher.encode_frames(video))
        total: Tensor = model.loss(model.encode_frames(video), **targets)["total"]
        return total

    return loss


LOSSES: dict[str, Callable[[Any, Scale, int, str], Loss]] = {
    "dias": loss_of_dias,
    "odis": loss_of_odis,
    "slotcon": loss_of_slotcon,
    "slotcontrast": loss_of_slotcontrast,
    "slotmatch": loss_of_slotmatch,
}


def timed_steps(name: str, scale: Scale, device: str, *, fast: bool) -> Result:
    """Training steps of a model. fast: bfloat16 and compiled, instead of float32 and eager."""
    choice = scale.models[name]
    torch.manual_seed(0)
    torch._dynamo.reset()
    model: Any = get_model(choice.card, options=choice.options, device=device).model
    model.train()
    if fast and scale.backend is not None:
        model.loss = torch.compile(model.loss, backend=scale.backend)
    loss = LOSSES[name](model, scale, choice.batch, device)
    parameters = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-5, fused=device != "cpu")
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()

    def step() -> float:
        begin = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(torch.device(device).type, torch.bfloat16) if fast else nullcontext():
            total = loss()
        total.backward()
        optimizer.step()
        synchronise(device)
        return time.perf_counter() - begin

    first, *_ = [step() for _ in range(3)]  # the third may still compile for what the second one changed
    seconds = statistics.median(step() for _ in range(scale.steps))
    memory = torch.cuda.max_memory_allocated() / 1e9 if device != "cpu" else None
    return {"first": first, "seconds": seconds, "per_second": choice.batch / seconds, "memory_gb": memory}


def training_step(name: str, scale: Scale, device: str) -> Result:
    """The plain step, and the fast one."""
    sides = {side: timed_steps(name, scale, device, fast=side == "bf16 compiled") for side in ("fp32", "bf16 compiled")}
    return {"card": scale.models[name].card, "batch": scale.models[name].batch, **sides}


def neighbours(scale: Scale, device: str) -> Result:
    """The exact search of `imagenet-knn` for 200 neighbours of some queries."""
    rows, width, queries = scale.bank
    generator = torch.Generator(device).manual_seed(0)
    blocks = [
        nn.functional.normalize(torch.randn(count, width, generator=generator, device=device)).cpu()
        for count in [1 << 16] * (rows >> 16) + [rows % (1 << 16)]
    ]
    bank = torch.cat(blocks).numpy()
    begin = time.perf_counter()
    search = Search(bank, device)
    sent = time.perf_counter() - begin
    asked = np.ascontiguousarray(bank[:: rows // queries][:queries])
    search.nearest(asked[: queries // 8], 200)
    begin = time.perf_counter()
    search.nearest(asked, 200)
    seconds = time.perf_counter() - begin
    speed = 2 * rows * width * queries / seconds
    return {"bank": rows, "width": width, "queries": queries, "sent": sent, "seconds": seconds, "per_second": speed}


class Grouped:
    """A frozen encoder whose tokens are shared out among 11 fixed directions: masks at the price of the encoder."""

    def __init__(self, scale: Scale, device: str) -> None:
        choice = scale.models["slotmatch"]
        model: Any = get_model(choice.card, options=choice.options, device=device).model
        self.encoder, self.input_size, self.device = model.encoder.eval(), model.input_size, device
        width = self.encoder(torch.rand(1, 3, self.input_size, self.input_size, device=device)).shape[1]
        self.directions = torch.randn(11, width, generator=torch.Generator().manual_seed(0)).to(device)

    @torch.inference_mode()
    def predict(self, batch: Batch) -> Prediction:
        """Soft masks (B, 11, h, w)."""
        tokens = self.encoder(batch.image.to(self.device))
        masks = torch.einsum("kd,bdhw->bkhw", self.directions, nn.functional.normalize(tokens, dim=1)).softmax(1)
        return Prediction(masks=masks, mask_source="clusters")


def pipeline_of(task: str, scale: Scale, device: str) -> Result:
    """Seconds of an image in the steady state of an evaluation, against the forward passes alone."""
    model = Grouped(scale, device)
    with tempfile.TemporaryDirectory(prefix="gpu-") as folder:
        write_data(Path(folder), scale.images)
        plan = make_plan(
            model, task, data_root=folder, limit=scale.images, device=device, batch_size=scale.image_batch,
            progress=False,
        )  # fmt: skip
        plan = replace(plan, workers=scale.workers)
        bare = seconds_alone(model, scale, device)
        with looking(how_busy, 0.5) as shares:
            everything = range(len(plan.data.ids))
            run = steady(lambda advance: Runner(plan).shards([everything], lambda number, shard: None, advance))
    image = run.image * BATCH / scale.image_batch  # `steady` takes the batches for those of its own script
    busy = statistics.mean(shares) if shares else None
    return {"images": scale.images, "side": model.input_size, "image": image, "bare": bare, "busy": busy}


def seconds_alone(model: Grouped, scale: Scale, device: str) -> float:
    """Seconds of an image if there is nothing but the model: batches that lie on the device, one after the other."""
    images = torch.rand(scale.image_batch, 3, model.input_size, model.input_size, device=device)
    batch = Batch(tuple(map(str, range(scale.image_batch))), images)
    count = max(2, scale.images // scale.image_batch // 4)
    for timed in (False, True):
        begin = time.perf_counter()
        for _ in range(count if timed else 2):
            model.predict(batch)
        synchronise(device)
    return (time.perf_counter() - begin) / count / scale.image_batch


def how_busy() -> float | None:
    """Share of the time in which the GPU computes, as `nvidia-smi` says; None without it."""
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--id=0"]
    try:
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) / 100
    except (OSError, subprocess.CalledProcessError, ValueError):
        return None


def profile_of(dtype: str, scale: Scale, device: str) -> Result:
    """How much faster SlotMatch is than the SlotContrast that it learns from."""
    choices = [scale.models[name] for name in ("slotmatch", "slotcontrast")]
    setup = ProfileSetup(device, dtype, clip=scale.clip, warmup=2, repeats=scale.repeats)
    found = profile_models([ModelChoice(one.card, one.options, untrained=True) for one in choices], setup).to_dict()
    rates = {model["model"]: model["frames_per_second"] for model in found["models"]}
    return {"frames_per_second": rates, "ratios": found["ratios"], "time_ratio": found["time_ratio"]}


PARTS: dict[str, Callable[[Scale, str], Result]] = {
    "neighbours": neighbours,
    **{f"profile {dtype}": partial(profile_of, dtype) for dtype in ("float32", "bfloat16")},
    **{f"pipeline {task}": partial(pipeline_of, task) for task in ("coco-discovery", "coco-detection")},
    **{f"step {name}": partial(training_step, name) for name in LOSSES},
}
"""The fast ones first: what a short loan of a GPU does not reach is a step that has to be compiled."""

"""Compare the speed of a training step of SlotCon with a straightforward implementation of the paper.

    python benchmarks/slotcon.py

Both get the same weights, views, boxes and flips. A step consists of the loss with the teacher's update, the backward
pass and LARS. The peer is written here from the paper and from the description of the official code; no code of it is
used. It undoes flips in a Python loop over the samples, uses `grid_sample` instead of RoI-align and one-hot maps of the
winners, takes the slots of all images as keys before it drops the absent ones, and loops over parameters for the
teacher and for LARS. The script stops unless the losses are equal at each step. On a CPU, both run in float32 on one
thread. On a GPU, both run under bfloat16 autocast, and ours is compiled. The script prints milliseconds per step: the
median of steps taken in turns.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ocl_bench.models.layers.resnet import ResNet, resnet
from ocl_bench.models.slotcon import SlotCon
from ocl_bench.training.crops import draw_pairs, draw_uniform
from ocl_bench.training.lars import LARS

MOMENTUM, TOLERANCE = 0.99, {"cpu": 1e-3, "cuda": 5e-2}


def peer_loss(model: SlotCon, views: tuple[Tensor, Tensor], boxes: tuple[Tensor, Tensor], flips: Any) -> Tensor:
    """Loss of one step. Also updates the teacher and the centre, as `SlotCon.loss` does."""
    z_student = [model.student(view) for view in views]
    with torch.no_grad():
        for teacher_p, student_p in zip(model.teacher.parameters(), model.student.parameters(), strict=True):
            teacher_p.data = teacher_p.data * MOMENTUM + student_p.data * (1 - MOMENTUM)
        z_teacher = [model.teacher(view) for view in views]
    student = [peer_group(z, model.student.prototypes, model.teacher_temperature) for z in z_student]
    aligned = [peer_align(dots, box, flip) for (_, dots), box, flip in zip(student, boxes, flips, strict=True)]
    with torch.no_grad():
        teacher = [peer_group(z, model.teacher.prototypes, model.teacher_temperature) for z in z_teacher]
        targets = [peer_align(dots, box, flip) for (_, dots), box, flip in zip(teacher, boxes, flips, strict=True)]
    group = peer_group_loss(model, aligned[0], targets[1]) + peer_group_loss(model, aligned[1], targets[0])
    with torch.no_grad():
        rows = torch.cat([dots for _, dots in teacher]).permute(0, 2, 3, 1).flatten(0, 2)
        model.centre.copy_(model.centre * model.centre_momentum + rows.mean(0) * (1 - model.centre_momentum))
    slot = peer_slot_loss(model, student[0], teacher[1]) + peer_slot_loss(model, student[1], teacher[0])
    return model.group_weight * group + (1 - model.group_weight) * slot


def peer_group(z: Tensor, prototypes: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Slots (B, K, D) and cosines (B, K, h, w)."""
    z = z.float()
    with torch.autocast(z.device.type, enabled=False):
        dots = torch.einsum("kd,bdhw->bkhw", F.normalize(prototypes, dim=1), F.normalize(z, dim=1))
        attention = (dots / temperature).softmax(1) + 1e-6
        attention = attention / attention.sum((2, 3), keepdim=True)
        return torch.einsum("bdhw,bkhw->bkd", z, attention), dots


def peer_align(dots: Tensor, boxes: Tensor, flips: Tensor) -> Tensor:
    """Resample the part of each map that both views show. Maps without such a part become 0."""
    height, width = dots.shape[2:]
    x1, y1, x2, y2 = boxes.unbind(1)
    steps_x, steps_y = ((torch.arange(n, device=dots.device) + 0.5) / n for n in (width, height))
    x = x1[:, None] + steps_x * (x2 - x1)[:, None]
    y = y1[:, None] + steps_y * (y2 - y1)[:, None]
    grid = torch.stack([x[:, None].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], dim=3) * 2 - 1
    maps = F.grid_sample(dots, grid, mode="bilinear", padding_mode="border", align_corners=False)
    maps = maps * ((x2 > x1) & (y2 > y1)).view(-1, 1, 1, 1)
    return torch.stack([image.flip(2) if flip else image for image, flip in zip(maps, flips, strict=True)])


def peer_group_loss(model: SlotCon, student: Tensor, teacher: Tensor) -> Tensor:
    """Cross entropy between the prototype distributions of teacher and student at each position."""
    q = student.permute(0, 2, 3, 1).flatten(0, 2) / model.student_temperature
    k = (teacher.permute(0, 2, 3, 1).flatten(0, 2) - model.centre) / model.teacher_temperature
    return -(k.softmax(1) * q.log_softmax(1)).sum(1).mean()


def peer_slot_loss(model: SlotCon, student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor]) -> Tensor:
    """InfoNCE loss of the slots that are present in both views."""
    (queries, student_dots), (keys, teacher_dots) = student, teacher
    count = keys.shape[1]
    present = []
    for dots in (student_dots, teacher_dots):
        winners = F.one_hot(dots.argmax(1), count).flatten(1, 2)
        present.append(winners.sum(1) > 0)
    chosen = (present[0] & present[1]).flatten()
    predicted = F.normalize(model.predictor(queries.flatten(0, 1)[chosen]).float(), dim=1)
    keys = F.normalize(keys.flatten(0, 1), dim=1)
    in_teacher = present[1].flatten()
    # Position of each query's own key after the absent keys are dropped.
    labels = (in_teacher.long().cumsum(0) - 1)[chosen.nonzero()[:, 0]]
    with torch.autocast(keys.device.type, enabled=False):
        logits = torch.einsum("nd,md->nm", predicted, keys[in_teacher]) / model.slot_temperature
    return F.cross_entropy(logits, labels) * 2 * model.slot_temperature


class PeerLARS:
    """LARS as a loop over parameters."""

    def __init__(self, parameters: list[torch.nn.Parameter], lr: float) -> None:
        self.parameters, self.lr = parameters, lr
        self.moments = [torch.zeros_like(p) for p in parameters]

    @torch.no_grad()
    def step(self) -> None:
        """One update."""
        for p, moment in zip(self.parameters, self.moments, strict=True):
            if p.grad is None:
                continue
            gradient = p.grad
            if p.ndim != 1:
                gradient = gradient + 1e-5 * p
                size, slope = p.norm(), gradient.norm()
                ones = torch.ones_like(size)
                ratio = torch.where(size > 0, torch.where(slope > 0, 0.001 * size / slope, ones), ones)
                gradient = gradient * ratio
            moment.mul_(0.9).add_(gradient)
            p.sub_(self.lr * moment)


def make_inputs(batch: int, crop: int, device: str) -> tuple[Any, Any, Any]:
    """Views, boxes and flips as of photographs of 480 x 640. The pixels are smooth noise."""
    pairs = draw_pairs(draw_uniform(0, 0, np.arange(batch)), np.repeat([[480, 640]], batch, 0), 0.08)
    draw = torch.Generator().manual_seed(0)
    coarse = torch.randn(2, batch, 3, crop // 8, crop // 8, generator=draw).flatten(0, 1)
    views = F.interpolate(coarse, scale_factor=8, mode="bilinear").unflatten(0, (2, batch)).to(device)
    return views.unbind(0), pairs.boxes.to(device).unbind(1), pairs.flips.to(device).unbind(1)


def build(device: str, prototypes: int) -> SlotCon:
    """Build ResNet-50 with the paper's widths for a GPU, or a network with a hundredth of the work for a CPU."""
    torch.manual_seed(0)
    if device == "cuda":
        return SlotCon(lambda: resnet("resnet50"), prototypes=prototypes).to(device).train()
    shape: dict[str, Any] = dict(blocks=(1, 1, 1), widths=(32, 64, 128), bottleneck=False, strides=(1, 2, 2))
    return SlotCon(lambda: ResNet(**shape, dilations=(1, 1, 1)), prototypes=prototypes, hidden=512).train()


def stepper(
    loss: Callable[[], Tensor], optimizer: Any, model: SlotCon, device: str
) -> Callable[[], tuple[float, float]]:
    """Return a function that takes one step and returns its seconds and its loss."""
    precision: Callable[[], AbstractContextManager[Any]] = nullcontext
    if device == "cuda":
        precision = lambda: torch.autocast("cuda", dtype=torch.bfloat16)  # noqa: E731

    def step() -> tuple[float, float]:
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        model.zero_grad(set_to_none=True)
        with precision():
            value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total = float(value.detach())
        return time.perf_counter() - start, total

    return step


def main() -> None:
    """Print both times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=0, help="by default 64 on a GPU, 16 on a CPU")
    parser.add_argument("--prototypes", type=int, default=256)
    parser.add_argument("--lr", type=float, default=0.02)
    arguments = parser.parse_args()
    device, cuda = arguments.device, arguments.device == "cuda"
    if not cuda:
        torch.set_num_threads(1)
    inputs = make_inputs(arguments.batch or (64 if cuda else 16), 224 if cuda else 112, device)
    ours = build(device, arguments.prototypes)
    peer = copy.deepcopy(ours)
    loss = torch.compile(ours.loss) if cuda else ours.loss
    learnt = [[p for p in model.parameters() if p.requires_grad] for model in (ours, peer)]
    steps = (
        stepper(lambda: loss(*inputs, momentum=MOMENTUM)["total"], LARS(learnt[0], lr=arguments.lr), ours, device),
        stepper(lambda: peer_loss(peer, *inputs), PeerLARS(learnt[1], arguments.lr), peer, device),
    )
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(arguments.steps + 3):
        (spent, value), (peer_spent, peer_value) = steps[0](), steps[1]()
        assert abs(value - peer_value) < TOLERANCE[device] * abs(peer_value), (number, value, peer_value)
        if number >= 3:  # the first steps compile and allocate memory
            seconds[0].append(spent)
            seconds[1].append(peer_spent)
    median = [1000 * float(np.median(times)) for times in seconds]
    for name, spent in zip(("ocl-bench", "straightforward"), median, strict=True):
        print(f"{name:18} {spent:8.1f} ms a step")
    print(f"loss {value:.4f} and {peer_value:.4f} after {arguments.steps + 3} steps, on {device}")
    print(f"ratio: {median[1] / median[0]:.2f}")


if __name__ == "__main__":
    main()

"""SlotCon against the official code: every `slotcon_*` parity file, in float64 and float32, gradients included."""

from __future__ import annotations

import torch
from parity_case import DTYPES, Case
from torch import nn

from ocl_bench.models.layers.alignment import align
from ocl_bench.models.losses import group_loss, slot_loss
from ocl_bench.models.ranks import RankOps
from ocl_bench.models.slotcon import SlotCon, group, perceptron, presence
from ocl_bench.training.lars import LARS, teacher_momentum


class Features(nn.Identity):
    """The parity files hold the encoder's output."""

    channels = 24


@DTYPES
def test_parity_grouping(dtype: torch.dtype) -> None:
    case = Case("slotcon_grouping", dtype)
    z, prototypes = case.trainable("in.z_student"), case.trainable("weights.grouping_q.slot_embed.weight")
    slots, dots = group(z, prototypes, 0.07)
    case.check("out.slots_q", slots)
    case.check("out.dots_q", dots)
    probe = (slots**2).sum() + (dots * case["in.probe"]).sum()
    case.check("out.probe_loss", probe)
    probe.backward()
    case.check("grad.in.z_student", z.grad)
    case.check("grad.grouping_q.slot_embed.weight", prototypes.grad)
    slots, dots = group(case["in.z_teacher"], case["weights.grouping_k.slot_embed.weight"], 0.07)
    case.check("out.slots_k", slots)
    case.check("out.dots_k", dots)
    case.all_checked()


@DTYPES
def test_parity_inverse_augmentation(dtype: torch.dtype) -> None:
    case = Case("slotcon_invaug", dtype)
    maps = case.trainable("in.map")
    aligned = align(maps, case["in.coords_view1"], case["in.flags_view1"])
    case.check("out.aligned_view1", aligned)
    case.check("out.aligned_view2", align(maps, case["in.coords_view2"], case["in.flags_view2"]))
    probe = (aligned * case["in.probe"]).sum()
    case.check("out.probe_loss", probe)
    probe.backward()
    case.check("grad.in.map", maps.grad)
    case.all_checked()


@DTYPES
def test_parity_group_loss(dtype: torch.dtype) -> None:
    case = Case("slotcon_group_loss", dtype)
    model = SlotCon(Features, prototypes=5, hidden=8, dim=16).to(dtype)  # type: ignore[arg-type]
    model.load_state_dict(model.translate_checkpoint(case.weights), strict=False)
    geometry = [(case[f"in.coords_view{view}"], case[f"in.flags_view{view}"]) for view in (1, 2)]
    student = [case.trainable(f"in.dots_q{view}") for view in (1, 2)]
    teacher = [case[f"in.dots_k{view}"] for view in (1, 2)]
    ours = [align(maps, *place) for maps, place in zip(student, geometry, strict=True)]
    theirs = [align(maps, *place) for maps, place in zip(teacher, geometry, strict=True)]
    case.check("out.aligned_q1", ours[0])
    case.check("out.aligned_k2", theirs[1])
    losses = [group_loss(ours[a], theirs[1 - a], model.centre, 0.1, 0.07) for a in (0, 1)]
    case.check("out.group_q1_k2", losses[0])
    case.check("out.group_q2_k1", losses[1])
    sum(losses).backward()  # type: ignore[union-attr]
    case.check("grad.in.dots_q1", student[0].grad)
    case.check("grad.in.dots_q2", student[1].grad)
    model._update_centre(torch.cat(teacher), RankOps())
    case.check("out.new_center", model.centre)
    case.all_checked()


@DTYPES
def test_parity_slot_loss(dtype: torch.dtype) -> None:
    case = Case("slotcon_slot_loss", dtype)
    predictor = perceptron(16, 32, 16, pixels=False).to(dtype)
    predictor.load_state_dict({k.removeprefix("predictor_slot.mlp."): v for k, v in case.weights.items()})
    queries = case.trainable("in.slots_q")
    query_mask, key_mask = presence(case["in.dots_q"]), presence(case["in.dots_k"])
    case.check("out.mask_q", query_mask)
    case.check("out.mask_k", key_mask)
    loss, pairs = slot_loss(queries, case["in.slots_k"], query_mask, key_mask, predictor, 0.2, RankOps())
    assert pairs == (query_mask & key_mask).sum()
    case.check("out.loss", loss)
    loss.backward()
    case.check("grad.in.slots_q", queries.grad)
    for name, parameter in predictor.named_parameters():
        if f"grad.predictor_slot.mlp.{name}" in case.tensors:
            case.check(f"grad.predictor_slot.mlp.{name}", parameter.grad)
    for name, buffer in predictor.named_buffers():
        if f"out.predictor_slot.mlp.{name}" in case.tensors:
            case.check(f"out.predictor_slot.mlp.{name}", buffer)
    case.all_checked()


@DTYPES
def test_parity_training_step_and_evaluation(dtype: torch.dtype) -> None:
    """Loss, gradients, and what the step leaves: moved teacher and centre, batch norm statistics of both networks."""
    case = Case("slotcon_full_model", dtype)
    model = SlotCon(Features, prototypes=5, hidden=32, dim=16).to(dtype).train()  # type: ignore[arg-type]
    model.load_state_dict(model.translate_checkpoint(case.weights), strict=True)
    views, boxes, flips = (
        (case[f"in.{name}_view1"], case[f"in.{name}_view2"]) for name in ("features", "coords", "flags")
    )
    terms = model.loss(views, boxes, flips, momentum=teacher_momentum(7, 625))
    case.check("out.loss", terms["total"])
    assert terms["without_slots"] == 0
    terms["total"].backward()
    state, gradients = model.state_dict(), {name: p.grad for name, p in model.named_parameters()}
    for key in sorted(case.unchecked):
        official = key.removeprefix("grad.").removeprefix("out.after.")
        if key != "out.eval.dots_view1":
            (ours,) = model.translate_checkpoint({official: torch.zeros(1, 5)})
            case.check(key, gradients[ours] if key.startswith("grad.") else state[ours])
    teacher = model.eval().teacher
    case.check("out.eval.dots_view1", group(teacher(views[0]), teacher.prototypes, 0.07)[1])
    case.all_checked()


@DTYPES
def test_parity_lars(dtype: torch.dtype) -> None:
    case = Case("slotcon_lars", dtype)
    parameters = {name: nn.Parameter(case[f"in.param{name}"]) for name in ("1d", "2d")}
    optimiser = LARS(parameters.values(), lr=2.0, weight_decay=1e-3)
    for step in range(3):
        for name, parameter in parameters.items():
            parameter.grad = case[f"in.grad{name}.{step}"]
        optimiser.step()
        for name, parameter in parameters.items():
            case.check(f"out.param{name}.after{step + 1}", parameter)
    case.all_checked()

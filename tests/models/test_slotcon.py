"""SlotCon: the vectors of the official code, what a step does and must survive, predictions and checkpoints."""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ocl_bench.core.errors import UsageError
from ocl_bench.core.types import Batch
from ocl_bench.models.checkpoints.export import export_file, read_checkpoint, resnet50_names
from ocl_bench.models.checkpoints.names import load_weights, save_weights
from ocl_bench.models.layers.alignment import align
from ocl_bench.models.layers.normalisation import normalise
from ocl_bench.models.loading import get_model
from ocl_bench.models.losses import group_loss, slot_loss
from ocl_bench.models.ranks import RankOps
from ocl_bench.models.slotcon import SlotCon, build, group, presence

OFFICIAL_PARTS = (
    ("center", "centre"),
    ("encoder_q.", "student.encoder."),
    ("encoder_k.", "teacher.encoder."),
    ("projector_q.mlp.", "student.projector."),
    ("projector_k.mlp.", "teacher.projector."),
    ("grouping_q.slot_embed.weight", "student.prototypes"),
    ("grouping_k.slot_embed.weight", "teacher.prototypes"),
    ("predictor_slot.mlp.", "predictor."),
)
# SHA-256 of the official names and shapes, in order (specs/slotcon.md, section 6.2).
OFFICIAL_SHA256 = {
    256: "09dc14ef0052f8592ed83a212bbb366b9f53edaba458804120c1d71c1e66df08",
    2048: "948c7b997ec8b855624f6c9b700d35fe321e354b5760be86183b9621c0138657",
}
TINY: dict = {"preset": "embedded", "prototypes": 7, "hidden": 32, "dim": 16, "widths": (16, 16, 16)}


def official(model: SlotCon, prefix: str = "") -> dict[str, Tensor]:
    """The model's tensors under the names of the official code, in its order."""
    state = model.state_dict()
    return {
        prefix + theirs + name.removeprefix(ours): value
        for theirs, ours in OFFICIAL_PARTS
        for name, value in state.items()
        if name.startswith(ours)
    }


def official_file(model: SlotCon, path: Path) -> Path:
    """A checkpoint as the official training writes it."""
    content = {"args": argparse.Namespace(arch="resnet50", fp16=True), "epoch": 800, "scaler": {"scale": 1.0}}
    content |= {"optimizer": {"state": {0: {"mu": torch.ones(2)}}, "param_groups": [{"lr": 2.0}]}}
    torch.save({**content, "model": official(model, "module.")}, path)
    return path


def tiny(**options: object) -> SlotCon:
    torch.manual_seed(0)
    return build(**(TINY | options))


def step_inputs(batch: int = 4, seed: int = 0) -> tuple[tuple[Tensor, Tensor], ...]:
    generator = torch.Generator().manual_seed(seed)
    views = torch.randn(2, batch, 3, 48, 48, generator=generator)
    boxes = torch.tensor([[0.0, 0.25, 0.6, 1.0], [0.2, 0.0, 1.0, 0.5]]).unsqueeze(1).expand(2, batch, 4)
    flips = torch.rand(2, batch, generator=generator) < 0.5
    return tuple((pair[0], pair[1]) for pair in (views, boxes, flips))


class Vectors:
    """Section 9 of specs/slotcon.md: student sees `xa`, teacher `xb`; 3 prototypes, 4 channels, maps of 3x3."""

    numbers = torch.arange(72.0)
    student = group(
        torch.sin(0.37 * numbers + 0.5).view(2, 4, 3, 3), torch.cos(0.9 * torch.arange(12.0)).view(3, 4), 0.07
    )
    teacher = group(
        torch.sin(0.53 * numbers + 1.1).view(2, 4, 3, 3), torch.cos(0.9 * torch.arange(12.0) + 0.2).view(3, 4), 0.07
    )
    centre = torch.tensor([[0.1, -0.2, 0.05]])
    aligned_student = align(
        student[1], torch.tensor([[0, 0.25, 0.6, 1], [0.2, 0, 1, 0.5]]), torch.tensor([True, False])
    )
    aligned_teacher = align(teacher[1], torch.tensor([[0.1, 0, 0.9, 0.8], [0, 0, 1, 1]]), torch.tensor([False, True]))


def close(value: Tensor, expected: object, atol: float = 2e-6) -> None:
    torch.testing.assert_close(value, torch.tensor(expected), rtol=0, atol=atol)


def test_vectors_of_grouping() -> None:
    slots, dots = Vectors.student
    close(dots[0, :, 0, 0], [0.330824, -0.322657, 0.259405])
    close(dots.sum(), 1.589419, 2e-5)
    close(slots[0, 0], [0.764118, -0.760521, 0.730007, -0.673657])
    close(slots[0, 1], [-0.130310, 0.310411, -0.479526, 0.631670])
    close(slots[0, 2], [0.714094, -0.667816, 0.597903, -0.506829])
    slots, dots = Vectors.teacher
    close(dots[0, :, 0, 0], [0.380397, -0.557165, 0.647285])
    close(dots.sum(), 0.973803, 2e-5)
    close(slots[1, 0], [0.381561, 0.749067, -0.295300, -0.783072])
    close(slots[1, 2], [0.966327, -0.099533, -0.977790, -0.013067])


def test_vectors_of_alignment() -> None:
    first = [[0.329824, 0.331149, 0.332033], [0.106991, 0.205848, 0.271753], [-0.259379, -0.001705, 0.170077]]
    close(Vectors.aligned_student[0, 0], first)
    last = [[0.593363, 0.756290, 0.727029], [-0.510365, -0.127263, 0.278925], [-0.575149, -0.750479, -0.736333]]
    close(Vectors.aligned_teacher[1, 2], last)


def test_vectors_of_losses_and_centre() -> None:
    close(group_loss(Vectors.aligned_student, Vectors.aligned_teacher, Vectors.centre, 0.1, 0.07), 1.692071)
    (slots, dots), (keys, key_dots) = Vectors.student, Vectors.teacher
    contrast = partial(slot_loss, slots, keys, predictor=nn.Identity(), temperature=0.2, ranks=RankOps())
    loss, pairs = contrast(presence(dots), presence(key_dots))
    close(loss, 0.785319)
    assert pairs == 6
    dots, key_dots = dots.clone(), key_dots.clone()
    dots[0, 1], key_dots[1, 0], key_dots[0, 2] = -2, -2, -2
    assert presence(dots).tolist() == [[True, False, True], [True, True, True]]
    assert presence(key_dots).tolist() == [[True, True, False], [False, True, True]]
    loss, pairs = contrast(presence(dots), presence(key_dots))
    close(loss, 0.463672)
    assert pairs == 3
    model = tiny(prototypes=3)
    model.centre.copy_(Vectors.centre)
    model._update_centre(torch.cat([Vectors.student[1], Vectors.teacher[1]]), RankOps())
    close(model.centre, [[0.101821, -0.188944, 0.049243]])


def test_alignment_is_bilinear_sampling() -> None:
    """Oracle: torch's grid_sample with repeated borders; then the flip."""
    torch.manual_seed(0)
    maps, low, size = torch.randn(6, 2, 5, 7), torch.rand(6, 2) * 0.5, torch.rand(6, 2) * 0.5
    boxes, flips = torch.cat([low, low + size], 1), torch.tensor([True, False] * 3)
    ticks = [(torch.arange(count) + 0.5) / count for count in (7, 5)]
    x, y = (2 * (low[:, i : i + 1] + ticks[i] * size[:, i : i + 1]) - 1 for i in (0, 1))
    grid = torch.stack([x[:, None, :].expand(6, 5, 7), y[:, :, None].expand(6, 5, 7)], -1)
    expected = F.grid_sample(maps, grid, padding_mode="border", align_corners=False)
    expected = torch.where(flips.view(-1, 1, 1, 1), expected.flip(3), expected)
    torch.testing.assert_close(align(maps, boxes, flips), expected, rtol=1e-5, atol=1e-5)


def test_alignment_of_whole_flipped_and_empty_maps() -> None:
    maps, whole = torch.randn(3, 2, 4, 4), torch.tensor([[0.0, 0, 1, 1]]).expand(3, 4)
    assert torch.equal(align(maps, whole, torch.zeros(3, dtype=torch.bool)), maps)
    assert torch.equal(align(maps.flip(3), whole, torch.ones(3, dtype=torch.bool)), maps)
    empty = torch.tensor([[0.7, 0.1, 0.2, 0.9], [0.1, 0.9, 0.8, 0.2], [0.5, 0, 0.5, 1]])
    maps.requires_grad_()
    aligned = align(maps, empty, torch.tensor([True, False, True]))
    assert not aligned.any()
    aligned.sum().backward()
    assert maps.grad is not None and not maps.grad.any()


def one_by_one(queries: Tensor, keys: Tensor, query_mask: Tensor, key_mask: Tensor, temperature: float) -> Tensor:
    """The slot loss as its definition reads."""
    present = [(b, k) for b in range(len(keys)) for k in range(keys.shape[1]) if key_mask[b, k]]
    losses = []
    for place in [p for p in present if query_mask[p]]:
        cosines = torch.stack([F.cosine_similarity(queries[place], keys[other], dim=0) for other in present])
        losses.append(-(cosines / temperature).log_softmax(0)[present.index(place)])
    return torch.stack(losses).mean() * 2 * temperature


@pytest.mark.parametrize("without", [None, 0, 1])
def test_slot_loss_is_its_definition_on_one_rank_and_on_two(without: int | None) -> None:
    """Two ranks with other numbers of slots, perhaps one without any pair, give the loss and gradient of one."""
    torch.manual_seed(0)
    queries, keys = torch.randn(2, 5, 6, 8, dtype=torch.float64)
    query_mask, key_mask = torch.rand(2, 5, 6) < 0.6
    rows = (slice(0, 3), slice(3, 5))
    if without is not None:
        query_mask[rows[without]] &= ~key_mask[rows[without]]
    shared = query_mask & key_mask
    assert all(bool(shared[rows[rank]].any()) == (rank != without) and key_mask[rows[rank]].any() for rank in (0, 1))
    queries.requires_grad_()
    expected = one_by_one(queries, keys, query_mask, key_mask, 0.3)
    (gradient,) = torch.autograd.grad(expected, queries)
    joint, pairs = slot_loss(queries, keys, query_mask, key_mask, lambda x: 2 * x, 0.3, RankOps())
    torch.testing.assert_close(joint, expected)
    torch.testing.assert_close(torch.autograd.grad(joint, queries)[0], gradient)
    counts = torch.stack([key_mask[part].sum() for part in rows])
    losses = []
    for rank, part in enumerate(rows):
        gathered = iter([counts, keys[key_mask]])
        ranks = RankOps(2, rank, lambda _, gathered=gathered: next(gathered), lambda _: pairs / 2)  # type: ignore[misc]
        loss, all_pairs = slot_loss(
            queries[part], keys[part], query_mask[part], key_mask[part], nn.Identity(), 0.3, ranks
        )
        assert all_pairs == pairs
        losses.append(loss)
    mean = torch.stack(losses).mean()
    torch.testing.assert_close(mean, expected)
    torch.testing.assert_close(torch.autograd.grad(mean, queries)[0], gradient)


def test_centre_is_that_of_all_ranks() -> None:
    model, dots = tiny(prototypes=3), torch.rand(2, 3, 4, 4)
    others = torch.tensor([0.1, 0.5, -0.3])
    model._update_centre(dots, RankOps(2, 0, mean=lambda ours: (ours + others) / 2))
    torch.testing.assert_close(model.centre, 0.1 * (dots.mean((0, 2, 3)) + others)[None] / 2)


def test_step_leaves_a_moved_teacher_and_trains_only_the_student() -> None:
    model = tiny().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        model.student.prototypes.add_(1)
    terms = model.loss(*step_inputs(), momentum=0.9)  # type: ignore[arg-type]
    terms["total"].backward()
    torch.testing.assert_close(model.teacher.prototypes, before["teacher.prototypes"] + 0.1)
    assert all((p.grad is not None) == (not name.startswith("teacher.")) for name, p in model.named_parameters())
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
    assert model.centre.any() and not before["centre"].any()
    state = model.state_dict()
    assert state["teacher.encoder.bn1.num_batches_tracked"] == 2 == state["student.encoder.bn1.num_batches_tracked"]
    assert terms["total"].item() == pytest.approx((terms["group"] + terms["slot"]).item() / 2)
    assert not terms["group"].requires_grad and not terms["slot"].requires_grad


def test_teacher_starts_as_the_student_and_stands_still_at_momentum_one() -> None:
    model = tiny().train()
    student, teacher = model.student.state_dict(), model.teacher.state_dict()
    assert student.keys() == teacher.keys() and all(torch.equal(student[name], teacher[name]) for name in student)
    prototypes = model.teacher.prototypes.clone()
    with torch.no_grad():
        model.student.prototypes.zero_()
    model.update_teacher(1.0)
    assert torch.equal(model.teacher.prototypes, prototypes)


def test_heads_start_with_small_weights_and_prototypes_normal() -> None:
    """Truncated normal of 0.02 without biases, prototypes of a standard normal, as in the official code."""
    model = tiny(prototypes=500, hidden=64, dim=64)
    for head in (model.student.projector, model.predictor):
        layers = [head[number] for number in (0, 3, 6)]
        assert all(not layer.get_parameter("bias").any() for layer in layers)
        spreads = [layer.get_parameter("weight").std().item() for layer in layers]
        assert spreads == pytest.approx([0.02] * 3, rel=0.06)
    assert model.student.prototypes.mean().abs() < 0.02 and abs(model.student.prototypes.std() - 1) < 0.02


@pytest.mark.parametrize(("off", "kept"), [("group", "slot"), ("slot", "group")])
def test_ablations_leave_one_term(off: str, kept: str) -> None:
    whole = tiny(group_weight=0.3).train().loss(*step_inputs(), momentum=0.99)  # type: ignore[arg-type]
    model = tiny(group_weight=0.3, **{f"use_{off}_loss": False}).train()
    terms = model.loss(*step_inputs(), momentum=0.99)  # type: ignore[arg-type]
    share = {"group": 0.3, "slot": 0.7}
    assert off not in terms and terms[kept] == whole[kept]
    assert terms["total"].item() == pytest.approx(share[kept] * terms[kept].item())
    assert whole["total"].item() == pytest.approx(0.3 * whole["group"].item() + 0.7 * whole["slot"].item())
    terms["total"].backward()
    assert (model.predictor[0].weight.grad is None) == (off == "slot")
    with pytest.raises(UsageError, match="one of them must be true"):
        tiny(use_group_loss=False, use_slot_loss=False)


def test_sinkhorn_targets_use_all_prototypes_where_a_centre_does_not() -> None:
    """Cosines to the last prototype hardly vary: subtracting their mean cannot make it win a pixel."""
    torch.manual_seed(0)
    cosines = torch.randn(4, 7, 6, 6) * 0.2
    cosines[:, -1] *= 0.1
    shares = {}
    for assignment in ("centre", "sinkhorn"):
        model = tiny(teacher_temperature=0.05, assignment=assignment)
        model.centre.copy_(cosines.mean((0, 2, 3)))
        target = model._targets(cosines, RankOps())
        torch.testing.assert_close(target.sum(1), torch.ones(4, 6, 6))
        shares[assignment] = target.mean((0, 2, 3))
    assert shares["centre"][-1] < 0.05
    assert shares["sinkhorn"].min() > 0.05  # of 1 / 7; three iterations do not settle an extreme case


def test_a_step_with_sinkhorn_differs_in_the_group_loss_alone() -> None:
    centre, model = tiny().train(), tiny(assignment="sinkhorn").train()
    before, terms = (net.loss(*step_inputs(), momentum=0.99) for net in (centre, model))  # type: ignore[arg-type]
    assert terms["slot"] == before["slot"] and terms["group"] != before["group"]
    assert terms["monitor_mean_target_entropy"] > 0.99
    terms["total"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.student.parameters())
    assert all(p.grad is None for p in model.teacher.parameters())


def test_crops_that_share_nothing_give_a_constant() -> None:
    """Both maps are zeros: the student's row is uniform, which costs ln K per direction and teaches nothing."""
    model = tiny(use_slot_loss=False).train()
    views, _, flips = step_inputs()
    nowhere = torch.tensor([[0.8, 0.1, 0.3, 0.9]]).expand(4, 4)
    terms = model.loss(views, (nowhere, nowhere), flips, momentum=0.99)
    assert terms["group"].item() == pytest.approx(2 * torch.tensor(7.0).log().item())
    terms["total"].backward()
    assert all(not p.grad.any() for p in model.student.parameters() if p.grad is not None)


@pytest.mark.parametrize("batch", [1, 4])
def test_batch_without_a_shared_slot_is_counted_and_finite(batch: int) -> None:
    """Every pixel of the student belongs to prototype 0, of the teacher to prototype 1."""
    model = tiny(use_group_loss=False).train()
    with torch.no_grad():
        for number, network in enumerate((model.student, model.teacher)):
            network.get_parameter("projector.6.weight").zero_()
            network.get_parameter("projector.6.bias").fill_(1.0)
            network.prototypes.fill_(-1.0)[number] = 1.0
    terms = model.loss(*step_inputs(batch), momentum=1.0)  # type: ignore[arg-type]
    assert terms["without_slots"] == 2 and terms["slot"] == 0
    terms["total"].backward()
    assert all(not p.grad.any() for p in model.student.parameters() if p.grad is not None)
    assert model.predictor[1].num_batches_tracked == 0


def test_one_pair_is_too_few_for_a_batch_norm() -> None:
    queries, mask = torch.randn(1, 3, 16, requires_grad=True), torch.tensor([[True, False, False]])
    loss, pairs = slot_loss(queries, torch.randn(1, 3, 16), mask, mask, tiny().train().predictor, 0.2, RankOps())
    assert pairs == 1 and loss == 0
    loss.backward()
    assert queries.grad is not None and not queries.grad.any()


def test_grouping_is_full_precision_under_autocast() -> None:
    torch.manual_seed(0)
    z, prototypes = torch.randn(2, 16, 3, 3), torch.randn(5, 16)
    maps, boxes, flips = torch.randn(2, 5, 3, 3), torch.tensor([[0.1, 0.2, 0.7, 1.0]] * 2), torch.tensor([True, False])
    expected = *group(z, prototypes, 0.07), align(maps, boxes, flips)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = *group(z, prototypes, 0.07), align(maps, boxes, flips)
        rounded = group(z.bfloat16(), prototypes, 0.07)
    assert all(torch.equal(one, two) for one, two in zip(expected, actual, strict=True))
    assert rounded[0].dtype == rounded[1].dtype == torch.float32


def test_slots_without_pixels_pool_the_mean() -> None:
    z = torch.ones(1, 4, 3, 3) * torch.rand(1, 1, 3, 3)
    prototypes = torch.stack([torch.ones(4), -torch.ones(4)])
    slots, dots = group(z, prototypes, 0.01)
    assert presence(dots).tolist() == [[True, False]]
    torch.testing.assert_close(slots[0, 1], z.mean((2, 3))[0])


def batch_of(count: int, height: int = 64, width: int = 64) -> Batch:
    images = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))
    return Batch(tuple(f"image-{number}" for number in range(count)), images)


def test_prediction() -> None:
    model, batch = tiny(), batch_of(3, 60, 64)
    prediction = model.predict(batch)
    assert prediction.masks is not None and prediction.slots is not None and prediction.tokens is not None
    assert prediction.embedding is not None
    assert prediction.masks.shape == (3, 7, 8, 8) and prediction.mask_source == "prototypes"
    assert prediction.tokens.shape == (3, 16, 8, 8) and prediction.slots.shape == (3, 7, 16)
    torch.testing.assert_close(prediction.embedding, prediction.tokens.mean((2, 3)))
    assert prediction.embedding_source == "pool:mean"
    z = model.teacher(normalise(batch.image))
    cosines = F.cosine_similarity(z.unsqueeze(1), model.teacher.prototypes[None, :, :, None, None], dim=2)
    torch.testing.assert_close(prediction.masks, (cosines + 1) / 2)
    wins = F.one_hot(cosines.argmax(1), 7).flatten(1, 2).any(1)
    assert torch.equal(prediction.slots.any(2), wins) and not wins.all()
    alone = model.predict(Batch(batch.ids[1:2], batch.image[1:2]))
    torch.testing.assert_close(alone.masks, prediction.masks[1:2])


def test_prediction_is_the_teachers() -> None:
    model, batch = tiny(), batch_of(2)
    before = model.predict(batch)
    with torch.no_grad():
        for parameter in model.student.parameters():
            parameter.add_(1)
    after = model.predict(batch)
    assert all(torch.equal(getattr(before, name), getattr(after, name)) for name in ("masks", "slots", "tokens"))


def test_prediction_leaves_out_what_is_not_read() -> None:
    model, batch = tiny(), batch_of(2)
    whole = model.predict(batch)
    for wanted in (("tokens",), ("embedding", "slots", "tokens")):
        prediction = model.predict(replace(batch, any_of=wanted))
        assert torch.equal(getattr(prediction, wanted[0]), getattr(whole, wanted[0])) and prediction.masks is None
    assert model.predict(replace(batch, any_of=("slots", "tokens"))).slots is not None


def test_normalised_images_have_imagenets_statistics() -> None:
    image = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    torch.testing.assert_close(normalise(image), torch.zeros(1, 3, 2, 2))
    torch.testing.assert_close(
        normalise(torch.ones(1, 3, 1, 1)).flatten(), torch.tensor([0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225])
    )


@pytest.mark.parametrize("prototypes", [256, 2048])
def test_paper_size_has_the_official_tensors(prototypes: int) -> None:
    with torch.device("meta"):
        model = build(prototypes=prototypes)
    names = official(model)
    lines = "\n".join(f"{name} {tuple(value.shape)}" for name, value in names.items())
    assert len(names) == 687 and hashlib.sha256(lines.encode()).hexdigest() == OFFICIAL_SHA256[prototypes]
    totals = {256: (118_524_800, 68_712_000), 2048: (119_442_304, 69_170_752)}
    parameters = list(model.parameters())
    assert sum(p.numel() for p in parameters) == totals[prototypes][0]
    assert sum(p.numel() for p in parameters if p.requires_grad) == totals[prototypes][1]
    translated = model.translate_checkpoint({f"module.{name}": value for name, value in names.items()})
    assert {n: v.shape for n, v in translated.items()} == {n: v.shape for n, v in model.state_dict().items()}


def test_official_file_loads_whole_and_its_encoder_is_exported(tmp_path: Path) -> None:
    """A ResNet-50 with narrow heads: the file that the official training writes, then one of ours."""
    model = build(hidden=8, dim=8).half()
    with torch.no_grad():
        for number, tensor in enumerate(model.state_dict().values()):
            tensor.fill_(number)
    path = official_file(model, tmp_path / "ckpt_epoch_800.pth")
    loaded = build(hidden=8, dim=8)
    load_weights(loaded, path)
    expected = model.state_dict()
    assert len(expected) == 687
    assert all(torch.equal(value, expected[name].to(value.dtype)) for name, value in loaded.state_dict().items())
    save_weights(loaded, tmp_path / "ours.safetensors")
    exported = [
        read_checkpoint(export_file(file, tmp_path / f"{file.stem}-encoder.safetensors", "torchvision"))
        for file in (path, tmp_path / "ours.safetensors")
    ]
    for encoder in exported:
        assert encoder.keys() == resnet50_names().keys()
        assert all(torch.equal(value, expected[f"teacher.encoder.{name}"]) for name, value in encoder.items())


def test_checkpoints_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = official_file(tiny(), tmp_path / "official.pth")
    with pytest.raises(
        UsageError, match=r"official\.pth: K differs: the checkpoint has 7 prototypes, the model 9; .*=7"
    ):
        load_weights(tiny(prototypes=9), path)
    with pytest.raises(UsageError, match="has shape"):
        load_weights(tiny(hidden=16), path)
    state = official(tiny(), "module.")
    cases = {
        r"misses tensor 'teacher\.encoder\.conv1\.weight'": {
            name: value for name, value in state.items() if name != "module.encoder_k.conv1.weight"
        },
        "tensor 'fc.weight' .* has no counterpart": state | {"module.fc.weight": torch.zeros(2)},
        "has unexpected tensor 'extra'": tiny().state_dict() | {"extra": torch.zeros(2)},
        "has NaN in tensor 'centre'": state | {"module.center": torch.full((1, 7), torch.nan)},
        "the checkpoint has 1 prototypes, the model 7": state | {"module.center": torch.tensor(0.0)},
    }
    for message, content in cases.items():
        torch.save({"model": content}, tmp_path / "bad.pth")
        with pytest.raises(UsageError, match=message):
            load_weights(tiny(), tmp_path / "bad.pth")
    (tmp_path / "broken.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UsageError, match="not a readable checkpoint"):
        load_weights(tiny(), tmp_path / "broken.safetensors")


def test_stride_16_takes_the_same_weights() -> None:
    coarse, fine = build(hidden=8, dim=8, arch="resnet18"), build(hidden=8, dim=8, arch="resnet18", output_stride=16)
    fine.load_state_dict(coarse.state_dict(), strict=True)
    maps = [model.predict(batch_of(1, 64, 96)).masks for model in (coarse, fine)]
    assert maps[0] is not None and maps[1] is not None
    assert maps[0].shape == (1, 256, 2, 3) and maps[1].shape == (1, 256, 4, 6)
    torch.testing.assert_close(maps[1][..., ::2, ::2], maps[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "large"}, "option preset: 'large' is unknown"),
        ({"arch": "vit"}, "option arch: 'vit' is unknown"),
        ({"output_stride": 8}, "option output_stride: 8 is unknown"),
        ({"preset": "embedded", "output_stride": 16}, "arch 'small' has none"),
        ({"prototypes": 0}, "option prototypes: 0 is invalid; use a whole number from 1"),
        ({"prototypes": "many"}, "option prototypes: 'many' is invalid"),
        ({"group_weight": 2}, "option group_weight: 2 is invalid; use a number from 0 to 1"),
        ({"group_weight": float("nan")}, "option group_weight: nan"),
        ({"centre_momentum": 3}, "option centre_momentum: 3"),
        ({"assignment": "even"}, "option assignment: 'even' is unknown"),
        ({"teacher_temperature": 0}, "option teacher_temperature: 0 is invalid; use a number above 0"),
    ],
)
def test_unknown_options(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(**options)


def test_card_of_the_paper_size(tmp_path: Path) -> None:
    """`--model slotcon-paper --checkpoint FILE` reads the official container."""
    options: dict = {"hidden": 8, "dim": 8, "arch": "resnet18", "prototypes": 5}
    model = build(**options)
    loaded = get_model("slotcon-paper", checkpoint=official_file(model, tmp_path / "file.pth"), options=options)
    assert torch.equal(loaded.model.teacher.prototypes, model.teacher.prototypes)
    assert loaded.model.input_size == 224 == loaded.card.input and loaded.card.supervision == "none"

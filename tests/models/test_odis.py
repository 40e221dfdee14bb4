"""ODIS: its losses from their definition, what a step does and must survive, iBOT and DINO by flags, predictions."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from ocl_bench.core.errors import UsageError
from ocl_bench.core.types import Batch
from ocl_bench.models.checkpoints.names import load_weights, save_weights
from ocl_bench.models.layers.normalisation import normalise
from ocl_bench.models.layers.patches import patches_of_boxes
from ocl_bench.models.layers.projection import ProjectionHead
from ocl_bench.models.loading import get_model
from ocl_bench.models.losses import cross_view_loss, patch_loss, targets, view_contrast
from ocl_bench.models.odis import Odis, Views, build
from ocl_bench.models.ranks import RankOps

TINY: dict = {"preset": "embedded", "dim": 16, "depth": 2, "heads": 2, "hidden": 16, "bottleneck": 8, "out_dim": 12}
IBOT: dict = {"layout": "cls", "object_weight": 0.0, "image_weight": 1.0}
DINO: dict = {**IBOT, "patch_weight": 0.0}


def tiny(**options: object) -> Odis:
    torch.manual_seed(0)
    return build(**(TINY | {"input_size": 32} | options))


def views(batch: int = 4, local: int = 2, objects: int = 1, seed: int = 0) -> Views:
    """Views of 32 and 16 pixels; the last image shows no object, the first one has nothing hidden."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    present = torch.ones(2 + local, batch, dtype=torch.bool)
    present[:, -1] = False
    hidden = draw(2, batch, 16) < 0.3
    hidden[:, 0] = False
    return Views(
        normalise(draw(2, batch, 3, 32, 32)),
        normalise(draw(local, batch, 3, 16, 16)),
        draw(2, batch, objects, 16) < 0.4,
        present,
        hidden,
    )


def doubled(model: Odis, given: Views) -> tuple[Odis, Views]:
    return model.double(), replace(given, globals=given.globals.double(), locals=given.locals.double())


def everything(given: Views) -> Views:
    """Nothing is known of objects: every patch, every view."""
    return replace(given, objects=torch.ones_like(given.objects), present=torch.ones_like(given.present))


# --- losses ---------------------------------------------------------------------------------------------------------


def test_cross_view_loss_is_its_definition() -> None:
    torch.manual_seed(0)
    student, target = torch.randn(5, 3, 2, 7).double(), torch.randn(2, 3, 2, 7).double().softmax(-1)
    present = torch.rand(5, 3) < 0.6
    total, pairs = 0.0, 0
    for teacher_view in range(2):
        for view in range(5):
            if view == teacher_view:
                continue
            pairs += 1
            for image in range(3):
                weight = float(present[teacher_view, image] and present[view, image])
                for token in range(2):
                    log = (student[view, image, token] / 0.1).log_softmax(0)
                    total -= weight * float((target[teacher_view, image, token] * log).sum()) / 2
    assert pairs == 8
    loss = cross_view_loss(student, target, present, 0.1)
    torch.testing.assert_close(loss, torch.tensor(total / pairs / 3).double())


def test_patch_loss_is_its_definition() -> None:
    torch.manual_seed(0)
    hidden = torch.rand(4, 9) < 0.4
    hidden[1] = False
    student, target = torch.randn(4, 9, 7).double(), torch.randn(4, 9, 7).double().softmax(-1)
    total = 0.0
    for view in range(4):
        places = hidden[view].nonzero().flatten().tolist()
        entropies = [-float((target[view, p] * (student[view, p] / 0.1).log_softmax(0)).sum()) for p in places]
        total += sum(entropies) / max(1, len(places))
    loss = patch_loss(student[hidden], target[hidden], hidden, 0.1)
    torch.testing.assert_close(loss, torch.tensor(total / 4).double())


def test_the_whole_step_is_its_definition() -> None:
    """One step from the parts: all patches' logits, separate passes, no shortcut."""
    model, given = doubled(tiny(shared_head=False, patch_weight=0.5, drop_path=0.0, layout="cls_obj"), views())
    for kind in ("object", "patch"):
        model._centre(kind).normal_()
    centres = {kind: model._centre(kind).clone() for kind in ("object", "patch")}
    actual = model.loss(given, epoch=3.0, momentum=1.0)
    temperature = 0.04 + 0.03 * 3 / 29
    teacher = [model.teacher.backbone(given.globals[q], given.objects[q]) for q in range(2)]
    student = [model.student.backbone(given.globals[q], given.objects[q], given.hidden[q]) for q in range(2)]
    student += [model.student.backbone(local) for local in given.locals]
    known = torch.stack([model.teacher.head(tokens[:, 1:2], "object") for tokens in teacher])
    said = torch.stack([model.student.head(tokens[:, 1:2], "object") for tokens in student])
    target = targets(known, centres["object"], temperature)
    first = cross_view_loss(said, target, given.present, 0.1)
    torch.testing.assert_close(actual["object"], first.detach())
    known = torch.cat([model.teacher.head(tokens[:, 2:], "patch") for tokens in teacher])
    said, hidden = torch.cat([model.student.head(t[:, 2:], "patch") for t in student[:2]]), given.hidden.flatten(0, 1)
    second = patch_loss(said[hidden], targets(known, centres["patch"], temperature)[hidden], hidden, 0.1)
    torch.testing.assert_close(actual["patch"], second.detach())
    torch.testing.assert_close(actual["total"], first + 0.5 * second)
    torch.testing.assert_close(model._centre("patch"), 0.9 * centres["patch"] + 0.1 * known.mean((0, 1)))
    entropy = -(target * target.log()).sum(-1).mean()
    torch.testing.assert_close(actual["entropy"], entropy)
    assert actual["coverage"] == 0.75


def test_temperature_rises_by_epochs() -> None:
    model = tiny(freeze_last_layer=2.0)
    steps = torch.linspace(0.04, 0.07, 30)
    for epoch in (0, 1, 17, 29):
        torch.testing.assert_close(model._schedule(epoch)[0], steps[epoch])
    torch.testing.assert_close(model._schedule(400.0)[0], torch.tensor(0.07))
    torch.testing.assert_close(tiny(temperature_epochs=0)._schedule(0)[0], torch.tensor(0.07))
    assert model._schedule(1.9)[1] and not model._schedule(2.0)[1]


def test_head_has_unit_prototypes_and_full_precision_logits() -> None:
    head, tokens = ProjectionHead(16, 9, hidden=8, bottleneck=4, norm_last_layer=True), torch.randn(3, 16)
    assert not head.last_layer.weight_g.requires_grad and head.last_layer.weight_v.requires_grad
    cosines = F.cosine_similarity(head.project(tokens)[:, None], head.last_layer.weight_v[None], dim=2)
    torch.testing.assert_close(head(tokens), cosines)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = head.project(tokens)
        logits = head.logits(rounded, "patch")
    assert rounded.dtype == logits.dtype == torch.float32
    assert torch.equal(logits, head.logits(rounded, "patch"))


# --- steps ----------------------------------------------------------------------------------------------------------


def test_a_step_trains_only_the_student_and_moves_teacher_and_centres() -> None:
    model, given = tiny(freeze_last_layer=0).train(), views()
    with torch.no_grad():
        for parameter in model.student.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    terms = model.loss(given, epoch=0.0, momentum=0.75)
    assert terms["total"].requires_grad and not any(v.requires_grad for n, v in terms.items() if n != "total")
    terms["total"].backward()
    assert all(p.grad is None and not p.requires_grad for p in model.teacher.parameters())
    gradients = {name: p.grad for name, p in model.student.named_parameters()}
    assert all(g is not None and g.isfinite().all() and g.abs().max() > 0 for g in gradients.values())
    for name, value in model.teacher.state_dict().items():
        expected = 0.75 * before[f"teacher.{name}"] + 0.25 * before[f"student.{name}"]
        torch.testing.assert_close(value, expected)
    assert all(not torch.equal(before[name], value) for name, value in model.named_buffers())
    assert all(torch.equal(before[f"student.{n}"], v) for n, v in model.student.state_dict().items())


def test_the_last_layer_learns_nothing_while_it_is_frozen() -> None:
    model = tiny(freeze_last_layer=1.0, drop_path=0.0).train()
    model.loss(views(), epoch=0.5, momentum=1.0)["total"].backward()
    assert all(p.grad is None for p in model.student.head.last_layer.parameters())
    assert all(p.grad is not None for p in model.student.head.mlp.parameters())
    model.loss(views(), epoch=1.0, momentum=1.0)["total"].backward()
    assert all(p.grad is not None for p in model.student.head.last_layer.parameters())


def test_teacher_starts_as_the_student_without_its_stochastic_depth() -> None:
    model = tiny(drop_path=0.4).train()
    state = model.student.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.teacher.state_dict().items())
    assert set(state) - set(model.teacher.state_dict()) == {"backbone.masked_embed"}
    assert model.teacher.backbone.blocks[1].drop_path == 0 and model.student.backbone.blocks[1].drop_path == 0.4


@pytest.mark.parametrize("options", [{}, {"layout": "cls_obj", "image_weight": 0.5, "shared_head": False}, IBOT])
def test_ranks_give_the_loss_of_the_joint_batch(options: dict) -> None:
    given = views(batch=4)
    joint, given = doubled(tiny(**options, drop_path=0.0, freeze_last_layer=0), given)
    expected = joint.loss(given, epoch=1.0, momentum=0.9)
    expected["total"].backward()
    models = [doubled(tiny(**options, drop_path=0.0, freeze_last_layer=0), given)[0] for _ in range(2)]
    parts = [Views(*(getattr(given, f.name)[:, 2 * rank : 2 * rank + 2] for f in fields(Views))) for rank in range(2)]
    means: list[list[Tensor]] = [[], []]

    def record(rank: int) -> RankOps:
        return RankOps(2, rank, mean=lambda value: means[rank].append(value) or value)

    for rank in range(2):  # first what each rank has to say, then again with the means
        tiny_copy = doubled(tiny(**options, drop_path=0.0, freeze_last_layer=0), given)[0]
        tiny_copy.loss(parts[rank], epoch=1.0, momentum=0.9, ranks=record(rank))
    shared = [(one + two) / 2 for one, two in zip(*means, strict=True)]
    totals = []
    for rank, model in enumerate(models):
        answers = iter(shared)
        ranks = RankOps(2, rank, mean=lambda value, answers=answers: next(answers))  # type: ignore[misc]
        terms = model.loss(parts[rank], epoch=1.0, momentum=0.9, ranks=ranks)
        terms["total"].backward()
        totals.append(terms["total"])
    torch.testing.assert_close(sum(totals) / 2, expected["total"])
    for (name, parameter), *others in zip(
        joint.student.named_parameters(), *(m.student.named_parameters() for m in models), strict=True
    ):
        if parameter.grad is not None:
            mean = sum(other.grad for _, other in others) / 2
            torch.testing.assert_close(mean, parameter.grad, msg=name)
    for buffer, *others in zip(joint.buffers(), *(m.buffers() for m in models), strict=True):
        assert all(torch.allclose(buffer, other, rtol=1e-12, atol=1e-14) for other in others)


def test_odd_batches_are_finite() -> None:
    given = views()
    without_object = replace(given, present=torch.zeros_like(given.present), objects=torch.zeros_like(given.objects))
    nothing_hidden = replace(given, hidden=torch.zeros_like(given.hidden))
    no_locals = replace(given, locals=given.locals[:0], present=given.present[:2])
    for options in ({}, {"object_from": "pool"}, {"layout": "cls_obj", "objects": 2}, IBOT, DINO):
        for one in (without_object, nothing_hidden, no_locals):
            model = tiny(**options)
            count = model.objects
            terms = model.train().loss(
                replace(one, objects=one.objects.expand(-1, -1, count, -1)), epoch=0.0, momentum=0.9
            )
            terms["total"].backward()
            assert all(value.isfinite() for value in terms.values())
            assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert tiny().loss(without_object, epoch=0.0, momentum=1.0)["object"] == 0
    assert tiny().loss(without_object, epoch=0.0, momentum=1.0)["coverage"] == 0
    assert tiny().loss(nothing_hidden, epoch=0.0, momentum=1.0)["patch"] == 0


def test_training_lowers_the_loss() -> None:
    """The same four images again and again: the student learns to say what a teacher says that stands still."""
    model, given = tiny(drop_path=0.0, freeze_last_layer=0, centre_momentum=1.0).train(), everything(views(local=1))
    with torch.no_grad():
        for parameter in model.teacher.backbone.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    optimiser, excess = torch.optim.AdamW(model.student.parameters(), lr=3e-3), []
    for _ in range(20):
        terms = model.loss(given, epoch=30.0, momentum=1.0)
        optimiser.zero_grad()
        terms["total"].backward()
        optimiser.step()
        excess.append(float(terms["object"] - terms["entropy"]))  # cannot fall below 0
    assert 0 < excess[-1] < 0.5 * excess[0]


# --- flags ----------------------------------------------------------------------------------------------------------


def test_flags_off_give_ibot_and_dino() -> None:
    given = everything(views())
    objects = tiny().loss(given, epoch=1.0, momentum=1.0)
    ibot = tiny(**IBOT).loss(views(), epoch=1.0, momentum=1.0)
    assert torch.equal(ibot["total"], objects["total"]) and torch.equal(ibot["image"], objects["object"])
    dino_given = replace(given, hidden=torch.zeros_like(given.hidden))
    dino = tiny(**DINO).loss(views(), epoch=1.0, momentum=1.0)
    assert torch.equal(dino["total"], tiny(**IBOT).loss(dino_given, epoch=1.0, momentum=1.0)["image"])
    monitors = {"monitor_target_entropy", "monitor_mean_target_entropy", "monitor_head_cosine"}
    assert set(dino) == {"total", "image", "entropy", "coverage", *monitors}
    assert "student.backbone.masked_embed" not in tiny(**DINO).state_dict()


def test_masked_attention_off_is_a_mask_of_everything() -> None:
    given = views()
    free = replace(given, objects=torch.ones_like(given.objects))
    plain = tiny(masked_attention=False).loss(given, epoch=1.0, momentum=1.0)["total"]
    assert torch.equal(plain, tiny().loss(free, epoch=1.0, momentum=1.0)["total"])
    assert not torch.equal(plain, tiny().loss(given, epoch=1.0, momentum=1.0)["total"])


def test_pooling_instead_of_a_token() -> None:
    given = views()
    model = tiny(object_from="pool", masked_attention=False, patch_weight=0.0)
    tokens = model.student.backbone(given.globals[0])
    actual = model._describe(tokens, given.objects[0], "object")
    for image, within in enumerate(given.objects[0, :, 0]):
        torch.testing.assert_close(actual[image, 0], tokens[image, 1:][within].mean(0))
    assert torch.equal(model._describe(tokens, None, "object")[:, 0], tokens[:, 1:].mean(1))
    empty = torch.zeros_like(given.objects[0])
    torch.testing.assert_close(model._describe(tokens, empty, "object")[:, 0], tokens[:, 1:].mean(1))
    assert model.reading.token == "pool"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "both"}, "option layout: 'both' is unknown; use obj or cls_obj or cls"),
        ({"layout": "cls"}, "option layout: cls has no objects"),
        ({"image_weight": 1.0}, r"option layout: obj has no \[CLS\]"),
        ({"objects": 2}, "option objects: 2 with layout obj"),
        ({"object_weight": 0.0, "patch_weight": 0.0}, "one of them must not be 0"),
        ({"object_from": "box"}, "option object_from: 'box' is unknown"),
        ({"token": "cls"}, "option token: the model has no 'cls' token; use obj"),
        ({**IBOT, "token": "obj+mean"}, "option token: the model has no 'obj' token; use cls"),
        ({"token": "max"}, "option token: 'max' is unknown"),
        ({"token_blocks": 3}, "option token_blocks: 3 is invalid; use 1 to 2, the blocks of the model"),
        ({"token_blocks": 0}, "option token_blocks: 0 is invalid"),
        ({"token_blocks": True}, "option token_blocks: True is invalid"),
        ({"token_blocks": "all"}, "option token_blocks: 'all' is invalid"),
        ({"preset": "huge"}, "option preset: 'huge' is unknown"),
        ({"arch": "vit_giant"}, "option arch: 'vit_giant' is unknown"),
    ],
)
def test_options_that_make_no_sense(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tiny(**options)


# --- predictions ----------------------------------------------------------------------------------------------------


def batch_of(count: int, boxes: tuple[Tensor, ...] | None = None, side: int = 32) -> Batch:
    pixels = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))
    return Batch(tuple(f"image-{number}" for number in range(count)), pixels, boxes=boxes)


def test_prediction_is_the_teachers_after_the_final_norm() -> None:
    model, batch = tiny(), batch_of(3)
    with torch.no_grad():
        for parameter in model.student.parameters():
            parameter.add_(1)
    prediction = model.predict(batch)
    tokens = model.teacher.backbone(normalise(batch.image))
    assert prediction.tokens is not None and prediction.embedding is not None and prediction.masks is None
    assert torch.equal(prediction.embedding, tokens[:, 0]) and prediction.embedding_source == "token:obj"
    assert torch.equal(prediction.tokens[1, :, 2, 3], tokens[1, 1 + 2 * 4 + 3])
    alone = model.predict(Batch(batch.ids[1:2], batch.image[1:2]))
    torch.testing.assert_close(alone.embedding, prediction.embedding[1:2])
    larger = model.predict(batch_of(2, side=48))
    assert larger.tokens is not None and larger.tokens.shape == (2, 16, 6, 6)
    with pytest.raises(UsageError, match="images of 36x36 pixels: the sides must be multiples of the patch, 8"):
        model.predict(batch_of(1, side=36))


@pytest.mark.parametrize("options", [{}, IBOT, {"layout": "cls_obj"}])
def test_dense_features_of_the_last_blocks_are_joined(options: dict) -> None:
    """By hand: each block after the one before it, the final norm, the patches as a map, the earliest block first."""
    model = tiny(depth=3, token_blocks=2, attention=True, **options)
    vit, batch = model.teacher.backbone, batch_of(2, (torch.tensor([[0.0, 0, 16, 8]]), torch.zeros(0, 4)))
    mask = torch.ones(2, 1, 16, dtype=torch.bool)
    mask[0, :, 2:] = False
    with torch.no_grad():
        torch.nn.init.normal_(vit.norm.weight)  # a norm that does something
        x = vit.embed(normalise(batch.image))
        visible, first = vit._visible(mask)
        outputs = [x := block(x, visible, first) for block in vit.blocks]
        maps = [vit.norm(x)[:, vit.prefix :].transpose(1, 2).reshape(2, 16, 4, 4) for x in outputs]
        plain = tiny(depth=3, attention=True, **options)
        plain.load_state_dict(model.state_dict())
        prediction, default = model.predict(batch), plain.predict(batch)
    assert prediction.tokens is not None and torch.equal(prediction.tokens, torch.cat(maps[1:], dim=1))
    assert default.tokens is not None and torch.equal(default.tokens, maps[2])
    assert not torch.allclose(maps[1], maps[2])
    assert torch.equal(prediction.embedding, default.embedding)  # type: ignore[arg-type]
    assert torch.equal(prediction.masks, default.masks)  # type: ignore[arg-type]
    assert prediction.embedding_source == default.embedding_source


def test_boxes_restrict_the_object_token_and_odd_ones_are_counted() -> None:
    model = tiny()
    boxes = (
        torch.tensor([[0.0, 0, 9, 9], [24, 24, 20, 30]]),  # the second one is inverted
        torch.zeros(0, 4),
        torch.tensor([[40.0, 0, 50, 9]]),  # outside
        torch.tensor([[3.0, 3, 4, 4]]),
    )
    batch = batch_of(4, boxes)
    covered, plain = model.predict(batch), model.predict(batch_of(4))
    image = normalise(batch.image)
    both = patches_of_boxes(boxes[0], (32, 32), 8).patches.any(0)
    assert both.nonzero().flatten().tolist() == [0, 1, 4, 5, 14]
    expected = model.teacher.backbone(image[:1], both.view(1, 1, 16))
    torch.testing.assert_close(covered.embedding[:1], expected[:, 0])  # type: ignore[index]
    torch.testing.assert_close(covered.embedding[1:3], plain.embedding[1:3])  # type: ignore[index]
    assert not torch.allclose(covered.embedding[3], plain.embedding[3])  # type: ignore[index]
    counts = {name: value.tolist() for name, value in covered.extra.items()}
    assert counts == {
        "boxes_inverted": [1, 0, 0, 0],
        "boxes_thin": [1, 0, 0, 1],
        "boxes_outside": [0, 0, 1, 0],
        "without_box": [False, True, True, False],
    }
    assert model.reads_boxes and not tiny(use_boxes=False).reads_boxes and not tiny(token="mean").reads_boxes
    ignoring = tiny(use_boxes=False).predict(batch)
    assert torch.equal(ignoring.embedding, plain.embedding) and not ignoring.extra  # type: ignore[arg-type]


@pytest.mark.parametrize("token", ["obj", "cls", "mean", "pool", "obj+cls", "obj+mean"])
def test_tokens_of_the_embedding(token: str) -> None:
    model = tiny(layout="cls_obj", objects=2, token=token)
    boxes = (torch.tensor([[0.0, 0, 16, 8]]), torch.zeros(0, 4))
    prediction = model.predict(batch_of(2, boxes))
    mask = torch.ones(2, 2, 16, dtype=torch.bool)
    mask[0, :, 2:] = False
    tokens = model.teacher.backbone(normalise(batch_of(2).image), mask)
    pooled = torch.stack([tokens[0, 3:5].mean(0), tokens[1, 3:].mean(0)])
    parts = {"obj": tokens[:, 1:3].mean(1), "cls": tokens[:, 0], "mean": tokens[:, 3:].mean(1), "pool": pooled}
    torch.testing.assert_close(prediction.embedding, torch.cat([parts[part] for part in token.split("+")], dim=1))
    assert prediction.embedding_source == f"token:{token}"
    assert model.reads_boxes == ("obj" in token or token == "pool")


def test_attention_maps_are_masks_on_request() -> None:
    prediction = tiny(attention=True).predict(batch_of(2, (torch.tensor([[0.0, 0, 16, 8]]), torch.zeros(0, 4))))
    assert (
        prediction.masks is not None
        and prediction.masks.shape == (2, 2, 4, 4)
        and prediction.mask_source == "attention"
    )
    assert (
        (prediction.masks[0, :, 0, :2] > 0).all()
        and (prediction.masks[0, :, 1:] == 0).all()
        and (prediction.masks[1] > 0).all()
    )


def test_baselines_attend_with_their_class_token() -> None:
    boxes = (torch.tensor([[0.0, 0, 16, 8]]),)
    model = tiny(**IBOT)
    prediction, plain = model.predict(batch_of(1, boxes)), model.predict(batch_of(1))
    assert model.reads_boxes and prediction.embedding_source == "token:cls"
    assert not torch.allclose(prediction.embedding, plain.embedding)  # type: ignore[arg-type]


# --- sizes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arch", "count"), [("vit_small", 21_665_664), ("vit_base", 85_798_656), ("vit_large", 303_301_632)]
)
def test_paper_sizes(arch: str, count: int) -> None:
    with torch.device("meta"):
        model = build(arch=arch)
        other = build(arch=arch, layout="cls_obj")
    backbone = model.teacher.backbone
    assert sum(p.numel() for p in backbone.parameters()) == count
    assert backbone.pos_embed.shape[1] == 197 and other.teacher.backbone.pos_embed.shape[1] == 198
    assert model.input_size == 224 and backbone.blocks[0].norm1.eps == 1e-6
    assert model.student.head.last_layer.weight_v.shape == (8192, 256)
    assert math.isclose(model.student.backbone.blocks[-1].drop_path, 0.1)


def test_embedded_size_fits_in_its_bundle(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build(preset="embedded", dim=128, shared_head=False)
    save_weights(model, tmp_path / "model.safetensors")
    assert (tmp_path / "model.safetensors").stat().st_size < 6e6
    other = build(preset="embedded", dim=128, shared_head=False)
    load_weights(other, tmp_path / "model.safetensors")
    for name, value in other.state_dict().items():
        assert torch.equal(value, model.state_dict()[name].half().float()), name
    assert model.input_size == 128 and model.patch == 8


@pytest.mark.parametrize("name", ["odis-paper", "ibot-paper", "dino-paper"])
def test_cards_of_the_paper_size(name: str) -> None:
    small = {"arch": "small", "dim": 16, "heads": 2, "depth": 1, "hidden": 8, "bottleneck": 8, "out_dim": 16}
    loaded = get_model(name, options={**small, "input_size": 64})
    assert loaded.card.supervision == ("boxes" if name == "odis-paper" else "none")
    prediction = loaded.model.predict(batch_of(1, side=64))
    assert prediction.embedding_source == ("token:obj" if name == "odis-paper" else "token:cls")
    with torch.device("meta"):
        whole = build(**loaded.card.options)
    assert whole.student.head.last_layer.weight_v.shape[0] == (65536 if name == "dino-paper" else 8192)


# torch's compiler looks at .grad of every tensor and mutes its own warning of it, which "error" raises before that.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_a_compiled_loss_is_not_compiled_again_at_every_step() -> None:
    torch._dynamo.reset()
    options = {"drop_path": 0.0, "freeze_last_layer": 0}
    plain, compiled, counter = tiny(**options).train(), tiny(**options).train(), CompileCounter()
    step, frames = torch.compile(compiled.loss, backend=counter), []
    for number in range(4):
        schedule = {"epoch": 0.37 * number, "momentum": 0.9 + 0.01 * number}
        actual, expected = step(views(seed=number), **schedule), plain.loss(views(seed=number), **schedule)
        torch.testing.assert_close(actual, expected)
        frames.append(counter.frame_count)
    assert frames[-1] == frames[1] > 0  # the second step shows that epoch and momentum are no constants


# --- what is in no paper: batch norm in the head, Sinkhorn targets, InfoNCE -----------------------------------------

LEARNING: dict = {"batch_norm": True, "assignment": "sinkhorn", "norm_last_layer": True, "teacher_temperature": 0.02}


def test_the_head_with_batch_norm_spreads_its_vectors() -> None:
    torch.manual_seed(0)
    plain, normed = (ProjectionHead(16, 12, hidden=16, bottleneck=8, batch_norm=norm) for norm in (False, True))
    assert [type(layer).__name__ for layer in normed.mlp] == ["Linear", "RowNorm", "GELU", "Linear", "RowNorm"]
    tokens = 3 + torch.randn(5, 7, 16)  # tokens of a small network are alike
    with torch.no_grad():
        cosines = [float(head.project(tokens).flatten(0, 1).mean(0).square().sum()) for head in (plain, normed)]
    assert cosines[0] > 0.9 and cosines[1] < 0.1
    rows = normed.mlp(tokens.flatten(0, 1))
    torch.testing.assert_close(normed.project(tokens), F.normalize(rows, dim=1).view(5, 7, 8))
    torch.testing.assert_close(rows.mean(0), torch.zeros(8), atol=1e-5, rtol=0)
    assert normed.project(tokens[:1, :1]).isfinite().all() and normed.project(tokens[:0]).shape == (0, 7, 8)


@pytest.mark.parametrize("options", [LEARNING, LEARNING | IBOT, LEARNING | {"patch_weight": 0.0}])
def test_sinkhorn_and_batch_norm_learn(options: dict) -> None:
    model = tiny(freeze_last_layer=0, **options).train()
    assert not [name for name in model.state_dict() if name.startswith("centre")]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    given = views() if "layout" in options else views(batch=6)
    terms = model.loss(given, epoch=1.0, momentum=0.9)
    terms["total"].backward()
    learnt = [p for p in model.student.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learnt)
    assert sum(bool(p.grad.any()) for p in learnt) > 0.8 * len(learnt)
    assert all(p.grad is None for p in model.teacher.parameters())
    assert float(terms["monitor_target_entropy"]) < 0.6 < float(terms["monitor_mean_target_entropy"])
    assert float(terms["monitor_head_cosine"]) < 0.5
    statistics = [name for name in before if "running_mean" in name]
    assert len(statistics) == 4 and all(not torch.equal(model.state_dict()[name], before[name]) for name in statistics)


def test_monitors_say_that_a_fresh_plain_teacher_is_undecided() -> None:
    terms = tiny(**IBOT, teacher_temperature=0.3, warmup_temperature=0.3).loss(views(), epoch=1.0, momentum=1.0)
    share = float(terms["entropy"]) / math.log(TINY["out_dim"])
    assert float(terms["monitor_target_entropy"]) == pytest.approx(share) and share > 0.8
    assert float(terms["monitor_head_cosine"]) > 0.8


@pytest.mark.parametrize("layout", ["obj", "cls"])
def test_contrast_alone_needs_no_teacher(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny(layout=layout, object_weight=0.0, patch_weight=0.0, contrast_weight=1.0, batch_norm=True).train()
    given = views(local=0)
    monkeypatch.setattr(model.teacher.backbone, "forward", None)  # calling it would fail
    terms = model.loss(given, epoch=1.0, momentum=0.5)
    assert set(terms) == {"total", "contrast", "coverage"} and torch.equal(terms["total"].detach(), terms["contrast"])
    tokens = model.student.backbone(given.globals.flatten(0, 1), _attended(model, given))
    unit = model.student.head.project(tokens[:, :1])
    present = given.present[:2] if layout == "obj" else torch.ones_like(given.present[:2])
    torch.testing.assert_close(terms["contrast"], view_contrast(unit.view(2, 4, -1), present, 0.1).detach())
    terms["total"].backward()
    assert model.student.backbone.cls_token.grad.any()
    assert model.student.head.last_layer.weight_v.grad is None  # no prototypes take part


def _attended(model: Odis, given: Views) -> Tensor | None:
    return given.objects.flatten(0, 1) if model.layout == "obj" else None


def test_contrast_is_added_to_the_other_losses() -> None:
    both = tiny(contrast_weight=0.5).loss(views(), epoch=1.0, momentum=1.0)
    alone = tiny().loss(views(), epoch=1.0, momentum=1.0)
    torch.testing.assert_close(both["total"], alone["total"] + 0.5 * both["contrast"])

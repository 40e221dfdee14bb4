"""ODIS in the shared loop: ranks, resume, schedules, bad boxes, images of readers, validation, the command line."""

import json
import math

import numpy as np
import pytest
import torch
from scenes_with_classes import classed_scene
from tiny_odis_training import CROPS, main, odis_recipe, run_double, tiny_model, tiny_objective, tiny_source
from tiny_training import assert_same_training, learn_alone, log_rows, losses_and_weights
from two_ranks import assert_ranks_learn_the_joint_batch
from typer.testing import CliRunner

from ocl_bench.cards.names import get_card, get_task
from ocl_bench.cli import app
from ocl_bench.core.errors import UsageError
from ocl_bench.core.types import Instance, Prediction, Sample, Truth
from ocl_bench.data import open_data
from ocl_bench.data.scenes import salient
from ocl_bench.data.scenes.store import SceneStore, write_chunk
from ocl_bench.data.stand_ins.writers import find_writer
from ocl_bench.models.loading import get_model
from ocl_bench.training import data, run
from ocl_bench.training.checkpoint import load_checkpoint
from ocl_bench.training.data import ChunkedArray
from ocl_bench.training.loop import _optimizer, clip_each
from ocl_bench.training.neighbours import validate_neighbours
from ocl_bench.training.odis_images import BoxedReader, BoxedScenes, boxes_of
from ocl_bench.training.odis_objective import OdisOptions


def learn(out, **options):
    objective = options.pop("objective", None) or tiny_objective()
    model, recipe = options.pop("model", None) or tiny_model(), options.pop("recipe", odis_recipe())
    return learn_alone(out, model, objective, recipe, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The losses and weights of an uninterrupted training, with stochastic depth."""
    out = tmp_path_factory.mktemp("whole")
    learn(out, model=tiny_model(drop_path=0.3))
    return losses_and_weights(out)


def test_visits_that_are_cut_short_learn_the_same(tmp_path, whole):
    for _ in range(3):
        torch.rand(7)  # the global generator is elsewhere at each visit
        learn(tmp_path, minutes=0, model=tiny_model(drop_path=0.3))
    assert learn(tmp_path, model=tiny_model(drop_path=0.3)).finished
    assert_same_training(tmp_path, *whole)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's compiler looks at it
def test_a_compiled_training_learns_the_same(tmp_path, monkeypatch):
    """Traced as for a GPU, gradients too, without the compiler of C++: a mask that is changed in place cannot be."""
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: compiler(function, backend="aot_eager"))
    learn(tmp_path / "eager", recipe=odis_recipe(steps=2))
    learn(tmp_path / "compiled", recipe=odis_recipe(steps=2), compile_model=True)
    eager, compiled = (losses_and_weights(tmp_path / name)[0] for name in ("eager", "compiled"))
    assert compiled == pytest.approx(eager, rel=1e-5)


def test_repeated_images_show_other_objects_and_other_views():
    options = OdisOptions(kind="odis", crops=CROPS, repeat=2)
    once = tiny_objective(batch_size=2).batch(3)
    twice = tiny_objective(batch_size=4, options=options).batch(3)
    assert torch.equal(twice["image"], torch.cat([once["image"]] * 2)), "the same two images"
    assert torch.equal(twice["crops"][:2], once["crops"]) and torch.equal(twice["hidden"][:2], once["hidden"])
    for name in ("crops", "looks", "hidden"):
        assert not torch.equal(twice[name][:2], twice[name][2:]), name
    with pytest.raises(UsageError, match=r"'train\.objective\.repeat': 2 does not divide batch 3"):
        tiny_objective(batch_size=3, options=options)


def test_student_teacher_and_centres_all_learn(whole):
    fresh = tiny_model().state_dict()
    for part in (
        "student.backbone.cls_token",
        "student.backbone.masked_embed",
        "student.head.last_layer.weight_v",
        "teacher.backbone.cls_token",
        "centre_object",
        "centre_patch",
    ):
        assert not torch.equal(whole[1][part], fresh[part]), part


def test_two_gloo_ranks_learn_like_one_with_the_joint_batch(tmp_path):
    """One image of five has no box, so ranks have different shares of objects."""
    assert_ranks_learn_the_joint_batch(main, run_double, tmp_path)
    counts = [[row[name] for name in row if name.startswith("count_")] for row in log_rows(tmp_path / "one")]
    assert counts == [[row[name] for name in row if name.startswith("count_")] for row in log_rows(tmp_path / "two")]
    present = tiny_objective().batch(0)["present"][:, :2].all(1)
    assert any(
        len(set(tiny_objective().batch(step)["present"][:, :2].all(1).view(2, 2).sum(1).tolist())) > 1
        for step in range(6)
    ), present


def test_batches_are_a_function_of_seed_and_step():
    one, again, later = tiny_objective().batch(3), tiny_objective().batch(3), tiny_objective().batch(4)
    other = tiny_objective(seed=1).batch(3)
    assert all(len(rows) == 4 for rows in one.values())
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["crops"], later["crops"]) and not torch.equal(one["crops"], other["crops"])
    views = tiny_objective().views(one)
    half = tiny_objective().views({name: rows[2:] for name, rows in one.items()})
    torch.testing.assert_close(half.globals, views.globals[:, 2:])
    assert views.globals.shape == (2, 4, 3, 16, 16) and views.locals.shape == (2, 4, 3, 8, 8)
    assert views.objects.shape == (2, 4, 1, 16) and views.hidden.shape == (2, 4, 16) and views.present.shape == (4, 4)


def test_scenes_and_readers_give_the_same_views():
    """The tensors of padded scenes against Pillow's, for equal images and boxes."""
    scenes = tiny_objective()
    images, sizes = scenes.source.images.images[range(10)], scenes.source.images.sizes[range(10)].tolist()
    samples = []
    for number, (image, (height, width)) in enumerate(zip(images, sizes, strict=True)):
        rows = scenes.source.boxes[[number]][0]
        found = tuple(Instance(1, tuple(row), None, 1.0) for row in rows[~rows.isnan().any(1)].tolist())
        pixels = image.permute(1, 2, 0).numpy()[:height, :width]
        samples.append(Sample(str(number), pixels, Truth(np.zeros((height, width), np.int16), instances=found)))
    reader = tiny_objective(source=BoxedReader(FakeData(samples), boxes_of))
    one, two = scenes.batch(2), reader.batch(2)
    assert "globals" in two and "image" not in two
    for name in ("objects", "present", "hidden", "counts", "looks"):
        assert torch.equal(one[name], two[name]), name
    for ours, theirs in zip(scenes.views(one).globals, reader.views(two).globals, strict=True):
        torch.testing.assert_close(ours, theirs, atol=0.05, rtol=0)
    torch.testing.assert_close(scenes.views(one).locals, reader.views(two).locals, atol=0.05, rtol=0)


class FakeData:
    def __init__(self, samples):
        self.reader = samples

    def __len__(self):
        return len(self.reader)


def with_boxes(rows):
    """The tiny images, all with the same boxes."""
    plain = tiny_source()
    table = np.tile(np.array(rows, dtype=np.float32), (data.CHUNK, 1, 1))
    return BoxedScenes(plain.images, ChunkedArray((table,), len(plain)))


@pytest.mark.parametrize(
    ("rows", "counted"),
    [
        ([[16, 18, 4, 3]], "boxes_inverted"),
        ([[90, 90, 120, 120]], "boxes_left_out"),
        ([[4, 4, 4, 20]], "boxes_left_out"),
        ([[math.inf, 4, 8, 20]], "boxes_left_out"),
        ([[4, 4, 4.3, 20]], "boxes_thin"),
        ([[math.nan] * 4], "without_box"),
    ],
)
@pytest.mark.parametrize("flags", [{}, {"masked_attention": False}, {"object_from": "pool"}])
def test_bad_boxes_are_counted_and_harmless(tmp_path, rows, counted, flags):
    trained = learn(tmp_path, objective=tiny_objective(source=with_boxes(rows)), model=tiny_model(**flags))
    found = log_rows(tmp_path)
    assert trained.finished and all(math.isfinite(row["loss"]) for row in found)
    assert sum(row["count_images"] for row in found) == 24
    total = sum(row[f"count_{counted}"] for row in found)
    assert total == 24 if counted != "boxes_thin" else total > 12
    if counted in ("without_box", "boxes_left_out"):  # batches without any object: patches are learnt from
        assert all(row["loss_object"] == 0 and row["loss_patch"] > 0 for row in found)
        assert sum(row["count_without_box"] for row in found) == 24


def test_ibot_and_dino_see_no_boxes(tmp_path):
    options = tiny_objective().options.model_copy(update={"boxes": False})
    objective = tiny_objective(source=tiny_source(boxes=False), options=options)
    for name, flags in (("ibot", {"patch_weight": 1.0}), ("dino", {"patch_weight": 0.0})):
        model = tiny_model(layout="cls", object_weight=0.0, image_weight=1.0, **flags)
        learn(tmp_path / name, model=model, objective=objective)
        rows = log_rows(tmp_path / name)
        assert all(row["loss_image"] > 0 and "loss_object" not in row for row in rows)
        assert ("loss_patch" in rows[0]) == (name == "ibot")
        assert all("count_without_box" not in row and row["count_images"] == 4 for row in rows)


def test_views_of_ablations_differ_as_they_should():
    """Without object-aware crops, and with local views that always take part."""
    aware, options = tiny_objective(), tiny_objective().options
    crops = CROPS.model_copy(update={"object_aware": False})
    plain = tiny_objective(options=options.model_copy(update={"crops": crops}))
    always = tiny_objective(options=options.model_copy(update={"local_present": "always"}))
    seen = [sum(float(one.batch(step)["present"][:, :2].sum()) for step in range(20)) for one in (aware, plain)]
    assert seen[0] > seen[1]
    for step in range(5):
        one, two = aware.batch(step), always.batch(step)
        assert torch.equal(one["present"][:, :2], two["present"][:, :2])
        assert (two["present"][:, 2:] == (two["counts"][:, 1] == 0)[:, None]).all()
        assert (two["present"] >= one["present"]).all()
    wide = tiny_objective(options=options.model_copy(update={"margin": 1})).batch(0)
    assert (wide["objects"] >= aware.batch(0)["objects"]).all() and wide["objects"].sum() > aware.batch(0)[
        "objects"
    ].sum()


@pytest.mark.parametrize("locals_", [0, 3])
def test_any_number_of_local_views(tmp_path, locals_):
    crops = CROPS.model_copy(update={"locals": locals_})
    options = tiny_objective().options.model_copy(update={"crops": crops})
    learn(tmp_path, objective=tiny_objective(options=options), recipe=odis_recipe(steps=2))
    assert all(math.isfinite(row["loss"]) for row in log_rows(tmp_path))


def test_weight_decay_follows_its_schedule_and_spares_vectors(tmp_path):
    recipe = odis_recipe()
    learn(tmp_path, recipe=recipe)
    matrices, vectors = load_checkpoint(tmp_path / "last.pt").optimizer["param_groups"]
    last = 0.4 - 0.36 * 0.5 * (1 + math.cos(math.pi * 5 / 6))
    assert matrices["weight_decay"] == pytest.approx(last) and vectors["weight_decay"] == 0
    model = tiny_model()
    learnt = [p for p in model.parameters() if p.requires_grad]
    groups = _optimizer(recipe, learnt).param_groups
    assert all(p.ndim > 1 for p in groups[0]["params"]) and all(p.ndim == 1 for p in groups[1]["params"])
    assert sum(len(group["params"]) for group in groups) == len(learnt)
    with pytest.raises(UsageError, match=r"was trained with weight_decay_end = 0\.4"):
        learn(tmp_path, recipe=odis_recipe(weight_decay_end=0.5))


def test_fields_that_came_later_leave_older_checkpoints_valid():
    names = {"clip_each", "weight_decay_end", "decay"}
    assert names <= odis_recipe().identity.keys()
    assert not names & odis_recipe(clip_each=0.0, weight_decay_end=None, decay="all").identity.keys()


def test_each_gradient_is_clipped_by_itself():
    draw = torch.Generator().manual_seed(0)
    parameters = [torch.nn.Parameter(torch.zeros(n)) for n in (3, 4, 5, 6)]
    given = [torch.randn(3, generator=draw) * 10, torch.randn(4, generator=draw) / 10, torch.zeros(5)]
    for parameter, gradient in zip(parameters, given, strict=False):
        parameter.grad = gradient.clone()
    clip_each(parameters, 3.0)
    assert float(parameters[0].grad.norm()) == pytest.approx(3)
    torch.testing.assert_close(parameters[0].grad / 3, given[0] / given[0].norm(), atol=1e-6, rtol=1e-6)
    assert torch.equal(parameters[1].grad, given[1]) and not parameters[2].grad.any() and parameters[3].grad is None


def test_the_last_layer_is_frozen_at_first(tmp_path):
    model = tiny_model(freeze_last_layer=1.0)  # 10 images: steps 0, 1 and 2 begin before they are done
    fresh = model.student.head.last_layer.weight_v.detach().clone()
    recipe = odis_recipe(steps=3, weight_decay=0.0, weight_decay_end=0.0)
    learn(tmp_path / "short", model=model, recipe=recipe, objective=tiny_objective(steps=3))
    assert torch.equal(model.student.head.last_layer.weight_v, fresh)
    objective = tiny_objective()
    model = tiny_model(freeze_last_layer=1.0)
    learn(tmp_path / "long", model=model, objective=objective)
    assert not torch.equal(model.student.head.last_layer.weight_v, fresh)


def test_boxes_of_a_sample():
    labels = np.zeros((20, 30), np.int16)
    labels[2:6, 3:9], labels[10:20, 0:4], labels[0, 0] = 1, 4, -1
    image = np.zeros((20, 30, 3), np.uint8)
    assert boxes_of(0, Sample("a", image, Truth(labels))).tolist() == [[3, 2, 9, 6], [0, 10, 4, 20]]
    assert boxes_of(0, Sample("a", image, Truth(labels * 0))).shape == (0, 4)
    crowd = Instance(1, (0.0, 0.0, 9.0, 9.0), None, 81.0, crowd=True)
    one = Instance(1, (1.0, 2.0, 3.0, 4.0), None, 4.0)
    assert boxes_of(0, Sample("a", image, Truth(labels, instances=(crowd, one)))).tolist() == [[1, 2, 3, 4]]
    assert boxes_of(0, Sample("a", image, Truth(labels, instances=(crowd,)))).shape == (0, 4)


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match="sizes"):
        OdisOptions(kind="odis", crops={"sizes": 96})


class Knower:
    """Predicts the class of an image from its first pixel, or from the place of its boxes."""

    input_size = 32

    def predict(self, batch):
        value = batch.image[:, 0, 8, 8] if batch.boxes is None else torch.stack([one[0, 0] for one in batch.boxes]) / 32
        angle = value.cpu() * 3
        return Prediction(embedding=torch.stack([angle.cos(), angle.sin()], dim=1))


def labelled_samples(count, seed):
    draw, found = np.random.default_rng(seed), []
    for number in range(count):
        label, shade = int(draw.integers(4)), int(draw.integers(250))
        left = 60.0 * label + 20
        box = Instance(label, (left, 40.0, left + 30, 80.0), None, 1200.0)
        image = np.full((240, 240, 3), shade, np.uint8)
        image[40:80, int(left) : int(left) + 30] = 60 * label + 10
        found.append(Sample(str(number), image, Truth(np.zeros((240, 240), np.int16), instances=(box,), label=label)))
    return found


def test_validation_is_knn_without_boxes_and_with_each_use_of_them():
    bank, queries = labelled_samples(100, 0), labelled_samples(30, 1)
    rules = get_task("clevrtex").protocol
    numbers = validate_neighbours(Knower(), bank=bank, queries=queries, rules=rules, device="cpu", batch=7)
    assert numbers["knn_top1_boxes"] == 1.0 and 0 < numbers["knn_top1"] < 0.7 and 0.3 < numbers["spread"] < 1
    assert numbers["knn_top1_crop"] == 1.0 and numbers["knn_top1_blackout"] < 0.7  # the first pixel is in no box
    plain = [Sample(one.id, one.image, Truth(one.truth.labels)) for one in queries]
    assert validate_neighbours(Knower(), bank=[], queries=plain, rules=rules, device="cpu").keys() == {"spread"}
    assert validate_neighbours(Knower(), bank=[], queries=[], rules=rules, device="cpu") == {}


TRAIN = {"steps": 2, "batch": 4, "validate_limit": 8, "precision": "fp32"}


def salient_scene(number):
    draw = np.random.default_rng(number)
    height, width = salient.SHAPES[number % 5]
    box = (8.0, 10.0, 70.0, 80.0)
    other = (70.0, 10.0, 90.0, 50.0)
    image = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return salient.SalientScene(image, number % 16, ((number % 16, box), ((number + 5) % 16, other)))


@pytest.fixture
def cards(monkeypatch, tmp_path):
    """Small versions of the bundled cards, and hand-made scenes in a separate cache."""
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(data, "CHUNK", 16)
    for chunk in range(3):
        numbers = range(16 * chunk, 16 * chunk + 16)
        salient.write_chunk(
            salient.SalientStore(revision=2, split="train").folder / f"{chunk:05d}.npz",
            [salient_scene(n) for n in numbers],
        )
        for split in ("train", "val"):
            path = SceneStore(split=split).folder / f"{chunk:05d}.npz"
            write_chunk(path, [classed_scene(100 * (split == "val") + n) for n in numbers])

    def small(name):
        full = get_card(name)
        scenes = {**full.train["scenes"], "count": 24}
        objective = {**full.train["objective"], "crops": {**full.train["objective"]["crops"], **TINY_CROPS}}
        sizes = {"dim": 8, "depth": 1, "heads": 2, "hidden": 8, "bottleneck": 6, "out_dim": 12, "input_size": 32}
        train = {**full.train, **TRAIN, "scenes": scenes, "objective": objective}
        return full.model_copy(update={"options": {**full.options, **sizes, "patch": 8}, "train": train})

    monkeypatch.setattr(run, "get_card", small)
    return small


TINY_CROPS = {"size": 32, "local_size": 16}


def invoke(out, *arguments, model="odis", task="imagenet-knn"):
    command = ["train", "--model", model, "--task", task, "--device", "cpu", "--out", str(out)]
    result = CliRunner().invoke(app, [*command, "--json", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_repeat_that_does_not_divide_the_batch_is_refused_before_scenes_are_rendered(tmp_path, monkeypatch):
    monkeypatch.setattr("ocl_bench.training.objectives.images_of_scenes", lambda *_, **__: pytest.fail("rendered"))
    with pytest.raises(UsageError, match="3 does not divide batch 128"):
        run.train("odis", overrides={"objective.repeat": 3}, out=tmp_path, device="cpu", progress=False)


@pytest.mark.parametrize(
    "model", ["odis", "ibot", "odis-without-masked-attention", "odis-without-object-crops", "odis-pooling"]
)
def test_the_cards_train_on_scenes_and_evaluate(tmp_path, cards, model):
    record = invoke(tmp_path / "out", model=model)
    boxes = "" if model == "ibot" else ", boxes of all objects"
    assert record["data"] == f"24 embedded scenes of salient r2, train split{boxes}"
    assert record["supervision"] == ("none" if model == "ibot" else "boxes")
    modes = {f"val_knn_top1{mode}" for mode in ("", "_boxes", "_crop", "_blackout")}
    assert record["numbers"].keys() == modes | {"val_spread"}
    folders = sorted(path.name for path in (tmp_path / "cache" / "training").iterdir())
    assert folders == (["images"] if model == "ibot" else ["boxes", "images"])  # and no labels
    loaded = get_model(model, checkpoint=tmp_path / "out" / f"{model}.safetensors", options=cards(model).options)
    assert loaded.model.reads_boxes and not loaded.model.training


def test_same_steps_and_images_for_all_cards():
    """An ablation changes its own setting and nothing else."""
    whole = get_card("odis")
    changed = {
        "ibot": {"layout", "object_weight", "image_weight", "masked_attention", "boxes", "crops"},
        "odis-without-masked-attention": {"masked_attention"},
        "odis-without-object-crops": {"crops"},
        "odis-pooling": {"object_from", "masked_attention"},
    }
    for name, allowed in changed.items():
        other = get_card(name)
        for ours, theirs in ((whole.options, other.options), (whole.train["objective"], other.train["objective"])):
            assert {key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key)} <= allowed, name
        rest = [{k: v for k, v in card.train.items() if k != "objective"} for card in (whole, other)]
        assert rest[0] == rest[1] and whole.input == other.input


def test_the_controls_without_boxes_and_with_boxes_differ_in_nothing_else():
    objects, images = get_card("infonce-objects"), get_card("infonce-images")
    assert {key for key in objects.options if objects.options[key] != images.options[key]} == {
        "layout",
        "masked_attention",
    }
    pairs = objects.train, images.train
    assert {key for key in pairs[0] if pairs[0][key] != pairs[1][key]} == {"objective"}
    ours, theirs = (train["objective"] for train in pairs)
    assert {key for key in ours if ours[key] != theirs[key]} == {"boxes", "crops"}
    assert OdisOptions(**ours).crops.zoom == (1.0, 1.5) and OdisOptions(**theirs).crops.zoom is None
    assert objects.supervision == "boxes" and images.supervision == "none"


def test_scenes_with_stuff_are_learnt_from_too(tmp_path, cards):
    record = invoke(tmp_path / "out", "--set", "scenes.variant=things", "--set", "scenes.revision=1")
    assert record["data"].startswith("24 embedded scenes of things r1") and record["numbers"].keys() == {"val_spread"}
    boxes = np.load(tmp_path / "cache" / "training" / "boxes" / "things-r1-train" / "boxes-000000.npy")
    labels = classed_scene(3).objects
    rows, columns = np.nonzero(labels == 1)
    assert boxes[3, 0].tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert (~np.isnan(boxes[3]).any(1)).sum() == len(np.unique(labels[labels > 0]))


@pytest.mark.parametrize("model", ["odis", "ibot"])
def test_the_cards_train_on_the_images_of_a_reader(tmp_path, cards, model):
    store = salient.SalientStore(revision=2, split="train", count=40)
    find_writer("imagenet")(tmp_path / "root", "train", store, 0)
    record = invoke(tmp_path / "out", "--data-root", tmp_path / "root", model=model)
    assert record["data"].startswith("32 images of task imagenet-knn, train split, official official-")
    assert record["data"].endswith(", boxes of the data") == (model == "odis")
    assert {"val_knn_top1", "val_spread"} <= record["numbers"].keys()
    row = log_rows(tmp_path / "out")[0]
    assert (row.get("count_without_box") == 0) == (model == "odis")


def test_masks_give_boxes_and_so_does_a_table(tmp_path, cards):
    store = SceneStore(split="train", count=20)
    find_writer("coco")(tmp_path / "root", "train", store, 0)
    record = invoke(tmp_path / "masks", "--data-root", tmp_path / "root", task="coco-discovery")
    assert record["data"].startswith("12 images of task coco-discovery, train split, official")
    assert sum(row["count_without_box"] for row in log_rows(tmp_path / "masks")) == 0
    opened = open_data(get_task("coco-discovery"), data_root=tmp_path / "root", split="train", progress=False)
    rows = [
        {
            "image_id": one.id,
            "width": one.image.shape[1],
            "height": one.image.shape[0],
            "boxes": [[4, 4, 60, 80]] * (k < 3),
        }
        for k, one in enumerate(opened.reader)
    ]
    table = tmp_path / "boxes.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ("--data-root", tmp_path / "root", "--set", f"objective.boxes_file={table}")
    record = invoke(tmp_path / "table", *arguments, task="coco-discovery")
    assert record["data"].endswith(f", boxes of {table}")
    found = log_rows(tmp_path / "table")
    assert found[0]["count_images"] + found[1]["count_images"] == 8  # of 12 images, at most 3 have a box
    assert sum(row["count_without_box"] for row in found) >= 5
    table.write_text("".join(json.dumps({**row, "boxes": []}) + "\n" for row in rows))
    with pytest.raises(UsageError, match="have no box inside of the images of train"):
        run.train(
            "odis",
            "coco-discovery",
            data_root=tmp_path / "root",
            overrides={"objective.boxes_file": str(table)},
            out=tmp_path / "none",
            progress=False,
        )


def test_what_cannot_be_trained_is_refused(tmp_path, cards, monkeypatch):
    with pytest.raises(UsageError, match=r"objective.boxes_file': scenes have their own boxes"):
        run.train("odis", overrides={"objective.boxes_file": "boxes.jsonl"}, out=tmp_path / "out", progress=False)
    store = salient.SalientStore(revision=2, split="train", count=8)
    find_writer("imagenet")(tmp_path / "root", "train", store, 0)
    with pytest.raises(UsageError, match="split train has 8 samples, 8 are held out"):
        run.train("odis", data_root=tmp_path / "root", out=tmp_path / "out", progress=False)
    small = cards("ibot")
    seeing = small.model_copy(update={"train": cards("odis").train})
    monkeypatch.setattr(run, "get_card", lambda name: seeing)
    with pytest.raises(UsageError, match="the objective sees boxes; set `supervision: boxes`"):
        run.train("ibot", out=tmp_path / "out", progress=False)


def test_batched_views_show_the_same_objects_as_exact_ones():
    crops = CROPS.model_copy(update={"zoom": (1.0, 1.5), "local_blur": 0.0})
    looks = {"blur": (0.0, 0.0), "solarise": (0.0, 0.0), "hue": 0.0, "jitter": 0.0, "grey": 0.0}
    plain = OdisOptions(kind="odis", crops=crops, looks=looks)
    exact = tiny_objective(options=plain)
    batched = tiny_objective(options=plain.model_copy(update={"views": "batched"}))
    one, two = exact.batch(2), batched.batch(2)
    assert all(torch.equal(one[name], two[name]) for name in one)
    ours, theirs = batched.views(two), exact.views(one)
    assert float((ours.globals - theirs.globals).abs().mean()) < 0.25  # of pixels with deviation 1, of noise
    assert torch.equal(ours.objects, theirs.objects) and bool(ours.objects.any(-1)[one["present"][:, :2].T].all())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"looks": {"blur": [0.1, 0.0]}}, "batched has no blur"),
        ({"looks": {"blur": [0.0, 0.0], "solarise": [0.0, 0.2]}}, "no solarisation"),
    ],
)
def test_batched_views_refuse_what_they_do_not_do(changes, message):
    with pytest.raises(ValueError, match=message):
        OdisOptions(**{"kind": "odis", "views": "batched", **changes})


def test_odis_learns_with_what_is_in_no_paper(tmp_path):
    """Batch norm, Sinkhorn, squares around objects, batched views; and InfoNCE alone. Resumable like the others."""
    crops = CROPS.model_copy(update={"zoom": (1.0, 2.0), "locals": 0})
    looks = {"blur": (0.0, 0.0), "solarise": (0.0, 0.0)}
    options = OdisOptions(kind="odis", crops=crops, looks=looks, views="batched", momentum=0.9)
    flags = {"batch_norm": True, "assignment": "sinkhorn", "norm_last_layer": True}
    contrast = {"batch_norm": True, "object_weight": 0.0, "patch_weight": 0.0, "contrast_weight": 1.0}
    for name, model in (("odis", flags), ("contrast", contrast)):
        learn(tmp_path / name, objective=tiny_objective(options=options), model=tiny_model(**model))
        for _ in range(2):
            learn(tmp_path / "cut", objective=tiny_objective(options=options), model=tiny_model(**model), minutes=0)
        learn(tmp_path / "cut", objective=tiny_objective(options=options), model=tiny_model(**model))
        assert_same_training(tmp_path / "cut", *losses_and_weights(tmp_path / name))
        rows = log_rows(tmp_path / name)
        assert all(math.isfinite(row["loss"]) for row in rows) and ("loss_contrast" in rows[0]) == (name == "contrast")
        (tmp_path / "cut").rename(tmp_path / f"cut-{name}")

"""SlotCon in the shared loop: ranks, resume, bad input, images of readers, validation, the command line."""

import json

import numpy as np
import pytest
import torch
from scenes_with_classes import classed_scene
from tiny_slotcon_training import main, run_double, slotcon_recipe, tiny_model, tiny_objective
from tiny_training import (
    assert_visits_learn_the_same,
    learn_alone,
    log_rows,
    logged_losses,
)
from torch import nn
from two_ranks import assert_ranks_learn_the_joint_batch
from typer.testing import CliRunner

from ocl_bench.cards.names import get_card, get_task
from ocl_bench.cli import app
from ocl_bench.core.errors import UsageError
from ocl_bench.core.schedules import learning_rate
from ocl_bench.core.types import Prediction, Sample, Truth
from ocl_bench.data.scenes.store import SceneStore, write_chunk
from ocl_bench.data.stand_ins.writers import find_writer
from ocl_bench.metrics import semantic
from ocl_bench.models.loading import get_model
from ocl_bench.models.slotcon import group, presence
from ocl_bench.training import data, run
from ocl_bench.training.held_out import held_out_scenes
from ocl_bench.training.recipe import Recipe, SceneSelection, read_recipe
from ocl_bench.training.slotcon_objective import ReaderSource, SlotConOptions, validate_vocabulary


def learn(out, **options):
    objective = options.pop("objective", None) or tiny_objective()
    model, recipe = options.pop("model", None) or tiny_model(), options.pop("recipe", slotcon_recipe())
    return learn_alone(out, model, objective, recipe, **options)


def test_visits_that_are_cut_short_learn_the_same(tmp_path, whole):
    assert_visits_learn_the_same(tmp_path, learn, *whole)


def test_student_teacher_and_centre_all_learn(whole):
    fresh = tiny_model().state_dict()
    for part in ("student.encoder.conv1.weight", "student.prototypes", "teacher.prototypes", "centre"):
        assert not torch.equal(whole[1][part], fresh[part]), part
    assert whole[1]["teacher.encoder.bn1.num_batches_tracked"] == 12


def test_two_gloo_ranks_learn_like_one_with_the_joint_batch(tmp_path):
    """The ranks have different numbers of shared slots; the last assertion checks this."""
    assert_ranks_learn_the_joint_batch(main, run_double, tmp_path)
    for rank in range(2):
        gathered = torch.load(tmp_path / "two" / f"gathered{rank}.pt", weights_only=True)
        assert gathered.shape == (3, 2) and (gathered == 1).all()
    assert len(set(shared_slots_of_halves())) > 1


def shared_slots_of_halves():
    """Numbers of slots that the student's first view shares with the teacher's second, in the halves of a batch."""
    objective, model = tiny_objective(), tiny_model().train()
    views = objective.views(objective.batch(0))
    dots = []
    for network, view in zip((model.student, model.teacher), views, strict=True):
        dots.append(presence(group(network(view), network.prototypes, 0.07)[1]))
    shared = dots[0] & dots[1]
    return int(shared[:2].sum()), int(shared[2:].sum())


def test_batches_are_a_function_of_seed_and_step():
    one, again, later = tiny_objective().batch(3), tiny_objective().batch(3), tiny_objective().batch(4)
    other = tiny_objective(seed=1).batch(3)
    assert all(len(rows) == 4 for rows in one.values())
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["crops"], later["crops"]) and not torch.equal(one["crops"], other["crops"])
    first, second = tiny_objective().views(one)
    half = {name: rows[2:] for name, rows in one.items()}
    torch.testing.assert_close(tiny_objective().views(half)[1], second[2:])
    assert first.shape == (4, 3, 16, 16) and not torch.equal(first, second)


def test_scenes_and_readers_give_the_same_views():
    """The tensors of padded scenes against Pillow's, for equal images."""
    scenes = tiny_objective()
    images = [scenes.source.images.images[[i]][0].permute(1, 2, 0).numpy() for i in range(10)]
    cut = [image[:h, :w] for image, (h, w) in zip(images, scenes.source.images.sizes[range(10)].tolist(), strict=True)]
    reader = tiny_objective(source=ReaderSource(FakeData([Sample(str(i), im, None) for i, im in enumerate(cut)])))
    one, two = scenes.batch(2), reader.batch(2)
    assert "views" in two and "image" not in two
    for ours, theirs in zip(scenes.views(one), reader.views(two), strict=True):
        torch.testing.assert_close(ours, theirs, atol=0.05, rtol=0)  # one grey level of 255, normalised, and blurred


class FakeData:
    def __init__(self, samples):
        self.reader = samples

    def __len__(self):
        return len(self.reader)


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (2, 400)])
def test_images_smaller_than_the_crop_are_learnt_from(tmp_path, size):
    draw = np.random.default_rng(0)
    samples = [Sample(str(i), draw.integers(0, 256, (*size, 3), dtype=np.uint8), None) for i in range(4)]
    trained = learn(tmp_path, objective=tiny_objective(source=ReaderSource(FakeData(samples))))
    assert trained.finished and all(np.isfinite(value) for value in logged_losses(tmp_path).values())


def test_crops_without_overlap_are_counted_and_harmless(tmp_path):
    objective = tiny_objective()
    make = objective.batch

    def batch(step):
        inputs = make(step)
        inputs["apart"][:3] = True
        inputs["boxes"][:3, :, 2] = inputs["boxes"][:3, :, 0] - 0.1
        return inputs

    objective.batch = batch
    learn(tmp_path, objective=objective, recipe=slotcon_recipe(log_every=2))
    rows = log_rows(tmp_path)
    assert [row["count_apart"] for row in rows] == [3, 6, 6, 3]  # steps 0, 2, 4, 5
    assert all(np.isfinite(row["loss"]) for row in rows)


def test_a_batch_without_shared_slots_is_counted_and_finite(tmp_path):
    """The teacher has the student's two opposite prototypes in the other order and does not follow the student."""
    model = tiny_model(prototypes=2, use_group_loss=False)
    with torch.no_grad():
        model.student.prototypes[1] = -model.student.prototypes[0]
        model.teacher.prototypes.copy_(model.student.prototypes.flip(0))
        for network in (model.student, model.teacher):  # one direction for all pixels
            network.projector[-1].weight.zero_()
            network.projector[-1].bias.fill_(1.0)
    objective = tiny_objective(options=tiny_objective().options.model_copy(update={"momentum": 1.0}))
    learn(tmp_path, model=model, objective=objective)
    rows = log_rows(tmp_path)
    assert [row["count_without_slots"] for row in rows] == [2] * 6
    assert [row["loss"] for row in rows] == [0.0] * 6
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())


@pytest.mark.parametrize("flags", [{"use_slot_loss": False}, {"use_group_loss": False}])
def test_ablations_learn(tmp_path, flags):
    model = tiny_model(**flags)
    learn(tmp_path, model=model)
    rows = log_rows(tmp_path)
    left_out = "loss_slot" if "use_slot_loss" in flags else "loss_group"
    assert all(left_out not in row and np.isfinite(row["loss"]) for row in rows)


def test_the_schedule_of_the_paper_is_a_recipe():
    official = {0: 0.02, 1: 0.0596, 50: 2.0, 51: 1.99978, 200: 1e-6}  # 10 steps an epoch, 20 epochs, batch 512
    for step, rate in official.items():
        ours = learning_rate(step, 200, 2.0, warmup=50, start=0.01, floor=5e-7)
        assert ours == pytest.approx(rate, rel=1e-5)


def test_the_paper_sized_card_has_the_paper_s_recipe():
    """COCO: 231 steps an epoch, 5 of warm-up, 800 in all; rates of the official scheduler; no clipping."""
    recipe = read_recipe(get_card("slotcon-paper").train, "card")
    assert (recipe.steps, recipe.batch, recipe.warmup_steps) == (231 * 800, 512, 231 * 5)
    for step, rate in {0: 0.02, 231 * 5: 2.0, 231 * 800: 1e-6}.items():
        schedule = {"warmup": recipe.warmup_steps, "start": recipe.start, "floor": recipe.floor}
        assert learning_rate(step, recipe.steps, recipe.lr, **schedule) == pytest.approx(rate)
    assert (recipe.optimizer, recipe.weight_decay, recipe.clip) == ("lars", 1e-5, 0)
    options = SlotConOptions(**recipe.objective)
    assert options == SlotConOptions(kind="slotcon", images="reader")  # the other defaults are the paper's


def test_a_field_that_came_later_leaves_older_checkpoints_valid():
    assert "start" not in slotcon_recipe().model_copy(update={"start": 0.0}).identity
    assert slotcon_recipe().identity["start"] == 0.01


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match="hues"):
        SlotConOptions(kind="slotcon", looks={"hues": 0.1})


class Namer:
    """Prototypes that are the classes of a sample in another order."""

    input_size = 32

    def __init__(self, samples, prototypes=27):
        self.maps, self.prototypes = {sample.id: sample.truth.classes for sample in samples}, prototypes

    def predict(self, batch):
        maps = torch.stack([torch.from_numpy(self.maps[one].astype(np.int64)) for one in batch.ids])
        masks = nn.functional.one_hot((maps.clamp(min=0) + 5) % 27, self.prototypes).permute(0, 3, 1, 2).float()
        return Prediction(masks=masks, mask_source="prototypes")


def samples_with_classes(count):
    draw = np.random.default_rng(0)
    maps = [np.kron(draw.integers(0, 4, (4, 4)), np.ones((80, 80), int)).astype(np.int16) for _ in range(count)]
    return [
        Sample(str(i), np.zeros((320, 320, 3), np.uint8), Truth(np.zeros_like(one), classes=one))
        for i, one in enumerate(maps)
    ]


@pytest.mark.parametrize(("prototypes", "suffix"), [(27, ""), (40, "_majority")])
def test_validation_knows_right_names_in_any_order(prototypes, suffix):
    samples, rules = samples_with_classes(5), get_task("cocostuff-segmentation").protocol
    numbers = validate_vocabulary(Namer(samples, prototypes), samples=samples, rules=rules, device="cpu", batch=2)
    assert numbers == {f"miou_sem{suffix}": 1.0, f"pixel_acc{suffix}": 1.0, "prototypes": 4.0}


def test_validation_of_wrong_names():
    """Against the confusion matrix of the maps themselves, for a model that is wrong in places."""
    samples, rules = samples_with_classes(4), get_task("cocostuff-segmentation").protocol
    wrong = [Sample(s.id, s.image, Truth(s.truth.labels, classes=np.roll(s.truth.classes, 40, 0))) for s in samples]
    numbers = validate_vocabulary(Namer(wrong), samples=samples, rules=rules, device="cpu")
    matrix = sum(semantic.confusion(a.truth.classes, b.truth.classes, 27) for a, b in zip(samples, wrong, strict=True))
    assert numbers["miou_sem"] == pytest.approx(float(semantic.miou_sem(semantic.match_clusters(matrix))))
    assert 0.2 < numbers["miou_sem"] < 0.9


def test_without_class_maps_only_the_prototypes_are_counted():
    samples = [Sample(s.id, s.image, Truth(s.truth.labels)) for s in samples_with_classes(2)]
    known = samples_with_classes(2)
    rules = get_task("clevrtex").protocol
    assert validate_vocabulary(Namer(known), samples=samples, rules=rules, device="cpu") == {"prototypes": 4.0}


TRAIN = {"steps": 2, "batch": 4, "scenes": {"variant": "things", "count": 20}, "validate_limit": 4, "precision": "fp32"}


@pytest.fixture
def card(monkeypatch, tmp_path):
    """A small version of the bundled card, and hand-made scenes in a separate cache."""
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(data, "CHUNK", 16)
    for split in ("train", "val"):
        for chunk in range(2):
            path = SceneStore(split=split).folder / f"{chunk:05d}.npz"
            write_chunk(path, [classed_scene(100 * (split == "val") + 16 * chunk + k) for k in range(16)])
    full = get_card("slotcon")
    objective = {**full.train["objective"], "crop": 32}
    small = full.model_copy(
        update={
            "options": {**full.options, "widths": [4, 4, 8], "hidden": 8, "dim": 8, "input_size": 32},
            "train": {**full.train, **TRAIN, "objective": objective},
        }
    )
    monkeypatch.setattr(run, "get_card", lambda name: small)
    return small


def invoke(out, *arguments):
    command = ["train", "--model", "slotcon", "--task", "cocostuff-segmentation", "--device", "cpu", "--out", str(out)]
    result = CliRunner().invoke(app, [*command, "--json", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_card_trains_on_scenes_and_evaluates(tmp_path, card):
    record = invoke(tmp_path / "out")
    assert record["data"] == "20 embedded scenes of things r1, train split" and record["supervision"] == "none"
    assert {"val_miou_sem", "val_pixel_acc", "val_prototypes"} == record["numbers"].keys()
    loaded = get_model("slotcon", checkpoint=tmp_path / "out" / "slotcon.safetensors", options=card.options)
    assert loaded.card.supervision == "none" and not loaded.model.training
    folders = [path.name for path in (tmp_path / "cache" / "training").iterdir()]
    assert folders == ["images"]  # and no labels


def test_fields_with_a_flag_of_their_own_may_be_set_as_any_other(tmp_path, card):
    set_fields = [word for field in ("steps=2", "scenes.count=18") for word in ("--set", field)]
    recipe = invoke(tmp_path / "out", *set_fields)["recipe"]
    assert (recipe["steps"], recipe["scenes"]["count"]) == (2, 18)


@pytest.mark.parametrize("given", ["folder", "stand-in"])
def test_the_card_trains_on_the_images_of_a_reader(tmp_path, card, given):
    if given == "folder":
        store = SceneStore(split="train", count=20)
        find_writer("coco")(tmp_path / "root", "train", store, 0)
        trained = invoke(tmp_path / "out", "--data-root", tmp_path / "root")
        assert trained["data"].startswith("16 images of task cocostuff-segmentation, train split, official official-")
    else:
        task = get_task("cocostuff-segmentation")
        stand_in = task.data.stand_in.model_copy(update={"fit_samples": 20})
        task = task.model_copy(update={"data": task.data.model_copy(update={"stand_in": stand_in})})
        options = {"objective.images": "reader", "objective.split": "train"}
        trained = run.train("slotcon", task, overrides=options, out=tmp_path / "out", progress=False)
        assert trained["data"].startswith(
            "16 images of task cocostuff-segmentation, train split, embedded embedded-r1-"
        )
    assert trained["finished"] and "val_miou_sem" in trained["numbers"]
    with pytest.raises(UsageError, match="was trained with "):  # other images are another training
        run.train("slotcon", "cocostuff-segmentation", out=tmp_path / "out", progress=False)


def test_a_split_with_too_few_images_is_refused(tmp_path, card):
    find_writer("coco")(tmp_path / "root", "train", SceneStore(split="train", count=4), 0)
    with pytest.raises(UsageError, match="split train has 4 samples, 4 are held out"):
        run.train("slotcon", "cocostuff-segmentation", data_root=tmp_path / "root", out=tmp_path / "out")


def test_models_of_scenes_refuse_a_data_root(tmp_path):
    with pytest.raises(UsageError, match="trained on rendered scenes only"):
        run.train("encoder", data_root=tmp_path, out=tmp_path / "out", device="cpu")


def test_scenes_with_and_without_classes_are_padded(card):
    padded = data.padded_scenes(SceneSelection(variant="things", count=20), progress=False)
    for index in (0, 5, 19):
        image = classed_scene(index).image
        height, width = padded.sizes[[index]][0].tolist()
        assert image.shape == (height, width, 3)
        stored = padded.images[[index]][0].permute(1, 2, 0).numpy()
        assert (stored[:height, :width] == image).all() and not stored[height:].any() and not stored[:, width:].any()
    held_out = held_out_scenes(SceneSelection(variant="things", count=20), 3, progress=False)
    assert (held_out[2].image == classed_scene(102).image).all() and held_out[2].truth.classes.max() < 27


def test_the_card_names_the_task_that_validates(tmp_path, card):
    """The card's task validates, not clevrtex. The user can name another task and can still resume."""
    small = ["train", "--model", "slotcon", "--device", "cpu", "--json", "--out", str(tmp_path / "out")]
    record = json.loads(CliRunner().invoke(app, small).stdout)
    assert record["validation"]["task"] == record["recipe"]["task"] == "cocostuff-segmentation"
    assert "--task cocostuff-segmentation" in record["next"] and "val_miou_sem" in record["numbers"]
    again = run.train("slotcon", "ade20k-segmentation", out=tmp_path / "out", device="cpu", progress=False)
    assert again["validation"]["task"] == again["recipe"]["task"] == "ade20k-segmentation"
    assert again["sha256"] == record["sha256"]


def test_cards_without_a_task_are_validated_on_clevrtex():
    assert Recipe(steps=1).task == "clevrtex"
    assert all(
        get_task(get_card(name).train["task"]).family == "segmentation"
        for name in ("slotcon", "slotcon-without-slot-loss", "slotcon-without-group-loss")
    )

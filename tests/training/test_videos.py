"""SlotContrast and SlotMatch in the shared loop: resume, ranks, teacher, ablations, schedule, the command line."""

import json

import numpy as np
import pytest
import torch
from places import PARITY
from safetensors.torch import load_file
from tiny_training import (
    assert_visits_learn_the_same,
    learn_alone,
    log_rows,
    logged_losses,
)
from tiny_video_training import (
    SMALL,
    TEACHER,
    main,
    run_double,
    tiny_features,
    tiny_objective,
    tiny_student,
    tiny_teacher,
    video_recipe,
)
from two_ranks import assert_ranks_learn_the_joint_batch
from typer.testing import CliRunner

from ocl_bench.cards.names import get_card
from ocl_bench.cli import app
from ocl_bench.core.schedules import learning_rate
from ocl_bench.data.scenes.videos import RenderedVideo, VideoStore, write_video
from ocl_bench.models.encoder import Encoder
from ocl_bench.models.loading import get_model
from ocl_bench.training import fit, run
from ocl_bench.training.checkpoint import export_weights
from ocl_bench.training.clips import CachedVideos
from ocl_bench.training.ranks import start_ranks
from ocl_bench.training.recipe import read_recipe


def learn(out, model=None, objective=None, **options):
    recipe = options.pop("recipe", video_recipe())
    objective = objective or tiny_objective(teacher=tiny_teacher().eval())
    model = model or tiny_student()
    return learn_alone(out, model, objective, recipe, **options)


def test_visits_that_are_cut_short_learn_the_same(tmp_path, whole):
    assert_visits_learn_the_same(tmp_path, learn, *whole)


def test_all_but_the_encoder_learns_and_the_teacher_is_no_part_of_it(whole):
    fresh = tiny_student().state_dict()
    assert whole[1].keys() == fresh.keys()
    same = {name for name, tensor in fresh.items() if torch.equal(tensor, whole[1][name])}
    assert {name for name in fresh if name.startswith("encoder.")} == same


def test_two_gloo_ranks_learn_like_one_with_the_joint_batch(tmp_path):
    assert_ranks_learn_the_joint_batch(main, run_double, tmp_path)


def test_batches_are_a_function_of_seed_and_step():
    one, again, later = (tiny_objective().batch(step) for step in (3, 3, 4))
    assert one.keys() == {"features", "teacher_features", "padded"}
    assert all(torch.equal(one[name], again[name]) and len(one[name]) == 4 for name in one)
    assert not torch.equal(one["features"], later["features"])
    other = tiny_objective()
    other.seed = 1
    assert not torch.equal(one["features"], other.batch(3)["features"])


def test_clips_of_all_videos_as_they_are_and_mirrored_are_seen():
    objective, seen = tiny_objective(), set()
    videos = objective.source.features
    flat = {
        (kind, index, start): getattr(videos, kind)[index][start]
        for kind in ("plain", "mirrored")
        for index in range(6)
        for start in range(len(videos.plain[index]))
    }
    for step in range(40):
        for first in objective.batch(step)["features"][:, 0].numpy():
            seen |= {key for key, value in flat.items() if np.array_equal(value, first)}
    starts = {(kind, index, start) for kind, index, start in flat if start % 3 == 0}
    whole_pieces = {key for key in starts if key[2] + 3 <= len(videos.plain[key[1]])}
    assert seen == whole_pieces, "every non-overlapping piece, and no remainder"
    still = tiny_objective(flip=False)
    firsts = np.concatenate([still.batch(step)["features"][:, 0].numpy() for step in range(10)])
    assert not any(np.array_equal(first, flat[key]) for first in firsts for key in flat if key[0] == "mirrored")


def test_teacher_and_student_see_the_same_clips(tmp_path):
    """A student that is its own teacher has nothing to learn from it."""
    student = tiny_student(teacher_feature_dim=None).double()
    teacher = tiny_student(teacher_feature_dim=None).double().eval()
    features = tiny_features(6)
    objective = tiny_objective(teacher=teacher)
    objective.source = CachedVideos(features, features, "one encoder")
    terms = objective.loss(student, objective.batch(0), 0.0)
    assert float(terms["distillation"]) == pytest.approx(0, abs=1e-12)
    assert all(p.grad is None for p in teacher.parameters())
    other = tiny_objective(teacher=tiny_teacher().eval())
    assert float(other.loss(student, other.batch(0), 0.0)["distillation"]) > 0.1


def test_videos_shorter_than_a_clip_are_padded_and_counted(tmp_path):
    objective = tiny_objective(batch=6)
    objective.source = CachedVideos(tiny_features(6, (1, 2, 3, 7, 1, 5)), None, "short")
    model = tiny_student(distillation_weight=0.0, initial_slots="fresh")
    learn(tmp_path, model, objective, recipe=video_recipe(batch=6, steps=2))
    rows = log_rows(tmp_path)
    assert [(row["count_clips"], row["count_padded"]) for row in rows] == [(6, 3), (6, 3)]
    batch = objective.batch(0)
    short = batch["features"][batch["padded"]]
    assert torch.equal(short[:, 1], short[:, 2]), "the last frame is repeated"
    assert all(np.isfinite(row["loss"]) for row in rows)


def test_single_frames_train_without_contrast(tmp_path):
    source = CachedVideos(tiny_features(6, (1,) * 6), None, "images")
    objective = tiny_objective()
    objective.source, objective.options = source, objective.options.model_copy(update={"clip": 1})
    learn(tmp_path, tiny_student(distillation_weight=0.0, initial_slots="fresh"), objective)
    rows = log_rows(tmp_path)
    assert all(row["loss_contrast"] == 0 and row["count_padded"] == 0 for row in rows)
    assert rows[-1]["loss"] != rows[0]["loss"]


@pytest.mark.parametrize(
    ("changes", "terms"),
    [
        ({"distillation_weight": 0.0, "initial_slots": "fresh"}, set()),
        ({}, {"loss_distillation"}),
        (
            {"feature_weight": 1.0, "mask_weight": 1.0},
            {"loss_distillation", "loss_feature_distillation", "loss_mask_distillation"},
        ),
    ],
)
def test_ablations_learn(tmp_path, changes, terms):
    student = tiny_student(**changes)
    teacher = tiny_teacher().eval() if student.needs_teacher else None
    learn(tmp_path, student, tiny_objective(teacher=teacher))
    row = log_rows(tmp_path)[0]
    names = {name for name in row if name.startswith("loss_")}
    assert names == terms | {"loss_reconstruction", "loss_contrast"}


def test_bfloat16_learns_nearly_the_same(tmp_path, whole):
    model, objective = tiny_student(), tiny_objective(teacher=tiny_teacher().eval())
    ranks = start_ranks("cpu", "bf16")
    fit(model, objective, video_recipe(precision="bf16"), seed=0, out=tmp_path, ranks=ranks, progress=False)
    losses = logged_losses(tmp_path)
    assert losses != whole[0] and losses == pytest.approx(whole[0], abs=0.05)


def test_a_compiled_training_calls_the_compiled_loss(tmp_path, whole, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda loss: compiled.append(loss) or loss)
    learn(tmp_path, compile_model=True)
    assert len(compiled) == 1 and logged_losses(tmp_path) == whole[0]


def test_the_schedule_is_the_official_one():
    case = load_file(PARITY / "slotcontrast_lr_schedule.safetensors")
    for step, factor in zip(case["in.step"].tolist(), case["out.factor"].tolist(), strict=True):
        ours = learning_rate(step, 100_000, 1.0, warmup=2500, schedule="exponential", floor=0.5)
        assert ours == pytest.approx(factor, rel=1e-12)


VIDEOS = ["slotcontrast", "slotcontrast-without-contrast", "slotmatch", "slotmatch-without-distillation"]
VIDEOS += ["slotmatch-extra-losses"]


@pytest.mark.parametrize("name", VIDEOS)
def test_embedded_cards_share_one_recipe(name):
    """Only encoder, teacher and weights differ: controls are trained like the method."""
    recipe, base = (read_recipe(get_card(one).train, one) for one in (name, "slotcontrast"))
    assert recipe.model_copy(update={"objective": {}}) == base.model_copy(update={"objective": {}})
    assert (recipe.schedule, recipe.floor, recipe.optimizer) == ("cosine", 0.02, "adam")
    large = name.startswith("slotcontrast")
    assert recipe.objective["encoder"] == ("encoder-segments-large" if large else "encoder-segments")
    options, theirs = get_card(name).options, get_card("slotcontrast").options
    for field in ("slots", "iterations", "first_iterations", "slot_dim", "hidden", "decoder_layers", "attention_prior"):
        assert options[field] == theirs[field]


def test_both_encoders_come_from_one_recipe():
    """The large one is one round further: its segments are those of the small one."""
    small, large = get_card("encoder-segments"), get_card("encoder-segments-large")
    again = {**small.train, "objective": {**small.train["objective"], "encoder": "encoder-segments"}}
    assert again == large.train and large.supervision == "none"
    sizes = [sum(p.numel() for p in Encoder(**card.options).parameters()) for card in (small, large)]
    assert 2.5 < sizes[1] / sizes[0] < 4
    assert Encoder(**small.options).receptive_field == Encoder(**large.options).receptive_field


TRAIN = {"steps": 2, "batch": 2, "validate_limit": 2, "log_every": 1, "precision": "fp32"}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Hand-made rendered videos in a cache, encoders, and small cards by name."""
    out = tmp_path_factory.mktemp("videos")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OCL_BENCH_CACHE", str(out / "cache"))
        for split, first in (("train", 0), ("val", 50)):
            for index in range(4):
                write_video(VideoStore(split=split).folder / f"{index:05d}.npz", square_video(first + index))
        cards = {}
        for name, sizes in (("slotcontrast", TEACHER), ("slotmatch", {**SMALL, "teacher_feature_dim": 10})):
            full = get_card(name)
            torch.manual_seed(1)
            encoder = out / f"encoder-of-{name}.safetensors"
            export_weights(Encoder(sizes["width"], sizes["dim"], sizes["blocks"]), encoder)
            small = full.model_copy(update={"options": {**full.options, **sizes, "input_size": 128}})
            scenes = {**full.train["scenes"], "count": 4}
            objective = {**full.train["objective"], "encoder_checkpoint": str(encoder)}
            if "teacher" in objective:
                objective["teacher_checkpoint"] = str(out / "teacher.safetensors")
                export_weights(tiny_teacher(input_size=128), out / "teacher.safetensors")
            cards[name] = small.model_copy(
                update={"train": {**full.train, **TRAIN, "scenes": scenes, "objective": objective}}
            )
        cards["dias"] = model_of_images(cards["slotcontrast"].train)
        yield out, cards


def model_of_images(videos):
    """A small DIAS that learns from the frames of the videos, its slots saying where they are."""
    full = get_card("dias-label-free")
    sizes = {name: TEACHER[name] for name in ("width", "dim", "blocks")} | {"decoder_heads": 2, "positions": True}
    encoder = {name: videos["objective"][name] for name in ("encoder", "encoder_checkpoint")}
    train = {**full.train, **TRAIN, "task": "movi-c", "scenes": videos["scenes"], "options": {}}
    train["objective"] = {**full.train["objective"], **encoder}
    return full.model_copy(update={"options": {**full.options, **sizes, "slots": 4}, "train": train})


def square_video(number, frames=3):
    """A square that moves to the right over noise."""
    draw = np.random.default_rng(number)
    labels = np.zeros((frames, 128, 128), np.uint8)
    for t in range(frames):
        labels[t, 30:70, 10 + 8 * t : 50 + 8 * t] = 1
    images = draw.integers(0, 90, (frames, 128, 128, 3), dtype=np.uint8)
    images[labels == 1] += 120
    return RenderedVideo(images, labels, (1,))


@pytest.fixture
def trained(places, monkeypatch):
    """A function that trains a small card by the command line and returns its record."""
    out, cards = places
    monkeypatch.setenv("OCL_BENCH_CACHE", str(out / "cache"))
    monkeypatch.setattr(run, "get_card", cards.__getitem__)

    def of_card(name, options=None, **keywords):
        if name.startswith("encoder"):
            sizes = SMALL if name == "encoder-segments" else TEACHER
            options = {field: sizes[field] for field in ("width", "dim", "blocks")}
        elif name in cards:
            options = cards[name].options
        return get_model(name, options=options, **keywords)

    monkeypatch.setattr("ocl_bench.training.objectives.get_model", of_card)

    def invoke(name, *arguments, code=0):
        folder = out / f"{name}{len(list(out.iterdir()))}"
        command = ["train", "--model", name, "--device", "cpu", "--out", str(folder), "--json", *map(str, arguments)]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == code, result.output
        return result.output if code else (folder, json.loads(result.stdout))

    return invoke


def test_teacher_and_student_train_on_rendered_videos(places, trained):
    out, cards = places
    folder, record = trained("slotcontrast")
    assert record["data"] == "4 embedded videos of motion r1, train split"
    assert {"val_mbo_video", "val_fg_ari_video"} <= record["numbers"].keys()
    assert record["validation"]["task"] == "movi-c" and "--task movi-c" in record["next"]
    weights = folder / "slotcontrast.safetensors"
    teacher = get_model("slotcontrast", checkpoint=weights, options=cards["slotcontrast"].options).model
    student_folder, _ = trained("slotmatch", "--set", f"objective.teacher_checkpoint={weights}")
    student = load_file(student_folder / "slotmatch.safetensors")
    apart = (student["initial_slots"].float() - teacher.initial_slots).abs().max()
    assert 0 < apart < 0.01, "begins with the teacher's slots and learns"
    kept = sorted(path.name for path in (out / "cache" / "training" / "video-features").iterdir())
    assert len(kept) == 2, "of two encoders, nothing else"


def test_models_of_images_train_on_the_frames_of_rendered_videos(places, trained):
    _, cards = places
    folder, record = trained("dias")
    assert record["data"] == "4 embedded videos of motion r1, train split"
    assert {"val_mbo_video", "val_mbo_frame"} <= record["numbers"].keys()
    weights = load_file(folder / "dias-label-free.safetensors")
    assert weights["place.weight"].shape == (TEACHER["dim"], 14)
    for name, tensor in load_file(cards["dias"].train["objective"]["encoder_checkpoint"]).items():
        assert torch.equal(weights[f"encoder.{name}"], tensor), "the encoder is frozen"


OWN_WEIGHTS = ["--set", 'objective.teacher_checkpoint=""']


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("slotmatch", ["--set", 'objective.teacher=""'], "objective.teacher' is empty"),
        ("slotcontrast", ["--set", "objective.teacher=slotcontrast"], "only a SlotMatch has one"),
        ("slotmatch", [*OWN_WEIGHTS, "--set", "objective.teacher=slotcon"], "slotcon is not a SlotContrast"),
        ("slotmatch", ["--option", "slots=4"], "option slots: the teacher has 3, the student expects 4"),
        ("slotmatch", ["--option", "slot_dim=4"], "option teacher_slot_dim: the teacher has 8, the student expects 4"),
        ("slotmatch", ["--option", "input_size=64"], "sees 128 pixels a side, the student 64"),
        ("slotmatch", [*OWN_WEIGHTS, "--set", "objective.teacher=grid"], "no weights of grid are bundled; train it"),
        (
            "slotcontrast",
            ["--option", "width=16"],
            "its encoder does not accept the weights of card encoder-segments-large",
        ),
        ("slotcontrast", ["--set", "scenes.variant=full"], "does not move; use one of motion, collisions"),
        ("slotcontrast", ["--task", "clevrtex"], "is validated on videos; choose a video task"),
        ("dias", ["--task", "clevrtex"], "the scenes are videos; choose a video task to validate on"),
        ("slotcontrast", ["--set", "objective.frames=3"], "train.objective.frames"),
        ("slotcontrast", ["--set", "schedule=linear"], "train.schedule"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(trained, name, arguments, expected):
    assert expected in " ".join(trained(name, *arguments, code=2).split())

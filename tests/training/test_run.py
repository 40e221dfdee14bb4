"""`train` from card to weights, through the command line."""

import json
import shlex
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from ocl_bench.cards.names import get_card
from ocl_bench.cli import app
from ocl_bench.core.errors import UsageError
from ocl_bench.core.locks import locked
from ocl_bench.models.loading import get_model
from ocl_bench.training import data, objectives, run, validation
from ocl_bench.training.checkpoint import file_sha256
from ocl_bench.training.follow_up import next_command
from ocl_bench.training.recipe import SceneSelection

ENCODER_OPTIONS = {"width": 8, "dim": 8, "blocks": [1]}
DIAS_OPTIONS = {**ENCODER_OPTIONS, "slots": 3, "slot_dim": 8, "decoder_layers": 1, "decoder_heads": 2}
TRAIN = {"steps": 3, "batch": 2, "scenes": {"count": 4}, "validate_limit": 2, "log_every": 1, "precision": "fp32"}


@pytest.fixture(scope="module")
def cards():
    """Small cards of the encoder and of dias, by name."""
    encoder, dias = get_card("encoder"), get_card("dias")
    boxes = {"supervision": "boxes", "train": {**TRAIN, "objective": {"kind": "boxes", "anchors": 4}}}
    return {
        "encoder": encoder.model_copy(update={"options": ENCODER_OPTIONS, **boxes}),
        "dias": dias.model_copy(
            update={"options": {**dias.options, **DIAS_OPTIONS}, "train": {**TRAIN, "objective": {"kind": "slots"}}}
        ),
    }


def make_small(patch, cache, cards):
    patch.setenv("OCL_BENCH_CACHE", str(cache))
    patch.setattr(data, "CHUNK", 4)
    patch.setattr(objectives, "training_scenes", partial(data.training_scenes, workers=1))
    patch.setattr(run, "get_card", cards.__getitem__)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, cards):
    """An encoder and a dias trained on its features, by the command line; returns the folder and what was printed."""
    out = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch, out / "cache", cards)
        small_encoder = partial(get_model, options=ENCODER_OPTIONS)
        patch.setattr(objectives, "get_model", small_encoder)
        encoder = invoke("encoder", "--out", out / "encoder", "--device", "cpu", "--log", "tensorboard")
        checkpoint = f"objective.encoder_checkpoint={out / 'encoder' / 'encoder.safetensors'}"
        dias = invoke("dias", "--out", out / "dias", "--set", checkpoint, "--seed", 2, "--device", "cpu", "--json")
    return out, encoder, dias


def invoke(model, *arguments):
    result = CliRunner().invoke(app, ["train", "--model", model, *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_trained_weights_load_as_the_model_that_was_validated(trained):
    out, _, printed = trained
    record = json.loads(printed)
    assert record["sha256"] == file_sha256(out / "dias" / "dias.safetensors")
    assert (record["steps"], record["seed"], record["finished"]) == (3, 2, True)
    assert {"val_mbo_fg", "val_ari", "val_fg_ari"} <= record["numbers"].keys()
    model = get_model("dias", checkpoint=out / "dias" / "dias.safetensors", options=DIAS_OPTIONS).model
    encoder = get_model("encoder", checkpoint=out / "encoder" / "encoder.safetensors", options=ENCODER_OPTIONS).model
    for name, tensor in encoder.state_dict().items():
        assert (model.encoder.state_dict()[name] == tensor).all()
    again = validation.validate_masks(model, task=run.get_task("clevrtex"), limit=2, device="cpu")
    assert again["mbo_fg"] == pytest.approx(record["numbers"]["val_mbo_fg"], abs=5e-3)  # float16 weights


def test_a_training_leaves_record_curves_and_the_next_command(trained):
    out, printed, _ = trained
    names = {path.name for path in (out / "encoder").iterdir()}
    assert names == {"last.pt", "log.jsonl", "encoder.safetensors", "training.json", "curves.png", "tensorboard"}
    record = json.loads((out / "encoder" / "training.json").read_text())
    assert record["supervision"] == "boxes"
    assert record["recipe"]["scenes"]["count"] == 4 and record["machine"] and record["commit"] is not None
    assert "fps_mbo_fg" in printed and "next: ocl-bench train --model encoder-segments" in printed


@pytest.mark.parametrize(
    ("encoder", "following"),
    [
        ("encoder-boxes", "--model dias --task clevrtex"),
        ("encoder", "--model encoder-segments --task clevrtex"),
        ("encoder-segments", "--model dias-label-free --task clevrtex"),
        ("encoder-segments-large", "--model slotcontrast"),
    ],
)
def test_an_encoder_is_followed_by_a_model_that_uses_it(encoder, following):
    told = next_command(get_card(encoder), "clevrtex", Path("a b.safetensors"), {})
    assert told == f"ocl-bench train {following} --set 'objective.encoder_checkpoint=a b.safetensors'"
    other = get_card(encoder).model_copy(update={"name": "mine"})
    assert "--model dias --task clevrtex --set objective.encoder=mine " in next_command(
        other, "clevrtex", Path("a"), {}
    )


def test_what_was_asked_for_is_asked_for_again(tmp_path, cards, monkeypatch):
    """The command that a stopped visit prints continues the same training, also with changed options."""
    make_small(monkeypatch, tmp_path / "cache", cards)
    asked = [
        "--option",
        "dim=12",
        "--set",
        "lr=0.003",
        "--set",
        "objective.jitter=0.1",
        "--steps",
        "2",
        "--scenes",
        "4",
    ]
    first = json.loads(invoke("encoder", *asked, "--out", tmp_path / "a b", "--minutes", "0", "--json"))
    assert first["steps"] == 1 and not first["finished"]
    second = json.loads(invoke(*shlex.split(first["next"])[3:], "--json"))
    assert second["finished"] and second["recipe"] == first["recipe"] and second["options"] == first["options"]


def test_a_tracker_gets_the_numbers_of_the_log(trained):
    """Without --log there are no files of trackers."""
    (file,) = trained[0].rglob("*tfevents*")
    assert file.parent == trained[0] / "encoder/tensorboard/encoder-seed0"
    found = EventAccumulator(str(file.parent)).Reload()
    rows = [json.loads(line) for line in (trained[0] / "encoder/log.jsonl").read_text().splitlines()]
    for name in ("loss", "lr"):
        logged = [(row["step"], row[name]) for row in rows if name in row]
        assert [one.step for one in found.Scalars(name)] == [step for step, _ in logged]
        assert [one.value for one in found.Scalars(name)] == pytest.approx([value for _, value in logged])
    (last,) = [row for row in rows if "val" in row]
    for name, value in last["val"].items():
        assert [(one.step, one.value) for one in found.Scalars(f"val_{name}")] == [(3, pytest.approx(value))]
        assert found.Scalars(f"final/val_{name}")[0].value == pytest.approx(value, abs=1e-4)


def test_features_were_cached_plain_and_mirrored(trained):
    folders = sorted(path.name for path in (trained[0] / "cache" / "training" / "features").glob("*/*"))
    assert folders == ["full-r1-train", "full-r1-train-flipped"]


def test_boxes_without_saying_so_are_refused(cards, monkeypatch):
    card = cards["encoder"].model_copy(update={"supervision": "none"})
    monkeypatch.setattr(run, "get_card", lambda name: card)
    monkeypatch.setattr(objectives, "training_scenes", lambda scenes, progress: None)
    with pytest.raises(UsageError, match="set `supervision: boxes`"):
        run.train("encoder", device="cpu", progress=False)


@pytest.mark.parametrize(
    ("model", "encoder", "told"),
    [
        ("dias-label-free", "encoder-boxes", "encoder-boxes learnt from boxes, but card dias-label-free declares"),
        ("slotcontrast", "encoder-boxes", "encoder-boxes learnt from boxes, but card slotcontrast declares"),
        ("encoder-segments", "encoder-boxes", "encoder-boxes learnt from boxes, but card encoder-segments declares"),
        ("encoder-segments", "dias-label-free", "dias-label-free is no encoder of tokens"),
    ],
)
def test_an_encoder_that_does_not_fit_the_card_is_refused(model, encoder, told, monkeypatch):
    monkeypatch.setattr(objectives, "training_scenes", lambda scenes, progress: None)
    with pytest.raises(UsageError, match=told):
        run.train(model, device="cpu", progress=False, overrides={"objective.encoder": encoder})


@pytest.mark.parametrize(("minutes", "left"), [(1.0, 0.9), (0.05, 0.0), (None, None)])
def test_minutes_count_the_preparation_of_the_data(minutes, left, cards, tmp_path, monkeypatch):
    class ReachedFit(Exception):
        pass

    def fit(*arguments, minutes, **rest):
        raise ReachedFit(minutes)

    clock = iter([100.0, 106.0])
    monkeypatch.setattr(run, "get_card", cards.__getitem__)
    monkeypatch.setattr(run, "build_objective", lambda *arguments, **rest: None)
    monkeypatch.setattr(run, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(run, "fit", fit)
    with pytest.raises(ReachedFit) as reached:
        run.train("encoder", device="cpu", out=tmp_path, minutes=minutes, progress=False)
    assert reached.value.args[0] == pytest.approx(left)


def test_a_second_training_with_the_same_out_is_refused(cards, tmp_path):
    with locked(tmp_path / ".lock", ""), pytest.raises(UsageError, match="another training writes there"):
        run.train("encoder", device="cpu", out=tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_fresh_weights_depend_on_the_seed_only(cards):
    first, again, other = (run.build_untrained(cards["dias"], seed) for seed in (0, 0, 1))
    same = [(a == b).all() for a, b in zip(first.parameters(), again.parameters(), strict=True)]
    assert all(same)
    assert not (first.project[1].weight == other.project[1].weight).all()


@pytest.mark.parametrize(
    ("model", "arguments", "told"),
    [
        ("grid", [], "no training recipe"),
        ("diass", [], "did you mean dias"),
        ("dias", ["--set", "lr=0"], "train.lr"),
        ("dias", ["--world-size", "2"], "--world-size 2"),
        ("dias", ["--option", "colour=1"], "colour"),
    ],
)
def test_wrong_commands_are_one_line_and_exit_2(model, arguments, told, monkeypatch, cards):
    monkeypatch.setattr(run, "get_card", lambda name: cards.get(name) or get_card(name))
    result = CliRunner().invoke(app, ["train", "--model", model, "--device", "cpu", *arguments])
    assert result.exit_code == 2
    assert told in result.stderr and result.stderr.count("\n") == 1


def test_scenes_of_an_evaluation_split_cannot_be_asked_for():
    with pytest.raises(ValueError, match="split"):
        SceneSelection(split="test")

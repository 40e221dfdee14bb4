"""What boards say of a model: from its result, from the card of the same checkpoint, or nothing."""

from __future__ import annotations

from typing import Any

import pytest
from results_for_boards import TASK, image_values, write

from ocl_bench.cards.names import CARDS, get_card
from ocl_bench.results.record import FitSection, Result
from ocl_bench.tables.leaderboard.facts import NOT_RECORDED, Facts, common_facts, facts_of, fit_text

DIAS = get_card("dias")


@pytest.fixture
def result(tmp_path: Any) -> Result:
    return write(
        tmp_path,
        "dias",
        image_values(0.5),
        seed=0,
        model__options=dict(DIAS.options),
        model__checkpoint_sha256=DIAS.sha256,
        model__parameters=292736,
        cost__images_per_second=12.345,
        setup__device="cuda",
    )


def changed(result: Result, **changes: Any) -> Result:
    return result.model_copy(update={"model": result.model.model_copy(update=changes)})


def test_the_card_of_the_same_checkpoint_tells_how_it_was_trained(result: Result) -> None:
    facts, training = facts_of(result, TASK), DIAS.training
    assert training is not None and training.steps == 1000 and DIAS.backbone and DIAS.pretraining
    assert (facts.backbone, facts.pretraining) == (DIAS.backbone, DIAS.pretraining)
    assert (facts.trained_on, facts.training_steps, facts.training_data) == ("cpu", "1000", training.data)
    assert (facts.slots, facts.input_size, facts.parameters) == ("40", "128", "292736")
    assert (facts.images_per_second, facts.device, facts.checkpoint) == ("12.3", "cuda", DIAS.sha256)


def test_another_checkpoint_of_the_card_has_no_training_that_anybody_recorded(result: Result) -> None:
    facts = facts_of(changed(result, checkpoint_sha256="a" * 64), TASK)
    assert facts.backbone == DIAS.backbone
    assert facts.pretraining == facts.trained_on == facts.training_steps == facts.training_data == ""


def test_another_network_has_no_backbone_that_anybody_recorded(result: Result) -> None:
    facts = facts_of(changed(result, options={**DIAS.options, "width": 96, "slots": 7}), TASK)
    assert facts.backbone == "" and facts.slots == "7"


def test_a_clustering_was_trained_as_the_encoder_that_it_stands_on(result: Result) -> None:
    encoder, card = get_card("encoder-boxes"), get_card("fps-features")
    own = {"card": card.name, "options": dict(card.options), "checkpoint_sha256": encoder.sha256, "role": "floor"}
    facts = facts_of(changed(result, **own), TASK)
    assert encoder.training is not None and facts.training_steps == str(encoder.training.steps) == "3000"
    assert (facts.slots, facts.input_size) == ("9", str(encoder.input))


def test_a_users_model_says_what_its_result_says(result: Result) -> None:
    facts = facts_of(changed(result, card="", name="mine", options={}, checkpoint_sha256=""), TASK)
    assert facts == Facts(parameters="292736", images_per_second="12.3", device="cuda")


def test_a_floor_sees_what_the_task_hands_out_and_other_models_without_a_size_say_nothing(result: Result) -> None:
    floor = changed(result, card="grid", options={"rows": 3, "columns": 3}, role="floor", checkpoint_sha256="")
    assert facts_of(floor, TASK).input_size == str(TASK.protocol.input)
    hub = changed(result, card="slotcontrast-paper", options={}, checkpoint_sha256="")
    assert facts_of(hub, TASK).input_size == ""


def test_a_mean_has_the_facts_that_its_seeds_share() -> None:
    first = Facts(backbone="b", trained_on="cpu", checkpoint="a")
    assert common_facts([first, Facts(backbone="b", checkpoint="c")]) == Facts(backbone="b")


def test_heads_on_other_images_have_other_lines() -> None:
    fit = FitSection(
        head="linear",
        kind="official",
        split="train",
        revision="r",
        ids_sha256="a" * 64,
        samples=9,
        left_out=(),
        chosen={},
    )
    line = fit_text(fit)
    assert line == "linear: official data, split train, revision r, 9 images (ids aaaaaaaa)"
    for change in ({"ids_sha256": "b" * 64}, {"revision": "s"}, {"kind": "supplied"}, {"split": "val"}):
        assert fit_text(fit.model_copy(update=change)) != line
    assert fit_text(fit.model_copy(update={"left_out": ("x",), "chosen": {"learning_rate": 1}})) == line
    unknown = fit.model_copy(update={"ids_sha256": None, "kind": None})
    assert fit_text(unknown) == f"linear: unknown data, {NOT_RECORDED}" and fit_text(None) == ""


def test_every_bundled_model_with_weights_says_what_it_stands_on() -> None:
    cards = [get_card(path.stem) for path in sorted(CARDS.glob("*.yaml"))]
    assert [card.name for card in cards if card.weights and not (card.backbone and card.pretraining)] == []

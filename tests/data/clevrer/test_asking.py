"""Questions about collisions: words, programs, truths and balance."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from places import PARITY
from safetensors.numpy import load_file

from ocl_bench.core.errors import UsageError
from ocl_bench.data.clevrer.asking import ask, refer
from ocl_bench.data.clevrer.facts import Event, Facts, Thing
from ocl_bench.data.clevrer.programs import run
from ocl_bench.data.clevrer.vocabulary import ANSWERS, WORDS, encode, encode_answer
from ocl_bench.data.scenes.collisions import sample_world, simulate
from ocl_bench.data.stand_ins.clevrer import facts_of


@pytest.fixture(scope="module")
def videos() -> list[tuple[Facts, list[dict]]]:
    worlds = [sample_world(1, "test", index) for index in range(48)]
    facts = [facts_of(world, simulate(world)) for world in worlds]
    return [(one, ask(one, np.random.default_rng(index))) for index, one in enumerate(facts)]


def test_programs_give_the_answers(videos: list) -> None:
    for facts, questions in videos:
        assert [question["question_id"] for question in questions] == list(range(len(questions)))
        for question in questions:
            if question["question_type"] == "descriptive":
                assert run(question["program"], facts) == question["answer"] in ANSWERS
                continue
            for choice in question["choices"]:
                right = run([*choice["program"], *question["program"]], facts) == "yes"
                assert choice["answer"] == ("correct" if right else "wrong")


def test_truths_are_those_of_the_simulation(videos: list) -> None:
    """Predictive and counterfactual options against the contacts themselves, without programs."""
    checked = 0
    for facts, questions in videos:
        names = {refer(facts, number)[0]: number for number in range(len(facts.things))}
        later = [set(event.objects) for event in facts.unseen if event.kind == "collision"]
        for question in questions:
            for choice in question.get("choices", []):
                if not choice["choice"].endswith("collide"):
                    continue
                first, second = choice["choice"].removesuffix(" collide").removeprefix("The ").split(" and the ")
                pair = {names[first], names[second]}
                if question["question_type"] == "predictive":
                    happens = pair in later
                else:
                    removed = question["question"].removeprefix("If the ").partition(" is removed")[0]
                    happens = any(pair == set(event.objects) for event in facts.without[names[removed]])
                    happens = happens != (" not " in question["question"])
                assert (choice["answer"] == "correct") == happens
                checked += 1
    assert checked > 100


def test_options_are_balanced(videos: list) -> None:
    """About half of the options are right, and no answer of a subtype gives more than half of its questions."""
    options, answers = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    kinds = Counter[str]()
    for _, questions in videos:
        for question in questions:
            kinds[question["question_type"]] += 1
            for choice in question.get("choices", []):
                options[question["question_type"], choice["answer"]] += 1
            if "answer" in question:
                answers[question["question_subtype"], question["answer"]] += 1
    for kind in ("explanatory", "predictive", "counterfactual"):
        right, wrong = options[kind, "correct"], options[kind, "wrong"]
        assert 0.45 <= right / (right + wrong) <= 0.55, (kind, right, wrong)
    for subtype in ("count", "exist", "query_color", "query_material", "query_shape"):
        values = [number for (name, _), number in answers.items() if name == subtype]
        assert max(values) <= 0.57 * sum(values), (subtype, values)
    assert kinds["predictive"] == 24  # one of each video with a future
    assert min(kinds["explanatory"], kinds["counterfactual"]) >= 40 and kinds["descriptive"] == 48 * 7


def test_all_words_are_clevrers(videos: list) -> None:
    assert len(WORDS) == 81 and len(ANSWERS) == 21
    assert all(first < second for first, second in pairwise(WORDS)) and list(ANSWERS) == sorted(ANSWERS)
    for _, questions in videos:
        for question in questions:
            lengths = [len(encode(question["question"], choice["choice"])) for choice in question.get("choices", [])]
            assert set(lengths or [len(encode(question["question"]))]) == {32}


def test_numbers_of_words_are_those_of_the_official_reader() -> None:
    """`aloe_tokens`: CLEVRERVQADataset and clevrer_collate_fn of pairlab/SlotFormer, commit 10a6d9b."""
    case = load_file(PARITY / "aloe_tokens.safetensors")
    descriptive = {
        "How many metal objects are moving when the red cube enters the scene?": "2",
        "What is the shape of the last object to collide with the blue sphere?": "cylinder",
        "Are there any stationary rubber objects when the video ends?": "yes",
    }
    cause = "Which of the following is responsible for the collision between the gray cube and the green cylinder?"
    choices = {
        cause: ["The presence of the red cube", "The collision between the gray cube and the blue sphere"],
        "What will happen next?": [
            "The gray cube and the green cylinder collide",
            "The red cube collides with the blue sphere",
            "The green cylinder and the blue sphere collide",
            "The red cube and the gray cube collide",
        ],
    }
    assert [encode(text) for text in descriptive] == case["out.cls_q_tokens"].tolist()
    assert [encode_answer(answer) for answer in descriptive.values()] == case["out.cls_label"].tolist()
    encoded = [encode(text, choice) for text, entries in choices.items() for choice in entries]
    assert encoded == case["out.mc_q_tokens"].tolist()


def test_unknown_words_and_long_texts_are_refused() -> None:
    with pytest.raises(UsageError, match="'pyramid' in 'What is the pyramid' is not a word of CLEVRER's vocabulary"):
        encode("What is the pyramid")
    with pytest.raises(UsageError, match="has 13 words, at most 12 are allowed"):
        encode("What will happen next?", "the " * 13)
    with pytest.raises(UsageError, match="answer '7' is not one of CLEVRER's: 0, 1"):
        encode_answer("7")


def test_an_object_has_the_shortest_name_that_no_other_has() -> None:
    things = (Thing("red", "metal", "cube"), Thing("red", "rubber", "cube"), Thing("blue", "metal", "cube"))
    facts = Facts((*things, Thing("red", "metal", "sphere")), {}, (Event("start", (), 0),))
    assert [refer(facts, number)[0] for number in range(4)] == ["red metal cube", "rubber cube", "blue cube", "sphere"]
    for number in range(4):
        assert run(refer(facts, number)[1], facts) == number

"""Claims of papers: checked data, verdicts by the rule, and a page that is what the committed results give."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from results_with_values import RESULTS, made
from typer.testing import CliRunner

from ocl_bench.cards.names import get_card, get_task, model_names, task_names
from ocl_bench.cli import app
from ocl_bench.core.errors import UsageError
from ocl_bench.core.paths import bundled
from ocl_bench.tables.comparison.claims import Judged, claim_files, inputs, judge, load_claims
from ocl_bench.tables.comparison.claims_page import section, to_markdown, write_claims

FILES = [path.stem for path in claim_files()]
BASE = np.random.default_rng(1).uniform(0.3, 0.5, 40)
TEST = {"kind": "better", "task": "clevrtex", "metric": "mbo_fg", "ours": "a", "against": "b"}


def written(folder: Path, *tests: dict[str, Any], **fields: Any) -> Path:
    """A file `t.yaml` (JSON is YAML) with one claim for each test."""
    printed = [{"says": "so", "source": "here", "evidence": "paper"}]
    claims = [
        {"name": f"c{index}", "statement": "s", "printed": printed, "tests": [test]} for index, test in enumerate(tests)
    ]
    content = {"method": "t", "title": "T", "paper": "P", "claims": claims, **fields}
    (folder / "t.yaml").write_text(json.dumps(content), encoding="utf-8")
    return folder / "t.yaml"


def verdicts(folder: Path, *tests: dict[str, Any]) -> list[str]:
    judged = judge(load_claims(written(folder, *tests)), [folder], folder / "figures")
    return [one.verdict for one in judged]


def seeds(folder: Path, name: str, shifts: list[float], **changes: Any) -> None:
    for seed, shift in enumerate(shifts):
        made(folder, name, list(BASE + shift), seed, **changes)


def test_every_bundled_file_names_cards_that_exist() -> None:
    assert FILES == ["dias", "odis", "ours", "slotcon", "slotmatch", "smoothsa"]
    for path in claim_files():
        for claim in load_claims(path).claims:
            for test in claim.tests:
                if test.kind in ("better", "not_below"):
                    assert {test.ours, test.against} <= set(model_names()), claim.name
                    assert test.metric in get_task(test.task).metrics, claim.name
                    for task in test.their_tasks or [test.their_task or test.task]:
                        assert (test.their_metric or test.metric) in get_task(task).metrics


def test_the_headline_numbers_are_claims_with_a_source() -> None:
    printed = {
        path.stem: " ".join(
            f"{claim.statement} {one.says}" for claim in load_claims(path).claims for one in claim.printed
        )
        for path in claim_files()
    }
    for method, numbers in {
        "dias": ("79.1", "63.3"),
        "odis": ("82.6", "1.2 points"),
        "slotcon": ("41.0", "37.0", "71.6", "76.2", "39.0", "18.26", "42.36"),
        "slotmatch": ("3.6 times", "2.7 times"),
    }.items():
        for number in numbers:
            assert number in printed[method]


def test_wrong_files_are_refused_by_field(tmp_path: Path) -> None:
    for test, field in (
        ({**TEST, "kind": "best"}, r"claims\.0\.tests\.0"),
        ({**TEST, "verdict": "holds"}, "verdict"),
        ({**TEST, "their_task": "clevrtex-ood"}, "protocols_differ is needed with their_task"),
        ({**TEST, "their_tasks": {"clevrtex-ood": "val_mbo_fg"}}, "protocols_differ is needed"),
        (
            {**TEST, "their_task": "a", "their_tasks": {"a": "b"}, "protocols_differ": "d"},
            "their_task and their_tasks exclude each other",
        ),
        ({"kind": "construction"}, "why"),
        (
            {"kind": "ratio", "quantity": "q", "ours": "a", "against": "b", "at_least": 2, "figure": "../x.json"},
            "figure",
        ),
    ):
        with pytest.raises(UsageError, match=field):
            load_claims(written(tmp_path, test))
    with pytest.raises(UsageError, match="'method': 'other' is not 't'"):
        load_claims(written(tmp_path, TEST, method="other"))
    path = written(tmp_path, TEST)
    path.write_text(path.read_text().replace('"paper"}', '"memory"}'))
    with pytest.raises(UsageError, match=r"claims\.0\.printed\.0\.evidence"):
        load_claims(path)
    with pytest.raises(UsageError, match="no file with claims"):
        claim_files(tmp_path / "nothing")


def test_better_and_not_below(tmp_path: Path) -> None:
    below = {**TEST, "kind": "not_below"}
    back = {"ours": "b", "against": "a"}
    seeds(tmp_path, "a", [0.1, 0.11, 0.12])
    seeds(tmp_path, "b", [0.0, 0.0, 0.0])
    tests = (TEST, {**TEST, **back}, below, {**below, **back})
    assert verdicts(tmp_path, *tests) == ["holds", "contradicted", "holds", "contradicted"]
    seeds(tmp_path, "a", [0.001, -0.001, 0.0])
    assert verdicts(tmp_path, TEST, below) == ["undecided", "holds"], "no difference is not below, and not better"
    seeds(tmp_path, "a", [-0.03, -0.01, 0.0])
    assert verdicts(tmp_path, TEST, below) == ["undecided", "undecided"]


def test_fewer_than_three_seeds_decide_nothing(tmp_path: Path) -> None:
    seeds(tmp_path, "a", [0.1, 0.1])
    seeds(tmp_path, "b", [0.0, 0.0, 0.0])
    judged = judge(load_claims(written(tmp_path, TEST, {**TEST, "kind": "not_below"})), [tmp_path])
    assert [one.verdict for one in judged] == ["undecided", "undecided"]
    assert "3 training seeds" in judged[0].outcomes[0].why


def test_holm_counts_all_comparisons_of_a_file(tmp_path: Path) -> None:
    generator = np.random.default_rng(4)
    for seed in range(3):
        made(tmp_path, "a", list(BASE + 0.008 + generator.normal(0, 0.03, 40)), seed)
    seeds(tmp_path, "b", [0.0, 0.0, 0.0])
    assert verdicts(tmp_path, TEST) == ["holds"]
    assert verdicts(tmp_path, *[TEST] * 8) == ["undecided"] * 8


def test_what_is_not_there_is_not_tested(tmp_path: Path) -> None:
    seeds(tmp_path, "a", [0.1, 0.1, 0.1])
    judged = judge(load_claims(written(tmp_path, TEST)), [tmp_path])
    assert judged[0].verdict == "not tested here"
    assert judged[0].outcomes[0].why == "no result of b on clevrtex"
    others = ("construction", "official", "none")
    found = verdicts(tmp_path, *({"kind": kind, "why": "w"} for kind in others))
    assert found == ["by construction", "needs official data", "not tested here"]


def test_results_that_cannot_be_joined_say_why(tmp_path: Path) -> None:
    seeds(tmp_path, "a", [0.1, 0.1, 0.1])
    seeds(tmp_path, "b", [0.0, 0.0, 0.0], data={"kind": "official"})
    judged = judge(load_claims(written(tmp_path, TEST)), [tmp_path])
    assert judged[0].verdict == "not tested here" and "data.kind" in judged[0].outcomes[0].why
    seeds(tmp_path / "more", "a", [0.2, 0.2, 0.2], data={"kind": "official"})
    judged = judge(load_claims(written(tmp_path, TEST)), [tmp_path, tmp_path / "more"])
    assert (judged[0].verdict, judged[0].data) == ("holds", "official"), "official data where both have it"


def test_two_protocols_join_on_the_images(tmp_path: Path) -> None:
    """k-NN with boxes against k-NN on crops: the same images, another card; without saying so it is refused."""
    knn = {
        "kind": "better",
        "task": "imagenet-knn-boxes",
        "metric": "knn_top1",
        "ours": "encoder",
        "against": "encoder",
    }
    other = {**knn, "their_task": "imagenet-knn-crop", "protocols_differ": "cut to the box"}
    judged = judge(load_claims(written(tmp_path, other)), [RESULTS])
    found = judged[0].outcomes[0].comparison
    assert found is not None and found.n == 2048
    assert found.value_b == pytest.approx(0.125, abs=0.001), "the committed value of imagenet-knn-crop"
    assert judged[0].verdict == "undecided", "one training seed"
    text = section(load_claims(written(tmp_path, other)), judged, "0")
    assert "cut to the box" in text and "`imagenet-knn-crop`" in text


def test_their_task_is_chosen_by_the_validation_of_their_card(tmp_path: Path, monkeypatch) -> None:
    tasks = {f"imagenet-knn-{mode}": f"val_{mode}" for mode in ("boxes", "crop")}
    test = {**TEST, "task": "imagenet-knn-boxes", "metric": "knn_top1", "ours": "encoder", "against": "encoder"}
    path = written(tmp_path, {**test, "their_tasks": tasks, "protocols_differ": "another use"})
    outcome = judge(load_claims(path), [RESULTS])[0].outcomes[0]
    assert outcome.verdict == "not tested here" and outcome.why.startswith("card encoder has no number 'val_boxes'")
    hashes = {inputs(load_claims(path), [RESULTS], path)}
    card = get_card("encoder")
    for numbers, value in (({"val_boxes": 0.2, "val_crop": 0.3}, 0.125), ({"val_boxes": 0.4, "val_crop": 0.3}, 0.120)):
        training = card.training.model_copy(update={"numbers": numbers})
        chosen_by = card.model_copy(update={"training": training})
        monkeypatch.setattr("ocl_bench.tables.comparison.claims.get_card", lambda name, chosen_by=chosen_by: chosen_by)
        judged = judge(load_claims(path), [RESULTS])
        assert judged[0].outcomes[0].comparison.value_b == pytest.approx(value, abs=0.001)
        assert f"was chosen in validation (val_boxes {numbers['val_boxes']:.3f}" in section(
            load_claims(path), judged, "0"
        )
        hashes.add(inputs(load_claims(path), [RESULTS], path))
    assert len(hashes) == 3, "the page is told to be out of date when the choice changes"


def test_ratios_come_from_committed_figures(tmp_path: Path) -> None:
    ratio = {"kind": "ratio", "quantity": "q", "ours": "a", "against": "b", "at_least": 2.7, "figure": "f.json"}
    assert verdicts(tmp_path, ratio) == ["not tested here"]
    (tmp_path / "figures").mkdir()
    for low, high, verdict in ((2.71, 2.9, "holds"), (2.1, 2.6, "contradicted"), (2.6, 2.8, "undecided")):
        figure = {"ratio": (low + high) / 2, "low": low, "high": high, "setup": "a machine", "command": "profile"}
        (tmp_path / "figures" / "f.json").write_text(json.dumps(figure))
        assert verdicts(tmp_path, ratio) == [verdict]
    (tmp_path / "figures" / "f.json").write_text(json.dumps(figure | {"ratio": 1.0, "low": 2.8, "high": 2.9}))
    with pytest.raises(UsageError, match="ratio 1 lies outside its range"):
        verdicts(tmp_path, ratio)
    (tmp_path / "figures" / "f.json").write_text('{"ratio": 2}')
    with pytest.raises(UsageError, match="field 'low'"):
        verdicts(tmp_path, ratio)


def test_a_claim_holds_if_all_of_its_tests_do(tmp_path: Path) -> None:
    seeds(tmp_path, "a", [0.1, 0.1, 0.1])
    seeds(tmp_path, "b", [0.0, 0.0, 0.0])
    back, none = {**TEST, "ours": "b", "against": "a"}, {"kind": "none", "why": "w"}
    for tests, verdict in (([TEST, TEST], "holds"), ([TEST, back], "contradicted"), ([TEST, none], "undecided")):
        path = written(tmp_path, TEST)
        content = json.loads(path.read_text())
        content["claims"][0]["tests"] = tests
        path.write_text(json.dumps(content))
        assert judge(load_claims(path), [tmp_path])[0].verdict == verdict


def committed_section(title: str) -> str:
    page = (bundled("leaderboards") / "claims.md").read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found.group().rstrip("\n")


@pytest.mark.parametrize("name", FILES)
def test_the_committed_page_is_of_the_committed_inputs(name: str) -> None:
    """A result, rows or a claim that changed since; `ocl-bench claims --check` also computes everything again."""
    path = bundled("leaderboards") / "claims" / f"{name}.yaml"
    claims = load_claims(path)
    digest = inputs(claims, [RESULTS], path)
    assert f"sha256 {digest}" in committed_section(claims.title), "run: ocl-bench claims"


def test_the_committed_page_is_what_is_computed() -> None:
    path = bundled("leaderboards") / "claims" / "dias.yaml"
    claims = load_claims(path)
    fresh = section(claims, judge(claims, [RESULTS]), inputs(claims, [RESULTS], path))
    assert committed_section(claims.title) == fresh.rstrip("\n"), "run: ocl-bench claims"


def test_the_digest_follows_rows_and_data(tmp_path: Path) -> None:
    seeds(tmp_path, "a", [0.1])
    path = written(tmp_path, TEST)
    first = inputs(load_claims(path), [tmp_path], path)
    assert first == inputs(load_claims(path), [tmp_path], path)
    seeds(tmp_path, "a", [0.2])
    second = inputs(load_claims(path), [tmp_path], path)
    path = written(tmp_path, TEST, title="other")
    assert len({first, second, inputs(load_claims(path), [tmp_path], path)}) == 3


def test_the_page_is_the_same_each_time(tmp_path: Path) -> None:
    seeds(tmp_path, "a", [0.1, 0.1, 0.1])
    seeds(tmp_path, "b", [0.0, 0.0, 0.0], model={"supervision": "none"})
    claims = load_claims(written(tmp_path, TEST))
    papers = [(claims, judge(claims, [tmp_path]), "0")]
    page = write_claims(papers, tmp_path / "out").read_text(encoding="utf-8")
    again: list[Judged] = judge(claims, [tmp_path])
    assert page == to_markdown([(claims, again, "0")])
    assert "| `c0` | s | **holds** (embedded) |" in page
    assert "+0.100 [+0.100, +0.100]" in page and "supervision in training is boxes of ours, none of the other" in page


def test_the_verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds(tmp_path, "a", [0.1, 0.1, 0.1])
    seeds(tmp_path, "b", [0.0, 0.0, 0.0])
    path = written(tmp_path, TEST)
    monkeypatch.setattr("ocl_bench.tables.comparison.claims.claim_files", lambda: [path])
    arguments = ["claims", "--results", str(tmp_path), "--out", str(tmp_path / "out")]
    found = CliRunner().invoke(app, [*arguments, "--json"])
    assert found.exit_code == 0, found.output
    (paper,) = json.loads(found.stdout)
    assert paper["claims"][0]["verdict"] == "holds"
    assert paper["claims"][0]["tests"][0]["comparison"]["n"] == 40
    found = CliRunner().invoke(app, arguments)
    assert "holds (embedded)" in found.stdout and "claims.md" in found.stderr
    assert (tmp_path / "out" / "claims.md").is_file()
    found = CliRunner().invoke(app, [*arguments, "--check"])
    assert found.exit_code == 1 and "run: ocl-bench claims" in found.stderr


def test_tasks_of_claims_are_bundled() -> None:
    named = set(re.findall(r"task: ([\w-]+)", "".join(path.read_text() for path in claim_files())))
    assert named <= set(task_names())


def test_a_folder_that_is_not_there_writes_nothing(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["claims", "--results", str(tmp_path / "no"), "--out", str(tmp_path / "out")])
    assert result.exit_code == 3
    assert f"--results {tmp_path / 'no'}: there is no such folder" in result.stderr
    assert not (tmp_path / "out").exists()

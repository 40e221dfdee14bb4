"""From the protocol of a paper to the closest card, and the fields that differ."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ocl_bench.cards.likeness import closest, fields_of
from ocl_bench.cards.names import get_task, task_names
from ocl_bench.cli import app
from ocl_bench.core.errors import UsageError
from ocl_bench.core.paths import bundled


def test_a_card_is_closest_to_itself_and_a_changed_field_is_named(tmp_path: Path) -> None:
    for name in ("coco-discovery", "movi-c", "voc-segmentation"):
        own = closest([str(bundled("tasks") / f"{name}.yaml")], task_names())[0]
        assert (own.task, own.differing) == (name, {})
    text = (bundled("tasks") / "coco-discovery.yaml").read_text().replace("score_at: 320", "score_at: 224")
    card = tmp_path / "mine.yaml"
    card.write_text(text.replace("name: coco-discovery", "name: mine"))
    first, second, *_ = closest([str(card)], task_names())
    assert (first.task, first.differing) == ("coco-discovery", {"protocol.score_at": (320, 224)})
    assert second.task == "coco-discovery-spot" and len(second.differing) > 1


def test_a_card_is_compared_with_its_own_family_first(tmp_path: Path) -> None:
    """Of other families only what both have: a field that the other family lacks tells nothing about likeness."""
    card = bundled("tasks") / "coco-detection.yaml"
    found = closest([str(card)], task_names())
    families = [get_task(one.task).family for one in found]
    own = families.count("detection")
    assert families[:own] == ["detection"] * own and own > 1
    for one in found:
        family = get_task(one.task).family
        assert one.other_family == ("" if family == "detection" else family)
        if one.other_family:
            assert not {"family", "main"} & set(one.differing)
            assert set(one.differing) <= set(fields_of(get_task(one.task))) & set(fields_of(get_task("coco-detection")))
    (tmp_path / "mine.yaml").write_text(card.read_text())
    shown = CliRunner().invoke(app, ["list", "--like", str(tmp_path / "mine.yaml"), "clevrtex"]).stdout
    assert "(another family, discovery: only what both have is compared)" in shown.splitlines()[0]


def test_only_the_named_fields_are_compared() -> None:
    found = closest(["input=224", "void=count", "reader=voc"], task_names())
    assert (found[0].task, found[0].differing) == ("voc-discovery-spot", {})
    assert all(len(one.differing) <= len(two.differing) for one, two in itertools.pairwise(found))
    voc = next(one for one in found if one.task == "voc-discovery")
    assert voc.differing == {"protocol.void": ("drop", "count")}
    assert "data.stand_in.samples" not in fields_of(get_task("movi-c")) and "data.licence" not in fields_of(
        get_task("movi-c")
    )


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (["inputt=224"], "'inputt' is no field of a task card; did you mean input?"),
        (["split=val"], "'split' is data.split or fit.split"),
        (["input"], "give a task card"),
        (["input=["], "the value is not YAML"),
    ],
)
def test_what_is_no_field_is_an_error(wanted: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("?", r"\?")):
        closest(wanted, task_names())


def test_the_verb_takes_fields_with_spaces_between_them() -> None:
    outcome = CliRunner().invoke(app, ["list", "--like", "input=224", "void=count", "--family", "discovery"])
    lines = outcome.stdout.splitlines()
    assert outcome.exit_code == 0 and lines[0] == "voc-discovery-spot: all fields agree"
    assert lines.index("  protocol.void: drop, wanted count") == lines.index("coco-discovery: 1 field differs") + 1
    shown = json.loads(CliRunner().invoke(app, ["list", "--like", "input=224", "void=count", "coco*", "--json"]).stdout)
    assert all(one["task"].startswith("coco") for one in shown)
    assert {"task": "coco-discovery", "differing": {"protocol.void": ["drop", "count"]}} in shown

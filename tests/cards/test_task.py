"""Task cards: the signature names what shaped a number, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocl_bench.cards.names import get_task
from ocl_bench.cards.task import load_task
from ocl_bench.core.errors import UsageError
from ocl_bench.core.paths import bundled
from ocl_bench.metrics.catalogue import check_metric, find_metric


def test_the_signature_of_boxes_claims_nothing_about_masks() -> None:
    task = get_task("coco-detection")
    assert task.signature("boxes") == "crop:none│from:boxes│at:native│max:100│annotations:instances│v1"
    assert "mask:decoder│up:bilinear-argmax" in task.signature("decoder") and "nms:0.95" in task.signature("decoder")


def test_a_key_that_is_written_twice_is_refused(tmp_path: Path) -> None:
    """YAML keeps the last value: the card would say one thing in one line and do another."""
    text = (bundled("tasks") / "clevrtex.yaml").read_text(encoding="utf-8")
    path = tmp_path / "twice.yaml"
    path.write_text(text + "version: 2\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"twice\.yaml: .*line \d+: 'version' is written twice; keep one"):
        load_task(path)


@pytest.mark.parametrize(("name", "family"), [("mbo_f", "detection"), ("ap_maks", "discovery"), ("knn_tpo1", "knn")])
def test_the_hint_for_a_misspelt_metric_stays_within_the_family(name: str, family: str) -> None:
    """`mbo_f` in a detection card is not helped by `mbo_fg`, which the next run would refuse."""
    with pytest.raises(UsageError, match=f"metric '{name}' is unknown; ") as caught:
        check_metric(name, family, head=family == "knn")
    hint = str(caught.value).partition("; ")[2].removeprefix("known are ").replace("did you mean", "").strip(" ?'")
    assert all(family in find_metric(other).families for other in hint.split(", "))

"""Pictures of bundled models: each model has one, and it was made with the weights and options of today."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ocl_bench.cards.names import get_card, ready_names
from ocl_bench.evaluation.plan import make_plan
from ocl_bench.pages.site.model_pictures import (
    SAMPLES,
    TASK,
    pictured_names,
    pictures_folder,
    pictures_of,
    record,
)

AGAIN = "run python benchmarks/model_pictures.py --out leaderboards/pictures"


def test_every_bundled_model_with_masks_has_its_picture() -> None:
    masks = [get_card(name) for name in ready_names() if {"discovery", "video"} & set(get_card(name).families)]
    assert pictured_names() == [card.name for card in masks if card.role != "encoder"], "a model of videos alone"
    assert sorted(record()["models"]) == pictured_names(), AGAIN
    files = {path.stem for path in pictures_folder().glob("*.webp")}
    assert files == {*pictured_names(), "_images", "_truth"}, AGAIN
    assert len(record()["ids"]) == SAMPLES


def test_pictures_are_small() -> None:
    sizes = [path.stat().st_size for path in pictures_folder().iterdir()]
    assert max(sizes) <= 12_000 and sum(sizes) <= 400_000


@pytest.mark.parametrize("name", pictured_names())
def test_a_picture_shows_the_model_as_it_is_now(name: str) -> None:
    made = record()["models"][name]
    card = get_card(name)
    assert not card.weights or made["checkpoint_sha256"] == card.sha256, AGAIN
    # The key holds the options, the task and the scenes too, and the weights of an encoder that a floor uses.
    assert made["key"] == make_plan(name, TASK, limit=SAMPLES, device="cpu").key, AGAIN
    assert len(made["commit"]) == 40 and len(made["values"]) == SAMPLES


def test_the_page_of_a_model_has_three_rows_with_texts(small_site: Path) -> None:
    html = (small_site / "models" / "dias.html").read_text(encoding="utf-8")
    pictures: Any = pictures_of("dias")
    assert html.count('<img src="data:image/webp;base64,') == 3
    for row in pictures["rows"]:
        assert f'<img src="{row["picture"]}"' in html and f'alt="{row["alt"]}"' in html
    assert pictures["values"][0] in pictures["rows"][2]["alt"]
    assert '<figure class="strips">' not in (small_site / "models" / "odis.html").read_text(encoding="utf-8")
    assert '<figure class="strips">' not in (small_site / "papers" / "dias.html").read_text(encoding="utf-8")

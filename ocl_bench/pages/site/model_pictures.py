"""Pictures of what bundled models find in the same scenes. `benchmarks/model_pictures.py` makes them."""

from __future__ import annotations

import base64
import json
from functools import cache
from pathlib import Path
from typing import Any

from ...cards.names import get_card, ready_names
from ...core.paths import bundled

TASK, SAMPLES = "clevrtex", 6
"""The task whose first test scenes are shown, and how many of them."""
SIDE, GAP = 128, 4
"""Side of a picture, and the transparent gap between two, in pixels."""
RECORD = "pictures.json"
"""What the pictures were made from: task, main metric, ids, and of each model key, checkpoint, commit and values."""
IMAGES, TRUTH = "_images.webp", "_truth.webp"
"""The rows that all models share. No card's name begins with `_`."""


def pictures_folder() -> Path:
    """Where the pictures lie, one `<model>.webp` for each model."""
    return bundled("leaderboards") / "pictures"


def pictured_names() -> list[str]:
    """Bundled models that give masks of images and need no checkpoint from the user."""
    cards = [get_card(name) for name in ready_names()]
    return [card.name for card in cards if "discovery" in card.families and card.role != "encoder"]


@cache
def record() -> dict[str, Any]:
    """The content of `RECORD`."""
    content: dict[str, Any] = json.loads((pictures_folder() / RECORD).read_text(encoding="utf-8"))
    return content


def pictures_of(name: str) -> dict[str, Any] | None:
    """What the page of a model shows: rows with `picture` (a `data:` address) and `alt`. None without pictures."""
    content = record()
    model = content["models"].get(name)
    if model is None:
        return None
    scenes = f"{SAMPLES} test scenes of {content['task']}"
    values = [f"{value:.3f}" for value in model["values"]]
    rows = (
        (IMAGES, f"Images of {scenes}"),
        (TRUTH, "Truth: each object in a flat colour of its own, the background grey"),
        (f"{name}.webp", f"Segments of {name} in the same scenes; {content['main']}: {', '.join(values)}"),
    )
    return {
        "task": content["task"],
        "main": content["main"],
        "values": values,
        "width": SAMPLES * (SIDE + GAP) - GAP,
        "height": SIDE,
        "rows": [{"picture": _address(pictures_folder() / file), "alt": alt} for file, alt in rows],
    }


def _address(path: Path) -> str:
    """A WebP file as a `data:` address, since pages load nothing."""
    return f"data:image/webp;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"

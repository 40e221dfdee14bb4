"""A stand-in for the renderer, and a private cache for each test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch


@dataclass
class FakeScenes:
    image: torch.Tensor
    labels: torch.Tensor
    depth: torch.Tensor
    objects: list[list[dict[str, Any]]]


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, tuple[int, ...]]]:
    """Replaces the renderer by noise with two squares; the list collects (split, seed, indices) of each call."""
    calls: list[tuple[str, int, tuple[int, ...]]] = []

    def render(
        variant: str, revision: int, split: str, indices: Sequence[int], *, size: int = 160, seed: int = 0
    ) -> FakeScenes:
        calls.append((split, seed, tuple(indices)))
        salt = sum(map(ord, variant + split)) * 7 + revision + 1000 * seed
        images, masks = [], []
        for i in indices:
            generator = np.random.default_rng(salt * 100_000 + i)
            images.append(torch.from_numpy(generator.integers(0, 256, (3, size, size), dtype=np.uint8)))
            mask = torch.zeros(size, size, dtype=torch.uint8)
            mask[20:60, 20:60], mask[80:120, 40 : 90 + i % 30] = 1, 2
            masks.append(mask)
        objects = [[{"shape": "cube", "depth": torch.tensor(2.0)}, {"shape": "sphere", "depth": np.float32(3)}]]
        return FakeScenes(
            torch.stack(images), torch.stack(masks), torch.zeros(len(masks), size, size), objects * len(masks)
        )

    monkeypatch.setattr("ocl_bench.data.scenes.render", render)
    monkeypatch.setattr("ocl_bench.data.scenes.REVISIONS", {"full": (1,), "camo": (1,), "outd": (1,)})
    monkeypatch.setattr("ocl_bench.data.stand_ins.stand_in.processors", lambda: 1)
    return calls


@pytest.fixture(autouse=True)
def private_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for each test, and no data root from the environment."""
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OCL_BENCH_DATA", raising=False)
    return tmp_path / "cache"

"""Sizes and contacts of objects: computed by hand, compared with a slow count, and in the rows of results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_evaluation import MemoryReader, tiny_plan

from ocl_bench.core.types import OVERLAP, VOID
from ocl_bench.evaluation.run import run
from ocl_bench.families.image_properties import PROPERTIES, image_properties, object_shapes
from ocl_bench.results.record import read_rows


def two_squares(gap: int) -> np.ndarray:
    """Two squares of 2 x 2 pixels in a row, `gap` pixels apart, on 6 x 8."""
    labels = np.zeros((6, 8), np.int16)
    labels[2:4, 1:3], labels[2:4, 3 + gap : 5 + gap] = 1, 2
    return labels


def slow(labels: np.ndarray, background: int | None) -> dict[int, tuple[float, float]]:
    """Size and contact of each object, counted pixel by pixel."""
    objects = [int(name) for name in np.unique(labels) if name >= 0 and name != background]
    height, width = labels.shape
    expected = {}
    for name in objects:
        border = contact = 0
        for y, x in zip(*np.nonzero(labels == name), strict=True):
            for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= v < height and 0 <= u < width and labels[v, u] != name and labels[v, u] >= 0:
                    border += 1
                    contact += int(labels[v, u]) in objects
        expected[name] = ((labels == name).mean(), contact / border if border else float("nan"))
    return expected


def test_squares_that_touch_share_a_quarter_of_their_border() -> None:
    apart, together = object_shapes(two_squares(1)), object_shapes(two_squares(0))
    assert apart.sizes.tolist() == together.sizes.tolist() == [4 / 48, 4 / 48]
    assert apart.contacts.tolist() == [0, 0] and together.contacts.tolist() == [0.25, 0.25]


@pytest.mark.parametrize("background", [0, 3, None])
@pytest.mark.parametrize("seed", range(4))
def test_counts_are_those_of_a_slow_count(seed: int, background: int | None) -> None:
    random = np.random.default_rng(seed)
    labels = random.choice([OVERLAP, VOID, 0, 0, 1, 3, 7], (7, 9)).astype(np.int16).repeat(2, 0)
    found, expected = object_shapes(labels, background), slow(labels, background)
    np.testing.assert_allclose(found.sizes, [size for size, _ in expected.values()], rtol=1e-12)
    np.testing.assert_allclose(found.contacts, [contact for _, contact in expected.values()], rtol=1e-12)


def test_neither_void_nor_the_edge_of_the_image_is_a_border() -> None:
    labels = np.full((4, 4), 1, np.int16)
    labels[:, 3] = VOID
    shapes = object_shapes(labels)
    assert shapes.sizes.tolist() == [0.75] and np.isnan(shapes.contacts).all()


def test_an_image_without_objects_has_no_properties() -> None:
    properties = image_properties([object_shapes(np.zeros((4, 4), np.int16))])
    assert list(properties) == list(PROPERTIES) and np.isnan(list(properties.values())).all()


def test_a_video_is_the_mean_over_its_objects_in_all_frames() -> None:
    properties = image_properties([object_shapes(two_squares(0)), object_shapes(two_squares(1))])
    assert properties == {"object_size": pytest.approx(4 / 48, abs=1 / 65536), "object_contact": 0.125}


def test_rows_of_discovery_say_what_the_image_is_like_whatever_the_model(tmp_path: Path) -> None:
    tables = []
    for model in ("single-slot", "random"):
        result = run(tiny_plan(model), results=tmp_path, progress=False)
        assert result.path is not None
        tables.append(read_rows(result.path).set_index("id")[["n_objects", *PROPERTIES]])
    assert tables[0].equals(tables[1])
    reader = MemoryReader(10)
    for index, sample_id in enumerate(reader.ids):
        expected = image_properties([object_shapes(reader[index].truth.labels)])
        assert tables[0].loc[sample_id, list(PROPERTIES)].to_dict() == expected
    assert tables[0]["object_contact"].max() > 0  # two rectangles of one scene do touch

"""Discovery scores each image independently of the others."""

from __future__ import annotations

import numpy as np

from ocl_bench.cards.names import get_task
from ocl_bench.core.types import Truth
from ocl_bench.families.discovery import Discovery


def test_mbo_class_of_an_image_does_not_depend_on_its_neighbours() -> None:
    task = get_task("voc-discovery")
    labels = np.zeros((8, 8), np.int16)
    labels[:4, :4], labels[4:, 4:] = 1, 2
    classes = np.where(labels > 0, 7, 0).astype(np.int16)
    named = Truth(labels, (7, 7), classes)
    bare = Truth(labels, ())
    alone = Discovery().score([named], [labels], task)[0]["mbo_class"]
    both = Discovery().score([named, bare], [labels, labels], task)
    assert both[0]["mbo_class"] == alone == 0.5
    assert np.isnan(both[1]["mbo_class"]) and both[1]["mbo_fg"] == 1.0, "without categories it is not valid"

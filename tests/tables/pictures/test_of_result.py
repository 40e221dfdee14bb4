"""`Result.plot` and `Result.pictures`: what a notebook shows of a result."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clevrtex_tree import write_scenes
from matplotlib import pyplot
from report_runs import own_videos
from tiny_evaluation import HERE, SlotModel

from ocl_bench import evaluate
from ocl_bench.core.errors import UsageError
from ocl_bench.metrics import find_metric
from ocl_bench.results.record import Result

TINY: dict[str, Any] = {"device": "cpu", "progress": False}


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("OCL_BENCH_RESULTS", str(tmp_path / "results"))
    write_scenes(tmp_path / "data")
    yield tmp_path
    pyplot.close("all")


def evaluated(folder: Path, model: Any = HERE, **keywords: Any) -> Result:
    return evaluate(model, "clevrtex", data_root=folder / "data", **TINY, **keywords)


def test_a_bar_and_an_interval_for_each_metric(images: Path) -> None:
    result = evaluated(images)
    figure = result.plot()
    assert len(figure.axes) == len(result.metrics)
    assert figure.axes[0].get_yticklabels()[0].get_text().startswith(result.task.main)
    for axes in figure.axes:
        name = axes.get_yticklabels()[0].get_text().split("\n")[0]
        metric = result.metrics[name]
        assert [bar.get_width() for bar in axes.patches] == [metric.value]
        (interval,) = axes.collections[0].get_segments()
        assert tuple(interval[:, 0]) == pytest.approx(metric.ci95)
        low, high = axes.get_xlim()
        assert low <= metric.ci95[0] and metric.ci95[1] <= high and high <= find_metric(name).high
    assert not figure.legends


def test_stored_floors_and_ceilings_stand_beside_the_bars(images: Path) -> None:
    floor, ceiling = evaluated(images, "grid"), evaluated(images, "oracle")
    axes = evaluated(images).plot().axes[0]
    marks = {float(line.get_xdata()[0]) for line in axes.lines}
    main = floor.task.main
    assert marks == {floor.value(main), ceiling.value(main)}
    assert [text.get_text() for text in axes.figure.legends[0].get_texts()] == ["floors", "ceilings"]


def test_pictures_go_from_best_to_worst_and_show_three_views(images: Path) -> None:
    result = evaluated(images)
    pictures = result.pictures(4)
    assert len(pictures) == 4 and len(result.pictures(100)) == result.counts.scored
    width, height = pictures[0].size
    assert width == 3 * height
    rows = result.to_frame().set_index("id")[result.task.main]
    (best,) = result.pictures(1)
    assert np.array_equal(best, pictures[0])
    shown = np.asarray(best)[:, :height].reshape(-1, 3)
    assert len(np.unique(shown, axis=0)) > 2 and rows.notna().all()


def test_saved_predictions_give_the_same_pictures_without_the_model(images: Path) -> None:
    """A live model is not known by any name: its pictures come from what was saved, or from the model itself."""
    model = SlotModel()
    saved = evaluated(images, model, save_predictions=True, name="saved").pictures(2, data_root=images / "data")
    live = evaluated(images, model, name="live")
    with pytest.raises(UsageError, match="where model live is"):
        live.pictures(2)
    again = live.pictures(2, model=model, data_root=images / "data")
    sizes = [picture.size for picture in saved]  # of the scored crop; the model sees another size
    best, worst = (np.asarray(one.resize(size), float) for one, size in zip(again, sizes, strict=True))
    difference = [np.abs(np.asarray(saved[0], float) - other).mean() for other in (best, worst)]
    assert difference[0] < 12 < difference[1]
    assert model.training


def test_pictures_of_another_model_are_refused(images: Path) -> None:
    result = evaluated(images, SlotModel(), name="mine")
    with pytest.raises(UsageError, match="the state of the model"):
        result.pictures(1, model=SlotModel(slots=3), data_root=images / "data")
    with pytest.raises(UsageError, match="give 1 or more"):
        result.pictures(0)


def test_videos_are_storyboards(tmp_path: Path) -> None:
    task = own_videos(tmp_path / "videos")
    keywords: dict[str, Any] = {"data_root": tmp_path / "videos", "results": tmp_path, **TINY}
    result = evaluate("grid", task, **keywords)
    pictures = result.pictures(2, task=task, data_root=tmp_path / "videos")
    assert len(pictures) == 2 and all(picture.size[0] > 300 for picture in pictures)

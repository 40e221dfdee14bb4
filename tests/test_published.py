from pathlib import Path

import pytest

from ocl_bench.errors import UsageError
from ocl_bench.paths import bundled
from ocl_bench.published import load_published
from ocl_bench.spec import load_task

ROW = """
task: t
version: 1
scale: 0.01
protocols: {p: what was done}
rows:
  - {model: m, paper: a, source: b, evidence: c, protocol: p, comparable: no, why: split,
     metrics: {ari: {value: 80.9}}}
"""


def _write(folder: Path, text: str) -> Path:
    (folder / "t.yaml").write_text(text, encoding="utf-8")
    return folder


def test_every_clevrtex_row_of_the_dias_specification_is_there() -> None:
    table = load_published("clevrtex-dias-v3")
    assert table is not None
    rows = {row.model: row for row in table.rows}
    names = {"SLATE", "DINOSAUR", "SlotDiffusion", "VQDINO-Tfd", "VQDINO-Mlp", "VQDINO-Dfz"}
    expected = names | {"DIAS", "SPOT", "SmoothSA", "DIAS (v1)"} | {f"{name} (v1)" for name in names}
    assert set(rows) == expected | {f"DIAS (seed {seed})" for seed in (42, 43, 44)}
    assert rows["SmoothSA"].metrics["mbo_all"].value == 60.6
    assert rows["DINOSAUR (v1)"].metrics["ari_int64_legacy"].value == 50.7
    assert rows["SPOT"].metrics["ari_int64_legacy"].spread == 1.4
    assert all(row.comparable == ("no" if row.protocol == "dias-v1" else "yes") for row in table.rows)


@pytest.mark.parametrize("metric", ["ari_int64_legacy", "fg_ari", "mbo_all", "miou_all"])
def test_printed_mean_and_spread_are_those_of_the_printed_seeds(metric: str) -> None:
    """The README's mean and sample deviation follow from the per-seed spreadsheet: a wrong digit in either shows."""
    table = load_published("clevrtex-dias-v3")
    assert table is not None
    rows = {row.model: row.metrics[metric] for row in table.rows}
    seeds = [rows[f"DIAS (seed {seed})"].value for seed in (42, 43, 44)]
    mean = sum(seeds) / 3
    deviation = (sum((value - mean) ** 2 for value in seeds) / 2) ** 0.5
    assert abs(mean - rows["DIAS"].value) <= 0.051
    assert rows["DIAS"].spread is not None
    assert abs(deviation - rows["DIAS"].spread) <= 0.051


def test_slotcon_is_published_and_never_comparable() -> None:
    """Fine-tuned numbers, or settings that are not public: none may stand beside a frozen model's."""
    printed = {
        "coco-detection": {"ap_box": 41.0, "ap_mask": 37.0},
        "voc-segmentation": {"miou_sem": 71.6},
        "cityscapes-segmentation": {"miou_sem": 76.2},
        "ade20k-segmentation": {"miou_sem": 39.0},
        "cocostuff-segmentation": {"miou_sem": 18.26, "pixel_acc": 42.36},
    }
    for task, numbers in printed.items():
        table = load_published(task)
        assert table is not None
        rows = [row for row in table.rows if row.model.startswith("SlotCon")]
        assert {name: one.value for name, one in rows[0].metrics.items()} == numbers
        assert all(row.comparable == "no" for row in rows)
        assert rows[0].evidence == ("copied from a README" if task == "coco-detection" else "secondary")


def test_published_metrics_are_metrics_of_the_card() -> None:
    for path in sorted((bundled("leaderboards") / "published").glob("*.yaml")):
        table = load_published(path.stem)
        task = load_task(bundled("tasks") / f"{path.stem}.yaml")
        assert table is not None
        assert table.version == task.version
        assert {name for row in table.rows for name in row.metrics} <= set(task.metrics)


def test_a_task_without_published_rows_has_none() -> None:
    assert load_published("clevrtex") is None


def test_bare_no_is_read_as_no(tmp_path: Path) -> None:
    table = load_published("t", _write(tmp_path, ROW))
    assert table is not None
    assert table.rows[0].comparable == "no"


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("value: 80.9", "value: eighty", "rows.0.metrics.ari.value"),
        ("value: 80.9", "value: 80.9, spread: 0.3", "spread_kind"),
        ("source: b, ", "", "rows.0.source"),
        ("protocol: p", "protocol: q", "protocol 'q' is not described"),
        ("scale: 0.01", "scale: 0", "scale"),
        ("version: 1", "version: 1\nnote: x", "note"),
        ("task: t", "task: other", "'other' is not 't'"),
        ("task: t", "task: [", "not a YAML file"),
    ],
)
def test_a_wrong_file_names_file_and_field(tmp_path: Path, old: str, new: str, field: str) -> None:
    folder = _write(tmp_path, ROW.replace(old, new))
    with pytest.raises(UsageError, match=r"t\.yaml") as caught:
        load_published("t", folder)
    assert field in str(caught.value)
    assert "\n" not in str(caught.value)

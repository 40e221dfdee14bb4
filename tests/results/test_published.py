from pathlib import Path

import pytest

from ocl_bench.cards.task import load_task
from ocl_bench.core.errors import UsageError
from ocl_bench.core.paths import bundled
from ocl_bench.results.published import PublishedRow, PublishedTable, load_all, load_published
from ocl_bench.tables.leaderboard.published_page import published_page

ROW = """
task: t
version: 1
scale: 0.01
protocols: {p: what was done}
cards: {p: t}
rows:
  - {model: m, paper: a, source: b, evidence: paper, protocol: p, comparable: no, why: split, seeds: [0, 1],
     metrics: {ari: {value: 80.9}}}
"""
OTHER = (
    ROW.replace(
        "task: t", "task: null\ntitle: rows of no card\nmeasures: {speed: {describe: times as fast, high: null}}"
    )
    .replace("version: 1\n", "")
    .replace("cards: {p: t}\n", "")
)
DIAS_METRICS = ("ari_int64_legacy", "fg_ari", "mbo_all", "miou_all")
DIAS_ROWS = {
    "clevrtex-dias-v3": {
        "DIAS": ((80.9, 79.1, 63.3, 61.9), "readme"),
        "DIAS (v1)": ((80.9, 79.1, 63.3, 61.9), "readme"),
        "SLATE": ((17.4, 87.4, 44.5, 43.3), "readme"),
        "DINOSAUR": ((49.6, 89.4, 52.1, 51.7), "readme"),
        "DINOSAUR (v1)": ((50.7, 89.4, 53.3, 52.8), "code"),
        "SlotDiffusion": ((66.1, 82.7, 54.3, 53.4), "readme"),
        "VQDINO-Tfd": ((55.4, 85.9, 54.4, 53.6), "readme"),
        "VQDINO-Mlp": ((64.8, 88.8, 56.1, 55.7), "readme"),
        "VQDINO-Mlp (v1)": ((66.0, 88.7, 57.0, 56.6), "code"),
        "VQDINO-Dfz": ((72.2, 81.9, 57.6, 56.8), "readme"),
        "SPOT": ((25.6, 77.1, 48.2, 46.3), "readme"),
        "SmoothSA": ((76.8, 82.2, 60.6, 58.9), "readme"),
    },
    "coco-dias-v3": {
        "DIAS": ((25.6, 41.2, 31.7, 30.2), "readme"),
        "DIAS (v1)": ((22.0, 41.4, 31.1, 29.7), "readme"),
        "SLATE": ((20.5, 28.8, 27.4, 26.1), "readme"),
        "SLATE (v1)": ((17.5, 28.8, 26.8, 25.4), "code"),
        "DINOSAUR": ((21.1, 37.0, 28.7, 27.3), "readme"),
        "DINOSAUR (v1)": ((18.2, 37.0, 28.3, 26.9), "code"),
        "SlotDiffusion": ((20.6, 29.0, 27.5, 26.1), "readme"),
        "SlotDiffusion (v1)": ((17.7, 29.0, 27.0, 25.6), "code"),
        "VQDINO-Tfd": ((24.4, 31.5, 30.2, 28.8), "readme"),
        "VQDINO-Mlp": ((22.1, 36.0, 29.1, 27.8), "readme"),
        "VQDINO-Dfz": ((21.2, 28.7, 27.7, 26.4), "readme"),
        "SPOT": ((23.7, 40.4, 30.9, 29.3), "readme"),
        "SPOT (v1)": ((20.0, 40.0, 30.2, 28.6), "readme"),
        "SmoothSA": ((29.3, 41.3, 33.4, 31.8), "readme"),
    },
    "voc-dias-v3": {
        "DIAS": ((30.9, 33.5, 43.4, 42.4), "readme"),
        "DIAS (v1)": ((26.6, 33.7, 43.3, 42.4), "readme"),
        "SLATE": ((22.4, 26.3, 37.8, 36.6), "readme"),
        "SLATE (v1)": ((18.6, 26.2, 37.2, 36.1), "code"),
        "DINOSAUR": ((25.7, 36.3, 41.2, 40.2), "readme"),
        "DINOSAUR (v1)": ((21.5, 36.2, 40.6, 39.7), "code"),
        "SlotDiffusion": ((20.3, 21.6, 35.6, 34.4), "readme"),
        "SlotDiffusion (v1)": ((17.0, 21.7, 35.2, 34.0), "code"),
        "VQDINO-Tfd": ((26.9, 26.9, 40.5, 39.5), "readme"),
        "VQDINO-Mlp": ((25.9, 35.6, 41.5, 40.6), "readme"),
        "VQDINO-Dfz": ((22.6, 24.4, 37.3, 36.3), "readme"),
        "SPOT": ((24.5, 31.0, 40.1, 38.6), "readme"),
        "SPOT (v1)": ((20.3, 33.5, 40.1, 38.7), "readme"),
        "SmoothSA": ((35.0, 33.6, 45.2, 43.9), "readme"),
    },
}
# (file, model, protocol, evidence, printed numbers): what must not get lost or change when the files are edited.
HEADLINES = [
    (
        "coco-detection",
        "SlotCon (COCO, 800 epochs)",
        "mask-rcnn-fpn-1x",
        "secondary",
        {"ap_box": 41.0, "ap_mask": 37.0},
    ),
    ("coco-detection", "MoCo (ImageNet, 200 epochs)", "mask-rcnn-fpn-1x", "readme", {"ap_box": 39.4, "ap_mask": 35.6}),
    ("coco-detection", "PixPro (ImageNet, 100 epochs)", "mask-rcnn-fpn-1x", "readme", {"ap_box": 40.8}),
    ("voc-segmentation", "SlotCon (COCO, 800 epochs)", "fcn-finetuned", "secondary", {"miou_sem": 71.6}),
    ("cityscapes-segmentation", "SlotCon (COCO, 800 epochs)", "fcn-finetuned", "secondary", {"miou_sem": 76.2}),
    ("ade20k-segmentation", "SlotCon (COCO, 800 epochs)", "fcn-finetuned", "secondary", {"miou_sem": 39.0}),
    ("cocostuff-segmentation", "SlotCon", "slotcon-a3", "secondary", {"miou_sem": 18.26, "pixel_acc": 42.36}),
    ("imagenet-knn", "ODIS (ViT-L, masks at inference)", "odis", "abstract", {"knn_top1": 82.6}),
    ("imagenet-knn", "DINOv2 recipe (ViT-L/16, ImageNet-1k)", "dinov2", "readme", {"knn_top1": 81.6}),
    ("imagenet-knn", "DINO (ViT-S/16)", "dino", "readme", {"knn_top1": 74.5}),
    ("imagenet-knn", "iBOT (ViT-L/16)", "ibot", "readme", {"knn_top1": 78.0}),
    ("movi-c", "SlotContrast", "slotcontrast", "readme", {"fg_ari_video": 69.3, "mbo_video": 32.7}),
    ("movi-e", "SlotContrast", "slotcontrast", "readme", {"fg_ari_video": 82.9, "mbo_video": 29.2}),
    ("ytvis-2021", "SlotContrast", "slotcontrast", "readme", {"fg_ari_video": 38.0, "mbo_video": 33.7}),
    ("movi-c", "SAVi", "slotcontrast", "readme", {"fg_ari_video": 22.2, "mbo_video": 13.6}),
    ("movi-e", "STEVE", "slotcontrast", "readme", {"fg_ari_video": 50.6, "mbo_video": 26.6}),
    ("movi-e", "VideoSAURv2 (DINOv2)", "slotcontrast", "readme", {"fg_ari_video": 77.1, "mbo_video": 34.4}),
    ("coco-recognition", "SmoothSA", "smoothsa-2026-04", "readme", {"top1": 89.3, "box_iou": 49.5, "n_matched": 5210}),
    ("other/size-and-speed", "SlotMatch", "slotmatch-v3", "abstract", {"parameter_ratio": 3.6, "speed_ratio": 2.7}),
    ("other/size-and-speed", "SlotMatch", "slotmatch-v1", "abstract", {"parameter_ratio": 3.6, "speed_ratio": 1.9}),
    ("other/differences", "ODIS", "odis-knn", "readme", {"knn_difference": 1.2}),
    ("other/imagenet-linear", "iBOT (ViT-L/16)", "ibot", "readme", {"linear_top1": 81.0}),
    ("other/genera1z-video", "RandSF.Q", "ytvis-hq-v3", "readme", {"ari_video_int64": 41.5, "mbo_video_all": 39.4}),
    ("other/genera1z-video", "DIAS", "ytvis-hq-v1", "code", {"ari_video_int64": 33.6, "mbo_video_all": 36.1}),
    ("other/savi-conditional", "SAVi++", "savi-movi-e", "readme", {"fg_ari_video": 85.1}),
]


@pytest.fixture(scope="module")
def tables() -> dict[str, PublishedTable]:
    return load_all()


def _row(table: PublishedTable, model: str, protocol: str | None = None) -> PublishedRow:
    rows = [row for row in table.rows if row.model == model and protocol in (None, row.protocol)]
    assert len(rows) == 1, (model, protocol)
    return rows[0]


def _write(folder: Path, text: str) -> Path:
    (folder / "t.yaml").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("task", sorted(DIAS_ROWS))
def test_every_image_row_of_dias_and_its_baselines_is_there(tables: dict[str, PublishedTable], task: str) -> None:
    for model, (numbers, evidence) in DIAS_ROWS[task].items():
        row = _row(tables[task], model)
        assert tuple(row.metrics[name].value for name in DIAS_METRICS) == numbers, model
        assert row.evidence == evidence, model
        assert row.comparable == ("no" if "(v1" in model else "yes")
        assert all(printed.spread is not None for printed in row.metrics.values())
        assert row.seeds == (() if "(v1" in model else (42, 43, 44))


@pytest.mark.parametrize(("file", "model", "protocol", "evidence", "numbers"), HEADLINES)
def test_headline_rows_are_there(
    tables: dict[str, PublishedTable], file: str, model: str, protocol: str, evidence: str, numbers: dict[str, float]
) -> None:
    row = _row(tables[file], model, protocol)
    assert {name: row.metrics[name].value for name in numbers} == numbers
    assert row.evidence == evidence


@pytest.mark.parametrize("metric", DIAS_METRICS)
@pytest.mark.parametrize("task", sorted(DIAS_ROWS))
def test_printed_mean_and_spread_are_those_of_the_printed_seeds(
    tables: dict[str, PublishedTable], task: str, metric: str
) -> None:
    """Mean and sample deviation in the README must follow from the per-seed spreadsheet."""
    seeds = [_row(tables[task], f"DIAS (seed {seed})").metrics[metric].value for seed in (42, 43, 44)]
    printed = _row(tables[task], "DIAS").metrics[metric]
    mean = sum(seeds) / 3
    deviation = (sum((value - mean) ** 2 for value in seeds) / 2) ** 0.5
    assert abs(mean - printed.value) <= 0.051
    assert printed.spread is not None
    assert abs(deviation - printed.spread) <= 0.051


def test_odis_with_boxes_stands_beside_dinov2_without(tables: dict[str, PublishedTable]) -> None:
    odis = _row(tables["imagenet-knn"], "ODIS (ViT-L, masks at inference)")
    dinov2 = _row(tables["imagenet-knn"], "DINOv2 recipe (ViT-L/16, ImageNet-1k)")
    assert (odis.privilege, dinov2.privilege) == ("boxes", "none")
    assert tables["imagenet-knn"].cards[odis.protocol] == "imagenet-knn-boxes"
    assert odis.comparable == dinov2.comparable == "no"


def test_rows_with_boxes_of_the_first_frame_say_so(tables: dict[str, PublishedTable]) -> None:
    for file in ("other/genera1z-video", "other/savi-conditional"):
        for row in tables[file].rows:
            assert row.privilege == ("none" if row.protocol.startswith("ytvis") else "boxes")


def test_slotcon_is_never_comparable(tables: dict[str, PublishedTable]) -> None:
    """Fine-tuned models and models with unpublished settings are not comparable with frozen models."""
    rows = [row for table in tables.values() for row in table.rows if row.model.startswith("SlotCon ")]
    assert len(rows) >= 11
    assert all(row.comparable == "no" for row in rows)


def test_versions_are_those_of_the_cards(tables: dict[str, PublishedTable]) -> None:
    for name, table in tables.items():
        if table.task is not None:
            assert table.version == load_task(bundled("tasks") / f"{name}.yaml").version


def test_every_described_protocol_and_measure_has_a_row(tables: dict[str, PublishedTable]) -> None:
    for name, table in tables.items():
        assert set(table.protocols) == {row.protocol for row in table.rows}, name
        assert set(table.measures) <= {metric for row in table.rows for metric in row.metrics}, name


def test_a_task_without_published_rows_has_none() -> None:
    assert load_published("clevrtex") is None


def test_bare_no_is_read_as_no(tmp_path: Path) -> None:
    table = load_published("t", _write(tmp_path, ROW))
    assert table is not None
    assert table.rows[0].comparable == "no"


def test_a_value_may_have_a_scale_of_its_own(tmp_path: Path) -> None:
    text = ROW.replace("ari: {value: 80.9}", "ari: {value: 80.9}, n_matched: {value: 5061, scale: 1}")
    table = load_published("t", _write(tmp_path, text))
    assert table is not None
    assert [table.shown(printed)[0] for printed in table.rows[0].metrics.values()] == pytest.approx([0.809, 5061])


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("value: 80.9", "value: eighty", "'rows.0.metrics.ari.value'"),
        ("value: 80.9", "value: .nan", "'rows.0.metrics.ari.value'"),
        ("value: 80.9", "value: .inf", "'rows.0.metrics.ari.value'"),
        ("value: 80.9", "value: 809", "'rows.0.metrics.ari': 8.09 (value * scale) is outside"),
        ("value: 80.9", "value: -101", "'rows.0.metrics.ari': -1.01 (value * scale) is outside"),
        ("ari: {value: 80.9", "mbo_fg: {value: -1", "'rows.0.metrics.mbo_fg': -0.01 (value * scale) is outside"),
        ("value: 80.9", "value: 80.9, spread: 0.3", "spread_kind"),
        ("value: 80.9", "value: 80.9, spread_kind: unstated", "spread_kind"),
        ("value: 80.9", "value: 80.9, spread: -1, spread_kind: unstated", "'rows.0.metrics.ari.spread'"),
        ("value: 80.9", "value: 80.9, spread: 300, spread_kind: unstated", "'rows.0.metrics.ari': the spread 3 "),
        ("value: 80.9", "value: 80.9, scale: 0", "'rows.0.metrics.ari.scale'"),
        ("ari: {", "mIoU: {", "'rows.0.metrics.mIoU': is not a metric of this suite"),
        ("metrics: {ari: {value: 80.9}}", "metrics: {}", "'rows.0.metrics'"),
        ("source: b, ", "", "'rows.0.source'"),
        ("source: b", "source: ' '", "'rows.0.source'"),
        ("evidence: paper", "evidence: hearsay", "'rows.0.evidence'"),
        ("evidence: paper, ", "", "'rows.0.evidence'"),
        ("why: split", "why: ''", "'rows.0.why'"),
        ("seeds: [0, 1]", "seeds: [1, 1]", "'rows.0.seeds'"),
        ("protocol: p", "protocol: q", "protocol 'q' is not described"),
        ("comparable: no", "comparable: maybe", "'rows.0.comparable'"),
        ("cards: {p: t}", "cards: {q: t}", "'cards.q'"),
        ("cards: {p: t}", "cards: {p: nowhere}", "'cards.p': 'nowhere' is not a task card"),
        ("cards: {p: t}", "measures: {speed: {describe: x}}", "'measures'"),
        ("scale: 0.01", "scale: 0", "'scale'"),
        ("version: 1", "version: 1\nnote: x", "'note'"),
        ("version: 1\n", "", "'version'"),
        ("task: t", "task: other", "'other' is not 't'"),
        ("task: t", "task: [", "not a YAML file"),
    ],
)
def test_a_wrong_file_names_file_and_field(tmp_path: Path, old: str, new: str, field: str) -> None:
    assert old in ROW
    folder = _write(tmp_path, ROW.replace(old, new))
    with pytest.raises(UsageError, match=r"t\.yaml") as caught:
        load_published("t", folder)
    assert field in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_second_row_of_one_model_and_protocol_is_refused(tmp_path: Path) -> None:
    row = ROW[ROW.index("  - {model") :]
    table = load_published("t", _write(tmp_path, ROW + row.replace("model: m", "model: n")))
    assert table is not None and len(table.rows) == 2
    with pytest.raises(UsageError, match=r"t\.yaml: field 'rows\.1\.model'"):
        load_published("t", _write(tmp_path, ROW + row))


def test_only_the_protocol_of_the_card_is_comparable(tmp_path: Path) -> None:
    text = ROW.replace("comparable: no", "comparable: yes")
    assert load_published("t", _write(tmp_path, text)) is not None
    with pytest.raises(UsageError, match=r"t\.yaml: field 'rows\.0\.comparable'"):
        load_published("t", _write(tmp_path, text.replace("cards: {p: t}\n", "")))


def test_a_file_of_a_card_has_metrics_of_the_card_only(tmp_path: Path) -> None:
    text = ROW.replace("task: t", "task: movi-c").replace("{p: t}", "{p: movi-c}")
    (tmp_path / "movi-c.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"movi-c\.yaml: field 'rows\.0\.metrics\.ari': is not a metric of the card"):
        load_published("movi-c", tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("title: rows of no card\n", "", "'title'"),
        ("scale: 0.01", "scale: 0.01\nversion: 1", "'version'"),
        ("comparable: no", "comparable: yes", "'rows.0.comparable'"),
        ("ari: {", "ap_large: {", "'rows.0.metrics.ap_large': is not a metric of this suite and is not described"),
        ("speed: {", "fg_ari: {", "'measures.fg_ari': is the name of a metric of this suite"),
        ("high: null", "low: 2", "'measures.speed.low'"),
        ("task: null", "task: t", "'task'"),
    ],
)
def test_rows_without_a_card_have_rules_too(tmp_path: Path, old: str, new: str, field: str) -> None:
    assert old in OTHER
    (tmp_path / "other").mkdir()
    _write(tmp_path / "other", OTHER)
    assert [(name, len(table.rows)) for name, table in load_all(tmp_path).items()] == [("other/t", 1)]
    _write(tmp_path / "other", OTHER.replace(old, new))
    with pytest.raises(UsageError, match=r"other.t\.yaml") as caught:
        load_all(tmp_path)
    assert field in str(caught.value)


def test_a_measure_without_a_bound_takes_any_value(tmp_path: Path) -> None:
    text = OTHER.replace("ari: {value: 80.9}", "speed: {value: 270}")
    (tmp_path / "other").mkdir()
    _write(tmp_path / "other", text)
    assert load_all(tmp_path)["other/t"].rows[0].metrics["speed"].value == 270
    _write(tmp_path / "other", text.replace("value: 270", "value: -1"))
    with pytest.raises(UsageError, match=r"'rows\.0\.metrics\.speed': -0\.01 .* 0 to inf"):
        load_all(tmp_path)


def test_the_page_has_every_row_with_its_source_and_is_the_committed_one(tables: dict[str, PublishedTable]) -> None:
    page = published_page(tables)
    assert page == published_page(load_all())
    lines = page.splitlines()
    for name, table in tables.items():
        section = lines[lines.index(f"## {name}") :]
        for row in table.rows:
            assert any(line.startswith(f"| {row.model} |") and row.source in line for line in section), row.model
    assert page == (bundled("leaderboards") / "published.md").read_text(encoding="utf-8")
    assert "5210 ± 223 |" in page and "| 39.0 |" in page and "80.9 ± 0.3 (sample sd)" in page

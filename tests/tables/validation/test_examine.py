"""A result is believed only as far as its rows, cards and predictions prove it: every alteration is found and named."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow.parquet
import pytest
from clevrtex_tree import write_scenes
from tiny_evaluation import tiny_plan, tiny_task
from typer.testing import CliRunner

import ocl_bench
from ocl_bench import evaluate
from ocl_bench.cards.names import get_task
from ocl_bench.cli import app
from ocl_bench.core.errors import UsageError
from ocl_bench.core.paths import bundled
from ocl_bench.evaluation import run as evaluation
from ocl_bench.families.summary import summarise
from ocl_bench.results.record import read_result, read_rows
from ocl_bench.results.rows import write_rows
from ocl_bench.tables.validation.examine import examine, validate
from ocl_bench.tables.validation.rescoring import draw
from ocl_bench.tables.validation.submission import submit

COUNT = 24
RECORDED = (
    "identity.created",
    "identity.command",
    "identity.suite_version",
    "identity.commit",
    "identity.dirty",
    "model.parameters",
    "model.input_size",
    "model.arrays",
    "setup.device",
    "setup.threads",
    "setup.batch_size",
    "setup.versions",
    "counts.remarks",
    "cost.seconds_model",
    "cost.peak_memory_mb",
)
"""What a file says and nothing in it can prove (docs/submit.md names these)."""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, COUNT)
    return root


@pytest.fixture(scope="module")
def made(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A floor with two noise seeds and saved predictions, evaluated by the real corridor."""
    result = evaluate(
        "random",
        "clevrtex",
        data_root=scenes,
        noise_seeds=(0, 1),
        results=tmp_path_factory.mktemp("results"),
        save_predictions=True,
        progress=False,
    )
    assert result.path is not None
    return result.path


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy, without predictions, that a test may change."""
    shutil.copy(made.with_suffix(".parquet"), tmp_path)
    return Path(shutil.copy(made, tmp_path))


def fields(path: Path) -> set[str]:
    return {problem.field for problem in validate(path)}


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_rows(path: Path, change: Callable[[pandas.DataFrame], pandas.DataFrame]) -> None:
    """Change the rows and write their hash into the result, as somebody would who wants to be believed."""
    parquet = path.with_suffix(".parquet")
    write_rows(change(read_rows(parquet)), parquet)
    sha256 = hashlib.sha256(parquet.read_bytes()).hexdigest()
    edit(path, lambda content: content["rows"].update(sha256=sha256))


def leaves(content: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else None
    if items is None or not content:
        yield place, content
        return
    for key, value in items:
        yield from leaves(value, (*place, key))


def other(value: Any) -> Any:
    """Another value of the same kind, near the first one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return -value if value in (1, -1) else value + (1 if isinstance(value, int) else 1e-6)
    if isinstance(value, str):
        return f"{'1' if value[:1] == '0' else '0'}{value[1:]}"
    return {None: 1}.get(value) if value is None else [1] if isinstance(value, list) else {"more": 1}


def put(content: Any, place: tuple[str | int, ...], value: Any) -> None:
    for key in place[:-1]:
        content = content[key]
    content[place[-1]] = value


def test_what_the_corridor_wrote_is_valid(run: Path) -> None:
    found = examine(run)
    assert found.valid and (found.images, found.metrics) == (2 * COUNT, len(get_task("clevrtex").metrics))
    assert found.skipped == ("samples were not scored again: no predictions are attached",)
    assert ocl_bench.validate(run) == []


def test_every_field_that_is_altered_is_found(run: Path) -> None:
    """One leaf of the JSON at a time, by as little as 1e-6; those that are only recorded are listed above."""
    original = json.loads(run.read_text())
    silent, metrics = [], list(original["metrics"])
    for place, value in leaves(original):
        name = ".".join(map(str, place))
        if name.startswith(RECORDED) or (place[0] == "metrics" and place[1] in metrics[2:]):
            continue  # the metrics differ in nothing but their name: two of them stand for all
        content = json.loads(json.dumps(original))
        put(content, place, other(value))
        run.write_text(json.dumps(content))
        if not validate(run):
            silent.append(name)
    assert silent == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda c: c["metrics"]["ari"].update(value=0.99), "metrics.ari.value"),
        (lambda c: c["metrics"]["ari"].update(value=1.5), "metrics.ari.value"),
        (lambda c: c["metrics"]["ari"].update(value=math.nan), "metrics.ari.value"),
        (lambda c: c["metrics"]["ari"].update(value=math.inf), "metrics.ari.value"),
        (lambda c: c["metrics"]["ari"].update(value=None), "metrics.ari.value"),
        (lambda c: c["metrics"]["ari"]["ci95"].__setitem__(0, -2), "metrics.ari.ci95.0"),
        (lambda c: c["metrics"]["ari"].update(ci95=[-0.1, 0.1]), "metrics.ari.ci95"),
        (lambda c: c["metrics"]["ari"].update(n_valid=3), "metrics.ari.n_valid"),
        (lambda c: c["metrics"]["ari"].update(direction=-1), "metrics.ari.direction"),
        (lambda c: c["metrics"].pop("ari"), "metrics.ari"),
        (lambda c: c["metrics"].update(vi=c["metrics"]["ari"]), "metrics.vi"),
        (lambda c: c["metrics"].update(best=c["metrics"]["ari"]), "metrics.best"),
        (lambda c: c["rows"].update(sha256="0" * 64), "rows.sha256"),
        (lambda c: c["rows"].update(file="../other.parquet"), "rows.file"),
        (lambda c: c["identity"].update(key="0" * 64), "identity.key"),
        (lambda c: c["identity"].update(status="failed samples"), "identity.status"),
        (lambda c: c["task"].update(hash="0" * 64), "task.hash"),
        (lambda c: c["task"].update(name="../tasks/clevrtex"), "task.name"),
        (lambda c: c["task"].update(signature="ari│v1"), "task.signature"),
        (lambda c: c["data"].update(ids_sha256="0" * 64), "data.ids_sha256"),
        (lambda c: c["data"].update(limit=3), "data.limit"),
        (lambda c: c["counts"].update(attempted=1000), "counts.attempted"),
        (lambda c: c["counts"].update(failed=[{"id": "x", "error": "e"}]), "identity.status"),
        (lambda c: c["model"].update(name="dias"), "model.name"),
        (lambda c: c["model"].update(name="dias", card=""), "model.card"),
        (lambda c: c["model"].update(card="../x"), "model.card"),
        (lambda c: c["model"].update(role="model"), "model.role"),
        (lambda c: c["model"].update(privilege="truth"), "model.privilege"),
        (lambda c: c["model"].update(supervision="boxes"), "model.supervision"),
        (lambda c: c["model"].update(training_seed=1), "model.training_seed"),
        (lambda c: c["model"]["options"].update(temperature=math.nan), "model.options.temperature"),
        (lambda c: c["seeds"].update(noise=[0]), "seeds.noise"),
        (lambda c: c["cost"].update(images_per_second=1e6), "cost.images_per_second"),
        (lambda c: c["cost"].update(seconds_total=-1), "cost.seconds_total"),
        (lambda c: c["setup"].update(threads=0), "setup.threads"),
        (lambda c: c["setup"].update(batch_size=-16), "setup.batch_size"),
        (lambda c: c.update(schema=99), "schema"),
        (lambda c: c.update(note="x"), "note"),
        (lambda c: c.pop("data"), "data"),
        (lambda c: c.update(fit={"head": "linear"}), "fit.kind"),
        (lambda c: c["metrics"]["ari"].update(value=str(c["metrics"]["ari"]["value"])), "metrics.ari.value"),
        (lambda c: c["metrics"]["ari"].update(n_valid=float(c["metrics"]["ari"]["n_valid"])), "metrics.ari.n_valid"),
        (lambda c: c["cost"].update(peak_memory_mb=True), "cost.peak_memory_mb"),
        (lambda c: c["identity"].update(dirty="no"), "identity.dirty"),
        (lambda c: c["identity"].update(command="\ud800"), "result"),
        (lambda c: c["rows"].update(file="a" * 5000), "rows.file"),
        (lambda c: c["data"].update(kind="embedded"), "data.kind"),
        (lambda c: c["data"].update(kind="embedded", revision="embedded-r9-00000000"), "data.revision"),
        (lambda c: c["data"].update(revision="embedded-r1-00000000"), "data.kind"),
        (lambda c: c["model"].update(checkpoint_sha256="mine"), "model.checkpoint_sha256"),
        (lambda c: c["model"].update(name="a|b", card="", role="model"), "model.name"),
        (lambda c: c["model"].update(name="a\nb", card="", role="model"), "model.name"),
        (lambda c: c["model"].update(name=" ", card="", role="model"), "model.name"),
        (lambda c: c["model"].update(name="mine", card="", role="ceiling"), "model.role"),
        (lambda c: c["model"].update(name="dias-seed1", card="", role="model"), "model.card"),
        (lambda c: c["model"].update(name="Dias", card="", role="model"), "model.card"),
        (lambda c: c["model"].update(name="grid:\u00b2"), "model.name"),
        (lambda c: c["model"].update(name="grid:01"), "model.name"),
        (lambda c: c["identity"].update(created="tomorrow"), "identity.created"),
        (lambda c: c["identity"].update(created="9999-01-01T00:00:00+00:00"), "identity.created"),
        (lambda c: c.update(schema=True), "schema"),
    ],
)
def test_the_field_is_named(run: Path, change: Callable[[dict[str, Any]], Any], field: str) -> None:
    edit(run, change)
    assert field in fields(run)


def test_all_problems_are_listed(run: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["metrics"]["ari"]["value"] = 0.9
        content["metrics"]["fg_ari"]["value"] = 0.8
        content["counts"]["scored"] = 7

    edit(run, change)
    assert fields(run) == {"metrics.ari.value", "metrics.fg_ari.value", "counts.scored"}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda rows: rows.iloc[1:], "rows.noise_seed"),
        (lambda rows: rows.iloc[2:], "data.ids_sha256"),
        (lambda rows: pandas.concat([rows, rows.iloc[:1]]), "rows.id"),
        (lambda rows: rows.replace({"id": {rows["id"].iloc[0]: "new"}}), "data.ids_sha256"),
        (lambda rows: rows.assign(noise_seed=[5, *rows["noise_seed"][1:]]), "seeds.noise"),
        (lambda rows: rows.assign(ari=[0.5, *rows["ari"][1:]]), "metrics.ari.value"),
        (lambda rows: rows.assign(ari=[np.nan] * 2 + list(rows["ari"][2:])), "metrics.ari.n_valid"),
        (lambda rows: rows.assign(ari=[np.inf, *rows["ari"][1:]]), "rows.ari"),
        (lambda rows: rows.assign(mbo_fg=[-0.1, *rows["mbo_fg"][1:]]), "rows.mbo_fg"),
        (lambda rows: rows.assign(n_objects=1), "counts.single_object_share"),
        (lambda rows: rows.drop(columns="ari"), "rows"),
        (lambda rows: rows.drop(columns="id"), "rows.id"),
        (lambda rows: rows.iloc[:0].astype({"id": str}), "counts.scored"),
        (lambda rows: rows.assign(id=[None, *rows["id"][1:]]), "rows.id"),
        (lambda rows: rows.assign(id=[value.encode() for value in rows["id"]]), "rows.id"),
        (lambda rows: rows.assign(id=[[value] for value in rows["id"]]), "rows.id"),
        (lambda rows: rows.assign(noise_seed=[[value] for value in rows["noise_seed"]]), "rows.noise_seed"),
        (lambda rows: rows.assign(noise_seed=rows["noise_seed"].astype(float)), "rows.noise_seed"),
        (lambda rows: rows.assign(n_objects="2"), "rows.n_objects"),
        (lambda rows: rows.assign(n_objects=-1), "rows.n_objects"),
        (lambda rows: rows.assign(n_frames="2"), "rows.n_frames"),
        (lambda rows: rows.assign(object_size=7.0), "rows.object_size"),
        (lambda rows: rows.assign(object_contact="x"), "rows.object_contact"),
    ],
)
def test_rows_that_do_not_belong_are_found_though_their_hash_is_right(
    run: Path, change: Callable[[pandas.DataFrame], pandas.DataFrame], field: str
) -> None:
    edit_rows(run, change)
    assert field in fields(run) and "rows.sha256" not in fields(run)


def test_the_bundled_weights_are_one_training_seed(tmp_path: Path) -> None:
    """The result of the bundled seed, under another seed's name and with the key that belongs to it."""
    source = bundled("leaderboards") / "results" / "clevrtex" / "dias.json"
    shutil.copy(source.with_suffix(".parquet"), tmp_path)
    path = Path(shutil.copy(source, tmp_path))
    edit(path, lambda c: c["model"].update(name="dias:7", training_seed=7))
    assert "model.training_seed" in fields(path)


@pytest.mark.parametrize("columns", [b'{"id": 99}', b'{"id": null}', b'{"id": ["a"]}', b"[]", b"[" * 100_000])
def test_a_damaged_table_of_columns_is_a_problem_and_no_crash(run: Path, columns: bytes) -> None:
    parquet = run.with_suffix(".parquet")
    table = pyarrow.parquet.read_table(parquet)
    pyarrow.parquet.write_table(table.replace_schema_metadata({b"ocl_bench.columns": columns}), parquet)
    assert fields(run) == {"rows.sha256", "rows.file"}


def test_files_of_a_size_that_no_result_has_are_not_read(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocl_bench.evaluation.examination.rows.LARGEST_ROWS", 100)
    assert fields(run) == {"rows.file"}
    monkeypatch.setattr("ocl_bench.evaluation.examination.examine_file.LARGEST_RESULT", 100)
    with pytest.raises(UsageError, match="MB, a result at most"):
        examine(run)


def test_links_are_refused(run: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    parquet = Path(shutil.move(run.with_suffix(".parquet"), outside))
    run.with_suffix(".parquet").symlink_to(parquet)
    assert fields(run) == {"rows.file"}
    link = tmp_path / "link.json"
    link.symlink_to(run)
    with pytest.raises(UsageError, match="symbolic link"):
        examine(link)


def test_missing_and_damaged_rows(run: Path) -> None:
    run.with_suffix(".parquet").write_bytes(b"nothing")
    assert fields(run) == {"rows.sha256", "rows.file"}
    run.with_suffix(".parquet").unlink()
    assert fields(run) == {"rows.file"}


def test_failed_samples_count_as_attempted(scenes: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(scenes, root)
    next(root.rglob("*_000003.png")).write_bytes(b"broken")
    result = evaluate("grid", "clevrtex", data_root=root, results=tmp_path, progress=False)
    assert result.path is not None and len(result.counts.failed) == 1
    assert validate(result.path) == []
    edit(result.path, lambda content: content["counts"].update(failed=[]))
    assert fields(result.path) >= {"identity.status", "counts.attempted", "data.ids_sha256"}


def test_the_key_of_a_users_model_is_said_to_be_unchecked_where_its_source_is_part_of_it(
    scenes: Path, tmp_path: Path
) -> None:
    source = tmp_path / "mine.py"
    source.write_text("from two_halves import Halves\n\n\ndef build():\n    return Halves()\n")
    result = evaluate(f"{source}:build", "clevrtex", data_root=scenes, results=tmp_path, progress=False)
    assert result.path is not None
    found = examine(result.path)
    assert found.valid and found.skipped[0].startswith("identity.key: the source of a user's own model")


def forge(run: Path, sample_id: str) -> None:
    """Raise one row, and everything that follows from it: consistent, and not what the model predicted."""
    edit_rows(run, lambda rows: rows.assign(mbo_fg=rows["mbo_fg"].where(rows["id"] != sample_id, 0.9)))
    result, rows = read_result(run), read_rows(run)
    task = get_task("clevrtex")
    summary = summarise(rows, task, result.model.mask_source)
    text = {name: value.model_dump(mode="json") for name, value in summary.items()}
    edit(run, lambda content: content.update(metrics=text))


def test_predictions_give_a_forger_away(made: Path, run: Path, scenes: Path) -> None:
    predictions = made.with_suffix(".predictions")
    honest = examine(run, predictions=predictions, data_root=scenes)
    assert (honest.problems, honest.skipped, honest.rescored) == ((), (), 20)
    rows = read_rows(run)
    forge(run, draw(rows["id"].tolist(), read_result(run).identity.key)[0])
    assert validate(run) == []
    (problem,) = validate(run, predictions=predictions, data_root=scenes)
    assert problem.field == "rows.mbo_fg" and "2 rows are not what the saved predictions give" in problem.message


def test_predictions_beside_the_file_are_found_and_a_missing_one_is_a_problem(
    made: Path, run: Path, scenes: Path
) -> None:
    folder = run.with_suffix(".predictions")
    shutil.copytree(made.with_suffix(".predictions"), folder)
    assert examine(run, data_root=scenes).rescored == 20
    for png in folder.glob("seed-1/*.png"):
        png.unlink()
    assert "predictions" in {problem.field for problem in validate(run, data_root=scenes)}


@pytest.fixture
def listed(scenes: Path, tmp_path: Path) -> Path:
    """A run of five samples of a list, with saved predictions."""
    ids = tmp_path / "ids.txt"
    ids.write_text("".join(f"CLEVRTEX_full_{number:06d}\n" for number in (17, 3, 4, 9, 22)))
    how = {"data_root": scenes, "results": tmp_path, "save_predictions": True, "progress": False}
    path = evaluate("random", "clevrtex", ids=ids, **how).path
    assert path is not None and read_result(path).data.listed == 5
    return path


def test_a_run_of_a_list_is_valid_and_scored_again(listed: Path, scenes: Path, tmp_path: Path) -> None:
    found = examine(listed, data_root=scenes)
    assert (found.problems, found.skipped, found.rescored) == ((), (), 5)
    made = submit(listed, tmp_path / "out", data_root=scenes)
    assert made.files == () and [problem.field for problem in made.validation.problems] == ["data.listed"]


@pytest.mark.parametrize("count", [4, 6, 24, None])
def test_another_length_of_a_list_is_found(listed: Path, count: int | None) -> None:
    edit(listed, lambda content: content["data"].update(listed=count))
    assert fields(listed) >= ({"data.listed"} if count else {"identity.key"})


def test_a_sample_that_is_left_out_of_a_list_is_found(listed: Path) -> None:
    edit_rows(listed, lambda rows: rows[rows["id"] != rows["id"].iloc[0]].reset_index(drop=True))
    assert {"data.listed", "data.ids_sha256", "counts.attempted"} & fields(listed) >= {"data.ids_sha256"}


def test_rescoring_is_skipped_with_the_reason_where_the_data_are_not_there(
    made: Path, run: Path, tmp_path: Path
) -> None:
    predictions = made.with_suffix(".predictions")
    few = tmp_path / "few"
    write_scenes(few, 3)
    reasons = {
        None: "pass --data-root",
        tmp_path / "nowhere": "the data are not there",
        few: "the data here differ",
    }
    for root, reason in reasons.items():
        found = examine(run, predictions=predictions, data_root=root)
        assert found.valid and found.rescored == 0 and reason in found.skipped[-1]
    assert fields(run) == set()
    assert {p.field for p in validate(run, predictions=tmp_path / "no")} == {"predictions"}


def test_the_draw_depends_on_nothing_but_the_key() -> None:
    ids = [f"s{number:03d}" for number in range(100)]
    assert draw(ids, "ab" * 32) == draw(ids[::-1] + ids, "ab" * 32) == sorted(draw(ids, "ab" * 32))
    assert len(set(draw(ids, "ab" * 32))) == 20 and draw(ids, "ab" * 32) != draw(ids, "cd" * 32)
    assert draw(ids[:3], "ab" * 32) == ids[:3]


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00", "[" * 100_000, '{"a": 1, "a": 2}'])
def test_what_is_no_json_object_is_a_usage_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"x\.json"):
        validate(path)
    with pytest.raises(UsageError, match="cannot be read"):
        validate(tmp_path / "y.json")


def test_the_verb_lists_all_problems_and_its_exit_code_tells_refused_from_unreadable(run: Path, tmp_path: Path) -> None:
    fine = CliRunner().invoke(app, ["validate", str(run)])
    assert fine.exit_code == 0 and fine.stdout.startswith(f"ok       {run}: 6 metrics computed again from 48 rows")
    bad = tmp_path / "bad.json"
    bad.write_text(run.read_text().replace(run.with_suffix(".parquet").name, "bad.parquet"))
    shutil.copy(run.with_suffix(".parquet"), tmp_path / "bad.parquet")
    edit(bad, lambda content: [content["metrics"][name].update(value=0.9) for name in ("ari", "fg_ari")])
    refused = CliRunner().invoke(app, ["validate", str(run), str(bad)])
    assert refused.exit_code == 1 and "REFUSED" in refused.stdout
    assert all(f"    metrics.{name}.value: 0.9, but the rows give" in refused.stdout for name in ("ari", "fg_ari"))
    both = CliRunner().invoke(app, ["validate", "--json", str(bad), str(tmp_path / "no.json")])
    content = json.loads(both.stdout)
    assert both.exit_code == 2 and len(content["unreadable"]) == 1 and content["results"][0]["valid"] is False
    assert [problem["field"] for problem in content["results"][0]["problems"]] == [
        "metrics.ari.value",
        "metrics.fg_ari.value",
    ]


COMMITTED = (
    "clevrtex/grid",
    "coco-detection/grid",
    "coco-detection-slot/dias",
    "voc-segmentation/encoder",
    "cocostuff-segmentation/grid",
    "coco-recognition/dias",
    "imagenet-knn/pixels",
    "movi-c/grid",
    "davis-2017/grid",
)


@pytest.mark.parametrize("name", COMMITTED)
def test_committed_results_of_each_family_are_valid(name: str) -> None:
    path = bundled("leaderboards") / "results" / f"{name}.json"
    found = examine(path)
    assert found.problems == () and found.metrics == len(read_result(path).task.metrics)


def test_a_result_of_an_own_card_is_checked_with_the_card(tmp_path: Path) -> None:
    result = evaluation.run(tiny_plan("grid"), results=tmp_path, progress=False)
    assert result.path is not None
    (alone,) = validate(result.path)
    assert alone.field == "task.name" and "or pass --task CARD" in alone.message
    with_card = examine(result.path, task=tiny_task())
    assert {problem.field for problem in with_card.problems} <= {"data.kind", "data.revision"}  # data in memory
    assert not any(reason.field == "task.hash" for reason in with_card.not_ranked)
    edit(result.path, lambda content: content["metrics"]["mbo_fg"].update(value=0.9))
    assert "metrics.mbo_fg.value" in {problem.field for problem in examine(result.path, task=tiny_task()).problems}
    other = examine(result.path, task="clevrtex")
    assert any("is not the task of the given card, 'clevrtex'" in problem.message for problem in other.problems)

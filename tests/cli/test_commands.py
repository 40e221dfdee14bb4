"""The command line: what goes to stdout, exit codes, one-line errors, and the next useful command."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from tiny_evaluation import HERE
from typer.testing import CliRunner, Result

from ocl_bench.cli import app
from ocl_bench.cli.console import print_metrics, print_result
from ocl_bench.data.getting.catalogue import find_data_set
from ocl_bench.results.record import json_schema, read_result


def call(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Four images with masks and a task card for the folder reader."""
    generator = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for number in range(4):
        labels = np.zeros((32, 32), np.uint8)
        labels[4:14, 4 + number : 20] = 1
        labels[20:28, 8:30] = 2
        image = generator.integers(0, 40, (32, 32, 3)) + 70 * labels[..., None]
        Image.fromarray(image.astype(np.uint8)).save(tmp_path / "images" / f"i{number}.png")
        Image.fromarray(labels).save(tmp_path / "masks" / f"i{number}.png")
    card = (
        "name: mine\nversion: 1\nfamily: discovery\ndata: {reader: folder}\n"
        "protocol: {input: 32, score_at: 32}\nmetrics: [mbo_fg, ari, fg_ari]\nmain: mbo_fg\n"
    )
    (tmp_path / "mine.yaml").write_text(card)
    return tmp_path


def run_eval(images: Path, *arguments: Any, model: str = HERE) -> Result:
    return call("eval", "-m", model, "-t", images / "mine.yaml", "--results", images / "results", *arguments)


def test_eval_prints_everything_that_belongs_to_a_number(images: Path) -> None:
    result = run_eval(images, "--floors", "--no-pictures")
    assert result.exit_code == 0, result.output
    for text in (
        "tiny_evaluation-build",
        "mbo_fg ↑ (main)",
        "n = 4",
        "±",
        "grid (floor)",
        "kmeans (floor)",
        "patch-oracle",
    ):
        assert text in result.stdout, text
    for text in ("signature: crop:none│mask:attention│", "images/s", ".json", ".parquet"):
        assert text in result.stdout, text
    assert "single object" not in result.stdout, "each image shows two"
    assert "next: ocl-bench leaderboard --task mine" in result.stdout
    last = result.stdout.splitlines()[-1]
    assert last.startswith("result: model=tiny_evaluation-build task=mine metric=mbo_fg value=0.") and " key=" in last
    board = images / "results" / "leaderboards" / "mine.csv"
    assert "tiny_evaluation-build" in board.read_text() and str(board) in result.stdout
    assert "supplied" in result.stderr


def test_images_with_a_single_object_are_counted_beside_fg_ari(images: Path) -> None:
    labels = np.zeros((32, 32), np.uint8)
    labels[4:14, 4:20] = 1
    Image.fromarray(labels).save(images / "masks" / "i2.png")
    assert "\n1 of 4 images show a single object: FG-ARI is 1 there if" in run_eval(images, "--no-pictures").stdout


def test_on_a_narrow_terminal_names_are_cut_between_words(images: Path) -> None:
    result = run_eval(images, "--floors", "--no-pictures", "--json")
    stored = next((images / "results").rglob(f"{json.loads(result.stdout)['identity']['key'][:8]}.json"))
    shown = io.StringIO()
    console = Console(file=shown, width=44, force_terminal=True, color_system=None)
    print_result(console, read_result(stored), [])
    table = shown.getvalue().partition("signature")[0].splitlines()
    assert max(map(len, table)) <= 44
    words = {word for line in table for word in line.split()}
    assert {"mbo_fg", "fg_ari", "tiny_", "evaluation-", "build"} <= words and any(
        word.startswith("±") for word in words
    )


def test_floors_keep_their_predictions_with_those_of_the_model(images: Path) -> None:
    """A report needs them: results of floors that are there without predictions are no reason to leave them out."""
    assert run_eval(images, "--floors", "--no-pictures").exit_code == 0
    assert not list((images / "results").rglob("*.predictions"))
    assert run_eval(images, "--floors", "--no-pictures", "--save-predictions").exit_code == 0
    kept = {folder.parent.name for folder in (images / "results").rglob("*.predictions")}
    assert {"tiny_evaluation-build", "grid", "kmeans"} <= kept


def test_eval_draws_a_picture(images: Path) -> None:
    result = run_eval(images)
    assert result.exit_code == 0, result.output
    (picture,) = (images / "results").rglob("*.png")
    with Image.open(picture) as drawn:
        assert drawn.size[0] > 300 and "picture:" in result.stdout
    assert "--floors computes" in result.stderr


def test_json_is_exactly_the_result(images: Path) -> None:
    result = run_eval(images, "--json", "--no-pictures", "--seeds", "0..1")
    content = json.loads(result.stdout)
    jsonschema.validate(content, json_schema())
    assert content["seeds"]["noise"] == [0, 1] and content["data"]["kind"] == "supplied"
    assert "finished before" in run_eval(images, "--json", "--no-pictures", "--seeds", "0,1").stderr
    assert "finished before" not in run_eval(images, "--json", "--no-pictures", "--seeds", "0,1", "--force").stderr


def test_failed_samples_give_exit_code_1_and_keep_the_others(images: Path) -> None:
    (images / "masks" / "i2.png").write_bytes(b"no picture")
    result = run_eval(images, "--json", "--no-pictures")
    content = json.loads(result.stdout)
    assert result.exit_code == 1 and content["counts"]["scored"] == 3
    assert [failure["id"] for failure in content["counts"]["failed"]] == ["i2"]
    assert "failed: sample i2" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["eval", "-m", "gird", "-t", "clevrtex"], 2, "unknown model 'gird'; did you mean grid?"),
        (["eval", "-m", "grid", "-t", "clevrtx"], 2, "unknown task 'clevrtx'; did you mean clevrtex"),
        (["eval", "-m", "grid", "-t", "clevrtex", "--data-root", "/nowhere"], 3, "/nowhere"),
        (["eval", "-m", "grid", "-t", "clevrtex", "-o", "rows"], 2, "write key=value"),
        (["eval", "-m", "grid", "-t", "clevrtex", "--seeds", "a"], 2, "--seeds a"),
        (["eval", "-m", "grid", "-t", "clevrtex", "--device", "toaster"], 2, "device 'toaster'"),
        (["eval", "-m", "grid", "-t", "clevrtex", "-o", "rows=["], 2, "--option rows=[: is not a YAML value"),
        (["eval", "-m", "grid", "-t", "clevrtex-ood", "--split", "val"], 2, "'outd' is not split"),
        (["show", "gird"], 2, "no card 'gird'; did you mean grid?"),
        (["replay", "none.json"], 2, "none.json"),
        (["tune", "-m", "grid", "-t", "clevrtex", "-o", "rows=3"], 2, "exactly one option"),
        (["tune", "-m", "grid", "-t", "clevrtex", "-o", "rows=9..3"], 2, "range 9..3"),
        (["tune", "-m", "grid", "-t", "clevrtex", "-o", "rows=1,3", "--split", "test"], 2, "is scored on it"),
        (["eval", "-m", "my_model.py", "-t", "clevrtex"], 2, "write my_model.py:build"),
    ],
)
def test_errors_are_one_line_on_stderr(arguments: list[str], code: int, message: str) -> None:
    result = call(*arguments)
    assert result.exit_code == code and message in result.stderr and result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_talking_model_does_not_spoil_json(images: Path, tmp_path: Path) -> None:
    path = tmp_path / "talks.py"
    path.write_text(
        "import torch\nfrom ocl_bench import Prediction\n"
        "class M:\n    def predict(self, batch):\n        print('hello')\n"
        "        return Prediction(masks=torch.ones(len(batch), 1, 2, 2), mask_source='decoder')\nbuild = M\n"
    )
    result = run_eval(images, "--json", "--no-pictures", model=f"{path}:build")
    assert json.loads(result.stdout)["model"]["name"] == "talks-build" and "hello" in result.stderr
    assert json.loads(call("check-model", "-m", f"{path}:build", "--json").stdout)[0]["passed"]


def test_results_that_cannot_be_written_are_one_line(images: Path) -> None:
    (images / "file").write_text("")
    result = call("eval", "-m", "grid", "-t", images / "mine.yaml", "--results", images / "file", "--no-pictures")
    assert result.exit_code == 2 and f"error: {images / 'file'}" in result.stderr.splitlines()[-1]


def test_a_limited_result_says_so(images: Path) -> None:
    assert "not ranked: limited to 2 samples" in run_eval(images, "--no-pictures", "--limit", 2).stdout
    assert "not ranked" not in run_eval(images, "--no-pictures").stdout


def test_ids_are_listed_and_a_list_is_scored_unranked(images: Path) -> None:
    listed = call("show", "--ids", images / "mine.yaml")
    ids = listed.stdout.split()
    assert listed.exit_code == 0 and len(ids) >= 3 and "images of" in listed.stderr
    assert json.loads(call("show", images / "mine.yaml", "--ids", "--json").stdout) == ids
    chosen = images / "chosen.txt"
    chosen.write_text(f"{ids[2]}\n{ids[0]}\n")
    result = run_eval(images, "--no-pictures", "--ids", chosen)
    assert result.exit_code == 0 and "not ranked: a list of 2 samples (--ids)" in result.stdout
    assert "# all images" in result.stdout
    found = json.loads(run_eval(images, "--no-pictures", "--json", "--ids", chosen).stdout)
    assert found["data"]["listed"] == found["counts"]["attempted"] == 2
    whole = json.loads(run_eval(images, "--no-pictures", "--json").stdout)
    assert whole["data"]["listed"] is None and whole["identity"]["key"] != found["identity"]["key"]


def test_the_predictions_of_a_list_are_scored_again(images: Path) -> None:
    ids = call("show", "--ids", images / "mine.yaml").stdout.split()
    (images / "chosen.txt").write_text(f"{ids[1]}\n")
    found = run_eval(images, "--no-pictures", "--json", "--ids", images / "chosen.txt", "--save-predictions")
    key = json.loads(found.stdout)["identity"]["key"][:8]
    (path,) = images.rglob(f"{key}.json")
    again = call("replay", path, "--task", images / "mine.yaml")
    assert again.exit_code == 0 and "equal to the stored numbers" in again.stderr


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "lists no id"),
        ("nothing\n", "1 ids are not in the data, first 'nothing'"),
        ("{0}\n{0}\n", "is listed twice"),
    ],
)
def test_lists_of_ids_that_are_refused(images: Path, text: str, line: str) -> None:
    first = call("show", "--ids", images / "mine.yaml").stdout.split()[0]
    (images / "chosen.txt").write_text(text.format(first))
    result = run_eval(images, "--no-pictures", "--ids", images / "chosen.txt")
    assert result.exit_code == 2 and line in result.stderr
    assert run_eval(images, "--no-pictures", "--ids", images / "none.txt").exit_code == 3
    assert "give only one of them" in run_eval(images, "--ids", images / "chosen.txt", "--limit", "1").stderr


def test_unknown_verbs_and_options_are_usage_errors() -> None:
    assert call("evall").exit_code == 2
    assert call("eval", "--modle", "grid").exit_code == 2
    assert call("eval", "-m", "grid").exit_code == 2


def test_the_next_command_repeats_what_makes_the_model_another_one(images: Path) -> None:
    arguments = ["--no-pictures", "--limit", "2", "--option", "slots=2"]
    shown = run_eval(images, *arguments).stdout
    (line,) = [line for line in shown.splitlines() if line.startswith("next: ")]
    assert "--option slots=2" in line and f"--task {images / 'mine.yaml'}" in line


def test_interrupt_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: Any, **keywords: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ocl_bench.cli.evaluation.make_plan", interrupt)
    result = call("eval", "-m", "grid", "-t", "clevrtex")
    assert result.exit_code == 130 and "run the same command again to go on" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        "compare a b --out",
        "report nothing.json --out",
        "profile --model grid --against grid --out",
        "export --checkpoint nothing.pth --to torchvision --out",
        "leaderboard --out",
        "claims --out",
        "submit nothing.json --out",
        "train --model grid --out",
        "site --out",
        "figures --out",
    ],
)
def test_a_place_that_cannot_be_written_is_said_first(tmp_path: Path, words: str) -> None:
    (tmp_path / "file").write_text("")
    done = call(*words.split(), tmp_path / "file/below")
    assert done.exit_code == 2 and done.stderr.startswith("error: --out ") and done.stderr.count("\n") == 1
    assert "file: not a folder" in done.stderr


def test_a_link_to_a_folder_without_data_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = call("data", "link", "ade20k", tmp_path / "empty", "--data-root", tmp_path / "data")
    assert done.exit_code == 3 and "empty: nothing was found there" in done.stderr.splitlines()[-1]


def test_a_link_of_the_user_stays_where_its_data_are_not_found(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").mkdir()
    link = tmp_path / "data" / find_data_set("ade20k").folder
    link.symlink_to(tmp_path / "disk", target_is_directory=True)  # a disk that is not mounted now
    done = call("data", "link", "ade20k", tmp_path / "disk", "--data-root", tmp_path / "data")
    assert done.exit_code == 3 and link.is_symlink()


def test_list_and_show() -> None:
    assert "clevrtex" in call("list").stdout and "grid" in json.loads(call("list", "models", "--json").stdout)
    # A script reads bare names; a person at a terminal gets direction, families and meaning.
    assert "mbo_fg" in call("list", "metrics").stdout.splitlines()
    terminal = Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)
    print_metrics(terminal, ["mbo_fg", "vi"])
    lines = terminal.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line.split()[:3] for line in lines[1:]] == [["mbo_fg", "↑", "discovery"], ["vi", "↓", "discovery"]]
    assert "mbo_fg" in json.loads(call("list", "metrics", "--json").stdout)
    shown = call("show", "fg_ari").stdout
    assert "adjusted Rand index" in shown and "-1 to 1; higher is better" in shown and "arXiv:1903.00450" in shown
    assert json.loads(call("show", "vi", "--json").stdout)["direction"] == -1
    assert "did you mean fg_ari" in call("show", "fg_arii").stderr
    task = call("show", "clevrtex").stdout
    assert "crop:center-0.8│" in task and "_flat.png" in task and "without --data-root: 512 scenes" in task
    assert "ceiling" in call("show", "patch-oracle").stdout
    assert json.loads(call("show", "clevrtex", "--json").stdout)["main"] == "mbo_fg"


def test_check_model(tmp_path: Path) -> None:
    good = call("check-model", "-m", HERE)
    assert good.exit_code == 0 and "next: ocl-bench eval" in good.stdout
    path = tmp_path / "bad.py"
    path.write_text("class M:\n    def predict(self, batch):\n        return batch\nbuild = M\n")
    bad = call("check-model", "-m", f"{path}:build")
    assert bad.exit_code == 2 and "expected a Prediction" in " ".join(bad.stdout.split())
    assert [check["passed"] for check in json.loads(call("check-model", "-m", f"{path}:build", "--json").stdout)][
        :2
    ] == [True, False]


def test_score_and_replay(images: Path) -> None:
    task = images / "mine.yaml"
    scored = call("score", "-t", task, "--masks", images / "masks", "--results", images / "r", "--json")
    assert scored.exit_code == 0, scored.output
    assert json.loads(scored.stdout)["metrics"]["mbo_fg"]["value"] == 1
    saved = json.loads(
        call("eval", "-m", HERE, "-t", "clevrtex", "--limit", 2, "--save-predictions", "--no-pictures", "--json").stdout
    )
    from ocl_bench.core.paths import results_root

    path = results_root() / "clevrtex" / "tiny_evaluation-build" / f"{saved['identity']['key'][:8]}.json"
    again = call("replay", path, "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["metrics"] == saved["metrics"]
    mask = next(path.with_suffix(".predictions").rglob("*.png"))
    Image.fromarray(np.zeros_like(np.asarray(Image.open(mask)))).save(mask)
    assert call("replay", path).exit_code == 1
    run_eval(images, "--save-predictions", "--no-pictures")
    (path,) = (images / "results").rglob("tiny_evaluation-build/*.json")
    assert call("replay", path).exit_code == 2
    assert call("replay", path, "--task", task).exit_code == 0


def test_tune_chooses_on_the_validation_split(tmp_path: Path) -> None:
    result = call(
        "tune", "-m", "grid", "-t", "clevrtex", "-o", "rows=1,3", "-o", "columns=3",
        "--limit", 4, "--results", tmp_path, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert content["split"] == "val" and [row["value"] for row in content["tried"]] == [1, 3]
    values = [row["metrics"]["mbo_fg"] for row in content["tried"]]
    assert content["best"] == [1, 3][int(np.argmax(values))]
    assert json.loads(Path(content["path"]).read_text())["best"] == content["best"]
    written = [json.loads(path.read_text()) for path in tmp_path.rglob("grid/*.json") if path.stem != "rows"]
    assert {entry["data"]["split"] for entry in written} == {"val"}


def test_schema_verb() -> None:
    assert json.loads(call("schema").stdout) == json_schema()


def test_log_gives_each_result_to_a_tracker(images: Path) -> None:
    """TensorBoard's files lie beside the result; without --log there are none."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert run_eval(images, "--no-pictures").exit_code == 0
    assert not list(images.rglob("*tfevents*"))
    done = run_eval(images, "--no-pictures", "--json", "--log", "tensorboard")
    stored = json.loads(done.stdout)
    (file,) = images.rglob("*tfevents*")
    scalars = EventAccumulator(str(file.parent)).Reload()
    assert file.parent.name == f"mine-tiny_evaluation-build-{stored['identity']['key'][:8]}"
    for name, metric in stored["metrics"].items():
        assert scalars.Scalars(f"final/{name}")[0].value == pytest.approx(metric["value"])
        assert scalars.Scalars(f"final/{name}_low")[0].value == pytest.approx(metric["ci95"][0])
    run_eval(images, "--no-pictures", "--log", "tensorboard", model="grid,single-slot")
    assert {one.parent.name.rpartition("-")[0] for one in images.rglob("*tfevents*")} > {
        "mine-grid",
        "mine-single-slot",
    }
    refused = run_eval(images, "--log", "neptune")
    assert refused.exit_code == 2 and "unknown tracker; use wandb" in refused.stderr

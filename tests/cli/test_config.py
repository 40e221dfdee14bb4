"""`eval --config`: options from a YAML file, below those that are typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ocl_bench.cli import app
from ocl_bench.results.record import read_result

CONFIG = """\
model: slot-attention
task: clevrtex
limit: 3
seeds: [1, 2]
option: {slots: 5, iterations: 2}
batch-size: 2
pictures: false
checkpoint: null
"""


def call(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def write(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("equals", [False, True])
def test_typed_options_go_over_those_of_the_file(tmp_path: Path, equals: bool) -> None:
    path = write(tmp_path, CONFIG)
    config = [f"--config={path}"] if equals else ["--config", path]
    done = call("eval", "--limit", 2, *config, "--option", "slots=4", "--results", tmp_path)
    assert done.exit_code == 0, done.output
    (found,) = (tmp_path / "clevrtex/slot-attention").glob("*.json")
    result = read_result(found)
    assert result.data.limit == 2 and result.seeds.noise == (1, 2) and result.setup.batch_size == 2
    assert (result.model.options["slots"], result.model.options["iterations"]) == (4, 2)
    assert not found.with_suffix(".png").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modle: dias", "'modle' is no option; did you mean model"),
        ("nonsense_key: 1", "there are model, task, data_root, limit"),
        ("config: other.yaml", "'config' is no option"),
        ("- dias", "holds no options"),
        ("model: [", "is not YAML"),
        ("model: dias\nmodel: grid", "is not YAML"),
        ("floors: 7", "floors: is 7, expected true or false"),
        ("option: slots=7", "option: is 'slots=7', expected a mapping"),
        ("limit: {a: 1}", "limit: is {'a': 1}, expected one value"),
        ("limit: 2.5", "--limit"),
        ("limit: true", "--limit"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path, text: str, message: str) -> None:
    done = call("eval", "-m", "grid", "-t", "clevrtex", "--config", write(tmp_path, text))
    assert done.exit_code == 2 and message in done.stderr, done.output


def test_a_missing_file_and_a_second_one_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, CONFIG)
    for arguments, message in (
        (("--config", tmp_path / "none.yaml"), "none.yaml: cannot be read"),
        (("--config",), "name one YAML file"),
        (("--config", path, "--config", path), "name one YAML file"),
    ):
        done = call("eval", *arguments)
        assert done.exit_code == 2 and message in done.stderr, done.output

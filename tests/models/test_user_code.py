"""A user's model file works as with `python model.py`, and its errors point at its own lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocl_bench.core.errors import UsageError
from ocl_bench.models.loading import get_model

HEAD = "from ocl_bench import Prediction\n\nclass M:\n    fingerprint = 'm'\n    def predict(self, batch): ...\n"


def test_a_dataclass_with_postponed_annotations(tmp_path: Path) -> None:
    text = "from __future__ import annotations\nfrom dataclasses import dataclass\n\n"
    text += "@dataclass\nclass C:\n    k: int = 4\n\n"
    (tmp_path / "model.py").write_text(text + HEAD + "def build():\n    M.k = C().k\n    return M()\n")
    assert get_model(f"{tmp_path / 'model.py'}:build").model.k == 4


def test_a_module_and_data_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net_beside.py").write_text("K = 7\n")
    (tmp_path / "model.py").write_text(
        HEAD + "import net_beside\n\ndef build():\n    M.k = net_beside.K\n    return M()\n"
    )
    monkeypatch.chdir(tmp_path.parent)
    assert get_model(f"{tmp_path / 'model.py'}:build").model.k == 7


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("import torch; torch.nn.Linear(2, 2).load_state_dict({})", "RuntimeError: Error.* line 7"),
        ("raise KeyError('state_dict')", "KeyError: 'state_dict', in .*model.py line 7"),
        ("import torch; torch.load('/nowhere/last.ckpt')", "FileNotFoundError: .*model.py line 7"),
        ("return helper()", "ZeroDivisionError: division by zero, in .*model.py line 10"),
        ("raise SystemExit(3)", "SystemExit: 3, in .*model.py line 7"),
    ],
)
def test_an_error_of_build_is_one_line_with_the_place_in_their_file(tmp_path: Path, body: str, message: str) -> None:
    text = f"{HEAD}def build():\n    {body}\n\ndef helper():\n    return 1 / 0\n"
    (tmp_path / "model.py").write_text(text)
    with pytest.raises(UsageError, match=f"building it failed .{message}") as caught:
        get_model(f"{tmp_path / 'model.py'}:build")
    assert "\n" not in str(caught.value)


def test_an_error_of_importing_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("x = 1\n\nimport no_such_module_anywhere\n")
    with pytest.raises(UsageError, match=r"importing it failed .ModuleNotFoundError: .*model.py line 3"):
        get_model(f"{tmp_path / 'model.py'}:build")

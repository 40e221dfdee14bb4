"""Optional packages: one line where one is missing, and another where it is there and broken."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ocl_bench.core.errors import UsageError
from ocl_bench.core.optional import MissingPackageError, import_optional


def test_a_package_that_is_there() -> None:
    assert import_optional("json.decoder", "plots", "x") is sys.modules["json.decoder"]


def test_a_missing_package_is_a_usage_error_and_an_import_error() -> None:
    with pytest.raises(MissingPackageError) as caught:
        import_optional("no_such_package.part", "plots", "drawing a picture")
    assert str(caught.value) == "drawing a picture needs no_such_package; pip install 'ocl-bench[plots]'"
    assert isinstance(caught.value, UsageError) and isinstance(caught.value, ImportError)
    assert caught.value.exit_code == 2


def test_a_package_without_one_that_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lone_package.py").write_text("import no_such_package.part")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingPackageError, match=r"^x needs no_such_package; pip install 'ocl-bench\[timm\]'$"):
        import_optional("lone_package", "timm", "x")


@pytest.mark.parametrize("kind", ["RuntimeError", "ImportError"])
def test_a_broken_package_is_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    (tmp_path / "broken_package.py").write_text(f"raise {kind}('torch is another one\\nmore')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        MissingPackageError, match=r"^x needs broken_package, which cannot be imported \(.+\); pip"
    ) as e:
        import_optional("broken_package", "video", "x")
    assert "\n" not in str(e.value)

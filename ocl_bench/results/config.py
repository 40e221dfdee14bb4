"""The options of `eval` as a YAML file: what a result was asked for, beside it, and what `--config` reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..core.errors import UsageError
from ..core.files import parse_yaml, read_text, write_atomically

_HEAD = "# What this result was asked for. To compute it again and compare: ocl-bench reproduce {name}.json\n"


def write_config(result: Path, config: Mapping[str, Any]) -> None:
    """Write the options beside a result file, which need not be there yet."""
    path = result.with_suffix(".yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    text = _HEAD.format(name=result.stem) + yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
    write_atomically(path, lambda target: target.write_text(text, encoding="utf-8"))


def read_config(path: Path) -> dict[str, Any]:
    """The options of a file; `-` in names becomes `_`. Raises UsageError for a file that holds no options."""
    try:
        content = parse_yaml(read_text(path))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UsageError(f"{path}: is not YAML ({error})") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: holds no options; write lines such as 'model: dias' and 'task: clevrtex'")
    return {str(name).replace("-", "_"): value for name, value in content.items()}

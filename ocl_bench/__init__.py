"""ocl-bench: how good is this object-centric model, and compared with what?

Public names are resolved on first use, so that `import ocl_bench` and `ocl-bench --help` stay fast (no torch).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cardnames import get_task as get_task
    from .comparison import compare as compare
    from .evaluate import evaluate as evaluate
    from .modelcard import ModelCard as ModelCard
    from .modelcard import load_model_card as load_model_card
    from .registry import get_model as get_model
    from .results import Result as Result
    from .results import read_result as read_result
    from .results import read_rows as read_rows
    from .spec import TaskSpec as TaskSpec
    from .spec import load_task as load_task
    from .types import Batch as Batch
    from .types import Model as Model
    from .types import Prediction as Prediction
    from .validation import validate as validate

_HOMES = {
    "compare": "comparison",
    "evaluate": "evaluate",
    "get_model": "registry",
    "get_task": "cardnames",
    "Result": "results",
    "read_result": "results",
    "read_rows": "results",
    "ModelCard": "modelcard",
    "TaskSpec": "spec",
    "load_model_card": "modelcard",
    "load_task": "spec",
    "Batch": "types",
    "Model": "types",
    "Prediction": "types",
    "validate": "validation",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("ocl-bench")
    if name not in _HOMES:
        raise AttributeError(f"module 'ocl_bench' has no attribute '{name}'")
    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value  # `ocl_bench.evaluate` is the function, also after the module of that name was imported
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

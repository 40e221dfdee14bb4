"""ocl-bench: an evaluation suite for object-centric models.

Public names are resolved on first use: `import ocl_bench` and `ocl-bench --help` stay fast because torch is not loaded.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cards.model import ModelCard as ModelCard
    from .cards.model import load_model_card as load_model_card
    from .cards.names import get_task as get_task
    from .cards.task import TaskSpec as TaskSpec
    from .cards.task import load_task as load_task
    from .core.types import OVERLAP as OVERLAP
    from .core.types import VOID as VOID
    from .core.types import Batch as Batch
    from .core.types import Instance as Instance
    from .core.types import Model as Model
    from .core.types import Prediction as Prediction
    from .core.types import Sample as Sample
    from .core.types import Truth as Truth
    from .evaluation.check_model import check_model as check_model
    from .evaluation.evaluate import evaluate as evaluate
    from .models.loading import get_model as get_model
    from .pages.report.build import report as report
    from .results.collection import Results as Results
    from .results.collection import load_results as load_results
    from .results.record import Result as Result
    from .results.record import read_result as read_result
    from .results.rows import read_rows as read_rows
    from .tables.comparison.compare import compare as compare
    from .tables.validation.examine import validate as validate
    from .training.scoring import TaskScorer as TaskScorer

# The imports above are for type checkers and editors; this table is for the interpreter.
_HOMES = {
    "check_model": "evaluation.check_model",
    "compare": "tables.comparison.compare",
    "evaluate": "evaluation.evaluate",
    "get_model": "models.loading",
    "get_task": "cards.names",
    "Result": "results.record",
    "Results": "results.collection",
    "load_results": "results.collection",
    "read_result": "results.record",
    "read_rows": "results.rows",
    "report": "pages.report.build",
    "ModelCard": "cards.model",
    "TaskScorer": "training.scoring",
    "TaskSpec": "cards.task",
    "load_model_card": "cards.model",
    "load_task": "cards.task",
    "Batch": "core.types",
    "Instance": "core.types",
    "Model": "core.types",
    "OVERLAP": "core.types",
    "Prediction": "core.types",
    "Sample": "core.types",
    "Truth": "core.types",
    "VOID": "core.types",
    "validate": "tables.validation.examine",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("ocl-bench")
    if name not in _HOMES:
        raise AttributeError(f"module 'ocl_bench' has no attribute '{name}'")
    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value  # the next access finds it without this function
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

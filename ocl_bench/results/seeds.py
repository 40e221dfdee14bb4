"""Which results are training seeds of one method: one name, other weights, and everything else equal.

Bundled models and models of users follow the same rule, on boards, in `compare` and in `claims`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..core.errors import UsageError
from .record import Result
from .store import where

_SEED_OPTIONS = ("seed", "training_seed")
_IS_FILE = re.compile(r".*\.[A-Za-z]\w*")
_UNKNOWN = ("", None)
"""Values of fields that older results did not record; they agree with any value."""


def base_name(result: Result) -> str:
    """The name of the method, without the training seed."""
    return result.model.name.partition(":")[0]


def options_but_seed(options: dict[str, Any], seed: int | None) -> dict[str, Any]:
    """The options with `<seed>` in place of the training seed, where an option can hold nothing else.

    That is an option called `seed`, or the number in the name of a file: `weights=run1.pt` of training seed 1 and
    `weights=run2.pt` of training seed 2 belong to one method. Any other option that differs makes another method.
    """
    if seed is None:
        return options
    return {name: _without_seed(name, value, seed) for name, value in options.items()}


def _without_seed(name: str, value: Any, seed: int) -> Any:
    if name in _SEED_OPTIONS and value == seed and not isinstance(value, bool):
        return "<seed>"
    if isinstance(value, str) and _IS_FILE.fullmatch(value):
        return re.sub(rf"(?<!\d)0*{seed}(?!\d)", "<seed>", value)
    return value


def method_of(result: Result) -> dict[str, Any]:
    """What training seeds of one method share, by the field of the result."""
    model = result.model
    return {
        "model.name": base_name(result),
        "model.card": bool(model.card),
        "model.options": options_but_seed(model.options, model.training_seed),
        "model.code_sha256": model.code_sha256,
        "model.parameters": model.parameters,
        "model.input_size": model.input_size,
        "model.mask_source": model.mask_source,
        "model.supervision": model.supervision,
        "model.privilege": model.privilege,
        "setup.dtype": result.setup.dtype,
    }


def as_seeds(results: Sequence[Result]) -> list[Result]:
    """The results that were given as training seeds of one method; without recorded seeds, they are numbered in order.

    Raises:
        UsageError: they are not of one method, or a training counts twice. It names the file and the field.
    """
    results = _numbered(results)
    first, method = results[0], method_of(results[0])
    owners: dict[tuple[str, object], Result] = {}
    for result in results:
        for field, value in method_of(result).items():
            if value != method[field] and not (field in _NEWER and {value, method[field]} & set(_UNKNOWN)):
                raise UsageError(f"{where(result)}: {_difference(field, result, first)}")
        _check_once(result, owners)
    return results


_NEWER = ("model.code_sha256", "model.input_size")
"""Fields that older results do not have."""


def _numbered(results: Sequence[Result]) -> list[Result]:
    """The results with a training seed each, where none of several has one."""
    without = [result for result in results if result.model.training_seed is None]
    if len(results) == 1 or not without:
        return list(results)
    if len(without) < len(results):
        raise UsageError(
            f"{where(without[0])}: model.training_seed is not recorded, though others of this side have one; "
            "evaluate it with --training-seed N"
        )
    models = (result.model.model_copy(update={"training_seed": seed}) for seed, result in enumerate(results))
    return [result.model_copy(update={"model": model}) for result, model in zip(results, models, strict=True)]


def _difference(field: str, result: Result, first: Result) -> str:
    """Why a result is not of the method of the first one."""
    if field == "model.name":
        return f"model.name is not of {first.model.name}; one side is one method"
    if field == "model.card":
        return f"model.card is {result.model.card!r}, that of {where(first)} is {first.model.card!r}; name one method"
    section, _, name = field.partition(".")
    here, there = (getattr(getattr(one, section), name) for one in (result, first))
    verb, those = ("are", "those") if name in ("options", "parameters") else ("is", "that")
    advice = "evaluate all with the same files" if name == "code_sha256" else "training seeds of one method share them"
    return f"{field} {verb} {here}, {those} of {first.model.name} {verb} {there}; {advice}"


def _check_once(result: Result, owners: dict[tuple[str, object], Result]) -> None:
    """Raise UsageError when a training stands twice among the results of one side; `owners` gets the result."""
    model = result.model
    # A copied checkpoint under another seed would count as a second, equal training.
    for field in ("state", "arrays", "checkpoint_sha256"):
        value = getattr(model, field)
        owner = owners.setdefault((field, value), result)
        if value and owner.model.training_seed != model.training_seed:
            text = f"model.{field} is also that of {where(owner)}; another training seed is another checkpoint"
            raise UsageError(f"{where(result)}: {text}")
    other = owners.setdefault(("training_seed", model.training_seed), result)
    if other is not result:
        text = f"model.training_seed is {model.training_seed}, as that of {where(other)}; name one of them"
        raise UsageError(f"{where(result)}: {text}")

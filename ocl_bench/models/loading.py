"""Loading of models by card name, `name:SEED`, card file, `path.py:build` or entry point, or from a plain object."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cards.model import load_model_card
from ..cards.names import CARDS, WEIGHTS, get_card, model_names, name_of_file
from ..core import entry_points
from ..core.errors import UsageError, first_problem
from .backbone_names import split_name
from .declared import Declared, is_bundled
from .fingerprint import arrays_fingerprint, state_fingerprint
from .loaded import LoadedModel as LoadedModel
from .options import TypedOptions, as_declared, check_sizes, known_options, unknown_option
from .plain_module import WithMasks
from .sources import files_of, sources_sha256
from .user_code import load_attribute, own_errors

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from ..cards.model import ModelCard


def get_model(
    name: Any,
    *,
    checkpoint: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    device: str = "cpu",
    declared: Declared | None = None,
) -> LoadedModel:
    """Build a model and load its weights.

    Args:
        name: a card name, `name:SEED` (another training seed), the path of a model card (YAML), `path.py:build`, an
            entry point name, a backbone `hub:NAME` or `timm:NAME`, or any object with `predict`.
        checkpoint: a `.safetensors` file (or a `.pt` that holds plain tensors) instead of the card's weights.
        options: keyword arguments for the model's factory.
        device: where the model goes.
        declared: name, training seed and supervision, where the caller says them.

    Raises:
        UsageError: the name is unknown, or options, checkpoint or what is declared do not fit.
    """
    declared = declared or Declared()
    # Beside building it, a model is moved, counted and hashed: each may run code of its author.
    with own_errors(f"model {name if isinstance(name, str) else type(name).__name__}: loading it failed"):
        return declared.applied(_load(name, checkpoint, options, device, declared))


def _load(
    name: Any, checkpoint: str | Path | None, options: Mapping[str, Any] | None, device: str, declared: Declared
) -> LoadedModel:
    """The model by its name, or the object, before anything is declared but the training seed of a bundled one."""
    options = options if isinstance(options, TypedOptions) else dict(options or {})
    if not isinstance(name, str):
        return _from_object(name, checkpoint, options, device)
    if match := re.fullmatch(r"(?P<path>.+\.py):(?P<attribute>\w+)", name):
        return _from_file(Path(match["path"]), match["attribute"], checkpoint, options, device)
    if name.endswith((".yaml", ".yml")):
        return _from_card_file(Path(name), checkpoint, options, device)
    if name.endswith(".py"):
        raise UsageError(f"model {name}: also name the function that builds the model: write {name}:build")
    if backbone := split_name(name):
        source, of_source = backbone
        return _from_card(get_card(source), None, checkpoint, {"name": of_source, **options}, device)
    base, _, seed = name.partition(":")
    if seed and not seed.isdigit():
        raise UsageError(f"model {name}: what follows the colon is a training seed, such as {base}:1")
    # A bundled card wins over an entry point of the same name: a package cannot change what a bundled name means.
    if not (CARDS / f"{base}.yaml").is_file() and base in (models := entry_points.offered(entry_points.MODELS)):
        return _from_entry_point(base, models[base], checkpoint, options, device)
    return _from_card(get_card(base), declared.seed_of(int(seed) if seed else None, name), checkpoint, options, device)


def _from_card(
    card: ModelCard, seed: int | None, checkpoint: str | Path | None, options: dict[str, Any], device: str
) -> LoadedModel:
    """Load a bundled model, with its bundled weights, those of another training seed, or a given checkpoint."""
    module, attribute = card.source.split(":")
    factory = getattr(importlib.import_module(module), attribute)
    merged = {**card.options, **as_declared(factory, options)}
    check_sizes(merged)
    model = _build(card.name, factory, merged, card.options)
    bundled_seed = card.training.seed if card.training else None
    another = seed is not None and seed != bundled_seed
    if checkpoint is None and another:
        checkpoint = _trained_here(card, seed)
    path = Path(checkpoint) if checkpoint else WEIGHTS / card.weights if card.weights else None
    sha256 = _load_weights(card.name, model, path, "" if checkpoint else card.sha256)
    sha256 = sha256 or getattr(model, "checkpoint_sha256", "")  # of a model that uses another model's weights
    # A clustering floor is supervised as its encoder is, and the encoder is an option.
    card = card.model_copy(update={"supervision": getattr(model, "supervision", card.supervision)})
    name = f"{card.name}:{seed}" if another else card.name
    training_seed = seed if seed is not None else None if checkpoint else bundled_seed
    loaded = LoadedModel(_ready(model, device), card, name, sha256, _parameters(model), training_seed, merged)
    loaded = replace(loaded, arrays=arrays_fingerprint(model))
    own = {field: getattr(model, field) for field in ("source_sha256", "state", "reusable") if hasattr(model, field)}
    return replace(loaded, **own)  # of a floor on features of a user's own encoder


def _trained_here(card: ModelCard, seed: int | None) -> Path:
    """Return the weights that `ocl-bench train` wrote for a training seed other than the bundled one."""
    path = Path("runs") / f"{card.name}-seed{seed}" / f"{card.name}.safetensors"
    if not path.is_file():
        raise UsageError(
            f"model {card.name}:{seed}: the weights of training seed {seed} are not bundled and {path} does not exist; "
            f"run `ocl-bench train --model {card.name} --seed {seed}` or pass --checkpoint FILE"
        )
    return path


def _from_card_file(path: Path, checkpoint: str | Path | None, options: dict[str, Any], device: str) -> LoadedModel:
    """Load a model by a user's own card. `source` may name a Python file, and `weights` a file, beside the card."""
    card = load_model_card(path)
    if card.role in ("floor", "ceiling"):
        raise UsageError(f"{path}: field 'role': '{card.role}' is reserved for bundled models; use model or control")
    if "supervision" not in card.model_fields_set:
        card = card.model_copy(update={"supervision": "undeclared"})
    if card.name in model_names():
        raise UsageError(f"{path}: field 'name': '{card.name}' is the name of a bundled model; choose another one")
    module, attribute = card.source.split(":")
    if module.endswith(".py"):
        factory, files = load_attribute(path.parent / module, attribute)
    else:
        factory = _attribute(path, module, attribute)
        files = files_of(factory)
    merged = {**card.options, **as_declared(factory, options)}
    model = _build(card.name, factory, merged, card.options)
    weights = Path(checkpoint) if checkpoint else path.parent / card.weights if card.weights else None
    sha256 = _load_weights(card.name, model, weights, "" if checkpoint else card.sha256)
    seed = card.training.seed if card.training and not checkpoint else None
    loaded = LoadedModel(
        _ready(model, device), card, card.name, sha256, _parameters(model), seed, merged, bundled=False
    )
    place = path.resolve()
    # The card belongs to the key, and not to the code: cards of several training seeds name other weights.
    return _identified(loaded, sources_sha256([place, *files], place.parent), sources_sha256(files, place.parent))


def _attribute(card: Path, module: str, attribute: str) -> Any:
    """Import the factory that a user's card names."""
    with own_errors(f"{card}: field 'source': {module}:{attribute} cannot be imported"):
        return getattr(importlib.import_module(module), attribute)


def _from_file(
    path: Path, attribute: str, checkpoint: str | Path | None, options: dict[str, Any], device: str
) -> LoadedModel:
    """Load a model from a user's Python file."""
    factory, files = load_attribute(path, attribute)
    source = sources_sha256(files, path.resolve().parent)
    return _from_user(name_of_file(path, attribute), factory, checkpoint, options, device, source)


def _from_entry_point(
    name: str, entry: EntryPoint, checkpoint: str | Path | None, options: dict[str, Any], device: str
) -> LoadedModel:
    """Load a model that another package offers."""
    with own_errors(f"model {name}: importing {entry.value} failed"):
        factory = entry.load()
    files = files_of(factory)
    source = entry_points.source_sha256(entry) + sources_sha256(files, files[0].parent if files else Path())
    return _from_user(name, factory, checkpoint, options, device, source)


def _from_user(
    name: str, factory: Any, checkpoint: str | Path | None, options: dict[str, Any], device: str, source: str
) -> LoadedModel:
    """Load a model from a user's factory, or from an object that is a model already."""
    options = as_declared(factory, options)
    is_model = hasattr(factory, "predict") and not inspect.isclass(factory)
    model = factory if is_model else _build(name, factory, options)
    sha256 = _load_weights(name, model, Path(checkpoint) if checkpoint else None, "")
    card = _card_of(name, model)
    ready, parameters = _ready(model, device), _parameters(model)
    return _identified(LoadedModel(ready, card, name, sha256, parameters, None, options, bundled=False), source, source)


def _identified(loaded: LoadedModel, source: str, code: str) -> LoadedModel:
    """A user's model with the hash of what it is: its sources, and its state as it was built.

    Nothing identifies a model whose state cannot be seen: its results, heads and banks are never used again.
    source, code: hash of its sources with and without its card.
    """
    state = state_fingerprint(loaded.model)
    identity = hashlib.sha256(f"{source}|{state}".encode()).hexdigest()
    known: dict[str, Any] = {"code_sha256": code, "state": state or "", "arrays": arrays_fingerprint(loaded.model)}
    return replace(loaded, source_sha256=identity, reusable=state is not None, **known)


def _from_object(model: Any, checkpoint: Any, options: dict[str, Any], device: str) -> LoadedModel:
    """Wrap a live object with `predict`."""
    if options or checkpoint:
        raise UsageError("options and checkpoint belong to models given by name; this one is built already")
    if inspect.isclass(model):
        raise UsageError(f"model {model.__name__} is a class; pass an instance: {model.__name__}()")
    card = _card_of(getattr(model, "name", None) or type(model).__name__, model)
    if is_bundled(card.name):  # an object of a bundled class, or of one with the same name, is not the bundled model
        card = card.model_copy(update={"name": f"{card.name}-object"})
    ready, parameters = _ready(model, device), _parameters(model)
    files = files_of(type(model.module if isinstance(model, WithMasks) else model))
    code = sources_sha256(files, files[0].parent) if files else ""
    loaded = LoadedModel(ready, card, card.name, "", parameters, None, {}, bundled=False)
    return replace(_identified(loaded, code, code), reusable=False)  # it may change while it lives


def _card_of(name: Any, model: Any) -> ModelCard:
    """Make a card for a model without one."""
    # Its role is always `model`: only bundled cards can declare floors and ceilings.
    if not callable(getattr(model, "predict", None)):
        plain = "; for a plain nn.Module say masks_from=, where its output has the masks"
        plain = plain if callable(getattr(model, "forward", None)) else ""
        raise UsageError(f"model {name}: {type(model).__name__} has no method predict(batch) -> Prediction{plain}")
    from pydantic import ValidationError

    from ..cards.families import family_names
    from ..cards.model import ModelCard

    plain = re.sub(r"[^a-z0-9._-]+", "-", str(name).lower()).strip("-._") or "model"
    try:
        return ModelCard(
            name=plain,
            source="user:object",
            input=getattr(model, "input_size", None),
            supervision=getattr(model, "supervision", "undeclared"),
            privilege=getattr(model, "privilege", "none"),
            families=family_names(),  # whoever brings a model knows whether it answers questions
        )
    except ValidationError as error:
        field, problem = first_problem(error)
        attribute = "input_size" if field == "input" else field
        raise UsageError(f"model {name}: attribute {attribute}: {problem}; see docs/add-a-model.md") from error


def _build(
    name: str, factory: Callable[..., Any], options: Mapping[str, Any], of_card: Mapping[str, Any] | None = None
) -> Any:
    """Call a factory; UsageError for unknown options, for failures, and for a result without `predict`.

    of_card: the options of the card, for a model with a card.
    """
    if not callable(factory):
        raise UsageError(f"model {name}: {type(factory).__name__} is neither a model nor a function that builds one")
    # Bound before the call, so that a TypeError raised *inside* the factory is not taken for an unknown option.
    try:
        inspect.signature(factory).bind(**options)
    except TypeError as error:
        if key := _refused(error, options):
            raise unknown_option(name, factory, {}, key) from error
        known = ", ".join(known_options(factory, {})) or "none"
        raise UsageError(f"model {name}: {error}; options are: {known}") from error
    with own_errors(f"model {name}: building it failed"):
        try:
            model = factory(**options)
        except TypeError as error:  # of the class to which the factory hands its options
            if key := _refused(error, options):
                raise unknown_option(name, factory, of_card or {}, key) from error
            raise
    if not callable(getattr(model, "predict", None)):
        raise UsageError(f"model {name}: {type(model).__name__} has no method predict(batch) -> Prediction")
    return model


def _refused(error: TypeError, options: Mapping[str, Any]) -> str:
    """The option that a function refused by this error; '' for another error."""
    found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    return found[1] if found and found[1] in options else ""


def _ready(model: Any, device: str) -> Any:
    """Move a model to its device and into evaluation mode, if it has such methods."""
    if callable(getattr(model, "to", None)):
        model = model.to(device)
    if callable(getattr(model, "eval", None)):
        model.eval()
    return model


def _parameters(model: Any) -> int:
    """Count the parameters; 0 for a model without the method `parameters`."""
    if not callable(getattr(model, "parameters", None)):
        return 0
    return sum(int(parameter.numel()) for parameter in model.parameters())


def _load_weights(name: str, model: Any, path: Path | None, expected: str) -> str:
    """Load a checkpoint strictly and return the SHA-256 of its file; '' without a checkpoint."""
    if path is None:
        return ""
    from .checkpoints.names import load_weights, sha256  # here, because torch takes long to import

    if not path.is_file():
        raise UsageError(f"model {name}: checkpoint {path} does not exist")
    digest = sha256(path)
    if expected and digest != expected:
        raise UsageError(f"model {name}: {path} has SHA-256 {digest[:12]}..., its card says {expected[:12]}...")
    if not callable(getattr(model, "load_state_dict", None)):
        raise UsageError(f"model {name}: has no load_state_dict, so checkpoint {path} cannot be loaded")
    load_weights(model, path)
    return digest

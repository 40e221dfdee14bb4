"""From a name to a task card or a model: card names, `name:SEED`, `path.py:build`, entry points and plain objects."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cards.model import load_model_card
from ..cards.names import CARDS, get_card, model_names
from ..core import entry_points
from ..core.errors import OclBenchError, UsageError, first_problem
from ..core.paths import PACKAGE
from .fingerprint import files_of, sources_sha256, state_fingerprint
from .user_code import described, load_attribute

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from ..cards.model import ModelCard

WEIGHTS = PACKAGE / "models" / "weights"


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to predict, with what a result says about it.

    options: the options it was built with (card and caller merged).
    source_sha256: hash of the sources and of the state of a user's own model, so that an edited file and other weights
    are another model; empty for bundled models.
    bundled: whether the card is one of ours; a result names no other card.
    reusable: False when nothing identifies the model (a live object, or one without arrays and without `fingerprint`):
    its results are never reused or resumed.
    """

    model: Any
    card: ModelCard
    name: str
    checkpoint_sha256: str
    parameters: int
    training_seed: int | None
    options: Mapping[str, Any]
    source_sha256: str = ""
    reusable: bool = True
    bundled: bool = True

    @property
    def untrained(self) -> bool:
        """Whether this is a card with parameters for which no checkpoint was loaded: its weights are random."""
        wanted = self.card.role != "floor" and self.card.source != "user:object"  # a floor may be random on purpose
        return wanted and self.parameters > 0 and not self.checkpoint_sha256

    @property
    def needs_truth(self) -> bool:
        """True only for ceilings. Raises UsageError when any other model asks for the truth."""
        wanted = bool(getattr(self.model, "needs_truth", False))
        if wanted and self.card.role != "ceiling":
            raise UsageError(
                f"model {self.name}: needs_truth is reserved for bundled ceilings (its role is '{self.card.role}')"
            )
        return wanted


def get_model(
    name: Any,
    *,
    checkpoint: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    device: str = "cpu",
) -> LoadedModel:
    """Build a model and load its weights.

    name: a card name, `name:SEED` (another training seed), the path of a model card (YAML), `path.py:build`, an entry
    point name, or any object with `predict`. checkpoint: a `.safetensors` file (or a `.pt` that holds plain tensors)
    instead of the card's weights. options: keyword arguments for the model's factory. Raises UsageError.
    """
    options = dict(options or {})
    if not isinstance(name, str):
        return _from_object(name, checkpoint, options, device)
    if match := re.fullmatch(r"(?P<path>.+\.py):(?P<attribute>\w+)", name):
        return _from_file(Path(match["path"]), match["attribute"], checkpoint, options, device)
    if name.endswith((".yaml", ".yml")):
        return _from_card_file(Path(name), checkpoint, options, device)
    if name.endswith(".py"):
        raise UsageError(f"model {name}: name the function in it that builds the model too: write {name}:build")
    base, _, seed = name.partition(":")
    if seed and not seed.isdigit():
        raise UsageError(f"model {name}: what follows the colon is a training seed, such as {base}:1")
    if not (CARDS / f"{base}.yaml").is_file() and base in (models := entry_points.offered(entry_points.MODELS)):
        return _from_entry_point(base, models[base], checkpoint, options, device)
    return _from_card(get_card(base), int(seed) if seed else None, checkpoint, options, device)


def _from_card(
    card: ModelCard, seed: int | None, checkpoint: str | Path | None, options: dict[str, Any], device: str
) -> LoadedModel:
    module, attribute = card.source.split(":")
    merged = {**card.options, **options}
    model = _build(card.name, getattr(importlib.import_module(module), attribute), merged)
    bundled_seed = card.training.seed if card.training else None
    another = seed is not None and seed != bundled_seed
    if checkpoint is None and another:
        checkpoint = _trained_here(card, seed)
    path = Path(checkpoint) if checkpoint else WEIGHTS / card.weights if card.weights else None
    sha256 = _load_weights(card.name, model, path, "" if checkpoint else card.sha256)
    sha256 = sha256 or getattr(model, "checkpoint_sha256", "")  # a model that stands on another model's weights
    card = card.model_copy(update={"supervision": getattr(model, "supervision", card.supervision)})
    name = f"{card.name}:{seed}" if another else card.name
    training_seed = seed if seed is not None else None if checkpoint else bundled_seed
    return LoadedModel(_ready(model, device), card, name, sha256, _parameters(model), training_seed, merged)


def _trained_here(card: ModelCard, seed: int | None) -> Path:
    """The weights that `ocl-bench train` left for another training seed than the bundled one."""
    path = Path("runs") / f"{card.name}-seed{seed}" / f"{card.name}.safetensors"
    if not path.is_file():
        raise UsageError(
            f"model {card.name}:{seed}: the weights of training seed {seed} are not bundled and {path} does not exist; "
            f"run `ocl-bench train --model {card.name} --seed {seed}` or pass --checkpoint FILE"
        )
    return path


def _from_card_file(path: Path, checkpoint: str | Path | None, options: dict[str, Any], device: str) -> LoadedModel:
    """A model by a user's own card. `source` may name a Python file, and `weights` a file, beside the card."""
    card = load_model_card(path)
    if card.role in ("floor", "ceiling"):
        raise UsageError(f"{path}: field 'role': '{card.role}' is reserved for bundled models; use model or control")
    if card.name in model_names():
        raise UsageError(f"{path}: field 'name': '{card.name}' is the name of a bundled model; choose another one")
    module, attribute = card.source.split(":")
    files = [path.resolve()]
    if module.endswith(".py"):
        factory, imported = load_attribute(path.parent / module, attribute)
        files += imported
    else:
        factory = _attribute(path, module, attribute)
        files += files_of(factory)
    merged = {**card.options, **options}
    model = _build(card.name, factory, merged)
    weights = Path(checkpoint) if checkpoint else path.parent / card.weights if card.weights else None
    sha256 = _load_weights(card.name, model, weights, "" if checkpoint else card.sha256)
    seed = card.training.seed if card.training and not checkpoint else None
    loaded = LoadedModel(
        _ready(model, device), card, card.name, sha256, _parameters(model), seed, merged, bundled=False
    )
    return _identified(loaded, sources_sha256(files, path.resolve().parent))


def _attribute(card: Path, module: str, attribute: str) -> Any:
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"{card}: field 'source': {module}:{attribute} cannot be imported ({error})") from error


def _from_file(
    path: Path, attribute: str, checkpoint: str | Path | None, options: dict[str, Any], device: str
) -> LoadedModel:
    factory, files = load_attribute(path, attribute)
    source = sources_sha256(files, path.resolve().parent)
    return _from_user(f"{path.stem}-{attribute}", factory, checkpoint, options, device, source)


def _from_entry_point(
    name: str, entry: EntryPoint, checkpoint: str | Path | None, options: dict[str, Any], device: str
) -> LoadedModel:
    factory = entry.load()
    files = files_of(factory)
    source = entry_points.source_sha256(entry) + sources_sha256(files, files[0].parent if files else Path())
    return _from_user(name, factory, checkpoint, options, device, source)


def _from_user(
    name: str, factory: Any, checkpoint: str | Path | None, options: dict[str, Any], device: str, source: str
) -> LoadedModel:
    already = hasattr(factory, "predict") and not inspect.isclass(factory)
    model = factory if already else _build(name, factory, options)
    sha256 = _load_weights(name, model, Path(checkpoint) if checkpoint else None, "")
    card = _card_of(name, model)
    ready, parameters = _ready(model, device), _parameters(model)
    return _identified(LoadedModel(ready, card, name, sha256, parameters, None, options, bundled=False), source)


def _identified(loaded: LoadedModel, source: str) -> LoadedModel:
    """A user's model with the hash of what it is: its sources, and its state as it was built.

    Nothing identifies a model whose state cannot be seen: its results, heads and banks are never used again.
    """
    state = state_fingerprint(loaded.model)
    identity = hashlib.sha256(f"{source}|{state}".encode()).hexdigest()
    return replace(loaded, source_sha256=identity, reusable=state is not None)


def _from_object(model: Any, checkpoint: Any, options: dict[str, Any], device: str) -> LoadedModel:
    if options or checkpoint:
        raise UsageError("options and checkpoint belong to models given by name; this one is built already")
    if inspect.isclass(model):
        raise UsageError(f"model {model.__name__} is a class; pass an instance: {model.__name__}()")
    card = _card_of(getattr(model, "name", None) or type(model).__name__, model)
    ready, parameters = _ready(model, device), _parameters(model)
    return LoadedModel(ready, card, card.name, "", parameters, None, {}, reusable=False, bundled=False)


def _card_of(name: Any, model: Any) -> ModelCard:
    """A card for a model without one. Its role is always `model`: only bundled cards can declare a ceiling."""
    if not callable(getattr(model, "predict", None)):
        raise UsageError(f"model {name}: {type(model).__name__} has no method predict(batch) -> Prediction")
    from pydantic import ValidationError

    from ..cards.model import ModelCard

    plain = re.sub(r"[^a-z0-9._-]+", "-", str(name).lower()).strip("-._") or "model"
    try:
        return ModelCard(
            name=plain,
            source="user:object",
            input=getattr(model, "input_size", None),
            supervision=getattr(model, "supervision", "none"),
            privilege=getattr(model, "privilege", "none"),
        )
    except ValidationError as error:
        field, problem = first_problem(error)
        attribute = "input_size" if field == "input" else field
        raise UsageError(f"model {name}: attribute {attribute}: {problem}; see docs/add-a-model.md") from error


def _build(name: str, factory: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    if not callable(factory):
        raise UsageError(f"model {name}: {type(factory).__name__} is neither a model nor a function that builds one")
    signature = inspect.signature(factory)
    try:
        signature.bind(**options)
    except TypeError as error:
        known = [key for key in signature.parameters if key not in ("args", "kwargs")]
        raise UsageError(f"model {name}: {error}; options are: {', '.join(known) or 'none'}") from error
    try:
        model = factory(**options)
    except OclBenchError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(f"model {name}: building it failed ({described(error)})") from error
    if not callable(getattr(model, "predict", None)):
        raise UsageError(f"model {name}: {type(model).__name__} has no method predict(batch) -> Prediction")
    return model


def _ready(model: Any, device: str) -> Any:
    if callable(getattr(model, "to", None)):
        model = model.to(device)
    if callable(getattr(model, "eval", None)):
        model.eval()
    return model


def _parameters(model: Any) -> int:
    if not callable(getattr(model, "parameters", None)):
        return 0
    return sum(int(parameter.numel()) for parameter in model.parameters())


def _load_weights(name: str, model: Any, path: Path | None, expected: str) -> str:
    """Load a checkpoint strictly and return the SHA-256 of its file ('' without one)."""
    if path is None:
        return ""
    if not path.is_file():
        raise UsageError(f"model {name}: checkpoint {path} does not exist")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    if expected and sha256 != expected:
        raise UsageError(f"model {name}: {path} has SHA-256 {sha256[:12]}..., its card says {expected[:12]}...")
    if not callable(getattr(model, "load_state_dict", None)):
        raise UsageError(f"model {name}: has no load_state_dict, so checkpoint {path} cannot be loaded")
    from .checkpoints.names import load_weights

    load_weights(model, path)
    return sha256

"""The verbs of the command line. Each imports what it needs when it runs: `--help` and `list` do not import torch.

Exit codes: 0 ok, 1 regression or failed samples, 2 usage, 3 data missing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from ..core.terminal import make_streams_safe
from . import checkpoints as cli_checkpoints
from . import cost as cli_cost
from . import data as cli_data
from . import listing as cli_listing
from . import models as cli_models
from . import new as cli_new
from . import pages as cli_pages
from . import prediction as cli_prediction
from . import results as cli_results
from . import training as cli_training
from .options import ErrorsInOneLine, SeveralValues, print_versions

app = typer.Typer(
    cls=ErrorsInOneLine,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="How good is this object-centric model, really, and compared with what?",
    epilog="Start with: ocl-bench eval --model dias --task clevrtex",
)


@app.callback()
def program(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error, too (any verb).")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the versions and exit.", callback=print_versions, is_eager=True)
    ] = False,
) -> None:
    """Options of all verbs; `ErrorsInOneLine` reads them, since they may stand anywhere."""
    del debug, version


VERBS: dict[str, dict[str, tuple[Callable[..., None], str]]] = {
    "Run": {
        "eval": (cli_models.evaluate_model, "--model dias --task clevrtex"),
        "score": (cli_models.score, "--task clevrtex --masks my_masks/"),
        "predict": (cli_prediction.predict, "images/ --model dias --out masks"),
        "replay": (cli_models.replay, "results/clevrtex/dias/RESULT.json"),
        "reproduce": (cli_models.reproduce, "results/clevrtex/dias/RESULT.json"),
        "profile": (cli_cost.profile, "--model dias --against slot-attention"),
    },
    "Look": {
        "list": (cli_listing.list_names, "tasks --family video 'movi*'"),
        "show": (cli_models.show, "clevrtex"),
        "report": (cli_results.report, "results/clevrtex/dias"),
    },
    "Compare and publish": {
        "compare": (cli_results.compare, "dias slot-attention --task clevrtex"),
        "leaderboard": (cli_results.leaderboard, "--task clevrtex"),
        "claims": (cli_results.claims, ""),
        "site": (cli_pages.site, "--out site"),
        "figures": (cli_pages.figures, "--task clevrtex"),
        "submit": (cli_results.submit, "results/clevrtex/dias"),
        "cite": (cli_results.cite, "dias clevrtex"),
    },
    "Models and training": {
        "new": (cli_new.new, "model my_model"),
        "train": (cli_training.train, "--model dias"),
        "tune": (cli_models.tune, "--model dias --task clevrtex --option slots=7..15"),
        "export": (cli_models.export, "--checkpoint slotcon.pth --to torchvision --out resnet50.safetensors"),
        "check-model": (cli_models.check, "--model my_model.py:build"),
        "check-checkpoint": (cli_checkpoints.check_checkpoint, "my_checkpoint.pth"),
    },
    "Checks": {
        "regress": (cli_results.regress, "--baseline leaderboards/golden"),
        "validate": (cli_results.validate, "results/clevrtex/dias/RESULT.json"),
        "schema": (cli_results.schema, ""),
    },
}
"""For each purpose its verbs, in the order of `--help`: the function, and the arguments of the example in its help."""

for purpose, verbs in VERBS.items():
    for name, (verb, arguments) in verbs.items():
        example = f"Example: ocl-bench {name} {arguments}".rstrip()
        app.command(name, cls=SeveralValues, rich_help_panel=purpose, epilog=example)(verb)
app.add_typer(cli_data.data, name="data", rich_help_panel="Data")


def main() -> None:
    """Entry point of the console script `ocl-bench`."""
    make_streams_safe()
    app(prog_name="ocl-bench")


if __name__ == "__main__":
    main()

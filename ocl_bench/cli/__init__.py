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
from . import models as cli_models
from . import pages as cli_pages
from . import results as cli_results
from . import training as cli_training
from .options import ErrorsInOneLine, SeveralValues

app = typer.Typer(
    cls=ErrorsInOneLine,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="How good is this object-centric model, really, and compared with what?",
    epilog="Start with: ocl-bench eval --model dias --task clevrtex",
)


@app.callback()
def program(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error, too (any verb).")] = False,
) -> None:
    """Options of all verbs; `ErrorsInOneLine` reads them, since they may stand anywhere."""
    del debug


VERBS: dict[str, Callable[..., None]] = {
    "eval": cli_models.evaluate_model,
    "list": cli_models.list_names,
    "show": cli_models.show,
    "check-model": cli_models.check,
    "check-checkpoint": cli_checkpoints.check_checkpoint,
    "score": cli_models.score,
    "replay": cli_models.replay,
    "profile": cli_cost.profile,
    "tune": cli_models.tune,
    "train": cli_training.train,
    "leaderboard": cli_results.leaderboard,
    "site": cli_pages.site,
    "figures": cli_pages.figures,
    "compare": cli_results.compare,
    "report": cli_results.report,
    "claims": cli_results.claims,
    "regress": cli_results.regress,
    "submit": cli_results.submit,
    "validate": cli_results.validate,
    "export": cli_models.export,
    "cite": cli_results.cite,
    "schema": cli_results.schema,
}
"""Functions by verb, in the order of `--help`."""

for name, verb in VERBS.items():
    app.command(name, cls=SeveralValues)(verb)
app.add_typer(cli_data.data, name="data")


def main() -> None:
    """Entry point of the console script `ocl-bench`."""
    make_streams_safe()
    app(prog_name="ocl-bench")


if __name__ == "__main__":
    main()

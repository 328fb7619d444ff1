"""`lepton server resume`."""

from pathlib import Path
from typing import Annotated

import typer

from lepton_flwr.commands.errors import one_line_errors
from lepton_flwr.commands.options import Debug, ModelKey


def resume(
    run: Annotated[Path, typer.Argument(help="The run's folder.")],
    *,
    server: Annotated[
        Path | None,
        typer.Option(help="The server's folder. Default: that in whose `runs` the run is."),
    ] = None,
    model_key: ModelKey = None,
    debug: Debug = False,
) -> None:
    """Go on with a run that was ended, on the devices of a running server.

    It goes on after its last round, with its own settings and budget. A round that was charged and
    not finished stays charged, and is over. The key of a run whose model is encrypted has to be one
    without a passphrase, in a file that the server can read. For a simulated run: `lepton simulate
    --resume`.

    Example: lepton server resume clinics/server/runs/20260101-120000-credit
    """
    with one_line_errors(debug):
        from lepton_flwr.deploy.train import resume as go_on
        from lepton_flwr.runs.progress import print_summary

        print_summary(go_on(server or run.resolve().parent.parent, run, model_key))

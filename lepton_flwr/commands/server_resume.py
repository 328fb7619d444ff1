"""`lepton server resume`: go on with a run whose server was ended."""

from pathlib import Path
from typing import Annotated

import typer

from lepton_flwr.commands.errors import one_line_errors
from lepton_flwr.commands.options import Debug


def resume(
    run: Annotated[Path, typer.Argument(help="The run's folder.")],
    *,
    connection: Annotated[
        str, typer.Option(help="SuperLink connection of Flower's config.toml. Default: Flower's.")
    ] = "",
    roster: Annotated[
        Path | None,
        typer.Option(help="The authority's certificate. Default: where it was when the run began."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Start the app again on a SuperLink, so that it goes on after the run's last round.

    Its settings and its budget are the run's own. A round that was charged and not finished stays
    charged and is over. A simulated run goes on with `lepton simulate --resume`.

    Example: lepton server resume runs/20260101-120000-credit --connection clinics
    """
    with one_line_errors(debug):
        from simulations.resume import start_again

        start_again(run, connection, roster)

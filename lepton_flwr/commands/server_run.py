"""`lepton server run`."""

from pathlib import Path
from typing import Annotated

import typer

from lepton_flwr.commands.errors import one_line_errors, tell
from lepton_flwr.commands.options import Debug


def run(
    folder: Annotated[Path, typer.Argument(help="The server's folder, of `federation init`.")],
    *,
    debug: Debug = False,
) -> None:
    """Run a server: a SuperLink with TLS that lets in the federation's devices and nobody else.

    Runs until Ctrl-C or SIGTERM, and restarts what ends too early.

    Example: lepton server run clinics/server
    """
    with one_line_errors(debug):
        from lepton_flwr.deploy import server

        server.run(folder, tell)

"""`lepton device`: a device of a federation."""

from pathlib import Path
from typing import Annotated

import typer

from lepton_flwr.commands.errors import one_line_errors, tell
from lepton_flwr.commands.options import Debug

app = typer.Typer(rich_markup_mode="rich")

Folder = Annotated[Path, typer.Argument(help="The device's folder, of `federation init`.")]


@app.command()
def run(folder: Folder, *, debug: Debug = False) -> None:
    """Run a device: a SuperNode that joins the federation's server.

    Runs until Ctrl-C or SIGTERM, and comes back when the connection or the server was lost.

    Example: lepton device run device-003
    """
    with one_line_errors(debug):
        from lepton_flwr.deploy import device

        device.run(folder, tell)


@app.command()
def check(folder: Folder, *, debug: Debug = False) -> None:
    """Check a device's folder and the way to its server, without joining.

    Example: lepton device check device-003
    """
    with one_line_errors(debug):
        from lepton_flwr.crypto.tls import AUTHORITY_FILE
        from lepton_flwr.deploy import device
        from lepton_flwr.deploy.probe import try_server
        from lepton_flwr.deploy.settings import DeviceSettings

        settings = DeviceSettings.read(folder)
        device.check(folder)
        try_server(settings.server, folder / AUTHORITY_FILE)
        typer.echo(f"{settings.name}: ready; the server at {settings.server} answers")


@app.callback()
def _device() -> None:
    """A device of a federation, which has a folder that never comes from the server.

    Example: lepton device run device-003
    """

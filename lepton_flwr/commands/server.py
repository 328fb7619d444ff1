"""`lepton server`: a federation's server."""

import typer

from lepton_flwr.commands import server_resume

app = typer.Typer(rich_markup_mode="rich")
app.command()(server_resume.resume)


@app.callback()
def _server() -> None:
    """The server of a federation of devices.

    Example: lepton server resume runs/20260101-120000-credit --connection clinics
    """

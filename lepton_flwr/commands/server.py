"""`lepton server`: a federation's server."""

import typer

from lepton_flwr.commands import server_poll, server_resume, server_run, server_train

app = typer.Typer(rich_markup_mode="rich")
app.command()(server_run.run)
app.command()(server_train.train)
app.command()(server_resume.resume)
app.command()(server_poll.poll)


@app.callback()
def _server() -> None:
    """The server of a federation of devices.

    Example: lepton server run clinics/server
    """

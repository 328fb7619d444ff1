"""The `lepton` command.

Errors are one line on standard error; the exit code says of which kind. Heavy libraries are
imported inside the commands, so that help appears at once.
"""

import sys
from typing import Annotated

import click
import typer

from lepton_flwr import __version__
from lepton_flwr.commands import (
    budget,
    code,
    device,
    encryption,
    federation,
    keys,
    poll,
    predict,
    secagg,
    server,
    simulate,
    watch,
)
from lepton_flwr.commands.errors import say

app = typer.Typer(
    name="lepton",
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.command()(simulate.simulate)
app.command()(simulate.scenarios)
app.command()(watch.watch)
app.command()(predict.predict)
app.command()(poll.poll)
app.add_typer(federation.app, name="federation")
app.add_typer(keys.app, name="keys")
app.add_typer(secagg.app, name="secagg")
app.add_typer(budget.app, name="budget")
app.add_typer(code.app, name="app")
app.add_typer(device.app, name="device")
app.add_typer(server.app, name="server")
app.command()(encryption.encrypt)
app.command()(encryption.decrypt)
app.command()(encryption.rewrap)
app.command()(encryption.inspect)
app.add_typer(encryption.app, name="encryption-key")


@app.callback(invoke_without_command=True)
def lepton(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Federated learning with secure aggregation and differential privacy.

    Example: lepton simulate transport --rounds 10 --epsilon 3
    """
    if version:
        typer.echo(f"lepton-flwr {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help().strip())


def main() -> None:
    """Run the command and exit with its code."""
    command = typer.main.get_command(app)
    try:
        exit_code = command.main(prog_name="lepton", standalone_mode=False)
    except click.ClickException as error:
        say(error.format_message())
        exit_code = error.exit_code
    except click.Abort:
        say("interrupted")
        exit_code = 130
    sys.exit(exit_code if isinstance(exit_code, int) else 0)


if __name__ == "__main__":
    main()

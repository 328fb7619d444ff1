"""`lepton secagg`: what a secure round costs."""

from typing import Annotated

import typer

from lepton_flwr.commands.errors import one_line_errors

app = typer.Typer(rich_markup_mode="rich")


@app.command()
def plan(
    *,
    clients: Annotated[int, typer.Option(help="Clients in a round: 3 to 10,000.")],
    dim: Annotated[int, typer.Option(help="Numbers in an update: parameters of the model.")],
    corrupt: Annotated[
        float, typer.Option(help="Share of the clients that may collude with the server.")
    ] = 0.1,
    dropout: Annotated[float, typer.Option(help="Share of the clients that may drop out.")] = 0.1,
    bound: Annotated[float, typer.Option(help="Largest absolute number in an update.")] = 16.0,
    cipher: Annotated[
        str,
        typer.Option(help="Of the masks: aes-256-ctr; chacha20 for devices without AES."),
    ] = "aes-256-ctr",
) -> None:
    """Show what a secure round costs each client, and what it withstands, without running it.

    Example: lepton secagg plan --clients 1000 --dim 100000 --corrupt 0.1 --dropout 0.1
    """
    with one_line_errors():
        from rich.console import Console
        from rich.table import Table

        from lepton_flwr.secagg.plan import plan as make_plan

        table = Table(box=None, show_header=False, padding=(0, 3, 0, 0))
        table.add_column(style="bold", no_wrap=True)
        made = make_plan(clients, dim, corrupt, dropout, bound=bound, cipher=cipher)
        for name, value in made.rows():
            table.add_row(name, value)
        Console().print(table)


@app.callback()
def _secagg() -> None:
    """Secure aggregation: sums that the server learns without their parts.

    Example: lepton secagg plan --clients 100 --dim 1000000
    """

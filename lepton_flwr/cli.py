"""The `lepton` command.

Errors are one line on standard error; the exit code says of which kind. Heavy libraries are
imported inside the commands, so that help appears at once.
"""

import sys
from pathlib import Path
from typing import Annotated

import click
import typer

from lepton_flwr import __version__, budget_cli
from lepton_flwr.cli_errors import one_line_errors as _one_line_errors
from lepton_flwr.cli_errors import say as _say

app = typer.Typer(
    name="lepton",
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
federation = typer.Typer(rich_markup_mode="rich")
app.add_typer(federation, name="federation")
secagg = typer.Typer(rich_markup_mode="rich")
app.add_typer(secagg, name="secagg")
app.add_typer(budget_cli.app, name="budget")
code = typer.Typer(rich_markup_mode="rich")
app.add_typer(code, name="app")

Scenario = Annotated[
    str | None,
    typer.Argument(help="What to learn from; see `lepton scenarios`. Default: transport."),
]
Clients = Annotated[int | None, typer.Option(help="Number of clients.")]
Nodes = Annotated[int, typer.Option(help="Number of SuperNodes, one client each.", min=3)]
Rounds = Annotated[int | None, typer.Option(help="Rounds of training.")]
Epsilon = Annotated[
    float | None,
    typer.Option(help="Most that the run may spend per record; the noise is calibrated to it."),
]
ClientEpsilon = Annotated[
    float | None,
    typer.Option(help="Most that the run may spend per client; turns client-level privacy on."),
]
NoDP = Annotated[bool, typer.Option("--no-dp", help="Train without differential privacy.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="TOML file, as config.toml of an earlier run.")
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any setting; may be repeated."),
]
Out = Annotated[Path | None, typer.Option(help="Folder that holds the runs. Default: runs.")]
Seed = Annotated[
    int | None, typer.Option(help="Of partition, weights and data order; never of noise.")
]
LedgerFolder = Annotated[
    Path | None,
    typer.Option(
        "--ledger",
        help="Folder of the ledgers: what they hold counts against this run. Default: a new one "
        "in the run's folder.",
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and logs.")]


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


@app.command()
def simulate(
    scenario: Scenario = None,
    *,
    clients: Clients = None,
    rounds: Rounds = None,
    epsilon: Epsilon = None,
    client_epsilon: ClientEpsilon = None,
    no_dp: NoDP = False,
    config: ConfigFile = None,
    assignments: Assignments = None,
    out: Out = None,
    ledger: LedgerFolder = None,
    seed: Seed = None,
    debug: Debug = False,
) -> None:
    """Run a federation on this machine and leave a folder with its results.

    `lepton scenarios` lists what SCENARIO can be; transport if not given.

    Example: lepton simulate health --rounds 20 --epsilon 2 --set train.local_steps=30
    """
    with _one_line_errors(debug):
        from lepton_flwr.runs.settings import resolve

        settings = resolve(
            scenario,
            config=config,
            clients=clients,
            rounds=rounds,
            epsilon=epsilon,
            client_epsilon=client_epsilon,
            no_dp=no_dp,
            seed=seed,
            assignments=assignments or (),
        )
        from lepton_flwr.runs.progress import print_summary
        from simulations import runner

        print_summary(runner.simulate(settings, out, debug, ledger))


@app.command()
def scenarios() -> None:
    """List the scenarios.

    Example: lepton scenarios
    """
    with _one_line_errors():
        from rich.console import Console
        from rich.table import Table

        from lepton_flwr.data.scenarios import SCENARIOS

        table = Table(box=None, padding=(0, 3, 1, 0))
        table.add_column("scenario", style="bold", no_wrap=True)
        table.add_column("title")
        table.add_column("data, label and clients")
        for scenario in SCENARIOS.values():
            table.add_row(scenario.name, scenario.title, scenario.description)
        Console().print(table)


@federation.command()
def up(
    scenario: Scenario = None,
    *,
    nodes: Nodes,
    rounds: Rounds = None,
    epsilon: Epsilon = None,
    client_epsilon: ClientEpsilon = None,
    no_dp: NoDP = False,
    config: ConfigFile = None,
    assignments: Assignments = None,
    out: Out = None,
    ledger: LedgerFolder = None,
    seed: Seed = None,
    debug: Debug = False,
) -> None:
    """Start a SuperLink and SuperNodes on loopback, run the app on them, and end them.

    `lepton scenarios` lists what SCENARIO can be; transport if not given.

    Example: lepton federation up --nodes 3 smoke --rounds 2
    """
    with _one_line_errors(debug):
        from lepton_flwr.runs.settings import resolve

        settings = resolve(
            scenario,
            config=config,
            clients=nodes,
            rounds=rounds,
            epsilon=epsilon,
            client_epsilon=client_epsilon,
            no_dp=no_dp,
            seed=seed,
            assignments=assignments or (),
        )
        from lepton_flwr.runs.progress import print_summary
        from simulations import federation as real

        folder = real.up(settings, nodes, out, debug, ledgers=ledger)
        if (folder / "summary.json").exists():
            print_summary(folder)
        else:
            typer.echo(f"folder: {folder}")


@federation.callback()
def _federation() -> None:
    """Real federations: processes, TLS and node authentication.

    Example: lepton federation up --nodes 3 smoke --rounds 2
    """


@secagg.command()
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
    with _one_line_errors():
        from rich.console import Console
        from rich.table import Table

        from lepton_flwr.secagg.plan import plan as make_plan

        table = Table(box=None, show_header=False, padding=(0, 3, 0, 0))
        table.add_column(style="bold", no_wrap=True)
        made = make_plan(clients, dim, corrupt, dropout, bound=bound, cipher=cipher)
        for name, value in made.rows():
            table.add_row(name, value)
        Console().print(table)


@secagg.callback()
def _secagg() -> None:
    """Secure aggregation: sums that the server learns without their parts.

    Example: lepton secagg plan --clients 100 --dim 1000000
    """


@code.command()
def digest() -> None:
    """Show the digest of this code, which a device's policy can name among its `apps`.

    Example: lepton app digest
    """
    with _one_line_errors():
        from lepton_flwr.code import code_digest

        typer.echo(code_digest().hex())


@code.command()
def sign(
    folder: Annotated[Path, typer.Argument(help="Folder with the signer's identity.pem and .crt.")],
    out: Annotated[Path, typer.Option(help="Signature file to write.")] = Path("app.sig"),
) -> None:
    """Sign this code; devices that name the signer among their `app_signers` then let it run.

    Example: lepton app sign signer --out app.sig
    """
    with _one_line_errors():
        from lepton_flwr._files import write_atomic
        from lepton_flwr.code import code_digest, signed_message
        from lepton_flwr.crypto.identity import Identity

        signer = Identity.load(folder)
        write_atomic(out, signer.sign(signed_message(code_digest())))
        typer.echo(f"{out}: signed by {signer.public_key.hex()}")


@code.callback()
def _code() -> None:
    """Which code runs, and who vouches for it.

    Example: lepton app digest
    """


def main() -> None:
    """Run the command and exit with its code."""
    command = typer.main.get_command(app)
    try:
        code = command.main(prog_name="lepton", standalone_mode=False)
    except click.ClickException as error:
        _say(error.format_message())
        code = error.exit_code
    except click.Abort:
        _say("interrupted")
        code = 130
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()

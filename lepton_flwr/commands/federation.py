"""`lepton federation`: real federations."""

import typer

from lepton_flwr.commands import federation_init, federation_status
from lepton_flwr.commands.errors import one_line_errors
from lepton_flwr.commands.options import (
    Assignments,
    ClientEpsilon,
    ConfigFile,
    Debug,
    Epsilon,
    LedgerFolder,
    ModelTo,
    Nodes,
    NoDP,
    Out,
    Rounds,
    Scenario,
    Seed,
)

app = typer.Typer(rich_markup_mode="rich")
app.command()(federation_init.init)
app.command()(federation_status.status)


@app.command()
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
    model_to: ModelTo = None,
    debug: Debug = False,
) -> None:
    """Start a SuperLink and SuperNodes on loopback, run the app on them, and end them.

    `lepton scenarios` lists what SCENARIO can be; transport if not given.

    Example: lepton federation up --nodes 3 smoke --rounds 2
    """
    with one_line_errors(debug):
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
            model_to=model_to or (),
            assignments=assignments or (),
        )
        from lepton_flwr.runs.progress import print_summary
        from simulations import federation as real

        folder = real.up(settings, nodes, out, debug, ledgers=ledger)
        if (folder / "summary.json").exists():
            print_summary(folder)
        else:
            typer.echo(f"folder: {folder}")


@app.callback()
def _federation() -> None:
    """Real federations: processes, TLS and node authentication.

    Example: lepton federation up --nodes 3 smoke --rounds 2
    """

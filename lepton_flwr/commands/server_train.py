"""`lepton server train`."""

from pathlib import Path
from typing import Annotated

import typer

from lepton_flwr.commands.errors import one_line_errors
from lepton_flwr.commands.options import (
    Assignments,
    ClientEpsilon,
    Clients,
    ConfigFile,
    Debug,
    Epsilon,
    NoDP,
    Rounds,
    Scenario,
    Seed,
)


def train(
    folder: Annotated[Path, typer.Argument(help="The server's folder, of `federation init`.")],
    scenario: Scenario = None,
    *,
    clients: Clients = None,
    rounds: Rounds = None,
    epsilon: Epsilon = None,
    client_epsilon: ClientEpsilon = None,
    no_dp: NoDP = False,
    config: ConfigFile = None,
    assignments: Assignments = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the runs. Default: runs in the server's.")
    ] = None,
    schema: Annotated[
        Path | None,
        typer.Option(
            help="What the devices' raw tables hold. Default: schema.toml in the server's folder, "
            "if it is there and no other scenario is named."
        ),
    ] = None,
    ledger: Annotated[
        Path | None, typer.Option(help="Folder of the ledger. Default: ledger in the server's.")
    ] = None,
    seed: Seed = None,
    debug: Debug = False,
) -> None:
    """Train on the devices of a running server, from a shell on its machine.

    Waits for as many of them as --clients says, all that may join if it does not. Devices with raw
    tables are asked for noised statistics first, which --epsilon pays for too. Of devices with
    features, a server without the scenario's rows is told the shape in a --config file: under
    [model], input_shape and num_classes. As a systemd service it writes to its own folder alone:
    for another --out or --ledger add a ReadWritePaths line to its unit.

    Example: lepton server train clinics/server smoke --rounds 10 --config run.toml
    """
    with one_line_errors(debug):
        from lepton_flwr.deploy.nodes import wanted_nodes
        from lepton_flwr.deploy.settings import ServerSettings
        from lepton_flwr.deploy.tables import schema_of, with_table
        from lepton_flwr.runs.settings import resolve

        ServerSettings.read(folder)
        found = schema_of(folder, schema, scenario, config, assignments or ())
        settings = resolve(
            scenario or ("csv" if found else None),
            config=config,
            clients=clients or len(wanted_nodes(folder)),
            rounds=rounds,
            epsilon=epsilon,
            client_epsilon=client_epsilon,
            no_dp=no_dp,
            seed=seed,
            assignments=assignments or (),
        )
        if found is not None:
            settings = with_table(settings, found)
        from lepton_flwr.deploy.train import train as run
        from lepton_flwr.runs.progress import print_summary

        print_summary(run(folder, settings, out, ledger))

"""`lepton server poll`."""

from pathlib import Path
from typing import Annotated

import typer

from lepton_flwr.commands.errors import one_line_errors
from lepton_flwr.commands.options import Assignments, Clients, ConfigFile, Debug, Scenario
from lepton_flwr.commands.polling import (
    AnswersEpsilon,
    Exact,
    Key,
    Limit,
    Predictions,
    Probabilities,
    Run,
    Table,
    Threshold,
    TrainingEpsilon,
)


def poll(
    folder: Annotated[Path, typer.Argument(help="The server's folder, of `federation init`.")],
    table: Table,
    scenario: Scenario = None,
    *,
    out: Predictions = Path("predictions.csv"),
    epsilon: AnswersEpsilon = None,
    no_dp: Exact = False,
    limit: Limit = None,
    threshold: Threshold = 0.0,
    probabilities: Probabilities = False,
    training_epsilon: TrainingEpsilon = None,
    clients: Clients = None,
    run: Run = None,
    key: Key = None,
    config: ConfigFile = None,
    assignments: Assignments = None,
    ledger: Annotated[
        Path | None, typer.Option(help="Folder of the ledger. Default: ledger in the server's.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Have the devices of a running server vote on the rows of a CSV file.

    Every device trains a model on its own rows alone, which stays there, and casts one vote on
    each row; the votes are added up by secure aggregation and noised (GNMax). The server's ledger
    and each device's are charged before anything is answered. Devices take part if their policy
    names the action evaluate.vote.

    Example: lepton server poll clinics/server new.csv health --epsilon 2 --out predictions.csv
    """
    with one_line_errors(debug):
        from lepton_flwr.commands.polling import gather, show
        from lepton_flwr.deploy.nodes import wanted_nodes
        from lepton_flwr.deploy.settings import ServerSettings
        from lepton_flwr.errors import ConfigError

        ServerSettings.read(folder)
        asked = gather(
            table,
            out,
            scenario=scenario,
            run=run,
            key=key,
            config=config,
            clients=clients or len(wanted_nodes(folder)),
            training_epsilon=training_epsilon,
            assignments=assignments or (),
            epsilon=epsilon,
            no_dp=no_dp,
            limit=limit,
            threshold=threshold,
            probabilities=probabilities,
        )
        from lepton_flwr.deploy.poll import poll as ask

        raw = asked.config.table is not None
        if raw and asked.config.output.model_to:
            raise ConfigError(
                "--run: devices with raw tables need its preprocessor, which is for "
                "its recipients only: expected a run without --model-to"
            )
        found = ask(
            folder,
            asked.config,
            asked.request,
            asked.queries.rows,
            preprocessor=asked.preprocessor if raw else None,
            ledger=ledger,
        )
        show(asked, found, out)

"""`lepton poll`: a vote of simulated devices."""

from pathlib import Path
from typing import Annotated

import typer

from lepton_flwr.commands.errors import one_line_errors
from lepton_flwr.commands.options import (
    Assignments,
    Clients,
    ConfigFile,
    Debug,
    LedgerFolder,
    Scenario,
)
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
    polls: Annotated[Path, typer.Option(help="Folder that holds the polls.")] = Path("polls"),
    ledger: LedgerFolder = None,
    debug: Debug = False,
) -> None:
    """Have the simulated clients of a scenario vote on the rows of a CSV file.

    As `lepton server poll` does with devices: every client trains a model on its own rows alone,
    and all cast one vote on each row, which are added up by secure aggregation and noised.

    Example: lepton poll new.csv customers --clients 100 --epsilon 2 --set data.partition=iid
    """
    with one_line_errors(debug):
        from lepton_flwr.commands.passphrases import getter
        from lepton_flwr.commands.polling import gather, show

        asked = gather(
            table,
            out,
            scenario=scenario,
            run=run,
            key=key,
            config=config,
            clients=clients,
            training_epsilon=training_epsilon,
            assignments=assignments or (),
            epsilon=epsilon,
            no_dp=no_dp,
            limit=limit,
            threshold=threshold,
            probabilities=probabilities,
        )
        from simulations.polls import poll as ask

        found = ask(
            asked.config,
            asked.request,
            asked.queries.rows,
            run=run,
            key=getter(key),
            out=polls,
            ledgers=ledger,
            debug=debug,
        )
        show(asked, found, out)

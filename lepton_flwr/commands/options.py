"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

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
ResumedRun = Annotated[
    Path | None, typer.Option("--resume", help="Folder of a run that was ended, to go on with.")
]
ModelKey = Annotated[
    Path | None,
    typer.Option(help="Key of one for whom the model of the run that goes on is encrypted."),
]
CsvFile = Annotated[
    Path | None,
    typer.Option("--csv", help="Learn from this CSV file of yours, whatever columns it has."),
]
Label = Annotated[str | None, typer.Option(help="Its label column. Default: the last.")]
By = Annotated[
    str | None,
    typer.Option(help="Its column whose values are the clients. Default: rows dealt at random."),
]
ModelTo = Annotated[
    list[Path] | None,
    typer.Option(
        "--model-to",
        metavar="RECIPIENT.pub",
        help="Encrypt the model for this public key, so that the run's folder holds none in clear; "
        "may be repeated.",
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and logs.")]

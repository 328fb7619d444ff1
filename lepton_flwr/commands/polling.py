"""What the commands that ask for a poll share: options, what is asked, and what is shown."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lepton_flwr.errors import ConfigError

if TYPE_CHECKING:
    from lepton_flwr.config import RunConfig
    from lepton_flwr.data.preprocessing import Preprocessor
    from lepton_flwr.inference.poll import Answers, Averages
    from lepton_flwr.inference.request import Request
    from lepton_flwr.runs.queries import Queries

Table = Annotated[
    Path, typer.Argument(metavar="CSV", help="Rows with the columns that the models take.")
]
Predictions = Annotated[Path, typer.Option("--out", help="Where the answers go.")]
AnswersEpsilon = Annotated[
    float | None,
    typer.Option(
        "--epsilon", help="Most that all answers together may cost a participant; sets the noise."
    ),
]
Exact = Annotated[
    bool, typer.Option("--no-dp", help="Exact answers, which are not private, in place of it.")
]
Limit = Annotated[
    float | None,
    typer.Option(
        help="Most that the server's ledger may come to per record, all runs and polls before "
        "included, and per participant, without runs that hide single records. Default: --epsilon."
    ),
]
Threshold = Annotated[
    float, typer.Option(help="Votes that a class needs, else the row stays without an answer.")
]
Probabilities = Annotated[
    bool, typer.Option("--probabilities", help="Averaged probabilities in place of votes.")
]
TrainingEpsilon = Annotated[
    float | None,
    typer.Option(help="Most that a device's training of its own model may cost per record."),
]
Run = Annotated[
    Path | None,
    typer.Option(help="Folder of a run: take its settings, and its preprocessor if it has one."),
]
Key = Annotated[
    Path | None, typer.Option(help="Key of one for whom that preprocessor was encrypted.")
]


@dataclass(frozen=True)
class Asked:
    """A poll as the options describe it.

    Attributes:
        config: how each device trains.
        request: which answers, at what cost.
        queries: the rows.
        preprocessor: what makes features of tables like those of the run that was named.
    """

    config: "RunConfig"
    request: "Request"
    queries: "Queries"
    preprocessor: "Preprocessor | None" = None


def gather(
    table: Path,
    out: Path,
    *,
    scenario: str | None,
    run: Path | None,
    key: Path | None,
    config: Path | None,
    clients: int | None,
    training_epsilon: float | None,
    assignments: Sequence[str],
    epsilon: float | None,
    no_dp: bool,
    limit: float | None,
    threshold: float,
    probabilities: bool,
) -> Asked:
    """Check the options and read the rows, before anything is started.

    Raises:
        ConfigError: options contradict each other or are out of range.
        DataError: the rows cannot be used.
    """
    from lepton_flwr.commands.passphrases import getter
    from lepton_flwr.config import ModelConfig
    from lepton_flwr.data import scenarios
    from lepton_flwr.inference.request import Request
    from lepton_flwr.runs.queries import read_features, read_table
    from lepton_flwr.runs.saved import CONFIG, preprocessor_of, read_rows, table_of
    from lepton_flwr.runs.settings import resolve
    from strategies.polling import as_poll

    if (epsilon is None) != no_dp:
        raise ConfigError("--epsilon or --no-dp: expected one of them, and not both")
    if run is not None and (scenario is not None or config is not None):
        raise ConfigError("--run with a scenario or --config: the run names its own")
    if run is not None and not (run / CONFIG).is_file():
        raise ConfigError(f"--run {run}: no {CONFIG} in it: expected the folder of a run")
    if out.resolve() == table.resolve():
        raise ConfigError(f"--out {out}: expected a file other than that of the rows")
    settings = resolve(
        scenario,
        config=run / CONFIG if run is not None else config,
        clients=clients,
        epsilon=training_epsilon,
        assignments=assignments,
    )
    request = Request(
        epsilon,
        delta=settings.dp.delta,
        limit=limit,
        threshold=threshold,
        probabilities=probabilities,
    )
    settings, model = as_poll(settings), settings.model
    known, preprocessor = scenarios.get(settings.scenario).table, None
    if known is None and run is not None:
        preprocessor = preprocessor_of(settings, run, getter(key))
        known = table_of(settings, preprocessor)
    if known is None:
        queries = read_features(table, model.input_shape, model.classes, model.num_classes)
    else:
        rows = read_rows(table, settings, known, preprocessor)
        queries = read_table(table, rows, known)
        shape = queries.rows.shape[1:]
        if model.input_shape and model.input_shape != shape:
            raise ConfigError(
                f"model.input_shape={list(model.input_shape)}: rows of scenario "
                f"{settings.scenario} are {list(shape)}"
            )
        made = ModelConfig(shape, len(queries.classes), known.label, queries.classes)
        settings = replace(settings, model=made)
    return Asked(settings, request, queries, preprocessor)


def show(asked: Asked, found: "Answers | Averages", out: Path) -> None:
    """Write the predictions, and say what they cost.

    Raises:
        OutputError: the file cannot be written.
    """
    import numpy as np

    from lepton_flwr._files import write_atomic
    from lepton_flwr.inference.poll import Averages
    from lepton_flwr.runs.predictions import to_csv, votes_to_csv
    from lepton_flwr.runs.text import decimal, spent

    queries, request = asked.queries, asked.request
    if isinstance(found, Averages):
        labels = found.probabilities.argmax(axis=1)
        text = to_csv(queries.classes, found.probabilities)
    else:
        labels = found.labels
        text = votes_to_csv(queries.classes, labels, found.margins)
    write_atomic(out, text.encode())
    given = labels >= 0
    typer.echo(f"{out}: {given.sum():,} of {len(labels):,} rows answered by {found.participants} "
               "participants")  # fmt: skip
    if request.epsilon is None:
        typer.echo("the answers are exact and not private")
    else:
        typer.echo(
            f"epsilon {spent(found.cost)} per participant for these answers alone, "
            f"{spent(found.epsilon)} per record for all that the server's ledger holds "
            f"(delta {request.delta:g})"
        )
    if queries.answers is not None and given.any():
        right = float(np.mean(labels[given] == queries.answers[given]))
        typer.echo(f"accuracy {decimal(right)} of the rows with an answer")

"""From a table to participants' features, by statistics that none of them shows to another."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lepton_flwr.config import RunConfig
from lepton_flwr.data.federated import FederatedData
from lepton_flwr.data.preprocessing import Preprocessor, TableSchema
from lepton_flwr.data.scenarios.csv import class_text
from lepton_flwr.data.tables import FederatedTables, assemble_tables
from lepton_flwr.errors import DataError
from lepton_flwr.privacy.events import SampledGaussian
from lepton_flwr.sdk.labels import Labels
from lepton_flwr.sdk.settings import DEFAULT_PARTICIPANTS, TRAINING, Settings

MIN_ROWS = 10  # of a participant
# Numbers are divided by two standard deviations (Gelman 2008, doi:10.1002/sim.3107): one then
# counts as much as a category that half of the records have. Under a common clip of all features'
# gradients, numbers of unit variance would drown the categories.
DEVIATIONS = 2.0

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Basis:
    """What is known of the rows without seeing them, and the run that is to come.

    Attributes:
        config: the run, with its noise.
        preprocessor: what made the features.
        labels: of the classes.
        records: names each participant's records in ledgers.
        population: names all rows together in the server's, however they are divided, 32 bytes.
        ledgers: folder of the ledgers.
        run: the run's name in them.
    """

    config: RunConfig
    preprocessor: Preprocessor
    labels: Labels
    records: tuple[bytes, ...]
    population: bytes
    ledgers: Path
    run: str

    @property
    def statistics(self) -> tuple[SampledGaussian, int]:
        """What the statistics told of each record, and how often."""
        record = self.config.dp.record
        event = SampledGaussian(record.statistics_noise_multiplier, 1.0, 1)
        return event, self.preprocessor.releases


def prepare(
    settings: Settings, x: Any, y: Any, folder: Path, *, model_to: str, progress: Progress
) -> tuple[FederatedData, Basis]:
    """Divide a table among participants, and fit and apply the preprocessing.

    Each participant drops its duplicates and holds out rows. The statistics are of the other rows,
    come out of secure sums to which each participant adds noise of the full size, and are charged
    to the ledgers first; the server's counts for these rows however they are divided.

    Args:
        settings: the client's.
        x: n rows, an array (n, columns) or a DataFrame.
        y: n labels.
        folder: of the run.
        model_to: for whom its model will be encrypted.
        progress: told of answers to a question, and of all there will be.

    Returns:
        The rows of each participant as features, and what is known of them.

    Raises:
        LabelError: the labels cannot be classes.
        DataError: the rows cannot be used, or are too few.
        BudgetError: an earlier run on the same rows has spent what is needed.
    """
    from strategies.calibration import with_floor, with_noise, with_statistics
    from strategies.preparation import ask_statistics, run_name, with_data

    labels, classes = Labels.of(y)
    config = run_config(settings, len(classes), model_to)
    tables = _tables(settings, config, x, classes, labels)
    config = with_floor(replace(config, clients=len(tables.clients)))
    config = with_noise(with_statistics(config, tables.releases))
    ledgers = folder / "ledgers" if settings.ledger is None else Path(settings.ledger).absolute()
    records = tuple(client.records for client in tables.clients)
    run = run_name(config, folder)
    preprocessor = ask_statistics(config, tables, ledgers, run, progress)
    data = tables.features(preprocessor)
    config = with_data(config, data)
    return data, Basis(config, preprocessor, labels, records, tables.population, ledgers, run)


def run_config(settings: Settings, num_rows: int | None, model_to: str) -> RunConfig:
    """The run that the settings ask for; None for rows that nobody here has counted."""
    return RunConfig.build(
        {
            "scenario": "csv",
            "clients": settings.participants,
            "rounds": settings.rounds,
            "seed": settings.seed,
            "data": {
                "partition": settings.partition,
                "alpha": settings.alpha,
                "test_fraction": settings.test_fraction,
                "min_rows": MIN_ROWS,
                "deviations": DEVIATIONS,
            },
            "train": {
                "optimizer": settings.optimizer,
                "learning_rate": settings.rate,
                "local_steps": settings.local_steps,
                "sampling_probability": settings.sampling_probability,
                "hidden_units": list(settings.hidden_units),
            },
            "dp": {
                "delta": settings.delta_for(num_rows),
                "record": {
                    "epsilon": settings.epsilon,
                    "l2_norm_clip": settings.l2_norm_clip,
                    "statistics_share": settings.statistics_share,
                },
            },
            "output": {"model_to": [model_to]},
        }
    )


def without_participants(by: str | int | None, x: Any) -> tuple[Any, np.ndarray | None]:
    """The features' columns, and the values of the column that says whose each row is.

    Raises:
        DataError: `x` is no table, or has no such column.
    """
    if by is None:
        return x, None
    if hasattr(x, "columns"):
        if by not in list(x.columns):
            raise DataError(f"by={by!r}: no such column of the rows")
        return x.drop(columns=[by]), np.asarray(x[by]).astype(str)
    array = np.asarray(x)
    if array.ndim != 2 or not isinstance(by, int) or not 0 <= by < array.shape[1]:
        raise DataError(
            f"by={by!r} for an array of shape {array.shape}: expected the position of a column"
        )
    return np.delete(array, by, axis=1), array[:, by].astype(str)


def _tables(
    settings: Settings, config: RunConfig, x: Any, classes: np.ndarray, labels: Labels
) -> FederatedTables:
    source, keys = without_participants(settings.by, x)
    schema = TableSchema.infer(source, settings.bounds)
    table = schema.read(source)
    num_rows = len(next(iter(table.values())))
    clients = settings.participants or DEFAULT_PARTICIPANTS
    if num_rows != len(classes):
        raise DataError(f"{num_rows} rows and {len(classes)} labels: expected as many")
    if keys is None and num_rows < clients * MIN_ROWS:
        raise DataError(
            f"{num_rows} rows for {clients} participants: expected at least {MIN_ROWS} for each; "
            "use fewer participants or more rows"
        )
    tables = assemble_tables(
        config,
        table,
        classes,
        schema=schema,
        keys=keys,
        clients=clients,
        num_classes=len(labels.values),
    )
    options = tables.options
    if settings.mechanism != TRAINING:
        options = replace(options, most_others=1)  # noise is added to every feature
    names = tuple(map(class_text, labels.values))
    return replace(tables, options=options, label="label", classes=names)

"""From a table to participants' features, by statistics that none of them shows to another."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lepton_flwr.crypto.digest import digest
from lepton_flwr.crypto.digest import field as encoded
from lepton_flwr.data import partition
from lepton_flwr.data.federated import ClientData
from lepton_flwr.data.preprocessing import (
    Preprocessor,
    TableSchema,
    distinct_rows,
    fit_tables,
    num_releases,
    take,
)
from lepton_flwr.errors import DataError
from lepton_flwr.privacy.accounting import calibrate
from lepton_flwr.privacy.events import SampledGaussian
from lepton_flwr.privacy.ledger import Limit
from lepton_flwr.sdk.labels import Labels
from lepton_flwr.sdk.settings import DEFAULT_PARTICIPANTS, Settings
from lepton_flwr.sdk.spending import Spending

MIN_ROWS = 10  # of a participant
_PARTITION, _HOLD_OUT = 0, 1
_ROWS = "lepton/sdk/rows/v1"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Basis:
    """What is known of the rows without seeing them.

    Attributes:
        preprocessor: what made the features.
        labels: of the classes.
        spending: the participants' ledgers.
        statistics: what they released of each record, and how often.
    """

    preprocessor: Preprocessor
    labels: Labels
    spending: Spending
    statistics: tuple[SampledGaussian, int]


@dataclass(frozen=True)
class _Part:
    """One participant's rows before they are features."""

    table: Any
    classes: np.ndarray
    train: np.ndarray
    test: np.ndarray

    def digest(self) -> bytes:
        """Names the rows: SHA-256 of all of them."""
        parts = [self.classes.astype("<i4").tobytes()]
        for name, values in self.table.items():
            text = values.dtype == object
            parts += [
                encoded(name),
                b"\0".join(b"" if v is None else b"=" + v.encode() for v in values)
                if text
                else values.astype("<f8").tobytes(),
            ]
        return digest(_ROWS, *parts)


def prepare(
    settings: Settings, x: Any, y: Any, ledgers: Path, progress: Progress | None = None
) -> tuple[tuple[ClientData, ...], Basis]:
    """Divide a table among participants, and fit and apply the preprocessing.

    Each participant drops its duplicates and holds out rows. The statistics are of the other rows,
    come out of secure sums to which each participant adds noise of the full size, and are charged
    to the ledgers first.

    Args:
        settings: the client's.
        x: n rows, an array (n, columns) or a DataFrame.
        y: n labels.
        ledgers: folder of the ledgers.
        progress: told of answers to a question, and of all there will be.

    Returns:
        The rows of each participant as features, and what is known of them.

    Raises:
        LabelError: the labels cannot be classes.
        DataError: the rows cannot be used, or are too few.
        BudgetError: an earlier run on the same rows has spent what the statistics need.
    """
    labels, classes = Labels.of(y)
    source, keys = without_participants(settings, x)
    schema = TableSchema.infer(source, settings.bounds)
    table = schema.read(source)
    num_rows = len(next(iter(table.values())))
    if num_rows != len(classes):
        raise DataError(f"{num_rows} rows and {len(classes)} labels: expected as many")
    parts = [
        _part(settings, take(table, rows), classes[rows], number)
        for number, rows in enumerate(_divide(settings, classes, keys))
    ]
    limit = Limit(settings.epsilon, settings.delta_for(num_rows))
    spending = Spending(ledgers, [part.digest() for part in parts], limit)
    noise = calibrate(
        settings.statistics_share * limit.epsilon, limit.delta, 1.0, num_releases(schema)
    )

    def charge(node: int, event: Any) -> AbstractContextManager[None]:
        return spending.released(node, event)

    preprocessor = fit_tables(
        [take(part.table, part.train) for part in parts],
        schema,
        noise_multiplier=noise,
        charge=charge,
        progress=progress,
    )
    clients = tuple(_features(part, preprocessor) for part in parts)
    statistics = (SampledGaussian(noise, 1.0, 1), preprocessor.releases)
    return clients, Basis(preprocessor, labels, spending, statistics)


def without_participants(settings: Settings, x: Any) -> tuple[Any, np.ndarray | None]:
    """The features' columns, and the values of the column that says whose each row is.

    Raises:
        DataError: `x` is no table, or has no such column.
    """
    if settings.by is None:
        return x, None
    if hasattr(x, "columns"):
        if settings.by not in list(x.columns):
            raise DataError(f"by={settings.by!r}: no such column of the rows")
        return x.drop(columns=[settings.by]), np.asarray(x[settings.by]).astype(str)
    array = np.asarray(x)
    column = settings.by
    if array.ndim != 2 or not isinstance(column, int) or not 0 <= column < array.shape[1]:
        raise DataError(
            f"by={column!r} for an array of shape {array.shape}: expected the position of a column"
        )
    return np.delete(array, column, axis=1), array[:, column].astype(str)


def _divide(
    settings: Settings, classes: np.ndarray, keys: np.ndarray | None
) -> Sequence[np.ndarray]:
    clients = settings.participants or DEFAULT_PARTICIPANTS
    rng = np.random.default_rng([settings.seed, _PARTITION])
    if keys is not None:
        parts = partition.natural(keys, min_rows=MIN_ROWS, clients=settings.participants)
        return list(parts.values())
    if len(classes) < clients * MIN_ROWS:
        raise DataError(
            f"{len(classes)} rows for {clients} participants: expected at least {MIN_ROWS} for each"
        )
    if settings.partition == "shards":
        return partition.shards(classes, clients, rng)
    if settings.partition == "dirichlet":
        return partition.dirichlet(classes, clients, rng, alpha=settings.alpha, min_rows=MIN_ROWS)
    return partition.iid(len(classes), clients, rng)


def _part(settings: Settings, table: Any, classes: np.ndarray, number: int) -> _Part:
    kept = distinct_rows(table, classes)
    rng = np.random.default_rng([settings.seed, _HOLD_OUT, number])
    if len(kept) < 2:
        raise DataError(
            f"participant {number} has {len(kept)} row beside its duplicates: expected 2 or more; "
            "use fewer participants"
        )
    train, test = partition.hold_out(len(kept), settings.test_fraction, rng)
    return _Part(take(table, kept), classes[kept], train, test)


def _features(part: _Part, preprocessor: Preprocessor) -> ClientData:
    features = preprocessor.transform(part.table)
    train, test = part.train, part.test
    return ClientData(features[train], part.classes[train], features[test], part.classes[test])

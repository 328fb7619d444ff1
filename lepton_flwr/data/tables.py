"""Tables as clients hold them before preprocessing, and the features that come out of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lepton_flwr.config import RunConfig
from lepton_flwr.crypto.digest import digest, field
from lepton_flwr.data import partition, records
from lepton_flwr.data.assemble import divide, hold_out
from lepton_flwr.data.federated import ClientData, FederatedData
from lepton_flwr.data.preprocessing.columns import Table, TableSchema, distinct_rows, take
from lepton_flwr.data.preprocessing.fit import num_releases
from lepton_flwr.data.preprocessing.preprocessor import Preprocessor
from lepton_flwr.data.preprocessing.questions import MAX_ROWS
from lepton_flwr.data.preprocessing.searches import Options
from lepton_flwr.data.table_spec import TableSpec
from lepton_flwr.errors import DataError

RECORDS_LABEL = "lepton/data/records/v1"


@dataclass(frozen=True)
class ClientTables:
    """One client's records.

    Attributes:
        train: features to train on and to compute statistics of, as `TableSchema.read` gives them.
        y_train: their classes, int32.
        test: features of the held-out records; no statistic reads them.
        y_test: their classes, int32.
        records: SHA-256 of all of them: names the data in a ledger.
    """

    train: Table
    y_train: np.ndarray
    test: Table
    y_test: np.ndarray
    records: bytes

    def features(self, preprocessor: Preprocessor) -> ClientData:
        """Features, computed of these records alone by the shared preprocessor.

        Raises:
            DataError: the records lack a column, or a feature is not finite.
        """
        return ClientData(
            preprocessor.transform(self.train),
            self.y_train,
            preprocessor.transform(self.test),
            self.y_test,
            records=self.records,
        )


@dataclass(frozen=True)
class FederatedTables:
    """The records of every client of a simulation, still to be preprocessed.

    Attributes:
        clients: one entry for each.
        names: their names, in the same order.
        num_classes: number of classes, the same for all; public.
        schema: names and kinds of the columns; public.
        options: of the preprocessing.
        label: the column that held the classes.
        classes: their names, in the order of their numbers; public.
        population: names all records together in the server's ledger, however they are divided.
    """

    clients: tuple[ClientTables, ...]
    names: tuple[str, ...]
    num_classes: int
    schema: TableSchema
    options: Options
    label: str = ""
    classes: tuple[str, ...] = ()
    population: bytes = b""

    @property
    def releases(self) -> int:
        """How many private releases the statistics need at most."""
        return num_releases(self.schema, self.options)

    @property
    def tables(self) -> list[Table]:
        """What statistics are computed of."""
        return [client.train for client in self.clients]

    def features(self, preprocessor: Preprocessor) -> FederatedData:
        """All clients' features, each computed of its own records by the shared preprocessor."""
        clients = tuple(client.features(preprocessor) for client in self.clients)
        return FederatedData(
            clients,
            self.names,
            self.num_classes,
            preprocessor.feature_names,
            preprocessor,
            self.label,
            self.classes,
            self.population,
        )


def assemble_tables(
    config: RunConfig,
    table: Table,
    y: np.ndarray,
    *,
    schema: TableSchema,
    keys: Sequence[str] | np.ndarray | None,
    clients: int,
    num_classes: int,
) -> FederatedTables:
    """Divide records among clients, drop each client's duplicates and hold out its test records.

    As `assemble`, which says more. A record is a duplicate of another of the same client with the
    same features and class; no client learns of another's.

    Raises:
        ConfigError: the partition cannot be made; the message says which setting to change.
        DataError: too few records, or fewer than two classes.
    """
    if num_classes < 2:
        raise DataError(f"the label has {num_classes} class: expected at least 2")
    parts = divide(config, y, keys, clients)
    named = records.of_table(table, y)
    held = []
    for name, rows in parts.items():
        kept = rows
        if config.data.drop_duplicates:
            kept = rows[distinct_rows(take(table, rows), y[rows])]
        train, test = hold_out(config, name, kept, named)
        held.append(
            ClientTables(
                take(table, train),
                y[train],
                take(table, test),
                y[test],
                records_digest(take(table, rows), y[rows]),
            )
        )
    options = Options.of(config.data)
    population = records.population(named)
    return FederatedTables(
        tuple(held), tuple(parts), num_classes, schema, options, population=population
    )


def device_tables(table: Table, y: np.ndarray, spec: TableSpec, name: str) -> ClientTables:
    """A device's own records: duplicates dropped and some held out, as its own schema says.

    No server's setting, seed or round changes which rows are held out. The ledger's account is that
    of all records together, in whatever order and however often the file has them.

    Args:
        table: as `TableSchema.read` gives it.
        y: its classes, int32.
        spec: the device's.
        name: the device's; one row may be on different sides at different devices.

    Raises:
        DataError: fewer than two rows, or more than `MAX_ROWS`.
    """
    if len(y) > MAX_ROWS:  # by the device's own table alone, whatever it is asked
        raise DataError(
            f"{len(y):,} rows: expected at most {MAX_ROWS:,}: divide them among devices"
        )
    named = records.of_table(table, y)
    kept = distinct_rows(table, y) if spec.drop_duplicates else np.arange(len(y))
    own = [named[row] for row in kept.tolist()]
    train, test = partition.hold_out(own, spec.test_fraction, seed=0, client=name)
    return ClientTables(
        take(table, kept[train]),
        y[kept[train]],
        take(table, kept[test]),
        y[kept[test]],
        records.population(named),
    )


def records_digest(table: Table, y: np.ndarray) -> bytes:
    """SHA-256 that determines every value of a table and its classes."""
    parts = [field(len(y)), np.ascontiguousarray(y, dtype="<i4").tobytes()]
    for name, values in table.items():
        parts.append(field(name))
        if values.dtype == object:
            parts += [b"" if value is None else b"=" + value.encode() for value in values.tolist()]
        else:
            parts.append(np.ascontiguousarray(values, dtype="<f8").tobytes())
    return digest(RECORDS_LABEL, *parts)

"""From one table of rows to the clients of a simulation."""

from collections.abc import Sequence

import numpy as np

from lepton_flwr.config import RunConfig
from lepton_flwr.data import partition, records
from lepton_flwr.data.federated import ClientData, FederatedData
from lepton_flwr.errors import ConfigError, DataError

_PARTITION = 0  # one random stream for each purpose of a seed


def assemble(
    config: RunConfig,
    x: np.ndarray,
    y: np.ndarray,
    *,
    keys: Sequence[str] | np.ndarray | None,
    clients: int,
    num_classes: int,
    feature_names: tuple[str, ...] = (),
) -> FederatedData:
    """Divide rows among clients and hold out each client's test rows.

    Reads `clients`, `seed` and `data` of the configuration; the same values give the same rows.

    Args:
        config: the run's configuration.
        x: features, float32, shape (n, ...).
        y: classes, int32, shape (n,).
        keys: natural client of each row, shape (n,); None where there is none.
        clients: number of clients if the configuration names none and the partition is not the
            natural one.
        num_classes: number of classes.
        feature_names: names of the features.

    Raises:
        ConfigError: the partition cannot be made; the message says which setting to change.
        DataError: too few rows, fewer than two classes, or rows that `ClientData` refuses.
    """
    if num_classes < 2:
        raise DataError(f"the label has {num_classes} class: expected at least 2")
    parts = divide(config, y, keys, clients)
    named = records.of_features(x, y)
    held = []
    for name, rows in parts.items():
        train, test = hold_out(config, name, rows, named)
        held.append(ClientData(x[train], y[train], x[test], y[test]))
    population = records.population(named)
    return FederatedData(
        tuple(held), tuple(parts), num_classes, feature_names, population=population
    )


def hold_out(
    config: RunConfig, client: str, rows: np.ndarray, named: Sequence[bytes]
) -> tuple[np.ndarray, np.ndarray]:
    """A client's training and held-out rows, by number.

    Args:
        config: its `seed` and `data.test_fraction` are read.
        client: its name.
        rows: its rows, by number.
        named: digest of every client's every row, as `records` makes them.
    """
    own = [named[row] for row in rows.tolist()]
    fraction = config.data.test_fraction
    train, test = partition.hold_out(own, fraction, seed=config.seed, client=client)
    return rows[train], rows[test]


def divide(
    config: RunConfig, y: np.ndarray, keys: Sequence[str] | np.ndarray | None, clients: int
) -> dict[str, np.ndarray]:
    """Names of clients to their rows, by number; see `assemble`."""
    data, clients = config.data, config.clients or clients
    if data.partition == "natural":
        if keys is None:
            raise ConfigError(
                'data.partition="natural": these rows have no natural clients; '
                'set data.partition = "iid", "dirichlet", "shards" or "quantity"'
            )
        return partition.natural(keys, min_rows=data.min_rows, clients=config.clients)
    rng = np.random.default_rng([config.seed, _PARTITION])
    if data.partition == "iid":
        parts = partition.iid(len(y), clients, rng)
    elif data.partition == "shards":
        parts = partition.shards(y, clients, rng)
    elif data.partition == "quantity":
        parts = partition.quantity(len(y), clients, rng, alpha=data.alpha, min_rows=data.min_rows)
    else:
        parts = partition.dirichlet(y, clients, rng, alpha=data.alpha, min_rows=data.min_rows)
    width = len(str(clients - 1))
    return {f"client-{i:0{width}d}": part for i, part in enumerate(parts)}

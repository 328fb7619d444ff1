"""Dividing rows among clients: by a natural key, evenly, or unevenly on purpose.

Every partitioner returns one ascending array of row numbers (int64) for each client. No row is in
two of them; only `natural` leaves rows out. The same seed gives the same division.
"""

from collections.abc import Sequence

import numpy as np

from lepton_flwr.crypto.digest import digest, field
from lepton_flwr.errors import ConfigError, DataError

MIN_CLIENTS = 3
MAX_CLIENTS = 10_000
MIN_ROWS = 2  # one to train on, one to hold out
_DRAWS = 1000
_HOLD_OUT = "lepton/data/hold-out/v1"


def natural(
    keys: Sequence[str] | np.ndarray, *, min_rows: int, clients: int | None
) -> dict[str, np.ndarray]:
    """One client for each distinct key.

    Args:
        keys: the key of each row, shape (n,); rows with an empty key are left out.
        min_rows: keys with fewer rows are left out.
        clients: keep the keys with the most rows (ties by name); None keeps all.

    Returns:
        Key to row numbers, in ascending order of the keys.

    Raises:
        ConfigError: there are fewer such keys than asked for, fewer than 3, or more than 10,000.
    """
    names, codes, counts = np.unique(
        np.asarray(keys, dtype=str), return_inverse=True, return_counts=True
    )
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(counts)
    floor = max(min_rows, MIN_ROWS)
    large = [i for i in range(len(names)) if names[i] and counts[i] >= floor]
    wanted = MIN_CLIENTS if clients is None else clients
    if len(large) < wanted:
        raise ConfigError(
            f"{len(large)} natural clients with {min_rows} rows or more, expected at least "
            f"{wanted}: lower data.min_rows (now {min_rows})"
            + (", lower clients" if wanted > MIN_CLIENTS else "")
            + ', or set data.partition = "dirichlet" or "iid"'
        )
    if clients is None and len(large) > MAX_CLIENTS:
        raise ConfigError(
            f"{len(large)} natural clients, expected at most {MAX_CLIENTS}: set clients to keep "
            f"the largest, or raise data.min_rows (now {min_rows})"
        )
    kept = sorted(sorted(large, key=lambda i: (-counts[i], i))[:clients])
    return {str(names[i]): order[ends[i] - counts[i] : ends[i]] for i in kept}


def iid(num_rows: int, clients: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Shuffle the rows and cut them into parts whose sizes differ by at most one.

    Raises:
        DataError: fewer than two rows for each client.
    """
    _enough(num_rows, clients, MIN_ROWS)
    return [np.sort(part) for part in np.array_split(rng.permutation(num_rows), clients)]


def dirichlet(
    labels: np.ndarray, clients: int, rng: np.random.Generator, *, alpha: float, min_rows: int
) -> list[np.ndarray]:
    """Divide each class among the clients in proportions drawn from Dirichlet(alpha).

    Label skew as in Hsu, Qi and Brown 2019 (arXiv:1909.06335), dividing classes rather than
    filling clients, so that every row is used once.

    Args:
        labels: class of each row, shape (n,).
        clients: number of clients.
        rng: source of the proportions and the order.
        alpha: concentration; small is uneven, large is even.
        min_rows: fewest rows of a client; divisions with fewer are drawn again.

    Raises:
        ConfigError: 1,000 draws gave no division with `min_rows` rows for every client.
        DataError: fewer than `min_rows` rows for each client even if divided evenly.
    """
    floor = max(min_rows, MIN_ROWS)
    _enough(len(labels), clients, floor)
    classes = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    for _ in range(_DRAWS):
        # Dirichlet by its gamma form; the floor keeps a tiny alpha from dividing zero by zero.
        weights = np.maximum(rng.standard_gamma(alpha, (len(classes), clients)), 1e-300)
        shares = weights / weights.sum(axis=1, keepdims=True)
        cuts = [
            np.rint(np.cumsum(share)[:-1] * len(rows)).astype(np.int64)
            for share, rows in zip(shares, classes, strict=True)
        ]
        sizes = sum(
            np.diff(cut, prepend=0, append=len(rows))
            for cut, rows in zip(cuts, classes, strict=True)
        )
        if np.min(sizes) >= floor:
            parts = [np.split(rows, cut) for rows, cut in zip(classes, cuts, strict=True)]
            return [np.sort(np.concatenate(own)) for own in zip(*parts, strict=True)]
    raise ConfigError(
        f"data.alpha={alpha:g}: no division of {len(labels)} rows gave each of {clients} clients "
        f"{floor} rows in {_DRAWS} draws: raise data.alpha, or lower clients or data.min_rows"
    )


def quantity(
    num_rows: int, clients: int, rng: np.random.Generator, *, alpha: float, min_rows: int
) -> list[np.ndarray]:
    """Shuffle the rows and cut them in proportions drawn from Dirichlet(alpha).

    Quantity skew: clients differ in how much they hold, not in what (Li et al. 2022,
    arXiv:2102.02079, section 4.3).

    Args:
        num_rows: rows in all.
        clients: number of clients.
        rng: source of the proportions and the order.
        alpha: concentration; small is uneven, large is even.
        min_rows: fewest rows of a client; every client gets them before the rest is divided.

    Raises:
        DataError: fewer than `min_rows` rows for each client.
    """
    floor = max(min_rows, MIN_ROWS)
    _enough(num_rows, clients, floor)
    weights = np.maximum(rng.standard_gamma(alpha, clients), 1e-300)
    spare = num_rows - clients * floor
    ends = np.rint(np.cumsum(weights / weights.sum())[:-1] * spare).astype(np.int64)
    cuts = ends + floor * np.arange(1, clients)
    return [np.sort(part) for part in np.split(rng.permutation(num_rows), cuts)]


def shards(
    labels: np.ndarray, clients: int, rng: np.random.Generator, *, per_client: int = 2
) -> list[np.ndarray]:
    """Sort the rows by class, cut them into equal shards, and deal each client some of them.

    The division of McMahan et al. 2017 (arXiv:1602.05629, section 3): with two shards most
    clients see two classes.

    Raises:
        DataError: fewer rows than shards, or fewer than two rows for each client.
    """
    _enough(len(labels), clients, max(per_client, MIN_ROWS))
    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    pieces = np.array_split(by_class, clients * per_client)
    deal = rng.permutation(len(pieces)).reshape(clients, per_client)
    return [np.sort(np.concatenate([pieces[i] for i in hand])) for hand in deal]


def hold_out(
    records: Sequence[bytes], fraction: float, *, seed: int, client: str
) -> tuple[np.ndarray, np.ndarray]:
    """Divide one client's rows into those to train on and those held out, each by itself.

    Args:
        records: SHA-256 of each row, see `records`; equal rows go to the same side.
        fraction: chance of a row to be held out.
        seed: of the run.
        client: its name; one row may be on different sides at different clients.

    Returns:
        Train and test row numbers, each ascending and with at least one row; together all rows.

    **Guarantee**: which side a row is on depends on the seed, the client and that row alone, so
    one row more is one row more on its side and changes nothing else. Except where chance leaves a
    side empty and one row is moved there. Where none would be held out, one row more is still one
    row more to train on, though perhaps another one; where all would be, with probability
    fraction^n for n different rows, it may replace the only row to train on.

    Raises:
        DataError: fewer than two rows.
    """
    _enough(len(records), 1, MIN_ROWS)
    key = field(seed), field(client)
    draws = [int.from_bytes(digest(_HOLD_OUT, *key, record)[:8], "big") for record in records]
    held = np.array([draw < fraction * 2**64 for draw in draws])
    if not held.any():
        held[draws.index(min(draws))] = True
    elif held.all():
        held[draws.index(max(draws))] = False
    return np.flatnonzero(~held), np.flatnonzero(held)


def _enough(num_rows: int, clients: int, each: int) -> None:
    if num_rows < clients * each:
        raise DataError(
            f"{num_rows} rows for {clients} clients: expected at least {each} rows for each"
        )

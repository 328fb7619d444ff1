"""How many nodes a run needs, and waiting for them."""

import math
import threading
import time

from flwr.serverapp import Grid

from lepton_flwr.config import RunConfig
from lepton_flwr.errors import FederationError
from strategies.exchange import RunInterruptedError

NODES_TIMEOUT = 120.0
MIN_NODES = 3  # of a secure sum


def fewest_nodes(config: RunConfig) -> int:
    """Nodes without which no round can be expected to release a sum.

    Where clients are sampled, `secagg.min_survivors` of an average cohort; and as many as Flower's
    strategies wait for.
    """
    client = config.dp.client
    probability = client.sampling_probability if client.enabled else 1.0
    return max(MIN_NODES, math.ceil(config.secagg.min_survivors / probability))


def count_nodes(grid: Grid) -> int:
    """How many nodes there are, as soon as there is one.

    Raises:
        FederationError: none came within `NODES_TIMEOUT`.
    """
    deadline = time.monotonic() + NODES_TIMEOUT
    while not (nodes := list(grid.get_node_ids())):
        if time.monotonic() > deadline:
            raise FederationError(f"no client came within {NODES_TIMEOUT:.0f} s")
        time.sleep(0.1)
    return len(nodes)


def await_nodes(
    grid: Grid,
    clients: int,
    stop: threading.Event | None = None,
    *,
    fewest: int | None = None,
) -> None:
    """Wait for so many nodes, or in the end for the `fewest` that will do; None wants all.

    Raises:
        FederationError: fewer came within `NODES_TIMEOUT`.
        RunInterruptedError: `stop` was set.
    """
    deadline = time.monotonic() + NODES_TIMEOUT
    while (count := len(list(grid.get_node_ids()))) < clients:
        if stop is not None and stop.is_set():
            raise RunInterruptedError("stopped by the operator")
        if time.monotonic() > deadline:
            if fewest is not None and count >= fewest:
                return
            raise FederationError(
                f"{count} of {clients} clients came within {NODES_TIMEOUT:.0f} s: start the "
                "others, or set clients to their number"
            )
        time.sleep(0.1)

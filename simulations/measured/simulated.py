"""The same rounds on Flower's simulation engine, where simulated devices hold the clients."""

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from lepton_flwr.crypto.identity import ROSTER_FILE, Roster
from lepton_flwr.device import simulated_root
from lepton_flwr.errors import FederationError
from lepton_flwr.provision import provision
from simulations.measured.client import app as client_app
from simulations.measured.server import federate
from simulations.runner import run_on_engine
from strategies.watcher import Watcher


@dataclass
class _NoRows:
    """The rows of clients that have no work."""

    digest: bytes = bytes(32)
    records: bytes = b""

    def save(self, path: Path) -> None:
        path.write_bytes(b"")


@dataclass
class _Result:
    arrays: list[np.ndarray] = field(default_factory=list)
    failure: BaseException | None = None


def simulate(
    clients: int, rounds: int, size: int, on_session: Callable[..., None] | None = None
) -> list[np.ndarray]:
    """Run the rounds of `simulations.measured.server` on the simulation engine.

    Args:
        clients: how many.
        rounds: how many.
        size: parameters of the model; a multiple of 4.
        on_session: see `SecureGrid`.

    Returns:
        The model, float32 arrays.

    Raises:
        FederationError: the engine ended before the run did.
    """
    result, server_app = _Result(), ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        root = simulated_root(context.run_id)
        rows: list[Any] = [_NoRows()] * clients
        try:
            folders = provision(root, rows, min_survivors=clients)
            roster = Roster.of_authority((folders[0] / ROSTER_FILE).read_bytes())
            result.arrays = federate(grid, roster, clients, rounds, size, Watcher(), on_session)
        except BaseException as error:
            result.failure = error
        finally:
            shutil.rmtree(root, ignore_errors=True)

    run_on_engine(server_app, client_app, clients, threading.Event())
    if result.failure is not None:
        raise result.failure
    if not result.arrays:
        raise FederationError("the simulation engine ended before the run did")
    return result.arrays

"""The same rounds on Flower's simulation engine, where simulated devices hold the clients."""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flwr.serverapp import Grid

from lepton_flwr.crypto.identity import ROSTER_FILE, Roster
from lepton_flwr.provision import provision, simulated_folder
from simulations.measured.client import app as client_app
from simulations.measured.server import federate
from simulations.runner import in_engine
from strategies.watcher import Watcher


@dataclass
class _NoRows:
    """The rows of clients that have no work."""

    digest: bytes = bytes(32)
    records: bytes = b""

    def save(self, path: Path) -> None:
        path.write_bytes(b"")


def simulate(clients: int, rounds: int, size: int) -> list[np.ndarray]:
    """Run the rounds of `simulations.measured.server` on the simulation engine.

    Args:
        clients: how many.
        rounds: how many.
        size: parameters of the model; a multiple of 4.

    Returns:
        As `federate`.

    Raises:
        LeptonError: the engine ended before the run did.
    """
    arrays: list[np.ndarray] = []

    def work(grid: Grid, run_id: int, _: threading.Event) -> None:
        rows: list[Any] = [_NoRows()] * clients
        with simulated_folder(run_id) as root:
            folders = provision(root, rows, min_survivors=clients)
            roster = Roster.of_authority((folders[0] / ROSTER_FILE).read_bytes())
            arrays.extend(federate(grid, roster, clients, rounds, size, Watcher()))

    in_engine(work, clients, client_app=client_app)
    return arrays

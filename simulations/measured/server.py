"""A ServerApp that runs rounds on clients with fixed updates, and keeps times and the model."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from lepton_flwr.crypto.identity import Roster
from lepton_flwr.secagg.encoding import Decoded
from lepton_flwr.secagg.roles import Members
from lepton_flwr.secagg.wire import UPDATE
from strategies.pauses import shorten_pauses
from strategies.secure_aggregation import SecureAggregation
from strategies.secure_grid import SecureGrid, SecureSettings
from strategies.secure_session import SessionReport
from strategies.watcher import Watcher

from .trace import now

TIMES_FILE, MODEL_FILE = "exchanges.json", "model.npz"


@dataclass
class Clock(Watcher):
    """Notes when exchanges began and ended.

    Attributes:
        exchanges: one of them each, in order.
    """

    exchanges: list[dict[str, Any]] = field(default_factory=list)
    _began: float = 0.0

    def waiting(self, phase: str, done: int, total: int, nodes: Sequence[int]) -> None:  # noqa: ARG002
        """Note the beginning."""
        if done == 0:
            self._began = now()

    def exchanged(self, purpose: str, phase: str, done: int, total: int, seconds: float) -> None:  # noqa: ARG002
        """Note the end."""
        line = {"purpose": purpose, "exchange": phase, "done": done, "total": total}
        self.exchanges.append(line | {"began": self._began, "ended": now()})


def federate(  # noqa: PLR0917
    grid: Grid, members: Members, clients: int, rounds: int, size: int, watcher: Watcher
) -> list[np.ndarray]:
    """Train a model of zeros by secure FedAvg, without noise, and without evaluation.

    Args:
        grid: the federation's.
        members: the roster.
        clients: how many nodes there are; it waits for them, and every round needs them all.
        rounds: how many.
        size: parameters of the model, in two arrays; a multiple of 4.
        watcher: hears of the exchanges.

    Returns:
        Two float32 arrays, the model, and then for each round the mean of its updates, float64 of
        shape (size,), in which every unit of the secure sum shows.
    """
    means: list[np.ndarray] = []

    def keep(_: SessionReport, decoded: Decoded | None) -> None:
        means.append(decoded.means[UPDATE] if decoded is not None else np.zeros(0))

    while len(list(grid.get_node_ids())) < clients:
        time.sleep(0.1)
    zeros = [np.zeros(size // 2, np.float32), np.zeros((size // 4, 2), np.float32)]
    settings = SecureSettings(min_survivors=clients, update_bound=1.0, max_examples=1000)
    strategy = SecureAggregation(
        FedAvg(fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients),
        lambda plain: SecureGrid(plain, members, settings, watcher=watcher, on_session=keep),
    )
    result = strategy.start(grid, ArrayRecord(zeros), num_rounds=rounds, timeout=600)
    return [*result.arrays.to_numpy_ndarrays(), *means]


app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run what the run's configuration says, and leave its files in the folder `out`."""
    shorten_pauses()
    config, clock = context.run_config, Clock()
    roster = Roster.of_authority(Path(str(config["roster"])).read_bytes())
    number, rounds, size = (int(config[key]) for key in ("clients", "rounds", "size"))
    arrays = federate(grid, roster, number, rounds, size, clock)
    out = Path(str(config["out"]))
    np.savez(out / MODEL_FILE, *arrays)
    (out / TIMES_FILE).write_text(json.dumps(clock.exchanges))

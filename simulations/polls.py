"""A poll of simulated devices: each trains on its own rows, and all answer by a secure sum."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lepton_flwr.config import RunConfig
from lepton_flwr.data import scenarios
from lepton_flwr.data.federated import FederatedData
from lepton_flwr.device import ACTIONS, OTHER_ACTIONS
from lepton_flwr.errors import ConfigError
from lepton_flwr.inference.folder import PollFolder
from lepton_flwr.inference.poll import Answers, Averages
from lepton_flwr.inference.request import Request
from lepton_flwr.runs.folder import new_folder
from lepton_flwr.runs.progress import answering
from simulations.runner import in_engine

if TYPE_CHECKING:
    from flwr.serverapp import Grid

    from lepton_flwr.runs.artifacts import GetKey

LEDGERS = "ledgers"


def poll(
    config: RunConfig,
    request: Request,
    queries: np.ndarray,
    *,
    run: Path | None = None,
    key: "GetKey | None" = None,
    out: Path | None = None,
    ledgers: Path | None = None,
    debug: bool = False,
) -> Answers | Averages:
    """Ask simulated devices, each of which has a policy and a ledger that this is charged to.

    Args:
        config: how each trains its local model; see `strategies.polling.as_poll`.
        request: which answers, at what cost.
        queries: float32 (n, ...), rows as their models take them.
        run: folder of a run whose preprocessor makes the devices' features, where tables need one.
        key: called for the key of one of its recipients, if that is encrypted.
        out: folder that holds the polls; None is `polls`.
        ledgers: folder of the ledgers of server and devices: what they hold counts. None is a new
            one in the poll's folder.
        debug: let Flower and Ray log.

    Raises:
        ConfigError: the configuration does not fit the scenario, or its tables have no
            preprocessor.
        DataError: the data or the rows cannot be used.
        BudgetError: the server's ledger does not allow the answers; nobody was asked.
        ThresholdError: too few devices answered: refused by a ledger of theirs, for example.
        OutputError: the poll's folder cannot be made.
        RunInterruptedError: Ctrl-C.
    """
    data = _rows(config, run, key)
    from strategies.budgets import population_of
    from strategies.polling import Asker, ask
    from strategies.preparation import with_data
    from strategies.server_app import describe_model, simulated_devices
    from strategies.watcher import Watcher

    config = with_data(config, data)
    path = new_folder(Path("polls") if out is None else out, config.scenario)
    folder, kept = PollFolder(path), ledgers or path / LEDGERS
    folder.ask(config, request, queries)
    population = data.population or population_of(config)

    class Shown(Watcher):
        def __init__(self, show: Callable[[int, int], None]) -> None:
            self._show = show

        def waiting(self, phase: str, done: int, total: int, nodes: Sequence[int]) -> None:  # noqa: ARG002
            self._show(done, total)

    with answering("votes") as show:

        def work(grid: "Grid", run_id: int, stop: threading.Event) -> None:
            actions = (*ACTIONS, *OTHER_ACTIONS)
            with simulated_devices(run_id, config, data, kept, actions) as roster:
                asker = Asker(config, describe_model(config), roster, kept, population)
                ask(grid, asker, folder, stop=stop, watcher=Shown(show))

        in_engine(work, len(data.clients), debug)
    return folder.answers()


def _rows(config: RunConfig, run: Path | None, key: "GetKey | None") -> FederatedData:
    """Every device's features, by what is public or by the preprocessor of a run."""
    if run is not None:
        from strategies.preparation import prepare_again

        return prepare_again(config, run, key)
    loaded = scenarios.get(config.scenario).load(config)
    if not isinstance(loaded, FederatedData):
        raise ConfigError(
            f"a poll of scenario {config.scenario}: its tables need a preprocessor, which costs "
            "privacy: give the folder of a run that has one, --run"
        )
    return loaded

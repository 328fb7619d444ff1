"""A poll of a server's devices: `lepton server poll`."""

from pathlib import Path
from typing import TextIO

import numpy as np

from lepton_flwr.config import RunConfig
from lepton_flwr.crypto.identity import ROSTER_FILE
from lepton_flwr.data.preprocessing import Preprocessor
from lepton_flwr.deploy.train import check_running, run_app
from lepton_flwr.errors import FederationError
from lepton_flwr.inference.folder import PollFolder
from lepton_flwr.inference.poll import Answers, Averages
from lepton_flwr.inference.request import Request
from lepton_flwr.runs.folder import new_folder

POLLS = "polls"


def poll(
    folder: Path,
    config: RunConfig,
    request: Request,
    queries: np.ndarray,
    *,
    preprocessor: Preprocessor | None = None,
    ledger: Path | None = None,
    console: TextIO | None = None,
) -> Answers | Averages:
    """Ask the devices of a running server.

    What is asked and answered stays in a folder below `polls` in the server's.

    Args:
        folder: the server's.
        config: how each device trains its local model; see `strategies.polling.as_poll`.
        request: which answers, at what cost.
        queries: float32 (n, ...), rows as the devices' models take them.
        preprocessor: what makes features of the devices' tables, if they bring raw ones.
        ledger: folder of the server's ledger; None is that of its runs, `ledger` in its folder.
        console: where the log goes; None is standard output.

    Ctrl-C and SIGTERM stop the poll; what was charged stays charged.

    Raises:
        ConfigError: `server.toml` is missing or malformed.
        FederationError: the server does not run, or the app failed.
        PollError: no answers: the server's ledger, a device's policy or ledger does not allow
            them, or too few devices answered.
        OutputError: the poll's folder cannot be made.
    """
    folder = folder.resolve()
    check_running(folder)
    path = new_folder(folder / POLLS, config.scenario).resolve()
    asked = PollFolder(path)
    asked.ask(config, request, queries, preprocessor)
    values = {
        "simulated": False,
        "poll": str(path),
        "roster": str(folder / ROSTER_FILE),
        "config-file": str(asked.config_file),
        "ledger": str((ledger or folder / "ledger").resolve()),
    }
    try:
        run_app(folder, values, path / "logs", console)
    except FederationError:
        if (failure := asked.failed()) is not None:
            raise failure from None
        raise
    return asked.answers()

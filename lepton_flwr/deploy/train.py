"""A run on a server's devices: `lepton server train`."""

import contextlib
import sys
import tempfile
from pathlib import Path
from typing import TextIO

from lepton_flwr.config import RunConfig
from lepton_flwr.crypto.identity import ROSTER_FILE
from lepton_flwr.deploy.server import CONNECTION, FLOWER_HOME
from lepton_flwr.deploy.settings import ServerSettings
from lepton_flwr.deploy.status import RUNNING, Status
from lepton_flwr.errors import FederationError
from simulations.loopback import environment
from simulations.processes import Processes, termination_as_exit


def train(
    folder: Path,
    config: RunConfig,
    out: Path | None = None,
    ledger: Path | None = None,
    console: TextIO | None = None,
) -> Path:
    """Run the app on the devices of a running server.

    Args:
        folder: the server's.
        config: the run.
        out: folder that holds the runs; None is `runs` in the server's folder.
        ledger: folder of the server's ledger; None is `ledger` in the server's folder, so that what
            was spent counts over runs.
        console: where the log goes; None is standard output.

    Returns:
        The run's folder.

    Ctrl-C and SIGTERM stop the run.

    Raises:
        ConfigError: `server.toml` is missing or malformed.
        FederationError: the server does not run, or the run failed.
        OutputError: the run's folder cannot be made.
    """
    import tomli_w

    from lepton_flwr.runs.folder import new_folder
    from simulations.app_bundle import assemble
    from simulations.flower import Flower

    folder = folder.resolve()
    ServerSettings.read(folder)
    status = Status.read(folder)
    if status is None or status.state != RUNNING:
        raise FederationError(
            f"{folder}: the server is {status.state if status else 'not running'}: expected "
            "`lepton server run` of the same folder, on this machine"
        )
    run_folder = new_folder(out or folder / "runs", config.scenario).resolve()
    logs = run_folder / "logs"
    logs.mkdir()
    with (
        termination_as_exit(),
        tempfile.TemporaryDirectory(prefix="lepton-train-") as name,
        Processes(logs, environment()) as processes,
    ):
        temporary = Path(name).resolve()
        config_file = temporary / "config.toml"
        config_file.write_text(tomli_w.dumps(config.to_dict()), encoding="utf-8")
        values = {
            "simulated": False,
            "roster": str(folder / ROSTER_FILE),
            "config-file": str(config_file),
            "out": str(run_folder),
            "ledger": str((ledger or folder / "ledger").resolve()),
        }
        flower = Flower(processes, folder / FLOWER_HOME, CONNECTION)
        try:
            flower.run(assemble(temporary), values, console or sys.stdout)
        except (KeyboardInterrupt, SystemExit):
            with contextlib.suppress(FederationError):
                flower.stop()
            raise
    return run_folder

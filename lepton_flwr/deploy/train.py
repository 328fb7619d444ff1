"""The app on a server's devices: `lepton server train` and `lepton server resume`."""

import contextlib
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TextIO

from lepton_flwr._files import write_atomic
from lepton_flwr.config import RunConfig
from lepton_flwr.crypto.identity import ROSTER_FILE
from lepton_flwr.crypto.recipients import DecryptionKey
from lepton_flwr.deploy.server import CONNECTION, FLOWER_HOME
from lepton_flwr.deploy.settings import ServerSettings
from lepton_flwr.deploy.status import RUNNING, Status
from lepton_flwr.deploy.supervisor import is_run
from lepton_flwr.errors import ConfigError, FederationError
from lepton_flwr.runs.checkpoint import Checkpoints
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
            was spent counts over runs. The server writes both: its unit lets it write to its own
            folder alone, unless `ReadWritePaths` names another.
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

    folder = folder.resolve()
    check_running(folder)
    run_folder = new_folder(out or folder / "runs", config.scenario).resolve()
    # Where the server may read it: under its unit, /tmp and what others own is out of its sight.
    config_file = run_folder / "config.toml"
    write_atomic(config_file, tomli_w.dumps(config.to_dict()).encode())
    values = {
        "simulated": False,
        "roster": str(folder / ROSTER_FILE),
        "config-file": str(config_file),
        "out": str(run_folder),
        "ledger": str((ledger or folder / "ledger").resolve()),
    }
    run_app(folder, values, run_folder / "logs", console)
    return run_folder


def resume(
    folder: Path, run_folder: Path, key: Path | None = None, console: TextIO | None = None
) -> Path:
    """Go on with a run on the devices of a running server.

    The checkpoint is checked before anything is started, and by the server again.

    Args:
        folder: the server's.
        run_folder: the run's.
        key: of a recipient, if the run's model is encrypted: a file without a passphrase, which the
            server reads too.
        console: where the log goes; None is standard output.

    Returns:
        The run's folder.

    Raises:
        CheckpointError: the run cannot go on.
        ConfigError: it ran on simulated devices; or `server.toml` is missing or malformed.
        EnvelopeError: the key is another's, or the checkpoint was altered.
        KeyFileError: the key cannot be read, is open to other users, or has a passphrase.
        FederationError: the server does not run, or the run failed.
    """
    folder, run_folder = folder.resolve(), run_folder.resolve()
    done = check_resumable(run_folder, key)
    check_running(folder)
    values = {
        "simulated": False,
        "roster": str(folder / ROSTER_FILE),
        "resume": str(run_folder),
        **({"model-key": str(key.resolve())} if key is not None else {}),
    }
    run_app(folder, values, run_folder / "logs" / f"after-round-{done}", console)
    return run_folder


def check_resumable(run_folder: Path, key: Path | None = None) -> int:
    """Rounds that a run on devices has done; see `resume` for what is raised."""
    get_key = partial(DecryptionKey.load, key) if key is not None else None
    with contextlib.closing(Checkpoints.reopen(run_folder, get_key)) as checkpoints:
        if "roster" not in checkpoints.settings:
            raise ConfigError(
                f"{run_folder}: a run of simulated devices: go on with `lepton simulate --resume`"
            )
        return checkpoints.rounds_done


def check_running(folder: Path) -> None:
    """See whether a server runs on its folder.

    Raises:
        ConfigError: it is no server's folder.
        FederationError: the server does not run.
    """
    ServerSettings.read(folder)
    status = Status.read(folder)
    state = status.state if status else "not running"
    if state == RUNNING and not is_run(folder):  # killed: the last that it said is not true
        state = "gone without a word"
    if state != RUNNING:
        raise FederationError(
            f"{folder}: the server is {state}: expected `lepton server run` of the same folder, on "
            "this machine"
        )


def run_app(folder: Path, values: dict[str, object], logs: Path, console: TextIO | None) -> None:
    """Run the app on a server's devices to its end, with these values for its configuration.

    Raises:
        FederationError: it failed.
    """
    from simulations.app_bundle import assemble
    from simulations.flower import Flower

    logs.mkdir(parents=True, exist_ok=True)
    with (
        termination_as_exit(),
        tempfile.TemporaryDirectory(prefix="lepton-train-") as name,
        Processes(logs, environment()) as processes,
    ):
        flower = Flower(processes, folder / FLOWER_HOME, CONNECTION)
        try:
            flower.run(assemble(Path(name).resolve()), values, console or sys.stdout)
        except (KeyboardInterrupt, SystemExit):
            with contextlib.suppress(FederationError):
                flower.stop()
            raise

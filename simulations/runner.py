"""Runs an experiment on Flower's simulation engine, in this process and Ray's workers."""

import contextlib
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from lepton_flwr._quiet import silent_stderr
from lepton_flwr.config import RunConfig
from lepton_flwr.errors import ConfigError, LeptonError

if TYPE_CHECKING:
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid

    from lepton_flwr.data.federated import FederatedData
    from lepton_flwr.data.sealed import SealedData
    from lepton_flwr.runs.artifacts import GetKey
    from lepton_flwr.runs.checkpoint import Checkpoints
    from lepton_flwr.runs.folder import RunFolder
    from lepton_flwr.runs.observer import RunObserver
    from strategies.federate import Origin

QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    # One core each: workers that share cores with more threads than cores crawl.
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
}


def simulate(
    config: RunConfig, out: Path | None = None, debug: bool = False, ledgers: Path | None = None
) -> Path:
    """Run a scenario with simulated clients.

    Args:
        config: the run.
        out: folder that holds the runs; None is `runs`.
        debug: let Flower and Ray log.
        ledgers: folder of the ledgers of server and clients: what they hold counts against this
            run, and this run against those that come. None is a new one in the run's folder.

    Returns:
        The run's folder.

    Raises:
        ConfigError: the configuration does not fit the scenario.
        DataError: the data cannot be used.
        OutputError: the run's folder cannot be made or written.
        PrivacyError: a budget does not allow another round; those before it are kept. If it allows
            none, nothing is started.
        RunInterrupted: Ctrl-C; the finished rounds are kept.
    """
    _quiet_environment()
    from lepton_flwr.runs.folder import new_folder
    from lepton_flwr.runs.progress import answering
    from strategies.budgets import Budgets
    from strategies.calibration import with_noise
    from strategies.preparation import prepare
    from strategies.server_app import LEDGERS, begin, observers

    path = new_folder(out, config.scenario)
    kept = ledgers or path / LEDGERS
    with answering("statistics") as progress:
        made = prepare(config, path, kept, progress)
    config, data = made.config, made.data
    folder, observer = observers(config, folder=path)
    if ledgers is not None:  # refused at once, not after an engine has started
        try:
            opened = Budgets.open(kept, with_noise(config), made.run, data.population or None)
            with contextlib.closing(opened) as budgets:
                budgets.affordable(config.rounds)
        except BaseException:
            folder.discard_unused()
            raise
    checkpoints = begin(path, config, kept, made.run)
    run(
        config,
        data,
        folder,
        observer,
        kept,
        name=made.run,
        checkpoints=checkpoints,
        debug=debug,
    )
    return path


def resume(path: Path, debug: bool = False, key: "GetKey | None" = None) -> Path:
    """Go on with a simulated run that was ended, with its own configuration and ledgers.

    Args:
        path: the run's folder.
        debug: let Flower and Ray log.
        key: called for the key of a recipient, if the run's model is encrypted.

    Returns:
        The run's folder.

    Raises:
        CheckpointError: the run cannot go on.
        ConfigError: it ran on real devices.
        EnvelopeError: the key is another's, or an envelope was altered.
        DataError: its data cannot be used.
        LedgerError: its ledger cannot be trusted.
        OutputError: the run's folder cannot be written.
        PrivacyError: a budget does not allow another round.
        RunInterrupted: Ctrl-C; the finished rounds are kept.
    """
    _quiet_environment()
    from lepton_flwr.runs.checkpoint import Checkpoints
    from strategies.preparation import prepare_again
    from strategies.server_app import ROSTER, ledgers_of, observers

    with contextlib.closing(Checkpoints.reopen(path, key)) as checkpoints:
        if ROSTER in checkpoints.settings:
            raise ConfigError(f"{path}: a run on devices: go on with `lepton server resume`")
        config = checkpoints.config
        ledgers = ledgers_of(checkpoints)
        data = prepare_again(config, path, key)
        folder, observer = observers(config, folder=path, resumed=checkpoints.latest)
        run(config, data, folder, observer, ledgers, checkpoints=checkpoints, debug=debug)
    return path


def run(
    config: RunConfig,
    data: "FederatedData | SealedData",
    folder: "RunFolder",
    observer: "RunObserver",
    ledgers: Path,
    *,
    name: str = "",
    origin: "Origin | None" = None,
    checkpoints: "Checkpoints | None" = None,
    debug: bool = False,
) -> None:
    """Run a federation of simulated clients on prepared rows.

    Args:
        config: the run; its clients and model are those of `data`.
        data: the rows; what is encrypted is decrypted by its own client, in memory.
        folder: the run's; removed if nothing was started.
        observer: told of everything; `folder` is one of those it tells.
        ledgers: folder of the ledgers.
        name: the run's in the ledgers; empty makes one.
        origin: what the rows are, where no scenario says it.
        checkpoints: the run's; None keeps none, and the run cannot be resumed.
        debug: let Flower and Ray log.

    Raises:
        OutputError: the folder cannot be written.
        PrivacyError: a budget does not allow another round; those before it are kept.
        RunInterrupted: Ctrl-C; the finished rounds are kept.
    """
    _quiet_environment()
    from lepton_flwr.runs.folder import RunInterrupted
    from strategies.exchange import RunInterruptedError
    from strategies.server_app import serve

    def work(grid: "Grid", run_id: int, stop: threading.Event) -> None:
        serve(grid, run_id, config, data, observer, ledgers, stop, name, origin, checkpoints)

    try:
        in_engine(work, len(data.clients), debug)
    except RunInterruptedError:
        raise RunInterrupted(folder.path) from None
    except BaseException:
        folder.discard_unused()
        raise


def in_engine(
    work: Callable[["Grid", int, threading.Event], None],
    clients: int,
    debug: bool = False,
    client_app: "ClientApp | None" = None,
) -> None:
    """Do a server's work among simulated clients, on an engine that exists for as long.

    Args:
        work: takes Flower's grid, the run's number, and what Ctrl-C sets.
        clients: number of clients.
        debug: let Flower and Ray log.
        client_app: what the clients run; None is the real one.

    Raises:
        LeptonError: the engine ended before the work did. What the work raises goes on.
    """
    _quiet_environment()
    from flwr.app import Context
    from flwr.serverapp import ServerApp

    from clients.client_app import app

    server_app = ServerApp()
    stop, ended = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    @server_app.main()
    def main(grid: "Grid", context: Context) -> None:
        try:
            work(grid, context.run_id, stop)
            ended.set()
        except BaseException as error:
            failures.append(error)

    with _quiet(debug):
        _run(server_app, client_app or app, clients, stop, debug)
    if failures:
        raise failures[0]
    if not ended.is_set():
        raise LeptonError("the simulation engine ended before the run did; --debug shows its log")


def _quiet_environment() -> None:
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def _run(
    server_app: object, client_app: object, clients: int, stop: threading.Event, debug: bool
) -> None:
    """Start the engine, and end it with every process it started."""
    with contextlib.nullcontext() if debug else silent_stderr():
        import tensorflow  # noqa: F401 - here, for its libraries write past Python's logging
    import ray
    from flwr.simulation import run_simulation

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Before Flower does, for Ray sets signal handlers of its own.
            ray.init(
                address="local",
                num_cpus=_cores(),
                include_dashboard=False,
                log_to_driver=debug,
                logging_level=logging.INFO if debug else logging.ERROR,
                runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}},
            )
            with _interrupt_sets(stop):
                run_simulation(
                    server_app,
                    client_app,
                    num_supernodes=clients,
                    backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
                    verbose_logging=debug,
                )
    finally:
        ray.shutdown()


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def _interrupt_sets(stop: threading.Event) -> Iterator[None]:
    """Let Ctrl-C end the run at its next exchange; a second one ends it at once."""

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, action in former.items():
            signal.signal(number, action)


@contextlib.contextmanager
def _quiet(debug: bool) -> Iterator[None]:
    """Keep Flower's log from the progress bar."""
    flower = logging.getLogger("flwr")
    level = flower.level
    if not debug:
        flower.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        flower.setLevel(level)

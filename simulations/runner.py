"""Runs an experiment on Flower's simulation engine, in this process and Ray's workers."""

import contextlib
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from lepton_flwr.config import RunConfig
from lepton_flwr.errors import ConfigError, LeptonError

if TYPE_CHECKING:
    from lepton_flwr.data.federated import FederatedData
    from lepton_flwr.runs.checkpoint import Checkpoints
    from lepton_flwr.runs.folder import RunFolder
    from lepton_flwr.runs.observer import RunObserver

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
    config: RunConfig | None,
    out: Path | None = None,
    debug: bool = False,
    ledgers: Path | None = None,
    *,
    resume: Path | None = None,
) -> Path:
    """Run a scenario with simulated clients.

    Args:
        config: the run; None with `resume`.
        out: folder that holds the runs; None is `runs`.
        debug: let Flower and Ray log.
        ledgers: folder of the ledgers of server and clients: what they hold counts against this
            run, and this run against those that come. None is a new one in the run's folder.
        resume: folder of a run that goes on, with its own configuration and ledgers.

    Returns:
        The run's folder.

    Raises:
        ConfigError: the configuration does not fit the scenario.
        DataError: the data cannot be used.
        OutputError: the run's folder cannot be made or written.
        CheckpointError: the run cannot go on.
        PrivacyError: a budget does not allow another round; those before it are kept. If it allows
            none, nothing is started.
        RunInterrupted: Ctrl-C; the finished rounds are kept.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    from flwr.app import Context
    from flwr.serverapp import Grid, ServerApp

    from clients.client_app import app as client_app
    from lepton_flwr.runs.folder import RunInterrupted
    from strategies.exchange import RunInterruptedError
    from strategies.server_app import serve

    if resume is not None:
        prepared = _reopened(resume)
    elif config is not None:
        prepared = _new(config, out, ledgers)
    else:
        raise ConfigError("neither a configuration nor a run that goes on: expected one")
    folder = prepared.folder
    server_app = ServerApp()
    stop, ended = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        try:
            serve(
                grid,
                context.run_id,
                prepared.config,
                prepared.data,
                prepared.observer,
                prepared.ledgers,
                stop,
                prepared.checkpoints,
            )
            ended.set()
        except BaseException as error:
            failures.append(error)

    try:
        with _quiet(debug):
            _run(server_app, client_app, len(prepared.data.clients), stop, debug)
    except BaseException:
        folder.discard_unused()
        raise
    finally:
        prepared.checkpoints.close()
    if failures:
        if isinstance(failures[0], RunInterruptedError):
            raise RunInterrupted(folder.path) from None
        raise failures[0]
    if not ended.is_set():
        raise LeptonError("the simulation engine ended before the run did; --debug shows its log")
    return folder.path


@dataclass(frozen=True)
class _Prepared:
    """A run that can be started."""

    config: RunConfig
    data: "FederatedData"
    folder: "RunFolder"
    observer: "RunObserver"
    ledgers: Path
    checkpoints: "Checkpoints"


def _new(config: RunConfig, out: Path | None, ledgers: Path | None) -> _Prepared:
    from lepton_flwr.data import scenarios
    from strategies.budgets import Budgets
    from strategies.federate import with_noise
    from strategies.server_app import LEDGERS, begin, observers, with_data

    data = scenarios.get(config.scenario).load(config)
    config = with_data(config, data)
    if ledgers is not None:  # refused at once, not after an engine has started
        with contextlib.closing(Budgets.open(ledgers, with_noise(config), "")) as budgets:
            budgets.affordable(config.rounds)
    folder, observer = observers(config, out=out)
    ledgers = ledgers or folder.path / LEDGERS
    checkpoints = begin(folder, config, ledgers)
    return _Prepared(config, data, folder, observer, ledgers, checkpoints)


def _reopened(path: Path) -> _Prepared:
    from lepton_flwr.data import scenarios
    from lepton_flwr.runs.checkpoint import Checkpoints
    from strategies.server_app import ledgers_of, observers

    checkpoints = Checkpoints.reopen(path)
    try:
        config = checkpoints.config
        data = scenarios.get(config.scenario).load(config)
        folder, observer = observers(config, folder=path, resumed=checkpoints.latest)
        ledgers = ledgers_of(checkpoints)
    except BaseException:
        checkpoints.close()
        raise
    return _Prepared(config, data, folder, observer, ledgers, checkpoints)


def _run(
    server_app: object, client_app: object, clients: int, stop: threading.Event, debug: bool
) -> None:
    """Start the engine, and end it with every process it started."""
    with contextlib.nullcontext() if debug else _silent_stderr():
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
def _silent_stderr() -> Iterator[None]:
    """Drop what native code writes to standard error."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


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

"""The ServerApp: reads the run's configuration, and federates.

`flwr run .` on the simulation engine makes its own devices; on a real federation
(`simulated = false`) the devices bring their own keys, policies and data.
"""

import contextlib
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from lepton_flwr.config import RunConfig
from lepton_flwr.config_tables import nest
from lepton_flwr.crypto.identity import ROSTER_FILE, Roster
from lepton_flwr.crypto.recipients import DecryptionKey
from lepton_flwr.data import scenarios
from lepton_flwr.data.federated import FederatedData
from lepton_flwr.data.sealed import SealedData
from lepton_flwr.device import ACTIONS
from lepton_flwr.errors import ConfigError
from lepton_flwr.inference.folder import PollFolder
from lepton_flwr.provision import provision, simulated_folder
from lepton_flwr.runs.artifacts import recipients_of
from lepton_flwr.runs.checkpoint import Checkpoint, CheckpointDamagedError, Checkpoints
from lepton_flwr.runs.folder import RunFolder, SaveModel, new_folder
from lepton_flwr.runs.journal import JOURNAL_FILE, Journal, read
from lepton_flwr.runs.observer import RunObserver
from lepton_flwr.runs.progress import Observers, ProgressBar
from lepton_flwr.runs.prometheus import PrometheusFile
from lepton_flwr.runs.settings import resolve, scenario_defaults
from lepton_flwr.secagg.roles import Members
from lepton_flwr.training.models import ModelSpec, build
from strategies.budgets import DEVICES_POPULATION
from strategies.device_statistics import ask_devices, asked_before
from strategies.federate import Federation, Origin, federate
from strategies.nodes import count_nodes
from strategies.pauses import shorten_pauses
from strategies.polling import Asker, ask
from strategies.preparation import DEVICES, prepare, run_name, spending_policy, with_data
from strategies.roster_files import RosterFiles

# Keys of the app's configuration that are not settings of a run.
CONFIG_FILE = "config-file"
OUT = "out"
ROSTER = "roster"
SIMULATED = "simulated"
LEDGER = "ledger"
POPULATION = "population"
RESUME = "resume"
MODEL_KEY = "model-key"
POLL = "poll"
# Within a run's folder, where no other place is named.
LEDGERS = "ledgers"


def observers(
    config: RunConfig,
    *,
    out: Path | None = None,
    folder: Path | None = None,
    resumed: Checkpoint | None = None,
    progress: bool = True,
) -> tuple[RunFolder, RunObserver]:
    """A run folder below `out`, or `folder` itself, and with it log, metrics and progress display.

    With `resumed` the run in `folder` goes on.
    """
    save_model = model_saver(config)
    kept = RunFolder(config, save_model=save_model, out=out, folder=folder, resumed=resumed)
    listeners = []
    if config.observe.prometheus:
        path = kept.path / config.observe.prometheus  # as it is, if absolute
        log = kept.path / JOURNAL_FILE
        before, _ = read(log) if resumed and log.exists() else ([], 0)
        listeners.append(PrometheusFile(path, kept.path.resolve().name, before))
    shown = [ProgressBar()] if progress else []
    return kept, Observers([kept, Journal(kept.path, listeners), *shown])


def model_saver(config: RunConfig) -> SaveModel:
    """What writes weights as the configuration's model."""
    model = describe_model(config)

    def save_model(weights: Sequence[np.ndarray], path: Path) -> None:
        network = build(model, 0)
        network.set_weights(list(weights))
        with warnings.catch_warnings():  # Keras' own, of how it reads variables
            warnings.simplefilter("ignore", DeprecationWarning)
            network.save(path)

    return save_model


def describe_model(config: RunConfig) -> ModelSpec:
    """The model of a configuration whose `model` is set."""
    kind = scenarios.get(config.scenario).model
    shape, classes = config.model.input_shape, config.model.num_classes
    return ModelSpec(kind, shape, classes, config.train.hidden_units)


def serve(  # noqa: PLR0917
    grid: Grid,
    run_id: int,
    config: RunConfig,
    data: FederatedData | SealedData,
    observer: RunObserver,
    ledgers: Path,
    stop: threading.Event | None = None,
    run: str = "",
    origin: Origin | None = None,
    checkpoints: Checkpoints | None = None,
) -> None:
    """Run a federation of simulated devices, which exist for as long as this takes.

    Their ledgers and the server's are in `ledgers` and stay.
    """
    if origin is None and isinstance(data, FederatedData) and data.population:
        origin = Origin(scenarios.get(config.scenario).title, data.population)
    with simulated_devices(run_id, config, data, ledgers) as roster:
        federation = _federation(config, roster, ledgers, run, origin, checkpoints)
        federate(grid, federation, observer, stop)


def begin(folder: Path, config: RunConfig, ledgers: Path, run: str, **settings: str) -> Checkpoints:
    """Checkpoints of a new run, which say how to start it again."""
    known = {LEDGER: str(ledgers.resolve()), **settings}
    return Checkpoints.new(folder, run, known, recipients_of(config))


def ledgers_of(checkpoints: Checkpoints) -> Path:
    """Where the ledgers of a run that goes on are.

    Raises:
        CheckpointDamagedError: it does not say so.
    """
    named = checkpoints.settings.get(LEDGER)
    if not isinstance(named, str):
        raise CheckpointDamagedError("run.json: damaged: expected the folder of the ledgers")
    return Path(named)


@contextlib.contextmanager
def simulated_devices(
    run_id: int,
    config: RunConfig,
    data: FederatedData | SealedData,
    ledgers: Path,
    actions: Sequence[str] = ACTIONS,
) -> Iterator[Roster]:
    """Folders of simulated devices, for as long as the body runs; their ledgers stay.

    Args:
        run_id: Flower's number of the run.
        config: the run.
        data: one device's rows each.
        ledgers: folder of the ledgers.
        actions: what the devices' policies allow.

    Yields:
        Their roster.
    """
    with simulated_folder(run_id) as root:
        folders = provision(
            root,
            data.clients,
            min_survivors=config.secagg.min_survivors,
            spending=spending_policy(config),
            ledgers=ledgers / DEVICES,
            actions=actions,
        )
        yield Roster.of_authority((folders[0] / ROSTER_FILE).read_bytes())


app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run what `flwr run` was given."""
    shorten_pauses()
    values = dict(context.run_config)
    names = (CONFIG_FILE, OUT, ROSTER, SIMULATED, LEDGER, POPULATION, RESUME, MODEL_KEY, POLL)
    own = {key: str(values.pop(key, None) or "") for key in names}
    simulated = context.run_config.get(SIMULATED) is not False
    if own[RESUME]:
        key = own[MODEL_KEY]
        _resume(grid, Path(own[RESUME]), own[ROSTER], simulated=simulated, model_key=key)
        return
    config = _settings(values, own[CONFIG_FILE])
    if own[POLL]:
        if simulated:
            raise ConfigError(f"{POLL}: expected devices; `lepton poll` asks simulated ones")
        _poll(grid, config, own)
        return
    out = Path(own[OUT]) if own[OUT] else None
    named = Path(own[LEDGER]) if own[LEDGER] else None
    if simulated:
        path = new_folder(out, config.scenario)
        ledgers = named or path / LEDGERS
        made = prepare(replace(config, clients=count_nodes(grid)), path, ledgers)
        _, observer = observers(made.config, folder=path)
        checkpoints = begin(path, made.config, ledgers, made.run)
        serve(
            grid,
            context.run_id,
            made.config,
            made.data,
            observer,
            ledgers,
            run=made.run,
            checkpoints=checkpoints,
        )
        return
    roster = _roster(own[ROSTER])
    if config.table is None and not config.model.input_shape:
        data = scenarios.get(config.scenario).load(config)
        if not isinstance(data, FederatedData):
            raise ConfigError(
                "a table of this server's, not the devices': expected model.input_shape and "
                "model.num_classes of their features, or --schema, what their raw tables hold"
            )
        config = with_data(config, data)
    if config.clients is None:
        config = replace(config, clients=count_nodes(grid))
    path = out or new_folder(None, config.scenario)
    ledgers = named or path / LEDGERS
    run, records = run_name(config, path), _population(own[POPULATION])
    where = {ROSTER: str(Path(own[ROSTER]).resolve()), POPULATION: own[POPULATION]}
    asked = None
    if config.table is not None:
        try:
            asked = ask_devices(
                grid,
                config,
                roster,
                folder=path,
                ledgers=ledgers,
                run=run,
                population=records,
                renew=roster.renew,
            )
        except BaseException:
            with contextlib.suppress(OSError):  # not empty: what was charged stays known
                path.rmdir()
            raise
        config, where = asked.config, where | asked.settings
    _, observer = observers(config, folder=path)
    checkpoints = begin(path, config, ledgers, run, **where)
    federation = _on_devices(config, roster, ledgers, run, records, checkpoints)
    if asked is not None:
        federation = replace(
            federation, preprocessor=asked.preprocessor, sessions_before=asked.sessions
        )
    federate(grid, federation, observer)


def _resume(grid: Grid, path: Path, roster: str, *, simulated: bool, model_key: str = "") -> None:
    key = partial(DecryptionKey.load, Path(model_key)) if model_key else None
    if simulated:
        raise ConfigError(f"{RESUME}: expected a run on devices; `lepton simulate --resume` goes on"
                          " with a simulated one")  # fmt: skip
    with contextlib.closing(Checkpoints.reopen(path, key)) as checkpoints:
        if ROSTER not in checkpoints.settings:
            raise ConfigError(f"{path}: a run of simulated devices: go on with `lepton simulate"
                              " --resume`")  # fmt: skip
        config = checkpoints.config
        members = _roster(roster or str(checkpoints.settings.get(ROSTER, "")))
        ledgers = ledgers_of(checkpoints)
        _, observer = observers(config, folder=path, resumed=checkpoints.latest)
        records = _population(str(checkpoints.settings.get(POPULATION, "")))
        federation = _on_devices(config, members, ledgers, "", records, checkpoints)
        if config.table is not None:
            known = asked_before(path, checkpoints.settings, key)
            federation = replace(federation, preprocessor=known)
        federate(grid, federation, observer)


def _poll(grid: Grid, config: RunConfig, own: Mapping[str, str]) -> None:
    """Ask devices what the folder holds; the command has checked the rest."""
    roster, path = _roster(own[ROSTER]), Path(own[POLL])
    if config.clients is None:
        config = replace(config, clients=count_nodes(grid))
    ledgers = Path(own[LEDGER]) if own[LEDGER] else path / LEDGERS
    model, records = describe_model(config), _population(own[POPULATION])
    ask(grid, Asker(config, model, roster, ledgers, records, roster.renew), PollFolder(path))


def _roster(path: str) -> RosterFiles:
    if not path:
        raise ConfigError(
            f"{ROSTER} is not set: expected the path of the certificate of the devices' authority"
        )
    return RosterFiles(Path(path))


def _population(text: str) -> bytes:
    """The account of runs on devices: one for all that share a ledger, unless it is named."""
    if not text:
        return DEVICES_POPULATION
    try:
        named = bytes.fromhex(text)
    except ValueError:
        named = b""
    if len(named) != len(DEVICES_POPULATION):
        raise ConfigError(f"{POPULATION} of {len(text)} characters: expected 64 hex digits")
    return named


def _on_devices(  # noqa: PLR0917
    config: RunConfig,
    roster: RosterFiles,
    ledgers: Path,
    run: str,
    population: bytes,
    checkpoints: Checkpoints | None,
) -> Federation:
    origin = Origin(scenarios.get(config.scenario).title, population)
    made = _federation(config, roster, ledgers, run, origin, checkpoints)
    return replace(made, renew=roster.renew)


def _federation(  # noqa: PLR0917
    config: RunConfig,
    members: Members,
    ledgers: Path,
    run: str = "",
    origin: Origin | None = None,
    checkpoints: Checkpoints | None = None,
) -> Federation:
    title = scenarios.get(config.scenario).title if origin is None else origin.title
    model = describe_model(config)
    return Federation(config, model, members, title, ledgers, run, origin, checkpoints)


def _settings(values: Mapping[str, Any], config_file: str) -> RunConfig:
    """A file's settings as they are, or else those of the app's configuration."""
    if config_file:
        return resolve(config=Path(config_file))
    return RunConfig.build(scenario_defaults(values.get("scenario")), nest(values))
